"""The quality file of a stack: measurements of the stack and of its frames, as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from astropy.io import fits

from lib.core.settings import StackSettings
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.zeropoint import Zeropoint
from lib.stack.reference import StackReference
from lib.stack.stackframe import StackFrame
from lib.stack.weights import median_variance_ratio

ZEROPOINT_KEYS = (
    "value", "error", "scatter", "rms", "intrinsic", "n_stars", "n_matched", "colour",
    "colour_term", "colour_term_error", "colour_at", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class CoaddRecord:
    """Quality measures of a coadd.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Final header of the coadd.
    flags : list of str
        Codes of the flags of the stack.
    gain, saturate : float
        Electrons per unit, and saturation level.
    shape : tuple of int
        (ny, nx).
    scale : float
        Pixel scale [arcsec/pixel].
    n_sources : int
        Number of sources in the table.
    correlation, weight_factor : float
        See `lib.photometry.measuredcoadd.CoaddNoise`.
    noise_radii : ndarray
        Radii of empty apertures [arcsec].
    noise_ratios : ndarray
        Noise in these apertures over that by the weight map.
    empty_apertures : int
        Number of empty apertures.
    zeropoint : lib.photometry.zeropoint.Zeropoint
        Zero point of the coadd.
    """

    header: fits.Header
    flags: list[str]
    gain: float
    saturate: float
    shape: tuple[int, int]
    scale: float
    n_sources: int
    correlation: float
    weight_factor: float
    noise_radii: np.ndarray
    noise_ratios: np.ndarray
    empty_apertures: int
    zeropoint: Zeropoint

    @classmethod
    def of(
        cls,
        coadd: MeasuredCoadd,
        header: fits.Header,
        flags: list[str],
        saturate: float,
        n_sources: int,
        zeropoint: Zeropoint,
    ) -> "CoaddRecord":
        """Return the quality measures of a coadd."""
        noise, (ny, nx) = coadd.noise, coadd.image.shape
        return cls(
            header, flags, coadd.gain, saturate, (ny, nx), coadd.scale, n_sources,
            noise.correlation, noise.weight_factor, noise.radii * coadd.scale, noise.ratios,
            noise.apertures, zeropoint,
        )  # fmt: skip

    def numbers(self) -> dict[str, Any]:
        """Return the quality measures under the keys of the quality file."""
        header, (ny, nx) = self.header, self.shape
        zeropoint = {key: getattr(self.zeropoint, key) for key in ZEROPOINT_KEYS}
        if self.zeropoint.spatial is not None:
            zeropoint["spatial"] = asdict(self.zeropoint.spatial)
        zeropoint["catalogue"] = header["ABSZPCAT"]
        return {
            "limmag": header.get("LIMMAG"), "compmag": header.get("COMPMAG"),
            "astrms": [header.get("ASTRMS1"), header.get("ASTRMS2")],
            "astrnst": header.get("ASTRNST", 0), "exptime": header["EXPTIME"], "gain": self.gain,
            "saturate": self.saturate, "size": [nx, ny], "scale": self.scale,
            "nsources": self.n_sources, "fwhm": header.get("SEEPIX"),
            "seeing": header.get("SEEING"), "ellipticity": header.get("ELLIPTIC"),
            "aperture_correction_error": header.get("APCORERR"),
            "growth_stars": header.get("APCORNST", 0), "correlation": self.correlation,
            "weight_factor": self.weight_factor, "noise_radii": self.noise_radii,
            "noise_ratios": self.noise_ratios, "psf": {
                "model": header.get("PSFMODEL"), "stars": header.get("PSFNSTAR"),
                "degree": header.get("PSFDEGRE"), "error": header.get("PSFERROR"),
            }, "empty_apertures": self.empty_apertures,
            "zeropoint": zeropoint,
        }  # fmt: skip


@dataclass(frozen=True)
class StackRecord:
    """All that is known of a finished stack.

    Parameters
    ----------
    settings : StackSettings
    version : int
        Version of the step.
    band : str
        Band of the reference.
    reference : StackReference
    frames : list of StackFrame
        All frames, including those left out.
    status : {'OK', 'REJECTED'}
    reason : str
        Why the stack is rejected, or the reasons of its flags.
    coadd : CoaddRecord, optional
        Quality measures; None for a rejected stack.
    """

    settings: StackSettings
    version: int
    band: str
    reference: StackReference
    frames: list[StackFrame] = field(repr=False)
    status: str
    reason: str
    coadd: CoaddRecord | None = None


def record_json(record: StackRecord) -> dict[str, Any]:
    """Return the record of a stack as written to the quality file, ready for JSON.

    Parameters
    ----------
    record : StackRecord
        The record.

    Returns
    -------
    dict
        Nested dicts, lists, strings and numbers.
    """
    n_used = sum(frame.used for frame in record.frames)
    summary = {
        "combine": record.settings.combine, "band": record.band, "nframes": len(record.frames),
        "nstack": n_used, "nreject": len(record.frames) - n_used,
        "flags": record.coadd.flags if record.coadd else [],
        "reference": record.reference.source, "reference_reason": record.reference.reason,
        "version": record.version, "status": record.status, "reason": record.reason,
    }  # fmt: skip
    if record.coadd:
        summary |= record.coadd.numbers()
        if record.settings.combine == "median":
            summary["median_penalty"] = float(np.sqrt(median_variance_ratio(n_used)))
    summary["frames"] = {frame.name: frame.numbers() for frame in record.frames}
    return plain(summary)


def plain(value: Any) -> Any:
    """Return `value` in JSON types: NaN as None, numpy numbers as Python numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
