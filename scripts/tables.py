"""tables: the sources of all filters of a target in one table, each measured in every filter."""

import logging
from pathlib import Path
from typing import Any

from lib.core.files import atomic_path
from lib.core.settings import StackSettings
from lib.frame.step import run_by_hand, run_rule
from lib.night.targets import parse_position
from lib.stack.jointtable import joint_table

log = logging.getLogger("autoproc")


def main(job: Any) -> None:
    """Make the joint table of a target."""
    table = joint_table(
        job.input.coadds, job.input.weights, job.input.cats,
        parse_position(job.params.target_radec),
        StackSettings(**job.params.settings).table_snr, job.params.version,
    )  # fmt: skip
    with atomic_path(job.output[0]) as beside:
        table.write(beside, format="ascii.ecsv")
    log.info("%s: %d sources in %d filters", Path(job.output[0]).name, len(table),
             len(table.meta["filters"]))  # fmt: skip


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
