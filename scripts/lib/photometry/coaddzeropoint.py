"""The zero point of a coadd against a reference: which stars serve, and the fit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lib.core.crossmatch import match
from lib.core.settings import StackSettings
from lib.core.sphere import mean_position, project
from lib.photometry.coverage import least_coverage
from lib.photometry.flags import FLAG_NEIGHBOUR, FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.sources import neighbour_distance
from lib.photometry.sourcetable import SourceFluxes
from lib.photometry.starfield import StarField
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
"""[mag] Scatter beyond their errors at which these are other stars' magnitudes; photographic
ones, the poorest there are, scatter by 0.3."""

SHIFTS = 8.0 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
"""Displacements, in match radii, at which sources meet entries of the reference by chance alone."""

SIGNIFICANT = 4.0
"""Standard deviations by which matches must exceed those by chance."""

MIN_LONELY_STARS = 5
"""With fewer stars without a neighbour blended ones are used, too."""


@dataclass(frozen=True)
class ZeropointStars:
    """Stars of a coadd that a zero point was fitted to.

    Parameters
    ----------
    source : ndarray of int, shape (n,)
        Rows in the sources of the coadd.
    row : ndarray of int, shape (n,)
        Rows in the reference.
    magnitude : ndarray, shape (n,)
        Magnitudes in the reference.
    colour : ndarray, shape (n,)
        The colour of the colour term; NaN where it is not known.
    x, y : ndarray, shape (n,)
        0-based position on the coadd [pixel].
    """

    source: np.ndarray
    row: np.ndarray
    magnitude: np.ndarray
    colour: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def none(cls) -> "ZeropointStars":
        """Return no stars."""
        return cls(*(np.empty(0) for _ in range(6)))


def reference_errors(reference: Reference, band: str) -> np.ndarray:
    """Return the errors of a band of the reference, NaN where it has none."""
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
    reference : mapping of str to ndarray, or None
    band : str
    settings : StackSettings
    tied : bool
        Whether the positions have been found against a reference. Those of the raw headers are
        believed only where more sources match than would by chance.
    crowd : SourceFluxes, optional
        For a crowded coadd: total fluxes whose errors include confusion.

    Returns
    -------
    zeropoint : Zeropoint
    stars : ZeropointStars
        The stars given to the fit.
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
    total, snr = field.total, field.snr
    if crowd is not None:
        total, snr = crowd.flux, crowd.flux / crowd.error
        seen = total[ours] > 0
        ours, theirs = ours[seen], theirs[seen]
    catalogue = np.asarray(reference[band], float)[theirs]
    errors = reference_errors(reference, band)[theirs]
    magnitude, error, keep = _magnitudes(
        total[ours], snr[ours], catalogue, errors, coadd.gain, settings
    )
    error = np.hypot(error, 1.0857 * field.lost_error[ours])
    ours, theirs, magnitude, error = (a[keep] for a in (ours, theirs, magnitude, error))
    catalogue, errors = catalogue[keep], errors[keep]
    colour = None
    if settings.colour_term != "off":
        colour = choose_colour(band, reference, theirs)
    result = fit_zeropoint(magnitude, error, catalogue, errors, colour, _limits(settings))
    if result.known and result.intrinsic > MAX_SCATTER:
        reason = (
            f"SCATTERED: {result.n_stars} stars by {result.intrinsic:.2f} mag > {MAX_SCATTER}, "
            f"these are not the {band} magnitudes of the stars"
        )
        result = Zeropoint(
            n_matched=result.n_matched, used=np.zeros(ours.size, bool), residual=result.residual,
            reason=reason,
        )  # fmt: skip
    x, y = field.sources["x"][ours], field.sources["y"][ours]
    if result.known:
        # What the aperture does not hold is the same error for all stars.
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


def _limits(settings: StackSettings) -> ZeropointLimits:
    """Return the least numbers of stars for a zero point and for a colour term."""
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
    """Return instrumental magnitudes of stars, their errors, and which are bright enough.

    Where a first fit succeeds, brightness and errors are those expected from the catalogue: the
    measured ones of faint stars go with the noise of their fluxes, which would bias the fit.
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
    """Return why a reference gives no zero point in a band, '' where it does."""
    if reference is None or len(reference["ra"]) == 0:
        return "NO_REFERENCE"
    if not band:
        return "NO_BAND: the filter has no band in the reference system"
    if band not in reference or not np.isfinite(np.asarray(reference[band], float)).any():
        return f"NO_BAND: the reference has no {band} magnitudes"
    return ""


def _matched_by_chance(coadd: MeasuredCoadd, reference: Reference, radius: float) -> str:
    """Return why matches mean nothing: as many there are at places beside; '' where they do."""
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    ours = project(sky[:, 0], sky[:, 1], ra0, dec0)
    theirs = project(reference["ra"], reference["dec"], ra0, dec0)
    found = len(match(ours, theirs, radius)[0])
    beside = [len(match(ours + radius * shift, theirs, radius)[0]) for shift in SHIFTS]
    chance = float(np.mean(beside))
    if found == 0 or found > chance + SIGNIFICANT * np.sqrt(chance):
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
    """Return rows of stars fit for a zero point and of their entries, and how many sources match.

    Stars are on the stellar locus, undisturbed, and without a neighbour that matters, in the
    coadd or in the reference, which may resolve what the coadd does not. In a crowd no star is
    alone: all serve, with errors that hold that.
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
        lonely = usable & ((field.flags & blended) == 0) & (field.snr > settings.zeropoint_snr)
        usable &= part >= least_coverage(part[ours][lonely[ours]])
    lonely = usable & ((field.flags & blended) == 0)
    light = 10 ** (-0.4 * np.asarray(reference[band], float))
    listed = np.isfinite(at).all(axis=1) & np.isfinite(light)
    distance = np.full(len(at), np.inf)
    distance[listed] = neighbour_distance(at[listed, 0], at[listed, 1], light[listed])
    lonely[ours[distance[theirs] < coadd.scale * (field.aperture + field.fwhm)]] = False
    bright = field.snr > settings.zeropoint_snr
    enough = max(settings.zeropoint_min_stars, MIN_LONELY_STARS)
    good = lonely if not crowded and (lonely & bright)[ours].sum() >= enough else usable
    return ours[good[ours]], theirs[good[ours]], ours.size
