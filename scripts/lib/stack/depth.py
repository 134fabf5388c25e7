"""Noise and depth of a coadd, measured in its empty apertures."""

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
from lib.photometry.measuredcoadd import CoaddNoise, MeasuredCoadd, subtract_mesh
from lib.photometry.sources import Detections, detect_sources
from lib.photometry.starfield import FieldSettings, StarField, measure_field
from lib.stack.lostpixels import LostPixels, find_lost_pixels, lift_cores

NEGLIGIBLE_LIFT = 0.05
"""[noise of a pixel] A background that changes by less finds the same sources, but for some of
S/N 2, which the table leaves out."""

MIN_APERTURES = 30
"""Fewer empty apertures do not tell the noise."""

FWHM_WITHOUT_STARS = 3.0
"""[pixel] Assumed where no source is found."""

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

    Resampling correlates neighbouring pixels: the noise of single pixels is lower than that of
    the sums over many tells. The variance map is scaled so that its sum over an aperture with the
    radius of one FWHM is the variance of the aperture sums.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Coadd with its background, and weights that are right up to a factor.
    wcs : astropy.wcs.WCS
    scale : float
        Arcsec per pixel.
    gain : float
        Electrons per unit.
    saturate : float
        Sources with a brighter peak are saturated.
    settings : StackSettings
    coverage : FrameCoverage, optional
        Which frames cover what.

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
    clean, mesh, field = _separate_background(seen, noise_map, detected, saturate, gain, settings)
    occupied = ~covered
    fwhm = FWHM_WITHOUT_STARS
    if field is not None:
        fwhm = field.fwhm
        occupied |= grow(field.segments > 0, int(np.ceil(0.75 * fwhm)))
    factor, noise = _calibrate_noise(
        clean, variance, occupied, fwhm, settings.apertures, pixel_noise
    )
    variance *= factor**2
    if field is not None:
        pixel = float(np.sqrt(np.median(variance[covered])))
        field = replace(field, core=field.core_with_noise(pixel, noise.ratio, gain))
    return MeasuredCoadd(
        clean, variance, covered, occupied, mesh, field, noise, wcs, scale, gain, coverage
    )


def measure_alike(
    image: np.ndarray, weight: np.ndarray, wcs: WCS, like: MeasuredCoadd, settings: StackSettings
) -> MeasuredCoadd:
    """Measure background and noise of a coadd whose stars are gone, with the profile of another.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        As for `measure_coadd`.
    wcs : astropy.wcs.WCS
    like : MeasuredCoadd
        Of the same frames, with their stars.
    settings : StackSettings

    Returns
    -------
    MeasuredCoadd
        Its `field` is that of `like`: the profile counts, its sources are elsewhere.
    """
    covered = weight > 0
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    seen = SeenPixels(image, covered, find_lost_pixels(image, weight, np.inf))
    _, pixel_noise, detected = _detect(seen, weight, variance, settings)
    mesh = background_without(image, ~covered, detected.segments, settings.background_box)
    clean = subtract_mesh(image, mesh, covered)
    fwhm = like.field.fwhm if like.field is not None else FWHM_WITHOUT_STARS
    occupied = ~covered | grow(detected.segments > 0, int(np.ceil(0.75 * fwhm)))
    factor, noise = _calibrate_noise(
        clean, variance, occupied, fwhm, settings.apertures, pixel_noise
    )
    variance *= factor**2
    return MeasuredCoadd(
        clean, variance, covered, occupied, mesh, like.field, noise, wcs, like.scale, like.gain
    )


@dataclass(frozen=True)
class SeenPixels:
    """A coadd and what its pixels are worth.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    covered : ndarray of bool, shape (ny, nx)
        Pixels with weight.
    lost : LostPixels
        Those without, inside the frames.
    coverage : FrameCoverage, optional
    """

    image: np.ndarray
    covered: np.ndarray
    lost: LostPixels
    coverage: FrameCoverage | None = None

    @cached_property
    def shown(self) -> np.ndarray:
        """Pixels that have a value, be it with weight or without."""
        return self.covered | self.lost.shown

    def measurement_image(
        self, clean: np.ndarray, noise: np.ndarray, gain: float, saturate: float
    ) -> MeasurementImage:
        """Return the image that sources are measured on, without its background."""
        bad = ~self.covered & ~self.lost.cores
        partial = self.coverage if self.coverage and self.coverage.partial else None
        return MeasurementImage(clean, noise, bad, gain, saturate, self.lost.cores, partial)


def detection_settings(settings: StackSettings) -> FieldSettings:
    """Return how the sources of a coadd are detected and measured."""
    return FieldSettings(
        settings.catalogue_sigma, settings.min_area, settings.aperture, settings.star_snr
    )


def _detect(
    seen: SeenPixels, weight: np.ndarray, variance: np.ndarray, settings: StackSettings
) -> tuple[np.ndarray, float, Detections]:
    """Return noise map, noise of a pixel over that by the weights, and what is detected."""
    covered = seen.covered
    level, _ = background(seen.image, ~covered, settings.background_box)
    clean = np.where(seen.shown, seen.image - level, 0).astype(np.float32)
    # Outside the coverage zeros: noise there only keeps the detection from dividing by nothing.
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
) -> tuple[np.ndarray, np.ndarray, StarField | None]:
    """Return the image without background, the mesh of that, and the sources."""
    how = detection_settings(settings)
    # Again without the sources: their wings lift a background that is found through them, by a
    # part of the noise that costs the total flux of faint stars a per cent.
    image, covered = seen.image, seen.covered
    mesh = background_without(image, ~covered, detected.segments, settings.background_box)
    clean = subtract_mesh(image, mesh, seen.shown)
    to_measure = seen.measurement_image(clean, noise, gain, saturate)
    field = measure_field(to_measure, how, find_hidden=False, detected=detected)
    if field is None:
        return clean, mesh, None
    # And without the light of the stars outside their masks, which in a crowded field is sky to
    # the mesh.
    lift = background_without(field.residual, ~covered, field.segments, settings.background_box)
    mesh = mesh + lift
    clean = subtract_mesh(image, mesh, seen.shown)
    same = np.abs(lift).max() < NEGLIGIBLE_LIFT * to_measure.typical_noise
    to_measure = seen.measurement_image(clean, noise, gain, saturate)
    if not same:
        # Above the light that stars in a crowd have in common, where they are several still.
        detected = detect_above_background(to_measure, how, settings.background_box)
    field = measure_field(to_measure, how, detected=detected) or field
    return clean, mesh, field


def _calibrate_noise(
    clean: np.ndarray,
    variance: np.ndarray,
    occupied: np.ndarray,
    fwhm: float,
    apertures: tuple[float, ...],
    pixel_noise: float,
) -> tuple[float, CoaddNoise]:
    """Return the noise in apertures of one FWHM over that by the map, and that of all radii."""
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
                # Whole pixels, so that the sum of the map is the variance of independent ones.
                _, factor = aperture_noise(clean, variance, x, y, radius, subpix=1)
    ratios = larger_apertures(radii, ratios / factor)
    correlation = (factor / pixel_noise) ** 2
    return factor, CoaddNoise(radii, ratios, fwhm, number, 1.0 / factor**2, correlation)


def larger_apertures(radii: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Return the noise over that by the map where a crowd has no room for empty apertures.

    Between noise of each pixel alone, whose sums go as the radius, and noise that all pixels share,
    which goes as its square, the ratio goes as a power of 0 to 1 of the radius: that of the largest
    radii that are measured.

    Parameters
    ----------
    radii, ratios : ndarray, shape (n,)
        Ascending; NaN where not measured.

    Returns
    -------
    ndarray, shape (n,)
        1 where nothing is.
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
        Total flux of a star at 5 sigma; NaN where there is no room for `MIN_APERTURES`.
    radius : float
        Radius of the apertures [pixel].
    apertures : int
        Empty apertures measured.
    """

    flux: float
    radius: float
    apertures: int


def limiting_flux(coadd: MeasuredCoadd, seed: int = 7) -> FluxLimit:
    """Measure the 5 sigma limit of point sources in empty apertures of 0.75 FWHM radius.

    Only the deep part counts: pixels with at least half of the median weight.

    Parameters
    ----------
    coadd : MeasuredCoadd
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
    sigma, _ = aperture_noise(coadd.image, variance, x, y, radius)
    fraction = float(field.growth.fraction(radius))
    return FluxLimit(LIMIT_SNR * sigma / fraction, radius, int(x.size))
