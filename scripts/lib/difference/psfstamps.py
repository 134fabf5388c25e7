"""The point-spread function as small images, one for each region, from the stars there."""

import numpy as np

from lib.difference.planes import Plane
from lib.difference.regions import Regions

MOST = 60
"""Stars that an image is made of, at most: the brightest of those near its node."""

REACH, WINGED_REACH = 3.0, 6.0
"""[FWHM] Half side of stamps, without and with a profile of the wings."""

OWN = (1.2, 2.2)
"""[FWHM] Within the first the image of the stars counts, beyond the second their profile."""

LEAST = 6
"""With fewer good stars the profile of the whole field is used."""

FAINTER = 0.03
"""Stars fainter than this part of the brightest are left out where there are enough."""


def star_stamps(
    plane: Plane, x: np.ndarray, y: np.ndarray, flux: np.ndarray, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of stars, centred, over their fluxes.

    Parameters
    ----------
    plane : Plane
    x, y, flux : ndarray, shape (n,)
        Centres, from 0 [pixel], and total fluxes in units of the plane.
    half : int
        Half side of the images [pixel].

    Returns
    -------
    stamps : ndarray, shape (m, 2 half + 1, 2 half + 1)
        Cutouts, centred by cubic interpolation.
    rows : ndarray of int, shape (m,)
        The stars that they are of: those whole and without bad pixels.
    """
    from scipy.ndimage import map_coordinates

    ny, nx = plane.image.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    reach = half + 3
    grid = np.arange(-half, half + 1.0)
    stamps, rows = [], []
    for k in range(len(x)):
        y0, y1, x0, x1 = row[k] - reach, row[k] + reach, column[k] - reach, column[k] + reach
        if y0 < 0 or x0 < 0 or y1 >= ny or x1 >= nx or not flux[k] > 0:
            continue
        part = slice(y0, y1 + 1), slice(x0, x1 + 1)
        if plane.bad[part].any():
            continue
        at = np.meshgrid(grid + y[k] - y0, grid + x[k] - x0, indexing="ij")
        stamps.append(map_coordinates(plane.image[part].astype(float), at, order=3) / flux[k])
        rows.append(k)
    size = 2 * half + 1
    return np.array(stamps).reshape(-1, size, size), np.array(rows, int)


def combine_stamps(stamps: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Return the mean image of stars, weighted by their fluxes, pixels 3 sigma off left out.

    Parameters
    ----------
    stamps : ndarray, shape (n, s, s)
    flux : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (s, s)
    """
    middle = np.median(stamps, axis=0)
    # Noise of a stamp goes as 1 / flux in the wings: in units of that all scatter alike.
    pull = (stamps - middle) * flux[:, None, None]
    spread = 1.4826 * np.median(np.abs(pull), axis=0) + 1e-30
    weight = (np.abs(pull) < 3 * spread) * np.minimum(flux, 10 * np.median(flux))[:, None, None]
    total = weight.sum(axis=0)
    return np.where(total > 0, (weight * stamps).sum(axis=0) / np.maximum(total, 1e-30), middle)


def region_stamps(
    plane: Plane, x: np.ndarray, y: np.ndarray, flux: np.ndarray, regions: Regions, half: int
) -> np.ndarray:
    """Return the point-spread function at the nodes of regions.

    Parameters
    ----------
    plane : Plane
    x, y, flux : ndarray, shape (n,)
        Stars in that plane, from 0 [pixel], and total fluxes in its units.
    regions : Regions
    half : int
        Half side of the images [pixel].

    Returns
    -------
    ndarray, shape (nodes, 2 half + 1, 2 half + 1)
        Profiles of stars of flux 1.
    """
    stamps, rows = star_stamps(plane, x, y, flux, half)
    if len(rows):
        bright = flux[rows] > FAINTER * flux[rows].max()
        if bright.sum() >= LEAST:
            stamps, rows = stamps[bright], rows[bright]
    if len(rows) < LEAST:
        return np.repeat(gaussian_stamp(plane.fwhm, half)[None], len(regions.nodes), axis=0)
    found = []
    for node in regions.nodes:
        near = np.sort(regions.nearest(node, x[rows], y[rows]))[:MOST]
        mean = combine_stamps(stamps[near], flux[rows[near]])
        found.append(apodised(mean) if plane.wings is None else winged(mean, plane))
    return np.array(found)


def apodised(stamp: np.ndarray) -> np.ndarray:
    """Return a stamp that falls to zero at its edge: the noise there is none of the star's."""
    half = stamp.shape[0] // 2
    offset = np.arange(-half, half + 1)
    radius = np.hypot(offset[:, None], offset)
    taper = np.clip((half + 0.5 - radius) / (0.25 * half), 0, 1)
    return stamp * np.sin(0.5 * np.pi * taper) ** 2


def winged(stamp: np.ndarray, plane: Plane) -> np.ndarray:
    """Return a stamp that has the wings of a profile where its own are noise."""
    assert plane.wings is not None
    half = stamp.shape[0] // 2
    offset = np.arange(-half, half + 1.0)
    model = plane.wings.density(offset, offset[:, None])
    first, last = (part * plane.fwhm for part in OWN)
    own = np.clip((last - np.hypot(offset[:, None], offset)) / (last - first), 0, 1)
    return own * stamp + (1 - own) * model


def gaussian_stamp(fwhm: float, half: int) -> np.ndarray:
    """Return a Gaussian of flux 1, where stars tell nothing, shape (2 half + 1, 2 half + 1)."""
    offset = np.arange(-half, half + 1)
    stamp = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) * (2.355 / fwhm) ** 2)
    return stamp / stamp.sum()


def stamp_half(plane: Plane, fwhm: float) -> int:
    """Return the half side of stamps that hold nearly all of a star of a FWHM [pixel]."""
    return int(np.ceil((REACH if plane.wings is None else WINGED_REACH) * fwhm))
