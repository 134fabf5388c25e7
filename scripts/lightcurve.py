"""lightcurve: the target of a night in every exposure.

Forced photometry at the target's position on the frames before they are stacked. A frame's fluxes
are brought to the scale of its coadd by the transparency that the stack found for it from the
stars they share, so that the coadd's zero point holds for all of them.
"""

import json
import logging
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits
from astropy.table import Table

from lib.core.figures import new_figure, save_figure
from lib.core.files import atomic_path
from lib.core.wcs import celestial_wcs
from lib.frame.file import INTERPOLATED, SATURATED, UNUSABLE, read_frame
from lib.frame.fitsbytes import read_table
from lib.night.targets import parse_position, target_position
from lib.photometry.field import FLAG_NEIGHBOUR, FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.forced import FLAG_OUTSIDE, FLAG_REPAIRED, LIMIT_SIGMA, filter_order, magnitudes
from lib.photometry.psf import Wings
from lib.photometry.sources import background, background_without, detect_sources, spread_mesh
from lib.photometry.starmodels import StarModels

log = logging.getLogger("autoproc")

CUTOUT = 192
"""Half of the side of the part of a frame that is looked at [pixel]."""

BOX = 64
"""Mesh of the background [pixel]."""


def measure_exposure(frame, position, sources, fluxes, seen):
    """Measure a position on one frame.

    Parameters
    ----------
    frame : lib.frame.file.Frame
        Sky-subtracted, with WCS.
    position : tuple of float
        ra, dec [deg].
    sources : ndarray, shape (n, 2)
        ra, dec of the neighbours [deg].
    fluxes : ndarray, shape (n,)
        Their total fluxes in units of the frame.
    seen : dict
        Of the frame: aperture [pixel], fraction of a star's light in it, wings.

    Returns
    -------
    flux, error : float
        Total flux of a point source there, in units of the frame; NaN outside the frame.
    flags : int
    """
    header = frame.header
    wcs = celestial_wcs(header)
    x, y = (float(v) for v in wcs.all_world2pix(*position, 0))
    ny, nx = frame.image.shape
    radius = seen["aperture"]
    if not (-0.5 < x < nx - 0.5 and -0.5 < y < ny - 0.5):
        return np.nan, np.nan, FLAG_OUTSIDE
    x0, y0 = max(0, round(x) - CUTOUT), max(0, round(y) - CUTOUT)
    part = (slice(y0, round(y) + CUTOUT + 1), slice(x0, round(x) + CUTOUT + 1))
    image, mask = frame.image[part], frame.mask[part]
    bad = ((mask & UNUSABLE) > 0) | ~np.isfinite(image)
    image = np.where(np.isfinite(image), image, 0).astype(np.float32)
    level, noise = background(image, bad, BOX)
    noise = max(noise, 1e-6)
    segments = detect_sources(image - level, noise, None, 2.0)[1]
    image = image - spread_mesh(background_without(image, bad, segments, BOX), image.shape)
    x, y = x - x0, y - y0
    flags = 0
    u, v = wcs.all_world2pix(*sources.T, 0) if len(sources) else (np.empty(0), np.empty(0))
    u, v = u - x0, v - y0
    apart = np.hypot(u - x, v - y)
    near = (apart > 0.5 * radius) & (apart < 12 * radius) & (fluxes > 0)
    whole, error, _ = sep.sum_circle(
        image.astype(np.float32), [x], [y], radius, err=noise, gain=header.get("GAIN", 1.0)
    )
    wings = Wings(*seen["wings"])
    models = StarModels(
        image.astype(np.float32), u[near], v[near], fluxes[near], wings, noise, radius
    )
    alone, _, _ = sep.sum_circle(models.residual, [x], [y], radius)
    taken = float(whole[0] - alone[0])
    # A tenth: the wings of one frame are not better known.
    error = float(np.hypot(error[0], 0.1 * taken))
    if abs(taken) > max(0.1 * abs(alone[0]), error):
        flags |= FLAG_NEIGHBOUR
    for bits, flag in ((SATURATED, FLAG_SATURATED), (INTERPOLATED, FLAG_REPAIRED)):
        if sep.sum_circle(((mask & bits) > 0).astype("f4"), [x], [y], radius, subpix=1)[0][0] > 0:
            flags |= flag
    lost = sep.sum_circle(bad.astype(np.float32), [x], [y], radius, subpix=1)[0][0]
    if lost > 0:
        flags |= FLAG_WEIGHT
    if lost > 0.5 * np.pi * radius**2:
        return np.nan, np.nan, flags | FLAG_OUTSIDE
    return float(alone[0]) / seen["fraction"], error / seen["fraction"], flags


def light_curve(stacks, position):
    """Measure the target in every frame of its stacks.

    Parameters
    ----------
    stacks : list of tuple
        Header of the coadd, its sources, its quality numbers (qa/stack), paths of its frames.
    position : tuple of float
        ra, dec [deg], NaN where unknown.

    Returns
    -------
    astropy.table.Table
        One row per frame, in order of time.
    """
    rows = []
    for header, (near, light), quality, paths in stacks:
        name = str(header.get("FILTER", ""))
        exptime = quality.get("exptime") or np.nan
        zeropoint = header.get("ABSZPT", np.nan)
        zeropoint = np.nan if zeropoint is None else zeropoint - 2.5 * np.log10(exptime)
        for path in paths:
            rows.append(_row(path, name, quality, exptime, zeropoint, position, near, light))
    rows.sort(key=lambda row: (row["MJD"], row["FILTER"]))
    table = Table()
    for key, (kind, unit, what) in COLUMNS.items():
        table[key] = np.array([row[key] for row in rows], dtype=kind)
        table[key].unit, table[key].description = unit, what
    return table


def read_sources(path):
    """Return ra, dec [deg] and total fluxes of the sources of a coadd that are surely there.

    Parameters
    ----------
    path : path-like
        coadd….cat.fits, without a table where the stack was rejected.

    Returns
    -------
    position : ndarray, shape (n, 2)
    flux : ndarray, shape (n,)
        In units of the coadd.
    """
    try:
        sources = read_table(path, "SOURCES")
    except KeyError:
        return np.empty((0, 2)), np.empty(0)
    sure = sources[sources["FLUX_POINT"] > 5 * sources["FLUXERR_POINT"]]
    return np.column_stack([sure["RA"], sure["DEC"]]), sure["FLUX_POINT"].astype(float)


COLUMNS = {
    "FRAME": (str, None, "name of the frame"),
    "FILTER": (str, None, "filter"),
    "MJD": (float, "d", "middle of the exposure, UTC"),
    "DATE-OBS": (str, None, "start of the exposure, UTC"),
    "EXPTIME": (float, "s", "exposure time"),
    "AIRMASS": (float, None, "airmass"),
    "SEEING": (float, "arcsec", "FWHM of stars"),
    "TRANSPARENCY": (float, None, "relative to the best frame of the stack"),
    "FLUX": (float, "electron / s", "total flux, at the transparency of the best frame"),
    "FLUXERR": (float, "electron / s", "its error"),
    "MAG": (float, "mag", "magnitude, where seen"),
    "MAGERR": (float, "mag", "its error, without that of the zero point of the coadd"),
    "LIMIT": (float, "mag", "upper limit, where not seen"),
    "ZPERR": (float, "mag", "error of the frame's scale relative to the coadd, not in MAGERR"),
    "FLAGS": (int, None, "32 repaired, 256 saturated, 512 neighbour, 1024 masked, 2048 no data"),
    "USED": (bool, None, "whether the frame is in the coadd"),
    "REASON": (str, None, "why not, or why it was not measured"),
}


def _row(path, name, quality, exptime, zeropoint, position, near, light):
    """Return the row of one frame."""
    # Only what lies about the target is read from disk.
    frame = read_frame(path, mapped=True)
    header = frame.header
    own = str(header.get("FRAME", Path(path).stem))
    seen = quality.get("frames", {}).get(own, {})
    exposure = float(header.get("EXPTIME", np.nan))
    airmass = header.get("AIRMASS")
    good_airmass = isinstance(airmass, int | float) and 1 <= airmass <= 10
    row = {
        "FRAME": own, "FILTER": name or str(header.get("FILTER", "")),
        "MJD": float(header.get("MJD-OBS", np.nan)) + 0.5 * exposure / 86400,
        "DATE-OBS": str(header.get("DATE-OBS", "")), "EXPTIME": exposure,
        "AIRMASS": float(airmass) if good_airmass else np.nan,
        "SEEING": _number(seen.get("seeing")), "TRANSPARENCY": _number(seen.get("transparency")),
        "FLUX": np.nan, "FLUXERR": np.nan, "MAG": np.nan, "MAGERR": np.nan, "LIMIT": np.nan,
        "ZPERR": np.nan, "FLAGS": 0, "USED": bool(seen.get("used", False)),
        "REASON": str(seen.get("reason") or frame.reason or ""),
    }  # fmt: skip
    scale = exposure * row["TRANSPARENCY"]
    ready = not frame.rejected and frame.image is not None and "aperture" in seen
    if not (ready and np.isfinite(scale) and scale > 0 and np.isfinite(position[0])):
        row["REASON"] = row["REASON"] or "the position of the target is not known"
        row["FLAGS"] = FLAG_OUTSIDE
        return row
    # In units of the coadd: electrons in its exposure time, at the best transparency.
    flux, error, row["FLAGS"] = measure_exposure(
        frame, position, near, light * scale / exptime, seen
    )
    row["FLUX"], row["FLUXERR"] = flux / scale, error / scale
    magnitude, magnitude_error, limit = magnitudes(
        np.array([row["FLUX"]]), np.array([row["FLUXERR"]]), zeropoint
    )
    row["MAG"], row["MAGERR"], row["LIMIT"] = magnitude[0], magnitude_error[0], limit[0]
    if seen.get("common"):
        row["ZPERR"] = _number(seen.get("scatter")) / np.sqrt(seen["common"])
    return row


def _number(value):
    """Return a number of a JSON file, NaN for none."""
    return np.nan if value is None else float(value)


def plot_light_curve(path, table, title):
    """Draw magnitudes (fluxes where there is no zero point) and limits against time.

    Parameters
    ----------
    path : path-like
    table : astropy.table.Table
        Of `light_curve`.
    title : str
    """
    figure, axes = new_figure((8, 5), (0.1, 0.11, 0.97, 0.92))
    axis = axes[0, 0]
    known = np.isfinite(table["MJD"])
    start = np.floor(np.min(table["MJD"][known])) if known.any() else 0.0
    calibrated = np.isfinite(table["MAG"]).any() or np.isfinite(table["LIMIT"]).any()
    drawn = False
    for number, name in enumerate(filter_order(set(table["FILTER"]))):
        rows = table[(table["FILTER"] == name) & known]
        hours = 24 * (rows["MJD"] - start)
        key = "MAG" if calibrated else "FLUX"
        shown = np.isfinite(rows[key])
        colour = f"C{number % 10}"
        if shown.any():
            axis.errorbar(
                hours[shown], rows[key][shown], rows[f"{key}ERR"][shown], fmt="o", ms=4,
                color=colour, label=name,
            )  # fmt: skip
            drawn = True
        limits = np.isfinite(rows["LIMIT"])
        if calibrated and limits.any():
            axis.plot(
                hours[limits], rows["LIMIT"][limits], "v", color=colour, mfc="none",
                label=None if shown.any() else name,
            )  # fmt: skip
            drawn = True
    if drawn:
        if calibrated:
            axis.invert_yaxis()
        axis.legend(title="filter")
        label = "magnitude" if calibrated else "flux [electron / s]"
        axis.set(xlabel=f"hours since MJD {start:.0f} (UTC)", ylabel=label)
    else:
        axis.text(0.02, 0.5, "the target was not measured")
        axis.set_axis_off()
    axis.set_title(title)
    save_figure(figure, path, ticks=8)


def run(stacks, output, plot, *, target_radec=None, version=1):
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
    read = []
    for coadd, cat, quality, frames in stacks:
        numbers = json.loads(Path(quality).read_text(encoding="utf-8"))
        read.append((fits.getheader(coadd), read_sources(cat), numbers, frames))
    headers = [header for header, *_ in read]
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


if "snakemake" in globals():
    from lib.frame.step import start_log

    smk = snakemake
    start_log(smk.log[0])
    of_stacks = (smk.input.coadds, smk.input.cats, smk.input.quality, smk.params.frames)
    run(
        list(zip(*of_stacks, strict=True)), smk.output.table, smk.output.plot,
        target_radec=smk.params.target_radec, version=smk.params.version,
    )  # fmt: skip
