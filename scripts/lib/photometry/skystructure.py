"""Sky structure: places where empty apertures scatter more than elsewhere."""

import numpy as np
import sep

from lib.photometry.emptyapertures import empty_apertures

NEAREST_APERTURES = 60
"""Number of empty apertures that give the noise at a position: their rms is good to a tenth."""

CLIP_SIGMA = 5
"""Larger deviations are clipped to this: an undetected source is no sky structure."""


def local_excess(
    image: np.ndarray, variance: np.ndarray, total: np.ndarray, x: np.ndarray, y: np.ndarray,
    radius: float, ratio: float | np.ndarray = 1.0, number: int = 3000,
) -> np.ndarray:  # fmt: skip
    """Return the noise of the sky at each position relative to that of the whole image.

    Halos of bright stars, ghosts and flat-field residuals are local. The rms about zero of the
    nearest empty apertures includes them, and also an error of the background.

    Parameters
    ----------
    image, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted; variance 0 where there is no data.
    total : ndarray of int32, shape (ny + 1, nx + 1)
        Summed-area table of the pixels of sources and those without data, see `summed_area`.
    x, y : ndarray, shape (n,)
        Positions [pixel].
    radius : float
        Radius of the apertures [pixel].
    ratio : float
        Noise in such apertures over that by the variance map, for the whole image.
    number : int
        Maximum number of empty apertures.

    Returns
    -------
    ndarray, shape (n,)
        Ratio of the noises, at least 1; 1 where there are too few empty apertures.
    """
    from scipy.spatial import cKDTree

    excess = np.ones(len(x))
    at = np.column_stack(empty_apertures(total, radius, number))
    if len(at) < 2 * NEAREST_APERTURES or len(x) == 0:
        return excess
    sums, _, _ = sep.sum_circle(image, *at.T, radius, subpix=5)
    expected, _, _ = sep.sum_circle(variance, *at.T, radius, subpix=5)
    pull = np.clip(sums / (ratio * np.sqrt(expected)), -CLIP_SIGMA, CLIP_SIGMA)
    _, nearest = cKDTree(at).query(np.column_stack([x, y]), k=NEAREST_APERTURES)
    return np.maximum(excess, np.sqrt(np.mean(pull[nearest] ** 2, axis=1)))
