"""Matching of calibrations to frames, and the reasons why others do not fit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.night.facts import FrameFacts
from lib.night.headervalues import number, parse_binning, safe_name, text
from lib.night.naming import shape_text
from lib.night.pixelunits import ELECTRON, pixel_unit
from lib.night.starttime import mjd_of

TEMPERATURE_TOLERANCE = 5.0  # K

UNCOOLED = 5.0
"""[deg C] Detectors warmer than this are not cooled."""

DETECTOR_KEYS = ("instrument", "camera", "detector", "half", "binning", "readout", "shape")

SETTINGS = ("gain_setting", "offset", "unit")
"""Camera settings that change the bias level and its noise, and the unit of the pixels."""

MAY_BE_BLANK = ("gain_setting", "offset", "detector")
"""Properties that match anything where a header lacks them."""

GROUP_KEYS = {
    "bias": (*DETECTOR_KEYS, *SETTINGS),
    "dark": (*DETECTOR_KEYS, *SETTINGS, "exptime"),
    "flat": ("instrument", "camera", "filter", *DETECTOR_KEYS[2:], *SETTINGS, "source"),
}
"""Properties that the frames of a calibration group share, in the order in which names are made
unique and reasons are listed."""

BIAS_WORDS = ("ZEROCOR", "BIASCOR", "BIASSUB", "BIAS_SUB", "SUBBIAS", "BIASFILE", "L1IDBIAS")
"""Keywords written by programs that have subtracted a bias."""

SOURCES = ("sky", "", "dome")
"""Light sources of flats, in order of preference: dome light reaches the mirror from other
directions than the sky's."""


@dataclass
class CalibrationGroup:
    """Calibration frames of one master, or a ready master; None matches anything.

    Parameters
    ----------
    name : str
        Name of the master.
    exptime : float
        Exposure time [s].
    temperature : float
        Temperature of the detector [deg C].
    gain_setting, offset, source : str
        See `lib.night.facts.FrameFacts`; empty matches anything.
    detector : str
        See `lib.night.facts.FrameFacts`; empty matches anything.
    unit : str
        Unit of the pixels; empty for DN.
    frames : list of str
        Names of the frames, ordered by time.
    labels : dict
        Properties that distinguish it from groups with the same base name.
    mjd : float
        Mean time of its frames [MJD], if they are not of the same night; None where unknown.
    """

    instrument: str | None
    camera: str | None
    half: str | None
    binning: str | None
    readout: str | None
    shape: Sequence[int]
    filter: str | None = None
    exptime: float | None = None
    temperature: float | None = None
    gain_setting: str | None = None
    offset: str | None = None
    detector: str | None = None
    unit: str | None = None
    source: str | None = None
    name: str = ""
    frames: list[str] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    mjd: float | None = None


@dataclass(frozen=True)
class CalibrationMatch:
    """The masters that match a frame: their names, or None.

    Parameters
    ----------
    notes : dict of str to str
        Kind -> why a required master is missing: each candidate and the properties that failed.
    taken : dict of str to str
        Kind -> for a master of another night: which, how old, and which ones nearer in time did not
        fit.
    """

    bias: str | None = None
    dark: str | None = None
    flat: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> str:
        """Return remarks on the masters that are not from the frame's own night."""
        return "; ".join(f"{kind}: {why}" for kind, why in (self.notes | self.taken).items())

    def master(self, kind: str) -> str | None:
        """Return the name of the master of a kind."""
        name: str | None = getattr(self, kind)
        return name


def exposure_tolerance(exptime: float) -> float:
    """Return the maximum difference of exposure times within one series [s]."""
    return 0.01 + 0.01 * exptime


def temperature_difference(group: CalibrationGroup, facts: FrameFacts) -> float:
    """Return the temperature difference between a group and a frame [K]; 0 if unknown."""
    if group.temperature is None or facts.temperature is None:
        return 0.0
    return abs(group.temperature - facts.temperature)


def made_here(header: Mapping[str, Any], kind: str) -> bool:
    """Return whether a master was made by this workflow."""
    return header.get("IMAGETYP") == f"master {kind}" and "NCOMBINE" in header


def bias_in_words(header: Mapping[str, Any]) -> bool | None:
    """Return whether a header states that a bias was subtracted; None where it says nothing.

    Parameters
    ----------
    header : mapping
        With CALSTAT (MaxIm DL and others: B for bias, D for dark, F for flat), or the keywords of
        IRAF, ccdproc and others.
    """
    if "B" in text(header.get("CALSTAT")).upper():
        return True
    for key in BIAS_WORDS:
        value = text(header.get(key))
        if value and value.upper() not in ("F", "FALSE", "NO", "NONE", "0"):
            return True
    return None


def bias_remark(header: Mapping[str, Any]) -> str:
    """Return what the header of a ready dark says about its bias."""
    told = bias_in_words(header)
    unit = text(header.get("BUNIT")).lower()
    if told or "/s" in unit:
        return "taken as bias subtracted, as its header says"
    return "its header does not say whether its bias is subtracted; its pixels tell"


def date_of_master(header: Mapping[str, Any]) -> float | None:
    """Return when the frames of a ready master were taken [MJD]; None where no card says so."""
    told = number(header.get("MJD-OBS"))
    if told is None:
        told = mjd_of(header.get("DATE-OBS"))
    if told is None:  # masters made here list their frames, whose names contain their start
        first = re.match(r"(2\d{3})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", text(header.get("INPUT1")))
        told = mjd_of("{}-{}-{}T{}:{}:{}".format(*first.groups())) if first else None
    return told


def ready_group(
    stem: str, kind: str, header: Mapping[str, Any], shape: Sequence[int]
) -> CalibrationGroup:
    """Return the properties of a ready master, as far as its header and name give them."""
    camera = text(header.get("CAMERA")) or None
    if camera is None and kind != "flat":
        camera = stem[5:].split("-")[0]
    return CalibrationGroup(
        instrument=None,
        camera=camera,
        half=None,
        binning=parse_binning(header.get("BINNING")),
        readout=text(header.get("READOUT")) or None,
        shape=shape,
        filter=(safe_name(header.get("FILTER"), "", "") or None) if kind == "flat" else None,
        exptime=number(header.get("EXPTIME")),
        temperature=number(header.get("CCDTEMP")),
        unit=ELECTRON if pixel_unit(header).startswith(ELECTRON) else None,
        name=stem,
        mjd=date_of_master(header),
    )


def differences(kind: str, group: CalibrationGroup, facts: FrameFacts) -> list[str]:
    """Return the properties in which a group differs from a frame.

    Each is "name, value of the group, not the value of the frame".
    """
    why = []
    for key in GROUP_KEYS[kind]:
        # The response of the pixels is independent of the gain and the light source.
        if key in ("exptime", "source") or (kind == "flat" and key in SETTINGS):
            continue
        value, wanted = getattr(group, key), getattr(facts, key)
        if key == "filter" and value is None:  # a ready flat: identified by its name
            name = group.name.rpartition("/")[2][5:]
            if name != wanted and not name.startswith(f"{wanted}-"):
                why.append(f"filter {name}, not {wanted}")
            continue
        if value is None or value == wanted:
            continue
        if key in MAY_BE_BLANK and "" in (value, wanted):
            continue
        if key == "shape":
            value, wanted = shape_text(value), shape_text(wanted)
        none = "adu" if key == "unit" else "none"
        why.append(f"{key.replace('_', ' ')} {value or none}, not {wanted or none}")
    if not _alike_in_temperature(kind, group, facts):
        why.append(f"temperature {group.temperature:g}, not {facts.temperature:g}")
    return why


def _alike_in_temperature(kind: str, group: CalibrationGroup, facts: FrameFacts) -> bool:
    """Return whether a group is usable for a frame as far as the detector temperature goes."""
    apart = temperature_difference(group, facts)
    if kind == "flat" or apart <= TEMPERATURE_TOLERANCE:
        return True
    # Uncooled detectors follow the ambient temperature, which affects the bias level little.
    known = (group.temperature or 0.0, facts.temperature or 0.0)
    return kind == "bias" and min(known) > UNCOOLED


def preference(group: CalibrationGroup, facts: FrameFacts) -> tuple[bool, int, int, float, str]:
    """Return the sort key of preference among groups that fit a frame, best first."""
    settings = sum(getattr(group, key) not in (None, "", getattr(facts, key)) for key in SETTINGS)
    light = SOURCES.index(group.source or "")
    unnamed = (group.detector or "") != facts.detector
    return unnamed, light, settings, temperature_difference(group, facts), group.name


def nearest_darks(
    fits: list[CalibrationGroup], exptime: float, bias: str | None, pedestal: bool = False
) -> tuple[list[CalibrationGroup], list[tuple[str, list[str]]]]:
    """Return the darks of equal exposure or, with a bias, the longest of those that fit.

    Parameters
    ----------
    fits : list of CalibrationGroup
        Darks that match the frame otherwise.
    exptime : float
        Exposure time of the frame [s].
    bias : str or None
        Master bias of the frame.
    pedestal : bool
        Whether, without a bias, the dark of the nearest exposure is acceptable for its pedestal:
        for flats, in which the dark current is negligible.

    Returns
    -------
    usable : list of CalibrationGroup
    failed : list of tuple
        Name of each other dark, and why it does not fit.
    """
    same = [
        one
        for one in fits
        if one.exptime is not None and abs(one.exptime - exptime) <= exposure_tolerance(exptime)
    ]
    if same:
        return same, []
    usable = [one for one in fits if one.exptime]
    if bias is not None and usable:
        longest = max(one.exptime or 0.0 for one in usable)
        return [one for one in usable if one.exptime == longest], []
    if pedestal and usable:
        nearest = min(usable, key=lambda one: abs((one.exptime or 0.0) - exptime))
        return [one for one in usable if one.exptime == nearest.exptime], []
    why = f"not {exptime:g} s, and without a bias it cannot be scaled"
    return [], [(one.name, [f"exptime {one.exptime or 0:g} s, {why}"]) for one in fits]
