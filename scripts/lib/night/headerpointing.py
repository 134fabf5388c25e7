"""Pointing of the telescope from a header: units, meaningless zeros, equinoxes."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from lib.night.airmass import airmass_at, altitude
from lib.night.headervalues import Header, Reading, angle, comment_of, get, number, readings, text
from lib.night.skysystems import system_of, to_icrs

HOURS_AGREE = 3.0
"""[deg] Maximum distance of two right ascensions of a header for these to be in the same unit."""

_HOURS = re.compile(r"\bh(rs?|ours?)?\b|\bh\W?m\W?s\b|hh\W?mm", re.IGNORECASE)

_DEGREES = re.compile(r"\bdeg(ree|r)?s?\b|\u00b0", re.IGNORECASE)


_RADIANS = re.compile(r"\brad(ian)?s?\b", re.IGNORECASE)


@dataclass
class HeaderPointing:
    """Pointing of the telescope from a header.

    Parameters
    ----------
    ra, dec : float
        ICRS [deg]; None where the header has none.
    notes : list of str
        Remarks.
    guessed : bool
        Whether the right ascension is assumed to be in degrees without evidence.
    """

    ra: float | None = None
    dec: float | None = None
    notes: list[str] = field(default_factory=list)
    guessed: bool = False


@dataclass(frozen=True)
class Place:
    """What decides whether a pointing is observable: time (MJD), site [deg], airmass or None."""

    mjd: float
    latitude: float | None = None
    longitude: float | None = None
    airmass: float | None = None


def _ra(reading: Reading, header: Header) -> tuple[float, bool] | None:
    """Return a right ascension [deg], and whether its unit is stated."""
    value = angle(reading.value, hours=True)
    if value is None or not -360 <= value <= 360:
        return None
    if number(reading.value) is None or not reading.keyword:
        return value, True
    if not 0 < value < 24:
        return (math.degrees(value) % 360 if _in_radians(reading, header) else value), True
    comment = comment_of(header, reading.keyword)
    unit = re.match(r"\s*[\[(]([^\])]*)[\])]", comment)
    for words in (unit.group(1) if unit else "", comment):
        hours, degrees = bool(_HOURS.search(words)), bool(_DEGREES.search(words))
        if hours != degrees:
            return value * (15 if hours else 1), True
    if _in_radians(reading, header):
        return math.degrees(value) % 360, True
    return value, False


def _in_radians(reading: Reading, header: Header) -> bool:
    """Return whether the comment of a number says that it is in radians."""
    if number(reading.value) is None or not reading.keyword:
        return False
    comment = comment_of(header, reading.keyword)
    return bool(_RADIANS.search(comment)) and not _DEGREES.search(comment)


def _dec(reading: Reading, header: Header) -> float | None:
    value = angle(reading.value)
    if value is not None and _in_radians(reading, header):
        value = math.degrees(value)
    return value if value is not None and abs(value) <= 90 else None


def _apart(one: float, two: float) -> float:
    return abs((one - two + 180) % 360 - 180)


def _unit_by_evidence(
    value: float, dec: float, others: list[Reading], header: Header, place: Place
) -> tuple[float, str]:
    """Return a right ascension of unknown unit [deg], and the evidence for its unit, if any."""
    for other in others:
        known = _ra(other, header)
        if known is None or not known[1]:
            continue
        reach = HOURS_AGREE / max(0.1, math.cos(math.radians(dec)))
        if _apart(known[0], value) <= reach:
            return value, other.keyword
        if _apart(known[0], 15 * value) <= reach:
            return 15 * value, other.keyword or "another keyword"
    if place.latitude is None or place.longitude is None or abs(place.latitude) > 90:
        return value, ""
    # Longitudes may be east or west positive: exclude only what is impossible with both.
    ups, ups_if_hours = (
        [altitude(place.mjd, ra, dec, place.latitude, sign * place.longitude) for sign in (1, -1)]
        for ra in (value, 15 * value)
    )
    if max(ups) < -1 and max(ups_if_hours) > 5:
        return 15 * value, "its altitude"
    if place.airmass and 1 <= place.airmass < 10:
        off, off_if_hours = (
            min(
                (abs(math.log(one / place.airmass)) for one in map(airmass_at, both) if one),
                default=9,
            )
            for both in (ups, ups_if_hours)
        )
        if off > 0.3 and off_if_hours < 0.1:
            return 15 * value, "its airmass"
    return value, ""


def header_pointing(
    ra: Any, dec: Any, header: Header, filename: str, place: Place
) -> HeaderPointing:
    """Return the pointing of the telescope.

    Parameters
    ----------
    ra, dec : str, number, list or dict
        Entries of the instrument file: the first alternatives that are angles are used. A pair of
        zeros is rejected: it stands for unknown coordinates.
    header : mapping
        Header of the frame.
    filename : str
        Name of the raw file.
    place : Place
        Time, site and airmass of the frame.

    Returns
    -------
    HeaderPointing
        Pointing in ICRS, with remarks.
    """
    ras = [(one, at) for one in readings(ra, header, filename) if (at := _ra(one, header))]
    decs = [
        known for one in readings(dec, header, filename) if (known := _dec(one, header)) is not None
    ]
    if not ras or not decs:
        return HeaderPointing()
    notes: list[str] = []
    reading, (value, told) = ras[0]
    declination = decs[0]
    if value == 0 and declination == 0:
        notes.append(f"{reading.keyword or 'RA'} and DEC are 0, which is not believed")
        ras = [one for one in ras if one[1][0] != 0]
        decs = [one for one in decs if one != 0]
        if not ras or not decs:
            return HeaderPointing(notes=notes)
        reading, (value, told) = ras[0]
        declination = decs[0]
    if not told:
        others = [one for one, _ in ras if one is not reading]
        if text(get(header, "CTYPE1")).startswith("RA--"):
            others.append(Reading(f"{number(get(header, 'CRVAL1'))}d", "CRVAL1"))
        hours, by = _unit_by_evidence(value, declination, others, header, place)
        if by and hours != value:
            notes.append(f"{reading.keyword} {value:g} is in hours, by {by}")
        value, told = hours, bool(by)
    system = system_of(header, reading.keyword)
    if not system.is_icrs:
        notes.append(f"{reading.keyword or 'RA'} and DEC are of {system}: precessed to 2000")
    value, declination = to_icrs(value % 360, declination, system, place.mjd)
    return HeaderPointing(round(value % 360, 7) % 360, round(declination, 7), notes, not told)
