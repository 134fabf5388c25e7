"""Raw frame to electrons: amplifiers joined, trimmed, bias and dark subtracted, header reduced."""

from collections.abc import Sequence
from pathlib import Path

import ccdproc
import numpy as np
from astropy.io import fits

from lib.calibration.corrections import holds_bias, subtract_bias_and_dark
from lib.calibration.detector import assemble, gain_map
from lib.calibration.masters import pixel_noise
from lib.core.stats import regular_sample
from lib.core.text import card_text
from lib.frame.file import BAD, SATURATED, Frame, FrameRejected, add_notes
from lib.night.facts import FrameFacts

CARDS = (
    # keyword, fact, comment
    ("INSTFILE", "instrument", "instrument file of autoproc"),
    ("CAMERA", "camera", "camera"),
    ("OBJECT", "object", "target, as the raw header has it"),
    ("TARGET", "target", "target, fit for a file name"),
    ("FILTER", "filter", "filter"),
    ("BAND", "band", "band of the reference system"),
    ("EXPTIME", "exptime", "[s] exposure time"),
    ("DATE-OBS", "date_obs", "start of exposure, UTC"),
    ("MJD-OBS", "mjd", "[d] start of exposure"),
    ("AIRMASS", "airmass", "airmass"),
    ("RA", "ra", "[deg] pointing"),
    ("DEC", "dec", "[deg] pointing"),
    ("POSERR", "poserr", "[deg] how far the pointing may be off"),
    ("PIXSCALE", "pixscale", "[arcsec/px] nominal"),
    ("BINNING", "binning", "columns x rows"),
    ("READOUT", "readout", "readout mode"),
    ("CCD-TEMP", "temperature", "[deg C] detector"),
    ("NEARIR", "near_infrared", "near-infrared detector"),
    ("RAWFILE", "raw", "raw file"),
    ("FRAME", "frame", "name of the frame"),
)


def frame_header(facts: FrameFacts) -> fits.Header:
    """Return the header that all later steps read, made from the night log's facts.

    Parameters
    ----------
    facts : FrameFacts

    Returns
    -------
    astropy.io.fits.Header
    """
    header = fits.Header()
    header["QCSTAT"] = ("OK", "fit for use: OK or REJECTED")
    header["BUNIT"] = "electron"
    for keyword, fact, comment in CARDS:
        value = facts.get(fact)
        if value is None:
            continue
        if isinstance(value, str):
            value = card_text(value)
        header[keyword] = (value, comment)
    for keyword, value in (facts.wcs or {}).items():
        header[keyword] = value
    return header


def read_noise(facts: FrameFacts, bias: Frame | None, gain: float) -> float:
    """Return the read noise of a frame [electron].

    Parameters
    ----------
    facts : FrameFacts
    bias : Frame or None
        Its inputs have told the noise, in the same readout; otherwise the header or the
        instrument file do.
    gain : float
        Maximum over the amplifiers [electron/adu].

    Returns
    -------
    float
    """
    if bias is not None and bias.header.get("RDNOISE1", 0) > 0:
        return float(bias.header["RDNOISE1"] * gain)
    return float(max(one.rdnoise or facts.rdnoise for one in facts.amplifiers))


def known_defects(shape: Sequence[int], *masters: Frame | None) -> np.ndarray | None:
    """Return the pixels of a frame that masters call bad; None where there are none."""
    masks = [one.mask for one in masters if one is not None and one.mask is not None]
    found = [mask & BAD > 0 for mask in masks if mask.shape == tuple(shape)]
    return np.logical_or.reduce(found) if found else None


def lacks_bias(level: float, bias: Frame) -> bool:
    """Return whether a frame has had its bias subtracted before, as its level tells.

    Parameters
    ----------
    level : float
        Median of the frame [adu]. Light only adds to the bias; one that lies so far below it, half
        of it and many times its noise, is not there.
    bias : Frame
        Master bias.
    """
    if bias.image is None:
        return False
    usual = float(np.median(regular_sample(bias.image)))
    return level < 0.5 * usual and usual - level > max(20.0, 10 * pixel_noise(bias.image))


def prepare_frame(
    path: str | Path,
    facts: FrameFacts,
    bias: Frame | None = None,
    dark: Frame | None = None,
    largest_saturated: float = 0.5,
) -> Frame:
    """Turn a raw frame into electrons.

    Parameters
    ----------
    path : path-like
    facts : FrameFacts
        The night log's facts of the frame.
    bias, dark : Frame, optional
        Masters.
    largest_saturated : float
        A frame with a larger part of its pixels saturated is rejected.

    Returns
    -------
    Frame
        ``image = gain * (raw - overscan - bias - dark * exptime)`` [electron].

    Raises
    ------
    FrameRejected
        SATURATED, CONSTANT, NO_FINITE_PIXEL, or a master that does not fit.
    """
    raw = assemble(path, facts, known_defects(facts.shape, bias, dark))
    ccd, pedestal = raw.ccd, raw.pedestal
    saturated = float((ccd.flags & SATURATED > 0).mean())
    if saturated > largest_saturated:
        raise FrameRejected("SATURATED", f"{saturated:.2f} > {largest_saturated}")
    if ccd.data.min() == ccd.data.max():
        raise FrameRejected("CONSTANT", f"every pixel {ccd.data.flat[0]:g}")
    before = float(np.median(regular_sample(ccd.data)))
    if bias is not None and lacks_bias(before, bias):
        level = float(np.median(regular_sample(bias.image)))
        raw.notes.append(f"bias not subtracted: frame at {before:.0f} DN, bias at {level:.0f} DN")
        bias = None
        if dark is not None and holds_bias(dark):
            dark = None
    ccd = subtract_bias_and_dark(ccd, facts.exptime, bias, dark)
    pedestal += before - float(np.median(regular_sample(ccd.data)))
    flags, gain = ccd.flags, gain_map(facts)
    ccd = ccdproc.gain_correct(ccd, gain, add_keyword=False)
    header = frame_header(facts)
    gains = np.unique(gain.value)
    header["GAIN"] = (1.0, "electrons per stored unit")
    header["RDNOISE"] = (read_noise(facts, bias, gains.max()), "[electron] read noise")
    header["SATURATE"] = (
        float((raw.saturate - pedestal) * gains.min()),
        "stored value at which pixels saturate",
    )
    header["PEDESTAL"] = (round(pedestal, 2), "[adu] overscan, bias and dark subtracted")
    header["RAWGAIN"] = (float(gains[0]), "[electron/adu] gain applied")
    header["SKYSUB"] = (0.0, "sky level subtracted so far")
    add_notes(header, raw.notes)
    return Frame(ccd.data, flags, header)
