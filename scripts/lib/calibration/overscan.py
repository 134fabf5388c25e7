"""Sections of a raw frame, and the bias level that its overscan tells."""

from collections.abc import Sequence

import numpy as np

LEAST_SHARED = 0.5
"""[fraction] An overscan that spans less of the rows than this tells but one level for all."""


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

    # Right or left of the data; above or below them where it has columns of theirs.
    beside = overscan[2] >= data[3] or overscan[3] <= data[2]
    strip = raw[section(overscan)].astype(np.float32)
    levels = np.median(strip, axis=1 if beside else 0)
    window = min(smooth, (levels.size - 1) // 2 * 2 + 1)
    if window > 3:
        levels = savgol_filter(levels, window, 2).astype(np.float32)
    first, start, end = (
        (overscan[0], data[0], data[1]) if beside else (overscan[2], data[2], data[3])
    )
    places = np.arange(start, end) - first
    if np.count_nonzero((places >= 0) & (places < levels.size)) < LEAST_SHARED * places.size:
        levels = np.full(places.size, np.median(strip), np.float32)
    else:
        levels = _extended(levels, places, smooth // 2)
    return levels[:, None] if beside else levels[None, :]


def _extended(levels: np.ndarray, places: np.ndarray, reach: int) -> np.ndarray:
    """Return levels at places that may lie beyond their ends, where the slope goes on.

    Parameters
    ----------
    levels : ndarray, shape (n,)
    places : ndarray of int, shape (m,)
    reach : int
        Rows that tell the slope at an end; it goes on for half as many.
    """
    inside = np.clip(places, 0, levels.size - 1)
    found = levels[inside].astype(np.float32)
    reach = min(reach, levels.size // 2)
    if reach < 3:
        return found
    beyond = np.clip(places - inside, -reach // 2, reach // 2)
    for end, ahead in ((levels[:reach], beyond < 0), (levels[-reach:], beyond > 0)):
        if ahead.any():
            found[ahead] += np.float32(np.polyfit(np.arange(reach), end, 1)[0]) * beyond[ahead]
    return found
