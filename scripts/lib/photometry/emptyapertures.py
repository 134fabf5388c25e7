"""The noise of an image, measured in apertures without sources."""

import numpy as np
import sep

from lib.core.stats import sigma_clipped_median


def summed_area(occupied: np.ndarray) -> np.ndarray:
    """Return the summed-area table of a mask (Crow 1984, SIGGRAPH 18, 207).

    Parameters
    ----------
    occupied : ndarray of bool, shape (ny, nx)

    Returns
    -------
    ndarray of int32, shape (ny + 1, nx + 1)
        Number of occupied pixels below and left of each.
    """
    total = np.zeros((occupied.shape[0] + 1, occupied.shape[1] + 1), np.int32)
    np.cumsum(occupied, axis=0, out=total[1:, 1:])
    np.cumsum(total[1:, 1:], axis=1, out=total[1:, 1:])
    return total


def empty_apertures(
    total: np.ndarray, radius: float, number: int = 6000, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return centres of circular apertures that touch no occupied pixel.

    Parameters
    ----------
    total : ndarray of int, shape (ny + 1, nx + 1)
        Summed-area table of the pixels of sources and those without data, see `summed_area`.
    radius : float
        Pixels.
    number : int
        Largest number of apertures.
    seed : int

    Returns
    -------
    x, y : ndarray
        Centres, on whole pixels, some radius apart: apertures that overlap by half still tell
        nearly as much as separate ones.
    """
    ny, nx = total.shape[0] - 1, total.shape[1] - 1
    rng = np.random.default_rng(seed)
    reach = int(np.ceil(radius)) + 1
    if min(nx, ny) <= 2 * reach + 2:
        return np.empty(0), np.empty(0)
    size = 2 * reach + 1
    rows, columns = ny + 1 - size, nx + 1 - size
    # One index is looked up twice as fast as two.
    flat = total.ravel()

    def occupied(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return how many pixels of the squares that begin there are occupied."""
        corner = row * total.shape[1] + column
        above = corner + size * total.shape[1]
        return flat[above + size] - flat[corner + size] - flat[above] + flat[corner]

    # Places drawn by chance, of which one in each cell of a grid stays.
    row, column = rng.integers(0, [[rows], [columns]], (2, 20 * number))
    free = np.flatnonzero(occupied(row, column) == 0)
    if free.size < 2 * number:
        # There is little room: look everywhere.
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
    """Return the noise of empty apertures and its ratio to what a variance map says.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    variance : ndarray of float32, same shape
        Variance of each pixel, as if pixels were independent.
    x, y : ndarray, shape (n,)
        Centres of empty apertures.
    radius : float
        Pixels.
    subpix : int
        Sampling of the pixels on the rim. With 1 a pixel is in or out and the sum of the map is
        the variance of independent pixels; with parts of pixels the sum of the map is larger than
        that, by 9 % for a radius of 4.

    Returns
    -------
    sigma : float
        Robust standard deviation of the aperture sums.
    ratio : float
        Robust standard deviation of the sums over their errors by the map; the variances must be
        multiplied by its square.
    """
    sums, expected, _ = sep.sum_circle(image, x, y, radius, var=variance, subpix=subpix)
    good = expected > 0
    return _clipped_std(sums[good]), _clipped_std(sums[good] / expected[good])


def _clipped_std(values: np.ndarray) -> float:
    """Return the standard deviation without values beyond 3.5 sigma: half as noisy as the MAD."""
    return sigma_clipped_median(values, sigma=3.5)[1]
