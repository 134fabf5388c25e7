"""Squares of the frames of a sky, in which light of targets is told from it."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lib.background.lightmodel import Squares
from lib.background.sky import block_sky
from lib.core.meshes import bilinear

Place = tuple[str, tuple[int, ...] | None]
"""Target and offset (dy, dx) [px] of a frame; None where no stars show it."""

MOST_VALUES = 2000
"""Maximum number of squares of all frames modelled together: more would take minutes."""

LEAST_SQUARE = 24
"""[px] Size of the squares, at least: their medians have a fiftieth of the noise of a pixel."""

UNEVEN = 0.04
"""[light] Error of the light of a square: no galaxy is as smooth as its model, and where its light
is nearly detected, which pixels are masked depends on their noise."""


def measure_squares(
    planes: Sequence[np.ndarray],
    places: Sequence[Place],
    noises: Sequence[float],
    strength: np.ndarray,
    which: Sequence[int],
    light: np.ndarray | None = None,
    sky: np.ndarray | None = None,
) -> Squares:
    """Measure the squares of some frames.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape (ny, nx)
        Normalised frames, NaN where no sky is shown.
    places : list of (target, shift)
        Target and shift of each frame.
    noises : sequence of float
        Pixel noise of each frame.
    strength : ndarray, shape (n,)
        See `Squares`.
    which : list of int
        Frames to be measured.
    light : ndarray, shape (n, rows, columns), optional
        Light in each frame as known so far: the medians are those of what it leaves. Where light
        falls steeply, the median of a square is not the value at its centre. It adds to the errors.
    sky : ndarray, shape (rows, columns), optional
        The sky that all have in common, 1 in the median, as known so far: what is left is divided
        by it. Frames differ by a factor of 1 + plane, not by a plane.

    Returns
    -------
    Squares
    """
    shape = planes[0].shape
    size = max(LEAST_SQUARE, float(np.sqrt(np.prod(shape) * len(which) / MOST_VALUES)))
    values, noise, frames, at = [], [], [], []
    for n in which:
        plane = planes[n]
        free = np.isfinite(plane)
        shown = None if light is None else light_image(light[n], shape)
        blocks = block_sky(np.where(free, plane if shown is None else plane - shown, 0), free, size)
        known = np.isfinite(blocks)
        number, centre = free_pixels(free, blocks.shape)
        y, x = centre[known].astype(int).T
        value = blocks[known].astype(float)
        error = 1.25 * noises[n] / np.sqrt(number[known])
        if sky is not None:
            value /= light_image(sky, shape)[y, x]
        if shown is not None:
            value += shown[y, x]
            error = np.hypot(error, UNEVEN * shown[y, x])
        values.append(value - 1)
        at.append(centre[known])
        noise.append(error)
        frames.append(np.full(value.size, n))
    target, shift = name_targets(places)
    return Squares(
        np.concatenate(values), np.concatenate(noise), np.concatenate(frames), np.concatenate(at),
        target, shift, strength, shape,
    )  # fmt: skip


def free_pixels(free: np.ndarray, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return number and centroid of the free pixels in each of (rows, columns) parts of an image.

    Parameters
    ----------
    free : ndarray of bool, shape (ny, nx)
    counts : tuple of int

    Returns
    -------
    number : ndarray of int, shape (rows, columns)
        At least 1.
    centre : ndarray, shape (rows, columns, 2)
        (y, x), the centre of the first pixel at 0.5 [px].
    """
    edges = [
        np.linspace(0, size, n + 1).astype(int) for size, n in zip(free.shape, counts, strict=True)
    ]
    number, centre = np.ones(counts, int), np.zeros((*counts, 2))
    for i, (top, bottom) in enumerate(pairwise(edges[0])):
        for j, (left, right) in enumerate(pairwise(edges[1])):
            part = free[top:bottom, left:right]
            for axis, first in enumerate((top, left)):
                along = np.count_nonzero(part, axis=1 - axis)
                number[i, j] = max(1, along.sum())
                centre[i, j, axis] = first + along @ (np.arange(along.size) + 0.5) / number[i, j]
    return number, centre


def name_targets(places: Sequence[Place]) -> tuple[np.ndarray, np.ndarray]:
    """Return number of the target and shift of each frame; one of unknown shift is its own."""
    names: dict[object, int] = {}
    target, shifts = [], []
    for n, (name, shift) in enumerate(places):
        target.append(names.setdefault(n if shift is None else name, len(names)))
        shifts.append(shift or (0, 0))
    return np.array(target), np.array(shifts, float)


def light_image(light: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the light of a frame at its pixels, from its map.

    Parameters
    ----------
    light : ndarray, shape (rows, columns)
    shape : tuple of int

    Returns
    -------
    ndarray of float32, of that shape
    """
    return bilinear(light, shape)
