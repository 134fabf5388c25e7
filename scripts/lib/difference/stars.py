"""Stars that coadd and template share: scale of the fluxes, shift, and which of them vary."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import sep
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from lib.core.stats import MAD_TO_SIGMA
from lib.difference.planes import Plane
from lib.frame.file import FrameRejected
from lib.photometry.emptyapertures import summed_area

APERTURE = 1.5
"""[larger FWHM of both] Radius of the apertures that the scale is measured in."""

GROWTH = 2.0
"""[that radius] Radius within which stars have nearly all of their light."""

LEAST_STARS = 5
"""Minimum number of stars for a kernel."""

LEAST_SNR = (30.0, 15.0, 8.0)
"""S/N of the stars that are used: the first that leaves `WANTED` of them, or the last."""

WANTED = 25

VARIABLE_SIGMA = 4.0
VARIABLE_PART = 0.05
"""A star that differs by more than so many sigma, and by more than this part, varies."""

MOST_STARS = 400
"""The brightest are enough."""

CROWDING = 2.0
"""[larger FWHM of both] Stars with one nearer than this, half as bright, are used last."""


@dataclass(frozen=True)
class SharedStars:
    """Stars measured in both images.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions in the coadd, 0-based [pixel].
    flux, error : ndarray, shape (n,)
        Total fluxes in the coadd.
    template_flux, template_error : ndarray, shape (n,)
        The same in the template, in its own units, of the aperture that has as much of the light.
    shift : ndarray, shape (n, 2)
        Template less coadd [pixel].
    constant : ndarray of bool, shape (n,)
        Whether it has the same flux in both.
    scale, scale_error : float
        Factor from fluxes of the template to those of the coadd.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    template_flux: np.ndarray
    template_error: np.ndarray
    shift: np.ndarray
    constant: np.ndarray
    scale: float
    scale_error: float

    @property
    def mean_shift(self) -> np.ndarray:
        """Median shift of the template along x and y [pixel]."""
        return np.median(self.shift[self.constant], axis=0)

    @property
    def scatter(self) -> float:
        """Robust scatter of the shifts about their median, per axis [pixel]."""
        apart = self.shift[self.constant] - self.mean_shift
        return float(MAD_TO_SIGMA * np.median(np.abs(apart)))

    def take(self, rows: np.ndarray) -> "SharedStars":
        """Return some of the stars."""
        return replace(self, **{
            one.name: getattr(self, one.name)[rows]
            for one in fields(self) if not one.name.startswith("scale")
        })  # fmt: skip


def shared_stars(
    coadd: Plane,
    template: Plane,
    table: np.ndarray,
    radius: float,
    growth: Callable[[float], float],
) -> SharedStars:
    """Return the stars of a coadd that the template shows, too.

    Parameters
    ----------
    coadd, template : Plane
    table : ndarray
        Source table of the coadd.
    radius : float
        Maximum distance of a match in the template [pixel].
    growth : callable
        Takes a radius [pixel], gives the part of a star's light in the coadd within it.

    Returns
    -------
    SharedStars
        The brightest first.

    Raises
    ------
    FrameRejected
        TEMPLATE_MISMATCH: too few of the stars are where they should be.
    """
    rows = usable_stars(coadd, template, table)
    x, y = table["X"][rows].astype(float) - 1, table["Y"][rows].astype(float) - 1
    shift = find_shifts(template, x, y, radius)
    seen = np.isfinite(shift).all(axis=1)
    if seen.sum() < LEAST_STARS:
        raise FrameRejected(
            "TEMPLATE_MISMATCH",
            f"{seen.sum()} of {len(rows)} stars within {radius:.0f} pixels in the template",
        )
    x, y, shift = x[seen], y[seen], shift[seen]
    aperture = APERTURE * max(coadd.fwhm, template.fwhm)
    fraction = growth(aperture)
    flux, error = _sums(coadd, x, y, aperture)
    other, other_error = _sums(template, x + shift[:, 0], y + shift[:, 1], aperture)
    good = (flux > 5 * error) & (other > 5 * other_error)
    if good.sum() < LEAST_STARS:
        raise FrameRejected(
            "TEMPLATE_MISMATCH", f"{good.sum()} stars are bright enough in coadd and template"
        )
    other, other_error = (
        value / _light_outside(coadd, template, x[good], y[good], shift[good], aperture)
        for value in (other[good], other_error[good])
    )
    scale, scale_error, constant = flux_scale(flux[good], error[good], other, other_error)
    order = np.argsort(-flux[good], kind="stable")
    rows = np.flatnonzero(good)[order]
    return SharedStars(
        x[rows], y[rows], flux[rows] / fraction, error[rows] / fraction, other[order] / fraction,
        other_error[order] / fraction, shift[rows], constant[order], scale, scale_error,
    )  # fmt: skip


def _light_outside(
    coadd: Plane, template: Plane, x: np.ndarray, y: np.ndarray, shift: np.ndarray, radius: float
) -> float:
    """Return the part of a star's light within an aperture in the template over that in the coadd.

    By the light of the brightest stars out to `GROWTH` times the aperture.
    """
    found = []
    for plane, xs, ys in ((coadd, x, y), (template, x + shift[:, 0], y + shift[:, 1])):
        inner, error = _sums(plane, xs, ys, radius)
        outer, _ = _sums(plane, xs, ys, GROWTH * radius)
        found.append((inner / outer, inner / error))
    (ours, snr), (theirs, other_snr) = found
    snr = np.minimum(snr, other_snr)
    best = np.argsort(-snr, kind="stable")[: max(5, int((snr > 100).sum()))]
    return float(np.median(theirs[best] / ours[best]))


def usable_stars(coadd: Plane, template: Plane, table: np.ndarray) -> np.ndarray:
    """Return rows of a source table: stars with good pixels in both images, the best first."""
    x, y = table["X"].astype(float) - 1, table["Y"].astype(float) - 1
    reach = int(np.ceil(APERTURE * max(coadd.fwhm, template.fwhm)))
    near_bad = summed_area(coadd.bad | template.bad)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    ny, nx = coadd.image.shape
    inside = (column > reach) & (row > reach) & (column < nx - reach - 1) & (row < ny - reach - 1)
    y0, x0 = np.clip(row - reach, 0, ny), np.clip(column - reach, 0, nx)
    y1, x1 = np.clip(row + reach + 1, 0, ny), np.clip(column + reach + 1, 0, nx)
    inside &= near_bad[y1, x1] - near_bad[y0, x1] - near_bad[y1, x0] + near_bad[y0, x0] == 0
    star = np.asarray(table["STAR"], bool) & inside & ((table["FLAGS"] & ~1) == 0)
    flux = np.nan_to_num(np.asarray(table["FLUX_POINT"], float))
    if len(x) > 1:
        distance, index = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
        joined = distance[:, 1] < CROWDING * max(coadd.fwhm, template.fwhm)
        joined &= flux[index[:, 1]] > 0.5 * flux
        alone = star & ~joined
        star = alone if alone.sum() >= WANTED else star
    rows = np.empty(0, int)
    for least in LEAST_SNR:
        rows = np.flatnonzero(star & (table["SNR"] > least))
        if rows.size >= WANTED:
            break
    return rows[np.argsort(-flux[rows], kind="stable")][:MOST_STARS]


def find_shifts(template: Plane, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return where stars are in the template, less where they should be [pixel], shape (n, 2).

    The brightest pixel of the smoothed template within `radius` of each tells the shift that they
    have in common; each is then looked for about that. NaN for one that is not seen there.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(template.image, template.fwhm / 2.355)
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(smooth[~template.bad]))) if (
        ~template.bad
    ).any() else np.inf  # fmt: skip
    peaks = (smooth == maximum_filter(smooth, size=3)) & (smooth > 5 * sigma) & ~template.bad
    rows, columns = np.nonzero(peaks)
    shift = np.full((len(x), 2), np.nan)
    if not rows.size or not len(x):
        return shift
    at = np.column_stack([columns, rows]).astype(float)
    places = np.column_stack([x, y])
    pairs = cKDTree(places).query_ball_tree(cKDTree(at), radius)
    apart = np.concatenate([at[found] - places[k] for k, found in enumerate(pairs) if found] or
                           [np.empty((0, 2))])  # fmt: skip
    if not len(apart):
        return shift
    # Where most of the pairs agree.
    count = cKDTree(apart).query_ball_point(apart, 0.75 * template.fwhm, return_length=True)
    middle = np.median(
        apart[cKDTree(apart).query_ball_point(apart[np.argmax(count)], 0.75 * template.fwhm)],
        axis=0,
    )
    xs, ys, flags = sep.winpos(
        np.ascontiguousarray(template.image), x + middle[0], y + middle[1], template.fwhm / 2.355
    )
    found = np.column_stack([xs - x, ys - y])
    near = np.hypot(*(found - middle).T) < 0.75 * template.fwhm
    bright = (
        smooth[
            np.clip(np.rint(ys), 0, smooth.shape[0] - 1).astype(int),
            np.clip(np.rint(xs), 0, smooth.shape[1] - 1).astype(int),
        ]
        > 5 * sigma
    )
    good = near & bright & ((flags & ~sep.APER_TRUNC) == 0)
    shift[good] = found[good]
    return shift


def _sums(
    plane: Plane, x: np.ndarray, y: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the light in apertures and its error."""
    flux, error, _ = sep.sum_circle(
        np.ascontiguousarray(plane.image), x, y, radius, subpix=5,
        var=np.ascontiguousarray(plane.full_variance),
    )  # fmt: skip
    return flux, error


def flux_scale(
    flux: np.ndarray, error: np.ndarray, other: np.ndarray, other_error: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Return the factor between the fluxes of stars in two images, robustly.

    Parameters
    ----------
    flux, error, other, other_error : ndarray, shape (n,)

    Returns
    -------
    scale, error : float
        flux = scale * other.
    constant : ndarray of bool, shape (n,)
        False for stars that differ by more than `VARIABLE_SIGMA` and `VARIABLE_PART`.
    """
    ratio = np.log(flux / other)
    sigma = np.hypot(error / flux, other_error / other)
    constant = np.ones(len(ratio), bool)
    middle, spread = float(np.median(ratio)), 0.0
    for _ in range(5):
        spread = MAD_TO_SIGMA * float(np.median(np.abs(ratio[constant] - middle)))
        excess = np.sqrt(max(0.0, spread**2 - float(np.median(sigma[constant])) ** 2))
        full = np.hypot(sigma, excess)
        away = np.abs(ratio - middle)
        constant = (away < VARIABLE_SIGMA * full) | (away < VARIABLE_PART)
        if not constant.any():
            constant[:] = True
        weight = constant / np.hypot(full, 0.005) ** 2
        middle = float(np.average(ratio, weights=weight))
    scale = float(np.exp(middle))
    return scale, scale / float(np.sqrt(weight.sum())), constant
