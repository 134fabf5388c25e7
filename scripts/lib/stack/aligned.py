"""Frames resampled on the grid of a coadd: read in parts, masked where they contradict, combined.

However many frames there are, no more is held than one of them, some maps of the size of the
coadd, and a band of rows of all.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lib.core.medians import lower_median, median_without_weight, weighted_median
from lib.core.stats import CHUNK, chunks
from lib.stack.outliers import Reference, find_outliers

log = logging.getLogger("autoproc")

BAND = 1 << 23
"""[byte] Of all frames, when rows of the grid are compared."""


@dataclass(frozen=True)
class AlignedFrame:
    """A resampled frame and its weight map, in memory or on disk.

    Parameters
    ----------
    planes : tuple of ndarray of float32, shape (ny, nx), or Path
        Image and weight (inverse variance), in units of the coadd. On disk one follows the other,
        as this machine has them.
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

    planes: tuple | Path
    shape: tuple
    corner: tuple
    gain: float
    fwhm: float
    noise: float

    @classmethod
    def keep(cls, image, weight, corner, path=None, **described):
        """Return a resampled frame.

        Parameters
        ----------
        image, weight : ndarray of float32, shape (ny, nx)
        corner : tuple of int
        path : path-like, optional
            Where to write it; without it stays in memory.
        **described
            gain, fwhm and noise of the class.
        """
        planes = (image, weight)
        if path:
            with open(path, "wb") as file:
                for plane in planes:
                    plane.tofile(file)
            planes = Path(path)
        return cls(planes, image.shape, tuple(corner), **described)

    def pixels(self, first, last):
        """Return image and weight of rows of the grid.

        Returns
        -------
        where : tuple of slice
            The part of those rows, and of the columns of the grid, that the frame covers.
        image, weight : ndarray of float32
            Not to be written to.
        """
        ny, nx = self.shape
        begin, end = np.clip((first - self.corner[0], last - self.corner[0]), 0, ny)
        end = max(begin, end)
        top = begin + self.corner[0] - first
        where = (slice(top, top + end - begin), slice(self.corner[1], self.corner[1] + nx))
        if not isinstance(self.planes, Path):
            return where, *(plane[begin:end] for plane in self.planes)
        image, weight = (
            np.fromfile(
                self.planes, np.float32, (end - begin) * nx, offset=4 * (begin + plane * ny) * nx
            ).reshape(-1, nx)
            for plane in (0, 1)
        )
        return where, image, weight

    def drop(self, row, column):
        """Set the weight of pixels to zero.

        Parameters
        ----------
        row, column : ndarray of int
            On the grid; those outside of the frame are passed over.
        """
        row, column = row - self.corner[0], column - self.corner[1]
        inside = (row >= 0) & (column >= 0) & (row < self.shape[0]) & (column < self.shape[1])
        if not inside.any():
            return
        if isinstance(self.planes, Path):
            weight = np.memmap(self.planes, np.float32, "r+", 4 * np.prod(self.shape), self.shape)
        else:
            weight = self.planes[1]
        weight[row[inside], column[inside]] = 0


def combined_reference(frames, shape, memory):
    """Return the `lower_median` of aligned frames and the number of values, band by band.

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
    for rows, _, values, weights in _bands(frames, shape, memory):
        image[rows], number[rows] = lower_median(values, weights)
    return image, number


def _bands(frames, shape, memory):
    """Part the rows of a grid in bands, and gather what the frames have there.

    Yields
    ------
    rows : slice
    inside : list of AlignedFrame
        Those that reach into the band: one at least.
    values, weights : ndarray of float32, shape (n, rows, columns)
        Of those frames, 0 beyond their edges.
    """
    # As much as stays in the cache, but not by the handful of rows: files are opened for each band.
    height = max(64, BAND // (4 * shape[1] * len(frames)))
    # Of each pixel two numbers, and as many again where they are combined.
    height = max(1, min(height, int(memory / 16 / (shape[1] * len(frames)))))
    band = np.empty((2, 0, 0, 0), np.float32)
    for first in range(0, shape[0], height):
        last = min(first + height, shape[0])
        inside = [f for f in frames if f.corner[0] < last and f.corner[0] + f.shape[0] > first]
        if not inside:
            continue
        if band.shape[1:3] != (len(inside), last - first):
            band = np.empty((2, len(inside), last - first, shape[1]), np.float32)
        for planes, frame in zip(band.swapaxes(0, 1), inside, strict=True):
            where, *parts = frame.pixels(first, last)
            for plane, part in zip(planes, parts, strict=True):
                _paste(plane, part, where)
        yield slice(first, last), inside, *band


def _paste(plane, values, where):
    """Write a part into a plane, what lies outside of it left out, and 0 all around."""
    rows, columns = where
    left, right = max(0, columns.start), min(plane.shape[1], columns.stop)
    right = max(left, right)
    plane[: rows.start] = 0
    plane[rows.stop :] = 0
    plane[rows, :left] = 0
    plane[rows, right:] = 0
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
        the median by the formula of `weighted_median`.
    """
    image, weight = np.zeros((2, *shape), np.float32)
    for rows, inside, values, weights in _bands(frames, shape, memory):
        if combine == "median":
            image[rows], weight[rows] = weighted_median(values, weights)
            continue
        method = {
            "weighted": combine_mean,
            "clipped": partial(
                combine_clipped, gains=[frame.gain for frame in inside], sigma=clip_sigma,
                fraction=clip_fraction,
            ),
        }[combine]  # fmt: skip
        for part in chunks(rows.stop - rows.start, max(1, CHUNK // shape[1])):
            there = slice(rows.start + part.start, rows.start + part.stop)
            image[there], weight[there] = method(values[:, part], weights[:, part])
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
        _, *planes = frame.pixels(frame.corner[0], frame.corner[0] + frame.shape[0])
        outliers, trails = find_outliers(
            *(plane[cut] for plane in planes), frame.gain, frame.fwhm, reference.part(inside)
        )
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


def combine_mean(values, weights):
    """Return the weighted mean of values; for the parameters see `weighted_median`."""
    known = (weights > 0) & np.isfinite(values)
    weights = np.where(known, weights, 0)
    weight = weights.sum(axis=0)
    total = np.where(known, values, 0)
    total *= weights
    mean = np.divide(total.sum(axis=0), weight, out=np.zeros_like(weight), where=weight > 0)
    return median_without_weight(mean, weight, values), weight


def combine_clipped(values, weights, gains, sigma, fraction):
    """Return the weighted mean of the values near the median; for the rest see `weighted_median`.

    A value is near where it differs from the median by at most `sigma` of its noise, the photons
    of the median included, and `fraction` of the median. Of two that differ from each other by
    more, none is. Source: Gruen, Seitz & Bernstein 2014, PASP 126, 158.

    Parameters
    ----------
    values, weights : ndarray of float32, shape (n, ...)
    gains : array_like, shape (n,)
        Electrons per unit.
    sigma, fraction : float
    """
    median, _ = weighted_median(values, weights)
    light = np.abs(median)
    known = (weights > 0) & np.isfinite(values)
    variance = np.divide(1, weights, out=np.zeros_like(weights), where=known)
    for plane, gain in zip(variance, gains, strict=True):
        plane += light / np.float32(gain)
    distance = np.abs(values - median)
    two = known.sum(axis=0) == 2
    np.copyto(distance, 2 * distance, where=two)
    np.copyto(variance, (variance * known).sum(axis=0), where=two)
    near = distance <= np.float32(sigma) * np.sqrt(variance) + np.float32(fraction) * light
    return combine_mean(values, np.where(near, weights, 0))


def _flat(mask, inside, shape):
    """Return the flat indices on the grid of the pixels of a mask of a part of it."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return (rows + inside[0].start) * shape[1] + columns + inside[1].start
