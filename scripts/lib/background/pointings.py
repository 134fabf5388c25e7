"""Groups of frames by where they point: each group has a sky made of the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.background.skymean import Sky, finish_sky
from lib.calibration.masters import (
    release,
)
from lib.core.stats import CHUNK, chunks

SAME_POINTING_PIXELS = 10.0
"""Pointings nearer to each other [px] show the same sources at the same pixels."""


GROUPS = 5
"""Number of groups of pointings; the sky of each is made from four fifths of the frames."""


def pointing_groups(
    places: Sequence[tuple[str, tuple[int, ...] | None]],
    most: int = GROUPS,
    apart: float = SAME_POINTING_PIXELS,
) -> list[int]:
    """Divide frames into groups, so that frames of one pointing are in the same group.

    Parameters
    ----------
    places : list of (target, shift)
        Target and offset (dy, dx) [px] of each frame, in order of time. A frame whose offset is
        None, for lack of stars, is a pointing of its own.
    most : int
        Groups.
    apart : float
        Pointings nearer to each other [px] are the same.

    Returns
    -------
    list of int
        Group of each frame, from 0.
    """
    pointings: list[tuple[str, tuple[int, ...] | None]] = []
    which: list[int] = []
    for target, shift in places:
        for n, (other, place) in enumerate(pointings):
            if other == target and shift is not None and place is not None and np.hypot(
                *np.subtract(shift, place)
            ) < apart:  # fmt: skip
                which.append(n)
                break
        else:
            which.append(len(pointings))
            pointings.append((target, shift))
    # Neighbours in time stay together: a telescope that drifts moves little between frames.
    count = np.bincount(which)
    middle = np.cumsum(count) - count / 2
    group = (middle / count.sum() * min(most, len(pointings))).astype(int)
    return np.unique(group, return_inverse=True)[1][which].tolist()


def skies_without(
    planes: np.ndarray,
    sky: Sky,
    groups: Any,
    noises: Sequence[float],
    sigma: float,
    clip: float,
    noise: float | None,
) -> Any:
    """Make the sky without the frames of each group.

    Parameters
    ----------
    planes : sequence of ndarray
        As for `make_sky`.
    sky : Sky
        Sky made of all planes.
    groups : list of int
        Group of each plane.
    noises : list of float
        Noise of each plane's pixels.
    sigma, clip, noise : float
        See `make_sky`.

    Yields
    ------
    ndarray of float32, shape (ny, nx)
        For each group, in order: the sky of the other groups' frames.
    """
    sizes = np.bincount(groups)
    shape = sky.mean.shape
    means = np.zeros((sizes.size, *shape), np.float32)
    numbers = np.zeros(means.shape, np.int16)
    # Slab by slab: the frames' pixels stay in the cache.
    for rows in chunks(shape[0], max(1, CHUNK // shape[1])):
        sums, counts = means[:, rows], numbers[:, rows]
        for plane, group, one in zip(planes, groups, noises, strict=True):
            bound = np.fmax(np.float32(clip * one), sky.extent[rows])
            with np.errstate(invalid="ignore"):
                used = np.abs(plane[rows] - sky.mean[rows]) <= bound
            sums[group] += np.where(used, plane[rows], np.float32(0))
            counts[group] += used
        np.subtract(sums.sum(axis=0), sums, out=sums)
        np.subtract(counts.sum(axis=0, dtype=np.int16), counts, out=counts)
        sums /= np.maximum(counts, 1)
        release(planes)
    for mean, size, k in zip(means, sizes, range(len(sizes)), strict=True):
        number = numbers[k]
        good = number >= min(2, len(planes) - size)
        yield finish_sky(mean, number, good, sky.hidden, sigma, noise)[0]
