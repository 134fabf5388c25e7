"""Fluxes of point sources: the best mean of two apertures.

A wide aperture holds nearly all of a star's light whatever its profile, and much noise of the sky;
one of 0.75 FWHM is the best that a single aperture can be for a faint star (Naylor 1998, MNRAS
296, 339, has its noise a tenth above that of a fitted profile), but its part of the light must be
known.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import excess_scatter
from lib.photometry.growth import clipped_mean
from lib.photometry.psf import CoreAperture

CORE_RADIUS = 0.75
"""Radius of the inner aperture [FWHM]."""

MIN_CORE_STARS = 5
"""Stars that tell its part of the light; with fewer it is that of the growth curve."""

MAX_CORE_STARS = 100
"""Number of the brightest that are used."""

CORE_SNR = 30.0
"""Least S/N of them."""

ASSUMED_SCATTER = 0.05
"""Relative scatter of that part where stars do not tell it."""

LEAST_SCATTER = 0.003
"""It is never taken as smaller: pixels have no equal response within."""

EXTENDED_SIGMA = (2.0, 5.0)
"""By how much more light the wide aperture has than a star's [sigma] sources are taken for points
at most, and for none at least."""


@dataclass(frozen=True)
class ApertureSums:
    """Light of stars alone in apertures of one radius.

    Parameters
    ----------
    sums : ndarray, shape (n,)
    error : ndarray, shape (n,)
        Errors of the sums: sky, photons and neighbours.
    fraction : float
        Part of a star's total light within.
    """

    sums: np.ndarray
    error: np.ndarray
    fraction: float

    def over(self, factor: np.ndarray) -> "ApertureSums":
        """Return the sums, and their errors, divided by factors, shape (n,)."""
        return ApertureSums(self.sums / factor, self.error / factor, self.fraction)

    @property
    def total(self) -> np.ndarray:
        """Total fluxes."""
        return self.sums / self.fraction

    @property
    def variance(self) -> np.ndarray:
        """Variances of the total fluxes."""
        return (self.error / self.fraction) ** 2


def point_fluxes(
    wide: ApertureSums, core: ApertureSums, scatter: float | np.ndarray,
    joined: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the total fluxes of point sources from the best mean of two nested apertures.

    With variances V_w, V_c of both totals and their covariance C, which is the noise that the core
    adds to both, the weight of the core is (V_w - C) / (V_w + V_c - 2 C). The scatter of the
    core's part of the light counts as noise of it: bright stars rest on the wide aperture alone.
    So do, in steps, clearly extended sources, so that their colours do not depend on the noise.

    Parameters
    ----------
    wide, core : ApertureSums
        Sums of n sources in both apertures.
    scatter : float or ndarray, shape (n,)
        Relative scatter of the core's part of the light among stars.
    joined : ndarray of bool, shape (n,), optional
        Sources whose light runs into that of others: more light outside of the core does not
        make them extended.

    Returns
    -------
    flux, error : ndarray, shape (n,)
    """
    shared = np.minimum(core.error**2 / (core.fraction * wide.fraction), wide.variance)
    inner = core.variance + (scatter * np.maximum(core.total, 0)) ** 2
    ring = np.maximum(wide.variance + inner - 2 * shared, 0)
    excess = wide.total - core.total
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.clip(np.nan_to_num((wide.variance - shared) / ring), 0, 1)
        pull = np.nan_to_num(excess / np.sqrt(ring))
    first, last = EXTENDED_SIGMA
    part = np.clip((last - pull) / (last - first), 0, 1)
    if joined is not None:
        part[joined] = 1
    # By how much the flux follows the excess, in which the weight itself moves with it.
    slope = 1 - weight * part
    slope += np.where((part > 0) & (part < 1), weight * pull / (last - first), 0)
    variance = inner + slope**2 * ring + 2 * slope * (shared - inner)
    flux = core.total + (1 - weight * part) * excess
    return flux, np.sqrt(np.maximum(variance, 0))


def core_fluxes(core: ApertureSums, scatter: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the total fluxes of point sources from the inner aperture alone.

    In a crowd the wide one holds the light of more stars that are not known than it tells of the
    one that is measured.

    Parameters
    ----------
    core : ApertureSums
        Of n sources.
    scatter : float or ndarray, shape (n,)
        Relative scatter of the core's part of the light among stars.

    Returns
    -------
    flux, error : ndarray, shape (n,)
    """
    flux = core.total
    return flux, np.sqrt(core.variance + (scatter * np.maximum(flux, 0)) ** 2)


def confusion_error(grid: np.ndarray, relative: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Return the errors that confusion adds to fluxes.

    Parameters
    ----------
    grid, relative : ndarray, shape (k,)
        Fluxes, ascending, and errors over flux there. Beyond the brightest the relative error
        stays, below the faintest the absolute one.
    flux : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (n,)
    """
    inside = np.clip(np.nan_to_num(flux), grid[0], None)
    return np.interp(np.log(inside), np.log(grid), relative) * inside


def core_aperture(
    radius: float, core: np.ndarray, wide: np.ndarray, noise: np.ndarray, fraction: float,
    assumed: float, gain: float,
) -> CoreAperture:  # fmt: skip
    """Measure the part of a star's light in the inner aperture on stars.

    Parameters
    ----------
    radius : float
        [pixel].
    core, wide : ndarray, shape (n,)
        Light of stars in both apertures.
    noise : ndarray, shape (2,)
        Standard deviation of the sky in the inner and in the wide aperture.
    fraction : float
        Part of the total light in the wide aperture.
    assumed : float
        Part in the inner one, where stars do not tell it.
    gain : float
        Electrons per unit; 0 where the photons' noise is not known.

    Returns
    -------
    CoreAperture
    """
    photons = np.maximum(wide, 0) / gain if gain else 0.0 * wide
    good = (core > 0) & (wide > CORE_SNR * np.sqrt(noise[1] ** 2 + photons))
    order = np.argsort(-np.where(good, wide, 0), kind="stable")[:MAX_CORE_STARS]
    index = order[good[order]]
    if index.size < MIN_CORE_STARS:
        return CoreAperture(radius, assumed, ASSUMED_SCATTER)
    inner, outer = core[index], wide[index]
    ratio = inner / outer
    # The ring between both has noise of its own, which the ratio feels.
    ring = (noise[1] ** 2 - noise[0] ** 2) / outer**2 * ratio**2
    own = noise[0] ** 2 / outer**2 * (1 - ratio) ** 2
    light = ratio * (1 - ratio) / (gain * outer) if gain else 0.0
    variance = ring + own + light
    mean = float(clipped_mean(ratio[:, None], variance[:, None], 0.01)[0][0])
    beyond = excess_scatter(ratio, variance) / mean
    return CoreAperture(radius, mean * fraction, max(beyond, LEAST_SCATTER))
