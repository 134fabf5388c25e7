"""lightcurve: the target, and other positions, in every exposure.

Forced photometry on single frames and on stacks, on a common photometric system.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.files import atomic_path
from lib.core.rawfiles import listed
from lib.core.settings import LightcurveSettings, ObserverSettings
from lib.frame.step import run_by_hand, run_rule
from lib.night.positions import read_positions
from lib.night.targets import parse_position
from lib.photometry.lightcurveplot import plot_light_curve, plot_light_curves
from lib.report.exports import export_text
from lib.stack.lightcurves import (
    StackPaths,
    common_meta,
    join_tables,
    make_tables,
    place_target,
    read_stack,
    read_stack_beside,
)

log = logging.getLogger("autoproc")


def run(stacks: list[StackPaths], output: str, plot: str, **options: Any) -> None:
    """Make the light curve of a target, and those of the positions in its field.

    Parameters
    ----------
    stacks : list of tuple
        Paths of coadd, weight map, source table, quality file, and frames of each stack.
    output, plot : path-like
        Files to write: the light curve of the target, and its plot.
    **options
        target_radec, settings (of section lightcurve), site and version; positions, the path of the
        table of positions, with all_table and all_plot, the files for their light curves; exports,
        format -> path, with observer (of that section); differences, paths of difference images;
        others, coadds by the names of stacks that only add rows.
    """
    read = [read_stack(paths) for paths in stacks]
    settings = LightcurveSettings(**options.get("settings", {}))
    site = options.get("site") or None
    configured = parse_position(options.get("target_radec"))
    others = read_positions(options["positions"]) if options.get("positions") else []
    target, meta = place_target(read, configured, settings.position)
    # A moving target is followed along its ephemeris, not measured at the pointing.
    own = next((one for one in others if one.moving and one.key == target.key), None)
    if own is not None:
        target, meta = own, {"target_source": "ephemeris"}
    differences = options.get("differences", ())
    parts = [read_stack_beside(path, name) for name, path in options.get("others", {}).items()]
    first, *rest = make_tables(
        read, stacks, [target, *others], settings, site, differences, parts
    )  # fmt: skip
    common = common_meta(read, site, options.get("version", 1))
    first.meta = common | meta | first.meta
    for table in rest:
        table.meta = common | table.meta
    with atomic_path(output) as beside:
        first.write(beside, format="ascii.ecsv")
    where = "" if target.moving else f"  {target.ra[0]:.5f} {target.dec[0]:+.5f}"
    plot_light_curve(plot, first, f"{target.name}{where}")
    log.info("%s: %d exposures", Path(output).name, np.sum(first["KIND"] == "frame"))
    inside = [one for one in rest if np.isfinite(one["FLUX"]).any()]
    more = [one for one in inside if own is None or one.meta["name"] != own.name]
    observer = ObserverSettings(**options.get("observer", {}))
    for name, path in options.get("exports", {}).items():
        with atomic_path(path) as beside:
            Path(beside).write_text(export_text(name, [first, *more], observer), encoding="utf-8")
    if options.get("all_table"):
        joined = join_tables(rest or [first[:0]], common)
        with atomic_path(options["all_table"]) as beside:
            joined.write(beside, format="ascii.ecsv")
        plot_light_curves(options["all_plot"], inside)
        log.info("%d of %d positions lie in the field", len(joined.meta["positions"]), len(others))


def main(job: Any) -> None:
    """Make the light curve of a target from its stacks."""
    given, params, put, got = job.params.given, job.params, job.output, job.input
    stacks = list(zip(got.coadds, got.weights, got.cats, got.quality, given.frames, strict=True))
    run(
        stacks, put.table, put.plot, target_radec=params.target_radec, version=params.version,
        settings=getattr(params, "settings", {}), site=getattr(params, "site", None),
        positions=given.positions, all_table=getattr(put, "all_table", None),
        all_plot=getattr(put, "all_plot", None), observer=getattr(params, "observer", {}),
        differences=listed(got.get("differences")), others=getattr(params, "others", {}),
        exports={name: getattr(put, f"export_{name}") for name in getattr(params, "export", ())},
    )  # fmt: skip


if "snakemake" in globals():
    run_rule(snakemake, main)
elif __name__ == "__main__":
    run_by_hand(main)
