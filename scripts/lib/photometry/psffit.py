"""Fluxes of stars by fits of the point-spread function to all of them at once.

As in crowdsource (Schlafly et al. 2018, ApJS 234, 39) the fluxes of all stars of an image are one
sparse linear least-squares problem; the positions, and the sky between the stars, follow from what
is left of the image, and everything is solved again. DAOPHOT's ALLSTAR (Stetson 1987, PASP 99, 191)
does the same star by star.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from lib.core.stats import regular_sample
from lib.photometry.apertures import tile_sums
from lib.photometry.backgroundmesh import background
from lib.photometry.psfmodel import PsfModel, Stamps

FAINTEST_PIXEL = 0.1
"""Stamps end where the star is fainter [noise of a pixel]."""

LEAST_RADIUS = 1.5
"""Minimum radius of a stamp [FWHM]: outside is only a few per cent of the information on a star."""

MOST_PIXELS = 3e7
"""Pixels of all stamps, some 0.7 GB with what is made of them; more stars have smaller ones."""

LARGEST_STEP = 0.25
"""[FWHM] By which a star moves at once at most."""

LARGEST_SHIFT = 0.6
"""[FWHM] By which it moves in all."""

MOVING_SNR = 5.0
"""Stars of less keep their position: that would follow the noise."""

NEIGHBOURS = 8
"""Neighbours that share light with a star and count in its error."""

SHARED = 0.03
"""Minimum overlap of two profiles that is taken into account there."""

FITTED = 3
"""Parameters of a star."""

FEW_PIXELS = 8
"""Pixels of stamps that are fewer than this part of those of an image are sorted themselves."""

LEAST_SEEN = 0.02
"""Part of the information on a flux that must lie in pixels with weight."""


@dataclass(frozen=True)
class PsfFluxes:
    """Stars measured by fits of the point-spread function.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions, those given or fitted [pixel].
    flux, error : ndarray, shape (n,)
        Total fluxes in units of the image, and their errors: noise, photons, neighbours, and the
        error of the model. NaN where too few pixels have a weight.
    chi2 : ndarray, shape (n,)
        Mean square of what is left within one FWHM, in units of the noise of a pixel.
    seen : ndarray, shape (n,)
        Part of the information on the flux that lies in pixels with weight: 1 for most stars, less
        where some of the core is saturated, masked or outside of the image.
    area : ndarray, shape (n,)
        Pixels of sky whose noise a fit to a faint star has.
    image, variance : ndarray of float32, shape (ny, nx)
        What was fitted: the image without the sky that was fitted with the stars.
    touched : ndarray of int, shape (m,)
        Flat indices of the pixels that the stars reach, ascending.
    light : ndarray of float32, shape (m,)
        Light of all stars in these.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    chi2: np.ndarray
    seen: np.ndarray
    area: np.ndarray
    image: np.ndarray
    variance: np.ndarray
    touched: np.ndarray
    light: np.ndarray

    @cached_property
    def residual(self) -> np.ndarray:
        """The image without the stars and the sky, ndarray of float32, shape (ny, nx).

        0 in pixels that do not count.
        """
        good = _counts(self.image, self.variance)
        left = np.where(good, self.image, 0).astype(np.float32)
        flat = left.reshape(-1)
        flat[self.touched] -= self.light * good.ravel()[self.touched]
        return left

    def residual_sums(self, rows: np.ndarray, radius: float) -> np.ndarray:
        """Return the sums of the residual in circles about some of the stars.

        Parameters
        ----------
        rows : ndarray of int, shape (k,)
        radius : float
            [pixel].
        """
        half = int(np.ceil(radius)) + 1
        side = np.arange(-half, half + 1)
        x, y = self.x[rows], self.y[rows]
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        ny, nx = self.image.shape
        columns = column[:, None, None] + side
        rows_of = row[:, None, None] + side[:, None]
        inside = (columns >= 0) & (columns < nx) & (rows_of >= 0) & (rows_of < ny)
        tiles = np.zeros(inside.shape, np.float32)
        tiles[inside] = self.residual_at((rows_of * nx + columns)[inside])
        return tile_sums(tiles, x - column, y - row, radius)[0]

    def residual_at(self, pixel: np.ndarray) -> np.ndarray:
        """Return the residual in some pixels, float32, of their flat indices."""
        value = self.image.ravel()[pixel]
        good = _counts(value, self.variance.ravel()[pixel])
        light = np.zeros(len(pixel), np.float32)
        if len(self.touched):
            place = np.minimum(np.searchsorted(self.touched, pixel), len(self.touched) - 1)
            found = self.touched[place] == pixel
            light[found] = self.light[place[found]]
        return np.where(good, value - light, 0).astype(np.float32)


def _counts(image: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return which pixels count."""
    return np.isfinite(image) & (variance > 0) & (variance < np.inf)


def psf_photometry(
    image: np.ndarray, variance: np.ndarray, psf: PsfModel, x: np.ndarray, y: np.ndarray, *,
    gain: float = 0.0, free: bool = False, sky_box: int = 0, rounds: int = 4,
) -> PsfFluxes:  # fmt: skip
    """Measure stars by fits of the point-spread function, all at once.

    Serves any image without background: a coadd, a frame, a difference image (there fluxes may be
    negative, and `gain` 0 leaves the photons of what was subtracted to the variance map).

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    variance : ndarray of float32, shape (ny, nx)
        Variance of a pixel without the light of the stars, such that sums over an area of a star
        have the right one; 0 or not finite where a pixel does not count.
    psf : PsfModel
    x, y : ndarray, shape (n,)
        Positions [pixel].
    gain : float
        Electrons per unit, for the photon noise of the stars; 0 leaves that out.
    free : bool
        Whether the positions of stars of S/N 5 or more are fitted, too.
    sky_box : int
        Mesh of the sky that is fitted with the stars [pixel]; 0 for none.
    rounds : int
        Rounds of the fit; without free positions, sky and photons one is enough.

    Returns
    -------
    PsfFluxes
    """
    x, y = np.array(x, float), np.array(y, float)
    n = x.size
    if n == 0:
        none = np.empty(0)
        no_pixel = np.empty(0, np.int64), np.empty(0, np.float32)
        return PsfFluxes(none, none, none, none, none, none, none, image, variance, *no_pixel)
    noise = _typical_noise(variance)
    data = image
    start = x.copy(), y.copy()
    flux = np.zeros(n)
    # Only pixels near stars are looked at: they are few in most images.
    last = np.zeros(image.size, np.float32)
    before = np.empty(0, np.int64)
    good = _counts(image, variance) if sky_box else None
    for number in range(rounds):
        stamps = psf.stamps(x, y, stamp_radii(flux, psf, noise))
        matrix, pixels, touched = _design(stamps, image.shape)
        here = data.ravel()[touched]
        sky = variance.ravel()[touched]
        counts = _counts(here, sky)
        here = np.where(counts, here, 0).astype(float)
        photons = last[touched].astype(float)
        known = np.where(counts, sky, 1.0)
        if gain:
            known += np.maximum(photons, 0) / gain
        weight = counts / (known + (psf.profile_error * photons) ** 2)
        flux, normal = _solve(matrix, weight, here, flux)
        light = matrix.T @ flux
        left = here - light
        if number == rounds - 1:
            break
        last[before] = 0
        last[touched], before = light, touched
        if free:
            moved = _shifts(stamps, pixels, weight, left, flux, normal)
            _move(x, y, moved, start, psf.fwhm)
            # A star of the image stays there: beyond its edge nothing tells where.
            for place, begun, size in zip((x, y), start, image.shape[::-1], strict=True):
                np.clip(place, np.minimum(begun, 0), np.maximum(begun, size - 1), out=place)
        if good is not None:
            rest = np.where(good, data - last.reshape(data.shape), 0)
            # Pixels that do not count keep the value by which they are known.
            data = data - background(rest, ~good, sky_box)[0]
    error = _errors(matrix, normal, weight, known)
    whole = np.add.reduceat(stamps.light.astype(float) ** 2, stamps.start[:-1])
    seen = (matrix.power(2) @ counts.astype(float)) / whole
    chi2 = _chi2(stamps, pixels, left, known, counts, psf.fwhm)
    error = np.hypot(error, psf.error * flux)
    lost = ~(seen > LEAST_SEEN)
    flux[lost], error[lost] = np.nan, np.nan
    return PsfFluxes(
        x, y, flux, error, chi2, seen, 1 / whole, data, variance, touched, light.astype(np.float32)
    )


def draw_stars(
    shape: tuple[int, ...], psf: PsfModel, x: np.ndarray, y: np.ndarray, flux: np.ndarray
) -> np.ndarray:
    """Return an image of stars, ndarray of float32 of a shape (ny, nx).

    Parameters
    ----------
    shape : tuple of int
    psf : PsfModel
    x, y, flux : ndarray, shape (n,)
    """
    if not len(x):
        return np.zeros(shape, np.float32)
    stamps = psf.stamps(np.asarray(x, float), np.asarray(y, float), np.full(len(x), psf.reach))
    matrix, _, touched = _design(stamps, shape)
    light = np.zeros(shape, np.float32)
    light.ravel()[touched] = matrix.T @ np.asarray(flux, float)
    return light


def _typical_noise(variance: np.ndarray) -> float:
    """Return the median noise of the pixels that count; 1 without any."""
    sample = regular_sample(variance)
    sample = sample[(sample > 0) & (sample < np.inf)]
    return float(np.sqrt(np.median(sample))) if sample.size else 1.0


def sky_response(
    psf: PsfModel, x: np.ndarray, y: np.ndarray, flux: np.ndarray, variance: np.ndarray,
    gain: float,
) -> np.ndarray:  # fmt: skip
    """Return by how much fitted fluxes grow with a level under the stars [pixel].

    A fit with weights w to a profile m takes sum(w m) / sum(w m^2) of a level for light of a star.

    Parameters
    ----------
    psf : PsfModel
    x, y, flux : ndarray, shape (n,)
        Positions [pixel], and fluxes as fitted.
    variance, gain
        As for `psf_photometry`.

    Returns
    -------
    ndarray, shape (n,)
    """
    noise = _typical_noise(variance)
    stamps = psf.stamps(x, y, stamp_radii(flux, psf, noise))
    star = np.repeat(np.arange(x.size), np.diff(stamps.start))
    profile = stamps.light.astype(float)
    light = np.maximum(flux[star] * profile, 0)
    photons = light / gain if gain else 0.0
    weight = 1 / (noise**2 + photons + (psf.profile_error * light) ** 2)
    first = stamps.start[:-1]
    linear, square = (np.add.reduceat(weight * profile**power, first) for power in (1, 2))
    return np.asarray(linear / square)


def stamp_radii(flux: np.ndarray, psf: PsfModel, noise: float) -> np.ndarray:
    """Return how far stars of some fluxes are seen above the noise of a pixel [pixel]."""
    centre = np.array([psf.centre])
    whole = psf.stamps(centre[:, 0], centre[:, 1], np.array([psf.reach]))
    half = int(whole.half[0])
    side = np.arange(-half, half + 1)
    away = np.hypot(side[:, None], side[None, :]).ravel()
    ring = np.rint(away).astype(int)
    total = np.bincount(ring, np.abs(whole.light))
    density = total / np.maximum(np.bincount(ring), 1)
    density = np.maximum.accumulate(density[::-1])[::-1][: half + 1]
    least = LEAST_RADIUS * psf.fwhm
    with np.errstate(divide="ignore"):
        level = FAINTEST_PIXEL * noise / np.maximum(np.abs(np.nan_to_num(flux)), 1e-30)
    radius = np.clip(np.searchsorted(-density, -level), least, psf.reach)
    pixels = float(np.sum(np.pi * radius**2))
    if pixels > MOST_PIXELS:
        radius = np.maximum(radius * np.sqrt(MOST_PIXELS / pixels), psf.fwhm)
    return radius


def _design(stamps: Stamps, shape: tuple[int, ...]) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Return the light of stars of flux 1 in the pixels that they reach.

    Returns
    -------
    matrix : csr_array, shape (n, m)
    pixels : ndarray of int
        Of the m pixels the one of each value of the stamps, -1 for none.
    touched : ndarray of int, shape (m,)
        Flat indices of the pixels in the image.
    """
    number = _pixel_numbers(stamps, shape)
    keep = (number >= 0) & (stamps.light != 0)
    reached = number[keep]
    # Memory that is not written to is never laid out.
    place = np.zeros(int(np.prod(shape)), np.int32)
    if reached.size < place.size // FEW_PIXELS:
        rank = np.arange(1, reached.size + 1, dtype=np.int32)
        place[reached] = rank
        touched = np.sort(reached[place[reached] == rank])
    else:
        place[reached] = 1
        touched = np.flatnonzero(place)
    place[touched] = np.arange(touched.size)
    pixels = np.where(keep, place[np.where(keep, number, 0)], -1)
    n = stamps.column.size
    rows = np.repeat(np.arange(n), np.diff(stamps.start))[keep]
    pointer = np.append(0, np.cumsum(np.bincount(rows, minlength=n)))
    light = stamps.light[keep].astype(float)
    return csr_array((light, pixels[keep], pointer), shape=(n, touched.size)), pixels, touched


def _pixel_numbers(stamps: Stamps, shape: tuple[int, ...]) -> np.ndarray:
    """Return the number of the pixel of each value of stamps, -1 outside of the image."""
    side = 2 * stamps.half + 1
    at = np.arange(stamps.start[-1]) - np.repeat(stamps.start[:-1], side**2)
    sides = np.repeat(side, side**2)
    row = at // sides + np.repeat(stamps.row - stamps.half, side**2)
    column = at % sides + np.repeat(stamps.column - stamps.half, side**2)
    inside = (row >= 0) & (column >= 0) & (row < shape[0]) & (column < shape[1])
    return np.where(inside, row * shape[1] + column, -1)


def _solve(
    matrix: csr_array, weight: np.ndarray, data: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, csr_array]:
    """Return the fluxes of weighted least squares, and the normal matrix."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg

    weighted = matrix.copy()
    weighted.data *= weight[matrix.indices]
    normal = csr_array(weighted @ matrix.T)
    diagonal = normal.diagonal()
    known = diagonal > 0
    scale = np.where(known, 1 / np.sqrt(np.where(known, diagonal, 1)), 0)
    # In units of the errors: the conjugate gradients take all stars alike.
    scaled = diags_array(scale) @ normal @ diags_array(scale) + diags_array(1.0 - known)
    right = scale * (weighted @ data)
    begin = np.where(known, np.nan_to_num(first) / np.where(known, scale, 1), 0)
    found, _ = cg(scaled, right, x0=begin, rtol=1e-5, atol=1e-3, maxiter=200)
    return found * scale, normal


def _shifts(
    stamps: Stamps, pixels: np.ndarray, weight: np.ndarray, left: np.ndarray, flux: np.ndarray,
    normal: csr_array,
) -> np.ndarray:  # fmt: skip
    """Return the position corrections of stars from the residual image [pixel], shape (2, n)."""
    inside = pixels >= 0
    index = np.where(inside, pixels, 0)
    w = np.where(inside, weight[index], 0)
    wr = w * left[index]
    by_x, by_y = stamps.values[1], stamps.values[2]

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, stamps.start[:-1])

    xx, yy, xy = total(w * by_x**2), total(w * by_y**2), total(w * by_x * by_y)
    rx, ry = total(wr * by_x), total(wr * by_y)
    determinant = xx * yy - xy**2
    sure = (flux * np.sqrt(normal.diagonal()) > MOVING_SNR) & (determinant > 1e-6 * xx * yy)
    shift = np.zeros((2, flux.size))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift[0] = (yy * rx - xy * ry) / determinant / flux
        shift[1] = (xx * ry - xy * rx) / determinant / flux
    return np.where(sure, np.nan_to_num(shift), 0)


def _move(
    x: np.ndarray, y: np.ndarray, shift: np.ndarray, start: tuple[np.ndarray, ...], fwhm: float
) -> None:
    """Move stars, in place, within the bounds of one step and of all."""
    for axis, own, first in zip((x, y), shift, start, strict=True):
        axis += np.clip(own, -LARGEST_STEP * fwhm, LARGEST_STEP * fwhm)
        np.clip(axis, first - LARGEST_SHIFT * fwhm, first + LARGEST_SHIFT * fwhm, out=axis)


def _errors(
    matrix: csr_array, normal: csr_array, weight: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Return the errors of fluxes, shape (n,); NaN where no pixel tells.

    With weights w that are not those of the variances V the covariance is N^-1 Q N^-1 with
    N = A w A', Q = A w^2 V A'; it is worked out for each star with its nearest neighbours, the
    others taken for known.
    """
    squared = matrix.copy()
    squared.data *= (weight**2 * variance)[matrix.indices]
    noise = csr_array(squared @ matrix.T)
    members = _strongest(normal)
    n, k = members.shape
    filled = members >= 0
    use = np.where(filled, members, 0)
    one, other = np.repeat(use, k, axis=1).ravel(), np.tile(use, (1, k)).ravel()
    both = (filled[:, :, None] & filled[:, None, :]).ravel()
    blocks = [np.zeros(n * k * k) for _ in range(2)]
    for block, full in zip(blocks, (normal, noise), strict=True):
        block[both] = np.asarray(full[one[both], other[both]]).ravel()
    first, second = (block.reshape(n, k, k) for block in blocks)
    place = np.arange(k)
    diagonal = first[:, place, place]
    first[:, place, place] = np.where(diagonal > 0, diagonal, 1.0)
    row = np.zeros((n, k, 1))
    row[:, 0] = 1.0
    # Places of one star twice make it singular: a millionth keeps that an error, and a large one.
    first[:, place, place] *= 1 + 1e-6
    inverse = np.linalg.solve(first, row)[:, :, 0]
    variances = np.einsum("ni,nij,nj->n", inverse, second, inverse)
    return np.where(normal.diagonal() > 0, np.sqrt(np.maximum(variances, 0)), np.nan)


def _strongest(normal: csr_array) -> np.ndarray:
    """Return each star and the neighbours it shares most light with, -1 for none, (n, k)."""
    n = normal.shape[0]
    entries = normal.tocoo()
    row, column = entries.coords
    diagonal = np.sqrt(np.maximum(normal.diagonal(), 1e-300))
    share = np.abs(entries.data) / (diagonal[row] * diagonal[column])
    share[row == column] = np.inf
    keep = share > SHARED
    row, column, share = row[keep], column[keep], share[keep]
    order = np.lexsort((-share, row))
    row, column = row[order], column[order]
    first = np.searchsorted(row, np.arange(n))
    rank = np.arange(row.size) - first[row]
    near = rank <= NEIGHBOURS
    width = int(rank[near].max(initial=0)) + 1
    members = np.full((n, width), -1)
    members[row[near], rank[near]] = column[near]
    members[:, 0] = np.arange(n)
    return members


def _chi2(
    stamps: Stamps, pixels: np.ndarray, left: np.ndarray, variance: np.ndarray, good: np.ndarray,
    fwhm: float,
) -> np.ndarray:  # fmt: skip
    """Return the mean square residual within one FWHM of stars, over the variance."""
    side = 2 * stamps.half + 1
    at = np.arange(stamps.start[-1]) - np.repeat(stamps.start[:-1], side**2)
    half, sides = np.repeat(stamps.half, side**2), np.repeat(side, side**2)
    near = (at // sides - half) ** 2 + (at % sides - half) ** 2 <= fwhm**2
    inside = near & (pixels >= 0)
    index = np.where(inside, pixels, 0)
    inside &= good[index]
    pull = np.where(inside, left[index] ** 2 / variance[index], 0)
    number = np.add.reduceat(inside.astype(float), stamps.start[:-1])
    # Flux and position of each were fitted to these pixels.
    return np.add.reduceat(pull, stamps.start[:-1]) / np.maximum(number - FITTED, 1)
