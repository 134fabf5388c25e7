"""One-shot colour cameras: the Bayer matrix of a raw frame, and its colour planes."""

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

from lib.night.facts import FrameFacts
from lib.night.headervalues import Header, get, number, text

COLOURS = {"R": ("TR", "R"), "G": ("TG", "V"), "B": ("TB", "B")}
"""Filter and nearest band of each colour; the names are those of the AAVSO."""

KEYWORDS = ("BAYERPAT", "COLORTYP", "BAYER", "CFAPAT")


def bayer_pattern(header: Header) -> str:
    """Return the Bayer matrix of the first two rows as stored, e.g. ``RGGB``; '' without one.

    Offsets, and files written from the bottom up, are taken into account.
    """
    if not any(key in header for key in KEYWORDS):
        return ""
    for key in KEYWORDS:
        pattern = text(get(header, key)).upper()
        if re.fullmatch(r"[RGB]{4}", pattern) and sorted(pattern) == sorted("RGGB"):
            break
    else:
        return ""
    rows = [pattern[:2], pattern[2:]]
    shift_x, shift_y = (_offset(header, axis) for axis in "XY")
    if text(get(header, "ROWORDER")).upper().startswith("BOTTOM"):
        height = number(get(header, "ZNAXIS2")) or number(get(header, "NAXIS2")) or 0
        shift_y += int(height + 1) % 2  # the last row of the matrix comes first
    if shift_x:
        rows = [row[::-1] for row in rows]
    if shift_y % 2:
        rows.reverse()
    return "".join(rows)


def _offset(header: Header, axis: str) -> int:
    """Return the offset of the matrix from the image on an axis, 0 or 1 pixel."""
    for key in (f"{axis}BAYROFF", f"BAYOFF{axis}", f"BAYROFF{axis}"):
        value = number(get(header, key))
        if value is not None:
            return int(value) % 2
    return 0


def colour_frames(facts: FrameFacts, mode: str, header: Header) -> list[FrameFacts]:
    """Return the frames of a raw frame: itself, or one for each colour of its matrix.

    Parameters
    ----------
    facts : FrameFacts
        Facts of the whole frame; a note is added where it has a matrix but is used unchanged.
    mode : {'none', 'superpixel', 'split'}
        superpixel: each cell of 2 x 2 pixels becomes a pixel, its mean; split: one frame each for
        R, G (the mean of its two pixels) and B.
    header : mapping
        Header of the frame.
    """
    pattern = bayer_pattern(header)
    if not pattern:
        return [facts]
    if mode == "none" or len(facts.amplifiers) != 1 or facts.binning != "1x1":
        if facts.type in ("flat", "object"):
            facts.notes.append(
                f"colour matrix {pattern}: all pixels are taken as of one filter; "
                "bayer: split or superpixel in the instrument file parts them"
            )
        return [facts]
    y0, _, x0, _ = facts.amplifiers[0].data
    places: dict[str, list[list[int]]] = {}
    for place, colour in enumerate(pattern):
        phase = [(place // 2 - y0) % 2, (place % 2 - x0) % 2]
        places.setdefault(colour, []).append(phase)
    if mode == "superpixel":
        return [_plane(facts, "", sum(places.values(), []))]
    return [_plane(facts, colour, places[colour]) for colour in COLOURS]


def _plane(facts: FrameFacts, colour: str, phases: list[list[int]]) -> FrameFacts:
    """Return the facts of a colour plane: each cell becomes a pixel, the mean over `phases`."""
    count = len(phases)
    amplifier = replace(facts.amplifiers[0], phases=phases)
    amplifier.gain = round(amplifier.gain * count, 6)
    amplifier.rdnoise = round(amplifier.rdnoise * count**0.5, 4)
    plane = replace(
        deepcopy(facts),
        amplifiers=[amplifier],
        gain=amplifier.gain,
        rdnoise=amplifier.rdnoise,
        shape=list(amplifier.size),
        pixscale=None if facts.pixscale is None else 2 * facts.pixscale,
        wcs=_halved(facts.wcs, phases),
    )
    if colour:
        name, band = COLOURS[colour]
        plane.frame, plane.half = f"{facts.frame}_{name}", name
        if facts.type in ("flat", "object"):
            plane.filter_text, plane.filter, plane.band = name, name, band
    return plane


def _halved(cards: dict[str, Any] | None, phases: list[list[int]]) -> dict[str, Any] | None:
    """Return the WCS of every second pixel, starting at (x, y) = 1 + the mean of the phases."""
    if cards is None:
        return None
    cards = dict(cards)
    for axis in (1, 2):
        first = 1 + sum(phase[2 - axis] for phase in phases) / len(phases)
        cards[f"CRPIX{axis}"] = round((cards[f"CRPIX{axis}"] - first) / 2 + 1, 4)
    for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        cards[key] *= 2
    return cards
