"""Positions for light curves: fixed, with proper motion, or along an ephemeris."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.core.sphere import deproject, project, unit_vectors
from lib.night.ephemeris import MJD_J2000, read_rows
from lib.night.headervalues import safe_name
from lib.night.targets import TargetError, parse_angle

DEFAULT_EPOCH = 2000.0
"""[yr] Epoch of positions with proper motion that state none."""

LARGEST_STEP = 1.0
"""[deg] Maximum distance between rows of an ephemeris; interpolation would be inaccurate beyond."""

RATES_LAST = 1.0
"""[d] Validity of a position with rates, before and after its epoch."""

MAS_PER_DEGREE = 3.6e6

MINUTE = 1 / 1440
"""[d]"""


@dataclass(frozen=True)
class Position:
    """The position of an object as a function of time.

    Parameters
    ----------
    name : str
        Name as given by the user.
    ra, dec : ndarray, shape (n,)
        ICRS [deg]; one value for a fixed position, several for an ephemeris.
    pmra, pmdec : float
        Proper motion [mas/yr]; that in right ascension includes cos(dec).
    epoch : float
        Epoch of the position [yr].
    mjd : ndarray, shape (n,)
        Times of an ephemeris [MJD, UTC], ascending; empty for a fixed position.
    rates : tuple of float
        Motion in east and north [arcsec/h] for an ephemeris of a single time.
    offset : tuple of float
        Offset in east and north [arcsec], observed minus computed, to be added.
    """

    name: str
    ra: np.ndarray
    dec: np.ndarray
    pmra: float = 0.0
    pmdec: float = 0.0
    epoch: float = DEFAULT_EPOCH
    mjd: np.ndarray = field(default_factory=lambda: np.empty(0))
    rates: tuple[float, float] = (0.0, 0.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def moving(self) -> bool:
        """Whether the position is given by an ephemeris."""
        return self.mjd.size > 0

    @property
    def key(self) -> str:
        """Name as a part of file names."""
        return safe_name(self.name)

    def shifted(self, east: float, north: float) -> "Position":
        """Return the position with another offset [arcsec]."""
        return replace(self, offset=(float(east), float(north)))

    def at(self, mjd: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return ra, dec [deg] at times (MJD, UTC), shape (n,); NaN outside the ephemeris.

        Unit vectors are interpolated with a cubic spline through all rows of an ephemeris (linearly
        between two or three rows). Rates are valid for a day.
        """
        mjd = np.atleast_1d(np.asarray(mjd, float))
        if not self.moving:
            years = 2000.0 + (mjd - MJD_J2000) / 365.25 - self.epoch
            dec = self.dec[0] + self.pmdec * years / MAS_PER_DEGREE
            east = self.pmra * years / MAS_PER_DEGREE / np.cos(np.radians(self.dec[0]))
            return (self.ra[0] + east) % 360.0, dec
        ra, dec = self._by_rates(mjd) if self.mjd.size == 1 else self._by_rows(mjd)
        if self.offset == (0.0, 0.0):
            return ra, dec
        moved = [deproject([self.offset], *place) for place in zip(ra, dec, strict=True)]
        return np.array([one[0][0] for one in moved]), np.array([one[1][0] for one in moved])

    def _by_rates(self, mjd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        days = mjd - self.mjd[0]
        inside = np.abs(days) <= RATES_LAST
        hours = np.where(inside, 24 * days, 0.0)
        ra, dec = deproject(hours[:, None] * np.array(self.rates), self.ra[0], self.dec[0])
        return np.where(inside, ra, np.nan), np.where(inside, dec, np.nan)

    def _by_rows(self, mjd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from scipy.interpolate import make_interp_spline

        degree = 3 if self.mjd.size > 3 else 1
        spline = make_interp_spline(self.mjd, unit_vectors(self.ra, self.dec), k=degree)
        inside = (mjd >= self.mjd[0]) & (mjd <= self.mjd[-1])
        x, y, z = spline(np.where(inside, mjd, self.mjd[0])).T
        ra = np.degrees(np.arctan2(y, x)) % 360.0
        dec = np.degrees(np.arctan2(z, np.hypot(x, y)))
        return np.where(inside, ra, np.nan), np.where(inside, dec, np.nan)

    def motion(self, mjd: float) -> tuple[float, float]:
        """Return the motion in east and north [arcsec/h] at a time [MJD]; 0 where unknown."""
        if not self.moving:
            return 0.0, 0.0
        ra, dec = self.at([mjd - MINUTE, mjd, mjd + MINUTE])
        first, last = (0 if np.isfinite(ra[0]) else 1), (2 if np.isfinite(ra[2]) else 1)
        if first == last or not np.isfinite(ra[1]):
            return 0.0, 0.0
        ends = project(ra[[first, last]], dec[[first, last]], ra[1], dec[1])
        east, north = (ends[1] - ends[0]) / ((last - first) * 24 * MINUTE)
        return float(east), float(north)


def read_positions(path: str | Path) -> list[Position]:
    """Read a table of positions.

    Parameters
    ----------
    path : path-like
        ECSV or CSV with columns name, ra, dec [deg, or sexagesimal hours and degrees], optionally
        pmra, pmdec [mas/yr] and epoch [yr], and, for moving objects, time (UTC: ISO 8601, MJD or
        JD): the rows of one name are its ephemeris, and a single row with rate_ra and rate_dec
        [arcsec/h] is a position with its motion. Other column names and formats as for `read_rows`.

    Returns
    -------
    list of Position
        In the order of their first rows.

    Raises
    ------
    TargetError
        The table is wrong; one sentence that names the row.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_rows(Path(path)):
        groups.setdefault(str(row["name"]).strip(), []).append(row)
    found = [_position(Path(path), name, rows) for name, rows in groups.items()]
    keys: dict[str, str] = {}
    for one in found:
        if not one.name:
            raise TargetError(f"{path}: a row has no name")
        other = keys.setdefault(one.key.lower(), one.name)
        if other != one.name:
            raise TargetError(
                f"{path}: '{other}' and '{one.name}' are one name in file names; rename one"
            )
    return found


def _position(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> Position:
    """Return the position defined by the rows of one name."""
    places = [
        [parse_angle(row.get(key, ""), factor) for key, factor in (("ra", 15.0), ("dec", 1.0))]
        for row in rows
    ]
    for ra, dec in places:
        if ra is None or dec is None or not 0 <= ra < 360 or not abs(dec) <= 90:
            raise TargetError(f"{path}: '{name}' has no position of 0 <= ra < 360, |dec| <= 90 deg")
    ra, dec = np.array(places, float).T
    first = rows[0]
    if not str(first.get("time", "")).strip():
        if len(rows) > 1:
            raise TargetError(
                f"{path}: '{name}' has {len(rows)} rows; several need a time each (an ephemeris)"
            )
        pmra, pmdec, epoch = (
            _number(path, name, key, first.get(key), value)
            for key, value in (("pmra", 0.0), ("pmdec", 0.0), ("epoch", DEFAULT_EPOCH))
        )
        return Position(name, ra, dec, pmra, pmdec, epoch)
    mjd = np.array([_time(path, name, row.get("time", "")) for row in rows])
    if len(mjd) == 1 and str(first.get("rate_ra", "")).strip():
        east, north = (
            _number(path, name, key, first.get(key), 0.0) for key in ("rate_ra", "rate_dec")
        )
        return Position(name, ra, dec, mjd=mjd, rates=(east, north))
    order = np.argsort(mjd, kind="stable")
    mjd, ra, dec = mjd[order], ra[order], dec[order]
    if len(mjd) < 2 or np.any(np.diff(mjd) <= 0):
        raise TargetError(
            f"{path}: the ephemeris of '{name}' needs two different times or more, or one with "
            "rate_ra and rate_dec"
        )
    vectors = unit_vectors(ra, dec)
    step = np.degrees(np.linalg.norm(np.diff(vectors, axis=0), axis=1).max())
    if step > LARGEST_STEP:
        raise TargetError(
            f"{path}: rows of the ephemeris of '{name}' are {step:.1f} deg apart; give more "
            f"times, at most {LARGEST_STEP:g} deg apart"
        )
    return Position(name, ra, dec, mjd=mjd)


def _number(path: Path, name: str, key: str, value: Any, default: float) -> float:
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise TargetError(f"{path}: {key} of '{name}' is {value!r}, write a number")
    return number


def _time(path: Path, name: str, value: Any) -> float:
    if isinstance(value, float) and np.isfinite(value):
        return value
    raise TargetError(
        f"{path}: time {value!r} of '{name}' is none; write UTC as 2022-01-28T05:00:00, or an MJD"
    )
