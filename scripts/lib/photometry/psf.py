"""The point-spread function: Moffat profiles and their fit, and the wings of stars."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lib.photometry.apertures import squares_about

RING_WIDTH = 0.25
"""Width of the rings of a radial profile [pixel]."""

PROFILE_RADIUS = 2.5
"""Outer radius of radial profiles [first guess of the FWHM]."""

MIN_RING_PIXELS = 3
"""Rings of fewer pixels are left out of a profile."""

MIN_RINGS = 6
"""Minimum number of rings of a profile."""

FIT_TOLERANCE = 1e-10
"""Relative change of the parameters and of the sum of squares, and gradient, at which a fit has
converged."""

Misfit = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes the parameters; returns the residuals, shape (m,), and their derivatives, shape (m, k)."""


def moffat_fraction(radius: ArrayLike, alpha: float, beta: float) -> np.ndarray:
    """Return the fraction of a Moffat star's light within a radius: 1 - (1 + r^2/alpha^2)^(1-beta).

    The profile is that of Moffat (1969, A&A 3, 455), (1 + r^2/alpha^2)^-beta.

    Parameters
    ----------
    radius : array_like
        Radius, in the unit of `alpha`.
    alpha, beta : float
        Scale radius and exponent of the profile.

    Returns
    -------
    ndarray
        Fraction of the light, of the shape of `radius`.
    """
    return 1.0 - (1.0 + (np.asarray(radius, float) / alpha) ** 2) ** (1.0 - beta)


def moffat_fwhm(alpha: float, beta: float) -> float:
    """Return the full width at half maximum of a Moffat profile, in the unit of `alpha`."""
    return 2.0 * alpha * np.sqrt(2.0 ** (1.0 / beta) - 1.0)


def moffat_alpha(fwhm: float, beta: float) -> float:
    """Return the scale radius of a Moffat profile of a given FWHM, in the same unit."""
    return fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))


def moffat_slopes(radius: ArrayLike, alpha: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of `moffat_fraction` by ln(alpha) and ln(beta)."""
    square = (np.asarray(radius, float) / alpha) ** 2
    log = np.log1p(square)
    wings = np.exp((1.0 - beta) * log)
    return 2.0 * (1.0 - beta) * square * wings / (1.0 + square), beta * log * wings


def fit_bounded(
    model: Misfit, start: ArrayLike, low: ArrayLike, high: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a model of a few parameters within bounds by least squares.

    Calls `scipy.optimize.least_squares`, for models that compute their residuals and derivatives
    together.

    Parameters
    ----------
    model : callable
        Takes the parameters; returns the residuals, shape (m,), and their derivatives, shape (m,
        k).
    start, low, high : array_like, shape (k,)
        Starting values and bounds; starting values out of bounds are moved to the bound.

    Returns
    -------
    parameters : ndarray, shape (k,)
        The best fit.
    residual : ndarray, shape (m,)
        Residuals at the best fit.
    slopes : ndarray, shape (m, k)
        Derivatives of the residuals at the best fit.

    Raises
    ------
    RuntimeError
        The fit did not converge within the maximum number of iterations.
    ValueError
        The residuals are not finite.
    """
    from scipy.optimize import least_squares

    def residuals(point: np.ndarray) -> np.ndarray:
        return model(point)[0]

    def derivatives(point: np.ndarray) -> np.ndarray:
        return model(point)[1]

    found = least_squares(
        residuals, np.clip(start, low, high), derivatives, bounds=(low, high), x_scale="jac",
        ftol=FIT_TOLERANCE, xtol=FIT_TOLERANCE, gtol=FIT_TOLERANCE,
    )  # fmt: skip
    if not found.success:
        raise RuntimeError(found.message)
    return found.x, found.fun, found.jac


class RadialProfile(NamedTuple):
    """Mean radial profile of stars, normalised to flux 1.

    Parameters
    ----------
    radius, brightness : ndarray, shape (n,)
        Median radius [pixel] and surface brightness [pixel^-2] in each ring.
    weight : ndarray, shape (n,)
        Square root of the number of pixels in each ring.
    """

    radius: np.ndarray
    brightness: np.ndarray
    weight: np.ndarray


def radial_profile(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, max_stars: int
) -> RadialProfile | None:
    """Return the median profile of stars in rings of a quarter of a pixel, normalised to flux 1.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Background-subtracted image.
    x, y, flux : ndarray, shape (n,)
        Positions of the stars [pixel], and the fluxes they are normalised by.
    fwhm : float
        FWHM [pixel]; profiles end at 2.5 times this.
    max_stars : int
        Maximum number of stars, the brightest first.

    Returns
    -------
    RadialProfile, or None where less than six rings have pixels.
    """
    half = int(np.ceil(PROFILE_RADIUS * fwhm)) + 1
    inside = (
        (x > half + 1) & (y > half + 1)
        & (x < image.shape[1] - half - 2) & (y < image.shape[0] - half - 2) & (flux > 0)
    )  # fmt: skip
    chosen = np.flatnonzero(inside)
    chosen = chosen[np.argsort(-flux[chosen])[:max_stars]]
    if chosen.size == 0:
        return None
    offsets = np.arange(-half, half + 1)
    column = np.rint(x[chosen]).astype(int)
    row = np.rint(y[chosen]).astype(int)
    cutouts = image[squares_about(column, row, half, image.shape)]
    radius = np.hypot(
        (row - y[chosen])[:, None, None] + offsets[None, :, None],
        (column - x[chosen])[:, None, None] + offsets[None, None, :],
    )
    rings = int(PROFILE_RADIUS * fwhm / RING_WIDTH) + 1
    near = radius < RING_WIDTH * rings
    value = (cutouts / flux[chosen][:, None, None])[near]
    radius = radius[near]
    # Sorted within each ring; small integers sort fast.
    ring = (radius / RING_WIDTH).astype(np.uint8 if rings < 256 else np.int64)
    order = np.argsort(value)
    value = value[order[np.argsort(ring[order], kind="stable")]]
    radius.sort()
    count = np.bincount(ring, minlength=rings)
    begin = np.cumsum(count) - count
    several = count >= MIN_RING_PIXELS
    if several.sum() < MIN_RINGS:
        return None
    middle = [(begin + (count - odd) // 2)[several] for odd in (1, 0)]
    radius, value = (0.5 * (ranked[middle[0]] + ranked[middle[1]]) for ranked in (radius, value))
    return RadialProfile(radius, value, np.sqrt(count[several]))


def fit_profile(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, guess: float,
    max_stars: int = 60,
) -> tuple[float, float]:  # fmt: skip
    """Fit a circular Moffat profile to the mean radial profile of stars.

    The profile is a median over all stars, so that the neighbours of single stars do not matter.

    Parameters
    ----------
    image, x, y, flux, max_stars
        As for `radial_profile`.
    guess : float
        First guess of the FWHM [pixel].

    Returns
    -------
    fwhm, beta : float
        FWHM [pixel] and exponent of the profile; NaN where the fit fails.
    """
    profile = radial_profile(image, x, y, flux, guess, max_stars)
    if profile is None:
        return np.nan, np.nan

    def misfit(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top, alpha, beta = p
        square = (profile.radius / alpha) ** 2
        shape = (1 + square) ** -beta
        slopes = np.stack(
            [shape, 2 * beta * top * shape * square / (1 + square) / alpha,
             -top * shape * np.log1p(square)], axis=1,
        )  # fmt: skip
        weight = profile.weight
        return weight * (top * shape - profile.brightness), weight[:, None] * slopes

    try:
        (_, alpha, beta), _, _ = fit_bounded(
            misfit, (profile.brightness.max(), moffat_alpha(guess, 3.0), 3.0),
            (0, 0.2, 1.1), (np.inf, 20 * guess, 50.0),
        )  # fmt: skip
    except (RuntimeError, ValueError):
        return np.nan, np.nan
    return float(moffat_fwhm(alpha, beta)), float(beta)


@dataclass(frozen=True)
class Wings:
    """Light of a star outside its core: `norm` times an elliptical Moffat profile.

    Parameters
    ----------
    alpha : float
        Scale radius [pixel].
    beta : float
        Exponent of the profile.
    norm : float
        Normalisation, in units of the star's total flux.
    e1, e2 : float
        Components of the ellipticity along x and along the diagonal, as from `mean_shape`.
    """

    alpha: float
    beta: float
    norm: float
    e1: float = 0.0
    e2: float = 0.0

    def density(self, dx: float | np.ndarray, dy: float | np.ndarray) -> np.ndarray:
        """Return the surface brightness of a star of total flux 1 [pixel^-2].

        Parameters
        ----------
        dx, dy : float or ndarray
            Offset from the centre of the star [pixel].
        """
        unit = self.alpha**2 * np.sqrt(1 - self.e1**2 - self.e2**2)
        r2 = ((1 - self.e1) / unit) * dx**2 + ((1 + self.e1) / unit) * dy**2
        if self.e2:
            r2 -= (2 * self.e2 / unit) * dx * dy
        r2 += 1
        r2 **= -self.beta
        r2 *= self.norm * (self.beta - 1) / (np.pi * self.alpha**2)
        return r2

    def aperture_share(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the fraction of a star's light in circular apertures at various distances from it.

        The profile, with its ellipticity removed, is sampled on rings of equal area at 24 angles.

        Returns
        -------
        distance, part : ndarray, shape (81,)
            Distances up to four radii [pixel] and the fraction at each, to be interpolated.
        """
        rho = radius * np.sqrt((np.arange(60) + 0.5) / 60)[:, None]
        phi = 2 * np.pi * (np.arange(24) + 0.5) / 24
        at = np.linspace(0, 4 * radius, 81)
        density = Wings(self.alpha, self.beta, self.norm).density
        mean = density(at[:, None, None] + rho * np.cos(phi), rho * np.sin(phi)).mean(axis=(1, 2))
        return at, np.pi * radius**2 * mean

    def reach(self, density: np.ndarray) -> np.ndarray:
        """Return the radius [pixel] where a star of total flux 1 has a given surface brightness.

        `density` is the surface brightness [pixel^-2].
        """
        top = np.maximum(self.norm * (self.beta - 1) / (np.pi * self.alpha**2 * density), 1.0)
        return self.alpha * np.sqrt(top ** (1 / self.beta) - 1)


def mean_shape(a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> tuple[float, float]:
    """Return the mean ellipticity of stars: its components along x and along the diagonal.

    The ellipticity is (a^2 - b^2) / (a^2 + b^2) times the cosine and sine of twice the position
    angle, known as distortion in weak lensing (Bernstein & Jarvis 2002, AJ 123, 583). Unlike that
    of 1 - b/a, its mean is not biased by noise.

    Parameters
    ----------
    a, b : ndarray, shape (n,)
        Semi-axes of the stars.
    theta : ndarray, shape (n,)
        Angle of the major axis from the x axis [radian].

    Returns
    -------
    e1, e2 : float
        Components of the mean ellipticity; 0, 0 without stars.
    """
    if len(a) == 0:
        return 0.0, 0.0
    size = np.minimum((a**2 - b**2) / (a**2 + b**2), 0.9)
    return float(np.median(size * np.cos(2 * theta))), float(np.median(size * np.sin(2 * theta)))


def ellipticity_on_sky(
    a: np.ndarray, b: np.ndarray, theta: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Return 1 - b/a of ellipses as projected on the sky, whatever the shape of the pixels.

    Parameters
    ----------
    a, b : ndarray, shape (n,)
        Semi-axes on the image [pixel].
    theta : ndarray, shape (n,)
        Angle of the major axis from the x axis [radian].
    matrix : ndarray, shape (2, 2)
        Matrix from pixel to sky offsets, in any unit.

    Returns
    -------
    ndarray, shape (n,)
    """
    cos, sin = np.cos(theta), np.sin(theta)
    axes = np.stack([np.stack([a * cos, -b * sin], -1), np.stack([a * sin, b * cos], -1)], -2)
    scaled = np.asarray(matrix) / np.sqrt(abs(np.linalg.det(matrix)))
    lengths = np.linalg.svd(scaled @ axes.astype(float), compute_uv=False)
    return 1 - lengths[:, 1] / lengths[:, 0]


@dataclass(frozen=True)
class CoreAperture:
    """The inner aperture, in which faint stars are measured.

    Parameters
    ----------
    radius : float
        Radius [pixel].
    fraction : float
        Fraction of a star's total light within it.
    scatter : float
        Relative scatter of that fraction among stars.
    """

    radius: float
    fraction: float
    scatter: float


@dataclass(frozen=True)
class StarAperture:
    """A circular aperture, with its aperture correction and the profile of a star outside it.

    Parameters
    ----------
    radius : float
        Radius [pixel].
    fraction : float
        Fraction of a star's total light within it: sums divided by it are total fluxes.
    wings : Wings
        Profile of the light outside the core.
    core : CoreAperture, optional
        The inner aperture, where it was measured.
    """

    radius: float
    fraction: float
    wings: Wings
    core: CoreAperture | None = None

    def inner(self) -> "StarAperture":
        """Return the core as an aperture of its own; this aperture where there is no core."""
        if self.core is None:
            return self
        return StarAperture(self.core.radius, self.core.fraction, self.wings)
