"""export: write a source table or a light curve in the format of other programs."""

import logging
from pathlib import Path
from typing import Any

from lib.core.files import atomic_path
from lib.frame.step import run_by_hand, run_rule
from lib.report.tableexports import SOFTWARE, WRITERS, read_product

log = logging.getLogger("autoproc")


def main(job: Any) -> None:
    """Write one table in the format given by the name of the output."""
    path, put = Path(job.input[0]), Path(job.output[0])
    table = read_product(path)
    with atomic_path(put) as beside:
        WRITERS[put.suffix](beside, table, f"{path.name} by {SOFTWARE}")
    log.info("%s: %d rows", put.name, len(table))


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
