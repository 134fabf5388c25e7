"""Cards of a raw header that its products carry on: who observed what, where and for whom."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from astropy.io import fits

from lib.core.text import card_text
from lib.night.facts import FrameFacts
from lib.night.frameignored import FrameUnusable
from lib.night.rawheaders import read_headers

CARRIED = {
    "TELESCOP": ("telescope", ("TELESCOP", "TELESCOPE", "TELNAME")),
    "INSTRUME": ("instrument", ("INSTRUME", "INSTRUMENT", "CURRINST")),
    "OBSERVAT": ("observatory", ("OBSERVAT", "OBSERVATORY", "SITENAME", "SITE")),
    "ORIGIN": ("institution", ("ORIGIN",)),
    "OBSERVER": ("observer", ("OBSERVER", "OBSERVERS")),
    "PROPID": (
        "programme",
        ("PROPID", "PROGID", "PROG-ID", "PROG_ID", "PROGRAM", "GEMPRGID", "ESO OBS PROG ID"),
    ),
    "PI": ("principal investigator", ("PI", "PI_NAME", "PINAME", "PI-COI", "PROPINV",
                                      "ESO OBS PI-COI NAME")),
}  # fmt: skip
"""Keyword of the products -> comment, and keywords of raw headers: the first with a value."""

SITE = (
    ("SITELAT", "[deg] latitude of the site"),
    ("SITELONG", "[deg] longitude of the site, east"),
    ("SITEELEV", "[m] elevation of the site"),
)


def carried_cards(path: str | Path, facts: FrameFacts) -> dict[str, tuple[str | float, str]]:
    """Return the cards that the products of a raw frame carry on.

    Parameters
    ----------
    path : path-like
        Raw file.
    facts : FrameFacts

    Returns
    -------
    dict
        Keyword -> value and comment; those of the image count before those of the file. Nothing
        where the headers cannot be read: what reads the pixels says so.
    """
    hdus = {amplifier.hdu for amplifier in facts.amplifiers}
    try:
        found = read_headers(path, last=max(hdus, default=0)).hdus
    except FrameUnusable:
        return {}
    headers: list[Mapping[str, Any]] = [found[n].header for n in sorted(hdus) if n < len(found)]
    headers += [found[0].header]
    cards: dict[str, tuple[str | float, str]] = {}
    for keyword, (comment, names) in CARRIED.items():
        values = (header.get(name) for name in names for header in headers)
        texts = (card_text(value) for value in values if isinstance(value, str | int | float))
        value = next((text for text in texts if text.strip()), "")
        if value:
            cards[keyword] = (value, comment)
    for (keyword, comment), place in zip(SITE, facts.site or (), strict=False):
        if place is not None:
            cards[keyword] = (float(place), comment)
    return cards


def common_cards(headers: Iterable[fits.Header]) -> dict[str, tuple[Any, str]]:
    """Return the carried cards that all of some frames have alike.

    Parameters
    ----------
    headers : iterable of astropy.io.fits.Header
    """
    first, *others = list(headers)
    return {
        key: (first[key], first.comments[key])
        for key in (*CARRIED, *(keyword for keyword, _ in SITE))
        if key in first and all(one.get(key) == first[key] for one in others)
    }
