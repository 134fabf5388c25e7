"""Fringes: structure of the master sky that varies in strength from frame to frame."""

import numpy as np
from astropy.io import fits

from lib.background.sky import block_sky
from lib.core.meshes import bilinear
from lib.core.stats import MAD_TO_SIGMA


def fringe_pattern(sky: np.ndarray, scale: float) -> np.ndarray:
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


def fringe_excess(
    image: np.ndarray,
    free: np.ndarray,
    fringe: np.ndarray,
    noise: float = 0.0,
    own: float = 0.0,
    sigma: float = 3.0,
) -> float:
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


def pattern_noise(noise: float, header: fits.Header) -> tuple[float, float]:
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
