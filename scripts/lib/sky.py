"""The sky of a frame: its level, and the pixels in which sources hide it."""

import numpy as np

from lib.frames import BAD, COSMIC, NODATA, SATURATED
from lib.stats import mad_std, sigma_clipped_median

QUARTER = 0.3186394
"""A quarter of Gaussian deviates are smaller, in absolute value."""


def find_sources(image, unusable, threshold=1.5, grow=4, mesh=64, minarea=6):
    """Return the pixels of a frame that belong to sources.

    The frame is smoothed by a 5x5 Gaussian and segmented above a local background
    (Bertin & Arnouts 1996, as implemented by sep); each segment is grown by `grow` pixels, and
    by more the larger it is, for the wings that lie below the threshold.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
        Pixels without information.
    threshold : float
        In standard deviations of the background.
    grow : int
        Pixels.
    mesh : int
        Size of the background mesh [px].
    minarea : int
        Pixels that a source must cover: a lone hot pixel is none.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    import sep
    from scipy.ndimage import distance_transform_edt

    sep.set_extract_pixstack(max(300_000, image.size // 2))
    image = np.ascontiguousarray(image, np.float32)
    mesh = min(mesh, *image.shape)
    background = sep.Background(image, mask=unusable, bw=mesh, bh=mesh, fw=3, fh=3)
    x = np.arange(-2, 3)
    kernel = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 1.2**2)).astype(np.float32)
    try:
        objects, segments = sep.extract(
            image - background.back(),
            threshold,
            err=max(background.globalrms, 1e-6),
            mask=unusable,
            minarea=minarea,
            filter_kernel=kernel,
            deblend_cont=1.0,
            clean=False,
            segmentation_map=True,
        )
    except Exception as error:  # sep raises plain Exception when its buffers overflow
        if "overflow" not in str(error) and "limit" not in str(error):
            raise
        return np.zeros(image.shape, bool)
    sources = segments > 0
    if not sources.any():
        return sources
    radius = np.zeros(len(objects) + 1, np.float32)
    # A hot column is long, and has no wings.
    width = 1 + np.minimum(objects["xmax"] - objects["xmin"], objects["ymax"] - objects["ymin"])
    radius[1:] = grow + 0.6 * np.minimum(np.sqrt(objects["npix"]), width)
    distance, nearest = distance_transform_edt(~sources, return_indices=True)
    return distance <= radius[segments[tuple(nearest)]]


def sky_level(image, mask, sources):
    """Return level and pixel noise of the sky, from pixels without source or defect.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
    sources : ndarray of bool, shape (ny, nx)

    Returns
    -------
    level, noise : float
        In the unit of the image; NaN where there is no sky pixel.
    """
    free = ~sources & (mask & (BAD | SATURATED | NODATA | COSMIC) == 0)
    level, noise, _ = sigma_clipped_median(image[free])
    return level, noise


def noise_map(image, unusable, least, block=64):
    """Return the noise of each pixel's sky: as photons and read-out make it, or as measured.

    Where the flat is low, where a detector is noisier, or where structure was left, the noise
    measured exceeds the one that header numbers tell.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
    least : float
        Noise of sky and read-out.
    block : int
        Size of the squares in which it is measured [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        From the lower quartile of the absolute differences of neighbours in a row, which stars
        hardly move; bilinear between the squares; nowhere below `least`.
    """
    from scipy.ndimage import median_filter

    rows = max(1, round(image.shape[0] / block))
    columns = max(1, round(image.shape[1] / block))
    edges_y = np.linspace(0, image.shape[0], rows + 1).astype(int)
    edges_x = np.linspace(0, image.shape[1], columns + 1).astype(int)
    coarse = np.full((rows, columns), least, np.float32)
    for i in range(rows):
        for j in range(columns):
            # Every third row is enough for 2 per cent.
            part = np.s_[edges_y[i] : edges_y[i + 1] : 3, edges_x[j] : edges_x[j + 1]]
            pixels, good = image[part], ~unusable[part]
            pairs = (pixels[:, 1:] - pixels[:, :-1])[good[:, 1:] & good[:, :-1]]
            if pairs.size > 50:
                lower = np.partition(np.abs(pairs), pairs.size // 4)[pairs.size // 4]
                coarse[i, j] = lower / (QUARTER * np.sqrt(2))
    coarse = np.maximum(median_filter(coarse, 3, mode="nearest"), np.float32(least))
    if coarse.max() < 1.05 * least:
        return np.full(image.shape, least, np.float32)
    return bilinear(coarse, image.shape)


def bilinear(coarse, shape):
    """Return the values of a coarse map, which stand for equal parts of an image, at its pixels.

    Parameters
    ----------
    coarse : ndarray, shape (rows, columns)
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Linear between the centres of the parts, constant beyond the outermost.
    """

    def weights(size, parts):
        place = ((np.arange(size) + 0.5) * parts / size - 0.5).clip(0, parts - 1)
        near = np.minimum(place.astype(int), max(parts - 2, 0))
        matrix = np.zeros((size, parts), np.float32)
        matrix[np.arange(size), near] = 1 - (place - near)
        matrix[np.arange(size), np.minimum(near + 1, parts - 1)] += place - near
        return matrix

    rows, columns = (weights(*pair) for pair in zip(shape, coarse.shape, strict=True))
    return rows @ np.asarray(coarse, np.float32) @ columns.T


def block_sky(image, free, block=64, least=0.3):
    """Return the medians of an image's squares, over their free pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    free : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    block : int
        Size of the squares [px].
    least : float
        Squares with a smaller part of free pixels tell nothing.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        NaN where a square tells nothing.
    """
    rows = max(1, round(image.shape[0] / block))
    columns = max(1, round(image.shape[1] / block))
    edges_y = np.linspace(0, image.shape[0], rows + 1).astype(int)
    edges_x = np.linspace(0, image.shape[1], columns + 1).astype(int)
    medians = np.full((rows, columns), np.nan, np.float32)
    for i in range(rows):
        for j in range(columns):
            part = np.s_[edges_y[i] : edges_y[i + 1], edges_x[j] : edges_x[j + 1]]
            pixels = image[part][free[part]]
            if pixels.size > least * (edges_y[i + 1] - edges_y[i]) * (edges_x[j + 1] - edges_x[j]):
                medians[i, j] = np.median(pixels)
    return medians


def fit_surface(values, order, sigma=3.0):
    """Fit a low-order surface to a coarse map, robustly.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
        As from `block_sky`; NaN where unknown.
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


def surface(coefficients, shape):
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


def time_windows(mjd, minutes, least):
    """Part a series of frames where it lasts longer than its sky stays the same.

    Parameters
    ----------
    mjd : sequence of float
        Times of the frames [d], in order.
    minutes : float
        Length of a part, about.
    least : int
        Frames in a part, at least.

    Returns
    -------
    list of list of int
        Indices of the frames of each part, in order: parts of nearly as many frames each.
    """
    span = (mjd[-1] - mjd[0]) * 1440
    parts = max(1, min(round(span / minutes), len(mjd) // least))
    return [list(part) for part in np.array_split(range(len(mjd)), parts)]
