"""Linear maps of the tangent plane, fitted to pairs of stars."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

Kind = Literal["shift", "similarity", "mirror", "affine"]
"""Free parameters of a map; 'mirror' is a similarity with parity -1."""


@dataclass(frozen=True)
class Mapping:
    """Linear map of a plane: ``points @ matrix.T + offset``.

    Parameters
    ----------
    matrix : ndarray, shape (2, 2)
    offset : ndarray, shape (2,)
        Shift [arcsec].
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the mapped points, shape (n, 2)."""
        return points @ self.matrix.T + self.offset

    @property
    def scale(self) -> float:
        """Factor by which lengths grow."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def parity(self) -> int:
        """+1, or -1 for a mirror image."""
        return 1 if np.linalg.det(self.matrix) > 0 else -1

    @property
    def rotation(self) -> float:
        """Angle in degrees; for parity -1 that of the mirror image."""
        a = self.matrix * np.array([self.parity, 1.0])
        return float(np.degrees(np.arctan2(a[1, 0] - a[0, 1], a[0, 0] + a[1, 1])))

    @property
    def aspect(self) -> float:
        """Ratio of the longer to the shorter stretch; 1 for a similarity."""
        s = np.linalg.svd(self.matrix, compute_uv=False)
        return float(s[0] / s[1])


def same_orientation(a: np.ndarray, b: np.ndarray, angle: float = 1.0, scale: float = 0.01) -> bool:
    """Whether two linear parts agree in parity, rotation [deg] and scale (relative)."""
    turn = Mapping(a @ np.linalg.inv(b), np.zeros(2))
    return turn.parity == 1 and abs(turn.rotation) < angle and abs(turn.scale - 1) < scale


def fit_mapping(source: np.ndarray, target: np.ndarray, kind: Kind) -> Mapping:
    """Fit a linear map of `source` onto `target` by least squares.

    Parameters
    ----------
    source, target : ndarray, shape (n, 2)
    kind : {'shift', 'similarity', 'mirror', 'affine'}

    Returns
    -------
    Mapping
    """
    p0, q0 = source.mean(axis=0), target.mean(axis=0)
    p, q = source - p0, target - q0
    if kind == "shift":
        matrix = np.eye(2)
    elif kind == "affine":
        matrix = np.linalg.lstsq(p, q, rcond=None)[0].T
    else:
        flip = np.array([-1.0 if kind == "mirror" else 1.0, 1.0])
        z = (p * flip) @ [1, 1j]
        factor = np.vdot(z, q @ [1, 1j]) / max(np.vdot(z, z).real, 1e-12)
        matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]]) * flip
    return Mapping(matrix, q0 - matrix @ p0)


def nearest_pairs(
    tree: cKDTree, points: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identify points with stars of a tree, each with at most one, nearest first.

    Returns
    -------
    i, j : ndarray of int
        Indices into `points` and into the tree.
    distance : ndarray of float
    """
    distance, j = tree.query(points, distance_upper_bound=tolerance)
    i = np.flatnonzero(np.isfinite(distance))
    i = i[np.argsort(distance[i], kind="stable")]
    _, unique = np.unique(j[i], return_index=True)
    i = np.sort(i[unique])
    return i, j[i], distance[i]


def brightest_per_cell(
    points: np.ndarray, magnitude: np.ndarray, cell: float, number: int
) -> np.ndarray:
    """Choose the brightest stars of every cell of a square grid.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    magnitude : ndarray, shape (n,)
        Any monotonic measure, small is bright; NaN counts as faintest.
    cell : float
        Side of a cell, in the unit of `points`.
    number : int
        Stars of each cell.

    Returns
    -------
    ndarray of int
        Indices, bright first.
    """
    if len(points) == 0:
        return np.zeros(0, int)
    order = np.argsort(np.where(np.isfinite(magnitude), magnitude, np.inf), kind="stable")
    key = np.floor(points[order] / cell).astype(np.int64)
    key -= key.min(axis=0)
    key = key[:, 0] * (key[:, 1].max() + 1) + key[:, 1]
    group = np.argsort(key, kind="stable")
    first = np.r_[0, np.flatnonzero(np.diff(key[group])) + 1]
    start = np.repeat(first, np.diff(np.r_[first, len(key)]))
    rank = np.empty(len(key), int)
    rank[group] = np.arange(len(key)) - start
    return order[rank < number]
