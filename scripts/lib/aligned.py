"""Frames resampled on the grid of a coadd: read in parts, and masked where they contradict.

However many frames there are, no more is held than one of them, some maps of the size of the
coadd, and a band of rows of all.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.outliers import Reference, find_outliers, reference_image

log = logging.getLogger("autoproc")


@dataclass(frozen=True)
class AlignedFrame:
    """A resampled frame and its weight map, as SWarp has left them on disk.

    Parameters
    ----------
    image, weight : Path
    begin : tuple of int
        Where the pixels begin in the two files [byte].
    shape : tuple of int
        (ny, nx).
    corner : tuple of int
        Row and column of the first pixel on the grid of the coadd.
    scale : float
        What its pixels are multiplied with at the combination.
    gain : float
        Electrons per unit.
    fwhm : float
        Width of the stars [pixel of the grid].
    noise : float
        Of a typical pixel, in units of the coadd.
    """

    image: Path
    weight: Path
    begin: tuple
    shape: tuple
    corner: tuple
    scale: float
    gain: float
    fwhm: float
    noise: float

    @classmethod
    def open(cls, path, grid, fwhm, noise):
        """Return a resampled frame.

        Parameters
        ----------
        path : path-like
            Image; its weight map lies beside it.
        grid : astropy.io.fits.Header
            WCS of the grid, of which the frame covers a part.
        fwhm, noise : float
            As of the class.
        """
        path = Path(path)
        weight = path.with_suffix(".weight.fits")
        begin = []
        for name in (weight, path):
            with fits.open(name) as hdus:
                begin.append(hdus[0].fileinfo()["datLoc"])
                header = hdus[0].header
                if header["BITPIX"] != -32:
                    raise ValueError(f"{name}: BITPIX is {header['BITPIX']}, not -32")
                corner = tuple(
                    int(np.rint(grid[key] - header[key])) for key in ("CRPIX2", "CRPIX1")
                )
                shape = (header["NAXIS2"], header["NAXIS1"])
        scale = float(header.get("FLXSCALE", 1.0)) * float(header.get("FLASCALE", 1.0))
        gain = float(header.get("GAIN", 0.0)) or np.inf
        return cls(path, weight, tuple(begin[::-1]), shape, corner, scale, gain, fwhm, noise)

    def rows(self, first, last):
        """Return image and standard deviation of rows of the grid, in units of the coadd.

        Returns
        -------
        where : tuple of slice
            The part of those rows, and of the columns of the grid, that the frame covers.
        image, noise : ndarray of float32
            NaN where the frame has no value; noise without that of the light of sources.
        """
        begin, end = np.clip((first - self.corner[0], last - self.corner[0]), 0, self.shape[0])
        end = max(begin, end)
        top = begin + self.corner[0] - first
        left = self.corner[1]
        where = (slice(top, top + end - begin), slice(left, left + self.shape[1]))
        image, weight = (
            np.fromfile(
                path, ">f4", (end - begin) * self.shape[1], offset=at + 4 * begin * self.shape[1]
            ).reshape(-1, self.shape[1]).astype(np.float32)
            for path, at in zip((self.image, self.weight), self.begin, strict=True)
        )  # fmt: skip
        with np.errstate(divide="ignore"):
            noise = np.float32(self.scale) / np.sqrt(weight)
        lost = ~np.isfinite(noise) | ~np.isfinite(image)
        image *= np.float32(self.scale)
        image[lost] = np.nan
        noise[lost] = np.nan
        return where, image, noise

    def drop(self, pixels):
        """Set the weight of pixels to zero, on disk.

        Parameters
        ----------
        pixels : ndarray of int
            Flat indices in the frame.
        """
        weight = np.memmap(self.weight, ">f4", "r+", self.begin[1], self.shape)
        weight.reshape(-1)[pixels] = 0
        weight.flush()


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
    # The band, its sorted copy, and what says where there are values.
    height = max(1, int(memory / (10 * shape[1] * len(frames))))
    for first in range(0, shape[0], height):
        last = min(first + height, shape[0])
        inside = [f for f in frames if f.corner[0] < last and f.corner[0] + f.shape[0] > first]
        band = np.full((max(1, len(inside)), last - first, shape[1]), np.nan, np.float32)
        for plane, frame in zip(band, inside, strict=False):
            where, values, _ = frame.rows(first, last)
            _paste(plane, values, where)
        image[first:last], number[first:last] = reference_image(band)
    return image, number


def _paste(plane, values, where):
    """Write a part into a plane, what lies outside of it left out."""
    rows, columns = where
    left, right = max(0, columns.start), min(plane.shape[1], columns.stop)
    if right > left:
        plane[rows, left:right] = values[:, left - columns.start : right - columns.start]


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
        _, image, noise = frame.rows(frame.corner[0], frame.corner[0] + frame.shape[0])
        image, noise, known = image[cut], noise[cut], reference.part(inside)
        # The light of the sources has its noise too.
        photons = known.highest * np.float32(frame.scale / frame.gain)
        noise = np.sqrt(noise**2 + photons)
        outliers, trails = find_outliers(image, noise, frame.fwhm, known)
        outliers &= ~trails
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
        row, column = np.divmod(np.concatenate([outliers, trails]), shape[1])
        frame.drop((row - frame.corner[0]) * frame.shape[1] + column - frame.corner[1])
    return counts


def _flat(mask, inside, shape):
    """Return the flat indices on the grid of the pixels of a mask of a part of it."""
    rows, columns = np.nonzero(mask)
    return (rows + inside[0].start) * shape[1] + columns + inside[1].start
