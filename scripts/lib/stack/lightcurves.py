"""The light curves of a target and of other positions in its field, from stacks and frames."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack

from lib.core.settings import LightcurveSettings
from lib.night.positions import Position
from lib.night.targets import target_position
from lib.photometry.forced import LIMIT_SIGMA
from lib.photometry.lightcurve import (
    FrameQuality,
    MeasuredFrame,
    StackedFrames,
    match_source,
    measure_frames,
    read_comparison,
    read_sources,
)
from lib.photometry.lightcurvetable import BinRule, light_curve_table
from lib.stack.stackflux import stack_fluxes

log = logging.getLogger("autoproc")

StackPaths = tuple[str, str, str, str, list[str]]
"""Of a stack: coadd, weight map, source table, quality numbers, frames."""


def read_stack(paths: StackPaths) -> StackedFrames:
    """Return what a light curve takes of a stack.

    Parameters
    ----------
    paths : tuple
        Coadd, weight map, source table, quality numbers, and its frames.

    Returns
    -------
    lib.photometry.lightcurve.StackedFrames
    """
    coadd, _, cat, quality, frames = paths
    numbers = json.loads(Path(quality).read_text(encoding="utf-8"))
    known = {name: FrameQuality.from_json(one) for name, one in numbers.get("frames", {}).items()}
    name = Path(coadd).name.removeprefix("coadd").removesuffix(".fits")
    return StackedFrames(
        fits.getheader(coadd), *read_sources(cat), numbers.get("exptime") or np.nan, known, frames,
        name, read_comparison(cat),
    )  # fmt: skip


def place_target(
    stacks: Sequence[StackedFrames], configured: tuple[float, float] | None, rule: str
) -> tuple[Position, dict[str, Any]]:
    """Return where the target is measured, and what the table says of it.

    Parameters
    ----------
    stacks : list of StackedFrames
    configured : tuple of float, optional
        ra, dec [deg] of config `target_radec`.
    rule : {'auto', 'given', 'matched'}
        Of `lib.core.settings.LightcurveSettings`.
    """
    headers = [stack.header for stack in stacks]
    ra, dec, source = target_position(configured, headers)
    seeing = [stack.header.get("SEEING") for stack in stacks]
    radius = max([one for one in seeing if isinstance(one, float)], default=2.0)
    found, distance = match_source(stacks, (ra, dec), radius)
    meta: dict[str, Any] = {"target_source": source or "none: the pointing is not known"}
    if found is not None:
        meta["match_distance"] = round(distance, 3)
    follows = rule == "matched" or (rule == "auto" and source != "config")
    meta["position"] = "matched" if found is not None and follows else "given"
    if found is not None and follows:
        meta["pointing"] = [float(ra), float(dec)]
        ra, dec = found
    elif found is not None and distance > 0.25 * radius:
        log.warning("a source is %.2f arcsec from the position given, which is measured; "
                    "lightcurve={position: matched} measures the source", distance)  # fmt: skip
    name = str(headers[0].get("OBJECT", "")) or stacks[0].name.split(".")[0]
    return Position(name, np.array([ra]), np.array([dec])), meta | {"ra": ra, "dec": dec}


def make_tables(
    stacks: Sequence[StackedFrames], paths: Sequence[StackPaths], positions: Sequence[Position],
    settings: LightcurveSettings, site: Sequence[float] | None,
) -> list[Table]:  # fmt: skip
    """Return the light curve of each position."""
    frames = measure_frames(stacks, positions, settings.comparison_stars)
    places = np.array(
        [[np.nan, np.nan] if one.moving else [one.ra[0], one.dec[0]] for one in positions]
    ).reshape(-1, 2)
    whole = [
        stack_fluxes(stack, one[:3], places, frames)
        for stack, one in zip(stacks, paths, strict=True)
    ]
    systems = {stack.filter: str(stack.header.get("ZPSYS", "")) for stack in stacks
               if np.isfinite(stack.zeropoint)}  # fmt: skip
    tables = []
    for index, position in enumerate(positions):
        own = [] if position.moving else [fluxes[index] for fluxes in whole if fluxes]
        rule = BinRule(settings.bin_snr, settings.bin_gap / 24)
        table = light_curve_table(frames, index, position, rule, own, site, systems)
        bands = dict.fromkeys(one.filter for one in frames)
        table.meta = {
            "name": position.name,
            "moving": position.moving,
            "limit_sigma": LIMIT_SIGMA,
        } | {
            "scale": {name: _scale([one for one in frames if one.filter == name]) for name in bands}
        }
        tables.append(table)
    return tables


def _scale(frames: Sequence[MeasuredFrame]) -> dict[str, float]:
    """Return what is said of the photometric system of a band."""
    errors = [one.offset_error for one in frames if np.isfinite(one.offset_error)]
    known: dict[str, float] = {
        "comparison_stars": max((one.n_comparison for one in frames), default=0),
        "excess_scatter": round(max((one.excess for one in frames), default=0.0), 5),
    }
    return known | ({"common_error": round(float(np.median(errors)), 5)} if errors else {})


def common_meta(
    stacks: Sequence[StackedFrames], site: Sequence[float] | None, version: int
) -> dict[str, Any]:
    """Return what the tables of all positions of a field say alike."""
    headers = [stack.header for stack in stacks]
    return {
        "object": str(headers[0].get("OBJECT", "")), "step": f"lightcurve v{version}",
        "site": list(site) if site else "not known: BJD_TDB is that of the centre of the Earth, "
        "wrong by up to 21 ms",
        "bands": {str(h["FILTER"]): str(h.get("BAND", "")) for h in headers if "FILTER" in h},
        "astrometric_catalogue": str(headers[0].get("ASTRCAT", "")),
        "zeropoints": {
            str(h["FILTER"]): {k: h[k] for k in ("ABSZPERR", "ZPSYS", "ABSZPCAT") if k in h}
            for h in headers if "FILTER" in h
        },
    }  # fmt: skip


def join_tables(tables: Sequence[Table], common: Mapping[str, Any]) -> Table:
    """Return the light curves of many positions as one table, those outside of the field left out.

    Parameters
    ----------
    tables : list of astropy.table.Table
        Of `make_tables`, one at least.
    common : dict
        Of `common_meta`.
    """
    inside = [table for table in tables if np.isfinite(table["FLUX"]).any()]
    joined = vstack(inside or [tables[0][:0]], metadata_conflicts="silent")
    names = [str(table.meta["name"]) for table in inside]
    joined.meta = dict(common) | {
        "positions": names, "scale": tables[0].meta["scale"], "limit_sigma": LIMIT_SIGMA,
        "outside": [str(one.meta["name"]) for one in tables if str(one.meta["name"]) not in names],
    }  # fmt: skip
    return joined
