"""What one of several aligned exposures shows and the others do not: satellites, missed rays.

A single frame cannot tell a satellite from a galaxy's edge, nor a blunt cosmic ray from a star.
Three exposures of the same sky can. The images are to be on one pixel grid, on one photometric
scale, with the sky at zero.
"""

import numpy as np


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
    number : ndarray of int, shape (ny, nx)
        Values there.
    """
    ordered = np.sort(images, axis=0)  # NaN last
    number = np.isfinite(images).sum(axis=0)
    middle = np.maximum(number - 1, 0) // 2
    reference = np.take_along_axis(ordered, middle[None], axis=0)[0]
    reference[number < 2] = np.nan
    return reference, number


def seeing_tolerance(reference, noise, ratio, slack=0.05):
    """Return by how much an image may differ from the reference near stars.

    Parameters
    ----------
    reference : ndarray of float32, shape (ny, nx)
    noise : float or ndarray of float32, shape (ny, nx)
        Noise of a pixel. Where the smoothed reference is fainter than that, it is sky.
    ratio : float
        FWHM of the reference over that of the image. The peak of a star goes as its square.
    slack : float
        Fraction by which profiles of one width differ still.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        ``(|ratio^2 - 1| + slack) * max + range / 2``, both over 3 x 3 pixels: the second is what
        half a pixel of misalignment makes.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

    known = np.nan_to_num(reference)
    smooth = gaussian_filter(known, 1.0)
    # The noise of the sky is no star.
    light = np.where(smooth > noise, known, smooth)
    highest = maximum_filter(light, 3)
    change = highest - minimum_filter(light, 3)
    return (abs(ratio**2 - 1) + slack) * np.maximum(highest, 0) + change / 2


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
    y, x = np.indices(excess.shape, dtype=np.float32)
    y -= np.float32(centre[0])
    x -= np.float32(centre[1])
    across = np.abs(y * direction[1] - x * direction[0])
    along = y * direction[0] + x * direction[1]
    known = excess != 0
    core = known & (across <= width / 2)
    # A halo is bright beside the line too.
    side = known & (across > 2 * width + 2) & (across <= 3.5 * width + 2)
    band = np.zeros(excess.shape, bool)
    if not core.any():
        return band
    first = int(np.floor(along.min() / step))
    bins = int(np.floor(along.max() / step)) - first + 1

    def profile(part):
        places = np.floor(along[part] / step).astype(int) - first
        count = np.bincount(places, minlength=bins)
        total = np.bincount(places, weights=excess[part], minlength=bins)
        return count, total / np.maximum(count, 1)

    counts, means = profile(core)
    side_counts, side_means = profile(side)
    known = (counts >= step) & (side_counts >= step)
    noise = np.sqrt(1 / np.maximum(counts, 1) + 1 / np.maximum(side_counts, 1))
    lit = known & (means - side_means > 3 * noise)
    if not lit.any():
        return band
    start, end = np.flatnonzero(lit)[[0, -1]]
    share = lit[start : end + 1].sum() / max(1, known[start : end + 1].sum())
    if (end - start + 1) * step < length or share < 0.7:
        return band
    # Where nothing is known beyond, as in a corner, it goes on.
    while start > 0 and not known[start - 1]:
        start -= 1
    while end < bins - 1 and not known[end + 1]:
        end += 1
    inside = (along >= (first + start - 1) * step) & (along <= (first + end + 2) * step)
    return (across <= 1.5 * width + 1) & inside


def find_outliers(images, noises, fwhms, *, threshold=5.0, neighbour=2.5):
    """Find the pixels of aligned exposures that the others contradict.

    Parameters
    ----------
    images : ndarray of float32, shape (n, ny, nx)
        On one grid and scale, sky at zero; NaN where an image has no value.
    noises : sequence of float, or of ndarray of shape (ny, nx)
        Noise of the pixels of each.
    fwhms : sequence of float
        Width of the stars on each [px].
    threshold : float
        Difference from the reference, in units of the noise and beyond the
        `seeing_tolerance`, that makes an outlier.
    neighbour : float
        The same beside one.

    Returns
    -------
    outliers, trails : ndarray of bool, shape (n, ny, nx)
        Single pixels, and bands of straight trails. Nothing where fewer than three images see a
        pixel: of two, none can tell which is right.
    """
    from scipy.ndimage import binary_dilation, binary_propagation

    images = np.asarray(images, np.float32)
    outliers = np.zeros(images.shape, bool)
    trails = np.zeros(images.shape, bool)
    if len(images) < 3:
        return outliers, trails
    reference, number = reference_image(images)
    told = number >= 3
    usual = float(np.median(fwhms))
    square = np.ones((3, 3), bool)
    for n, (image, noise, fwhm) in enumerate(zip(images, noises, fwhms, strict=True)):
        # The median of m values has a variance of pi / 2 m.
        error = noise * np.sqrt(1 + np.pi / 2 / np.maximum(number, 1))
        difference = image - reference
        tolerance = seeing_tolerance(reference, noise, usual / fwhm)
        beyond = (np.abs(difference) - tolerance) / error
        beyond = np.where(told & np.isfinite(difference), beyond, np.float32(0))
        seeds = beyond > threshold
        if seeds.any():
            outliers[n] = binary_propagation(seeds, square, mask=beyond > neighbour)
        # Trails are faint: looked for where no star needs tolerance.
        quiet = told & np.isfinite(difference) & (tolerance < 0.5 * noise)
        excess = np.where(quiet, difference / error, np.float32(0))
        trails[n] = trail_pixels(excess, fwhm) & np.isfinite(image)
        outliers[n] |= binary_dilation(outliers[n] & trails[n], square) & told
    return outliers, trails
