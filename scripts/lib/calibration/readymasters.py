"""Masters that others have made: what their header or their pixels say of them."""

import logging
from pathlib import Path

import numpy as np

from lib.core.stats import regular_sample, sigma_clipped_median
from lib.frame.file import Frame, FrameRejected, read_frame
from lib.night.calibrationmatch import bias_in_words, made_here
from lib.night.headervalues import text

log = logging.getLogger("autoproc")

COUNTS = ("", "adu", "dn", "count", "counts", "ct")
"""What BUNIT calls the numbers of the converter."""

STRUCTURE_ERROR = 0.15
"""Largest error of the share of the bias' structure in a dark that tells whether it is there."""


def bias_in_pixels(dark: np.ndarray, bias: np.ndarray) -> bool:
    """Return whether a dark in DN still holds its bias, as the pixels tell.

    A dark that holds it is nowhere lower than the bias. Where it is not lower, its dark current
    may be as high as the bias is: then it has the bias' structure, its columns and rows, or not.

    Parameters
    ----------
    dark, bias : ndarray, shape (ny, nx)
        [DN]
    """
    level, usual = (float(np.median(regular_sample(image))) for image in (dark, bias))
    _, noise, _ = sigma_clipped_median(regular_sample(bias))
    if level < usual - max(5 * noise, 0.1 * abs(usual)):
        return False
    shares = []
    for axis in (0, 1):
        x, y = np.median(bias, axis=axis), np.median(dark, axis=axis)
        x, y = x - np.median(x), y - np.median(y)
        if not (x**2).sum() > 0:
            continue
        share = float((x * y).sum() / (x**2).sum())
        error = float(np.sqrt(np.mean((y - share * x) ** 2) / (x**2).sum()))
        shares.append((error, share))
    if shares and min(shares)[0] < STRUCTURE_ERROR:
        return min(shares)[1] > 0.5
    return True


def read_dark(path: str | Path, bias: Frame | None = None) -> Frame:
    """Read a master dark; one of others is brought to the form that is made here.

    Parameters
    ----------
    path : path-like
    bias : Frame, optional
        Master bias of the same setting.

    Returns
    -------
    Frame
        In adu/s (no bias in it) or adu (with its bias). Header NOTE1 says how it was told.

    Raises
    ------
    FrameRejected
        DARK_UNIT or DARK_EXPTIME.
    """
    dark = read_frame(path)
    if dark.image is None or made_here(dark.header, "dark"):
        return dark
    unit = text(dark.header.get("BUNIT")).lower().replace(" ", "")
    base, per_second, _ = unit.partition("/s")
    if base not in COUNTS:
        raise FrameRejected("DARK_UNIT", f"BUNIT {unit[:20]}, not adu or adu/s")
    if per_second:
        dark.header["BUNIT"] = "adu/s"
        return dark
    subtracted, how = bias_in_words(dark.header), "as its header says"
    if subtracted is None and bias is not None and bias.image is not None:
        if bias.image.shape == dark.image.shape:
            subtracted, how = not bias_in_pixels(dark.image, bias.image), "as measured"
    if subtracted is None:
        how = "which could not be checked without a bias"
    words = "bias subtracted" if subtracted else "it holds its bias"
    dark.header["NOTE1"] = f"ready dark: {words}, {how}"
    log.info("%s: %s, %s", Path(path).name, words, how)
    dark.header["BUNIT"] = "adu"
    if subtracted:
        exptime = dark.header.get("EXPTIME", dark.header.get("EXPOSURE", 0))
        if not isinstance(exptime, (int, float)) or not exptime > 0:
            raise FrameRejected("DARK_EXPTIME", f"{text(exptime)[:20]} s")
        dark.image = dark.image / np.float32(exptime)
        dark.header["BUNIT"] = "adu/s"
    return dark


def read_flat(path: str | Path) -> Frame:
    """Read a master flat; one of others is brought to 1 in the median.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Frame
    """
    flat = read_frame(path)
    if flat.image is None or made_here(flat.header, "flat"):
        return flat
    sample = regular_sample(flat.image)
    level = float(np.median(sample[np.isfinite(sample)])) if np.isfinite(sample).any() else np.nan
    if not level > 0:
        raise FrameRejected("BAD_FLAT", f"median {level:g}")
    log.info("%s: divided by its median %.5g", Path(path).name, level)
    flat.image = flat.image / np.float32(level)
    return flat
