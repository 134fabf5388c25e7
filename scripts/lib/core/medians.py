"""Medians of the pixels of aligned frames, each with or without weight."""

import numpy as np

from lib.core.compiled import compiled
from lib.core.stats import merge_exchanges

INFINITE = np.float32(np.inf)

TILE = 1 << 13
"""Values of all frames that are sorted at once: they stay in the cache next to the processor."""


@compiled("void(f4[:,::1], f4[:,::1], i8[:,::1], i8, i8, f4[:,::1], i4[::1])")
def _rank_columns(values, weights, exchanges, start, width, tile, number):
    """Sort those values of some columns that have weight, the rest being +inf, and count them."""
    number[:width] = 0
    stop = start + width
    for n in range(values.shape[0]):
        value, weight, ranked = values[n, start:stop], weights[n, start:stop], tile[n]
        for t in range(width):
            known = (weight[t] > 0) & (abs(value[t]) < INFINITE)
            ranked[t] = value[t] if known else INFINITE
            number[t] += np.int32(known)
    for n in range(exchanges.shape[0]):
        low, high = tile[exchanges[n, 0]], tile[exchanges[n, 1]]
        for t in range(width):
            a, b = low[t], high[t]
            low[t] = a if a < b else b
            high[t] = b if a < b else a


@compiled("void(f4[:,::1], f4[:,::1], i8[:,::1], f4[:,::1], f4[::1], u2[::1])")
def _lower_medians(values, weights, exchanges, tile, median, count):
    """Fill `median` and `count` of `lower_median`."""
    size, step = median.size, tile.shape[1]
    number = np.empty(step, np.int32)
    for start in range(0, size, step):
        width = min(step, size - start)
        _rank_columns(values, weights, exchanges, start, width, tile, number)
        for t in range(width):
            known = number[t]
            count[start + t] = known
            median[start + t] = tile[(known - 1) // 2, t] if known > 1 else np.float32(np.nan)


@compiled("void(f4[:,::1], f4[:,::1], i8[:,::1], f4[:,::1], f4[::1], f4[::1], f4[::1])")
def _medians(values, weights, exchanges, tile, factors, median, weight):
    """Fill `median` and `weight` of `weighted_median`; 0 where no value has weight."""
    size, step = median.size, tile.shape[1]
    number = np.empty(step, np.int32)
    total = np.empty(step, np.float32)
    for start in range(0, size, step):
        width = min(step, size - start)
        stop = start + width
        _rank_columns(values, weights, exchanges, start, width, tile, number)
        total[:] = 0
        for n in range(values.shape[0]):
            value, inverse = values[n, start:stop], weights[n, start:stop]
            for t in range(width):
                known = (inverse[t] > 0) & (abs(value[t]) < INFINITE)
                sharp = np.sqrt(inverse[t])
                total[t] += sharp if known else np.float32(0)
        for t in range(width):
            known = number[t]
            if known == 0:
                median[start + t] = weight[start + t] = 0
                continue
            middle = tile[(known - 1) // 2, t] + tile[known // 2, t]
            median[start + t] = np.float32(0.5) * middle
            if known > 2:
                weight[start + t] = factors[known] * (total[t] * total[t])
                continue
            variance = np.float32(0)
            for n in range(values.shape[0]):
                inverse_there = weights[n, start + t]
                if inverse_there > 0 and abs(values[n, start + t]) < INFINITE:
                    variance += np.float32(1) / inverse_there
            weight[start + t] = np.float32(known * known) / variance


@compiled("void(f4[:,::1], i8[::1], f4[::1])")
def _fill_without_weight(values, lost, median):
    """Fill some columns of `median` as `median_without_weight` has it."""
    ranked = np.empty(values.shape[0], np.float32)
    for column in lost:
        seen = 0
        for n in range(values.shape[0]):
            value = values[n, column]
            if not abs(value) < INFINITE or value == 0:
                continue
            place = seen
            while place > 0 and ranked[place - 1] > value:
                ranked[place] = ranked[place - 1]
                place -= 1
            ranked[place] = value
            seen += 1
        if seen:
            middle = ranked[(seen - 1) // 2] + ranked[seen // 2]
            median[column] = np.float32(0.5) * middle


def _in_columns(*stacks):
    """Return stacks of planes as arrays (n, pixels), the network that sorts n, and room to sort."""
    count = len(stacks[0])
    exchanges = np.array(merge_exchanges(count), np.int64).reshape(-1, 2)
    columns = (np.ascontiguousarray(stack, np.float32) for stack in stacks)
    tile = np.empty((count, max(16, TILE // count // 16 * 16)), np.float32)
    return *(stack.reshape(count, -1) for stack in columns), exchanges, tile


def lower_median(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower median of each pixel, which one bright outlier does not move.

    Parameters
    ----------
    values, weights : ndarray of float32, shape (n, ...)
        A value counts where it is finite and its weight is positive.

    Returns
    -------
    median : ndarray of float32, shape (...)
        For an even number of values the lower of the middle two: of two, the one without the
        satellite. NaN where fewer than two count.
    number : ndarray of uint16, shape (...)
        Values that count.
    """
    shape = values.shape[1:]
    median, number = np.empty(shape, np.float32), np.empty(shape, np.uint16)
    _lower_medians(*_in_columns(values, weights), median.reshape(-1), number.reshape(-1))
    return median, number


def weighted_median(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of the values that have weight, and the inverse of its variance.

    Source of the variance: SWarp's, right within 3 % for Gaussian noise: of n >= 3 values
    pi/2 n^2 / ((sum 1/sigma)^2 (n + c)), where c is pi/2 - 1 for odd n and pi - 2 for even n.

    Parameters
    ----------
    values, weights : ndarray of float32, shape (n, ...)
        A value counts where it is finite and its weight, 1 / sigma^2, is positive.

    Returns
    -------
    median, weight : ndarray of float32, shape (...)
        Where no value counts, `median_without_weight` and 0.
    """
    shape = values.shape[1:]
    median, weight = np.empty((2, *shape), np.float32)
    n = np.arange(1, len(values) + 1)
    factors = 2 * (n + np.where(n % 2, np.pi / 2 - 1, np.pi - 2)) / (np.pi * n**2)
    values, *others = _in_columns(values, weights)
    factors = np.append(0, factors).astype(np.float32)
    _medians(values, *others, factors, median.reshape(-1), weight.reshape(-1))
    return median_without_weight(median, weight, values), weight


def median_without_weight(
    combined: np.ndarray, weight: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Return combined values with the median of all where none has weight: cores of stars.

    Parameters
    ----------
    combined, weight : ndarray of float32, shape (...)
        Contiguous.
    values : ndarray of float32, shape (n, ...)
        What is 0 lies beyond the edge of a frame, and what is not finite is unknown.

    Returns
    -------
    ndarray of float32, shape (...)
        `combined`, changed in place.
    """
    lost = np.flatnonzero(~(weight > 0))
    values = np.ascontiguousarray(values).reshape(len(values), -1)
    _fill_without_weight(values, lost, combined.reshape(-1))
    return combined
