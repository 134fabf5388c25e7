"""Measurements on a coadd: its noise, its background, its sources."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.wcs import WCS

from lib.photometry.backgroundmesh import spread_mesh
from lib.photometry.coverage import FrameCoverage
from lib.photometry.emptyapertures import summed_area
from lib.photometry.psfmodel import PsfModel
from lib.photometry.skystructure import local_excess
from lib.photometry.starfield import StarField
from lib.photometry.underlying import UnderlyingLight

OCCUPIED_MARGIN = 0.75
"""[FWHM] Rim of the sources in which no empty aperture may lie."""


@dataclass(frozen=True)
class CoaddNoise:
    """Noise of a coadd in empty apertures, relative to its variance map.

    Parameters
    ----------
    radii : ndarray, shape (n,)
        Aperture radii [pixel].
    ratios : ndarray, shape (n,)
        Noise in apertures of these radii over that predicted by the calibrated variance map; 1
        where it could not be measured.
    radius : float
        Radius of the apertures in which the variance map was calibrated: one FWHM [pixel].
    apertures : int
        Number of these apertures; 0 where the map is not calibrated.
    weight_factor : float
        Factor by which the weights of the combination were multiplied.
    correlation : float
        Variance in these apertures over that expected from single pixels: larger than 1 where the
        noise of neighbouring pixels is correlated.
    """

    radii: np.ndarray
    ratios: np.ndarray
    radius: float = np.nan
    apertures: int = 0
    weight_factor: float = 1.0
    correlation: float = 1.0

    def ratio(self, radius: float | np.ndarray) -> np.ndarray:
        """Return the noise in apertures of a radius [pixel] over that by the variance map."""
        return np.interp(radius, self.radii, self.ratios)


@dataclass(frozen=True)
class MeasuredCoadd:
    """A background-subtracted coadd with its calibrated noise and its sources.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted image; 0 where no frame covers it.
    variance : ndarray of float32, shape (ny, nx)
        Variance of each pixel, calibrated for apertures of one FWHM radius; 0 where there is no
        weight.
    covered : ndarray of bool, shape (ny, nx)
        Pixels with weight.
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources, with a margin, and those without weight.
    background : ndarray of float32, shape (m, n)
        Background mesh, from `lib.photometry.backgroundmesh.background_mesh`.
    field : StarField or None
        The sources; None where there are none.
    noise : CoaddNoise
        Noise in empty apertures.
    wcs : astropy.wcs.WCS
        WCS of the coadd.
    scale : float
        Pixel scale [arcsec/pixel].
    gain : float
        Electrons per unit: the photon variance of a flux F is F / gain.
    coverage : FrameCoverage, optional
        Which frames cover each position, where not all cover the whole coadd.
    psf : PsfModel, optional
        Point-spread function, where it could be measured.
    psf_reason : str
        Why it could not be measured.
    structure : ndarray of float32, shape (ny, nx), optional
        Light of galaxies and nebulae, where most sources lie in it: they are measured without it,
        and so is the noise.
    """

    image: np.ndarray
    variance: np.ndarray
    covered: np.ndarray
    occupied: np.ndarray
    background: np.ndarray
    field: StarField | None
    noise: CoaddNoise
    wcs: WCS
    scale: float
    gain: float
    coverage: FrameCoverage | None = None
    psf: PsfModel | None = None
    psf_reason: str = ""
    structure: np.ndarray | None = None

    @property
    def without_structure(self) -> np.ndarray:
        """The image without the light of galaxies and nebulae."""
        return self.image if self.structure is None else self.image - self.structure

    def local_excess(
        self, x: np.ndarray, y: np.ndarray, radius: float, under: UnderlyingLight
    ) -> np.ndarray:
        """Return `lib.photometry.skystructure.local_excess` at sources.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            [pixel].
        radius : float
            [pixel].
        under : UnderlyingLight
            Light that is taken away from the sources: it is no noise to them.
        """
        total, ratio = self.occupied_total, self.noise.ratio(radius)
        excess = local_excess(self.image, self.variance, total, x, y, radius, ratio)
        on = np.flatnonzero(under.level)
        if self.structure is not None and on.size:
            image = self.without_structure
            excess[on] = local_excess(image, self.variance, total, x[on], y[on], radius, ratio)
        return excess

    @cached_property
    def under(self) -> UnderlyingLight:
        """Light of larger sources under those of the coadd."""
        assert self.field is not None
        return UnderlyingLight.of(self.field)

    @cached_property
    def occupied_total(self) -> np.ndarray:
        """Summed-area table of `occupied`, int32, shape (ny + 1, nx + 1)."""
        return summed_area(self.occupied)

    def source_positions(self) -> np.ndarray:
        """Return ra, dec of the sources [deg], shape (n, 2)."""
        if self.field is None:
            return np.empty((0, 2))
        sources = self.field.sources
        return np.column_stack(self.wcs.all_pix2world(sources["x"], sources["y"], 0))


def subtract_mesh(image: np.ndarray, mesh: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Return a background-subtracted coadd; 0 where no frame covers it.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mesh : ndarray
        Background mesh, from `lib.photometry.backgroundmesh.background_mesh`.
    covered : ndarray of bool, shape (ny, nx)
        Pixels with weight.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    return np.where(covered, image - spread_mesh(mesh, image.shape), np.float32(0))
