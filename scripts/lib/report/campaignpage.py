"""The page about all nights of a run: targets, light curves, a calendar, trends of the masters."""

import calendar
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from astropy.table import Table

from lib.night.campaign import Campaign
from lib.night.plan import target_of
from lib.photometry.forced import filter_order
from lib.report.links import CAMPAIGN_PAGE, Link, existing, target_links
from lib.report.numbers import duration, is_number, number
from lib.report.outcomes import Outcome, StackOutcome
from lib.report.page import environment, own_files
from lib.report.products import DIFFERENCE_CARDS, cards_of, read_json, write_if_changed
from lib.report.reasons import reason_in_words
from lib.report.summary import COADD_CARDS, StackNumbers, stack_numbers
from lib.report.svgchart import PALETTE, Series, chart
from lib.report.trends import PANELS

MOST_POINTS = 3000
"""Frames in the chart of a light curve; of more, every second and so on is shown."""

MOST_STACKS = 60
"""Stacks of a target that are listed."""

MOST_POSITIONS = 300
"""Positions that are listed."""

LARGEST_TABLE = 60e6
"""[byte] Larger tables of positions are linked, not read."""


NEEDED = {"KIND", "FRAME", "FILTER", "MJD", "MAG", "MAGERR", "LIMIT", "FLUX", "FLUXERR", "ZPERR"}
"""Columns of a light curve."""


@dataclass(frozen=True)
class NightCell:
    """A night in the calendar.

    Parameters
    ----------
    name, href : str
        Date of its evening; its page, empty where there is none.
    values : list of tuple
        Filter, limit [mag], seeing [arcsec], and the place of the limit between the shallowest
        and the deepest of the filter (0 to 1); None where not known.
    """

    name: str
    href: str
    values: list[tuple[str, float | None, float | None, float | None]]

    @property
    def day(self) -> int:
        """Day of the month."""
        return int(self.name[6:8])


@dataclass(frozen=True)
class Month:
    """A month of the calendar: its name, and weeks of seven cells (None where no night is)."""

    name: str
    weeks: list[list[NightCell | int | None]]


@dataclass(frozen=True)
class PositionNumbers:
    """A position of the table `targets`: what its frames say in one filter."""

    name: str
    filter: str
    frames: int
    seen: int
    magnitude: float
    error: float
    scatter: float
    chi2: float


@dataclass(frozen=True)
class TargetShown:
    """A target over all nights.

    Parameters
    ----------
    name : str
    nights, frames : int
    stacks : list of tuple
        StackNumbers, address of the coadd, and the magnitude there as text.
    differences : dict of str to tuple of str
        Stack -> address of its difference image, and what the target is there, as text.
    more : int
        Stacks that are not listed.
    curve : str
        Chart, an SVG element.
    legend : list of tuple of str
        Filter and colour.
    positions : list of PositionNumbers
    links : list of Link
    """

    name: str
    nights: int
    frames: int
    stacks: list[tuple[StackNumbers, str, str]]
    more: int
    curve: str
    legend: list[tuple[str, str]]
    positions: list[PositionNumbers] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    differences: dict[str, tuple[str, str]] = field(default_factory=dict)


def night_href(imdir: Path, folder: str) -> str:
    """Return the address of the page of a night; empty where there is none."""
    path = f"{folder}night.html"
    return quote(path) if (imdir / path).is_file() else ""


def show_calendar(
    campaign: Campaign, rows: Sequence[Mapping[str, Any]], imdir: Path
) -> list[Month]:
    """Return the months in which there are nights, with depth and seeing of each night.

    Of a filter that several stacks of a night have, the deepest limit and its seeing count.
    """
    depth: dict[tuple[str, str], tuple[float, float | None]] = {}
    for row in rows:
        limit = row.get("limit")
        if row.get("kind") != "stack" or limit is None:
            continue
        key = (row["night"], row["name"].split(".")[1])
        if key not in depth or limit > depth[key][0]:
            depth[key] = (limit, row.get("seeing"))
    filters = filter_order({name for _, name in depth})
    span = {
        name: (min(limits), max(limits)) for name in filters
        if (limits := [value for (_, one), (value, _) in depth.items() if one == name])
    }  # fmt: skip
    cells = {}
    for folder, night in campaign.nights.items():
        values: list[tuple[str, float | None, float | None, float | None]] = []
        for name in filters:
            limit, seeing = depth.get((night.name, name), (None, None))
            low, high = span[name]
            part = None if limit is None else (limit - low) / (high - low) if high > low else 0.5
            values.append((name, limit, seeing, part))
        cells[night.name] = NightCell(night.name, night_href(imdir, folder), values)
    months = []
    for month in sorted({name[:6] for name in cells if name}):
        year, number_ = int(month[:4]), int(month[4:])
        weeks = [
            [cells.get(f"{month}{day:02d}", day) if day else None for day in week]
            for week in calendar.monthcalendar(year, number_)
            if any(f"{month}{day:02d}" in cells for day in week)
        ]
        months.append(Month(f"{calendar.month_name[number_]} {year}", weeks))
    return months


def show_trends(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the charts of the masters and stacks against time, each with its legend."""
    shown = []
    for kind, key, title in PANELS:
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row.get("kind") == kind and row.get(key) is not None and "mjd" in row:
                points.setdefault(row["name"], []).append((row["mjd"], row[key]))
        series = [
            Series(name, PALETTE[k], one[:, 0], one[:, 1], joined=True)
            for k, (name, one) in enumerate(
                (name, np.array(sorted(ones)))
                for name, ones in sorted(points.items())[: len(PALETTE)]
            )
        ]
        drawn = chart(series, title, (520, 220))
        if drawn:
            shown.append((drawn, [(one.label, one.colour) for one in series]))
    return shown


def read_curve(path: Path) -> Table | None:
    """Return a light curve; None where it cannot be read, or is one of an older version."""
    try:
        if path.stat().st_size > LARGEST_TABLE:
            return None
        table = Table.read(path, format="ascii.ecsv")
        return table if set(table.colnames) >= NEEDED else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def curve_series(table: Table) -> tuple[list[Series], str]:
    """Return the points of a light curve, and what is their ordinate."""
    calibrated = bool(np.isfinite(table["MAG"]).any() or np.isfinite(table["LIMIT"]).any())
    key = "MAG" if calibrated else "FLUX"
    series = []
    for k, name in enumerate(filter_order({str(one) for one in table["FILTER"]})):
        colour = PALETTE[k % len(PALETTE)]
        for kind, mark in (("frame", "dot"), ("bin", "dot"), ("stack", "square")):
            part = table[(table["FILTER"] == name) & (table["KIND"] == kind)]
            if kind == "frame" and len(part) > MOST_POINTS:
                part = part[:: -(-len(part) // MOST_POINTS)]
            x = np.asarray(part["MJD"], float)
            y, error = np.asarray(part[key], float), np.asarray(part[f"{key}ERR"], float)
            faint = kind == "frame"
            series.append(
                Series(name, colour, x, y, None if faint else error, mark=mark, faint=faint)
            )
            if calibrated and not faint:
                limit = np.asarray(part["LIMIT"], float)
                series.append(Series(name, colour, x, limit, mark="limit"))
    return series, "magnitude" if calibrated else "flux [electron / s]"


def position_numbers(table: Table) -> list[PositionNumbers]:
    """Return what the frames say of each position: mean, scatter, and chi^2 of no variation."""
    found = []
    frames = table[(table["KIND"] == "frame") & np.isfinite(table["FLUX"])]
    names, filters = np.asarray(frames["NAME"], str), np.asarray(frames["FILTER"], str)
    for name in dict.fromkeys(names.tolist()):
        for filt in filter_order(set(filters[names == name].tolist())):
            part = frames[(names == name) & (filters == filt)]
            flux = np.asarray(part["FLUX"], float)
            error = np.hypot(part["FLUXERR"], np.nan_to_num(part["ZPERR"]) / 1.0857 * flux)
            weight = np.asarray(error, float) ** -2.0
            mean = float(np.average(flux, weights=weight))
            chi2 = float(np.sum(weight * (flux - mean) ** 2) / max(len(flux) - 1, 1))
            magnitude = np.asarray(part["MAG"], float)
            seen = magnitude[np.isfinite(magnitude)]
            found.append(
                PositionNumbers(
                    name, filt, len(part), len(seen),
                    float(np.median(seen)) if len(seen) else math.nan,
                    1.0857 / (mean * math.sqrt(weight.sum())) if mean > 0 else math.nan,
                    float(np.std(seen)) if len(seen) > 1 else math.nan,
                    chi2 if len(flux) > 1 else math.nan,
                )
            )  # fmt: skip
    return found[:MOST_POSITIONS]


def stack_magnitudes(*tables: Table | None) -> dict[str, str]:
    """Return the magnitude or limit of what each stack is of, by the name of the stack."""
    found = {}
    for table in tables:
        if table is None:
            continue
        for row in table[table["KIND"] == "stack"]:
            name = str(row["FRAME"])
            if name in found and ".moving-" not in name:
                continue
            error = math.hypot(row["MAGERR"], np.nan_to_num(row["ZPERR"]))
            system = str(row["ZPSYS"]) if "ZPSYS" in table.colnames else ""
            if np.isfinite(row["MAG"]):
                found[name] = f"{row['MAG']:.3f} ± {error:.3f} {system}"
            elif np.isfinite(row["LIMIT"]):
                found[name] = f"> {row['LIMIT']:.2f} {system}"
    return found


def show_target(campaign: Campaign, target: str, imdir: Path) -> TargetShown:
    """Return what the page shows of a target."""
    nights = campaign.nights_of_targets[target]
    curve = read_curve(imdir / f"{target}.lightcurve.ecsv")
    positions = read_curve(imdir / f"{target}.lightcurves.ecsv")
    magnitudes = stack_magnitudes(curve, positions)
    stacks = []
    names = [name for name in campaign.slices if target_of(name) == target]
    names = [name for name in names if not name.split(".")[2].startswith("f2")]
    for name in names[:MOST_STACKS]:
        path = imdir / f"coadd{name}.fits"
        cards = cards_of(path, COADD_CARDS) if path.exists() else {}
        quality = read_json(imdir / "qa" / "stack" / f"{name}.json")
        frames = campaign.slices[name]
        members = {frame: Outcome(frame) for frame in frames}
        numbers = stack_numbers(name, StackOutcome(cards, [*frames], {}, quality), members)
        stacks.append((numbers, quote(path.name) if cards else "", magnitudes.get(name, "")))
    series, ordinate = curve_series(curve) if curve is not None and len(curve) else ([], "")
    legend = dict.fromkeys((one.label, one.colour) for one in series)
    files = [
        (f"joint table of {mark}", f"{target}.{mark}.ecsv")
        for mark in campaign.targets.get(target, {})
    ]
    return TargetShown(
        target, len(nights), sum(len(night.plan.frames_of(target)) for night in nights), stacks,
        max(0, len(names) - MOST_STACKS),
        chart(series, f"{ordinate} of {target}", (1000, 340), inverted=ordinate == "magnitude"),
        list(legend),
        position_numbers(positions) if positions is not None and len(positions) else [],
        [*target_links(imdir, target), *existing(imdir, files)],
        read_differences(imdir, [name for name in campaign.compared if name in names]),
    )  # fmt: skip


def read_differences(imdir: Path, stacks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the addresses of the difference images of stacks, and the target in them as text."""
    found = {}
    for stack in stacks:
        path = imdir / f"diff{stack}.fits"
        if not path.exists():
            continue
        cards = cards_of(path, DIFFERENCE_CARDS)
        text = "no data"
        if cards.get("QCSTAT") != "OK":
            text = reason_in_words(str(cards.get("QCREASON", "rejected")))
        elif is_number(cards.get("TGTMAG")):
            text = f"{cards['TGTMAG']:.3f} ± {cards['TGTMERR']:.3f} {cards.get('ZPSYS', '')}"
        elif is_number(cards.get("TGTSNR")):
            text = f"S/N {cards['TGTSNR']:.1f}"
        found[stack] = quote(path.name), text
    return found


def calibration_notes(campaign: Campaign) -> list[tuple[str, int, str]]:
    """Return which masters of other nights are used: night, science frames, and which and why."""
    found: dict[tuple[str, str], int] = {}
    for night in campaign.nights.values():
        for frame in night.log.science:
            for kind, why in night.log.match(frame).taken.items():
                key = (night.name, f"{kind}: {why}")
                found[key] = found.get(key, 0) + 1
    return [(night, count, why) for (night, why), count in sorted(found.items())]


def make_campaign_page(
    campaign: Campaign, rows: Sequence[Mapping[str, Any]], imdir: str | Path
) -> Path:
    """Write the page about all nights.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
        Of several nights.
    rows : list of dict
        Of `lib.report.trends.write_trends`.
    imdir : path-like

    Returns
    -------
    Path
    """
    from markupsafe import Markup

    top = Path(imdir)
    hrefs = {night.name: night_href(top, folder) for folder, night in campaign.nights.items()}
    targets = [show_target(campaign, one, top) for one in campaign.nights_of_targets]
    names = sorted(hrefs)
    text = environment().get_template(CAMPAIGN_PAGE).render(
        css=Markup(own_files()["css"]),
        begin=dated(names[0]), end=dated(names[-1]), hrefs=hrefs,
        frames=sum(len(night.log.science) for night in campaign.nights.values()),
        targets=targets, months=show_calendar(campaign, rows, top),
        stacks=[row for row in rows if row.get("kind") == "stack"],
        masters=[row for row in rows if row.get("kind") != "stack"],
        trends=show_trends(rows), notes=calibration_notes(campaign),
        links=existing(top, (("nights.ecsv", "nights.ecsv"), ("trends (plot)", "qa/trends.png"))),
        dated=dated, duration=duration, number=number,
    )  # fmt: skip
    write_if_changed(top / CAMPAIGN_PAGE, text)
    return top / CAMPAIGN_PAGE


def dated(name: str) -> str:
    """Return the name of a night as a date: 2022-01-27."""
    return f"{name[:4]}-{name[4:6]}-{name[6:8]}"
