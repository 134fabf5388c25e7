"""Stars that several lists have in common, on one plane."""

from collections.abc import Sequence

import numpy as np


def match(plane: np.ndarray, reference: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair points with the nearest reference points, one to one, ambiguous ones left out.

    Parameters
    ----------
    plane : ndarray, shape (n, 2)
    reference : ndarray, shape (m, 2)
        Rows with NaN are never matched.
    radius : float
        Maximum distance, in the units of the points.

    Returns
    -------
    index, partner : ndarray of int
        Rows of `plane` and `reference` that belong together.
    """
    from scipy.spatial import cKDTree

    none = np.empty(0, int)
    valid = np.flatnonzero(np.isfinite(reference).all(axis=1))
    usable = np.flatnonzero(np.isfinite(plane).all(axis=1))
    if valid.size == 0 or usable.size == 0:
        return none, none
    distance, nearest = cKDTree(reference[valid]).query(
        plane[usable], k=min(2, valid.size), distance_upper_bound=radius
    )
    distance, nearest = np.atleast_2d(distance.T).T, np.atleast_2d(nearest.T).T
    found = np.isfinite(distance[:, 0])
    if distance.shape[1] > 1:
        found &= ~np.isfinite(distance[:, 1])  # two candidates: neither is sure
    index = np.flatnonzero(found)
    partner = nearest[index, 0]
    # One to one: of several points at one reference star the nearest is it.
    order = np.argsort(distance[index, 0], kind="stable")
    _, first = np.unique(partner[order], return_index=True)
    keep = np.sort(order[first])
    return usable[index[keep]], valid[partner[keep]]


def common_stars(positions: Sequence[np.ndarray], radius: float) -> tuple[list[np.ndarray], int]:
    """Number the stars of several frames, the same star alike on all of them.

    Parameters
    ----------
    positions : list of ndarray, shape (n_i, 2)
        Stars of each frame on one plane.
    radius : float
        Stars nearer than this are the same.

    Returns
    -------
    numbers : list of ndarray of int, shape (n_i,)
    count : int
        Number of different stars.
    """
    from scipy.spatial import cKDTree

    order = sorted(range(len(positions)), key=lambda i: -len(positions[i]))
    numbers = [np.zeros(0, int)] * len(positions)
    master = np.empty((0, 2))
    for i in order:
        points = positions[i]
        number = np.full(len(points), -1)
        if len(master) and len(points):
            distance, nearest = cKDTree(master).query(points, distance_upper_bound=radius)
            near = np.flatnonzero(np.isfinite(distance))
            near = near[np.argsort(distance[near], kind="stable")]
            _, first = np.unique(nearest[near], return_index=True)
            near = near[first]
            number[near] = nearest[near]
        new = number < 0
        number[new] = len(master) + np.arange(new.sum())
        master = np.vstack([master, points[new]])
        numbers[i] = number
    return numbers, len(master)
