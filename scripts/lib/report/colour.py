"""Colour pictures of targets with three filters or more."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.report import pictures
from lib.report.products import Cards
from lib.report.sizes import Sizes
from lib.report.stackviews import coadd_wcs, read_coadd

if TYPE_CHECKING:
    from astropy.wcs import WCS


@dataclass(frozen=True)
class Composite:
    """A colour picture (data URI) and its filters: red, green, blue."""

    picture: str
    filters: list[str]


def make_composites(stacks: dict[str, Cards], imdir: Path, sizes: Sizes) -> dict[str, Composite]:
    """Make a colour picture of each target that has three filters or more.

    Parameters
    ----------
    stacks : dict of str to dict
        Cards of the coadds that were made.
    imdir : Path
    sizes : Sizes

    Returns
    -------
    dict of str to Composite
        By target.
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
        found = sorted(found)[:8]
        planes = on_one_grid([(stack, stacks[stack]) for _, _, stack in found], imdir, sizes)
        chosen = pictures.choose_three(planes)
        if chosen is None:
            continue
        blue, green, red = (planes[i] for i in chosen)
        window = pictures.crop_to(np.isfinite(blue + green + red))
        picture = pictures.composite(red[window], green[window], blue[window])
        made[target] = Composite(
            pictures.encode(picture, 80), [found[i][1] for i in reversed(chosen)]
        )
    return made


def on_one_grid(chosen: list[tuple[str, Cards]], imdir: Path, sizes: Sizes) -> list[np.ndarray]:
    """Return coadds of one target, made small and on the grid of the first, NaN where no data."""
    (_, first), *_ = chosen
    shape = (first["NAXIS2"], first["NAXIS1"])
    factor = pictures.block_factor(shape, sizes.coadd // 2)
    ny, nx = shape[0] // factor, shape[1] // factor
    y, x = (np.arange(n) * factor + (factor - 1) / 2 for n in (ny, nx))
    planes = []
    for stack, cards in chosen:
        image, weight, _ = read_coadd(imdir, stack)
        if image is None or image.ndim != 2:
            planes.append(np.full((ny, nx), np.nan, np.float32))
            continue
        valid = np.isfinite(image) if weight is None else weight > 0
        small, covered = pictures.reduce_covered(image, valid, factor)
        small[~covered] = np.nan
        column, row = (
            np.rint((place.ravel() - (factor - 1) / 2) / factor).astype(int)
            for place in between_grids(coadd_wcs(first), coadd_wcs(cards), x, y)
        )
        inside = (column >= 0) & (row >= 0) & (column < small.shape[1]) & (row < small.shape[0])
        plane = np.full(ny * nx, np.nan, np.float32)
        plane[inside] = small[row[inside], column[inside]]
        planes.append(plane.reshape(ny, nx))
    return planes


def between_grids(
    one: "WCS", other: "WCS", x: np.ndarray, y: np.ndarray, nodes: int = 9, degree: int = 3
) -> list[np.ndarray]:
    """Return where the pixels of one image lie on another of the same sky.

    Two tangent planes differ by a shift, a turn and, over degrees, a little curvature: what a few
    places tell holds for all.

    Parameters
    ----------
    one, other : astropy.wcs.WCS
    x, y : ndarray, shapes (nx,), (ny,)
        Columns and rows on the first [pixel].

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
