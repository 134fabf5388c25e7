"""Make the reference table of one target: from a user's table, the cache, or VizieR.

The rule hands over the field; what is written always is a table in the form of
`lib.reference.catalogues`, without rows and with a reason where no reference can be had. `main`,
the command ``autoproc-refcat``, freezes the answers for a list of fields, for a mountain without
network::

    autoproc-refcat --fields fields.txt --out refcat_cache
"""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from lib.core.files import atomic_path
from lib.core.sphere import match_positions, separation
from lib.frame.step import start_log
from lib.reference.catalogues import (
    BANDS,
    check_angles,
    empty_reference,
    fill_by_transformation,
    join_photometry,
    move_to_epoch,
    read_reference,
    tie_to_reference,
    write_reference,
)
from lib.reference.surveys import (
    ASTROMETRIC,
    GAIA,
    GAIA_SYNTHETIC,
    PANSTARRS,
    PHOTOMETRIC,
    SKYMAPPER,
    SYNTHETIC_Y_LIMIT,
    USNOB,
    WIDE,
)
from lib.reference.vizier import (
    ROW_LIMIT,
    SERVERS,
    TIMEOUT,
    WIDEST,
    ReferenceUnavailable,
    Service,
)

log = logging.getLogger("autoproc")

WIDE_ROWS = 30_000
"""Stars of the surroundings that are asked for: some hundred in each frame."""

LARGE = 20_000
"""Rows above which a user's table is cut out around the field."""


def online_reference(
    service,
    ra,
    dec,
    radius,
    epoch,
    *,
    least=3,
    complete=True,
    positions=ASTROMETRIC,
    magnitudes=PHOTOMETRIC,
):
    """Return the reference of a field from catalogues.

    Parameters
    ----------
    service : Service
    ra, dec, radius : float
        Circle [deg].
    epoch : float or None
        Decimal year the positions are moved to.
    least : int
        Stars that positions of a catalogue are worth having from.
    complete : bool
        Whether a catalogue of photometry that cannot be had is a failure; else it is left out
        and ``meta['missing']`` says so.
    positions, magnitudes : sequence of Survey
        Where they may come from, the best first.

    Returns
    -------
    astropy.table.Table

    Raises
    ------
    ReferenceUnavailable
    """
    said, records, table, base = [], [], None, None
    for survey in positions:
        if not survey.covers(dec, radius):
            continue
        try:
            stars, record = service.get(survey, ra, dec, radius)
        except ReferenceUnavailable as why:
            said.append(str(why))
            if complete and survey is positions[0]:
                raise  # before the last attempt nothing less than the best will do
            continue
        records.append(record)
        if len(stars) >= least:
            table, base = stars, survey
            break
        said.append(f"{survey.name} has {len(stars)} stars there")
    if table is None:
        raise ReferenceUnavailable("; ".join(dict.fromkeys(said)))
    missing = said
    own = table.copy()
    for band in BANDS:
        table[band], table[f"{band}_err"] = np.nan, np.nan
        table[f"{band}_src"] = np.full(len(table), "", dtype="U40")
    joined = {}
    for survey in magnitudes:
        if not survey.covers(dec, radius):
            continue
        photometry = own
        if survey is not base:
            try:
                photometry, record = service.get(survey, ra, dec, radius)
            except ReferenceUnavailable as why:
                if complete:
                    raise
                missing.append(str(why))
                continue
            records.append(record)
        if len(photometry):
            join_survey(table, photometry, survey)
            joined[survey] = photometry
    if GAIA_SYNTHETIC in joined:
        # the archive's y lacks a correction that matters for faint stars, so Pan-STARRS, which
        # saturates at 13, comes first
        synthetic = joined[GAIA_SYNTHETIC]
        synthetic["y"][~(synthetic["y"] < SYNTHETIC_Y_LIMIT)] = np.nan
        join_photometry(table, synthetic, "GaiaXP", radius=GAIA_SYNTHETIC.radius, bands="y")
    if PANSTARRS in joined:
        derived = "Tonry et al. 2012 from PS1"
        join_photometry(table, joined[PANSTARRS], derived, bands="BVRI")
    fill_by_transformation(table)
    if base is USNOB:
        join_photometry(table, own, base.name, max_error=0.5)
    if epoch is not None:
        table = move_to_epoch(table, epoch)
    table.meta["source"] = base.name
    table.meta["query"] = f"circle {ra:.5f} {dec:+.5f} radius {radius:.4f} deg, ICRS"
    table.meta["date"] = max(record["date"] for record in records)
    table.meta["catalogues"] = records
    if missing:
        table.meta["missing"] = list(dict.fromkeys(missing))
    return table


def with_surroundings(service, table, ra, dec, radius, wide, epoch):
    """Add the stars around a field, in which a frame lies whose pointing is far off.

    Only brighter ones where they are many, and none where they cannot be had: the field itself
    is what counts.

    Parameters
    ----------
    service : Service
    table : astropy.table.Table
        Reference of the field.
    ra, dec, radius : float
        Circle of the field [deg].
    wide : float
        Radius of the surroundings [deg].
    epoch : float or None

    Returns
    -------
    astropy.table.Table
    """
    from astropy.table import vstack

    # Its answers are not those of the whole circle: kept apart.
    service = replace(
        service, cache=Path(service.cache) / "wide", row_limit=WIDE_ROWS, unavailable={}
    )
    try:
        around = online_reference(
            service, ra, dec, wide, epoch, complete=False, positions=WIDE[:1], magnitudes=WIDE[1:]
        )
    except ReferenceUnavailable as why:
        log.warning("no stars beyond %.2f deg: %s", radius, why)
        return table
    around = around[separation(around["ra"], around["dec"], ra, dec) > radius]
    log.info("%d stars more up to %.2f deg", len(around), wide)
    meta = table.meta | {"catalogues": table.meta["catalogues"] + around.meta["catalogues"]}
    table = vstack([table, around], metadata_conflicts="silent")
    table.meta = meta
    return table


def join_survey(table, photometry, survey):
    """Join one catalogue's photometry to the reference in place, minding its peculiarities."""
    if survey is SKYMAPPER:
        # its bands have no published relation to SDSS: the field's own stars give one
        own = photometry.copy()
        for band in "griz":
            tied = photometry.copy()
            fit = tie_to_reference(table, tied, band, "g", "i", radius=survey.radius)
            own[band], own[f"{band}_err"] = tied[band], tied[f"{band}_err"]
            if fit is None:
                log.info("SkyMapper %s: too few common stars to tie it to the reference", band)
            else:
                log.info("SkyMapper %s: %+.3f %+.3f (g-i), scatter %.3f, %d stars", band, *fit)
        photometry = own
    if survey is GAIA_SYNTHETIC and "Gmag" in table.colnames:
        photometry = _without_blends(table, photometry, survey.radius)
    # what is only derived comes after all measurements: see `online_reference`
    later = {GAIA_SYNTHETIC: "y", PANSTARRS: "BVRI"}.get(survey, "")
    filled = join_photometry(
        table,
        photometry,
        survey.name,
        radius=survey.radius,
        bands=[band for band in BANDS if band not in later],
        max_error=survey.max_error,
    )
    log.info("%s: filled %s", survey.name, ", ".join(f"{b} {n}" for b, n in filled.items()) or "-")
    return filled


def _without_blends(table, photometry, radius):
    """Return the synthetic photometry without stars whose BP and RP hold others' light.

    |C*| above 5 sigma of its scatter with G: Riello et al. (2021, A&A 649, A3), equation 18.
    """
    rows, others = match_positions(
        table["ra"], table["dec"], photometry["ra"], photometry["dec"], radius
    )
    g = np.asarray(table["Gmag"])[rows]
    sigma = 0.0059898 + 8.817481e-12 * g**7.618399
    blended = np.abs(np.asarray(photometry["excess"])[others]) > 5 * sigma
    keep = np.ones(len(photometry), bool)
    keep[others[blended]] = False
    return photometry[keep]


def table_reference(path, ra, dec, radius, epoch):
    """Return the reference that a user's table is for a field.

    A large table is cut out around the field; a small one is taken whole, unless none of its
    stars lies in the field.
    """
    path = Path(path).expanduser()
    table = read_reference(path)
    table.meta["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if len(table) == 0:
        return empty_reference(table.meta.get("reason") or f"{path.name} has no rows")
    if ra is not None:
        check_angles(table, path, ra, dec)
        away = separation(table["ra"], table["dec"], ra, dec)
        if away.min() > radius:
            return empty_reference(
                f"{path.name} has no star within {radius:.2f} deg of {ra:.4f} {dec:+.4f}; "
                f"its nearest is {away.min():.2f} deg away"
            )
        if len(table) > LARGE:
            table = table[away <= radius]
    if epoch is not None:
        table = move_to_epoch(table, epoch)
    return table


def make_reference(
    refcat,
    ra,
    dec,
    radius,
    epoch,
    cache,
    *,
    wide=None,
    servers=SERVERS,
    timeout=TIMEOUT,
    row_limit=ROW_LIMIT,
    last_attempt=True,
):
    """Return the reference table of a field.

    Parameters
    ----------
    refcat : str
        ``online``, ``offline`` (the cache alone), ``none``, or the path of a table.
    ra, dec : float or None
        Centre of the field [deg]; None where no pointing is known.
    radius : float or None
        Of the field and the search about its pointing [deg].
    wide : float, optional
        The same for the search that is made when nothing is found there.
    epoch : float or None
        Decimal year of observation.
    cache : path-like
        Directory of answers, shared among nights.
    servers : sequence of str
    timeout : float
        Seconds per answer.
    row_limit : int
    last_attempt : bool
        Whether to go on with what there is when servers fail, instead of raising.

    Returns
    -------
    astropy.table.Table
        Without rows, and with ``meta['reason']``, where there is no reference.

    Raises
    ------
    ReferenceUnavailable
        Servers fail and it is not the last attempt.
    lib.reference.catalogues.CatalogueError
        The user's table is not fit for use.
    """
    if refcat == "none":
        return empty_reference("refcat: none")
    if refcat not in ("online", "offline"):
        return table_reference(refcat, ra, dec, wide or radius, epoch)
    if ra is None or dec is None or radius is None:
        return empty_reference("no frame of the target tells where it points")
    if radius > WIDEST:
        return empty_reference(f"the field has a radius of {radius:.1f} deg, over {WIDEST:g}")
    offline = refcat == "offline"
    service = Service(
        Path(cache).expanduser(), () if offline else tuple(servers), timeout, row_limit
    )
    try:
        table = online_reference(
            service, ra, dec, radius, epoch, complete=not (offline or last_attempt)
        )
    except ReferenceUnavailable as why:
        if not (offline or last_attempt):
            raise
        log.warning("no reference: %s", why)
        return empty_reference(f"no catalogue could be had: {why}")
    if wide and wide > radius and table.meta["source"] == GAIA.name:
        table = with_surroundings(service, table, ra, dec, radius, wide, epoch)
    return table


# --- a bundle for a mountain without network --------------------------------------------------


def read_fields(path):
    """Read the fields to freeze: lines (or CSV) of name, ra, dec, radius [deg].

    Raises
    ------
    ValueError
        Naming the line that is not of that form.
    """
    fields = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words or [word.lower() for word in words[1:3]] == ["ra", "dec"]:
            continue
        try:
            name, ra, dec, radius = words[0], *map(float, words[1:4])
        except ValueError:
            raise ValueError(
                f"{path} line {number}: '{line}' is not: name ra dec radius (decimal degrees)"
            ) from None
        if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 5):
            raise ValueError(f"{path} line {number}: '{line}' is no circle of radius <= 5 deg")
        fields.append((name, ra, dec, radius))
    return fields


def freeze(fields, out, *, servers=SERVERS, timeout=TIMEOUT, row_limit=ROW_LIMIT):
    """Fill a cache with every catalogue's answer for each field.

    Parameters
    ----------
    fields : list of (name, ra, dec, radius)
    out : path-like
        Directory to be named as ``refcat_cache`` with ``refcat: offline``.

    Returns
    -------
    list of str
        What could not be had, a sentence each.
    """
    out = Path(out).expanduser()
    service = Service(out, tuple(servers), timeout, row_limit)
    wanted = dict.fromkeys((GAIA, *PHOTOMETRIC))
    missing, listing = [], []
    for name, ra, dec, radius in fields:
        for survey in wanted:
            if not survey.covers(dec, radius):
                continue
            try:
                table, record = service.get(survey, ra, dec, radius)
            except ReferenceUnavailable as why:
                missing.append(f"{name}: {why}")
                continue
            listing.append({"field": name, "stars": len(table)} | record)
    with atomic_path(out / "bundle.json") as beside:
        beside.write_text(json.dumps(listing, indent=1) + "\n")
    return missing


def main(arguments=None):
    """Freeze the catalogues of a list of fields."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="autoproc-refcat",
        description="Freeze the catalogues of a list of fields, for a mountain without network.",
    )
    parser.add_argument("--fields", required=True, help="lines of: name ra dec radius [deg]")
    parser.add_argument("--out", required=True, help="directory to fill (refcat_cache)")
    parser.add_argument("--server", action="append", help="VizieR host, may be repeated")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds per answer")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        fields = read_fields(options.fields)
    except (OSError, ValueError) as why:
        parser.error(str(why))
    missing = freeze(
        fields, options.out, servers=options.server or SERVERS, timeout=options.timeout
    )
    for sentence in missing:
        log.error("%s", sentence)
    log.info("%d fields, %d answers missing; in %s", len(fields), len(missing), options.out)
    return 1 if missing else 0


def run_rule(job):
    """Do the rule's job: `job` is Snakemake's object."""
    start_log(job.log[0] if job.log else None)
    values = job.params
    attempt = int(job.resources.get("attempt", 1))
    table = make_reference(
        values.refcat,
        values.ra,
        values.dec,
        values.radius,
        values.epoch,
        values.cache,
        wide=values.get("wide"),
        servers=values.get("servers") or SERVERS,
        timeout=float(values.get("timeout") or TIMEOUT),
        row_limit=int(values.get("row_limit") or ROW_LIMIT),
        last_attempt=attempt >= int(values.get("attempts") or 1),
    )
    write_reference(job.output[0], table)
    log.info("%s: %d stars", table.meta["source"], len(table))


if "snakemake" in globals():
    run_rule(globals()["snakemake"])
