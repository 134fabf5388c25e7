"""Robust statistics of images, and the combination of many frames into one."""

import functools
import math

import numpy as np

MAD_TO_SIGMA = 1.482602218505602

CHUNK = 1 << 15
"""Columns of a stack that are worked on at once: they stay in the cache."""

LONG_COLUMN = 100
"""Planes beyond which a sorting network takes longer than sorting each column."""

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


def neighbour_means(image, known, row, column):
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
    values = np.sort(values[np.isfinite(values)])
    if values.size == 0:
        return np.nan, np.nan, 0

    def median_between(first, last):
        return float(values[(first + last - 1) // 2 : (first + last) // 2 + 1].mean())

    def std_between(first, last):
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


@functools.cache
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


def ranked_planes(stack):
    """Sort a stack of planes along its first axis.

    A sorting network works on whole planes with `numpy.minimum` and `numpy.maximum`, which is
    several times faster than sorting each short column by itself. Long columns are sorted each
    by itself.

    Parameters
    ----------
    stack : ndarray, shape (n, m)
        Without NaN; give missing values as +inf. Overwritten.

    Returns
    -------
    list of ndarray, each of shape (m,)
        The lowest values first.
    """
    if len(stack) > LONG_COLUMN:
        columns = np.ascontiguousarray(stack.T)
        columns.sort(axis=-1)
        return list(np.ascontiguousarray(columns.T))
    planes, spare = list(stack), np.empty_like(stack[0])
    for i, j in merge_exchanges(len(stack)):
        np.minimum(planes[i], planes[j], out=spare)
        np.maximum(planes[i], planes[j], out=planes[j])
        planes[i], spare = spare, planes[i]
    return planes


def chunks(size, step):
    """Yield slices that part a range of `size` in pieces of `step`."""
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def median_of_ranked(planes):
    """Return the median of each column of sorted planes."""
    half = len(planes) // 2
    if len(planes) % 2:
        return planes[half].copy()
    return np.float32(0.5) * (planes[half - 1] + planes[half])


def deviation_of_ranked(planes, median):
    """Return the median absolute deviation of each column of sorted planes.

    The k values nearest to the median follow each other, so that the k-th smallest deviation is
    that of the further end of such a run, where this is least.

    Parameters
    ----------
    planes : list of ndarray of float32
    median : ndarray of float32

    Returns
    -------
    ndarray of float32
    """
    count = len(planes)
    below = [median - plane for plane in planes[: count // 2 + 1]]
    above = [plane - median for plane in planes[(count - 1) // 2 :]]
    ranked = []
    for number in {(count + 1) // 2, count // 2 + 1}:
        runs = [(first, first + number - 1) for first in range(count - number + 1)]
        ranked.append(
            functools.reduce(
                np.minimum,
                (np.maximum(below[i], above[j - (count - 1) // 2]) for i, j in runs),
            )
        )
    return ranked[0] if len(ranked) == 1 else np.float32(0.5) * (ranked[0] + ranked[1])


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


def clipped_mean(stack, clip=4.0, out=None):
    """Return the mean of each column of a stack, without its outliers.

    The scatter of a column is its median absolute deviation, and at least the typical one of
    the whole stack, so that a handful of frames does not clip itself away. Of two values that
    disagree the lower is taken: light that does not belong there adds.

    Parameters
    ----------
    stack : ndarray of float32, shape (n, ...)
        NaN where a value is missing.
    clip : float
        Values further than this many standard deviations from the median are left out.
    out : tuple of 3 ndarray, optional
        Contiguous arrays for what is returned.

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
    flat = stack.reshape(len(stack), -1)
    count, size = flat.shape
    if out is None:
        out = [np.empty(stack.shape[1:], kind) for kind in (np.float32, np.int32, np.float32)]
    mean, number, extent = (array.reshape(-1) for array in out)
    median, spread, furthest = (np.empty(size, np.float32) for _ in range(3))
    for part in chunks(size, CHUNK):
        values = flat[:, part].copy()
        finite = np.isfinite(values)
        known = finite.sum(axis=0, dtype=np.uint16)
        numbers = np.bincount(known, minlength=count + 1)
        if numbers[count] < known.size:
            values[~finite] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            mean[part] = values.sum(axis=0, dtype=np.float32) / known.astype(np.float32)
        if numbers[count] < known.size:
            values[~finite] = np.inf
        number[part] = known
        planes = ranked_planes(values)
        facts = [array[part] for array in (median, spread, furthest, extent)]
        # Columns of as many values each have the same formulas. Most have all: done in place, with
        # nonsense in the others, which are done after them.
        in_place = numbers[count] > known.size / 2
        if in_place:
            with np.errstate(invalid="ignore"):
                describe_ranked(planes, facts)
        for few in np.flatnonzero(numbers):
            if few == count and in_place:
                continue
            index = np.flatnonzero(known == few)
            found = [np.empty(index.size, np.float32) for _ in facts]
            describe_ranked([plane.take(index) for plane in planes[:few]], found)
            for fact, values in zip(facts, found, strict=True):
                fact[index] = values
    sample = regular_sample(spread)
    sample = sample[np.isfinite(sample)]
    usual = np.float32(np.median(sample) * small_sample(count) if sample.size else 0)
    for part in chunks(size, CHUNK):
        limit = np.float32(clip) * np.fmax(spread[part], usual)
        # Two values are always as far from their median; their difference has twice the variance.
        pair = number[part] == 2
        limit[pair] = np.float32(clip * np.sqrt(0.5)) * usual
        odd = np.flatnonzero(furthest[part] > limit)
        if not odd.size:
            continue
        middle, limit, pair = median[part][odd], limit[odd], pair[odd]
        values = np.stack([plane.take(odd) for plane in flat[:, part]], axis=-1).T
        keep = np.abs(values - middle) <= limit
        keep |= pair & (values < middle)
        used = keep.sum(axis=0, dtype=np.uint16)
        number[part][odd] = used
        total = np.where(keep, values, np.float32(0)).sum(axis=0, dtype=np.float32)
        mean[part][odd] = np.divide(total, used.astype(np.float32), out=middle, where=used > 0)
    return tuple(out)


def describe_ranked(planes, facts):
    """Write what is known of the columns of sorted planes, for `clipped_mean`.

    Parameters
    ----------
    planes : list of ndarray of float32, each of shape (m,)
        The lowest values first; none where there are no values.
    facts : list of 4 ndarray of float32, each of shape (m,)
        Overwritten: median, standard deviation by the median absolute deviation, distance of the
        value furthest from the median, and difference of the second highest and second lowest;
        NaN where there are too few values.
    """
    median, spread, furthest, extent = facts
    few = len(planes)
    for fact, least in zip(facts, (1, 2, 1, 4), strict=True):
        if few < least:
            fact.fill(np.nan)
    if few > 0:
        median[:] = median_of_ranked(planes)
        np.maximum(planes[-1] - median, median - planes[0], out=furthest)
    if few > 1:
        np.multiply(deviation_of_ranked(planes, median), np.float32(MAD_TO_SIGMA), out=spread)
    if few > 3:
        np.subtract(planes[-2], planes[1], out=extent)


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
    combined = [np.empty(shape, kind) for kind in (np.float32, np.int32, np.float32)]
    for start in range(0, shape[0], rows):
        part = slice(start, min(start + rows, shape[0]))
        if isinstance(planes, np.ndarray) and planes.dtype == np.float32:
            stack = planes[:, part]
        else:
            stack = np.stack([np.asarray(plane[part], np.float32) for plane in planes])
        clipped_mean(stack, clip, [array[part] for array in combined])
        if after:
            after()
    return tuple(combined)
