"""framediff: the template of a coadd is subtracted from one of its frames."""

from typing import Any

from lib.core.settings import DifferenceSettings
from lib.difference.framedifference import FrameInputs, make_frame_difference
from lib.difference.products import DifferenceInputs
from lib.frame.step import run_by_hand, run_rule


def main(job: Any) -> None:
    """Make the difference image of one frame."""
    got, stack = job.input, DifferenceInputs.of_job(job)
    make_frame_difference(
        FrameInputs(got.frame, got.quality, got.diff, stack), job.output.diff,
        DifferenceSettings(**job.params.settings), version=job.params.version,
    )  # fmt: skip


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
