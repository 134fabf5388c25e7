"""The output grid of a coadd: north up, gnomonic projection, covering all frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.sphere import mean_position, project
from lib.core.wcs import celestial_wcs, frame_outline, pixel_scale


@dataclass(frozen=True)
class Grid:
    """A north-up gnomonic grid: centre [deg], scale [arcsec/pixel], size [pixel]."""

    ra: float
    dec: float
    scale: float
    nx: int
    ny: int

    def header(self) -> fits.Header:
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
    def wcs(self) -> WCS:
        """WCS of the grid, with its size."""
        return celestial_wcs(self.header())


def common_grid(systems: Sequence[WCS]) -> Grid:
    """Return the grid that covers frames, of one stack or of all filters of a target.

    Parameters
    ----------
    systems : sequence of astropy.wcs.WCS
        WCS of each frame, with its size, as from `celestial_wcs`.

    Returns
    -------
    Grid
        North up, east left, with the median pixel scale, centred on the footprint.
    """
    outlines = np.concatenate([frame_outline(wcs) for wcs in systems])
    scale = float(np.median([pixel_scale(wcs) for wcs in systems]))
    scale = round(scale, 4)
    ra, dec = mean_position(*outlines.T)
    for _ in range(3):  # the midpoint of the extremes, on the tangent plane there
        plane = project(outlines[:, 0], outlines[:, 1], ra, dec)
        low, high = plane.min(axis=0), plane.max(axis=0)
        east, north = (low + high) / 2 / 3600.0
        dec += north
        ra = (ra + east / np.cos(np.radians(dec))) % 360.0
    plane = project(outlines[:, 0], outlines[:, 1], ra, dec)
    half = np.abs(plane).max(axis=0) / scale
    nx, ny = (2 * np.ceil(half) + 2).astype(int)
    return Grid(round(ra, 7), round(dec, 7), scale, int(nx), int(ny))


def repaired_footprint(repaired: np.ndarray, wcs: WCS, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of the grid that take most of their value from repaired pixels.

    These are the pixels within the main lobe of the kernel, one pixel to each side. The outer lobes
    sum to a fifth of it at most, and add a repaired value, not a cosmic ray.

    Parameters
    ----------
    repaired : ndarray of bool, shape (ny, nx)
        Repaired pixels of the frame, before resampling.
    wcs : astropy.wcs.WCS
        WCS of the frame before resampling.
    grid : Grid

    Returns
    -------
    row, column : ndarray of int
        Positions, which may lie outside the grid.
    """
    y, x = np.nonzero(repaired)
    ra, dec = wcs.all_pix2world(x, y, 0)
    east, north = project(ra, dec, grid.ra, grid.dec).T / grid.scale
    reach = max(1, int(np.rint(pixel_scale(wcs) / grid.scale)))
    offset = np.arange(-reach, reach + 1)
    column = np.rint((grid.nx - 1) / 2 - east).astype(int)[:, None, None] + offset[None, None, :]
    row = np.rint((grid.ny - 1) / 2 + north).astype(int)[:, None, None] + offset[None, :, None]
    row, column = np.broadcast_arrays(row, column)
    return row.ravel(), column.ravel()
