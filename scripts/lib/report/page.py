"""The page about the night: one file that shows what was made, and what was left out and why."""

import datetime
import json
import math
import os
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord, checksum, stamp_of
from lib.core.text import shown_lines
from lib.night.nightlog import LogRow, NightLog
from lib.night.plan import plan_night, target_of
from lib.night.targets import parse_position
from lib.photometry.forced import LIMIT_SIGMA
from lib.report.colour import Composite, make_composites
from lib.report.differenceview import CUT, read_parts, show_changes
from lib.report.embed import libraries, packed, script_json
from lib.report.framecards import CardEntry, card_jobs, frame_numbers, make_cards
from lib.report.frametable import write_frames_table
from lib.report.links import Link, night_links
from lib.report.mastersview import MasterView, Mismatch, calibration_mismatches, show_masters
from lib.report.numbers import duration, is_number, number, rounded
from lib.report.outcomes import CHAIN, NightOutcome, collect, digest
from lib.report.products import Cards, list_files, read_json, write_if_changed
from lib.report.provenance import (
    RuleDuration,
    config_text,
    peak_memory,
    program_versions,
    rule_durations,
)
from lib.report.reasons import in_words
from lib.report.sizes import Sizes, sizes_for
from lib.report.stackviews import StackView, read_reference, show_stack, target_place
from lib.report.targetview import TargetView, show_target

TEMPLATES = Path(__file__).resolve().parent / "templates"


TABLE_COLUMNS = (
    ("frame", "frame"), ("raw", "raw file"), ("type", "type"), ("target", "target"),
    ("filter", "filter"), ("camera", "camera"), ("exptime", "exposure s"), ("date_obs", "start"),
    ("status", "status"), ("step", "step"), ("reason", "reason"), ("used", "used in"),
    ("fwhm", 'seeing "'), ("ellipticity", "ellipticity"), ("skymag", "sky mag/arcsec²"),
    ("sky", "sky e⁻/s"), ("zeropoint", "zero point"), ("transparency", "transparency"),
    ("limit", "limit"), ("system", "system"), ("nstars", "stars"), ("rms", "residual mas"),
    ("offset", 'offset "'), ("airmass", "airmass"), ("ncosmic", "cosmic px"),
)  # fmt: skip
"""Key and title of the columns of the table of frames."""

DIGITS = {
    "exptime": 2, "fwhm": 2, "ellipticity": 2, "skymag": 2, "sky": 2, "zeropoint": 3,
    "transparency": 3, "limit": 2, "nstars": 0, "rms": 1, "offset": 1, "airmass": 3, "ncosmic": 0,
}  # fmt: skip
"""Decimals of numbers in the table."""

TABLE_COLUMN_DATA = [
    {"key": key, "title": title, "digits": DIGITS.get(key)} for key, title in TABLE_COLUMNS
]
"""The columns of the table for the page's script."""


def table_rows(night: NightLog, result: NightOutcome) -> list[list[Any]]:
    """Return the rows of the frame table, in the order of `TABLE_COLUMNS`."""
    rows = []
    systems = {stack: one.cards.get("ZPSYS", "") for stack, one in result.stacks.items()}
    for row, outcome in zip(night.rows, result.rows, strict=True):
        facts = night.frames.get(row.frame) if row.status == "OK" else None
        numbers = {}
        if facts is not None and facts.type == "object":
            numbers = frame_numbers(outcome, facts).known()
        told = {
            "frame": outcome.frame, "status": outcome.status, "step": outcome.step,
            "reason": outcome.reason, "used": outcome.used,
        }  # fmt: skip
        if facts is not None and "zeropoint" in numbers:
            told["system"] = systems.get(f"{facts.target}.{facts.filter}", "")
        if row.get("date_obs"):
            told["date_obs"] = row.get("date_obs")[:19].replace("T", " ")
        merged = {key: row.get(key) for key, _ in TABLE_COLUMNS} | told | numbers
        rows.append(
            [
                rounded(merged.get(key), DIGITS[key])
                if key in DIGITS and is_number(merged.get(key))
                else ("" if merged.get(key) is None else str(merged[key]))
                for key, _ in TABLE_COLUMNS
            ]
        )
    return rows


@dataclass(frozen=True)
class LeftOut:
    """A frame left out, described in words.

    Parameters
    ----------
    code, numbers : str
        Code and numbers of the reason; `words` is the meaning of the code.
    card : bool
        Whether the page has details of the frame.
    """

    frame: str
    raw: str
    target: str
    filter: str
    step: str
    code: str
    numbers: str
    words: str
    status: str
    card: bool


def show_left_out(night: NightLog, result: NightOutcome) -> list[LeftOut]:
    """Return the frames left out, in words, with what an entry of the exclude list needs."""
    rows = {row.frame or row.raw: row for row in night.rows}
    shown = []
    for one in result.left_out + result.ignored:
        row = rows.get(one.frame, LogRow(one.frame, "", one.status, one.reason))
        code, _, numbers = one.reason.partition(":")
        shown.append(
            LeftOut(
                one.frame,
                raw=row.raw,
                target=row.get("target") or "",
                filter=row.get("filter") or "",
                step=one.step,
                code=code.strip(),
                numbers=numbers.strip(),
                words=in_words(code.strip()),
                status=one.status,
                card=one.frame in night.frames and row.get("type") == "object",
            )
        )
    return shown


def show_timeline(
    night: NightLog, result: NightOutcome, cards: dict[str, CardEntry], imdir: Path
) -> list[dict[str, Any]]:
    """Return the data of each science frame for the page's script."""
    timeline = []
    there = list_files(imdir)
    prefixes = dict.fromkeys(prefix for _, ones in CHAIN for prefix in ones)
    for frame in night.science:
        facts, outcome = night.frames[frame], result.frames[frame]
        numbers = frame_numbers(outcome, facts).known()
        timeline.append(
            {
                "frame": frame, "time": facts.date_obs, "target": facts.target,
                "filter": facts.filter, "exptime": facts.exptime, "camera": facts.camera,
                "status": outcome.status, "step": outcome.step, "reason": outcome.reason,
                "words": in_words(outcome.reason.partition(":")[0]),
                "used": outcome.used, "raw": facts.raw, "airmass": facts.airmass,
                "calibrations": {
                    kind: outcome.cards.get(f"{kind.upper()}FILE", "")
                    for kind in ("bias", "dark", "flat", "sky")
                },
                "thumb": cards[frame].thumb,
                "files": [one for one in prefixes if f"{one}{frame}.fits" in there],
            }
            | {key: rounded(value, 4) for key, value in numbers.items()}
        )  # fmt: skip
    return timeline


def show_stacks(
    result: NightOutcome, parts: dict[str, Cards], config: dict[str, Any], imdir: Path,
    sizes: Sizes, pool: Executor,
) -> tuple[list[StackView], list[TargetView]]:  # fmt: skip
    """Return the content about the stacks, by target from blue to red, and about the targets.

    `parts` are the cards of the difference images of parts of the night.
    """
    targets = sorted({target_of(stack) for stack in result.stacks})
    references = {one: read_reference(imdir / "refcat" / f"{one}.ecsv") for one in targets}
    configured = parse_position(config.get("target_radec"))

    def one_stack(stack: str) -> StackView:
        shown = show_stack(stack, result, imdir, references[target_of(stack)], sizes)
        shown.target_xy = target_place(result.stacks[stack].cards, configured)
        return shown

    stacks = sorted(
        pool.map(one_stack, result.stacks),
        key=lambda one: (one.numbers.target, one.rank, one.numbers.filter),
    )

    def one_target(target: str) -> TargetView:
        own = [view for view in stacks if view.numbers.target == target]
        shown = show_target(target, own, result.stacks, references[target], imdir, sizes.finder)
        its = {name: one for name, one in result.stacks.items() if target_of(name) == target}
        its_parts = {name: one for name, one in parts.items() if target_of(name) == target}
        return replace(shown, changes=show_changes(target, its, its_parts, imdir))

    return stacks, list(pool.map(one_target, targets))


def embed_cards(
    night: NightLog, cards: dict[str, CardEntry], imdir: Path, sizes: Sizes
) -> tuple[dict[str, Any], str]:
    """Return the frame details embedded in the page, and the folder of those that are not."""
    if sum(entry.size for entry in cards.values()) > sizes.embed:
        return {}, "qa/frames/"
    embedded = {}
    for frame in night.science:
        path = imdir / "qa" / "frames" / f"{frame}.js"
        try:
            text = path.read_text(encoding="utf-8")
            embedded[frame] = json.loads(text[text.index(", ") + 2 : text.rindex(");")])
        except (ValueError, RecursionError):  # damaged; made again for the next page
            path.unlink()
    return embedded, ""


@dataclass(frozen=True)
class Run:
    """Command and environment of a run, as written by `lib.report.run.record_run`."""

    command: str = ""
    cores: int = 0
    host: str = ""
    workdir: str = "."
    begun: float = math.inf


def read_run(imdir: Path) -> Run:
    """Return command and environment of the last run in a directory."""
    known = {one.name for one in fields(Run)}
    content = read_json(imdir / "qa" / "run.json")
    return Run(**{key: value for key, value in content.items() if key in known})


@dataclass(frozen=True)
class Page:
    """The content of the page: variables of its template.

    Parameters
    ----------
    begin, end : str
        DATE-OBS of the first and the last science frame.
    campaign : str
        Address of the page about all nights, relative to this one; empty for a single night.
    nfiles, nscience, nused, nbad : int
        Numbers of raw files, science frames, stacked ones, and frames left out.
    elapsed : float
        Duration of the last run [s].
    data : dict
        Data for the page's script.
    cards : dict
        Frame -> details embedded in the page.
    """

    title: str
    begin: str
    end: str
    campaign: str
    imdir: str
    datadir: str
    now: str
    stacks: list[StackView]
    composites: dict[str, Composite]
    targets: list[TargetView]
    links: list[Link]
    left: list[LeftOut]
    nfiles: int
    nscience: int
    nused: int
    nbad: int
    mismatches: list[Mismatch]
    masters: list[MasterView]
    remarks: list[str]
    durations: list[RuleDuration]
    elapsed: float
    run: Run
    versions: dict[str, str]
    config: str
    data: dict[str, Any]
    cards: dict[str, Any]


def record_of(imdir: Path) -> tuple[Path, str]:
    """Return the folder of Snakemake's records, and the text in the log paths of a night's jobs."""
    own = imdir / ".snakemake" / "metadata"
    return (own, "") if own.exists() else (imdir.parent / ".snakemake/metadata", f"{imdir.name}/")


def gather(
    night: NightLog,
    result: NightOutcome,
    config: dict[str, Any],
    imdir: Path,
    cores: int = 1,
    campaign: str = "",
) -> Page:
    """Collect the content of the page."""
    sizes = sizes_for(len(night.science), len(result.stacks))
    cards = make_cards(card_jobs(night, result, config, imdir, sizes), imdir, cores)
    made = {stack: entry.cards for stack, entry in result.stacks.items() if entry.cards}
    with ThreadPoolExecutor(max(1, cores)) as pool:
        configured = parse_position(config.get("target_radec"))
        composites = pool.submit(make_composites, made, imdir, sizes, configured)
        masters = pool.submit(show_masters, result, imdir, sizes)
        # With several nights these are on the page about all.
        parts = {} if campaign else read_parts(night, config, imdir)
        stacks, targets = show_stacks(result, parts, config, imdir, sizes, pool)
    embedded, aside = embed_cards(night, cards, imdir, sizes)
    run = read_run(imdir)
    durations = rule_durations(*record_of(imdir))
    memory = peak_memory(imdir)
    for one in durations:
        one.memory = memory.get(one.rule)
    dates = sorted(night.frames[frame].date_obs for frame in night.science)
    instruments = sorted({facts.instrument for facts in night.frames.values()})
    return Page(
        title=", ".join(instruments) or "night",
        begin=dates[0] if dates else "",
        end=dates[-1] if dates else "",
        campaign=campaign,
        imdir=str(imdir),
        datadir=", ".join([raw] if isinstance(raw := config["datadir"], str) else raw),
        now=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        stacks=stacks,
        composites=composites.result(),
        targets=targets,
        links=night_links(imdir),
        left=show_left_out(night, result),
        nfiles=len(night.rows),
        nscience=len(night.science),
        nused=sum(1 for frame in night.science if result.frames[frame].used),
        nbad=len(result.left_out),
        mismatches=calibration_mismatches(night),
        masters=masters.result(),
        remarks=result.remarks,
        durations=durations,
        elapsed=max((one.end for one in durations), default=0.0) - run.begun,
        run=run,
        versions=program_versions(),
        config=config_text(config),
        data={
            "columns": TABLE_COLUMN_DATA,
            "rows": table_rows(night, result),
            "frames": show_timeline(night, result, cards, imdir),
            "targets": [one.script_data() for one in targets],
            "sigma": f"{LIMIT_SIGMA:g}",
            "aside": aside,
            "stacks": [one.script_data() for one in stacks],
            "exclude": str(config.get("exclude") or "config/exclude.txt"),
        },
        cards=embedded,
    )


def _shown(value: Any) -> Any:
    """Return a value for a template; texts without unprintable characters."""
    from markupsafe import Markup

    return shown_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def environment() -> Any:
    """Return the environment of the templates of pages."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip


def render(page: Page) -> str:
    """Return the page as HTML."""
    from markupsafe import Markup

    variables = vars(page) | {name: Markup(text) for name, text in own_files().items()}
    variables["data"] = Markup(script_json(page.data))
    variables["cards"] = Markup(packed(script_json(page.cards)))
    variables["libraries"] = {name: Markup(text) for name, text in libraries().items()}
    template = environment().get_template("night.html")
    return template.render(
        **variables, cut=CUT, duration=duration, number=number, sigma=f"{LIMIT_SIGMA:g}",
        angle=lambda way: round(math.degrees(math.atan2(way[1], way[0])), 1),
    )  # fmt: skip


def own_files() -> dict[str, str]:
    """Return the style sheet and the scripts of the page."""
    names = {"css": "night.css", "charts": "charts.js", "js": "night.js"}
    return {name: (TEMPLATES / file).read_text(encoding="utf-8") for name, file in names.items()}


def make_page(
    night: NightLog,
    config: dict[str, Any],
    imdir: str | Path,
    cores: int = 1,
    campaign: str = "",
) -> NightOutcome:
    """Determine the outcome of the night, bring frames.ecsv up to date and write the page.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    config : dict
    imdir : path-like
    cores : int
        Number of threads.
    campaign : str
        Address of the page about all nights, relative to this one; empty for a single night.

    Returns
    -------
    lib.report.outcomes.NightOutcome
    """
    imdir = Path(imdir)
    result = collect(night, plan_night(night, config), imdir)
    # The table first: the page, the rule's output, must not be older than the table.
    write_frames_table(night, result.rows, imdir / "frames.ecsv")
    page = render(gather(night, result, config, imdir, cores, campaign))
    write_if_changed(imdir / "night.html", page)
    found = checksum(imdir / "night.html")
    ContentRecord(imdir).write("made:night.html", stamp_of(imdir / "night.html"), found)
    os.utime(imdir / "night.html")
    write_if_changed(imdir / "qa" / "page.json", json.dumps({"of": digest(result)}))
    return result
