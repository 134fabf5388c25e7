"""All that is known of a frame of a stack, from its measurement to its outliers."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.frame.file import Frame, FrameRejected, read_frame
from lib.photometry.growth import GrowthCurve

log = logging.getLogger("autoproc")


@dataclass(frozen=True)
class FrameStars:
    """Stars of a frame, used for its zero point.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Positions [deg].
    magnitude, error : ndarray, shape (n,)
        Instrumental magnitude of the total flux per second, and its error.
    """

    ra: np.ndarray
    dec: np.ndarray
    magnitude: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class FrameMeasurement:
    """Measurements of a single frame.

    Parameters
    ----------
    fwhm, seeing : float
        FWHM of the stars [pixel] and [arcsec].
    ellipticity : float
        Median 1 - b/a of the stars.
    nstars : int
        Number of stars.
    noise : float
        Standard deviation of a sky pixel [stored units].
    aperture : float
        Radius of the aperture of the photometry [pixel].
    fraction : float
        Fraction of a star's total light in the aperture.
    fraction_error : float
        Relative error of `fraction`.
    wings : tuple of float
        See `lib.photometry.psf.Wings`.
    core : tuple of float
        See `lib.photometry.psf.CoreAperture`.
    wcs : astropy.wcs.WCS
        WCS of the frame.
    stars : FrameStars
        Stars for the zero point.
    growth : GrowthCurve
        Growth curve.
    """

    fwhm: float
    seeing: float
    ellipticity: float
    nstars: int
    noise: float
    aperture: float
    fraction: float
    fraction_error: float
    wings: tuple[float, ...]
    core: tuple[float, ...]
    wcs: WCS
    stars: FrameStars
    growth: GrowthCurve


@dataclass(frozen=True)
class FrameZeropoint:
    """Zero point of a frame, from the stars in common with other frames.

    Parameters
    ----------
    value : float
        Magnitude of one electron per second.
    absolute : bool
        Whether `value` is tied to the reference, or only to the other frames.
    scatter : float
        Robust scatter of its stars [mag].
    common : int
        Number of stars in common with other frames or the reference.
    transparency : float
        Transparency relative to the best frame.
    """

    value: float
    absolute: bool
    scatter: float
    common: int
    transparency: float


@dataclass(frozen=True)
class FrameScaling:
    """Scale and weight of a frame in a stack.

    Parameters
    ----------
    scale : float
        Factor that scales its flux to the exposure time and transparency of the stack.
    variance : float
        Variance of a sky pixel [stored units squared].
    modelled : bool
        Whether `variance` follows from sky and read noise in the header, or from the measured
        noise.
    weight : float
        Inverse variance of a scaled pixel.
    noise_ratio : float
        Measured noise over the square root of `variance`.
    """

    scale: float
    variance: float
    modelled: bool
    weight: float
    noise_ratio: float


@dataclass(frozen=True)
class OutlierCounts:
    """Numbers of pixels of a frame that contradict the other frames.

    Parameters
    ----------
    pixels, trail : int
        Pixels of cosmic rays and the like, and pixels of satellite trails.
    """

    pixels: int
    trail: int


@dataclass
class StackFrame:
    """A frame of a stack, completed step by step; unknown fields are None.

    Parameters
    ----------
    name : str
    path : Path
    header : astropy.io.fits.Header
        Header, including the size of the image.
    used : bool
        Whether the frame is still to be stacked.
    reason : str
        Why it was left out.
    step : str, optional
        Step that left it out.
    """

    name: str
    path: Path
    header: fits.Header
    used: bool = True
    reason: str = ""
    step: str | None = None
    measured: FrameMeasurement | None = None
    zeropoint: FrameZeropoint | None = None
    scaling: FrameScaling | None = None
    outliers: OutlierCounts | None = None

    def leave_out(self, why: FrameRejected) -> None:
        """Leave the frame out of the stack."""
        self.used, self.reason, self.step = False, str(why), "stack"
        log.warning("%s left out: %s", self.name, why)

    @property
    def measurement(self) -> FrameMeasurement:
        """The measurement of the frame; an error if it was not measured."""
        assert self.measured is not None, f"{self.name} is not measured"
        return self.measured

    @property
    def weighting(self) -> FrameScaling:
        """Scale and weight of the frame; an error before they are determined."""
        assert self.scaling is not None, f"{self.name} is not scaled"
        return self.scaling

    def numbers(self) -> dict[str, Any]:
        """Return the quality measures of the frame under the keys of the quality file."""
        known: dict[str, Any] = {"used": self.used, "reason": self.reason}
        if not self.used:
            known["step"] = self.step
        m, z, s = self.measured, self.zeropoint, self.scaling
        if m:
            known |= {
                "fwhm": m.fwhm, "seeing": m.seeing, "ellipticity": m.ellipticity,
                "nstars": m.nstars, "noise": m.noise,
            }  # fmt: skip
        if z:
            known |= {
                "zeropoint": z.value, "zeropoint_absolute": z.absolute, "scatter": z.scatter,
                "common": z.common, "transparency": z.transparency,
            }  # fmt: skip
        if s:
            known |= {"scale": s.scale, "weight": s.weight, "noise_ratio": s.noise_ratio}
        if m:
            known |= {
                "aperture": m.aperture,
                "fraction": m.fraction,
                "fraction_error": m.fraction_error,
                "wings": m.wings,
                "core": m.core,
            }
        if self.outliers:
            known |= {"outliers": self.outliers.pixels, "trail": self.outliers.trail}
        return known


class FrameCache:
    """Frames kept in memory from their measurement to their resampling, up to a limit.

    Parameters
    ----------
    limit : float
        Maximum memory [byte].
    """

    def __init__(self, limit: float) -> None:
        self._room = limit
        self._frames: dict[Path, Frame] = {}

    def keep(self, path: Path, frame: Frame) -> None:
        """Keep a frame if there is room for it."""
        assert frame.image is not None and frame.mask is not None
        self._room -= frame.image.nbytes + frame.mask.nbytes
        if self._room > 0:
            self._frames[path] = frame

    def take(self, path: Path) -> Frame:
        """Return a frame and drop it from the cache; read it from disk if it is not there."""
        return self._frames.pop(path, None) or read_frame(path)
