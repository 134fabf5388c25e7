"""Many frames into one: the mean of each pixel, without its outliers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib.core.compiled import compiled
from lib.core.stats import MAD_TO_SIGMA, chunks, merge_exchanges, regular_sample

INFINITE = np.float32(np.inf)
NAN = np.float32(np.nan)

LONG_COLUMN = 100
"""Values beyond which a sorting network takes longer than sorting each column."""

TILE = 1 << 15
"""Values of all frames that are sorted at once: they stay in the cache."""

TO_SIGMA = np.float32(MAD_TO_SIGMA)


def small_sample(count: int) -> float:
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


@compiled("void(f4[:,::1], i8[:,::1], f4[::1], i4[::1])")
def _rank_columns(tile, exchanges, mean, number):
    """Sort columns, what is missing becoming +inf, and fill mean and number of the others."""
    mean[:] = 0
    number[:] = 0
    for n in range(tile.shape[0]):
        values = tile[n]
        for t in range(values.size):
            known = abs(values[t]) < INFINITE
            mean[t] += values[t] if known else np.float32(0)
            number[t] += np.int32(known)
            values[t] = values[t] if known else INFINITE
    for t in range(mean.size):
        mean[t] /= np.float32(number[t])
    for n in range(exchanges.shape[0]):
        low, high = tile[exchanges[n, 0]], tile[exchanges[n, 1]]
        for t in range(low.size):
            a, b = low[t], high[t]
            low[t] = a if a < b else b
            high[t] = b if a < b else a


@compiled("void(f4[:,::1], i4[::1], f4[::1], f4[::1], f4[::1], f4[::1], f4[::1])")
def _describe_ranked(tile, number, spare, median, spread, furthest, extent):
    """Fill what is known of sorted columns; NaN where there are too few values for it.

    Median, standard deviation by the median absolute deviation, distance of the value furthest
    from the median, and difference of the second highest and second lowest.
    """
    count, width = tile.shape
    # As if no value were missing: that is nonsense in the columns that are done again below.
    lower, upper = tile[(count - 1) // 2], tile[count // 2]
    least, most = tile[0], tile[count - 1]
    for t in range(width):
        median[t] = np.float32(0.5) * (lower[t] + upper[t])
        below, above = median[t] - least[t], most[t] - median[t]
        furthest[t] = below if below > above else above
        spread[t] = spare[t] = INFINITE
    # The k values nearest to the median follow each other, so that the k-th smallest deviation is
    # that of the further end of such a run, where this is least.
    for k, found in (((count + 1) // 2, spread), (count // 2 + 1, spare)):
        for first in range(count - k + 1):
            low, high = tile[first], tile[first + k - 1]
            for t in range(width):
                below, above = median[t] - low[t], high[t] - median[t]
                further = below if below > above else above
                found[t] = further if further < found[t] else found[t]
    least, most = tile[min(1, count - 1)], tile[max(0, count - 2)]
    for t in range(width):
        spread[t] = TO_SIGMA * (np.float32(0.5) * (spread[t] + spare[t]))
        extent[t] = most[t] - least[t]
    for t in range(width):
        known = number[t]
        if known == count and known > 3:
            continue
        if known < 4:
            extent[t] = NAN
        if known < 2:
            spread[t] = NAN
        if known == 0:
            median[t] = furthest[t] = NAN
        if known in (0, count):
            continue
        middle = np.float32(0.5) * (tile[(known - 1) // 2, t] + tile[known // 2, t])
        median[t] = middle
        furthest[t] = max(middle - tile[0, t], tile[known - 1, t] - middle)
        if known > 3:
            extent[t] = tile[known - 2, t] - tile[1, t]
        if known > 1:
            both = np.float32(0)
            for k in ((known + 1) // 2, known // 2 + 1):
                nearest = INFINITE
                for first in range(known - k + 1):
                    further = max(middle - tile[first, t], tile[first + k - 1, t] - middle)
                    nearest = min(nearest, further)
                both += nearest
            spread[t] = TO_SIGMA * (np.float32(0.5) * both)


@compiled("void(f4[:,:], f4[::1], f4[::1], f4[::1], f4, f4, f4[::1], i4[::1])")
def _leave_out(values, median, spread, furthest, usual, clip, mean, number):
    """Put right mean and number of the columns that have outliers."""
    for t in range(median.size):
        # Two values are always as far from their median; their difference has twice the variance.
        pair = number[t] == 2
        if pair:
            limit = clip * np.float32(np.sqrt(0.5)) * usual
        else:
            limit = clip * (spread[t] if spread[t] > usual else usual)
        if not furthest[t] > limit:
            continue
        total, used = np.float32(0), np.int32(0)
        for n in range(values.shape[0]):
            value = values[n, t]
            if abs(value - median[t]) <= limit or (pair and value < median[t]):
                total += value
                used += 1
        number[t] = used
        mean[t] = total / np.float32(used) if used else median[t]


def clipped_mean(
    stack: np.ndarray, clip: float = 4.0, out: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    number : ndarray of int32, shape (...)
        Values used.
    extent : ndarray of float32, shape (...)
        Difference of the second highest and the second lowest value: large where values
        scatter, and not where one cosmic ray struck. NaN for fewer than 4 values.
    """
    flat = np.asarray(stack).reshape(len(stack), -1)
    count, size = flat.shape
    if out is None:
        out = [np.empty(stack.shape[1:], kind) for kind in (np.float32, np.int32, np.float32)]
    mean, number, extent = (array.reshape(-1) for array in out)
    median, spread, furthest = np.empty((3, size), np.float32)
    few = count <= LONG_COLUMN
    exchanges = np.array(merge_exchanges(count) if few else [], np.int64).reshape(-1, 2)
    step = max(64, TILE // count // 16 * 16)
    room, spare = np.empty(count * step, np.float32), np.empty(step, np.float32)
    for part in chunks(size, step):
        tile = room[: count * (part.stop - part.start)].reshape(count, -1)
        tile[:] = flat[:, part]
        _rank_columns(tile, exchanges, mean[part], number[part])
        if not few:
            columns = np.ascontiguousarray(tile.T)
            columns.sort(axis=-1)
            tile[:] = columns.T
        facts = (array[part] for array in (median, spread, furthest, extent))
        _describe_ranked(tile, number[part], spare, *facts)
    sample = regular_sample(spread)
    sample = sample[np.isfinite(sample)]
    usual = np.median(sample) * small_sample(count) if sample.size else 0.0
    _leave_out(flat, median, spread, furthest, usual, clip, mean, number)
    return out[0], out[1], out[2]


def combine(
    planes: Sequence[Any] | np.ndarray,
    shape: tuple[int, ...],
    *,
    clip: float = 4.0,
    memory: float = 256e6,
    after: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    number : ndarray of int32, shape (ny, nx)
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
    return combined[0], combined[1], combined[2]
