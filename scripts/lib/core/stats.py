"""Robust statistics of images."""

import functools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MAD_TO_SIGMA = 1.482602218505602

CHUNK = 1 << 15
"""Pixels that are worked on at once: they stay in the cache."""

SAMPLE = 1 << 17
"""Sample size that gives the median of an image to 1/290 of the pixels' scatter."""


def regular_sample(image: np.ndarray, number: int = SAMPLE) -> np.ndarray:
    """Return a sample of the pixels of an image, from all of its rows and columns alike.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    number : int

    Returns
    -------
    ndarray, shape (n,)
        Every k-th pixel, k coprime with the length of a row: no column, odd or even, of one
        amplifier or another, is preferred.
    """
    step = max(1, image.size // number)
    while math.gcd(step, image.shape[-1]) > 1:
        step += 1
    return image.reshape(-1)[::step]


def neighbour_means(
    image: np.ndarray, known: np.ndarray, row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for some pixels the mean of those of their four neighbours that are known.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    known : ndarray of bool, shape (ny, nx)
        False for the pixels themselves: beyond the edge of the image each is its own neighbour.
    row, column : ndarray of int, shape (n,)

    Returns
    -------
    mean : ndarray, shape (n,)
        0 where no neighbour is known.
    number : ndarray of int, shape (n,)
        Known neighbours.
    """
    ny, nx = image.shape
    around = (
        (row + [[-1], [1], [0], [0]]).clip(0, ny - 1),
        (column + [[0], [0], [-1], [1]]).clip(0, nx - 1),
    )
    there = known[around]
    number = there.sum(axis=0)
    total = np.where(there, image[around], 0).sum(axis=0, dtype=float)
    return total / np.maximum(number, 1), number


def mad_std(values: npt.ArrayLike) -> float:
    """Return `astropy.stats.mad_std` of the finite values.

    Parameters
    ----------
    values : array_like
        Non-finite values are left out.

    Returns
    -------
    float
        Standard deviation of a Gaussian with the values' median absolute deviation; NaN where
        there is no finite value.
    """
    from astropy import stats

    known = np.asarray(values).ravel()
    known = known[np.isfinite(known)]
    return float(stats.mad_std(known)) if known.size else np.nan


def excess_scatter(values: np.ndarray, variances: np.ndarray) -> float:
    """Return the scatter of values about their median that their own variances do not explain.

    With it added in quadrature to their errors, the robust width of the pulls is 1. The half with
    less noise tells it.

    Parameters
    ----------
    values, variances : ndarray, shape (n,)

    Returns
    -------
    float
        0 where the noise explains all, and without values.
    """
    if len(values) == 0:
        return 0.0
    variances = np.maximum(variances, 0)
    told = variances <= np.median(variances)
    apart, variances = np.abs(values - np.median(values[told]))[told], variances[told]

    def width(square: float) -> float:
        return MAD_TO_SIGMA * float(np.median(apart / np.sqrt(variances + square)))

    low, high = 0.0, float((10 * MAD_TO_SIGMA * apart.max()) ** 2) + 1e-30
    if width(1e-30) <= 1:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if width(middle) > 1 else (low, middle)
    return float(np.sqrt(high))


def sigma_clipped_median(
    values: npt.ArrayLike, sigma: float = 3.0, iterations: int = 5
) -> tuple[float, float, int]:
    """Return median, standard deviation and number of the values that survive clipping.

    Parameters
    ----------
    values : array_like
        Non-finite values are left out.
    sigma : float
        Values further than this many standard deviations from the median are left out.
    iterations : int
        Maximum number of iterations.

    Returns
    -------
    median, std : float
        NaN where there is no finite value.
    number : int
    """
    values = np.asarray(values).ravel()
    values = np.sort(values[np.isfinite(values)])
    if values.size == 0:
        return np.nan, np.nan, 0

    def median_between(first: int, last: int) -> float:
        return float(values[(first + last - 1) // 2 : (first + last) // 2 + 1].mean())

    def std_between(first: int, last: int) -> float:
        part = shifted[first:last]
        return math.sqrt(max(0.0, part @ part / part.size - part.mean() ** 2))

    # Of sorted values, those kept are a run, and so are those nearest to the median.
    first, last = 0, values.size
    median = median_between(first, last)
    shifted = values - np.float64(median)
    halves = (values.size + 1) // 2, values.size // 2 + 1
    near = [np.maximum(-shifted[: last + 1 - half], shifted[half - 1 :]).min() for half in halves]
    spread = MAD_TO_SIGMA * sum(near) / 2 or std_between(first, last)
    for _ in range(iterations):
        if spread == 0:
            break
        bounds = median - sigma * spread, median + sigma * spread
        kept = (
            max(first, int(np.searchsorted(values, bounds[0], "left"))),
            min(last, int(np.searchsorted(values, bounds[1], "right"))),
        )
        if kept == (first, last):
            break
        first, last = kept
        median, spread = median_between(first, last), std_between(first, last)
    return median, std_between(first, last), last - first


def half_sample_mode(values: npt.ArrayLike) -> float:
    """Return the mode of a sample: where its values lie most densely.

    Source: Robertson & Cryer 1974, JASA 69, 1012: the densest half, of that the densest half,
    until three values are left.

    Parameters
    ----------
    values : array_like, shape (n,)

    Returns
    -------
    float
        NaN for an empty sample.
    """
    values = np.sort(np.asarray(values, float).ravel())
    if not values.size:
        return np.nan
    while values.size > 3:
        half = (values.size + 1) // 2
        start = int(np.argmin(values[half - 1 :] - values[: values.size - half + 1]))
        values = values[start : start + half]
    return float(np.median(values))


@functools.cache
def merge_exchanges(count: int) -> list[tuple[int, int]]:
    """Return the compare-exchange pairs of Batcher's merge-exchange sort.

    Source: Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M.

    Parameters
    ----------
    count : int
        Number of values to sort.

    Returns
    -------
    list of tuple of int
        Pairs (i, j), i < j; exchanged in this order they sort any input.
    """
    pairs: list[tuple[int, int]] = []
    if count < 2:
        return pairs
    top = 1 << ((count - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return pairs


def chunks(size: int, step: int) -> Iterator[slice]:
    """Yield slices that part a range of `size` in pieces of `step`."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
