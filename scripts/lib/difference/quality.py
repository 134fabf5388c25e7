"""How good a difference image is: its noise, its depth, and what is left of stars."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter

from lib.difference.matched import convolved
from lib.difference.planes import Plane
from lib.difference.regions import Regions
from lib.difference.significance import PointFluxes, calibrated, fit_points
from lib.difference.stars import SharedStars
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area

PULL_RADIUS = 1.5
"""[FWHM] Radius of the empty apertures in which the weight is made right."""

MIN_APERTURES = 30
"""Minimum number of empty apertures for a noise measurement."""

BRIGHT = 50.0
"""S/N of stars that tell what a subtraction leaves of a star's light."""

HUNDREDTH = 2.576
"""[sigma] That a hundredth of normal values exceed."""

ABOUT = 4.0
"""[FWHM] So far about bright stars it is looked for what is left of them."""

PEAK = 2.0
"""[sigma] Highest of the noise within a FWHM of a place, about."""


@dataclass(frozen=True)
class Difference:
    """A difference image in the units of the coadd.

    Parameters
    ----------
    image, variance : ndarray of float32, shape (ny, nx)
        The variance, with the photon noise of all sources, is right for sums over apertures; 0
        where there is no difference.
    stamps : ndarray, shape (nodes, s, s)
        Image of a point source of flux 1.
    regions : Regions
    fwhm : float
        FWHM of point sources [pixel].
    fluxes : PointFluxes
        A point source fitted at each pixel; errors as empty places have them.
    left : float
        Part of a star's light that is left as a point source, about.
    light : ndarray of float32, shape (ny, nx)
        Light that did not change, as the flux of a point source: `left` of it may be there still.
    pull : float
        Scatter of empty apertures over their errors, of other apertures than made them right.
    apertures : int
        Number of them; 0 where there was no room.
    chi : float
        Scatter of the significance about bright stars, 1 where only noise is left: by the value
        that a hundredth of the pixels there exceed.
    expected : float
        Noise of empty apertures over that by the weights of both images; NaN where not measured.
    """

    image: np.ndarray
    variance: np.ndarray
    stamps: np.ndarray
    regions: Regions
    fwhm: float
    fluxes: PointFluxes
    left: float
    light: np.ndarray
    pull: float
    apertures: int
    chi: float
    expected: float = np.nan

    @property
    def error(self) -> np.ndarray:
        """Error of the flux of a point source, with what is left of stars and hosts."""
        return np.hypot(self.fluxes.error, np.float32(self.left) * self.light)

    @property
    def significance(self) -> np.ndarray:
        """Flux of a point source over `error`."""
        return (self.fluxes.flux / self.error).astype(np.float32)

    def depth(self, empty: np.ndarray) -> float:
        """Return the median error of a point source on empty sky."""
        errors = self.fluxes.error[empty]
        errors = errors[np.isfinite(errors)]
        return float(np.median(errors)) if errors.size else np.nan


def assess(
    image: np.ndarray, variance: np.ndarray, stamps: np.ndarray, regions: Regions, fwhm: float,
    planes: tuple[Plane, Plane], occupied: np.ndarray, stars: SharedStars,
) -> Difference:  # fmt: skip
    """Calibrate the noise of a difference image and measure the residuals of stars.

    Parameters
    ----------
    image, variance, stamps, regions, fwhm
        As for `Difference`, the variance up to a factor.
    planes : tuple of Plane
        Coadd and template in the same units.
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources in either.
    stars : SharedStars

    Returns
    -------
    Difference
    """
    occupied = occupied | (variance <= 0)
    radius, total = PULL_RADIUS * fwhm, summed_area(occupied)
    pull, number, expected = np.nan, 0, np.nan
    # Whole pixels, so that the sum of the map is the variance of independent ones.
    x, y = empty_apertures(total, radius, seed=1)
    if x.size >= MIN_APERTURES:
        expected = aperture_noise(image, variance, x, y, radius, 1)[1]
        variance = variance * np.float32(expected**2)
        x, y = empty_apertures(total, radius, seed=2)
        pull, number = aperture_noise(image, variance, x, y, radius, 1)[1], int(x.size)
    fluxes, _ = calibrated(fit_points(image, variance, stamps, regions), ~occupied)
    light = unchanged_light(planes, stamps, regions, fwhm)
    bare = Difference(
        image,
        variance,
        stamps,
        regions,
        fwhm,
        fluxes,
        0.0,
        light,
        pull,
        number,
        np.nan,
        expected,
    )
    there = near_stars(bare, stars) & (variance > 0) & np.isfinite(fluxes.error)
    size = np.abs(fluxes.significance[there])
    chi = float(np.quantile(size, 0.99)) / HUNDREDTH if size.size else np.nan
    return replace(bare, left=residual_at_stars(bare, stars), chi=chi)


def unchanged_light(
    planes: tuple[Plane, Plane], stamps: np.ndarray, regions: Regions, fwhm: float
) -> np.ndarray:
    """Return the light that both images have, as the flux of a point source, within a FWHM."""
    turned = stamps[:, ::-1, ::-1]
    unit = turned / (turned**2).sum(axis=(1, 2))[:, None, None]
    least = np.minimum(*(np.where(one.bad, 0, one.image) for one in planes))
    found = convolved(least, unit, regions)
    return maximum_filter(np.maximum(found, 0), size=2 * max(1, round(0.5 * fwhm)) + 1)


def near_stars(difference: Difference, stars: SharedStars) -> np.ndarray:
    """Return the pixels about bright stars, but for those about stars that vary.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    row, column = np.rint(stars.y).astype(int), np.rint(stars.x).astype(int)
    error = difference.fluxes.error[row, column]
    bright = stars.constant & (stars.flux > BRIGHT * error)
    if not bright.any():
        bright = stars.constant

    def around(which: np.ndarray) -> np.ndarray:
        seeds = np.zeros(difference.image.shape, bool)
        seeds[row[which], column[which]] = True
        return maximum_filter(seeds, size=2 * round(ABOUT * difference.fwhm) + 1)

    return around(bright) & ~around(~stars.constant)


def residual_at_stars(difference: Difference, stars: SharedStars) -> float:
    """Return which part of a star's light is left.

    The part is that of the highest or lowest fit within half a FWHM of stars that do not vary,
    beyond the noise: what is left of a star often has its extremes beside it.

    Parameters
    ----------
    difference : Difference
    stars : SharedStars

    Returns
    -------
    float
        0 where no star is bright enough.
    """
    row, column = np.rint(stars.y).astype(int), np.rint(stars.x).astype(int)
    error = difference.fluxes.error[row, column]
    good = stars.constant & np.isfinite(error)
    size = 2 * max(1, round(0.5 * difference.fwhm)) + 1
    bright = good & (stars.flux > BRIGHT * error)
    if bright.sum() < 3:
        bright = good & (stars.flux > 0.3 * BRIGHT * error)
    if not bright.any():
        return 0.0
    peak = maximum_filter(np.abs(difference.fluxes.flux), size=size)[row, column][bright]
    excess = (peak**2 - (PEAK * error[bright]) ** 2) / stars.flux[bright] ** 2
    return float(np.sqrt(max(0.0, np.median(excess))))


def penalty(difference: Difference, empty: np.ndarray) -> float:
    """Return the number by which methods are compared: lower is better.

    The error of a point source on empty sky, larger where stars leave more than noise.
    """
    chi = difference.chi if np.isfinite(difference.chi) else 1.0
    return difference.depth(empty) * max(1.0, chi)
