"""From raw file to one image of the detector: amplifiers joined, overscan subtracted, gain."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lib.frame.file import BAD, NONLINEAR, SATURATED, FrameRejected


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


def read_raw(path: str | Path, hdus: set[int]) -> dict[int, np.ndarray]:
    """Return the pixels of some HDUs of a raw file.

    Parameters
    ----------
    path : path-like
    hdus : set of int

    Returns
    -------
    dict of int to ndarray

    Raises
    ------
    FrameRejected
        UNREADABLE or NO_IMAGE: what an archive or a broken disk may hand over.
    """
    try:
        with open(path, "rb") as file, fits.open(file, memmap=False) as opened:
            raws = {number: opened[number].data for number in hdus}
    except (OSError, EOFError, IndexError, TypeError, ValueError, zlib.error) as error:
        raise FrameRejected("UNREADABLE", f"{type(error).__name__} {error}") from error
    for number, raw in raws.items():
        raws[number] = None if raw is None else np.squeeze(raw)
        if raw is None or raws[number].ndim != 2:
            raise FrameRejected("NO_IMAGE", f"HDU {number} holds no 2-D image")
    return raws


def assemble(path: str | Path, facts: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Join a raw frame's amplifiers to one image and subtract each one's overscan.

    Parameters
    ----------
    path : path-like
        Raw file.
    facts : dict
        What the night log knows of the frame: `shape`, `amplifiers`, `saturate`, `linear`.

    Returns
    -------
    image : ndarray of float32, shape `facts['shape']`
        DN above the overscan level (above zero where there is none).
    mask : ndarray of uint8
        Bits of pixels that are not finite, saturated or beyond the linearity limit.
    pedestal : float
        Largest overscan level subtracted [DN].

    Raises
    ------
    FrameRejected
        The file holds other pixels than the night log saw, or none that are finite.
    """
    shape = tuple(facts["shape"])
    image = np.full(shape, np.nan, np.float32)
    mask = np.zeros(shape, np.uint8)
    pedestal = 0.0
    raws = read_raw(path, {amplifier["hdu"] for amplifier in facts["amplifiers"]})
    for amplifier in facts["amplifiers"]:
        raw = raws[amplifier["hdu"]]
        pixels = raw[section(amplifier["data"])].astype(np.float32)
        bits = np.zeros(pixels.shape, np.uint8)
        finite = np.isfinite(pixels)
        bits[~finite] |= BAD
        bits[pixels >= facts["saturate"]] |= SATURATED
        if facts.get("linear"):
            bits[pixels >= facts["linear"]] |= NONLINEAR
        if amplifier.get("overscan"):
            level = overscan_level(raw, amplifier["overscan"], amplifier["data"])
            pixels -= level
            pedestal = max(pedestal, float(np.median(level)))
        flip_y, flip_x = amplifier.get("flip") or (False, False)
        turned = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
        y, x = amplifier["origin"]
        place = (slice(y, y + pixels.shape[0]), slice(x, x + pixels.shape[1]))
        if image[place].shape != pixels.shape:
            raise FrameRejected("SHAPE", f"{pixels.shape} does not fit {shape} at ({y}, {x})")
        image[place] = pixels[turned]
        mask[place] |= bits[turned]
    bad = ~np.isfinite(image)
    if bad.all():
        raise FrameRejected("NO_FINITE_PIXEL", f"0 of {image.size}")
    if bad.any():
        mask[bad] |= BAD
        image[bad] = np.median(image[~bad])
    return image, fill_holes(grow(mask, SATURATED), SATURATED), pedestal


def fill_holes(mask: np.ndarray, bit: int) -> np.ndarray:
    """Set `bit` also in what it encloses: the core of a burnt-out star may read low.

    Parameters
    ----------
    mask : ndarray of uint8, shape (ny, nx)
        Changed in place.
    bit : int

    Returns
    -------
    ndarray of uint8, shape (ny, nx)
        `mask`. A hole twice as large as the rim around it, as between two bleeding columns, stays.
    """
    marked = mask & bit > 0
    if not marked.any():
        return mask
    from scipy.ndimage import binary_closing, binary_fill_holes, find_objects, label

    square, gap = np.ones((3, 3), bool), 2
    labels, _ = label(marked, square)
    for number, box in enumerate(find_objects(labels), 1):
        rim = labels[box] == number
        if min(rim.shape) <= 4:
            continue
        # A rim with a gap of a few pixels encloses as well.
        closed = binary_closing(np.pad(rim, gap), square, iterations=gap)[gap:-gap, gap:-gap]
        filled = binary_fill_holes(closed | rim)
        if filled.sum() <= 3 * rim.sum():
            mask[box][filled] |= bit
    return mask


def grow(mask: np.ndarray, bit: int, pixels: int = 1) -> np.ndarray:
    """Set `bit` also in the neighbours (corners too) of the pixels that have it."""
    if not (mask & bit).any():
        return mask
    from scipy.ndimage import binary_dilation

    square = np.ones((3, 3), bool)
    grown = binary_dilation(mask & bit > 0, structure=square, iterations=pixels)
    mask[grown] |= bit
    return mask


def gain_map(facts: Mapping[str, Any]) -> np.ndarray | np.float32:
    """Return e/DN of each pixel: a number, or a map where amplifiers differ.

    Parameters
    ----------
    facts : dict
        `gain`, `shape`, `amplifiers`.

    Returns
    -------
    float or ndarray of float32
    """
    amplifiers = facts["amplifiers"]
    gains = {amplifier.get("gain") or facts["gain"] for amplifier in amplifiers}
    if len(gains) == 1:
        return np.float32(gains.pop())
    gain = np.empty(tuple(facts["shape"]), np.float32)
    for amplifier in amplifiers:
        y0, y1, x0, x1 = amplifier["data"]
        y, x = amplifier["origin"]
        gain[y : y + y1 - y0, x : x + x1 - x0] = amplifier.get("gain") or facts["gain"]
    return gain
