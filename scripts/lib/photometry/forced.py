"""Forced photometry on coadds: point sources at given positions, detected or not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import sep
from astropy.io import fits
from scipy.spatial import cKDTree

from lib.core.bands import BAND_ORDER
from lib.core.crossmatch import common_stars
from lib.core.sphere import mean_position, project
from lib.core.wcs import celestial_wcs
from lib.photometry.confusion import Confusion
from lib.photometry.coverage import FULL_COVERAGE, corrections_at
from lib.photometry.emptyapertures import summed_area
from lib.photometry.flags import (
    FLAG_NEIGHBOUR,
    FLAG_OUTSIDE,
    FLAG_PARTIAL,
    FLAG_SATURATED,
    FLAG_TRAILED,
    FLAG_WEIGHT,
)
from lib.photometry.neighbours import StarModels, deblended_errors, model_stars
from lib.photometry.pointflux import ApertureSums, core_fluxes, point_fluxes
from lib.photometry.psf import StarAperture
from lib.photometry.psfmodel import PsfModel
from lib.photometry.skystructure import local_excess
from lib.photometry.trailing import TRAIL_ERROR, trailed, trailed_shares

LIMIT_SIGMA = 3.0
"""Below this signal-to-noise ratio a source is not detected, and a limit is given."""

WINGS_ERROR = 0.02
"""Relative error of the light of neighbours in an aperture."""

CORE_LEVEL = 0.5
"""[saturation level] Brighter pixels without weight are the core of a saturated star."""


@dataclass(frozen=True)
class Coadd:
    """A coadd prepared for forced photometry.

    Parameters
    ----------
    filter : str
        Name of the filter.
    image, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted image and its variance, which is 0 where there is no data.
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources and those without data.
    header : astropy.io.fits.Header
        Header of the coadd.
    aperture : StarAperture
        Aperture of its POINT magnitudes, with the core.
    crowd : Confusion, optional
        What confusion adds to the errors.
    partial : ndarray, shape (4, by, bx), optional
        Maps from `FrameCoverage.correction_maps` for the aperture and its core, where some frames
        cover only part of the coadd.
    psf : PsfModel, optional
        Point-spread function, where it could be measured.
    sky_box : int
        Mesh size of the sky that is fitted between the stars of a crowded field [pixel].
    """

    filter: str
    image: np.ndarray
    variance: np.ndarray
    occupied: np.ndarray
    header: fits.Header
    aperture: StarAperture
    crowd: Confusion | None = None
    partial: np.ndarray | None = None
    psf: PsfModel | None = None
    sky_box: int = 0

    @cached_property
    def occupied_total(self) -> np.ndarray:
        """Summed-area table of `occupied`, int32, shape (ny + 1, nx + 1)."""
        return summed_area(self.occupied)


def unite_sources(
    positions: Sequence[np.ndarray], snr: Sequence[np.ndarray], radius: float, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the sources of several tables into one list of positions.

    Parameters
    ----------
    positions : list of ndarray, shape (n_i, 2)
        ra, dec [deg].
    snr : list of ndarray, shape (n_i,)
        Signal-to-noise ratios: the position with the highest is kept.
    radius : float
        Sources closer than this are merged, also those of one table [arcsec].
    least : float
        Minimum signal-to-noise ratio in any one table; otherwise noise peaks of many tables would
        outnumber the sources.

    Returns
    -------
    ndarray, shape (n, 2)
        ra, dec [deg].
    found : ndarray of bool, shape (n, number of tables)
        Which tables have the source.
    """
    everything = np.concatenate(positions) if positions else np.empty((0, 2))
    if len(everything) == 0:
        return np.empty((0, 2)), np.empty((0, len(positions)), bool)
    ra0, dec0 = mean_position(everything[:, 0], everything[:, 1])
    numbers, count = common_stars(
        [project(sky[:, 0], sky[:, 1], ra0, dec0) for sky in positions], radius
    )
    united = np.empty((count, 2))
    best = np.full(count, -np.inf)
    found = np.zeros((count, len(positions)), bool)
    for k, (sky, quality, number) in enumerate(zip(positions, snr, numbers, strict=True)):
        quality = np.nan_to_num(quality, nan=0.0)
        better = quality > best[number]
        united[number[better]], best[number[better]] = sky[better], quality[better]
        found[number, k] = True
    # Two sources of one table may both lie close to one of another.
    better = np.argsort(-best, kind="stable")
    plane = project(united[:, 0], united[:, 1], ra0, dec0)
    same = cKDTree(plane).query_pairs(radius, output_type="ndarray")
    rank = np.argsort(better)
    alone = np.ones(count, bool)
    for first, second in sorted(sorted(pair, key=rank.__getitem__) for pair in same.tolist()):
        if alone[first]:
            alone[second] = False
            found[first] |= found[second]
    good = alone & (best >= least)
    return united[good], found[good]


def forced_fluxes(
    coadd: Coadd, positions: np.ndarray, extra: np.ndarray | None = None,
    trail: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Measure point sources at given positions of a coadd.

    Parameters
    ----------
    coadd : Coadd
        The coadd.
    positions : ndarray, shape (n, 2)
        ra, dec [deg]; stars with overlapping apertures are solved for together.
    extra : ndarray, shape (m, 2), optional
        Further ra, dec [deg], each measured together with all sources within half the aperture's
        radius.
    trail : ndarray, shape (2,), optional
        Motion of all of them to the east and north during an exposure [arcsec]; the light that
        apertures lose by it is added, and a fifth of that to the error.

    Returns
    -------
    flux, error : ndarray, shape (n + m,)
        Total fluxes of point sources; NaN where there is no data.
    flags : ndarray of int32, shape (n + m,)
        Flags of `lib.photometry.flags`.
    """
    extra = np.empty((0, 2)) if extra is None else extra
    n = len(positions)
    x, y = celestial_wcs(coadd.header).all_world2pix(*np.concatenate([positions, extra]).T, 0)
    ny, nx = coadd.image.shape
    on = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    flags = np.where(on, 0, FLAG_OUTSIDE).astype(np.int32)
    index = np.flatnonzero(on)
    if index.size == 0:
        return flux, error, flags
    x, y, listed = x[index], y[index], index < n
    radius = coadd.aperture.radius
    sums, _, _ = sep.sum_circle(coadd.image, x, y, radius, subpix=5)
    sky_variance = _sky_variance(coadd, coadd.aperture, "APNOISE", x, y)
    error_sums = np.sqrt(sky_variance + np.maximum(sums, 0) / coadd.header["GAIN"])
    models = _neighbour_models(coadd, x, y, sums, error_sums, listed)
    here = np.zeros((4, x.size)) if coadd.partial is None else corrections_at(coadd.partial, x, y)
    scatter = np.full(x.size, coadd.aperture.core.scatter if coadd.aperture.core else 0.0)
    if trail is not None:
        motion = np.array([trail]) / coadd.header["PIXSCALE"]
        scatter = _allow_for_trail(here, scatter, motion, coadd.aperture)
        flags[index] |= np.where(trailed(motion, coadd.aperture), FLAG_TRAILED, 0)
    wide, light = _alone(coadd, models, coadd.aperture, (x, y, sums, sky_variance), listed)
    wide = wide.over(np.exp(here[0]))
    disturbed = light > np.maximum(0.1 * np.abs(wide.sums), wide.error)
    flux[index], error[index] = wide.total, np.sqrt(wide.variance)
    if coadd.aperture.core is not None:
        inner = coadd.aperture.inner()
        sums, _, _ = sep.sum_circle(coadd.image, x, y, inner.radius, subpix=5)
        sky_variance = _sky_variance(coadd, inner, "APNOISEC", x, y)
        core, _ = _alone(coadd, models, inner, (x, y, sums, sky_variance), listed)
        core = core.over(np.exp(here[1]))
        if coadd.crowd is not None:
            flux[index], error[index] = core_fluxes(core, scatter)
        else:
            flux[index], error[index] = point_fluxes(wide, core, scatter, disturbed)
    error[index] = np.hypot(error[index], here[2] * flux[index])
    if coadd.crowd is not None:
        more = coadd.crowd.beyond(coadd.crowd.point, flux[index], x, y)
        error[index] = np.hypot(error[index], more)
    flags[index] |= _pixel_flags(coadd, x, y) | np.where(disturbed, FLAG_NEIGHBOUR, 0)
    if coadd.partial is not None:
        flags[index] |= np.where(here[3] < FULL_COVERAGE, FLAG_PARTIAL, 0)
    gone = (flags & FLAG_OUTSIDE) > 0
    flux[gone], error[gone] = np.nan, np.nan
    return flux, error, flags


def _allow_for_trail(
    here: np.ndarray, scatter: np.ndarray, motion: np.ndarray, aperture: StarAperture
) -> np.ndarray:
    """Add the light lost by trailing to corrections, in place; return the scatter of the core.

    Parameters
    ----------
    here : ndarray, shape (4, n)
        As from `lib.photometry.coverage.corrections_at`: ln of the corrections of both apertures,
        and their relative error.
    scatter : ndarray, shape (n,)
        Relative scatter among stars of the fraction of light in the core.
    motion : ndarray, shape (1, 2)
        Motion during an exposure [pixel].
    aperture : StarAperture
    """
    here[0] += np.log(trailed_shares(motion, aperture, aperture.radius))
    held = trailed_shares(motion, aperture, aperture.inner().radius)
    here[1] += np.log(held)
    here[2] = np.hypot(here[2], TRAIL_ERROR * (1 - np.exp(here[0])))
    return np.hypot(scatter, TRAIL_ERROR * (1 - held))


def _sky_variance(
    coadd: Coadd, aperture: StarAperture, key: str, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return the variance of the sky in apertures at (x, y), local excess noise included.

    Keyword `key` of the header has the ratio of the noise in such apertures to that predicted by
    the variance map.
    """
    radius, ratio = aperture.radius, coadd.header[key]
    variance, _, _ = sep.sum_circle(coadd.variance, x, y, radius, subpix=5)
    excess = local_excess(coadd.image, coadd.variance, coadd.occupied_total, x, y, radius, ratio)
    variance *= ratio**2 * excess**2
    return variance


def _neighbour_models(
    coadd: Coadd, x: np.ndarray, y: np.ndarray, sums: np.ndarray, error: np.ndarray,
    listed: np.ndarray,
) -> StarModels:  # fmt: skip
    """Return models of the listed sources, from aperture sums that include each other's light."""
    noise = float(np.sqrt(np.median(coadd.variance[coadd.variance > 0])))
    return model_stars(
        coadd.image, noise, x[listed], y[listed], sums[listed], error[listed], coadd.aperture
    )


def _alone(
    coadd: Coadd, models: StarModels, aperture: StarAperture, measured: tuple[np.ndarray, ...],
    listed: np.ndarray,
) -> tuple[ApertureSums, np.ndarray]:  # fmt: skip
    """Return aperture sums of sources with the other sources subtracted, and the light subtracted.

    `measured` is x, y, the sums and the variance of the sky in the apertures.
    """
    x, y, sums, sky_variance = measured
    gain = coadd.header["GAIN"]
    alone = _without_neighbours(models, x, y, sums, aperture.radius, listed)
    errors = np.sqrt(sky_variance + np.maximum(alone, 0) / gain)
    errors[listed] = deblended_errors(x[listed], y[listed], errors[listed], aperture)
    # Error of the neighbours' light: photon noise and WINGS_ERROR.
    light = np.abs(sums - alone)
    light_error = aperture.fraction * np.hypot(WINGS_ERROR * light, np.sqrt(light / gain))
    return ApertureSums(alone, np.hypot(errors, light_error), aperture.fraction), light


def _without_neighbours(
    models: StarModels, x: np.ndarray, y: np.ndarray, sums: np.ndarray, radius: float,
    listed: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return aperture sums with the light of the other listed sources subtracted."""
    alone = sums.copy()
    alone[listed] = models.apertures(radius)
    for k in np.flatnonzero(~listed):
        near = np.hypot(models.x - x[k], models.y - y[k]) < 0.5 * radius
        image = models.residual + models.image(near)
        alone[k] = sep.sum_circle(image, x[k : k + 1], y[k : k + 1], radius)[0][0]
    return alone


def _pixel_flags(coadd: Coadd, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return flags of apertures at (x, y) that contain saturated pixels or pixels without data."""
    radius = coadd.aperture.radius

    def number(pixels: np.ndarray) -> np.ndarray:
        return sep.sum_circle(pixels.astype(np.float32), x, y, radius, subpix=1)[0]

    empty = number(coadd.variance <= 0)
    level = coadd.header.get("SATURATE", np.inf)
    # Saturated cores have no weight, and a plateau made uneven by the flat.
    core = (coadd.variance <= 0) & (coadd.image >= CORE_LEVEL * level)
    saturated = number((coadd.image >= level) | core)
    flags = np.where(empty > 0, FLAG_WEIGHT, 0) | np.where(saturated > 0, FLAG_SATURATED, 0)
    return flags | np.where(empty > 0.5 * np.pi * radius**2, FLAG_OUTSIDE, 0)


def magnitudes(
    flux: np.ndarray, error: np.ndarray, zeropoint: float, sigma: float = LIMIT_SIGMA
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return magnitudes of detected sources and limits of the others.

    Parameters
    ----------
    flux, error : ndarray, shape (n,)
        Fluxes and their errors.
    zeropoint : float
        Magnitude of flux 1; NaN where unknown.
    sigma : float
        Minimum signal-to-noise ratio of a detection.

    Returns
    -------
    magnitude, magnitude_error : ndarray, shape (n,)
        Magnitudes [mag]; NaN for non-detections.
    limit : ndarray, shape (n,)
        Magnitude of max(flux, 0) + `sigma` errors for non-detections, NaN for detections.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = flux >= sigma * error
        magnitude = np.where(seen, zeropoint - 2.5 * np.log10(np.where(seen, flux, 1)), np.nan)
        magnitude_error = np.where(seen, 1.0857 * error / np.where(seen, flux, 1), np.nan)
        magnitude_error = np.where(np.isfinite(zeropoint), magnitude_error, np.nan)
        bound = np.maximum(flux, 0) + sigma * error
        limit = np.where(seen, np.nan, zeropoint - 2.5 * np.log10(bound))
    return magnitude, magnitude_error, limit


def filter_order(names: Iterable[str]) -> list[str]:
    """Return filters sorted from blue to red, unknown ones last; ``SDSS-R`` counts as r."""

    def place(name: str) -> tuple[int, str]:
        for band in (name, name.split("-")[-1].lower()):
            if band in BAND_ORDER:
                return BAND_ORDER.index(band), name
        return len(BAND_ORDER), name

    return sorted(names, key=place)
