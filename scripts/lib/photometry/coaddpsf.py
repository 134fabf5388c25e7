"""The point-spread function of a coadd, and the fluxes of its sources by fits of it."""

from dataclasses import dataclass, replace

import numpy as np
import sep
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

from lib.core.stats import MAD_TO_SIGMA, excess_scatter
from lib.photometry.apertures import pixels_at
from lib.photometry.flags import (
    FLAG_BLENDED,
    FLAG_NEIGHBOUR,
    FLAG_PARTIAL,
    FLAG_SATURATED,
    FLAG_TRUNCATED,
    FLAG_WEIGHT,
)
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.pointflux import CORE_RADIUS, LEAST_SCATTER
from lib.photometry.psfbuild import FIT_RADIUS, LEAST_STARS, PsfImage, PsfStars, build_psf
from lib.photometry.psffit import PsfFluxes, sky_response
from lib.photometry.psfmodel import PsfModel
from lib.photometry.sources import neighbour_distance
from lib.photometry.starfield import StarField
from lib.photometry.underlying import UnderlyingLight

EFFECTIVE_RADIUS = 0.85
"""[FWHM] An aperture of this radius has the noise of a fitted Gaussian."""

STAR_SNR = 30.0
"""Minimum S/N of the stars from which the model is measured, if there are enough."""

ENOUGH_STARS = 15

SKY_BOX = 12.0
"""[FWHM] Mesh of the sky that is fitted between the stars of a crowd."""

HIDDEN_SIGMA = 5.0
"""Significance of a star that only the residuals show."""

CROWD_ROUNDS = 6
"""Iterations of the last fit to the stars of a crowded field: positions of blended ones converge
slowly."""

HIDDEN_ROUNDS = 5
"""Searches for them."""

FEW_MORE = 0.01
"""Part of all stars: where no more were found the search ends."""

NEW_SNR = 5.0
"""Minimum S/N of residual stars that become sources of the table."""

HIDDEN_ERROR = 0.1
"""Relative error of the models of stars in the search for them."""

HIDDEN_DISTANCE = 0.5
"""[FWHM] Nearer to a source nothing is looked for."""

CORE_LOST, WINGS_ERROR = 0.7, 0.03
"""Where less of the information on a flux is left the core is lost, and the flux has this relative
error: how the wings of stars differ."""

TIE_SNR = 50.0
"""Minimum S/N of the stars that tie PSF fluxes to aperture fluxes, if there are enough."""


@dataclass(frozen=True)
class PsfMeasurement:
    """Sources of a coadd measured by fits of its point-spread function.

    Parameters
    ----------
    flux, error, chi2 : ndarray, shape (n,)
        See `lib.photometry.psffit.PsfFluxes`; `chi2` is about 1 for a star.
    """

    flux: np.ndarray
    error: np.ndarray
    chi2: np.ndarray

    @classmethod
    def none(cls, number: int) -> "PsfMeasurement":
        """Return the measurement of sources that have none."""
        return cls(*np.full((3, number), np.nan))


def psf_image(coadd: MeasuredCoadd, fwhm: float, crowded: bool) -> PsfImage:
    """Return a coadd as stars are fitted on it: its variance is that of sums over a star."""
    ratio = float(coadd.noise.ratio(EFFECTIVE_RADIUS * fwhm)) if len(coadd.noise.radii) else 1.0
    box = sky_mesh(fwhm) if crowded else 0
    variance = coadd.variance * np.float32(ratio**2)
    return PsfImage(coadd.image, variance, coadd.gain, box)


def sky_mesh(fwhm: float) -> int:
    """Return the mesh of the sky that is fitted between stars of a FWHM, both [pixel]."""
    return int(max(32, np.ceil(SKY_BOX * fwhm)))


def psf_of_coadd(
    coadd: MeasuredCoadd, total: np.ndarray, crowded: bool = False
) -> tuple[PsfModel | None, str]:
    """Measure the point-spread function of a coadd on its stars.

    Parameters
    ----------
    coadd : MeasuredCoadd
    total : ndarray, shape (n,)
        Total fluxes of its sources by apertures: the model is brought to their scale.
    crowded : bool
        Whether stars run into each other everywhere: then the sky between them is fitted, too, and
        the residuals are searched for those that were not known.

    Returns
    -------
    psf : PsfModel or None
    reason : str
        Why there is none.
    """
    field = coadd.field
    if field is None:
        return None, "NO_SOURCES"
    rows = _model_stars(field, total, crowded)
    if rows.size < LEAST_STARS:
        return None, f"TOO_FEW_STARS: {rows.size} < {LEAST_STARS}"
    image = psf_image(coadd, field.fwhm, crowded)
    x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
    wings = field.growth.wings(field.profile.shape)
    light = float(field.growth.fraction(FIT_RADIUS * field.fwhm))
    psf = build_psf(image, PsfStars(x, y, rows), field.fwhm, wings, light)
    if psf is not None and crowded:
        found = fit_all(image, psf, x, y)
        x, y = found.x, found.y
        psf = build_psf(image, PsfStars(x, y, rows), field.fwhm, wings, light) or psf
    if psf is None:
        return None, "UNLIKE_STARS: those there are have no profile in common"
    return _tied(image, psf, x, y, rows, total, lone=not crowded), ""


def _model_stars(field: StarField, total: np.ndarray, crowded: bool) -> np.ndarray:
    """Return the stars to measure the model on, the brightest first."""
    unfit = FLAG_SATURATED | FLAG_WEIGHT | FLAG_TRUNCATED
    fit = field.stars
    if crowded:
        fit = fit | (field.point_like & ((field.flags & unfit) == 0))
    rows = np.flatnonzero(fit & (total > 0))
    bright = rows[field.snr[rows] > STAR_SNR]
    rows = bright if bright.size >= ENOUGH_STARS else rows
    return rows[np.argsort(-total[rows], kind="stable")]


def fit_all(image: PsfImage, psf: PsfModel, x: np.ndarray, y: np.ndarray) -> PsfFluxes:
    """Fit the stars of a crowd with those that only the residuals show.

    The stars given are the first of those returned. Where one was taken for two stars both are
    found after some rounds, in which more and more of what was hidden comes out.
    """
    fitted = image.fit(psf, x, y, rounds=3)
    for _ in range(HIDDEN_ROUNDS):
        more = hidden_stars(image, psf, fitted)
        if more.shape[1] == 0:
            break
        x, y = np.append(fitted.x, more[0]), np.append(fitted.y, more[1])
        fitted = image.fit(psf, x, y, rounds=3)
        if more.shape[1] < FEW_MORE * len(x):
            break
    return fitted


def resolve_crowd(coadd: MeasuredCoadd, field: StarField) -> StarField:
    """Return the sources of a crowded coadd with those that only fits of its stars show.

    All are where the fits have them, and their light in apertures is what is left of the image
    there without the others.

    Parameters
    ----------
    coadd : MeasuredCoadd
        Coadd with its `psf`; without one the sources are unchanged.
    field : StarField

    Returns
    -------
    StarField
        The sources of `field` are the first.
    """
    psf = coadd.psf
    if psf is None:
        return field
    image = psf_image(coadd, field.fwhm, crowded=True)
    known = field.sources
    fitted = fit_all(image, psf, known["x"].astype(float), known["y"].astype(float))
    n = len(known)
    row = np.arange(len(fitted.x))
    use = np.flatnonzero((row < n) | (fitted.flux > NEW_SNR * fitted.error))
    x, y, light = fitted.x[use], fitted.y[use], np.nan_to_num(fitted.flux[use])
    more = _point_rows(known, x[n:], y[n:], light[n:], coadd.image, field.fwhm)
    sums = []
    for radius, part in (
        (field.aperture, float(field.growth.fraction(field.aperture))),
        (field.core.radius, field.core.fraction),
    ):
        left, _, _ = sep.sum_circle(fitted.residual, x, y, radius, subpix=5)
        sums.append(left + part * light)
    sky, _, _ = sep.sum_circle(coadd.variance, x, y, field.aperture, subpix=5)
    photons = np.maximum(sums[0], 0) / coadd.gain if coadd.gain else 0.0
    # Around lost cores the wings have told.
    kept = (field.flags & FLAG_SATURATED) > 0
    for new, old in zip(sums, (field.flux, field.core_flux), strict=True):
        new[:n][kept] = old[kept]
    sources = np.concatenate([known, more])
    for axis, place in (("x", x), ("y", y)):
        sources[axis][:n][~kept] = place[:n][~kept]
    m = len(more)
    scatter = _core_scatter(image, fitted, field, psf.error)
    return replace(
        field, core=replace(field.core, scatter=scatter), sources=sources,
        stars=np.append(field.stars, np.zeros(m, bool)),
        flags=np.append(field.flags, np.full(m, FLAG_BLENDED | FLAG_NEIGHBOUR, np.int32)),
        half_light=np.append(field.half_light, np.full(m, np.nan)),
        isolation=neighbour_distance(sources["x"], sources["y"], light),
        flux=sums[0], core_flux=sums[1], error=np.sqrt(np.maximum(sky, 0) + photons),
        lost_error=np.append(field.lost_error, np.zeros(m)),
        place_error=np.append(field.place_error, np.full(m, np.nan)),
    )  # fmt: skip


def _core_scatter(
    image: PsfImage, fitted: PsfFluxes, field: StarField, model_error: float
) -> float:
    """Return by how much the light of stars in the inner aperture differs from that of fits.

    The wide aperture, which tells it elsewhere, holds the light of neighbours in a crowd.
    """
    radius, part = field.core.radius, field.core.fraction
    good = (fitted.flux > TIE_SNR * fitted.error) & (fitted.seen > CORE_LOST)
    rows = np.flatnonzero(good)
    if rows.size < LEAST_STARS:
        return field.core.scatter
    flux, error = fitted.flux[rows], fitted.error[rows]
    left, sky, photons = _left_in_apertures(image, fitted, rows, radius, part)
    # The fit has most of the noise of the aperture, too.
    noise = np.maximum(sky + photons - (part * error) ** 2, 0.1 * sky)
    own = excess_scatter(left / (part * flux), noise / (part * flux) ** 2)
    return max(float(np.hypot(own, model_error)), LEAST_SCATTER)


def _left_in_apertures(
    image: PsfImage, fitted: PsfFluxes, rows: np.ndarray, radius: float, part: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Return what a model leaves of stars in apertures, and the variances there by sky and photons.

    `part` is the fraction of a star's light in the aperture.
    """
    sky, _, _ = sep.sum_circle(image.variance, fitted.x[rows], fitted.y[rows], radius, subpix=5)
    photons = part * fitted.flux[rows] / image.gain if image.gain else 0.0
    return fitted.residual_sums(rows, radius), sky, photons


def _point_rows(
    known: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, image: np.ndarray,
    fwhm: float,
) -> np.ndarray:  # fmt: skip
    """Return stars in the columns of detected sources, as wide as stars are."""
    rows = np.zeros(x.size, known.dtype)
    rows["x"], rows["y"], rows["flux"] = x, y, flux
    rows["a"] = rows["b"] = fwhm / 2.3548
    rows["peak"] = image[pixels_at(x, y, image.shape)]
    rows["flag"] = FLAG_BLENDED
    return rows


def hidden_stars(image: PsfImage, psf: PsfModel, fitted: PsfFluxes) -> np.ndarray:
    """Return the positions of stars in the residuals of an image, shape (2, m) [pixel]."""
    left = fitted.residual
    width = psf.fwhm / 2.3548
    good = np.isfinite(image.variance) & (image.variance > 0)
    light = np.where(good, np.maximum(image.data - left, 0), 0)
    photons = light / image.gain if image.gain else 0.0
    variance = np.where(good, image.variance + photons + (HIDDEN_ERROR * light) ** 2, 0)
    signal = gaussian_filter(left, width, truncate=3.0)
    # The kernel's square is a Gaussian narrower by the root of 2, of the sum 1 / (4 pi width^2).
    noise = gaussian_filter(variance, width / np.sqrt(2), truncate=3.0) / (4 * np.pi * width**2)
    significance = np.where(noise > 0, signal / np.sqrt(np.maximum(noise, 1e-30)), 0)
    size = 2 * max(1, round(psf.fwhm / 2)) + 1
    peak = (significance > HIDDEN_SIGMA) & (significance == maximum_filter(significance, size))
    row, column = np.nonzero(peak & good)
    at = np.column_stack([column, row]).astype(float)
    if not len(at):
        return np.empty((2, 0))
    apart, _ = cKDTree(np.column_stack([fitted.x, fitted.y])).query(at)
    return at[apart > HIDDEN_DISTANCE * psf.fwhm].T


def _tied(
    image: PsfImage, psf: PsfModel, x: np.ndarray, y: np.ndarray, rows: np.ndarray,
    total: np.ndarray, *, lone: bool,
) -> PsfModel:  # fmt: skip
    """Return a model on the flux scale of apertures, with its error by how stars differ.

    `lone` says whether the apertures hold no light of others: then they tell, too, what fits of
    undersampled stars lack, whose profiles differ as the pixels lie.
    """
    fitted = image.fit(psf, x, y, rounds=2)
    factor, error = tie(image, fitted, psf.fwhm, rows, total)
    if error is None:
        return replace(psf, error=WINGS_ERROR)
    if lone:
        rows = _telling(fitted, rows)
        flux = fitted.flux[rows]
        # What an aperture has of noise beyond the fit is about as much as the fit has.
        noise = (fitted.error[rows] / flux) ** 2
        error = max(error, excess_scatter(total[rows] / (factor * flux), noise))
    return replace(psf, coefficients=psf.coefficients / factor, error=error)


def _telling(fitted: PsfFluxes, rows: np.ndarray) -> np.ndarray:
    """Return those of some stars that are bright enough to tell how a model fits."""
    flux, error = fitted.flux[rows], fitted.error[rows]
    good = (flux > STAR_SNR * error) & (fitted.seen[rows] > CORE_LOST)
    bright = good & (flux > TIE_SNR * error)
    return rows[bright if bright.sum() >= ENOUGH_STARS else good]


def tie(
    image: PsfImage, fitted: PsfFluxes, fwhm: float, rows: np.ndarray, total: np.ndarray
) -> tuple[float, float | None]:
    """Return the factor from fitted fluxes to those of apertures, and the error of the model.

    What a model leaves of bright stars in 1.5 FWHM, over their fluxes, scatters by noise and by
    what the model lacks.

    Parameters
    ----------
    image : PsfImage
    fitted : PsfFluxes
    fwhm : float
        [pixel].
    rows : ndarray of int
        Stars to tell it from.
    total : ndarray, shape (n,)
        Total fluxes by apertures of all that were fitted.

    Returns
    -------
    factor : float
    error : float or None
        Relative error of a flux, with that of the factor; None with too few stars.
    """
    rows = _telling(fitted, rows)
    if rows.size < LEAST_STARS:
        return 1.0, None
    flux, error = fitted.flux[rows], fitted.error[rows]
    ratio = total[rows] / flux
    middle = float(np.median(ratio))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio / middle - 1)))
    left, sky, photons = _left_in_apertures(image, fitted, rows, 1.5 * fwhm)
    noise = np.maximum(sky + photons - error**2, 0.1 * error**2)
    own = excess_scatter(left / flux, noise / flux**2)
    return middle, float(np.hypot(own, scatter / np.sqrt(rows.size)))


def psf_measurement(
    coadd: MeasuredCoadd, field: StarField, under: UnderlyingLight, crowded: bool = False
) -> PsfMeasurement:
    """Measure the sources of a coadd by fits of its point-spread function.

    Parameters
    ----------
    coadd : MeasuredCoadd
        Coadd with its `psf`, without which nothing is measured.
    field : StarField
        Sources of the coadd.
    under : UnderlyingLight
        What is under them.
    crowded : bool

    Returns
    -------
    PsfMeasurement
    """
    psf, n = coadd.psf, len(field.sources)
    if psf is None:
        return PsfMeasurement.none(n)
    image = psf_image(coadd, field.fwhm, crowded)
    x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
    fitted = image.fit(psf, x, y, rounds=CROWD_ROUNDS if crowded else 3)
    return _finished(coadd, field, under, image, fitted, n)


def _finished(
    coadd: MeasuredCoadd, field: StarField, under: UnderlyingLight, image: PsfImage,
    fitted: PsfFluxes, n: int,
) -> PsfMeasurement:  # fmt: skip
    """Return fluxes without what is under them, with all errors: sky, lost cores, coverage."""
    x, y, flux = (values[:n].copy() for values in (fitted.x, fitted.y, fitted.flux))
    excess = coadd.local_excess(x, y, EFFECTIVE_RADIUS * field.fwhm, under)
    variance = full_variance(image, fitted, excess)
    on = np.flatnonzero(under.level)
    if on.size and coadd.psf is not None:
        place = x[on], y[on], flux[on]
        pixels = sky_response(coadd.psf, *place, image.variance, image.gain)
        flux[on] -= pixels * under.level[on]
        photons = np.maximum(under.level[on], 0) * fitted.area[on] / coadd.gain
        variance[on] += (pixels * under.error[on]) ** 2 + photons
    if coadd.coverage is not None and coadd.coverage.partial:
        factor, own = _partial_cover(coadd, image, field, x, y, flux, variance)
        flux *= factor
        variance = variance * factor**2 + (own * flux) ** 2
    return PsfMeasurement(flux, np.sqrt(variance), fitted.chi2[:n] * coadd.noise.correlation)


def _partial_cover(
    coadd: MeasuredCoadd, image: PsfImage, field: StarField, x: np.ndarray, y: np.ndarray,
    flux: np.ndarray, variance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return factors to fluxes of sources that only some frames cover, and their relative errors.

    The model is that of all frames. A fit of a faint star is off as an inner aperture is, whose
    light is known for any frames; one of a bright star weighs all of its light alike, and is off
    less. By which part of that each is, and how far stars scatter about it, is told by apertures
    of the bright ones.

    Parameters
    ----------
    coadd : MeasuredCoadd
    image : PsfImage
    field : StarField
    x, y, flux, variance : ndarray, shape (n,)
        Positions [pixel], fitted fluxes and their variances.
    """
    assert coadd.coverage is not None
    stars = np.flatnonzero(field.stars)
    light, own = coadd.coverage.correction(x, y, CORE_RADIUS * field.fwhm, stars)
    partial = (field.flags & FLAG_PARTIAL) > 0
    peak = np.maximum(flux, 0) * float(field.growth.wings((0.0, 0.0)).density(0.0, 0.0))
    photons = peak / image.gain if image.gain else 0.0 * peak
    # Where no frame has weight the variance is 0.
    photons = photons / np.maximum(
        photons + image.variance[pixels_at(x, y, image.variance.shape)], 1e-30
    )
    terms = -np.log(light)[:, None] * np.column_stack([1 - photons, photons])
    spoilt = field.flags & (FLAG_SATURATED | FLAG_WEIGHT | FLAG_TRUNCATED | FLAG_NEIGHBOUR) > 0
    error = np.sqrt(variance) / np.maximum(flux, 1e-30)
    rows = np.flatnonzero(partial & ~spoilt & field.point_like & (error < 1 / STAR_SNR))
    if rows.size < ENOUGH_STARS:
        # As an inner aperture or not at all: between both.
        middle = terms[:, 0] / 2
        return np.where(partial, np.exp(middle), 1.0), np.hypot(own, partial * np.abs(middle))
    off = np.log(np.maximum(field.total[rows], 1e-30) / flux[rows])
    told = np.linalg.lstsq(terms[rows], off, rcond=None)[0]
    rest = off - terms[rows] @ told
    spread = MAD_TO_SIGMA * np.median(np.abs(rest))
    scatter = np.sqrt(max(float(spread**2 - np.median(error[rows]) ** 2), 0.0))
    return (
        np.where(partial, np.exp(terms @ told), 1.0),
        np.where(partial, np.hypot(own, scatter), own),
    )


def full_variance(image: PsfImage, fitted: PsfFluxes, excess: np.ndarray) -> np.ndarray:
    """Return the variances of the first fluxes of a fit, with the structure of the sky about them.

    And, where a core is lost, with the error of the wings that told the flux.

    Parameters
    ----------
    image : PsfImage
    fitted : PsfFluxes
    excess : ndarray, shape (n,)
        Local noise excess, from `lib.photometry.skystructure.local_excess`, of the first n.

    Returns
    -------
    ndarray, shape (n,)
    """
    first = slice(len(excess))
    here = pixels_at(fitted.x[first], fitted.y[first], image.variance.shape)
    sky = image.variance[here] * fitted.area[first]
    lost = fitted.seen[first] < CORE_LOST
    wings = np.where(lost, WINGS_ERROR * fitted.flux[first], 0)
    variance: np.ndarray = fitted.error[first] ** 2 + (excess**2 - 1) * sky + wings**2
    return variance
