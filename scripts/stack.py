"""stack: the frames of one target and filter are combined into one image with a zero point.

Each frame is measured (seeing, shape, stars), tied to the others by common stars, and left out,
with a measured reason, if it is not good enough. The rest are resampled, compared with each other
and combined. The weight map of the coadd is scaled to the noise in empty apertures, its zero point
is fitted, and its sources are listed.
"""

import logging
import sys
from typing import Any

from lib.core.rawfiles import listed
from lib.core.settings import StackSettings
from lib.frame.step import run_rule
from lib.reference.referencetable import CatalogueError
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.moving import make_moving_stack

log = logging.getLogger("autoproc")


def main(job: Any) -> None:
    """Make the stack of one target and filter, or of a moving object on its frames."""
    inputs = StackInputs(
        frames=[*listed(job.input.frames), *job.params.given.frames],
        flats=[*listed(job.input.get("flats")), *job.params.given.flats],
        grid_frames=[*listed(job.input.get("grid")), *job.params.given.grid],
        refcat=job.input.get("refcat"),
        customcat=job.params.given.customcat,
        customcatfilt=job.params.get("customcatfilt", ()),
    )
    out = job.output
    products = StackProducts(out.coadd, out.weight, out.cat, out.qa, out.get("plot"))
    settings = StackSettings(**job.params.settings)
    moving = getattr(job.params.given, "moving", None)
    how = {"version": job.params.version, "threads": job.threads}
    try:
        if moving is None:
            make_stack(inputs, products, settings, **how)
        else:
            make_moving_stack(inputs, products, settings, moving, **how)
    except CatalogueError as error:
        log.error("%s", error)
        sys.exit(str(error))


if "snakemake" in globals():
    run_rule(snakemake, main)
