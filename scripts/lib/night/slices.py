"""Which frames of a target and filter make a stack, by time: ``stack.by``."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lib.night.facts import FrameFacts

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds."""

SLICE = re.compile(r"(last)?(\d+(?:\.\d+)?)(s|min|h|d)")

MARK = (
    r"(?:all|(?:last)?\d+(?:p\d+)?(?:s|min|h|d)(?:-2\d{7}T\d{6})?|f2[0-9A-Za-z_+-]*"
    r"|moving-[0-9A-Za-z_+-]+)"
)
"""What follows the name of a stack whose frames are not those of a night."""

EPOCH = 40587.0
"""Modified Julian date of the epoch from which the lengths of bins are counted."""


@dataclass(frozen=True)
class Slice:
    """A word of ``stack.by``.

    Parameters
    ----------
    kind : {'night', 'all', 'frames', 'bins', 'last'}
    seconds : float
        Length of a bin, or how far back from the last frame.
    word : str
        As names of files have the length.
    """

    kind: str
    seconds: float = math.inf
    word: str = ""


def parse_slice(word: str) -> Slice:
    """Return what a word of ``stack.by`` means.

    Raises
    ------
    ValueError
        What to write.
    """
    plain = word.strip().lower().replace(" ", "")
    if plain in ("auto", "night", "all", "frames"):
        return Slice(plain)
    found = SLICE.fullmatch(plain)
    if not found or not float(found[2]) > 0:
        raise ValueError("write auto, night, all, frames, or a time such as 1h or last30min")
    seconds = float(found[2]) * UNITS[found[3]]
    if seconds < 1:
        raise ValueError("write a time of at least 1 s")
    text = f"{found[1] or ''}{float(found[2]):g}{found[3]}".replace(".", "p")
    return Slice("last" if found[1] else "bins", seconds, text)


def slices_of(words: Iterable[str], several_nights: bool) -> list[Slice]:
    """Return the slices that ``stack.by`` asks for beside the nights, each once.

    Parameters
    ----------
    words : list of str
    several_nights : bool
    """
    found: dict[Slice, None] = {}
    for word in words:
        one = parse_slice(word)
        if one.kind == "auto" and several_nights:
            one = Slice("all")
        if one.kind not in ("auto", "night"):
            found[one] = None
    return list(found)


def sliced(
    stacks: Mapping[str, Sequence[str]], frames: Mapping[str, FrameFacts], slices: Iterable[Slice]
) -> dict[str, tuple[str, ...]]:
    """Return the stacks that slices make of the frames of targets and filters.

    Parameters
    ----------
    stacks : dict of str to list of str
        ``<target>.<filter>`` -> frames of all nights, by time.
    frames : dict of str to FrameFacts
    slices : iterable of Slice

    Returns
    -------
    dict of str to tuple of str
        ``<target>.<filter>.<mark>`` -> frames, by time. Bins are whole lengths of time since
        1970-01-01 UTC, so that a new frame moves no other to another bin; the last ones are
        counted back from the start of the last frame of the target in any filter.
    """
    last: dict[str, float] = {}
    for name, members in stacks.items():
        target = name.split(".")[0]
        last[target] = max(last.get(target, -math.inf), *(frames[one].mjd for one in members))
    found: dict[str, tuple[str, ...]] = {}
    for one in slices:
        for name, members in stacks.items():
            if one.kind == "all":
                parts = {"all": list(members)}
            elif one.kind == "frames":
                parts = {f"f{frame}": [frame] for frame in members}
            elif one.kind == "last":
                since = last[name.split(".")[0]] - one.seconds / 86400
                parts = {one.word: [f for f in members if frames[f].mjd > since - 1e-9]}
            else:
                parts = {}
                for frame in members:
                    mark = f"{one.word}-{_bin_start(frames[frame].mjd, one.seconds)}"
                    parts.setdefault(mark, []).append(frame)
            found |= {f"{name}.{mark}": tuple(part) for mark, part in parts.items() if part}
    return dict(sorted(found.items()))


def _bin_start(mjd: float, seconds: float) -> str:
    """Return the start of the bin of a time, as 20220128T050000."""
    # To the millisecond, for a start on the boundary belongs to what follows it.
    number = math.floor(round((mjd - EPOCH) * 86400, 3) / seconds)
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=number * seconds)
    return f"{start:%Y%m%dT%H%M%S}"
