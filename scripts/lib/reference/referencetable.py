"""The reference table: one form for positions and magnitudes, checked when read.

A reference table has a row per star: ``ra dec`` [deg, ICRS], ``ra_err dec_err`` [mas],
``pmra pmdec`` [mas/yr, pmra times cos(dec)], ``epoch`` [yr], then each of `lib.core.bands.BANDS`
with ``<band>_err`` [mag]; NaN where nothing is known. ``<band>_src`` names where a joined magnitude
comes from.
"""

import hashlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Column, MaskedColumn, Table

from lib.core.bands import BANDS
from lib.core.files import atomic_path
from lib.core.sphere import separation
from lib.core.text import card_text, shown, shown_within
from lib.reference.repeats import merge_repeats

log = logging.getLogger("autoproc")


POSITIONS = ("ra", "dec", "ra_err", "dec_err", "pmra", "pmdec", "epoch")


UNITS = {
    "ra": "deg",
    "dec": "deg",
    "ra_err": "mas",
    "dec_err": "mas",
    "pmra": "mas / yr",
    "pmdec": "mas / yr",
    "pmra_err": "mas / yr",
    "pmdec_err": "mas / yr",
    "epoch": "yr",
}


DECIMALS = {"ra": 9, "dec": 9}
"""Decimals written to a file, 4 for all others: 1e-9 deg is 4 microarcsec."""


ASSUMED_ERROR = 0.05
"""Error [mag] assumed for the magnitudes of a user's table that states none."""


ASSUMED_POSITION_ERROR = 50.0
"""Error [mas] assumed for the positions of a user's table that states none."""


USUAL_RA = ("ra", "ra_icrs", "raj2000", "_raj2000", "ramean", "radeg", "ra_deg", "ra_j2000",
            "alpha_j2000")  # fmt: skip
USUAL_DEC = ("dec", "de_icrs", "dej2000", "_dej2000", "decmean", "dedeg", "decdeg", "dec_deg",
             "dec_icrs", "dec_j2000", "delta_j2000")  # fmt: skip
"""Common names of position columns in lower case."""


WORDS = {"": np.nan, "--": np.nan, "null": np.nan, "NULL": np.nan, "nan": np.nan,
         "True": 1.0, "true": 1.0, "False": 0.0, "false": 0.0}  # fmt: skip
"""Texts among numbers, and what they stand for."""


_WORDS = {"mag", "psf", "psfmag", "ab", "vega", "p", "sdss", "ps1", "2mass", "s", "c", "prime"}


class CatalogueError(ValueError):
    """A table that cannot serve as a reference; the message says what to change in it."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message, 1000))


def blank_table(n: int) -> Table:
    """Return a reference table of `n` rows, all NaN."""
    columns = {name: np.full(n, np.nan) for name in POSITIONS}
    for band in BANDS:
        columns[band] = np.full(n, np.nan)
        columns[f"{band}_err"] = np.full(n, np.nan)
    return Table(columns)


def empty_reference(reason: str) -> Table:
    """Return a reference table without stars that says why it has none."""
    table = blank_table(0)
    table.meta["source"] = "NONE"
    table.meta["reason"] = reason
    return table


def write_reference(path: str | Path, table: Table) -> None:
    """Write a reference table as ECSV, whole or not at all, the columns in their usual order.

    ``meta['checksum']`` (SHA-256 of the numbers) is set. Working columns are left out.
    """
    names = [name for name in POSITIONS if name in table.colnames]
    for band in BANDS:
        names += [band, f"{band}_err"]
        names += [f"{band}_src"] if f"{band}_src" in table.colnames else []
    written = table[names]
    for name in written.colnames:
        column = written[name]
        if column.dtype.kind == "f":
            written[name] = np.round(column, DECIMALS.get(name, 4))
        if not name.endswith("_src"):
            written[name].unit = UNITS.get(name, "mag")
    written.meta["checksum"] = checksum(written)
    table.meta["checksum"] = written.meta["checksum"]
    with atomic_path(path) as beside:
        written.write(beside, format="ascii.ecsv", overwrite=True)


def read_written_reference(path: str | Path) -> Table:
    """Read a table that `write_reference` has written, as it was written: it is not checked again.

    The reader of ECSV takes the header, that of plain tables the rows: a fifth of the time and of
    the memory for a table of 200,000 stars.

    Parameters
    ----------
    path : path-like
        ECSV.

    Returns
    -------
    astropy.table.Table
        With units and meta; no column is masked.
    """
    head: list[str] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            head.append(line)
            if not line.startswith("#"):  # the names of the columns
                break
        table = Table.read(head, format="ascii.ecsv")
        rows = file.read()
    if not rows:
        return table
    names = table.colnames
    read = Table.read(rows, format="ascii.fast_no_header", guess=False, names=names)
    for name in names:
        kind, empty = (float, np.nan) if table[name].dtype.kind in "fiu" else (str, "")
        values: np.ndarray = np.ma.filled(np.ma.asarray(read[name], kind), empty)
        read[name] = Column(values, unit=table[name].unit)
    read.meta = table.meta
    return read


def checksum(table: Table) -> str:
    """Return the SHA-256 of the numbers of a table, column by column."""
    total = hashlib.sha256()
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            total.update(name.encode())
            # one bit pattern for every NaN, and for both zeros
            values = np.where(np.isnan(table[name]), np.nan, table[name]) + 0.0
            total.update(np.asarray(values, "<f8").tobytes())
    return total.hexdigest()


def read_reference(path: str | Path) -> Table:
    """Read a table to be used as reference and check it.

    Parameters
    ----------
    path : path-like
        ECSV, FITS or CSV, recognised by the ending (``.ecsv .fits .fit .fits.gz .csv``).

    Returns
    -------
    astropy.table.Table
        All of `POSITIONS` and the bands with their errors, float64, NaN where missing; extra
        columns of the file are dropped but for ``<band>_src``. ``meta['source']`` is the
        file's own or its name; ``meta['assumed']`` lists what was filled by assumption.

    Raises
    ------
    CatalogueError
        The message says what is wrong and what to write instead.
    """
    path = Path(path)
    return own_reference(path, read_table_file(path))


def own_reference(path: Path, raw: Table) -> Table:
    """Return the reference table that a table under the reference's own column names is.

    Parameters
    ----------
    path : Path
        For messages.
    raw : astropy.table.Table
        Table as read.

    Raises
    ------
    CatalogueError
        As for `read_reference`.
    """
    assumed: list[str] = []
    raw = _under_own_names(path, raw, assumed)
    table = blank_table(len(raw))
    for name in POSITIONS:
        if name in raw.colnames:
            table[name] = column_values(path, raw, name, UNITS[name])
    meta = {str(key).lower(): value for key, value in raw.meta.items()}
    if "epoch" not in raw.colnames and "epoch" in meta:
        table["epoch"] = _scalar(path, meta["epoch"])
    for band in BANDS:
        if band not in raw.colnames:
            continue
        table[band] = _magnitudes(path, raw[band], band)
        if f"{band}_err" in raw.colnames:
            table[f"{band}_err"] = column_values(path, raw, f"{band}_err", "mag")
            unusable = ~(table[f"{band}_err"] >= 0) | (table[f"{band}_err"] > 9)
            table[band][unusable] = np.nan
        else:
            table[f"{band}_err"] = ASSUMED_ERROR
            assumed.append(f"{band}_err = {ASSUMED_ERROR} mag")
        table[f"{band}_err"][np.isnan(table[band])] = np.nan
        if f"{band}_src" in raw.colnames:
            table[f"{band}_src"] = _strings(raw[f"{band}_src"])
    return checked_reference(path, table, raw.meta, assumed)


def checked_reference(
    path: Path, table: Table, meta: Mapping[str, Any], assumed: list[str]
) -> Table:
    """Return a reference table with every star once, and remarks about it in its meta.

    Parameters
    ----------
    path : Path
        For messages.
    table : astropy.table.Table
    meta : mapping
        Metadata of the file.
    assumed : list of str
        Values filled by assumption; further ones are appended.

    Raises
    ------
    CatalogueError
        Positions that cannot be.
    """
    notes: list[str] = []
    table = merge_repeats(path, check_positions(path, table, assumed), notes)
    lower = {str(key).lower(): value for key, value in meta.items()}
    table.meta.update(shown_within(lower))
    table.meta["source"] = source_name(lower.get("source"), path)
    if notes:
        table.meta["notes"] = notes
    if assumed:
        table.meta["assumed"] = assumed
        log.warning("%s: assumed %s", path, ", ".join(assumed))
    return table


def source_name(stated: Any, path: str | Path) -> str:
    """Return the name of a table for headers: the one it states, or that of its file."""
    return card_text(stated or "") or card_text(Path(path).name) or "table"


def read_table_file(path: Path) -> Table:
    """Return the table in a file, under its own names.

    Raises
    ------
    CatalogueError
        The file does not exist, is of unknown type, or cannot be read.
    """
    if not path.is_file():
        raise CatalogueError(
            f"there is no reference table {path}; refcat is 'online', 'offline', 'none' or the "
            "path of a table"
        )
    name = path.name.lower().removesuffix(".gz")
    kinds = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".fits": "fits", ".fit": "fits"}
    kind = next((kind for ending, kind in kinds.items() if name.endswith(ending)), None)
    if kind is None:
        raise CatalogueError(f"{path}: a reference table ends in .ecsv, .fits or .csv")
    try:
        with warnings.catch_warnings():
            # an unknown unit is judged column by column below
            warnings.simplefilter("ignore")
            if kind == "fits":
                return Table.read(path, format="fits")
            return Table.read(path, format=kind, guess=False)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as why:
        raise CatalogueError(f"{path} cannot be read as a table ({kind}): {why}") from why


def _under_own_names(path: Path, raw: Table, assumed: list[str]) -> Table:
    """Return a table with the names of its columns made ours where they say what they mean.

    What a renamed column was taken for is appended to `assumed`.
    """
    raw = raw.copy(copy_data=False)
    for name, usual in (("ra", USUAL_RA), ("dec", USUAL_DEC)):
        if name in raw.colnames:
            continue
        found = [one for one in raw.colnames if one.lower() in usual]
        if len(found) != 1:
            near = [n for n in raw.colnames if n.lower().startswith(("ra", "de", "al"))]
            hint = f" (perhaps {', '.join(near)}?)" if near else ""
            raise CatalogueError(
                f"{path} has no column '{name}'{hint}: rename it; ra and dec are in degrees, ICRS"
            )
        raw.rename_column(found[0], name)
    meant = {n: band for n in raw.colnames if (band := _band_meant(n, raw.colnames)) is not None}
    for band, count in Counter(meant.values()).items():
        if count > 1:
            names = ", ".join(name for name, one in meant.items() if one == band)
            raise CatalogueError(
                f"{path}: {names} may each be '{band}': rename one of them; the bands are "
                f"{' '.join(BANDS)} (AB; J H K Vega), each with its error in <band>_err"
            )
    for name, band in meant.items():
        raw.rename_column(name, band)
        if band in BANDS:
            system = "Vega" if band in "JHK" else "AB"
            assumed.append(f"{name} is {band} ({system})")
    return raw


def _band_meant(name: str, names: list[str]) -> str | None:
    """Return the column that `name` is probably meant for; None if it is right or unrelated."""
    valid = set(BANDS) | {f"{band}_err" for band in BANDS} | {f"{band}_src" for band in BANDS}
    if name in valid or name in UNITS:
        return None
    is_error = False
    stem = name
    for mark in ("e_", "err_", "sigma_", "magerr_"):
        if stem.lower().startswith(mark):
            stem, is_error = stem[len(mark) :], True
    for mark in ("_err", "err", "_error", "_sigma", "_unc"):
        if stem.lower().endswith(mark) and len(stem) > len(mark):
            stem, is_error = stem[: -len(mark)], True
    if re.fullmatch("d[ugrizyBVRIJHK]", stem):
        stem, is_error = stem[1:], True
    words = [word for word in re.split("[_ ]", stem.replace("'", "_prime_")) if word]
    letters = [word for word in words if word.lower() not in _WORDS or len(words) == 1]
    if len(letters) != 1:
        return None
    letter = letters[0]
    for tail in ("psfmag", "mag", "psf"):
        if letter.lower().endswith(tail) and len(letter) > len(tail):
            letter = letter[: -len(tail)]
    band = {"Ks": "K", "ks": "K", "k": "K", "j": "J", "h": "H", "Y": "y", "Z": "z", "b": "B",
            "v": "V", "Rc": "R", "Ic": "I"}.get(letter, letter)  # fmt: skip
    if band not in BANDS:
        return None
    meant = f"{band}_err" if is_error else band
    return None if meant in names else meant


def _plain(column: Column) -> np.ndarray:
    """Return a column as an array, with NaN (or '') for masked values."""
    if isinstance(column, MaskedColumn):
        if column.dtype.kind in "iuf":
            return np.ma.filled(column.astype(float), np.nan)
        return np.ma.filled(column, "")
    return np.asarray(column)


def _strings(column: Column) -> np.ndarray:
    """Return a text column, empty where masked."""
    values = _plain(column)
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return np.array([shown(text) for text in texts], dtype=str)


def column_values(path: Path, table: Table, name: str, unit: str, text: bool = False) -> np.ndarray:
    """Return a column as float64 in a unit, NaN where nothing is known; or as text.

    Parameters
    ----------
    path : Path
        For messages.
    table : astropy.table.Table
    name : str
    unit : str
        Numbers without a unit are in it.
    text : bool

    Raises
    ------
    CatalogueError
        A value is not a number, or has a unit that cannot be converted.
    """
    if text:
        return _strings(table[name])
    return _numbers(path, table[name], name, unit)


def _numbers(path: Path, column: Column, name: str, unit: str) -> np.ndarray:
    """Return a column as float64 in `unit`; raise with the correct unit where it cannot be."""
    values = _plain(column)
    if values.dtype.kind not in "iufb":
        texts = [text.strip() for text in _strings(column)]
        try:
            values = np.array([WORDS[t] if t in WORDS else float(t) for t in texts])
        except ValueError:
            bad = next(text for text in texts if not _is_number(text))
            sexagesimal = ": write decimal degrees" if ":" in bad or " " in bad else ""
            raise CatalogueError(
                f"{path}: column {name} holds '{bad}', which is not a number{sexagesimal}"
            ) from None
    values = np.array(values, dtype=float)
    if getattr(values, "ndim", 1) != 1:
        raise CatalogueError(f"{path}: column {name} holds {values.ndim}-dimensional values")
    return values * _unit_factor(path, column.unit, name, unit)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in WORDS
    return True


def _unit_factor(path: Path, found: Any, name: str, wanted: str) -> float:
    """Return the factor from the unit that a column states to ours; 1 where it states none."""
    if found is None or str(found).strip() in ("", wanted, "mag(AB)", "AB"):
        return 1.0
    from astropy import units as u

    if wanted == "mag" and isinstance(found, u.UnitBase | u.FunctionUnitBase):
        if found in (u.mag, u.ABmag) or str(found).startswith("mag"):
            return 1.0
        raise CatalogueError(f"{path}: column {name} is in {found}; it must be in magnitudes")
    try:
        return u.Unit(found).to(u.Unit(wanted))
    except (u.UnitsError, ValueError, TypeError):
        raise CatalogueError(
            f"{path}: column {name} is in {found}; it must be in {wanted}"
        ) from None


def _magnitudes(path: Path, column: Column, band: str) -> np.ndarray:
    """Return magnitudes, NaN for the numbers catalogues write where nothing was measured."""
    values = _numbers(path, column, band, "mag")
    values[~((values > -5) & (values < 40))] = np.nan
    return values


def _scalar(path: Path, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise CatalogueError(f"{path}: meta epoch is '{value}'; write a year, as 2016.0") from None


def check_positions(path: Path, table: Table, assumed: list[str]) -> Table:
    """Check positions, errors and epochs; return the rows that have a position.

    Parameters
    ----------
    path : Path
        For the messages.
    table : astropy.table.Table
        Missing errors are filled in place.
    assumed : list of str
        Filled values are appended.

    Raises
    ------
    CatalogueError
    """
    if len(table) == 0:
        return table
    known = np.isfinite(table["ra"]) & np.isfinite(table["dec"])
    if not known.any():
        raise CatalogueError(f"{path}: no row has both ra and dec")
    if not known.all():
        log.warning("%s: %d rows without a position left out", path, (~known).sum())
        table = table[known]
    if np.any(np.abs(table["dec"]) > 90):
        worst = table["dec"][np.argmax(np.abs(table["dec"]))]
        raise CatalogueError(f"{path}: dec is {worst:g}; it must be in degrees, -90 to 90")
    if np.any((table["ra"] < -180) | (table["ra"] > 360)):
        worst = table["ra"][np.argmax(np.abs(table["ra"] - 180))]
        raise CatalogueError(f"{path}: ra is {worst:g}; it must be in degrees, 0 to 360")
    table["ra"] %= 360.0
    for name in ("ra_err", "dec_err"):
        unknown = ~(table[name] > 0)
        if unknown.any():
            table[name][unknown] = ASSUMED_POSITION_ERROR
            assumed.append(f"{name} = {ASSUMED_POSITION_ERROR:g} mas")
    epochs = table["epoch"][np.isfinite(table["epoch"])]
    if len(epochs) and (epochs.min() < 1850 or epochs.max() > 2200):
        raise CatalogueError(
            f"{path}: epoch is {epochs.min():g} to {epochs.max():g}; it must be a decimal year, "
            "as 2016.0 (not a Julian date)"
        )
    moving = np.isfinite(table["pmra"]) & np.isfinite(table["pmdec"])
    if moving.any() and not np.isfinite(table["epoch"][moving]).all():
        log.warning("%s: proper motions without an epoch are not applied", path)
    return table


def check_angles(table: Table, path: str | Path, ra: float, dec: float) -> None:
    """Raise when the positions are hours or radians, judged by the field they should cover.

    Parameters
    ----------
    table : astropy.table.Table
    path : path-like
        For the message.
    ra, dec : float
        Centre of the field [deg].
    """
    if len(table) == 0:
        return
    nearest = separation(table["ra"], table["dec"], ra, dec).min()
    for factor_ra, factor_dec, what, top in (
        (15.0, 1.0, "hours", 24.0),
        (np.degrees(1), np.degrees(1), "radians", 2 * np.pi),
    ):
        if table["ra"].max() > top or nearest < 1.0:
            continue
        if np.abs(table["dec"] * factor_dec).max() > 90:
            continue
        guess = separation(table["ra"] * factor_ra, table["dec"] * factor_dec, ra, dec).min()
        if guess < 1.0:
            raise CatalogueError(
                f"{path}: ra goes up to {table['ra'].max():g} and the field lies at {ra:.4f} deg: "
                f"these are {what}; write degrees"
            )


def cut_out(table: Table, ra: float, dec: float, radius: float) -> Table:
    """Return the rows of `table` within `radius` [deg] of a centre [deg]."""
    return table[separation(table["ra"], table["dec"], ra, dec) <= radius]
