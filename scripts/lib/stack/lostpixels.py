"""Pixels of a coadd without weight: cores of saturated stars and defects."""

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class LostPixels:
    """Pixels that frames cover and none gives a weight.

    Parameters
    ----------
    cores : ndarray of bool, shape (ny, nx)
        Of saturated stars, with the rim that resampling leaves without weight.
    plateaus : ndarray of bool, shape (ny, nx)
        The saturated pixels in them.
    others : ndarray of bool, shape (ny, nx)
        Defects that are small enough for their neighbours to tell what would be there.
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
    from scipy.ndimage import binary_dilation, distance_transform_edt, label, maximum

    empty = ~(weight > 0)
    inside = empty & (image != 0)
    if inside.any():
        beyond = empty & ~inside
        # Single pixels of exactly 0 are no edge.
        beyond &= binary_dilation(~beyond, np.ones((3, 3)), iterations=2) == 0
        if beyond.any():
            inside &= ~binary_dilation(beyond, np.ones((3, 3)), iterations=EDGE + 2)
    cores = plateaus = np.zeros(image.shape, bool)
    if inside.any() and np.isfinite(saturate):
        groups, number = label(inside, np.ones((3, 3)))
        top = np.append(0.0, maximum(image, groups, np.arange(1, number + 1)))
        core = top >= CORE_LEVEL * saturate
        core[0] = False
        cores = core[groups]
        plateaus = cores & (image >= (PLATEAU * top)[groups])
    others = inside & ~cores
    if others.any():
        depth = distance_transform_edt(others)
        groups, number = label(others, np.ones((3, 3)))
        deepest = np.append(0.0, maximum(depth, groups, np.arange(1, number + 1)))
        others &= (deepest <= DEEPEST)[groups]
    return LostPixels(cores, plateaus, others)


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
        The same image where nothing is saturated.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if not lost.plateaus.any():
        return image
    depth = distance_transform_edt(lost.plateaus).astype(np.float32)
    # The pixels of a circle are no circle: its depth has ridges.
    depth = gaussian_filter(depth, 1.0)
    lifted = image.copy()
    where = lost.plateaus
    top = max(float(saturate), float(np.median(image[where])))
    lifted[where] = np.maximum(image[where].clip(max=top), saturate)
    lifted[where] += np.float32(DOME_SLOPE * top) * depth[where]
    return lifted
