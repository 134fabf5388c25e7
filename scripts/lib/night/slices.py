"""Stacks by time: which frames of a target and filter are stacked, setting ``stack.by``."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lib.night.facts import FrameFacts

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""Units of time [s]."""

SLICE = re.compile(r"(last)?(\d+(?:\.\d+)?)(s|min|h|d)")

MARK = (
    r"(?:all|(?:last)?\d+(?:p\d+)?(?:s|min|h|d)(?:-2\d{7}T\d{6})?|f2[0-9A-Za-z_+-]*"
    r"|moving-[0-9A-Za-z_+-]+)"
)
"""Suffix of the name of a stack that is not made from all frames of a night."""

EPOCH = 40587.0
"""Modified Julian date from which time bins are counted."""


@dataclass(frozen=True)
class Slice:
    """One word of ``stack.by``.

    Parameters
    ----------
    kind : {'night', 'all', 'frames', 'bins', 'last'}
    seconds : float
        Length of a bin, or time before the last frame [s].
    word : str
        The length as part of file names.
    """

    kind: str
    seconds: float = math.inf
    word: str = ""


def parse_slice(word: str) -> Slice:
    """Return the meaning of a word of ``stack.by``.

    Raises
    ------
    ValueError
        The word is wrong; the message says what to write.
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
    """Return the slices requested by ``stack.by`` in addition to the nights, each once.

    Parameters
    ----------
    words : list of str
        Words of ``stack.by``.
    several_nights : bool
        Whether there are several nights.
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
    """Return the stacks that slices make from the frames of targets and filters.

    Parameters
    ----------
    stacks : dict of str to list of str
        ``<target>.<filter>`` -> frames of all nights, ordered by time.
    frames : dict of str to FrameFacts
    slices : iterable of Slice

    Returns
    -------
    dict of str to tuple of str
        ``<target>.<filter>.<mark>`` -> frames, ordered by time. Bins are counted from 1970-01-01
        UTC, so that a new frame does not shift others between bins; `last` counts back from the
        start of the target's last frame in any filter.
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
    """Return the start of the bin that contains a time, e.g. 20220128T050000."""
    # Rounded to the millisecond: a time on the boundary belongs to the later bin.
    number = math.floor(round((mjd - EPOCH) * 86400, 3) / seconds)
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=number * seconds)
    return f"{start:%Y%m%dT%H%M%S}"
