"""Nights: from noon to noon at the site, whatever folder a frame lies in."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from lib.core.times import MJD_ZERO
from lib.night.facts import FrameFacts

PAUSE = 4 / 24
"""[d] Minimum gap between the science frames of two nights: the Sun is up in between."""


def name_of_night(number: int) -> str:
    """Return the name of a night, the date of its evening, e.g. 20220127.

    Parameters
    ----------
    number : int
        Modified Julian date of that day.
    """
    return f"{MJD_ZERO + timedelta(days=number):%Y%m%d}"


def tell_nights(frames: Sequence[FrameFacts]) -> tuple[dict[str, str], list[str]]:
    """Return the night of each frame.

    A night lasts from noon to noon of local mean time, with the longitude from the instrument file
    or header, or else that of Greenwich. Nights are defined by science frames. Calibration frames
    taken on other days belong to the next night with science frames, or else to the last one.

    Parameters
    ----------
    frames : list of FrameFacts
        Frames of any type.

    Returns
    -------
    nights : dict of str to str
        Name of the frame -> name of its night.
    notes : list of str
        Longitudes that were assumed where none is given, or it is implausible.
    """
    numbers: dict[str, int] = {}
    notes = []
    cameras: dict[str, list[FrameFacts]] = {}
    for facts in frames:
        cameras.setdefault(facts.instrument, []).append(facts)
    for instrument, members in sorted(cameras.items()):
        shift, note = _noon(instrument, members)
        numbers |= {one.frame: int((one.mjd + shift) // 1) for one in members}
        notes += [note] if note else []
    science = sorted({numbers[one.frame] for one in frames if one.type == "object"})
    if not science:
        return dict.fromkeys(numbers, ""), []
    named = {
        frame: name_of_night(next((one for one in science if one >= number), science[-1]))
        for frame, number in numbers.items()
    }
    return named, notes if len(science) > 1 else []


def _noon(instrument: str, frames: Sequence[FrameFacts]) -> tuple[float, str]:
    """Return the offset of modified Julian dates such that days begin at noon, and a remark."""
    known = [one.site[1] if one.site else one.longitude for one in frames]
    told = sorted(one for one in known if one is not None)
    longitude = told[len(told) // 2] if told else 0.0
    shift = _days_begin_at_noon(longitude)
    times = sorted(one.mjd + shift for one in frames if one.type == "object")
    cut = any(
        later - before < PAUSE and later // 1 > before // 1 for before, later in _pairs(times)
    )
    if not cut:
        where = f"{instrument}: no header tells the longitude of the site, nights begin at noon UTC"
        return shift, "" if told else where
    # Science at noon: longitude wrong or missing. The day is where there are no frames.
    phases = sorted(time % 1 for time in times)
    gaps = [(later - before, before) for before, later in _pairs([*phases, phases[0] + 1])]
    length, before = max(gaps)
    hours = (before + length / 2 - shift) % 1 * 24
    return _days_begin_at_noon((12 - hours) * 15), (
        f"{instrument}: noon by longitude {longitude:g} falls among its frames, nights begin at "
        f"{hours:.1f} h UTC, amid the longest pause"
    )


def _days_begin_at_noon(longitude: float) -> float:
    """Return the offset of modified Julian dates such that days begin at noon of a longitude."""
    return (longitude + 180) % 360 / 360 - 1.0


def _pairs(values: Sequence[float]) -> Iterable[tuple[float, float]]:
    return zip(values, values[1:], strict=False)
