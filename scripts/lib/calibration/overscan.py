"""Sections of a raw frame, and the bias level that its overscan tells."""

from collections.abc import Sequence

import numpy as np


def section(bounds: Sequence[int]) -> tuple[slice, slice]:
    """Return the index of a section [y0, y1, x0, x1] (0-based, ends excluded)."""
    y0, y1, x0, x1 = bounds
    return slice(y0, y1), slice(x0, x1)


def overscan_level(
    raw: np.ndarray, overscan: Sequence[int], data: Sequence[int], smooth: int = 101
) -> np.ndarray:
    """Return the bias level that the overscan tells, ready to be subtracted from the data.

    The median across the overscan is taken row by row (column by column where it lies above or
    below the data), which a cosmic ray or a bleeding star does not move, and smoothed along
    the rows by a parabola in a moving window (Savitzky & Golay 1964, Anal. Chem. 36, 1627), so
    that its noise is not printed on the image.

    Parameters
    ----------
    raw : ndarray, shape (ny, nx)
        The whole amplifier.
    overscan, data : sequence of int
        Sections [y0, y1, x0, x1].
    smooth : int
        Window of the smoothing, in rows.

    Returns
    -------
    ndarray of float32
        Shape (rows, 1) or (1, columns) of the data section.
    """
    from scipy.signal import savgol_filter

    beside = overscan[0] <= data[0] and overscan[1] >= data[1]
    strip = raw[section(overscan)].astype(np.float32)
    levels = np.median(strip, axis=1 if beside else 0)
    window = min(smooth, (levels.size - 1) // 2 * 2 + 1)
    if window > 3:
        levels = savgol_filter(levels, window, 2).astype(np.float32)
    if beside:
        return levels[data[0] - overscan[0] : data[1] - overscan[0], None]
    if levels.size < data[3] - overscan[2] or overscan[2] > data[2]:
        return np.full((1, data[3] - data[2]), np.median(strip), np.float32)
    return levels[None, data[2] - overscan[2] : data[3] - overscan[2]]
