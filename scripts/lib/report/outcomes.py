"""The outcome of each frame, from the products."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.core.pipeline import PIPELINE
from lib.night.nightlog import NightLog
from lib.night.plan import Plan
from lib.night.remarks import grouped_notes
from lib.report.numbers import is_number
from lib.report.orientation import orientation_remarks
from lib.report.pointingremarks import all_pointing_remarks
from lib.report.products import (
    COADD_CARDS,
    DIFFERENCE_CARDS,
    FRAME_CARDS,
    FRAME_DIFFERENCE_CARDS,
    MASTER_CARDS,
    MASTER_PREFIXES,
    Cards,
    HeaderCache,
    list_files,
    read_json,
)

CHAIN = PIPELINE.frame_chain()
"""Steps of a science frame, and the prefixes of the files that each writes."""


@dataclass
class Outcome:
    """The outcome of one raw frame.

    Parameters
    ----------
    frame : str
        Name of the frame; for a file that is no frame the file name.
    status : {'OK', 'IGNORED', 'REJECTED', 'UNFINISHED'}
    step : str
        Last step done, or the step that rejected the frame.
    reason : str
        ``CODE: numbers``; empty for a used frame.
    used : str
        Stack or masters that contain the frame.
    product : str
        Name in imdir of the last file made from it.
    cards : dict
        Cards of that file's header, see `lib.report.products.FRAME_CARDS`.
    quality : dict
        Measurements by its stack: fwhm, ellipticity, zero point, transparency, weight.
    """

    frame: str
    status: str = "OK"
    step: str = ""
    reason: str = ""
    used: str = ""
    product: str = ""
    cards: Cards = field(default_factory=dict)
    quality: Cards = field(default_factory=dict)


def follow_frame(frame: str, cache: HeaderCache, logged: dict[str, set[str]]) -> Outcome:
    """Return the outcome of a science frame from its products, without its stack.

    Parameters
    ----------
    frame : str
        Name of the frame.
    cache : HeaderCache
        Headers of the products.
    logged : dict of str to set
        Step -> frames for which the step has a log file.
    """
    outcome = Outcome(frame)
    for step, prefixes in reversed(CHAIN):
        for prefix in prefixes:
            name = f"{prefix}{frame}.fits"
            cards = cache.get(name, FRAME_CARDS, ("NOTE",))
            if cards:
                outcome.product, outcome.cards, outcome.step = name, cards, step
                if cards.get("QCSTAT") == "REJECTED":
                    outcome.status = "REJECTED"
                    outcome.step = cards.get("QCSTEP", step)
                    outcome.reason = cards.get("QCREASON", "")
                else:
                    mark_unfinished(outcome, logged)
                return outcome
    mark_unfinished(outcome, logged)
    return outcome


def mark_unfinished(outcome: Outcome, logged: dict[str, set[str]]) -> None:
    """Mark a frame whose next step was started without result: it failed or was stopped."""
    steps = [step for step, _ in CHAIN]
    done = steps.index(outcome.step) + 1 if outcome.step else 0
    for step in steps[done:]:
        if outcome.frame in logged.get(step, ()):
            outcome.status = "UNFINISHED"
            outcome.step = step
            outcome.reason = f"NO_OUTPUT: {step} failed or was stopped"
            return


def judge_in_stack(
    outcome: Outcome,
    stack: str,
    solution: dict[str, Any],
    quality: dict[str, Any],
    finished: bool,
) -> None:
    """Add the results of its stack to the outcome of a frame.

    Parameters
    ----------
    outcome : Outcome
        Outcome, changed in place.
    stack : str
        Name of the stack.
    solution, quality : dict
        Entry of the frame in qa/astrometry/<stack>.json and in qa/stack/<stack>.json.
    finished : bool
        Whether the coadd exists.
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


def is_left_out(quality: dict[str, Any]) -> bool:
    """Return whether a stack's entry of a frame says that it was not used."""
    used = quality.get("used")
    return used is False or used == 0 or quality.get("status") == "REJECTED"


def code_and_numbers(entry: dict[str, Any]) -> str:
    """Return ``CODE: numbers`` from an entry that says why a frame was left out."""
    if entry.get("reason"):
        return str(entry["reason"])
    code, numbers = entry.get("code", ""), entry.get("numbers", "")
    return f"{code}: {numbers}" if numbers else str(code)


def frames_of(quality: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of a qa file by frame, whether stored as a dict or a list."""
    frames = quality.get("frames", {})
    if isinstance(frames, dict):
        return frames
    return {str(entry.get("frame", "")): entry for entry in frames}


def judge_calibrations(masters: dict[str, Cards]) -> dict[str, Outcome]:
    """Return the outcomes of calibration frames, from the headers of the masters.

    Parameters
    ----------
    masters : dict of str to dict
        Cards of each master, with the lists ``INPUT`` and ``LEFT``.
    """
    outcomes: dict[str, Outcome] = {}
    for name, cards in masters.items():
        kind = name.split("_")[0] if name.startswith("flat_") else name.split("-")[0]
        if kind == "sky":
            continue
        for frame in cards.get("INPUT", ()):
            one = outcomes.setdefault(frame, Outcome(frame, step=kind))
            one.status, one.reason = "OK", ""
            one.used = f"{one.used} {name}".strip()
        for text in cards.get("LEFT", ()):
            frame, _, why = text.partition(" ")
            one = outcomes.setdefault(frame, Outcome(frame, step=kind))
            if not one.used:
                one.status = "REJECTED"
                one.reason = why or cards.get("QCREASON", "")
    return outcomes


@dataclass(frozen=True)
class StackOutcome:
    """The outcome of one stack.

    Parameters
    ----------
    cards : dict
        Cards of the coadd's header, see `lib.report.products.COADD_CARDS`; empty where it was not
        made.
    frames : list of str
        Names of its frames.
    solution, quality : dict
        Content of qa/astrometry/<stack>.json and of qa/stack/<stack>.json.
    difference : dict
        Cards of its difference image; empty where there is none.
    frame_differences : dict of str to dict
        Name of the difference image of a frame -> its cards.
    """

    cards: Cards
    frames: list[str]
    solution: dict[str, Any]
    quality: dict[str, Any]
    difference: Cards = field(default_factory=dict)
    frame_differences: dict[str, Cards] = field(default_factory=dict)


@dataclass
class NightOutcome:
    """The outcome of a night.

    Parameters
    ----------
    rows : list of Outcome
        One per row of the night log, in its order.
    frames : dict of str to Outcome
        Outcome by frame, for the frames that the night log found usable.
    stacks : dict of str to StackOutcome
    masters : dict of str to dict
        Cards of each master.
    remarks : list of str
        Remarks on the night as a whole: those of the night log, then those from the cards NOTE1,
        NOTE2, ... of masters and frames.
    """

    rows: list[Outcome]
    frames: dict[str, Outcome]
    stacks: dict[str, StackOutcome]
    masters: dict[str, Cards]
    remarks: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> list[Outcome]:
        """Outcomes of frames that were not used, in order of step and name."""
        steps = ["nightlog", "bias", "dark", "flat", *(step for step, _ in CHAIN), "stack"]
        wrong = [one for one in self.rows if one.status in ("REJECTED", "UNFINISHED")]
        return sorted(
            wrong,
            key=lambda one: (steps.index(one.step) if one.step in steps else 99, one.frame),
        )

    @property
    def ignored(self) -> list[Outcome]:
        """Outcomes of files that are not part of the job."""
        return [one for one in self.rows if one.status == "IGNORED"]


def collect(night: NightLog, plan: Plan, imdir: str | Path) -> NightOutcome:
    """Determine the outcome of every frame of a night.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
        Plan of the night.
    imdir : path-like
        Directory of the products.

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
            masters[name[:-5]] = cache.get(name, MASTER_CARDS, ("INPUT", "LEFT", "NOTE"))

    frames = judge_calibrations(masters)
    results = {}
    for stack, members in plan.stacks.items():
        solution = read_json(imdir / "qa" / "astrometry" / f"{stack}.json")
        quality = read_json(imdir / "qa" / "stack" / f"{stack}.json")
        cards = cache.get(f"coadd{stack}.fits", COADD_CARDS, ("STACK",))
        difference = cache.get(f"diff{stack}.fits", DIFFERENCE_CARDS, ("NOTE",))
        singles = {
            name: cards_of_frame for name in plan.frame_differences([stack])
            if (cards_of_frame := cache.get(name, FRAME_DIFFERENCE_CARDS))
        }  # fmt: skip
        results[stack] = StackOutcome(
            cards, list(members), solution, quality, difference, singles
        )  # fmt: skip
        solved, measured = frames_of(solution), frames_of(quality)
        for frame in members:
            frames[frame] = outcome = follow_frame(frame, cache, logged)
            judge_in_stack(
                outcome, stack, solved.get(frame, {}), measured.get(frame, {}), bool(cards)
            )
    cache.save()

    rows = []
    for row in night.rows:
        if row.status == "OK":
            rows.append(frames.setdefault(row.frame, Outcome(row.frame)))
        else:
            name = row.frame or row.raw
            rows.append(Outcome(name, row.status, "nightlog", row.reason))
    remarks = night_remarks(night, masters, results, frames)
    return NightOutcome(
        rows, {one.frame: one for one in frames.values()}, results, masters, remarks
    )


def night_remarks(
    night: NightLog,
    masters: Mapping[str, Cards],
    results: Mapping[str, StackOutcome],
    frames: Mapping[str, Outcome],
) -> list[str]:
    """Return remarks on a night: its headers, masters, reference and pointing."""
    remarks = [*night.notes, *night.calibration_remarks()]
    for name, cards in masters.items():
        remarks += [f"{name}: {note}" for note in cards.get("NOTE", ())]
    remarks += dict.fromkeys(
        f"reference {one.solution.get('catalogue', '')}: {note}"
        for one in results.values()
        for note in one.solution.get("reference_notes") or ()
    )
    remarks += [
        f"{stack}: solved without SCAMP, which failed ({one.solution['scamp_failed']})"
        for stack, one in results.items()
        if one.solution.get("scamp_failed")
    ]
    remarks += [
        f"diff{stack}: {note}"
        for stack, one in results.items()
        for note in one.difference.get("NOTE", ())
    ]
    remarks += [
        f"diff{stack}: {one.difference['QCREASON']}"
        for stack, one in results.items()
        if one.difference.get("QCSTAT") == "REJECTED" and one.cards.get("QCSTAT") == "OK"
    ]
    remarks += orientation_remarks(
        night.frames,
        ((name, one.cards) for name, one in frames.items() if one.status != "REJECTED"),
    )
    remarks += grouped_notes(
        (frame, note) for frame, one in frames.items() for note in one.cards.get("NOTE", ())
    )
    remarks += all_pointing_remarks(
        {stack: (one.cards, one.frames) for stack, one in results.items() if one.cards},
        night.frames,
    )
    return remarks


def _stems(folder: Path) -> set[str]:
    """Return the stems of the files of a folder."""
    return {name.rsplit(".", 1)[0] for name in list_files(folder)}


def quality_numbers(outcome: Outcome) -> dict[str, float]:
    """Return the known quality measures of a frame.

    Returns
    -------
    dict
        fwhm [arcsec], ellipticity, sky [electron], zeropoint [mag of 1 electron/s], transparency,
        nstars, astrms1, astrms2 [mas], ncosmic.
    """
    cards, quality = outcome.cards, outcome.quality
    named = {
        "fwhm": quality.get("seeing"),
        "ellipticity": quality.get("ellipticity"),
        "sky": cards.get("SKYCTS"),
        "zeropoint": quality.get("zeropoint") if quality.get("zeropoint_absolute") else None,
        "transparency": quality.get("transparency"),
        "nstars": quality.get("nstars", cards.get("ASTRNST")),
        "astrms1": cards.get("ASTRMS1"),
        "astrms2": cards.get("ASTRMS2"),
        "ncosmic": cards.get("NCOSMIC"),
    }
    return {key: round(value, 4) for key, value in named.items() if is_number(value)}


def digest(night: NightOutcome) -> str:
    """Return a digest of the outcome of a night.

    Parameters
    ----------
    night : NightOutcome
    """
    told: list[Any] = [
        [one.frame, one.status, one.step, one.reason, one.used] for one in night.rows
    ]
    told += [[stack, entry.cards] for stack, entry in night.stacks.items()]
    told.append(night.remarks)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
