"""Forced photometry on a single frame: many given positions at once, detected or not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import sep
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from lib.core.sphere import project
from lib.core.stats import regular_sample, sigma_clipped_median
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.frame.file import INTERPOLATED, SATURATED, SOURCE, UNUSABLE, Frame
from lib.photometry.backgroundmesh import (
    background,
    background_mesh,
    background_without,
    grow,
    spread_mesh,
)
from lib.photometry.coaddpsf import EFFECTIVE_RADIUS
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area
from lib.photometry.flags import (
    FLAG_NEIGHBOUR,
    FLAG_OUTSIDE,
    FLAG_REPAIRED,
    FLAG_SATURATED,
    FLAG_TRAILED,
    FLAG_WEIGHT,
)
from lib.photometry.framepsf import MOST_TIED, NEAR, FrameStars, frame_psf_fluxes
from lib.photometry.neighbours import StarModels
from lib.photometry.pointflux import ApertureSums, point_fluxes
from lib.photometry.psf import StarAperture
from lib.photometry.psfbuild import PsfImage
from lib.photometry.sources import detect_sources
from lib.photometry.trailing import TRAIL_ERROR, trailed, trailed_shares, window_sigma

BACKGROUND_BOX = 64
"""Side of a background mesh [pixel]."""

WINGS_ERROR = 0.1
"""Relative error of the light of neighbours: wings are less well known in one frame."""

NEIGHBOUR_REACH = 12.0
"""Sources further away are not subtracted [radius of the aperture]."""

OWN_RADIUS = 0.5
"""Sources closer than this are identified with the object itself [radius of the aperture]."""

MOST_MARKED = 0.6
"""Maximum fraction of a frame's pixels flagged as sources for these flags to be used: more leave
too little background."""

DETECTION_SIGMA = 2.0
"""Pixels above this are excluded from the background and from empty apertures."""

EMPTY_APERTURES = 1000
"""Maximum number of empty apertures for the noise of a frame."""

CENTROID_SNR = 5.0
"""Fainter objects get no centroid."""

MOST_CUT_OFF = 0.02
"""Maximum fraction of an aperture beyond the edge of the frame."""

LEAST_GOOD = 0.05
"""Minimum weight of the good pixels about a bad one, as a fraction of that of all, for their mean
to replace it."""

REPAIR_ERROR = 0.5
"""Relative error of the light in replaced pixels."""

LEAST_NOISE_RATIO = 0.85
"""Minimum of the noise ratio: that of independent pixels in apertures of a radius of two pixels or
more."""

FITTED_NEIGHBOURS = 4.0
"""Known sources so near to a position are fitted with it [FWHM]; the light of others is subtracted
as that of all is for apertures."""

LEAST_FITTED = 3.0
"""Minimum S/N that they are expected to have; fainter ones are subtracted, too."""

MIN_EMPTY_APERTURES = 30
"""With fewer empty apertures, pixels are assumed independent."""


@dataclass(frozen=True)
class FrameFluxes:
    """Fluxes of point sources at n positions of a frame.

    Parameters
    ----------
    flux, error : ndarray, shape (n,)
        Total fluxes and their errors, in units of the frame; NaN outside it.
    sky_error : ndarray, shape (n,)
        Error without the photon noise of the object.
    flags : ndarray of int, shape (n,)
        Flags of `lib.photometry.flags`.
    x, y : ndarray, shape (n,)
        Positions, 0-based [pixel]; NaN where unknown.
    noise_ratio : float
        Ratio of the noise in empty apertures to that of independent pixels.
    centroid : ndarray, shape (n, 2)
        Centroids x, y of detected objects, 0-based [pixel]; NaN for the others.
    neighbour_error : ndarray, shape (n,)
        Part of the error due to the light of neighbours, nearly the same in all frames of one
        seeing.
    psf_flux, psf_error : ndarray, shape (n,)
        Total fluxes by fits of the point-spread function, and their errors; NaN without one, and of
        stars that are not needed for it.
    """

    flux: np.ndarray
    error: np.ndarray
    sky_error: np.ndarray
    flags: np.ndarray
    x: np.ndarray
    y: np.ndarray
    noise_ratio: float
    centroid: np.ndarray
    neighbour_error: np.ndarray = field(default_factory=lambda: np.zeros(0))
    psf_flux: np.ndarray = field(default_factory=lambda: np.zeros(0))
    psf_error: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def error_parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the parts of the errors due to photons, sky, and neighbours, shape (n,) each."""
        beside = self.neighbour_error if len(self.neighbour_error) else np.zeros(len(self.flux))
        photons = np.sqrt(np.maximum(self.error**2 - self.sky_error**2, 0))
        return photons, np.sqrt(np.maximum(self.sky_error**2 - beside**2, 0)), beside


@dataclass(frozen=True)
class _Prepared:
    """A background-subtracted frame.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Zero where it is not finite.
    bad : ndarray of bool, same shape
        Pixels without a usable value.
    occupied : ndarray of bool, same shape
        Pixels of sources and a margin around them, and bad pixels.
    filled : ndarray of float32, same shape
        Values with which bad pixels were replaced; zero elsewhere.
    noise : float
        Standard deviation of a pixel.
    """

    image: np.ndarray
    bad: np.ndarray
    occupied: np.ndarray
    filled: np.ndarray
    noise: float


def measure_frame(
    frame: Frame, positions: np.ndarray, sources: np.ndarray, fluxes: np.ndarray,
    aperture: StarAperture, wcs: WCS | None = None, trails: np.ndarray | None = None,
    stars: tuple[np.ndarray, float] | None = None, moving: np.ndarray | None = None,
) -> FrameFluxes:  # fmt: skip
    """Measure point sources at given positions of a frame.

    Parameters
    ----------
    frame : lib.frame.file.Frame
        Sky-subtracted frame with WCS.
    positions : ndarray, shape (n, 2)
        ra, dec [deg]; NaN where unknown.
    sources : ndarray, shape (m, 2)
        ra, dec [deg] of all known sources in the field. Their light is subtracted, except that of
        sources within half an aperture radius of a position, which are the object itself.
    fluxes : ndarray, shape (m,)
        Total fluxes of these sources, in units of the frame.
    aperture : StarAperture
        Aperture and profile of the stars of the frame.
    wcs : astropy.wcs.WCS, optional
        WCS of the frame, if already read.
    trails : ndarray, shape (n, 2), optional
        Motion to the east and north during the exposure [arcsec]; the light that apertures lose
        by it is added, and a fifth of that to the error.
    moving : ndarray of bool, shape (n,), optional
        Which positions move: no source of the field is the object itself.
    stars : tuple, optional
        Rows of those positions that are stars without neighbours, ndarray of int, and their FWHM
        [pixel]: with them the point-spread function is measured, and fitted everywhere.

    Returns
    -------
    FrameFluxes
    """
    assert frame.image is not None and frame.mask is not None
    wcs = wcs or celestial_wcs(frame.header)
    x, y = _to_pixels(wcs, frame.image.shape, positions)
    ny, nx = frame.image.shape
    with np.errstate(invalid="ignore"):
        on = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    n = len(positions)
    flux, error, sky = (np.full(n, np.nan) for _ in range(3))
    flags = np.where(on, 0, FLAG_OUTSIDE).astype(int)
    index = np.flatnonzero(on)
    if not index.size:
        nothing = np.full((n, 2), np.nan)
        return FrameFluxes(
            flux, error, sky, flags, x, y, np.nan, nothing, np.zeros(n), flux.copy(), flux.copy()
        )
    at = x[index], y[index]
    prepared = _prepare(frame.image, frame.mask)
    _fill_bad_pixels(prepared, at, aperture.radius)
    inner = aperture.inner()
    fwhm = 0.0 if stars is None else stars[1]
    radii = [aperture.radius, inner.radius, *([EFFECTIVE_RADIUS * fwhm] if fwhm else [])]
    ratio, inner_ratio, *fit_ratio = _noise_ratios(prepared, radii)
    known = _to_pixels(wcs, frame.image.shape, np.reshape(sources, (-1, 2)))
    models, own = _neighbours(prepared, at, (*known, np.asarray(fluxes, float)), aperture)
    if moving is not None:
        own = [one[:0] if moves else one for one, moves in zip(own, moving[index], strict=True)]
    gain = float(frame.header.get("GAIN", 1.0)) or 1.0
    motion = np.zeros((n, 2)) if trails is None else trails / pixel_scale(wcs)
    held = trailed_shares(motion[index], aperture, aperture.radius)
    wide, light = _alone(prepared, models, own, at, (aperture, gain, ratio))
    disturbed = np.abs(light) > np.maximum(0.1 * np.abs(wide.sums), wide.error)
    sums, lights, scatter = [wide.over(held)], [light / held], np.zeros(len(held))
    if aperture.core is not None:
        core, light = _alone(prepared, models, own, at, (inner, gain, inner_ratio))
        inner_held = trailed_shares(motion[index], aperture, inner.radius)
        scatter = np.hypot(aperture.core.scatter, TRAIL_ERROR * (1 - inner_held))
        sums, lights = [*sums, core.over(inner_held)], [*lights, light / inner_held]
    beside = np.zeros(n)
    total, total_error, beside[index] = _totals(sums, lights, scatter, disturbed)
    filled, _, _ = sep.sum_circle(prepared.filled, *at, aperture.radius, subpix=5)
    repair = REPAIR_ERROR * np.abs(filled) / aperture.fraction
    total_error = np.sqrt(total_error**2 + repair**2 + (TRAIL_ERROR * (1 - held) * total) ** 2)
    flags[index] |= _pixel_flags(frame.mask, prepared.bad, at, aperture.radius)
    flags[index] |= np.where(trailed(motion[index], aperture), FLAG_TRAILED, 0)
    flags[index] |= np.where(disturbed, FLAG_NEIGHBOUR, 0)
    flux[index], error[index] = total, total_error
    # The noise without the photon noise of the object.
    photons = np.maximum(total, 0) / gain
    sky[index] = np.sqrt(np.maximum(total_error**2 - photons, 0.25 * total_error**2))
    gone = (flags & FLAG_OUTSIDE) > 0
    for values in (flux, error, sky):
        values[gone] = np.nan
    # Light of neighbours pulls at it; what is in the list of sources itself stays in the image.
    pulled = np.zeros(n, bool)
    pulled[index[disturbed & np.array([not one.size for one in own], bool)]] = True
    seen = flux > CENTROID_SNR * error
    spread = window_sigma(motion, aperture)
    centroid = np.full((n, 2), np.nan)
    for part, image in ((seen & ~pulled, prepared.image), (seen & pulled, models.residual)):
        centroid[part] = _centroids(image, x[part], y[part], aperture.radius, spread[part])
    psf_flux, psf_error = np.full((2, n), np.nan)
    if stars is not None:
        bad = FLAG_SATURATED | FLAG_OUTSIDE | FLAG_WEIGHT
        star = np.isin(index, stars[0])
        tell = np.flatnonzero(star & ((flags[index] & bad) == 0))
        tell = tell[np.argsort(-total[tell], kind="stable")][:MOST_TIED]
        use = _rows_to_fit(np.column_stack(at), star, tell, NEAR * fwhm)
        by_fit = _by_fits(
            prepared, models, [own[k] for k in use],
            FrameStars(at[0][use], at[1][use], total[use], total_error[use],
                       np.searchsorted(use, tell), len(use)),
            (aperture, gain, fit_ratio[0], fwhm),
        )  # fmt: skip
        use = index[use]
        held = trailed_shares(motion[use], aperture, EFFECTIVE_RADIUS * fwhm)
        psf_flux[use] = by_fit[0] / held
        psf_error[use] = np.hypot(by_fit[1] / held, TRAIL_ERROR * (1 - held) * psf_flux[use])
        psf_flux[gone], psf_error[gone] = np.nan, np.nan
    return FrameFluxes(flux, error, sky, flags, x, y, ratio, centroid, beside, psf_flux, psf_error)


def _rows_to_fit(at: np.ndarray, star: np.ndarray, tell: np.ndarray, reach: float) -> np.ndarray:
    """Return the positions to fit, ascending: all but the stars that nothing is told by.

    Those of the stars are fitted that tell the point-spread function, and those within `reach` of
    another position, of shape (n, 2) as all [pixel], whose light it has.
    """
    others = np.flatnonzero(~star)
    if not others.size:
        return np.sort(tell)
    apart, _ = cKDTree(at[others]).query(at)
    return np.union1d(np.flatnonzero(apart < reach), tell)


def _by_fits(
    prepared: _Prepared, models: StarModels, own: list[np.ndarray], stars: FrameStars,
    how: tuple[StarAperture, float, float, float],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return fluxes and errors of stars by fits of the point-spread function.

    What is fitted is put back into the residual image of `models`. `how` is the aperture, the gain,
    the ratio of the noise to that of independent pixels, and the FWHM of stars [pixel].
    """
    aperture, gain, ratio, fwhm = how
    # Pixels on the rim do not count in part here, as they do in apertures.
    sigma = prepared.noise * max(1.0, ratio)
    objects = np.zeros(len(models.x), bool)
    for members in own:
        objects[members] = True
    fitted = np.zeros(len(models.x), bool)
    if len(models.x):
        apart, _ = cKDTree(np.column_stack([stars.x, stars.y])).query(
            np.column_stack([models.x, models.y])
        )
        noise = sigma * np.sqrt(np.pi) * EFFECTIVE_RADIUS * fwhm
        bright = models.flux > LEAST_FITTED * np.hypot(noise, np.sqrt(models.flux / gain))
        fitted = ~objects & bright & (apart < FITTED_NEIGHBOURS * fwhm)
    models.put_back(objects | fitted)
    variance = np.where(prepared.bad, np.float32(0), np.float32(sigma**2))
    nothing = np.full(int(fitted.sum()), np.nan)
    everything = FrameStars(
        np.append(stars.x, models.x[fitted]), np.append(stars.y, models.y[fitted]),
        np.append(stars.total, nothing), np.append(stars.error, nothing), stars.rows,
        stars.number,
    )  # fmt: skip
    flux, error = frame_psf_fluxes(
        PsfImage(models.residual, variance, gain), everything, aperture, fwhm
    )
    return flux[: stars.x.size], error[: stars.x.size]


def _centroids(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float, sigma: np.ndarray
) -> np.ndarray:
    """Return windowed centroids, shape (n, 2); NaN for those that drift to a neighbour."""
    found = np.full((len(x), 2), np.nan)
    if len(x):
        xs, ys, flags = sep.winpos(image, x, y, sigma)
        near = (np.hypot(xs - x, ys - y) < 0.75 * radius) & ((flags & ~sep.APER_TRUNC) == 0)
        found[near] = np.column_stack([xs, ys])[near]
    return found


def near_image(wcs: WCS, shape: tuple[int, int], positions: np.ndarray) -> np.ndarray:
    """Return which positions are known and within one image diagonal of the image.

    Further away, projections and distortion polynomials fold back onto the image.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        WCS of the image.
    shape : tuple of int
        Rows and columns of the image.
    positions : ndarray, shape (n, 2)
        ra, dec [deg].

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    known = np.isfinite(positions).all(axis=1)
    ny, nx = shape
    ra, dec = (float(v) for v in wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0))
    reach = np.hypot(nx, ny) * pixel_scale(wcs)
    away = np.hypot(*project(positions[:, 0], positions[:, 1], ra, dec).T)
    with np.errstate(invalid="ignore"):
        return known & (away < reach)


def _to_pixels(
    wcs: WCS, shape: tuple[int, int], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y of positions; NaN for those that are unknown or far from the frame."""
    x, y = np.full(len(positions), np.nan), np.full(len(positions), np.nan)
    near = near_image(wcs, shape, positions)
    if near.any():
        x[near], y[near] = wcs.all_world2pix(*positions[near].T, 0, quiet=True)
    return x, y


def _prepare(image: np.ndarray, mask: np.ndarray) -> _Prepared:
    """Return a background-subtracted frame, and its source-free pixels.

    Sources are those flagged by the sky steps; where there are none, or they leave hardly a pixel,
    sources are detected here.
    """
    bad = ((mask & UNUSABLE) > 0) | ~np.isfinite(image)
    image = np.where(np.isfinite(image), image, 0).astype(np.float32)
    marked = grow((mask & SOURCE) > 0, 3) | bad
    if (mask & SOURCE).any() and marked.mean() < MOST_MARKED:
        image -= spread_mesh(background_mesh(image, marked, BACKGROUND_BOX), image.shape)
        noise = sigma_clipped_median(regular_sample(image)[~regular_sample(marked)])[1]
        return _Prepared(image, bad, marked, np.zeros_like(image), max(noise, 1e-6))
    level, noise = background(image, bad, BACKGROUND_BOX)
    noise = max(noise, 1e-6)
    segments = detect_sources(image - level, noise, None, DETECTION_SIGMA)[1]
    mesh = background_without(image, bad, segments, BACKGROUND_BOX)
    image = image - spread_mesh(mesh, image.shape)
    return _Prepared(image, bad, grow(segments > 0, 3) | bad, np.zeros_like(image), noise)


def _fill_bad_pixels(prepared: _Prepared, at: tuple[np.ndarray, np.ndarray], radius: float) -> None:
    """Replace bad pixels in the apertures by a mean of their neighbours, in place.

    The mean is weighted by a Gaussian of about half the seeing. Otherwise cosmic rays and hot
    pixels would count as light of the object. Bad pixels elsewhere become 0.
    """
    ny, nx = prepared.image.shape
    prepared.image[prepared.bad] = 0
    reach = int(np.ceil(radius)) + 1
    near: set[tuple[int, int]] = set()
    for x, y in zip(*at, strict=True):
        x0, y0 = max(0, round(x) - reach), max(0, round(y) - reach)
        rows, columns = np.nonzero(
            prepared.bad[y0 : round(y) + reach + 1, x0 : round(x) + reach + 1]
        )
        near.update(zip((rows + y0).tolist(), (columns + x0).tolist(), strict=True))
    sigma = radius / 3
    half = int(np.ceil(3 * sigma))
    offset = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / sigma**2)
    values = {}
    for row, column in near:
        y0, x0 = max(0, row - half), max(0, column - half)
        part = (slice(y0, row + half + 1), slice(x0, column + half + 1))
        weight = kernel[y0 - row + half :, x0 - column + half :]
        weight = weight[: min(ny, row + half + 1) - y0, : min(nx, column + half + 1) - x0]
        weight = np.where(prepared.bad[part], 0, weight)
        if weight.sum() > LEAST_GOOD * kernel.sum():
            values[row, column] = float((weight * prepared.image[part]).sum() / weight.sum())
    for place, value in values.items():
        prepared.image[place] = prepared.filled[place] = value


def _noise_ratios(prepared: _Prepared, radii: Sequence[float]) -> list[float]:
    """Return the noise in empty apertures over that of independent pixels, for each radius.

    It is below 1 for independent pixels, because those on the rim count by their area but add
    variance by its square; it is above 1 where the background, faint sources or the camera
    correlate pixels.
    """
    x, y = empty_apertures(summed_area(prepared.occupied), max(radii), EMPTY_APERTURES)
    if len(x) < MIN_EMPTY_APERTURES:
        return [1.0] * len(radii)
    variance = np.full(prepared.image.shape, prepared.noise**2, np.float32)
    found = [aperture_noise(prepared.image, variance, x, y, radius)[1] for radius in radii]
    return [max(LEAST_NOISE_RATIO, ratio) for ratio in found]


def _neighbours(
    prepared: _Prepared, at: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray, np.ndarray], aperture: StarAperture,
) -> tuple[StarModels, list[np.ndarray]]:  # fmt: skip
    """Return models of the sources near positions, and the indices of those that are the objects.

    `known` is x, y and flux of the sources.
    """
    x, y, fluxes = known
    radius = aperture.radius
    good = np.isfinite(x) & np.isfinite(y) & (fluxes > 0)
    x, y, fluxes = x[good], y[good], fluxes[good]
    places = cKDTree(np.column_stack(at))
    near = np.zeros(len(x), bool)
    if len(x):
        distance, _ = places.query(np.column_stack([x, y]))
        near = distance < NEIGHBOUR_REACH * radius
    x, y, fluxes = x[near], y[near], fluxes[near]
    models = StarModels(prepared.image, x, y, fluxes, aperture.wings, prepared.noise, radius)
    if not len(x):
        return models, [np.empty(0, int)] * len(at[0])
    tree = cKDTree(np.column_stack([x, y]))
    own = tree.query_ball_point(np.column_stack(at), OWN_RADIUS * radius)
    return models, [np.array(one, int) for one in own]


def _alone(
    prepared: _Prepared, models: StarModels, own: list[np.ndarray],
    at: tuple[np.ndarray, np.ndarray], how: tuple[StarAperture, float, float],
) -> tuple[ApertureSums, np.ndarray]:  # fmt: skip
    """Return aperture sums of objects with their neighbours subtracted, and the light subtracted.

    `how` is the aperture, the gain, and the ratio of its noise to that of independent pixels.
    """
    aperture, gain, ratio = how
    x, y = at
    radius = aperture.radius
    everything, error, _ = sep.sum_circle(
        prepared.image, x, y, radius, err=prepared.noise * ratio, gain=gain, subpix=5
    )
    alone, _, _ = sep.sum_circle(models.residual, x, y, radius, subpix=5)
    half = int(np.ceil(radius)) + 2
    ny, nx = prepared.image.shape
    for k, members in enumerate(own):
        if not members.size:
            continue
        column, row = round(x[k]), round(y[k])
        x0, y0 = max(0, column - half), max(0, row - half)
        dx = np.arange(x0, min(nx, column + half + 1), dtype=float)
        dy = np.arange(y0, min(ny, row + half + 1), dtype=float)[:, None]
        light = np.zeros((dy.size, dx.size))
        for i in members:
            light += models.flux[i] * models.wings.density(dx - models.x[i], dy - models.y[i])
        part = light.astype(np.float32)
        alone[k] += sep.sum_circle(part, [x[k] - x0], [y[k] - y0], radius, subpix=5)[0][0]
    light = everything - alone
    return ApertureSums(alone, np.hypot(error, WINGS_ERROR * light), aperture.fraction), light


def _totals(
    sums: list[ApertureSums], lights: list[np.ndarray], scatter: np.ndarray, disturbed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return total fluxes, their errors, and the part of these that the neighbours' light makes.

    From the wide aperture, and the inner one where there is one; `lights` is what the neighbours
    have in each.
    """
    clean = [_without_neighbours(one, light) for one, light in zip(sums, lights, strict=True)]
    if len(sums) == 1:
        total, error, without = sums[0].total, np.sqrt(sums[0].variance), np.sqrt(clean[0].variance)
    else:
        total, error = point_fluxes(sums[0], sums[1], scatter, disturbed)
        _, without = point_fluxes(clean[0], clean[1], scatter, disturbed)
    return total, error, np.sqrt(np.maximum(error**2 - without**2, 0))


def _without_neighbours(measured: ApertureSums, light: np.ndarray) -> ApertureSums:
    """Return sums whose errors lack that of the neighbours' light, which is gone from them."""
    variance = measured.error**2 - (WINGS_ERROR * light) ** 2
    return replace(measured, error=np.sqrt(np.maximum(variance, 0)))


def _pixel_flags(
    mask: np.ndarray, bad: np.ndarray, at: tuple[np.ndarray, np.ndarray], radius: float
) -> np.ndarray:
    """Return flags of apertures that contain saturated, replaced or unusable pixels."""

    def area(pixels: np.ndarray) -> np.ndarray:
        return sep.sum_circle(pixels.astype(np.float32), *at, radius, subpix=1)[0]

    unusable = area(bad)
    flags = np.where(unusable > 0, FLAG_WEIGHT, 0)
    flags |= np.where(unusable > 0.5 * np.pi * radius**2, FLAG_OUTSIDE, 0)
    there = sep.sum_circle(np.ones(bad.shape, np.float32), *at, radius, subpix=5)[0]
    flags |= np.where(there < (1 - MOST_CUT_OFF) * np.pi * radius**2, FLAG_OUTSIDE, 0)
    flags |= np.where(area((mask & SATURATED) > 0) > 0, FLAG_SATURATED, 0)
    return flags | np.where(area((mask & INTERPOLATED) > 0) > 0, FLAG_REPAIRED, 0)
