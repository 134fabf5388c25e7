"""Make the reference of a target: from a user's table, the cache, or VizieR.

A reference without stars says why it has none.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS
from lib.core.settings import ReferenceSettings
from lib.core.sphere import mean_position, separation
from lib.reference.epochs import match_positions, move_to_epoch
from lib.reference.field import Circle, Field
from lib.reference.names import NameUnknown, place_by_name, plain_name
from lib.reference.photometry import join_photometry, tie_to_reference
from lib.reference.referencetable import check_angles, empty_reference
from lib.reference.surveys import (
    ASTROMETRIC,
    GAIA,
    GAIA_SYNTHETIC,
    PANSTARRS,
    PHOTOMETRIC,
    SKYMAPPER,
    SURROUNDINGS,
    SYNTHETIC_Y_LIMIT,
    USNOB,
    Survey,
)
from lib.reference.transformations import fill_by_transformation
from lib.reference.usertable import read_user_table
from lib.reference.vizier import ROW_LIMIT, Record, ReferenceUnavailable, Service

log = logging.getLogger("autoproc")

LARGEST_RADIUS = 3.0
"""Radius [deg] above which no catalogue is queried for a field."""

SURROUNDINGS_ROW_LIMIT = 30_000
"""Stars around the field that are asked for: some hundred in each frame."""

CUT_OUT_ABOVE = 20_000
"""Rows above which a user's table is cut out around the field."""


NO_POINTING = "no frame of the target tells where it points"
WRITE_INSTEAD = "write target_radec, or a table as refcat"


def make_reference(
    refcat: str,
    sky_field: Field,
    cache: str | Path,
    settings: ReferenceSettings | None = None,
    *,
    row_limit: int = ROW_LIMIT,
    last_attempt: bool = True,
    name: str = "",
) -> Table:
    """Return the reference table of a field.

    Parameters
    ----------
    refcat : str
        ``online``, ``offline`` (the cache alone), ``none``, or the path of a table.
    sky_field : Field
    cache : path-like
        Directory of answers, shared among nights.
    settings : ReferenceSettings, optional
        Servers, and the time that an answer may take.
    row_limit : int
        See `lib.reference.vizier.Service`.
    last_attempt : bool
        Whether to go on with what there is when servers fail, instead of raising.
    name : str
        Of the target: where no frame tells its pointing catalogues are asked about that.

    Returns
    -------
    astropy.table.Table
        Without rows, and with ``meta['reason']``, if there is no reference.

    Raises
    ------
    ReferenceUnavailable
        Servers fail and it is not the last attempt.
    lib.reference.referencetable.CatalogueError
        The user's table is not fit for use.
    """
    if refcat == "none":
        return empty_reference("refcat: none")
    if refcat not in ("online", "offline"):
        return table_reference(refcat, sky_field)
    settings = settings or ReferenceSettings()
    offline = refcat == "offline"
    servers = () if offline else tuple(settings.servers)
    service = Service(Path(cache).expanduser(), servers, settings.timeout, row_limit)
    last_attempt = offline or last_attempt
    named = sky_field.circle is None and bool(name)
    if named:
        try:
            sky_field = place_by_name(sky_field, name, service.cache, settings, offline=offline)
        except (NameUnknown, ReferenceUnavailable) as why:
            if isinstance(why, ReferenceUnavailable) and not last_attempt:
                raise
            log.warning("no reference: %s", why)
            return empty_reference(f"{NO_POINTING}, and {why}; {WRITE_INSTEAD}")
    table = catalogue_reference(service, sky_field, last_attempt=last_attempt)
    if named:
        table.meta["named"] = f"{plain_name(name)} at {sky_field.ra:.4f} {sky_field.dec:+.4f}"
    return table


# --- a user's table ---------------------------------------------------------------------------


def table_reference(path: str | Path, sky_field: Field) -> Table:
    """Return the reference that a user's table is for a field.

    A large table is cut out around the field; a small one is taken whole, unless none of its
    stars lies in the field.

    Parameters
    ----------
    path : path-like
    sky_field : Field
        Its `wide` radius counts, where it has one. A centre below 24 with stars of the table only
        at 15 times its right ascension was in hours: ``meta['ra_in_hours']``.
    """
    path = Path(path).expanduser()
    table = read_user_table(path)
    table.meta["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if len(table) == 0:
        return empty_reference(table.meta.get("reason") or f"{path.name} has no rows")
    if circle := sky_field.circle:
        ra, dec, radius = circle.ra, circle.dec, sky_field.wide or circle.radius
        check_angles(table, path, ra, dec)
        away = separation(table["ra"], table["dec"], ra, dec)
        if away.min() > radius and ra < 24:
            in_hours = separation(table["ra"], table["dec"], 15 * ra, dec)
            if in_hours.min() <= radius:
                # solve takes the frames there
                table.meta["ra_in_hours"] = True
                away = in_hours
        if away.min() > radius:
            why = (
                f"{path.name} has no star within {radius:.2f} deg of {ra:.4f} {dec:+.4f}; "
                f"its nearest is {away.min():.2f} deg away"
            )
            if not of_one_field(table):
                return empty_reference(why)
            # The table is of one field: the pointing may be what is wrong, which solve finds out.
            log.warning("%s: the frames are looked for in all of it", why)
            table.meta["elsewhere"] = why
        elif len(table) > CUT_OUT_ABOVE:
            table = table[away <= radius]
    if sky_field.epoch is not None:
        table = move_to_epoch(table, sky_field.epoch)
    return table


def of_one_field(table: Table) -> bool:
    """Return whether a table covers no more of the sky than a catalogue is asked for."""
    if len(table) > CUT_OUT_ABOVE:
        return False
    ra, dec = mean_position(table["ra"], table["dec"])
    return bool(separation(table["ra"], table["dec"], ra, dec).max() < LARGEST_RADIUS)


# --- catalogues of VizieR ---------------------------------------------------------------------


def catalogue_reference(service: Service, sky_field: Field, *, last_attempt: bool) -> Table:
    """Return the reference of a field from catalogues, with its surroundings; or an empty one.

    Parameters
    ----------
    service : Service
    sky_field : Field
    last_attempt : bool
        See `make_reference`.

    Raises
    ------
    ReferenceUnavailable
        Servers fail and it is not the last attempt.
    """
    circle, wide = sky_field.circle, sky_field.wide
    if circle is None:
        return empty_reference(f"{NO_POINTING}; {WRITE_INSTEAD}")
    if circle.radius > LARGEST_RADIUS:
        return empty_reference(
            f"the field has a radius of {circle.radius:.1f} deg, over {LARGEST_RADIUS:g}"
        )
    try:
        table = online_reference(service, circle, sky_field.epoch, complete=not last_attempt)
    except ReferenceUnavailable as why:
        if not last_attempt:
            raise
        log.warning("no reference: %s", why)
        table = empty_reference(_why_none(service))
        table.meta["missing"] = [str(why)]
        return table
    if wide and wide > circle.radius and table.meta["source"] == GAIA.name:
        table = add_surroundings(service, table, circle, wide, sky_field.epoch)
    return table


def _why_none(service: Service) -> str:
    """Return in a few words why no catalogue could be had; the log has the rest."""
    if not service.servers:
        return f"the cache {service.cache} has no catalogue of the field (refcat: offline)"
    n = len(service.servers)
    who = "the catalogue server" if n == 1 else f"{n} catalogue servers"
    if service.failed >= set(service.servers):
        return f"no answer from {who}, see logs/refcat"
    return f"no usable answer from {who}, see logs/refcat"


@dataclass
class Queries:
    """Queries of one field: what was answered, and what could not be retrieved.

    Parameters
    ----------
    service : Service
    circle : Circle
    records : list of dict
        Records of the answers; see `Service.get`.
    missing : list of str
        A sentence for each catalogue without an answer of use.
    """

    service: Service
    circle: Circle
    records: list[Record] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def covering(self, surveys: Sequence[Survey]) -> Iterator[Survey]:
        """Yield those surveys that reach the field."""
        return (one for one in surveys if one.covers(self.circle.dec, self.circle.radius))

    def get(self, survey: Survey) -> Table:
        """Return the stars of a survey and note the record of the answer."""
        ra, dec, radius = astuple(self.circle)
        stars, record = self.service.get(survey, ra, dec, radius)
        self.records.append(record)
        return stars

    def positions(
        self, surveys: Sequence[Survey], min_stars: int, complete: bool
    ) -> tuple[Table, Survey]:
        """Return the stars of the first survey that has enough, and that survey."""
        for survey in self.covering(surveys):
            try:
                stars = self.get(survey)
            except ReferenceUnavailable as why:
                self.missing.append(str(why))
                if complete and survey is surveys[0]:
                    raise  # before the last attempt nothing less than the best will do
                continue
            if len(stars) >= min_stars:
                return stars, survey
            self.missing.append(f"{survey.name} has {len(stars)} stars there")
        raise ReferenceUnavailable("; ".join(dict.fromkeys(self.missing)))

    def photometry(
        self, surveys: Sequence[Survey], known: dict[Survey, Table], complete: bool
    ) -> Iterator[tuple[Survey, Table]]:
        """Yield each survey that has stars there, with them; `known` are not queried."""
        for survey in self.covering(surveys):
            if survey in known:
                stars = known[survey]
            else:
                try:
                    stars = self.get(survey)
                except ReferenceUnavailable as why:
                    if complete:
                        raise
                    self.missing.append(str(why))
                    continue
            if len(stars):
                yield survey, stars


def online_reference(
    service: Service,
    circle: Circle,
    epoch: float | None = None,
    *,
    min_stars: int = 3,
    complete: bool = True,
    positions: Sequence[Survey] = ASTROMETRIC,
    magnitudes: Sequence[Survey] = PHOTOMETRIC,
) -> Table:
    """Return the reference of a field from catalogues.

    Parameters
    ----------
    service : Service
    circle : Circle
    epoch : float, optional
        Julian year that the positions are moved to.
    min_stars : int
        A catalogue with fewer stars in the field does not give the positions.
    complete : bool
        Whether a catalogue of photometry that is unavailable is a failure; else it is left out
        and ``meta['missing']`` says so.
    positions, magnitudes : sequence of Survey
        Possible sources of each, best first.

    Returns
    -------
    astropy.table.Table

    Raises
    ------
    ReferenceUnavailable
    """
    queries = Queries(service, circle)
    table, base = queries.positions(positions, min_stars, complete)
    own = table.copy()
    for band in BANDS:
        table[band], table[f"{band}_err"] = np.nan, np.nan
        table[f"{band}_src"] = np.full(len(table), "", dtype="U40")
    joined: dict[Survey, Table] = {}
    for survey, photometry in queries.photometry(magnitudes, {base: own}, complete):
        join_survey(table, photometry, survey)
        joined[survey] = photometry
    join_derived(table, joined)
    if base is USNOB:
        join_photometry(table, own, base.name, max_error=0.5)
    if epoch is not None:
        table = move_to_epoch(table, epoch)
    table.meta["source"] = base.name
    table.meta["query"] = (
        f"circle {circle.ra:.5f} {circle.dec:+.5f} radius {circle.radius:.4f} deg, ICRS"
    )
    table.meta["date"] = max(record["date"] for record in queries.records)
    table.meta["catalogues"] = queries.records
    if queries.missing:
        table.meta["missing"] = list(dict.fromkeys(queries.missing))
    return table


def join_derived(table: Table, joined: Mapping[Survey, Table]) -> None:
    """Fill bands in place that no survey measured, by relations from those that they did.

    Parameters
    ----------
    table : astropy.table.Table
    joined : mapping of Survey to Table
        The photometry joined before.
    """
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


def add_surroundings(
    service: Service, table: Table, circle: Circle, wide: float, epoch: float | None
) -> Table:
    """Add the stars around a field, in which a frame lies whose pointing is far off.

    Only brighter ones where they are many, and none where they are unavailable: the field itself
    is what counts.

    Parameters
    ----------
    service : Service
    table : astropy.table.Table
        Reference of the field.
    circle : Circle
        The field.
    wide : float
        Radius of the surroundings [deg].
    epoch : float or None
    """
    from astropy.table import vstack

    # Its answers are not those of the whole circle: kept apart.
    service = replace(
        service,
        cache=Path(service.cache) / "wide",
        row_limit=SURROUNDINGS_ROW_LIMIT,
        unavailable={},
    )
    try:
        around = online_reference(
            service,
            replace(circle, radius=wide),
            epoch,
            complete=False,
            positions=SURROUNDINGS[:1],
            magnitudes=SURROUNDINGS[1:],
        )
    except ReferenceUnavailable as why:
        log.warning("no stars beyond %.2f deg: %s", circle.radius, why)
        return table
    away = separation(around["ra"], around["dec"], circle.ra, circle.dec)
    around = around[away > circle.radius]
    log.info("%d stars more up to %.2f deg", len(around), wide)
    meta = table.meta | {"catalogues": table.meta["catalogues"] + around.meta["catalogues"]}
    table = vstack([table, around], metadata_conflicts="silent")
    table.meta = meta
    return table


def join_survey(table: Table, photometry: Table, survey: Survey) -> dict[str, int]:
    """Join one survey's photometry to the reference in place, minding its peculiarities.

    Returns
    -------
    dict
        Number of magnitudes filled in each band.
    """
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


def _without_blends(table: Table, photometry: Table, radius: float) -> Table:
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
