"""Sky subtraction: the master sky scaled to the frame, or the frame's median alone."""

import numpy as np
from lib.frames import (
    NODATA,
    SOURCE,
    Frame,
    FrameRejected,
    read_frame,
    record_calibration,
)
from lib.sky import sky_level
from lib.steps import process


def subtract_sky(image, mask, sky=None):
    """Subtract the sky from an image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
        With SOURCE set where sources hide the sky.
    sky : ndarray of float32, shape (ny, nx), optional
        Master sky, 1 in the median. Without it the level alone is subtracted.

    Returns
    -------
    image : ndarray of float32, shape (ny, nx)
        ``image - level * sky``, in which level is the clipped median of ``image / sky`` over
        the pixels free of sources.
    level, noise : float

    Raises
    ------
    FrameRejected
        NO_SKY_PIXEL.
    """
    sources = mask & SOURCE > 0
    flat_sky = image if sky is None else image / sky
    level, noise = sky_level(flat_sky, mask, sources)
    if not np.isfinite(level):
        raise FrameRejected("NO_SKY_PIXEL", f"{sources.mean():.2f} of the pixels are sources")
    image = image - (np.float32(level) if sky is None else np.float32(level) * sky)
    image[mask & NODATA > 0] = 0
    return image, level, noise


def skysub_frame(frame, sky=None):
    """Subtract the sky from a frame; keep the header true.

    Parameters
    ----------
    frame : Frame
    sky : Frame, optional
        Master sky. One that could not be made is not used, and the header says so.

    Returns
    -------
    Frame
        Header SKYSUB holds the level taken away, SATURATE is lowered by it.
    """
    header = frame.header
    usable = sky is not None and not sky.rejected
    if usable and sky.image.shape != frame.image.shape:
        raise FrameRejected("SKY_SHAPE", f"{sky.image.shape} for a frame of {frame.image.shape}")
    image, level, noise = subtract_sky(frame.image, frame.mask, sky.image if usable else None)
    header["SKYMODE"] = ("master" if usable else "median", "what was subtracted: master or median")
    if sky is not None and sky.rejected:
        header["SKYNOTE"] = (sky.reason[:50], "why no master sky")
    header["SKYSUB"] = (level, "sky level subtracted, in BUNIT")
    header["SKYCTS"] = (level, "sky level, in BUNIT")
    header["SKYNOISE"] = (noise, "pixel noise of the sky, in BUNIT")
    header["SATURATE"] -= level
    return Frame(image, frame.mask, header)


if "snakemake" in globals():
    path = snakemake.input.get("sky")

    def work(frame):
        sky = read_frame(path) if path else None
        frame = skysub_frame(frame, sky)
        if path and not sky.rejected:
            record_calibration(frame.header, "SKY", path, sky.header)
        return frame

    process(
        "skysub",
        snakemake.params.version,
        snakemake.input.frame,
        snakemake.output[0],
        work,
        log_path=snakemake.log[0],
        parameters={"nomastersky": not path},
    )
