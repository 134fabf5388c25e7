"""Models of the stars of an image, to measure each without the light of the others."""

import numpy as np
import sep

from lib.photometry.sources import detect_sources

MANY = 10**5
"""Pixels of models that are worked on at once: they stay in the cache."""


class StarModels:
    """An image without its stars: each modelled by the wings of the growth curve.

    Outside 0.8 FWHM, where the model is fitted, it is good to the noise; in the core it need not
    be, for the model of a star is added again where that star is measured.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    x, y, flux : ndarray, shape (n,)
        Total fluxes; those of 0 are not modelled.
    wings : Wings
    noise : float
        Of a pixel: models end where they are below a fiftieth of it.
    radius : float
        They reach so far at least [pixel].
    """

    def __init__(self, image, x, y, flux, wings, noise, radius):
        self.size, self.wings = image.shape, wings
        self.x, self.y, self.flux = np.asarray(x, float), np.asarray(y, float), flux
        self.column, self.row = np.rint(self.x).astype(int), np.rint(self.y).astype(int)
        with np.errstate(divide="ignore"):
            reach = wings.reach(0.02 * noise / flux)
        self.half = np.ceil(np.clip(reach, radius + 2, 40 * radius)).astype(int)
        self.residual = image.copy()
        self._add(self.residual, np.flatnonzero(flux > 0), -1)

    def light(self, index, half):
        """Return the models of stars in squares about their pixels.

        Parameters
        ----------
        index : ndarray of int, shape (n,)
        half : int

        Returns
        -------
        ndarray of float32, shape (n, 2 half + 1, 2 half + 1)
            0 beyond the end of a model and outside of the image.
        """
        offset = np.arange(-half, half + 1)
        parts = []
        for place, centre, size in (
            (self.y, self.row, self.size[0]), (self.x, self.column, self.size[1])
        ):  # fmt: skip
            pixel = centre[index][:, None] + offset
            ends = (np.abs(offset) <= self.half[index][:, None]) & (pixel >= 0) & (pixel < size)
            parts.append(((pixel - place[index][:, None]).astype(np.float32), ends))
        (dy, rows), (dx, columns) = parts
        light = self.wings.density(dx[:, None, :], dy[:, :, None])
        light *= self.flux[index].astype(np.float32)[:, None, None]
        light *= rows[:, :, None] & columns[:, None, :]
        return light

    def _add(self, image, index, sign=1):
        """Add the models of stars to an image, in place: many of one size at a time."""
        for half in np.unique(self.half[index]):
            members = index[self.half[index] == half]
            offset = np.arange(-half, half + 1, dtype=np.float32)
            for some in np.array_split(members, 1 + members.size * offset.size**2 // MANY):
                dy, dx = (
                    (centre[some] - place[some]).astype(np.float32)[:, None] + offset
                    for centre, place in ((self.row, self.y), (self.column, self.x))
                )
                stamps = self.wings.density(dx[:, None, :], dy[:, :, None])
                stamps *= (sign * self.flux[some]).astype(np.float32)[:, None, None]
                for i, stamp in zip(some, stamps, strict=True):
                    corner = (self.row[i] - half, self.column[i] - half)
                    add_stamp(image, (0, 0), corner, stamp)

    def apertures(self, radius):
        """Return the sum of each star alone in a circle, the others taken away, shape (n,)."""
        sums, _, _ = sep.sum_circle(self.residual, self.x, self.y, radius, subpix=5)
        index = np.flatnonzero(self.flux > 0)
        if index.size:
            half = int(np.ceil(radius)) + 1
            sums[index] += tile_sums(
                self.light(index, half), self.x[index] - self.column[index],
                self.y[index] - self.row[index], radius,
            )  # fmt: skip
        return sums

    def image(self, chosen):
        """Return the image of the models of some stars."""
        image = np.zeros(self.size, np.float32)
        self._add(image, np.flatnonzero(chosen & (self.flux > 0)))
        return image


def tile_sums(tiles, dx, dy, outer, inner=0.0, **options):
    """Sum circles or rings, one in each of many small images, by one call of sep.

    Parameters
    ----------
    tiles : ndarray, shape (n, 2 half + 1, 2 half + 1)
    dx, dy : ndarray, shape (n,)
        Centres from the middle of the tiles [pixel].
    outer, inner : float
        Radii [pixel].
    **options
        Of `sep.sum_circle`; arrays in the form of `tiles`. With `err` errors are returned too.

    Returns
    -------
    sums : ndarray, shape (n,)
    errors : ndarray, shape (n,)
        With `err` only.
    """
    n, size, _ = tiles.shape
    flat = {
        key: np.ascontiguousarray(value).reshape(n * size, size) if np.ndim(value) == 3 else value
        for key, value in options.items()
    }
    place = (size // 2 + dx, size // 2 + dy + size * np.arange(n))
    column = np.ascontiguousarray(tiles).reshape(n * size, size)
    if inner > 0:
        sums, errors, _ = sep.sum_circann(column, *place, inner, outer, subpix=5, **flat)
    else:
        sums, errors, _ = sep.sum_circle(column, *place, outer, subpix=5, **flat)
    return (sums, errors) if "err" in options else sums


def model_stars(image, noise, x, y, sums, error, radius, fraction, wings):
    """Return the models of the stars that are seen, from aperture sums that hold their neighbours.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float
        Of a pixel.
    x, y, sums, error : ndarray, shape (n,)
        Those with less than five times their error are not modelled.
    radius, fraction, wings
        As for `share_light`.

    Returns
    -------
    StarModels
    """
    seen = np.flatnonzero(sums > 5 * error)
    flux = np.zeros(len(sums))
    flux[seen] = share_light(sums[seen], x[seen], y[seen], radius, fraction, wings)
    # Between close ones noise may leave nothing for one of them.
    return StarModels(image, x, y, np.clip(flux, 0, None), wings, noise, radius)


def share_light(sums, x, y, radius, fraction, wings):
    """Solve for the total fluxes of stars whose apertures hold light of each other.

    Parameters
    ----------
    sums : ndarray, shape (n,)
        In circular apertures.
    x, y : ndarray, shape (n,)
    radius : float
        Of the apertures [pixel].
    fraction : float
        Of a star's light in its own aperture.
    wings : Wings

    Returns
    -------
    ndarray, shape (n,)
        Total fluxes. Stars nearer than a third of the radius cannot be told apart: each has the
        light of both.
    """
    from scipy.sparse import coo_array, eye_array
    from scipy.sparse.linalg import spsolve
    from scipy.spatial import cKDTree

    n = len(sums)
    pairs = np.empty((0, 2), int)
    if n > 1:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(4 * radius, output_type="ndarray")
    if len(pairs) == 0:
        return sums / fraction
    apart = np.hypot(*(axis[pairs[:, 0]] - axis[pairs[:, 1]] for axis in (x, y)))
    pairs, apart = pairs[apart > radius / 3], apart[apart > radius / 3]
    part = np.interp(apart, *wings.aperture_share(radius))
    row, column = np.concatenate([pairs, pairs[:, ::-1]]).T
    matrix = fraction * eye_array(n) + coo_array((np.tile(part, 2), (row, column)), shape=(n, n))
    return spsolve(matrix.tocsc(), sums)


def hidden_sources(models, noise, gain, point, segments, fwhm, threshold=5.0, min_area=5):
    """Find the neighbours of stars that were taken for a part of them.

    What is left of the image without its stars is searched from 0.8 to 3 FWHM about each.

    Parameters
    ----------
    models : StarModels
    noise : float or ndarray
        Standard deviation of a pixel.
    gain : float
        Electrons per unit.
    point : ndarray of bool, shape (n,)
        Point sources that are not saturated: about the others the model is none.
    segments : ndarray of int32, shape (ny, nx)
    fwhm : float
        Pixels.
    threshold, min_area
        Of `detect_sources`.

    Returns
    -------
    sources : structured ndarray
    segments : ndarray of int32
        Of them, numbered from 1.
    """
    light = models.image(point)
    # A tenth of the model: what stars differ from it.
    error = np.sqrt(noise**2 + light / gain + (0.1 * light) ** 2).astype(np.float32)
    search = np.zeros(models.size, bool)
    core = np.zeros(models.size, bool)
    ny, nx = models.size
    reach = int(np.ceil(3 * fwhm))
    for i in np.flatnonzero(models.flux > 0):
        column, row = round(models.x[i]), round(models.y[i])
        x0, y0 = max(0, column - reach), max(0, row - reach)
        part = (slice(y0, row + reach + 1), slice(x0, column + reach + 1))
        dy = np.arange(y0, min(ny, row + reach + 1))[:, None] - models.y[i]
        r2 = (np.arange(x0, min(nx, column + reach + 1)) - models.x[i]) ** 2 + dy**2
        core[part] |= r2 < (0.8 * fwhm) ** 2
        if point[i]:
            search[part] |= r2 < reach**2
    other = np.append(False, ~point)[segments]
    # The core of a neighbour may lie at the rim: its pixels count, but none of a star's own.
    residual = np.where(search & ~core & ~other, models.residual, 0).astype(np.float32)
    return detect_sources(residual, error, None, threshold, min_area)


def add_stamp(image, origin, corner, stamp):
    """Add a stamp to a part of an image, in place.

    Parameters
    ----------
    image : ndarray, shape (my, mx)
    origin : tuple of int
        Row and column of its first pixel.
    corner : tuple of int
        The same of the stamp.
    stamp : ndarray, shape (ky, kx)
    """
    row, column = corner[0] - origin[0], corner[1] - origin[1]
    y0, x0 = max(0, row), max(0, column)
    y1 = min(image.shape[0], row + stamp.shape[0])
    x1 = min(image.shape[1], column + stamp.shape[1])
    if y1 > y0 and x1 > x0:
        image[y0:y1, x0:x1] += stamp[y0 - row : y1 - row, x0 - column : x1 - column]
