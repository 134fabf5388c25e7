"""Flag and repair the cosmic rays of a sky-subtracted frame."""

from typing import Any

from lib.calibration.cosmicrays import crclean_frame
from lib.core.settings import CrcleanSettings
from lib.frame.step import process, run_rule


def main(job: Any) -> None:
    """Clean one frame."""
    settings = CrcleanSettings(**job.params.settings)
    process(
        "crclean",
        job.params.version,
        job.input.frame,
        job.output[0],
        lambda frame: crclean_frame(frame, settings),
        parameters=dict(job.params.settings),
    )


if "snakemake" in globals():
    run_rule(snakemake, main)
