"""What one of several aligned exposures shows and the others do not: satellites, missed rays.

A single frame cannot tell a satellite from a galaxy's edge, nor a blunt cosmic ray from a star.
Three exposures of the same sky can. The images are to be on one pixel grid, on one photometric
scale, with the sky at zero.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.stats import CHUNK, chunks, ranked_planes

ROWS = 64
"""Rows of an image that are worked on at once: they stay in the cache."""

SLACK = 0.05
"""Fraction by which profiles of one width differ still."""

BROAD = 1.25
"""Stars so much wider than in the reference cannot be compared with it."""


def reference_image(images):
    """Return the lower median of each pixel, which one bright outlier does not move.

    Parameters
    ----------
    images : ndarray of float32, shape (n, ny, nx)
        NaN where an image has no value.

    Returns
    -------
    reference : ndarray of float32, shape (ny, nx)
        Of an even number of values the lower of the middle two: of two, that without the
        satellite. NaN where fewer than two images see the pixel.
    number : ndarray of uint16, shape (ny, nx)
        Values there.
    """
    flat = images.reshape(len(images), -1)
    reference = np.full(flat.shape[1], np.nan, np.float32)
    number = np.zeros(flat.shape[1], np.uint16)
    for part in chunks(flat.shape[1], CHUNK):
        values = flat[:, part].copy()
        missing = np.isnan(values)
        count = len(images) - missing.sum(axis=0, dtype=np.uint16)
        values[missing] = np.inf
        ordered = ranked_planes(values)
        for several in np.unique(count):
            if several > 1:
                middle = ordered[(int(several) - 1) // 2]
                np.copyto(reference[part], middle, where=count == several)
        number[part] = count
    return reference.reshape(images.shape[1:]), number.reshape(images.shape[1:])


def extremes(image, extreme):
    """Return the largest or the least value of 3 x 3 pixels about each.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    extreme : {numpy.maximum, numpy.minimum}

    Returns
    -------
    ndarray, shape (ny, nx)
    """
    rows = image.copy()
    extreme(rows[1:], image[:-1], out=rows[1:])
    extreme(rows[:-1], image[1:], out=rows[:-1])
    found = rows.copy()
    extreme(found[:, 1:], rows[:, :-1], out=found[:, 1:])
    extreme(found[:, :-1], rows[:, 1:], out=found[:, :-1])
    return found


@dataclass(frozen=True)
class Reference:
    """What exposures are compared with.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        NaN where unknown.
    number : ndarray of int, shape (ny, nx)
        Exposures that see the pixel.
    highest, change : ndarray of float32, shape (ny, nx)
        Largest value, and difference of the largest and the least, of 3 x 3 pixels; those of the
        smoothed image where that is fainter than `noise`: the noise of the sky is no star.
    smooth : ndarray of float32, shape (ny, nx)
        The image smoothed by a Gaussian of 1 pixel, 0 for NaN.
    noise : float
        Typical noise of a pixel of an exposure.
    fwhm : float
        Width of the stars [px].
    whole : Reference, optional
        That of which this is a part.
    where : tuple of slice, optional
        Which part.
    """

    image: np.ndarray
    number: np.ndarray
    highest: np.ndarray
    change: np.ndarray
    smooth: np.ndarray
    noise: float
    fwhm: float
    whole: "Reference | None" = None
    where: tuple | None = None

    @classmethod
    def describe(cls, image, number, noise, fwhm):
        """Return the reference of an image made by `reference_image`."""
        from scipy.ndimage import gaussian_filter

        known = np.nan_to_num(image)
        smooth = gaussian_filter(known, 1.0)
        light = np.where(smooth > noise, known, smooth)
        highest = extremes(light, np.maximum)
        change = highest - extremes(light, np.minimum)
        return cls(image, number, np.maximum(highest, 0), change, smooth, float(noise), fwhm)

    def part(self, where):
        """Return a part of it."""
        return Reference(
            self.image[where], self.number[where], self.highest[where], self.change[where],
            self.smooth[where], self.noise, self.fwhm, self, where,
        )  # fmt: skip

    @cached_property
    def doubt(self):
        """Noise of an exposure less the image, in units of that of an exposure."""
        if self.whole is not None:
            return self.whole.doubt[self.where]
        # The median of m values has a variance of pi / 2 m.
        return np.sqrt(1 + np.float32(np.pi / 2) / np.maximum(self.number, 1)).astype(np.float32)

    @cached_property
    def lit(self):
        """Pixels with more light than a quarter of `noise`, in the mean of some 50, (ny, nx)."""
        if self.whole is not None:
            return self.whole.lit[self.where]
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(np.nan_to_num(self.image), 2.0) > 0.25 * self.noise

    @cached_property
    def centres(self):
        """Pixels within a quarter of `fwhm` of the peak of a source, shape (ny, nx)."""
        if self.whole is not None:
            return self.whole.centres[self.where]
        from scipy.ndimage import maximum_filter

        peaks = self.smooth > 0.7 * self.noise
        peaks &= self.smooth == extremes(self.smooth, np.maximum)
        return maximum_filter(peaks, 2 * max(1, int(np.rint(0.25 * self.fwhm))) + 1)

    def tolerance(self, fwhm):
        """Return by how much an image may differ from the reference near stars.

        Parameters
        ----------
        fwhm : float
            Of the image. The peak of a star goes as its inverse square.

        Returns
        -------
        ndarray of float32, shape (ny, nx)
            ``(|ratio^2 - 1| + SLACK) * highest + change / 2``: the second is what half a pixel of
            misalignment makes.
        """
        size = np.float32(abs((self.fwhm / fwhm) ** 2 - 1) + SLACK)
        tolerance = np.float32(0.5) * self.change
        tolerance += size * self.highest
        return tolerance


def fit_line(rows, columns):
    """Fit a straight line to pixels by the principal axis of their places.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (m,)

    Returns
    -------
    centre : ndarray, shape (2,)
        (y, x).
    direction : ndarray, shape (2,)
        Unit vector (dy, dx).
    length, thickness : float
        Of the uniform rectangle of the same variances [px].
    """
    centre = np.array([rows.mean(), columns.mean()])
    offsets = np.stack([rows, columns], axis=1) - centre
    values, vectors = np.linalg.eigh(offsets.T @ offsets / rows.size)
    # A uniform line of length L has a variance of L^2 / 12.
    thickness, length = np.sqrt(12 * np.maximum(values, 0))
    return centre, vectors[:, 1], float(length), float(thickness)


def box_sums(image):
    """Return the sums of 5 x 5 pixels about each, those beyond the edge reflected.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    ny, nx = image.shape
    sums = np.empty(image.shape, np.float32)
    padded = np.empty((ROWS + 4, nx + 4), np.float32)
    rows = np.pad(np.arange(ny), 2, mode="symmetric")
    for part in chunks(ny, ROWS):
        size = part.stop - part.start
        block = padded[: size + 4]
        block[:, 2:-2] = image[rows[part.start : part.stop + 4]]
        block[:, :2], block[:, -2:] = block[:, 3:1:-1], block[:, -3:-5:-1]
        column = block[:size] + block[4:]
        for k in (1, 2, 3):
            column += block[k : k + size]
        total = sums[part]
        np.add(column[:, :-4], column[:, 4:], out=total)
        for k in (1, 2, 3):
            total += column[:, k : k + nx]
    return sums


def trail_pixels(excess, width, *, sigma=0.6, length=40, most=20, step=16):
    """Find straight trails, fainter than one pixel's noise would let them be seen.

    Pieces of a trail stand out when averaged over 5 x 5 pixels. The line through each is
    followed over the whole image: it is a trail where most of it is bright.

    Parameters
    ----------
    excess : ndarray of float32, shape (ny, nx)
        Difference from the reference in units of its noise; 0 where unknown.
    width : float
        Width of the stars [px].
    sigma : float
        Mean excess over 5 x 5 pixels of a piece: three times the noise of that mean.
    length : float
        The shortest trail [px].
    most : int
        Pieces followed, the largest first.
    step : int
        The line is followed in steps of so many pixels.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        A band of 1.5 `width` on either side of each trail, as far as it is bright.
    """
    from scipy.ndimage import label

    # A bright pixel shall not make 25 of them bright.
    excess = excess.clip(-5, 5)
    bright = box_sums(excess) > 25 * sigma
    found = np.zeros(excess.shape, bool)
    labels, _ = label(bright, np.ones((3, 3), bool))
    places = np.flatnonzero(bright)
    labels_there = labels.ravel()[places]
    sizes = np.bincount(labels_there, minlength=1)
    if sizes.max() < 25:
        return found
    y, x = np.divmod(places, excess.shape[1])
    for number in np.argsort(sizes)[::-1][:most]:
        piece = labels_there == number
        if sizes[number] < 25 or found[y[piece], x[piece]].mean() > 0.5:
            continue
        centre, direction, long, thick = fit_line(y[piece], x[piece])
        if long < 12 or thick > 0.5 * long:
            continue
        for _ in range(3):  # the pieces beyond tell the direction better
            across = np.abs((y - centre[0]) * direction[1] - (x - centre[1]) * direction[0])
            near = across < width + 3
            if near.sum() < 25:
                break
            centre, direction, _, _ = fit_line(y[near], x[near])
        found |= follow_line(excess, centre, direction, width, length, step)
    return found


def follow_line(excess, centre, direction, width, length, step):
    """Return the band of a trail along a line, empty where the line is not bright.

    Parameters
    ----------
    excess : ndarray of float32, shape (ny, nx)
    centre, direction : ndarray, shape (2,)
        As from `fit_line`.
    width, length, step : float
        See `trail_pixels`.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    # Coordinates along and across, in steps of a pixel; only the strip that is asked for.
    reach = np.hypot(*excess.shape)
    along = np.arange(-np.ceil(reach / step) * step, reach, 1.0)
    across = np.arange(-np.floor(3.5 * width + 2), 3.5 * width + 3)
    values = _along_line(excess, centre, direction, along, across)
    known = values != 0
    # A halo is bright beside the line too.
    core = np.abs(across) <= width / 2
    side = (np.abs(across) > 2 * width + 2) & (np.abs(across) <= 3.5 * width + 2)
    bins = ((along - along[0]) // step).astype(int)

    def profile(part):
        count = np.bincount(bins, weights=known[:, part].sum(axis=1))
        total = np.bincount(bins, weights=values[:, part].sum(axis=1, dtype=np.float64))
        return count, total / np.maximum(count, 1)

    counts, means = profile(core)
    side_counts, side_means = profile(side)
    seen = (counts >= step) & (side_counts >= step)
    noise = np.sqrt(1 / np.maximum(counts, 1) + 1 / np.maximum(side_counts, 1))
    lit = seen & (means - side_means > 3 * noise)
    band = np.zeros(excess.shape, bool)
    if not lit.any():
        return band
    start, end = np.flatnonzero(lit)[[0, -1]]
    share = lit[start : end + 1].sum() / max(1, seen[start : end + 1].sum())
    if (end - start + 1) * step < length or share < 0.7:
        return band
    # Where nothing is known beyond, as in a corner, it goes on.
    while start > 0 and not seen[start - 1]:
        start -= 1
    while end < bins[-1] and not seen[end + 1]:
        end += 1
    first, last = along[0] + (start - 1) * step, along[0] + (end + 2) * step
    half = 1.5 * width + 1
    y, x = _line_pixels(
        centre, direction, np.arange(first, last, 0.7), np.arange(-half, half + 0.35, 0.7)
    )
    inside = (y >= 0) & (x >= 0) & (y < excess.shape[0]) & (x < excess.shape[1])
    band[y[inside], x[inside]] = True
    return band


def _line_pixels(centre, direction, along, across):
    """Return rows and columns of the pixels at places along and across a line."""
    y = centre[0] + along[:, None] * direction[0] - across * direction[1]
    x = centre[1] + along[:, None] * direction[1] + across * direction[0]
    return np.rint(y).astype(int), np.rint(x).astype(int)


def _along_line(image, centre, direction, along, across):
    """Return the nearest pixels along and across a line, 0 outside of the image."""
    y, x = _line_pixels(centre, direction, along, across)
    inside = (y >= 0) & (x >= 0) & (y < image.shape[0]) & (x < image.shape[1])
    values = np.zeros(y.shape, image.dtype)
    values[inside] = image[y[inside], x[inside]]
    return values


def contradicted(beyond, comparable, reference, threshold, neighbour):
    """Return the pixels beyond a threshold with their neighbours beyond a lower one, and a rim.

    What is the centre of a star is left out: it varies, or its profile does. That is where the most
    significant pixel of connected ones, of no more than a disc of 1.5 FWHM, is a centre of the
    reference.

    Parameters
    ----------
    beyond : ndarray of float32, shape (ny, nx)
        Significance of the difference from the reference.
    comparable : ndarray of bool, shape (ny, nx)
    reference : Reference
    threshold, neighbour : float

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    from scipy.ndimage import label

    high = (beyond > neighbour) & comparable
    places = np.flatnonzero(high)
    significance = beyond.ravel()[places]
    if not (significance > threshold).any():
        return np.zeros(beyond.shape, bool)
    labels, count = label(high, np.ones((3, 3), bool))
    numbers = labels.ravel()[places]
    kept = np.zeros(count + 1, bool)
    kept[numbers[significance > threshold]] = True
    best = np.zeros(count + 1, int)
    order = np.argsort(significance)
    best[numbers[order]] = places[order]  # the last that is written stays
    star = reference.centres[np.divmod(best, beyond.shape[1])]
    star &= np.bincount(numbers, minlength=count + 1) <= np.pi * (1.5 * reference.fwhm) ** 2
    kept &= ~star
    outliers = np.zeros(beyond.shape, bool)
    outliers.ravel()[places] = kept[numbers]
    # The faint rim.
    return extremes(outliers, np.maximum) & comparable


def find_outliers(image, noise, fwhm, reference, *, threshold=5.0, neighbour=2.5):
    """Find the pixels of an exposure that the others contradict.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        On the grid and scale of the reference, sky at zero; NaN where it has no value.
    noise : float, or ndarray of float32, shape (ny, nx)
        Of a pixel.
    fwhm : float
        Width of the stars [px].
    reference : Reference
    threshold : float
        Difference from the reference, in units of the noise and beyond its `tolerance`, that
        makes an outlier.
    neighbour : float
        The same beside one.

    Returns
    -------
    outliers, trails : ndarray of bool, shape (ny, nx)
        Single pixels, and bands of straight trails. Nothing where fewer than three exposures see
        a pixel: of two, none can tell which is right. Nothing where a star is brighter or fainter
        than in the others.
    """
    # In much worse seeing the wings of stars are many times brighter than their tolerance.
    comparable = reference.number >= 3
    if fwhm >= BROAD * reference.fwhm:
        comparable &= ~reference.lit
    beyond, excess = np.empty_like(image), np.empty_like(image)
    for rows in chunks(len(image), ROWS):
        there = reference.part(np.s_[rows])
        here = noise[rows] if np.ndim(noise) else noise
        difference = image[rows] - there.image
        known = np.isfinite(difference)
        comparable[rows] &= known
        difference[~known] = 0
        error = here * there.doubt
        tolerance = there.tolerance(fwhm)
        far = np.abs(difference)
        far -= tolerance
        np.divide(far, error, out=beyond[rows])
        # Trails are faint: looked for where no star needs tolerance.
        known &= there.number >= 3
        known &= tolerance < np.float32(0.5) * here
        difference[~known] = 0
        error[~known] = 1
        np.divide(difference, error, out=excess[rows])
    outliers = contradicted(beyond, comparable, reference, threshold, neighbour)
    trails = trail_pixels(excess, fwhm)
    trails &= np.isfinite(image)
    return outliers, trails
