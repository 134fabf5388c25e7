"""Outliers of aligned exposures: satellite trails and undetected cosmic rays.

A single frame cannot tell a satellite from the edge of a galaxy, nor a blunt cosmic ray from a
star; three exposures of the same sky can. The images must share a pixel grid and a photometric
scale, and have the sky subtracted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.core.compiled import compiled
from lib.core.medians import INFINITE

PROFILE_MISMATCH = 0.05
"""[fraction of the peak] Difference between profiles of equal width."""

MOST_BESIDE = 0.4
"""[peak of the trail] Maximum level beside the core of a trail: a stellar profile has a hundredth
there, that of a satellite out of focus a third."""

LEAST_BESIDE = 0.25
"""[peak of the trail] Depth of troughs beside a bright line at which it is no trail on the sky."""

LINES = 8
"""Maximum number of trails that cross each other and are told apart."""

ON_LINE = 0.7
"""Least fraction of connected pixels that lie on their line; with fewer, several lines cross."""

DIRECTIONS = 180
"""Directions in which lines through pixels are looked for: over a frame of 1000 pixels a step is
nine pixels at the ends, which the fit that follows makes good."""

SEEING_RATIO_LIMIT = 1.25
"""[FWHM of the reference] Maximum width of stars that can be compared with the reference."""


def extremes(image: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """Return the maximum or minimum of the 3 x 3 pixels around each pixel.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The image.
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
class ReferenceImage:
    """The image with which exposures are compared.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Median of the exposures; NaN where unknown.
    number : ndarray of int, shape (ny, nx)
        Number of exposures that cover each pixel.
    highest, spread : ndarray of float32, shape (ny, nx)
        Maximum, and difference between maximum and minimum, of 3 x 3 pixels; those of the smoothed
        image where it is fainter than `noise`, because the noise of the sky is no star.
    smooth : ndarray of float32, shape (ny, nx)
        The image smoothed by a Gaussian of 1 pixel, with 0 for NaN.
    noise : float
        Typical noise of a pixel of an exposure.
    fwhm : float
        FWHM of the stars [pixel].
    whole : ReferenceImage, optional
        The image of which this one is a part.
    where : tuple of slice, optional
        Which part.
    """

    image: np.ndarray
    number: np.ndarray
    highest: np.ndarray
    spread: np.ndarray
    smooth: np.ndarray
    noise: float
    fwhm: float
    whole: "ReferenceImage | None" = None
    where: tuple[slice, slice] | None = None

    @classmethod
    def from_median(
        cls, image: np.ndarray, number: np.ndarray, noise: float, fwhm: float
    ) -> "ReferenceImage":
        """Return the reference for an image made by `lib.core.medians.lower_median`."""
        from scipy.ndimage import gaussian_filter

        known = np.nan_to_num(image)
        smooth = gaussian_filter(known, 1.0)
        light = np.where(smooth > noise, known, smooth)
        highest = extremes(light, np.maximum)
        spread = highest - extremes(light, np.minimum)
        return cls(image, number, np.maximum(highest, 0), spread, smooth, float(noise), fwhm)

    def part(self, where: tuple[slice, slice]) -> "ReferenceImage":
        """Return the part within slices of rows and columns."""
        return ReferenceImage(
            self.image[where], self.number[where], self.highest[where], self.spread[where],
            self.smooth[where], self.noise, self.fwhm, self, where,
        )  # fmt: skip

    @cached_property
    def error_factor(self) -> np.ndarray:
        """Noise of the difference between exposure and reference, in units of the exposure's.

        Shape (n + 1,): one value for each number of exposures that cover a pixel.
        """
        if self.whole is not None:
            return self.whole.error_factor
        # The median of m values has a variance of pi / 2 m.
        number = np.maximum(np.arange(self.number.max(initial=0) + 1, dtype=np.uint16), 1)
        return np.sqrt(1 + np.float32(np.pi / 2) / number)

    @cached_property
    def light_mask(self) -> np.ndarray:
        """Pixels whose mean over about 50 pixels is above a quarter of `noise`, shape (ny, nx)."""
        if self.whole is not None:
            return self.whole.light_mask[self.where]
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(np.nan_to_num(self.image), 2.0) > 0.25 * self.noise

    @cached_property
    def source_centres(self) -> np.ndarray:
        """Pixels within a quarter of `fwhm` of the peak of a source, shape (ny, nx)."""
        if self.whole is not None:
            return self.whole.source_centres[self.where]
        from scipy.ndimage import maximum_filter

        peaks = self.smooth > 0.7 * self.noise
        peaks &= self.smooth == extremes(self.smooth, np.maximum)
        return maximum_filter(peaks, 2 * max(1, int(np.rint(0.25 * self.fwhm))) + 1)

    def profile_tolerance(self, fwhm: float) -> np.float32:
        """Return the relative difference that a star in an image may have from the reference.

        It is ``|ratio^2 - 1| + PROFILE_MISMATCH``: the peak of a star goes as the inverse square of
        its width. Half of `spread`, the effect of a misalignment by half a pixel, comes in
        addition.

        Parameters
        ----------
        fwhm : float
            FWHM of the stars in the image [pixel].
        """
        return np.float32(abs((self.fwhm / fwhm) ** 2 - 1) + PROFILE_MISMATCH)


def fit_line(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Fit a straight line to pixels by the principal axis of their positions.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (m,)
        Pixels.

    Returns
    -------
    centre : ndarray, shape (2,)
        Mean position (y, x).
    direction : ndarray, shape (2,)
        Unit vector (dy, dx).
    length, thickness : float
        Length and thickness of the uniform rectangle with the same variances [pixel].
    """
    centre = np.array([rows.mean(), columns.mean()])
    offsets = np.stack([rows, columns], axis=1) - centre
    values, vectors = np.linalg.eigh(offsets.T @ offsets / rows.size)
    # A uniform line of length L has a variance of L^2 / 12.
    thickness, length = np.sqrt(12 * np.maximum(values, 0))
    return centre, vectors[:, 1], float(length), float(thickness)


def distances(
    rows: np.ndarray, columns: np.ndarray, centre: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Return the distances of pixels from a line of `fit_line` [pixel]."""
    across = (rows - centre[0]) * direction[1] - (columns - centre[1]) * direction[0]
    return np.asarray(np.abs(across))


def lines_through(
    rows: np.ndarray, columns: np.ndarray, width: float, length: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the lines through connected pixels: one, or those of trails that cross.

    Where the pixels together are no line, the line that most of them lie on is taken, by the
    transform of Hough (Duda & Hart 1972, Comm. ACM 15, 11), then that of the others.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (m,)
        Pixels.
    width : float
        Width of a line [pixel].
    length : float
        Minimum length of lines that cross [pixel].

    Yields
    ------
    centre, direction : ndarray, shape (2,)
        As from `fit_line`.
    """
    centre, direction, long, thick = fit_line(rows, columns)
    if long < 12:
        return
    step = width + 3
    near = distances(rows, columns, centre, direction) < step
    if thick <= 0.5 * long and (long < length or np.mean(near) > ON_LINE):
        yield centre, direction
        return
    angles = np.pi / DIRECTIONS * np.arange(DIRECTIONS)
    across = np.stack([np.cos(angles), np.sin(angles)])
    for _ in range(LINES):
        if rows.size < length:
            return
        every = max(1, rows.size // 2000)
        places = np.stack([rows[::every], columns[::every]], axis=1)
        cells = np.rint(places @ across / step).astype(int)
        cells -= cells.min()
        number = int(cells.max()) + 1
        votes = np.bincount((cells + number * np.arange(DIRECTIONS)).ravel())
        angle, cell = divmod(int(np.argmax(votes)), number)
        middle = places[cells[:, angle] == cell].mean(axis=0)
        offsets = np.stack([rows, columns], axis=1) - middle
        near = np.abs(offsets @ across[:, angle]) < step
        centre, direction, long, thick = fit_line(rows[near], columns[near])
        if long < length or thick > 0.5 * long:
            return
        yield centre, direction
        rows, columns = rows[~near], columns[~near]


@compiled("f4[:,::1](f4[:,::1])")
def box_sums(image: np.ndarray) -> np.ndarray:
    """Return the sums over the 5 x 5 pixels around each, with reflection at the edges.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        The image.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The sums.
    """
    ny, nx = image.shape
    sums = np.empty((ny, nx), np.float32)
    column = np.empty(nx + 4, np.float32)
    for y in range(ny):
        part = column[2 : nx + 2]
        part[:] = 0
        for step in range(-2, 3):
            # Reflected at the edges, repeatedly for small images.
            row = (y + step) % (2 * ny)
            line = image[min(row, 2 * ny - 1 - row)]
            for x in range(nx):
                part[x] += line[x]
        column[1], column[0] = column[2], column[2 + min(1, nx - 1)]
        column[nx + 2], column[nx + 3] = column[nx + 1], column[max(2, nx)]
        total = sums[y]
        for x in range(nx):
            total[x] = column[x] + column[x + 1] + column[x + 2] + column[x + 3] + column[x + 4]
    return sums


@compiled("void(i8[::1], i8, i8)")
def _unite(parent, one, other):
    """Merge the groups of two pixels; a group is represented by its first pixel."""
    while parent[one] != one:
        one = parent[one]
    while parent[other] != other:
        other = parent[other]
    parent[max(one, other)] = min(one, other)


@compiled("i8[::1](i8[::1], i8)")
def connected_components(places: np.ndarray, width: int) -> np.ndarray:
    """Label the connected pixels of a mask, diagonal neighbours included.

    Parameters
    ----------
    places : ndarray of int, shape (n,)
        Flat indices of the pixels, ascending.
    width : int
        Width of the image.

    Returns
    -------
    ndarray of int, shape (n,)
        Label of each pixel, from 0, in order of the groups' first pixels.
    """
    parent = np.arange(places.size)
    above = 0
    for n in range(places.size):
        place = places[n]
        column = place % width
        while places[above] < place - width - 1:
            above += 1
        before = above
        while before < n and places[before] <= place - width + 1:
            # Neighbours do not wrap around the edges.
            if places[before] % width == column + places[before] + width - place:
                _unite(parent, before, n)
            before += 1
        if n and column and places[n - 1] == place - 1:
            _unite(parent, n - 1, n)
    number, count = np.empty_like(parent), 0
    for n in range(places.size):
        if parent[n] == n:
            number[n] = count
            count += 1
        else:
            number[n] = number[parent[n]]
    return number


def find_trails(
    excess: np.ndarray,
    width: float,
    *,
    sigma: float = 0.6,
    length: float = 40,
    most: int = 20,
    step: int = 16,
) -> np.ndarray:
    """Find straight trails, also those below the noise of a pixel.

    Pieces of a trail stand out in averages over 5 x 5 pixels. The line through each piece is
    followed across the image: it is a trail if most of it is bright.

    Parameters
    ----------
    excess : ndarray of float32, shape (ny, nx)
        Difference from the reference in units of its noise, clipped at 5; 0 where unknown.
    width : float
        FWHM of the stars [pixel].
    sigma : float
        Minimum mean excess of a piece over 5 x 5 pixels: three times the noise of that mean.
    length : float
        Minimum length of a trail [pixel].
    most : int
        Maximum number of pieces followed, the largest first.
    step : int
        Step along the line [pixel].

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        A band of 1.5 `width` on either side of each trail, as far as it is bright.
    """
    bright = box_sums(excess) > 25 * sigma
    found = np.zeros(excess.shape, bool)
    places = np.flatnonzero(bright)
    labels = connected_components(places, excess.shape[1])
    sizes = np.bincount(labels, minlength=1)
    if sizes.max() < 25:
        return found
    y, x = np.divmod(places, excess.shape[1])
    for number in np.argsort(sizes)[::-1][:most]:
        piece = labels == number
        if sizes[number] < 25 or found[y[piece], x[piece]].mean() > 0.5:
            continue
        for centre, direction in lines_through(y[piece], x[piece], width, length):
            for _ in range(3):  # further pieces improve the direction
                near = distances(y, x, centre, direction) < width + 3
                if near.sum() < 25:
                    break
                centre, direction, _, _ = fit_line(y[near], x[near])
            found |= follow_line(excess, centre, direction, width, length, step)
    return found


def follow_line(
    excess: np.ndarray,
    centre: np.ndarray,
    direction: np.ndarray,
    width: float,
    length: float,
    step: int,
) -> np.ndarray:
    """Return the band of a trail along a line, empty where the line is not bright.

    Parameters
    ----------
    excess : ndarray of float32, shape (ny, nx)
        Difference from the reference, as for `find_trails`.
    centre, direction : ndarray, shape (2,)
        As from `fit_line`.
    width, length, step : float
        As for `find_trails`.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Pixels of the band.
    """
    # Coordinates along and across the line in steps of a pixel, for the strip needed only.
    reach = np.hypot(*excess.shape)
    along = np.arange(-np.ceil(reach / step) * step, reach, 1.0)
    across = np.arange(-np.floor(3.5 * width + 2), 3.5 * width + 3)
    values = _along_line(excess, centre, direction, along, across)
    known = values != 0
    # A halo is bright beside the line, too.
    core = np.abs(across) <= width / 2
    side = (np.abs(across) > 2 * width + 2) & (np.abs(across) <= 3.5 * width + 2)
    bins = ((along - along[0]) // step).astype(int)

    def profile(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    lit_fraction = lit[start : end + 1].sum() / max(1, seen[start : end + 1].sum())
    if (end - start + 1) * step < length or lit_fraction < 0.7:
        return band
    # Fringes and sky waves are bright or dark between core and side, too.
    shoulder = (np.abs(across) > 1.25 * width) & (np.abs(across) <= 2 * width)
    _, between = profile(shoulder)
    height = np.median((means - side_means)[lit])
    if abs(np.median((between - side_means)[lit])) > MOST_BESIDE * height:
        return band
    if min(np.median(between[lit]), np.median(side_means[lit])) < -LEAST_BESIDE * height:
        return band
    # The trail continues where nothing is known beyond, as in a corner.
    while start > 0 and not seen[start - 1]:
        start -= 1
    while end < bins[-1] and not seen[end + 1]:
        end += 1
    first, last = along[0] + (start - 1) * step, along[0] + (end + 2) * step
    _mark_band(band, centre, direction, (first, last), 1.5 * width + 1)
    return band


def _mark_band(
    band: np.ndarray,
    centre: np.ndarray,
    direction: np.ndarray,
    span: tuple[float, float],
    half: float,
) -> None:
    """Set the pixels along `span` of a line and within `half` of it, in place."""
    along, across = np.arange(*span, 0.7), np.arange(-half, half + 0.35, 0.7)
    y, x = _line_pixels(centre, direction, along, across)
    inside = (y >= 0) & (x >= 0) & (y < band.shape[0]) & (x < band.shape[1])
    band[y[inside], x[inside]] = True


def _line_pixels(centre, direction, along, across):
    """Return rows and columns of the pixels at positions along and across a line."""
    y = centre[0] + along[:, None] * direction[0] - across * direction[1]
    x = centre[1] + along[:, None] * direction[1] + across * direction[0]
    return np.rint(y).astype(int), np.rint(x).astype(int)


def _along_line(image, centre, direction, along, across):
    """Sample the nearest pixels at positions along and across a line; 0 outside the image."""
    y, x = _line_pixels(centre, direction, along, across)
    inside = (y >= 0) & (x >= 0) & (y < image.shape[0]) & (x < image.shape[1])
    values = np.zeros(y.shape, image.dtype)
    values[inside] = image[y[inside], x[inside]]
    return values


def outlier_regions(
    beyond: np.ndarray,
    comparable: np.ndarray,
    reference: ReferenceImage,
    threshold: float,
    neighbour: float,
) -> np.ndarray:
    """Return the pixels above a threshold, connected ones above a lower threshold, and a margin.

    Centres of stars are exempt, because stars or their profiles may vary: a group no larger than a
    disc of 1.5 FWHM whose most significant pixel is a source centre of the reference.

    Parameters
    ----------
    beyond : ndarray of float32, shape (ny, nx)
        Significance of the difference from the reference.
    comparable : ndarray of bool, shape (ny, nx)
        Pixels that can be compared with the reference.
    reference : ReferenceImage
    threshold, neighbour : float
        Upper and lower threshold [sigma].

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        Outliers.
    """
    high = (beyond > neighbour) & comparable
    places = np.flatnonzero(high)
    significance = beyond.ravel()[places]
    if not (significance > threshold).any():
        return np.zeros(beyond.shape, bool)
    numbers = connected_components(places, beyond.shape[1])
    count = numbers.max() + 1
    kept = np.zeros(count, bool)
    kept[numbers[significance > threshold]] = True
    best = np.zeros(count, int)
    order = np.argsort(significance)
    best[numbers[order]] = places[order]  # the last value written remains
    star = reference.source_centres[np.divmod(best, beyond.shape[1])]
    star &= np.bincount(numbers, minlength=count) <= np.pi * (1.5 * reference.fwhm) ** 2
    kept &= ~star
    outliers = np.zeros(beyond.shape, bool)
    outliers.ravel()[places] = kept[numbers]
    # The faint margin.
    return extremes(outliers, np.maximum) & comparable


@compiled(
    "void(f4[:,::1], f4[:,::1], f4[:,::1], u2[:,::1], f4[:,::1], f4[:,::1], f4[::1], i8, i8, f4,"
    " f4, f4[:,::1], f4[:,::1], b1[:,::1])"
)
def _significance(
    images, weights, references, numbers, highs, spreads, error_factor, top, left, per_gain, size,
    beyond, excess, known,
):  # fmt: skip
    """Fill `beyond`, `excess` and `known` for `find_outliers`.

    The references begin at row `top`, column `left`. Compiled code takes arrays and numbers instead
    of records, hence the many parameters.
    """
    zero, half, limit = np.float32(0), np.float32(0.5), np.float32(5)
    rows, columns = images.shape
    errors = np.empty(columns, np.float32)
    for y in range(rows):
        there = (top + y, slice(left, left + columns))
        image, weight, reference, number = images[y], weights[y], references[there], numbers[there]
        high, spread = highs[there], spreads[there]
        for x in range(columns):
            errors[x] = error_factor[number[x]]
        for x in range(columns):
            difference = image[x] - reference[x]
            valued = (weight[x] > 0) & (abs(image[x]) < INFINITE)
            noise = np.sqrt(np.float32(1) / weight[x] + high[x] * per_gain)
            error = noise * errors[x]
            tolerance = half * spread[x] + size * high[x]
            far = (abs(difference) - tolerance) / error
            pull = min(max(difference / error, -limit), limit)
            # Trails are faint: search where no star needs tolerance. A bright pixel must
            # not make all those around it bright.
            plain = valued & (number[x] >= 3) & (tolerance < half * noise)
            known[y, x] = valued
            beyond[y, x] = far if valued else zero
            excess[y, x] = pull if plain else zero


def find_outliers(
    image: np.ndarray,
    weight: np.ndarray,
    gain: float,
    fwhm: float,
    reference: ReferenceImage,
    *,
    threshold: float = 5.0,
    neighbour: float = 2.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels of an exposure that contradict the other exposures.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Image on the grid and photometric scale of the reference, with the sky subtracted.
    weight : ndarray of float32, shape (ny, nx)
        Inverse variance without the photon noise of sources; 0 where there is no value.
    gain : float
        Electrons per unit.
    fwhm : float
        FWHM of the stars [pixel].
    reference : ReferenceImage
        The reference.
    threshold : float
        Minimum difference of an outlier from the reference, in units of the noise and beyond the
        tolerance for stars (`ReferenceImage.profile_tolerance`).
    neighbour : float
        The same for pixels adjacent to an outlier.

    Returns
    -------
    outliers, trails : ndarray of bool, shape (ny, nx)
        Single pixels, and bands of straight trails. False where fewer than three exposures cover a
        pixel, since of two that differ neither is known to be right, and where a star is brighter
        or fainter than in the others.
    """
    beyond, excess = np.empty((2, *image.shape), np.float32)
    known = np.empty(image.shape, bool)
    image, weight = (np.ascontiguousarray(plane, np.float32) for plane in (image, weight))
    # The loop needs contiguous rows, which those of a part may not be.
    whole = reference.whole or reference
    top, left = (part.start for part in reference.where) if reference.where else (0, 0)
    _significance(
        image, weight, whole.image, whole.number, whole.highest, whole.spread, whole.error_factor,
        top, left, np.float32(1 / gain), reference.profile_tolerance(fwhm), beyond, excess, known,
    )  # fmt: skip
    comparable = known & (reference.number >= 3)
    # In much worse seeing the wings of stars exceed the tolerance many times.
    if fwhm >= SEEING_RATIO_LIMIT * reference.fwhm:
        comparable &= ~reference.light_mask
    outliers = outlier_regions(beyond, comparable, reference, threshold, neighbour)
    trails = find_trails(excess, fwhm)
    trails &= known
    return outliers, trails
