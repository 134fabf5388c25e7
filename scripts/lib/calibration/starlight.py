"""Cosmic rays in the light of stars: how many there are, and how many chance puts there."""

from functools import reduce

import numpy as np

from lib.core.meshes import bilinear, bilinear_at

LIGHT_BOX = 5
"""[px] Side of the squares whose mean tells the light of stars."""

STARLIGHT = (2.0, 10.0)
"""[noise of a pixel] Where the mean is higher, there is a star; the core of one."""

CHANCE = 0.01
"""Probability below which cosmic rays in stars are too many."""

CHANCE_FACTOR = 1.5
"""Factor by which the number must exceed that expected by chance: long rays touch stars more
easily."""


class Starlight:
    """How much light of sources lies about the pixels of a frame: means of squares.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted, its cosmic rays repaired.
    noise : ndarray of float32, shape (rows, columns)
        See `Sharpness`.
    """

    def __init__(self, image: np.ndarray, noise: np.ndarray) -> None:
        self.image, self.noise = image, noise
        rows, columns = (size // LIGHT_BOX for size in image.shape)
        lines = reduce(np.add, (image[i::LIGHT_BOX][:rows] for i in range(LIGHT_BOX)))
        sums = reduce(np.add, (lines[:, i::LIGHT_BOX][:, :columns] for i in range(LIGHT_BOX)))
        self.squares = sums / np.float32(LIGHT_BOX**2) / bilinear(noise, sums.shape)

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the mean of the pixels around each of some [noise of a pixel]."""
        reach = np.arange(LIGHT_BOX) - LIGHT_BOX // 2
        rows, columns = (
            mirrored(at[:, None] + reach, size)
            for at, size in zip((y, x), self.image.shape, strict=True)
        )
        means = self.image[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
        return means / bilinear_at(self.noise, self.image.shape, y, x)

    def area(self, level: float) -> float:
        """Return the fraction of the frame with more light than `level` [noise of a pixel]."""
        return float(np.mean(self.squares > level))


def mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Return places along an axis, those just outside reflected at its ends."""
    return np.minimum(np.where(index < 0, -1 - index, index), 2 * size - 1 - index)


def touching(y: np.ndarray, x: np.ndarray, width: int) -> np.ndarray:
    """Return the number of the group of each pixel: pixels in one touch, at corners too.

    Parameters
    ----------
    y, x : ndarray of int, shape (n,)
        In the order of an image of rows of `width` pixels.
    width : int

    Returns
    -------
    ndarray of int, shape (n,)
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    index, links = y * (width + 1) + x, []
    for step in (1, width, width + 1, width + 2):
        after = np.searchsorted(index, index + step).clip(max=index.size - 1)
        near = np.flatnonzero(index[after] == index + step)
        links.append((near, after[near]))
    first, second = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_matrix((np.ones(first.size, bool), (first, second)), (index.size, index.size))
    return connected_components(graph, directed=False)[1]


def rays_in_stars(
    found: np.ndarray, light: Starlight, spared: float = 0.1
) -> tuple[np.ndarray, bool]:
    """Return the detections in starlight, and whether there are more than expected by chance.

    Cosmic rays do not know of stars: as many fall on a pixel of a star, or of its core, as on one
    of the sky.

    Parameters
    ----------
    found : ndarray of bool, shape (ny, nx)
        Flagged pixels.
    light : Starlight
    spared : float
        Added to the number expected by chance: with a tenth, one is never too many.

    Returns
    -------
    inside : ndarray of bool, shape (ny, nx)
        Pixels of groups that lie in starlight.
    too_many : bool
    """
    from scipy.special import pdtrc

    inside = np.zeros_like(found)
    y, x = np.nonzero(found)
    if not y.size:
        return inside, False
    groups = touching(y, x, found.shape[1])
    brightest = np.full(groups.max() + 1, -np.inf, np.float32)
    np.maximum.at(brightest, groups, light.at(y, x))
    too_many = False
    for level in STARLIGHT:
        hits, area = int((brightest > level).sum()), light.area(level)
        expected = (brightest.size - hits) * area / max(1 - area, 1e-3)
        margin = CHANCE_FACTOR * expected + spared
        too_many |= bool(hits > 0 and pdtrc(hits - 1, margin) < CHANCE)
    lit = (brightest > min(STARLIGHT))[groups]
    inside[y[lit], x[lit]] = True
    return inside, too_many
