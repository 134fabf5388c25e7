"""Subtraction after matching the point-spread functions: a kernel in each region, by least squares.

Hu, Wang, Chen & Yang 2022 (ApJ 936, 157); each pixel of a kernel is free, as in Bramich 2008 (MNRAS
386, L77). The solver is that of the package stdpipe. It is given the squares about stars that do
not vary, side by side, instead of the whole image: empty sky tells nothing of a kernel.
"""

import logging

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.difference.matched import Matched, difference_of
from lib.difference.planes import Plane
from lib.difference.regions import Regions
from lib.difference.stars import SharedStars

log = logging.getLogger("autoproc")

STARS = 30
"""Stars that a kernel is fitted to, at most: the brightest of those near its node."""

WITHIN = 2.0
"""[larger FWHM of both] Half side of the squares about stars that are compared."""

WORSE = 4.0
"""[scatter] A star that fits worse than the others by more than this is left out."""

WINGS = 1.75
"""[FWHM of the wider stars] Half side of a kernel, at least: with 1.25 a third more than noise is
left of stars with the wings of a Moffat profile, with 2 a twentieth."""

MOST_HALF = 10
"""[pixel] Half side of a kernel, at most."""

RIDGE = 1e-4
"""Weight of small values of the kernel, relative to what the stars tell."""

FEWEST = 3
"""Stars that a kernel is fitted to, at least."""


class SolverMissing(RuntimeError):
    """The package that solves for the kernels is not installed."""


def kernel_half(sharp: float, wide: float) -> int:
    """Return the half side of a kernel that makes stars of one FWHM those of another [pixel].

    Two and a half standard deviations of what is missing, and two pixels for shifts of a fraction
    of a pixel; and so much of the wings of the wider stars that what is left of them is noise.
    """
    missing = np.sqrt(max(wide**2 - sharp**2, 0.0)) / 2.355
    return int(np.clip(np.ceil(max(2.5 * missing + 2, WINGS * wide)), 4, MOST_HALF))


def match_kernels(
    sharp: Plane, wide: Plane, stars: SharedStars, regions: Regions, half: int
) -> Matched:
    """Fit the kernels that make one image like another.

    Parameters
    ----------
    sharp : Plane
        The image that is convolved.
    wide : Plane
        The image that it is to be like, in the same units.
    stars : SharedStars
        The brightest first; those that vary are not used.
    regions : Regions
    half : int
        Half side of the kernels [pixel].

    Returns
    -------
    Matched

    Raises
    ------
    SolverMissing
    """
    kernels = []
    x, y = stars.x[stars.constant], stars.y[stars.constant]
    for node in regions.nodes:
        near = regions.nearest(node, x, y)
        near = np.sort(near)[:STARS]
        kernels.append(fit_kernel(sharp, wide, x[near], y[near], half))
    return difference_of(sharp, wide, np.array(kernels), regions)


def fit_kernel(sharp: Plane, wide: Plane, x: np.ndarray, y: np.ndarray, half: int) -> np.ndarray:
    """Return the kernel that makes the stars of one image like those of another.

    Parameters
    ----------
    sharp, wide : Plane
    x, y : ndarray, shape (n,)
        Stars, from 0 [pixel].
    half : int

    Returns
    -------
    ndarray, shape (2 half + 1, 2 half + 1)
    """
    try:
        from stdpipe.sfft import solve
    except ImportError as error:
        raise SolverMissing(
            "method sfft needs the package stdpipe: "
            "pip install --no-deps -r requirements-difference.lock"
        ) from error

    def fitted(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        planes, inside = squares(sharp, wide, x[rows], y[rows], half)
        image, template, variance, template_variance, bad = planes
        good = inside & (bad == 0)
        # Its clipping would take the cores of bright stars, whose noise is more than that of most.
        result = solve(
            image, template, mask=~good, err=np.sqrt(variance + template_variance),
            kernel_shape=(2 * half + 1, 2 * half + 1),
            kernel_poly_order=0, bg_poly_order=0, flux_poly_order=0, ridge=RIDGE, sigma_clip=None,
            max_iter=1,
        )  # fmt: skip
        pull = np.where(good, result.diff**2 / (variance + template_variance), 0)
        return result.kernel_coeffs[:, 0].reshape(result.kernel_shape), _means(pull, good, rows)

    rows = np.arange(len(x))
    kernel, misfit = fitted(rows)
    spread = MAD_TO_SIGMA * float(np.median(np.abs(misfit - np.median(misfit))))
    kept = misfit < np.median(misfit) + WORSE * max(spread, 0.05)
    if not kept.all() and kept.sum() >= FEWEST:
        log.info("kernel: %d of %d stars fit badly and are left out", (~kept).sum(), len(x))
        kernel, _ = fitted(rows[kept])
    return kernel


def _means(values: np.ndarray, good: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mean over the good pixels of the square of each star, as `squares` has them."""
    across = max(1, int(np.ceil(np.sqrt(len(rows)))))
    side = values.shape[1] // across
    found = []
    for k in range(len(rows)):
        part = (slice(k // across * side, (k // across + 1) * side),
                slice(k % across * side, (k % across + 1) * side))  # fmt: skip
        found.append(values[part].sum() / max(1, good[part].sum()))
    return np.array(found)


def squares(
    sharp: Plane, wide: Plane, x: np.ndarray, y: np.ndarray, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squares about stars side by side.

    Parameters
    ----------
    sharp, wide : Plane
    x, y : ndarray, shape (n,)
    half : int
        Of the kernel [pixel]: so much more of the sharp image is needed about each.

    Returns
    -------
    planes : ndarray, shape (5, rows, columns)
        Wide and sharp image, their variances, and whether a pixel is bad.
    inside : ndarray of bool, shape (rows, columns)
        Pixels that are to be compared.
    """
    reach = int(np.ceil(WITHIN * max(sharp.fwhm, wide.fwhm)))
    side = 2 * (reach + half) + 1
    across = max(1, int(np.ceil(np.sqrt(len(x)))))
    down = max(1, -(-len(x) // across))
    planes = np.zeros((5, down * side, across * side))
    planes[4] = 1
    inside = np.zeros(planes.shape[1:], bool)
    ny, nx = wide.image.shape
    for k, (xs, ys) in enumerate(zip(x, y, strict=True)):
        row, column = k // across * side, k % across * side
        y0, x0 = round(ys) - reach - half, round(xs) - reach - half
        cut = slice(max(0, y0), min(ny, y0 + side)), slice(max(0, x0), min(nx, x0 + side))
        place = (
            slice(row + cut[0].start - y0, row + cut[0].stop - y0),
            slice(column + cut[1].start - x0, column + cut[1].stop - x0),
        )
        bad = sharp.bad[cut] | wide.bad[cut]
        for plane, values in enumerate(
            (wide.image, sharp.image, wide.full_variance, sharp.full_variance)
        ):
            planes[plane][place] = values[cut]
        planes[4][place] = bad
        inside[row + half : row + side - half, column + half : column + side - half] = True
    # Nothing is divided by a variance of 0 where a pixel is bad.
    for plane in (2, 3):
        planes[plane][planes[plane] <= 0] = max(float(planes[plane].max()), 1e-30)
    return planes, inside
