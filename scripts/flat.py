"""Make the master flat of one configuration and filter."""

from typing import Any

from lib.calibration.flat import make_flat
from lib.calibration.flatlight import compare_light, note_pedestal
from lib.calibration.masters import compare_masters
from lib.calibration.readymasters import read_masters
from lib.core.settings import FlatSettings
from lib.frame.file import FrameRejected, add_notes, read_frame, record_calibration, write_frame
from lib.frame.step import given_or_made, record_step, run_rule
from lib.night.facts import facts_of


def main(job: Any) -> None:
    """Combine the raw flats."""
    paths = {kind: given_or_made(job, kind) for kind in ("bias", "dark")}
    facts = facts_of(job.params.facts)
    try:
        masters, notes = read_masters(paths, facts[0])
    except FrameRejected as why:  # a missing dark is acceptable for flats
        masters, notes = read_masters(paths | {"dark": None}, facts[0])
        notes.append(f"ready dark not used: {why}")
    settings = dict(job.params.settings)
    low_response = settings.pop("low_response")
    master = make_flat(
        job.params.given.raws,
        facts,
        **masters,
        settings=FlatSettings(**settings),
        low_response=low_response,
        measure_gain=job.params.gain == "measured",
    )
    add_notes(master.header, notes)
    if not any(masters.values()):
        note_pedestal(master, job.params.given.raws, facts)
    for path, source in zip(job.input.get("others", []), job.params.lights, strict=True):
        master = compare_light(master, read_frame(path), facts[0].source, source)
    for kind, calibration in masters.items():
        if calibration is not None:
            record_calibration(master.header, kind.upper(), paths[kind], calibration.header)
    if ready := given_or_made(job, "ready"):
        compare_masters(master.header, master, read_frame(ready), relative=True)
    record_step(master.header, "flat", job.params.version, dict(job.params.settings))
    write_frame(job.output[0], master)


if "snakemake" in globals():
    run_rule(snakemake, main)
