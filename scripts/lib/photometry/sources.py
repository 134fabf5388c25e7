"""Sources of an image: detection, which are stars, which have neighbours.

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
"""Parts of one source at a threshold that sep is prepared for: it allots memory for all of them at
each of its thresholds, 0.3 GB for as many as it can number."""

MOST_SUB_OBJECTS = 32767
"""Largest number of such parts: sep numbers them by 16 bits."""

CROWDED_AREA = 0.25
"""Part of an image that sources may cover; where they cover more, blends are parted further."""

BLEND_SIGMA = 60.0
"""Least flux of a part of a blend then: 10 times the noise in the area of a star [noise of a
pixel]."""

BLEND_CONTRAST = (5e-5, 5e-3)
"""Bounds of that flux over the flux of the largest blend; the upper one is that of sep."""

PIXEL_WIDTH = 12**-0.5
"""Standard deviation of the light of a pixel [pixel]."""


FEW_STARS = 5
"""With fewer that were separated from no neighbour, separated ones count as stars, too."""


class Detections(NamedTuple):
    """Sources of an image and the pixels that belong to them.

    Parameters
    ----------
    sources : structured ndarray, shape (n,)
        As `sep.extract` gives: x, y, a, b, theta, peak, flux, flag, npix, ...
    segments : ndarray of int32, shape (ny, nx)
        Number (from 1) of the source that each pixel belongs to, 0 for none.
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
        In any byte order.
    mask : ndarray of uint8, shape (ny, nx)
    saturate : float
        Level of saturation: cores that have wrapped around are lifted to it.

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
    # What is not finite and not masked gets the lowest bit: any will do.
    flag[~finite & (flag == 0)] = 1
    bad = flag > 0
    hidden = ((flag & np.uint8(UNUSABLE & ~SATURATED)) > 0) | ~finite
    clean = np.array(image)
    if hidden.any() and not bad.all():
        some, left_out = regular_sample(image), regular_sample(bad)
        sound = some[~left_out] if not left_out.all() else image[~bad]
        means, number = neighbour_means(image, ~hidden, *np.nonzero(hidden))
        clean[hidden] = np.where(number > 0, means, np.median(sound))
    if np.isfinite(saturate):
        saturated = (flag & np.uint8(SATURATED)) > 0
        if saturated.any():
            from scipy.ndimage import binary_erosion

            # The outermost lie beside saturated ones only.
            saturated = binary_erosion(saturated, np.ones((3, 3)), border_value=1)
            clean[saturated] = np.maximum(clean[saturated], np.float32(saturate))
    return clean, flag


def extract(image: np.ndarray, level: float, **options: Any) -> Any:
    """Call `sep.extract` so that no field is too full for it.

    sep allots and fills its buffers at each call, so these begin at what all but the fullest
    fields need and grow where a globular cluster or a large galaxy needs more. A source of more
    parts than `MOST_SUB_OBJECTS` is detected at a higher threshold, where it is several.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    level : float
    **options
        As `sep.extract` takes them.
    """
    pixels = int(max(300_000, 0.3 * image.size))
    parts = SUB_OBJECTS
    while True:
        sep.set_extract_pixstack(pixels)
        sep.set_sub_object_limit(parts)
        try:
            return sep.extract(image, level, **options)
        except Exception as error:  # sep has no class of its own for these
            # Each pixel is in it once, and a line more.
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
        Pixels without value.
    threshold : float
        In units of `noise`, after smoothing with a small kernel.
    min_area : int
        Connected pixels above the threshold.
    smooth : bool
        Whether the image is smoothed with a small kernel.

    Returns
    -------
    Detections

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
        # In a blend of hundreds of stars none has the usual part of its light.
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


def neighbour_distance(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, ratio: float = 0.02
) -> np.ndarray:
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


def select_stars(
    radius: np.ndarray, snr: np.ndarray, flags: np.ndarray, peak: np.ndarray, saturate: float, *,
    min_snr: float = 20.0, width: float = 0.22, min_radius: float = 0.7,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Select point sources fit to measure the point-spread function.

    Stars share one half-light radius; galaxies are larger, cosmic rays and hot pixels smaller.

    Parameters
    ----------
    radius : ndarray, shape (n,)
        Half-light radii [pixel].
    snr : ndarray, shape (n,)
        Signal-to-noise ratios.
    flags : ndarray of int, shape (n,)
        Only sources with 0 are taken; those separated from a neighbour where there are few others.
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
