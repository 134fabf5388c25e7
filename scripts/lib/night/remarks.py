"""Remarks about the headers of a night: irregularities of single frames, conflicting times."""

import re
from collections.abc import Iterable

from lib.night.facts import FrameFacts

OVERLAP = 0.9
"""Fraction of an exposure after which the next frame may begin: header times are rounded."""


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


def grouped_notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Return notes of files; those that differ only in their numbers are merged.

    Parameters
    ----------
    notes : iterable of tuple of str
        File, and a remark about it.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, note in notes:
        groups.setdefault(re.sub(r"\d+(\.\d+)?", "#", note), []).append((name, note))
    remarks = []
    for members in groups.values():
        names = list(dict.fromkeys(name for name, _ in members))
        remarks.append(f"{names[0]}{_more(len(names))}: {members[0][1]}")
    return remarks


def header_remarks(frames: Iterable[FrameFacts]) -> list[str]:
    """Return the notes of frames; see `grouped_notes`.

    Parameters
    ----------
    frames : iterable of FrameFacts
        Frames with their notes.
    """
    return grouped_notes((facts.raw, note) for facts in frames for note in facts.notes)


def clashing_times(frames: Iterable[FrameFacts]) -> list[str]:
    """Return remarks on frames of a camera that start simultaneously, or before the last one ended.

    Parameters
    ----------
    frames : iterable of FrameFacts
        Frames of any cameras.
    """
    cameras: dict[tuple[str, ...], dict[str, FrameFacts]] = {}
    for facts in frames:
        if facts.type == "object":
            light = facts.filter if facts.half else ""
            key = (facts.instrument, facts.camera, facts.detector, light)
            cameras.setdefault(key, {})[facts.raw] = facts
    remarks = []
    for members in cameras.values():
        ordered = sorted(members.values(), key=lambda one: one.mjd)
        pairs = list(zip(ordered, ordered[1:], strict=False))
        same = [two for one, two in pairs if two.mjd == one.mjd]
        if same:
            remarks.append(
                f"{len(same) + 1} frames ({same[0].raw} ...) begin at the same time as others, "
                f"{same[0].date_obs}: their times, and the light curve, are not to be trusted"
            )
        close = [
            (one, (two.mjd - one.mjd) * 86400)
            for one, two in pairs
            if 0 < (two.mjd - one.mjd) * 86400 < OVERLAP * one.exptime - 1
        ]
        if close:
            one, apart = close[0]
            remarks.append(
                f"{one.raw}{_more(len(close))}: the next frame begins after {apart:.4g} s, "
                f"the exposure is {one.exptime:.6g} s: exposure or times are wrong"
            )
    return remarks
