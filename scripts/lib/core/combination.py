"""Many frames into one: the mean of each pixel, without its outliers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib.core.stats import chunks, merge_exchanges, regular_sample

LONG_COLUMN = 100
"""Values beyond which a sorting network takes longer than sorting each column."""

TILE = 1 << 15
"""Values of all frames that are sorted at once: they stay in the cache."""


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
    # numba, which only this needs, takes longer to import than the steps of single frames run.
    from lib.core.columns import describe_ranked, leave_out, rank_columns

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
        rank_columns(tile, exchanges, mean[part], number[part])
        if not few:
            columns = np.ascontiguousarray(tile.T)
            columns.sort(axis=-1)
            tile[:] = columns.T
        facts = (array[part] for array in (median, spread, furthest, extent))
        describe_ranked(tile, number[part], spare, *facts)
    sample = regular_sample(spread)
    sample = sample[np.isfinite(sample)]
    usual = np.median(sample) * small_sample(count) if sample.size else 0.0
    leave_out(flat, median, spread, furthest, np.float32(usual), np.float32(clip), mean, number)
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
