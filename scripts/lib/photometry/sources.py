"""Sources of an image: detection, selection of stars, neighbours.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import sep

from lib.core.stats import half_sample_mode, neighbour_means, regular_sample
from lib.frame.file import SATURATED, UNUSABLE
from lib.photometry.flags import FLAG_BLENDED

log = logging.getLogger("autoproc")

SUB_OBJECTS = 1024
"""Number of sub-objects of a source at one threshold for which sep is prepared: it allocates memory
for all of them at each threshold, 0.3 GB for the largest number it can count."""

MOST_SUB_OBJECTS = 32767
"""Largest number of sub-objects: sep counts them in 16 bits."""

CROWDED_AREA = 0.25
"""Fraction of an image covered by sources above which blends are separated further."""

BLEND_SIGMA = 60.0
"""Minimum flux of a component of a blend in such an image, 10 times the noise in the area of a star
[noise of a pixel]."""

BLEND_CONTRAST = (5e-5, 5e-3)
"""Bounds of that flux relative to the flux of the largest blend; the upper one is sep's default."""

PIXEL_WIDTH = 12**-0.5
"""Standard deviation of a uniform distribution over one pixel [pixel]."""

LARGE = 100.0
"""[FWHM^2] Minimum area of a source that lies under others: ten times that of most stars."""

FEW_STARS = 5
"""With fewer unblended stars, deblended ones count as stars, too."""

FILLED = 4
"""[pixel] Depth to which unusable pixels are filled from their neighbours."""


class Detections(NamedTuple):
    """Sources of an image and the pixels that belong to them.

    Parameters
    ----------
    sources : structured ndarray, shape (n,)
        As from `sep.extract`: x, y, a, b, theta, peak, flux, flag, npix, ...
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map: number (from 1) of the source of each pixel, 0 for none.
    """

    sources: np.ndarray
    segments: np.ndarray


def detection_arrays(
    image: np.ndarray, mask: np.ndarray, saturate: float = -np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Prepare a frame for detection.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Image in any byte order.
    mask : ndarray of uint8, shape (ny, nx)
        Mask bits of the frame (`lib.frame.file`).
    saturate : float
        Saturation level: saturated cores that read lower (wrap-around) are raised to it.

    Returns
    -------
    image : ndarray of float32, of the same byte order
        Unusable pixels are replaced by the mean of adjacent usable ones, those further inside by
        that of these, or else by the median of the image. Saturated pixels are kept: a star with a
        hole in it would be detected as several.
    flag : ndarray of uint8
        Bits of the mask that make a pixel unusable.
    """
    flag = mask & np.uint8(UNUSABLE)
    finite = np.isfinite(image)
    # Unmasked pixels that are not finite get the lowest bit: any will do.
    flag[~finite & (flag == 0)] = 1
    bad = flag > 0
    hidden = ((flag & np.uint8(UNUSABLE & ~SATURATED)) > 0) | ~finite
    clean = np.array(image)
    if hidden.any() and not bad.all():
        some, left_out = regular_sample(image), regular_sample(bad)
        sound = some[~left_out] if not left_out.all() else image[~bad]
        row, column = np.nonzero(hidden)
        for _ in range(FILLED):
            means, number = neighbour_means(clean, ~hidden, row, column)
            clean[row, column] = np.where(number > 0, means, np.median(sound))
            hidden[row[number > 0], column[number > 0]] = False
            row, column = row[number == 0], column[number == 0]
            if not row.size:
                break
    if np.isfinite(saturate):
        saturated = (flag & np.uint8(SATURATED)) > 0
        if saturated.any():
            from scipy.ndimage import binary_erosion

            # The outermost ones are adjacent to saturated pixels only.
            saturated = binary_erosion(saturated, np.ones((3, 3)), border_value=1)
            clean[saturated] = np.maximum(clean[saturated], np.float32(saturate))
    return clean, flag


def extract(image: np.ndarray, level: float, **options: Any) -> Any:
    """Call `sep.extract` with buffers large enough for the field.

    sep allocates and initialises its buffers at each call, so they start at the size that suffices
    for most fields and grow where a globular cluster or a large galaxy needs more. A source of more
    sub-objects than `MOST_SUB_OBJECTS` is detected at a higher threshold, where it splits into
    several.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted image.
    level : float
        Detection threshold, as `thresh` of `sep.extract`.
    **options
        Other arguments of `sep.extract`.

    Returns
    -------
    structured ndarray, and with option `segmentation_map` the map
        As from `sep.extract`.
    """
    pixels = int(max(300_000, 0.3 * image.size))
    parts = SUB_OBJECTS
    while True:
        sep.set_extract_pixstack(pixels)
        sep.set_sub_object_limit(parts)
        try:
            return sep.extract(image, level, **options)
        except Exception as error:  # sep has no class of its own for these
            # Each pixel is in it once, plus one line.
            if "pixel buffer full" in str(error) and pixels < 2 * image.size:
                pixels = min(3 * pixels, 2 * image.size)
            elif "deblending overflow" in str(error) and parts < MOST_SUB_OBJECTS:
                parts = MOST_SUB_OBJECTS
            elif "deblending overflow" in str(error) and np.isfinite(level):
                level *= 1.5
                log.warning("the sources run into each other: threshold raised to %.3g", level)
            else:
                raise


def detect_sources(
    image: np.ndarray, noise: float | np.ndarray, bad: np.ndarray | None = None,
    threshold: float = 3.0, min_area: int = 5, smooth: bool = True,
) -> Detections:  # fmt: skip
    """Detect and deblend sources in a background-subtracted image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    noise : float or ndarray of float32, shape (ny, nx)
        Standard deviation of a pixel.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels without a valid value.
    threshold : float
        Detection threshold in units of `noise`, after smoothing with a small kernel.
    min_area : int
        Minimum number of connected pixels above the threshold.
    smooth : bool
        Whether the image is smoothed with a small kernel.

    Returns
    -------
    Detections
        The sources, numbered from 1 in the map.

    Notes
    -----
    Where the noise differs from pixel to pixel, those of a faint source may be negative, and with
    them its moments: it gets the width of a pixel, and a place within its own bounds.
    """
    err = noise if np.ndim(noise) else None
    level = threshold if err is not None else float(threshold * noise)
    options: dict[str, Any] = {"err": err, "mask": bad, "minarea": min_area}
    if not smooth:
        options["filter_kernel"] = None
    sources, segments = extract(image, level, segmentation_map=True, **options)
    if np.count_nonzero(segments) > CROWDED_AREA * segments.size:
        # In a blend of hundreds of stars none reaches sep's usual contrast.
        pixel = float(np.median(regular_sample(noise))) if isinstance(noise, np.ndarray) else noise
        least = BLEND_SIGMA * pixel / float(sources["flux"].max())
        contrast = float(np.clip(least, *BLEND_CONTRAST))
        sources, segments = extract(
            image, level, segmentation_map=True, deblend_cont=contrast, **options
        )
    for axis in ("a", "b"):
        sources[axis] = np.where(sources[axis] > 0, sources[axis], PIXEL_WIDTH)
    sources["theta"] = np.nan_to_num(sources["theta"])
    for axis in ("x", "y"):
        inside = np.clip(sources[axis], sources[f"{axis}min"], sources[f"{axis}max"])
        sources[axis] = np.where(np.isnan(inside), sources[f"{axis}peak"], inside)
    return Detections(sources, segments)


def large_sources(segments: np.ndarray, number: int, fwhm: float) -> np.ndarray:
    """Return which labels of a segmentation map are those of large sources.

    Parameters
    ----------
    segments : ndarray of int32, shape (ny, nx)
        Segmentation map.
    number : int
        Number of its sources.
    fwhm : float
        FWHM of the stars [pixel].

    Returns
    -------
    ndarray of bool, shape (number + 1,)
        False for label 0.
    """
    large = np.bincount(segments.ravel(), minlength=number + 1) > LARGE * fwhm**2
    large[0] = False
    return large


def neighbour_distance(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, ratio: float = 0.02
) -> np.ndarray:
    """Return the distance of each source to its nearest significant neighbour.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
        Positions [pixel] and fluxes.
    ratio : float
        A neighbour is significant if its flux is more than this fraction of the source's own.

    Returns
    -------
    ndarray, shape (n,)
        Distances [pixel]; infinite for an isolated source.
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


def select_stars(
    radius: np.ndarray, snr: np.ndarray, flags: np.ndarray, peak: np.ndarray, saturate: float, *,
    min_snr: float = 20.0, width: float = 0.22, min_radius: float = 0.7,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Select point sources suitable to measure the point-spread function.

    Stars share one half-light radius; galaxies are larger, cosmic rays and hot pixels smaller.

    Parameters
    ----------
    radius : ndarray, shape (n,)
        Half-light radii [pixel].
    snr : ndarray, shape (n,)
        Signal-to-noise ratios.
    flags : ndarray of int, shape (n,)
        Only sources with flag 0 are selected; deblended ones as well where there are few others.
    peak : ndarray, shape (n,)
        Values of the brightest pixels.
    saturate : float
        Level above which a pixel is not trusted.
    min_snr : float
        Minimum signal-to-noise ratio.
    width : float
        Half width of the stellar locus in ln(radius).
    min_radius : float
        Minimum half-light radius: the optics make no sharper image [pixel].

    Returns
    -------
    stars : ndarray of bool, shape (n,)
        Which sources are stars.
    locus : float
        Half-light radius of stars [pixel]; NaN where there is none.
    """
    usable = (
        (snr > min_snr) & (peak < saturate) & np.isfinite(radius) & (radius > min_radius)
    )  # fmt: skip
    alone = usable & (flags == 0)
    usable &= (flags & ~FLAG_BLENDED) == 0
    if alone.sum() >= FEW_STARS or 4 * alone.sum() > usable.sum():
        usable = alone
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
