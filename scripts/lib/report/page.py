"""The page about the night: one file that shows what was made, what was left out and why."""

import datetime
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.night.targets import parse_position
from lib.report import pictures
from lib.report.colour import make_composites
from lib.report.embed import libraries, script_json
from lib.report.framecards import card_jobs, frame_numbers, make_cards
from lib.report.frametable import write_frames_table
from lib.report.mastersview import calibration_mismatches, show_masters
from lib.report.numbers import duration, is_number, number, rounded
from lib.report.outcomes import collect, digest
from lib.report.products import read_json, write_if_changed
from lib.report.provenance import config_text, peak_memory, program_versions, rule_durations
from lib.report.reasons import in_words
from lib.report.sizes import sizes_for
from lib.report.stackviews import read_reference, show_stack, target_place

TEMPLATES = Path(__file__).resolve().parent / "templates"


TABLE_COLUMNS = (
    ("frame", "frame"), ("raw", "raw file"), ("type", "type"), ("target", "target"),
    ("filter", "filter"), ("camera", "camera"), ("exptime", "exposure s"), ("date_obs", "start"),
    ("status", "status"), ("step", "step"), ("reason", "reason"), ("used", "used in"),
    ("fwhm", 'seeing "'), ("ellipticity", "ellipticity"), ("skymag", "sky mag/arcsec²"),
    ("sky", "sky e/s"), ("zeropoint", "zero point"), ("transparency", "transparency"),
    ("limit", "limit"), ("nstars", "stars"), ("rms", "residual mas"), ("offset", 'offset "'),
    ("airmass", "airmass"), ("ncosmic", "cosmic px"),
)  # fmt: skip


DIGITS = {
    "exptime": 2, "fwhm": 2, "ellipticity": 2, "skymag": 2, "sky": 2, "zeropoint": 3,
    "transparency": 3, "limit": 2, "nstars": 0, "rms": 1, "offset": 1, "airmass": 3, "ncosmic": 0,
}  # fmt: skip


def table_rows(night, result):
    """Return the rows of the frame table, in the order of `TABLE_COLUMNS`."""
    rows = []
    for row, outcome in zip(night.rows, result.rows, strict=True):
        facts = night.frames.get(row["frame"], {}) if row["status"] == "OK" else {}
        numbers = frame_numbers(outcome, facts) if facts.get("type") == "object" else {}
        told = {
            "frame": outcome.frame, "status": outcome.status, "step": outcome.step,
            "reason": outcome.reason, "used": outcome.used,
        }  # fmt: skip
        if row.get("date_obs"):
            told["date_obs"] = row["date_obs"][:19].replace("T", " ")
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


def show_left_out(night, result):
    """Return the frames left out, in words, with the line that excludes each.

    Returns
    -------
    list of dict
        frame, raw, target, filter, step, code, words, numbers, status, science.
    """
    raws = {row["frame"] or row["raw"]: row for row in night.rows}
    shown = []
    for one in result.left_out + result.ignored:
        row = raws.get(one.frame, {})
        code, _, numbers = one.reason.partition(":")
        shown.append(
            {
                "frame": one.frame, "raw": row.get("raw", ""), "target": row.get("target") or "",
                "filter": row.get("filter") or "", "type": row.get("type") or "",
                "step": one.step, "code": code.strip(), "numbers": numbers.strip(),
                "words": in_words(code.strip()), "status": one.status,
                "card": one.frame in night.frames and row.get("type") == "object",
            }
        )  # fmt: skip
    return shown


def gather(night, result, config, imdir, cores=1):
    """Collect all that the page shows.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    result : lib.report.outcomes.NightOutcome
    config : dict
    imdir : Path
    cores : int

    Returns
    -------
    dict
        Variables of the template.
    """
    sizes = sizes_for(len(night.science), len(night.stacks))
    jobs, stamps = card_jobs(night, result, config, imdir, sizes)
    index = make_cards(jobs, stamps, imdir, cores)

    targets = sorted({stack.split(".")[0] for stack in result.stacks})
    references = {one: read_reference(imdir / "refcat" / f"{one}.ecsv") for one in targets}

    configured = parse_position(config.get("target_radec"))

    def one_stack(stack):
        entry = result.stacks[stack]
        reference = references[stack.split(".")[0]]
        shown = show_stack(stack, entry, result, imdir, reference, sizes)
        shown["target_xy"] = target_place(entry["cards"], configured)
        shown["rank"] = pictures.colour_rank(shown["filter"], shown["band"])
        return shown

    made = {stack: entry["cards"] for stack, entry in result.stacks.items() if entry["cards"]}
    with ThreadPoolExecutor(max(1, cores)) as pool:
        composites = pool.submit(make_composites, made, imdir, sizes)
        masters = pool.submit(show_masters, result, imdir, sizes)
        stacks = list(pool.map(one_stack, result.stacks))
    stacks.sort(key=lambda one: (one["target"], one["rank"], one["filter"]))

    timeline = []
    for frame in night.science:
        facts, outcome = night.frames[frame], result.frames[frame]
        numbers = {key: rounded(v, 4) for key, v in frame_numbers(outcome, facts).items()}
        timeline.append(
            {
                "frame": frame, "time": facts["date_obs"], "target": facts["target"],
                "filter": facts["filter"], "exptime": facts["exptime"], "camera": facts["camera"],
                "status": outcome.status, "step": outcome.step, "reason": outcome.reason,
                "words": in_words(outcome.reason.partition(":")[0]),
                "used": outcome.used, "raw": facts["raw"], "airmass": facts.get("airmass"),
                "calibrations": {
                    kind: outcome.facts.get(f"{kind.upper()}FILE", "")
                    for kind in ("bias", "dark", "flat", "sky")
                },
                "thumb": index[frame]["thumb"],
            }
            | numbers
        )  # fmt: skip

    embedded = {}
    aside = sum(entry["size"] for entry in index.values()) > sizes.embed
    if not aside:
        for frame in night.science:
            text = (imdir / "qa" / "frames" / f"{frame}.js").read_text(encoding="utf-8")
            embedded[frame] = json.loads(text[text.index(", ") + 2 : text.rindex(");")])

    run = {"command": "", "cores": 0, "host": "", "workdir": ".", "begun": math.inf}
    run |= read_json(imdir / "qa" / "run.json")
    durations = rule_durations(Path(run["workdir"]) / ".snakemake" / "metadata", imdir)
    memory = peak_memory(imdir)
    for one in durations:
        one["memory"] = memory.get(one["rule"])
    dates = sorted(night.frames[frame]["date_obs"] for frame in night.science)
    instruments = sorted({facts["instrument"] for facts in night.frames.values()})
    return {
        "title": ", ".join(instruments) or "night",
        "begin": dates[0] if dates else "",
        "end": dates[-1] if dates else "",
        "imdir": str(imdir),
        "datadir": str(config["datadir"]),
        "now": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "stacks": stacks,
        "composites": composites.result(),
        "targets": targets,
        "left": show_left_out(night, result),
        "nfiles": len(night.rows),
        "nscience": len(night.science),
        "nused": sum(1 for frame in night.science if result.frames[frame].used),
        "nbad": len(result.left_out),
        "mismatches": calibration_mismatches(night),
        "masters": masters.result(),
        "remarks": list(getattr(night, "notes", [])),
        "durations": durations,
        "elapsed": max((one["end"] for one in durations), default=0.0) - run["begun"],
        "run": run,
        "versions": program_versions(),
        "config": config_text(config),
        "duration": duration,
        "number": number,
        "data": {
            "columns": [{"key": key, "title": title} for key, title in TABLE_COLUMNS],
            "rows": table_rows(night, result),
            "frames": timeline,
            "cards": embedded,
            "aside": "qa/frames/" if aside else "",
            "stacks": [{k: v for k, v in one.items() if k != "tile"} for one in stacks],
            "exclude": str(config.get("exclude") or "config/exclude.txt"),
        },
    }  # fmt: skip


def render(variables):
    """Return the page.

    Parameters
    ----------
    variables : dict
        Of `gather`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("night.html")
    packed = {name: Markup(text) for name, text in libraries().items()}
    own = {
        name: Markup((TEMPLATES / f"night.{name}").read_text(encoding="utf-8"))
        for name in ("css", "js")
    }
    data = Markup(script_json(variables["data"]))
    return template.render(**(variables | {"data": data}), libraries=packed, **own)


def make_page(night, config, imdir, cores=1):
    """Find out what became of the night, bring frames.ecsv up to date and write the page.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    config : dict
    imdir : path-like
    cores : int

    Returns
    -------
    lib.report.outcomes.NightOutcome
    """
    imdir = Path(imdir)
    result = collect(night, imdir)
    # The table first: the page, the rule's output, must not be older than what it tells of.
    write_frames_table(night, result.rows, imdir / "frames.ecsv")
    page = render(gather(night, result, config, imdir, cores))
    write_if_changed(imdir / "night.html", page)
    os.utime(imdir / "night.html")
    write_if_changed(imdir / "qa" / "page.json", json.dumps({"of": digest(result)}))
    return result


def open_log(config, imdir):
    """Return the night log of a run, from the headers kept when it began."""
    from lib.night.nightlog import scan

    exclude = Path(config["exclude"])
    if not exclude.exists():
        exclude = TEMPLATES.parents[3] / exclude
    night = scan(config["datadir"], config["instrument"], exclude, Path(imdir) / ".nightlog.json")
    night.add_masters(config["masters"])
    return night
