"""lightcurve: the target of a night in every exposure.

Forced photometry at the target's position on the frames before they are stacked.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lib.core.files import atomic_path
from lib.frame.step import run_by_hand, run_rule
from lib.night.targets import parse_position, target_position
from lib.photometry.forced import LIMIT_SIGMA
from lib.photometry.lightcurve import (
    FrameQuality,
    StackedFrames,
    light_curve,
    plot_light_curve,
    read_sources,
)

log = logging.getLogger("autoproc")


def read_stack(coadd: str, cat: str, quality: str, frames: list[str]) -> StackedFrames:
    """Return what a light curve takes of a stack.

    Parameters
    ----------
    coadd, cat, quality : path-like
        The coadd, its source table and its quality numbers.
    frames : list of path-like
        Its frames.

    Returns
    -------
    lib.photometry.lightcurve.StackedFrames
    """
    numbers = json.loads(Path(quality).read_text(encoding="utf-8"))
    known = {name: FrameQuality.from_json(one) for name, one in numbers.get("frames", {}).items()}
    exptime = numbers.get("exptime") or np.nan
    return StackedFrames(fits.getheader(coadd), *read_sources(cat), exptime, known, frames)


def run(
    stacks: list[tuple[str, str, str, list[str]]],
    output: str,
    plot: str,
    *,
    target_radec: Any = None,
    version: int = 1,
) -> None:
    """Make the light curve of a target.

    Parameters
    ----------
    stacks : list of tuple
        Path of the coadd, of its source table, of its quality numbers, and of its frames.
    output, plot : path-like
    target_radec
        As `lib.night.targets.parse_position` takes it.
    version : int
        Of the step.
    """
    read = [read_stack(*paths) for paths in stacks]
    headers = [stack.header for stack in read]
    ra, dec, source = target_position(parse_position(target_radec), headers)
    table = light_curve(read, (ra, dec))
    table.meta = {
        "object": str(headers[0].get("OBJECT", "")), "step": f"lightcurve v{version}",
        "ra": ra, "dec": dec, "target_source": source or "none: the pointing is not known",
        "limit_sigma": LIMIT_SIGMA,
        "zeropoints": {
            str(h["FILTER"]): {k: h[k] for k in ("ABSZPERR", "ZPSYS", "ABSZPCAT") if k in h}
            for h in headers if "FILTER" in h
        },
    }  # fmt: skip
    with atomic_path(output) as beside:
        table.write(beside, format="ascii.ecsv")
    plot_light_curve(plot, table, f"{table.meta['object']}  {ra:.5f} {dec:+.5f}")
    log.info("%s: %d exposures", Path(output).name, len(table))


def main(job: Any) -> None:
    """Make the light curve of a target from its stacks."""
    frames = job.params.given.frames
    stacks = zip(job.input.coadds, job.input.cats, job.input.quality, frames, strict=True)
    run(
        list(stacks), job.output.table, job.output.plot, target_radec=job.params.target_radec,
        version=job.params.version,
    )  # fmt: skip


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
