"""Photometry of an image: its sources, the stars among them, fluxes and point-spread function.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep; magnitudes are -2.5 log10(flux) unless a zero point is mentioned.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import sep

from lib.photometry.apertures import aperture_fluxes, pixels_at
from lib.photometry.coverage import FULL_COVERAGE, least_coverage
from lib.photometry.doubled import second_images
from lib.photometry.fieldvariation import MIN_STARS, WIDE_RADIUS, FieldVariation, fit_variation
from lib.photometry.flags import (
    FLAG_BLENDED,
    FLAG_NEIGHBOUR,
    FLAG_PARTIAL,
    FLAG_SATURATED,
    FLAG_TRUNCATED,
    FLAG_WEIGHT,
)
from lib.photometry.growth import (
    GrowthCurve,
    OtherSources,
    StarSample,
    growth_curve,
    growth_stars,
)
from lib.photometry.image import MeasurementImage
from lib.photometry.neighbours import (
    MODEL_ERROR,
    StarModels,
    faint_sources,
    hidden_sources,
    model_stars,
)
from lib.photometry.pointflux import CORE_RADIUS, core_aperture
from lib.photometry.psf import (
    CoreAperture,
    StarAperture,
    Wings,
    fit_profile,
    mean_shape,
    moffat_alpha,
    moffat_fraction,
)
from lib.photometry.saturated import saturated_stars
from lib.photometry.sources import (
    Detections,
    detect_sources,
    large_sources,
    neighbour_distance,
    select_stars,
)
from lib.photometry.superposed import superposed_sources

FWHM_OVER_SIGMA = 2.3548
"""Full width at half maximum of a Gaussian over its standard deviation."""

LEAST_HALF_LIGHT = 0.5
"""Minimum half-light radius of a star [pixel]; smaller ones are replaced by 1."""

ASSUMED_HALF_LIGHT = 2.0
"""Half-light radius assumed where no source gives it [pixel]."""

WIDEST_PROFILE = 3.0
"""Maximum FWHM of a fitted profile [half-light radii]: wider fits are not of stars."""

STELLAR_LOCUS = 0.3
"""Maximum deviation of the half-light radius of a point source from that of stars [ln]."""

VARYING_MODELS = 40.0
"""Relative error of the models of stars, in units of the variation of the light in their
apertures."""

LARGEST_MODEL_ERROR = 2.0
"""Upper bound of that error."""

MOST_LIGHT = 0.6
"""Maximum part of the light of a galaxy or a nebula that the aperture of a star holds."""

MAX_LIGHT_DIFFERENCE = 0.01
"""Maximum difference [ln] between the light in the aperture of a star that some frames cover and
that of the others, for its residuals to be searched for neighbours."""

ISOLATION_MARGIN = 1.0
"""[FWHM] Minimum distance, beyond its aperture, of the next star from one whose light is
measured."""

LARGEST_BLEND = 1.22
"""Maximum half-light radius, relative to a star, of a star with a hidden neighbour of a fifth of
its light; larger sources are discs, whose residuals are no neighbours."""


@dataclass(frozen=True)
class FieldSettings:
    """Settings of the detection and measurement of the sources of an image.

    Parameters
    ----------
    threshold : float
        Detection threshold [noise of a pixel], after smoothing with a small kernel.
    min_area : int
        Minimum number of connected pixels above the threshold.
    aperture : float
        Radius of the aperture of the photometry [FWHM].
    min_snr : float
        Minimum signal-to-noise ratio of a star used to measure the point-spread function.
    """

    threshold: float = 3.0
    min_area: int = 5
    aperture: float = 1.5
    min_snr: float = 20.0


@dataclass(frozen=True)
class StellarProfile:
    """The profile of the stars of an image.

    Parameters
    ----------
    half_light : float
        Half-light radius [pixel].
    fwhm : float
        [pixel].
    beta : float
        Exponent of the Moffat profile; NaN where none could be fitted.
    ellipticity : float
        Median 1 - b/a; NaN without stars.
    shape : tuple of float
        Mean ellipticity, see `lib.photometry.psf.mean_shape`.
    aperture : float
        Radius of the aperture of the photometry [pixel].
    """

    half_light: float
    fwhm: float
    beta: float
    ellipticity: float
    shape: tuple[float, float]
    aperture: float

    def star_aperture(self, radius: float) -> StarAperture:
        """Return an aperture and the wings of a star, from the profile without growth curve."""
        beta = self.beta if np.isfinite(self.beta) else 3.0
        alpha = moffat_alpha(self.fwhm, beta)
        fraction = float(moffat_fraction(radius, alpha, beta))
        return StarAperture(radius, fraction, Wings(alpha, beta, 1.0, *self.shape))


@dataclass(frozen=True)
class DescribedSources:
    """Sources of an image, each measured by itself, its neighbours' light included.

    Parameters
    ----------
    sources : structured ndarray, shape (n,)
        As returned by `detect_sources`; x and y are windowed positions.
    stars : ndarray of bool, shape (n,)
        Unsaturated, undisturbed sources on the stellar locus.
    flags : ndarray of int32, shape (n,)
        Those of sep and of `lib.photometry.flags`.
    half_light : ndarray, shape (n,)
        Half-light radii [pixel]; NaN where not measured.
    isophotal : ndarray, shape (n,)
        Isophotal fluxes.
    flux, error : ndarray, shape (n,)
        Fluxes and errors in the aperture of the profile.
    profile : StellarProfile
        Profile of the stars.
    """

    sources: np.ndarray
    stars: np.ndarray
    flags: np.ndarray
    half_light: np.ndarray
    isophotal: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    profile: StellarProfile

    def joined(self, more: "DescribedSources") -> "DescribedSources":
        """Return these sources followed by others, which have the same stellar profile."""
        return DescribedSources(
            sources=np.concatenate([self.sources, more.sources]),
            stars=np.concatenate([self.stars, more.stars]),
            flags=np.concatenate([self.flags, more.flags]),
            half_light=np.concatenate([self.half_light, more.half_light]),
            isophotal=np.concatenate([self.isophotal, more.isophotal]),
            flux=np.concatenate([self.flux, more.flux]),
            error=np.concatenate([self.error, more.error]),
            profile=self.profile,
        )


@dataclass(frozen=True)
class StarField:
    """Sources of an image, which of them are stars, and the point-spread function.

    Parameters
    ----------
    sources, stars, half_light, profile
        As for `DescribedSources`.
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map: number (from 1) of the source of each pixel, 0 for none.
    flags : ndarray of int32, shape (n,)
        Those of sep and of `lib.photometry.flags`.
    isolation : ndarray, shape (n,)
        Distance to the nearest significant neighbour [pixel].
    flux, error : ndarray, shape (n,)
        Flux and error within `aperture`, with the light of the other sources subtracted.
    growth : GrowthCurve
        Growth curve of the stars.
    core : CoreAperture
        The inner aperture.
    core_flux : ndarray, shape (n,)
        As `flux`, within the radius of `core`.
    residual : ndarray of float32, shape (ny, nx)
        The image with the models of its stars subtracted.
    lost_error : ndarray, shape (n,)
        Additional relative errors of fluxes: those measured around a saturated core, those
        corrected for the variation of the profile, and those of sources that only some frames
        cover; 0 for the others. NaN where the core is lost and its surroundings tell no flux.
    variation : FieldVariation or None
        Variation of the profile over the field by which `core_flux` or `flux`, whichever varies
        more, was corrected; None where none is significant.
    place_error : ndarray, shape (n,)
        Errors of positions that the light around a saturated core tells, averaged over both axes
        [pixel]; NaN for the other sources.
    """

    sources: np.ndarray
    segments: np.ndarray
    stars: np.ndarray
    flags: np.ndarray
    half_light: np.ndarray
    isolation: np.ndarray
    profile: StellarProfile
    flux: np.ndarray
    error: np.ndarray
    growth: GrowthCurve
    core: CoreAperture
    core_flux: np.ndarray
    residual: np.ndarray
    lost_error: np.ndarray
    variation: FieldVariation | None
    place_error: np.ndarray

    def star_aperture(self) -> StarAperture:
        """Return the aperture of `flux`, with its core."""
        return replace(self.growth.aperture(self.aperture, self.profile.shape), core=self.core)

    def core_with_noise(
        self, pixel: float, ratio: Callable[[float], float | np.ndarray], gain: float
    ) -> CoreAperture:
        """Return the inner aperture, remeasured with the actual noise of apertures.

        Parameters
        ----------
        pixel : float
            Noise of a pixel.
        ratio : callable
            Takes a radius [pixel]; returns the noise in such apertures over that of independent
            pixels.
        gain : float
        """
        radii = (self.core.radius, self.aperture)
        noise = [pixel * float(ratio(radius)) * np.sqrt(np.pi) * radius for radius in radii]
        inner, outer = (float(self.growth.fraction(radius)) for radius in radii)
        core, flux = self.core_flux[self.stars], self.flux[self.stars]
        return core_aperture(radii[0], core, flux, np.array(noise), outer, inner, gain)

    @property
    def fwhm(self) -> float:
        """FWHM of the stars [pixel]."""
        return self.profile.fwhm

    @property
    def aperture(self) -> float:
        """Radius of the aperture of `flux` [pixel]."""
        return self.profile.aperture

    @property
    def total(self) -> np.ndarray:
        """Total fluxes for point sources, shape (n,)."""
        return self.flux / float(self.growth.fraction(self.aperture))

    @property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratios within the aperture, shape (n,)."""
        return self.flux / self.error

    @property
    def size_ratio(self) -> np.ndarray:
        """Half-light radii over that of a star, shape (n,)."""
        return self.half_light / self.profile.half_light

    @property
    def point_like(self) -> np.ndarray:
        """Which sources have the size of a star, ndarray of bool, shape (n,)."""
        return np.abs(np.log(np.maximum(self.size_ratio, 1e-3))) < STELLAR_LOCUS

    @property
    def extended(self) -> np.ndarray:
        """Pixels of large sources that are no stars, ndarray of bool, shape (ny, nx).

        The wings of a bright star, saturated or not, make it as large, but most of its light is in
        the aperture.
        """
        large = large_sources(self.segments, len(self.sources), self.fwhm)
        large[1:] &= self.flux < MOST_LIGHT * self.sources["flux"]
        large[1:] &= (self.flags & FLAG_SATURATED) == 0
        return large[self.segments]


def measure_field(
    image: MeasurementImage, settings: FieldSettings | None = None, *, find_hidden: bool = True,
    detected: Detections | None = None,
) -> StarField | None:  # fmt: skip
    """Detect the sources of an image and measure its point-spread function from the stars.

    Parameters
    ----------
    image : MeasurementImage
    settings : FieldSettings, optional
        Settings of detection and measurement.
    find_hidden : bool
        Whether to search for neighbours that the detection did not separate from stars. They raise
        the growth curve by a few thousandths. Without the search, sources that are not used as
        stars keep their positions from the detection, and have no half-light radius.
    detected : Detections, optional
        Result of `detect_sources`, if known.

    Returns
    -------
    StarField, or None where nothing is found.
    """
    settings = settings or FieldSettings()
    sources, segments = detected or detect_sources(
        image.data, image.noise, None, settings.threshold, settings.min_area
    )
    if len(sources) == 0:
        return None
    described = describe_sources(image, sources, settings, measure_faint=find_hidden)
    field, models = separate_stars(image, segments, described)
    if not find_hidden:
        return field
    # Repeated, with a growth curve less contaminated by neighbours.
    field, models = separate_stars(image, segments, described, field.growth)
    rounds = 0
    for found in _undetected(image, field, models):
        if len(found.sources):
            segments = np.where(
                found.segments > 0, found.segments + len(described.sources), segments
            )
            more = describe_sources(image, found.sources, settings, profile=described.profile)
            described = described.joined(more)
            rounds = max(rounds, 2 if np.any(found.sources["flag"] & FLAG_BLENDED) else 1)
    for _ in range(rounds):
        field, _ = separate_stars(image, segments, described, field.growth)
    return field


def _undetected(image: MeasurementImage, field: StarField, models: StarModels) -> list[Detections]:
    """Return sources that the detection missed, in the image without its stars.

    These are neighbours of stars, faint stars, and stars before larger sources, in this order.
    """
    profile, segments = field.profile, field.segments
    point = field.point_like & (field.size_ratio < LARGEST_BLEND)
    point &= (field.flags & (FLAG_SATURATED | FLAG_TRUNCATED)) == 0
    if image.coverage is not None:
        x, y, stars = field.sources["x"], field.sources["y"], np.flatnonzero(field.stars)
        factor, _ = image.coverage.correction(x, y, field.aperture, stars)
        point &= np.abs(np.log(factor)) < MAX_LIGHT_DIFFERENCE
    # A profile that varies in the core varies more in the wings.
    varying = field.variation.rms if field.variation else 0.0
    error = min(MODEL_ERROR + VARYING_MODELS * varying, LARGEST_MODEL_ERROR)
    hidden = hidden_sources(models, image, point, segments, profile.fwhm, model_error=error)
    x, y, light = (
        np.append(field.sources[key][field.stars], hidden.sources[key])
        for key in ("x", "y", "flux")
    )
    if second_images(x, y, light, profile.fwhm, shortest=0.5, least_ratio=0.01):
        # A companion that all stars have is part of their profile.
        hidden = Detections(hidden.sources[:0], np.zeros_like(hidden.segments))
    taken = np.where(hidden.segments > 0, hidden.segments + len(point), segments)
    faint = faint_sources(models.residual, image, taken, profile.fwhm)
    known = np.concatenate([field.sources, hidden.sources])
    before = superposed_sources(
        models.residual, image, field.extended, known, profile.fwhm, field.growth
    )
    for blended in (hidden, before):
        blended.sources["flag"] |= FLAG_BLENDED
    return [hidden, faint, before]


def describe_sources(
    image: MeasurementImage, sources: np.ndarray, settings: FieldSettings, *,
    measure_faint: bool = True, profile: StellarProfile | None = None,
) -> DescribedSources:  # fmt: skip
    """Measure sources one by one, and the profile of the stars among them.

    Parameters
    ----------
    image : MeasurementImage
    sources : structured ndarray, shape (n,)
        As returned by `detect_sources`.
    settings : FieldSettings
        Settings of the measurement.
    measure_faint : bool
        Whether sources fainter than `min_snr` get half-light radii and windowed positions, too.
    profile : StellarProfile, optional
        Profile of the stars if known from other sources of the image: then none of these is a star.

    Returns
    -------
    DescribedSources
    """
    sources = sources.copy()
    isophotal = np.maximum(sources["flux"], 1e-30)
    snr = isophotal / np.sqrt(sources["npix"] * image.typical_noise**2 + isophotal / image.gain)
    bright = np.flatnonzero(snr > settings.min_snr)
    all_sources = measure_faint or profile is not None
    measured = np.arange(len(sources)) if all_sources else bright
    saturated = np.where(sources["peak"] >= image.saturate, FLAG_SATURATED, 0)
    if image.cores is not None:
        on_core = _on_cores(image.cores, sources["x"], sources["y"])
        saturated = np.where(on_core, FLAG_SATURATED, saturated)
    flags = sources["flag"].astype(np.int32) | saturated.astype(np.int32)
    half_light = np.full(len(sources), np.nan)
    bad_core = np.zeros(len(sources), int)
    if profile is not None:
        star_size = profile.half_light
    else:
        # An accuracy of a per cent is enough to separate stars from galaxies.
        _measure_half_light(image.data, sources, bright, half_light, subpix=2)
        bad_core = _bad_core(image, sources, half_light)
        star_size = _star_size(image, sources, half_light, snr, flags | bad_core, settings)
    _centre_on_windows(image.data, sources, measured, star_size)
    if all_sources:
        _measure_half_light(image.data, sources, measured, half_light, subpix=5)
        bad_core = _bad_core(image, sources, half_light)
    flags |= bad_core
    stars = np.zeros(len(sources), bool)
    if profile is None:
        stars, again = select_stars(
            half_light, snr, flags, sources["peak"], image.saturate, min_snr=settings.min_snr
        )
        star_size = again if again > LEAST_HALF_LIGHT else star_size
        if image.coverage is not None:
            part = image.coverage.part(sources["x"], sources["y"])
            stars &= part >= least_coverage(part[stars])
        profile = _stellar_profile(
            image.data, sources[stars], isophotal[stars], star_size, settings
        )
    flux, error, aperture_flags = aperture_fluxes(
        image, sources["x"], sources["y"], [profile.aperture]
    )
    flags |= aperture_flags[:, 0]
    if image.coverage is not None:
        part = image.coverage.part(sources["x"], sources["y"])
        flags |= np.where(part < FULL_COVERAGE, FLAG_PARTIAL, 0).astype(np.int32)
    return DescribedSources(
        sources, stars, flags, half_light, isophotal, flux[:, 0], error[:, 0], profile
    )


def _measure_half_light(
    image: np.ndarray, sources: np.ndarray, rows: np.ndarray, half_light: np.ndarray, subpix: int
) -> None:
    """Measure the half-light radii of some sources, in place.

    The total is the flux in an aperture of nearly all of the isophotal size.
    """
    reach = np.clip(6.0 * sources["a"][rows], 4.0, 0.1 * max(image.shape))
    half_light[rows], _ = sep.flux_radius(
        image, sources["x"][rows], sources["y"][rows], reach, 0.5, subpix=subpix
    )


def _bad_core(image: MeasurementImage, sources: np.ndarray, half_light: np.ndarray) -> np.ndarray:
    """Return FLAG_WEIGHT for sources with a bad pixel in their core, 0 for others."""
    core = np.clip(1.5 * np.nan_to_num(half_light), 1.5, 20.0)
    in_core, _, _ = sep.sum_circle(image.bad_fraction, sources["x"], sources["y"], core, subpix=1)
    return np.where(in_core > 0, FLAG_WEIGHT, 0)


def _star_size(
    image: MeasurementImage, sources: np.ndarray, half_light: np.ndarray, snr: np.ndarray,
    flags: np.ndarray, settings: FieldSettings,
) -> float:  # fmt: skip
    """Return the half-light radius of stars, or of all sources where there are no stars [pixel]."""
    _, size = select_stars(
        half_light, snr, flags, sources["peak"], image.saturate, min_snr=settings.min_snr
    )
    if not np.isfinite(size):  # the best available, so that the frame has numbers at all
        usable = np.isfinite(half_light) & ((flags & (FLAG_SATURATED | FLAG_WEIGHT)) == 0)
        size = float(np.median(half_light[usable])) if usable.any() else ASSUMED_HALF_LIGHT
    return size if size > LEAST_HALF_LIGHT else 1.0


def _centre_on_windows(
    image: np.ndarray, sources: np.ndarray, rows: np.ndarray, star_size: float
) -> None:
    """Replace the positions of some sources by windowed centroids, in place.

    They are those of source-extractor's XWIN_IMAGE.
    """
    x, y = sources["x"][rows], sources["y"][rows]
    # Pixels on the rim have weight e^-8: no subsampling needed.
    sigma = np.full(rows.size, 2.0 * star_size / FWHM_OVER_SIGMA)
    x_window, y_window, failed = sep.winpos(image, x, y, sigma, subpix=1)
    shift = np.hypot(x_window - x, y_window - y)
    moved = (failed == 0) & (shift < max(1.0, star_size))
    sources["x"][rows[moved]] = x_window[moved]
    sources["y"][rows[moved]] = y_window[moved]


def _stellar_profile(
    image: np.ndarray, stars: np.ndarray, flux: np.ndarray, half_light: float,
    settings: FieldSettings,
) -> StellarProfile:  # fmt: skip
    """Return the profile of stars, from their half-light radius where no Moffat profile fits."""
    fwhm, beta = fit_profile(image, stars["x"], stars["y"], flux, 2.0 * half_light)
    # The FWHM of a profile that falls outwards is at most that of a disc, 2.8 half-light radii.
    if not fwhm < WIDEST_PROFILE * half_light:
        fwhm, beta = 2.0 * half_light, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        elongation = 1.0 - stars["b"] / stars["a"]
    ellipticity = float(np.median(elongation)) if len(stars) else np.nan
    shape = mean_shape(stars["a"], stars["b"], stars["theta"])
    return StellarProfile(half_light, fwhm, beta, ellipticity, shape, settings.aperture * fwhm)


def _on_cores(cores: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which sources lie on the core of a saturated star."""
    return cores[pixels_at(x, y, cores.shape)]


def _correct_variation(
    image: MeasurementImage, models: StarModels, alone: np.ndarray, fwhm: float,
    parts: list[tuple[float, np.ndarray]], curve: np.ndarray,
) -> tuple[FieldVariation | None, np.ndarray]:  # fmt: skip
    """Correct fluxes in apertures for the variation of the profile over the field, in place.

    Parameters
    ----------
    image : MeasurementImage
    models : StarModels
    alone : ndarray of int
        Isolated stars, which determine the variation.
    fwhm : float
        [pixel].
    parts : list of (float, ndarray)
        Radius [pixel] and fluxes of all sources, for each aperture.
    curve : ndarray of int
        The stars of the growth curve, whose mean profile is the reference.

    Returns
    -------
    variation : FieldVariation or None
        The larger of the variations.
    error : ndarray, shape (n,)
        Relative errors of that correction.
    """
    none = np.zeros(models.x.size)
    if alone.size < MIN_STARS[0]:
        return None, none
    x, y, reach = models.x, models.y, WIDE_RADIUS * fwhm
    inside = np.minimum.reduce([x, y, image.data.shape[1] - 1 - x, image.data.shape[0] - 1 - y])
    alone = alone[inside[alone] > reach]
    wide = models.apertures(reach, alone)
    sky = image.typical_noise * np.sqrt(np.pi) * reach
    photons = np.maximum(wide, 0) / image.gain if image.gain else 0.0 * wide
    with np.errstate(divide="ignore", invalid="ignore"):
        # The noise of a fraction p is that of the light outside, the photons of 1 - p.
        found = [
            fit_variation(
                x[alone], y[alone], flux[alone] / wide,
                np.sqrt(sky**2 + photons * (1 - np.clip(flux[alone] / wide, 0, 1)))
                / np.where(wide > 0, wide, np.nan),
            )
            for _, flux in parts
        ]  # fmt: skip
    if found[0] is None and found[1] is None:
        return None, none
    error = none
    for (_, flux), variation in zip(parts, found, strict=True):
        if variation is not None:
            factor, own = variation.centred_on(x[curve], y[curve]).at(x, y)
            flux /= factor
            error = np.maximum(error, own)
    return max((one for one in found if one), key=lambda one: one.rms), error


def _correct_coverage(
    image: MeasurementImage, x: np.ndarray, y: np.ndarray, parts: list[tuple[float, np.ndarray]],
    stars: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Correct fluxes of sources that only some of the frames cover, in place.

    The reference is the mean profile of `stars`, those of the growth curve; for `parts` see
    `_correct_variation`.

    Returns
    -------
    ndarray, shape (n,)
        Relative errors of the correction.
    """
    error = np.zeros(len(x))
    if image.coverage is None or not len(x):
        return error
    for radius, flux in parts:
        factor, own = image.coverage.correction(x, y, radius, stars)
        flux /= factor
        error = np.maximum(error, own)
    return error


def separate_stars(
    image: MeasurementImage, segments: np.ndarray, described: DescribedSources,
    growth: GrowthCurve | None = None,
) -> tuple[StarField, StarModels]:  # fmt: skip
    """Subtract the light of the other sources from each, and measure the growth curve.

    Parameters
    ----------
    image : MeasurementImage
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map.
    described : DescribedSources
        The sources, measured by themselves.
    growth : GrowthCurve, optional
        Growth curve with which the sources are modelled; without it the profile of the stars is
        used.

    Returns
    -------
    StarField
    lib.photometry.neighbours.StarModels
    """
    profile = described.profile
    x, y = described.sources["x"], described.sources["y"]
    isolation = neighbour_distance(x, y, described.isophotal)
    near = np.where(isolation < profile.aperture + profile.fwhm, FLAG_NEIGHBOUR, 0)
    # The models are fitted to the cores, which are least contaminated by neighbours.
    radius = CORE_RADIUS * profile.fwhm
    if growth is not None:
        inner = growth.aperture(radius, profile.shape)
    else:
        inner = profile.star_aperture(radius)
    sums, error, _ = aperture_fluxes(image, x, y, [radius])
    total, total_error, place_error = np.full((3, x.size), np.nan)
    saturated = np.empty(0, int)
    if growth is not None and image.cores is not None:
        saturated = np.flatnonzero(_on_cores(image.cores, x, y))
        bright = np.flatnonzero(described.stars & (near == 0))
        bright = bright[np.argsort(-described.isophotal[bright], kind="stable")]
        lost = saturated_stars(image, x, y, saturated, growth, profile.fwhm, bright)
        x, y, place_error = lost.x, lost.y, lost.place_error
        total, total_error = lost.flux, lost.error
    told = np.isfinite(total)
    sums[told, 0] = total[told] * inner.fraction
    models = model_stars(
        image.data, image.typical_noise, x, y, sums[:, 0], error[:, 0], inner, profile.aperture
    )
    flux = models.apertures(profile.aperture)
    index = np.flatnonzero(described.stars)
    sample = StarSample(x[index], y[index], described.isophotal[index], isolation[index], index + 1)
    others = OtherSources(segments, int(np.ceil(profile.fwhm)), models)
    growth = growth_curve(image, sample, profile.fwhm, others)
    core_flux = models.apertures(radius)
    alone = index[isolation[index] > (WIDE_RADIUS + ISOLATION_MARGIN) * profile.fwhm]
    parts = [(profile.aperture, flux), (radius, core_flux)]
    partial_error = _correct_coverage(image, x, y, parts, index)
    curve = index[growth_stars(sample, profile.fwhm, image.data.shape)[0]]
    variation, field_error = _correct_variation(image, models, alone, profile.fwhm, parts, curve)
    flux[told] = total[told] * float(growth.fraction(profile.aperture))
    core_flux[told] = total[told] * float(growth.fraction(radius))
    core = core_aperture(
        radius, core_flux[index], flux[index],
        image.typical_noise * np.sqrt(np.pi) * np.array([radius, profile.aperture]),
        float(growth.fraction(profile.aperture)), float(growth.fraction(radius)), image.gain,
    )  # fmt: skip
    lost_error = np.where(told, total_error / total, np.hypot(field_error, partial_error))
    lost_error[saturated[~told[saturated]]] = np.nan
    sources = described.sources.copy()
    sources["x"], sources["y"] = x, y
    field = StarField(
        sources, segments, described.stars, described.flags | near,
        described.half_light, isolation, profile, flux, described.error, growth, core, core_flux,
        models.residual, lost_error, variation, place_error,
    )  # fmt: skip
    return field, models
