"""Sky subtraction: the master sky scaled to the frame, or the frame's median alone."""

import numpy as np

from lib.background.mastersky import read_sky
from lib.background.sky import block_sky, fit_surface, sky_level, surface
from lib.core.meshes import bilinear
from lib.core.stats import MAD_TO_SIGMA, regular_sample, sigma_clipped_median
from lib.frame.file import (
    BAD,
    COSMIC,
    NODATA,
    SATURATED,
    SOURCE,
    Frame,
    FrameRejected,
    record_calibration,
)
from lib.frame.step import process

NOT_SKY = BAD | SATURATED | NODATA | COSMIC | SOURCE


def subtract_sky(image, mask, sky=None, order=0):
    """Subtract the sky from an image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
        With SOURCE set where sources hide the sky.
    sky : ndarray of float32, shape (ny, nx), optional
        Master sky, 1 in the median. Without it the level alone is subtracted.
    order : int
        Degree of the surface by which the sky of this frame differs from the master: 1 for the
        gradient that comes and goes with moon and twilight, 0 for none.

    Returns
    -------
    image : ndarray of float32, shape (ny, nx)
        ``image - level * sky * (1 + surface)``, in which level is the clipped median of
        ``image / sky`` over the pixels free of sources, and the surface is fitted to the medians
        of ``image / sky / level - 1`` in squares of 64 pixels.
    level, noise : float
    tilt : float
        Largest difference within the surface, as a fraction of the level.

    Raises
    ------
    FrameRejected
        NO_SKY_PIXEL.
    """
    sources = mask & SOURCE > 0
    flat_sky = image if sky is None else image / sky
    level, noise = sky_level(flat_sky, mask, sources)
    if not np.isfinite(level):
        raise FrameRejected("NO_SKY_PIXEL", f"{sources.mean():.2f} of the pixels are sources")
    tilt = 0.0
    if order and level > 0:
        free = mask & NOT_SKY == 0
        blocks = block_sky(flat_sky, free, every=3)
        coefficients = fit_surface(blocks / np.float32(level) - 1, order)
        model = surface(level * coefficients, image.shape)
        model += np.float32(level)
        # The constant term belongs to the level.
        level *= 1 + coefficients[0, 0]
        coefficients[0, 0] = 0
        tilt = float(np.ptp(surface(coefficients, (129, 129))))
        if sky is not None:
            model *= sky
        image = np.subtract(image, model, out=model)
        _, noise, _ = sigma_clipped_median(regular_sample(image)[regular_sample(free)])
    else:
        image = image - (np.float32(level) if sky is None else np.float32(level) * sky)
    np.copyto(image, 0, where=mask & NODATA > 0)
    return image, level, noise, tilt


def fringe_pattern(sky, scale):
    """Return the structure of a master sky that is smaller than `scale` pixels: its fringes.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
    scale : int
        [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Zero in the median.
    """
    whole = np.ones(sky.shape, bool)
    return sky - bilinear(block_sky(sky, whole, scale), sky.shape)


def fringe_excess(image, free, fringe, noise=0.0, own=0.0, sigma=3.0):
    """Return how much of a fringe pattern is left in a sky-subtracted image.

    Interference of the lines of the night sky makes the fringes, not its continuum, so they do
    not scale with the level.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted, as a fraction of the sky.
    free : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    fringe : ndarray of float32, shape (ny, nx)
    noise : float
        Variance of the noise in the pattern.
    own : float
        Covariance of the noise in the image with that in the pattern, which rests on this image
        too.
    sigma : float
        Pixels that deviate by more standard deviations are left out of the fit.

    Returns
    -------
    float
        Least-squares factor of ``fringe`` in the image, cleared of noise; 0 where the pattern is
        hardly more than noise.
    """
    values, pattern = image[free].astype(float), fringe[free].astype(float)
    if not values.size:
        return 0.0
    values = values - np.median(values)
    keep = np.ones(values.shape, bool)
    factor = 0.0
    for _ in range(5):
        power = np.mean(pattern[keep] ** 2) - noise
        if not power > 3 * noise or power <= 0:
            return 0.0
        factor = (np.mean(values[keep] * pattern[keep]) - own) / power
        left = np.abs(values - factor * pattern)
        keep = left <= sigma * MAD_TO_SIGMA * np.median(left)
    return float(factor)


def pattern_noise(noise, header):
    """Return the noise of a master sky, and what of a frame's own noise it has in common.

    Parameters
    ----------
    noise : float
        Of a pixel of one frame, as a fraction of the sky.
    header : astropy.io.fits.Header
        Of the sky: NCOMBINE frames in NGROUP groups, one of which it is without, and the standard
        deviation SMOOTH of the Gaussian that smoothed it [px].

    Returns
    -------
    variance, covariance : float
        Of the master; of the master with one of its frames less that master.
    """
    groups, smooth = header.get("NGROUP", 0), header["SMOOTH"]
    frames = header["NCOMBINE"] * (1 - 1 / groups if groups > 1 else 1)
    variance = noise**2 / frames
    if smooth == 0:
        return variance, 0.0
    # A Gaussian has the centre 1 / 2 pi s^2 and the sum of squares 1 / 4 pi s^2; of the first,
    # the master's part in the frame takes away the second.
    smoothed = variance / (4 * np.pi * smooth**2)
    return smoothed, smoothed if groups == 1 else 0.0


def skysub_frame(frame, sky=None, order=0, fringe_scale=0):
    """Subtract the sky from a frame; keep the header true.

    Parameters
    ----------
    frame : Frame
    sky : Frame, optional
        Master sky. One that could not be made is not used, and the header says so.
    order : int
        See `subtract_sky`.
    fringe_scale : int
        Structure of the master sky below this size [px] is fitted on its own; 0: it is not.

    Returns
    -------
    Frame
        Header SKYSUB holds the level taken away, SATURATE is lowered by it.
    """
    header = frame.header
    usable = sky is not None and not sky.rejected
    if usable and sky.image.shape != frame.image.shape:
        raise FrameRejected("SKY_SHAPE", f"{sky.image.shape} for a frame of {frame.image.shape}")
    # What stands out in the sky at every pointing is a defect of the detector.
    mask = frame.mask | (sky.mask & BAD) if usable else frame.mask
    image, level, noise, tilt = subtract_sky(
        frame.image, mask, sky.image if usable else None, order
    )
    if usable and fringe_scale:
        fringe = fringe_pattern(sky.image, fringe_scale)
        own = pattern_noise(noise / level, sky.header)
        excess = fringe_excess(image / np.float32(level), mask & NOT_SKY == 0, fringe, *own)
        image = image - np.float32(excess * level) * fringe
        image[mask & NODATA > 0] = 0
        header["FRINGE"] = (1 + excess, "fringes, relative to those of the master sky")
    header["SKYMODE"] = ("master" if usable else "median", "what was subtracted: master or median")
    if sky is not None and sky.rejected:
        header["SKYNOTE"] = (sky.reason[:50], "why no master sky")
    header["SKYSUB"] = (level, "sky level subtracted, in BUNIT")
    header["SKYTILT"] = (tilt, "own surface of this frame, largest difference")
    header["SKYCTS"] = (level, "sky level, in BUNIT")
    header["SKYNOISE"] = (noise, "pixel noise of the sky, in BUNIT")
    header["SATURATE"] -= level
    return Frame(image, mask, header)


if "snakemake" in globals():
    path = snakemake.input.get("sky")
    order = snakemake.params.order if path else 0
    fringe_scale = snakemake.params.fringe_scale if path else 0

    def work(frame):
        sky = read_sky(path, frame.header["FRAME"]) if path else None
        frame = skysub_frame(frame, sky, order, fringe_scale)
        if path and not sky.rejected:
            record_calibration(frame.header, "SKY", path, sky.header)
        return frame

    process(
        "skysub",
        snakemake.params.version,
        snakemake.input.frame,
        snakemake.output[0],
        work,
        log_path=snakemake.log[0],
        parameters={"nomastersky": not path, "order": order, "fringe_scale": fringe_scale},
    )
