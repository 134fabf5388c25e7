"""The sky of a frame: its level, and the pixels in which sources hide it."""

from typing import Any

import numpy as np
from astropy.io import fits

from lib.core.meshes import ranked_blocks
from lib.core.stats import (
    SAMPLE,
    half_sample_mode,
    mad_std,
    regular_sample,
    sigma_clipped_median,
)
from lib.frame.file import BAD, COSMIC, NODATA, SATURATED, SOURCE

NOT_SKY = BAD | SATURATED | NODATA | COSMIC | SOURCE
"""Mask bits of pixels that do not show the empty sky."""

SQUARE_SIDE = 0.1355
"""Weight of a neighbour: with the square's own 2 pixels, a Gaussian of 1.2 pixels."""

NO_GROWTH = np.iinfo(np.uint16).max
"""Number of steps that stands for no area at all."""

CROWDED = 0.8
"""Part of the pixels that sources may cover; beyond it, the darkest pixels are taken as sky."""

SQUARE_LIMIT = 0.9
"""Factor of the threshold that makes up for areas being counted in squares."""


def binned(image: np.ndarray, unusable: np.ndarray) -> Any:
    """Return the means of an image's squares of 2 x 2 pixels, and how many of each are usable.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)

    Returns
    -------
    means : ndarray of float32, shape (ceil(ny / 2), ceil(nx / 2))
        0 where no pixel is usable.
    number : ndarray of uint8, same shape
        0 to 4.
    """

    def sums(values):
        pairs = values[0::2] + values[1::2]
        return pairs[:, 0::2] + pairs[:, 1::2]

    odd = [(0, size % 2) for size in image.shape]
    if any(after for _, after in odd):
        image = np.pad(image, odd)
        unusable = np.pad(unusable, odd, constant_values=True)
    if not unusable.any():
        means = sums(image)
        means *= np.float32(0.25)
        return means, np.full(means.shape, 4, np.uint8)
    # Two bytes at once: as one number, the halves of which are added.
    rows = (~unusable).view(np.uint8)
    pairs = np.ascontiguousarray(rows[0::2] + rows[1::2]).view(np.uint16)
    number = ((pairs & 255) + (pairs >> 8)).astype(np.uint8)
    image = image.copy()
    np.copyto(image, 0, where=unusable)
    means = sums(image)
    means /= np.maximum(number, 1)
    return means, number


def unbinned(squares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of 2 x 2 squares as one of pixels.

    Parameters
    ----------
    squares : ndarray of bool, shape (ceil(ny / 2), ceil(nx / 2))
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    rows, columns = squares.shape
    # Two pixels at once: as one number of twice the bytes.
    pairs = squares.view(np.uint8) * np.uint16(257)
    both = np.empty((rows, 2, columns), np.uint16)
    both[:] = pairs[:, None]
    pixels = both.view(bool).reshape(2 * rows, 2 * columns)
    return np.ascontiguousarray(pixels[: shape[0], : shape[1]])


def smoothed(image: np.ndarray, side: float) -> np.ndarray:
    """Return an image convolved with (side, 1 - 2 side, side) along rows and columns."""
    for axis in (0, 1):
        part = np.moveaxis(image * np.float32(side), axis, 0)
        image = image * np.float32(1 - 2 * side)
        result = np.moveaxis(image, axis, 0)
        result[1:] += part[:-1]
        result[:-1] += part[1:]
    return image


def spread(mask: np.ndarray, corners: bool) -> np.ndarray:
    """Return a mask grown by one pixel, also across corners or not."""
    grown = mask.copy()
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    across = grown.copy() if corners else mask
    grown[1:] |= across[:-1]
    grown[:-1] |= across[1:]
    return grown


def grown_by_size(labels: np.ndarray, steps: Any) -> np.ndarray:
    """Return labelled areas, each grown by its own number of pixels.

    Areas are grown together: the one that needs most steps begins, each step brings in those
    that need no more than are left. Steps with and without corners alternate, which makes an
    octagon of a point.

    Parameters
    ----------
    labels : ndarray of int, shape (ny, nx)
    steps : sequence of int, shape (n + 1,)
        Steps for each label; `NO_GROWTH` for labels that are left out, such as 0, the background.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    steps = np.asarray(steps, np.uint16)
    left = steps.take(labels)
    grown = np.zeros(labels.shape, bool)
    for step in range(int(steps[steps < NO_GROWTH].max(initial=0)), 0, -1):
        grown |= left == step
        grown = spread(grown, corners=step % 2 == 1)
    return grown | (left == 0)


def extents(labels: np.ndarray, places: np.ndarray, count: int) -> Any:
    """Return how many pixels each of `count` areas spans, from the label and place of each."""
    low, high = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(low, labels, places)
    np.maximum.at(high, labels, places)
    return high - low + 1


def find_sources(
    image: np.ndarray,
    unusable: np.ndarray,
    threshold: float = 1.5,
    grow: int = 4,
    mesh: int = 64,
    minarea: int = 6,
) -> np.ndarray:
    """Return the pixels of a frame that belong to sources.

    Squares of 2 x 2 pixels, smoothed to the Gaussian of 1.2 pixels that the detection of faint
    stars wants, are segmented above a local background (Bertin & Arnouts 1996, as implemented
    by sep); each segment is grown by `grow` pixels, and by more the larger it is, for the wings
    that lie below the threshold.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
        Pixels without information.
    threshold : float
        Detection threshold [standard deviations of a pixel].
    grow : int
        Dilation of the sources [pixel].
    mesh : int
        Size of the background mesh [px].
    minarea : int
        Pixels that a source must cover, more than a single hot pixel does.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    import sep
    from scipy.ndimage import label

    means, number = binned(np.asarray(image, np.float32), unusable)
    blank = number < 2
    mesh = min(max(mesh // 2, 1), *means.shape)
    background = sep.Background(means, mask=blank, bw=mesh, bh=mesh, fw=3, fh=3)
    means -= background.back()
    if number.min() < 4:
        # Where pixels are missing, the mean is less certain.
        means *= np.sqrt(np.arange(5, dtype=np.float32) / 4).take(number)
        means[blank] = 0
    # Squares have half the noise of pixels.
    limit = SQUARE_LIMIT * 2 * threshold * max(background.globalrms, 1e-6)
    above = smoothed(means, SQUARE_SIDE) > limit
    labels, count = label(above, np.ones((3, 3), bool))
    if not count:
        return np.zeros(image.shape, bool)
    index = np.flatnonzero(above)
    of = labels.ravel()[index] - 1
    area = 4 * np.bincount(of)
    # A hot column is long, and has no wings.
    width = 2 * np.minimum(*(extents(of, at, count) for at in np.divmod(index, labels.shape[1])))
    radius = grow + 0.6 * np.minimum(np.sqrt(area), width)
    steps = np.where(area < minarea, NO_GROWTH, radius // 2)
    return unbinned(grown_by_size(labels, [NO_GROWTH, *steps]), image.shape)


def sky_level(image: np.ndarray, mask: np.ndarray, sources: np.ndarray) -> tuple[float, float]:
    """Return level and pixel noise of the sky, from pixels free of sources and defects.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
    sources : ndarray of bool, shape (ny, nx)

    Returns
    -------
    level, noise : float
        In the unit of the image, from a `regular_sample` of its pixels: good to a hundredth of
        the noise of one; NaN where there is no sky pixel.
    """
    hidden = BAD | SATURATED | NODATA | COSMIC
    for number in (SAMPLE, image.size):
        part = [regular_sample(one, number) for one in (image, mask, sources)]
        sky = part[0][~part[2] & (part[1] & hidden == 0)]
        if sky.size > SAMPLE / 10:
            break
    level, noise, _ = sigma_clipped_median(sky)
    return level, noise


def crowded_sky(
    image: np.ndarray, unusable: np.ndarray, threshold: float = 1.5
) -> tuple[np.ndarray, float, float]:
    """Return the sources of a frame that they cover, and the sky between them.

    The level is the mode of the pixels, the noise their scatter below it, where no source is.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
        Pixels without information; one at least has some.
    threshold : float
        Pixels brighter than the mode by this many standard deviations belong to sources.

    Returns
    -------
    sources : ndarray of bool, shape (ny, nx)
    level, noise : float
        In the unit of the image; the level is high by the light of stars that run into each
        other.
    """
    from scipy.ndimage import uniform_filter

    values = regular_sample(image)[~regular_sample(unusable)]
    values = values[np.isfinite(values)]
    if not values.size:
        return ~unusable, np.nan, np.nan
    level = half_sample_mode(values)
    below = level - values[values < level]
    noise = float(np.sqrt(np.mean(below**2))) if below.size else 0.0
    # Means over 3 x 3 pixels distinguish a source from a noisy pixel.
    means = uniform_filter(np.where(unusable, np.float32(level), image), 3)
    return (means > level + threshold * noise) & ~unusable, level, noise


def block_sky(
    image: np.ndarray, free: np.ndarray, block: float = 64, least: float = 0.3, every: int = 1
) -> np.ndarray:
    """Return the medians of an image's squares, over their free pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    free : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    block : int
        Size of the squares [px].
    least : float
        Squares with a smaller fraction of free pixels are not used.
    every : int
        Only every n-th row is used.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        NaN where a square is not used.
    """
    ranked, number = ranked_blocks(image[::every], free[::every], (block / every, block))
    middle = np.stack([np.maximum(number - 1, 0) // 2, number // 2], axis=-1)
    middle = np.minimum(middle, ranked.shape[-1] - 1)
    with np.errstate(invalid="ignore"):
        medians = np.take_along_axis(ranked, middle, axis=-1).mean(axis=-1)
    return np.where(number > least * ranked.shape[-1], medians, np.float32(np.nan))


def fit_surface(values: np.ndarray, order: int, sigma: float = 3.0) -> np.ndarray:
    """Fit a low-order surface to a coarse map, robustly.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
        Values from `block_sky`; NaN where unknown.
    order : int
        Highest total degree of the polynomial in x and y. It is lowered where fewer than four
        values a term are known.
    sigma : float
        Values further than this many standard deviations from the fit are left out, until none
        is.

    Returns
    -------
    ndarray, shape (order + 1, order + 1)
        Coefficients of Legendre polynomials in y and x, which run from -1 to 1 over the image.
    """
    from numpy.polynomial.legendre import legvander2d

    known = np.isfinite(values)
    coefficients = np.zeros((order + 1, order + 1))
    while order and known.sum() < 2 * (order + 1) * (order + 2):
        order -= 1
    if not known.any():
        return coefficients
    rows, columns = values.shape
    y, x = np.nonzero(known)
    y, x = (2 * y + 1) / rows - 1, (2 * x + 1) / columns - 1
    degree_y, degree_x = np.indices((order + 1, order + 1)).reshape(2, -1)
    used = degree_y + degree_x <= order
    terms = legvander2d(y, x, [order, order])[:, used]
    values = values[known].astype(float)
    keep = np.ones(values.size, bool)
    for _ in range(10):
        solution = np.linalg.lstsq(terms[keep], values[keep], rcond=None)[0]
        residual = values - terms @ solution
        clipped = np.abs(residual) <= sigma * mad_std(residual[keep]) + 1e-12
        if (clipped == keep).all() or clipped.sum() < 2 * used.sum():
            break
        keep = clipped
    coefficients[degree_y[used], degree_x[used]] = solution
    return coefficients


def surface(coefficients: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the surface of `fit_surface` at the pixels of an image.

    Parameters
    ----------
    coefficients : ndarray, shape (order + 1, order + 1)
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    from numpy.polynomial.legendre import legvander

    order = len(coefficients) - 1
    y, x = (legvander((2 * np.arange(n) + 1) / n - 1, order).astype(np.float32) for n in shape)
    return y @ coefficients.astype(np.float32) @ x.T


def sky_noise(header: fits.Header) -> float:
    """Return the photon and read noise of a pixel, as a fraction of the sky."""
    electrons = header["SKYCTS"] * header["GAIN"]
    return float(np.sqrt(max(electrons, 0) + header["RDNOISE"] ** 2) / electrons)
