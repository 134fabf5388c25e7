"""Reference catalogues: one table form for astrometry and photometry, checked when read.

A reference table has a row per star: ``ra dec`` [deg, ICRS], ``ra_err dec_err`` [mas],
``pmra pmdec`` [mas/yr, pmra times cos(dec)], ``epoch`` [yr], then each of `BANDS` with
``<band>_err`` [mag]; NaN where nothing is known. u g r i z are SDSS, y is Pan-STARRS, B V R I
Johnson-Kron-Cousins, all AB; J H K are 2MASS, Vega. ``<band>_src`` names where a joined
magnitude comes from.
"""

import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import MaskedColumn, Table

from lib.core.files import atomic_path
from lib.core.sphere import match_positions, separation

log = logging.getLogger("autoproc")

BANDS = ("u", "g", "r", "i", "z", "y", "B", "V", "R", "I", "J", "H", "K")
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
"""Kept in a file, 4 for all others: 1e-9 deg is 4 microarcsec."""

AB_MINUS_VEGA = {
    "B": -0.12,
    "V": -0.01,
    "R": 0.18,
    "I": 0.42,
    "J": 0.91,
    "H": 1.39,
    "K": 1.85,
}
"""m_AB - m_Vega: AB magnitudes of Vega by Blanton & Roweis (2007, AJ 133, 734), table 1, less
Vega's own magnitudes: 0.03 in B V R I, whose standard stars have Vega there (Bessell et al. 1998,
A&A 333, 231), 0 in 2MASS. Willmer (2018, ApJS 236, 47) has the same within 0.01 in B V R I."""

ASSUMED_ERROR = 0.05
"""Error [mag] given to the magnitudes of a user's table that states none."""
ASSUMED_POSITION_ERROR = 50.0
"""Error [mas] given to the positions of a user's table that states none."""
TYPICAL_PM = 5.0
"""Proper motion [mas/yr] by which the position of a star without measured one may have moved:
the dispersion of faint field stars."""

_WORDS = {"mag", "psf", "psfmag", "ab", "vega", "p", "sdss", "ps1", "2mass", "s", "c", "prime"}


class CatalogueError(ValueError):
    """A table that cannot serve as a reference; the message says what to change in it."""


# --- tables -----------------------------------------------------------------------------------


def blank_table(n):
    """Return a reference table of `n` rows, all NaN."""
    columns = {name: np.full(n, np.nan) for name in POSITIONS}
    for band in BANDS:
        columns[band] = np.full(n, np.nan)
        columns[f"{band}_err"] = np.full(n, np.nan)
    return Table(columns)


def empty_reference(reason):
    """Return a reference table without stars that says why it has none."""
    table = blank_table(0)
    table.meta["source"] = "NONE"
    table.meta["reason"] = reason
    return table


def write_reference(path, table):
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


def checksum(table):
    """Return the SHA-256 of the numbers of a table, column by column."""
    total = hashlib.sha256()
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            total.update(name.encode())
            # one bit pattern for every NaN, and for both zeros
            values = np.where(np.isnan(table[name]), np.nan, table[name]) + 0.0
            total.update(np.asarray(values, "<f8").tobytes())
    return total.hexdigest()


def read_reference(path):
    """Read a table to be used as reference and check it.

    Parameters
    ----------
    path : path-like
        ECSV, FITS or CSV, told by the ending (``.ecsv .fits .fit .fits.gz .csv``).

    Returns
    -------
    astropy.table.Table
        All of `POSITIONS` and `BANDS` with their errors, float64, NaN where missing; extra
        columns of the file are left out but for ``<band>_src``. ``meta['source']`` is the
        file's own or its name; ``meta['assumed']`` lists what was filled by assumption.

    Raises
    ------
    CatalogueError
        With a sentence that says what is wrong and what to write instead.
    """
    path = Path(path)
    raw = _read_any(path)
    raw_meta = {str(key).lower(): value for key, value in raw.meta.items()}
    _check_names(path, raw.colnames)
    n = len(raw)
    table = blank_table(n)
    assumed = []
    for name in POSITIONS:
        if name in raw.colnames:
            table[name] = _numbers(path, raw[name], name, UNITS[name])
    if "epoch" not in raw.colnames and "epoch" in raw_meta:
        table["epoch"] = _scalar(path, raw_meta["epoch"])
    for band in BANDS:
        if band not in raw.colnames:
            continue
        table[band] = _magnitudes(path, raw[band], band)
        if f"{band}_err" in raw.colnames:
            table[f"{band}_err"] = _numbers(path, raw[f"{band}_err"], f"{band}_err", "mag")
            unusable = ~(table[f"{band}_err"] >= 0) | (table[f"{band}_err"] > 9)
            table[band][unusable] = np.nan
        else:
            table[f"{band}_err"] = ASSUMED_ERROR
            assumed.append(f"{band}_err = {ASSUMED_ERROR} mag")
        table[f"{band}_err"][np.isnan(table[band])] = np.nan
        if f"{band}_src" in raw.colnames:
            table[f"{band}_src"] = _strings(raw[f"{band}_src"])
    table = _checked_positions(path, table, assumed)
    table.meta.update(raw_meta)
    table.meta["source"] = str(raw_meta.get("source") or path.name)
    if assumed:
        table.meta["assumed"] = assumed
        log.warning("%s: assumed %s", path, ", ".join(assumed))
    return table


def _read_any(path):
    """Read a table file of a known kind, or say which kinds are known."""
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


def _check_names(path, names):
    """Raise where a column is missing or a magnitude has a name that would be passed over."""
    for name in ("ra", "dec"):
        if name not in names:
            near = [n for n in names if n.lower().startswith(("ra", "de", "alpha", "delta"))]
            hint = f" (perhaps {', '.join(near)}?)" if near else ""
            raise CatalogueError(
                f"{path} has no column '{name}'{hint}: rename it; ra and dec are in degrees, ICRS"
            )
    wrong = {n: band for n in names if (band := _band_meant(n, names)) is not None}
    if wrong:
        told = ", ".join(f"'{name}' to '{band}'" for name, band in wrong.items())
        raise CatalogueError(
            f"{path}: rename {told}: the bands are {' '.join(BANDS)} (AB; J H K Vega), each with "
            "its error in <band>_err"
        )


def _band_meant(name, names):
    """Return the column `name` seems meant for, or None when it is right or none of ours."""
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
    words = [word for word in stem.replace("'", "_prime_").split("_") if word]
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


def _plain(column):
    """Return a column as an array, with NaN (or '') for masked values."""
    if isinstance(column, MaskedColumn):
        if column.dtype.kind in "iuf":
            return np.ma.filled(column.astype(float), np.nan)
        return np.ma.filled(column, "")
    return np.asarray(column)


def _strings(column):
    """Return a text column, empty where masked."""
    values = _plain(column)
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _numbers(path, column, name, unit):
    """Return a column as float64 in `unit`, or raise with what its unit should be."""
    values = _plain(column)
    if values.dtype.kind not in "iufb":
        texts = [text.strip() for text in _strings(column)]
        try:
            values = np.array([float(t) if t not in ("", "--", "null", "NULL") else np.nan
                               for t in texts])  # fmt: skip
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


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return text in ("", "--", "null", "NULL")
    return True


def _unit_factor(path, found, name, wanted):
    """Return what turns the unit a column states into ours; 1 where it states none."""
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


def _magnitudes(path, column, band):
    """Return magnitudes, NaN for the numbers catalogues write where nothing was measured."""
    values = _numbers(path, column, band, "mag")
    values[~((values > -5) & (values < 40))] = np.nan
    return values


def _scalar(path, value):
    try:
        return float(value)
    except (TypeError, ValueError):
        raise CatalogueError(f"{path}: meta epoch is '{value}'; write a year, as 2016.0") from None


def _checked_positions(path, table, assumed):
    """Check positions, errors and epochs; return the rows that have a position."""
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


def check_angles(table, path, ra, dec):
    """Raise when the positions are hours or radians, told by the field they should cover.

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


def read_customcat(path):
    """Read a custom catalogue in the original's text format.

    The first line is skipped; then on each line ra dec, the magnitudes in the order
    u g r i z y B V R I J H K, their 13 errors, and the mode.

    Returns
    -------
    astropy.table.Table
        A reference table with the column ``mode`` besides.

    Raises
    ------
    CatalogueError
        Naming the line whose fields are wrong in number or not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise CatalogueError(f"there is no custom catalogue {path}")
    order = "ra dec " + " ".join(BANDS) + ", the 13 errors, mode"
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines()[1:], start=2):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        # 10:00:24 -0:18:00, 10h00m24s -0d18m00s, or six fields for two
        sexagesimal = set(words[0]) & set(":h") or len(words) == 4 + 3 + 2 * len(BANDS)
        hint = "; positions are decimal degrees" if sexagesimal else ""
        if len(words) != 3 + 2 * len(BANDS):
            raise CatalogueError(
                f"{path} line {number} has {len(words)} fields, not 29: {order}{hint}"
            )
        try:
            rows.append([float(word) for word in words])
        except ValueError as why:
            raise CatalogueError(
                f"{path} line {number}: {why}; the fields are {order}{hint}"
            ) from None
    if not rows:
        raise CatalogueError(f"{path} has no stars below its first line; the fields are {order}")
    values = np.array(rows)
    table = blank_table(len(values))
    table["ra"], table["dec"] = values[:, 0], values[:, 1]
    for k, band in enumerate(BANDS):
        magnitude, error = values[:, 2 + k], values[:, 2 + len(BANDS) + k]
        # the original writes 0 or +-99 (and their like) where a band is not known
        usable = (magnitude > -5) & (magnitude < 40) & (magnitude != 0) & (error >= 0) & (error < 9)
        table[band] = np.where(usable, magnitude, np.nan)
        table[f"{band}_err"] = np.where(usable, error, np.nan)
    table["mode"] = values[:, -1].astype(int)
    assumed = []
    table = _checked_positions(path, table, assumed)
    table.meta["source"] = path.name
    table.meta["assumed"] = assumed
    return table


# --- the sphere -------------------------------------------------------------------------------


def cut_out(table, ra, dec, radius):
    """Return the rows of `table` within `radius` [deg] of a centre [deg]."""
    return table[separation(table["ra"], table["dec"], ra, dec) <= radius]


def move_positions(ra, dec, pmra, pmdec, years):
    """Return positions [deg] moved along great circles by proper motion.

    Parameters
    ----------
    ra, dec : array_like
        [deg]
    pmra, pmdec : array_like
        [mas/yr], pmra times cos(dec); NaN moves nothing.
    years : array_like
        Time to move over [yr].
    """
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    mas = np.radians(1 / 3.6e6)
    east = np.nan_to_num(np.asarray(pmra, float)) * mas * years
    north = np.nan_to_num(np.asarray(pmdec, float)) * mas * years
    # the moved direction in the local frame (radial, east, north), turned back to the sphere
    x = np.cos(dec) - north * np.sin(dec)
    z = np.sin(dec) + north * np.cos(dec)
    new_ra = ra + np.arctan2(east, x)
    return np.degrees(new_ra) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, east)))


def move_to_epoch(table, epoch):
    """Return a copy of `table` with its positions at `epoch`, and errors as of then.

    Stars whose proper motion is not measured stay where they are and their errors grow by
    `TYPICAL_PM`; rows without an epoch are left alone. Errors of the proper motions
    (``pmra_err``, ``pmdec_err`` [mas/yr]) enter where the table has them.

    Parameters
    ----------
    table : astropy.table.Table
    epoch : float
        Decimal year of observation.
    """
    moved = table.copy()
    if len(moved) == 0:
        return moved
    years = np.where(np.isfinite(table["epoch"]), epoch - np.asarray(table["epoch"]), 0.0)
    moved["ra"], moved["dec"] = move_positions(
        table["ra"], table["dec"], table["pmra"], table["pmdec"], years
    )
    for axis in ("ra", "dec"):
        known = np.isfinite(table[f"pm{axis}"])
        if f"pm{axis}_err" in table.colnames:
            rate = np.nan_to_num(np.asarray(table[f"pm{axis}_err"]))
        else:
            rate = np.zeros(len(table))
        rate = np.where(known, rate, TYPICAL_PM)
        moved[f"{axis}_err"] = np.hypot(table[f"{axis}_err"], rate * years)
    moved["epoch"] = np.where(np.isfinite(table["epoch"]), epoch, np.nan)
    return moved


# --- photometry -------------------------------------------------------------------------------


def set_band(table, band, rows, magnitude, error, source):
    """Fill a band of `table` in place where it is still empty; returns how many were filled.

    Parameters
    ----------
    rows : ndarray of int
        Rows the values belong to.
    magnitude, error : ndarray
        [mag]; NaN fills nothing.
    source : str
    """
    name = f"{band}_src"
    if name not in table.colnames:
        table[name] = np.full(len(table), "", dtype="U40")
    empty = np.isnan(table[band][rows]) & np.isfinite(magnitude) & np.isfinite(error)
    rows = rows[empty]
    table[band][rows] = np.asarray(magnitude)[empty]
    table[f"{band}_err"][rows] = np.asarray(error)[empty]
    table[name][rows] = source
    return len(rows)


def join_photometry(table, photometry, source, *, radius=1.0, bands=BANDS, max_error=0.15):
    """Fill the empty magnitudes of a reference table from another catalogue, by position.

    The reference is moved to the epoch of the other catalogue before matching, so fast stars
    are found too. A magnitude that is already there is kept: join the best catalogue first.

    Parameters
    ----------
    table : astropy.table.Table
        Changed in place.
    photometry : astropy.table.Table
        ra, dec [deg], epoch [yr] and any of `BANDS` with errors.
    source : str
        Written to ``<band>_src``.
    radius : float
        [arcsec]
    bands : sequence of str
    max_error : float
        Magnitudes less certain than this [mag] are not taken.

    Returns
    -------
    dict
        Number of magnitudes filled in each band.
    """
    years = _median_epoch(photometry) - np.asarray(table["epoch"])
    ra, dec = move_positions(
        table["ra"], table["dec"], table["pmra"], table["pmdec"], np.nan_to_num(years)
    )
    rows, others = match_positions(ra, dec, photometry["ra"], photometry["dec"], radius)
    filled = {}
    for band in bands:
        if band not in photometry.colnames or not np.isfinite(photometry[band]).any():
            continue
        magnitude = np.asarray(photometry[band])[others]
        error = np.asarray(photometry[f"{band}_err"])[others]
        good = error <= max_error
        filled[band] = set_band(table, band, rows[good], magnitude[good], error[good], source)
    return filled


def _median_epoch(table):
    epochs = np.asarray(table["epoch"])
    epochs = epochs[np.isfinite(epochs)]
    return float(np.median(epochs)) if len(epochs) else np.nan


@dataclass(frozen=True)
class Transformation:
    """A published relation: band = base + polynomial in (blue - red), with its scatter.

    `vega` names the bands of the relation that the paper has in the Vega system; their
    magnitudes are turned to AB with `AB_MINUS_VEGA`.
    """

    band: str
    base: str
    blue: str
    red: str
    coefficients: tuple
    scatter: float
    valid: tuple
    source: str
    vega: tuple = ()

    def apply(self, magnitudes, errors):
        """Return magnitude and error of `band`, AB.

        Parameters
        ----------
        magnitudes, errors : mapping of band to ndarray
            AB magnitudes (Vega for J H K) and their errors.
        """
        m = {b: magnitudes[b] - self._offset(b) for b in (self.base, self.blue, self.red)}
        colour = m[self.blue] - m[self.red]
        value = m[self.base] + sum(a * colour**k for k, a in enumerate(self.coefficients))
        slope = sum(k * a * colour ** (k - 1) for k, a in enumerate(self.coefficients) if k)
        # base may be one of the two bands of the colour, so gather the derivative by band
        derivative = {}
        for name, factor in ((self.base, 1.0), (self.blue, slope), (self.red, -slope)):
            derivative[name] = derivative.get(name, 0.0) + factor
        variance = self.scatter**2
        for name, factor in derivative.items():
            variance = variance + (factor * errors[name]) ** 2
        outside = ~((colour >= self.valid[0]) & (colour <= self.valid[1]))
        return np.where(outside, np.nan, value + self._offset(self.band)), np.sqrt(variance)

    def _offset(self, band):
        return AB_MINUS_VEGA[band] if band in self.vega else 0.0


# The colours are bounded to where the relations are good for normal stars: beyond g-r of 1.3
# the M dwarfs share one g-r whatever their other colours.
_DWARFS = (-0.5, 1.3)
_TONRY = "Tonry et al. 2012"
_LUPTON = "Lupton 2005"
_JESTER = "Jester et al. 2005"

PS1_TO_REFERENCE = (
    Transformation("g", "g", "g", "r", (0.013, 0.145, 0.019), 0.008, _DWARFS, _TONRY),
    Transformation("r", "r", "g", "r", (-0.001, 0.004, 0.007), 0.004, _DWARFS, _TONRY),
    Transformation("i", "i", "g", "r", (-0.005, 0.011, 0.010), 0.004, _DWARFS, _TONRY),
    Transformation("z", "z", "g", "r", (0.013, -0.039, -0.012), 0.010, _DWARFS, _TONRY),
    Transformation("B", "g", "g", "r", (0.212, 0.556, 0.034), 0.032, _DWARFS, _TONRY, ("B",)),
    Transformation("V", "r", "g", "r", (0.005, 0.462, 0.013), 0.012, _DWARFS, _TONRY, ("V",)),
    Transformation("R", "r", "g", "r", (-0.137, -0.108, -0.029), 0.015, _DWARFS, _TONRY, ("R",)),
    Transformation("I", "i", "g", "r", (-0.366, -0.136, -0.018), 0.017, _DWARFS, _TONRY, ("I",)),
)
"""From Pan-STARRS magnitudes (Tonry et al. 2012, ApJ 750, 99, table 6); y needs none."""

TRANSFORMATIONS = (
    Transformation("B", "g", "g", "r", (0.2271, 0.3130), 0.0107, _DWARFS, _LUPTON, ("B",)),
    Transformation("V", "g", "g", "r", (-0.0038, -0.5784), 0.0054, _DWARFS, _LUPTON, ("V",)),
    Transformation("R", "r", "r", "i", (-0.1439, -0.2936), 0.0072, (-0.5, 1.5), _LUPTON, ("R",)),
    Transformation("R", "r", "g", "r", (-0.0971, -0.1837), 0.0106, _DWARFS, _LUPTON, ("R",)),
    Transformation("I", "r", "r", "i", (-0.3820, -1.2444), 0.0078, (-0.5, 1.5), _LUPTON, ("I",)),
    Transformation("I", "i", "i", "z", (-0.3974, -0.3780), 0.0063, (-0.5, 1.0), _LUPTON, ("I",)),
    Transformation("g", "V", "B", "V", (-0.12, 0.60), 0.02, (-0.3, 1.5), _JESTER, ("B", "V")),
    Transformation("r", "V", "B", "V", (0.11, -0.42), 0.03, (-0.3, 1.5), _JESTER, ("B", "V")),
    Transformation("i", "r", "R", "I", (0.20, -0.91), 0.03, (-0.3, 1.15), _JESTER, ("R", "I")),
    Transformation("z", "r", "R", "I", (0.41, -1.72), 0.03, (-0.3, 1.15), _JESTER, ("R", "I")),
    Transformation("y", "z", "g", "r", (0.031, -0.106, 0.011), 0.023, _DWARFS, _TONRY),
)
"""Between bands of the reference itself, tried in this order: Lupton (2005) as given on the
SDSS pages, Jester et al. (2005, AJ 130, 873, table 1), Tonry et al. (2012)."""


def transform(relations, magnitudes, errors):
    """Return the magnitudes that `relations` give, the first that is known for each star.

    Parameters
    ----------
    relations : sequence of Transformation
    magnitudes, errors : mapping of band to ndarray

    Returns
    -------
    dict of band to (magnitude, error) ndarrays
    """
    result = {}
    for relation in relations:
        if not {relation.base, relation.blue, relation.red} <= set(magnitudes):
            continue
        value, error = relation.apply(magnitudes, errors)
        if relation.band in result:
            before, error_before = result[relation.band]
            use = np.isnan(before)
            value, error = np.where(use, value, before), np.where(use, error, error_before)
        result[relation.band] = (value, error)
    return result


def fill_by_transformation(table, max_error=0.15):
    """Fill bands in place, where only neighbouring ones are measured, by `TRANSFORMATIONS`.

    Only measured magnitudes are put into a relation, never ones that another relation gave.

    Returns
    -------
    dict
        Number of magnitudes filled in each band.
    """
    magnitudes = {band: np.array(table[band], float) for band in BANDS}
    errors = {band: np.array(table[f"{band}_err"], float) for band in BANDS}
    rows = np.arange(len(table))
    filled = {}
    for relation in TRANSFORMATIONS:
        value, error = relation.apply(magnitudes, errors)
        value[~(error <= max_error)] = np.nan
        source = f"{relation.source} from {relation.base}, {relation.blue}-{relation.red}"
        count = set_band(table, relation.band, rows, value, error, source)
        filled[relation.band] = filled.get(relation.band, 0) + count
    return filled


def tie_to_reference(table, photometry, band, blue, red, *, radius=1.0, least=8):
    """Bring a survey's band onto the reference with the stars of the field that have both.

    A line in the survey's own colour is fitted robustly to (reference - survey), because no
    published relation covers the band.

    Parameters
    ----------
    table, photometry : astropy.table.Table
        `photometry` is changed in place; its errors take in the scatter of the fit.
    band, blue, red : str
        Band to tie, and the bands of the colour, in `photometry`.
    radius : float
        [arcsec]
    least : int
        Common stars needed.

    Returns
    -------
    tuple or None
        Offset at colour zero, slope, scatter [mag], number of stars; None where too few are
        common: the band of `photometry` is then set to NaN.
    """
    from lib.core.stats import mad_std

    years = np.nan_to_num(_median_epoch(photometry) - np.asarray(table["epoch"]))
    ra, dec = move_positions(table["ra"], table["dec"], table["pmra"], table["pmdec"], years)
    rows, others = match_positions(ra, dec, photometry["ra"], photometry["dec"], radius)
    colour_all = np.asarray(photometry[blue]) - np.asarray(photometry[red])
    difference = np.asarray(table[band])[rows] - np.asarray(photometry[band])[others]
    colour = colour_all[others]
    good = np.isfinite(difference) & np.isfinite(colour)
    for _ in range(5):
        if good.sum() < least:
            photometry[band] = np.nan
            return None
        slope, offset = np.polyfit(colour[good], difference[good], 1)
        residual = difference - (offset + slope * colour)
        scatter = max(float(mad_std(residual[good])), 0.003)
        good = np.abs(residual) < 3.5 * scatter
    low, high = colour[good].min(), colour[good].max()
    value = np.asarray(photometry[band]) + offset + slope * colour_all
    # no further than the colours that were fitted
    value[~((colour_all >= low - 0.1) & (colour_all <= high + 0.1))] = np.nan
    photometry[band] = value
    photometry[f"{band}_err"] = np.hypot(photometry[f"{band}_err"], scatter)
    return float(offset), float(slope), scatter, int(good.sum())
