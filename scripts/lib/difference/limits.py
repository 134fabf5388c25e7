"""Limits of a difference image: on empty sky and at a place, and whether they hold."""

from dataclasses import dataclass

import numpy as np

from lib.difference.quality import Difference
from lib.difference.significance import fit_points

LEVELS = (3.0, 5.0)
"""[sigma] Of the limits that are given."""

ALIKE = 0.1
"""Places whose errors differ by less than this part from that of a place are like it."""

SPACING = 5.0
"""[FWHM] Between point sources that are put into an image."""


@dataclass(frozen=True)
class PlaceFlux:
    """A point source at a place of a difference image, seen or not.

    Parameters
    ----------
    x, y : float
        Position, 0-based [pixel].
    flux, error : float
        The error with the photon noise of a host and with what is left of it; NaN where there is
        no difference.
    """

    x: float
    y: float
    flux: float
    error: float


def flux_at(difference: Difference, x: float, y: float) -> PlaceFlux:
    """Return the flux of a point source at a place, by cubic interpolation between pixels.

    Parameters
    ----------
    difference : Difference
    x, y : float
        Position, 0-based [pixel].
    """
    from scipy.ndimage import map_coordinates

    ny, nx = difference.image.shape
    column, row = round(x), round(y)
    if not (3 <= column < nx - 3 and 3 <= row < ny - 3):
        return PlaceFlux(x, y, np.nan, np.nan)
    error = float(difference.error[row, column])
    if not np.isfinite(error):
        return PlaceFlux(x, y, np.nan, np.nan)
    part = difference.fluxes.flux[row - 3 : row + 4, column - 3 : column + 4]
    flux = map_coordinates(part, [[y - row + 3], [x - column + 3]], order=3)[0]
    return PlaceFlux(x, y, float(flux), error)


def injected_fraction(
    difference: Difference, error: float, sigma: float, gain: float, rng: np.random.Generator,
    number: int = 300, avoid: np.ndarray | None = None,
) -> tuple[float, int]:  # fmt: skip
    """Return the part of point sources at a limit that are found, and how many were put in.

    They are put at places whose error is like the one that the limit was made of.

    Parameters
    ----------
    difference : Difference
    error : float
        Error of the flux of a point source.
    sigma : float
        The limit is so many errors, and what is found has that significance.
    gain : float
        Electrons per unit of flux.
    rng : numpy.random.Generator
    number : int
        At most.
    avoid : ndarray of bool, shape (ny, nx), optional
        Pixels of sources that have changed.

    Returns
    -------
    fraction : float
        NaN where there is no such place.
    number : int
    """
    like = np.abs(difference.error / error - 1) < ALIKE
    if avoid is not None:
        like &= ~avoid
    half = difference.stamps.shape[1] // 2
    like[:half], like[-half:], like[:, :half], like[:, -half:] = False, False, False, False
    x, y = _places(like, SPACING * difference.fwhm, number, rng)
    if not x.size:
        return np.nan, 0
    image = difference.image.copy()
    for xs, ys in zip(x, y, strict=True):
        add_point(image, difference, xs, ys, sigma * error, gain, rng)
    fitted = fit_points(image, difference.variance, difference.stamps, difference.regions)
    before = difference.fluxes
    # What the point itself adds to the flux; errors stay those of the place.
    from scipy.ndimage import map_coordinates

    flux = map_coordinates(fitted.flux, [y, x], order=3)
    errors = difference.error[np.rint(y).astype(int), np.rint(x).astype(int)]
    good = np.isfinite(errors) & np.isfinite(
        before.error[np.rint(y).astype(int), np.rint(x).astype(int)]
    )
    return float(np.mean(flux[good] > sigma * errors[good])), int(good.sum())


def add_point(
    image: np.ndarray, difference: Difference, x: float, y: float, flux: float, gain: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Add a point source, with its photon noise, to an image, in place."""
    from scipy.ndimage import shift

    nodes = difference.regions.nodes
    stamp = difference.stamps[int(np.argmin(np.hypot(*(nodes - (x, y)).T)))]
    half = stamp.shape[0] // 2
    column, row = round(x), round(y)
    moved = flux * shift(stamp, (y - row, x - column), order=3)
    if gain > 0:
        # Of both signs: the form of a proper difference has negative rings.
        moved = moved + rng.normal(0, np.sqrt(np.abs(moved) / gain))
    image[row - half : row + half + 1, column - half : column + half + 1] += moved


def _places(
    like: np.ndarray, spacing: float, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return places that are marked, some spacing apart, at any part of a pixel."""
    rows, columns = np.nonzero(like)
    order = rng.permutation(rows.size)[: 50 * number]
    taken: set[tuple[int, int]] = set()
    found = []
    for k in order:
        cell = int(rows[k] // spacing), int(columns[k] // spacing)
        near = {(cell[0] + i, cell[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        if taken & near:
            continue
        taken.add(cell)
        found.append((columns[k], rows[k]))
        if len(found) == number:
            break
    if not found:
        return np.empty(0), np.empty(0)
    at = np.array(found, float) + rng.uniform(-0.5, 0.5, (len(found), 2))
    return at[:, 0], at[:, 1]
