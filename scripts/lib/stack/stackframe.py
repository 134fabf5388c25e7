"""What is known of each frame of a stack, from its measurement to its outliers."""

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
    """Stars of a frame, for its zero point.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        [deg].
    magnitude, error : ndarray, shape (n,)
        Instrumental magnitude of the total flux per second, and its error.
    """

    ra: np.ndarray
    dec: np.ndarray
    magnitude: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class FrameMeasurement:
    """What is measured on a single frame.

    Parameters
    ----------
    fwhm, seeing : float
        FWHM of the stars [pixel], [arcsec].
    ellipticity : float
        Median 1 - b/a of the stars.
    nstars : int
    noise : float
        Pixel noise [stored units].
    aperture : float
        Radius of the photometry [pixel].
    fraction : float
        Part of a star's total light in it.
    fraction_error : float
        Relative.
    wings : tuple of float
        See `lib.photometry.psf.Wings`.
    core : tuple of float
        See `lib.photometry.psf.CoreAperture`.
    wcs : astropy.wcs.WCS
    stars : FrameStars
    growth : GrowthCurve
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
    """Zero point of a frame, from the stars it shares with the others.

    Parameters
    ----------
    value : float
        Magnitude of one electron per second.
    absolute : bool
        Whether `value` is tied to the reference, or only to the other frames.
    scatter : float
        Robust scatter of its stars [mag].
    common : int
        Stars in common with other frames or the reference.
    transparency : float
        Relative to the best frame.
    """

    value: float
    absolute: bool
    scatter: float
    common: int
    transparency: float


@dataclass(frozen=True)
class FrameScaling:
    """How a frame enters a stack.

    Parameters
    ----------
    scale : float
        Factor that brings its flux to the exposure and transparency of the stack.
    variance : float
        Variance of a pixel of the sky [stored units squared].
    modelled : bool
        Whether `variance` comes from sky and read noise in the header, or from the noise measured.
    weight : float
        Inverse variance of a scaled pixel.
    noise_ratio : float
        Noise measured over the root of `variance`.
    """

    scale: float
    variance: float
    modelled: bool
    weight: float
    noise_ratio: float


@dataclass(frozen=True)
class OutlierCounts:
    """Pixels of a frame that the other frames contradict.

    Parameters
    ----------
    pixels, trail : int
        Cosmic rays and the like; satellite trails.
    """

    pixels: int
    trail: int


@dataclass
class StackFrame:
    """A frame of a stack, filled step by step; what is not known yet is None.

    Parameters
    ----------
    name : str
    path : Path
    header : astropy.io.fits.Header
        With the size of the image.
    used : bool
        Whether it may still be stacked.
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
        """What was measured; an error before that."""
        assert self.measured is not None, f"{self.name} is not measured"
        return self.measured

    @property
    def weighting(self) -> FrameScaling:
        """How it enters the stack; an error before that is known."""
        assert self.scaling is not None, f"{self.name} is not scaled"
        return self.scaling

    def numbers(self) -> dict[str, Any]:
        """Return what is known of it by the keys of the quality file."""
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
        Bytes.
    """

    def __init__(self, limit: float) -> None:
        self._room = limit
        self._frames: dict[Path, Frame] = {}

    def keep(self, path: Path, frame: Frame) -> None:
        """Keep a frame where there is room left."""
        assert frame.image is not None and frame.mask is not None
        self._room -= frame.image.nbytes + frame.mask.nbytes
        if self._room > 0:
            self._frames[path] = frame

    def take(self, path: Path) -> Frame:
        """Return a frame, which is no longer kept, or read it again."""
        return self._frames.pop(path, None) or read_frame(path)
