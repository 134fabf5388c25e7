"""Noise and depth of a coadd, measured in source-free apertures."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from astropy.wcs import WCS

from lib.core.settings import StackSettings
from lib.photometry.backgroundmesh import background, background_without, grow
from lib.photometry.coverage import FrameCoverage
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area
from lib.photometry.image import MeasurementImage
from lib.photometry.injection import detect_above_background
from lib.photometry.measuredcoadd import (
    OCCUPIED_MARGIN,
    CoaddNoise,
    MeasuredCoadd,
    subtract_mesh,
)
from lib.photometry.skystructure import structure_of
from lib.photometry.sources import Detections, detect_sources
from lib.photometry.starfield import FieldSettings, StarField, measure_field
from lib.photometry.underlying import UnderlyingLight
from lib.stack.lostpixels import LostPixels, find_lost_pixels, lift_cores

NEGLIGIBLE_LIFT = 0.05
"""[noise of a pixel] Changes of the background below this leave the detected sources the same,
except some of S/N 2, which are not in the table."""

MIN_APERTURES = 30
"""Minimum number of empty apertures for a noise measurement."""

FWHM_WITHOUT_STARS = 3.0
"""[pixel] FWHM assumed where no source is found."""

LIMIT_RADIUS = 0.75
"""[FWHM] Radius of the apertures of the limiting magnitude."""

LIMIT_SNR = 5.0
"""Signal-to-noise ratio of a star at the limiting magnitude."""


def measure_coadd(
    image: np.ndarray,
    weight: np.ndarray,
    *,
    wcs: WCS,
    scale: float,
    gain: float,
    saturate: float,
    settings: StackSettings,
    coverage: FrameCoverage | None = None,
) -> MeasuredCoadd:
    """Measure the background, the sources and the noise of a coadd.

    Resampling correlates neighbouring pixels, so that the noise of single pixels underestimates
    that of sums over many. The variance map is scaled such that its sum over an aperture of one
    FWHM radius is the variance of the fluxes in empty apertures.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Coadd with its background, and weights known up to a factor.
    wcs : astropy.wcs.WCS
        WCS of the coadd.
    scale : float
        Pixel scale [arcsec/pixel].
    gain : float
        Electrons per unit.
    saturate : float
        Saturation level.
    settings : StackSettings
        Settings of the step.
    coverage : FrameCoverage, optional
        Which frames cover each position.

    Returns
    -------
    MeasuredCoadd
    """
    covered = weight > 0
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    lost = find_lost_pixels(image, weight, saturate)
    seen = SeenPixels(lift_cores(image, lost, saturate), covered, lost, coverage)
    noise_map, pixel_noise, detected = _detect(seen, weight, variance, settings)
    clean, mesh, field, structure = _separate_background(
        seen, noise_map, detected, saturate, gain, settings
    )
    occupied = ~covered
    fwhm = FWHM_WITHOUT_STARS
    if field is not None:
        fwhm = field.fwhm
        occupied |= grow(field.segments > 0, int(np.ceil(OCCUPIED_MARGIN * fwhm)))
    level = clean if structure is None else clean - structure
    factor, noise = _calibrate_noise(
        level, variance, occupied, fwhm, settings.apertures, pixel_noise
    )
    variance *= factor**2
    if field is not None:
        pixel = float(np.sqrt(np.median(variance[covered])))
        field = replace(field, core=field.core_with_noise(pixel, noise.ratio, gain))
    return MeasuredCoadd(
        clean, variance, covered, occupied, mesh, field, noise, wcs, scale, gain, coverage,
        structure=structure,
    )  # fmt: skip


def measure_alike(
    image: np.ndarray, weight: np.ndarray, wcs: WCS, like: MeasuredCoadd, settings: StackSettings
) -> MeasuredCoadd:
    """Measure background and noise of a coadd without stars, using the profile of another coadd.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        As for `measure_coadd`.
    wcs : astropy.wcs.WCS
        WCS of the coadd.
    like : MeasuredCoadd
        Coadd of the same frames, with their stars.
    settings : StackSettings
        Settings of the step.

    Returns
    -------
    MeasuredCoadd
        Its `field` is that of `like`, of which only the profile is meaningful: the sources are
        elsewhere.
    """
    covered = weight > 0
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    seen = SeenPixels(image, covered, find_lost_pixels(image, weight, np.inf))
    _, pixel_noise, detected = _detect(seen, weight, variance, settings)
    mesh = background_without(image, ~covered, detected.segments, settings.background_box)
    clean = subtract_mesh(image, mesh, covered)
    fwhm = like.field.fwhm if like.field is not None else FWHM_WITHOUT_STARS
    occupied = ~covered | grow(detected.segments > 0, int(np.ceil(OCCUPIED_MARGIN * fwhm)))
    factor, noise = _calibrate_noise(
        clean, variance, occupied, fwhm, settings.apertures, pixel_noise
    )
    variance *= factor**2
    return MeasuredCoadd(
        clean, variance, covered, occupied, mesh, like.field, noise, wcs, like.scale, like.gain
    )


@dataclass(frozen=True)
class SeenPixels:
    """A coadd, with the validity of its pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        The coadd.
    covered : ndarray of bool, shape (ny, nx)
        Pixels with weight.
    lost : LostPixels
        Pixels without weight inside the frames.
    coverage : FrameCoverage, optional
        Which frames cover each position.
    """

    image: np.ndarray
    covered: np.ndarray
    lost: LostPixels
    coverage: FrameCoverage | None = None

    @cached_property
    def shown(self) -> np.ndarray:
        """Pixels that have a value, with or without weight."""
        return self.covered | self.lost.shown

    def measurement_image(
        self, clean: np.ndarray, noise: np.ndarray, gain: float, saturate: float
    ) -> MeasurementImage:
        """Return the background-subtracted image on which sources are measured."""
        bad = ~self.covered & ~self.lost.cores
        partial = self.coverage if self.coverage and self.coverage.partial else None
        return MeasurementImage(clean, noise, bad, gain, saturate, self.lost.cores, partial)


def detection_settings(settings: StackSettings) -> FieldSettings:
    """Return the settings for detection and measurement of the sources of a coadd."""
    return FieldSettings(
        settings.catalogue_sigma, settings.min_area, settings.aperture, settings.star_snr
    )


def _detect(
    seen: SeenPixels, weight: np.ndarray, variance: np.ndarray, settings: StackSettings
) -> tuple[np.ndarray, float, Detections]:
    """Return the noise map, the noise of a pixel over that by the weights, and the detections."""
    covered = seen.covered
    level, _ = background(seen.image, ~covered, settings.background_box)
    clean = np.where(seen.shown, seen.image - level, 0).astype(np.float32)
    # The image is 0 outside the coverage; the noise there only prevents a division by zero.
    _, pixel_noise = background(clean * np.sqrt(weight), ~covered, settings.background_box)
    pixel_noise = pixel_noise if pixel_noise > 0 else 1.0
    worst = float(np.sqrt(variance.max()))
    noise = np.where(covered, np.sqrt(variance) * pixel_noise, worst).astype(np.float32)
    detected = detect_sources(clean, noise, None, settings.catalogue_sigma, settings.min_area)
    return noise, pixel_noise, detected


def _separate_background(
    seen: SeenPixels,
    noise: np.ndarray,
    detected: Detections,
    saturate: float,
    gain: float,
    settings: StackSettings,
) -> tuple[np.ndarray, np.ndarray, StarField | None, np.ndarray | None]:
    """Return the background-subtracted image, the background mesh, the sources, and the structure.

    See `lib.photometry.skystructure.structure_of`.
    """
    how = detection_settings(settings)
    # Repeated with the sources masked: their wings raise the background by a fraction of the
    # noise that amounts to a per cent of the total flux of faint stars.
    image, covered = seen.image, seen.covered
    mesh = background_without(image, ~covered, detected.segments, settings.background_box)
    clean = subtract_mesh(image, mesh, seen.shown)
    to_measure = seen.measurement_image(clean, noise, gain, saturate)
    field = measure_field(to_measure, how, find_hidden=False, detected=detected)
    if field is None:
        return clean, mesh, None, None
    # Without the wings of the stars outside their masks, too, which in a crowded field would
    # count as sky.
    lift = background_without(field.residual, ~covered, field.segments, settings.background_box)
    mesh = mesh + lift
    clean = subtract_mesh(image, mesh, seen.shown)
    same = np.abs(lift).max() < NEGLIGIBLE_LIFT * to_measure.typical_noise
    to_measure = seen.measurement_image(clean, noise, gain, saturate)
    if not same:
        # Detection above the common light of crowded stars, where these still separate.
        detected = detect_above_background(to_measure, how, settings.background_box)
    field = measure_field(to_measure, how, detected=detected) or field
    under = UnderlyingLight.of(field)
    structure = structure_of(field, under, seen.shown)
    return clean, mesh, under.recentred(field, clean), structure


def _calibrate_noise(
    clean: np.ndarray,
    variance: np.ndarray,
    occupied: np.ndarray,
    fwhm: float,
    apertures: tuple[float, ...],
    pixel_noise: float,
) -> tuple[float, CoaddNoise]:
    """Return the noise in apertures of one FWHM over that by the map, and at all radii."""
    radii = np.unique([0.5, 1.0, *apertures]) * fwhm
    ratios = np.full(radii.size, np.nan)
    number, factor = 0, 1.0
    total = summed_area(occupied)
    for k, radius in enumerate(radii):
        x, y = empty_apertures(total, radius, seed=k + 1)
        if x.size >= MIN_APERTURES:
            _, ratios[k] = aperture_noise(clean, variance, x, y, radius)
            if radius == fwhm:
                number = int(x.size)
                # Whole pixels, so that the sum of the map is the variance for independent pixels.
                _, factor = aperture_noise(clean, variance, x, y, radius, subpix=1)
    ratios = larger_apertures(radii, ratios / factor)
    correlation = (factor / pixel_noise) ** 2
    return factor, CoaddNoise(radii, ratios, fwhm, number, 1.0 / factor**2, correlation)


def larger_apertures(radii: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Extrapolate noise ratios to apertures for which a crowded field has no room.

    The noise of independent pixels grows as the radius, that of fully correlated pixels as its
    square; the ratio therefore grows as a power of the radius between 0 and 1, fitted to the
    largest radii measured.

    Parameters
    ----------
    radii, ratios : ndarray, shape (n,)
        Radii, ascending, and the ratio of the noise to that by the variance map; NaN where not
        measured.

    Returns
    -------
    ndarray, shape (n,)
        Ratios; 1 if none was measured.
    """
    known = np.flatnonzero(np.isfinite(ratios) & (ratios > 0))
    if known.size == 0:
        return np.ones(len(radii))
    last = known[-1]
    power = 0.0
    if known.size > 1:
        first = known[-2]
        power = np.log(ratios[last] / ratios[first]) / np.log(radii[last] / radii[first])
    beyond = ratios[last] * (radii / radii[last]) ** np.clip(power, 0, 1)
    inside = np.interp(radii, radii[known], ratios[known])
    return np.where(radii > radii[last], beyond, inside)


@dataclass(frozen=True)
class FluxLimit:
    """Depth of a coadd for point sources.

    Parameters
    ----------
    flux : float
        Total flux of a star at 5 sigma; NaN where there is room for fewer than `MIN_APERTURES`.
    radius : float
        Radius of the apertures [pixel].
    apertures : int
        Number of empty apertures measured.
    """

    flux: float
    radius: float
    apertures: int


def limiting_flux(coadd: MeasuredCoadd, seed: int = 7) -> FluxLimit:
    """Measure the 5 sigma limit for point sources in empty apertures of 0.75 FWHM radius.

    Only pixels with at least half of the median weight are used.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd.
    seed : int
        Seed of the positions of the apertures.

    Returns
    -------
    FluxLimit
    """
    field = coadd.field
    if field is None:
        return FluxLimit(np.nan, np.nan, 0)
    radius = LIMIT_RADIUS * field.fwhm
    variance, covered = coadd.variance, coadd.covered
    shallow = ~covered | (variance > 2 * np.median(variance[covered]))
    x, y = empty_apertures(summed_area(coadd.occupied | shallow), radius, seed=seed)
    if x.size < MIN_APERTURES:
        return FluxLimit(np.nan, radius, int(x.size))
    sigma, _ = aperture_noise(coadd.without_structure, variance, x, y, radius)
    fraction = float(field.growth.fraction(radius))
    return FluxLimit(LIMIT_SNR * sigma / fraction, radius, int(x.size))
