"""The background of an image in meshes: by sep, and with the sources masked."""

import numpy as np
import sep

from lib.core.compiled import compiled
from lib.core.stats import MAD_TO_SIGMA

FINE_MESH = 5.0
"""[FWHM] Side of the squares in which the light of large sources is measured."""


def fine_mesh(
    image: np.ndarray, closed: np.ndarray, fwhm: float, smooth: int = 3
) -> sep.Background:
    """Return the light of galaxies and nebulae between the stars, in squares of 5 FWHM.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Image without its stars.
    closed : ndarray of bool, same shape
        Pixels to leave out.
    fwhm : float
        [pixel].
    smooth : int
        Side of the median filter in squares, which takes out those with stars.

    Returns
    -------
    sep.Background
    """
    size = max(4, round(FINE_MESH * fwhm))
    return sep.Background(image, mask=closed, bw=size, bh=size, fw=smooth, fh=smooth)


def background(
    image: np.ndarray, bad: np.ndarray | None = None, box: int = 64
) -> tuple[np.ndarray, float]:
    """Return the smooth background of an image and the noise about it.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape, optional
        Pixels to leave out.
    box : int
        Side of a mesh in pixels.

    Returns
    -------
    level : ndarray of float32, shape (ny, nx)
    rms : float
        Median noise of a pixel over the meshes.
    """
    box = int(min(box, max(16, min(image.shape) // 4)))
    model = sep.Background(image, mask=bad, bw=box, bh=box, fw=3, fh=3)
    return model.back(dtype=np.float32), float(model.globalrms)


def background_mesh(
    image: np.ndarray, bad: np.ndarray, box: int = 128, sigma: float = 3.0
) -> np.ndarray:
    """Return the background of an image in meshes, its sources masked.

    Each mesh has a clipped mean; the means are median-filtered 3 x 3. With sources masked the mean
    is unbiased, whereas the mode (2.5 median - 1.5 mean) is too low because photon noise is skewed;
    the mean is less noisy, too.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape
        Pixels to leave out: sources, and pixels without a value.
    box : int
        Side of a mesh [pixel]; reduced for images of fewer than four meshes to a side.
    sigma : float
        Clipping threshold [standard deviations from the median].

    Returns
    -------
    ndarray of float64, shape (rows of meshes, columns of meshes)
        Background of each mesh, in units of the image; zero where no mesh has enough pixels.
    """
    from scipy.ndimage import distance_transform_edt, median_filter

    counts = [max(1, round(size / box)) for size in image.shape]
    edges = _mesh_edges(image.shape, counts)
    image, bad = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(bad)
    level = _mesh_levels(image, bad, *edges, sigma)
    empty = np.isnan(level)
    if empty.all():
        return np.zeros(counts)
    if empty.any():
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    return median_filter(level, 3, mode="nearest")


@compiled("f8[:,:](f4[:,::1], b1[:,::1], i8[::1], i8[::1], f8)")
def _mesh_levels(image, bad, rows, columns, sigma):
    """Return the clipped means of the meshes between rows and columns, NaN for too few pixels."""
    level = np.full((rows.size - 1, columns.size - 1), np.nan)
    for j in range(level.shape[0]):
        for i in range(level.shape[1]):
            size = (rows[j + 1] - rows[j]) * (columns[i + 1] - columns[i])
            values, number = np.empty(size + 1, np.float32), 0
            for y in range(rows[j], rows[j + 1]):
                for x in range(columns[i], columns[i + 1]):
                    # Bad values are overwritten by the next ones.
                    values[number] = image[y, x]
                    number += not bad[y, x]
            if number < max(50, 0.1 * size):
                continue
            for _ in range(3):
                # A thousand values are enough to find the clipping limits.
                some = values[: number : 1 + number // 1000].copy()
                middle = np.float32(np.median(some))
                spread = MAD_TO_SIGMA * np.median(np.abs(some - middle))
                limit, kept = np.float32(sigma * spread), 0
                for n in range(number):
                    kept += abs(values[n] - middle) <= limit
                if kept in (0, number):
                    break
                kept = 0
                for n in range(number):
                    value = values[n]
                    values[kept] = value
                    kept += abs(value - middle) <= limit
                number = kept
            total = 0.0
            for n in range(number):
                total += values[n]
            level[j, i] = total / number
    return level


def _mesh_edges(shape, counts):
    """Return the edges of the meshes along each axis: n + 1 indices for n meshes."""
    return [np.linspace(0, size, n + 1).astype(int) for size, n in zip(shape, counts, strict=True)]


def spread_mesh(mesh: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate a background mesh to all pixels of an image with a bicubic spline.

    Parameters
    ----------
    mesh : ndarray, shape (rows of meshes, columns of meshes)
        Background as returned by `background_mesh`.
    shape : tuple of int
        Shape of the image.

    Returns
    -------
    ndarray of float32, shape `shape`
        Background of each pixel.
    """
    from scipy.interpolate import BSpline, make_interp_spline

    counts = mesh.shape
    centres = [0.5 * (edge[:-1] + edge[1:] - 1) for edge in _mesh_edges(shape, counts)]
    if max(counts) == 1:
        return np.full(shape, mesh[0, 0], np.float32)
    # Constant beyond the outermost centres, where a spline would diverge.
    if min(counts) == 1:
        axis = int(np.argmax(counts))
        values = np.interp(np.arange(shape[axis]), centres[axis], mesh.ravel())
        return np.broadcast_to(values[:, None] if axis == 0 else values, shape).astype("f4")
    middle = mesh.mean()
    level = mesh - middle
    bases = []
    for axis, (size, centre) in enumerate(zip(shape, centres, strict=True)):
        spline = make_interp_spline(centre, np.moveaxis(level, axis, 0), min(3, centre.size - 1))
        level = np.moveaxis(spline.c, 0, axis)
        where = np.clip(np.arange(size), centre[0], centre[-1])
        bases.append(BSpline.design_matrix(where, spline.t, spline.k).toarray().astype("f4"))
    # The spline is separable, so it is a product of matrices.
    return bases[0] @ level.astype(np.float32) @ bases[1].T + np.float32(middle)


def background_without(
    image: np.ndarray, bad: np.ndarray, segments: np.ndarray, box: int
) -> np.ndarray:
    """Return the background mesh of an image, with its sources and 5 pixels around them masked.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape
        Pixels without value.
    segments : ndarray of int32, same shape
        Segmentation map: number of the source of each pixel, 0 for none.
    box : int
        Side of a mesh in pixels.

    Returns
    -------
    ndarray of float64, shape (rows of meshes, columns of meshes)
        As from `background_mesh`.
    """
    return background_mesh(image, bad | grow(segments > 0, 5), box)


def grow(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return a mask dilated by `reach` pixels in each direction."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=2 * reach + 1)
