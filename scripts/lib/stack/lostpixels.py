"""Pixels of a coadd without weight: cores of saturated stars, and defects."""

from dataclasses import dataclass

import numpy as np

from lib.photometry.backgroundmesh import grow
from lib.stack.bleeding import Bleeding, find_bleeding
from lib.stack.pixelgroups import Box, group_depth, mask_groups

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
    bleeding : tuple of Bleeding
        Stars with trails, whose cores are among `cores`, but not among `plateaus`.
    """

    cores: np.ndarray
    plateaus: np.ndarray
    others: np.ndarray
    bleeding: tuple[Bleeding, ...] = ()

    @property
    def shown(self) -> np.ndarray:
        """Cores, light beside trails and other defects: the image has values there."""
        shown = self.cores | self.others
        for one in self.bleeding:
            shown[one.box] |= one.shown
        return shown


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
    edge = np.zeros(image.shape, bool)
    if inside.any():
        beyond = empty & ~inside
        # Single pixels of exactly 0 are not an edge.
        beyond &= ~grow(~beyond, 2)
        if beyond.any():
            edge = inside & grow(beyond, EDGE + 2)
            inside &= ~edge
    cores = plateaus = np.zeros(image.shape, bool)
    bleeding: tuple[Bleeding, ...] = ()
    if inside.any() and np.isfinite(saturate):
        groups, number = label(inside, np.ones((3, 3)))
        top = np.append(0.0, np.full(number, -np.inf))
        np.maximum.at(top, groups[inside], image[inside])
        core = top >= CORE_LEVEL * saturate
        core[0] = False
        cores = core[groups]
        plateaus = cores & (image >= (PLATEAU * top)[groups])
        # The flat field makes a trail over the frame more uneven than a core.
        high = cores & (image >= (PLATEAU * np.minimum(top, saturate))[groups])
        bleeding = find_bleeding(image, weight > 0, cores, high, edge, saturate)
    others = inside & ~cores
    for one in bleeding:
        plateaus[one.box] &= ~one.lost
        cores[one.box] &= ~one.lost | one.cores
    if others.any():
        for box, group in mask_groups(others):
            # A group of n rows is (n + 1) / 2 deep, except at the edge of the image.
            if min(group.shape) > 2 * DEEPEST - 1 or _at_edge(box, others.shape):
                depth = group_depth(box, group, others.shape)
                if depth.max() > DEEPEST:
                    others[box][group] = False
    return LostPixels(cores, plateaus, others, bleeding)


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
    if not where.any() and not lost.bleeding:
        return image
    groups = list(mask_groups(where))
    depth = np.zeros(image.shape, np.float32)
    for box, group in groups:
        depth[box][group] = group_depth(box, group, image.shape)[group]
    lifted = image.copy()
    top = max(float(saturate), float(np.median(image[where]))) if groups else float(saturate)
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
    for one in lost.bleeding:
        lifted[one.box][one.shown] = one.light[one.shown]
    return lifted
