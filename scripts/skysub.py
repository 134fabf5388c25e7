"""Rule skysub: subtract the sky from one frame."""

from typing import Any

from lib.background.mastersky import read_sky
from lib.background.subtraction import skysub_frame
from lib.frame.file import Frame, record_calibration
from lib.frame.step import process, run_rule


def main(job: Any) -> None:
    """Subtract the master sky, or the median of the frame where there is none."""
    path = job.input.get("sky")
    order = job.params.order if path else 0
    fringe_scale = job.params.fringe_scale if path else 0

    def work(frame: Frame) -> Frame:
        sky = read_sky(path, frame.header["FRAME"]) if path else None
        frame = skysub_frame(frame, sky, order, fringe_scale)
        if sky is not None and not sky.rejected:
            record_calibration(frame.header, "SKY", path, sky.header)
        return frame

    process(
        "skysub",
        job.params.version,
        job.input.frame,
        job.output[0],
        work,
        parameters={"nomastersky": not path, "order": order, "fringe_scale": fringe_scale},
    )


if "snakemake" in globals():
    run_rule(snakemake, main)
