"""subtract: the template of a coadd is subtracted from it."""

from typing import Any

from lib.core.settings import DifferenceSettings
from lib.difference.products import DifferenceInputs, make_difference
from lib.frame.step import run_by_hand, run_rule


def main(job: Any) -> None:
    """Make the difference image of one coadd."""
    settings = DifferenceSettings(**job.params.settings)
    make_difference(
        DifferenceInputs.of_job(job), job.output.diff, job.output.weight, settings,
        version=job.params.version,
    )  # fmt: skip


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
