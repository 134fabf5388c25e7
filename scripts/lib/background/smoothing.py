"""Smoothing of a master sky, by a Gaussian over the pixels in which it is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.core.stats import CHUNK, chunks, mad_std, regular_sample

COARSE = 2.5
"""[px] Smoothing by this or more is done on an image of half the size."""


def halved(values: np.ndarray) -> np.ndarray:
    """Return an image of half the size: each pixel of 4 x 4, by weights (1, 3, 3, 1) / 8.

    Fine structure, which half as many pixels cannot hold, does not come back as coarse one. Beyond
    the edge is 0.
    """
    odd = [(0, size % 2) for size in values.shape]
    if any(after for _, after in odd):
        values = np.pad(values, odd)
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        pairs = values[0::2] + values[1::2]
        pairs *= np.float32(3)
        pairs[1:] += values[1:-1:2]
        pairs[:-1] += values[2::2]
        pairs *= np.float32(0.125)
        values = np.moveaxis(pairs, 0, axis)
    return values


def doubled(coarse: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return an image of twice the size, or a row less: linear between the pixels' centres."""
    for axis in (1, 0):
        # Of each pair of pixels, one is nearer to the square before, one to that after.
        far = coarse * np.float32(0.25)
        near = coarse - far
        size = list(coarse.shape)
        size[axis] *= 2
        image = np.empty(size, np.float32)
        fine, before = np.moveaxis(image, axis, 0), np.moveaxis(far, axis, 0)
        near = np.moveaxis(near, axis, 0)
        np.add(near[1:], before[:-1], out=fine[2::2])
        np.add(near[:-1], before[1:], out=fine[1:-1:2])
        fine[0], fine[-1] = coarse.take(0, axis), coarse.take(-1, axis)
        coarse = image
    return coarse[: shape[0], : shape[1]]


def smooth_sky(sky: np.ndarray, good: np.ndarray, sigma: float, hole: float = 0.0) -> Any:
    """Smooth a sky by a Gaussian that ignores pixels without value.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
    good : ndarray of bool or float32, shape (ny, nx)
        Pixels with a value, or their weights.
    sigma : float
        Standard deviation of the Gaussian [px].
    hole : float
        That of a narrower Gaussian [px] that is taken from it, so that the kernel is 0 at its
        centre and no pixel counts for itself.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Normalised convolution (Knutsson & Westin 1993); 1 where no good pixel is near.
    """
    from scipy.ndimage import gaussian_filter

    def smooth(values):
        wide = gaussian_filter(values, sigma)
        if hole > 0:
            wide -= np.float32((hole / sigma) ** 2) * gaussian_filter(values, hole)
        return wide

    weight = good.astype(np.float32)
    total = sky - np.float32(1)
    total *= weight
    coarse = sigma >= COARSE and hole == 0
    if coarse:
        # On the way there and back, they are smoothed too: each time with a variance of 0.75.
        weight, total = halved(weight), halved(total)
        sigma = np.sqrt((sigma**2 - 1.5) / 4)
    weight, total = smooth(weight), smooth(total)
    smoothed = np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)
    smoothed += 1
    return doubled(smoothed, sky.shape) if coarse else smoothed


def fill_sky(sky: np.ndarray, good: np.ndarray, reach: float = 16.0) -> np.ndarray:
    """Fill the pixels that no frame shows free of sources from those around them.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Smooth, and finite everywhere.
    good : ndarray of bool, shape (ny, nx)
    reach : float
        Standard deviation of the Gaussian by which those around are weighted [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    if good.all():
        return sky
    # It is smooth, so every fourth pixel is enough.
    some = np.ix_(*(np.minimum(np.arange(0, size, 4) + 2, size - 1) for size in sky.shape))
    around = smooth_sky(sky[some], good[some], reach / 4)
    around = doubled(doubled(around, [-(-size // 2) for size in sky.shape]), sky.shape)
    return np.where(good, sky, around)


def keep_structure(
    sky: np.ndarray, smooth: np.ndarray, good: np.ndarray, variance: np.ndarray
) -> Any:
    """Return the smooth sky with the part of its pixel structure that is not noise.

    The deviations r of the pixels from the smooth sky have a variance of s^2 + n^2, structure
    and noise. The best estimate of structure is r s^2 / (s^2 + n^2) (Wiener 1949); a deviation
    beyond 4 n, as of a pixel of high dark current, is kept whole.

    Parameters
    ----------
    sky, smooth : ndarray of float32, shape (ny, nx)
    good : ndarray of bool, shape (ny, nx)
    variance : ndarray of float32, shape (ny, nx)
        n^2, of each pixel of `sky`.

    Returns
    -------
    sky : ndarray of float32, shape (ny, nx)
    kept : float
        Part of the structure that was kept, where the noise is that of the median pixel.
    """
    if not good.any():
        return sky, 1.0
    sample = regular_sample(good)
    shown = (regular_sample(sky) - regular_sample(smooth))[sample]
    usual = float(np.median(regular_sample(variance)[sample]))
    structure = np.float32(max(0.0, mad_std(shown) ** 2 - usual))
    kept = np.empty_like(sky)
    # In slabs, so that intermediate arrays stay in the cache.
    for rows in chunks(len(sky), max(1, CHUNK // sky.shape[1])):
        noise = variance[rows]
        deviation = np.where(good[rows], sky[rows] - smooth[rows], np.float32(0))
        # Without noise everything is structure.
        weight = structure / np.maximum(structure + noise, np.finfo(np.float32).tiny)
        weight[deviation**2 > 16 * noise] = 1
        np.add(smooth[rows], weight * deviation, out=kept[rows])
    return kept, float(structure / (structure + usual)) if structure + usual > 0 else 1.0
