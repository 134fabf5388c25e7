"""The two images that are compared: coadd and template on one grid, with noise and masks."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lib.photometry.psf import Wings

PHOTON_SIGMA = 0.6
"""[FWHM] Width of the Gaussian that smooths an image before its photon noise is taken from it."""

DIFF_MASK = {
    1: "no data in the coadd",
    2: "saturated in the coadd",
    4: "no data in the template",
    8: "saturated in the template",
    16: "within reach of the kernel of such a pixel, or of the edge",
}
"""Bits of extension MASK of a difference image: why a pixel has no weight."""

NO_DATA, SATURATED, TEMPLATE_NO_DATA, TEMPLATE_SATURATED, REACHED = DIFF_MASK


@dataclass(frozen=True)
class Plane:
    """An image without its background, on the grid of the coadd.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        0 where there is no data.
    variance : ndarray of float32, shape (ny, nx)
        Variance of the sky, valid for sums over apertures; 0 where there is no data.
    saturated : ndarray of bool, shape (ny, nx)
        Pixels that hold less light than fell on them.
    fwhm : float
        FWHM of stars [pixel].
    gain : float
        Electrons per unit; 0 where the photon noise of sources is not known.
    wings : lib.photometry.psf.Wings, optional
        Light of a star further out than its image tells.
    """

    image: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray
    fwhm: float
    gain: float
    wings: Wings | None = None

    @cached_property
    def bad(self) -> np.ndarray:
        """Pixels without a value that counts."""
        return (self.variance <= 0) | self.saturated

    @cached_property
    def full_variance(self) -> np.ndarray:
        """Variance of each pixel with the photon noise of its source."""
        from scipy.ndimage import gaussian_filter

        if not self.gain > 0:
            return self.variance
        light = gaussian_filter(self.image, PHOTON_SIGMA * self.fwhm / 2.355)
        photons = np.maximum(light, 0) / np.float32(self.gain)
        return np.where(self.variance > 0, self.variance + photons, 0).astype(np.float32)

    def scaled(self, factor: float) -> "Plane":
        """Return the plane in units `factor` times as small: its fluxes are so much larger."""
        return replace(
            self, image=self.image * np.float32(factor),
            variance=self.variance * np.float32(factor**2), gain=self.gain / factor,
        )  # fmt: skip


def mask_bits(coadd: Plane, template: Plane) -> np.ndarray:
    """Return the bits of `DIFF_MASK` of coadd and template, ndarray of uint8, shape (ny, nx)."""
    bits = np.zeros(coadd.image.shape, np.uint8)
    for plane, empty, saturated in (
        (coadd, NO_DATA, SATURATED),
        (template, TEMPLATE_NO_DATA, TEMPLATE_SATURATED),
    ):
        bits[(plane.variance <= 0) & ~plane.saturated] |= np.uint8(empty)
        bits[plane.saturated] |= np.uint8(saturated)
    return bits
