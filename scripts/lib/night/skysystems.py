"""Conversion of header positions from other equinoxes and systems to ICRS, by astropy."""

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.night.headervalues import Header, comment_of, get, number, text

FK4_BEFORE = 1984.0
"""Earlier equinoxes are FK4 where no system is stated (FITS WCS paper II, section 3.1)."""

OWN_EQUINOX = {"TELRA": "TELEQUIN", "OBJRA": "OBJEQUIN", "TRKRA": "TRKEQUIN"}
"""Keywords of right ascensions that have their own equinox keyword."""

_OF_DATE = re.compile(r"\bj?now\b|\bapparent\b|\bof[ -]?date\b|\bapp\b", re.IGNORECASE)

_IN_COMMENT = re.compile(r"\b(?:equinox\W{0,3})?([JB])\s?(\d{4}(?:\.\d+)?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SkySystem:
    """A celestial reference system.

    Parameters
    ----------
    name : {'ICRS', 'FK5', 'FK4', 'FK4-NO-E', 'apparent'}
    equinox : float
        Year, Besselian for FK4. For apparent positions the date of the frame is used.
    """

    name: str = "ICRS"
    equinox: float = 2000.0

    @property
    def is_icrs(self) -> bool:
        """Whether positions need no conversion: FK5 (J2000) is ICRS to 0.03 arcsec."""
        return self.name == "ICRS" or (self.name == "FK5" and abs(self.equinox - 2000) < 1e-3)

    def __str__(self) -> str:
        return "apparent, of date" if self.name == "apparent" else f"{self.name} {self.equinox:.6g}"


def _equinox(value: object) -> tuple[str, float] | None:
    """Return the letter (J, B or none) and the year of an equinox; None where it is invalid."""
    letter = ""
    if isinstance(value, str):
        letter = value.strip()[:1].upper()
        letter = letter if letter in ("J", "B") else ""
        value = value.strip()[len(letter) :]
    year = number(value)
    return (letter, year) if year is not None and 1850 <= year <= 2150 else None


@functools.lru_cache(maxsize=4096)
def _in_comment(comment: str) -> SkySystem | None:
    """Return the system mentioned in the comment of a right ascension; None without one."""
    told = _IN_COMMENT.search(comment)
    if told and _equinox(told.group(2)):
        return SkySystem("FK4" if told.group(1) in "bB" else "FK5", float(told.group(2)))
    return SkySystem("apparent") if _OF_DATE.search(comment) else None


USUAL = ("", "FK5", "ICRS")
"""Systems that equal ICRS to 0.03 arcsec for equinox 2000."""

ICRS_SYSTEM = SkySystem()


def system_of(header: Header, keyword: str = "", wcs: bool = False) -> SkySystem:
    """Return the reference system of the positions in a header.

    Parameters
    ----------
    header : mapping
    keyword : str
        Keyword of the right ascension, whose comment and own equinox take precedence.
    wcs : bool
        Whether the system is that of the WCS, for which RADESYS = ICRS overrides EQUINOX.

    Returns
    -------
    SkySystem
        Follows the FITS standard: an equinox alone means FK4 before 1984 and FK5 after, a system
        alone its standard equinox; EPOCH is used where EQUINOX is absent.
    """
    if keyword and not wcs:
        told = _in_comment(comment_of(header, keyword))
        if told is not None:
            return told
    name = text(get(header, "RADESYS") or get(header, "RADECSYS")).upper()
    if name in USUAL and keyword not in OWN_EQUINOX and number(get(header, "EQUINOX")) == 2000.0:
        return ICRS_SYSTEM
    keys = OWN_EQUINOX.get(keyword, "EQUINOX"), "EQUINOX", "EPOCH"
    return _system_by(name, tuple([get(header, key) for key in keys]), wcs)


@functools.lru_cache(maxsize=4096, typed=True)
def _system_by(name: str, values: tuple[Any, ...], wcs: bool) -> SkySystem:
    """Return the system given by a name and equinoxes, of which the first valid one is used."""
    if any(isinstance(value, str) and _OF_DATE.search(value) for value in values):
        return SkySystem("apparent")
    sane = [equinox for value in values if (equinox := _equinox(value)) is not None]
    letter, year = sane[0] if sane else ("", 0.0)
    if name.startswith("GAPPT") or name in ("APPT", "APPARENT"):
        return SkySystem("apparent")
    if name == "ICRS" and (wcs or not year):
        return SkySystem()
    if name in ("FK4", "FK4-NO-E"):
        return SkySystem(name, year or 1950.0)
    if name == "FK5" or letter == "J":
        return SkySystem("FK5", year or 2000.0)
    if not year:
        return SkySystem()
    return SkySystem("FK4" if letter == "B" or year < FK4_BEFORE else "FK5", year)


@functools.lru_cache(maxsize=4096)
def _rotation(equinox: float) -> np.ndarray:
    """Return the rotation matrix from FK5 of an equinox to ICRS."""
    from astropy.coordinates import FK5, ICRS, CartesianRepresentation
    from astropy.time import Time

    frame = FK5(
        CartesianRepresentation(*np.eye(3)), equinox=Time(equinox, format="jyear", scale="tt")
    )
    return np.asarray(frame.transform_to(ICRS()).cartesian.xyz)


@functools.lru_cache(maxsize=4096)
def _by_astropy(ra: float, dec: float, system: SkySystem, mjd: float) -> tuple[float, float]:
    """Return the ICRS position of an FK4 or apparent position."""
    import warnings

    from astropy import units as u
    from astropy.coordinates import FK4, ICRS, FK4NoETerms, PrecessedGeocentric
    from astropy.time import Time

    if system.name == "apparent":
        # Neglecting nutation, at most 17 arcsec, avoids the tables of the Earth's rotation.
        date = Time(mjd, format="mjd", scale="utc")
        frame = PrecessedGeocentric(ra * u.deg, dec * u.deg, equinox=date, obstime=date)
    else:
        kind = FK4NoETerms if system.name == "FK4-NO-E" else FK4
        equinox = Time(system.equinox, format="byear", scale="tt")
        frame = kind(ra * u.deg, dec * u.deg, equinox=equinox)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # future dates: leap seconds are not known yet
        found = frame.transform_to(ICRS())
    return float(found.ra.deg), float(found.dec.deg)


def to_icrs(ra: float, dec: float, system: SkySystem, mjd: float) -> tuple[float, float]:
    """Return a position in ICRS.

    Parameters
    ----------
    ra, dec : float
        Position in `system` [deg].
    system : SkySystem
    mjd : float
        Date of the frame, for apparent positions [MJD].

    Returns
    -------
    ra, dec : float
        ICRS [deg].
    """
    if system.is_icrs:
        return ra, dec
    if system.name != "FK5":
        return _by_astropy(ra, dec, system, mjd)
    a, d = math.radians(ra), math.radians(dec)
    x, y, z = _rotation(round(system.equinox, 3)) @ (
        math.cos(d) * math.cos(a),
        math.cos(d) * math.sin(a),
        math.sin(d),
    )
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(math.atan2(z, math.hypot(x, y)))


def north_turn(ra: float, dec: float, system: SkySystem, mjd: float) -> float:
    """Return the position angle in ICRS of the north of a system [radian] at a position in it."""
    step = 0.01 if dec < 89 else -0.01
    a0, d0 = (math.radians(value) for value in to_icrs(ra, dec, system, mjd))
    a1, d1 = (math.radians(value) for value in to_icrs(ra, dec + step, system, mjd))
    east = math.cos(d1) * math.sin(a1 - a0)
    north = math.sin(d1) * math.cos(d0) - math.cos(d1) * math.sin(d0) * math.cos(a1 - a0)
    return math.atan2(east, north) if step > 0 else math.atan2(-east, -north)
