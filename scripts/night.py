"""Rule night: the page about the night, and frames.ecsv with what became of each frame.

Run by its rule at the end, and by itself after a run that did not come to its end::

    python scripts/night.py --imdir imredux
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from lib.frame.step import run_rule
from lib.night.nightlog import open_log
from lib.report.page import make_page


def main(job: Any) -> None:
    """Make the page of a run that came to its end."""
    imdir, config = Path(job.output[0]).parent, job.config
    make_page(open_log(config, imdir), config, imdir, job.threads)


def command(arguments: list[str] | None = None) -> None:
    """Make the page of a reduction from what lies in its imdir."""
    parser = argparse.ArgumentParser(description="Make the page about a night.")
    parser.add_argument("--imdir", required=True, type=Path, help="directory of the products")
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args(arguments)
    with open(options.imdir / "qa" / "config.yaml", encoding="utf-8") as file:
        config = yaml.safe_load(file)
    make_page(open_log(config, options.imdir), config, options.imdir, options.cores)


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    command()
