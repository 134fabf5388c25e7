"""Weights, the output grid, and what a coadd's gain and saturation are."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.io import fits

from lib.core.sphere import mean_position, project
from lib.core.wcs import celestial_wcs, frame_outline, pixel_scale
from lib.frame.file import INTERPOLATED, UNUSABLE


def sky_variance(sky, read_noise, gain=1.0, flat=None):
    """Return the variance of a pixel without sources in a flat-fielded frame.

    variance = (sky / gain) / flat + (read_noise / gain / flat)^2: the photon noise of `sky` was
    made before the division by the flat. The light of the sources is left out on purpose: it
    would give the brightest pixels of a star the least weight and change its profile.

    Parameters
    ----------
    sky : float
        Sky level subtracted, in stored units.
    read_noise : float
        Electrons.
    gain : float
        Electrons per stored unit.
    flat : ndarray, shape (ny, nx), optional
        Relative response, about 1.

    Returns
    -------
    float or ndarray
        In stored units squared.
    """
    response = 1.0 if flat is None else flat
    return max(sky, 0.0) / gain / response + (read_noise / gain / response) ** 2


def frame_variance(header, flat=None):
    """Return `sky_variance` by the header of a frame; 0 where it tells neither sky nor noise."""
    return sky_variance(
        float(header.get("SKYSUB", 0.0)), float(header.get("RDNOISE", 0.0)),
        float(header.get("GAIN", 1.0)), flat,
    )  # fmt: skip


def frame_weight(mask, variance):
    """Return the weight map of a frame, and the pixels that are no measurement.

    Parameters
    ----------
    mask : ndarray of uint8, shape (ny, nx)
    variance : float or ndarray, shape (ny, nx)

    Returns
    -------
    weight : ndarray of float32, shape (ny, nx)
        Inverse variance; 0 where the pixel is unusable and its value was not repaired.
    repaired : ndarray of bool, shape (ny, nx)
        Unusable pixels with a repaired value: sane enough for the outer lobes of the resampling
        kernel, but no measurement.
    """
    unusable = (mask & UNUSABLE) > 0
    repaired = unusable & ((mask & INTERPOLATED) > 0)
    variance = np.asarray(variance)
    weight = np.zeros(mask.shape, np.float32)
    np.divide(1.0, variance, out=weight, where=(variance > 0) & ~(unusable & ~repaired),
              casting="same_kind")  # fmt: skip
    return weight, repaired


@dataclass(frozen=True)
class Grid:
    """A north-up tangential grid: centre [deg], scale [arcsec per pixel], size [pixel]."""

    ra: float
    dec: float
    scale: float
    nx: int
    ny: int

    def header(self):
        """Return the WCS of the grid as header cards."""
        header = fits.Header()
        step = self.scale / 3600.0
        for key, value in (
            ("NAXIS1", self.nx), ("NAXIS2", self.ny),
            ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CUNIT1", "deg"), ("CUNIT2", "deg"),
            ("CRVAL1", self.ra), ("CRVAL2", self.dec),
            ("CRPIX1", (self.nx + 1) / 2), ("CRPIX2", (self.ny + 1) / 2),
            ("CD1_1", -step), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", step),
            ("RADESYS", "ICRS"), ("EQUINOX", 2000.0),
        ):  # fmt: skip
            header[key] = value
        return header

    @cached_property
    def wcs(self):
        """WCS of the grid, with its size."""
        return celestial_wcs(self.header())


def common_grid(systems):
    """Return the grid that covers some frames: of one stack, or of all filters of a target.

    Parameters
    ----------
    systems : sequence of astropy.wcs.WCS
        Their `celestial_wcs`.

    Returns
    -------
    Grid
        North up, east left, of the median pixel scale, centred on the footprint.
    """
    outlines = np.concatenate([frame_outline(wcs) for wcs in systems])
    scale = float(np.median([pixel_scale(wcs) for wcs in systems]))
    scale = round(scale, 4)
    ra, dec = mean_position(*outlines.T)
    for _ in range(3):  # the middle of the extremes, on the plane tangent there
        plane = project(*outlines.T, ra, dec)
        low, high = plane.min(axis=0), plane.max(axis=0)
        east, north = (low + high) / 2 / 3600.0
        dec += north
        ra = (ra + east / np.cos(np.radians(dec))) % 360.0
    plane = project(*outlines.T, ra, dec)
    half = np.abs(plane).max(axis=0) / scale
    nx, ny = (2 * np.ceil(half) + 2).astype(int)
    return Grid(round(ra, 7), round(dec, 7), scale, int(nx), int(ny))


def resting_on(repaired, wcs, grid):
    """Return the pixels of the grid that rest mainly on some pixels of a frame.

    Those are the pixels within the main lobe of the kernel, one pixel to each side; the sum of
    the kernel's outer lobes is a fifth of it at most, and what they add is a repaired value, not
    a cosmic ray.

    Parameters
    ----------
    repaired : ndarray of bool, shape (ny, nx)
        On the frame before resampling.
    wcs : astropy.wcs.WCS
        Of the frame before resampling.
    grid : Grid

    Returns
    -------
    row, column : ndarray of int
        On the grid, or outside of it.
    """
    y, x = np.nonzero(repaired)
    east, north = project(*wcs.all_pix2world(x, y, 0), grid.ra, grid.dec).T / grid.scale
    reach = max(1, int(np.rint(pixel_scale(wcs) / grid.scale)))
    offset = np.arange(-reach, reach + 1)
    column = np.rint((grid.nx - 1) / 2 - east).astype(int)[:, None, None] + offset[None, None, :]
    row = np.rint((grid.ny - 1) / 2 + north).astype(int)[:, None, None] + offset[None, :, None]
    return tuple(axis.ravel() for axis in np.broadcast_arrays(row, column))


def median_penalty(number):
    """Return the variance of the median of `number` equal Gaussian values over that of their mean.

    The formula of SWarp, right within 3 % from three values on: pi/2 n / (n + pi/2 - 1) for odd
    and pi/2 n / (n + pi - 2) for even n; 1 for one and two.
    """
    if number <= 2:
        return 1.0
    return np.pi / 2 * number / (number + (np.pi / 2 - 1 if number % 2 else np.pi - 2))


def effective_gain(scales, gains, weights, combine):
    """Return the electrons per unit of a coadd: photon variance of flux F is F / gain.

    For means (sum w)^2 / sum(w^2 f / g) with scaled inverse variances w, flux scales f and gains
    g; for the median the limit where photon noise rules, sum(sqrt(g / f))^2 / n / penalty.

    Parameters
    ----------
    scales, gains, weights : array_like, shape (n,)
    combine : {'median', 'weighted', 'clipped'}
    """
    f = np.asarray(scales, float) / np.asarray(gains, float)
    if combine == "median":
        n = f.size
        if n <= 2:
            return float(n**2 / f.sum())
        return float(np.sum(f**-0.5) ** 2 / n / median_penalty(n))
    w = np.asarray(weights, float)
    return float(w.sum() ** 2 / np.sum(w**2 * f))
