"""Turn a raw frame into electrons."""

from typing import Any

from lib.calibration.carried import carried_cards
from lib.calibration.measuredgain import with_measured_gain
from lib.calibration.prepare import frame_header, prepare_frame
from lib.calibration.readymasters import read_masters
from lib.frame.file import (
    FrameRejected,
    add_notes,
    read_frame,
    record_calibration,
    reject,
    write_frame,
)
from lib.frame.step import given_or_made, record_step, run_rule
from lib.night.facts import FrameFacts


def main(job: Any) -> None:
    """Prepare one frame."""
    facts = FrameFacts.from_dict(job.params.facts)
    paths = {kind: given_or_made(job, kind) for kind in ("bias", "dark")}
    try:
        for kind, path in paths.items():
            required = facts.calibrations.get(kind) == "required"
            if not path and required and job.params.missing[kind] == "reject":
                raise FrameRejected(f"NO_{kind.upper()}", job.params.notes.get(kind, ""))
        masters, fitted = read_masters(paths, facts)
        flat = read_frame(job.input.flat) if job.input.get("flat") else None
        facts, notes = with_measured_gain(facts, flat, job.params.gain == "measured")
        frame = prepare_frame(job.params.given.raws[0], facts, **masters)
        add_notes(frame.header, fitted + notes)
        for kind, master in masters.items():
            if master is not None:
                record_calibration(frame.header, kind.upper(), paths[kind], master.header)
    except FrameRejected as why:
        frame = reject(frame_header(facts), "prepare", why)
    frame.header.update(carried_cards(job.params.given.raws[0], facts))
    record_step(frame.header, "prepare", job.params.version)
    write_frame(job.output[0], frame)


if "snakemake" in globals():
    run_rule(snakemake, main)
