"""What one of several aligned exposures shows and the others do not: satellites, missed rays.

A single frame cannot tell a satellite from a galaxy's edge, nor a blunt cosmic ray from a star.
Three exposures of the same sky can. The images are to be on one pixel grid, on one photometric
scale, with the sky at zero.
"""

from dataclasses import dataclass

import numpy as np

from lib.stats import sort_planes

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
    known = np.isfinite(images)
    number = known.sum(axis=0, dtype=np.uint16)
    ordered = np.where(known, images, np.float32(np.inf))
    sort_planes(ordered)
    middle = (np.maximum(number, 1) - 1) // 2
    reference = np.full(number.shape, np.nan, np.float32)
    for at in range(int(middle.max(initial=0)) + 1):
        np.copyto(reference, ordered[at], where=(middle == at) & (number > 1))
    return reference, number


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
    lit : ndarray of bool, shape (ny, nx)
        With more light of sources than a quarter of `noise`, in the mean of some 50 pixels.
    centres : ndarray of bool, shape (ny, nx)
        Within a quarter of `fwhm` of the peak of a source.
    noise : float
        Typical noise of a pixel of an exposure.
    fwhm : float
        Width of the stars [px].
    """

    image: np.ndarray
    number: np.ndarray
    highest: np.ndarray
    change: np.ndarray
    lit: np.ndarray
    centres: np.ndarray
    noise: float
    fwhm: float

    @classmethod
    def describe(cls, image, number, noise, fwhm):
        """Return the reference of an image made by `reference_image`."""
        from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

        known = np.nan_to_num(image)
        smooth = gaussian_filter(known, 1.0)
        peaks = (smooth > 0.7 * noise) & (smooth == maximum_filter(smooth, 3))
        reach = max(1, int(np.rint(0.25 * fwhm)))
        centres = maximum_filter(peaks, 2 * reach + 1)
        light = np.where(smooth > noise, known, smooth)
        highest = maximum_filter(light, 3)
        change = highest - minimum_filter(light, 3)
        lit = gaussian_filter(known, 2.0) > 0.25 * noise
        return cls(image, number, np.maximum(highest, 0), change, lit, centres, float(noise), fwhm)

    def part(self, where):
        """Return a part of it."""
        return Reference(
            self.image[where], self.number[where], self.highest[where], self.change[where],
            self.lit[where], self.centres[where], self.noise, self.fwhm,
        )  # fmt: skip

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
        return size * self.highest + np.float32(0.5) * self.change


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
    from scipy.ndimage import label, uniform_filter

    # A bright pixel shall not make 25 of them bright.
    excess = excess.clip(-5, 5)
    bright = uniform_filter(excess, 5) > sigma
    found = np.zeros(excess.shape, bool)
    labels, _ = label(bright, np.ones((3, 3), bool))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    y, x = np.nonzero(bright)
    labels_there = labels[y, x]
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


def centred_on_stars(outliers, beyond, reference):
    """Return the outliers that are the centre of a star: it varies, or its profile does.

    Parameters
    ----------
    outliers : ndarray of bool, shape (ny, nx)
    beyond : ndarray of float32, shape (ny, nx)
        Their significance.
    reference : Reference

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Connected ones of no more pixels than a disc of 1.5 FWHM, the most significant of which
        is a centre of the reference.
    """
    from scipy.ndimage import label

    labels, count = label(outliers, np.ones((3, 3), bool))
    rows, columns = np.nonzero(outliers)
    numbers = labels[rows, columns]
    best = np.zeros(count + 1, int)
    order = np.argsort(beyond[rows, columns])
    best[numbers[order]] = order  # the last that is written stays
    star = reference.centres[rows[best], columns[best]]
    star &= np.bincount(numbers, minlength=count + 1) <= np.pi * (1.5 * reference.fwhm) ** 2
    stars = np.zeros(outliers.shape, bool)
    stars[rows, columns] = star[numbers]
    return stars


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
    from scipy.ndimage import binary_dilation, binary_propagation

    square = np.ones((3, 3), bool)
    difference = image - reference.image
    told = (reference.number >= 3) & np.isfinite(difference)
    difference[~told] = 0
    # The median of m values has a variance of pi / 2 m.
    error = noise * np.sqrt(1 + np.float32(np.pi / 2) / np.maximum(reference.number, 1))
    tolerance = reference.tolerance(fwhm)
    beyond = np.abs(difference)
    beyond -= tolerance
    beyond /= error
    # In much worse seeing the wings of stars are many times brighter than their tolerance.
    comparable = told if fwhm < BROAD * reference.fwhm else told & ~reference.lit
    outliers = (beyond > threshold) & comparable
    if outliers.any():
        outliers = binary_propagation(outliers, square, mask=(beyond > neighbour) & comparable)
        outliers &= ~centred_on_stars(outliers, beyond, reference)
        # The faint rim.
        outliers = binary_dilation(outliers, square) & comparable
    # Trails are faint: looked for where no star needs tolerance.
    quiet = told & (tolerance < 0.5 * noise)
    excess = np.where(quiet, difference / error, np.float32(0))
    trails = trail_pixels(excess, fwhm) & np.isfinite(image)
    return outliers, trails
