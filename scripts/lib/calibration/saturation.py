"""Saturation of a detector from its pixels: a common maximum, cores that wrap around."""

import numpy as np

from lib.core.stats import mad_std, regular_sample

LEAST_PIXELS = 5
"""Pixels at one top value that make a plateau."""

LEAST_AT_CONVERTER = 2
"""The same where the top is that of a converter, 4095 or 16383 and their multiples by 2, 4, ..."""

SPIKE = 10.0
"""So many times more pixels have the top value than each of the values below it."""

LEAST_TOP = 1000.0
"""[DN] no detector saturates below."""

RING = 0.25
"""[fraction of the top] the ring around a core that has wrapped is brighter."""

FALL = 0.6
"""[fraction of the top] by which a core that has wrapped is darker than a pixel beside it."""

NEAR_END = 0.9
"""[fraction of the counter's range] a single pixel may have wrapped where others come so near."""

MOST_BRIGHT = 0.02
"""[fraction of the pixels] beyond, a frame is too bright for a search for cores."""


def is_converter_top(value: float) -> bool:
    """Return whether a value is the largest of a converter of 10 to 16 bits, padded or not."""
    if value != int(value) or not 1023 <= value <= 65535:
        return False
    number = int(value)
    while number % 2 == 0:
        number //= 2
    return number >= 1023 and (number + 1) & number == 0


def largest(raw: np.ndarray) -> float:
    """Return the largest value of a raw image; NaN where it has none."""
    if raw.dtype.kind != "f":
        return float(raw.max())
    top = float(raw.max())  # NaN where any pixel is: then the slow way
    return top if np.isfinite(top) else float(np.max(raw, initial=-np.inf, where=np.isfinite(raw)))


def top_plateau(raw: np.ndarray, top: float | None = None) -> tuple[float, int] | None:
    """Return the value at which the brightest pixels of a raw image are cut off.

    Light and noise leave hardly two pixels at the very largest value. Where far more have it than
    have each of the values just below, it is where the detector or its converter ends.

    Parameters
    ----------
    raw : ndarray, shape (ny, nx)
        [DN]
    top : float, optional
        Maximum value, if known.

    Returns
    -------
    value, count : float, int
        The top and the pixels that have it; None where there is no plateau.
    """
    top = largest(raw) if top is None else top
    if not top >= LEAST_TOP:
        return None
    count = int(np.count_nonzero(raw == top))
    if count < (LEAST_AT_CONVERTER if is_converter_top(top) else LEAST_PIXELS):
        return None
    if count == raw.size:
        return None
    sample = regular_sample(raw).astype(np.float32)
    sample = sample[np.isfinite(sample)]
    median = float(np.median(sample))
    window = max(0.02 * (top - median), 3 * mad_std(sample), 1.0)
    near = raw[(raw >= top - window) & (raw < top)]
    if not near.size:
        if top - median < 0.1 * top:  # the few values of a frame without light
            return None
        near = raw[(raw >= (top + median) / 2) & (raw < top)]
    if near.size and count < SPIKE * near.size / np.unique(near).size:
        return None
    return top, count


def wrapped_cores(image: np.ndarray, top: float) -> np.ndarray | None:
    """Return the pixels of cores of stars whose values have wrapped around.

    Beyond its largest value a counter begins anew: the core of a bright star is dark within a ring
    that is nearly as bright as can be, from one pixel to the next. Defocused stars have soft edges.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    top : float
        Maximum value.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        The cores with their rings; None where there are none.
    """
    bright = image > RING * top
    if not 8 <= np.count_nonzero(bright) <= MOST_BRIGHT * image.size:
        return None
    # Along a row from a bright pixel down to a dark one.
    y, x = np.nonzero(bright[:, :-1])
    if not (image[y, x] - image[y, x + 1] > FALL * top).any():
        return None
    from scipy.ndimage import binary_fill_holes, find_objects, label, maximum_filter

    square = np.ones((3, 3), bool)
    labels, _ = label(bright, square)
    # One dark pixel in a star is a dead one, but where the star comes near the end of the counter.
    least = 1 if top > NEAR_END * 2 ** np.ceil(np.log2(top)) else 2
    found = None
    for which, box in enumerate(find_objects(labels), 1):
        ring = labels[box] == which
        if min(ring.shape) < 3 or ring.sum() < 8:
            continue
        filled = binary_fill_holes(ring)
        around = maximum_filter(np.where(ring, image[box], 0), footprint=square)
        core = filled & ~ring & (around - image[box] > FALL * top)
        if core.sum() >= least and filled.sum() <= 3 * ring.sum():
            found = np.zeros(image.shape, bool) if found is None else found
            found[box] |= filled
    return found
