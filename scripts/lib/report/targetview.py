"""Beginning of the page: each target with its magnitudes, position and surroundings."""

import datetime
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.core.sphere import project
from lib.core.text import shown
from lib.frame.fitsbytes import read_table
from lib.night.plan import table_name
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_OUTSIDE, FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.forced import LIMIT_SIGMA
from lib.report.circular import CircularRow, circular_text
from lib.report.differenceview import ChangesView
from lib.report.finder import Finder, make_finder
from lib.report.links import Link, target_links
from lib.report.numbers import is_number, rounded
from lib.report.outcomes import StackOutcome
from lib.report.reasons import reason_in_words
from lib.report.stackviews import StackView

if TYPE_CHECKING:
    from astropy.table import Table

log = logging.getLogger("autoproc")

MJD_OF_1970 = 40587.0

ORIGINS = {
    "config": "as given by target_radec",
    "header": "where the telescope pointed, by its headers",
    "solution": "where the telescope pointed, by the solved frames",
}
"""Origin of a position that is not that of a source."""

FLAG_WORDS = (
    (FLAG_SATURATED, "saturated"),
    (FLAG_NEIGHBOUR, "light of a neighbour subtracted"),
    (FLAG_WEIGHT, "pixels without weight in the aperture"),
)

ROW_COLUMNS = ("NUMBER", "RA", "DEC", "TARGET", "MATCH")
"""Columns required of a joint table."""

VALUES = ("FLUX", "FLUXERR", "MAG", "MAGERR", "LIMIT")
"""Columns of measured values in both tables."""

CURVE_COLUMNS = (
    "KIND", "FRAME", "FILTER", "MJD", *VALUES, "ZPERR", "FLAGS", "USED", "REASON", "NFRAMES",
)  # fmt: skip
"""Columns required of a light curve."""

MATCH_RADIUS = 1.0
"""[arcsec] A source of a coadd closer than this is the target's source in the joint table."""


@dataclass(frozen=True)
class Position:
    """The position of a target.

    Parameters
    ----------
    ra, dec : float
        ICRS [deg].
    error : float or None
        Standard error per axis [arcsec], including that of the tie to the catalogue; None where no
        source was detected.
    words : str
        How it was determined.
    stack : str
        Stack in which it was measured; empty where no source was detected.
    """

    ra: float
    dec: float
    error: float | None
    words: str
    stack: str = ""

    @property
    def sexagesimal(self) -> tuple[str, str]:
        """Right ascension [h m s] and declination [d m s]."""
        from astropy.coordinates import Angle

        return (
            str(Angle(self.ra, "deg").to_string("hourangle", sep=":", precision=3, pad=True)),
            str(Angle(self.dec, "deg").to_string(sep=":", precision=2, pad=True, alwayssign=True)),
        )


@dataclass(frozen=True)
class Neighbour:
    """The reference star nearest to a target.

    Parameters
    ----------
    ra, dec : float
        ICRS [deg].
    distance, angle : float
        Distance [arcsec], and position angle from north through east [deg].
    magnitudes : str
        Magnitudes in the reference, as text.
    same : bool
        Whether the target may be that star.
    """

    ra: float
    dec: float
    distance: float
    angle: float
    magnitudes: str
    same: bool


@dataclass(frozen=True)
class Measurement:
    """A target in one filter.

    Parameters
    ----------
    mid : str
        Mean mid-time of the exposures, UTC, ISO 8601.
    frames, exposure : int, float
        Number of frames in the coadd, and their total exposure time [s].
    magnitude, error, limit : float or None
        Magnitude, its error including that of the zero point, and the limit at `LIMIT_SIGMA` [mag].
    system : str
        AB or Vega; empty without a zero point.
    snr : float or None
    words : str
        Why there is no value, or the meaning of its flags.
    gcn : str
        The measurement as a line of plain text; empty without a value.
    """

    stack: str
    filter: str
    mid: str
    frames: int
    exposure: float | None
    magnitude: float | None
    error: float | None
    limit: float | None
    system: str
    snr: float | None
    words: str
    gcn: str = ""


@dataclass(frozen=True)
class TargetView:
    """A target on the page.

    Parameters
    ----------
    name : str
    position : Position or None
        None where it is unknown.
    neighbour : Neighbour or None
    measurements : list of Measurement
        In order of wavelength.
    curve : list of list
        From `curve_points`.
    finder : Finder or None
    links : list of Link
    gcn : str
        Position and magnitudes as plain text; empty where nothing was measured.
    remark : str
        Why more is missing.
    changes : ChangesView or None
        What has changed against a template; None where there is none.
    """

    name: str
    position: Position | None
    neighbour: Neighbour | None
    measurements: list[Measurement]
    curve: list[list[Any]]
    finder: Finder | None
    links: list[Link]
    gcn: str
    remark: str = ""
    changes: ChangesView | None = None

    def script_data(self) -> dict[str, Any]:
        """Return the data for the page's script."""
        systems = {one.filter: one.system for one in self.measurements}
        return {"name": self.name, "curve": self.curve, "systems": systems}


@dataclass
class TargetRows:
    """The rows of a target in its joint table.

    Parameters
    ----------
    target : dict
        Row measured at the position of the target.
    source : dict or None
        Row of the source identified with the target.
    origin : str
        Origin of its position, a key of `ORIGINS`.
    left_out : dict of str to str
        Filters that the table lacks, and why.
    """

    target: dict[str, Any]
    source: dict[str, Any] | None
    origin: str
    left_out: dict[str, str] = field(default_factory=dict)


def read_target_rows(path: Path) -> TargetRows | None:
    """Return the rows of a target in its joint table; None where there are none.

    Only two rows of a table of possibly thousands are read. A table of another version, or a
    damaged one, has none: the next run makes it again.
    """
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    begin = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = lines[: begin + 1]
    if len(lines) < begin + 2:
        return None

    def read_row(number: int) -> "Table | None":
        return read_table_text([*head, lines[begin + number]], ROW_COLUMNS)

    first = read_row(1)
    if first is None or not first["TARGET"][0]:
        return None
    source = None
    matched = int(first["MATCH"][0])
    if 0 < matched < len(lines) - begin:
        found = read_row(matched)
        source = _plain(found) if found and found["NUMBER"][0] == matched else None
    left_out = {str(key): str(why) for key, why in dict(first.meta.get("left_out") or {}).items()}
    return TargetRows(_plain(first), source, str(first.meta.get("target_source", "")), left_out)


def read_table_text(lines: Sequence[str], columns: Collection[str]) -> "Table | None":
    """Return an ECSV table with certain columns; None where it is invalid or lacks one."""
    from astropy.table import Table
    from astropy.table.meta import YamlParseError

    try:
        table = Table.read(list(lines), format="ascii.ecsv")
    except (ValueError, YamlParseError) as why:
        log.warning("a table is not shown: %s", shown(why, 200))
        return None
    return table if len(table) and set(columns) <= set(table.colnames) else None


def _plain(table: "Table") -> dict[str, Any]:
    """Return the first row of a table."""
    return {name: table[name][0] for name in table.colnames}


def locate(rows: TargetRows, views: list[StackView], imdir: Path) -> Position:
    """Return the position of a target: that of its source if detected."""
    if rows.source is None:
        origin = ORIGINS.get(rows.origin, rows.origin)
        words = f"{origin}; no source within half the seeing of it"
        return Position(float(rows.target["RA"]), float(rows.target["DEC"]), None, words)
    ra, dec = float(rows.source["RA"]), float(rows.source["DEC"])
    best: tuple[float, StackView] | None = None
    for view in views:
        if view.numbers.catalogue in ("", "NONE"):
            continue
        error = position_error(imdir / f"coadd{view.numbers.stack}.cat.fits", ra, dec)
        tie = (view.numbers.positions or 0.0) / math.sqrt(view.numbers.starsused or 1)
        if error is not None and (best is None or math.hypot(error, tie) < best[0]):
            best = math.hypot(error, tie), view
    if best is None:
        return Position(ra, dec, None, "measured; not tied to a catalogue")
    numbers = best[1].numbers
    words = f"measured in {numbers.filter}, against {numbers.catalogue}"
    return Position(ra, dec, max(best[0], 0.5) / 1000, words, numbers.stack)


def position_error(path: Path, ra: float, dec: float) -> float | None:
    """Return the error per axis [mas] of the source of a coadd at a position, or None."""
    try:
        sources = read_table(path, "SOURCES")
    except (FileNotFoundError, KeyError):
        return None
    if len(sources) == 0 or "POSERR" not in (sources.dtype.names or ()):
        return None
    apart = np.hypot(*project(sources["RA"], sources["DEC"], ra, dec).T)
    nearest = int(np.nanargmin(apart)) if np.isfinite(apart).any() else -1
    if nearest < 0 or apart[nearest] > MATCH_RADIUS:
        return None
    error = float(sources["POSERR"][nearest])
    return error if math.isfinite(error) else None


def nearest_star(
    reference: "Table | None", position: Position, seeing: float, most: int = 4
) -> Neighbour | None:
    """Return the reference star nearest to a position.

    Parameters
    ----------
    reference : astropy.table.Table or None
    position : Position
    seeing : float
        Seeing [arcsec]: a star within half of it may be the target.
    most : int
        Maximum number of bands listed.
    """
    if reference is None:
        return None
    sky: list[np.ndarray] = [
        np.ma.filled(np.ma.asarray(reference[k], float), np.nan) for k in ("ra", "dec")
    ]
    ra, dec = sky
    plane = project(ra, dec, position.ra, position.dec)
    apart = np.hypot(*plane.T)
    if not np.isfinite(apart).any():
        return None
    k = int(np.nanargmin(apart))
    bands = [one for one in ("g", "r", "i", "z", "V", "J", "H", "K") if one in reference.colnames]
    known = [(one, reference[one][k]) for one in bands if not np.ma.is_masked(reference[one][k])]
    told = [
        f"{one} {float(value):.1f} {'Vega' if one in 'JHK' else 'AB'}"
        for one, value in known
        if math.isfinite(value)
    ]
    east, north = plane[k]
    angle = math.degrees(math.atan2(east, north)) % 360
    same = bool(position.stack) and apart[k] < 0.5 * seeing
    return Neighbour(
        float(ra[k]), float(dec[k]), float(apart[k]), angle, ", ".join(told[:most]), same
    )


def measured_values(
    view: StackView, curve: "Table | None", rows: TargetRows | None
) -> dict[str, Any] | None:
    """Return the measurement of a target in a coadd; None without one.

    It is the row of the stack in the light curve, whose magnitudes are on the scale of its frames
    or, without one, the entry at the target in the joint table.

    Returns
    -------
    dict, or None
        FLUX, FLUXERR, MAG, MAGERR (including the error of the zero point), LIMIT, FLAGS, and MJD
        from the light curve.
    """
    numbers = view.numbers
    name = numbers.filter
    if curve is not None:
        here = (curve["KIND"] == "stack") & (curve["FRAME"] == numbers.stack)
        if here.any():
            row = curve[int(np.flatnonzero(here)[0])]
            found = {key: row[key] for key in (*VALUES, "FLAGS", "MJD", "ZPERR")}
            scale = dict(curve.meta.get("scale") or {}).get(name) or {}
            common = _finite(scale.get("common_error"))
            return found | {"COMMON": numbers.error if common is None else common}
    if rows is None or f"FLUX_{name}" not in rows.target:
        return None
    found = {key: rows.target.get(f"{key}_{name}") for key in (*VALUES, "FLAGS")}
    return found | {"COMMON": numbers.error}


def measure(
    view: StackView, outcome: StackOutcome, values: dict[str, Any] | None, left_out: str = ""
) -> Measurement:
    """Return what the page shows of a target in one filter, or why there is no measurement.

    Parameters
    ----------
    view : StackView
    outcome : StackOutcome
    values : dict, or None
        From `measured_values`.
    left_out : str
        Why the joint table lacks the filter.
    """
    numbers = view.numbers
    found = {key: _finite((values or {}).get(key)) for key in (*VALUES, "MJD", "ZPERR", "COMMON")}
    flags = int((values or {}).get("FLAGS") or 0)
    flux, flux_error = found["FLUX"], found["FLUXERR"]
    snr = flux / flux_error if flux is not None and flux_error else None
    words = ", ".join(what for bit, what in FLAG_WORDS if flags & bit)
    if not numbers.made or numbers.flagged:
        words = numbers.note or "no stack"
    elif values is None:
        words = reason_in_words(left_out or "not measured")
    elif flags & FLAG_OUTSIDE or flux is None:
        words = "outside of the field, or no usable pixel there"
    elif found["MAG"] is None and found["LIMIT"] is None:
        seen = f"seen at S/N {snr:.1f}" if snr and snr >= LIMIT_SIGMA else "not seen"
        words = f"{seen}; no zero point: {view.zpreason}"
    error = found["MAGERR"]
    if error is not None:
        error = math.hypot(error, found["ZPERR"] or 0.0, found["COMMON"] or 0.0)
    mjd = found["MJD"]
    one = Measurement(
        numbers.stack, numbers.filter,
        mid=str(outcome.cards.get("DATE-OBS", ""))[:19] if mjd is None else _iso(_unix(mjd)),
        frames=numbers.used, exposure=numbers.exposure, magnitude=found["MAG"], error=error,
        limit=found["LIMIT"], system=numbers.system, snr=snr, words=words,
    )  # fmt: skip
    return Measurement(**vars(one) | {"gcn": circular_row(one).line})


def circular_row(one: Measurement) -> CircularRow:
    """Return a measurement as a row of a GCN circular."""
    exposure = one.exposure if is_number(one.exposure) else None
    return CircularRow(
        one.mid, exposure, one.filter, one.magnitude, one.error, one.limit, one.system
    )


def read_curve(path: Path) -> "Table | None":
    """Return the light curve of a target; None where it has no rows."""
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return read_table_text(lines, CURVE_COLUMNS)


def curve_points(table: "Table | None") -> list[list[Any]]:
    """Return the frames and bins of a light curve for the page's script.

    Returns
    -------
    list of list
        Frame, filter, mid-time [ms since 1970], magnitude, its error, limit, flux [e/s], its error,
        whether in the coadd, why not, number of frames: more than one for a bin. None for missing
        values.
    """
    if table is None:
        return []
    points = []
    for row in table:
        mjd = _finite(row["MJD"])
        # A bin of one frame adds nothing to the frame.
        if (
            mjd is None
            or row["KIND"] in ("stack", "difference")
            or (row["KIND"] == "bin" and row["NFRAMES"] < 2)
        ):
            continue
        numbers = [
            rounded(_finite(row[key]), 4)
            for key in ("MAG", "MAGERR", "LIMIT", "FLUX", "FLUXERR")
        ]  # fmt: skip
        reason = "" if np.ma.is_masked(row["REASON"]) else str(row["REASON"])
        if not reason and int(row["FLAGS"]) & FLAG_OUTSIDE:
            reason = "no usable pixel at the target"
        points.append([
            str(row["FRAME"]), str(row["FILTER"]), round(_unix(mjd)), *numbers,
            int(row["USED"]), reason_in_words(reason), int(row["NFRAMES"]),
        ])  # fmt: skip
    return points


def show_target(
    target: str, views: list[StackView], outcomes: dict[str, StackOutcome],
    reference: "Table | None", imdir: Path, chart_size: int = 420,
) -> TargetView:  # fmt: skip
    """Make the content of the page about one target.

    Parameters
    ----------
    target : str
    views : list of StackView
        Stacks of the target, from blue to red.
    outcomes : dict of str to StackOutcome
        Outcome of each stack.
    reference : astropy.table.Table or None
        Reference stars of the field.
    imdir : Path
    chart_size : int
        Maximum side of the finding chart [pixel].
    """
    rows = read_target_rows(imdir / table_name(target))
    curve = read_curve(imdir / f"{target}.lightcurve.ecsv")
    points = curve_points(curve)
    left_out = rows.left_out if rows else {}
    measurements = [
        measure(
            view, outcomes[view.numbers.stack], measured_values(view, curve, rows),
            left_out.get(view.numbers.filter, ""),
        )
        for view in views
    ]  # fmt: skip
    links = target_links(imdir, target)
    if rows is None:
        remark = "No stack could be measured at the position of the target."
        return TargetView(target, None, None, measurements, points, None, links, "", remark)
    position = locate(rows, views, imdir)
    seeing = min((one.numbers.seeing for one in views if is_number(one.numbers.seeing)),
                 default=1.0)  # fmt: skip
    neighbour = nearest_star(reference, position, seeing)
    star = (neighbour.ra, neighbour.dec) if neighbour and not neighbour.same else None
    cards = {one.numbers.stack: outcomes[one.numbers.stack].cards for one in views}
    order = sorted(measurements, key=lambda one: (one.stack != position.stack, -(one.snr or 0.0)))
    finder = make_finder(
        [(one.stack, cards[one.stack]) for one in order],
        (position.ra, position.dec),
        star,
        imdir,
        chart_size,
    )
    named = [one.numbers.zpsource for one in views if one.numbers.system]
    place = (position.ra, position.dec, position.error)
    text = circular_text(target, place, [circular_row(one) for one in measurements], named)
    return TargetView(target, position, neighbour, measurements, points, finder, links, text)


def _finite(value: Any) -> float | None:
    """Return a number from a table; None for masked, missing or non-finite values."""
    if value is None or np.ma.is_masked(value):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _unix(mjd: float) -> float:
    """Return a modified Julian date as Unix time [ms]."""
    return (mjd - MJD_OF_1970) * 86400e3


def _iso(milliseconds: float) -> str:
    """Return a Unix time [ms] in ISO 8601, UTC, to the second."""
    time = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S")
