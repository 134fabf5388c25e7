"""A frame after its flat: its sources marked, its sky measured."""

import logging

import numpy as np

from lib.background.sky import CROWDED, crowded_sky, find_sources, sky_level
from lib.calibration.corrections import divide_by_flat
from lib.frame.file import BAD, NODATA, SATURATED, SOURCE, Frame, FrameRejected

log = logging.getLogger("autoproc")


FLAT_CARDS = ("FLATERR", "FLATLEV", "FLATSET")
"""Cards of the flat that a stack needs."""


def flatten_frame(
    frame: Frame,
    flat: Frame | None = None,
    low_response: float = 0.3,
    source_threshold: float = 1.5,
) -> Frame:
    """Flatten a frame, mark its sources and measure its sky.

    Parameters
    ----------
    frame : Frame
        [electron]
    flat : Frame, optional
        Master flat; without one a response of 1 is assumed.
    low_response : float
        See `lib.calibration.corrections.divide_by_flat`.
    source_threshold : float
        See `lib.background.sky.find_sources`.

    Returns
    -------
    Frame
        See `measure_sky`.

    Raises
    ------
    FrameRejected
        A flat that does not fit, or as `measure_sky`.
    """
    if flat is not None:
        frame = divide_by_flat(frame, flat, low_response)
        for key in FLAT_CARDS:
            if key in flat.header:
                frame.header[key] = (flat.header[key], flat.header.comments[key])
    return measure_sky(frame, source_threshold)


def measure_sky(frame: Frame, source_threshold: float = 1.5) -> Frame:
    """Mark the sources of a frame and measure its sky.

    Parameters
    ----------
    frame : Frame
    source_threshold : float
        As for `lib.background.sky.find_sources`.

    Returns
    -------
    Frame
        SOURCE set in the mask; header SKYCTS [BUNIT], CTRATE [BUNIT/s], SKYNOISE, NSATUR.

    Raises
    ------
    FrameRejected
        NO_DATA, NO_SKY_PIXEL or SKY_SATURATED.
    """
    image, header = frame.image, frame.header
    unusable = frame.mask & (BAD | NODATA) > 0
    part = np.count_nonzero(unusable) / unusable.size
    if part > 0.9:
        raise FrameRejected("NO_DATA", f"{part:.2f} of the pixels unusable > 0.9")
    sources = find_sources(image, unusable, source_threshold)
    crowded = np.count_nonzero(sources & ~unusable) > CROWDED * np.count_nonzero(~unusable)
    if crowded:
        sources, level, noise = crowded_sky(image, unusable, source_threshold)
        log.warning("%s: sources everywhere, sky from the mode", header.get("FRAME", "frame"))
    mask = frame.mask | (sources & ~unusable).view(np.uint8) * np.uint8(SOURCE)
    if not crowded:
        level, noise = sky_level(image, mask, sources)
    if not np.isfinite(level):
        raise FrameRejected("NO_SKY_PIXEL", f"{sources.mean():.2f} of the pixels are sources")
    if level > 0.9 * header["SATURATE"]:
        raise FrameRejected("SKY_SATURATED", f"{level:.0f} > 0.9 x {header['SATURATE']:.0f}")
    header["SKYCTS"] = (level, "sky level, in BUNIT")
    header["SKYNOISE"] = (noise, "pixel noise of the sky, in BUNIT")
    if header.get("EXPTIME", 0) > 0:
        header["CTRATE"] = (level / header["EXPTIME"], "sky level per second")
    header["NSATUR"] = (np.count_nonzero(mask & SATURATED), "saturated pixels, and beside them")
    return Frame(image, mask, header)
