"""stack: the frames of one target and filter become one image with a zero point.

Each frame is measured (seeing, shape, stars), tied to the others by the stars they share, and left
out with a number where it is no good; SWarp resamples and combines the rest; the coadd's weight map
is brought to the noise of empty apertures, its zero point fitted, its sources listed.
"""

import json
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.coadd import (
    celestial_wcs,
    combine_resampled,
    common_grid,
    effective_gain,
    frame_outline,
    mean_position,
    median_penalty,
    resample_frame,
    sky_variance,
    smooth_flat,
    swarp_options,
    wcs_cards,
)
from lib.frames import UNUSABLE, FrameRejected, atomic_path, read_frame, read_header
from lib.photometry import (
    AB_MINUS_VEGA,
    FLAG_NEIGHBOUR,
    FLAG_SATURATED,
    FLAG_WEIGHT,
    VEGA_BANDS,
    CatalogueError,
    Zeropoint,
    aperture_fluxes,
    aperture_noise,
    background,
    check_hours,
    choose_colour,
    common_stars,
    detect_sources,
    empty_apertures,
    fit_zeropoint,
    gnomonic,
    masked_background,
    match,
    measure_field,
    read_custom_catalogue,
    relative_zeropoints,
)
from lib.stats import MAD_TO_SIGMA

log = logging.getLogger("autoproc")

DEFAULTS = {
    "combine": "median",
    "grid": "stack",
    "min_frames": 3,
    "min_transparency": 0.1,
    "max_ellipticity": 0.4,
    "max_seeing": 0.0,
    "min_stars": 3,
    "max_scatter": 0.3,
    "min_weight": 0.1,
    "max_offset": 1.0,
    "detect_sigma": 3.0,
    "catalogue_sigma": 1.5,
    "min_area": 5,
    "star_snr": 20.0,
    "aperture": 1.5,
    "apertures": [0.75, 1.0, 1.5, 2.0, 3.0],
    "background_box": 128,
    "saturation_fraction": 0.9,
    "match_radius": 1.5,
    "colour_term": "auto",
    "colour_min_stars": 12,
    "colour_min_spread": 0.1,
    "zeropoint_min_stars": 3,
    "zeropoint_snr": 10.0,
    "clip_sigma": 4.0,
    "clip_fraction": 0.3,
    "memory": 512,
    "timeout": 3600,
}
"""Config section ``stack`` with its defaults; docs/stack.md says what each does."""

FRAME_SIGMA_FLOOR = 0.01
REFERENCE_SIGMA_FLOOR = 0.05

BLEND_ERROR = 0.003
"""Systematic error of total fluxes by neighbours too faint to be told apart [mag]: what is left on
simulated fields of 60 to 500 stars."""


# --------------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------------


def measure_frame(image, mask, header, settings):
    """Measure seeing, shape and stars of one frame.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted.
    mask : ndarray of uint8, same shape
    header : astropy.io.fits.Header
    settings : dict
        Config section ``stack``.

    Returns
    -------
    dict
        fwhm [pixel], seeing [arcsec], ellipticity, nstars, noise [stored units], and of the
        stars ra, dec [deg], magnitude (of total flux per second) and its error.

    Raises
    ------
    FrameRejected
        TOO_FEW_STARS, TRAILED or BAD_SEEING.
    """
    good = np.isfinite(image)
    if not good.all():
        image = np.where(good, image, 0).astype(np.float32)
    unusable = ((mask & UNUSABLE) > 0) | ~good
    if unusable.all():
        raise FrameRejected("NO_USABLE_PIXEL")
    level, noise = background(image, unusable, 64)
    image = image - level
    gain = float(header.get("GAIN", 1.0))
    saturate = float(header.get("SATURATE", np.inf)) * settings["saturation_fraction"]
    field = measure_field(
        image, max(noise, 1e-6), unusable, saturate=saturate, gain=gain,
        threshold=settings["detect_sigma"], min_area=settings["min_area"],
        aperture=settings["aperture"], min_snr=settings["star_snr"],
    )  # fmt: skip
    nstars = 0 if field is None else int(field.stars.sum())
    if nstars < settings["min_stars"]:
        raise FrameRejected("TOO_FEW_STARS", f"{nstars} < {settings['min_stars']}")
    scale = 3600 * np.sqrt(abs(np.linalg.det(celestial_wcs(header).pixel_scale_matrix)))
    measured = {
        "fwhm": field.fwhm, "seeing": field.fwhm * float(scale), "nstars": nstars,
        "ellipticity": field.ellipticity, "noise": noise,
    }  # fmt: skip
    if field.ellipticity > settings["max_ellipticity"]:
        raise FrameRejected(
            "TRAILED", f"ellipticity {field.ellipticity:.2f} > {settings['max_ellipticity']:g}"
        )
    if 0 < settings["max_seeing"] < measured["seeing"]:
        raise FrameRejected(
            "BAD_SEEING", f"{measured['seeing']:.2f} > {settings['max_seeing']:g} arcsec"
        )
    lonely = field.stars & ((field.flags & FLAG_NEIGHBOUR) == 0) & (field.flux > 0)
    chosen = lonely if lonely.sum() >= 5 else field.stars & (field.flux > 0)
    index = np.flatnonzero(chosen)
    index = index[np.argsort(-field.flux[index])[:300]]
    ra, dec = celestial_wcs(header).all_pix2world(
        field.sources["x"][index], field.sources["y"][index], 0
    )
    exposure = max(float(header["EXPTIME"]), 1e-3)
    magnitude = -2.5 * np.log10(field.total[index] / exposure)
    error = 1.0857 * field.error[index] / field.flux[index]
    return {**measured, "ra": ra, "dec": dec, "magnitude": magnitude, "magnitude_error": error}


def tie_frames(frames, reference, band, settings):
    """Find the zero point of each frame from the stars the frames share, and the reference.

    Parameters
    ----------
    frames : list of dict
        As `measure_frame` returns.
    reference : mapping of str to ndarray, or None
        Photometric reference with column `band`.
    band : str
    settings : dict

    Returns
    -------
    zeropoint : ndarray, shape (n,)
        Magnitude of one electron per second: absolute where the reference reaches the group of
        the frame, else with mean 0 in the group.
    scatter : ndarray, shape (n,)
    number : ndarray of int, shape (n,)
        Stars in common with other frames or the reference.
    group : ndarray of int, shape (n,)
        Zero points of different groups cannot be compared.
    absolute : bool
        Whether the zero points are absolute.
    """
    ra0, dec0 = mean_position(
        np.concatenate([f["ra"] for f in frames]), np.concatenate([f["dec"] for f in frames])
    )
    planes = [gnomonic(f["ra"], f["dec"], ra0, dec0) for f in frames]
    radius = settings["match_radius"]
    numbers, count = common_stars(planes, radius)
    rows = len(frames) + 1
    magnitude = np.full((rows, count), np.nan)
    error = np.full((rows, count), np.nan)
    place = np.full((count, 2), np.nan)
    for i, (frame, number) in enumerate(zip(frames, numbers, strict=True)):
        magnitude[i + 1, number] = frame["magnitude"]
        error[i + 1, number] = frame["magnitude_error"]
        place[number] = planes[i]
    if reference is not None and band in reference:
        at = gnomonic(reference["ra"], reference["dec"], ra0, dec0)
        ours, theirs = match(place, at, radius)
        magnitude[0, ours] = np.asarray(reference[band], float)[theirs]
        errors = reference_errors(reference, band)[theirs]
        error[0, ours] = np.where(errors > 0, errors, 0.02)
    floor = np.full((rows, 1), FRAME_SIGMA_FLOOR)
    floor[0] = REFERENCE_SIGMA_FLOOR
    z, scatter, number, group = relative_zeropoints(magnitude, error, floor)
    absolute = bool(np.isfinite(z[0]))
    if absolute:
        z = z - np.where(group == group[0], z[0], 0.0)
    if len(frames) == 1 and not np.isfinite(z[1]):
        z[1] = 0.0
    return z[1:], scatter[1:], number[1:], group[1:], absolute


def reference_errors(reference, band):
    """Return the errors of a band of the reference, NaN where it has none."""
    if f"{band}_err" in reference:
        return np.asarray(reference[f"{band}_err"], float)
    return np.full(len(reference["ra"]), np.nan)


def judge_frames(zeropoint, scatter, number, group, settings):
    """Return the transparency of each frame relative to the best, and why some are left out.

    Parameters
    ----------
    zeropoint, scatter, number, group
        As `tie_frames` returns.
    settings : dict

    Returns
    -------
    transparency : ndarray, shape (n,)
        NaN where it cannot be known.
    reasons : list of FrameRejected or None
    """
    n = len(zeropoint)
    reasons = [None] * n
    known = np.isfinite(zeropoint)
    transparency = np.full(n, np.nan)
    if not known.any():
        return transparency, [
            FrameRejected("NO_COMMON_STARS", "with any other frame or the reference")
        ] * n
    # Frames that share no star with the others cannot be scaled: the largest group stays.
    labels, counts = np.unique(group[known], return_counts=True)
    largest = labels[np.argmax(counts)]
    for i in range(n):
        if not known[i] or group[i] != largest:
            reasons[i] = FrameRejected("NO_COMMON_STARS", f"with the other {n - 1} frames")
        elif scatter[i] > settings["max_scatter"]:
            reasons[i] = FrameRejected(
                "BAD_PHOTOMETRY", f"scatter {scatter[i]:.2f} > {settings['max_scatter']:g} mag"
            )
    trusted = np.array([reason is None for reason in reasons])
    if not trusted.any():
        return transparency, reasons
    several = trusted & (number >= 5)
    best = zeropoint[several if several.any() else trusted].max()
    transparency[known] = 10 ** (0.4 * (zeropoint[known] - best))
    for i in np.flatnonzero(trusted):
        if transparency[i] < settings["min_transparency"]:
            reasons[i] = FrameRejected(
                "CLOUDY", f"transparency {transparency[i]:.3f} < {settings['min_transparency']:g}"
            )
    return transparency, reasons


def flux_scales(exposures, transparencies):
    """Return the common exposure time and the factor that brings each frame to it.

    Parameters
    ----------
    exposures : ndarray, shape (n,)
        Seconds.
    transparencies : ndarray, shape (n,)
        Relative to the best frame.

    Returns
    -------
    common : float
        Median exposure time [s].
    scales : ndarray, shape (n,)
        common / exposure / transparency.
    """
    common = float(np.median(exposures))
    return common, common / np.asarray(exposures) / np.asarray(transparencies)


def low_weight(weights, min_weight):
    """Return which frames a median is better without: weight below a part of the best."""
    weights = np.asarray(weights)
    return weights < min_weight * weights.max()


# --------------------------------------------------------------------------------------------
# Coadd
# --------------------------------------------------------------------------------------------


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
        over that by the calibrated map), apertures (number of empty ones), sky_sigma, occupied.
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
    segments = detect_sources(clean, noise, None, settings["catalogue_sigma"])[1] > 0
    sources = grow(segments, 5)
    level = masked_background(image, ~covered | sources, settings["background_box"])
    clean = np.where(covered, image - level, 0).astype(np.float32)
    field = measure_field(
        clean, noise, ~covered, saturate=saturate, gain=gain,
        threshold=settings["catalogue_sigma"], min_area=settings["min_area"],
        aperture=settings["aperture"], min_snr=settings["star_snr"],
    )  # fmt: skip
    occupied = ~covered
    fwhm = 3.0
    if field is not None:
        fwhm = field.fwhm
        occupied |= grow(field.segments > 0, int(np.ceil(0.75 * fwhm)))
    radii = np.unique([0.5, 1.0, *settings["apertures"]]) * fwhm
    ratios = np.full(radii.size, np.nan)
    apertures, at = 0, 1.0
    for k, radius in enumerate(radii):
        x, y = empty_apertures(occupied, radius, seed=k + 1)
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
        "ratios": ratios, "apertures": apertures, "occupied": occupied, "level": level,
        "corr_radius": fwhm,
    }  # fmt: skip


def grow(mask, reach):
    """Return a mask grown by `reach` pixels to each side."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=2 * reach + 1)


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
    x, y = empty_apertures(coadd["occupied"] | shallow, radius, seed=seed)
    if x.size < 30:
        return np.nan, radius, int(x.size)
    sigma, _ = aperture_noise(coadd["image"], variance, x, y, radius)
    return 5.0 * sigma / float(field.growth.fraction(radius)), radius, int(x.size)


def coadd_zeropoint(field, sky, reference, band, settings):
    """Fit the zero point of a coadd against a reference.

    Parameters
    ----------
    field : lib.photometry.StarField
    sky : ndarray, shape (n, 2)
        ra, dec of its sources [deg].
    reference : mapping of str to ndarray, or None
    band : str
    settings : dict

    Returns
    -------
    zeropoint : lib.photometry.Zeropoint
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
    ours, theirs = match(
        gnomonic(*sky.T, ra0, dec0),
        gnomonic(reference["ra"], reference["dec"], ra0, dec0),
        settings["match_radius"],
    )
    n_matched = ours.size
    spoilt = FLAG_SATURATED | FLAG_WEIGHT
    blended = FLAG_NEIGHBOUR | 1
    ratio = np.abs(np.log(np.maximum(field.half_light, 1e-3) / field.locus))
    fit_for = (field.flux > 0) & (field.snr > settings["zeropoint_snr"]) & (ratio < 0.3)
    fit_for &= (field.flags & (spoilt | 2 | 4 | 8 | 16)) == 0
    fit_for[field.sources["peak"] <= 0] = False
    lonely = fit_for & ((field.flags & blended) == 0)
    enough = max(settings["zeropoint_min_stars"], 5)
    good = lonely if lonely[ours].sum() >= enough else fit_for
    ours, theirs = ours[good[ours]], theirs[good[ours]]
    magnitude = -2.5 * np.log10(field.total[ours])
    error = 1.0857 * field.error[ours] / field.flux[ours]
    name, colour, colour_error, covariance = "", None, None, None
    if settings["colour_term"] != "off":
        name, colour, colour_error, covariance = choose_colour(band, reference, theirs)
    errors = reference_errors(reference, band)
    result = fit_zeropoint(
        magnitude, error, np.asarray(reference[band], float)[theirs], errors[theirs],
        colour, colour_error, covariance, colour_name=name,
        min_stars=settings["zeropoint_min_stars"],
        colour_min_stars=settings["colour_min_stars"],
        colour_min_spread=settings["colour_min_spread"],
    )  # fmt: skip
    if result.known:
        # What the aperture does not hold, and faint neighbours, are the same error for all stars.
        common = np.hypot(1.0857 * field.growth.error, BLEND_ERROR)
        result.error = float(np.hypot(result.error, common))
    elif n_matched == 0:
        result.reason = f"NO_MATCH: no source within {settings['match_radius']:g} arcsec"
    stars = {
        "source": ours, "row": theirs, "magnitude": np.asarray(reference[band], float)[theirs],
        "colour": np.full(ours.size, np.nan) if colour is None else colour,
        "x": field.sources["x"][ours], "y": field.sources["y"][ours],
    }  # fmt: skip
    return result, stars


def astrometric_scatter(field, sky, reference, radius):
    """Compare the positions of stars with the reference.

    Parameters
    ----------
    field : lib.photometry.StarField
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
    plane = gnomonic(*sky.T, ra0, dec0)
    at = gnomonic(reference["ra"], reference["dec"], ra0, dec0)
    plane = plane[(field.flags & ~1) == 0]
    ours, theirs = match(plane, at, radius)
    if ours.size < 2:
        return (np.nan, np.nan), int(ours.size)
    offset = 1000.0 * (plane[ours] - at[theirs])
    return tuple(float(v) for v in MAD_TO_SIGMA * np.median(np.abs(offset), axis=0)), ours.size


def source_table(coadd, wcs, zeropoint, gain, scale, settings):
    """Return the table of all sources of a coadd.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`.
    wcs : astropy.wcs.WCS
    zeropoint : lib.photometry.Zeropoint
    gain, scale : float
        Electrons per unit; arcsec per pixel.
    settings : dict

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    import sep

    field = coadd["field"]
    columns = []

    def add(name, values, unit=None, kind="E"):
        columns.append(fits.Column(name=name, format=kind, unit=unit, array=values))

    radii = [factor * (field.fwhm if field else 1.0) for factor in settings["apertures"]]
    if field is None:
        source = np.zeros(0, [(key, "f8") for key in ("x", "y", "a", "b", "theta", "peak", "flag")])
    else:
        source = field.sources
    x, y = source["x"].astype(float), source["y"].astype(float)
    n = x.size
    value = zeropoint.value
    ra, dec = wcs.all_pix2world(x, y, 0) if n else (x, y)
    add("NUMBER", np.arange(1, n + 1), kind="J")
    add("RA", ra, "deg", "D")
    add("DEC", dec, "deg", "D")
    add("X", x + 1, "pix", "D")
    add("Y", y + 1, "pix", "D")

    def magnitudes(name, flux, error):
        with np.errstate(divide="ignore", invalid="ignore"):
            mag = np.where(flux > 0, value - 2.5 * np.log10(flux), np.nan)
            mag_error = np.where(flux > 0, 1.0857 * error / flux, np.nan)
        add(f"MAG_{name}", mag, "mag")
        add(f"MAGERR_{name}", mag_error, "mag")

    noise = np.sqrt(coadd["variance"]).astype(np.float32)
    if n:
        ratio = np.interp(field.aperture, coadd["radii"], coadd["ratios"])
        point, _, _ = sep.sum_circle(coadd["variance"], x, y, field.aperture, subpix=5)
        photon = np.maximum(field.flux, 0) / gain
        variance = np.maximum(point, 0) * ratio**2 + photon
        fraction = float(field.growth.fraction(field.aperture))
        total, total_error = field.flux / fraction, np.sqrt(variance) / fraction
    else:
        total = total_error = x
    add("FLUX_POINT", total)
    add("FLUXERR_POINT", total_error)
    magnitudes("POINT", total, total_error)
    # Kron's automatic aperture (Kron 1980, as in Bertin & Arnouts 1996).
    if n:
        a, b = np.maximum(source["a"], 0.5), np.maximum(source["b"], 0.5)
        theta = np.clip(source["theta"], -np.pi / 2, np.pi / 2)
        kron, kron_flag = sep.kron_radius(
            coadd["image"], x, y, a, b, theta, 6.0, seg_id=np.arange(1, n + 1),
            segmap=field.segments,
        )  # fmt: skip
        kron = np.where(np.isfinite(kron) & (kron > 0), kron, 1.4)
        stretch = np.maximum(2.5 * kron, 3.5 / np.sqrt(a * b))
        auto, auto_error, auto_flag = sep.sum_ellipse(
            coadd["image"], x, y, a, b, theta, stretch, err=noise, gain=gain, subpix=5,
            seg_id=np.arange(1, n + 1), segmap=field.segments,
        )  # fmt: skip
        flags = field.flags | (auto_flag & 16).astype(np.int32) | (kron_flag & 128).astype(np.int32)
        kron_radius = stretch * a * scale
    else:
        auto = auto_error = kron_radius = x
        flags = np.zeros(0, np.int32)
    add("FLUX_AUTO", auto)
    add("FLUXERR_AUTO", auto_error)
    magnitudes("AUTO", auto, auto_error)
    for k, radius in enumerate(radii, start=1):
        if n:
            flux, _, _ = aperture_fluxes(coadd["image"], noise, x, y, [radius])
            flux = flux[:, 0]
            empty, _, _ = sep.sum_circle(coadd["variance"], x, y, radius, subpix=5)
            ratio = np.interp(radius, coadd["radii"], coadd["ratios"])
            error = np.sqrt(np.maximum(empty, 0) * ratio**2 + np.maximum(flux, 0) / gain)
        else:
            flux = error = x
        add(f"FLUX_APER{k}", flux)
        add(f"FLUXERR_APER{k}", error)
        magnitudes(f"APER{k}", flux, error)
    add("KRON_RADIUS", kron_radius, "arcsec")
    add("A_IMAGE", source["a"], "pix")
    add("B_IMAGE", source["b"], "pix")
    add("THETA", np.degrees(source["theta"]), "deg")
    with np.errstate(divide="ignore", invalid="ignore"):
        add("ELLIPTICITY", 1 - source["b"] / source["a"])
    add("HALF_LIGHT", (field.half_light if field else x) * scale, "arcsec")
    size = field.half_light / field.locus if field else x
    add("SIZE_RATIO", size)
    add("STAR", (np.abs(np.log(np.maximum(size, 1e-3))) < 0.3), kind="L")
    add("PEAK", source["peak"])
    add("FLAGS", flags, kind="J")
    used = np.zeros(n, bool)
    add("ZP_STAR", used, kind="L")
    table = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    for k, radius in enumerate(radii, start=1):
        table.header[f"APRAD{k}"] = (radius * scale, f"[arcsec] radius of APER{k}")
    if field is not None:
        table.header["APRADP"] = (field.aperture * scale, "[arcsec] aperture of POINT")
        fraction = float(field.growth.fraction(field.aperture))
        table.header["APCOR"] = (2.5 * np.log10(fraction), "[mag] correction of POINT to total")
        table.header["APCORERR"] = (1.0857 * field.growth.error, "[mag] its error")
    return table


# --------------------------------------------------------------------------------------------
# Header
# --------------------------------------------------------------------------------------------


def airmass_cards(headers):
    """Return the median, least and largest airmass that can be true, or nothing."""
    values = [float(h["AIRMASS"]) for h in headers if isinstance(h.get("AIRMASS"), int | float)]
    values = np.array([v for v in values if 1.0 <= v <= 10.0])
    if values.size == 0:
        return {}
    return {
        "AIRMASS": (float(np.median(values)), "median airmass of the frames"),
        "AIRMIN": (float(values.min()), "least airmass"),
        "AIRMAX": (float(values.max()), "largest airmass"),
    }


def time_cards(headers):
    """Return the times of a stack: first and last start, median, exposure times."""
    starts = sorted(str(h["DATE-OBS"]) for h in headers if h.get("DATE-OBS"))
    cards = {}
    if starts:
        middle = np.array(starts, dtype="datetime64[ms]")
        median = middle.view("int64")
        median = np.datetime64(int(np.median(median)), "ms")
        cards["DATE-OBS"] = (str(median), "median start of the exposures (UTC)")
        cards["DATE1"] = (starts[0], "start of the first exposure (UTC)")
        cards["DATEN"] = (starts[-1], "start of the last exposure (UTC)")
    mjd = np.array([h["MJD-OBS"] for h in headers if "MJD-OBS" in h], float)
    if mjd.size:
        cards["MJD-OBS"] = (float(np.median(mjd)), "median start of the exposures")
        ends = [h["MJD-OBS"] + h["EXPTIME"] / 86400 for h in headers if "MJD-OBS" in h]
        cards["MJD-BEG"] = (float(mjd.min()), "start of the first exposure")
        cards["MJD-END"] = (float(max(ends)), "end of the last exposure")
    exposure = np.array([float(h["EXPTIME"]) for h in headers])
    cards["EXPTIME"] = (float(np.median(exposure)), "[s] exposure the pixels are scaled to")
    cards["TOTALEXP"] = (float(exposure.sum()), "[s] sum of the exposures")
    cards["MAXEXP"] = (float(exposure.max()), "[s] longest exposure")
    cards["MINEXP"] = (float(exposure.min()), "[s] shortest exposure")
    return cards


def zeropoint_cards(zeropoint, band, source):
    """Return the cards of a zero point, or of why there is none."""
    cards = {}
    if not zeropoint.known:
        cards["ABSZPNST"] = (0, "stars in the zero point")
        cards["ABSZPCAT"] = ("NONE", "photometric reference")
        cards["ZPREASON"] = (zeropoint.reason[:66], "why there is no zero point")
        return cards
    vega = band in VEGA_BANDS
    cards["ABSZPT"] = (zeropoint.value, "[mag] mag = ABSZPT - 2.5 log10(sum of pixels)")
    cards["ABSZPERR"] = (zeropoint.error, "[mag] error of ABSZPT")
    cards["ABSZPTSC"] = (zeropoint.scatter, "[mag] robust scatter of the stars")
    cards["ABSZPRMS"] = (zeropoint.rms, "[mag] rms of the stars")
    cards["ABSZPINT"] = (zeropoint.intrinsic, "[mag] scatter beyond the stated errors")
    cards["ABSZPNST"] = (zeropoint.n_stars, "stars in the zero point")
    cards["ABSZPCAT"] = (source, "photometric reference")
    cards["ZPSYS"] = ("Vega" if vega else "AB", "system of ABSZPT")
    if band in AB_MINUS_VEGA:
        offset = AB_MINUS_VEGA[band]
        value = zeropoint.value
        cards["ABSZPAB"] = (value + offset if vega else value, "[mag] zero point, AB")
        cards["ABSZPVEG"] = (value if vega else value - offset, "[mag] zero point, Vega")
    if zeropoint.colour:
        cards["ABSZPCOL"] = (zeropoint.colour_term, "mag += ABSZPCOL * (colour - ABSZPCMN)")
        cards["ABSZPCER"] = (zeropoint.colour_term_error, "error of ABSZPCOL")
        cards["ABSZPCNM"] = (zeropoint.colour, "colour of the colour term")
        cards["ABSZPCMN"] = (zeropoint.colour_at, "[mag] colour at which ABSZPT holds")
    else:
        cards["ABSZPCOL"] = (0.0, "no colour term fitted")
    return cards


def shape_cards(coadd, scale):
    """Return the cards of seeing, aperture correction and noise of a coadd."""
    field = coadd["field"]
    cards = {}
    if field is not None:
        fraction = float(field.growth.fraction(field.aperture))
        cards["SEEPIX"] = (field.fwhm, "[pixel] FWHM of stars")
        cards["SEEING"] = (field.fwhm * scale, "[arcsec] FWHM of stars")
        if np.isfinite(field.ellipticity):
            cards["ELLIPTIC"] = (field.ellipticity, "median 1 - b/a of stars")
        cards["APRAD"] = (field.aperture * scale, "[arcsec] radius of the photometry")
        cards["APCOR"] = (2.5 * np.log10(fraction), "[mag] from that aperture to total flux")
        cards["APCORERR"] = (1.0857 * field.growth.error, "[mag] error of APCOR")
        cards["APCORNST"] = (field.growth.n_stars, "stars in APCOR, 0: assumed profile")
    cards["CORRFAC"] = (coadd["correlation"], "variance in apertures over that of pixels")
    cards["CORRRAD"] = (coadd["corr_radius"] * scale, "[arcsec] radius of those apertures")
    cards["CORRNAP"] = (coadd["apertures"], "empty apertures; 0: CORRFAC not measured")
    cards["WTSCALE"] = (coadd["factor"], "factor on SWarp's weights")
    return cards


def limit_cards(coadd, zeropoint, scale):
    """Return the cards of the depth of a coadd."""
    limit, radius, number = limiting_flux(coadd)
    if not np.isfinite(limit):
        return {}
    cards = {"LIMFLUX": (limit, "[electron] 5 sigma point source, total flux")}
    if zeropoint.known:
        value = zeropoint.value - 2.5 * np.log10(limit)
        cards["LIMMAG"] = (value, "[mag] 5 sigma point source, empty apertures")
    cards["LIMRAD"] = (radius * scale, "[arcsec] radius of those apertures")
    cards["LIMNAP"] = (number, "empty apertures measured")
    return cards


def position_cards(field, sky, reference, headers, radius):
    """Return the cards of the astrometry of a coadd."""
    aligned = {str(h.get("ASTRCAT", "NONE")) for h in headers} != {"NONE"}
    known = reference.stars is not None and aligned
    cards = {"ASTRCAT": (reference.source if known else "NONE", "astrometric reference")}
    if known and field is not None:
        rms, number = astrometric_scatter(field, sky, reference.stars, radius)
        if number >= 2:
            cards["ASTRMS1"] = (rms[0], "[mas] robust rms east against ASTRCAT")
            cards["ASTRMS2"] = (rms[1], "[mas] robust rms north against ASTRCAT")
        cards["ASTRNST"] = (number, "stars compared")
    return cards


def flag_stack(header, zeropoint, settings):
    """Write into the header what to mind about a stack; return the codes."""
    flags = []
    if header["NSTACK"] < settings["min_frames"]:
        flags.append(("FEW_FRAMES", f"{header['NSTACK']} < {settings['min_frames']}"))
    if header["ASTRCAT"] == "NONE":
        flags.append(("NO_ASTROMETRIC_REFERENCE", ""))
    if not zeropoint.known:
        flags.append(("NO_ZEROPOINT", zeropoint.reason))
    if flags:
        header["QCFLAG"] = (" ".join(code for code, _ in flags)[:66], "what to mind")
        reasons = [f"{code}: {why}" if why else code for code, why in flags]
        header["QCREASON"] = "; ".join(reasons)[:66]
    return [code for code, _ in flags]


PROVENANCE_KEYS = (
    "FRAME", "RAWFILE", "DATE-OBS", "EXPTIME", "AIRMASS", "BIASFILE", "BIASSUM", "DARKFILE",
    "DARKSUM", "FLATFILE", "FLATSUM", "SKYFILE", "SKYSUM", "FRNGFILE", "FRNGSUM", "GAIN",
    "RDNOISE", "SKYSUB", "ASTRCAT", "ASTRMS1", "ASTRMS2", "ASTRNST",
)  # fmt: skip


def provenance_table(records):
    """Return one row per frame: what it is made of, what was measured, why it was left out.

    Parameters
    ----------
    records : list of dict
        With name, header, code and the numbers of `run`.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    columns = []
    for key in PROVENANCE_KEYS:
        values = [record["header"].get(key) for record in records]
        if all(value is None for value in values):
            continue
        if all(isinstance(v, int | float) or v is None for v in values):
            array = np.array([np.nan if v is None else float(v) for v in values])
            columns.append(fits.Column(name=key, format="D", array=array))
        else:
            text = ["" if v is None else str(v) for v in values]
            width = max(1, max(len(word) for word in text))
            columns.append(fits.Column(name=key, format=f"{width}A", array=np.array(text)))
    for key in ("fwhm", "seeing", "ellipticity", "zeropoint", "transparency", "scale", "weight"):
        array = np.array([record.get(key, np.nan) for record in records], float)
        columns.append(fits.Column(name=key.upper(), format="E", array=array))
    used = np.array([record["used"] for record in records])
    columns.append(fits.Column(name="USED", format="L", array=used))
    text = [record.get("reason", "") for record in records]
    width = max(1, max(len(word) for word in text))
    columns.append(fits.Column(name="REASON", format=f"{width}A", array=np.array(text)))
    return fits.BinTableHDU.from_columns(columns, name="PROVENANCE")


def plain(value):
    """Return `value` fit for JSON: NaN as None, numpy numbers as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


# --------------------------------------------------------------------------------------------
# The step
# --------------------------------------------------------------------------------------------


def plot_zeropoint(path, title, zeropoint, stars, shape):
    """Draw the residuals of the zero point against magnitude, colour and position.

    Parameters
    ----------
    path : path-like
    title : str
    zeropoint : lib.photometry.Zeropoint
    stars : dict
        Of `coadd_zeropoint`.
    shape : tuple of int
        Of the coadd.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    axes = axes.ravel()
    if zeropoint.known:
        title += f"   ABSZPT {zeropoint.value:.3f} $\\pm$ {zeropoint.error:.3f}"
        used, residual = zeropoint.used, zeropoint.residual
        span = max(4 * zeropoint.scatter, 0.05)
        for axis, key, label in (
            (axes[0], "magnitude", "reference magnitude"),
            (axes[1], "colour", zeropoint.colour or "colour"),
            (axes[2], "x", "x [pixel]"),
        ):  # fmt: skip
            shown = np.isfinite(stars[key])
            for kept, colour, name in ((True, "C0", "used"), (False, "C3", "left out")):
                chosen = shown & (used == kept)
                axis.plot(
                    stars[key][chosen], np.clip(residual[chosen], -span, span), ".", color=colour,
                    label=f"{name} ({int(chosen.sum())})",
                )  # fmt: skip
            axis.axhline(0, color="0.5", lw=0.8)
            axis.set(xlabel=label, ylabel="reference - fit [mag]", ylim=(-1.1 * span, 1.1 * span))
        axes[0].legend()
        drawn = axes[3].scatter(
            stars["x"][used], stars["y"][used], c=residual[used], s=14, cmap="coolwarm",
            vmin=-span, vmax=span,
        )  # fmt: skip
        axes[3].set(xlabel="x [pixel]", ylabel="y [pixel]", xlim=(0, shape[1]), ylim=(0, shape[0]))
        figure.colorbar(drawn, ax=axes[3], label="mag")
    else:
        axes[0].text(0.02, 0.5, f"no zero point\n{zeropoint.reason}", wrap=True)
        for axis in axes:
            axis.set_axis_off()
    figure.suptitle(title)
    with atomic_path(path) as beside:
        figure.savefig(beside, dpi=90, format="png")
    plt.close(figure)


class FlatCache:
    """Smoothed flats by name, each read once.

    Parameters
    ----------
    paths : iterable of path-like
        Flats that frames may name in their header.
    directory : path-like
        Where to look for others.
    """

    def __init__(self, paths, directory):
        self.paths = {Path(path).name: Path(path) for path in paths}
        self.directory = Path(directory)
        self.flats = {}

    def get(self, name, shape):
        """Return the flat a frame was divided by, or None where it is not there."""
        if not name:
            return None
        if name not in self.flats:
            path = self.paths.get(name, self.directory / name)
            flat = None
            if path.exists():
                master = read_frame(path)
                flat = None if master.image is None else smooth_flat(master.image)
            else:
                log.warning("flat %s is not there: weights without it", name)
            self.flats[name] = flat
        flat = self.flats[name]
        return flat if flat is not None and flat.shape == shape else None


def load_reference(path):
    """Read the reference table; None where it is empty.

    Returns
    -------
    dict of str to ndarray, or None
    source : str
    reason : str
        Why it is empty.
    """
    if not path:
        return None, "NONE", ""
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    source = str(table.meta.get("source") or Path(path).name)
    if len(table) == 0:
        return None, "NONE", str(table.meta.get("reason", ""))
    columns = {name: np.ma.filled(np.ma.asarray(table[name], float), np.nan)
               for name in table.colnames if table[name].dtype.kind in "fiu"}  # fmt: skip
    return columns, source, ""


def survey_frames(paths, settings):
    """Measure every frame of a stack.

    Returns
    -------
    list of dict
        One per frame: name, path, header, used (whether it still may be), reason, code and what
        `measure_frame` found.
    """
    records = []
    for path in paths:
        frame = read_frame(path)
        header = frame.header
        name = str(header.get("FRAME", Path(path).stem))
        record = {"name": name, "path": str(path), "header": header, "used": True, "reason": ""}
        records.append(record)
        if frame.rejected or frame.image is None:
            record.update(used=False, reason=frame.reason or "no image", step=header.get("QCSTEP"))
            continue
        header["NAXIS1"], header["NAXIS2"] = frame.image.shape[1], frame.image.shape[0]
        try:
            record.update(measure_frame(frame.image, frame.mask, header, settings))
        except FrameRejected as why:
            leave_out(record, why)
    return records


def leave_out(record, why):
    """Mark a frame as left out of the stack."""
    record.update(used=False, reason=str(why), step="stack")
    log.warning("%s left out: %s", record["name"], why)


def separations(sky, centre):
    """Return the angles between positions, shape (n, 2), and one more [deg]."""
    ra, dec = np.radians(np.asarray(sky)).T
    ra0, dec0 = np.radians(centre)
    half = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * np.cos(dec0) * np.sin((ra - ra0) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def select_frames(records, reference, band, settings):
    """Tie, judge and scale the frames; those unfit are marked in `records`.

    Returns
    -------
    list of dict
        The frames to stack, with transparency, scale, weight and zeropoint.
    """
    alive = [record for record in records if record["used"]]
    if not alive:
        return []
    outlines = [frame_outline(record["header"]) for record in alive]
    centres = np.array([mean_position(*outline.T) for outline in outlines])
    # From the frame nearest to the others, not from their mean: one astray must not move it.
    distances = np.array([separations(centres, centre) for centre in centres])
    offsets = distances[np.argmin(np.median(distances, axis=1))]
    for record, offset in zip(alive, offsets, strict=True):
        if not offset <= settings["max_offset"]:
            leave_out(
                record, FrameRejected("OFF_FIELD", f"{offset:.2f} > {settings['max_offset']:g} deg")
            )
    alive = [record for record in alive if record["used"]]
    zeropoint, scatter, number, group, absolute = tie_frames(alive, reference, band, settings)
    transparency, reasons = judge_frames(zeropoint, scatter, number, group, settings)
    for i, record in enumerate(alive):
        record.update(
            zeropoint=float(zeropoint[i]), scatter=float(scatter[i]), common=int(number[i]),
            transparency=float(transparency[i]), zeropoint_absolute=absolute,
        )  # fmt: skip
        if reasons[i] is not None:
            leave_out(record, reasons[i])
    alive = [record for record in alive if record["used"]]
    if not alive:
        return []
    while True:
        exposure = np.array([float(record["header"]["EXPTIME"]) for record in alive])
        _, scales = flux_scales(exposure, [record["transparency"] for record in alive])
        for record, scale in zip(alive, scales, strict=True):
            header = record["header"]
            variance = sky_variance(
                float(header.get("SKYSUB", 0.0)), float(header.get("RDNOISE", 0.0)),
                float(header.get("GAIN", 1.0)),
            )  # fmt: skip
            record["modelled"] = variance > 0
            # Without sky and read noise in the header the noise measured must do.
            record["variance"] = float(variance) if variance > 0 else record["noise"] ** 2
            record["noise_ratio"] = record["noise"] / np.sqrt(record["variance"])
            record["scale"] = float(scale)
            record["weight"] = float(1.0 / (scale**2 * record["variance"]))
        if settings["combine"] == "weighted":
            return alive
        weights = np.array([record["weight"] for record in alive])
        low = low_weight(weights, settings["min_weight"])
        if not low.any():
            return alive
        for i in np.flatnonzero(low):
            leave_out(
                alive[i],
                FrameRejected(
                    "LOW_WEIGHT", f"{weights[i] / weights.max():.3f} < {settings['min_weight']:g}"
                ),
            )
        alive = [record for record in alive if record["used"]]


def build_coadd(used, grid, settings, flats, workdir, threads):
    """Resample and combine the frames.

    Returns
    -------
    image, weight : ndarray of float32
    version : str
        Of SWarp.
    """
    options = swarp_options(
        grid, threads=threads, memory=settings["memory"], clip_sigma=settings["clip_sigma"],
        clip_fraction=settings["clip_fraction"],
    )  # fmt: skip
    names = []
    for number, record in enumerate(used, start=1):
        frame = read_frame(record["path"])
        header = frame.header
        variance = record["variance"]
        if record["modelled"]:
            flat = flats.get(header.get("FLATFILE", ""), frame.image.shape)
            variance = sky_variance(
                float(header.get("SKYSUB", 0.0)), float(header.get("RDNOISE", 0.0)),
                float(header.get("GAIN", 1.0)), flat,
            )  # fmt: skip
        names.append(
            resample_frame(
                f"f{number:05d}", frame.image, frame.mask, header, variance, record["scale"], grid,
                workdir, options, settings["timeout"],
            )
        )  # fmt: skip
    return combine_resampled(
        names, settings["combine"], grid, workdir, options, settings["timeout"]
    )


@dataclass(frozen=True)
class Products:
    """Paths of what a stack writes."""

    coadd: Path
    weight: Path
    cat: Path
    qa: Path
    plot: Path | None = None


@dataclass(frozen=True)
class Reference:
    """Stars of known position and magnitude, and what to call them.

    Parameters
    ----------
    stars : dict of str to ndarray, or None
        For positions.
    source : str
    photometric : dict of str to ndarray, or None
        For magnitudes: the same, or the custom catalogue.
    photometric_source : str
    reason : str
        Why there is none.
    """

    stars: dict | None
    source: str
    photometric: dict | None
    photometric_source: str
    reason: str = ""


def find_reference(refcat, customcat, customcatfilt, records):
    """Return the reference of a stack, with the custom catalogue where it serves the filter."""
    stars, source, reason = load_reference(refcat)
    first = records[0]["header"]
    if not (customcat and {first.get("BAND"), first.get("FILTER")} & set(customcatfilt)):
        return Reference(stars, source, stars, source, reason)
    custom = read_custom_catalogue(customcat)
    for header in (record["header"] for record in records):
        if "CRVAL1" in header and "NAXIS1" in header:
            check_hours(custom, header["CRVAL1"], header["CRVAL2"], 1.0, f"customcat {customcat}")
            break
    return Reference(stars, source, custom, Path(customcat).name, reason)


def run(
    frames, coadd_path, weight_path, cat_path, qa_path, *, refcat=None, flats=(), customcat=None,
    customcatfilt=(), grid_frames=(), plot_path=None, settings=None, version=1, threads=1,
):  # fmt: skip
    """Stack the frames of one target and filter.

    Parameters
    ----------
    frames : list of path-like
        azsfp frames.
    coadd_path, weight_path, cat_path, qa_path : path-like
        Outputs.
    refcat : path-like, optional
        Reference table (ECSV), which may be empty.
    flats : sequence of path-like
        Masters that header FLATFILE of the frames names; others are looked for beside the frames.
    customcat : path-like, optional
        Custom catalogue; used instead of the reference's magnitudes for bands in `customcatfilt`.
    customcatfilt : sequence of str
    grid_frames : sequence of path-like
        Frames whose footprint the coadd covers (all filters of the target); `frames` if empty.
    plot_path : path-like, optional
        Plot of the zero point.
    settings : dict
        Config section ``stack``; what is missing has the value of `DEFAULTS`.
    version : int
        Of the step.
    threads : int

    Raises
    ------
    lib.photometry.CatalogueError
        A custom catalogue that cannot be used.
    """
    settings = {**DEFAULTS, **(settings or {})}
    products = Products(coadd_path, weight_path, cat_path, qa_path, plot_path)
    records = survey_frames(frames, settings)
    first = records[0]["header"]
    band = str(first.get("BAND", ""))
    reference = find_reference(refcat, customcat, customcatfilt, records)
    used = select_frames(records, reference.photometric, band, settings)
    header = fits.Header()
    for key in ("INSTRUME", "CAMERA", "OBJECT", "TARGET", "FILTER", "BAND"):
        if key in first:
            header[key] = (first[key], first.comments[key])
    header["NSTACK"] = (len(used), "frames in the stack")
    header["NREJECT"] = (len(records) - len(used), "frames left out")
    summary = {
        "combine": settings["combine"], "band": band, "nframes": len(records), "nstack": len(used),
        "nreject": len(records) - len(used), "flags": [], "reference": reference.source,
        "reference_reason": reference.reason, "version": version,
    }  # fmt: skip
    if not used:
        write_rejected(products, header, summary, records)
        return
    footprint = [record["header"] for record in used]
    if grid_frames:
        others = [read_header(path) for path in grid_frames]
        others = [h for h in others if h.get("NAXIS") == 2 and h.get("QCSTAT") != "REJECTED"]
        footprint = others or footprint
    grid = common_grid(footprint)
    # Temporary files lie beside the product: there is room for it there.
    with tempfile.TemporaryDirectory(
        prefix=f".stack-{os.getpid()}-", dir=Path(coadd_path).resolve().parent
    ) as workdir:
        cache = FlatCache(flats, Path(used[0]["path"]).parent)
        image, weight, swarp = build_coadd(used, grid, settings, cache, workdir, threads)

    headers = [record["header"] for record in used]
    scales = np.array([record["scale"] for record in used])
    gains = [float(h.get("GAIN", 1.0)) for h in headers]
    weights = [record["weight"] for record in used]
    gain = effective_gain(scales, gains, weights, settings["combine"])
    saturate = np.min([s * h.get("SATURATE", np.inf) for s, h in zip(scales, headers, strict=True)])
    coadd = calibrate_weight(
        image, weight, settings, float(saturate) * settings["saturation_fraction"], gain
    )
    weight *= np.float32(coadd["factor"])
    field = coadd["field"]
    wcs = celestial_wcs(grid.header())
    sky = np.empty((0, 2))
    if field is not None:
        sky = np.column_stack(wcs.all_pix2world(field.sources["x"], field.sources["y"], 0))
    zeropoint, stars = coadd_zeropoint(field, sky, reference.photometric, band, settings)

    header.update(wcs_cards(grid.header()))
    header["BUNIT"] = "electron"
    cards = {
        **time_cards(headers),
        **airmass_cards(headers),
        "COMBINET": (settings["combine"], "how the frames were combined"),
        "GAIN": (gain, "[electron] effective, per unit: noise^2 = flux / GAIN"),
        "PIXSCALE": (grid.scale, "[arcsec] per pixel"),
        **shape_cards(coadd, grid.scale),
        **zeropoint_cards(zeropoint, band, reference.photometric_source),
        **limit_cards(coadd, zeropoint, grid.scale),
        **position_cards(field, sky, reference, headers, settings["match_radius"]),
        "SWARPVER": (swarp, "version of SWarp"),
        "QCSTAT": ("OK", "fit for use: OK or REJECTED"),
    }
    if np.isfinite(saturate):
        cards["SATURATE"] = (float(saturate), "least saturation level of the frames, scaled")
    for number, record in enumerate(used, start=1):
        cards[f"STACK{number}"] = record["name"]
    for key, value in cards.items():
        header[key] = value
    flags = flag_stack(header, zeropoint, settings)
    words = " ".join(f"{key}={value}" for key, value in settings.items())
    header.add_history(f"autoproc stack v{version} {words}")

    table = source_table(coadd, wcs, zeropoint, gain, grid.scale, settings)
    if zeropoint.known:
        table.data["ZP_STAR"][stars["source"][zeropoint.used]] = True
    weight_header = wcs_cards(grid.header())
    weight_header["BUNIT"] = "electron-2"
    for key in ("CORRFAC", "CORRRAD", "CORRNAP", "WTSCALE", "NSTACK", "QCSTAT", "OBJECT", "FILTER"):
        if key in header:
            weight_header[key] = (header[key], header.comments[key])
    write_fits(weight_path, [fits.PrimaryHDU(weight, weight_header)])
    table_header = header.copy()
    for card in wcs_cards(header):
        del table_header[card]
    write_fits(cat_path, [fits.PrimaryHDU(header=table_header), table])
    write_fits(coadd_path, [fits.PrimaryHDU(image, header), provenance_table(records)])
    summary.update(
        status="OK", flags=flags, reason=header.get("QCREASON", ""),
        limmag=header.get("LIMMAG"), astrms=[header.get("ASTRMS1"), header.get("ASTRMS2")],
        astrnst=header.get("ASTRNST", 0), exptime=header["EXPTIME"], gain=gain,
        saturate=float(saturate), swarp=swarp, size=[grid.nx, grid.ny], scale=grid.scale,
        nsources=len(table.data), fwhm=header.get("SEEPIX"), seeing=header.get("SEEING"),
        ellipticity=header.get("ELLIPTIC"), aperture_correction_error=header.get("APCORERR"),
        growth_stars=header.get("APCORNST", 0), correlation=coadd["correlation"],
        weight_factor=coadd["factor"], noise_radii=coadd["radii"] * grid.scale,
        noise_ratios=coadd["ratios"], empty_apertures=coadd["apertures"],
        zeropoint={key: getattr(zeropoint, key) for key in (
            "value", "error", "scatter", "rms", "intrinsic", "n_stars", "n_matched", "colour",
            "colour_term", "colour_term_error", "colour_at", "reason")},
    )  # fmt: skip
    summary["zeropoint"]["catalogue"] = header["ABSZPCAT"]
    if settings["combine"] == "median":
        summary["median_penalty"] = float(np.sqrt(median_penalty(len(used))))
    write_summary(qa_path, summary, records)
    if plot_path:
        plot_zeropoint(plot_path, Path(coadd_path).stem, zeropoint, stars, image.shape)


def write_rejected(products, header, summary, records):
    """Write the products of a stack without frames: headers without data."""
    header["QCSTAT"] = ("REJECTED", "fit for use: OK or REJECTED")
    header["QCSTEP"] = ("stack", "step that rejected it")
    header["QCREASON"] = f"NO_FRAMES: 0 of {len(records)} frames can be stacked"
    for path in (products.weight, products.cat, products.coadd):
        write_fits(path, [fits.PrimaryHDU(header=header)])
    summary.update(status="REJECTED", reason=header["QCREASON"])
    write_summary(products.qa, summary, records)
    if products.plot:
        nothing = Zeropoint(reason="NO_FRAMES")
        plot_zeropoint(products.plot, Path(products.coadd).stem, nothing, {}, (1, 1))


def write_fits(path, hdus):
    """Write a FITS file whole or not at all, with CHECKSUM and DATASUM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # long cards are cut
        with atomic_path(path) as beside:
            fits.HDUList(hdus).writeto(beside, checksum=True, overwrite=True)


def write_summary(path, summary, records):
    """Write the quality numbers of a stack and of its frames as JSON."""
    keys = (
        "used", "reason", "step", "fwhm", "seeing", "ellipticity", "nstars", "noise", "zeropoint",
        "zeropoint_absolute", "scatter", "common", "transparency", "scale", "weight", "noise_ratio",
    )  # fmt: skip
    summary["frames"] = {
        record["name"]: {key: record[key] for key in keys if key in record} for record in records
    }
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(plain(summary), indent=1), encoding="utf-8")


def listed(value):
    """Return the paths of a named input, be it one, many or none."""
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


if "snakemake" in globals():
    import sys

    from lib.steps import start_log

    smk = snakemake
    start_log(smk.log[0] if smk.log else None)
    try:
        run(
            listed(smk.input.frames), smk.output.coadd, smk.output.weight, smk.output.cat,
            smk.output.qa, refcat=smk.input.get("refcat"),
            flats=listed(smk.input.get("flats")), customcat=smk.input.get("customcat"),
            customcatfilt=list(smk.params.get("customcatfilt", ())),
            grid_frames=listed(smk.input.get("grid")), plot_path=smk.output.get("plot"),
            settings=dict(smk.params.settings), version=smk.params.version, threads=smk.threads,
        )  # fmt: skip
    except CatalogueError as error:
        log.error("%s", error)
        sys.exit(str(error))
