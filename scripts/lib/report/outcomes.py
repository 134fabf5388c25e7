"""What became of every frame: read from the products, told in frames.ecsv and in a summary."""

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

CHAIN = (
    ("prepare", ("p",)),
    ("flatten", ("fp",)),
    ("skysub", ("sfp",)),
    ("crclean", ("zsfp",)),
    ("astrometry", ("azsfp", "asfp")),
)
"""Steps a science frame takes, and the prefixes of what each writes."""

CACHE_VERSION = 1

CARD_TEXT = 64
"""Characters from which on the text of a card may have been cut."""

FRAME_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "BUNIT", "INSTRUME", "CAMERA", "OBJECT", "TARGET", "FILTER",
    "BAND", "EXPTIME", "DATE-OBS", "MJD-OBS", "AIRMASS", "RA", "DEC", "PIXSCALE", "RAWFILE",
    "FRAME", "BINNING", "READOUT", "GAIN", "RDNOISE", "SATURATE", "SKYCTS", "SKYNOISE", "SKYSUB",
    "SKYMODE", "SKYNOTE", "CTRATE", "NSATUR", "NCOSMIC", "BIASFILE", "BIASSUM", "DARKFILE",
    "DARKSUM", "FLATFILE", "FLATSUM", "SKYFILE", "SKYSUM", "FRNGFILE", "ASTRMS1", "ASTRMS2",
    "ASTRNST", "ASTRCONT", "ASTRCAT", "ASTREPOC", "ASTRDEG", "NAXIS1", "NAXIS2", "CRVAL1",
    "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip
"""Cards of a frame file that are kept."""

MASTER_PREFIXES = ("bias-", "dark-", "flat_", "sky-")

MASTER_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "INSTRUME", "CAMERA", "FILTER", "BINNING", "READOUT",
    "EXPTIME", "BUNIT", "NCOMBINE", "NLEFTOUT", "RDNOISE1", "NOISE", "LEVEL", "NLOW", "NHOT",
    "SMOOTH", "NFILLED", "BIASFILE", "DARKFILE",
)  # fmt: skip

COADD_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "INSTRUME", "OBJECT", "TARGET", "FILTER", "BAND", "ABSZPT",
    "ABSZPTSC", "ABSZPRMS", "ABSZPERR", "ABSZPNST", "ABSZPCAT", "ABSZPCOL", "ABSZPCTM",
    "ABSZPCTE", "SEEPIX", "SEEING", "LIMMAG", "DATE1", "DATEN", "DATE-OBS", "AIRMASS", "AIRMIN",
    "AIRMAX", "EXPTIME", "TOTALEXP", "MAXEXP", "MINEXP", "NSTACK", "NREJECT", "GAIN", "SATURATE",
    "ASTRMS", "ASTRMS1", "ASTRMS2", "ASTRNST", "ASTRCAT", "PIXSCALE", "RA", "DEC", "NAXIS1",
    "NAXIS2", "CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2",
    "CD2_1", "CD2_2", "CDELT1", "CDELT2", "BUNIT", "ABSZPSYS",
)  # fmt: skip


@dataclass
class Outcome:
    """What became of one raw frame.

    Parameters
    ----------
    frame : str
        Its name; of a file that is no frame the name of the file.
    status : {'OK', 'IGNORED', 'REJECTED', 'UNFINISHED'}
    step : str
        Last step done, or the step that left the frame out.
    reason : str
        ``CODE: numbers``; empty when used.
    used : str
        Stack or master(s) that the frame is part of.
    product : str
        Name of the last file made of it, below imdir.
    facts : dict
        Cards of that file, see `FRAME_CARDS`.
    quality : dict
        What its stack measured: fwhm, ellipticity, zero point, transparency, weight.
    """

    frame: str
    status: str = "OK"
    step: str = ""
    reason: str = ""
    used: str = ""
    product: str = ""
    facts: dict = field(default_factory=dict)
    quality: dict = field(default_factory=dict)


# --------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------


def list_files(folder):
    """Return the files of a folder: {name: (mtime [ns], size [byte])}."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size)
                for entry in entries
                if entry.is_file() and not entry.name.startswith(".")
            }
    except FileNotFoundError:
        return {}


def read_json(path):
    """Return the content of a JSON file; an empty dict where there is none that can be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def write_if_changed(path, text):
    """Write a text file whole, unless it holds this already; return whether it was written."""
    path = Path(path)
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return True


def cards_of(path, keys, prefixes=()):
    """Return some cards of a primary header as a dict of plain values.

    Parameters
    ----------
    path : path-like
    keys : iterable of str
    prefixes : iterable of str
        Numbered cards (``INPUT1``, ``INPUT2``, ...): given as a list under the prefix.

    Raises
    ------
    OSError
        Not a FITS file.
    """
    from astropy.io import fits

    header = fits.Header.fromfile(path, padding=False)
    facts = {}
    for key in keys:
        value = header.get(key)
        if isinstance(value, (str, int, float, bool)) and not (
            isinstance(value, float) and not math.isfinite(value)
        ):
            facts[key] = value.strip() if isinstance(value, str) else value
    for prefix in prefixes:
        facts[prefix] = []
        while (value := header.get(f"{prefix}{len(facts[prefix]) + 1}")) is not None:
            facts[prefix].append(str(value))
    return facts


class HeaderCache:
    """Headers of products, read again only when a file has changed.

    Parameters
    ----------
    imdir : path-like
    """

    def __init__(self, imdir):
        self.imdir = Path(imdir)
        self.path = self.imdir / "qa" / "headers.json"
        stored = read_json(self.path)
        self.known = stored.get("files", {}) if stored.get("version") == CACHE_VERSION else {}
        self.files = list_files(imdir)
        self.asked = {}
        self.changed = False

    def get(self, name, keys, prefixes=()):
        """Return the cards of a file in imdir; an empty dict where it is absent or no FITS."""
        if name not in self.files:
            return {}
        stamp = list(self.files[name])
        entry = self.known.get(name)
        if entry is None or entry["stamp"] != stamp:
            try:
                facts = cards_of(self.imdir / name, keys, prefixes)
            except OSError:
                facts = {}
            entry = {"stamp": stamp, "facts": facts}
            self.changed = True
        self.asked[name] = entry
        return entry["facts"]

    def save(self):
        """Keep what was asked for, for the next time."""
        if self.changed or len(self.asked) != len(self.known):
            content = {"version": CACHE_VERSION, "files": self.asked}
            write_if_changed(self.path, json.dumps(content))


# --------------------------------------------------------------------------------------------
# Judging
# --------------------------------------------------------------------------------------------


def follow_frame(frame, cache, logged):
    """Return what the products say about a science frame, before its stack is looked at.

    Parameters
    ----------
    frame : str
    cache : HeaderCache
    logged : dict of str to set
        Frames that each step has a log file of.
    """
    outcome = Outcome(frame)
    for step, prefixes in reversed(CHAIN):
        for prefix in prefixes:
            name = f"{prefix}{frame}.fits"
            facts = cache.get(name, FRAME_CARDS)
            if facts:
                outcome.product, outcome.facts, outcome.step = name, facts, step
                if facts.get("QCSTAT") == "REJECTED":
                    outcome.status = "REJECTED"
                    outcome.step = facts.get("QCSTEP", step)
                    outcome.reason = facts.get("QCREASON", "")
                else:
                    mark_unfinished(outcome, logged)
                return outcome
    mark_unfinished(outcome, logged)
    return outcome


def mark_unfinished(outcome, logged):
    """Mark a frame whose next step was begun and left nothing: it failed or was stopped."""
    steps = [step for step, _ in CHAIN]
    done = steps.index(outcome.step) + 1 if outcome.step else 0
    for step in steps[done:]:
        if outcome.frame in logged.get(step, ()):
            outcome.status = "UNFINISHED"
            outcome.step = step
            outcome.reason = f"NO_OUTPUT: {step} failed or was stopped"
            return


def judge_in_stack(outcome, stack, solution, quality, finished):
    """Add to a frame's outcome what its stack says about it.

    Parameters
    ----------
    outcome : Outcome
    stack : str
    solution, quality : dict
        Entry of the frame in qa/astrometry/<stack>.json and in qa/stack/<stack>.json.
    finished : bool
        Whether the coadd is there.
    """
    if outcome.status == "REJECTED":
        return
    if solution.get("status") == "REJECTED":
        outcome.status, outcome.step = "REJECTED", "astrometry"
        outcome.reason = code_and_numbers(solution)
    if quality:
        outcome.quality = {
            key: value for key, value in quality.items() if isinstance(value, (str, int, float))
        }
        if is_left_out(quality):
            outcome.status, outcome.step = "REJECTED", quality.get("step") or "stack"
            outcome.reason = code_and_numbers(quality)
        elif finished:
            outcome.status, outcome.step, outcome.reason = "OK", "stack", ""
            outcome.used = f"coadd{stack}"


def is_left_out(quality):
    """Return whether a stack's entry of a frame says that it was not used."""
    used = quality.get("used")
    return used is False or used == 0 or quality.get("status") == "REJECTED"


def code_and_numbers(entry):
    """Return ``CODE: numbers`` of an entry that says why a frame was left out."""
    if entry.get("reason"):
        return str(entry["reason"])
    code, numbers = entry.get("code", ""), entry.get("numbers", "")
    return f"{code}: {numbers}" if numbers else str(code)


def frames_of(quality):
    """Return the per-frame entries of a qa file by frame, kept there as a dict or as a list."""
    frames = quality.get("frames", {})
    if isinstance(frames, dict):
        return frames
    return {str(entry.get("frame", "")): entry for entry in frames}


def judge_calibrations(masters):
    """Return the outcomes of calibration frames, from the headers of the masters.

    Parameters
    ----------
    masters : dict of str to dict
        Cards of each master, with the lists ``INPUT`` and ``LEFT``.
    """
    outcomes = {}
    for name, facts in masters.items():
        kind = name.split("_")[0] if name.startswith("flat_") else name.split("-")[0]
        if kind == "sky":
            continue
        for frame in facts.get("INPUT", ()):
            one = outcomes.setdefault(frame, Outcome(frame, step=kind))
            one.status, one.reason = "OK", ""
            one.used = f"{one.used} {name}".strip()
        for text in facts.get("LEFT", ()):
            frame, _, why = text.partition(" ")
            one = outcomes.setdefault(frame, Outcome(frame, step=kind))
            if not one.used:
                one.status = "REJECTED"
                one.reason = why or facts.get("QCREASON", "")
    return outcomes


@dataclass
class NightOutcome:
    """What became of a night.

    Parameters
    ----------
    rows : list of Outcome
        One for each row of the night log, in its order.
    frames : dict of str to Outcome
        The same by frame, of those that the night log found fit for use.
    stacks : dict of str to dict
        Of each stack ``cards`` (of the coadd; empty where not made), ``frames``, and the
        content of its qa files, ``solution`` and ``quality``.
    masters : dict of str to dict
        Cards of each master.
    """

    rows: list
    frames: dict
    stacks: dict
    masters: dict

    @property
    def left_out(self):
        """Outcomes of the frames that something was wrong with, in order of step and name."""
        steps = ["nightlog", "bias", "dark", "flat", *(step for step, _ in CHAIN), "stack"]
        wrong = [one for one in self.rows if one.status in ("REJECTED", "UNFINISHED")]
        return sorted(
            wrong,
            key=lambda one: (steps.index(one.step) if one.step in steps else 99, one.frame),
        )

    @property
    def ignored(self):
        """Outcomes of the files that are not for this job."""
        return [one for one in self.rows if one.status == "IGNORED"]


def collect(night, imdir):
    """Find out what became of every frame of a night.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    imdir : path-like

    Returns
    -------
    NightOutcome
    """
    imdir = Path(imdir)
    cache = HeaderCache(imdir)
    logged = {step: _stems(imdir / "logs" / step) for step, _ in CHAIN}
    masters = {}
    for name in sorted(cache.files):
        if name.startswith(MASTER_PREFIXES) and name.endswith(".fits"):
            masters[name[:-5]] = cache.get(name, MASTER_CARDS, ("INPUT", "LEFT"))

    frames = judge_calibrations(masters)
    results = {}
    for stack, members in night.stacks.items():
        solution = read_json(imdir / "qa" / "astrometry" / f"{stack}.json")
        quality = read_json(imdir / "qa" / "stack" / f"{stack}.json")
        cards = cache.get(f"coadd{stack}.fits", COADD_CARDS, ("STACK",))
        results[stack] = {
            "cards": cards, "frames": list(members), "solution": solution, "quality": quality,
        }  # fmt: skip
        solved, measured = frames_of(solution), frames_of(quality)
        for frame in members:
            frames[frame] = outcome = follow_frame(frame, cache, logged)
            judge_in_stack(
                outcome, stack, solved.get(frame, {}), measured.get(frame, {}), bool(cards)
            )
    cache.save()

    rows = []
    for row in night.rows:
        if row["status"] == "OK":
            rows.append(frames.setdefault(row["frame"], Outcome(row["frame"])))
        else:
            name = row["frame"] or row["raw"]
            rows.append(Outcome(name, row["status"], "nightlog", row["reason"]))
    return NightOutcome(rows, {one.frame: one for one in frames.values()}, results, masters)


def _stems(folder):
    """Return the stems of the files of a folder."""
    return {name.rsplit(".", 1)[0] for name in list_files(folder)}


# --------------------------------------------------------------------------------------------
# Telling
# --------------------------------------------------------------------------------------------

OUTCOME_COLUMNS = {
    "status": "string",
    "step": "string",
    "reason": "string",
    "used": "string",
    "fwhm": "float64",
    "ellipticity": "float64",
    "sky": "float64",
    "zeropoint": "float64",
    "transparency": "float64",
    "nstars": "int64",
    "astrms1": "float64",
    "astrms2": "float64",
    "ncosmic": "int64",
}
"""What an outcome adds to a row of the night log, and the ECSV datatype of each."""


def quality_numbers(outcome):
    """Return the numbers that tell how good a frame is; absent ones are left out.

    Returns
    -------
    dict
        fwhm [arcsec], ellipticity, sky [electron], zeropoint [mag of 1 electron/s], transparency,
        nstars, astrms1, astrms2 [mas], ncosmic.
    """
    facts, quality = outcome.facts, outcome.quality
    named = {
        "fwhm": quality.get("seeing"),
        "ellipticity": quality.get("ellipticity"),
        "sky": facts.get("SKYCTS"),
        "zeropoint": quality.get("zeropoint") if quality.get("zeropoint_absolute") else None,
        "transparency": quality.get("transparency"),
        "nstars": quality.get("nstars", facts.get("ASTRNST")),
        "astrms1": facts.get("ASTRMS1"),
        "astrms2": facts.get("ASTRMS2"),
        "ncosmic": facts.get("NCOSMIC"),
    }
    return {key: round(value, 4) for key, value in named.items() if is_number(value)}


def is_number(value):
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def log_rows(night):
    """Return the rows of the night log as simple values, with the masters that fit each frame."""
    rows = []
    for row in night.rows:
        row = {key: value for key, value in row.items() if key not in ("amplifiers", "wcs")}
        if isinstance(row.get("shape"), (list, tuple)):
            row["shape"] = f"{row['shape'][1]}x{row['shape'][0]}"
        if row["status"] == "OK":
            found = night.match(row["frame"])
            row |= {kind: found[kind] or "" for kind in ("bias", "dark", "flat")}
            row["calnote"] = "; ".join(f"{kind}: {why}" for kind, why in found["notes"].items())
        rows.append(row)
    return rows


def log_digest(night):
    """Return a digest of the night log: other raw files, other facts, another digest."""
    return hashlib.sha256(night.table_text().encode("utf-8", "backslashreplace")).hexdigest()[:16]


def begin_frames_table(night, path):
    """Write frames.ecsv for raw frames that it does not tell of yet.

    A table of the same raw frames stays as it is: it may hold what became of them.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    path : path-like

    Returns
    -------
    bool
        Whether the file was written.
    """
    try:
        with open(path, encoding="utf-8") as file:
            if log_digest(night) in file.read(4000):
                return False
    except FileNotFoundError:
        pass
    return write_frames_table(night, [], path)


def write_frames_table(night, outcomes, path):
    """Write the night log with what became of each frame, unless the file says so already.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    outcomes : list of Outcome
        One for each row of the log, or none where nothing is known yet.
    path : path-like
        ``frames.ecsv``.

    Returns
    -------
    bool
        Whether the file was written.
    """
    from lib.night.nightlog import _FLOATS, COLUMNS

    kinds = {name: "float64" if name in _FLOATS else "string" for name in COLUMNS}
    kinds = {"frame": "string", "raw": "string"} | OUTCOME_COLUMNS | kinds
    complete = log_rows(night)
    for row, outcome in zip(complete, outcomes, strict=bool(outcomes)):
        row |= {key: getattr(outcome, key) for key in ("status", "step", "reason", "used")}
        row |= quality_numbers(outcome)
    return write_if_changed(path, ecsv_text(complete, kinds, {"nightlog": log_digest(night)}))


def ecsv_text(rows, kinds, meta):
    """Return rows as an ECSV table (APE 6, https://github.com/astropy/astropy-APEs).

    Parameters
    ----------
    rows : list of dict
    kinds : dict of str to str
        Columns and their datatypes; what a row has not is an empty field.
    meta : dict of str to str
    """
    lines = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    lines += [f"# - {{name: {name}, datatype: {kind}}}" for name, kind in kinds.items()]
    lines += ["# meta: !!omap"] if meta else []
    lines += [f"# - {{{key}: '{value}'}}" for key, value in meta.items()]
    lines += ["# schema: astropy-2.0", ",".join(kinds)]
    for row in rows:
        lines.append(",".join(_cell(row.get(name), kind) for name, kind in kinds.items()))
    return "\n".join(lines) + "\n"


def _cell(value, kind):
    """Return a value as a field of an ECSV table of comma-separated fields."""
    if kind != "string":
        if not is_number(value):
            return ""
        return str(int(value)) if kind == "int64" else repr(float(value))
    text = "" if value is None else " ".join(str(value).split())
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return '"' + text.replace('"', '""') + '"' if set(text) & set(" ',\"#") else text


WORDS = {
    "BAD_BIAS": "its master bias is unfit",
    "BAD_DARK": "its master dark is unfit",
    "BAD_GZIP": "not a whole gzip file",
    "BAD_HEADER": "its header makes no sense",
    "BAD_PHOTOMETRY": "stars do not agree with the other frames",
    "BAD_SEEING": "seeing too bad",
    "CLOUDY": "too little light came through",
    "CONSTANT": "every pixel is the same",
    "EMPTY": "the file is empty",
    "EXCLUDED": "left out by the user",
    "LEVEL": "level stands apart",
    "LOW_WEIGHT": "weighs too little to help a median",
    "MISSING_KEYWORD": "the header lacks a keyword",
    "NOISE": "noise stands apart",
    "NOT_FITS": "not a FITS file",
    "NOT_NEEDED": "not needed for this camera",
    "NOT_RAW": "the name is not that of a raw frame",
    "NOT_USED": "a kind of frame that is not used",
    "FEW_FRAMES": "few frames",
    "NO_ASTROMETRIC_REFERENCE": "positions not tied to a catalogue",
    "NO_BIAS": "no bias fits",
    "NO_COMMON_STARS": "shares no star with the others",
    "NO_DARK": "no dark fits",
    "NO_DATA": "hardly a usable pixel",
    "NO_FINITE_PIXEL": "no pixel holds a number",
    "NO_FLAT": "no flat fits",
    "NO_FRAMES": "no frame was fit to be stacked",
    "NO_GOOD_INPUT": "no input was fit for use",
    "NO_IMAGE": "no image in the file",
    "NO_MATCH": "stars do not match the reference",
    "NO_OUTPUT": "the step failed or was stopped",
    "NO_SKY_PIXEL": "no pixel free of sources",
    "NO_ZEROPOINT": "no zero point",
    "OFF_FIELD": "far from the other frames",
    "PRODUCT": "written by autoproc itself",
    "SATURATED": "too many pixels saturated",
    "SKY_SATURATED": "the sky is saturated",
    "SPECTRUM": "a spectrum",
    "TOO_FEW_FRAMES": "too few frames",
    "TOO_FEW_STARS": "too few stars",
    "TRAILED": "stars are trailed",
    "TRUNCATED": "the file ends too early",
    "UNREADABLE": "the file cannot be read",
}
"""What the codes of rejections mean."""


def in_words(code):
    """Return what a code means; other text as it is."""
    if not code.replace("_", "").isalpha() or not code.isupper():
        return code
    return WORDS.get(code, code.replace("_", " ").lower())


def reason_in_words(reason):
    """Return what a reason says: ``NO_FLAT: none of 2 fits`` is "no flat fits: none of 2 fits"."""
    parts = [part.partition(": ") for part in reason.split("; ")]
    return "; ".join(
        in_words(code) + (f": {in_words(numbers)}" if numbers else "")
        if code.isupper() else f"{code}{colon}{numbers}"
        for code, colon, numbers in parts
    )  # fmt: skip


def digest(night):
    """Return a digest of what became of a night: another outcome, another digest.

    Parameters
    ----------
    night : NightOutcome
    """
    told = [[one.frame, one.status, one.step, one.reason, one.used] for one in night.rows]
    told += [[stack, entry["cards"]] for stack, entry in night.stacks.items()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def record_run(imdir, config, cores, command, workdir):
    """Write the configuration of a run and what it ran with into qa/, for the page.

    Parameters
    ----------
    imdir : path-like
    config : dict
    cores : int
    command : list of str
    workdir : path-like
        Where relative paths of the configuration start, and Snakemake keeps its records.
    """
    import platform

    import yaml

    qa = Path(imdir) / "qa"
    write_if_changed(qa / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    run = {
        "command": " ".join([Path(command[0]).name, *command[1:]]),
        "cores": cores,
        "host": f"{platform.node()}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} processors",
        "workdir": str(Path(workdir).resolve()),
        "begun": time.time(),
    }
    write_if_changed(qa / "run.json", json.dumps(run, indent=1))


def finish_run(night, imdir):
    """Find out what became of a night and bring frames.ecsv up to date.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    imdir : path-like

    Returns
    -------
    result : NightOutcome
    current : bool
        Whether night.html tells of this outcome already.
    """
    imdir = Path(imdir)
    result = collect(night, imdir)
    write_frames_table(night, result.rows, imdir / "frames.ecsv")
    told = read_json(imdir / "qa" / "page.json").get("of")
    return result, told == digest(result) and (imdir / "night.html").exists()


def number(value, digits, unit=""):
    """Return a number as text with some digits behind the point; a dash where there is none."""
    if not is_number(value):
        return "–"
    return f"{value:.{digits}f}{unit}"


def duration(seconds):
    """Return a time span in words: ``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def stack_numbers(stack, result, outcomes):
    """Return the numbers that describe a stack, for the summary and the page.

    Parameters
    ----------
    stack : str
        ``<target>.<filter>``.
    result : dict
        Of `NightOutcome.stacks`.
    outcomes : dict of str to Outcome

    Returns
    -------
    dict
        target, filter, used, left (frames), exposure [s], seeing [arcsec], zeropoint, error,
        limit [mag], catalogue, positions [mas], stars, note.
    """
    cards, quality = result["cards"], result["quality"]
    target, filter_name = stack.split(".", 1)
    members = [outcomes[frame] for frame in result["frames"] if frame in outcomes]
    used = cards.get("NSTACK", sum(1 for one in members if one.used))
    scale = pixel_scale(cards)
    seeing = cards.get("SEEPIX")
    rms = [cards[key] for key in ("ASTRMS1", "ASTRMS2", "ASTRMS") if key in cards]
    rms = [value for value in rms if isinstance(value, (int, float))]
    reason = cards.get("QCREASON") or quality.get("reason") or ""
    if len(reason) >= CARD_TEXT and quality.get("flags"):
        reason = "; ".join(quality["flags"])
    note = reason_in_words(str(reason))
    why = quality.get("reference_reason")
    if why and cards.get("ASTRCAT") == "NONE":
        note += f" ({why})"
    return {
        "stack": stack,
        "target": target,
        "filter": filter_name,
        "band": cards.get("BAND", ""),
        "made": bool(cards),
        "flagged": cards.get("QCSTAT") == "REJECTED",
        "used": used,
        "left": len(members) - sum(1 for one in members if one.used) if cards else 0,
        "frames": len(members),
        "exposure": cards.get("TOTALEXP", cards.get("EXPTIME")),
        "seeing": seeing * scale if seeing and scale else cards.get("SEEING"),
        "scale": scale,
        "zeropoint": cards.get("ABSZPT"),
        "error": cards.get("ABSZPERR"),
        "scatter": cards.get("ABSZPTSC"),
        "zpstars": cards.get("ABSZPNST"),
        "zpsource": cards.get("ABSZPCAT", ""),
        "limit": cards.get("LIMMAG"),
        "positions": max(rms) if rms else None,
        "starsused": cards.get("ASTRNST"),
        "catalogue": cards.get("ASTRCAT", ""),
        "note": note,
    }


def pixel_scale(cards):
    """Return the pixel scale of a header [arcsec per pixel], or None."""
    if "CD1_1" in cards:
        cd = [cards.get(key, 0.0) for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")]
        return 3600 * math.sqrt(abs(cd[0] * cd[3] - cd[1] * cd[2]))
    if "CDELT1" in cards:
        return 3600 * abs(cards["CDELT1"])
    return cards.get("PIXSCALE")


def summary(night, imdir, page=True, most=12):
    """Return the end of a run in some lines: the stacks, and each frame left out.

    Parameters
    ----------
    night : NightOutcome
    imdir : path-like
    page : bool
        Whether the page is there to be referred to.
    most : int
        Stacks and frames left out that are listed; more frames than these share a line for each
        step and code.
    """
    lines = []
    stacks = [stack_numbers(stack, result, night.frames) for stack, result in night.stacks.items()]
    if stacks:
        head = ("stack", "frames", "exposure", "seeing", "zero point", "limit", "positions")
        table = [head] + [_stack_row(one) for one in stacks[:most]]
        made = sum(1 for one in stacks if one["made"])
        lines.append(f"{made} of {len(stacks)} stacks in {imdir}:" if made < len(stacks) else
                     f"{made} stack{'s' * (made != 1)} in {imdir}:")  # fmt: skip
        lines += _columns(table)
        lines += [f"  {one['stack']}: {one['note']}" for one in stacks[:most] if one["note"]]
        if len(stacks) > most:
            lines.append(f"  and {len(stacks) - most} stacks more")
    left = night.left_out
    ignored = len(night.ignored)
    if left:
        lines += ["", f"Left out: {len(left)} of {len(night.rows)} frames"]
        if len(left) <= most:
            lines += _columns([(one.frame, one.step, one.reason) for one in left])
        else:
            lines += _columns(_grouped(left)[:most])
            if len(_grouped(left)) > most:
                lines.append(f"  and {len(_grouped(left)) - most} reasons more")
    elif night.rows:
        lines += ["", "No frame was left out."]
    if ignored:
        lines.append(f"Not for this job: {ignored} file{'s' * (ignored != 1)}.")
    if page:
        lines.append(f"All about the night: {Path(imdir) / 'night.html'}")
    return "\n".join(lines)


def _stack_row(one):
    if not one["made"]:
        return (one["stack"], f"- of {one['frames']}", "not made", "", "", "", "")
    zero = number(one["zeropoint"], 3)
    if one["error"] is not None and zero != "–":
        zero += f" ± {number(one['error'], 3)}"
    positions = number(one["positions"], 0, " mas")
    if one["catalogue"] == "NONE":
        positions = "not tied"
    return (
        one["stack"],
        f"{one['used']} of {one['frames']}",
        number(one["exposure"], 0, " s"),
        number(one["seeing"], 1, '"'),
        zero,
        number(one["limit"], 1),
        positions,
    )


def _grouped(left):
    """Return one line for the frames that share step and code: many frames, few reasons."""
    groups = {}
    for one in left:
        groups.setdefault((one.step, one.reason.partition(":")[0]), []).append(one)
    return [
        (
            f"{len(ones)} frames" if len(ones) > 1 else ones[0].frame,
            step,
            f"{code} ({ones[0].frame} ... {ones[-1].frame})" if len(ones) > 1 else ones[0].reason,
        )
        for (step, code), ones in groups.items()
    ]


def _columns(table):
    """Return the rows of a table as lines of aligned columns."""
    widths = [max(len(str(row[i])) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True))
        .rstrip()
        for row in table
    ]  # fmt: skip
