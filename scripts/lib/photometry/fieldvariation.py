"""Variation over the field of the fraction of a star's light in an aperture."""

from dataclasses import dataclass, replace

import numpy as np

from lib.core.stats import MAD_TO_SIGMA

WIDE_RADIUS = 3.0
"""[FWHM] Radius of the apertures whose fraction of light does not vary."""

MOST_ERROR = 0.03
"""Relative error above which a star is not used."""

FLOOR = 0.003
"""Relative scatter of stars that is no variation of the profile: pixel phase and response."""

LEAST_VARIATION = 0.003
"""Variations of a smaller rms over the stars are not corrected."""

FALSE_ALARM = 1e-3
"""Probability of a false detection of a variation."""

MIN_STARS = (12, 18)
"""Minimum numbers of stars for a plane and for a quadratic surface."""


@dataclass(frozen=True)
class FieldVariation:
    """A polynomial surface in ln(fraction of light), with mean 0 over its stars.

    Parameters
    ----------
    degree : int
        Degree of the polynomial, 1 or 2.
    coefficients : ndarray, shape (k,)
        Coefficients of the terms of `_terms`.
    covariance : ndarray, shape (k, k)
        Covariance of the coefficients.
    centre : tuple of float
        x, y of the origin of the terms [pixel].
    scale : float
        Unit of x and y in the terms [pixel].
    limits : tuple of float
        Smallest and largest value at a star; the surface is clipped to them.
    rms : float
        Rms of the surface over the stars.
    """

    degree: int
    coefficients: np.ndarray
    covariance: np.ndarray
    centre: tuple[float, float]
    scale: float
    limits: tuple[float, float]
    rms: float

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the relative fraction of light at positions, and its relative error."""
        terms = _terms(x, y, self.centre, self.scale, self.degree)
        value = np.clip(terms @ self.coefficients, *self.limits)
        variance = np.einsum("ij,jk,ik->i", terms, self.covariance, terms)
        return np.exp(value), np.sqrt(np.maximum(variance, 0))

    def centred_on(self, x: np.ndarray, y: np.ndarray) -> "FieldVariation":
        """Return the surface shifted to mean 0 over some positions."""
        if not len(x):
            return self
        shift = float(np.mean(np.log(self.at(x, y)[0])))
        coefficients = self.coefficients.copy()
        coefficients[0] -= shift
        limits = (self.limits[0] - shift, self.limits[1] - shift)
        return replace(self, coefficients=coefficients, limits=limits)


def _terms(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], scale: float, degree: int
) -> np.ndarray:
    u, v = (np.asarray(x, float) - centre[0]) / scale, (np.asarray(y, float) - centre[1]) / scale
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([u**i * v**j for i, j in powers], axis=1)


def fit_variation(
    x: np.ndarray, y: np.ndarray, part: np.ndarray, error: np.ndarray
) -> FieldVariation | None:
    """Fit the variation over the field of the fraction of light in an aperture.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions of the stars [pixel].
    part : ndarray, shape (n,)
        Flux in the aperture over that in a wide one.
    error : ndarray, shape (n,)
        Relative error of `part`.

    Returns
    -------
    FieldVariation or None
        None where it is not significant, is too small to matter, or has too few stars.
    """
    from scipy.special import fdtrc

    good = (part > 0) & (error < MOST_ERROR) & np.isfinite(part)
    x, y, value = x[good], y[good], np.log(part[good])
    weight = 1 / (error[good] ** 2 + FLOOR**2)
    best: tuple[float, FieldVariation] | None = None
    for degree, least in zip((1, 2), MIN_STARS, strict=True):
        if len(x) < least:
            break
        centre, scale = (float(x.mean()), float(y.mean())), float(max(np.ptp(x), np.ptp(y), 1) / 2)
        terms = _terms(x, y, centre, scale, degree)
        kept = np.ones(len(x), bool)
        fitted = np.full(len(x), np.average(value, weights=weight))
        coefficients, normal = np.zeros(terms.shape[1]), np.eye(terms.shape[1])
        for _ in range(6):
            w = np.where(kept, weight, 0)
            normal = (terms * w[:, None]).T @ terms
            coefficients = np.linalg.lstsq(normal, terms.T @ (w * value), rcond=None)[0]
            fitted = terms @ coefficients
            pull = (value - fitted) * np.sqrt(weight)
            limit = 4 * max(1.0, MAD_TO_SIGMA * float(np.median(np.abs(pull))))
            kept = np.abs(pull) < limit
        number, k = int(kept.sum()), terms.shape[1]
        if number < k + 4:
            continue
        mean = np.average(value[kept], weights=weight[kept])
        before = np.sum(weight[kept] * (value[kept] - mean) ** 2)
        after = np.sum(weight[kept] * (value[kept] - fitted[kept]) ** 2)
        noise = after / (number - k)
        ratio = (before - after) / (k - 1) / max(noise, 1e-12)
        if fdtrc(k - 1, number - k, max(ratio, 0.0)) > FALSE_ALARM:
            continue
        # The growth curve has the mean profile: only departures from it count.
        shift = np.average(fitted[kept], weights=weight[kept])
        coefficients[0] -= shift
        fitted = fitted - shift
        rms = float(np.sqrt(np.average(fitted[kept] ** 2, weights=weight[kept])))
        if rms < LEAST_VARIATION or (best is not None and noise > 0.9 * best[0]):
            continue
        covariance = np.linalg.pinv(normal) * max(noise, 1.0)
        limits = (float(fitted[kept].min()), float(fitted[kept].max()))
        best = noise, FieldVariation(degree, coefficients, covariance, centre, scale, limits, rms)
    return best[1] if best else None
