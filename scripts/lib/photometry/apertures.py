"""Fluxes in circular apertures and annuli, measured with sep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sep
from numpy.typing import ArrayLike

from lib.photometry.image import MeasurementImage


def aperture_fluxes(
    image: MeasurementImage, x: ArrayLike, y: ArrayLike, radii: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure the fluxes of sources in circular apertures.

    Parameters
    ----------
    image : MeasurementImage
    x, y : array_like, shape (n,)
        Centres of the apertures, 0-based [pixel].
    radii : sequence of float, length k
        Radii of the apertures [pixel].

    Returns
    -------
    flux, error : ndarray, shape (n, k)
        Flux and 1-sigma error of each source in each aperture, in units of the image; the error has
        the noise of the pixels and, where the gain is known, the photon noise of the source.
    flag : ndarray of int, shape (n, k)
        Flags of `sep.sum_circle`.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    flux = np.empty((x.size, len(radii)))
    error = np.empty_like(flux)
    flag = np.zeros(flux.shape, np.int32)
    for k, radius in enumerate(radii):
        flux[:, k], error[:, k], flag[:, k] = sep.sum_circle(
            image.data, x, y, radius, err=image.noise, gain=image.gain or None, subpix=5
        )
    return flux, error, flag


def tile_sums(
    tiles: np.ndarray, dx: np.ndarray, dy: np.ndarray, outer: float, inner: float = 0.0,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sum one circle or annulus in each of many small images, in a single call of sep.

    Parameters
    ----------
    tiles : ndarray, shape (n, 2 half + 1, 2 half + 1)
        Square cutouts, each about one source.
    dx, dy : ndarray, shape (n,)
        Offsets of the centres from the central pixels of the tiles [pixel].
    outer, inner : float
        Outer and inner radius; with `inner` = 0 a circle is summed [pixel].
    **options
        Options of `sep.sum_circle`; those that are arrays have the shape of `tiles`.

    Returns
    -------
    sums, errors : ndarray, shape (n,)
        Sums over the apertures, and their errors, which are 0 without option `err`.
    """
    n, size, _ = tiles.shape
    flat = {
        key: np.ascontiguousarray(value).reshape(n * size, size) if np.ndim(value) == 3 else value
        for key, value in options.items()
    }
    place = (size // 2 + dx, size // 2 + dy + size * np.arange(n))
    column = np.ascontiguousarray(tiles).reshape(n * size, size)
    if inner > 0:
        sums, errors, _ = sep.sum_circann(column, *place, inner, outer, subpix=5, **flat)
    else:
        sums, errors, _ = sep.sum_circle(column, *place, outer, subpix=5, **flat)
    return sums, errors


def pixels_at(
    x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the pixels of an image nearest to positions [pixel]."""
    row = np.clip(np.rint(y).astype(int), 0, shape[0] - 1)
    column = np.clip(np.rint(x).astype(int), 0, shape[1] - 1)
    return row, column


def discs_about(x: np.ndarray, y: np.ndarray, radius: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixels of an image are within a radius of positions [pixel], a mask of bool."""
    inside = np.zeros(shape, bool)
    half = int(np.ceil(radius))
    for column, row in zip(x.astype(float), y.astype(float), strict=True):
        x0, y0 = (max(0, round(place) - half) for place in (column, row))
        x1, y1 = (max(0, round(place) + half + 1) for place in (column, row))
        part = inside[y0:y1, x0:x1]
        dy, dx = (np.arange(size) for size in part.shape)
        part |= (dy[:, None] + y0 - row) ** 2 + (dx + x0 - column) ** 2 < radius**2
    return inside


def squares_about(
    column: np.ndarray, row: np.ndarray, half: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return index arrays of squares centred on pixels, clipped to the image.

    Parameters
    ----------
    column, row : ndarray of int, shape (n,)
        Central pixels, 0-based.
    half : int
        The squares have 2 half + 1 pixels to a side.
    shape : tuple of int
        Shape of the image.

    Returns
    -------
    rows : ndarray of int, shape (n, 2 half + 1, 1)
        Row indices; with `columns`, they index an array of shape (n, 2 half + 1, 2 half + 1).
        Beyond the edge the last row or column is repeated.
    columns : ndarray of int, shape (n, 1, 2 half + 1)
        Column indices.
    """
    offset = np.arange(-half, half + 1)
    rows = np.clip(row[:, None] + offset, 0, shape[0] - 1)[:, :, None]
    columns = np.clip(column[:, None] + offset, 0, shape[1] - 1)[:, None, :]
    return rows, columns
