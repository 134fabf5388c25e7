"""Tables of positions as found in practice: column names, times, output of JPL Horizons."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.times import JD_OF_MJD
from lib.night.targets import TargetError

MJD_J2000 = 51544.5

USUAL_NAMES = {
    "name": ("name", "targetname", "target", "object", "designation", "id"),
    "time": ("time", "utc", "timeutc", "datetime", "datetimejd", "datetimeutc", "jd", "jdut",
             "jdutc", "mjd", "mjdutc", "date", "obstime", "dateobs", "datetimestr"),
    "ra": ("ra", "raicrf", "raastrometricicrf", "raicrfj20000", "raicrs", "raj2000", "radeg",
           "rajd2000", "raicrfdeg", "alpha"),
    "dec": ("dec", "decicrf", "decicrfj20000", "decicrs", "decj2000", "decdeg", "de", "dej2000",
            "decl", "delta2000"),
    "rate_ra": ("rarate", "ratera", "rateeast", "dracosd", "dracosdec"),
    "rate_dec": ("decrate", "ratedec", "ratenorth", "ddec", "ddecdt"),
    "pmra": ("pmra",), "pmdec": ("pmdec", "pmde"), "epoch": ("epoch", "refepoch"),
}  # fmt: skip
"""Column names reduced to letters and digits: those of JPL Horizons and its clients (whose rates in
right ascension include cos(dec)), of MPC tables and of VizieR."""

APPARENT = ("raapp", "decapp", "raairlessapparent", "raapparent", "decapparent")
"""Apparent positions (of date): degrees off after decades of precession, never used."""

UNITS = {"ra": "deg", "dec": "deg", "rate_ra": "arcsec/h", "rate_dec": "arcsec/h"}

HORIZONS_ROW = re.compile(
    r"\s*(?P<time>\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d(?::\d\d(?:\.\d+)?)?)[ *CNAmrtse]*\s"
    r"(?P<ra>\d\d \d\d \d\d(?:\.\d+)?|\d+\.\d+)\s+"
    r"(?P<dec>[+-]?(?:\d\d \d\d \d\d(?:\.\d+)?|\d+\.\d+))"
)
"""Row of the default observer table: time, flags of the Sun and the Moon, RA, DEC."""

TIME_FORMATS = ("%Y-%b-%d %H:%M:%S.%f", "%Y-%b-%d %H:%M:%S", "%Y-%b-%d %H:%M", "%Y-%b-%d",
                "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M")  # fmt: skip
"""Accepted in addition to ISO 8601."""


def plain_word(name: str) -> str:
    """Return a column name reduced to letters and digits, in lower case.

    The times of Horizons, ``Date__(UT)__HR:MN``, become plain dates.
    """
    return re.sub(r"^date(ut|tt|tdb).*", "date", re.sub(r"[^a-z0-9]", "", name.lower()))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of positions, with the column names of `USUAL_NAMES`.

    Parameters
    ----------
    path : Path
        ECSV, CSV, or the unmodified output of JPL Horizons for an observer ($$SOE ... $$EOE).

    Returns
    -------
    list of dict
        Plain numbers and texts, angles in degrees where the table gives their unit; `time` is an
        MJD (UTC), or text that could not be parsed. A table without names is of one object, named
        after the file.

    Raises
    ------
    TargetError
        The table cannot be read; one sentence.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    rows = _horizons_rows(path, text) if "$$SOE" in text else _table_rows(path)
    for row in rows:
        row.setdefault("name", path.stem)
    return rows


def _table_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an ECSV or CSV table."""
    from astropy.table import Table

    kind = "ascii.ecsv" if path.suffix.lower() == ".ecsv" else "ascii.csv"
    try:
        table = Table.read(path, format=kind)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        words = " ".join(str(error).split())[:120]
        raise TargetError(f"{path}: cannot be read as {kind.split('.')[1].upper()}: {words}") from (
            error
        )
    columns = _named(path, table.colnames)
    values = {key: _column(path, table, name, key) for key, name in columns.items()}
    return [{key: value[i] for key, value in values.items()} for i in range(len(table))]


def _named(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the column for each key of `USUAL_NAMES` that the table has."""
    words = {plain_word(name): name for name in reversed(names)}
    found = {}
    for key, usual in USUAL_NAMES.items():
        known = [words[word] for word in usual if word in words]
        if known:
            found[key] = known[0]
    missing = [key for key in ("ra", "dec") if key not in found]
    if missing:
        of_date = sorted(words[word] for word in APPARENT if word in words)
        why = f" ({', '.join(of_date)} are apparent positions)" if of_date else ""
        raise TargetError(f"{path}: column {missing[0]} is missing; it needs name, ra and dec{why}")
    return found


def _column(path: Path, table: Any, name: str, key: str) -> list[Any]:
    """Return the cells of a column as plain numbers and texts."""
    column: Any = table[name]
    if column.unit is not None and key in UNITS and column.dtype.kind in "fi":
        try:
            filled: Any = column.filled(np.nan) if hasattr(column, "filled") else column
            return [float(value) for value in filled.quantity.to_value(UNITS[key])]
        except (ValueError, TypeError) as error:
            raise TargetError(
                f"{path}: the unit of {name} is {column.unit}, write {UNITS[key]}"
            ) from error
    cells = [plain_cell(value) for value in column]
    return [_mjd_or_text(cell, time_scale(name)) for cell in cells] if key == "time" else cells


def plain_cell(value: Any) -> Any:
    """Return a cell as number or text; '' for a masked one."""
    if np.ma.is_masked(value):
        return ""
    return value.item() if isinstance(value, np.generic) else value


def time_scale(name: str) -> str:
    """Return the time scale implied by the name of a column; UTC where it implies none."""
    words = re.split(r"[^A-Z]+", name.upper())
    return next((scale for scale in ("TDB", "TT") if scale in words), "UTC").lower()


def _mjd_or_text(value: Any, scale: str) -> Any:
    """Return the MJD (UTC) of a number (MJD or JD) or a text; other texts unchanged."""
    try:
        mjd = float(value)
    except ValueError:
        found = _calendar_date(str(value).strip())
        if found is None:
            return value
        mjd = found
    else:
        mjd = mjd - JD_OF_MJD if mjd > 2400000 else mjd
    if scale == "utc" or not np.isfinite(mjd):
        return mjd
    from astropy.time import Time

    return float(Time(mjd, format="mjd", scale=scale).utc.mjd)


def _calendar_date(text: str) -> float | None:
    """Return the MJD of a calendar date; None where the text is none."""
    time = None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        for pattern in TIME_FORMATS:
            try:
                time = datetime.strptime(text.removeprefix("A.D. "), pattern)
            except ValueError:
                continue
            break
    if time is None:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return MJD_J2000 + (time - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / 86400


def _horizons_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """Return the rows of an observer table of JPL Horizons."""
    head, _, rest = text.partition("$$SOE")
    lines = [line for line in rest.partition("$$EOE")[0].splitlines() if line.strip()]
    title = next((line for line in reversed(head.splitlines()) if "R.A." in line), "")
    body = re.search(r"Target body name:\s*(.+?)(?:\s{2,}|\s*\{|$)", head, re.M)
    name = {"name": _designation(body[1])} if body else {}
    scale = time_scale(title[: title.find("R.A.")])
    if "R.A." not in title:
        raise TargetError(f"{path}: no column R.A._(ICRF); ask Horizons for quantity 1")
    if "," in title:
        words = [word.strip() for word in title.split(",")]
        columns = {key: words.index(one) for key, one in _named(path, words).items()}
        cells = [[word.strip() for word in line.split(",")] for line in lines]
        found = [{key: row[k] for key, k in columns.items() if k < len(row)} for row in cells]
    else:
        matches = [HORIZONS_ROW.match(line) for line in lines]
        if not all(matches):
            raise TargetError(f"{path}: rows of Horizons without time, R.A. and DEC in this order")
        found = [match.groupdict() for match in matches if match]
    return [row | {"time": _mjd_or_text(row.get("time", ""), scale)} | name for row in found]


def _designation(words: str) -> str:
    """Return number or designation of a body from the name used by Horizons: 433 Eros (A898 PA)."""
    number = re.match(r"(\d+)\s+\D", words)
    inner = re.fullmatch(r"\((.+)\)", words.strip())
    return number[1] if number and "(" in words else (inner[1] if inner else words.strip())
