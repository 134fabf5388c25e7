"""Pictures for the page: reduced by block averaging, stretched, encoded as text."""

import base64
import io
import itertools
import math
from collections.abc import Sequence

import numpy as np

from lib.core.bands import BAND_ORDER
from lib.core.stats import mad_std, neighbour_means, regular_sample
from lib.frame.file import BAD, COSMIC, NODATA, NONLINEAR, SATURATED, SOURCE, TRAIL

MASK_COLOURS = (
    (SOURCE, (38, 70, 110)),
    (NONLINEAR, (150, 110, 30)),
    (BAD, (150, 150, 150)),
    (NODATA, (80, 80, 80)),
    (SATURATED, (255, 210, 60)),
    (TRAIL, (200, 80, 220)),
    (COSMIC, (255, 90, 70)),
)
"""Colour of each bit in the picture of a mask; later ones cover earlier ones."""


NOISE_BELOW, LINEAR_UP_TO = 1.0, 14.0
"""[noise] Black level of a colour picture below the sky, and level at which the stretch becomes
logarithmic."""


SAMPLE = 1 << 14
"""Number of pixels used for the levels of a picture: gives its median to a hundredth of the
noise."""


LARGEST_CORE = 400
"""[pixel] Maximum size of the saturated core of a star in a picture."""


def block_factor(shape: Sequence[int], size: int) -> int:
    """Return the factor by which to reduce an image to at most `size` pixels on a side."""
    return max(1, -(-max(shape) // size))


def block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means of blocks of `factor` x `factor` pixels; incomplete blocks are cut off.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    factor : int

    Returns
    -------
    ndarray of float32, shape (ny // factor, nx // factor)
    """
    if factor == 1:
        return np.asarray(image, np.float32)
    ny, nx = image.shape[0] // factor, image.shape[1] // factor
    rows = image[: ny * factor, : nx * factor].reshape(ny, factor, nx * factor)
    # Booleans are counted in bytes, without conversion, as far as these suffice.
    few = image.dtype == bool and factor < 16
    rows = rows.view(np.uint8).sum(axis=1, dtype=np.uint8) if few else rows.sum(axis=1, dtype="f4")
    # A sum along such a short axis takes several times as long.
    total = rows[:, ::factor].copy()
    for k in range(1, factor):
        total += rows[:, k::factor]
    return total.astype(np.float32, copy=False) / np.float32(factor**2)


def reduce_covered(
    image: np.ndarray, valid: np.ndarray, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the valid pixels in blocks, and which blocks have data.

    Holes enclosed by data, such as saturated cores of stars, are filled from their surroundings.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    valid : ndarray of bool, shape (ny, nx)
    factor : int

    Returns
    -------
    image : ndarray of float32, shape (ny // factor, nx // factor)
        0 where there is no data.
    valid : ndarray of bool, same shape
    """
    total = block_mean(np.where(valid, image, np.float32(0)), factor)
    if not np.isfinite(total).all():
        valid = valid & np.isfinite(image)
        total = block_mean(np.where(valid, image, np.float32(0)), factor)
    part = block_mean(valid, factor)
    covered = part >= 0.25
    small = np.where(covered, total / np.maximum(part, np.float32(0.25)), np.float32(0))
    return small, covered | fill_enclosed(small, covered)


def fill_enclosed(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Fill pixels enclosed by data from their neighbours, in place.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    covered : ndarray of bool, shape (ny, nx)
        Pixels with data. Connected pixels without are filled up to a size of `LARGEST_CORE`; larger
        holes are no cores of stars.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
        The filled pixels.
    """
    from scipy.ndimage import label

    empty, number = label(~covered)
    closed = np.ones(number + 1, bool)
    closed[0] = False
    closed[np.concatenate([empty[0], empty[-1], empty[:, 0], empty[:, -1]])] = False
    filled = closed[empty]
    if filled.any():
        filled &= np.bincount(empty.ravel())[empty] <= LARGEST_CORE
    known = covered.copy()
    y, x = np.nonzero(filled)
    # From the edge inwards, each from the mean of its known neighbours.
    while y.size:
        means, number = neighbour_means(image, known, y, x)
        now = number > 0
        image[y[now], x[now]], known[y[now], x[now]] = means[now], True
        y, x = y[~now], x[~now]
    return filled


def block_bits(mask: np.ndarray, factor: int) -> np.ndarray:
    """Return the bits set in any pixel of each block, shape (ny // factor, nx // factor)."""
    if factor == 1:
        return mask
    ny, nx = mask.shape[0] // factor, mask.shape[1] // factor
    rows = mask[: ny * factor, : nx * factor].reshape(ny, factor, nx * factor)
    rows = np.bitwise_or.reduce(rows, axis=1)
    return np.bitwise_or.reduce(rows.reshape(ny, nx, factor), axis=2)


def stretch(
    image: np.ndarray,
    valid: np.ndarray | None = None,
    *,
    low: float = 1.5,
    soft: float = 4.0,
    high: float = 99.7,
) -> np.ndarray:
    """Return an image as grey levels: linear near the background, logarithmic above (asinh).

    After Lupton, Gunn & Szalay (1999, AJ 118, 1406).

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    valid : ndarray of bool, shape (ny, nx), optional
        Pixels to use; the others become black.
    low : float
        Black level [standard deviations below the median].
    soft : float
        Level at which the stretch becomes logarithmic [standard deviations above the median].
    high : float
        White level [percentile].

    Returns
    -------
    ndarray of uint8, shape (ny, nx)
    """
    ok = np.isfinite(image) if valid is None else valid & np.isfinite(image)
    values = regular_sample(image, SAMPLE)[regular_sample(ok, SAMPLE)]
    if values.size < SAMPLE // 100:
        values = image[ok]
    if values.size == 0:
        return np.zeros(image.shape, np.uint8)
    middle = np.median(values)
    sigma = float(mad_std(values)) or float(np.std(values)) or 1.0
    black = middle - low * sigma
    white = max(np.percentile(values, high), middle + 5 * sigma)
    scale = soft * sigma
    with np.errstate(invalid="ignore"):
        grey = np.arcsinh((image - black) / scale) / np.arcsinh((white - black) / scale)
    grey = np.where(ok, np.clip(grey, 0, 1), 0)
    return (255 * grey).astype(np.uint8)


def linear_grey(image: np.ndarray, low: float = 0.5, high: float = 99.5) -> np.ndarray:
    """Return an image as grey levels, linear between two percentiles, for masters."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return np.zeros(image.shape, np.uint8)
    black, white = np.percentile(finite, (low, high))
    with np.errstate(invalid="ignore"):
        grey = (image - black) / max(white - black, 1e-12)
    return (255 * np.clip(np.nan_to_num(grey), 0, 1)).astype(np.uint8)


def mask_colours(mask: np.ndarray) -> np.ndarray:
    """Return a picture of a mask, shape (ny, nx, 3): one colour per bit, black for none."""
    values = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit, colour in MASK_COLOURS:
        colours[values & bit > 0] = colour
    return colours[mask]


def encode(picture: np.ndarray, quality: int = 70, kind: str = "webp") -> str:
    """Return a picture (uint8, first row at the bottom) as a data URI.

    Parameters
    ----------
    picture : ndarray of uint8, shape (ny, nx) or (ny, nx, 3)
    quality : int
        1 to 100; 0 for a lossless picture of few colours.
    kind : {'webp', 'jpeg'}
        'webp' gives smaller files, 'jpeg' is ten times as fast.
    """
    # Import the plugins by name: otherwise Pillow imports some forty.
    from PIL import Image, JpegImagePlugin, WebPImagePlugin  # noqa: F401

    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture[::-1]))
    if kind == "jpeg":
        image.save(buffer, "JPEG", quality=quality)
    elif quality:
        image.save(buffer, "WEBP", quality=quality, method=0)
    else:
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def frame_picture(image: np.ndarray, size: int, quality: int = 75) -> str:
    """Return the data URI of a picture of a frame, at most `size` pixels on a side."""
    return encode(stretch(block_mean(image, block_factor(image.shape, size))), quality, "jpeg")


def covered_pictures(
    image: np.ndarray,
    valid: np.ndarray,
    sizes: Sequence[int],
    qualities: Sequence[int],
    kind: str = "webp",
) -> list[str]:
    """Return the data URIs of pictures of an image with pixels without data.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    valid : ndarray of bool, shape (ny, nx)
    sizes : sequence of int
        Maximum side of each picture [pixel], largest first: the others are made from it.
    qualities : sequence of int
    kind : str
        As for `encode`.

    Returns
    -------
    list of str
    """
    pictures = []
    for size, quality in zip(sizes, qualities, strict=True):
        image, valid = reduce_covered(image, valid, block_factor(image.shape, size))
        pictures.append(encode(stretch(image, valid), quality, kind))
    return pictures


def mask_picture(mask: np.ndarray, size: int) -> str:
    """Return the data URI of a picture of a mask."""
    return encode(mask_colours(block_bits(mask, block_factor(mask.shape, size))), 0)


def colour_rank(filter_name: str, band: str = "") -> int:
    """Return the rank of a filter from blue to red."""
    for name in (band, filter_name, filter_name[:1]):
        if name in BAND_ORDER:
            return BAND_ORDER.index(name)
    return len(BAND_ORDER)


def choose_three(planes: Sequence[np.ndarray], least: float = 0.1) -> tuple[int, ...] | None:
    """Choose three images of one sky for a colour picture: those with the largest common area.

    Parameters
    ----------
    planes : list of ndarray, each of shape (ny, nx)
        In order of wavelength, NaN where there is no data.
    least : float
        Minimum fraction of the area of the first that all three must cover.

    Returns
    -------
    tuple of int, or None
        Blue, green, red; for nearly equal areas those farthest apart in wavelength.
    """
    seen = [np.isfinite(plane) for plane in planes]
    parts = {
        (i, j, k): float((seen[i] & seen[j] & seen[k]).mean())
        for i, j, k in itertools.combinations(range(len(planes)), 3)
    }
    largest = max(parts.values(), default=0.0)
    if largest < least:
        return None
    large = [triple for triple, part in parts.items() if part >= 0.9 * largest]
    return max(large, key=lambda one: (one[1] - one[0]) * (one[2] - one[1]))


def crop_inside(valid: np.ndarray, part: float = 0.99) -> tuple[slice, slice]:
    """Return the slices of a rectangle around the True pixels with hardly any others.

    The side with most False pixels is moved inwards until a fraction `part` of each side is True,
    as long as half of the True pixels remain: a ragged outline is shown in full.

    Parameters
    ----------
    valid : ndarray of bool, shape (ny, nx)
    part : float
    """
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    bottom, top, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    whole = slice(bottom, top), slice(left, right)
    while top - bottom > 2 and right - left > 2:
        window = valid[bottom:top, left:right]
        sides = window[0].mean(), window[-1].mean(), window[:, 0].mean(), window[:, -1].mean()
        worst = int(np.argmin(sides))
        if sides[worst] >= part:
            break
        if worst < 2:
            bottom, top = bottom + (worst == 0), top - (worst == 1)
        else:
            left, right = left + (worst == 2), right - (worst == 3)
    inner = slice(bottom, top), slice(left, right)
    return inner if valid[inner].sum() >= 0.5 * valid.sum() else whole


def composite(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Return a colour picture of three images of the same sky.

    The intensity is stretched as a whole, with colours preserved, by `astropy.visualization`
    (Lupton et al. 2004, PASP 116, 133); each image is first scaled by its stars, so that the mean
    star is white. The stretch is linear up to several times the noise, and the brightest 0.2 %
    become white.

    Parameters
    ----------
    red, green, blue : ndarray, shape (ny, nx)
        NaN where an image has no data.

    Returns
    -------
    ndarray of uint8, shape (ny, nx, 3)
    """
    from astropy.visualization import make_lupton_rgb

    images = np.stack([red, green, blue])
    ok = np.isfinite(images).all(axis=0)
    if not ok.any():
        return np.zeros((*red.shape, 3), np.uint8)
    images = images - np.median(images[:, ok], axis=1)[:, None, None]
    noises = np.array([float(mad_std(image[ok])) or 1.0 for image in images])
    contrast = np.where(ok, (images / noises[:, None, None]).sum(axis=0), 0)
    stars = ok & (contrast >= np.percentile(contrast[ok], 99.7))
    scales = np.maximum(images[:, stars].mean(axis=1), noises)
    planes = np.where(ok, images / scales[:, None, None], 0)
    total = planes.mean(axis=0)
    noise = float(mad_std(total[ok])) or 1e-3
    black = -NOISE_BELOW * noise
    white = max(float(np.percentile(total[ok], 99.8)), 10 * noise) - black
    linear = float(np.clip(LINEAR_UP_TO * noise, white / 1e4, white / 2))
    picture = make_lupton_rgb(
        *planes, minimum=black, stretch=linear, Q=softening(white / linear)
    )  # fmt: skip
    picture[~ok] = 0
    return picture


def softening(ratio: float) -> float:
    """Return the Q of Lupton's stretch for which `ratio` times its linear range is white.

    Parameters
    ----------
    ratio : float
        Greater than 1.
    """
    from scipy.optimize import brentq

    return float(brentq(lambda q: math.asinh(q * ratio) - q, 1e-3, 100.0))
