"""What the masters correct: bias and dark subtracted, response divided out."""

from typing import Any

import numpy as np

from lib.frame.file import BAD, NODATA, Frame, FrameRejected


def check_master_fits(master: Frame, shape: tuple[int, ...], kind: str) -> None:
    """Raise where a master cannot serve a frame.

    Parameters
    ----------
    master : Frame
    shape : tuple of int
        Of the frame.
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


def subtract_bias_and_dark(
    image: np.ndarray,
    mask: np.ndarray,
    exptime: Any,
    bias: Frame | None = None,
    dark: Frame | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the master bias and the dark, scaled to the exposure, in place.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        DN.
    mask : ndarray of uint8, shape (ny, nx)
        Receives the masters' bad pixels.
    exptime : float
        Seconds.
    bias, dark : Frame, optional
        Masters. A dark in adu/s is scaled; one in adu still holds its bias, and is
        subtracted as it is, instead of the bias.

    Raises
    ------
    FrameRejected
        A master was rejected or has another shape.
    """
    scaled_dark = dark is not None and dark.header.get("BUNIT") == "adu/s"
    if bias is not None and not (dark is not None and not scaled_dark):
        check_master_fits(bias, image.shape, "BIAS")
        image -= bias.image
        mask |= bias.mask
    if dark is not None:
        check_master_fits(dark, image.shape, "DARK")
        image -= dark.image * np.float32(exptime) if scaled_dark else dark.image
        mask |= dark.mask
    return image, mask


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
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        image = frame.image / flat.image
    np.copyto(image, 0, where=mask & NODATA > 0)
    return Frame(image, mask, frame.header)
