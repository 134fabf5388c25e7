"""Positions of other equinoxes and systems, as headers have them, to ICRS (astropy.coordinates)."""

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.night.headervalues import Header, comment_of, get, number, text

FK4_BEFORE = 1984.0
"""Equinoxes before are of FK4 where no system is told (FITS WCS paper II, section 3.1)."""

OWN_EQUINOX = {"TELRA": "TELEQUIN", "OBJRA": "OBJEQUIN", "TRKRA": "TRKEQUIN"}
"""Keywords of a right ascension that have an equinox of their own."""

_OF_DATE = re.compile(r"\bj?now\b|\bapparent\b|\bof[ -]?date\b|\bapp\b", re.IGNORECASE)

_IN_COMMENT = re.compile(r"\b(?:equinox\W{0,3})?([JB])\s?(\d{4}(?:\.\d+)?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SkySystem:
    """A celestial system.

    Parameters
    ----------
    name : {'ICRS', 'FK5', 'FK4', 'FK4-NO-E', 'apparent'}
    equinox : float
        Years; Besselian of FK4. Of the apparent system the date of the frame counts.
    """

    name: str = "ICRS"
    equinox: float = 2000.0

    @property
    def is_icrs(self) -> bool:
        """Whether positions may stay as they are: FK5 of 2000 is the same to 0.03 arcsec."""
        return self.name == "ICRS" or (self.name == "FK5" and abs(self.equinox - 2000) < 1e-3)

    def __str__(self) -> str:
        return "apparent, of date" if self.name == "apparent" else f"{self.name} {self.equinox:.6g}"


def _equinox(value: object) -> tuple[str, float] | None:
    """Return the letter (J, B or none) and the year of an equinox; None where it is not sane."""
    letter = ""
    if isinstance(value, str):
        letter = value.strip()[:1].upper()
        letter = letter if letter in ("J", "B") else ""
        value = value.strip()[len(letter) :]
    year = number(value)
    return (letter, year) if year is not None and 1850 <= year <= 2150 else None


@functools.lru_cache(maxsize=4096)
def _in_comment(comment: str) -> SkySystem | None:
    """Return the system that the comment of a right ascension speaks of, None where of none."""
    told = _IN_COMMENT.search(comment)
    if told and _equinox(told.group(2)):
        return SkySystem("FK4" if told.group(1) in "bB" else "FK5", float(told.group(2)))
    return SkySystem("apparent") if _OF_DATE.search(comment) else None


USUAL = ("", "FK5", "ICRS")
"""Systems that are ICRS to 0.03 arcsec with the equinox 2000."""

ICRS_SYSTEM = SkySystem()


def system_of(header: Header, keyword: str = "", wcs: bool = False) -> SkySystem:
    """Return the system in which a header has its positions.

    Parameters
    ----------
    header : mapping
    keyword : str
        Keyword of the right ascension: its comment, and an equinox of its own, take precedence.
    wcs : bool
        Whether it is asked for the WCS, for which RADESYS = ICRS counts more than an EQUINOX.

    Returns
    -------
    SkySystem
        As the FITS standard has it: an equinox alone is of FK4 before 1984 and of FK5 after, a
        system alone of its usual equinox; EPOCH counts where EQUINOX is absent.
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
    """Return the system of a name and of equinoxes, the first that is sane counts."""
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
    """Return the matrix from FK5 of an equinox to ICRS."""
    from astropy.coordinates import FK5, ICRS, CartesianRepresentation
    from astropy.time import Time

    frame = FK5(
        CartesianRepresentation(*np.eye(3)), equinox=Time(equinox, format="jyear", scale="tt")
    )
    return np.asarray(frame.transform_to(ICRS()).cartesian.xyz)


@functools.lru_cache(maxsize=4096)
def _by_astropy(ra: float, dec: float, system: SkySystem, mjd: float) -> tuple[float, float]:
    """Return a position of FK4, or of the date of a frame, in ICRS."""
    import warnings

    from astropy import units as u
    from astropy.coordinates import FK4, ICRS, FK4NoETerms, PrecessedGeocentric
    from astropy.time import Time

    if system.name == "apparent":
        # Nutation, 17 arcsec at most, is left out: it needs no table of the Earth's rotation so.
        date = Time(mjd, format="mjd", scale="utc")
        frame = PrecessedGeocentric(ra * u.deg, dec * u.deg, equinox=date, obstime=date)
    else:
        kind = FK4NoETerms if system.name == "FK4-NO-E" else FK4
        equinox = Time(system.equinox, format="byear", scale="tt")
        frame = kind(ra * u.deg, dec * u.deg, equinox=equinox)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dates of the future: leap seconds are not known yet
        found = frame.transform_to(ICRS())
    return float(found.ra.deg), float(found.dec.deg)


def to_icrs(ra: float, dec: float, system: SkySystem, mjd: float) -> tuple[float, float]:
    """Return a position in ICRS.

    Parameters
    ----------
    ra, dec : float
        Degrees, in `system`.
    system : SkySystem
    mjd : float
        Date of the frame, for apparent positions.

    Returns
    -------
    ra, dec : float
        Degrees.
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
    """Return the position angle in ICRS of the north of a system [radian], at a position of it."""
    step = 0.01 if dec < 89 else -0.01
    a0, d0 = (math.radians(value) for value in to_icrs(ra, dec, system, mjd))
    a1, d1 = (math.radians(value) for value in to_icrs(ra, dec + step, system, mjd))
    east = math.cos(d1) * math.sin(a1 - a0)
    north = math.sin(d1) * math.cos(d0) - math.cos(d1) * math.sin(d0) * math.cos(a1 - a0)
    return math.atan2(east, north) if step > 0 else math.atan2(-east, -north)
