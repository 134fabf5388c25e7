"""How far the pixels of a frame exceed the sharpest image of a star."""

from dataclasses import dataclass

import numpy as np

from lib.calibration.starwidth import AROUND
from lib.core.meshes import bilinear_at
from lib.core.stats import chunks

LIKELY_WIDTH = 0.95
"""[measured FWHM] The profile may well be this narrow: focus and seeing vary over a field."""

LEAST_WIDTH = 0.8
"""[measured FWHM] The profile is nowhere narrower than this."""

LOWEST = 1.5
"""[sigma] Neighbours further below the sky are taken to be there."""

BORDER = 2
"""[px] Reach of `NEIGHBOURS`."""

PIXELS_AT_ONCE = 1 << 13
"""Pixels compared with their neighbours at once: these stay in the cache."""


def _opposite(*pairs):
    return [((dy, dx), (-dy, -dx)) for dy, dx in pairs]


_CROSS, _DIAGONAL = AROUND[:4], AROUND[4:]
NEIGHBOURS = [
    *_opposite((0, 1), (1, 0), (1, 1), (1, -1)),
    *_opposite((0, 2), (2, 0), (2, 2), (2, -2), (1, 2), (2, 1), (1, -2), (2, -1)),
    _CROSS,
    _DIAGONAL,
    AROUND,
    tuple((2 * dy, 2 * dx) for dy, dx in _CROSS),
]
"""Sets of neighbours (dy, dx) that a pixel is compared with: pairs across it, so that a track
stands out in one direction at least, and rings, which say most about a lone pixel."""

PLACES = sorted({place for ring in NEIGHBOURS for place in ring})
"""All neighbours."""


@dataclass(frozen=True)
class FrameLevels:
    """Levels of a sky-subtracted frame that set its noise and its saturation.

    Parameters
    ----------
    sky : float
        Level that was subtracted [electron].
    readnoise : float
        [electron]
    saturate : float
        Sky-subtracted value at which pixels saturate [electron].
    """

    sky: float
    readnoise: float
    saturate: float


def star_profiles(
    fwhm: float, dy: np.ndarray, dx: np.ndarray, half: int = BORDER, over: int = 7
) -> np.ndarray:
    """Return Moffat profiles, of exponent 3, integrated over the pixels.

    Parameters
    ----------
    fwhm : float
        [px].
    dy, dx : array_like, shape (n,)
        Centres [px] off the central pixel's.
    half : int
        The profiles cover ``2 * half + 1`` pixels a side.
    over : int
        Points per pixel and axis.

    Returns
    -------
    ndarray, shape (n, 2 * half + 1, 2 * half + 1)
    """
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3) - 1)
    size = 2 * half + 1
    points = (np.arange(size * over) + 0.5) / over - 0.5 - half
    rows, columns = (((points - np.asarray(at)[:, None]) / alpha) ** 2 for at in (dy, dx))
    width = 1 + rows[:, :, None] + columns[:, None, :]
    return (1 / (width * width * width)).reshape(-1, size, over, size, over).mean(axis=(2, 4))


def sharpest_ratios(fwhm: float) -> np.ndarray:
    """Return how far a star's pixel can exceed the mean of each set of `NEIGHBOURS`.

    For every scene made of points blurred by the profile P on a smooth sky, and for every set N,

        I(p) <= K mean_{q in N} I(p + q),    K = max over sub-pixel positions of P(0) / mean P(q)

    because both sides add up over the points. A pixel that breaks one of these bounds has not
    passed through the atmosphere.

    Parameters
    ----------
    fwhm : float
        [px].

    Returns
    -------
    ndarray, shape (len(NEIGHBOURS),)
    """
    dy, dx = np.repeat(np.linspace(-0.5, 0.5, 5), 5), np.tile(np.linspace(-0.5, 0.5, 5), 5)
    # Point reflection changes no ratio.
    profiles = star_profiles(max(fwhm, 1.0), dy[12:], dx[12:])
    around = [
        np.mean([profiles[:, BORDER + y, BORDER + x] for y, x in ring], axis=0)
        for ring in NEIGHBOURS
    ]
    return (profiles[:, BORDER, BORDER] / around).max(axis=1)


def excess_over_star(
    image: np.ndarray,
    noise: np.ndarray,
    index: np.ndarray,
    width: int,
    ratios: np.ndarray,
    bounds: np.ndarray,
) -> np.ndarray:
    """Return how many standard deviations pixels exceed the sharpest star.

    Parameters
    ----------
    image : ndarray of float32, shape (n,)
        Flattened; NaN where unusable, and in a border of `BORDER` pixels.
    noise : ndarray of float32, shape (m,)
        Sky noise of the pixels examined.
    index : ndarray of int, shape (m,)
        Pixels looked at.
    width : int
        Length of a row.
    ratios, bounds : ndarray, shape (len(NEIGHBOURS),)
        `sharpest_ratios` of the measured width and of the least possible one: the first with
        noise allowed for, the second without, as the profile of bright stars is not known
        better.

    Returns
    -------
    ndarray of float32, shape (m,)
        The largest over all `NEIGHBOURS` whose pixels are all usable; -inf where there is none.
    """
    best = np.full(index.size, -np.inf, np.float32)
    for part in chunks(index.size, PIXELS_AT_ONCE):
        value, sky = image[index[part]], noise[part] ** 2
        # A hole in the sky is a defect, beside which the sky itself would look sharp.
        lowest = np.float32(-LOWEST) * noise[part]
        near = {
            (dy, dx): np.maximum(image.take(index[part] + (dy * width + dx)), lowest)
            for dy, dx in PLACES
        }
        for ring, ratio, bound in zip(NEIGHBOURS, ratios.tolist(), bounds.tolist(), strict=True):
            n = len(ring)
            mean = sum(near[place] for place in ring) / n
            # Photons of the star that may be there, at least the noise with which it is known.
            star = np.maximum(mean, 0) + noise[part] / n**0.5
            variance = sky * (1 + ratio**2 / n) + star * (ratio * (1 + ratio / n))
            excess = (value - ratio * mean) / np.sqrt(variance)
            # NaN, where a neighbour is unusable, is not above the bound.
            excess[~(value > bound * mean)] = -np.inf
            np.maximum(best[part], excess, out=best[part])
    return best


class Sharpness:
    """How far the pixels of a frame exceed the sharpest star.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted [electron].
    unusable : ndarray of bool, shape (ny, nx)
    noise : ndarray of float32, shape (rows, columns)
        Coarse map of the noise of a pixel without sources [electron], see
        `lib.core.meshes.noise_map`.
    fwhm : float
        FWHM of the stars [px].
    """

    def __init__(
        self, image: np.ndarray, unusable: np.ndarray, noise: np.ndarray, fwhm: float
    ) -> None:
        self.ratios = sharpest_ratios(LIKELY_WIDTH * fwhm)
        self.bounds = sharpest_ratios(LEAST_WIDTH * fwhm)
        self.shape = image.shape
        self.width = image.shape[1] + 2 * BORDER
        self.noise = noise
        padded = np.full((image.shape[0] + 2 * BORDER, self.width), np.nan, np.float32)
        self.inside = padded[BORDER:-BORDER, BORDER:-BORDER]
        self.inside[:] = image
        self.inside[unusable] = np.nan
        self.pixels = padded.ravel()

    def index(self, where: np.ndarray) -> np.ndarray:
        """Return the places of the true pixels of an image in the padded, flattened one."""
        y, x = np.divmod(np.flatnonzero(where), self.shape[1])
        return (y + BORDER) * self.width + x + BORDER

    def image(self, index: np.ndarray) -> np.ndarray:
        """Return the image of the given places: the inverse of `index`."""
        marked = np.zeros(self.pixels.size, bool)
        marked[index] = True
        return marked.reshape(-1, self.width)[BORDER:-BORDER, BORDER:-BORDER]

    def noise_at(self, index: np.ndarray) -> np.ndarray:
        """Return the noise of the sky at the given places."""
        y, x = np.divmod(index, self.width)
        return bilinear_at(self.noise, self.shape, y - BORDER, x - BORDER)

    def excess(self, index: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return `excess_over_star` of the given places, with the noise of the sky there."""
        return excess_over_star(self.pixels, noise, index, self.width, self.ratios, self.bounds)
