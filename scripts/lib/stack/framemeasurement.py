"""Seeing, shape, noise and stars of the frames of a stack."""

from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.frame.file import FrameRejected, read_frame
from lib.photometry.backgroundmesh import background
from lib.photometry.doubled import second_images
from lib.photometry.flags import FLAG_NEIGHBOUR
from lib.photometry.image import MeasurementImage
from lib.photometry.psf import ellipticity_on_sky
from lib.photometry.sources import detection_arrays
from lib.photometry.starfield import FieldSettings, StarField, measure_field
from lib.stack.stackframe import FrameCache, FrameMeasurement, FrameStars, StackFrame

BACKGROUND_BOX = 64
"""[pixel] Side of a background mesh of a frame."""

MAX_STARS = 300
"""Maximum number of stars, the brightest first, for the zero point of a frame."""

MIN_ISOLATED_STARS = 5
"""With fewer stars without a neighbour all are used for the zero point of a frame."""

SQUARE = 1.02
"""Ratio of the sides of a pixel below which it counts as square."""

LEAST_EXPOSURE = 1e-3
"""[s] Minimum exposure time; shorter ones are set to this."""


def survey_frames(
    paths: Iterable[str | Path], settings: StackSettings, cache: FrameCache
) -> list[StackFrame]:
    """Measure all frames of a stack; those rejected by earlier steps are only listed.

    Parameters
    ----------
    paths : iterable of path-like
        Frames.
    settings : StackSettings
        Settings of the step.
    cache : FrameCache
        Keeps frames in memory as far as it has room.

    Returns
    -------
    list of StackFrame
    """
    frames = []
    for path in map(Path, paths):
        content = read_frame(path)
        header = content.header
        frame = StackFrame(str(header.get("FRAME", path.stem)), path, header)
        frames.append(frame)
        if content.rejected or content.image is None or content.mask is None:
            frame.used, frame.reason = False, content.reason or "no image"
            frame.step = header.get("QCSTEP")
            continue
        header["NAXIS1"], header["NAXIS2"] = content.image.shape[1], content.image.shape[0]
        try:
            frame.measured = measure_frame(content.image, content.mask, header, settings)
        except FrameRejected as why:
            frame.leave_out(why)
            continue
        cache.keep(path, content)
    return frames


def measure_frame(
    image: np.ndarray, mask: np.ndarray, header: fits.Header, settings: StackSettings
) -> FrameMeasurement:
    """Measure seeing, shape and stars of one frame.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted image.
    mask : ndarray of uint8, same shape
        Mask bits.
    header : astropy.io.fits.Header
        Header of the frame.
    settings : StackSettings
        Settings of the step.

    Returns
    -------
    FrameMeasurement

    Raises
    ------
    FrameRejected
        TOO_FEW_STARS, DOUBLE_IMAGES or BAD_SEEING.
    """
    saturate = float(header.get("SATURATE", np.inf))
    image, flag = detection_arrays(image, mask, saturate)
    unusable = flag > 0
    if unusable.all():
        raise FrameRejected("NO_USABLE_PIXEL")
    level, noise = background(image, unusable, BACKGROUND_BOX)
    image = image - level
    to_measure = MeasurementImage(
        image, max(noise, 1e-6), unusable, float(header.get("GAIN", 1.0)),
        saturate * settings.saturation_fraction,
    )  # fmt: skip
    how = FieldSettings(
        settings.detect_sigma, settings.min_area, settings.aperture, settings.star_snr
    )
    field = measure_field(to_measure, how, find_hidden=False)
    nstars = 0 if field is None else int(field.stars.sum())
    if field is None or nstars < settings.min_stars:
        raise FrameRejected("TOO_FEW_STARS", f"{nstars} < {settings.min_stars}")
    wcs = celestial_wcs(header)
    seeing = field.fwhm * pixel_scale(wcs)
    ellipticity = sky_ellipticity(field, wcs.pixel_scale_matrix)
    bright = field.snr > settings.star_snr
    x, y = field.sources["x"][bright], field.sources["y"][bright]
    apart = second_images(x, y, field.flux[bright], field.fwhm)
    if apart:
        raise FrameRejected("DOUBLE_IMAGES", f"{apart:.1f} px apart, the telescope jumped")
    if settings.max_seeing != "auto" and 0 < settings.max_seeing < seeing:
        raise FrameRejected("BAD_SEEING", f"{seeing:.2f} > {settings.max_seeing:g} arcsec")
    index = _zeropoint_stars(field)
    ra, dec = wcs.all_pix2world(field.sources["x"][index], field.sources["y"][index], 0)
    exposure = max(float(header["EXPTIME"]), LEAST_EXPOSURE)
    magnitude = -2.5 * np.log10(field.total[index] / exposure)
    error = 1.0857 * field.error[index] / field.flux[index]
    return FrameMeasurement(
        fwhm=field.fwhm, seeing=seeing, ellipticity=ellipticity, nstars=nstars,
        noise=noise, aperture=field.aperture, fraction=float(field.growth.fraction(field.aperture)),
        fraction_error=field.growth.error,
        wings=astuple(field.growth.wings(field.profile.shape)),
        core=astuple(field.core), wcs=wcs,
        stars=FrameStars(ra, dec, magnitude, error), growth=field.growth,
    )  # fmt: skip


def sky_ellipticity(field: StarField, matrix: np.ndarray) -> float:
    """Return the median ellipticity 1 - b/a of stars as projected on the sky.

    Parameters
    ----------
    field : StarField
        Sources of the frame.
    matrix : ndarray, shape (2, 2)
        Matrix from pixel to sky offsets [deg/pixel].

    Returns
    -------
    float
        NaN without stars.
    """
    sides = np.linalg.norm(matrix, axis=0)
    if max(sides) < SQUARE * min(sides):
        return field.profile.ellipticity
    stars = field.sources[field.stars]
    elongation = ellipticity_on_sky(stars["a"], stars["b"], stars["theta"], matrix)
    return float(np.median(elongation))


def _zeropoint_stars(field: StarField) -> np.ndarray:
    """Return the rows of the brightest stars, isolated ones where there are enough."""
    isolated = field.stars & ((field.flags & FLAG_NEIGHBOUR) == 0) & (field.flux > 0)
    enough = isolated.sum() >= MIN_ISOLATED_STARS
    index = np.flatnonzero(isolated if enough else field.stars & (field.flux > 0))
    return index[np.argsort(-field.flux[index])[:MAX_STARS]]
