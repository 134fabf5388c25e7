"""Resampling of a frame to the grid of a coadd.

Each pixel of the grid is computed from the 6 x 6 pixels of the frame around its position there,
with a Lanczos kernel. Positions follow from the full WCS of both, including distortion.
"""

import logging

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from lib.core.compiled import compiled
from lib.core.wcs import frame_outline

log = logging.getLogger("autoproc")

LOBES = 3
"""[pixel] Half width of the kernel, which spans 2 x LOBES pixels."""

KERNEL_TERMS = 10
"""Terms of the polynomials that give the weights of the kernel to 2e-7 as a function of the
position within a pixel."""

BLOCK_COLUMNS = 128
"""Columns filled at a time for all rows, so that the pixels needed stay in the cache."""

POSITION_TOLERANCE = 1e-4
"""[pixel] Maximum error of a position in the frame."""

POSITION_DEGREES = (3, 5, 8, 12, 17)
"""Degrees tried for the polynomials that describe positions along a row."""

OUTLINE_MARGIN = 3.0
"""[pixel] Margin of rows beyond the outline of the frame, whose edges are curved."""


def lanczos_weights(place: ArrayLike) -> np.ndarray:
    """Return the weights of the six pixels around positions within a pixel.

    Lanczos kernel (Duchon 1979, J. Appl. Meteor. 18, 1016). Each set is divided by its sum, so that
    a flat image remains flat.

    Parameters
    ----------
    place : ndarray, shape (n,)
        Position within a pixel, x - floor(x).

    Returns
    -------
    ndarray, shape (n, 2 LOBES)
        Weights of pixels floor(x) - LOBES + 1 to floor(x) + LOBES.
    """
    distance = np.asarray(place)[:, None] - np.arange(1 - LOBES, 1 + LOBES)
    weights = np.where(np.abs(distance) < LOBES, np.sinc(distance) * np.sinc(distance / LOBES), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def lanczos_polynomials() -> np.ndarray:
    """Return polynomials in t = 2 place - 1 for the weights of the first three of the six pixels.

    The other three are their mirror images, with odd terms of opposite sign.

    Returns
    -------
    ndarray of float32, shape (LOBES, 2, KERNEL_TERMS / 2)
        Coefficients of even and odd terms, highest power first.
    """
    nodes = np.cos(np.pi * (np.arange(4 * KERNEL_TERMS) + 0.5) / (4 * KERNEL_TERMS))
    weights = lanczos_weights((nodes + 1) / 2)[:, :LOBES]
    terms = np.polynomial.polynomial.polyfit(nodes, weights, KERNEL_TERMS - 1)[::-1].T
    return np.ascontiguousarray(np.stack([terms[:, 1::2], terms[:, ::2]], axis=1), np.float32)


KERNEL = lanczos_polynomials()


@compiled("u1[:,::1](f4[:,::1])")
def _near_zero_weight(weight):
    """Return 1 for each floor(place) from which the kernel reaches a pixel without weight."""
    ny, nx = weight.shape
    near = np.zeros((ny, nx), np.uint8)
    for y in range(ny):
        for x in range(nx):
            if not weight[y, x] > 0:
                for j in range(max(0, y - 3), min(ny, y + 3)):
                    for i in range(max(0, x - 3), min(nx, x + 3)):
                        near[j, i] = 1
    return near


# Allows fused multiply-add instructions.
@compiled("void(f4[::1], f4[:,:,::1], f4[:,::1], i8)", fastmath={"contract"})
def _fill_weights(place, kernel, weights, number):
    """Fill weights[:, :number], shape (6, n), for positions t = 2 place - 1."""
    for pixel in range(3):
        e4, e3, e2, e1, e0 = kernel[pixel, 0]
        o4, o3, o2, o1, o0 = kernel[pixel, 1]
        here, mirrored = weights[pixel], weights[5 - pixel]
        for n in range(number):
            t = place[n]
            square = t * t
            even = (((e4 * square + e3) * square + e2) * square + e1) * square + e0
            odd = ((((o4 * square + o3) * square + o2) * square + o1) * square + o0) * t
            here[n], mirrored[n] = even + odd, even - odd


@compiled(
    "void(f4[:,::1], f4[:,::1], u1[:,::1], f4[:,:,::1], i8[:,::1], f8[:,::1], f8[:,:,::1], f4,"
    " f4[:,::1], f4[:,::1])",
    fastmath={"contract"},
)
def _resample_rows(image, weight, near, kernel, spans, axes, places, factor, out, out_weight):
    """Fill `out` and `out_weight`, which must be zero.

    Compiled code takes arrays and numbers instead of records, hence the many parameters. Row r is
    filled from column spans[r, 0] to spans[r, 1] (excluded); the position of column c is given by
    polynomials in t = (c - axes[r, 0]) / axes[r, 1], places[0, r] for x and places[1, r] for y.
    """
    ny, nx = image.shape
    degree = places.shape[2] - 1
    # Unsigned, which saves a test for negative indices at each use.
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    per_weight = np.float32(1) / (factor * factor)
    x, y = np.empty(BLOCK_COLUMNS), np.empty(BLOCK_COLUMNS)
    within = np.empty(BLOCK_COLUMNS, np.float32)
    across = np.empty((6, BLOCK_COLUMNS), np.float32)
    down = np.empty((6, BLOCK_COLUMNS), np.float32)
    for block in range(0, out.shape[1], BLOCK_COLUMNS):
        for row in range(out.shape[0]):
            first = max(spans[row, 0], block)
            number = min(spans[row, 1], block + BLOCK_COLUMNS) - first
            if number <= 0:
                continue
            middle, half = axes[row]
            x[:number], y[:number] = places[0, row, degree], places[1, row, degree]
            for power in range(degree - 1, -1, -1):
                term_x, term_y = places[0, row, power], places[1, row, power]
                for n in range(number):
                    t = (first + n - middle) / half
                    x[n] = x[n] * t + term_x
                    y[n] = y[n] * t + term_y
            # Includes positions outside the frame, which are skipped.
            for place, weights in ((x, across), (y, down)):
                for n in range(number):
                    within[n] = np.float32(2 * (place[n] - np.floor(place[n])) - 1)
                _fill_weights(within, kernel, weights, number)
            for n in range(number):
                px, py = x[n], y[n]
                # Also false for NaN.
                if not (px >= 2 and py >= 2 and px < nx - 3 and py < ny - 3):
                    continue
                ix, iy = np.uint64(px), np.uint64(py)
                a0, a1, a2 = across[0, n], across[1, n], across[2, n]
                a3, a4, a5 = across[3, n], across[4, n], across[5, n]
                i0, i1, i3, i4, i5 = ix - two, ix - one, ix + one, ix + two, ix + three
                total = np.float32(0)
                for j in range(6):
                    line = image[iy - two + np.uint64(j)]
                    total += down[j, n] * (
                        a0 * line[i0] + a1 * line[i1] + a2 * line[ix]
                        + a3 * line[i3] + a4 * line[i4] + a5 * line[i5]
                    )  # fmt: skip
                out[row, first + n] = factor * total
                if near[iy, ix] == 0:
                    nearest = weight[np.uint64(py + 0.5), np.uint64(px + 0.5)]
                    out_weight[row, first + n] = nearest * per_weight


def rows_of_outline(outline: np.ndarray, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """Return the part of each row of a grid within an outline.

    Parameters
    ----------
    outline : ndarray, shape (n, 2)
        x, y of the corners of a polygon [pixel of the grid, 0-based].
    shape : tuple of int
        Shape of the grid.

    Returns
    -------
    first : int
        First row.
    ends : ndarray, shape (rows, 2)
        Smallest and largest column of each row within `OUTLINE_MARGIN` of the outline, clipped to
        the grid; the smallest exceeds the largest in rows without any.
    """
    low, high = outline[:, 1].min() - OUTLINE_MARGIN, outline[:, 1].max() + OUTLINE_MARGIN
    first = int(np.clip(np.floor(low), 0, shape[0]))
    rows = np.arange(first, int(np.clip(np.ceil(high) + 1, first, shape[0])))
    start, stop = outline, np.roll(outline, -1, axis=0)
    ends = np.stack([np.full(rows.size, np.inf), np.full(rows.size, -np.inf)], axis=1)
    # Take the extremes of the edge within a band of rows as wide as the margin.
    for (x0, y0), (x1, y1) in zip(start, stop, strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        touched = (rows >= y0 - OUTLINE_MARGIN) & (rows <= y1 + OUTLINE_MARGIN)
        slope = (x1 - x0) / max(y1 - y0, 1e-9)
        for side in (-OUTLINE_MARGIN, OUTLINE_MARGIN):
            x = x0 + slope * (np.clip(rows[touched] + side, y0, y1) - y0)
            ends[touched, 0] = np.minimum(ends[touched, 0], x - OUTLINE_MARGIN)
            ends[touched, 1] = np.maximum(ends[touched, 1], x + OUTLINE_MARGIN)
    ends[:, 0] = np.maximum(ends[:, 0], 0)
    ends[:, 1] = np.minimum(ends[:, 1], shape[1] - 1)
    return first, ends


def frame_positions(
    wcs: WCS, grid: WCS, rows: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return polynomials along each row for the positions of grid pixels in a frame.

    They interpolate exact positions at Chebyshev nodes; their degree is raised until they are
    accurate to `POSITION_TOLERANCE` half-way between the nodes.

    Parameters
    ----------
    wcs, grid : astropy.wcs.WCS
        WCS of frame and grid.
    rows : ndarray of int, shape (n,)
        Rows of the grid.
    ends : ndarray, shape (n, 2)
        First and last column of each row.

    Returns
    -------
    axes : ndarray, shape (n, 2)
        Centre and half length of each row.
    places : ndarray, shape (2, n, degree + 1)
        Coefficients of x and y (0-based) in (column - centre) / half length, constant term first.
    """
    axes = np.stack([ends.mean(axis=1), np.maximum((ends[:, 1] - ends[:, 0]) / 2, 0.5)], axis=1)

    def exact(which: np.ndarray, t: np.ndarray) -> np.ndarray:
        columns = axes[which, :1] + axes[which, 1:] * t
        sky = grid.all_pix2world(columns.ravel(), np.repeat(rows[which], t.size), 0)
        return np.reshape(wcs.all_world2pix(*sky, 0), (2, -1, t.size))

    some = np.unique(np.linspace(0, rows.size - 1, 17).astype(int))
    for degree in POSITION_DEGREES:
        number = degree + 1
        nodes = np.cos(np.pi * (np.arange(number) + 0.5) / number)
        between = np.cos(np.pi * np.arange(number + 1) / number)
        powers = np.linalg.inv(np.vander(nodes, increasing=True)).T
        error = np.nanmax(
            np.abs(
                exact(some, nodes) @ powers @ np.vander(between, number, increasing=True).T
                - exact(some, between)
            ),
            initial=0,
        )
        if error < POSITION_TOLERANCE:
            break
    else:
        log.warning("positions in the frame are known within %.2g pixel only", error)
    return axes, exact(np.arange(rows.size), nodes) @ powers


def area_ratio(wcs: WCS, grid: WCS, shape: tuple[int, ...]) -> float:
    """Return the area of a grid pixel in pixels of the frame, at the centre of the frame."""
    middle = (np.array(shape[::-1]) - 1) / 2
    x, y = np.ravel(grid.all_world2pix(*wcs.all_pix2world(*middle[:, None], 0), 0))
    step = np.array([[0.5, -0.5, 0, 0], [0, 0, 0.5, -0.5]])
    near = np.array(wcs.all_world2pix(*grid.all_pix2world(x + step[0], y + step[1], 0), 0))
    return float(abs(np.linalg.det(near[:, ::2] - near[:, 1::2])))


def subdivided(grid: WCS, parts: int) -> WCS:
    """Return a grid with pixels `parts` times smaller along each axis."""
    fine = grid.deepcopy()
    fine.wcs.cd = grid.wcs.cd / parts
    fine.wcs.crpix = (grid.wcs.crpix - 0.5) * parts + 0.5
    fine.pixel_shape = [parts * size for size in grid.pixel_shape]
    return fine


def bin_pixels(
    image: np.ndarray, weight: np.ndarray, corner: tuple[int, int], parts: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Sum squares of pixels with independent noise; no weight where one of them has none.

    Parameters and returns are those of `resample`; `parts` is the side of a square.
    """
    before = [at % parts for at in corner]
    size = [-(-(b + n) // parts) for b, n in zip(before, image.shape, strict=True)]
    whole = np.zeros((2, size[0] * parts, size[1] * parts), np.float32)
    inside = tuple(slice(b, b + n) for b, n in zip(before, image.shape, strict=True))
    whole[0][inside], whole[1][inside] = image, weight
    squares = whole.reshape(2, size[0], parts, size[1], parts)
    sums, least = squares[0].sum(axis=(1, 3)), squares[1].min(axis=(1, 3))
    return sums, least / np.float32(parts**2), (corner[0] // parts, corner[1] // parts)


def resample(
    image: np.ndarray, weight: np.ndarray, wcs: WCS, grid: WCS, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Resample a frame to a grid, conserving flux.

    A pixel has no weight where the kernel reaches a pixel without weight, and is 0 where the kernel
    reaches beyond the edge of the frame. Pixels of the grid at least 1.5 times as large as those of
    the frame are sums of smaller ones. The area of a pixel is that at the centre of the frame
    throughout: the flat has made a uniform sky uniform, whatever the size of the pixels.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Image, ignored where it is not finite, and its inverse variance.
    wcs, grid : astropy.wcs.WCS
        WCS of the frame and of the grid, with their sizes.
    scale : float
        Factor applied to the flux.

    Returns
    -------
    image, weight : ndarray of float32
        The part of the grid that the frame covers; the weight is the inverse variance of `image`.
    corner : tuple of int
        Row and column of the first pixel of that part on the grid.

    Raises
    ------
    ValueError
        The frame does not overlap the grid.
    """
    good = np.isfinite(image)
    if not good.all():
        image, weight = np.where(good, image, 0), np.where(good, weight, 0)
    image, weight = (np.ascontiguousarray(plane, np.float32) for plane in (image, weight))
    area = area_ratio(wcs, grid, image.shape)
    parts = int(np.rint(np.sqrt(area)))
    if parts > 1:
        image, weight, corner = resample(image, weight, wcs, subdivided(grid, parts), scale)
        return bin_pixels(image, weight, corner, parts)
    shape = grid.pixel_shape[::-1]
    corners = np.column_stack(grid.all_world2pix(*frame_outline(wcs).T, 0))
    first, ends = rows_of_outline(corners, shape)
    filled = ends[:, 0] <= ends[:, 1]
    if not filled.any():
        raise ValueError("the frame lies beside the grid")
    first, ends = first + int(np.argmax(filled)), ends[filled]
    rows = np.arange(first, first + len(ends))
    left = int(np.floor(ends[:, 0].min()))
    axes, places = frame_positions(wcs, grid, rows, ends)
    axes[:, 0] -= left
    spans = np.stack([np.ceil(ends[:, 0]), np.floor(ends[:, 1]) + 1], axis=1).astype(int) - left
    out, out_weight = np.zeros((2, rows.size, int(spans[:, 1].max())), np.float32)
    _resample_rows(
        image, weight, _near_zero_weight(weight), KERNEL, spans, axes, places,
        np.float32(scale * area), out, out_weight,
    )  # fmt: skip
    return out, out_weight, (first, left)
