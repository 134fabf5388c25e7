"""Flat field: divide by the response of the pixels; measure the sky."""

import numpy as np

from lib.background.sky import find_sources, sky_level
from lib.calibration.detector import fitting
from lib.frame.file import (
    BAD,
    NODATA,
    SATURATED,
    SOURCE,
    Frame,
    FrameRejected,
    read_frame,
    record_calibration,
)
from lib.frame.step import process


def flatten_image(image, mask, flat, low_response=0.3):
    """Divide an image by the flat.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
    flat : Frame
        Response, 1 in the median.
    low_response : float
        Pixels below this response are marked NODATA and set to 0.

    Returns
    -------
    image, mask : ndarray
        New arrays.
    """
    fitting(flat, image.shape, "FLAT")
    mask = mask | (flat.mask & (BAD | NODATA))
    # NaN too.
    mask[~(flat.image >= low_response)] |= NODATA
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        image = image / flat.image
    np.copyto(image, 0, where=mask & NODATA > 0)
    return image, mask


def flatten_frame(frame, flat=None, low_response=0.3, source_threshold=1.5):
    """Flatten a frame, mark its sources and measure its sky.

    Parameters
    ----------
    frame : Frame
    flat : Frame, optional
        Without one the response is taken as 1.
    low_response : float
    source_threshold : float
        See `lib.background.sky.find_sources`.

    Returns
    -------
    Frame
        Header SKYCTS [BUNIT], CTRATE [BUNIT/s], SKYNOISE.

    Raises
    ------
    FrameRejected
        NO_SKY_PIXEL, SKY_SATURATED, or a flat that does not fit.
    """
    image, mask, header = frame.image, frame.mask.copy(), frame.header
    if flat is not None:
        image, mask = flatten_image(image, mask, flat, low_response)
    unusable = mask & (BAD | NODATA) > 0
    part = np.count_nonzero(unusable) / unusable.size
    if part > 0.9:
        raise FrameRejected("NO_DATA", f"{part:.2f} of the pixels unusable > 0.9")
    sources = find_sources(image, unusable, source_threshold)
    mask |= (sources & ~unusable).view(np.uint8) * np.uint8(SOURCE)
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


if "snakemake" in globals():
    path = snakemake.input.get("flat")
    settings = dict(snakemake.params.settings)
    missing = settings.pop("missing_flat")

    def work(frame):
        if not path and snakemake.params.missing and missing == "reject":
            raise FrameRejected("NO_FLAT", snakemake.params.missing)
        flat = read_frame(path) if path else None
        frame = flatten_frame(frame, flat, **settings)
        if path:
            record_calibration(frame.header, "FLAT", path, flat.header)
        return frame

    process(
        "flatten",
        snakemake.params.version,
        snakemake.input.frame,
        snakemake.output[0],
        work,
        log_path=snakemake.log[0],
        parameters=dict(snakemake.params.settings),
    )
