"""Cosmic rays by Laplacian edge detection (L.A.Cosmic), as implemented by astroscrappy."""

import numpy as np

from lib.calibration.sharpness import FrameLevels, Sharpness
from lib.core.settings import CrcleanSettings

LEAST_EXCESS = 4.0
"""[sigma] An edge is a cosmic ray only where it exceeds the sharpest star by this much."""


def laplacian_edges(
    image: np.ndarray, unusable: np.ndarray, levels: FrameLevels, settings: CrcleanSettings
) -> np.ndarray:
    """Return the pixels flagged by L.A.Cosmic.

    Source: van Dokkum 2001, PASP 113, 1420; `astroscrappy.detect_cosmics`. Its noise model needs
    the photons of the sky, so the level subtracted before is added again.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted [electron].
    unusable : ndarray of bool, shape (ny, nx)
    levels : FrameLevels
    settings : CrcleanSettings
        `sigma` is the threshold of an edge, `sigfrac` the part of it for its neighbours, `objlim`
        the contrast against fine structure, `iterations` the passes.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    from astroscrappy import detect_cosmics

    found, _ = detect_cosmics(
        np.ascontiguousarray(image + np.float32(levels.sky), np.float32),
        inmask=unusable,
        gain=1.0,
        readnoise=levels.readnoise,
        satlevel=levels.saturate + levels.sky,
        sigclip=settings.sigma,
        sigfrac=settings.sigfrac,
        objlim=settings.objlim,
        niter=settings.iterations,
        sepmed=True,
        cleantype="medmask",
        fsmode="median",
        verbose=False,
    )
    return found & ~unusable


def find_by_laplacian(
    image: np.ndarray,
    unusable: np.ndarray,
    sharpness: Sharpness,
    levels: FrameLevels,
    settings: CrcleanSettings,
) -> np.ndarray:
    """Find cosmic rays by Laplacian edge detection, excluding what may be a star.

    Cores of stars are edges too where a star is not much wider than a pixel: a pixel of an edge
    counts only where it is sharper than the sharpest star, and a group of pixels only where one of
    them is significantly so.

    Parameters
    ----------
    image, unusable, levels, settings
        See `laplacian_edges`.
    sharpness : Sharpness
        Sharpness of the same image.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    from scipy.ndimage import label

    found = laplacian_edges(image, unusable, levels, settings)
    groups, number = label(found, np.ones((3, 3)))
    group = groups[found]
    index = sharpness.index(found)
    excess = sharpness.excess(index, sharpness.noise_at(index))
    highest = np.full(number + 1, -np.inf, np.float32)
    np.maximum.at(highest, group, excess)
    found[found] = (excess > -np.inf) & (highest[group] > LEAST_EXCESS)
    return found
