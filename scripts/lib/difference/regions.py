"""Regions of an image with a kernel or point-spread function each, and the blend between them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STARS_PER_REGION = 4
"""Stars that a region has, at least, where their number decides how many regions there are."""

LEAST_NEAREST = 12
"""Stars that a kernel or a point-spread function is made of, at least, where there are so many."""

MOST_REGIONS = 3
"""Regions along an axis, at most, where their number is not given."""


@dataclass(frozen=True)
class Regions:
    """A grid of nodes over an image: between them what they have is blended linearly.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image.
    number : int
        Nodes along each axis.
    """

    shape: tuple[int, int]
    number: int

    @property
    def nodes(self) -> np.ndarray:
        """x, y of the nodes [pixel], shape (number^2, 2), row by row."""
        rows, columns = (self._centres(size) for size in self.shape)
        return np.array([(x, y) for y in rows for x in columns])

    def nearest(self, node: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the stars that determine a node, nearest first.

        Twice the part of them that a region has, but no fewer than `LEAST_NEAREST`.
        """
        number = max(LEAST_NEAREST, -(-2 * len(x) // self.number**2))
        return np.argsort(np.hypot(x - node[0], y - node[1]), kind="stable")[:number]

    def _centres(self, size: int) -> np.ndarray:
        return (np.arange(self.number) + 0.5) * size / self.number - 0.5

    def _hats(self, size: int) -> np.ndarray:
        """Return the weight of each node along an axis, shape (number, size): they add up to 1."""
        return np.array([
            np.interp(np.arange(size), self._centres(size), row) for row in np.eye(self.number)
        ])  # fmt: skip

    def blend(
        self, work: Callable[[int, tuple[slice, slice]], np.ndarray], margin: int
    ) -> np.ndarray:
        """Return the image that the nodes make together.

        Parameters
        ----------
        work : callable
            Takes the number of a node and a part of the image, and returns what that node makes of
            that part. It may be wrong within `margin` of the edges of the part.
        margin : int
            [pixel].

        Returns
        -------
        ndarray of float32, shape (ny, nx)
        """
        whole = np.zeros(self.shape, np.float32)
        hats = [self._hats(size) for size in self.shape]
        for node in range(self.number**2):
            weights = [hats[0][node // self.number], hats[1][node % self.number]]
            inner, outer = [], []
            for weight, size in zip(weights, self.shape, strict=True):
                used = np.flatnonzero(weight)
                first, last = int(used[0]), int(used[-1]) + 1
                inner.append((first, last))
                outer.append(slice(max(0, first - margin), min(size, last + margin)))
            made = work(node, (outer[0], outer[1]))
            (y0, y1), (x0, x1) = inner
            part = made[y0 - outer[0].start :, x0 - outer[1].start :][: y1 - y0, : x1 - x0]
            whole[y0:y1, x0:x1] += (weights[0][y0:y1, None] * weights[1][x0:x1]) * part
        return whole


def choose_regions(shape: tuple[int, int], stars: int, asked: int) -> Regions:
    """Return as many regions as the stars support.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image.
    stars : int
        Stars that tell kernels and point-spread functions.
    asked : int
        Regions along an axis that the user wants; 0: as the stars have it.
    """
    fits = int(np.sqrt(stars / STARS_PER_REGION))
    return Regions(shape, asked or max(1, min(MOST_REGIONS, fits)))
