"""Light curves of a target and of other positions in its field, from stacks and frames."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from lib.core.settings import LightcurveSettings
from lib.core.sphere import project
from lib.night.positions import Position
from lib.night.targets import target_position
from lib.photometry.flags import FLAG_TRAILED
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
from lib.photometry.trailing import APERTURE_IN_FWHM
from lib.stack.stackflux import (
    difference_fluxes,
    followed_flux,
    measured_offset,
    stack_fluxes,
)

log = logging.getLogger("autoproc")

NEAREST_SOURCE = 4.0
"""[seeing] Sources that near to a pointing without a source are named."""

MOST_STEP = 2.0
"""[seeing] An object that moves further between frames leaves no trace in an ordinary stack."""

BRIGHTEST_PIECE = 1.5
"""[flux of the object] Maximum flux of a piece, three times the seeing long, of the object's trail,
with a margin for errors."""

TOLD_OFFSET = 0.3
"""[arcsec] Offset from its ephemeris above which an object is reported as displaced."""

StackPaths = tuple[str, str, str, str, list[str]]
"""Coadd, weight map, source table, quality file, and frames of a stack."""


def read_stack(paths: StackPaths) -> StackedFrames:
    """Return what a light curve needs of a stack.

    Parameters
    ----------
    paths : tuple
        Coadd, weight map, source table, quality file, and frames.

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


def read_stack_beside(coadd: str, name: str) -> tuple[StackedFrames, StackPaths]:
    """Return a stack and its products, which lie beside its coadd.

    Parameters
    ----------
    coadd : str
        Path of the coadd.
    name : str
        Name of the stack in tables.
    """
    paths = products_beside(coadd)
    return replace(read_stack(paths), name=name), paths


def place_target(
    stacks: Sequence[StackedFrames], configured: tuple[float, float] | None, rule: str
) -> tuple[Position, dict[str, Any]]:
    """Return the position at which the target is measured, and the table's cards about it.

    Parameters
    ----------
    stacks : list of StackedFrames
        Stacks of the target.
    configured : tuple of float, optional
        ra, dec [deg], setting `target_radec`.
    rule : {'auto', 'given', 'matched'}
        See `lib.core.settings.LightcurveSettings`.
    """
    stacks = [stack for stack in stacks if not stack.follows]
    headers = [stack.header for stack in stacks]
    ra, dec, source = target_position(configured, headers)
    seeing = [stack.header.get("SEEING") for stack in stacks]
    width = max([one for one in seeing if isinstance(one, float)], default=2.0)
    # A source within the aperture is measured with it, wherever that is put.
    radius = APERTURE_IN_FWHM * width
    found, distance = match_source(stacks, (ra, dec), radius)
    meta: dict[str, Any] = {"target_source": source or "none: the pointing is not known"}
    if found is not None:
        meta["match_distance"] = round(distance, 3)
    follows = rule == "matched" or (rule == "auto" and source != "config")
    meta["position"] = "matched" if found is not None and follows else "given"
    if found is not None and follows:
        meta["pointing"] = [float(ra), float(dec)]
        ra, dec = found
    elif found is None and follows:
        _, distance = match_source(stacks, (ra, dec), NEAREST_SOURCE * width)
        if np.isfinite(distance):
            meta["nearest_source"] = round(distance, 3)
            log.warning("no source within %.1f arcsec of the pointing, which is measured; the "
                        "nearest is %.1f arcsec away: target_radec tells where the target is",
                        radius, distance)  # fmt: skip
    elif found is not None and distance > 0.25 * width:
        log.warning("a source is %.2f arcsec from the position given, which is measured; "
                    "lightcurve={position: matched} measures the source", distance)  # fmt: skip
    name = str(headers[0].get("OBJECT", "")) or stacks[0].name.split(".")[0]
    return Position(name, np.array([ra]), np.array([dec])), meta | {"ra": ra, "dec": dec}


def make_tables(
    stacks: Sequence[StackedFrames], paths: Sequence[StackPaths], positions: Sequence[Position],
    settings: LightcurveSettings, site: Sequence[float] | None, differences: Sequence[str] = (),
    others: Sequence[tuple[StackedFrames, StackPaths]] = (),
) -> list[Table]:  # fmt: skip
    """Return the light curve of each position.

    Parameters
    ----------
    stacks : list of StackedFrames
        Stacks, including those that follow moving objects.
    paths : list of tuple
        Products of the stacks.
    positions : list of Position
        The positions to measure.
    settings : LightcurveSettings
    site : sequence of float, optional
        Site of the telescope, as for `lib.core.times.barycentric_dates`.
    differences : sequence of str
        Difference images of coadds and of frames, beside the coadds.
    others : sequence of tuple
        Stacks that only add rows, and their products.
    """
    following = [(one, files[:3]) for one, files in zip(stacks, paths, strict=True) if one.follows]
    paths = [files for one, files in zip(stacks, paths, strict=True) if not one.follows]
    stacks = [one for one in stacks if not one.follows]
    tolerance = 0.0 if settings.position == "given" else settings.ephemeris_tolerance
    positions, offsets, seen = _corrected(positions, following, tolerance)
    for position in positions:
        for follower, rate in seen.get(position.name, []):
            stacks = [without_track(one, follower, position, rate) for one in stacks]
    frames = measure_frames(stacks, positions, settings.comparison_stars)
    places = np.array(
        [[np.nan, np.nan] if one.moving else [one.ra[0], one.dec[0]] for one in positions]
    ).reshape(-1, 2)
    whole = [
        stack_fluxes(stack, one[:3], places, frames)
        for stack, one in (*zip(stacks, paths, strict=True), *others)
    ]
    known: dict[str, StackedFrames] = {}
    for one in differences:
        files = stack_of_difference(one)
        if files[0] not in known:
            known[files[0]] = read_stack(files)
        whole.append(difference_fluxes(known[files[0]], one, places, frames))
    systems = {stack.filter: str(stack.header.get("ZPSYS", "")) for stack in stacks
               if np.isfinite(stack.zeropoint)}  # fmt: skip
    tables = []
    for index, position in enumerate(positions):
        own = [fluxes[index] for fluxes in whole if fluxes]
        if position.moving:
            own = [
                flux for stack, files in following if stack.follows == position.name
                if (flux := followed_flux(stack, files, frames, position)) is not None
            ]  # fmt: skip
        rule = BinRule(settings.bin_snr, settings.bin_gap / 24)
        table = light_curve_table(frames, index, position, rule, own, site, systems)
        bands = dict.fromkeys(one.filter for one in frames)
        table.meta = (
            {
                "name": position.name,
                "moving": position.moving,
                "limit_sigma": LIMIT_SIGMA,
            }
            | {
                "scale": {
                    name: _scale([one for one in frames if one.filter == name]) for name in bands
                }
            }
            | offsets.get(position.name, {})
        )
        _tell_trailing(table)
        tables.append(table)
    return tables


def _corrected(
    positions: Sequence[Position],
    following: Sequence[tuple[StackedFrames, tuple[str, str, str]]],
    tolerance: float,
) -> tuple[list[Position], dict[str, dict[str, Any]], dict[str, list[tuple[StackedFrames, float]]]]:
    """Return the positions, corrected for measured offsets from ephemerides, and cards about them.

    Also returned, by name of the position, are the stacks that follow it, with the count rate in
    each [electron/s]. The offset is the mean over the coadds that follow the object, weighted by
    the square of their S/N.
    """
    corrected: list[Position] = []
    said: dict[str, dict[str, Any]] = {}
    seen: dict[str, list[tuple[StackedFrames, float]]] = {}
    for position in positions:
        its = [one for one in following if tolerance > 0 and one[0].follows == position.name]
        found = [
            (stack, offset) for stack, files in its
            if (offset := measured_offset(stack, files, position, tolerance)) is not None
        ]  # fmt: skip
        if found:
            values = np.array([[one.east, one.north] for _, one in found])
            weights = [one.snr**2 for _, one in found]
            east, north = np.average(values, axis=0, weights=weights)
            position = position.shifted(east, north)
            seen[position.name] = [(stack, one.rate) for stack, one in found]
            said[position.name] = {
                "position": "matched",
                "ephemeris_offset": [round(float(v), 3) for v in (east, north)],
                "offsets": {
                    stack.name: [round(one.east, 3), round(one.north, 3)] for stack, one in found
                },
            }
            if np.hypot(east, north) > TOLD_OFFSET:
                log.warning("%s is %.2f arcsec east and %.2f north of its ephemeris, and measured "
                            "there", position.name, east, north)  # fmt: skip
        elif position.moving:
            said[position.name] = {"position": "ephemeris"}
        corrected.append(position)
    return corrected, said, seen


def without_track(
    stack: StackedFrames, follower: StackedFrames, position: Position, rate: float
) -> StackedFrames:
    """Return an ordinary stack without the sources that a moving object left along its track.

    These would be taken for neighbours of the object, and their light subtracted. An object that
    moves by more than twice the seeing between frames leaves none, because the frames contradict
    each other.

    Parameters
    ----------
    stack : StackedFrames
        The ordinary stack.
    follower : StackedFrames
        The stack of some of its frames that follows the object.
    position : Position
        The object.
    rate : float
        Count rate of the object [electron/s]. Brighter sources on the track are stars.
    """
    header = follower.header
    if follower.filter != stack.filter or not len(stack.positions):
        return stack
    seeing = float(header["SEEING"])
    times = np.linspace(header["MJD-BEG"], header["MJD-END"], 400)
    ra, dec = (value[np.isfinite(value)] for value in position.at(times))
    if not len(ra):
        return stack
    track = project(ra, dec, ra[0], dec[0])
    length = float(np.hypot(*np.diff(track, axis=0).T).sum())
    if length > MOST_STEP * seeing * max(header["NSTACK"] - 1, 1):
        return stack
    sources = project(stack.positions[:, 0], stack.positions[:, 1], ra[0], dec[0])
    away = cKDTree(track).query(np.nan_to_num(sources, nan=1e9))[0]
    brightest = BRIGHTEST_PIECE * rate * min(1.0, 3 * seeing / max(length, 1e-9))
    left = (away < header["APRAD"]) & (stack.fluxes / stack.exptime < brightest)
    return replace(stack, positions=stack.positions[~left], fluxes=stack.fluxes[~left])


def _tell_trailing(table: Table) -> None:
    """Warn of objects that move by more than the seeing during an exposure."""
    rows = np.asarray(table["KIND"], str) == "frame"
    number = int(((np.asarray(table["FLAGS"])[rows] & FLAG_TRAILED) > 0).sum())
    if number:
        log.warning("%s moves by more than the seeing in %d of %d exposures: the light beyond the "
                    "apertures is added by its motion, with a fifth of it as error (FLAGS %d)",
                    table.meta["name"], number, rows.sum(), FLAG_TRAILED)  # fmt: skip


def stack_of_difference(path: str) -> StackPaths:
    """Return the files of the stack that a difference image was made of, which lie beside it."""
    folder, name = Path(path).parent, Path(path).name.removeprefix("diff").removesuffix(".fits")
    # That of a frame is called after the frame.
    name = str(fits.getheader(path).get("DIFSTACK", name))
    return products_beside(folder / f"coadd{name}.fits")


def products_beside(coadd: str | Path) -> StackPaths:
    """Return the products of a stack, by the path of its coadd, without its frames."""
    folder, stem = Path(coadd).parent, Path(coadd).name.removesuffix(".fits")
    weight, cat = (str(folder / f"{stem}{end}.fits") for end in (".weight", ".cat"))
    quality = folder / "qa/stack" / f"{stem.removeprefix('coadd')}.json"
    return str(coadd), weight, cat, str(quality), []


def _scale(frames: Sequence[MeasuredFrame]) -> dict[str, float]:
    """Return the table's cards about the photometric system of a band."""
    errors = [one.offset_error for one in frames if np.isfinite(one.offset_error)]
    known: dict[str, float] = {
        "comparison_stars": max((one.n_comparison for one in frames), default=0),
        "excess_scatter": round(max((one.excess for one in frames), default=0.0), 5),
    }
    share = min((one.sky_share for one in frames), default=1.0)
    known |= {"sky_share": round(share, 3)} if share < 1 else {}
    return known | ({"common_error": round(float(np.median(errors)), 5)} if errors else {})


def common_meta(
    stacks: Sequence[StackedFrames], site: Sequence[float] | None, version: int
) -> dict[str, Any]:
    """Return the cards common to the tables of all positions of a field."""
    headers = [stack.header for stack in stacks if not stack.follows]
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
    """Return the light curves of many positions as one table, without positions off the field.

    Parameters
    ----------
    tables : list of astropy.table.Table
        Light curves from `make_tables`, at least one.
    common : dict
        Cards from `common_meta`.
    """
    inside = [table for table in tables if np.isfinite(table["FLUX"]).any()]
    joined = vstack(inside or [tables[0][:0]], metadata_conflicts="silent")
    names = [str(table.meta["name"]) for table in inside]
    joined.meta = dict(common) | {
        "positions": names, "scale": tables[0].meta["scale"], "limit_sigma": LIMIT_SIGMA,
        "outside": [str(one.meta["name"]) for one in tables if str(one.meta["name"]) not in names],
    }  # fmt: skip
    return joined
