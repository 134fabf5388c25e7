"""Large sources in a frame: where they are, and how far their light reaches over the sky."""

import numpy as np

from lib.background.sky import NOT_SKY, fit_surface, surface
from lib.core.meshes import count_in_squares, sum_in_squares
from lib.core.stats import mad_std
from lib.frame.file import SOURCE

LARGE = 0.01
"""[fraction of the frame] Size of a large source: galaxy, cluster, halo of a bright star."""


RING = 3
"""[mesh of 8 px] Width of the rings in which the light of a large source is followed."""


OUTSIDE = 0.08
"""[fraction of the sky pixels] Least part outside the light of a large source."""


def large_sources(hidden: np.ndarray, mesh: int = 8) -> np.ndarray:
    """Return where the sources of a frame cover a good part of it in one piece.

    Parameters
    ----------
    hidden : ndarray of bool, shape (ny, nx)
        Pixels of sources.
    mesh : int
        [px].

    Returns
    -------
    ndarray of bool, shape (ceil(ny / mesh), ceil(nx / mesh))
        Parts of which most is hidden, by sources of `LARGE`.
    """
    from scipy.ndimage import label

    parts, count = label(count_in_squares(hidden, mesh) > mesh**2 / 2)
    large = np.bincount(parts.ravel(), minlength=count + 1) >= LARGE * parts.size
    large[0] = False
    return large[parts]


def large_halo(image: np.ndarray, mask: np.ndarray, mesh: int = 8) -> np.ndarray | None:
    """Return the pixels about the large sources of a frame, out to where their light ends.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Flat but for its sources and a gradient.
    mask : ndarray of uint8, shape (ny, nx)
    mesh : int
        [px].

    Returns
    -------
    ndarray of bool, shape (ny, nx) or None
        The light ends in the first ring, of `RING` meshes, that is no brighter than what lies
        outside of it. None without a large source.
    """
    from scipy.ndimage import distance_transform_edt

    large = large_sources(mask & SOURCE > 0, mesh)
    if not large.any():
        return None
    free = mask & NOT_SKY == 0
    values = mesh_means(image, free, mesh)
    known = np.isfinite(values)
    ring = (distance_transform_edt(~large) / RING).astype(int)
    if known.sum() < 50:
        return None
    end = 0
    for _ in range(3):
        # The gradient is removed, as it would end the light on one side.
        outside = np.where(known & (ring >= end), values, np.nan)
        level = np.nanmedian(outside)
        slope = fit_surface(outside / level - 1, 1)
        slope[0, 0] = 0
        flat = values / (1 + surface(slope, values.shape))
        end = first_sky_ring(flat[known], ring[known])
    halo = np.repeat(np.repeat(ring < end, mesh, axis=0), mesh, axis=1)
    return halo[: image.shape[0], : image.shape[1]]


def first_sky_ring(values: np.ndarray, ring: np.ndarray) -> int:
    """Return the first ring that is no brighter than what lies outside of it.

    Parameters
    ----------
    values : ndarray, shape (m,)
    ring : ndarray of int, shape (m,)
        Number of the ring, from the source outwards.
    """
    for number in range(int(ring.max()) + 1):
        here, beyond = values[ring == number], values[ring > number]
        if beyond.size < OUTSIDE * values.size:
            return number
        if here.size < 5:
            continue
        excess = np.median(here) - np.median(beyond)
        error = 1.25 * np.hypot(
            mad_std(here) / np.sqrt(here.size), mad_std(beyond) / np.sqrt(beyond.size)
        )
        if excess < 2 * error:
            return number
    return 0


def mesh_means(image: np.ndarray, free: np.ndarray, mesh: int) -> np.ndarray:
    """Return the means over the free pixels of the squares of an image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    free : ndarray of bool, shape (ny, nx)
    mesh : int
        [px].

    Returns
    -------
    ndarray, shape (ceil(ny / mesh), ceil(nx / mesh))
        NaN where fewer than 21 pixels are free.
    """
    total = sum_in_squares(np.where(free, image, np.float32(0)), mesh)
    number = count_in_squares(free, mesh)
    return np.where(number > 20, total / np.maximum(number, 1), np.nan)


def still_light(blocks: np.ndarray, hidden: np.ndarray, noise: float) -> np.ndarray | None:
    """Return the large scales of a sky that cannot be sky, where no frame points elsewhere.

    Without dither nothing tells sky from light. But sky does not rise towards a large source from
    all sides.

    Parameters
    ----------
    blocks : ndarray, shape (rows, columns)
        Mean of the frames' squares, 1 in the median; NaN where unknown.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that sources hide in all frames.
    noise : float
        Noise of a square.

    Returns
    -------
    ndarray of float32, shape (rows, columns) or None
        Light on all squares, as a fraction of the sky.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.stats import spearmanr

    large = large_sources(hidden)
    known = np.isfinite(blocks)
    if not large.any() or known.sum() < 12:
        return None
    rows, columns = blocks.shape
    y, x = np.indices(blocks.shape)
    away = distance_transform_edt(~large)[
        ((y + 0.5) * large.shape[0] / rows).astype(int),
        ((x + 0.5) * large.shape[1] / columns).astype(int),
    ]
    near = away < np.median(away[known])
    rise = np.median(blocks[known & near]) - np.median(blocks[known & ~near])
    order = spearmanr(away[known], blocks[known]).statistic
    if not (order < -0.4 and rise > max(3 * noise, 0.002)):
        return None
    light = blocks - np.percentile(blocks[known], 10)
    return fill_squares(light).astype(np.float32)


def fill_squares(values: np.ndarray) -> np.ndarray:
    """Return squares of which some are unknown, those from around them: smooth, without edge."""
    known = np.isfinite(values)
    nearest = np.where(known, values, np.nanmedian(values))
    for _ in range(4 * max(values.shape)):
        padded = np.pad(nearest, 1, mode="edge")
        mean = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        nearest = np.where(known, values, mean / 4)
    return nearest
