"""subtract: the template of a coadd is subtracted from it."""

from typing import Any

from lib.core.settings import DifferenceSettings
from lib.difference.products import DifferenceInputs, make_difference
from lib.frame.step import run_by_hand, run_rule
from lib.night.targets import parse_position


def main(job: Any) -> None:
    """Make the difference image of one coadd."""
    got, given = job.input, job.params.given
    made = got.get("template")
    template = (made if isinstance(made, str) else made[0]) if made else given.template
    inputs = DifferenceInputs(
        got.coadd, got.weight, got.cat, template, given.why,
        parse_position(job.params.target_radec),
    )  # fmt: skip
    settings = DifferenceSettings(**job.params.settings)
    make_difference(
        inputs, job.output.diff, job.output.weight, settings, version=job.params.version
    )


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
