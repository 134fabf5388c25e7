"""What the page shows of difference images: how they were made, their limits, the candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from lib.night.nightlog import NightLog
from lib.night.slices import sliced, slices_of
from lib.report.links import Link, existing
from lib.report.numbers import rounded
from lib.report.outcomes import StackOutcome
from lib.report.products import DIFFERENCE_CARDS, Cards, cards_of
from lib.report.reasons import reason_in_words
from lib.report.svgchart import PALETTE, Series, chart

CUT = (188, 62)
"""[pixel] Width and height of a row of the sheet of cut-outs, as the step candidates writes it."""

MOST = 200
"""Candidates that the page lists."""

LEAST_DRAWN = 2
"""Frames that a chart is drawn of, at least."""


@dataclass(frozen=True)
class DifferenceView:
    """A difference image.

    Parameters
    ----------
    stack, filter, system : str
    template, date, method, convolved : str
        Name and date of the template, how it was subtracted, which image was convolved.
    reason : str
        Why there is none; empty where there is one.
    limit3, limit5 : float or None
        On empty sky [mag].
    target3, target5 : float or None
        At the target.
    magnitude, error, snr : float or None
        Of the target in the difference image.
    left, pull : float or None
        Part of a star's light that is left; scatter of empty apertures over their errors.
    links : list of Link
    part : str
        Which part of the night it is of, the mark in the name of its stack; empty for all of it.
    """

    stack: str
    filter: str
    system: str
    template: str
    date: str
    method: str
    convolved: str
    reason: str
    limit3: float | None
    limit5: float | None
    target3: float | None
    target5: float | None
    magnitude: float | None
    error: float | None
    snr: float | None
    left: float | None
    pull: float | None
    links: list[Link]
    part: str = ""


@dataclass(frozen=True)
class FrameDifferenceView:
    """The difference image of a frame; what is not known is None.

    Parameters
    ----------
    frame, filter, system : str
    mjd : float or None
        Middle of the exposure.
    reason : str
        Why there is none; empty where there is one.
    magnitude, error, snr : float or None
        Of the target.
    limit3 : float or None
        At the target [mag].
    link : str
        Address of the file.
    """

    frame: str
    filter: str
    system: str
    mjd: float | None
    reason: str
    magnitude: float | None
    error: float | None
    snr: float | None
    limit3: float | None
    link: str


@dataclass(frozen=True)
class CandidateView:
    """A row of the table of candidates; what is not known is None.

    Parameters
    ----------
    row : int
        Of the sheet of cut-outs.
    near : str
        Host or star, in words.
    motion : str
        In words; empty for what stands still.
    """

    number: int
    row: int
    filter: str
    ra: float | None
    dec: float | None
    sign: int
    snr: float | None
    magnitude: float | None
    error: float | None
    score: float | None
    near: str
    frames: str
    motion: str
    known: str


@dataclass(frozen=True)
class ChangesView:
    """What has changed at a target.

    Parameters
    ----------
    differences : list of DifferenceView
    candidates : list of CandidateView
        The best.
    counted, listed : int
        Candidates whose score counts, and all in the table.
    threshold, least_score : float
    sheet : str
        Address of the cut-outs; empty where there are none.
    links : list of Link
    frames : list of FrameDifferenceView
        By time.
    chart : str
        S/N of the target in these against time, as an SVG element; empty for fewer than two.
    """

    differences: list[DifferenceView]
    candidates: list[CandidateView]
    counted: int
    listed: int
    threshold: float
    least_score: float
    sheet: str
    links: list[Link]
    frames: list[FrameDifferenceView] = field(default_factory=list)
    chart: str = ""

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Filters of the chart with their colours."""
        return _colours(self.frames)


def show_changes(
    target: str, stacks: dict[str, StackOutcome], parts: Mapping[str, Cards], imdir: Path
) -> ChangesView | None:
    """Return what the page shows of the differences of a target; None where there is none.

    Parameters
    ----------
    target : str
    stacks : dict of str to StackOutcome
        Those of the target.
    parts : dict of str to dict
        Stack of a part of the night -> cards of its difference image.
    imdir : Path
    """
    from astropy.table import Table

    cards = {name: one.difference for name, one in stacks.items()} | dict(parts)
    shown = [show_difference(name, one, imdir) for name, one in cards.items() if one]
    if not shown:
        return None
    path = imdir / f"{target}.candidates.ecsv"
    try:
        table = Table.read(path, format="ascii.ecsv") if path.is_file() else None
        rows = [] if table is None else candidate_rows(table)
    except (ValueError, KeyError, OSError):  # damaged, or of an older version: made again
        table, rows = None, []
    meta: dict[str, Any] = {} if table is None else table.meta
    sheet = f"qa/candidates/{target}.jpg"
    frames = show_frames(stacks)
    links = existing(
        imdir, (("table of candidates", path.name), ("cut-outs", sheet),
                ("log", f"logs/candidates/{target}.log")),
    )  # fmt: skip
    return ChangesView(
        shown, rows, int(meta.get("counted", 0)), 0 if table is None else len(table),
        float(meta.get("threshold", np.nan)), float(meta.get("least_score", np.nan)),
        quote(sheet) if rows and (imdir / sheet).is_file() else "", links, frames,
        frame_chart(frames),
    )  # fmt: skip


def read_parts(night: NightLog, config: Mapping[str, Any], imdir: Path) -> dict[str, Cards]:
    """Return the cards of the difference images of the parts of a lone night, by stack.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    config : dict
    imdir : Path
    """
    words = slices_of(config.get("stack", {}).get("by", ()), several_nights=False)
    found = {}
    for stack in sliced(night.stacks, night.frames, words):
        path = imdir / f"diff{stack}.fits"
        if path.exists():
            found[stack] = cards_of(path, DIFFERENCE_CARDS)
    return found


def show_frames(stacks: dict[str, StackOutcome]) -> list[FrameDifferenceView]:
    """Return what the page shows of the difference images of frames, by time."""
    shown = []
    for outcome in stacks.values():
        for name, cards in outcome.frame_differences.items():
            value = partial(_rounded, cards)
            begin, length = value("MJD-OBS", 6), value("EXPTIME", 3)
            rejected = cards.get("QCSTAT") != "OK"
            shown.append(FrameDifferenceView(
                str(cards.get("FRAME", name)), str(cards.get("FILTER", "")),
                str(cards.get("ZPSYS", "")),
                None if begin is None else begin + (length or 0.0) / 172800,
                reason_in_words(str(cards.get("QCREASON", "rejected"))) if rejected else "",
                value("TGTMAG", 3), value("TGTMERR", 3), value("TGTSNR", 1), value("TGTLIM3", 2),
                quote(name),
            ))  # fmt: skip
    return sorted(shown, key=lambda one: (one.mjd or 0.0, one.filter, one.frame))


def frame_chart(frames: Sequence[FrameDifferenceView]) -> str:
    """Return a chart of the S/N of the target in frames, in a colour for each filter."""
    series = []
    for name, colour in _colours(frames):
        seen = [
            (one.mjd, one.snr) for one in frames
            if one.filter == name and one.mjd is not None and one.snr is not None
        ]  # fmt: skip
        x, y = np.array(seen, float).reshape(-1, 2).T
        series.append(Series(name, colour, x, y, np.ones(len(x))))
    if sum(len(one.x) for one in series) < LEAST_DRAWN:
        return ""
    return chart(series, "S/N of the target in frames less the template", (560, 200))


def _colours(frames: Sequence[FrameDifferenceView]) -> list[tuple[str, str]]:
    names = dict.fromkeys(one.filter for one in frames)
    return [(name, PALETTE[number % len(PALETTE)]) for number, name in enumerate(names)]


def _rounded(cards: Cards, key: str, digits: int) -> float | None:
    return rounded(cards[key], digits) if isinstance(cards.get(key), float) else None


def show_difference(stack: str, cards: Cards, imdir: Path) -> DifferenceView:
    """Return what the page shows of one difference image, by its cards."""
    value = partial(_rounded, cards)
    rejected = cards.get("QCSTAT") != "OK"
    return DifferenceView(
        stack, str(cards.get("FILTER", "")), str(cards.get("ZPSYS", "")),
        str(cards.get("DIFTMPL", "")), str(cards.get("DIFTDATE", ""))[:10],
        str(cards.get("DIFMETH", "")), str(cards.get("DIFCONV", "")),
        reason_in_words(str(cards.get("QCREASON", "rejected"))) if rejected else "",
        value("DIFLIM3", 2), value("DIFLIM5", 2), value("TGTLIM3", 2), value("TGTLIM5", 2),
        value("TGTMAG", 3), value("TGTMERR", 3), value("TGTSNR", 1), value("DIFRESID", 4),
        value("DIFPULL", 3),
        existing(imdir, (("difference", f"diff{stack}.fits"),
                         ("its weight", f"diff{stack}.weight.fits"),
                         ("log", f"logs/subtract/{stack}.log"))),
        stack.partition(".")[2].partition(".")[2],
    )  # fmt: skip


def candidate_rows(table: Any) -> list[CandidateView]:
    """Return the candidates that have cut-outs, as the page lists them."""
    found = []
    for row in table[np.asarray(table["CUTOUT"]) >= 0][:MOST]:
        found.append(
            CandidateView(
                int(row["NUMBER"]), int(row["CUTOUT"]), str(row["FILTER"]),
                rounded(row["RA"], 5), rounded(row["DEC"], 5), int(row["SIGN"]),
                rounded(row["SNR"], 1), _number(row["MAG"], 2), _number(row["MAGERR"], 2),
                rounded(row["SCORE"], 2), _near(row),
                f"{row['NSEEN']} of {row['NFRAMES']}" if row["NFRAMES"] else "",
                f"{row['RATE']:.1f}″/h" if row["MOVING"] else "",
                "" if np.ma.is_masked(row["KNOWN"]) else str(row["KNOWN"]),
            )
        )  # fmt: skip
    return found


def _number(value: Any, digits: int) -> float | None:
    good = not np.ma.is_masked(value) and np.isfinite(value)
    return rounded(float(value), digits) if good else None


def _near(row: Any) -> str:
    """Return the host, or the nearest star, in words."""
    if row["HOST"]:
        magnitude = _number(row["HOSTMAG"], 1)
        words = f" of {magnitude} mag" if magnitude is not None else ""
        return f"{row['HOSTDIST']:.1f}″ from a galaxy{words}"
    distance, magnitude = _number(row["STARDIST"], 1), _number(row["STARMAG"], 1)
    if distance is None or distance > 20:
        return ""
    words = f" of {magnitude} mag" if magnitude is not None else ""
    return f"{distance}″ from a star{words}"
