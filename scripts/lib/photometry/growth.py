"""The growth curve: the fraction of a star's light within a radius."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.apertures import squares_about, tile_sums
from lib.photometry.image import MeasurementImage
from lib.photometry.neighbours import StarModels
from lib.photometry.psf import (
    StarAperture,
    Wings,
    fit_bounded,
    moffat_alpha,
    moffat_fraction,
    moffat_slopes,
)

RING_RADII = np.array([0.4, 0.5, 0.6, 0.75, 0.9, 1.05, 1.2, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
"""Outer radii of the rings of the growth curve [FWHM]."""

REFERENCE_RING = int(np.flatnonzero(RING_RADII == 1.5)[0])
"""The growth curve is normalised to 1 at the outer radius of this ring."""

WINGS_INNER_RADIUS = 0.8
"""The wings are fitted to the rings whose outer radius is larger [FWHM]."""

MIN_ISOLATED_STARS = 5
"""With fewer stars that are isolated up to the last ring, the growth curve ends earlier."""

MIN_STAR_SNR = 20
"""Minimum signal-to-noise ratio, within the reference ring, of a star used for the growth curve."""

RING_SCATTER = 0.002
"""Intrinsic scatter of stars in a ring [flux in the reference ring]; keeps the brightest from
dominating."""

BACKGROUND_ERROR = 0.005
"""Error of the background [noise of a pixel]."""

MIN_RING_ERROR = 2e-4
"""Minimum error of the mean of a ring [flux in the reference ring]."""

PRIOR_BETA = 3.0
"""Prior of the Moffat exponent of the wings."""

PRIOR_WIDTH = 0.5
"""Standard deviation of that prior in ln(beta)."""

EXTRAPOLATION_ERROR = 0.35
"""Relative error of the light beyond the last ring, due to departures from the Moffat profile
fitted further in and to halos."""

NEIGHBOUR_ERROR = 3e-4
"""Error of ln(total flux) due to sky and neighbours where the rings reach as far as they can; it
grows with the square of what they lack, because neighbours are then nearer."""

LEAST_BETA, GREATEST_BETA = 1.6, 18.0
"""Bounds of the exponent of the wings. Turbulence alone gives 4 (Racine 1996, PASP 108, 699) to 4.8
(Trujillo et al. 2001, MNRAS 328, 977), stars on detectors 2.5 and more, halos of optics and dust
down to 1.6; at 1 the total flux would diverge."""

LAST_RING_CHOICES = ((1, 1.5), (2, 1.5), (4, 1.5), (6, 1.5), (6, 0.6))
"""Last ring of the growth curve, counted from the end, and the minimum distance of the next source
beyond it [FWHM]; the first pair that enough stars satisfy is used."""

ASSUMED_ERROR = 0.03
"""Relative error of the total flux where no star gives a growth curve: the scatter between
images."""


@dataclass
class GrowthCurve:
    """The fraction of a star's total light within a radius.

    Measured in rings up to `radii[-1]`; what lies beyond follows the wings of a Moffat profile
    fitted to the outer rings.

    Parameters
    ----------
    radii : ndarray
        Radii of the apertures [pixel].
    cumulative : ndarray
        Flux within `radii`, relative to that within `reference`.
    reference : float
        Radius of normalisation [pixel].
    alpha, beta, norm : float
        Scale radius [pixel], exponent and normalisation of the Moffat profile of the wings.
    total : float
        Total flux, relative to that within `reference`.
    error : float
        Standard error of ln(`total`), including a third of the light beyond the last ring.
    n_stars : int
        Number of stars; 0 where none was usable and the curve is that of a Moffat profile with beta
        = 3.
    """

    radii: np.ndarray
    cumulative: np.ndarray
    reference: float
    alpha: float
    beta: float
    norm: float
    total: float
    error: float
    n_stars: int

    def wings(self, shape: tuple[float, float] = (0.0, 0.0)) -> Wings:
        """Return the wings of a point-spread function with a given ellipticity (`mean_shape`)."""
        return Wings(self.alpha, self.beta, self.norm / self.total, *shape)

    def fraction(self, radius: ArrayLike) -> np.ndarray:
        """Return the fraction of the total light within `radius` [pixel]."""
        radius = np.asarray(radius, float)
        inner = np.interp(
            radius**2, np.append(0, self.radii**2), np.append(0, self.cumulative)
        )  # linear in area: exact in a flat core
        wings = moffat_fraction(radius, self.alpha, self.beta)
        wings = wings - moffat_fraction(self.reference, self.alpha, self.beta)
        outer = 1.0 + self.norm * wings
        return np.where(radius < self.reference, inner, outer) / self.total

    def aperture(self, radius: float, shape: tuple[float, float] = (0.0, 0.0)) -> StarAperture:
        """Return an aperture of some radius [pixel] with the fraction of a star's light in it."""
        return StarAperture(radius, float(self.fraction(radius)), self.wings(shape))


@dataclass(frozen=True)
class StarSample:
    """Stars from which a growth curve is measured.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions [pixel].
    flux : ndarray, shape (n,)
        Fluxes, by which the brightest stars are chosen.
    isolation : ndarray, shape (n,)
        Distance to the nearest significant neighbour [pixel].
    source : ndarray of int, shape (n,), optional
        Number of each star, from 1, in the segmentation map; less 1, its row in the models.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    isolation: np.ndarray
    source: np.ndarray | None = None

    def take(self, index: np.ndarray) -> "StarSample":
        """Return a subset of the stars."""
        return StarSample(
            self.x[index], self.y[index], self.flux[index], self.isolation[index],
            None if self.source is None else self.source[index],
        )  # fmt: skip


@dataclass(frozen=True)
class OtherSources:
    """The sources that contaminate the rings around stars.

    Parameters
    ----------
    segments : ndarray of int, shape (ny, nx)
        Segmentation map; pixels of other sources are replaced by the mean of their ring.
    reach : int
        The sources of the map are dilated by this [pixel]: a sixth of the light of a faint star
        lies outside its isophote.
    models : StarModels, optional
        Models of all sources, in the order of their numbers; those of all but the measured star are
        subtracted.
    """

    segments: np.ndarray
    reach: int = 0
    models: StarModels | None = None


def growth_curve(
    image: MeasurementImage, stars: StarSample, fwhm: float, others: OtherSources | None = None,
    max_stars: int = 40,
) -> GrowthCurve:  # fmt: skip
    """Measure the growth curve of an image from its stars.

    The ring fluxes of each star, relative to its flux within 1.5 FWHM, are averaged with
    inverse-variance weights and clipping; a Moffat profile fitted to the rings outside 0.75 FWHM
    gives the light beyond the last one. The method follows DAOGROW (Stetson 1990, PASP 102, 932):
    rings of all stars, and an analytic profile where these are noisy.

    Parameters
    ----------
    image : MeasurementImage
    stars : StarSample
        Candidate stars.
    fwhm : float
        FWHM of stars [pixel].
    others : OtherSources, optional
        Sources to exclude from the rings.
    max_stars : int
        Maximum number of stars, the brightest first.

    Returns
    -------
    GrowthCurve
    """
    radii = RING_RADII * fwhm
    assumed = _assumed_curve(radii, fwhm)
    index, n_rings = growth_stars(stars, fwhm, image.data.shape, max_stars)
    if index.size < 2:
        return assumed
    rings = _mean_rings(image, stars.take(index), radii[:n_rings], fwhm, others)
    if rings is None:
        return assumed
    try:
        return _fit_wings(rings, fwhm, image.typical_noise)
    except (RuntimeError, ValueError):
        return assumed


def growth_stars(
    stars: StarSample, fwhm: float, shape: tuple[int, ...], max_stars: int = 40
) -> tuple[np.ndarray, int]:
    """Return the stars for a growth curve, and the number of its rings.

    Stars isolated to the last ring, in a crowded field to a nearer one; for the parameters see
    `growth_curve`.
    """
    radii = RING_RADII * fwhm
    ny, nx = shape
    edge = np.minimum.reduce([stars.x, stars.y, nx - 1 - stars.x, ny - 1 - stars.y])
    isolated, last = np.zeros(edge.size, bool), len(radii)
    for from_end, margin in LAST_RING_CHOICES:
        last = len(radii) + 1 - from_end
        far = radii[last - 1]
        isolated = (stars.isolation > far + margin * fwhm) & (edge > far + 1)
        if isolated.sum() >= MIN_ISOLATED_STARS:
            break
    index = np.flatnonzero(isolated)
    return index[np.argsort(-stars.flux[index], kind="stable")[:max_stars]], last


@dataclass(frozen=True)
class _MeanRings:
    """Mean fluxes of stars in rings, relative to their flux in the reference ring.

    Parameters
    ----------
    radii, mean : ndarray, shape (k,)
        Outer radii [pixel] and mean fluxes.
    outer : ndarray of int
        The rings to which the wings are fitted.
    error : ndarray, shape (len(outer),)
        Errors of the means.
    inverse_flux : ndarray, shape (len(outer),)
        Mean of 1 / (flux of a star), weighted as the stars are in these rings.
    n_stars : int
        Number of stars.
    """

    radii: np.ndarray
    mean: np.ndarray
    outer: np.ndarray
    error: np.ndarray
    inverse_flux: np.ndarray
    n_stars: int


def _mean_rings(
    image: MeasurementImage, stars: StarSample, radii: np.ndarray, fwhm: float,
    others: OtherSources | None,
) -> _MeanRings | None:  # fmt: skip
    """Return the mean rings of stars; None where fewer than two are bright enough."""
    flux, variance = ring_fluxes(image, stars, radii, others)
    inside = slice(None, REFERENCE_RING + 1)
    normal = flux[:, inside].sum(axis=1, keepdims=True)
    good = normal[:, 0] > MIN_STAR_SNR * np.sqrt(variance[:, inside].sum(axis=1))
    if good.sum() < 2:
        return None
    flux, variance, normal = flux[good], variance[good], normal[good]
    flux, variance = flux / normal, variance / normal**2
    mean, error = clipped_mean(flux, variance, RING_SCATTER)
    outer = np.flatnonzero(radii > WINGS_INNER_RADIUS * fwhm)
    weight = 1.0 / (variance[:, outer] + RING_SCATTER**2)
    inverse_flux = (weight / normal).sum(axis=0) / weight.sum(axis=0)
    error = np.maximum(error[outer], MIN_RING_ERROR)
    return _MeanRings(radii, mean, outer, error, inverse_flux, int(good.sum()))


def _fit_wings(rings: _MeanRings, fwhm: float, noise: float) -> GrowthCurve:
    """Fit a Moffat profile to the outer rings; the inner ones are the growth curve as measured.

    The parameters are ln(alpha), ln(beta), ln(norm), and the background error in units of
    `BACKGROUND_ERROR`.
    """
    outer_edge = rings.radii[rings.outer]
    inner_edge = np.append(0, rings.radii)[rings.outer]
    # Contribution of a background error to each ring.
    area = np.pi * (outer_edge**2 - inner_edge**2)
    lift = BACKGROUND_ERROR * noise * area * rings.inverse_flux
    measured, sigma = rings.mean[rings.outer], rings.error

    def misfit(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, beta, norm = np.exp(p[:3])
        wing = moffat_fraction(outer_edge, alpha, beta) - moffat_fraction(inner_edge, alpha, beta)
        along = [norm * (far - near) for far, near in zip(
            moffat_slopes(outer_edge, alpha, beta), moffat_slopes(inner_edge, alpha, beta),
            strict=True,
        )]  # fmt: skip
        # A weak prior on beta constrains the wings where they are all noise.
        prior = [np.log(beta / PRIOR_BETA) / PRIOR_WIDTH, p[3]]
        slopes = np.stack([*along, norm * wing, lift], axis=1) / sigma[:, None]
        return (
            np.append((norm * wing + p[3] * lift - measured) / sigma, prior),
            np.vstack([slopes, [[0, 1 / PRIOR_WIDTH, 0, 0], [0, 0, 0, 1.0]]]),
        )

    start = np.append(np.log([moffat_alpha(fwhm, PRIOR_BETA), PRIOR_BETA, 1.05]), 0.0)
    span = np.append(np.log([4.0, 6.0, 1.6]), 5.0)
    low, high = start - span, start + span
    low[1], high[1] = np.log([LEAST_BETA, GREATEST_BETA])
    best, residual, slopes = fit_bounded(misfit, start, low, high)
    reference = rings.radii[REFERENCE_RING]
    covariance = np.linalg.pinv(slopes.T @ slopes) * max(
        1.0, residual @ residual / max(1, len(rings.outer) - 2)
    )
    alpha, beta, norm = np.exp(best[:3])
    total = _total_flux(best, reference)
    step = 1e-4
    slope = np.array([
        _total_flux(best + step * e, reference) - _total_flux(best - step * e, reference)
        for e in np.eye(4)
    ])  # fmt: skip
    slope /= 2 * step
    beyond = norm * (1.0 - moffat_fraction(rings.radii[-1], alpha, beta)) / total
    variance = max(0.0, slope @ covariance @ slope) / total**2 + (EXTRAPOLATION_ERROR * beyond) ** 2
    variance += (NEIGHBOUR_ERROR * (RING_RADII[-1] * fwhm / rings.radii[-1]) ** 2) ** 2
    cumulative = np.cumsum(rings.mean)
    cumulative /= cumulative[REFERENCE_RING]
    return GrowthCurve(
        rings.radii, cumulative, float(reference), float(alpha), float(beta), float(norm),
        float(total), float(np.sqrt(variance)), rings.n_stars,
    )  # fmt: skip


def _total_flux(p: np.ndarray, reference: float) -> float:
    """Return the total flux relative to that within `reference`, from the wings' parameters."""
    return 1.0 + np.exp(p[2]) * (1.0 - moffat_fraction(reference, np.exp(p[0]), np.exp(p[1])))


def ring_fluxes(
    image: MeasurementImage, stars: StarSample, radii: np.ndarray,
    others: OtherSources | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sum rings around stars; pixels of other sources are replaced by the ring's mean.

    Parameters
    ----------
    image : MeasurementImage
    stars : StarSample
        With `source` if `others` is given.
    radii : ndarray, shape (k,)
        Outer radii [pixel]; the first ring is a disc.
    others : OtherSources, optional
        Sources to exclude from the rings.

    Returns
    -------
    flux, variance : ndarray, shape (n, k)
        Flux of each star in each ring, and its variance.
    """
    half = int(np.ceil(radii[-1])) + 2
    column, row = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    # All rings of a star are on the image: repeated pixels lie beyond them.
    where = squares_about(column, row, half, image.data.shape)
    models = others.models if others is not None else None
    tiles = (image.data if models is None else models.residual)[where]
    noise = image.noise
    options: dict[str, Any] = {
        "err": noise[where] if isinstance(noise, np.ndarray) else noise,
        "gain": image.gain or None,
    }
    if others is not None and stars.source is not None:
        if models is not None:
            tiles += models.light(stars.source - 1, half)
        around = squares_about(column, row, half + others.reach, image.data.shape)
        segments = _grown(others.segments[around], others.reach)
        options |= {"segmap": segments, "seg_id": stars.source.astype(np.int32)}
    flux = np.empty((stars.x.size, len(radii)))
    variance = np.empty_like(flux)
    dx, dy = stars.x - column, stars.y - row
    for k, (inner, outer) in enumerate(zip([0.0, *radii[:-1]], radii, strict=True)):
        flux[:, k], error = tile_sums(tiles, dx, dy, outer, inner, **options)
        variance[:, k] = error**2
    return flux, variance


def _grown(segments: np.ndarray, reach: int) -> np.ndarray:
    """Return cutouts of a segmentation map with each source dilated into empty pixels.

    Parameters
    ----------
    segments : ndarray of int, shape (n, m + 2 reach, m + 2 reach)
    reach : int
        Dilation [pixel].

    Returns
    -------
    ndarray of int, shape (n, m, m)
        Cutouts without their margins; an empty pixel gets the highest number within `reach` along
        both axes.
    """
    if not reach:
        return segments
    size = segments.shape[1] - 2 * reach
    steps = range(2 * reach + 1)
    largest = np.maximum.reduce([segments[:, k : k + size] for k in steps])
    largest = np.maximum.reduce([largest[:, :, k : k + size] for k in steps])
    own = segments[:, reach:-reach, reach:-reach]
    return np.where(own > 0, own, largest)


def _assumed_curve(radii: np.ndarray, fwhm: float) -> GrowthCurve:
    """Return the growth curve of a Moffat profile with beta = `PRIOR_BETA`."""
    reference, beta = radii[REFERENCE_RING], PRIOR_BETA
    alpha = moffat_alpha(fwhm, beta)
    light = moffat_fraction(radii, alpha, beta)
    part = float(moffat_fraction(reference, alpha, beta))
    return GrowthCurve(
        radii, light / part, float(reference), alpha, beta, 1 / part, 1 / part, ASSUMED_ERROR, 0
    )


def clipped_mean(
    values: np.ndarray, variance: np.ndarray, floor: float = 0.0, sigma: float = 3.0,
    iterations: int = 4,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the inverse-variance weighted mean of each column, with outliers clipped.

    Parameters
    ----------
    values, variance : ndarray, shape (n, k)
        Values and their variances.
    floor : float
        Added to the errors in quadrature for the weights and the clipping.
    sigma : float
        Clipping threshold, in units of the larger of the stated error and the robust scatter.

    Returns
    -------
    mean, error : ndarray, shape (k,)
        The error is the larger of the propagated one and that from the scatter.
    """
    padded = variance + floor**2
    weight = 1.0 / padded
    kept = np.ones(values.shape, bool)
    centre = np.median(values, axis=0)
    for _ in range(iterations):
        scatter = MAD_TO_SIGMA * np.median(np.abs(values - centre), axis=0)
        kept = np.abs(values - centre) <= sigma * np.maximum(np.sqrt(padded), scatter)
        w = np.where(kept, weight, 0.0)
        sum_w = np.maximum(w.sum(axis=0), 1e-300)
        centre = np.where(kept.any(axis=0), (w * values).sum(axis=0) / sum_w, centre)
    n = kept.sum(axis=0)
    spread = (w * (values - centre) ** 2).sum(axis=0) / sum_w
    stated = np.sqrt((w**2 * variance).sum(axis=0)) / sum_w
    error = np.maximum(stated, np.sqrt(spread / np.maximum(n - 1, 1)))
    return centre, error
