"""astrometry: write the solution that rule solve found into the header of one frame."""

import json
from pathlib import Path
from typing import Any

from lib.astrometry.solvedheader import write_solved_frame
from lib.frame.step import run_rule


def main(job: Any) -> None:
    """Write one frame with its world coordinate system."""
    solved = json.loads(Path(job.input.solution).read_text())
    frame, version = job.wildcards.frame, job.params.version
    write_solved_frame(job.input.frame, job.output[0], solved, frame, version)


if "snakemake" in globals():
    run_rule(snakemake, main)
