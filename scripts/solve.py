"""solve: the astrometric solution of all frames of one stack."""

import warnings
from pathlib import Path
from typing import Any

from astropy.wcs import FITSFixedWarning

from lib.astrometry.anchor import read_anchor
from lib.astrometry.residuals import plot_residuals
from lib.astrometry.solution import solve_stack, write_solution
from lib.core.settings import AstrometrySettings
from lib.frame.step import run_rule
from lib.reference.referencetable import read_written_reference


def main(job: Any) -> None:
    """Solve the frames of one stack together."""
    table = read_written_reference(job.input.reference)
    settings = AstrometrySettings(**job.params.settings)
    stack = job.wildcards.stack
    given = job.input.get("anchor")
    anchor = read_anchor(given if isinstance(given, str) else given[0]) if given else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        solution = solve_stack(
            job.input.frames, table, settings, threads=job.threads, anchor=anchor
        )
    plot_residuals(
        Path(job.output[0]).with_suffix(".png"),
        solution.reference,
        solution.residuals,
        solution.title(stack),
    )
    write_solution(job.output[0], solution, stack, table.meta.get("notes") or ())


if "snakemake" in globals():
    run_rule(snakemake, main)
