"""How significant a point source is at each pixel of a difference image, and its flux there."""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import sigma_clipped_median
from lib.difference.convolution import convolve
from lib.difference.regions import Regions


@dataclass(frozen=True)
class PointFluxes:
    """A point source fitted at each pixel of an image.

    Parameters
    ----------
    flux, error : ndarray of float32, shape (ny, nx)
        Best-fit flux and its error, which is infinite where there is no data.
    """

    flux: np.ndarray
    error: np.ndarray

    @property
    def significance(self) -> np.ndarray:
        """Flux over error; 0 where there is no data."""
        return (self.flux / self.error).astype(np.float32)


def fit_points(
    image: np.ndarray, variance: np.ndarray, stamps: np.ndarray, regions: Regions
) -> PointFluxes:
    """Fit a point source at each pixel: sum(P d / v) / sum(P^2 / v), P being its image.

    Parameters
    ----------
    image, variance : ndarray of float32, shape (ny, nx)
        The variance is 0 where there is no data.
    stamps : ndarray, shape (nodes, s, s)
        Images of a point source of flux 1.
    regions : Regions

    Returns
    -------
    PointFluxes
        Errors as if pixels were independent.
    """
    weight = np.zeros_like(variance)
    np.divide(1, variance, out=weight, where=variance > 0)
    turned = stamps[:, ::-1, ::-1].astype(np.float32)

    def fitted(values: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        def part(node: int, place: tuple[slice, slice]) -> np.ndarray:
            return convolve(values[place], kernels[node])

        return regions.blend(part, kernels.shape[1] // 2)

    top = fitted(image * weight, turned)
    bottom = fitted(weight, turned**2)
    # Less than a tenth of a source's light on good pixels tells nothing of it.
    whole = float(np.max((turned**2).sum(axis=(1, 2))))
    least = 0.1 * whole * float(np.median(weight[weight > 0])) if (weight > 0).any() else np.inf
    good = (bottom > least) & (weight > 0)
    flux, error = np.zeros_like(top), np.full_like(top, np.inf)
    np.divide(top, bottom, out=flux, where=good)
    error[good] = 1 / np.sqrt(bottom[good])
    return PointFluxes(flux, error)


def calibrated(fluxes: PointFluxes, empty: np.ndarray) -> tuple[PointFluxes, float]:
    """Return the fluxes with errors as the scatter of empty places tells them, and the factor.

    Parameters
    ----------
    fluxes : PointFluxes
    empty : ndarray of bool, shape (ny, nx)
        Pixels without a source.
    """
    values = fluxes.significance[empty & np.isfinite(fluxes.error)]
    factor = sigma_clipped_median(values, sigma=4.0)[1] if values.size > 100 else 1.0
    factor = factor if factor > 0 else 1.0
    return PointFluxes(fluxes.flux, fluxes.error * np.float32(factor)), float(factor)
