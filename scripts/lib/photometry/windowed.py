"""Windowed positions: what moves them.

A position x0 satisfies sum(W(x - x0) (x - x0) I) = 0, where W is a Gaussian as wide as a star
(`XWIN_IMAGE` in the manual of source-extractor).
"""

import numpy as np

from lib.photometry.apertures import squares_about

WINDOW = 2.0 / 2.3548
"""Width (sigma) of the window in half-light radii of a star."""


def position_errors(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, locus: float, variance: np.ndarray,
    gain: float, gradient_error: np.ndarray | float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Return the errors of windowed positions, averaged over both axes.

    The error is that of the sum divided by the derivative of the sum with respect to x0 (compare
    ERRX2WIN in the manual of source-extractor).

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Background-subtracted image.
    x, y : ndarray, shape (n,)
        Positions of the sources [pixel].
    locus : float
        Half-light radius of stars [pixel].
    variance : ndarray, shape (n,)
        Sky variance of a pixel at each source, including correlated noise.
    gain : float
        Electrons per unit.
    gradient_error : ndarray, shape (n,), optional
        Error of the gradient of the light under the sources, a pixel.

    Returns
    -------
    ndarray, shape (n,)
        Errors [pixel]; infinite where no significant light is left.
    """
    window = WINDOW * locus
    light, r2, weight = _windows(image, x, y, window)
    slope = _slope(light, r2, weight, window)
    photons = np.sum(weight**2 * r2 / 2 * np.maximum(light, 0), axis=(1, 2)) / gain
    empty = variance * np.pi * window**4 / 2
    with np.errstate(divide="ignore"):
        noise = np.sqrt(photons + empty) / np.maximum(slope, 0)
        return np.hypot(noise, _moment(window) * gradient_error / np.maximum(slope, 1e-30))


def gradient_shift(image: np.ndarray, x: np.ndarray, y: np.ndarray, locus: float) -> np.ndarray:
    """Return by how far a gradient of 1 a pixel in the light moves windowed positions [pixel].

    Parameters
    ----------
    image, x, y, locus
        As for `position_errors`.

    Returns
    -------
    ndarray, shape (n,)
        Infinite where no significant light is left.
    """
    window = WINDOW * locus
    slope = _slope(*_windows(image, x, y, window), window)
    with np.errstate(divide="ignore"):
        return _moment(window) / np.maximum(slope, 0)


def _windows(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, window: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels about positions, the squares of their distances, and their weights."""
    half = int(np.ceil(4 * window))
    grid = np.arange(-half, half + 1)
    row, column = y.round().astype(int), x.round().astype(int)
    light = np.nan_to_num(image[squares_about(column, row, half, image.shape)])
    dy2, dx2 = ((grid + (whole - one)[:, None]) ** 2 for whole, one in ((row, y), (column, x)))
    r2 = dy2[:, :, None] + dx2[:, None, :]
    return light, r2, np.exp(-r2 / (2 * window**2))


def _slope(light: np.ndarray, r2: np.ndarray, weight: np.ndarray, window: float) -> np.ndarray:
    """Return the derivative of the sum with respect to x0, averaged over both axes."""
    # Half of r^2 for x^2.
    return np.sum(weight * light * (1 - r2 / (2 * window**2)), axis=(1, 2))


def _moment(window: float) -> float:
    """Return sum(W x^2), that of a gradient of 1 a pixel."""
    return 2 * np.pi * window**4
