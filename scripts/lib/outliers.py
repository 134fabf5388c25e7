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


def seeing_tolerance(reference, ratio, slack=0.05):
    """Return by how much an image may differ from the reference near stars.

    Parameters
    ----------
    reference : ndarray of float32, shape (ny, nx)
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
    from scipy.ndimage import maximum_filter, minimum_filter

    known = np.nan_to_num(reference)
    highest = maximum_filter(known, 3)
    lowest = minimum_filter(known, 3)
    return (abs(ratio**2 - 1) + slack) * np.maximum(highest, 0) + (highest - lowest) / 2


def thin_and_long(rows, columns, length, thickness):
    """Tell whether pixels lie along a line.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (m,)
    length, thickness : float
        The shortest and the widest line [px].

    Returns
    -------
    tuple or None
        Centre (y, x), direction (dy, dx) and half the length [px] of the line.
    """
    if rows.size < length:
        return None
    centre = np.array([rows.mean(), columns.mean()])
    offsets = np.stack([rows, columns], axis=1) - centre
    values, vectors = np.linalg.eigh(offsets.T @ offsets / rows.size)
    # A uniform line of length L has a variance of L^2 / 12.
    across, along = np.sqrt(12 * np.maximum(values, 0))
    if along < length or across > thickness or across > 0.1 * along:
        return None
    direction = vectors[:, 1]
    return centre, direction, float(np.abs(offsets @ direction).max())


def trail_pixels(excess, width, sigma=1.0, length=40):
    """Find straight trails, fainter than one pixel's noise would let them be seen.

    Parameters
    ----------
    excess : ndarray of float32, shape (ny, nx)
        Difference from the reference beyond its tolerance, in units of its noise; 0 where
        unknown.
    width : float
        Width of the stars [px].
    sigma : float
        Mean excess over 5 x 5 pixels of a trail.
    length : float
        The shortest trail [px].

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        The band of each trail; from edge to edge where it crosses more than half of the image.
    """
    from scipy.ndimage import find_objects, label, uniform_filter

    # A bright pixel shall not make 25 of them bright.
    bright = uniform_filter(excess.clip(-5, 5), 5) > sigma
    labels, _ = label(bright, np.ones((3, 3), bool))
    found = np.zeros(excess.shape, bool)
    diagonal = np.hypot(*excess.shape)
    for number, box in enumerate(find_objects(labels), 1):
        if max(part.stop - part.start for part in box) < length / 2:
            continue
        rows, columns = np.nonzero(labels[box] == number)
        line = thin_and_long(rows + box[0].start, columns + box[1].start, length, 4 * width + 10)
        if line is None:
            continue
        centre, direction, half = line
        reach = diagonal if half > 0.25 * min(excess.shape) else half + 2 * width
        y, x = np.indices(excess.shape, dtype=np.float32)
        y, x = y - centre[0], x - centre[1]
        across = np.abs(y * direction[1] - x * direction[0])
        along = np.abs(y * direction[0] + x * direction[1])
        found |= (across <= 1.5 * width + 1) & (along <= reach)
    return found


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
        beyond = np.abs(difference) - seeing_tolerance(reference, usual / fwhm)
        beyond = np.where(told & np.isfinite(difference), beyond / error, np.float32(0))
        seeds = beyond > threshold
        if seeds.any():
            outliers[n] = binary_propagation(seeds, square, mask=beyond > neighbour)
        signed = np.where(beyond > 0, np.sign(difference) * beyond, np.float32(0))
        # Where the tolerance is small, what is below it counts too: trails are faint.
        quiet = np.nan_to_num(difference) / error
        signed = np.where(beyond > -1, np.where(told, quiet, 0), signed)
        trails[n] = trail_pixels(np.nan_to_num(signed), fwhm) & np.isfinite(image)
        outliers[n] |= binary_dilation(outliers[n] & trails[n], square) & told
    return outliers, trails
