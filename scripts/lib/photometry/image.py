"""The image that sources are measured on, with its noise."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lib.core.stats import regular_sample
from lib.photometry.coverage import FrameCoverage


@dataclass(frozen=True)
class MeasurementImage:
    """An image that sources are measured on.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray of float32, shape (ny, nx)
        Standard deviation of a pixel without the light of sources.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels that are no measurement: a star with one in its core is not used to measure the
        point-spread function.
    gain : float
        Electrons per unit, for the photon noise of sources; 0 leaves that out.
    saturate : float
        Pixels above are not trusted.
    cores : ndarray of bool, shape (ny, nx), optional
        Cores of saturated stars, which hold less light than fell on them.
    coverage : FrameCoverage, optional
        Of a coadd that not all frames cover everywhere.
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
        """1 for bad pixels, 0 for others: a float32 image, to be summed in apertures."""
        if self.bad is None:
            return np.zeros(self.data.shape, np.float32)
        return self.bad.astype(np.float32)
