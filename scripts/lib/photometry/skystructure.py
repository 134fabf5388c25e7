"""Sky structure: places where empty apertures scatter more than elsewhere."""

import numpy as np
import sep

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.backgroundmesh import fine_mesh
from lib.photometry.emptyapertures import empty_apertures
from lib.photometry.starfield import StarField
from lib.photometry.underlying import UnderlyingLight

NEAREST_APERTURES = 60
"""Number of empty apertures that give the noise at a position: their rms is good to a tenth."""

CLIP_SIGMA = 5
"""Larger deviations are clipped to this: an undetected source is no sky structure, unless half of
the apertures deviate as much."""

SEEN_SNR = 10.0
"""Signal-to-noise ratio of sources that tell whether there is structure."""

STRUCTURED = 0.3
"""Part of the sources above which their sky is that of a galaxy or a nebula."""


def structure_of(
    field: StarField, under: UnderlyingLight, covered: np.ndarray
) -> np.ndarray | None:
    """Return the light of galaxies and nebulae all over an image; None where few sources lie in it.

    Parameters
    ----------
    field : StarField
        Sources of the image.
    under : UnderlyingLight
        What is under them.
    covered : ndarray of bool, shape (ny, nx)
        Pixels with a value.

    Returns
    -------
    ndarray of float32, shape (ny, nx), or None
    """
    seen = field.flux > SEEN_SNR * field.error
    if not seen.any() or np.mean(under.level[seen] != 0) < STRUCTURED:
        return None
    stars = (field.segments > 0) & ~field.extended
    mesh = fine_mesh(field.residual, ~covered | stars, field.fwhm, smooth=1)
    return mesh.back(dtype=np.float32)


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
    _, nearest = cKDTree(at).query(np.column_stack([x, y]), k=NEAREST_APERTURES)
    pull = np.abs(sums / (ratio * np.sqrt(expected)))[nearest]
    typical = MAD_TO_SIGMA * np.median(pull, axis=1)
    clipped = np.sqrt(np.mean(np.minimum(pull, CLIP_SIGMA) ** 2, axis=1))
    return np.maximum.reduce([excess, clipped, typical * (typical > CLIP_SIGMA)])
