"""Coarse meshes laid over an image: noise measured in their parts, and read at its pixels."""

import numpy as np

QUARTER = 0.3186394
"""A quarter of Gaussian deviates are smaller, in absolute value."""


def noise_map(image: np.ndarray, unusable: np.ndarray, least: float, block: int = 64) -> np.ndarray:
    """Return the noise of the sky: as photons and read-out make it, or as measured.

    Where the flat is low, where a detector is noisier, or where structure was left, the noise
    measured exceeds the one that header numbers tell.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
    least : float
        Noise of sky and read-out.
    block : int
        Size of the squares in which it is measured [px].

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        Of each square, see `bilinear`: from the lower quartile of the absolute differences of
        neighbours in a row, which stars hardly move; nowhere below `least`. One value for all
        where it is nowhere much above.
    """
    from scipy.ndimage import median_filter

    # Every third row, pairs that share no pixel: 4 per cent, 2 in the median of nine squares.
    rows, good = image[::3], ~unusable[::3]
    even = image.shape[1] // 2 * 2
    pairs = np.s_[:, 1:even:2], np.s_[:, :even:2]
    steps, known = np.abs(rows[pairs[0]] - rows[pairs[1]]), good[pairs[0]] & good[pairs[1]]
    ranked, number = ranked_blocks(steps, known, (block / 3, block / 2))
    lower = np.take_along_axis(ranked, (number // 4)[..., None], axis=-1)[..., 0]
    coarse = np.where(number > 50, lower / np.float32(QUARTER * np.sqrt(2)), np.float32(least))
    coarse = np.maximum(median_filter(coarse, 3, mode="nearest"), np.float32(least))
    if coarse.max() < 1.05 * least:
        return np.full((1, 1), least, np.float32)
    return coarse


def ranked_blocks(
    image: np.ndarray, usable: np.ndarray, block: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the usable values of each part of an image, in order.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    usable : ndarray of bool, shape (ny, nx)
    block : tuple of float
        Rows and columns of a part, about.

    Returns
    -------
    values : ndarray of float32, shape (rows, columns, n)
        Ascending; +inf beyond the usable ones. Parts that would hold a row or column more than
        others lack it.
    number : ndarray of int, shape (rows, columns)
        Usable values.
    """
    counts = [max(1, round(size / one)) for size, one in zip(image.shape, block, strict=True)]
    starts = [np.linspace(0, size, n + 1)[:-1].astype(int)
              for size, n in zip(image.shape, counts, strict=True)]  # fmt: skip
    height, width = (size // n for size, n in zip(image.shape, counts, strict=True))
    filled = image.copy()
    np.copyto(filled, np.inf, where=~usable)
    values = np.empty((*counts, height, width), np.float32)
    for i, y in enumerate(starts[0]):
        for j, x in enumerate(starts[1]):
            values[i, j] = filled[y : y + height, x : x + width]
    values = values.reshape(*counts, height * width)
    values.sort(axis=-1)
    return values, np.isfinite(values).sum(axis=-1)


def count_in_squares(mask: np.ndarray, side: int) -> np.ndarray:
    """Return how many pixels are set in each square of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
    side : int
        [px], below 256.

    Returns
    -------
    ndarray of int, shape (ceil(ny / side), ceil(nx / side))
        The last row and column may be of parts of squares.
    """
    return _added_in_squares(mask.view(np.uint8), side, int)


def sum_in_squares(values: np.ndarray, side: int) -> np.ndarray:
    """Return the sum of the pixels in each square of an image.

    Parameters
    ----------
    values : ndarray of float32, shape (ny, nx)
    side : int
        [px].

    Returns
    -------
    ndarray of float, shape (ceil(ny / side), ceil(nx / side))
        The last row and column may be of parts of squares.
    """
    return _added_in_squares(values, side, float)


def _added_in_squares(values: np.ndarray, side: int, kind: type) -> np.ndarray:
    """Return the sums over squares: along columns in the type of the values, then in `kind`."""
    ny, nx = values.shape
    rows = np.zeros((-(-ny // side), nx), values.dtype)
    for first in range(side):
        part = values[first::side]
        rows[: len(part)] += part
    # numpy.add.reduceat along the first axis takes 30 times as long.
    return np.add.reduceat(rows, np.arange(0, nx, side), axis=1, dtype=kind)


def bilinear(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of a coarse map, which stand for equal parts of an image, at its pixels.

    Parameters
    ----------
    coarse : ndarray, shape (rows, columns)
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Linear between the centres of the parts, constant beyond the outermost.
    """

    matrices = []
    for size, parts in zip(shape, coarse.shape, strict=True):
        near, after = between(np.arange(size), size, parts)
        matrix = np.zeros((size, parts), np.float32)
        matrix[np.arange(size), near] = 1 - after
        matrix[np.arange(size), np.minimum(near + 1, parts - 1)] += after
        matrices.append(matrix)
    return matrices[0] @ np.asarray(coarse, np.float32) @ matrices[1].T


def bilinear_at(
    coarse: np.ndarray, shape: tuple[int, ...], y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Return `bilinear` at some pixels only.

    Parameters
    ----------
    coarse : ndarray of float32, shape (rows, columns)
    shape : tuple of int
        (ny, nx) of the image.
    y, x : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    if coarse.size == 1:
        return np.full(y.shape, coarse[0, 0], np.float32)
    (row, down), (column, right) = (
        between(*args) for args in zip((y, x), shape, coarse.shape, strict=True)
    )
    rows, columns = coarse.shape
    first = row * columns + column
    values = coarse.ravel()
    step = np.minimum(column + 1, columns - 1) - column
    upper = values[first] * (1 - right) + values[first + step] * right
    first += (np.minimum(row + 1, rows - 1) - row) * columns
    lower = values[first] * (1 - right) + values[first + step] * right
    return upper * (1 - down) + lower * down


def between(pixel: np.ndarray, size: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return between which of the equal parts of an axis pixels lie.

    Parameters
    ----------
    pixel : ndarray of int
    size, parts : int
        Pixels and parts of the axis.

    Returns
    -------
    near : ndarray of int
        The part whose centre is before the pixel, but not the last of several.
    after : ndarray of float32
        Distance from its centre, in parts; 0 to 1.
    """
    place = ((pixel + 0.5) * (parts / size) - 0.5).clip(0, parts - 1)
    near = np.minimum(place.astype(int), max(parts - 2, 0))
    return near, (place - near).astype(np.float32)
