"""The growth curve: which part of a star's light lies within a radius."""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.psf import (
    Wings,
    fit_bounded,
    moffat_alpha,
    moffat_fraction,
    moffat_slopes,
    squares_about,
)
from lib.photometry.starmodels import tile_sums

RING_FLOOR = 0.002
"""Stars of one image differ by so much in a ring: keeps the brightest from deciding alone."""

SKY_ERROR = 0.005
"""Error of a background, in units of the noise of a pixel."""


@dataclass
class GrowthCurve:
    """Part of a star's total light within a radius.

    Measured in rings up to `radii[-1]`; what lies beyond follows the wings of a Moffat profile
    fitted to the outer rings.

    Parameters
    ----------
    radii : ndarray
        Aperture radii [pixel].
    cumulative : ndarray
        Flux within `radii` in units of that within `reference`.
    reference : float
        Radius the curve is normalised at [pixel].
    alpha, beta, norm : float
        Wings: `norm` times a Moffat profile.
    total : float
        Total flux in units of that within `reference`.
    error : float
        Standard error of ln(`total`), with a fifth of what lies beyond the last ring.
    n_stars : int
        0: no star was fit, the curve is that of a Moffat profile with beta 3.
    """

    radii: np.ndarray
    cumulative: np.ndarray
    reference: float
    alpha: float
    beta: float
    norm: float
    total: float
    error: float
    n_stars: int

    def wings(self, shape=(0.0, 0.0)):
        """Return the wings for a point-spread function of some ellipticity (`mean_shape`)."""
        return Wings(self.alpha, self.beta, self.norm / self.total, *shape)

    def fraction(self, radius):
        """Return the part of the total light within `radius` [pixel]."""
        radius = np.asarray(radius, float)
        inner = np.interp(
            radius**2, np.append(0, self.radii**2), np.append(0, self.cumulative)
        )  # linear in area: exact in a flat core
        wings = moffat_fraction(radius, self.alpha, self.beta)
        wings = wings - moffat_fraction(self.reference, self.alpha, self.beta)
        outer = 1.0 + self.norm * wings
        return np.where(radius < self.reference, inner, outer) / self.total


def growth_curve(
    image, noise, x, y, flux, isolation, fwhm, gain=0.0, segments=None, numbers=None, reach=0,
    max_stars=40, models=None, one_noise=None,
):  # fmt: skip
    """Measure the growth curve of the stars of an image.

    Ring fluxes of each star over its flux within 1.5 FWHM are averaged with inverse-variance
    weights and clipping; a Moffat profile is fitted to the rings outside 0.75 FWHM and gives the
    light beyond the last one.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray
        Standard deviation of a pixel.
    x, y : ndarray, shape (n,)
        Stars.
    flux : ndarray, shape (n,)
        To tell which are the brightest.
    isolation : ndarray, shape (n,)
        Distance to the next source that matters [pixel].
    fwhm : float
        Pixels.
    gain : float
        Electrons per unit.
    segments, numbers : ndarray of int, optional
        Map of sources, and the number in it of each star: pixels of other sources are replaced by
        the mean of their ring.
    reach : int
        Sources of the map are grown by so many pixels: a sixth of the light of a faint star lies
        outside its isophote.
    max_stars : int
        The brightest so many are used.
    models : lib.photometry.starmodels.StarModels, optional
        Of all sources, in the order of their numbers, which have been taken away from `image`:
        that of each star is added where it is measured.
    one_noise : float, optional
        Median of `noise`.

    Returns
    -------
    GrowthCurve
    """
    factors = np.array([0.4, 0.5, 0.6, 0.75, 0.9, 1.05, 1.2, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
    reference_at = int(np.flatnonzero(factors == 1.5)[0])
    radii = factors * fwhm
    ny, nx = image.shape
    edge = np.minimum.reduce([x, y, nx - 1 - x, ny - 1 - y])
    fallback = _assumed_curve(radii, radii[reference_at], fwhm)
    # Stars alone to the last ring; in a crowded field those alone to a nearer one.
    for last in (len(radii), len(radii) - 1, len(radii) - 3, len(radii) - 5):
        far = radii[last - 1]
        lonely = (isolation > far + 1.5 * fwhm) & (edge > far + 1)
        if lonely.sum() >= 5:
            break
    else:
        if lonely.sum() < 2:
            return fallback
    radii = radii[:last]
    index = np.flatnonzero(lonely)
    index = index[np.argsort(-flux[index], kind="stable")[:max_stars]]
    rings, variance = ring_fluxes(
        image, noise, x[index], y[index], radii, gain, segments,
        None if numbers is None else numbers[index], reach, models,
    )  # fmt: skip
    inside = slice(None, reference_at + 1)
    normal = rings[:, inside].sum(axis=1, keepdims=True)
    good = normal[:, 0] > 20 * np.sqrt(variance[:, inside].sum(axis=1))
    if good.sum() < 2:
        return fallback
    rings, variance, normal = rings[good], variance[good], normal[good]
    rings, variance = rings / normal, variance / normal**2
    mean, sigma = clipped_mean(rings, variance, RING_FLOOR)
    cumulative = np.cumsum(mean)
    cumulative /= cumulative[reference_at]

    outer = np.flatnonzero(radii > 0.8 * fwhm)
    inner_edge = np.append(0, radii)[outer]
    outer_edge = radii[outer]
    sigma = np.maximum(sigma[outer], 2e-4)
    beta0 = 3.0
    # What an error of the background of SKY_ERROR of a pixel's noise adds to each ring.
    weight = 1.0 / (variance[:, outer] + RING_FLOOR**2)
    inverse = (weight / normal).sum(axis=0) / weight.sum(axis=0)
    area = np.pi * (outer_edge**2 - inner_edge**2)
    lift = SKY_ERROR * float(np.median(noise) if one_noise is None else one_noise) * area * inverse

    def misfit(p):
        alpha, beta, norm = np.exp(p[:3])
        wing = moffat_fraction(outer_edge, alpha, beta) - moffat_fraction(inner_edge, alpha, beta)
        along = [norm * (far - near) for far, near in zip(
            moffat_slopes(outer_edge, alpha, beta), moffat_slopes(inner_edge, alpha, beta),
            strict=True,
        )]  # fmt: skip
        # A weak prior on beta keeps the wings sane where they are all noise.
        prior = [np.log(beta / beta0) / 0.5, p[3]]
        slopes = np.stack([*along, norm * wing, lift], axis=1) / sigma[:, None]
        return (
            np.append((norm * wing + p[3] * lift - mean[outer]) / sigma, prior),
            np.vstack([slopes, [[0, 2.0, 0, 0], [0, 0, 0, 1.0]]]),
        )

    start = np.append(np.log([moffat_alpha(fwhm, beta0), beta0, 1.05]), 0.0)
    span = np.append(np.log([4.0, 6.0, 1.6]), 5.0)
    try:
        best, residual, slopes = fit_bounded(misfit, start, start - span, start + span)
    except (RuntimeError, np.linalg.LinAlgError):
        return fallback
    alpha, beta, norm = np.exp(best[:3])

    def total(p):
        return 1.0 + np.exp(p[2]) * (
            1.0 - moffat_fraction(radii[reference_at], np.exp(p[0]), np.exp(p[1]))
        )

    covariance = np.linalg.pinv(slopes.T @ slopes) * max(
        1.0, residual @ residual / max(1, len(outer) - 2)
    )
    step = 1e-4
    slope = np.array([(total(best + step * e) - total(best - step * e)) for e in np.eye(4)])
    slope /= 2 * step
    whole = total(best)
    beyond = norm * (1.0 - moffat_fraction(radii[-1], alpha, beta)) / whole
    error = np.sqrt(max(0.0, slope @ covariance @ slope) / whole**2 + (0.2 * beyond) ** 2)
    return GrowthCurve(
        radii, cumulative, float(radii[reference_at]), float(alpha), float(beta), float(norm),
        float(whole), float(error), int(good.sum()),
    )  # fmt: skip


def ring_fluxes(
    image, noise, x, y, radii, gain=0.0, segments=None, numbers=None, reach=0, models=None
):
    """Sum rings about stars, the pixels of other sources replaced by the mean of the ring.

    Parameters
    ----------
    image, noise, x, y, gain
        As for `aperture_fluxes`.
    radii : ndarray, shape (k,)
        Outer radii; the first ring is a disc [pixel].
    segments, numbers : ndarray of int, optional
        Map of sources, and the number in it of each star.
    reach, models
        As for `growth_curve`.

    Returns
    -------
    flux, variance : ndarray, shape (n, k)
    """
    half = int(np.ceil(radii[-1])) + 2
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    # A star has its rings on the image: what is repeated lies beyond them.
    where = squares_about(column, row, half, image.shape)
    tiles = image[where]
    if models is not None:
        tiles += models.light(numbers - 1, half)
    options = {"err": noise[where] if np.ndim(noise) else noise, "gain": gain or None}
    if segments is not None:
        around = squares_about(column, row, half + reach, image.shape)
        map_there = _grown(segments[around], reach)
        options |= {"segmap": map_there, "seg_id": numbers.astype(np.int32)}
    flux = np.empty((len(x), len(radii)))
    variance = np.empty_like(flux)
    for k, (inner, outer) in enumerate(zip([0.0, *radii[:-1]], radii, strict=True)):
        flux[:, k], error = tile_sums(tiles, x - column, y - row, outer, inner, **options)
        variance[:, k] = error**2
    return flux, variance


def _grown(segments, reach):
    """Return squares of a map of sources, each source grown into the empty sky.

    Parameters
    ----------
    segments : ndarray of int, shape (n, m + 2 reach, m + 2 reach)
    reach : int

    Returns
    -------
    ndarray of int, shape (n, m, m)
        Without the rim: in an empty pixel the highest number within `reach` along both axes.
    """
    if not reach:
        return segments
    size = segments.shape[1] - 2 * reach
    steps = range(2 * reach + 1)
    largest = np.maximum.reduce([segments[:, k : k + size] for k in steps])
    largest = np.maximum.reduce([largest[:, :, k : k + size] for k in steps])
    own = segments[:, reach:-reach, reach:-reach]
    return np.where(own > 0, own, largest)


def _assumed_curve(radii, reference, fwhm, beta=3.0):
    """Return the growth curve of a Moffat star, good to some 3 % between real ones."""
    alpha = moffat_alpha(fwhm, beta)
    light = moffat_fraction(radii, alpha, beta)
    part = float(moffat_fraction(reference, alpha, beta))
    return GrowthCurve(
        np.asarray(radii), light / part, float(reference), alpha, beta, 1 / part, 1 / part, 0.03, 0
    )


def clipped_mean(values, variance, floor=0.0, sigma=3.0, iterations=4):
    """Return the inverse-variance weighted mean of each column, outliers left out.

    Parameters
    ----------
    values, variance : ndarray, shape (n, k)
    floor : float
        Added to the errors in quadrature for the weights and the clipping.
    sigma : float
        Clipping, in units of the larger of the stated error and the robust scatter.

    Returns
    -------
    mean, error : ndarray, shape (k,)
        The error is the larger of the propagated one and that from the scatter.
    """
    padded = variance + floor**2
    weight = 1.0 / padded
    kept = np.ones(values.shape, bool)
    centre = np.median(values, axis=0)
    for _ in range(iterations):
        scatter = MAD_TO_SIGMA * np.median(np.abs(values - centre), axis=0)
        kept = np.abs(values - centre) <= sigma * np.maximum(np.sqrt(padded), scatter)
        w = np.where(kept, weight, 0.0)
        sum_w = np.maximum(w.sum(axis=0), 1e-300)
        centre = np.where(kept.any(axis=0), (w * values).sum(axis=0) / sum_w, centre)
    n = kept.sum(axis=0)
    spread = (w * (values - centre) ** 2).sum(axis=0) / sum_w
    stated = np.sqrt((w**2 * variance).sum(axis=0)) / sum_w
    error = np.maximum(stated, np.sqrt(spread / np.maximum(n - 1, 1)))
    return centre, error
