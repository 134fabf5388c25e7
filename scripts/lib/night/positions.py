"""Positions that a user wants light curves of: fixed, with proper motion, or along an ephemeris."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.core.sphere import unit_vectors
from lib.night.headervalues import safe_name
from lib.night.targets import TargetError, parse_angle

MJD_J2000 = 51544.5

DEFAULT_EPOCH = 2000.0
"""[yr] Epoch of positions with a proper motion and no epoch of their own."""

LARGEST_STEP = 1.0
"""[deg] Rows of an ephemeris further apart are not interpolated well enough: refused."""

MAS_PER_DEGREE = 3.6e6


@dataclass(frozen=True)
class Position:
    """Where an object is, as a function of time.

    Parameters
    ----------
    name : str
        As the user wrote it.
    ra, dec : ndarray, shape (n,)
        ICRS [deg]; one value of a fixed position, several of an ephemeris.
    pmra, pmdec : float
        Proper motion [mas/yr], that in right ascension times cos(dec).
    epoch : float
        Of the position [yr].
    mjd : ndarray, shape (n,)
        Times of an ephemeris, UTC, ascending; empty for a fixed position.
    """

    name: str
    ra: np.ndarray
    dec: np.ndarray
    pmra: float = 0.0
    pmdec: float = 0.0
    epoch: float = DEFAULT_EPOCH
    mjd: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def moving(self) -> bool:
        """Whether it is given by an ephemeris."""
        return self.mjd.size > 0

    @property
    def key(self) -> str:
        """Name as a part of file names."""
        return safe_name(self.name)

    def at(self, mjd: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return ra, dec [deg] at times (MJD, UTC), shape (n,); NaN beyond the ephemeris.

        Between the rows of an ephemeris unit vectors are interpolated by a cubic spline through
        all of them (by a straight line between two or three).
        """
        mjd = np.atleast_1d(np.asarray(mjd, float))
        if not self.moving:
            years = 2000.0 + (mjd - MJD_J2000) / 365.25 - self.epoch
            dec = self.dec[0] + self.pmdec * years / MAS_PER_DEGREE
            east = self.pmra * years / MAS_PER_DEGREE / np.cos(np.radians(self.dec[0]))
            return (self.ra[0] + east) % 360.0, dec
        from scipy.interpolate import make_interp_spline

        degree = 3 if self.mjd.size > 3 else 1
        spline = make_interp_spline(self.mjd, unit_vectors(self.ra, self.dec), k=degree)
        inside = (mjd >= self.mjd[0]) & (mjd <= self.mjd[-1])
        x, y, z = spline(np.where(inside, mjd, self.mjd[0])).T
        ra = np.degrees(np.arctan2(y, x)) % 360.0
        dec = np.degrees(np.arctan2(z, np.hypot(x, y)))
        return np.where(inside, ra, np.nan), np.where(inside, dec, np.nan)


def read_positions(path: str | Path) -> list[Position]:
    """Read a table of positions.

    Parameters
    ----------
    path : path-like
        ECSV or CSV with columns name, ra, dec [deg, or sexagesimal hours and degrees], optional
        pmra, pmdec [mas/yr] and epoch [yr], and for moving objects time (UTC, ISO 8601, or MJD):
        the rows of one name are its ephemeris.

    Returns
    -------
    list of Position
        In the order of their first rows.

    Raises
    ------
    TargetError
        In one sentence, with the row that is wrong.
    """
    table = _read_table(Path(path))
    missing = [name for name in ("name", "ra", "dec") if name not in table.colnames]
    if missing:
        raise TargetError(f"{path}: column {missing[0]} is missing; it needs name, ra and dec")
    groups: dict[str, list[Any]] = {}
    for row in table:
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


def _read_table(path: Path) -> Any:
    """Return the table, its column names in lower case."""
    from astropy.table import Table

    kind = "ascii.ecsv" if path.suffix.lower() == ".ecsv" else "ascii.csv"
    try:
        table = Table.read(path, format=kind)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        words = " ".join(str(error).split())[:120]
        raise TargetError(f"{path}: cannot be read as {kind.split('.')[1].upper()}: {words}") from (
            error
        )
    table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
    return table


def _position(path: Path, name: str, rows: Sequence[Any]) -> Position:
    """Return the position of the rows of one name."""
    places = [
        [parse_angle(_plain(row[key]), factor) for key, factor in (("ra", 15.0), ("dec", 1.0))]
        for row in rows
    ]
    for ra, dec in places:
        if ra is None or dec is None or not 0 <= ra < 360 or not abs(dec) <= 90:
            raise TargetError(f"{path}: '{name}' has no position of 0 <= ra < 360, |dec| <= 90 deg")
    ra, dec = np.array(places, float).T
    first = rows[0]
    known = set(first.colnames)
    if "time" not in known or not str(_plain(first["time"])).strip():
        if len(rows) > 1:
            raise TargetError(
                f"{path}: '{name}' has {len(rows)} rows; several need a time each (an ephemeris)"
            )
        pmra, pmdec, epoch = (
            _number(path, name, key, first[key] if key in known else None, value)
            for key, value in (("pmra", 0.0), ("pmdec", 0.0), ("epoch", DEFAULT_EPOCH))
        )
        return Position(name, ra, dec, pmra, pmdec, epoch)
    mjd = np.array([_mjd(path, name, _plain(row["time"])) for row in rows])
    order = np.argsort(mjd, kind="stable")
    mjd, ra, dec = mjd[order], ra[order], dec[order]
    if len(mjd) < 2 or np.any(np.diff(mjd) <= 0):
        raise TargetError(f"{path}: the ephemeris of '{name}' needs two different times or more")
    vectors = unit_vectors(ra, dec)
    step = np.degrees(np.linalg.norm(np.diff(vectors, axis=0), axis=1).max())
    if step > LARGEST_STEP:
        raise TargetError(
            f"{path}: rows of the ephemeris of '{name}' are {step:.1f} deg apart; give more "
            f"times, at most {LARGEST_STEP:g} deg apart"
        )
    return Position(name, ra, dec, mjd=mjd)


def _plain(value: Any) -> Any:
    """Return a cell as number or text; a masked one as empty text."""
    if np.ma.is_masked(value):
        return ""
    return value.item() if isinstance(value, np.generic) else value


def _number(path: Path, name: str, key: str, value: Any, default: float) -> float:
    value = _plain(value)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise TargetError(f"{path}: {key} of '{name}' is {value!r}, write a number")
    return number


def _mjd(path: Path, name: str, value: Any) -> float:
    """Return the MJD of a time: a number is an MJD (or JD), a text ISO 8601."""
    from datetime import UTC, datetime

    try:
        number = float(value)
    except ValueError:
        try:
            time = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise TargetError(
                f"{path}: time {value!r} of '{name}' is none; write UTC as "
                "2022-01-28T05:00:00, or an MJD"
            ) from None
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        seconds = (time - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds()
        return MJD_J2000 + seconds / 86400
    return number - 2400000.5 if number > 2400000 else number
