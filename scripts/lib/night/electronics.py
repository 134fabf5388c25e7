"""Gain, read noise and saturation from a header: the first plausible alternative."""

import functools
import re
from typing import Any, NamedTuple

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import (
    MEASURED,
    Header,
    Reading,
    comment_of,
    keywords_of,
    quantity,
    readings,
    text,
)

LARGEST_GAIN = 20.0
"""[electron/DN] A larger GAIN in a header is a setting of the camera."""

DISAGREEMENT = 1.3
"""Factor between two values of the gain or read noise from which on a remark is made."""

_INVERSE = re.compile(r"\b(adu|dn|counts?)\s*(/|per)\s*e", re.IGNORECASE)

_ELECTRONS = re.compile(r"\be(lectrons?|-)?[-\s]*(/|per)\s*(adu|dn|counts?|a/d)", re.IGNORECASE)

_SETTING = re.compile(r"\bsetting\b|\bdb\b|\bcamera gain\b|\bsensor gain\b|%", re.IGNORECASE)


class Electronics(NamedTuple):
    """Gain [electron/DN], 0 where it has to be measured, and read noise [electron]."""

    gain: float
    rdnoise: float
    notes: list[str]


def required(
    spec: Any, header: Header, filename: str, bounds: tuple[float, float], code: str, what: str
) -> tuple[float, list[str]]:
    """Return the first alternative of an entry within bounds, and remarks about the others.

    Raises
    ------
    FrameUnusable
        MISSING_KEYWORD where none is a number, `code` where all are out of bounds.
    """
    low, high = bounds
    first: Reading | None = None
    for one in readings(spec, header, filename):
        told = quantity(one.value)
        if told is None or not low <= told[0] <= high:
            first = first or one
            continue
        if first is None:
            return told[0], []
        words = f"{first.keyword} {text(first.value)} cannot be: {what} {told[0]:g} is used"
        return told[0], [words]
    raise _unusable(spec, header, filename, code, what)


def _unusable(spec: Any, header: Header, filename: str, code: str, what: str) -> FrameUnusable:
    for one in readings(spec, header, filename):
        told = quantity(one.value)
        if told is not None:
            return FrameUnusable(code, f"{what} is {told[0]:g}")
    keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "nothing"
    return FrameUnusable("MISSING_KEYWORD", f"no usable {what} (looked at: {keys})")


@functools.lru_cache(maxsize=4096)
def _meaning(words: str) -> str:
    """Return the meaning of a gain from its unit and comment; '' where they do not say."""
    if _INVERSE.search(words):
        return "inverse"
    if _ELECTRONS.search(words):
        return "gain"
    return "setting" if _SETTING.search(words) else ""


def _gains(spec: Any, header: Header, filename: str) -> tuple[list[Reading], list[Reading]]:
    """Return the alternatives that can be a gain [electron/DN], and those that are a setting."""
    gains, settings = [], []
    for one in readings(spec, header, filename):
        told = quantity(one.value)
        if told is None or not 1e-4 <= told[0] <= 1e4:
            continue
        value, unit = told
        meaning = _meaning(f"{unit} {comment_of(header, one.keyword)}") if one.keyword else "gain"
        if meaning == "inverse":
            value = 1 / value
        elif meaning == "setting" or (not meaning and value > LARGEST_GAIN):
            settings.append(Reading(value, one.keyword))
            continue
        gains.append(Reading(value, one.keyword))
    return gains, settings


def read_electronics(gain: Any, rdnoise: Any, header: Header, filename: str) -> Electronics:
    """Return gain and read noise of an amplifier.

    Parameters
    ----------
    gain, rdnoise : str, number, list or dict
        Entries of the instrument file. A header value above 20, or with a comment that says so, is
        a setting of the camera rather than a gain. With the alternative `measured`, the gain is
        measured from the night's flats.
    header : mapping
        Header of the frame.
    filename : str
        Name of the raw file.

    Raises
    ------
    FrameUnusable
        MISSING_KEYWORD, BAD_GAIN or BAD_RDNOISE.
    """
    alternatives = gain if isinstance(gain, list) else [gain]
    named = [one for one in alternatives if one != MEASURED]
    found, settings = _gains(named, header, filename)
    noise, notes = required(rdnoise, header, filename, (1e-3, 1e4), "BAD_RDNOISE", "read noise")
    if alternatives[0] == MEASURED:
        return Electronics(0.0, round(noise, 4), notes)
    if not found:
        if MEASURED in alternatives:
            one = settings[0] if settings else None
            why = f" {one.keyword} {one.value:g} is a setting," if one else ""
            notes.append(f"gain:{why} none in the header: measured in the night's flats")
            return Electronics(0.0, round(noise, 4), notes)
        if settings:
            one = settings[0]
            raise FrameUnusable(
                "BAD_GAIN", f"{one.keyword} {one.value:g} is a setting, not electron/DN"
            )
        raise _unusable(named, header, filename, "BAD_GAIN", "gain")
    value, keyword = found[0]
    for other in found[1:]:
        if not other.keyword or not keyword:
            continue
        if max(other.value, value) > DISAGREEMENT * min(other.value, value):
            # A readout index is an integer, a gain hardly ever.
            index = value == round(value) and other.value != round(other.value)
            used = other if index else found[0]
            notes.append(
                f"gain: {keyword} {value:g} and {other.keyword} {other.value:g}; "
                f"{used.keyword} is used"
            )
            value, keyword = used
            break
    if settings:
        one = settings[0]
        notes.append(f"gain: {one.keyword} {one.value:g} is a setting, {keyword} {value:g} is used")
    return Electronics(round(float(value), 6), round(noise, 4), notes)
