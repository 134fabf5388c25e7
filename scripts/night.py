"""Rule night: the page about the night, and frames.ecsv with the outcome of each frame.

Run by its rule at the end, and by itself after a run that did not finish::

    python night.py --imdir imredux
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from lib.core.files import atomic_path
from lib.frame.step import run_rule
from lib.night.campaign import MARKER, Night, plan_campaign
from lib.night.nightlog import CACHE, open_log
from lib.report.links import campaign_link
from lib.report.page import make_page


def main(job: Any) -> None:
    """Make the page of a finished run."""
    imdir = Path(job.output[0]).parent
    night, _ = night_of(imdir, job.config)
    make_page(night.log, job.config, imdir, job.threads, job.params.campaign)
    if job.params.key:
        with atomic_path(imdir / MARKER) as beside:
            beside.write_text(job.params.key, encoding="utf-8")


def night_of(imdir: Path, config: dict[str, Any]) -> tuple[Night, str]:
    """Return the night with products in a directory, and the address of the page about all nights.

    Parameters
    ----------
    imdir : Path
        Directory of the products of a run, with the cache of headers, or the folder of one of its
        nights.
    config : dict
    """
    top = imdir if (imdir / CACHE).exists() else imdir.parent
    nights = plan_campaign(open_log(config, top), config, top).nights
    folder = "" if top == imdir else f"{imdir.name}/"
    if folder not in nights:
        raise SystemExit(f"{imdir}: no night of this run lies there")
    night = nights[folder]
    return night, campaign_link(night.folder) if len(nights) > 1 else ""


def command(arguments: list[str] | None = None) -> None:
    """Make the page of a reduction from the content of its imdir."""
    from lib.engine.config import ConfigError, check_config
    from lib.night.instrumentfile import list_instruments

    parser = argparse.ArgumentParser(description="Make the page about a night.")
    parser.add_argument("--imdir", required=True, type=Path, help="directory of the products")
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args(arguments)
    with open(options.imdir / "qa" / "config.yaml", encoding="utf-8") as file:
        config = yaml.safe_load(file)
    # An older version had fewer keys.
    try:
        config = check_config(config, list_instruments())
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    night, campaign = night_of(options.imdir, config)
    make_page(night.log, config, options.imdir, options.cores, campaign)


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    command()
