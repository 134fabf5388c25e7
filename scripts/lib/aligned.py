"""Frames resampled on the grid of a coadd: read in parts, masked where they contradict, combined.

However many frames there are, no more is held than one of them, some maps of the size of the
coadd, and a band of rows of all.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lib.outliers import Reference, find_outliers, reference_image
from lib.stats import CHUNK, chunks, ranked_planes

log = logging.getLogger("autoproc")

BAND = 1 << 23
"""[byte] Of all frames, when rows of the grid are compared."""


@dataclass(frozen=True)
class AlignedFrame:
    """A resampled frame and its weight map, kept on disk.

    Parameters
    ----------
    path : Path
        Image, then weight (inverse variance), float32 of this machine, in units of the coadd.
    shape : tuple of int
        (ny, nx).
    corner : tuple of int
        Row and column of the first pixel on the grid of the coadd.
    gain : float
        Electrons per unit of the coadd.
    fwhm : float
        Width of the stars [pixel of the grid].
    noise : float
        Of a typical pixel, in units of the coadd.
    """

    path: Path
    shape: tuple
    corner: tuple
    gain: float
    fwhm: float
    noise: float

    @classmethod
    def keep(cls, path, image, weight, corner, **described):
        """Write a resampled frame, and return it.

        Parameters
        ----------
        path : path-like
        image, weight : ndarray of float32, shape (ny, nx)
        corner : tuple of int
        **described
            gain, fwhm and noise of the class.
        """
        with open(path, "wb") as file:
            image.tofile(file)
            weight.tofile(file)
        return cls(Path(path), image.shape, tuple(corner), **described)

    def pixels(self, first, last):
        """Return image and weight of rows of the grid.

        Returns
        -------
        where : tuple of slice
            The part of those rows, and of the columns of the grid, that the frame covers.
        image : ndarray of float32
            Also where the weight is zero.
        weight : ndarray of float32
        """
        ny, nx = self.shape
        begin, end = np.clip((first - self.corner[0], last - self.corner[0]), 0, ny)
        end = max(begin, end)
        top = begin + self.corner[0] - first
        where = (slice(top, top + end - begin), slice(self.corner[1], self.corner[1] + nx))
        image, weight = (
            np.fromfile(
                self.path, np.float32, (end - begin) * nx, offset=4 * (begin + plane * ny) * nx
            ).reshape(-1, nx)
            for plane in (0, 1)
        )
        return where, image, weight

    def values(self, first, last):
        """Return what `pixels` does, with NaN in the image where the frame has no value."""
        where, image, weight = self.pixels(first, last)
        known = weight > 0
        known &= np.isfinite(image)
        np.copyto(image, np.nan, where=~known)
        return where, image, weight

    def rows(self, first, last, light=0):
        """Return image and standard deviation of rows of the grid, in units of the coadd.

        Parameters
        ----------
        first, last : int
        light : float or ndarray of float32
            Of the sources in those rows of the frame, in units of the coadd: it has its noise too.

        Returns
        -------
        where : tuple of slice
            The part of those rows, and of the columns of the grid, that the frame covers.
        image, noise : ndarray of float32
            NaN where the frame has no value.
        """
        where, image, weight = self.values(first, last)
        with np.errstate(divide="ignore"):
            variance = np.divide(1, weight, out=weight)
        variance += light * np.float32(1 / self.gain)
        noise = np.sqrt(variance, out=variance)
        np.copyto(noise, np.nan, where=np.isnan(image))
        return where, image, noise

    def drop(self, row, column):
        """Set the weight of pixels to zero, on disk.

        Parameters
        ----------
        row, column : ndarray of int
            On the grid; those outside of the frame are passed over.
        """
        row, column = row - self.corner[0], column - self.corner[1]
        inside = (row >= 0) & (column >= 0) & (row < self.shape[0]) & (column < self.shape[1])
        if inside.any():
            weight = np.memmap(self.path, np.float32, "r+", 4 * np.prod(self.shape), self.shape)
            weight[row[inside], column[inside]] = 0


def combined_reference(frames, shape, memory):
    """Return the lower median of aligned frames and the number of values, band by band.

    Parameters
    ----------
    frames : list of AlignedFrame
    shape : tuple of int
        Of the grid.
    memory : float
        Bytes that a band of all frames may take.

    Returns
    -------
    image : ndarray of float32, shape `shape`
    number : ndarray of uint16, shape `shape`
    """
    image = np.full(shape, np.nan, np.float32)
    number = np.zeros(shape, np.uint16)
    band = None
    for first, last, inside in _bands(frames, shape, memory / 10):
        size = (max(1, len(inside)), last - first, shape[1])
        if band is None or band.shape != size:
            band = np.empty(size, np.float32)
        band.fill(np.nan)
        for plane, frame in zip(band, inside, strict=False):
            where, values, _ = frame.values(first, last)
            _paste(plane, values, where)
        image[first:last], number[first:last] = reference_image(band)
    return image, number


def _bands(frames, shape, pixels):
    """Part the rows of a grid in bands of so many pixels of all frames.

    Yields
    ------
    first, last : int
    inside : list of AlignedFrame
        Those that reach into the band.
    """
    # As much as stays in the cache, but not by the handful of rows: files are opened for each band.
    height = max(64, BAND // (4 * shape[1] * len(frames)))
    height = max(1, min(height, int(pixels / (shape[1] * len(frames)))))
    for first in range(0, shape[0], height):
        last = min(first + height, shape[0])
        reach = [f for f in frames if f.corner[0] < last and f.corner[0] + f.shape[0] > first]
        yield first, last, reach


def _paste(plane, values, where):
    """Write a part into a plane, what lies outside of it left out."""
    rows, columns = where
    left, right = max(0, columns.start), min(plane.shape[1], columns.stop)
    if right > left:
        plane[rows, left:right] = values[:, left - columns.start : right - columns.start]


def combine_aligned(frames, shape, combine, memory, clip_sigma=4.0, clip_fraction=0.3):
    """Combine aligned frames, band by band.

    As SWarp combines them: values without weight count only where there are no others, and the
    result has no weight then.

    Parameters
    ----------
    frames : list of AlignedFrame
    shape : tuple of int
        Of the grid.
    combine : {'median', 'weighted', 'clipped'}
    memory : float
        Bytes that a band of all frames may take.
    clip_sigma, clip_fraction : float
        Of `combine_clipped`.

    Returns
    -------
    image, weight : ndarray of float32, shape `shape`
        0 where no frame has a pixel. The weight is the inverse variance of independent pixels; for
        the median by the formula of `combine_median`.
    """
    image, weight = np.zeros((2, *shape), np.float32)
    size = None
    for first, last, inside in _bands(frames, shape, memory / 25):
        if not inside:
            continue
        if size != (len(inside), last - first, shape[1]):
            size = (len(inside), last - first, shape[1])
            values, sharp = np.empty((2, *size), np.float32)
        values.fill(np.nan)
        sharp.fill(0)
        for plane, inverse, frame in zip(values, sharp, inside, strict=True):
            where, pixels, weights = frame.pixels(first, last)
            _paste(plane, pixels, where)
            np.copyto(weights, 0, where=~(np.isfinite(pixels) & (weights > 0)))
            np.sqrt(weights, out=weights)
            _paste(inverse, weights, where)
        method = {
            "median": combine_median,
            "weighted": combine_mean,
            "clipped": partial(
                combine_clipped, gains=[frame.gain for frame in inside], sigma=clip_sigma,
                fraction=clip_fraction,
            ),
        }[combine]  # fmt: skip
        for rows in chunks(last - first, max(1, CHUNK // shape[1])):
            there = slice(first + rows.start, first + rows.stop)
            image[there], weight[there] = method(values[:, rows], sharp[:, rows])
    return image, weight


def mask_outliers(frames, shape, memory):
    """Give no weight to what one aligned frame shows and the others do not.

    Parameters
    ----------
    frames : list of AlignedFrame
        Three or more.
    shape : tuple of int
        Of the grid.
    memory : float
        Bytes for a band of all frames.

    Returns
    -------
    list of tuple of int
        For each frame the pixels of rays and the like, and those of trails. A place where two
        frames (from a hundred on one in fifty) differ from the others is no ray: it shone for
        some time.
    """
    from scipy.ndimage import maximum_filter

    image, number = combined_reference(frames, shape, memory)
    fwhm = float(np.median([frame.fwhm for frame in frames]))
    usual = float(np.median([frame.noise for frame in frames]))
    reference = Reference.describe(image, number, usual, fwhm)
    del image, number
    seen = np.zeros(shape, np.uint16)
    found = []
    for frame in frames:
        inside = tuple(
            slice(max(0, at), min(at + size, whole))
            for at, size, whole in zip(frame.corner, frame.shape, shape, strict=True)
        )
        cut = tuple(
            slice(part.start - at, part.stop - at)
            for part, at in zip(inside, frame.corner, strict=True)
        )
        known = reference.part(inside)
        light = np.zeros(frame.shape, np.float32)
        light[cut] = known.highest
        _, image, noise = frame.rows(
            frame.corner[0], frame.corner[0] + frame.shape[0], light
        )  # fmt: skip
        outliers, trails = find_outliers(image[cut], noise[cut], frame.fwhm, known)
        outliers &= ~trails
        if outliers.any():
            seen[inside] += outliers
        found.append([_flat(mask, inside, shape) for mask in (outliers, trails)])
    lasting = seen > max(1, len(frames) // 50)
    if lasting.any():  # with its rim, which not all frames show
        lasting = maximum_filter(lasting, 2 * int(np.ceil(fwhm)) + 1)
    lasting = lasting.ravel()
    counts = []
    for frame, (outliers, trails) in zip(frames, found, strict=True):
        outliers = outliers[~lasting[outliers]]
        counts.append((int(outliers.size), int(trails.size)))
        frame.drop(*np.divmod(np.concatenate([outliers, trails]), shape[1]))
    return counts


def combine_mean(values, sharp):
    """Return the weighted mean of values; for the parameters see `combine_median`."""
    weights = sharp * sharp
    weight = weights.sum(axis=0)
    known = weights > 0
    total = np.where(known, values, 0)
    total *= weights
    mean = np.divide(total.sum(axis=0), weight, out=np.zeros_like(weight), where=weight > 0)
    return _without_weight(mean, weight > 0, values), weight


def combine_clipped(values, sharp, gains, sigma, fraction):
    """Return the weighted mean of the values near the median; for the rest see `combine_median`.

    A value is near where it differs from the median by at most `sigma` of its noise, the photons
    of the median included, and `fraction` of the median. Of two that differ from each other by
    more, none is. Source: Gruen, Seitz & Bernstein 2014, PASP 126, 158.

    Parameters
    ----------
    values, sharp : ndarray of float32, shape (n, ...)
    gains : array_like, shape (n,)
        Electrons per unit.
    sigma, fraction : float
    """
    median, _ = combine_median(values, sharp)
    light = np.abs(median)
    known = sharp > 0
    variance = np.divide(1, sharp, out=np.zeros_like(sharp), where=known)
    variance *= variance
    for plane, gain in zip(variance, gains, strict=True):
        plane += light / np.float32(gain)
    distance = np.abs(values - median)
    two = known.sum(axis=0) == 2
    np.copyto(distance, 2 * distance, where=two)
    np.copyto(variance, (variance * known).sum(axis=0), where=two)
    near = distance <= np.float32(sigma) * np.sqrt(variance) + np.float32(fraction) * light
    return combine_mean(values, np.where(near, sharp, 0))


def combine_median(values, sharp):
    """Return the median of values with weight, and the inverse of its variance.

    Source of the variance: SWarp's, right within 3 % for Gaussian noise: of n >= 3 values
    pi/2 n^2 / ((sum 1/sigma)^2 (n + c)), where c is pi/2 - 1 for odd n and pi - 2 for even n.

    Parameters
    ----------
    values : ndarray of float32, shape (n, ...)
        NaN where there is none.
    sharp : ndarray of float32, shape (n, ...)
        1 / sigma of each; 0 where a value has no weight.

    Returns
    -------
    median, weight : ndarray of float32, shape (...)
    """
    known = sharp > 0
    count = known.sum(axis=0)
    ordered = ranked_planes(np.where(known, values, np.float32(np.inf)).reshape(len(values), -1))
    ordered = [plane.reshape(count.shape) for plane in ordered]
    total = sharp.sum(axis=0)
    median, weight = np.zeros((2, *count.shape), np.float32)
    for n in np.unique(count):
        if n == 0:
            continue
        where = count == n
        middle = np.float32(0.5) * (ordered[(n - 1) // 2] + ordered[n // 2])
        np.copyto(median, middle, where=where)
        if n > 2:
            spread = n + (np.pi / 2 - 1 if n % 2 else np.pi - 2)
            np.copyto(weight, np.float32(2 * spread / (np.pi * n**2)) * total**2, where=where)
        else:
            each = np.divide(1, sharp, out=np.zeros_like(sharp), where=known & where)
            variance = (each * each).sum(axis=0)
            np.divide(np.float32(n**2), variance, out=weight, where=where)
    return _without_weight(median, count > 0, values), weight


def _without_weight(combined, known, values):
    """Return combined values with the median of all where none has weight: cores of stars."""
    lost = ~known
    if lost.any():
        others = values[:, lost]
        # What is 0 lies beyond the edge of the frame.
        seen = np.isfinite(others) & (others != 0)
        ordered = np.sort(np.where(seen, others, np.float32(np.inf)), axis=0)
        count = np.maximum(seen.sum(axis=0), 1)
        column = np.arange(count.size)
        middle = ordered[(count - 1) // 2, column] + ordered[count // 2, column]
        combined[lost] = np.where(seen.any(axis=0), np.float32(0.5) * middle, 0)
    return combined


def _flat(mask, inside, shape):
    """Return the flat indices on the grid of the pixels of a mask of a part of it."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return (rows + inside[0].start) * shape[1] + columns + inside[1].start
