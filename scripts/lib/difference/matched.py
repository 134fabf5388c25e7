"""An image convolved to be like another, and what is left of the other without it."""

from dataclasses import dataclass

import numpy as np

from lib.difference.convolution import convolve
from lib.difference.planes import REACHED, Plane
from lib.difference.regions import Regions

NEGLIGIBLE = 0.02
"""Bad pixels that a kernel weighs with less than this part of its largest weight do no harm."""


@dataclass(frozen=True)
class Matched:
    """The difference of two images, one of which has been convolved.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        The one that was not, less the other.
    variance : ndarray of float32, shape (ny, nx)
        Variance including the photon noise of all sources, up to a factor; 0 where there is no
        difference.
    reached : ndarray of uint8, shape (ny, nx)
        `REACHED` where bad pixels, or the edge, enter by the kernel.
    kernels : ndarray, shape (nodes, s, s)
        Empty where the method has none.
    sums : ndarray, shape (nodes,)
        Sums of the kernels: flux after over flux before.
    stamps : ndarray, shape (nodes, s, s)
        Image of a point source of flux 1; empty where it is that of the image not convolved.
    """

    image: np.ndarray
    variance: np.ndarray
    reached: np.ndarray
    kernels: np.ndarray
    sums: np.ndarray
    stamps: np.ndarray


def difference_of(sharp: Plane, wide: Plane, kernels: np.ndarray, regions: Regions) -> Matched:
    """Return an image minus another one that is convolved.

    Parameters
    ----------
    sharp, wide : Plane
        The image that is convolved, and the other.
    kernels : ndarray, shape (nodes, s, s)
    regions : Regions
    """
    half = kernels.shape[1] // 2
    model = convolved(sharp.image, kernels, regions)
    # In sums over an aperture the noise of an image smoothed by less than that is what it was.
    sums = kernels.sum(axis=(1, 2))
    smooth = np.maximum(kernels, 0)
    smooth *= (sums**2 / smooth.sum(axis=(1, 2)))[:, None, None]
    variance = convolved(sharp.full_variance, smooth, regions)
    bad = spread_bad(sharp.bad, kernels)
    edge = np.ones_like(bad)
    edge[half : edge.shape[0] - half, half : edge.shape[1] - half] = False
    reached = np.where(bad | edge, np.uint8(REACHED), np.uint8(0))
    used = ~wide.bad & ~bad & ~edge
    image = np.where(used, wide.image - model, 0).astype(np.float32)
    total = np.where(used, wide.full_variance + variance, 0).astype(np.float32)
    return Matched(image, total, reached, kernels, sums, np.empty((0, 1, 1)))


def convolved(image: np.ndarray, kernels: np.ndarray, regions: Regions) -> np.ndarray:
    """Return an image convolved with the kernels of regions.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    kernels : ndarray, shape (nodes, s, s)
    regions : Regions

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """

    def part(node: int, place: tuple[slice, slice]) -> np.ndarray:
        return convolve(image[place], kernels[node])

    return regions.blend(part, kernels.shape[1] // 2)


def spread_bad(bad: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Return the pixels that bad ones reach by a kernel, ndarray of bool, shape (ny, nx)."""
    if not bad.any():
        return bad
    largest = np.abs(kernels).max(axis=0)
    matters = largest > NEGLIGIBLE * largest.max()
    return convolve(bad, matters) > 0.5
