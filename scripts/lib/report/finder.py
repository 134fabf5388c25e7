"""Finding charts: a cutout of a coadd around the target, in its orientation on the sky."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.report import pictures
from lib.report.products import Cards
from lib.report.stackviews import coadd_wcs, read_coadd
from lib.report.summary import pixel_scale

WIDTH = 180.0
"""[arcsec] Side of a chart."""

LEAST_PIXELS = 150
"""Minimum side of the cutout in pixels of the coadd."""

BARS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""[arcsec] Lengths of a scale bar."""


@dataclass(frozen=True)
class Finder:
    """A finding chart; positions are in per cent of its sides, from the upper left corner.

    Parameters
    ----------
    picture : str
        Data URI: dark stars on white.
    stack : str
        The coadd it was made from.
    width : str
        Length of a side, in words.
    target : tuple of float
        Position of the target.
    star : tuple of float, or None
        Position of the nearest reference star, if on the chart.
    north, east : tuple of float
        Unit vectors of these directions.
    bar : float
        Length of the scale bar.
    bar_words : str
        Its length on the sky.
    """

    picture: str
    stack: str
    width: str
    target: tuple[float, float]
    star: tuple[float, float] | None
    north: tuple[float, float]
    east: tuple[float, float]
    bar: float
    bar_words: str


def angle_words(arcsec: float) -> str:
    """Return an angle in arcseconds, or in minutes if at least one."""
    return f"{arcsec:.0f}″" if arcsec < 60 else f"{arcsec / 60:.3g}′"


def make_finder(
    stacks: list[tuple[str, Cards]],
    position: tuple[float, float],
    star: tuple[float, float] | None,
    imdir: Path,
    size: int = 420,
) -> Finder | None:
    """Make a finding chart from the first coadd that covers a position.

    Parameters
    ----------
    stacks : list of tuple
        Name and cards of the coadds of a target, best first.
    position, star : tuple of float
        ra, dec [deg] of the target and of a reference star.
    imdir : Path
    size : int
        Maximum side of the picture [pixel].

    Returns
    -------
    Finder, or None
        None where no solved coadd covers the position.
    """
    for stack, cards in stacks:
        scale = pixel_scale(cards)
        if "CD1_1" not in cards or not scale:
            continue
        x, y = (float(v) for v in coadd_wcs(cards).all_world2pix(*position, 0))
        if not (0 <= x < cards.get("NAXIS1", 0) and 0 <= y < cards.get("NAXIS2", 0)):
            continue
        image, weight, _ = read_coadd(imdir, stack)
        if image is None or image.ndim != 2:
            continue
        side = max(WIDTH / scale, LEAST_PIXELS)
        half = max(8, round(min(side, max(image.shape)) / 2))
        shown, valid = cut_out(image, weight, round(x), round(y), half)
        if not valid[half, half]:
            continue
        corner = round(x) - half, round(y) - half
        return _chart(stack, cards, shown, valid, corner, (x, y), star, size)
    return None


def cut_out(
    image: np.ndarray, weight: np.ndarray | None, x: int, y: int, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a square around a pixel, and which of its pixels have data.

    Parameters
    ----------
    image, weight : ndarray, shape (ny, nx)
    x, y : int
        Column and row of its centre.
    half : int
        The square has 2 `half` + 1 pixels to a side.
    """
    side = 2 * half + 1
    shown, valid = np.zeros((side, side), np.float32), np.zeros((side, side), bool)
    rows, columns = (
        slice(max(0, at - half), min(n, at + half + 1))
        for at, n in zip((y, x), image.shape, strict=True)
    )
    there = (
        slice(rows.start - y + half, rows.stop - y + half),
        slice(columns.start - x + half, columns.stop - x + half),
    )
    part = np.asarray(image[rows, columns], np.float32)
    good = np.isfinite(part) if weight is None else weight[rows, columns] > 0
    # Cores of saturated stars have no weight, but belong to the picture.
    good |= np.isfinite(part) & (part > 0)
    shown[there], valid[there] = np.where(good, part, 0), good
    return shown, valid


def _chart(
    stack: str, cards: Cards, image: np.ndarray, valid: np.ndarray, corner: tuple[int, int],
    place: tuple[float, float], star: tuple[float, float] | None, size: int,
) -> Finder:  # fmt: skip
    """Return the chart of a cutout with lower left pixel `corner` and the target at `place`."""
    scale = pixel_scale(cards) or 1.0
    side = image.shape[0]

    def percent(x: float, y: float) -> tuple[float, float]:
        return (
            round(100 * (x - corner[0] + 0.5) / side, 2),
            round(100 * (1 - (y - corner[1] + 0.5) / side), 2),
        )

    small, covered = pictures.reduce_covered(image, valid, pictures.block_factor(image.shape, size))
    grey = np.where(covered, 255 - pictures.stretch(small, covered), 255).astype(np.uint8)
    marked = None
    if star is not None:
        at = percent(*(float(v) for v in coadd_wcs(cards).all_world2pix(*star, 0)))
        marked = at if all(3 < value < 97 for value in at) else None
    matrix = np.array([[cards.get(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)])
    steps = np.linalg.inv(matrix) * scale / 3600
    wanted = side * scale / 4
    bar = max((one for one in BARS if one <= wanted), default=BARS[0])
    return Finder(
        pictures.encode(grey, 60), stack, angle_words(side * scale), percent(*place), marked,
        north=_upward(steps[:, 1]), east=_upward(steps[:, 0]),
        bar=100 * bar / (side * scale), bar_words=angle_words(bar),
    )  # fmt: skip


def _upward(step: np.ndarray) -> tuple[float, float]:
    """Return the direction of a step in pixels on a picture whose rows run downwards."""
    length = math.hypot(*step) or 1.0
    return round(float(step[0]) / length, 4), round(-float(step[1]) / length, 4)
