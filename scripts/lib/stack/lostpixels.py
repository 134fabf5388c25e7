"""Pixels of a coadd without weight: cores of saturated stars, and defects."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lib.photometry.backgroundmesh import grow

EDGE = 4
"""[pixel] Pixels without weight closer than this to the edge of the coverage belong to it."""

DEEPEST = 6.0
"""[pixel] Pixels of defects further than this from good ones have no value; three are due to the
kernel."""

CORE_LEVEL = 0.5
"""[saturation level] Brighter pixels without weight are the core of a star."""

PLATEAU = 0.8
"""[brightest pixel of a core] Brighter pixels form its plateau, which the flat field makes
uneven."""

DOME_SLOPE = 0.02
"""[plateau per pixel] Slope by which the middle of a core is raised above its edge."""

KERNEL = 4
"""[pixel] Radius of the kernel that smooths the dome."""


@dataclass(frozen=True)
class LostPixels:
    """Pixels covered by frames of which none has weight there.

    Parameters
    ----------
    cores : ndarray of bool, shape (ny, nx)
        Cores of saturated stars, with the margin to which resampling gives no weight.
    plateaus : ndarray of bool, shape (ny, nx)
        The saturated pixels in the cores.
    others : ndarray of bool, shape (ny, nx)
        Defects small enough to be interpolated from their neighbours.
    """

    cores: np.ndarray
    plateaus: np.ndarray
    others: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Cores and other defects: the image has values there."""
        return self.cores | self.others


def find_lost_pixels(image: np.ndarray, weight: np.ndarray, saturate: float) -> LostPixels:
    """Find and classify the pixels without weight inside the frames of a coadd.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Combined image and weight: where there is no weight the image has the frames' values, and 0
        outside the frames.
    saturate : float
        Saturation level.

    Returns
    -------
    LostPixels
    """
    from scipy.ndimage import label

    empty = ~(weight > 0)
    inside = empty & (image != 0)
    if inside.any():
        beyond = empty & ~inside
        # Single pixels of exactly 0 are not an edge.
        beyond &= ~grow(~beyond, 2)
        if beyond.any():
            inside &= ~grow(beyond, EDGE + 2)
    cores = plateaus = np.zeros(image.shape, bool)
    if inside.any() and np.isfinite(saturate):
        groups, number = label(inside, np.ones((3, 3)))
        top = np.append(0.0, np.full(number, -np.inf))
        np.maximum.at(top, groups[inside], image[inside])
        core = top >= CORE_LEVEL * saturate
        core[0] = False
        cores = core[groups]
        plateaus = cores & (image >= (PLATEAU * top)[groups])
    others = inside & ~cores
    if others.any():
        for box, group in mask_groups(others):
            # A group of n rows is (n + 1) / 2 deep, except at the edge of the image.
            if min(group.shape) > 2 * DEEPEST - 1 or _at_edge(box, others.shape):
                depth = group_depth(box, group, others.shape)
                if depth.max() > DEEPEST:
                    others[box][group] = False
    return LostPixels(cores, plateaus, others)


Box = tuple[slice, slice]
"""Rows and columns of a part of an image."""


def mask_groups(mask: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield the connected groups of a mask: bounding box, and the pixels within it.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
        The mask.
    """
    from scipy.ndimage import find_objects, label

    groups, _ = label(mask, np.ones((3, 3)))
    for number, box in enumerate(find_objects(groups), 1):
        yield box, groups[box] == number


def group_depth(box: Box, group: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of each pixel of a group from the outside of the group [pixel].

    Parameters
    ----------
    box : tuple of slice
        Bounding box of the group.
    group : ndarray of bool, shape (my, mx)
        Pixels of the group within the box, as from `mask_groups`.
    shape : tuple of int
        Shape of the image, whose edge does not count as outside.

    Returns
    -------
    ndarray, shape (my, mx)
        0 for pixels that are not in the group.
    """
    from scipy.ndimage import distance_transform_edt

    rim = [
        (int(part.start > 0), int(part.stop < size)) for part, size in zip(box, shape, strict=True)
    ]
    inner = tuple(
        slice(before, before + size) for (before, _), size in zip(rim, group.shape, strict=True)
    )
    return distance_transform_edt(np.pad(group, rim))[inner]


def _at_edge(box: Box, shape: tuple[int, ...]) -> bool:
    """Return whether a bounding box touches the edge of the image."""
    return any(part.start == 0 or part.stop == size for part, size in zip(box, shape, strict=True))


def lift_cores(image: np.ndarray, lost: LostPixels, saturate: float) -> np.ndarray:
    """Return a coadd in which the core of each saturated star is raised to a dome.

    The flat field makes plateaus uneven; a dome has one maximum, and is detected as one source.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    lost : LostPixels
    saturate : float
        Minimum level of the plateaus.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The input array itself where nothing is saturated.
    """
    from scipy.ndimage import gaussian_filter

    where = lost.plateaus
    if not where.any():
        return image
    groups = list(mask_groups(where))
    depth = np.zeros(image.shape, np.float32)
    for box, group in groups:
        depth[box][group] = group_depth(box, group, image.shape)[group]
    lifted = image.copy()
    top = max(float(saturate), float(np.median(image[where])))
    lifted[where] = np.maximum(image[where].clip(max=top), saturate)
    for box, group in groups:
        wider = tuple(slice(max(0, part.start - KERNEL), part.stop + KERNEL) for part in box)
        inner = tuple(
            slice(part.start - wide.start, part.stop - wide.start)
            for part, wide in zip(box, wider, strict=True)
        )
        # A pixelated circle has ridges of depth: smooth them.
        smooth = gaussian_filter(depth[wider], 1.0, radius=KERNEL)[inner]
        lifted[box][group] += np.float32(DOME_SLOPE * top) * smooth[group]
    return lifted
