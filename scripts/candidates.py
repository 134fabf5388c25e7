"""candidates: ranked candidates from the difference images of a target."""

from typing import Any

import numpy as np

from lib.core.files import atomic_path
from lib.core.settings import DifferenceSettings
from lib.difference.candidatetable import StackFiles, make_candidates
from lib.difference.cutouts import write_sheet
from lib.frame.step import run_rule
from lib.night.positions import read_positions
from lib.reference.referencetable import read_written_reference


def main(job: Any) -> None:
    """Make the table of candidates of a target."""
    got, given = job.input, job.params.given
    files = zip(
        got.coadds, got.weights, got.cats, got.quality, got.diffs, got.diff_weights, given.frames,
        strict=True,
    )  # fmt: skip
    reference = read_written_reference(got.refcat)
    places = np.empty((0, 2))
    if len(reference):
        columns = [np.ma.filled(np.ma.asarray(reference[key], float), np.nan)
                   for key in ("ra", "dec")]  # fmt: skip
        places = np.column_stack(columns)
    table, rows = make_candidates(
        [StackFiles(*one) for one in files], DifferenceSettings(**job.params.settings),
        reference=places, known=read_positions(given.known) if given.known else [],
        version=job.params.version,
    )  # fmt: skip
    with atomic_path(job.output.table) as beside:
        table.write(beside, format="ascii.ecsv")
    write_sheet(job.output.sheet, rows)


if "snakemake" in globals():
    run_rule(snakemake, main)
