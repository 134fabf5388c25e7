"""Robust statistics of images, and the combination of many frames into one."""

import numpy as np

MAD_TO_SIGMA = 1.482602218505602


def mad_std(values):
    """Return the standard deviation of a Gaussian with the values' median absolute deviation.

    Parameters
    ----------
    values : array_like
        Non-finite values are left out.

    Returns
    -------
    float
        NaN where there is no finite value.
    """
    values = np.asarray(values).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return np.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def sigma_clipped_median(values, sigma=3.0, iterations=5):
    """Return median, standard deviation and number of the values that survive clipping.

    Parameters
    ----------
    values : array_like
        Non-finite values are left out.
    sigma : float
        Values further than this many standard deviations from the median are left out.
    iterations : int
        At most so many rounds.

    Returns
    -------
    median, std : float
        NaN where there is no finite value.
    number : int
    """
    values = np.asarray(values).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return np.nan, np.nan, 0
    median = np.median(values)
    spread = MAD_TO_SIGMA * np.median(np.abs(values - median)) or values.std(dtype=np.float64)
    for _ in range(iterations):
        kept = values[np.abs(values - median) <= sigma * spread] if spread > 0 else values
        if kept.size == values.size:
            break
        values = kept
        median = np.median(values)
        spread = values.std(dtype=np.float64)
    return float(median), float(values.std(dtype=np.float64)), int(values.size)


def merge_exchanges(count):
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
    pairs = []
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


def sort_planes(stack):
    """Sort a stack of planes along its first axis, in place.

    A sorting network works on whole planes with `numpy.minimum` and `numpy.maximum`, which is
    several times faster than sorting each short column by itself.

    Parameters
    ----------
    stack : ndarray, shape (n, ...)
        Without NaN; give missing values as +inf.
    """
    lower = np.empty_like(stack[0])
    for i, j in merge_exchanges(len(stack)):
        np.minimum(stack[i], stack[j], out=lower)
        np.maximum(stack[i], stack[j], out=stack[j])
        stack[i] = lower


def _median_of_sorted(stack, number):
    """Return the median of each column of a sorted stack whose first `number` values count."""
    if number.min() == len(stack):
        middle = len(stack) // 2
        if len(stack) % 2:
            return stack[middle].copy()
        return np.float32(0.5) * (stack[middle - 1] + stack[middle])
    low = np.maximum(number - 1, 0) // 2
    high = np.minimum(number // 2, len(stack) - 1)
    pair = np.take_along_axis(stack, np.stack([low, high]), axis=0)
    return np.where(number > 0, np.float32(0.5) * (pair[0] + pair[1]), np.float32(np.nan))


def clipped_mean(stack, clip=4.0):
    """Return the mean of each column of a stack, without its outliers.

    The scatter of a column is its median absolute deviation, and at least the typical one of
    the whole stack, so that a handful of frames does not clip itself away.

    Parameters
    ----------
    stack : ndarray of float32, shape (n, ...)
        NaN where a value is missing. Overwritten.
    clip : float
        Values further than this many standard deviations from the median are left out.

    Returns
    -------
    mean : ndarray of float32, shape (...)
        NaN where no value counts.
    number : ndarray of int, shape (...)
        Values used.
    """
    missing = ~np.isfinite(stack)
    number = len(stack) - missing.sum(axis=0)
    if len(stack) == 1:
        return np.where(missing[0], np.float32(np.nan), stack[0]), number
    stack[missing] = np.inf
    sort_planes(stack)
    median = _median_of_sorted(stack, number)
    with np.errstate(invalid="ignore"):
        deviation = np.abs(stack - median)
    deviation[~np.isfinite(stack)] = np.inf
    ranked = deviation.copy()
    sort_planes(ranked)
    spread = np.float32(MAD_TO_SIGMA) * _median_of_sorted(ranked, number)
    usual = np.nanmedian(spread) if np.isfinite(spread).any() else np.float32(0)
    # The median deviation of n values about their own median is small for small n.
    usual *= np.float32(1 + 1.0 / len(stack))
    keep = deviation <= np.float32(clip) * np.fmax(spread, usual)
    used = keep.sum(axis=0)
    stack[~keep] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = stack.sum(axis=0, dtype=np.float32) / used.astype(np.float32)
    # Equal values (no scatter at all) are all kept: deviation 0 <= 0.
    return np.where(used > 0, mean, median), used


def combine(planes, shape, *, clip=4.0, memory=256e6):
    """Combine many images into one, slab by slab.

    Parameters
    ----------
    planes : sequence
        Each supports ``plane[y0:y1]`` and yields float rows, NaN where missing.
    shape : tuple of int
        (ny, nx) of each image.
    clip : float
        See `clipped_mean`.
    memory : float
        Bytes that one slab of all images may take.

    Returns
    -------
    mean : ndarray of float32, shape (ny, nx)
    number : ndarray of int, shape (ny, nx)
        Values used in each pixel.
    """
    rows = max(1, int(memory / 4 // (4 * len(planes) * shape[1])))
    mean = np.empty(shape, np.float32)
    number = np.empty(shape, np.int32)
    for start in range(0, shape[0], rows):
        part = slice(start, min(start + rows, shape[0]))
        stack = np.stack([np.asarray(plane[part], np.float32) for plane in planes])
        mean[part], number[part] = clipped_mean(stack, clip)
    return mean, number
