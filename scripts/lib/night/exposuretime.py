"""Exposure times from headers, whatever their unit."""

import functools
import re
from typing import Any

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import (
    Header,
    Reading,
    comment_of,
    get,
    keywords_of,
    quantity,
    readings,
)
from lib.night.starttime import mjd_of

LONGEST = 1e6
"""[s] Maximum exposure time."""

SHORTEST_MILLISECONDS = 50.0
"""Smaller numbers are taken to be in seconds."""

BIAS_EXPOSURE = 1e-3
"""[s] A dark no longer than this is a bias, taken with the shortest exposure of the camera."""

NIGHT = 43200.0
"""[s] Longer exposures get a remark."""

_UNITS = (
    (re.compile(r"\b(ms|msecs?|milli-?sec(ond)?s?)\b", re.IGNORECASE), 1e-3),
    (re.compile(r"\b(us|usecs?|micro-?sec(ond)?s?)\b", re.IGNORECASE), 1e-6),
    (re.compile(r"\bmin(ute)?s?\b", re.IGNORECASE), 60.0),
    (re.compile(r"\bhours?\b", re.IGNORECASE), 3600.0),
)

_CLOCK = re.compile(r"\s*(\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d*)?)\s*")

_SECONDS = re.compile(r"\b(s|secs?|seconds?)\b", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def _unit(words: str) -> float | None:
    """Return the number of seconds of the unit mentioned in a text; None without one."""
    bracket = re.match(r"\s*[\[(]([^\])]*)[\])]", words)
    for told in (bracket.group(1) if bracket else "", words):
        if _SECONDS.search(told):
            return 1.0
        for unit, seconds in _UNITS:
            if unit.search(told):
                return seconds
    return None


def _seconds(reading: Reading, header: Header) -> tuple[float, bool] | None:
    """Return an exposure time [s], and whether its unit is stated."""
    clock = _CLOCK.fullmatch(reading.value) if isinstance(reading.value, str) else None
    if clock:
        hours, minutes, seconds = (float(part) for part in clock.groups())
        return hours * 3600 + minutes * 60 + seconds, True
    told = quantity(reading.value)
    if told is None:
        return None
    value, unit = told
    factor = _unit(unit) or (_unit(comment_of(header, reading.keyword)) if not unit else None)
    return value * (factor or 1.0), factor is not None


def _elapsed(header: Header) -> float | None:
    """Return the time between start and end of a frame from its header [s]."""
    if get(header, "DATE-END") is None:
        return None
    ends = [mjd_of(get(header, key), get(header, "TIME-END")) for key in ("DATE-OBS", "DATE-END")]
    if ends[0] is None or ends[1] is None or ends[1] <= ends[0]:
        return None
    return (ends[1] - ends[0]) * 86400


def exposure_time(
    spec: Any, header: Header, filename: str, kind: str
) -> tuple[str, float, list[str]]:
    """Return type, exposure time [s] and notes of a frame: a dark of zero exposure is a bias.

    Parameters
    ----------
    spec : str, number, list or dict
        Entry of the instrument file. The first alternative is used that is not negative and, for
        frames exposed to light, not 0. The unit is taken from the value or the comment of the card;
        without one, milliseconds are recognised by means of another keyword or DATE-END.
    header : mapping
        Header of the frame.
    filename : str
        Name of the raw file.
    kind : {'bias', 'dark', 'flat', 'object'}
        Type of the frame.

    Raises
    ------
    FrameUnusable
        MISSING_KEYWORD or BAD_EXPTIME.
    """
    found = []
    for one in readings(spec, header, filename):
        known = _seconds(one, header)
        if known is not None:
            found.append((*known, one.keyword))
    sane = [one for one in found if 0 <= one[0] <= LONGEST]
    if kind in ("flat", "object"):
        sane = [one for one in sane if one[0] > 0] or sane
    if not sane and found:
        raise FrameUnusable("BAD_EXPTIME", f"exposure time is {found[0][0]:g}")
    if not sane and kind != "bias":
        keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "nothing"
        raise FrameUnusable("MISSING_KEYWORD", f"no usable exposure time (looked at: {keys})")
    value, told, keyword = sane[0] if sane else (0.0, True, "")
    notes = []
    if found and sane and found[0][2] != keyword:
        notes.append(f"{found[0][2]} {found[0][0]:g} cannot be, {keyword} {value:g} s is used")
    if not told and value >= SHORTEST_MILLISECONDS:
        others = [one[0] for one in sane[1:]] + [_elapsed(header) or 0.0]
        close = [one for one in others if one > 0 and abs(value / 1000 / one - 1) < 0.05]
        if close:
            notes.append(f"{keyword} {value:g} is in milliseconds: {close[0]:g} s by the header")
            value /= 1000
    if value > NIGHT:
        notes.append(f"{keyword} is {value:g} s, longer than a night")
    if kind == "dark" and value <= BIAS_EXPOSURE:
        kind = "bias"  # some observatories have no other name for it
        if value > 0:
            notes.append(f"a dark of {value:g} s is a bias")
    if kind == "object" and value == 0:
        raise FrameUnusable("BAD_EXPTIME", "exposure time is 0")
    return kind, value, notes
