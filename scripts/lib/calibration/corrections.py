"""Corrections by the masters, through ccdproc: bias and dark subtracted, response divided out.

The bits of a mask travel as `CCDData.flags`. A boolean `CCDData.mask` is not set meanwhile: it
would be combined at each step, and `ccdproc.flat_correct` would not divide where it is set.
"""

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData

from lib.frame.file import BAD, NODATA, Frame, FrameRejected

SECOND = np.float32(1) * u.s
"""Single precision, as all factors by which images are multiplied: they would turn to double."""

UNITY = np.float32(1) * u.dimensionless_unscaled


def check_master_fits(master: Frame, shape: tuple[int, ...], kind: str) -> None:
    """Raise where a master cannot serve a frame.

    Parameters
    ----------
    master : Frame
    shape : tuple of int
        Shape of the frame.
    kind : {'BIAS', 'DARK', 'FLAT'}

    Raises
    ------
    FrameRejected
        The master was rejected, or has another shape.
    """
    if master.rejected:
        raise FrameRejected(f"BAD_{kind}", master.reason)
    if master.image.shape != tuple(shape):
        raise FrameRejected(f"{kind}_SHAPE", f"{master.image.shape} for a frame of {tuple(shape)}")


def holds_bias(dark: Frame) -> bool:
    """Return whether a master dark still holds its bias: one in adu, not in adu/s."""
    return bool(dark.header.get("BUNIT") != "adu/s")


def subtract_bias_and_dark(
    ccd: CCDData, exptime: float, bias: Frame | None = None, dark: Frame | None = None
) -> CCDData:
    """Subtract the master bias and the dark, scaled to the exposure.

    Parameters
    ----------
    ccd : CCDData of float32 [adu]
    exptime : float
        [s]
    bias, dark : Frame, optional
        Masters. A dark in adu/s is scaled. One in adu still holds its bias: with a bias it is
        brought to adu/s, without it is subtracted as it is.

    Returns
    -------
    CCDData of float32 [adu]
        The corrected image; its flags include those of the masters.

    Raises
    ------
    FrameRejected
        A master was rejected or has another shape.
    """
    flags = ccd.flags
    if dark is not None and bias is not None:
        dark = dark_current(dark, bias)
    pedestal = dark is not None and holds_bias(dark)
    if bias is not None and not pedestal:
        check_master_fits(bias, ccd.shape, "BIAS")
        ccd = ccdproc.subtract_bias(ccd, CCDData(bias.image, unit=u.adu), add_keyword=False)
        flags = flags | bias.mask
    if dark is not None:
        check_master_fits(dark, ccd.shape, "DARK")
        ccd = ccdproc.subtract_dark(
            ccd,
            # A dark current is a dark of one second.
            CCDData(dark.image, unit=u.adu),
            dark_exposure=SECOND,
            data_exposure=np.float32(exptime) * SECOND,
            scale=not pedestal,
            add_keyword=False,
        )
        flags = flags | dark.mask
    ccd.flags = flags
    return ccd


def dark_current(dark: Frame, bias: Frame) -> Frame:
    """Return a dark that holds its bias as dark current [adu/s], where that can be done."""
    exptime = dark.header.get("EXPTIME", 0)
    if dark.rejected or bias.rejected or dark.header.get("BUNIT") == "adu/s" or not exptime > 0:
        return dark
    if bias.image.shape != dark.image.shape:
        return dark
    header = dark.header.copy()
    header["BUNIT"] = "adu/s"
    return Frame((dark.image - bias.image) / np.float32(exptime), dark.mask | bias.mask, header)


def divide_by_flat(frame: Frame, flat: Frame, low_response: float = 0.3) -> Frame:
    """Divide a frame by the flat.

    Parameters
    ----------
    frame : Frame
    flat : Frame
        Response, 1 in the median.
    low_response : float
        Pixels below this response are marked NODATA and set to 0.

    Returns
    -------
    Frame
        New image and mask, the same header.

    Raises
    ------
    FrameRejected
        BAD_FLAT or FLAT_SHAPE.
    """
    check_master_fits(flat, frame.image.shape, "FLAT")
    mask = frame.mask | (flat.mask & (BAD | NODATA))
    # Written so that NaN is below.
    mask[~(flat.image >= low_response)] |= NODATA
    response = CCDData(flat.image, unit=u.dimensionless_unscaled)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ccd = ccdproc.flat_correct(
            CCDData(frame.image, unit=u.electron), response, norm_value=UNITY, add_keyword=False
        )
    np.copyto(ccd.data, 0, where=mask & NODATA > 0)
    return Frame(ccd.data, mask, frame.header)
