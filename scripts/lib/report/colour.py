"""Colour pictures of targets with three or more filters."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.core.stats import mad_std
from lib.night.targets import target_position
from lib.report import pictures
from lib.report.products import Cards
from lib.report.sizes import Sizes
from lib.report.stackviews import coadd_wcs, read_coadd, target_place
from lib.report.summary import pixel_scale

if TYPE_CHECKING:
    from astropy.wcs import WCS


FILLED_BELOW = 0.5
"""Fraction of the pixels of a block with data below which it counts as filled from its
neighbours."""


CORE_LEVEL, CORE_LIGHT = 20.0, 4.0
"""A hole whose edge is brighter than this [noise] is the core of a star, and is made brighter than
its edge by this factor."""

PEAK_REACH = 4
"""[pixel] Within this distance of a core no pixel is brighter than its edge."""


@dataclass(frozen=True)
class Composite:
    """A colour picture (data URI) and its filters: red, green, blue."""

    picture: str
    filters: list[str]


def make_composites(
    stacks: dict[str, Cards], imdir: Path, sizes: Sizes,
    configured: tuple[float, float] | None = None,
) -> dict[str, Composite]:  # fmt: skip
    """Make a colour picture of each target with three or more filters.

    Filters that cover the position of the target are preferred, if there are three.

    Parameters
    ----------
    stacks : dict of str to dict
        Cards of the coadds.
    imdir : Path
    sizes : Sizes
        Sizes of the pictures.
    configured : tuple of float, optional
        Setting `target_radec` [deg].

    Returns
    -------
    dict of str to Composite
        Target -> picture.
    """
    targets: dict[str, list[tuple[int, str, str]]] = {}
    for stack, cards in stacks.items():
        target, filter_name = stack.split(".", 1)
        if "CD1_1" in cards and "NAXIS1" in cards:
            rank = pictures.colour_rank(filter_name, cards.get("BAND", ""))
            targets.setdefault(target, []).append((rank, filter_name, stack))
    made = {}
    for target, found in targets.items():
        if len(found) < 3:
            continue
        found = sorted(found)
        place = target_position(configured, [stacks[stack] for *_, stack in found])[:2]
        inside = [one for one in found if target_place(stacks[one[2]], place)]
        found = (inside if len(inside) >= 3 else found)[:8]
        planes, holes = on_one_grid([(stack, stacks[stack]) for _, _, stack in found], imdir, sizes)
        pixel = target_pixel(stacks[found[0][2]], planes[0].shape, place)
        if pixel and sum(np.isfinite(plane[pixel]) for plane in planes) >= 3:
            keep = [k for k, plane in enumerate(planes) if np.isfinite(plane[pixel])]
            found = [found[k] for k in keep]
            planes, holes = [planes[k] for k in keep], [holes[k] for k in keep]
        chosen = pictures.choose_three(planes)
        if chosen is None:
            continue
        blue, green, red = join_holes([planes[i] for i in chosen], [holes[i] for i in chosen])
        window = pictures.crop_inside(np.isfinite(blue + green + red))
        picture = pictures.composite(red[window], green[window], blue[window])
        made[target] = Composite(
            pictures.encode(picture, 80), [found[i][1] for i in reversed(chosen)]
        )
    return made


def target_pixel(
    cards: Cards, shape: tuple[int, ...], position: tuple[float, float]
) -> tuple[int, int] | None:
    """Return row and column of a position on the grid of a coadd; None where it is outside.

    Parameters
    ----------
    cards : dict
        Header of the coadd.
    shape : tuple of int
        Rows and columns of the reduced grid.
    position : tuple of float
        ra, dec [deg].
    """
    place = target_place(cards, position)
    if place is None or place[0] is None or place[1] is None:
        return None
    row, column = int((1 - place[1]) * shape[0]), int(place[0] * shape[1])
    return min(row, shape[0] - 1), min(column, shape[1] - 1)


def on_one_grid(
    chosen: list[tuple[str, Cards]], imdir: Path, sizes: Sizes
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Transform coadds of one target to the grid of the first, with stars of equal width.

    Each is reduced, smoothed to the width of the widest, and interpolated by cubic splines, which
    preserve the width.

    Parameters
    ----------
    chosen : list of tuple
        Name and cards of the coadds.
    imdir : Path
    sizes : Sizes

    Returns
    -------
    planes : list of ndarray of float32, each of shape (ny, nx)
        NaN where there is no data.
    holes : list of ndarray of bool
        Pixels in which the cores of saturated stars were filled from their surroundings.
    """
    from scipy.ndimage import map_coordinates

    (_, first), *_ = chosen
    shape = (first["NAXIS2"], first["NAXIS1"])
    factor = pictures.block_factor(shape, sizes.coadd // 2)
    ny, nx = shape[0] // factor, shape[1] // factor
    y, x = (np.arange(n) * factor + (factor - 1) / 2 for n in (ny, nx))
    step = factor * (pixel_scale(first) or 1.0)
    # At least two pixels, to sample the stars.
    width = max([2 * step, *(cards.get("SEEING", 0.0) for _, cards in chosen)])
    planes, holes = [], []
    for stack, cards in chosen:
        image, weight, _ = read_coadd(imdir, stack)
        if image is None or image.ndim != 2:
            planes.append(np.full((ny, nx), np.nan, np.float32))
            holes.append(np.zeros((ny, nx), bool))
            continue
        valid = np.isfinite(image) if weight is None else weight > 0
        own = pixel_scale(cards) or 1.0
        binned = max(1, round(step / own))
        small, covered = pictures.reduce_covered(image, valid, binned)
        filled = covered & (pictures.block_mean(valid, binned) < FILLED_BELOW)
        sigma = math.sqrt(max(width**2 - cards.get("SEEING", width) ** 2, 0)) / 2.3548
        small = smooth_covered(small, covered, sigma / (own * binned))
        place = [
            (at - (binned - 1) / 2) / binned
            for at in between_grids(coadd_wcs(first), coadd_wcs(cards), x, y)[::-1]
        ]
        plane = map_coordinates(small, place, order=3, mode="nearest")
        inside = map_coordinates(covered.astype(np.float32), place, order=1, cval=0) > 0.999
        planes.append(np.where(inside, plane, np.nan).astype(np.float32))
        holes.append(map_coordinates(filled.astype(np.float32), place, order=1, cval=0) > 0)
    return planes, holes


def smooth_covered(image: np.ndarray, covered: np.ndarray, sigma: float) -> np.ndarray:
    """Return an image smoothed by a Gaussian of `sigma` pixels; pixels without data are ignored."""
    from scipy.ndimage import gaussian_filter

    if sigma < 0.1:
        return image
    weight = gaussian_filter(covered.astype(np.float32), sigma)
    smooth = gaussian_filter(np.where(covered, image, np.float32(0)), sigma)
    return np.where(covered, smooth / np.maximum(weight, np.float32(1e-3)), np.float32(0))


def join_holes(planes: list[np.ndarray], holes: list[np.ndarray]) -> list[np.ndarray]:
    """Fill the cores of saturated stars equally in all images.

    Cores filled in one image are filled in all from the same surroundings: otherwise their
    different size in each filter would appear as coloured rings. Other holes remain as filled.

    Parameters
    ----------
    planes : list of ndarray, shape (ny, nx)
        Images; NaN where there is no data.
    holes : list of ndarray of bool, shape (ny, nx)
        Filled pixels of each image.

    Returns
    -------
    list of ndarray, shape (ny, nx)
    """
    from scipy.ndimage import binary_dilation

    hole = binary_dilation(on_peaks(planes, np.logical_or.reduce(holes)), iterations=2)
    joined = []
    for plane in planes:
        known = np.isfinite(plane)
        image = np.where(known & ~hole, plane, 0).astype(np.float32)
        filled = pictures.fill_enclosed(image, known & ~hole)
        core = filled & (image > CORE_LEVEL * float(mad_std(plane[known])))
        image[core] *= CORE_LIGHT
        joined.append(np.where(known & (~hole | filled), image, np.nan))
    return joined


def on_peaks(planes: list[np.ndarray], hole: np.ndarray) -> np.ndarray:
    """Return the pixels of holes at the centres of stars.

    There, nothing nearby is brighter than the edge of the hole, in any image with light. Bad pixels
    on the flank of a star are no cores.

    Parameters
    ----------
    planes : list of ndarray, shape (ny, nx)
        NaN where there is no data.
    hole : ndarray of bool, shape (ny, nx)
        Filled pixels.
    """
    from scipy.ndimage import grey_dilation, label, maximum

    labels, number = label(hole)
    every = np.arange(1, number + 1)
    rims, near = (
        np.where(hole, 0, grey_dilation(labels, size=2 * reach + 1)) for reach in (1, PEAK_REACH)
    )
    central = np.ones(number + 1, bool)
    for plane in planes:
        known = np.isfinite(plane)
        light = np.where(known, plane, 0)
        rim, peak = (maximum(light, ring, every) for ring in (rims, near))
        dark = np.asarray(peak) < CORE_LEVEL * float(mad_std(plane[known]))
        central[1:] &= dark | (np.asarray(rim) >= peak)
    central[0] = False
    return central[labels]


def between_grids(
    one: "WCS", other: "WCS", x: np.ndarray, y: np.ndarray, nodes: int = 9, degree: int = 3
) -> list[np.ndarray]:
    """Return the positions of the pixels of one image on another image of the same sky.

    Two tangent planes differ by a shift, a rotation and, over degrees, slight curvature: a
    polynomial through a few points suffices.

    Parameters
    ----------
    one, other : astropy.wcs.WCS
    x, y : ndarray, shapes (nx,), (ny,)
        Columns and rows on the first image [pixel].

    Returns
    -------
    column, row : ndarray, shape (ny, nx)
    """
    from numpy.polynomial import chebyshev

    unit = [np.linspace(-1, 1, max(2, len(axis))) for axis in (x, y)]
    u, v = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(-1, 1, nodes)]))
    places = [
        0.5 * ((1 - w) * axis[0] + (1 + w) * axis[-1])
        for w, axis in zip((u, v), (x, y), strict=True)
    ]
    targets = other.all_world2pix(*one.all_pix2world(*places, 0), 0)
    base = chebyshev.chebvander2d(u, v, [degree, degree])
    fitted = np.linalg.lstsq(base, np.transpose(targets), rcond=None)[0]
    fitted = fitted.reshape(degree + 1, degree + 1, 2)
    on_grid = [w[: len(axis)] for w, axis in zip(unit, (x, y), strict=True)]
    return [chebyshev.chebgrid2d(on_grid[0], on_grid[1], fitted[..., k]).T for k in (0, 1)]
