"""Remarks on solved frames whose scale or orientation differs from the instrument file."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.night.facts import FrameFacts

SCALE_DIFFERS, TURN_DIFFERS = 0.01, 1.0
"""Relative difference of scale, and difference of rotation [deg], above which a remark is made."""


@dataclass(frozen=True)
class Orientation:
    """Pixel scale and orientation, as in an instrument file.

    Parameters
    ----------
    scales : tuple of float
        Scales of both axes of the raw frame [arcsec/pixel].
    rotation : float
        Rotation [deg].
    mirrored : bool
    """

    scales: tuple[float, float]
    rotation: float
    mirrored: bool

    def scaled_otherwise(self, other: "Orientation") -> bool:
        """Return whether scale or parity differ significantly."""
        ratios = [one / two for one, two in zip(self.scales, other.scales, strict=True)]
        return self.mirrored != other.mirrored or any(abs(r - 1) > SCALE_DIFFERS for r in ratios)

    def differs(self, other: "Orientation") -> bool:
        """Return whether scale, rotation or parity differ significantly."""
        turn = abs(turn_between(self.rotation, other.rotation))
        return self.scaled_otherwise(other) or turn > TURN_DIFFERS

    def words(self, turning: bool = False) -> str:
        """Return the orientation in words; of a field that turns, without rotation."""
        mirrored = ", mirrored" if self.mirrored else ""
        where = "at different rotations" if turning else f"at {self.rotation:.1f}°"
        return f'{np.mean(self.scales):.4g}"/px {where}{mirrored}'

    def entry(self, turning: bool = False) -> str:
        """Return the orientation as the entries of `wcs` in an instrument file."""
        one, two = self.scales
        alike = abs(one / two - 1) < 0.003
        scale = f"{(one + two) / 2:.4g}" if alike else f"[{one:.4g}, {two:.4g}]"
        parity = ", parity: mirrored" if self.mirrored else ", parity: normal"
        rotation = "" if turning else f", rotation: {self.rotation:.2f}"
        return f"pixscale: {scale}{rotation}{parity}"


def turn_between(one: float, other: float) -> float:
    """Return the angle from one direction to another, within ±180 deg."""
    return (other - one + 180) % 360 - 180


def orientation_of(cards: Mapping[str, Any], facts: FrameFacts) -> Orientation | None:
    """Return the orientation of a CD matrix in unbinned pixels of the raw frame, or None.

    Inverse of the definition in docs/instruments.md: CD1_1 = -s1 cos t, CD2_1 = s1 sin t, CD1_2 =
    s2 sin t, CD2_2 = s2 cos t, over 3600; s1 is negative for a mirrored frame.

    Parameters
    ----------
    cards : mapping
        CD1_1, CD1_2, CD2_1, CD2_2 [deg/pixel] of the trimmed, joined frame.
    facts : FrameFacts
        With `binning` and `amplifiers`; the first amplifier gives the directions of the axes in the
        raw frame.
    """
    try:
        cd = np.array([[float(cards[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)])
    except (KeyError, TypeError, ValueError):
        return None
    flips = facts.amplifiers[0].flip if facts.amplifiers else [False, False]
    bins = [int(part) for part in facts.binning.split("x")]
    for axis in (0, 1):
        cd[:, axis] *= 3600 / bins[axis] * (-1 if flips[1 - axis] else 1)
    if not np.isfinite(cd).all() or np.linalg.det(cd) == 0:
        return None
    scales = np.hypot(cd[0], cd[1])
    rotation = math.degrees(math.atan2(cd[0, 1], cd[1, 1]))
    return Orientation((float(scales[0]), float(scales[1])), rotation, bool(np.linalg.det(cd) > 0))


def orientation_remarks(
    frames: Mapping[str, FrameFacts], solved_cards: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """Return, for each camera whose solved frames differ from the initial WCS, the correct entry.

    Parameters
    ----------
    frames : mapping of str to FrameFacts
    solved_cards : iterable of tuple
        Name and header cards of each frame that was not rejected. Only frames tied to a catalogue
        are used: others keep the assumed orientation.
    """
    found: dict[tuple[str, ...], list[tuple[Orientation, Orientation | None, FrameFacts]]] = {}
    for name, cards in solved_cards:
        facts = frames.get(name)
        if facts is None or not cards.get("ASTRNST"):
            continue
        if cards.get("ASTRCAT", "NONE") == "NONE":
            continue
        solved = orientation_of(cards, facts)
        guess = orientation_of(facts.wcs, facts) if facts.wcs else None
        if solved is not None:
            key = (facts.instrument, facts.camera, facts.half)
            found.setdefault(key, []).append((solved, guess, facts))
    result = []
    for (instrument, camera, half), every in found.items():
        others = [one for one in every if one[1] is None or one[0].differs(one[1])]
        if len(others) <= len(every) / 2:
            continue
        group = max(
            ([one for one in others if not one[0].differs(ref[0])] for ref in others), key=len
        )
        turning = len(group) <= len(others) / 2
        if turning:
            # No rotation is that of most: the field turns from frame to frame.
            group = [one for one in others if not one[0].scaled_otherwise(group[0][0])]
        typical = _typical([one[0] for one in group])
        guess = group[0][1]
        told = f"the file gives {guess.words()}" if guess else "the file gives none"
        binned = any(one[2].binning != "1x1" for one in group)
        more = ", scale_with_binning: true" if binned else ""
        where = f"{camera} {half}".strip()
        result.append(
            f"instrument {instrument}, {where}: {len(group)} of {len(every)} solved frames have "
            f"{typical.words(turning)}, {told}; write "
            f"cameras: {{{camera}: {{wcs: {{header: false, {typical.entry(turning)}{more}}}}}}}"
        )
    return result


def _typical(group: list[Orientation]) -> Orientation:
    first = group[0]
    scales = np.median([one.scales for one in group], axis=0)
    turn = np.median([turn_between(first.rotation, one.rotation) for one in group])
    rotation = turn_between(0.0, first.rotation + float(turn))
    return Orientation((float(scales[0]), float(scales[1])), rotation, first.mirrored)
