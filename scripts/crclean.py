"""Cosmic rays: found because they are sharper than any star, flagged in the mask and repaired."""

import numpy as np

from lib.core.meshes import bilinear_at, noise_map
from lib.core.stats import chunks, half_sample_mode
from lib.frame.file import BAD, COSMIC, INTERPOLATED, NODATA, SATURATED, Frame
from lib.frame.step import log, process

FWHM_PER_SIGMA = 2.3548
MOFFAT_EXCESS = 1.12
"""A Gaussian fitted to a Moffat profile of seeing is so much wider than the profile."""

SHARPEST_SEEING = 0.4
"""[arcsec] No star on the ground is narrower: what is, is not a star."""

ASSUMED_SEEING = 0.8
"""[arcsec] Where too few stars tell."""

LIKELY, NARROWER = 0.95, 0.8
"""The profile may well be so much narrower than measured, and at most so much: focus and seeing
vary over a field."""

BRIGHT = 10.0
"""[sigma] Peaks of objects whose width is measured."""

FAINTEST = 4.0
"""[sigma] Below this no pixel begins a cosmic ray."""

LOWEST = 1.5
"""[sigma] Neighbours further below the sky are taken to be there."""

SHARPER = 4.0
"""[sigma] By so much an edge is sharper than a star, to be none."""

UNDERSAMPLED = 2.5
"""[px] FWHM below which half the cosmic rays are no sharper than stars, pixel by pixel, and
Laplacian edges are looked for too."""

BORDER = 2
"""[px] Reach of `NEIGHBOURS`."""

AT_ONCE = 1 << 13
"""Pixels compared with their neighbours at once: these stay in the cache."""


def _opposite(*pairs):
    return [((dy, dx), (-dy, -dx)) for dy, dx in pairs]


_CROSS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_DIAGONAL = ((1, 1), (1, -1), (-1, 1), (-1, -1))
NEIGHBOURS = [
    *_opposite((0, 1), (1, 0), (1, 1), (1, -1)),
    *_opposite((0, 2), (2, 0), (2, 2), (2, -2), (1, 2), (2, 1), (1, -2), (2, -1)),
    _CROSS,
    _DIAGONAL,
    _CROSS + _DIAGONAL,
    tuple((2 * dy, 2 * dx) for dy, dx in _CROSS),
]
"""Sets of neighbours (dy, dx) that a pixel is compared with: pairs across it, so that a track
stands out in one direction at least, and rings, which say most about a lone pixel."""

PLACES = sorted({place for ring in NEIGHBOURS for place in ring})
"""All of them."""


def measure_fwhm(image, usable, noise, saturate=np.inf, floor=1.2, most=300, half=9):
    """Measure the width of the stars on a frame.

    A Gaussian is fitted to each local maximum by iterated weighted moments (Bernstein & Jarvis
    2002, AJ 123, 583). Stars share one width, cosmic rays and galaxies do not, so the mode of
    the widths is taken.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted.
    usable : ndarray of bool, shape (ny, nx)
    noise : ndarray of float32, shape (rows, columns)
        Noise of the sky: a coarse map, see `lib.core.meshes.noise_map`.
    saturate : float
        Brighter maxima are left out.
    floor : float
        What is narrower is no star [px].
    most : int
        Maxima looked at, the brightest first.
    half : int
        Half the width of the box around each [px].

    Returns
    -------
    fwhm : float
        Of a Moffat profile [px]; NaN where fewer than 3 objects agree.
    elongation : float
        (a^2 - b^2) / (a^2 + b^2) of the axes.
    number : int
        Objects that agree to 15 %.
    """
    width = image.shape[1]
    values = image.ravel()
    index = np.flatnonzero(image > np.float32(BRIGHT) * noise.min())
    y, x = np.divmod(index, width)
    kept = (y >= half) & (y < len(image) - half) & (x >= half) & (x < width - half)
    kept &= usable.ravel()[index] & (values[index] < saturate)
    kept &= values[index] > BRIGHT * bilinear_at(noise, image.shape, y, x)
    index = index[kept]
    for dy, dx in _CROSS + _DIAGONAL:
        index = index[values[index] >= values[index + dy * width + dx]]
    index = index[np.argsort(values[index])[::-1][:most]]
    grid = np.arange(-half, half + 1)
    box = (grid[:, None] * width + grid).ravel()
    stamps = values[index[:, None] + box].astype(float)
    # Defects in the wings hardly matter, and on some arrays every box holds one.
    known = usable.ravel()[index[:, None] + box]
    near = np.hypot(*np.meshgrid(grid, grid)).ravel() <= 3
    kept = known[:, near].all(axis=1)
    # The highest around, saturated neighbours too: the wings of a bright star are full of maxima.
    rivals = np.where(known | (stamps >= saturate), stamps, 0)
    kept &= rivals.max(axis=1) <= values[index]
    stamps = (stamps * known)[kept].reshape(-1, grid.size, grid.size)
    x, y = np.tile(grid, grid.size), np.repeat(grid, grid.size)
    powers = np.stack([np.ones(x.size), x, y, x * x, y * y, x * y], axis=1).astype(float)
    x0, y0 = np.zeros((2, len(stamps), 1))
    variance = np.full((len(stamps), 1), 2.0)
    for _ in range(12):
        across, along = (np.exp(-((grid - centre) ** 2) / (2 * variance)) for centre in (x0, y0))
        weighted = stamps * along[:, :, None] * across[:, None, :]
        total, *moments = (weighted.reshape(len(stamps), x.size) @ powers).T[:, :, None]
        total[total <= 0] = np.nan
        mx, my, mxx, myy, mxy = (moment / total for moment in moments)
        # About the centre that the weight has.
        xx = mxx - 2 * x0 * mx + x0**2
        yy = myy - 2 * y0 * my + y0**2
        xy = mxy - x0 * my - y0 * mx + x0 * y0
        x0, y0 = 2 * mx - x0, 2 * my - y0
        moment = np.nan_to_num((xx + yy) / 2, nan=0.05).clip(0.05)
        # The moment under the weight is 1 / (1/object + 1/weight).
        variance = 1 / np.maximum(1 / moment - 1 / variance, 1 / half**2)
        x0, y0 = np.nan_to_num(x0).clip(-2, 2), np.nan_to_num(y0).clip(-2, 2)
    elongation = np.hypot(xx - yy, 2 * xy) / (xx + yy)
    # A pixel's own width adds 1/12 to the variance.
    fwhm = FWHM_PER_SIGMA / MOFFAT_EXCESS * np.sqrt((variance - 1 / 12).clip(0.01))
    good = (fwhm > floor) & (fwhm < 1.5 * half) & (elongation < 0.5)
    usual = np.exp(half_sample_mode(np.log(fwhm[good])))
    agree = good & (np.abs(fwhm / usual - 1) < 0.15)
    number = int(agree.sum())
    if number < 3:
        return np.nan, np.nan, number
    return float(np.median(fwhm[agree])), float(np.median(elongation[agree])), number


def star_profiles(fwhm, dy, dx, half=BORDER, over=7):
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


def sharpest_ratios(fwhm):
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


def excess_over_star(image, noise, index, width, ratios, bounds):
    """Return how many standard deviations pixels exceed the sharpest star.

    Parameters
    ----------
    image : ndarray of float32, shape (n,)
        Flattened; NaN where unusable, and in a border of `BORDER` pixels.
    noise : ndarray of float32, shape (m,)
        Of the sky of the pixels looked at.
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
    for part in chunks(index.size, AT_ONCE):
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
        Of a pixel without source [electron]: a coarse map, see `lib.core.meshes.noise_map`.
    fwhm : float
        Of the stars [px].
    """

    def __init__(self, image, unusable, noise, fwhm):
        self.ratios, self.bounds = sharpest_ratios(LIKELY * fwhm), sharpest_ratios(NARROWER * fwhm)
        self.shape = image.shape
        self.width = image.shape[1] + 2 * BORDER
        self.noise = noise
        padded = np.full((image.shape[0] + 2 * BORDER, self.width), np.nan, np.float32)
        self.inside = padded[BORDER:-BORDER, BORDER:-BORDER]
        self.inside[:] = image
        self.inside[unusable] = np.nan
        self.pixels = padded.ravel()

    def index(self, where):
        """Return the places of the true pixels of an image in the padded, flattened one."""
        y, x = np.divmod(np.flatnonzero(where), self.shape[1])
        return (y + BORDER) * self.width + x + BORDER

    def image(self, index):
        """Return the image of the given places: the inverse of `index`."""
        marked = np.zeros(self.pixels.size, bool)
        marked[index] = True
        return marked.reshape(-1, self.width)[BORDER:-BORDER, BORDER:-BORDER]

    def noise_at(self, index):
        """Return the noise of the sky at the given places."""
        y, x = np.divmod(index, self.width)
        return bilinear_at(self.noise, self.shape, y - BORDER, x - BORDER)

    def excess(self, index, noise):
        """Return `excess_over_star` of the given places, with the noise of the sky there."""
        return excess_over_star(self.pixels, noise, index, self.width, self.ratios, self.bounds)


def find_cosmic_rays(sharpness, sigma=5.5, sigfrac=0.55, rounds=20):
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
        The same for neighbours, as a fraction of it.
    rounds : int
        At most so many layers of neighbours.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    pixels = sharpness.pixels

    def sharp(index, lowest, threshold):
        noise = sharpness.noise_at(index)
        bright = pixels[index] > lowest * noise
        index, noise = index[bright], noise[bright]
        return index[sharpness.excess(index, noise) > threshold]

    first = sharpness.index(sharpness.inside > np.float32(FAINTEST) * sharpness.noise.min())
    new = sharp(first, FAINTEST, sigma)
    layers = [new]
    around = np.array([dy * sharpness.width + dx for dy, dx in _CROSS + _DIAGONAL])
    for _ in range(rounds):
        pixels[new] = np.nan
        front = np.unique(new[:, None] + around)
        new = sharp(front[~np.isnan(pixels[front])], 2.0, sigma * sigfrac)
        if not new.size:
            break
        layers.append(new)
    return sharpness.image(np.concatenate(layers))


def repair(image, flagged, unusable, sigma=1.0):
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


def find_by_laplacian(
    image, unusable, sharpness, *, sky, readnoise, saturate, sigma, sigfrac, objlim, rounds
):
    """Find cosmic rays by Laplacian edge detection, and spare what a star can be.

    L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) as implemented by astroscrappy. Its noise model
    needs the photons of the sky, so the level subtracted before is handed back. Cores of stars
    are edges too where a star is not much wider than a pixel: what is found counts only where
    it is sharper than the sharpest star, and groups of pixels only where one is significantly.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted [electron].
    unusable : ndarray of bool, shape (ny, nx)
    sharpness : Sharpness
        Of the same image.
    sky : float
        Level that was subtracted [electron].
    readnoise, saturate : float
        [electron].
    sigma, sigfrac, objlim : float
        Threshold of the edge, lower one for its neighbours, contrast against fine structure.
    rounds : int

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    from astroscrappy import detect_cosmics
    from scipy.ndimage import label

    found, _ = detect_cosmics(
        np.ascontiguousarray(image + np.float32(sky), np.float32),
        inmask=unusable,
        gain=1.0,
        readnoise=readnoise,
        satlevel=saturate + sky,
        sigclip=sigma,
        sigfrac=sigfrac,
        objlim=objlim,
        niter=rounds,
        sepmed=True,
        cleantype="medmask",
        fsmode="median",
        verbose=False,
    )
    found &= ~unusable
    groups, number = label(found, np.ones((3, 3)))
    group = groups[found]
    index = sharpness.index(found)
    excess = sharpness.excess(index, sharpness.noise_at(index))
    highest = np.full(number + 1, -np.inf, np.float32)
    np.maximum.at(highest, group, excess)
    found[found] = (excess > -np.inf) & (highest[group] > SHARPER)
    return found


def crclean_frame(frame, method="auto", sigma=5.5, sigfrac=0.55, objlim=3.0, iterations=4):
    """Flag and repair the cosmic rays of a sky-subtracted frame.

    Parameters
    ----------
    frame : Frame
    method : {'auto', 'psf', 'lacosmic'}
        `find_cosmic_rays`, `find_by_laplacian`, or the first, and the second too where stars are
        narrower than `UNDERSAMPLED`.
    sigma, sigfrac : float
        See there.
    objlim : float
    iterations : int
        Of 'lacosmic' only.

    Returns
    -------
    Frame
        COSMIC and INTERPOLATED set in the mask; header NCOSMIC, PSFFWHM.
    """
    header, gain = frame.header, np.float32(frame.header["GAIN"])
    image = frame.image if gain == 1 else frame.image * gain
    unusable = frame.mask & (BAD | SATURATED | NODATA) > 0
    sky = max(header["SKYSUB"], 0.0) * float(gain)
    saturate = header["SATURATE"] * float(gain)
    noise = noise_map(image, unusable, np.sqrt(sky + header["RDNOISE"] ** 2))
    scale = header.get("PIXSCALE", 0.3)
    fwhm, elongation, number = measure_fwhm(
        image, ~unusable, noise, 0.8 * saturate, max(1.2, SHARPEST_SEEING / scale)
    )
    log.info("FWHM %.2f px, elongation %.2f from %d objects", fwhm, elongation, number)
    header["PSFFWHM"] = (fwhm if number > 2 else -1.0, "[px] of the stars; -1 where too few")
    # Across, elongated stars are sharper.
    fwhm *= np.sqrt(1 - elongation)
    if not np.isfinite(fwhm):
        fwhm = max(1.5, ASSUMED_SEEING / scale)
    sharpness = Sharpness(image, unusable, noise, fwhm)
    found = np.zeros(image.shape, bool)
    if method == "lacosmic" or (method == "auto" and fwhm < UNDERSAMPLED):
        found |= find_by_laplacian(
            image,
            unusable,
            sharpness,
            sky=sky,
            readnoise=header["RDNOISE"],
            saturate=saturate,
            sigma=sigma,
            sigfrac=sigfrac,
            objlim=objlim,
            rounds=iterations,
        )
    if method != "lacosmic":
        found |= find_cosmic_rays(sharpness, sigma, sigfrac)
    image = repair(frame.image, found, unusable)
    mask = frame.mask | found.view(np.uint8) * np.uint8(COSMIC | INTERPOLATED)
    header["NCOSMIC"] = (int(np.count_nonzero(found)), "pixels flagged as cosmic rays")
    return Frame(image, mask, header)


if "snakemake" in globals():
    settings = dict(snakemake.params.settings)
    process(
        "crclean",
        snakemake.params.version,
        snakemake.input.frame,
        snakemake.output[0],
        lambda frame: crclean_frame(frame, **settings),
        log_path=snakemake.log[0],
        parameters=settings,
    )
