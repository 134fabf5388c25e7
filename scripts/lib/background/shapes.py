"""Large-scale shapes of the sky of single frames."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.background.sky import fit_surface, surface
from lib.calibration.masters import (
    outliers,
)

ODD_SHAPE = 0.1
"""[pixel noise] Sky shapes that depart from the common one by less are accepted: the mean of a few
frames does not show the difference."""


def frame_surfaces(blocks: np.ndarray, order: int) -> tuple[list[np.ndarray], Any]:
    """Return how each frame's sky departs from the common one.

    Moonlight and twilight tilt the sky of a frame. Left in, the tilt would print the outlines of
    each frame's masked sources on the mean.

    Parameters
    ----------
    blocks : ndarray, shape (n, rows, columns)
        Sky of each frame in squares, `lib.background.sky.block_sky`, 1 in the median.
    order : int
        Degree of the surfaces.

    Returns
    -------
    tilts : list of ndarray
        Coefficients of ``blocks / common - 1``, see `lib.background.sky.fit_surface`.
    left : ndarray, shape (n, rows, columns)
        Residuals of the surface.
    """
    levelled = blocks
    # The common sky is the median of skies whose tilt has been removed.
    for _ in range(3):
        with warnings.catch_warnings():
            # Squares that no frame shows.
            warnings.simplefilter("ignore", RuntimeWarning)
            common = np.nanmedian(levelled, axis=0)
        tilts = [fit_surface(one / common - 1, order) for one in blocks]
        planes = np.array([surface(tilt, common.shape) for tilt in tilts])
        levelled = blocks / (1 + planes)
    return tilts, blocks / common - 1 - planes


def outlying_shapes(left: np.ndarray, noises: Sequence[float]) -> np.ndarray:
    """Return how much the shape of each frame's sky differs from that of the others.

    The halo of a bright star that fills a frame is not sky, but cannot be masked as a source.

    Parameters
    ----------
    left : ndarray, shape (n, rows, columns)
        See `frame_surfaces`.
    noises : sequence of float
        Noise of each frame's pixels.

    Returns
    -------
    ndarray, shape (n,)
        Rms of the residual in units of the noise; 0 where it is not unusual.
    """
    known = np.isfinite(left)
    squares = np.where(known, left, 0) ** 2
    rms = np.sqrt(squares.sum(axis=(1, 2)) / known.sum(axis=(1, 2)).clip(1)) / noises
    apart = outliers(rms, 0.0) & (rms > max(ODD_SHAPE, np.median(rms)))
    return np.where(apart, rms, 0.0)


def busier_shapes(surfaces: np.ndarray, most: float = 1.5) -> np.ndarray:
    """Return which frames' skies have more structure, beyond a plane, than the others.

    Parameters
    ----------
    surfaces : ndarray, shape (n, rows, columns)
        Sky of each frame in squares.
    most : float
        Limit, in units of the median structure.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    structure = np.array(
        [np.nanstd(one - surface(fit_surface(one, 1), one.shape)) for one in surfaces]
    )
    return structure > most * np.median(structure)
