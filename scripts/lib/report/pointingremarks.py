"""Remarks on pointings: those corrected by the astrometry, and assumed units."""

from collections.abc import Mapping
from typing import Any

from lib.night.facts import FrameFacts
from lib.report.products import Cards

UNIT_MISTAKEN = 600.0
"""[arcmin] Pointing error above which the right ascension must have been read in the wrong unit."""


def pointing_remarks(stack: str, cards: Cards, facts: FrameFacts | None) -> list[str]:
    """Return remarks on the pointing of a stack.

    Parameters
    ----------
    stack : str
        Name of the stack.
    cards : dict
        Cards of the coadd; empty where there is none.
    facts : FrameFacts or None
        Facts of its first frame.
    """
    off: Any = cards.get("POINTOFF", 0.0)
    guessed = facts is not None and facts.ra_guessed and facts.ra is not None
    if guessed and off > UNIT_MISTAKEN:
        return [f"{stack}: RA {_ra(facts):g} of the headers is in hours, as the reference tells"]
    if off:
        return [
            f"{stack}: the pointing of the headers is {off:.1f}' off; light curve and page take "
            "that of the solution (or target_radec)"
        ]
    if guessed and cards.get("ASTRCAT", "NONE") == "NONE":
        ra = _ra(facts)
        return [
            f"{stack}: nothing tells the unit of RA {ra:g}, taken for degrees; "
            f"if it is in hours, that is why no star fits: {15 * ra:g} deg"
        ]
    return []


def _ra(facts: FrameFacts | None) -> float:
    return facts.ra if facts is not None and facts.ra is not None else 0.0


def all_pointing_remarks(
    stacks: Mapping[str, tuple[Cards, list[str]]], frames: Mapping[str, FrameFacts]
) -> list[str]:
    """Return the remarks of all stacks; see `pointing_remarks`.

    Parameters
    ----------
    stacks : mapping of str to tuple
        Cards of the coadd, names of the frames.
    frames : mapping of str to FrameFacts
    """
    remarks = []
    for stack, (cards, members) in stacks.items():
        facts = frames.get(members[0]) if members else None
        remarks += pointing_remarks(stack, cards, facts)
    return remarks
