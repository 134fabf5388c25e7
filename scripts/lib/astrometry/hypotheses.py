"""Hypotheses of how the stars of a frame lie on a reference, from votes of pairs of stars.

All positions are on one tangent plane, in arcseconds.
"""

from collections.abc import Iterable

import numpy as np
from scipy.spatial import cKDTree

from lib.astrometry.mapping import Mapping

HASH_BUCKETS = 1 << 21
"""Size of the hash table of votes, a power of two."""


def offset_hypotheses(
    stars: np.ndarray, reference: np.ndarray, radius: float, cell: float, number: int = 20
) -> tuple[list[Mapping], float]:
    """Find shifts by which most stars meet a reference star (votes in a 2-D histogram).

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds, scale and rotation known to within `cell` over the frame.
    radius : float
        Maximum shift [arcsec].
    cell : float
        Width of a histogram cell [arcsec]; votes are summed over 3x3.
    number : int
        Hypotheses returned.

    Returns
    -------
    list of Mapping
    trials : float
        Number of independent shifts that were looked at.
    """
    shift = (reference[None, :, :] - stars[:, None, :]).reshape(-1, 2)
    shift = shift[np.einsum("ij,ij->i", shift, shift) < radius**2]
    count = len(shift)
    if count == 0:
        return [], 1.0
    cell = max(cell, radius / 1500.0)
    half = int(np.ceil(radius / cell)) + 2
    index = np.floor(shift / cell).astype(int) + half
    votes = np.bincount(index[:, 0] * 2 * half + index[:, 1], minlength=4 * half * half)
    votes = votes.reshape(2 * half, 2 * half).astype(np.int32)
    votes = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    votes = votes + np.roll(votes, 1, 1) + np.roll(votes, -1, 1)
    seen = np.unique(votes.ravel()[index[:, 0] * 2 * half + index[:, 1]])
    floor = max(1, seen[-1] // 4)
    at = np.flatnonzero(votes.ravel() >= floor)
    at = at[np.argsort(votes.ravel()[at], kind="stable")[::-1][: 40 * number]]
    found: list[Mapping] = []
    taken = np.zeros((0, 2))
    along_x, along_y = np.ascontiguousarray(shift.T)
    for k in at:
        middle = (np.array(divmod(k, 2 * half)) - half + 0.5) * cell
        if len(taken) and np.min(np.hypot(*(taken - middle).T)) < 2.5 * cell:
            continue
        taken = np.vstack([taken, middle])
        close = np.flatnonzero(np.abs(along_x - middle[0]) <= 1.5 * cell)
        close = close[np.abs(along_y[close] - middle[1]) <= 1.5 * cell]
        found.append(Mapping(np.eye(2), np.median(shift[close], axis=0)))
        if len(found) == number:
            break
    return found, float(count)


def pair_hypotheses(
    stars: np.ndarray,
    reference: np.ndarray,
    radius: float,
    size: float,
    scale: float = 1.0,
    scale_error: float = 0.08,
    number: int = 400,
    budget: int = 400_000,
) -> tuple[list[Mapping], float]:
    """Find rotation, scale, parity and shift from pairs of stars (votes in four dimensions).

    A pair in the frame and a pair in the reference give one similarity each way round; true pairs
    agree on one cell of (rotation, scale, x, y), chance pairs are spread over all.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds; the origin is the assumed middle of the frame.
    radius : float
        Maximum distance of the true centre of the frame from the assumed one [arcsec].
    size : float
        Side of the frame [arcsec].
    scale, scale_error : float
        Scale of the reference in units of the frame's, and its relative tolerance.
    number : int
        Hypotheses returned for each parity.
    budget : int
        Maximum number of pairs of pairs compared; the longest pairs are left out first.

    Returns
    -------
    list of Mapping
    trials : float
        Number of independent similarities that were looked at.
    """
    star_pairs, known_pairs = pairs_of_pairs(stars, reference, size, scale, scale_error, budget)
    if len(star_pairs) == 0:
        return [], 1.0
    q = reference @ np.array([1, 1j])
    c, d = q[known_pairs[:, 0]], q[known_pairs[:, 1]]
    found = []
    for parity in (1, -1):
        p = stars @ np.array([parity, 1j])
        a, b = p[star_pairs[:, 0]], p[star_pairs[:, 1]]
        factor = (d - c) / (b - a)
        offset = np.concatenate([c - factor * a, d + factor * a])
        factor = np.concatenate([factor, -factor])
        keep = np.abs(offset) < radius + 0.1 * size
        for f, o in vote(factor[keep], offset[keep], size, number):
            matrix = np.array([[f.real, -f.imag], [f.imag, f.real]])
            found.append(Mapping(matrix * [parity, 1.0], np.array([o.real, o.imag])))
    return found, 4.0 * float(len(star_pairs))


def pairs_of_pairs(
    stars: np.ndarray,
    reference: np.ndarray,
    size: float,
    scale: float,
    scale_error: float,
    budget: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Combine each pair of stars with the pairs of reference stars of the same length.

    See `pair_hypotheses`.

    Returns
    -------
    star_pairs, known_pairs : ndarray of int, shape (n, 2)
        Indices of the stars of each pair.
    """
    pairs_p = np.column_stack(np.triu_indices(len(stars), 1))
    length_p = np.hypot(*(stars[pairs_p[:, 1]] - stars[pairs_p[:, 0]]).T)
    tree = cKDTree(reference)
    longest = 1.0 * size
    pairs_q = length_q = None
    while True:
        use = (length_p > 0.06 * size) & (length_p < longest)
        reach = longest * scale * (1 + scale_error)
        if pairs_q is not None and length_q is not None:
            # Of those of the larger reach, the shortest first, fewer are wanted.
            within = int(np.searchsorted(length_q, reach, "right"))
            pairs_q, length_q = pairs_q[:within], length_q[:within]
        elif tree.count_neighbors(tree, reach) - len(reference) < 4 * budget:
            pairs_q = tree.query_pairs(reach, output_type="ndarray")
            length_q = np.hypot(*(reference[pairs_q[:, 1]] - reference[pairs_q[:, 0]]).T)
            order = np.argsort(length_q)
            pairs_q, length_q = pairs_q[order], length_q[order]
        if pairs_q is not None and length_q is not None:
            low = np.searchsorted(length_q, length_p[use] * scale / (1 + scale_error))
            high = np.searchsorted(length_q, length_p[use] * scale * (1 + scale_error))
            if (high - low).sum() <= budget or longest < 0.1 * size:
                break
        longest *= 0.8
    count = high - low
    count[np.cumsum(count) > budget] = 0
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    star_pairs = pairs_p[np.repeat(np.flatnonzero(use), count)]
    return star_pairs, pairs_q[np.repeat(low, count) + inside]


def vote(
    factor: np.ndarray, offset: np.ndarray, size: float, number: int
) -> Iterable[tuple[complex, complex]]:
    """Find the similarities on which most pairs of pairs agree.

    Parameters
    ----------
    factor, offset : ndarray of complex, shape (n,)
        Rotation with scale, and shift [arcsec].
    size : float
        Side of the frame [arcsec].
    number : int
        Cells returned.

    Returns
    -------
    iterable of tuple of complex
        Mean factor and offset of each of the fullest cells, fullest first.
    """
    if len(factor) == 0:
        return ()
    cells = (
        np.angle(factor) / np.radians(1.5),
        np.log(np.abs(factor)) / 0.015,
        offset.real / (0.02 * size),
        offset.imag / (0.02 * size),
    )
    cell_number = np.zeros(len(factor))
    for cell in cells:
        cell = np.floor(cell, out=cell)
        cell -= cell.min()
        cell_number *= cell.max() + 1
        cell_number += cell
    key = cell_number.astype(np.int64)
    # Sorting all the votes would take most of the time: only well-filled buckets are sorted.
    bucket = (key * 0x9E3779B1 >> 7) & (HASH_BUCKETS - 1)
    filled = np.bincount(bucket, minlength=HASH_BUCKETS)
    above = np.cumsum(np.bincount(filled)[::-1])[::-1]
    enough = max(np.count_nonzero(above >= number) - 1, 1)
    held = filled[bucket] >= enough
    key, factor, offset = key[held], factor[held], offset[held]
    _, index, votes = np.unique(key, return_inverse=True, return_counts=True)
    best = np.argsort(votes, kind="stable")[::-1][:number]
    position = np.full(len(votes), -1)
    position[best] = np.arange(len(best))
    member = position[index]
    held = member >= 0

    def mean(values: np.ndarray) -> np.ndarray:
        real, imaginary = (
            np.bincount(member[held], part[held], len(best)) for part in (values.real, values.imag)
        )
        return (real + 1j * imaginary) / votes[best]

    return zip(mean(factor), mean(offset), strict=True)
