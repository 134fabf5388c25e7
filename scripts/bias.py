"""Make the master bias of one configuration."""

from typing import Any

from lib.calibration.bias import make_bias
from lib.calibration.masters import compare_masters
from lib.frame.file import read_frame, write_frame
from lib.frame.step import given_or_made, record_step, run_rule
from lib.night.facts import facts_of


def main(job: Any) -> None:
    """Combine the raw bias frames."""
    master = make_bias(job.params.given.raws, facts_of(job.params.facts), job.params.clip)
    if ready := given_or_made(job, "ready"):
        compare_masters(master.header, master, read_frame(ready))
    record_step(master.header, "bias", job.params.version, {"clip": job.params.clip})
    write_frame(job.output[0], master)


if "snakemake" in globals():
    run_rule(snakemake, main)
