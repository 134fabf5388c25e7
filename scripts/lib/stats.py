"""Robust statistics of images, and the combination of many frames into one."""

import math

import numpy as np

MAD_TO_SIGMA = 1.482602218505602

SAMPLE = 1 << 17
"""Pixels that tell the median of an image to 1/290 of their scatter."""


def regular_sample(image, number=SAMPLE):
    """Return about so many pixels of an image, from all of its rows and columns alike.

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


def half_sample_mode(values):
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


def _extent_of_sorted(stack, number):
    """Return second highest less second lowest value of each column of a sorted stack."""
    if len(stack) < 4:
        return np.full(stack.shape[1:], np.nan, np.float32)
    if number.min() == len(stack):
        return stack[-2] - stack[1]
    high = np.take_along_axis(stack, np.maximum(number - 2, 0)[None], axis=0)[0]
    with np.errstate(invalid="ignore"):
        return np.where(number >= 4, high - stack[1], np.float32(np.nan))


def small_sample(count):
    """Return the factor by which the median absolute deviation of few values is too small.

    Of `count` Gaussian values, in the median of many samples; fitted to 10^5 samples of each
    size, good to 2 per cent.

    Parameters
    ----------
    count : int
        2 or more.

    Returns
    -------
    float
    """
    return 1.42 if count == 2 else 1 + 1 / (count - 1.85)


def clipped_mean(stack, clip=4.0):
    """Return the mean of each column of a stack, without its outliers.

    The scatter of a column is its median absolute deviation, and at least the typical one of
    the whole stack, so that a handful of frames does not clip itself away. Of two values that
    disagree the lower is taken: light that does not belong there adds.

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
    extent : ndarray of float32, shape (...)
        Difference of the second highest and the second lowest value: large where values
        scatter, and not where one cosmic ray struck. NaN for fewer than 4 values.
    """
    missing = ~np.isfinite(stack)
    number = len(stack) - missing.sum(axis=0)
    if len(stack) == 1:
        mean = np.where(missing[0], np.float32(np.nan), stack[0])
        return mean, number, np.full_like(mean, np.nan)
    stack[missing] = np.inf
    sort_planes(stack)
    median = _median_of_sorted(stack, number)
    extent = _extent_of_sorted(stack, number)
    with np.errstate(invalid="ignore"):
        deviation = np.abs(stack - median)
    deviation[~np.isfinite(stack)] = np.inf
    ranked = deviation.copy()
    sort_planes(ranked)
    spread = np.float32(MAD_TO_SIGMA) * _median_of_sorted(ranked, number)
    spread[number < 2] = np.nan
    usual = np.nanmedian(spread) if np.isfinite(spread).any() else np.float32(0)
    usual *= np.float32(small_sample(len(stack)))
    keep = deviation <= np.float32(clip) * np.fmax(spread, usual)
    # Two values are always as far from their median; their difference has twice the variance.
    pair = number == 2
    keep[1] &= ~pair | (2 * deviation[1] <= np.float32(clip * np.sqrt(2)) * usual)
    used = keep.sum(axis=0)
    stack[~keep] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = stack.sum(axis=0, dtype=np.float32) / used.astype(np.float32)
    # Equal values (no scatter at all) are all kept: deviation 0 <= 0.
    return np.where(used > 0, mean, median), used, extent


def combine(planes, shape, *, clip=4.0, memory=256e6, after=None):
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
    after : callable, optional
        Called after each slab.

    Returns
    -------
    mean : ndarray of float32, shape (ny, nx)
    number : ndarray of int, shape (ny, nx)
        Values used in each pixel.
    extent : ndarray of float32, shape (ny, nx)
        How far each pixel scatters between the images, see `clipped_mean`.
    """
    rows = max(1, int(memory / 4 // (4 * len(planes) * shape[1])))
    mean = np.empty(shape, np.float32)
    extent = np.empty(shape, np.float32)
    number = np.empty(shape, np.int32)
    for start in range(0, shape[0], rows):
        part = slice(start, min(start + rows, shape[0]))
        stack = np.stack([np.asarray(plane[part], np.float32) for plane in planes])
        mean[part], number[part], extent[part] = clipped_mean(stack, clip)
        if after:
            after()
    return mean, number, extent
