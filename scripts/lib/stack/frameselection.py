"""What a frame is worth to a stack: seeing, stars, zero point, transparency, weight."""

from dataclasses import astuple

import numpy as np

from lib.core.crossmatch import common_stars, match
from lib.core.sphere import mean_position, project
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.frame.file import FrameRejected
from lib.photometry.field import FLAG_NEIGHBOUR, measure_field
from lib.photometry.sources import background, detection_arrays
from lib.photometry.zeropoint import relative_zeropoints

FRAME_SIGMA_FLOOR = 0.01


REFERENCE_SIGMA_FLOOR = 0.05


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
        fwhm [pixel], seeing [arcsec], ellipticity, nstars, noise [stored units], the WCS, and of
        the stars ra, dec [deg], magnitude (of total flux per second) and its error.

    Raises
    ------
    FrameRejected
        TOO_FEW_STARS, TRAILED or BAD_SEEING.
    """
    image, flag = detection_arrays(image, mask)
    unusable = flag > 0
    if unusable.all():
        raise FrameRejected("NO_USABLE_PIXEL")
    level, noise = background(image, unusable, 64)
    image = image - level
    gain = float(header.get("GAIN", 1.0))
    saturate = float(header.get("SATURATE", np.inf)) * settings["saturation_fraction"]
    field = measure_field(
        image, max(noise, 1e-6), unusable, saturate=saturate, gain=gain,
        threshold=settings["detect_sigma"], min_area=settings["min_area"],
        aperture=settings["aperture"], min_snr=settings["star_snr"], hidden=False,
    )  # fmt: skip
    nstars = 0 if field is None else int(field.stars.sum())
    if nstars < settings["min_stars"]:
        raise FrameRejected("TOO_FEW_STARS", f"{nstars} < {settings['min_stars']}")
    wcs = celestial_wcs(header)
    measured = {
        "fwhm": field.fwhm, "seeing": field.fwhm * pixel_scale(wcs), "nstars": nstars,
        "ellipticity": field.ellipticity, "noise": noise, "aperture": field.aperture,
        "fraction": float(field.growth.fraction(field.aperture)),
        "wings": list(astuple(field.growth.wings(field.shape))), "wcs": wcs,
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
    ra, dec = wcs.all_pix2world(field.sources["x"][index], field.sources["y"][index], 0)
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
    planes = [project(f["ra"], f["dec"], ra0, dec0) for f in frames]
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
        at = project(reference["ra"], reference["dec"], ra0, dec0)
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
