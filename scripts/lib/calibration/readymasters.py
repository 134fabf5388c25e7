"""Masters that others have made: what their header or their pixels say of them."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lib.calibration.corrections import dark_current, holds_bias
from lib.calibration.flatlight import pedestal_error
from lib.calibration.masters import pixel_noise
from lib.core.stats import regular_sample, sigma_clipped_median
from lib.frame.file import Frame, FrameRejected, read_frame
from lib.night.calibrationmatch import bias_in_words, made_here
from lib.night.facts import FrameFacts
from lib.night.headervalues import text
from lib.night.pixelunits import DN_RATE, ELECTRON, ELECTRON_RATE, pixel_unit

log = logging.getLogger("autoproc")

COUNTS = ("", "adu", "dn", "count", "counts", "ct")
"""Values of BUNIT for converter counts."""

LEAST_LEVEL = 5.0
"""[DN] A bias whose median is below has lost its level."""

LEAST_COUNTS = 50.0
"""A flat with a larger median is in counts."""

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


def read_dark(path: str | Path, bias: Frame | None = None, unit: str = "") -> Frame:
    """Read a master dark; one of others is brought to the form that is made here.

    Parameters
    ----------
    path : path-like
    bias : Frame, optional
        Master bias of the same setting.
    unit : str
        Unit of the pixels of the raw frames, see `lib.night.facts.FrameFacts`.

    Returns
    -------
    Frame
        In adu/s (no bias in it) or adu (with its bias); of raw frames in electrons these are
        electrons, whatever BUNIT calls them here. Header NOTE1 says how it was told.

    Raises
    ------
    FrameRejected
        DARK_UNIT or DARK_EXPTIME.
    """
    dark = read_frame(path)
    if dark.image is None or made_here(dark.header, "dark"):
        return dark
    words, own = text(dark.header.get("BUNIT")), pixel_unit(dark.header)
    known = own or words.lower().strip() in COUNTS
    if not known or own.startswith(ELECTRON) != unit.startswith(ELECTRON):
        wanted = "electron" if unit.startswith(ELECTRON) else "adu"
        raise FrameRejected("DARK_UNIT", f"BUNIT {words[:20]}, not {wanted} or {wanted}/s")
    if own in (DN_RATE, ELECTRON_RATE):
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


def read_masters(
    paths: Mapping[str, str | Path | None], facts: FrameFacts
) -> tuple[dict[str, Frame | None], list[str]]:
    """Read the bias and the dark of a frame; those of others fitted to how its level is subtracted.

    A frame with overscan loses its level by that, and a bias made here has none left. One of
    others may hold it (it would be subtracted twice), or may have lost it though the frames have no
    overscan.

    Parameters
    ----------
    paths : mapping
        Paths of ``bias`` and ``dark``; None or empty where there is none.
    facts : FrameFacts
        Facts of the frame, or of one of several with the same setting.

    Returns
    -------
    masters : dict of str to Frame or None
    notes : list of str
        Remarks for the user.

    Raises
    ------
    FrameRejected
        As for `read_dark`.
    """
    masters: dict[str, Frame | None] = {"bias": None, "dark": None}
    notes: list[str] = []
    if paths.get("bias"):
        masters["bias"] = read_frame(str(paths["bias"]))
    if paths.get("dark"):
        masters["dark"] = read_dark(str(paths["dark"]), masters["bias"], facts.unit)
    bias, dark = masters["bias"], masters["dark"]
    if dark is not None and bias is not None and not made_here(bias.header, "bias"):
        dark = masters["dark"] = dark_current(dark, bias)
    for kind, master in masters.items():
        if master is None or master.image is None or made_here(master.header, kind):
            continue
        if kind == "dark" and (not holds_bias(master) or bias is not None):
            continue
        masters[kind], words = fit_level(master, facts)
        notes += [f"ready {kind}: {words}"] if words else []
    return masters, notes


def fit_level(master: Frame, facts: FrameFacts) -> tuple[Frame | None, str]:
    """Fit the level of a bias, or of a dark that holds it, to how frames lose theirs.

    Parameters
    ----------
    master : Frame
    facts : FrameFacts

    Returns
    -------
    master : Frame or None
        Without the level that the overscan of the frames tells; None where the frames have no
        overscan and the level is not in it.
    words : str
        Remark; empty where the master is used unchanged.
    """
    level = float(np.median(regular_sample(master.image)))
    lost = abs(level) < max(LEAST_LEVEL, 5 * pixel_noise(master.image))
    if facts.has_pedestal:
        if not lost:
            return master, ""
        return None, (
            f"its level is subtracted ({level:.1f} DN), and frames without overscan keep theirs: "
            "it is not used"
        )
    if lost or master.image.shape != tuple(facts.shape):
        return master, ""
    image = master.image.copy()
    for one in facts.amplifiers:
        (y, x), (ny, nx) = one.origin, one.size
        part = image[y : y + ny, x : x + nx]
        part -= np.median(regular_sample(part))
    words = f"it holds its level of {level:.0f} DN, which the overscan tells: its structure is used"
    return Frame(image, master.mask, master.header), words


def read_flat(path: str | Path, pedestal: float = 0.0) -> tuple[Frame, list[str]]:
    """Read a master flat; one of others is brought to 1 in the median.

    Parameters
    ----------
    path : path-like
    pedestal : float
        Level that the frames had before overscan, bias or dark were subtracted [DN].

    Returns
    -------
    flat : Frame
        Where it is in counts and its header does not say that its bias is subtracted, the error
        that this may cost is in FLATERR of its header.
    notes : list of str
    """
    flat = read_frame(path)
    if flat.image is None or made_here(flat.header, "flat"):
        return flat, []
    sample = regular_sample(flat.image)
    level = float(np.median(sample[np.isfinite(sample)])) if np.isfinite(sample).any() else np.nan
    if not level > 0:
        raise FrameRejected("BAD_FLAT", f"median {level:g}")
    log.info("%s: divided by its median %.5g", Path(path).name, level)
    flat.image = flat.image / np.float32(level)
    if level < LEAST_COUNTS or bias_in_words(flat.header):
        return flat, []
    if pedestal > 0.5 * level:  # it would be half of the light: no flat is exposed so little
        return flat, []
    words = (
        f"ready flat: in counts ({level:.0f}), its header does not say that its bias is subtracted"
    )
    if not pedestal > 0:
        return flat, [words]
    error = pedestal_error(flat.image, pedestal, level)
    if error > flat.header.get("FLATERR", 0.0):
        flat.header["FLATERR"] = (round(error, 5), "rms error on large scales, as a fraction")
    return flat, [
        f"{words}: magnitudes off {1.0857 * error:.3f} rms where {pedestal:.0f} DN are in it"
    ]
