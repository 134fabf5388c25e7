"""Connected groups of pixels of a mask, one by one."""

from collections.abc import Iterator

import numpy as np

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
