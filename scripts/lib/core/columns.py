"""Columns of values, one of each frame: sorted, described, their outliers left out."""

import numpy as np

from lib.core.compiled import compiled
from lib.core.stats import MAD_TO_SIGMA

INFINITE = np.float32(np.inf)
NAN = np.float32(np.nan)
TO_SIGMA = np.float32(MAD_TO_SIGMA)


@compiled("void(f4[:,::1], i8[:,::1], f4[::1], i4[::1])")
def rank_columns(
    tile: np.ndarray, exchanges: np.ndarray, mean: np.ndarray, number: np.ndarray
) -> None:
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
def describe_ranked(
    tile: np.ndarray, number: np.ndarray, spare: np.ndarray, median: np.ndarray,
    spread: np.ndarray, furthest: np.ndarray, extent: np.ndarray,
) -> None:  # fmt: skip
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
def leave_out(
    values: np.ndarray, median: np.ndarray, spread: np.ndarray, furthest: np.ndarray,
    usual: np.float32, clip: np.float32, mean: np.ndarray, number: np.ndarray,
) -> None:  # fmt: skip
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
