"""Rule makesky: the master sky of the frames of one filter."""

from typing import Any

from lib.background.makesky import sky_from_frames
from lib.background.mastersky import write_sky
from lib.frame.step import record_step, run_rule

SETTINGS = ("min_frames", "sigma", "clip", "order", "passes", "structure")


def main(job: Any) -> None:
    """Make the master sky."""
    settings = {name: job.params[name] for name in SETTINGS}
    sky = sky_from_frames(job.input.frames, **settings, others=job.input.get("others", ()))
    record_step(sky.header, "makesky", job.params.version, settings)
    write_sky(job.output[0], sky)


if "snakemake" in globals():
    run_rule(snakemake, main)
