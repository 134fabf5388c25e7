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


AUTO_SCALE = 160
"""[px] Fringes are smaller than this."""

SURE_EXCESS = 5.0
"""[standard error] A smaller excess is ignored unless the user has said that there are fringes."""

PARTS = 6
"""Rows and columns of parts of an image, from which the error of a factor is estimated."""

LEAST_EXCESS = 0.03
"""A smaller relative excess is ignored too: flat fields are not accurate enough."""


SQUARE = 4
"""[px] Squares whose means show quickly whether there are fringes to measure."""

LEAST_SQUARES = 200 * PARTS**2
"""Where fewer are free of sources and defects, the pixels are measured at once."""

FADED = 0.65
"""Part of the power that is left in the means of squares: of fringes of 12 pixels, and more of
wider ones."""


def fringe_scale_of(setting: int | str, shape: tuple[int, ...]) -> int:
    """Return the scale of fringes [px] of a setting; 0 where an image is too small for ``auto``."""
    if setting != "auto":
        return int(setting)
    return AUTO_SCALE if min(shape) >= 2 * AUTO_SCALE else 0


def fringe_excess(
    image: np.ndarray,
    free: np.ndarray,
    fringe: np.ndarray,
    noise: float = 0.0,
    own: float = 0.0,
    sigma: float = 3.0,
    sure: bool = False,
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
        Covariance of the noise in the image with that in the pattern, which was made from
        this image, too.
    sigma : float
        Pixels that deviate by more standard deviations are left out of the fit.
    sure : bool
        An excess below `SURE_EXCESS` or `LEAST_EXCESS` is 0.

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
    if sure:
        # The light of faint sources and gradients have structure, too: of each tile of the
        # pattern's size one value counts.
        error = _factor_error(image, free, fringe, factor)
        if abs(factor) < max(SURE_EXCESS * error, LEAST_EXCESS):
            return 0.0
    return float(factor)


def may_have_excess(
    image: np.ndarray,
    free: np.ndarray,
    sky: np.ndarray,
    scale: int,
    noise: float,
    header: fits.Header,
) -> bool:
    """Decide from binned pixels whether `fringe_excess` can find a significant excess.

    The noise of single pixels, which a master sky holds where it keeps their structure, is no
    fringe; it is small in the means of squares.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted, as a fraction of the sky.
    free : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    sky : ndarray of float32, shape (ny, nx)
        Master sky.
    scale : int
        See `fringe_pattern` [px].
    noise : float
        Pixel noise of the image, as a fraction of the sky.
    header : astropy.io.fits.Header
        Header of the master sky, see `pattern_noise`.

    Returns
    -------
    bool
        False where the means of squares of `SQUARE` pixels have no structure above noise, or an
        excess below half of what would be sure, or below what noise makes that is known to half.
    """
    usable = _all_free(free)
    if usable.sum() < LEAST_SQUARES:
        return True
    variance, own = pattern_noise(noise, header, SQUARE)
    if header["SMOOTH"]:
        variance += (header.get("NOISE", 0.0) / SQUARE) ** 2
    unsure = variance / 2
    variance *= FADED
    fringe = fringe_pattern(_square_means(sky), scale / SQUARE)
    power = np.mean(fringe[usable] ** 2)
    if not power > 4 * variance:
        return False
    values = _square_means(image)
    factor = fringe_excess(values, usable, fringe, variance, own)
    if abs(factor) <= max(LEAST_EXCESS / 2, unsure / power):
        return False
    return abs(factor) > SURE_EXCESS / 2 * _factor_error(values, usable, fringe, factor)


def _squares_of(image: np.ndarray) -> np.ndarray:
    """Return the part of an image that whole squares fill."""
    ny, nx = (size // SQUARE * SQUARE for size in image.shape)
    return image[:ny, :nx]


def _square_means(image: np.ndarray) -> np.ndarray:
    """Return the means of an image's squares of `SQUARE` pixels."""
    image = _squares_of(image)
    rows = np.zeros((len(image) // SQUARE, image.shape[1]), np.float32)
    means = np.zeros((len(rows), image.shape[1] // SQUARE), np.float32)
    for n in range(SQUARE):
        rows += image[n::SQUARE]
    for n in range(SQUARE):
        means += rows[:, n::SQUARE]
    return means / np.float32(SQUARE**2)


def _all_free(free: np.ndarray) -> np.ndarray:
    """Return which squares have no pixel that is not free."""
    free = _squares_of(free)
    rows = np.logical_and.reduce([free[n::SQUARE] for n in range(SQUARE)])
    return np.logical_and.reduce([rows[:, n::SQUARE] for n in range(SQUARE)])


def _factor_error(image: np.ndarray, free: np.ndarray, fringe: np.ndarray, factor: float) -> float:
    """Return the error of the factor of a pattern, from its scatter between parts of the image."""
    rows, columns = (np.array_split(np.arange(size), PARTS) for size in image.shape)
    factors = []
    for r in rows:
        for c in columns:
            part = np.ix_(r, c)
            good = free[part]
            pattern = fringe[part][good].astype(float)
            if pattern.size < 100 or not np.mean(pattern**2) > 0:
                continue
            values = image[part][good].astype(float)
            left = values - np.median(values) - factor * pattern
            left = left.clip(*(np.array([-3, 3]) * MAD_TO_SIGMA * np.median(np.abs(left))))
            factors.append((np.mean(left * pattern), np.mean(pattern**2)))
    if len(factors) < PARTS:
        return np.inf
    product, power = np.array(factors).T
    return float(np.std(product) / np.mean(power) / np.sqrt(len(factors)))


def pattern_noise(noise: float, header: fits.Header, square: int = 1) -> tuple[float, float]:
    """Return the noise of a master sky, and what of a frame's own noise it has in common.

    Parameters
    ----------
    noise : float
        Pixel noise of one frame, as a fraction of the sky.
    header : astropy.io.fits.Header
        Header of the sky: NCOMBINE frames in NGROUP groups, one of them left out, and the standard
        deviation SMOOTH of the Gaussian that smoothed it [px].
    square : int
        Side of the squares whose means are looked at [px].

    Returns
    -------
    variance, covariance : float
        Variance of the master; its covariance with a frame from which it was subtracted.
    """
    groups, smooth = header.get("NGROUP", 0), header["SMOOTH"]
    frames = header["NCOMBINE"] * (1 - 1 / groups if groups > 1 else 1)
    smoothed = noise**2 / frames / (max(1, 4 * np.pi * smooth**2) + square**2 - 1)
    if groups != 1:
        # A frame has the noise of a master without it, by which it was subtracted.
        return smoothed, -smoothed
    # A Gaussian has the centre 1 / 2 pi s^2 and the sum of squares 1 / 4 pi s^2; of the first,
    # the master's part in the frame takes away the second.
    return smoothed, smoothed if smooth else 0.0
