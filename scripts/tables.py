"""tables: the sources of all filters of a target in one table, each measured in every filter.

The positions are the union of the sources of the target's coadds, and the target's own. At each
of them every coadd is measured in the aperture of its POINT magnitudes, corrected to total flux,
with the light of the neighbours taken away; where nothing is seen the table has a limit.
"""

import logging
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from lib.core.files import atomic_path
from lib.core.sphere import project
from lib.frame.fitsbytes import read_table
from lib.night.targets import parse_position, target_position
from lib.photometry.forced import LIMIT_SIGMA, Coadd, filter_order, force, magnitudes, unite_sources
from lib.photometry.measuredcoadd import subtract_mesh
from lib.photometry.psf import Wings

log = logging.getLogger("autoproc")

SAME = 0.7
"""Sources nearer than so many FWHM are one: those of one coadd are at least 0.8 apart."""


def measurable(header):
    """Return whether a coadd has what forced photometry needs."""
    return header.get("QCSTAT") == "OK" and "PSFALPHA" in header and "APCOR" in header


def read_coadd(path, weight_path, cat_path):
    """Read a coadd without its background, and its variance, as its sources were measured."""
    header = fits.getheader(path)
    image = fits.getdata(path).astype(np.float32)
    weight = fits.getdata(weight_path).astype(np.float32)
    covered = weight > 0
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    with fits.open(cat_path) as cat:
        clean = subtract_mesh(image, cat["BACKGROUND"].data, covered)
        occupied = cat["OCCUPIED"].data.astype(bool)
    wings = Wings(*(header[key] for key in ("PSFALPHA", "PSFBETA", "PSFNORM", "PSFE1", "PSFE2")))
    return Coadd(
        str(header["FILTER"]), clean, variance, occupied, header, wings,
        header["APRAD"] / header["PIXSCALE"], 10 ** (0.4 * header["APCOR"]),
    )  # fmt: skip


def join(coadds, cats, target, settings):
    """Return the joined table of a target.

    Parameters
    ----------
    coadds : list of Coadd
        One per filter, from blue to red.
    cats : list of ndarray
        Their source tables.
    target : tuple
        ra, dec [deg] and source of the target's position.
    settings : dict
        Config section ``stack``.

    Returns
    -------
    astropy.table.Table
    """
    seeing = [coadd.header["SEEING"] for coadd in coadds]
    radius = SAME * max(seeing, default=1.0)
    positions = [np.column_stack([cat["RA"], cat["DEC"]]) for cat in cats]
    quality = [cat["SNR"] for cat in cats]
    sky, found = unite_sources(positions, quality, radius, settings["table_snr"])
    order = np.argsort(sky[:, 1], kind="stable")
    sky, found = sky[order], found[order]
    has_target = bool(np.isfinite(target[0]))
    extra = np.array([target[:2]], float) if has_target else np.empty((0, 2))
    # The target's row is the first.
    roll = np.r_[len(sky) : len(sky) + len(extra), 0 : len(sky)]
    places = np.concatenate([sky, extra])[roll]
    table = Table()
    table["NUMBER"] = np.arange(1, len(places) + 1)
    table["RA"], table["DEC"] = places.T
    table["RA"].unit = table["DEC"].unit = "deg"
    table["TARGET"] = np.arange(len(places)) < len(extra)
    table["MATCH"] = np.zeros(len(places), int)
    table["MATCH"].description = "target's row: NUMBER of the source within half the seeing, or 0"
    if has_target and len(sky):
        plane = project(*sky.T, *target[:2])
        nearest = int(np.argmin(np.hypot(*plane.T)))
        if np.hypot(*plane[nearest]) < 0.5 * max(seeing):
            table["MATCH"][0] = nearest + 2
    for k, coadd in enumerate(coadds):
        flux, error, flags = (values[roll] for values in force(coadd, sky, extra))
        zeropoint = coadd.header.get("ABSZPT", np.nan)
        magnitude, magnitude_error, limit = magnitudes(flux, error, zeropoint)
        name = coadd.filter
        for label, values, unit, what in (
            ("FLUX", flux, "electron", "total flux of a point source, in units of the coadd"),
            ("FLUXERR", error, "electron", "its error"),
            ("MAG", magnitude, "mag", f"magnitude, {coadd.header.get('ZPSYS', 'no zero point')}"),
            ("MAGERR", magnitude_error, "mag", "its error without that of the zero point"),
            ("LIMIT", limit, "mag", f"{LIMIT_SIGMA:g} sigma upper limit where not seen"),
        ):
            table[f"{label}_{name}"] = values
            table[f"{label}_{name}"].unit = unit
            table[f"{label}_{name}"].description = what
        table[f"FLAGS_{name}"] = flags
        detected = np.concatenate([found[:, k], np.zeros(len(extra), bool)])[roll]
        table[f"DETECTED_{name}"] = detected
    return table


FILTER_CARDS = (
    "ABSZPT", "ABSZPERR", "ZPSYS", "ABSZPCAT", "ABSZPCOL", "ABSZPCNM", "ABSZPCMN", "LIMMAG",
    "SEEING", "APRAD", "APCOR", "DATE-OBS", "TOTALEXP", "NSTACK", "QCFLAG",
)  # fmt: skip


def run(coadds, weights, cats, output, *, target_radec=None, settings, version=1):
    """Make the joined table of a target.

    Parameters
    ----------
    coadds, weights, cats : list of path-like
        Of all filters; rejected ones have no data.
    output : path-like
    target_radec
        As `lib.night.targets.parse_position` takes it.
    settings : dict
        Config section ``stack``.
    version : int
        Of the step.
    """
    headers = [fits.getheader(path) for path in coadds]
    names = {str(header.get("FILTER", path)): k
             for k, (header, path) in enumerate(zip(headers, coadds, strict=True))}  # fmt: skip
    used, tables, left_out = [], [], {}
    for name in filter_order(names):
        k = names[name]
        if not measurable(headers[k]):
            left_out[name] = headers[k].get("QCREASON", "no source was measured")
            continue
        used.append(read_coadd(coadds[k], weights[k], cats[k]))
        tables.append(read_table(cats[k], "SOURCES"))
    target = target_position(parse_position(target_radec), headers)
    table = join(used, tables, target, settings)
    table.meta = {
        "object": str(headers[0].get("OBJECT", "")), "step": f"tables v{version}",
        "target_source": target[2] or "none: the pointing is not known",
        "filters": {
            coadd.filter: {key: coadd.header[key] for key in FILTER_CARDS if key in coadd.header}
            for coadd in used
        },
        "left_out": left_out,
        "flags": "256 saturated, 512 neighbour's light taken away, 1024 pixels without weight, "
        "2048 no data",
    }  # fmt: skip
    with atomic_path(output) as beside:
        table.write(beside, format="ascii.ecsv")
    log.info("%s: %d sources in %d filters", Path(output).name, len(table), len(used))


if "snakemake" in globals():
    from lib.frame.step import start_log

    smk = snakemake
    start_log(smk.log[0])
    run(
        list(smk.input.coadds), list(smk.input.weights), list(smk.input.cats), smk.output[0],
        target_radec=smk.params.target_radec, settings=dict(smk.params.settings),
        version=smk.params.version,
    )  # fmt: skip
