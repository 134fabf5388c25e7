"""The noise of an image, measured in source-free apertures."""

import numpy as np
import sep

from lib.core.stats import sigma_clipped_median


def summed_area(occupied: np.ndarray) -> np.ndarray:
    """Return the summed-area table of a mask (Crow 1984, SIGGRAPH 18, 207).

    Parameters
    ----------
    occupied : ndarray of bool, shape (ny, nx)
        The mask.

    Returns
    -------
    ndarray of int32, shape (ny + 1, nx + 1)
        Number of true pixels below and to the left of each pixel.
    """
    total = np.zeros((occupied.shape[0] + 1, occupied.shape[1] + 1), np.int32)
    np.cumsum(occupied, axis=0, out=total[1:, 1:])
    np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
    return total


def empty_apertures(
    total: np.ndarray, radius: float, number: int = 6000, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of circular apertures that contain no masked pixel.

    Parameters
    ----------
    total : ndarray of int, shape (ny + 1, nx + 1)
        Summed-area table (`summed_area`) of the pixels that belong to sources or have no data.
    radius : float
        Radius of the apertures [pixel].
    number : int
        Maximum number of apertures.
    seed : int
        Seed of the random positions.

    Returns
    -------
    x, y : ndarray
        Centres, on whole pixels, about one radius apart: apertures that overlap by half are nearly
        as informative as separate ones.
    """
    ny, nx = total.shape[0] - 1, total.shape[1] - 1
    rng = np.random.default_rng(seed)
    reach = int(np.ceil(radius)) + 1
    if min(nx, ny) <= 2 * reach + 2:
        return np.empty(0), np.empty(0)
    size = 2 * reach + 1
    rows, columns = ny + 1 - size, nx + 1 - size
    # A flat index is twice as fast as two indices.
    flat = total.ravel()

    def occupied(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the number of masked pixels in the squares that begin at these pixels."""
        corner = row * total.shape[1] + column
        above = corner + size * total.shape[1]
        return flat[above + size] - flat[corner + size] - flat[above] + flat[corner]

    # Random positions, one of which is kept in each cell of a grid.
    row, column = rng.integers(0, [[rows], [columns]], (2, 20 * number))
    free = np.flatnonzero(occupied(row, column) == 0)
    if free.size < 2 * number:
        # Few are free: try every position.
        everywhere = np.arange(rows)[:, None], np.arange(columns)
        row, column = np.nonzero(occupied(*everywhere) == 0)
        if row.size == 0:
            return np.empty(0), np.empty(0)
        free = rng.integers(0, row.size, 10 * number)
    row, column = row[free], column[free]
    step = max(2, int(np.ceil(radius)))
    cell = (row // step) * (nx // step + 1) + column // step
    first = np.full((ny // step + 1) * (nx // step + 1), -1)
    first[cell[::-1]] = np.arange(cell.size)[::-1]
    chosen = first[first >= 0]
    if chosen.size > number:
        chosen = rng.choice(chosen, number, replace=False)
    return (column[chosen] + reach).astype(float), (row[chosen] + reach).astype(float)


def aperture_noise(
    image: np.ndarray, variance: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float,
    subpix: int = 5,
) -> tuple[float, float]:  # fmt: skip
    """Return the noise in empty apertures, and its ratio to that predicted by a variance map.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted image.
    variance : ndarray of float32, same shape
        Variance of each pixel, as if pixels were independent.
    x, y : ndarray, shape (n,)
        Centres of empty apertures [pixel].
    radius : float
        Radius of the apertures [pixel].
    subpix : int
        Subsampling of the pixels on the rim. With 1 a pixel is in or out, and the sum of the map is
        the variance for independent pixels; with partial pixels the sum of the map is too large, by
        9 % for a radius of 4.

    Returns
    -------
    sigma : float
        Robust standard deviation of the aperture sums.
    ratio : float
        Robust standard deviation of the sums over their predicted errors; the square of it is the
        factor by which the variances must be multiplied.
    """
    sums, expected, _ = sep.sum_circle(image, x, y, radius, var=variance, subpix=subpix)
    good = expected > 0
    return _clipped_std(sums[good]), _clipped_std(sums[good] / expected[good])


def _clipped_std(values: np.ndarray) -> float:
    """Return the standard deviation clipped at 3.5 sigma, which is half as noisy as the MAD."""
    return sigma_clipped_median(values, sigma=3.5)[1]
