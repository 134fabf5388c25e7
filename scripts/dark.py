"""Make the master dark of one configuration and exposure time."""

from typing import Any

from lib.calibration.dark import make_dark
from lib.calibration.masters import compare_masters
from lib.calibration.readymasters import read_masters
from lib.frame.file import add_notes, read_frame, record_calibration, write_frame
from lib.frame.step import given_or_made, record_step, run_rule
from lib.night.facts import facts_of


def main(job: Any) -> None:
    """Combine the raw darks."""
    path = given_or_made(job, "bias")
    facts = facts_of(job.params.facts)
    masters, notes = read_masters({"bias": path}, facts[0])
    bias = masters["bias"]
    settings = {key: job.params[key] for key in ("clip", "hot_sigma")}
    master = make_dark(job.params.given.raws, facts, bias, **settings)
    add_notes(master.header, notes)
    if bias is not None:
        record_calibration(master.header, "BIAS", path, bias.header)
    if ready := given_or_made(job, "ready"):
        compare_masters(master.header, master, read_frame(ready))
    record_step(master.header, "dark", job.params.version, settings)
    write_frame(job.output[0], master)


if "snakemake" in globals():
    run_rule(snakemake, main)
