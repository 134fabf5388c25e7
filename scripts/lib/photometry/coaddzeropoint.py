"""The zero point of a coadd against a reference: selection of the stars, and the fit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lib.core.crossmatch import match
from lib.core.settings import StackSettings
from lib.core.sphere import mean_position, project
from lib.photometry.coverage import least_coverage
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.pointflux import ApertureSums
from lib.photometry.sources import neighbour_distance
from lib.photometry.sourcetable import SourceFluxes
from lib.photometry.starfield import StarField
from lib.photometry.underlying import UnderlyingLight
from lib.photometry.zeropoint import (
    ASSUMED_REFERENCE_ERROR,
    Zeropoint,
    ZeropointLimits,
    choose_colour,
    expected_noise,
    fit_spatial_term,
    fit_zeropoint,
)

Reference = Mapping[str, np.ndarray]
"""Columns of a reference table."""

MAX_SCATTER = 0.5
"""[mag] Scatter beyond the stated errors above which the matches must be wrong: photographic
magnitudes, the poorest in use, scatter by 0.3."""

CHANCE_SHIFTS = 8.0 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
"""Displacements, in match radii, that give the number of chance matches."""

MATCH_SIGNIFICANCE = 4.0
"""Standard deviations by which the matches must exceed the number expected by chance."""

MIN_ISOLATED_STARS = 5
"""With fewer isolated stars, blended ones are used as well."""


@dataclass(frozen=True)
class ZeropointStars:
    """Stars of a coadd to which its zero point was fitted.

    Parameters
    ----------
    source : ndarray of int, shape (n,)
        Rows in the source table of the coadd.
    row : ndarray of int, shape (n,)
        Rows in the reference table.
    magnitude : ndarray, shape (n,)
        Reference magnitudes [mag].
    colour : ndarray, shape (n,)
        Reference colours used for the colour term [mag]; NaN where unknown.
    x, y : ndarray, shape (n,)
        Positions on the coadd, 0-based [pixel].
    """

    source: np.ndarray
    row: np.ndarray
    magnitude: np.ndarray
    colour: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def none(cls) -> "ZeropointStars":
        """Return an empty selection."""
        return cls(*(np.empty(0) for _ in range(6)))


def reference_errors(reference: Reference, band: str) -> np.ndarray:
    """Return the magnitude errors of a band of the reference [mag], NaN where it states none."""
    if f"{band}_err" in reference:
        return np.asarray(reference[f"{band}_err"], float)
    return np.full(len(reference["ra"]), np.nan)


def coadd_zeropoint(
    coadd: MeasuredCoadd,
    reference: Reference | None,
    band: str,
    settings: StackSettings,
    tied: bool = True,
    crowd: SourceFluxes | None = None,
) -> tuple[Zeropoint, ZeropointStars]:
    """Fit the zero point of a coadd against a reference.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd and its sources.
    reference : mapping of str to ndarray, or None
        Reference table; None where there is none.
    band : str
        Name of the band in the reference, e.g. ``r``.
    settings : StackSettings
        Settings of the stack step.
    tied : bool
        Whether the astrometry was solved against a reference. Positions from raw headers are used
        only where more sources match than expected by chance.
    crowd : SourceFluxes, optional
        For a crowded coadd: total fluxes with errors that include confusion.

    Returns
    -------
    zeropoint : Zeropoint
        The zero point; where it could not be fitted, `reason` says why.
    stars : ZeropointStars
        The stars passed to the fit.
    """
    field = coadd.field
    reason = _missing(reference, band) or ("NO_SOURCES" if field is None else "")
    if not reason and not tied and reference is not None:
        reason = _matched_by_chance(coadd, reference, settings.match_radius)
    if reason or reference is None or field is None:
        return Zeropoint(reason=reason), ZeropointStars.none()
    ours, theirs, n_matched = _match_stars(
        coadd, field, reference, band, settings, crowd is not None
    )
    if crowd is not None:
        total, snr, relative = crowd.flux, crowd.flux / crowd.error, field.lost_error
    else:
        total, snr, relative = _without_larger_sources(field, coadd.under)
    seen = total[ours] > 0
    ours, theirs = ours[seen], theirs[seen]
    catalogue = np.asarray(reference[band], float)[theirs]
    errors = reference_errors(reference, band)[theirs]
    magnitude, error, keep = _magnitudes(
        total[ours], snr[ours], catalogue, errors, coadd.gain, settings
    )
    error = np.hypot(error, 1.0857 * relative[ours])
    ours, theirs, magnitude, error = (a[keep] for a in (ours, theirs, magnitude, error))
    catalogue, errors = catalogue[keep], errors[keep]
    colour = None
    if settings.colour_term != "off":
        colour = choose_colour(band, reference, theirs)
    result = fit_zeropoint(magnitude, error, catalogue, errors, colour, _limits(settings))
    if result.known and result.intrinsic > MAX_SCATTER:
        result = _refused(result, band)
    x, y = field.sources["x"][ours], field.sources["y"][ours]
    if result.known:
        # The aperture correction is an error common to all stars.
        result.error = float(np.hypot(result.error, 1.0857 * field.growth.error))
        if settings.spatial_term != "off":
            used = result.used
            stated = np.where(errors[used] > 0, errors[used], ASSUMED_REFERENCE_ERROR)
            variance = error[used] ** 2 + stated**2
            result.spatial = fit_spatial_term(result.residual[used], variance, x[used], y[used])
    elif n_matched == 0 and not result.reason.startswith("SCATTERED"):
        result.reason = f"NO_MATCH: no source within {settings.match_radius:g} arcsec"
    colours = np.full(ours.size, np.nan) if colour is None else colour.value
    return result, ZeropointStars(ours, theirs, catalogue, colours, x, y)


def _without_larger_sources(
    field: StarField, under: UnderlyingLight
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return total fluxes without the light of galaxies and nebulae, S/N, further relative errors.

    What is not known of that light is an error that a fainter catalogue magnitude does not tell.
    """
    if not under.level.any():
        return field.total, field.snr, field.lost_error
    fraction = float(field.growth.fraction(field.aperture))
    wide = under.taken_from(ApertureSums(field.flux, field.error, fraction), field.aperture)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.pi * field.aperture**2 * under.error / np.abs(wide.sums)
    return wide.sums / fraction, wide.sums / field.error, np.hypot(field.lost_error, beyond)


def _refused(result: Zeropoint, band: str) -> Zeropoint:
    """Return, for a fit of implausible scatter, that there is no zero point, and why."""
    reason = (
        f"SCATTERED: {result.n_stars} stars by {result.intrinsic:.2f} mag > {MAX_SCATTER}, "
        f"these are not the {band} magnitudes of the stars"
    )
    used = np.zeros(result.residual.size, bool)
    return Zeropoint(n_matched=result.n_matched, used=used, residual=result.residual, reason=reason)


def _limits(settings: StackSettings) -> ZeropointLimits:
    """Return the minimum numbers of stars for a zero point and for a colour term."""
    return ZeropointLimits(
        settings.zeropoint_min_stars, settings.colour_min_stars, settings.colour_min_spread
    )


def _magnitudes(
    flux: np.ndarray,
    snr: np.ndarray,
    catalogue: np.ndarray,
    errors: np.ndarray,
    gain: float,
    settings: StackSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return instrumental magnitudes, their errors, and which stars are bright enough.

    Where a first fit succeeds, brightness and errors are those expected from the catalogue:
    measured ones of faint stars correlate with the noise of their fluxes, which would bias the fit.
    """
    magnitude = -2.5 * np.log10(flux)
    error = 1.0857 / snr
    bright = snr > settings.zeropoint_snr
    first = fit_zeropoint(
        magnitude, error, np.where(bright, catalogue, np.nan), errors, limits=_limits(settings)
    )
    if not first.known:
        return magnitude, error, bright
    expected = 10 ** (-0.4 * (catalogue - first.value))
    magnitude, error = expected_noise(magnitude, error, flux, expected, gain)
    return magnitude, error, error < 1.0857 / settings.zeropoint_snr


def _missing(reference: Reference | None, band: str) -> str:
    """Return why a reference gives no zero point in a band; '' where it does."""
    if reference is None or len(reference["ra"]) == 0:
        return "NO_REFERENCE"
    if not band:
        return "NO_BAND: the filter has no band in the reference system"
    if band not in reference or not np.isfinite(np.asarray(reference[band], float)).any():
        return f"NO_BAND: the reference has no {band} magnitudes"
    return ""


def _matched_by_chance(coadd: MeasuredCoadd, reference: Reference, radius: float) -> str:
    """Return why the matches are not significant; '' where they are.

    They are not where as many are found at shifted positions.
    """
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    ours = project(sky[:, 0], sky[:, 1], ra0, dec0)
    theirs = project(reference["ra"], reference["dec"], ra0, dec0)
    found = len(match(ours, theirs, radius)[0])
    beside = [len(match(ours + radius * shift, theirs, radius)[0]) for shift in CHANCE_SHIFTS]
    chance = float(np.mean(beside))
    if found == 0 or found > chance + MATCH_SIGNIFICANCE * np.sqrt(chance):
        return ""
    return (
        f"NO_MATCH: {found} of {len(ours)} sources within {radius:g} arcsec of an entry, as by "
        f"chance ({chance:.0f}): the pointing is off, or the reference is not of this field"
    )


def _match_stars(
    coadd: MeasuredCoadd,
    field: StarField,
    reference: Reference,
    band: str,
    settings: StackSettings,
    crowded: bool = False,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return rows of usable stars, their rows in the reference, and the number of matches.

    Usable stars lie on the stellar locus, are undisturbed, and have no significant neighbour in the
    coadd or in the reference, which may resolve blends of the coadd. In a crowded field no star is
    isolated: all are used, with errors that include confusion.
    """
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    ours, theirs = match(project(sky[:, 0], sky[:, 1], ra0, dec0), at, settings.match_radius)
    spoilt = FLAG_SATURATED | FLAG_WEIGHT
    blended = FLAG_NEIGHBOUR | 1
    usable = (field.flux > 0) & field.point_like & (field.sources["peak"] > 0)
    usable &= (field.flags & (spoilt | 2 | 4 | 8 | 16)) == 0
    if coadd.coverage is not None:
        part = coadd.coverage.part(field.sources["x"], field.sources["y"])
        isolated = usable & ((field.flags & blended) == 0) & (field.snr > settings.zeropoint_snr)
        usable &= part >= least_coverage(part[ours][isolated[ours]])
    isolated = usable & ((field.flags & blended) == 0)
    light = 10 ** (-0.4 * np.asarray(reference[band], float))
    listed = np.isfinite(at).all(axis=1) & np.isfinite(light)
    distance = np.full(len(at), np.inf)
    distance[listed] = neighbour_distance(at[listed, 0], at[listed, 1], light[listed])
    isolated[ours[distance[theirs] < coadd.scale * (field.aperture + field.fwhm)]] = False
    bright = field.snr > settings.zeropoint_snr
    enough = max(settings.zeropoint_min_stars, MIN_ISOLATED_STARS)
    good = isolated if not crowded and (isolated & bright)[ours].sum() >= enough else usable
    return ours[good[ours]], theirs[good[ours]], ours.size
