"""Stacks that follow a moving object: which frames may contain it."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lib.core.sphere import separation
from lib.night.facts import FrameFacts
from lib.night.pointing import frame_centre
from lib.night.positions import Position

POINTING_MARGIN = 0.05
"""[deg] Pointing error assumed where none is stated; the stack checks the solved WCS."""

LEAST_FRAMES = 2
"""Minimum number of frames of such a stack."""


def middle(facts: FrameFacts) -> float:
    """Return the mid-exposure [MJD, UTC]."""
    return facts.mjd + facts.exptime / 2 / 86400


def may_show(facts: FrameFacts, position: Position) -> bool:
    """Return whether an object may be on a frame, from the pointing in its header."""
    ra, dec = (float(value[0]) for value in position.at(middle(facts)))
    if not math.isfinite(ra):
        return False
    centre = frame_centre(facts)
    if centre is None or not facts.pixscale:
        return True
    reach = math.hypot(*facts.shape) * facts.pixscale / 3600 / 2
    return bool(separation(*centre, ra, dec) < reach + max(facts.poserr or 0.0, POINTING_MARGIN))


def moving_stacks(
    stacks: Mapping[str, Sequence[str]],
    frames: Mapping[str, FrameFacts],
    positions: Iterable[Position],
    nights: Mapping[str, str],
) -> tuple[dict[str, tuple[str, ...]], dict[str, Position]]:
    """Return the stacks that follow moving objects.

    Parameters
    ----------
    stacks : dict of str to list of str
        ``<target>.<filter>`` -> frames of all nights, by time.
    frames : dict of str to FrameFacts
    positions : iterable of Position
    nights : dict of str to str
        Night of each frame.

    Returns
    -------
    stacks : dict of str to tuple of str
        ``<target>.<filter>.moving-<object>`` -> frames; for an object observed in several nights
        ``.moving-<object>-n<night>``, one per night, because its motion between nights is less well
        known.
    positions : dict of str to Position
        Ephemeris of each of these stacks.
    """
    found: dict[str, tuple[str, ...]] = {}
    followed: dict[str, Position] = {}
    for position in positions:
        if not position.moving:
            continue
        for name, members in stacks.items():
            seen = [one for one in members if may_show(frames[one], position)]
            its_nights = list(dict.fromkeys(nights.get(one, "") for one in seen))
            for night in its_nights:
                part = tuple(one for one in seen if nights.get(one, "") == night)
                end = f"-n{night}" if len(its_nights) > 1 else ""
                if len(part) >= LEAST_FRAMES:
                    stack = f"{name}.moving-{position.key}{end}"
                    found[stack], followed[stack] = part, position
    return found, followed


def track(position: Position, times: Sequence[float]) -> list[str]:
    """Return the positions of an object at times as text, to detect changes of its ephemeris."""
    ra, dec = position.at(np.array(times, float))
    return [f"{a:.6f} {d:+.6f}" for a, d in zip(ra, dec, strict=True)]
