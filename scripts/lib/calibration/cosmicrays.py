"""Cosmic rays: found because they are sharper than any star, flagged in the mask and repaired."""

import logging
from dataclasses import dataclass
from functools import reduce

import numpy as np

from lib.calibration.starwidth import AROUND, LEAST_STARS, measure_fwhm
from lib.core.meshes import bilinear, bilinear_at, noise_map
from lib.core.settings import CrcleanSettings
from lib.core.stats import chunks
from lib.frame.file import BAD, COSMIC, INTERPOLATED, NODATA, SATURATED, Frame

log = logging.getLogger("autoproc")

SHARPEST_SEEING = 0.4
"""[arcsec] No star on the ground is narrower: what is, is not a star."""

ASSUMED_SEEING = 0.8
"""[arcsec] Where too few stars tell."""

LIKELY_WIDTH = 0.95
"""[measured FWHM] The profile may well be this narrow: focus and seeing vary over a field."""

LEAST_WIDTH = 0.8
"""[measured FWHM] The profile is nowhere narrower than this."""

FAINTEST = 4.0
"""[sigma] Below this no pixel begins a cosmic ray."""

LOWEST = 1.5
"""[sigma] Neighbours further below the sky are taken to be there."""

UNDERSAMPLED = 2.5
"""[px] FWHM below which half the cosmic rays are no sharper than stars, pixel by pixel, and
Laplacian edges are searched for too."""

BORDER = 2
"""[px] Reach of `NEIGHBOURS`."""

LIGHT_BOX = 5
"""[px] Side of the squares whose mean tells the light of stars."""

STARLIGHT = (2.0, 10.0)
"""[noise of a pixel] Where the mean is higher, there is a star; the core of one."""

CHANCE = 0.01
"""Probability below which cosmic rays in stars are too many."""

CHANCE_FACTOR = 1.5
"""Factor by which the number must exceed that expected by chance: long rays touch stars more
easily."""

WIDTH_STEP = 0.85
"""Factor of the width from one search in stars to the next."""

NARROWEST = 0.8
"""[px] There is no profile that is narrower than its pixel."""

PIXELS_AT_ONCE = 1 << 13
"""Pixels compared with their neighbours at once: these stay in the cache."""

DEFAULTS = CrcleanSettings()


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


def find_cosmic_rays(
    sharpness: Sharpness, sigma: float = 5.5, sigfrac: float = 0.55, rounds: int = 20,
    among: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Find the pixels that are sharper than any star.

    Each pixel is compared with the sharpest image the profile permits (`sharpest_ratios`), the
    idea of Lupton's search in SDSS and LSST; then the neighbours of what was found, with a
    lower threshold and without the pixels already found, until no more are.

    Parameters
    ----------
    sharpness : Sharpness
        Its pixels found are NaN from then on.
    sigma : float
        Excess over a star, in standard deviations.
    sigfrac : float
        Threshold for neighbours, as a fraction of it.
    rounds : int
        Maximum number of layers of neighbours.
    among : ndarray of bool, shape (ny, nx), optional
        Only these pixels begin a cosmic ray.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    pixels = sharpness.pixels

    def sharp(index: np.ndarray, lowest: float, threshold: float) -> np.ndarray:
        noise = sharpness.noise_at(index)
        bright = pixels[index] > lowest * noise
        index, noise = index[bright], noise[bright]
        return index[sharpness.excess(index, noise) > threshold]

    bright = sharpness.inside > np.float32(FAINTEST) * sharpness.noise.min()
    first = sharpness.index(bright if among is None else bright & among)
    new = sharp(first, FAINTEST, sigma)
    layers = [new]
    around = np.array([dy * sharpness.width + dx for dy, dx in AROUND])
    for _ in range(rounds):
        pixels[new] = np.nan
        front = np.unique(new[:, None] + around)
        new = sharp(front[~np.isnan(pixels[front])], 2.0, sigma * sigfrac)
        if not new.size:
            break
        layers.append(new)
    return sharpness.image(np.concatenate(layers))


def repair(
    image: np.ndarray, flagged: np.ndarray, unusable: np.ndarray, sigma: float = 1.0
) -> np.ndarray:
    """Fill pixels from the good ones around, weighted by a Gaussian of the distance.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    flagged : ndarray of bool, shape (ny, nx)
        Pixels to fill.
    unusable : ndarray of bool, shape (ny, nx)
        Pixels that tell nothing either.
    sigma : float
        [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        0, the sky, where no good pixel lies within 5 px.
    """
    y, x = np.divmod(np.flatnonzero(flagged), image.shape[1])
    blind = flagged | unusable
    total = np.zeros(y.size, np.float32)
    weights = np.zeros(y.size, np.float32)
    for reach in (2, 5):
        todo = np.flatnonzero(weights < 0.5)
        if not todo.size:
            break
        total[todo] = weights[todo] = 0
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                ny, nx = y[todo] + dy, x[todo] + dx
                inside = (ny >= 0) & (nx >= 0) & (ny < image.shape[0]) & (nx < image.shape[1])
                ny, nx = ny.clip(0, image.shape[0] - 1), nx.clip(0, image.shape[1] - 1)
                weight = np.float32(np.exp(-(dy**2 + dx**2) / (2 * (sigma * reach / 2) ** 2)))
                weight = weight * (inside & ~blind[ny, nx])
                total[todo] += weight * image[ny, nx]
                weights[todo] += weight
    filled = image.copy()
    filled[y, x] = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
    return filled


class Starlight:
    """How much light of sources lies about the pixels of a frame: means of squares.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted, its cosmic rays repaired.
    noise : ndarray of float32, shape (rows, columns)
        See `Sharpness`.
    """

    def __init__(self, image: np.ndarray, noise: np.ndarray) -> None:
        self.image, self.noise = image, noise
        rows, columns = (size // LIGHT_BOX for size in image.shape)
        lines = reduce(np.add, (image[i::LIGHT_BOX][:rows] for i in range(LIGHT_BOX)))
        sums = reduce(np.add, (lines[:, i::LIGHT_BOX][:, :columns] for i in range(LIGHT_BOX)))
        self.squares = sums / np.float32(LIGHT_BOX**2) / bilinear(noise, sums.shape)

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the mean of the pixels around each of some [noise of a pixel]."""
        reach = np.arange(LIGHT_BOX) - LIGHT_BOX // 2
        rows, columns = (
            mirrored(at[:, None] + reach, size)
            for at, size in zip((y, x), self.image.shape, strict=True)
        )
        means = self.image[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
        return means / bilinear_at(self.noise, self.image.shape, y, x)

    def area(self, level: float) -> float:
        """Return the fraction of the frame with more light than `level` [noise of a pixel]."""
        return float(np.mean(self.squares > level))


def mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Return places along an axis, those just outside reflected at its ends."""
    return np.minimum(np.where(index < 0, -1 - index, index), 2 * size - 1 - index)


def touching(y: np.ndarray, x: np.ndarray, width: int) -> np.ndarray:
    """Return the number of the group of each pixel: pixels in one touch, at corners too.

    Parameters
    ----------
    y, x : ndarray of int, shape (n,)
        In the order of an image of rows of `width` pixels.
    width : int

    Returns
    -------
    ndarray of int, shape (n,)
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    index, links = y * (width + 1) + x, []
    for step in (1, width, width + 1, width + 2):
        after = np.searchsorted(index, index + step).clip(max=index.size - 1)
        near = np.flatnonzero(index[after] == index + step)
        links.append((near, after[near]))
    first, second = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_matrix((np.ones(first.size, bool), (first, second)), (index.size, index.size))
    return connected_components(graph, directed=False)[1]


def rays_in_stars(
    found: np.ndarray, light: Starlight, spared: float = 0.1
) -> tuple[np.ndarray, bool]:
    """Return the detections in starlight, and whether there are more than expected by chance.

    Cosmic rays do not know of stars: as many fall on a pixel of a star, or of its core, as on one
    of the sky.

    Parameters
    ----------
    found : ndarray of bool, shape (ny, nx)
        Flagged pixels.
    light : Starlight
    spared : float
        Added to the number expected by chance: with a tenth, one is never too many.

    Returns
    -------
    inside : ndarray of bool, shape (ny, nx)
        Pixels of groups that lie in starlight.
    too_many : bool
    """
    from scipy.special import pdtrc

    inside = np.zeros_like(found)
    y, x = np.nonzero(found)
    if not y.size:
        return inside, False
    groups = touching(y, x, found.shape[1])
    brightest = np.full(groups.max() + 1, -np.inf, np.float32)
    np.maximum.at(brightest, groups, light.at(y, x))
    too_many = False
    for level in STARLIGHT:
        hits, area = int((brightest > level).sum()), light.area(level)
        expected = (brightest.size - hits) * area / max(1 - area, 1e-3)
        margin = CHANCE_FACTOR * expected + spared
        too_many |= bool(hits > 0 and pdtrc(hits - 1, margin) < CHANCE)
    lit = (brightest > min(STARLIGHT))[groups]
    inside[y[lit], x[lit]] = True
    return inside, too_many


def spare_stars(
    found: np.ndarray,
    image: np.ndarray,
    sharpness: Sharpness,
    fwhm: float,
    settings: CrcleanSettings,
    light: Starlight,
) -> tuple[np.ndarray, float]:
    """Undo detections in stars that are sharper than expected from the seeing.

    Rings of a telescope out of focus, stars of a jump in the tracking, diffraction spikes and
    pixels wider than the seeing have edges that the round profile of their width does not. They
    are told by numbers, see `rays_in_stars`; then the light of stars is searched for what breaks
    the bounds of a narrower profile, until what is found in it is no more than on the sky.

    Parameters
    ----------
    found : ndarray of bool, shape (ny, nx)
        Flagged pixels.
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted [electron].
    sharpness : Sharpness
        Sharpness of this image.
    fwhm : float
        The width that `found` was searched with [px].
    settings : CrcleanSettings
    light : Starlight
        Of this image without what was found.

    Returns
    -------
    found : ndarray of bool, shape (ny, nx)
    width : float
        The width that the light of stars was searched with [px]; 0 where nothing may be found
        in it.
    """
    suspect, too_many = rays_in_stars(found, light)
    if not too_many:
        return found, fwhm
    unusable, width = np.isnan(sharpness.inside) & ~found, fwhm
    while too_many:
        width *= WIDTH_STEP
        kept = found & ~suspect
        if width < NARROWEST:
            return kept, 0.0
        bounded = Sharpness(image, unusable, sharpness.noise, width)
        kept |= find_cosmic_rays(bounded, settings.sigma, settings.sigfrac, among=suspect)
        # What stars are like is not known any more: one may be too many.
        _, too_many = rays_in_stars(kept, light, spared=CHANCE / 2)
    return kept, width


def crclean_frame(frame: Frame, settings: CrcleanSettings = DEFAULTS) -> Frame:
    """Flag and repair the cosmic rays of a sky-subtracted frame.

    Parameters
    ----------
    frame : Frame
    settings : CrcleanSettings
        Method 'psf' is `find_cosmic_rays`, 'lacosmic' is
        `lib.calibration.lacosmic.find_by_laplacian`; 'auto' is the first, and the second too where
        stars are narrower than `UNDERSAMPLED`.

    Returns
    -------
    Frame
        COSMIC and INTERPOLATED set in the mask; header NCOSMIC, PSFFWHM.
    """
    header, gain = frame.header, np.float32(frame.header["GAIN"])
    image = frame.image if gain == 1 else frame.image * gain
    unusable = frame.mask & (BAD | SATURATED | NODATA) > 0
    levels = FrameLevels(
        sky=max(header["SKYSUB"], 0.0) * float(gain),
        readnoise=header["RDNOISE"],
        saturate=header["SATURATE"] * float(gain),
    )
    noise = noise_map(image, unusable, np.sqrt(levels.sky + levels.readnoise**2))
    scale = header.get("PIXSCALE", 0.3)
    narrowest = max(1.2, SHARPEST_SEEING / scale)
    stars = measure_fwhm(image, ~unusable, noise, 0.8 * levels.saturate, narrowest)
    log.info(
        "FWHM %.2f px, elongation %.2f from %d objects", stars.fwhm, stars.elongation, stars.number
    )
    header["PSFFWHM"] = (
        stars.fwhm if stars.number >= LEAST_STARS else -1.0,
        "[px] of the stars; -1 where too few",
    )
    # Elongated stars are sharper across.
    fwhm = stars.fwhm * np.sqrt(1 - stars.elongation)
    if not np.isfinite(fwhm):
        fwhm = max(1.5, ASSUMED_SEEING / scale)
    sharpness = Sharpness(image, unusable, noise, fwhm)
    searches = []
    if settings.method == "lacosmic" or (settings.method == "auto" and fwhm < UNDERSAMPLED):
        from lib.calibration.lacosmic import find_by_laplacian

        searches.append(find_by_laplacian(image, unusable, sharpness, levels, settings))
    if settings.method != "lacosmic":
        searches.append(find_cosmic_rays(sharpness, settings.sigma, settings.sigfrac))
    found = searches[0] if len(searches) == 1 else searches[0] | searches[1]
    repaired = repair(image, found, unusable)
    rays, width = spare_stars(found, image, sharpness, fwhm, settings, Starlight(repaired, noise))
    if width < fwhm:
        log.warning(
            "stars are sharper than a FWHM of %.2f px: %s", fwhm,
            f"searched for cosmic rays as if of {width:.2f} px" if width else
            "no cosmic rays are searched for in them",
        )  # fmt: skip
    header["CRSTARW"] = (width, "[px] FWHM bounding the rays found in starlight")
    header["NCOSMIC"] = (int(np.count_nonzero(rays)), "pixels flagged as cosmic rays")
    mask = frame.mask | rays.view(np.uint8) * np.uint8(COSMIC | INTERPOLATED)
    if rays is not found or image is not frame.image:
        repaired = repair(frame.image, rays, unusable)
    return Frame(repaired, mask, header)
