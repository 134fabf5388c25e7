"""Divide a prepared frame by the flat; mark its sources and measure its sky."""

from typing import Any

from lib.background.flatten import flatten_frame
from lib.calibration.readymasters import read_flat
from lib.frame.file import FrameRejected, add_notes, record_calibration
from lib.frame.step import given_or_made, process, run_rule


def main(job: Any) -> None:
    """Flatten one frame."""
    path = given_or_made(job, "flat")
    settings = dict(job.params.settings)
    missing = settings.pop("missing_flat")

    def work(frame):
        if not path and job.params.missing and missing == "reject":
            raise FrameRejected("NO_FLAT", job.params.missing)
        flat, notes = None, []
        if path:
            flat, notes = read_flat(path, frame.header.get("PEDESTAL", 0.0))
        frame = flatten_frame(frame, flat, **settings)
        add_notes(frame.header, notes)
        if flat is not None:
            record_calibration(frame.header, "FLAT", path, flat.header)
        return frame

    process(
        "flatten",
        job.params.version,
        job.input.frame,
        job.output[0],
        work,
        parameters=dict(job.params.settings),
    )


if "snakemake" in globals():
    run_rule(snakemake, main)
