"""Sources of an image: background, detection, which are stars, which have neighbours.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep.
"""

import logging

import numpy as np
import sep

from lib.core.compiled import compiled
from lib.core.stats import MAD_TO_SIGMA, half_sample_mode, neighbour_means, regular_sample
from lib.frame.file import SATURATED, UNUSABLE

log = logging.getLogger("autoproc")

SUB_OBJECTS = 32767
"""Most parts of one source at a threshold: sep numbers them by 16 bits."""

PIXEL_WIDTH = 12**-0.5
"""Standard deviation of the light of a pixel."""


def background(image, bad=None, box=64):
    """Return the smooth background of an image and the noise about it.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape, optional
        Pixels to leave out.
    box : int
        Side of a mesh in pixels.

    Returns
    -------
    level : ndarray of float32, shape (ny, nx)
    rms : float
        Median noise of a pixel over the meshes.
    """
    box = int(min(box, max(16, min(image.shape) // 4)))
    model = sep.Background(image, mask=bad, bw=box, bh=box, fw=3, fh=3)
    return model.back(dtype=np.float32), float(model.globalrms)


def background_mesh(image, bad, box=128, sigma=3.0):
    """Return the background of an image whose sources are masked, in meshes.

    Their clipped means, median-filtered 3 x 3. Sources being masked, the mean is right where the
    mode (2.5 median - 1.5 mean) is low by the skewness of photon noise, and it is less noisy.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape
        Sources and pixels without value.
    box : int
        Side of a mesh in pixels; made smaller for an image of less than four.
    sigma : float
        Clipping.

    Returns
    -------
    ndarray of float64, shape (rows of meshes, columns of meshes)
        Zeros where no mesh has enough pixels.
    """
    from scipy.ndimage import distance_transform_edt, median_filter

    counts = [max(1, round(size / box)) for size in image.shape]
    edges = _mesh_edges(image.shape, counts)
    image, bad = np.ascontiguousarray(image, np.float32), np.ascontiguousarray(bad)
    level = _mesh_levels(image, bad, *edges, sigma)
    empty = np.isnan(level)
    if empty.all():
        return np.zeros(counts)
    if empty.any():
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    return median_filter(level, 3, mode="nearest")


@compiled("f8[:,:](f4[:,::1], b1[:,::1], i8[::1], i8[::1], f8)")
def _mesh_levels(image, bad, rows, columns, sigma):
    """Return the clipped means of the meshes between rows and columns, NaN for too few pixels."""
    level = np.full((rows.size - 1, columns.size - 1), np.nan)
    for j in range(level.shape[0]):
        for i in range(level.shape[1]):
            size = (rows[j + 1] - rows[j]) * (columns[i + 1] - columns[i])
            values, number = np.empty(size + 1, np.float32), 0
            for y in range(rows[j], rows[j + 1]):
                for x in range(columns[i], columns[i + 1]):
                    # What is bad is overwritten by the next.
                    values[number] = image[y, x]
                    number += not bad[y, x]
            if number < max(50, 0.1 * size):
                continue
            for _ in range(3):
                # Where to clip, a thousand values tell well enough.
                some = values[: number : 1 + number // 1000].copy()
                middle = np.float32(np.median(some))
                spread = MAD_TO_SIGMA * np.median(np.abs(some - middle))
                limit, kept = np.float32(sigma * spread), 0
                for n in range(number):
                    kept += abs(values[n] - middle) <= limit
                if kept in (0, number):
                    break
                kept = 0
                for n in range(number):
                    value = values[n]
                    values[kept] = value
                    kept += abs(value - middle) <= limit
                number = kept
            total = 0.0
            for n in range(number):
                total += values[n]
            level[j, i] = total / number
    return level


def _mesh_edges(shape, counts):
    """Return where the meshes of an image begin, and where the last ends, for each axis."""
    return [np.linspace(0, size, n + 1).astype(int) for size, n in zip(shape, counts, strict=True)]


def spread_mesh(mesh, shape):
    """Interpolate the background in meshes by a bicubic spline.

    Parameters
    ----------
    mesh : ndarray, shape (rows of meshes, columns of meshes)
        Of `background_mesh`.
    shape : tuple of int
        Of the image.

    Returns
    -------
    ndarray of float32, shape `shape`
    """
    from scipy.interpolate import BSpline, make_interp_spline

    counts = mesh.shape
    centres = [0.5 * (edge[:-1] + edge[1:] - 1) for edge in _mesh_edges(shape, counts)]
    if max(counts) == 1:
        return np.full(shape, mesh[0, 0], np.float32)
    # Constant beyond the outer centres: a spline would run away there.
    if min(counts) == 1:
        axis = int(np.argmax(counts))
        values = np.interp(np.arange(shape[axis]), centres[axis], mesh.ravel())
        return np.broadcast_to(values[:, None] if axis == 0 else values, shape).astype("f4")
    middle = mesh.mean()
    level = mesh - middle
    bases = []
    for axis, (size, centre) in enumerate(zip(shape, centres, strict=True)):
        spline = make_interp_spline(centre, np.moveaxis(level, axis, 0), min(3, centre.size - 1))
        level = np.moveaxis(spline.c, 0, axis)
        where = np.clip(np.arange(size), centre[0], centre[-1])
        bases.append(BSpline.design_matrix(where, spline.t, spline.k).toarray().astype("f4"))
    # A product of matrices: the splines of rows and columns are independent.
    return bases[0] @ level.astype(np.float32) @ bases[1].T + np.float32(middle)


def detection_arrays(image, mask):
    """Prepare a frame for detection.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Of any byte order.
    mask : ndarray of uint8, shape (ny, nx)

    Returns
    -------
    image : ndarray of float32, of the same byte order
        Unusable pixels replaced by the mean of usable ones next to them, else by the median of
        all. What is saturated stays: with a hole in it a star would be several.
    flag : ndarray of uint8
        The mask's unusable bits.
    """
    flag = mask & np.uint8(UNUSABLE)
    finite = np.isfinite(image)
    # What is not finite and not masked has the lowest bit: any will do.
    flag[~finite & (flag == 0)] = 1
    bad = flag > 0
    hidden = ((flag & np.uint8(UNUSABLE & ~SATURATED)) > 0) | ~finite
    clean = np.array(image)
    if hidden.any() and not bad.all():
        some, left_out = regular_sample(image), regular_sample(bad)
        sound = some[~left_out] if not left_out.all() else image[~bad]
        means, number = neighbour_means(image, ~hidden, *np.nonzero(hidden))
        clean[hidden] = np.where(number > 0, means, np.median(sound))
    return clean, flag


def extract(image, level, **options):
    """Call `sep.extract` so that no field is too full for it.

    sep allots and fills its pixel buffer at each call, so that begins at what all but the fullest
    fields need and grows where a globular cluster or a large galaxy covers more. A source of more
    parts than `SUB_OBJECTS` is detected at a higher threshold, where it is several.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    level : float
    **options
        As `sep.extract` takes them.
    """
    pixels = int(max(300_000, 0.3 * image.size))
    sep.set_sub_object_limit(SUB_OBJECTS)
    while True:
        sep.set_extract_pixstack(pixels)
        try:
            return sep.extract(image, level, **options)
        except Exception as error:  # sep has no class of its own for these
            # Each pixel is in it once, and a line more.
            if "pixel buffer full" in str(error) and pixels < 2 * image.size:
                pixels = min(3 * pixels, 2 * image.size)
            elif "deblending overflow" in str(error) and np.isfinite(level):
                level *= 1.5
                log.warning("the sources run into each other: threshold raised to %.3g", level)
            else:
                raise


def detect_sources(image, noise, bad=None, threshold=3.0, min_area=5):
    """Detect and deblend sources in a background-subtracted image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    noise : float or ndarray of float32, shape (ny, nx)
        Standard deviation of a pixel.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels without value.
    threshold : float
        In units of `noise`, after smoothing with a small kernel.
    min_area : int
        Connected pixels above the threshold.

    Returns
    -------
    sources : structured ndarray
        As `sep.extract` gives: x, y, a, b, theta, peak, flux, flag, npix, ...
    segments : ndarray of int32, shape (ny, nx)
        Number (from 1) of the source that each pixel belongs to, 0 for none.

    Notes
    -----
    Where the noise differs from pixel to pixel, those of a faint source may be negative, and with
    them its moments: it gets the width of a pixel, and a place within its own bounds.
    """
    err = noise if np.ndim(noise) else None
    level = threshold if np.ndim(noise) else threshold * noise
    sources, segments = extract(
        image, level, err=err, mask=bad, minarea=min_area, segmentation_map=True
    )
    for axis in ("a", "b"):
        sources[axis] = np.where(sources[axis] > 0, sources[axis], PIXEL_WIDTH)
    sources["theta"] = np.nan_to_num(sources["theta"])
    for axis in ("x", "y"):
        inside = np.clip(sources[axis], sources[f"{axis}min"], sources[f"{axis}max"])
        sources[axis] = np.where(np.isnan(inside), sources[f"{axis}peak"], inside)
    return sources, segments


def background_without(image, bad, segments, box):
    """Return `background_mesh` of an image, its sources and 5 pixels about them masked."""
    return background_mesh(image, bad | grow(segments > 0, 5), box)


def grow(mask, reach):
    """Return a mask grown by `reach` pixels to each side."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=2 * reach + 1)


def neighbour_distance(x, y, flux, ratio=0.02):
    """Return the distance of each source to the next one that matters to it.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
    ratio : float
        A neighbour matters when its flux is more than this part of the source's own.

    Returns
    -------
    ndarray, shape (n,)
        Pixels; infinite for a lonely source.
    """
    from scipy.spatial import cKDTree

    n = len(x)
    nearest = np.full(n, np.inf)
    if n < 2:
        return nearest
    k = min(n, 12)
    distance, index = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=k)
    matters = (flux[index] > ratio * flux[:, None]) & (index != np.arange(n)[:, None])
    return np.where(matters, distance, np.inf).min(axis=1)


def blended_errors(x, y, error, radius, fraction, wings):
    """Return the errors of aperture sums after the light of the neighbours was solved for.

    Stars that share light have the fluxes M^-1 s of their aperture sums s, as
    `starmodels.share_light` has it: the nearer two are, the more noise goes from one to the
    other. Sums of apertures that overlap share as much of their noise as of their area.

    Parameters
    ----------
    x, y, error : ndarray, shape (n,)
        Positions [pixel], and errors of the sums.
    radius : float
        Of the apertures [pixel].
    fraction : float
        Of a star's light in its own aperture.
    wings : lib.photometry.psf.Wings

    Returns
    -------
    ndarray, shape (n,)
    """
    from scipy.spatial import cKDTree

    blended = error.copy()
    if len(x) < 2:
        return blended
    points = np.column_stack([x, y])
    share = wings.aperture_share(radius)
    tree = cKDTree(points)
    distance, index = tree.query(points, k=min(len(x), 9), distance_upper_bound=2 * radius)
    for i in np.flatnonzero(np.isfinite(distance).sum(axis=1) > 1):
        members = index[i][np.isfinite(distance[i])]
        apart = np.hypot(*(points[members][:, None] - points[members]).T)
        # As in the solution, those nearer than a third of the radius are not told apart.
        light = np.where(apart > radius / 3, np.interp(apart, *share), 0.0)
        np.fill_diagonal(light, fraction)
        half = np.minimum(apart / (2 * radius), 1)
        overlap = 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))
        weight = fraction * np.linalg.pinv(light)[0]
        noise = weight * error[members]
        blended[i] = max(error[i], np.sqrt(max(0.0, noise @ overlap @ noise)))
    return blended


def select_stars(radius, snr, flags, peak, saturate, *, min_snr=20.0, width=0.22, min_radius=0.7):
    """Select point sources fit to measure the point-spread function.

    Stars share one half-light radius; galaxies are larger, cosmic rays and hot pixels smaller.

    Parameters
    ----------
    radius : ndarray, shape (n,)
        Half-light radii [pixel].
    snr : ndarray, shape (n,)
        Signal-to-noise ratios.
    flags : ndarray of int, shape (n,)
        Only sources with 0 are taken.
    peak : ndarray, shape (n,)
        Highest pixel.
    saturate : float
        Level above which a pixel is not trusted.
    min_snr : float
    width : float
        Half width of the stellar locus in ln(radius).
    min_radius : float
        Nothing optical is sharper [pixel].

    Returns
    -------
    stars : ndarray of bool, shape (n,)
    locus : float
        Half-light radius of a star, NaN where there is none.
    """
    usable = (
        (flags == 0) & (snr > min_snr) & (peak < saturate)
        & np.isfinite(radius) & (radius > min_radius)
    )  # fmt: skip
    if not usable.any():
        return usable, np.nan
    logs = np.log(np.where(usable, radius, 1.0))
    locus = half_sample_mode(logs[usable]) if usable.sum() > 4 else np.median(logs[usable])
    for _ in range(3):
        stars = usable & (np.abs(logs - locus) < width)
        if not stars.any():
            break
        locus = np.median(logs[stars])
    return stars, float(np.exp(locus))
