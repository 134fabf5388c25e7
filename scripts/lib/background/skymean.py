"""The master sky of one set of frames: mean, sources of the mean, smoothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.background.sky import find_sources
from lib.background.smoothing import fill_sky, keep_structure, smooth_sky
from lib.calibration.masters import (
    pixel_noise,
    release,
)
from lib.core.combination import combine
from lib.core.stats import (
    regular_sample,
)


@dataclass
class Sky:
    """The result of `make_sky` for a set of frames.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        1 in the median.
    smooth : ndarray of float32, shape (ny, nx)
        The sky without pixel-to-pixel structure.
    number : ndarray of int, shape (ny, nx)
        Number of frames in each pixel.
    kept : float
        Part of the pixel structure that is in the image.
    mean, extent : ndarray of float32, shape (ny, nx)
        The mean of the frames, and how far they scatter, as from `lib.core.combination.combine`.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that the smoothing left out.
    """

    image: np.ndarray
    smooth: np.ndarray
    number: np.ndarray
    kept: float
    mean: np.ndarray
    extent: np.ndarray
    hidden: np.ndarray


def make_sky(
    planes: np.ndarray,
    shape: tuple[int, ...],
    sigma: float = 3.0,
    clip: float = 3.0,
    noise: float | None = None,
    threshold: float = 2.0,
    hole: float = 0.0,
) -> Sky:
    """Combine normalised frames to the sky.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape `shape`
        Frames divided by their sky level; NaN in sources and defects.
    shape : tuple of int
    sigma : float
        Smoothing [px]: where the sky has no pixel-scale structure, so that the noise of few
        frames is not subtracted along with it. 0 for none.
    clip : float
        Values beyond this many standard deviations are left out of a pixel's mean.
    noise : float, optional
        Noise of a pixel of one frame. Given for arrays whose pixels differ in their sky, it
        determines how much pixel structure is kept by the smoothing, see `keep_structure`.
    threshold : float
        Detection threshold [sigma] of the sources that the smoothing leaves out, see
        `lib.background.sky.find_sources`.
    hole : float
        In the kernel of the smoothing, see `smooth_sky`.

    Returns
    -------
    Sky
    """
    mean, number, extent = combine(planes, shape, clip=clip, after=lambda: release(planes))
    # Where only one frame has a value, it would subtract its own noise and stars.
    good = np.isfinite(mean) & (number >= min(2, len(planes)))
    number = np.where(good, number, 0)
    return sky_of_mean(mean, number, extent, sigma, noise, threshold, hole)


def sky_of_mean(
    mean: np.ndarray,
    number: np.ndarray,
    extent: np.ndarray,
    sigma: float = 3.0,
    noise: float | None = None,
    threshold: float = 2.0,
    hole: float = 0.0,
) -> Sky:
    """Smooth combined frames, for `make_sky`.

    Parameters
    ----------
    mean, number, extent : ndarray, shape (ny, nx)
        See `Sky`; a number of 0 where no sky is shown.
    sigma, noise, threshold, hole : float
        See `make_sky`.

    Returns
    -------
    Sky
    """
    good = number > 0
    sky = np.where(good, mean, np.float32(1))
    if sigma > 0 and noise is None:
        # Small bright spots in the mean are stars too faint for a single frame, on the same
        # pixels each time, as in a series without dither.
        hidden = find_sources(sky, ~good, threshold, grow=2, mesh=32)
    else:
        # Pixels that stand out.
        deviation = sky - smooth_sky(sky, good, sigma or 3.0)
        hidden = np.abs(deviation) >= 4 * error_of_mean(sky, number, noise)
        hidden &= good
    image, smooth, kept = finish_sky(mean, number, good, hidden, sigma, noise, hole)
    return Sky(image, smooth, number, kept, mean, extent, hidden)


def error_of_mean(sky: np.ndarray, number: np.ndarray, noise: float | None = None) -> Any:
    """Return the noise of each pixel of a mean of `number` frames; see `finish_sky`."""
    each = np.float32(noise or pixel_noise(sky))
    return (each / np.sqrt(np.maximum(np.arange(number.max() + 1), 1, dtype=np.float32)))[number]


def finish_sky(
    mean: np.ndarray,
    number: np.ndarray,
    good: np.ndarray,
    hidden: np.ndarray,
    sigma: float = 3.0,
    noise: float | None = None,
    hole: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Turn the mean of frames into the sky.

    Parameters
    ----------
    mean : ndarray of float32, shape (ny, nx)
    number : ndarray of int, shape (ny, nx)
        Number of frames in each pixel.
    good : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that the smoothing leaves out.
    sigma, noise, hole : float
        See `make_sky`.

    Returns
    -------
    image, smooth : ndarray of float32, shape (ny, nx)
    kept : float
        As in `Sky`.
    """
    from scipy.ndimage import gaussian_filter

    sky = np.where(good, mean, np.float32(1))
    calm = good & ~hidden
    smooth = smooth_sky(sky, calm, sigma or 3.0, hole)
    plain = sigma > 0 and noise is None
    if plain:
        kept = 0.0
        good = calm
        if hole > 0:
            # Small sources get the sky of the surrounding pixels, as all others do.
            good = good | (gaussian_filter(good.astype(np.float32), sigma) > 0.2)
        sky = smooth = fill_sky(smooth, good)
    else:
        kept = 1.0
        if sigma > 0:
            variance = error_of_mean(sky, number, noise) ** 2
            sky, kept = keep_structure(sky, smooth, good & (number > 2), variance)
        smooth = fill_sky(smooth, good)
        sky = np.where(good, sky, smooth)
    level = np.median(regular_sample(sky)[regular_sample(good)])
    level = level if np.isfinite(level) else np.float32(1)
    smooth = smooth / np.float32(level)
    return smooth if plain else sky / np.float32(level), smooth, kept
