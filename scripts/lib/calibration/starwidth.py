"""Width of the stars on a frame, measured among cosmic rays, galaxies and defects."""

from dataclasses import dataclass

import numpy as np

from lib.core.meshes import bilinear_at
from lib.core.stats import half_sample_mode

FWHM_PER_SIGMA = 2.3548
MOFFAT_EXCESS = 1.12
"""A Gaussian fitted to a Moffat profile of seeing is wider than the profile by this factor."""

PEAK_SNR = 10.0
"""[sigma] Height of the maxima whose width is measured."""

LEAST_STARS = 3
"""Objects that must agree on a width."""

AROUND = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""The eight neighbours of a pixel (dy, dx)."""


@dataclass(frozen=True)
class StarWidth:
    """Width of the stars on a frame.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum of a Moffat profile [px]; NaN where fewer than `LEAST_STARS`
        objects agree.
    elongation : float
        (a^2 - b^2) / (a^2 + b^2) of the axes; NaN where it is not known.
    number : int
        Objects that agree to 15 %.
    """

    fwhm: float
    elongation: float
    number: int


def measure_fwhm(
    image: np.ndarray,
    usable: np.ndarray,
    noise: np.ndarray,
    saturate: float = np.inf,
    floor: float = 1.2,
    most: int = 300,
    half: int = 9,
) -> StarWidth:
    """Measure the width of the stars on a frame.

    Stars share one width, cosmic rays and galaxies do not, so the mode of the widths of all local
    maxima is taken.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted.
    usable : ndarray of bool, shape (ny, nx)
    noise : ndarray of float32, shape (rows, columns)
        Noise of the sky: a coarse map, see `lib.core.meshes.noise_map`.
    saturate : float
        Brighter maxima are left out.
    floor : float
        Narrower objects are not stars [px].
    most : int
        Number of maxima measured, the brightest first.
    half : int
        Half the width of the box around each [px].

    Returns
    -------
    StarWidth
    """
    stamps = stamps_of_maxima(image, usable, noise, saturate, most, half)
    variance, elongation = adaptive_moments(stamps)
    # A pixel's own width adds 1/12 to the variance.
    fwhm = FWHM_PER_SIGMA / MOFFAT_EXCESS * np.sqrt((variance - 1 / 12).clip(0.01))
    good = (fwhm > floor) & (fwhm < 1.5 * half) & (elongation < 0.5)
    usual = np.exp(half_sample_mode(np.log(fwhm[good])))
    agree = good & (np.abs(fwhm / usual - 1) < 0.15)
    number = int(agree.sum())
    if number < LEAST_STARS:
        return StarWidth(np.nan, np.nan, number)
    return StarWidth(float(np.median(fwhm[agree])), float(np.median(elongation[agree])), number)


def stamps_of_maxima(
    image: np.ndarray,
    usable: np.ndarray,
    noise: np.ndarray,
    saturate: float,
    most: int,
    half: int,
) -> np.ndarray:
    """Return the surroundings of the brightest local maxima, 0 where unusable.

    Parameters
    ----------
    image, usable, noise, saturate, most, half
        See `measure_fwhm`.

    Returns
    -------
    ndarray, shape (n, 2 * half + 1, 2 * half + 1)
    """
    width = image.shape[1]
    values = image.ravel()
    index = np.flatnonzero(image > np.float32(PEAK_SNR) * noise.min())
    y, x = np.divmod(index, width)
    kept = (y >= half) & (y < len(image) - half) & (x >= half) & (x < width - half)
    kept &= usable.ravel()[index] & (values[index] < saturate)
    kept &= values[index] > PEAK_SNR * bilinear_at(noise, image.shape, y, x)
    index = index[kept]
    for dy, dx in AROUND:
        index = index[values[index] >= values[index + dy * width + dx]]
    index = index[np.argsort(values[index])[::-1][:most]]
    grid = np.arange(-half, half + 1)
    box = (grid[:, None] * width + grid).ravel()
    stamps = values[index[:, None] + box].astype(float)
    # Defects in the wings hardly matter, and on some arrays every box holds one.
    known = usable.ravel()[index[:, None] + box]
    near = np.hypot(*np.meshgrid(grid, grid)).ravel() <= 3
    kept = known[:, near].all(axis=1)
    # The highest around, saturated neighbours too: the wings of a bright star are full of maxima.
    rivals = np.where(known | (stamps >= saturate), stamps, 0)
    kept &= rivals.max(axis=1) <= values[index]
    return (stamps * known)[kept].reshape(-1, grid.size, grid.size)


def adaptive_moments(stamps: np.ndarray, rounds: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Fit a round Gaussian to each object by iterated weighted moments.

    Source: Bernstein & Jarvis 2002, AJ 123, 583.

    Parameters
    ----------
    stamps : ndarray, shape (n, 2 * half + 1, 2 * half + 1)
        Sky-subtracted, the maximum in the centre.
    rounds : int

    Returns
    -------
    variance : ndarray, shape (n, 1)
        [px^2], that of the pixels included.
    elongation : ndarray, shape (n, 1)
        See `StarWidth`.
    """
    half = stamps.shape[-1] // 2
    grid = np.arange(-half, half + 1)
    x, y = np.tile(grid, grid.size), np.repeat(grid, grid.size)
    powers = np.stack([np.ones(x.size), x, y, x * x, y * y, x * y], axis=1).astype(float)
    x0, y0 = np.zeros((2, len(stamps), 1))
    variance = np.full((len(stamps), 1), 2.0)
    for _ in range(rounds):
        across, along = (np.exp(-((grid - centre) ** 2) / (2 * variance)) for centre in (x0, y0))
        weighted = stamps * along[:, :, None] * across[:, None, :]
        total, *moments = (weighted.reshape(len(stamps), x.size) @ powers).T[:, :, None]
        total[total <= 0] = np.nan
        mx, my, mxx, myy, mxy = (moment / total for moment in moments)
        # Moments about the centre of the weight.
        xx = mxx - 2 * x0 * mx + x0**2
        yy = myy - 2 * y0 * my + y0**2
        xy = mxy - x0 * my - y0 * mx + x0 * y0
        x0, y0 = 2 * mx - x0, 2 * my - y0
        moment = np.nan_to_num((xx + yy) / 2, nan=0.05).clip(0.05)
        # The moment under the weight is 1 / (1/object + 1/weight).
        variance = 1 / np.maximum(1 / moment - 1 / variance, 1 / half**2)
        x0, y0 = np.nan_to_num(x0).clip(-2, 2), np.nan_to_num(y0).clip(-2, 2)
    return variance, np.hypot(xx - yy, 2 * xy) / (xx + yy)
