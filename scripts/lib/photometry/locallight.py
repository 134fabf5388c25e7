"""The light of the stars of a crowded image from place to place, which confusion grows with."""

from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from lib.core.meshes import bilinear_at

CELL = 2.0
"""[FWHM] Side of the cells whose mean is taken."""

REACH = 3.0
"""[cell] Width of the Gaussian that smooths them: some twenty stars of a crowd are within."""

BRIGHTEST = 10.0
"""[mean light] Pixels count as no brighter: a single bright star is no crowd."""

LEAST = 0.05
"""Least light of a place over that of the image."""


@dataclass(frozen=True)
class LocalLight:
    """The light of the stars about the places of a crowded image.

    Where twice as many stars lie about it, a star is as confused as one of half its flux elsewhere,
    if the number of stars goes as the inverse of their flux.

    Parameters
    ----------
    cells : ndarray of float32, shape (rows, columns)
        Light of equal parts of the image, over its mean.
    shape : tuple of int
        (ny, nx) of the image.
    level : float
        That mean, a pixel, in units of the image.
    power : float
        Power of the light over its mean that `at` returns.
    """

    cells: np.ndarray
    shape: tuple[int, int]
    level: float
    power: float = 1.0

    def to_power(self, power: float) -> "LocalLight":
        """Return the light with another power of it to count."""
        return replace(self, power=power)

    @classmethod
    def of(
        cls, image: np.ndarray, covered: np.ndarray, fwhm: float, level: float | None = None
    ) -> "LocalLight":
        """Return the light of a background-subtracted image.

        Parameters
        ----------
        image : ndarray of float32, shape (ny, nx)
        covered : ndarray of bool, shape (ny, nx)
        fwhm : float
            FWHM of the stars [pixel].
        level : float, optional
            Of a part of an image that of the whole.

        Returns
        -------
        LocalLight
        """
        from scipy.ndimage import gaussian_filter

        seen = image[covered]
        if level is None:
            # Of an image without light the noise is none.
            least = 0.1 * float(np.median(np.abs(seen))) or 1.0
            level = max(float(seen.mean()), least)
            level = max(float(np.minimum(seen, BRIGHTEST * level).mean()), least)
        light = np.where(covered, np.minimum(image, BRIGHTEST * level), 0)
        total, number = (
            gaussian_filter(_cell_sums(one, CELL * fwhm), REACH, mode="constant")
            for one in (light, covered)
        )
        mean = np.divide(total, number, out=np.full_like(total, level), where=number > 0)
        shape = image.shape[0], image.shape[1]
        return cls(np.maximum(mean / level, LEAST).astype(np.float32), shape, level)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the power of the light about places [pixel] over the mean, of shape (n,)."""
        row, column = (
            np.clip(np.rint(np.nan_to_num(place)).astype(int), 0, size - 1)
            for place, size in zip((y, x), self.shape, strict=True)
        )
        light = bilinear_at(self.cells, self.shape, row, column).astype(float)
        return light**self.power

    def hdu(self) -> fits.ImageHDU:
        """Return the light as an extension ``CROWDING``, for forced photometry."""
        hdu = fits.ImageHDU(self.cells, name="CROWDING")
        hdu.header["IMAGEX"] = (self.shape[1], "[pixel] size of the image that has these parts")
        hdu.header["IMAGEY"] = (self.shape[0], "[pixel] the same")
        hdu.header["LEVEL"] = (self.level, "mean light of a pixel, which these are over")
        hdu.header["POWER"] = (self.power, "power of these that counts as so much less flux")
        return hdu

    @classmethod
    def from_hdu(cls, hdu: fits.ImageHDU) -> "LocalLight":
        """Return the light of an extension that `hdu` has made."""
        shape = int(hdu.header["IMAGEY"]), int(hdu.header["IMAGEX"])
        card = hdu.header
        return cls(hdu.data.astype(np.float32), shape, float(card["LEVEL"]), float(card["POWER"]))


def _cell_sums(values: np.ndarray, side: float) -> np.ndarray:
    """Return the sums over about square, equal parts of an image."""
    edges = [
        np.linspace(0, size, max(1, round(size / side)) + 1)[:-1].astype(int)
        for size in values.shape
    ]
    return np.add.reduceat(np.add.reduceat(values, edges[1], 1, float), edges[0], 0)
