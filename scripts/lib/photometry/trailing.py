"""Light of objects that move during an exposure lost by apertures for point sources."""

import numpy as np
from numpy.typing import ArrayLike

from lib.photometry.psf import StarAperture, moffat_alpha

APERTURE_IN_FWHM = 1.5
"""Radius of the aperture of `POINT` over the FWHM."""

STEEPEST, SHALLOWEST = 6.0, 2.0
"""Exponents of the profile, where that of the wings lies beyond."""

TRAIL_ERROR = 0.2
"""Error of the light lost, as a part of it: by the profile, and by motion that is not uniform."""

STEPS = 15
"""Places along the trail."""


def trailed_shares(trails: np.ndarray, aperture: StarAperture, radius: float) -> np.ndarray:
    """Return the light of trailed sources in an aperture over that of points of equal flux there.

    For a circular Moffat profile of the aperture's FWHM, drawn along a line of even brightness.

    Parameters
    ----------
    trails : ndarray, shape (n, 2)
        Motion during the exposure along x and y [pixel].
    aperture : StarAperture
        Aperture of point sources; its radius gives the FWHM, its wings the exponent.
    radius : float
        Radius of the aperture in question [pixel].

    Returns
    -------
    ndarray, shape (n,)
        1 without motion.
    """
    beta = float(np.clip(aperture.wings.beta, SHALLOWEST, STEEPEST))
    alpha = moffat_alpha(aperture.radius / APERTURE_IN_FWHM, beta)
    # Rings of equal area.
    rho = radius * np.sqrt((np.arange(40) + 0.5) / 40)[:, None]
    phi = 2 * np.pi * (np.arange(24) + 0.5) / 24
    x, y = rho * np.cos(phi), rho * np.sin(phi)
    along = (np.arange(STEPS) + 0.5) / STEPS - 0.5

    def light(length: float) -> float:
        square = (x[..., None] - along * length) ** 2 + y[..., None] ** 2
        return float(((1 + square / alpha**2) ** -beta).mean())

    lengths = np.hypot(*np.reshape(trails, (-1, 2)).T)
    point = light(0.0)
    return np.array([light(one) / point if one > 0 else 1.0 for one in np.nan_to_num(lengths)])


def trailed(trails: np.ndarray, aperture: StarAperture) -> np.ndarray:
    """Return which sources move by more than the FWHM during the exposure, shape (n,)."""
    return np.hypot(*np.reshape(trails, (-1, 2)).T) > aperture.radius / APERTURE_IN_FWHM


def window_sigma(trails: np.ndarray, aperture: StarAperture) -> np.ndarray:
    """Return the widths of the Gaussian windows of centroids: as wide as the trailed star."""
    point = aperture.radius / APERTURE_IN_FWHM / 2.355
    return trailed_sigma(point, np.hypot(*np.reshape(trails, (-1, 2)).T))


def trailed_sigma(sigma: ArrayLike, length: ArrayLike) -> np.ndarray:
    """Return the rms width along a trail of a source of rms width `sigma`, in the same unit."""
    # A line of even brightness of length L has a variance of L^2 / 12.
    return np.hypot(sigma, np.nan_to_num(length) / np.sqrt(12))


CENTROID_FACTOR = np.sqrt(2.0)
"""Error of a windowed centroid of S/N n times n, in units of the rms width of the star: by noise of
the sky (King 1983, PASP 95, 163), and within a sixth by the photons of Moffat profiles."""
