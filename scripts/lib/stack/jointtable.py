"""The joint source table of a target: all sources, each measured in every filter.

The positions are the union of the sources of the target's coadds and of the target itself. At each
of them every coadd is measured in the apertures of its POINT magnitudes, corrected to total flux,
with the light of neighbours subtracted; non-detections get a limit.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from lib.core.crossmatch import match
from lib.core.sphere import mean_position, project
from lib.frame.fitsbytes import read_table
from lib.night.targets import target_position
from lib.photometry.coaddpsf import sky_mesh
from lib.photometry.confusion import Confusion
from lib.photometry.flags import FLAG_OUTSIDE, FLAG_SATURATED
from lib.photometry.forced import (
    LIMIT_SIGMA,
    Coadd,
    filter_order,
    forced_fluxes,
    magnitudes,
    unite_sources,
)
from lib.photometry.forcedpsf import forced_psf_fluxes
from lib.photometry.measuredcoadd import subtract_mesh
from lib.photometry.psf import CoreAperture, StarAperture, Wings
from lib.photometry.psfmodel import PsfModel

SAME_SOURCE_RADIUS = 0.7
"""[FWHM] Sources of different coadds closer than this are the same: those of one coadd are at least
0.8 apart."""

MATCH_RADIUS = 0.5
"""[FWHM] A source closer to the target than this may be the target."""

FILTER_KEYS = (
    "ABSZPT", "ABSZPERR", "ZPSYS", "ABSZPCAT", "ABSZPCOL", "ABSZPCNM", "ABSZPCMN", "LIMMAG",
    "SEEING", "APRAD", "APCOR", "DATE-OBS", "TOTALEXP", "NSTACK", "QCFLAG",
)  # fmt: skip
"""Cards of each coadd copied to the meta of the table."""

FLAG_MEANINGS = (
    "256 saturated, 512 neighbour's light taken away, 1024 pixels without weight, 2048 no data, "
    "4096 not covered by all frames"
)


def joint_table(
    coadds: Sequence[str | Path],
    weights: Sequence[str | Path],
    cats: Sequence[str | Path],
    target_radec: tuple[float, float] | None,
    table_snr: float,
    version: int = 1,
) -> Table:
    """Return the joint source table of a target from the products of its stacks.

    Parameters
    ----------
    coadds, weights, cats : sequence of path-like
        Coadds, weight maps and source tables of all filters; rejected coadds have no data.
    target_radec : tuple of float, optional
        ra, dec of the target [deg] from the configuration; without it the pointing of the
        telescope.
    table_snr : float
        Minimum signal-to-noise ratio of a source in at least one filter.
    version : int
        Version of the step.

    Returns
    -------
    astropy.table.Table
    """
    headers = [fits.getheader(path) for path in coadds]
    names = {
        str(header.get("FILTER", path)): k
        for k, (header, path) in enumerate(zip(headers, coadds, strict=True))
    }
    used: list[Coadd] = []
    sources: list[np.ndarray] = []
    left_out: dict[str, str] = {}
    for name in filter_order(names):
        k = names[name]
        if not measurable(headers[k]):
            left_out[name] = headers[k].get("QCREASON", "no source was measured")
            continue
        used.append(read_coadd(coadds[k], weights[k], cats[k]))
        sources.append(read_table(cats[k], "SOURCES"))
    ra, dec, origin = target_position(target_radec, headers)
    table = measure_union(used, sources, (ra, dec), table_snr)
    table.meta = {
        "object": str(headers[0].get("OBJECT", "")), "step": f"tables v{version}",
        "target_source": origin or "none: the pointing is not known",
        "filters": {
            coadd.filter: {key: coadd.header[key] for key in FILTER_KEYS if key in coadd.header}
            for coadd in used
        },
        "left_out": left_out, "flags": FLAG_MEANINGS,
    }  # fmt: skip
    return table


def measurable(header: fits.Header) -> bool:
    """Return whether a coadd has all cards that forced photometry needs."""
    return header.get("QCSTAT") == "OK" and "PSFALPHA" in header and "APCORC" in header


def read_coadd(path: str | Path, weight_path: str | Path, cat_path: str | Path) -> Coadd:
    """Read a coadd with its background subtracted and its variance, as used for its source table.

    Parameters
    ----------
    path, weight_path, cat_path : path-like
        Coadd, weight map and source table.

    Returns
    -------
    lib.photometry.forced.Coadd
    """
    header = fits.getheader(path)
    image = fits.getdata(path).astype(np.float32)
    weight = fits.getdata(weight_path).astype(np.float32)
    covered = weight > 0
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    with fits.open(cat_path) as cat:
        clean = subtract_mesh(image, cat["BACKGROUND"].data, covered)
        occupied = cat["OCCUPIED"].data.astype(bool)
        crowd = None
        if "CONFUSION" in cat:
            crowd = Confusion.from_hdus(cat["CONFUSION"], cat["CROWDING"])
        partial = cat["PARTIAL"].data if "PARTIAL" in cat else None
        psf = PsfModel.from_hdu(cat["PSF"]) if "PSF" in cat else None
    wings = Wings(*(header[key] for key in ("PSFALPHA", "PSFBETA", "PSFNORM", "PSFE1", "PSFE2")))
    radius = header["APRAD"] / header["PIXSCALE"]
    core = CoreAperture(
        header["APRADC"] / header["PIXSCALE"], 10 ** (0.4 * header["APCORC"]),
        header["APCORCSC"] / 1.0857,
    )  # fmt: skip
    aperture = StarAperture(radius, 10 ** (0.4 * header["APCOR"]), wings, core)
    return Coadd(
        str(header["FILTER"]), clean, variance, occupied, header, aperture, crowd, partial,
        psf, sky_mesh(psf.fwhm) if psf else 0,
    )  # fmt: skip


def measure_union(
    coadds: Sequence[Coadd],
    cats: Sequence[np.ndarray],
    target: tuple[float, float],
    table_snr: float,
) -> Table:
    """Measure the sources of all coadds, and the target, in every coadd.

    Parameters
    ----------
    coadds : sequence of Coadd
        One coadd per filter, from blue to red.
    cats : sequence of ndarray
        Their source tables.
    target : tuple of float
        ra, dec [deg]; NaN where unknown.
    table_snr : float
        Minimum signal-to-noise ratio, as for `joint_table`.

    Returns
    -------
    astropy.table.Table
        One row per source; the first is the target, if its position is known.
    """
    seeing = max((coadd.header["SEEING"] for coadd in coadds), default=1.0)
    positions = [np.column_stack([cat["RA"], cat["DEC"]]) for cat in cats]
    # A saturated star whose flux is not known is none the less seen.
    quality = [
        np.where(np.isnan(cat["SNR"]) & (cat["FLAGS"] & FLAG_SATURATED > 0), table_snr, cat["SNR"])
        for cat in cats
    ]
    sky, found = unite_sources(positions, quality, SAME_SOURCE_RADIUS * seeing, table_snr)
    order = np.argsort(sky[:, 1], kind="stable")
    sky, found = sky[order], found[order]
    has_target = bool(np.isfinite(target[0]))
    extra = np.array([target], float) if has_target else np.empty((0, 2))
    first = np.r_[len(sky) : len(sky) + len(extra), 0 : len(sky)]
    places = np.concatenate([sky, extra])[first]
    table = Table()
    table["NUMBER"] = np.arange(1, len(places) + 1)
    table["RA"], table["DEC"] = places.T
    table["RA"].unit = table["DEC"].unit = "deg"
    table["TARGET"] = np.arange(len(places)) < len(extra)
    table["MATCH"] = np.zeros(len(places), int)
    table["MATCH"].description = "target's row: NUMBER of the source within half the seeing, or 0"
    if has_target and len(sky):
        plane = project(sky[:, 0], sky[:, 1], *target)
        nearest = int(np.argmin(np.hypot(*plane.T)))
        if np.hypot(*plane[nearest]) < MATCH_RADIUS * seeing:
            table["MATCH"][0] = nearest + 2
    for k, coadd in enumerate(coadds):
        fluxes = with_saturated(forced_fluxes(coadd, sky, extra), coadd, sky, cats[k])
        _add_measurements(table, coadd, fluxes, first)
        _add_psf(table, coadd, forced_psf_fluxes(coadd, sky, extra), first)
        listed = np.concatenate([found[:, k], np.zeros(len(extra), bool)])[first]
        table[f"LISTED_{coadd.filter}"] = listed
        table[f"LISTED_{coadd.filter}"].description = "whether its source table has it"
    return table


def with_saturated(
    fluxes: tuple[np.ndarray, ...], coadd: Coadd, sky: np.ndarray, cat: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return fluxes with those of saturated stars taken from the source table of the coadd.

    Apertures on cores without weight contain nothing; the table has fluxes from their surroundings.

    Parameters
    ----------
    fluxes : tuple of ndarray, shape (n + m,)
        Flux, error and flags from `lib.photometry.forced.forced_fluxes`.
    coadd : Coadd
        The coadd.
    sky : ndarray, shape (n, 2)
        ra, dec [deg].
    cat : ndarray
        Source table of the coadd.

    Returns
    -------
    flux, error, flags : ndarray, shape (n + m,)
        The errors include that of the flat field.
    """
    flux, error, flags = (values.copy() for values in fluxes)
    error = np.hypot(error, float(coadd.header.get("FLATERR", 0.0)) * flux)
    rows = cat[(cat["FLAGS"] & FLAG_SATURATED > 0) & (cat["FLUX_POINT"] > 0)]
    if len(rows) and len(sky):
        ra0, dec0 = mean_position(*sky.T)
        ours, theirs = match(
            project(sky[:, 0], sky[:, 1], ra0, dec0), project(rows["RA"], rows["DEC"], ra0, dec0),
            SAME_SOURCE_RADIUS * coadd.header["SEEING"],
        )  # fmt: skip
        flux[ours], error[ours] = rows["FLUX_POINT"][theirs], rows["FLUXERR_POINT"][theirs]
        flags[ours] = flags[ours] & ~FLAG_OUTSIDE | FLAG_SATURATED
    return flux, error, flags


def _add_measurements(
    table: Table, coadd: Coadd, fluxes: tuple[np.ndarray, ...], order: np.ndarray
) -> None:
    """Add columns of fluxes, magnitudes, limits and flags in a coadd, reordered by `order`."""
    flux, error, flags = (values[order] for values in fluxes)
    zeropoint = coadd.header.get("ABSZPT", np.nan)
    magnitude, magnitude_error, limit = magnitudes(flux, error, zeropoint)
    for label, values, unit, what in (
        ("FLUX", flux, "electron", "total flux of a point source, in units of the coadd"),
        ("FLUXERR", error, "electron", "its error"),
        ("MAG", magnitude, "mag", f"magnitude, {coadd.header.get('ZPSYS', 'no zero point')}"),
        ("MAGERR", magnitude_error, "mag", "its error without that of the zero point"),
        ("LIMIT", limit, "mag", f"{LIMIT_SIGMA:g} sigma upper limit where not seen"),
    ):
        name = f"{label}_{coadd.filter}"
        table[name] = values
        table[name].unit = unit
        table[name].description = what
    table[f"DETECTED_{coadd.filter}"] = flux >= LIMIT_SIGMA * error
    table[f"DETECTED_{coadd.filter}"].description = f"whether S/N is {LIMIT_SIGMA:g} or more"
    table[f"FLAGS_{coadd.filter}"] = flags


def _add_psf(
    table: Table, coadd: Coadd, fluxes: tuple[np.ndarray, np.ndarray], order: np.ndarray
) -> None:
    """Add fluxes and magnitudes by fits of the point-spread function, put in another order."""
    flux, error = (values[order] for values in fluxes)
    error = np.hypot(error, float(coadd.header.get("FLATERR", 0.0)) * flux)
    magnitude, magnitude_error, _ = magnitudes(flux, error, coadd.header.get("ABSZPT", np.nan))
    for label, values, unit, what in (
        ("FLUX_PSF", flux, "electron", "total flux by a fit of the point-spread function"),
        ("FLUXERR_PSF", error, "electron", "its error"),
        ("MAG_PSF", magnitude, "mag", f"magnitude, where its S/N is {LIMIT_SIGMA:g} or more"),
        ("MAGERR_PSF", magnitude_error, "mag", "its error without that of the zero point"),
    ):
        name = f"{label}_{coadd.filter}"
        table[name] = values
        table[name].unit, table[name].description = unit, what
