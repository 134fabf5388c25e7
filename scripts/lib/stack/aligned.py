"""Frames resampled to the grid of a coadd: read in bands, outliers masked, combined.

Memory holds one frame, a few maps of the size of the coadd, and a band of rows of all frames,
however many frames there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.core.medians import lower_median, median_without_weight, weighted_median
from lib.core.stats import CHUNK, chunks
from lib.photometry.coverage import BLOCK
from lib.stack.outliers import ReferenceImage, find_outliers
from lib.stack.stackframe import OutlierCounts

BAND_BYTES = 1 << 23
"""[byte] Values of all frames in a band of rows combined at once, so that it fits into the
cache."""


@dataclass(frozen=True)
class AlignedFrame:
    """A resampled frame and its weight map, in memory or on disk.

    Parameters
    ----------
    planes : tuple of ndarray of float32, shape (ny, nx), or Path
        Image and weight (inverse variance), in units of the coadd. On disk one follows the other,
        in native byte order.
    shape : tuple of int
        (ny, nx).
    corner : tuple of int
        Row and column of the first pixel on the grid of the coadd.
    gain : float
        Electrons per unit of the coadd.
    fwhm : float
        FWHM of the stars [pixel of the grid].
    noise : float
        Noise of a typical pixel, in units of the coadd.
    """

    planes: tuple[np.ndarray, np.ndarray] | Path
    shape: tuple[int, int]
    corner: tuple[int, int]
    gain: float
    fwhm: float
    noise: float

    @classmethod
    def store(
        cls,
        image: np.ndarray,
        weight: np.ndarray,
        corner: tuple[int, int],
        path: Path | None = None,
        *,
        gain: float,
        fwhm: float,
        noise: float,
    ) -> "AlignedFrame":
        """Return a resampled frame, kept in memory or written to disk.

        Parameters
        ----------
        image, weight : ndarray of float32, shape (ny, nx)
            Image and inverse variance, in units of the coadd.
        corner : tuple of int
            Row and column of the first pixel on the grid of the coadd.
        path : path-like, optional
            File to write; without it the frame is kept in memory.
        gain, fwhm, noise : float
            See the class.

        Returns
        -------
        AlignedFrame
        """
        planes: tuple[np.ndarray, np.ndarray] | Path = (image, weight)
        if path:
            with open(path, "wb") as file:
                image.tofile(file)
                weight.tofile(file)
            planes = path
        ny, nx = image.shape
        return cls(planes, (ny, nx), corner, gain, fwhm, noise)

    def pixels(self, first: int, last: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Return image and weight in a range of rows of the grid.

        Parameters
        ----------
        first, last : int
            Rows of the grid, `last` excluded.

        Returns
        -------
        where : tuple of slice
            The part of those rows, and of the columns of the grid, that the frame covers.
        image, weight : ndarray of float32
            Read-only views.
        """
        ny, nx = self.shape
        begin, end = np.clip((first - self.corner[0], last - self.corner[0]), 0, ny)
        end = max(begin, end)
        top = begin + self.corner[0] - first
        where = (slice(top, top + end - begin), slice(self.corner[1], self.corner[1] + nx))
        if not isinstance(self.planes, Path):
            image, weight = self.planes
            return where, image[begin:end], weight[begin:end]
        image, weight = (
            np.fromfile(
                self.planes, np.float32, (end - begin) * nx, offset=4 * (begin + plane * ny) * nx
            ).reshape(-1, nx)
            for plane in (0, 1)
        )
        return where, image, weight

    def footprint(self, shape: tuple[int, int]) -> np.ndarray:
        """Return the blocks of a grid in which the frame has weight.

        Parameters
        ----------
        shape : tuple of int
            Shape of the grid.

        Returns
        -------
        ndarray of bool, shape (by, bx)
            One value per block of `lib.photometry.coverage.BLOCK` pixels, sampled at four pixels,
            so that a single bad pixel does not count.
        """
        half = BLOCK // 2
        there = np.zeros([2 * -(-size // BLOCK) for size in shape], bool)
        where, _, weight = self.pixels(0, shape[0])
        row, column = (np.arange(half // 2, size, half) for size in shape)
        rows = row[(row >= where[0].start) & (row < where[0].stop)]
        columns = column[(column >= where[1].start) & (column < where[1].stop)]
        seen = weight[np.ix_(rows - where[0].start, columns - where[1].start)] > 0
        there[np.ix_(rows // half, columns // half)] = seen
        by, bx = (size // 2 for size in there.shape)
        return np.asarray(there.reshape(by, 2, bx, 2).any(axis=(1, 3)))

    def zero_weight(self, row: np.ndarray, column: np.ndarray) -> None:
        """Set the weight of pixels to zero.

        Parameters
        ----------
        row, column : ndarray of int
            Positions on the grid; those outside the frame are ignored.
        """
        row, column = row - self.corner[0], column - self.corner[1]
        inside = (row >= 0) & (column >= 0) & (row < self.shape[0]) & (column < self.shape[1])
        if not inside.any():
            return
        if isinstance(self.planes, Path):
            offset = 4 * self.shape[0] * self.shape[1]
            weight: np.ndarray = np.memmap(self.planes, np.float32, "r+", offset, self.shape)
        else:
            weight = self.planes[1]
        weight[row[inside], column[inside]] = 0


def median_reference(
    frames: list[AlignedFrame], shape: tuple[int, int], memory: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `lower_median` of aligned frames and the number of values, band by band.

    Parameters
    ----------
    frames : list of AlignedFrame
        The frames.
    shape : tuple of int
        Shape of the grid.
    memory : float
        Maximum size of a band of all frames [byte].

    Returns
    -------
    image : ndarray of float32, shape `shape`
        Median image; NaN where no frame has a value.
    number : ndarray of uint16, shape `shape`
        Number of values of each pixel.
    """
    image = np.full(shape, np.nan, np.float32)
    number = np.zeros(shape, np.uint16)
    for rows, _, values, weights in _gather_bands(frames, shape, memory):
        image[rows], number[rows] = lower_median(values, weights)
    return image, number


def _gather_bands(frames, shape, memory):
    """Divide the rows of a grid into bands, and gather the values of the frames in each.

    Yields
    ------
    rows : slice
    inside : list of AlignedFrame
        Frames that reach into the band, at least one.
    values, weights : ndarray of float32, shape (n, rows, columns)
        Values and weights of those frames; 0 beyond their edges.
    """
    # As large as the cache allows, but not single rows: each band opens the files again.
    height = max(64, BAND_BYTES // (4 * shape[1] * len(frames)))
    # Two numbers for each pixel, and as many again for the combination.
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
    """Copy a part into a plane, clipped to it, and fill the rest with 0."""
    rows, columns = where
    left, right = max(0, columns.start), min(plane.shape[1], columns.stop)
    right = max(left, right)
    plane[: rows.start] = 0
    plane[rows.stop :] = 0
    plane[rows, :left] = 0
    plane[rows, right:] = 0
    plane[rows, left:right] = values[:, left - columns.start : right - columns.start]


def combine_aligned(
    frames: list[AlignedFrame],
    shape: tuple[int, int],
    combine: str,
    memory: float,
    clip_sigma: float = 4.0,
    clip_fraction: float = 0.3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Combine aligned frames, band by band.

    As in SWarp, values without weight count only where no others exist, and the result then has no
    weight.

    Parameters
    ----------
    frames : list of AlignedFrame
        The frames.
    shape : tuple of int
        Shape of the grid.
    combine : {'median', 'weighted', 'clipped'}
    memory : float
        Maximum size of a band of all frames [byte].
    clip_sigma, clip_fraction : float
        See `combine_clipped`.

    Returns
    -------
    image, weight : ndarray of float32, shape `shape`
        Combined image and its weight, 0 where no frame has a pixel. The weight is the inverse
        variance for independent pixels; for the median it follows from the formula in
        `weighted_median`.
    number : ndarray of uint16, shape `shape`
        Number of frames with weight.
    """
    image, weight = np.zeros((2, *shape), np.float32)
    number = np.zeros(shape, np.uint16)
    for rows, inside, values, weights in _gather_bands(frames, shape, memory):
        for plane in weights:
            number[rows] += plane > 0
        if combine == "median":
            image[rows], weight[rows] = weighted_median(values, weights)
            continue
        gains = [frame.gain for frame in inside]
        for part in chunks(rows.stop - rows.start, max(1, CHUNK // shape[1])):
            there = slice(rows.start + part.start, rows.start + part.stop)
            if combine == "weighted":
                image[there], weight[there] = combine_mean(values[:, part], weights[:, part])
            else:
                image[there], weight[there] = combine_clipped(
                    values[:, part], weights[:, part], gains, clip_sigma, clip_fraction
                )
    return image, weight, number


def mask_outliers(
    frames: list[AlignedFrame], shape: tuple[int, int], memory: float, spare_lasting: bool = True
) -> list[OutlierCounts]:
    """Set the weight of outliers, pixels of one aligned frame contradicted by the others, to zero.

    Parameters
    ----------
    frames : list of AlignedFrame
        At least three frames.
    shape : tuple of int
        Shape of the grid.
    memory : float
        Maximum size of a band of all frames [byte].
    spare_lasting : bool
        Whether to keep pixels in which two frames (from a hundred frames on, one in fifty) differ
        from the others: something that shone for a while is no cosmic ray. False where frames
        follow a moving object and stars pass.

    Returns
    -------
    list of OutlierCounts
        Masked pixels of each frame.
    """
    from scipy.ndimage import maximum_filter

    image, number = median_reference(frames, shape, memory)
    fwhm = float(np.median([frame.fwhm for frame in frames]))
    usual = float(np.median([frame.noise for frame in frames]))
    reference = ReferenceImage.from_median(image, number, usual, fwhm)
    del image, number
    seen = np.zeros(shape, np.uint16)
    found = []
    for frame in frames:
        top, left = frame.corner
        rows = slice(max(0, top), min(top + frame.shape[0], shape[0]))
        columns = slice(max(0, left), min(left + frame.shape[1], shape[1]))
        inside = (rows, columns)
        cut = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        _, pixels, weight = frame.pixels(frame.corner[0], frame.corner[0] + frame.shape[0])
        outliers, trails = find_outliers(
            pixels[cut], weight[cut], frame.gain, frame.fwhm, reference.part(inside)
        )
        outliers &= ~trails
        if outliers.any():
            seen[inside] += outliers
        found.append([_flat_indices(mask, inside, shape) for mask in (outliers, trails)])
    lasting = seen > (max(1, len(frames) // 50) if spare_lasting else len(frames))
    if lasting.any():  # including its margin, which not all frames show
        lasting = maximum_filter(lasting, 2 * int(np.ceil(fwhm)) + 1)
    lasting = lasting.ravel()
    counts = []
    for frame, (outliers, trails) in zip(frames, found, strict=True):
        outliers = outliers[~lasting[outliers]]
        counts.append(OutlierCounts(int(outliers.size), int(trails.size)))
        row, column = np.divmod(np.concatenate([outliers, trails]), shape[1])
        frame.zero_weight(row, column)
    return counts


def combine_mean(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean of values; for the parameters see `weighted_median`."""
    known = (weights > 0) & np.isfinite(values)
    weights = np.where(known, weights, 0)
    weight = weights.sum(axis=0)
    total = np.where(known, values, 0)
    total *= weights
    mean = np.divide(total.sum(axis=0), weight, out=np.zeros_like(weight), where=weight > 0)
    return median_without_weight(mean, weight, values), weight


def combine_clipped(
    values: np.ndarray,
    weights: np.ndarray,
    gains: Sequence[float],
    sigma: float,
    fraction: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the values close to the median; for the rest see `weighted_median`.

    A value is close if it differs from the median by at most `sigma` of its noise, including the
    photon noise of the median, plus `fraction` of the median. Of two that differ by more, neither
    is. The method is that of Gruen, Seitz & Bernstein (2014, PASP 126, 158).

    Parameters
    ----------
    values, weights : ndarray of float32, shape (n, ...)
        Values of n frames and their inverse variances.
    gains : array_like, shape (n,)
        Electrons per unit.
    sigma, fraction : float
        Maximum difference from the median, in units of the noise and as a fraction of the median.
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


def _flat_indices(mask, inside, shape):
    """Return the flat grid indices of the true pixels of a mask that covers part of the grid."""
    rows, columns = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return (rows + inside[0].start) * shape[1] + columns + inside[1].start
