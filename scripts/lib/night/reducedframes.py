"""Calibrations already applied to a frame handed in as raw, from its header."""

import re

from lib.night.headervalues import CardHeader, Header, get, text

STATUS_LETTERS = {"B": ("bias",), "D": ("bias", "dark"), "F": ("flat",)}
"""CALSTAT of MaxIm DL and similar programs, whose darks contain the bias."""

STATUS_CARDS = {
    "ZEROCOR": "bias",
    "BIASCOR": "bias",
    "BIASSUB": "bias",
    "SUBBIAS": "bias",
    "DARKCOR": "dark",
    "DARKSUB": "dark",
    "SUBDARK": "dark",
    "FLATCOR": "flat",
    "FLATDIV": "flat",
}
"""Cards of IRAF, ccdproc and others, and the calibration each stands for."""

_DONE = re.compile(
    r"\b(image is|corrected|subtracted|divided|done|complete[d]?|yes|true|t)\b", re.IGNORECASE
)

_NOT_DONE = re.compile(
    r"\b(not?|none|without|un\w*|omit\w*|off|skip\w*|fail\w*|false|will|perform)\b", re.IGNORECASE
)

_HISTORY = (
    ("bias", r"\b(bias|zero)\b.{0,40}\b(subtract|remov|correct)(ed|ion)\b"),
    ("bias", r"\b(subtract|remov)ed\b.{0,40}\b(bias|zero level)\b"),
    ("dark", r"\bdark\b.{0,40}\b(subtract|remov|correct)(ed|ion)\b"),
    ("dark", r"\b(subtract|remov)ed\b.{0,40}\bdark\b"),
    ("flat", r"\bflat[- ]?field(ed|ing)\b|\bflat\b.{0,40}\b(divided|correct(ed|ion))\b"),
    ("flat", r"\bdivided by\b.{0,40}\bflat\b"),
)

_HISTORY_PATTERNS = tuple((kind, re.compile(words, re.IGNORECASE)) for kind, words in _HISTORY)


def done_before(header: Header) -> dict[str, str]:
    """Return the calibrations that were applied to a frame, and the evidence.

    Parameters
    ----------
    header : mapping
        Header of the frame.

    Returns
    -------
    dict of str to str
        Applied calibrations (bias, dark, flat), each with its card or line of HISTORY.
    """
    done: dict[str, str] = {}
    status = text(get(header, "CALSTAT")).upper()
    if re.fullmatch(r"[A-Z]{1,6}", status):
        for letter in status:
            for kind in STATUS_LETTERS.get(letter, ()):
                done.setdefault(kind, f"CALSTAT {status}")
    for key, kind in STATUS_CARDS.items():
        if key in header:
            value = get(header, key)
            words = text(value)
            told = value is True or value == 1 or bool(_DONE.search(words))
            if told and not _NOT_DONE.search(words):
                done.setdefault(kind, f"{key} {words[:30]}")
    if isinstance(header, CardHeader) and "HISTORY " in header.cards:
        for start in range(0, len(header.cards), 80):
            card = header.cards[start : start + 80]
            if card.startswith("HISTORY "):
                for kind in _history_kinds(card[8:]):
                    done.setdefault(kind, f"HISTORY {card[8:].strip()[:40]}")
    return done


def _history_kinds(line: str) -> list[str]:
    """Return the calibrations that a line of HISTORY reports as done."""
    if _NOT_DONE.search(line):
        return []
    return [kind for kind, pattern in _HISTORY_PATTERNS if pattern.search(line)]


def reduced_before(
    header: Header, kind: str, calibrations: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return which calibrations a frame still needs, and remarks.

    Parameters
    ----------
    header : mapping
        Header with BITPIX, or ZBITPIX for a compressed image.
    kind : {'bias', 'dark', 'flat', 'object'}
        Type of the frame.
    calibrations : dict of str to str
        Calibrations that its camera needs.
    """
    done = done_before(header)
    done.pop(kind, None)
    if kind == "dark":
        done.pop("flat", None)
    left = calibrations | {one: "none" for one in done if calibrations.get(one) != "none"}
    notes = [f"{one} is not applied again: {why}" for one, why in done.items()]
    bits = get(header, "ZBITPIX") or get(header, "BITPIX")
    if not done and kind in ("flat", "object") and bits in (-32, -64):
        notes.append("pixels are floating point, no converter's: the frame may have been reduced")
    return left, notes
