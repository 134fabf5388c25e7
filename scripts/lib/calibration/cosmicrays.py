"""Cosmic rays: found because they are sharper than any star, flagged in the mask and repaired."""

import logging

import numpy as np

from lib.calibration.lacosmic import find_by_laplacian
from lib.calibration.sharpness import FrameLevels, Sharpness
from lib.calibration.starlight import CHANCE, Starlight, rays_in_stars
from lib.calibration.starwidth import AROUND, LEAST_STARS, measure_fwhm
from lib.core.meshes import noise_map
from lib.core.settings import CrcleanSettings
from lib.frame.file import BAD, COSMIC, INTERPOLATED, NODATA, SATURATED, Frame

log = logging.getLogger("autoproc")

SHARPEST_SEEING = 0.4
"""[arcsec] No star on the ground is narrower: what is, is not a star."""

ASSUMED_SEEING = 0.8
"""[arcsec] Where too few stars tell."""

FAINTEST = 4.0
"""[sigma] Below this no pixel begins a cosmic ray."""

UNDERSAMPLED = 2.5
"""[px] FWHM below which half the cosmic rays are no sharper than stars, pixel by pixel, and
Laplacian edges are searched for too."""

WIDTH_STEP = 0.85
"""Factor of the width from one search in stars to the next."""

NARROWEST = 0.8
"""[px] There is no profile that is narrower than its pixel."""

DEFAULTS = CrcleanSettings()


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
