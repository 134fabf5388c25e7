"""Noise, depth and zero point of a coadd, measured on itself and against a reference."""

import numpy as np

from lib.core.crossmatch import match
from lib.core.sphere import mean_position, project
from lib.core.stats import MAD_TO_SIGMA, regular_sample
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area
from lib.photometry.field import FLAG_NEIGHBOUR, FLAG_SATURATED, FLAG_WEIGHT, measure_field
from lib.photometry.sources import (
    background,
    background_without,
    detect_sources,
    grow,
    neighbour_distance,
    spread_mesh,
)
from lib.photometry.zeropoint import (
    Zeropoint,
    choose_colour,
    expected_noise,
    fit_spatial_term,
    fit_zeropoint,
)
from lib.stack.frameselection import reference_errors

STILL = 0.05
"""Part of the noise of a pixel: a background that moves by less finds the same sources, but for
some of S/N 2, which the table leaves out."""


def calibrate_weight(image, weight, settings, saturate, gain):
    """Bring the weight map to the noise of empty apertures, and measure the sources on the way.

    Resampling makes neighbouring pixels alike: single pixels are quieter than the sum of many
    tells. The map is scaled so that the sum of 1/weight over an aperture with the radius of one
    FWHM is the variance of the aperture sums.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Coadd with its background, and weights that are right up to a factor.
    settings : dict
    saturate, gain : float
        Of the coadd.

    Returns
    -------
    dict
        field (StarField or None), image (background-subtracted), variance (calibrated, 0 where
        no weight), covered (bool), factor (the weights were multiplied with it), correlation
        (variance in apertures over variance of pixels), radii and ratios (noise in apertures
        over that by the calibrated map), apertures (number of empty ones), corr_radius, mesh
        (the background, of `sources.background_mesh`), occupied (pixels of sources and those
        without weight).
    """
    covered = weight > 0
    level, _ = background(image, ~covered, settings["background_box"])
    clean = np.where(covered, image - level, 0).astype(np.float32)
    variance = np.zeros_like(weight)
    variance[covered] = 1.0 / weight[covered]
    # Outside the coverage zeros: noise there only keeps the detection from dividing by nothing.
    _, pixel_noise = background(clean * np.sqrt(weight), ~covered, settings["background_box"])
    pixel_noise = pixel_noise if pixel_noise > 0 else 1.0
    worst = float(np.sqrt(variance.max()))
    noise = np.where(covered, np.sqrt(variance) * pixel_noise, worst).astype(np.float32)
    # Again without the sources: their wings lift a background that is found through them, by a
    # part of the noise that costs the total flux of faint stars a per cent.
    sources, segments = detect_sources(
        clean, noise, None, settings["catalogue_sigma"], settings["min_area"]
    )
    mesh = background_without(image, ~covered, segments, settings["background_box"])
    clean = subtract_mesh(image, mesh, covered)
    options = {
        "saturate": saturate, "gain": gain, "threshold": settings["catalogue_sigma"],
        "min_area": settings["min_area"], "aperture": settings["aperture"],
        "min_snr": settings["star_snr"],
    }  # fmt: skip
    field = measure_field(
        clean, noise, ~covered, hidden=False, detected=(sources.copy(), segments), **options
    )
    if field is not None:
        # And without the light of the stars outside their masks, which in a crowded field is sky
        # to the mesh.
        lift = background_without(
            field.residual, ~covered, field.segments, settings["background_box"]
        )
        mesh = mesh + lift
        clean = subtract_mesh(image, mesh, covered)
        same = np.abs(lift).max() < STILL * np.median(regular_sample(noise))
        detected = (sources, segments) if same else None
        field = measure_field(clean, noise, ~covered, detected=detected, **options) or field
    occupied = ~covered
    fwhm = 3.0
    if field is not None:
        fwhm = field.fwhm
        occupied |= grow(field.segments > 0, int(np.ceil(0.75 * fwhm)))
    radii = np.unique([0.5, 1.0, *settings["apertures"]]) * fwhm
    ratios = np.full(radii.size, np.nan)
    apertures, at = 0, 1.0
    total = summed_area(occupied)
    for k, radius in enumerate(radii):
        x, y = empty_apertures(total, radius, seed=k + 1)
        if x.size >= 30:
            _, ratios[k] = aperture_noise(clean, variance, x, y, radius)
            if radius == fwhm:
                apertures = int(x.size)
                _, at = aperture_noise(clean, variance, x, y, radius, subpix=1)
    variance *= at**2
    ratios = np.where(np.isfinite(ratios), ratios / at, 1.0)
    return {
        "field": field, "image": clean, "variance": variance, "covered": covered,
        "factor": 1.0 / at**2, "correlation": (at / pixel_noise) ** 2, "radii": radii,
        "ratios": ratios, "apertures": apertures, "occupied": occupied, "mesh": mesh,
        "corr_radius": fwhm,
    }  # fmt: skip


def subtract_mesh(image, mesh, covered):
    """Return a coadd without its background; 0 where nothing covers it.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mesh : ndarray
        Of `lib.photometry.sources.background_mesh`.
    covered : ndarray of bool, shape (ny, nx)

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    return np.where(covered, image - spread_mesh(mesh, image.shape), np.float32(0))


def limiting_flux(coadd, seed=7):
    """Measure the 5 sigma limit of point sources in empty apertures of 0.75 FWHM radius.

    Only the deep part counts: pixels with at least half of the median weight.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`.

    Returns
    -------
    flux : float
        Total flux of a star at 5 sigma; NaN where there is no room for 30 apertures.
    radius : float
        Pixels.
    number : int
    """
    field = coadd["field"]
    if field is None:
        return np.nan, np.nan, 0
    radius = 0.75 * field.fwhm
    variance, covered = coadd["variance"], coadd["covered"]
    shallow = ~covered | (variance > 2 * np.median(variance[covered]))
    x, y = empty_apertures(summed_area(coadd["occupied"] | shallow), radius, seed=seed)
    if x.size < 30:
        return np.nan, radius, int(x.size)
    sigma, _ = aperture_noise(coadd["image"], variance, x, y, radius)
    return 5.0 * sigma / float(field.growth.fraction(radius)), radius, int(x.size)


def coadd_zeropoint(field, sky, reference, band, settings, gain=1.0, scale=1.0):
    """Fit the zero point of a coadd against a reference.

    Parameters
    ----------
    field : lib.photometry.field.StarField
    sky : ndarray, shape (n, 2)
        ra, dec of its sources [deg].
    reference : mapping of str to ndarray, or None
    band : str
    settings : dict
    gain : float
        Electrons per unit of the coadd.
    scale : float
        Arcsec per pixel.

    Returns
    -------
    zeropoint : lib.photometry.zeropoint.Zeropoint
    stars : dict of ndarray
        Of the matched stars: source, reference row, magnitude, colour, x, y.
    """
    none = {key: np.empty(0) for key in ("source", "row", "magnitude", "colour", "x", "y")}
    if reference is None or len(reference["ra"]) == 0:
        return Zeropoint(reason="NO_REFERENCE"), none
    if not band:
        return Zeropoint(reason="NO_BAND: the filter has no band in the reference system"), none
    if band not in reference or not np.isfinite(np.asarray(reference[band], float)).any():
        return Zeropoint(reason=f"NO_BAND: the reference has no {band} magnitudes"), none
    if field is None:
        return Zeropoint(reason="NO_SOURCES"), none
    ra0, dec0 = mean_position(*sky.T)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    ours, theirs = match(project(*sky.T, ra0, dec0), at, settings["match_radius"])
    n_matched = ours.size
    spoilt = FLAG_SATURATED | FLAG_WEIGHT
    blended = FLAG_NEIGHBOUR | 1
    ratio = np.abs(np.log(np.maximum(field.half_light, 1e-3) / field.locus))
    fit_for = (field.flux > 0) & (ratio < 0.3) & (field.sources["peak"] > 0)
    fit_for &= (field.flags & (spoilt | 2 | 4 | 8 | 16)) == 0
    bright = field.snr > settings["zeropoint_snr"]
    lonely = fit_for & ((field.flags & blended) == 0)
    # The reference may resolve what the coadd does not.
    light = 10 ** (-0.4 * np.asarray(reference[band], float))
    listed = np.isfinite(at).all(axis=1) & np.isfinite(light)
    distance = np.full(len(at), np.inf)
    distance[listed] = neighbour_distance(*at[listed].T, light[listed])
    lonely[ours[distance[theirs] < scale * (field.aperture + field.fwhm)]] = False
    enough = max(settings["zeropoint_min_stars"], 5)
    good = lonely if (lonely & bright)[ours].sum() >= enough else fit_for
    ours, theirs = ours[good[ours]], theirs[good[ours]]
    catalogue = np.asarray(reference[band], float)[theirs]
    errors = reference_errors(reference, band)[theirs]
    magnitude = -2.5 * np.log10(field.total[ours])
    limits = {
        "min_stars": settings["zeropoint_min_stars"],
        "colour_min_stars": settings["colour_min_stars"],
        "colour_min_spread": settings["colour_min_spread"],
    }
    first = fit_zeropoint(
        magnitude, 1.0857 / field.snr[ours], np.where(bright[ours], catalogue, np.nan), errors,
        **limits,
    )  # fmt: skip
    keep = bright[ours]
    error = 1.0857 / field.snr[ours]
    if first.known:
        flux = 10 ** (-0.4 * (catalogue - first.value))
        magnitude, error = expected_noise(magnitude, error, field.total[ours], flux, gain)
        keep = error < 1.0857 / settings["zeropoint_snr"]
    ours, theirs, magnitude, error = (a[keep] for a in (ours, theirs, magnitude, error))
    catalogue, errors = catalogue[keep], errors[keep]
    name, colour, colour_error, covariance = "", None, None, None
    if settings["colour_term"] != "off":
        name, colour, colour_error, covariance = choose_colour(band, reference, theirs)
    result = fit_zeropoint(
        magnitude, error, catalogue, errors, colour, colour_error, covariance, colour_name=name,
        **limits,
    )  # fmt: skip
    if result.known:
        # What the aperture does not hold is the same error for all stars.
        result.error = float(np.hypot(result.error, 1.0857 * field.growth.error))
        if settings["spatial_term"] != "off":
            used = result.used
            variance = error[used] ** 2 + np.where(errors[used] > 0, errors[used], 0.02) ** 2
            result.spatial = fit_spatial_term(
                result.residual[used], variance, field.sources["x"][ours[used]],
                field.sources["y"][ours[used]],
            )  # fmt: skip
    elif n_matched == 0:
        result.reason = f"NO_MATCH: no source within {settings['match_radius']:g} arcsec"
    stars = {
        "source": ours, "row": theirs, "magnitude": catalogue,
        "colour": np.full(ours.size, np.nan) if colour is None else colour,
        "x": field.sources["x"][ours], "y": field.sources["y"][ours],
    }  # fmt: skip
    return result, stars


def astrometric_scatter(field, sky, reference, radius):
    """Compare the positions of stars with the reference.

    Parameters
    ----------
    field : lib.photometry.field.StarField
    sky : ndarray, shape (n, 2)
        ra, dec [deg].
    reference : mapping with ra, dec [deg]
    radius : float
        Arcsec.

    Returns
    -------
    rms : tuple of float
        Robust rms about zero per axis, east and north [mas].
    number : int
    """
    ra0, dec0 = mean_position(*sky.T)
    plane = project(*sky.T, ra0, dec0)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    plane = plane[(field.flags & ~1) == 0]
    ours, theirs = match(plane, at, radius)
    if ours.size < 2:
        return (np.nan, np.nan), int(ours.size)
    offset = 1000.0 * (plane[ours] - at[theirs])
    return tuple(float(v) for v in MAD_TO_SIGMA * np.median(np.abs(offset), axis=0)), ours.size
