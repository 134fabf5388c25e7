"""The image on which sources are measured, with its noise."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.core.stats import regular_sample
from lib.photometry.coverage import FrameCoverage


@dataclass(frozen=True)
class MeasurementImage:
    """An image on which sources are measured.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Background-subtracted image.
    noise : float or ndarray of float32, shape (ny, nx)
        Standard deviation of a pixel without the photon noise of sources.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels without a valid value: stars with one in their core are not used to measure the
        point-spread function.
    gain : float
        Electrons per unit, for the photon noise of sources; 0 omits it.
    saturate : float
        Level above which pixels are not trusted.
    cores : ndarray of bool, shape (ny, nx), optional
        Cores of saturated stars, which have less light than fell on them.
    coverage : FrameCoverage, optional
        For a coadd whose frames do not all cover the same area.
    """

    data: np.ndarray
    noise: float | np.ndarray
    bad: np.ndarray | None = None
    gain: float = 1.0
    saturate: float = np.inf
    cores: np.ndarray | None = None
    coverage: FrameCoverage | None = None

    @cached_property
    def typical_noise(self) -> float:
        """Median noise of a pixel."""
        if isinstance(self.noise, np.ndarray) and self.noise.ndim:
            return float(np.median(regular_sample(self.noise)))
        return float(self.noise)

    @cached_property
    def bad_fraction(self) -> np.ndarray:
        """Image of 1 for bad pixels and 0 for others, float32, to be summed in apertures."""
        if self.bad is None:
            return np.zeros(self.data.shape, np.float32)
        return self.bad.astype(np.float32)
