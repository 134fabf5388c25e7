"""Pixels of a coadd without weight: cores of saturated stars and defects."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lib.photometry.backgroundmesh import grow

EDGE = 4
"""[pixel] Nearer to where no frame reaches, pixels without weight are the rim of the frames."""

DEEPEST = 6.0
"""[pixel] Defects that reach further from good pixels have no value; three are the kernel's."""

CORE_LEVEL = 0.5
"""[saturation] What is brighter among the pixels without weight is the core of a star."""

PLATEAU = 0.8
"""[brightest pixel of a core] What is brighter is its plateau, which flat fields make uneven."""

DOME_SLOPE = 0.02
"""[plateau per pixel] By which the middle of a core is lifted over its rim."""

KERNEL = 4
"""[pixel] Radius of the kernel that smooths the dome."""


@dataclass(frozen=True)
class LostPixels:
    """Pixels that frames cover and none gives a weight.

    Parameters
    ----------
    cores : ndarray of bool, shape (ny, nx)
        Cores of saturated stars, with the rim that resampling leaves without weight.
    plateaus : ndarray of bool, shape (ny, nx)
        The saturated pixels in them.
    others : ndarray of bool, shape (ny, nx)
        Defects small enough to be interpolated from their neighbours.
    """

    cores: np.ndarray
    plateaus: np.ndarray
    others: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """All of them: the image has values there."""
        return self.cores | self.others


def find_lost_pixels(image: np.ndarray, weight: np.ndarray, saturate: float) -> LostPixels:
    """Find the pixels without weight inside the frames of a coadd, and what they are.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        As combined: where there is no weight the image has what the frames show, and 0 beyond
        them.
    saturate : float
        Level of saturation.

    Returns
    -------
    LostPixels
    """
    from scipy.ndimage import label

    empty = ~(weight > 0)
    inside = empty & (image != 0)
    if inside.any():
        beyond = empty & ~inside
        # Single pixels of exactly 0 are no edge.
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
            # The middle of a group of n rows is (n + 1) / 2 from its rim, but at the image's edge.
            if min(group.shape) > 2 * DEEPEST - 1 or _at_edge(box, others.shape):
                depth = group_depth(box, group, others.shape)
                if depth.max() > DEEPEST:
                    others[box][group] = False
    return LostPixels(cores, plateaus, others)


Box = tuple[slice, slice]
"""Rows and columns of a part of an image."""


def mask_groups(mask: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield the groups of touching pixels of a mask: where each is, and its pixels there.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
    """
    from scipy.ndimage import find_objects, label

    groups, _ = label(mask, np.ones((3, 3)))
    for number, box in enumerate(find_objects(groups), 1):
        yield box, groups[box] == number


def group_depth(box: Box, group: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of each pixel of a group from its rim [pixel], 0 beside it.

    Parameters
    ----------
    box : tuple of slice
    group : ndarray of bool, shape (my, mx)
        As `mask_groups` has them.
    shape : tuple of int
        Shape of the image, whose edge is no rim.

    Returns
    -------
    ndarray, shape (my, mx)
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
    """Return whether a part of an image lies at its edge."""
    return any(part.start == 0 or part.stop == size for part, size in zip(box, shape, strict=True))


def lift_cores(image: np.ndarray, lost: LostPixels, saturate: float) -> np.ndarray:
    """Return a coadd with a dome on the plateau of each saturated star.

    The plateau is uneven by the flat field; a dome has one top, and makes one source.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    lost : LostPixels
    saturate : float
        The plateaus are at least as high.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The input itself where nothing is saturated.
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
        # The pixels of a circle are no circle: its depth has ridges.
        smooth = gaussian_filter(depth[wider], 1.0, radius=KERNEL)[inner]
        lifted[box][group] += np.float32(DOME_SLOPE * top) * smooth[group]
    return lifted
