"""Point-source fluxes: the optimal mean of two apertures.

A wide aperture contains nearly all of a star's light whatever its profile, and much sky noise. One
of 0.75 FWHM is nearly the best single aperture for a faint star (in Naylor 1998, MNRAS 296, 339,
its noise is a tenth above that of a fitted profile), but needs an aperture correction.
"""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import excess_scatter
from lib.photometry.growth import clipped_mean
from lib.photometry.psf import CoreAperture

CORE_RADIUS = 0.75
"""Radius of the inner aperture [FWHM]."""

MIN_CORE_STARS = 5
"""Minimum number of stars for its aperture correction; with fewer it is that of the growth
curve."""

MAX_CORE_STARS = 100
"""Maximum number of these stars, the brightest first."""

CORE_SNR = 30.0
"""Minimum S/N of these stars."""

ASSUMED_SCATTER = 0.05
"""Relative scatter of the fraction of light in the core where stars do not give it."""

LEAST_SCATTER = 0.003
"""Minimum of that scatter, since the response varies within a pixel."""

EXTENDED_SIGMA = (2.0, 5.0)
"""Excess of the wide aperture over a star [sigma] below which a source counts as a point, and above
which as extended."""


@dataclass(frozen=True)
class ApertureSums:
    """Fluxes of stars in apertures of one radius, with neighbours subtracted.

    Parameters
    ----------
    sums : ndarray, shape (n,)
        Fluxes in the apertures.
    error : ndarray, shape (n,)
        Errors of the sums: sky, photon noise and neighbours.
    fraction : float
        Fraction of a star's total light within the aperture.
    """

    sums: np.ndarray
    error: np.ndarray
    fraction: float

    def over(self, factor: np.ndarray) -> "ApertureSums":
        """Return the sums and their errors divided by factors, shape (n,)."""
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
    """Return the total fluxes of point sources from the optimal mean of two nested apertures.

    With variances V_w, V_c of both totals and their covariance C, which is the noise that both have
    from the core, the weight of the core is (V_w - C) / (V_w + V_c - 2 C). The scatter of the
    fraction of light in the core counts as noise: bright stars are measured in the wide aperture
    alone. So are, gradually, clearly extended sources, so that their colours do not depend on the
    noise.

    Parameters
    ----------
    wide, core : ApertureSums
        Sums of n sources in both apertures.
    scatter : float or ndarray, shape (n,)
        Relative scatter among stars of the fraction of light in the core.
    joined : ndarray of bool, shape (n,), optional
        Sources that are blended with others: more light outside the core does not make them
        extended.

    Returns
    -------
    flux, error : ndarray, shape (n,)
        Total fluxes and their errors.
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
    # Derivative of the flux by the excess, on which the weight depends as well.
    slope = 1 - weight * part
    slope += np.where((part > 0) & (part < 1), weight * pull / (last - first), 0)
    variance = inner + slope**2 * ring + 2 * slope * (shared - inner)
    flux = core.total + (1 - weight * part) * excess
    return flux, np.sqrt(np.maximum(variance, 0))


def core_fluxes(core: ApertureSums, scatter: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the total fluxes of point sources from the inner aperture alone.

    In a crowded field the wide aperture adds more light of unresolved stars than information on the
    measured one.

    Parameters
    ----------
    core : ApertureSums
        Sums of n sources in the inner aperture.
    scatter : float or ndarray, shape (n,)
        Relative scatter among stars of the fraction of light in the core.

    Returns
    -------
    flux, error : ndarray, shape (n,)
        Total fluxes and their errors.
    """
    flux = core.total
    return flux, np.sqrt(core.variance + (scatter * np.maximum(flux, 0)) ** 2)


def confusion_error(
    grid: np.ndarray, relative: np.ndarray, flux: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """Return the errors that confusion adds to fluxes.

    Parameters
    ----------
    grid, relative : ndarray, shape (k,)
        Fluxes, ascending, and the relative errors at these. Above the brightest the relative error
        is constant, below the faintest the absolute one.
    flux : ndarray, shape (n,)
        Fluxes of the sources.
    light : ndarray, shape (n,)
        By how much their places are more crowded than the image, from
        `lib.photometry.locallight`: a star there is as confused as one fainter by this factor.

    Returns
    -------
    ndarray, shape (n,)
        Errors, in units of `flux`.
    """
    inside = np.clip(np.nan_to_num(flux / light), grid[0], None)
    # The error falls as a power of the flux.
    known = np.log(np.maximum(relative, 1e-4))
    return np.exp(np.interp(np.log(inside), np.log(grid), known)) * inside * light


def core_aperture(
    radius: float, core: np.ndarray, wide: np.ndarray, noise: np.ndarray, fraction: float,
    assumed: float, gain: float,
) -> CoreAperture:  # fmt: skip
    """Measure the fraction of a star's light in the inner aperture.

    Parameters
    ----------
    radius : float
        Radius of the inner aperture [pixel].
    core, wide : ndarray, shape (n,)
        Fluxes of stars in both apertures.
    noise : ndarray, shape (2,)
        Standard deviation of the sky in the inner and in the wide aperture.
    fraction : float
        Fraction of the total light in the wide aperture.
    assumed : float
        Fraction in the inner one where stars do not give it.
    gain : float
        Electrons per unit; 0 where the photon noise is unknown.

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
    # The noise of the ring between both enters the ratio.
    ring = (noise[1] ** 2 - noise[0] ** 2) / outer**2 * ratio**2
    own = noise[0] ** 2 / outer**2 * (1 - ratio) ** 2
    light = ratio * (1 - ratio) / (gain * outer) if gain else 0.0
    variance = ring + own + light
    mean = float(clipped_mean(ratio[:, None], variance[:, None], 0.01)[0][0])
    beyond = excess_scatter(ratio, variance) / mean
    return CoreAperture(radius, mean * fraction, max(beyond, LEAST_SCATTER))
