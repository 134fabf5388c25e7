"""Frame files: an image, a mask of bits and a header that is true for the pixels as stored."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from astropy.io import fits

from lib.core.files import atomic_path
from lib.core.text import card_text, shown

if TYPE_CHECKING:
    # 0.2 s to import: needed by the steps that use ccdproc.
    from astropy.nddata import CCDData

BAD = 1
SATURATED = 2
NODATA = 4
COSMIC = 8
SOURCE = 16
INTERPOLATED = 32
TRAIL = 64
NONLINEAR = 128

MASK_BITS = {
    BAD: "bad pixel (hot, dead, unstable, not a number)",
    SATURATED: "saturated, or beside a saturated pixel",
    NODATA: "no data, or flat response too low",
    COSMIC: "cosmic ray",
    SOURCE: "part of a source when the sky was made",
    INTERPOLATED: "value repaired from its neighbours",
    TRAIL: "outlier against the other exposures (satellite)",
    NONLINEAR: "above the linearity limit",
}

UNUSABLE = BAD | SATURATED | NODATA | COSMIC | TRAIL
"""Bits whose pixels weigh nothing in a stack."""


class FrameRejected(Exception):
    """A frame (or master) that a step rejects: a result, not a failure.

    Parameters
    ----------
    code : str
        Short upper-case reason, as ``TOO_FEW_STARS``.
    numbers : str, optional
        Measured value and bound, e.g. ``2 < 6``.
    """

    def __init__(self, code: str, numbers: str = "") -> None:
        numbers = shown(numbers)
        self.code = code
        self.numbers = numbers
        super().__init__(f"{code}: {numbers}" if numbers else code)


@dataclass
class Frame:
    """An image with its mask and header; a rejected one has no image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Pixel values in the unit of header ``BUNIT``. None where a step has rejected the frame.
    mask : ndarray of uint8, shape (ny, nx)
        Sum of `MASK_BITS`. None likewise.
    header : astropy.io.fits.Header
    """

    image: np.ndarray
    mask: np.ndarray
    header: fits.Header = field(default_factory=fits.Header)

    @classmethod
    def without_image(cls, header: fits.Header) -> Self:
        """Return a frame that is but a header: a rejected one, or one whose pixels stay on disk."""
        return cls(cast(np.ndarray, None), cast(np.ndarray, None), header)

    @classmethod
    def from_ccddata(cls, ccd: "CCDData") -> "Frame":
        """Return the frame that a CCDData is; pixels of single precision are not copied.

        Parameters
        ----------
        ccd : CCDData
            Its flags are the bits of `MASK_BITS`. Without flags, pixels masked in it become BAD.

        Returns
        -------
        Frame
            Shares the pixels and, where it is a FITS header, the metadata; BUNIT is the unit.
        """
        from astropy.units import Unit

        header = ccd.meta if isinstance(ccd.meta, fits.Header) else fits.Header(ccd.meta)
        if Unit(header.get("BUNIT", "")) != ccd.unit:
            header["BUNIT"] = ccd.unit.to_string("fits")
        if ccd.flags is not None:
            mask = np.asarray(ccd.flags, np.uint8)
        elif ccd.mask is not None:
            mask = np.broadcast_to(ccd.mask, ccd.shape) * np.uint8(BAD)
        else:
            mask = np.zeros(ccd.shape, np.uint8)
        return cls(np.asarray(ccd.data, np.float32), mask, header)

    def to_ccddata(self) -> "CCDData":
        """Return the frame as a CCDData; pixels are not copied.

        Returns
        -------
        CCDData
            Shares image and header; its flags are the bits of `MASK_BITS`, its mask marks the
            `UNUSABLE` ones.

        Raises
        ------
        ValueError
            A rejected frame has no pixels.
        """
        from astropy.nddata import CCDData

        if self.image is None:
            raise ValueError(f"a rejected frame has no pixels ({self.reason})")
        return CCDData(
            self.image,
            unit=self.header.get("BUNIT", ""),
            mask=self.mask & UNUSABLE > 0,
            flags=self.mask,
            meta=self.header,
        )

    @property
    def rejected(self) -> bool:
        """Whether a step has rejected this frame."""
        return self.header.get("QCSTAT") == "REJECTED"

    @property
    def reason(self) -> str:
        """Code and numbers of the rejection, or an empty string."""
        return self.header.get("QCREASON", "") if self.rejected else ""


def reject(header: fits.Header, step: str, why: FrameRejected) -> Frame:
    """Return the frame without image that stands for a rejected one.

    Parameters
    ----------
    header : astropy.io.fits.Header
    step : str
        Step that rejects the frame.
    why : FrameRejected
    """
    header = header.copy()
    header["QCSTAT"] = ("REJECTED", "fit for use: OK or REJECTED")
    header["QCSTEP"] = (step, "step that rejected it")
    header["QCREASON"] = card_text(why, 68)
    return Frame.without_image(header)


def read_header(path: str | Path) -> fits.Header:
    """Return the primary header of a FITS file."""
    with fits.open(path, memmap=True, lazy_load_hdus=True) as hdus:
        return hdus[0].header.copy()


def read_frame(path: str | Path, extension: int | str = 0, mapped: bool = False) -> Frame:
    """Read a frame file.

    Parameters
    ----------
    path : path-like
    extension : int or str
        Extension of the image; mask and header are those of the file.
    mapped : bool
        Whether image and mask stay as they are on disk, read where they are used.

    Returns
    -------
    Frame
        Image and mask in native byte order, unless `mapped`; a mask of zeros where the file has
        none.
    """
    with fits.open(path, memmap=mapped) as hdus:
        header = hdus[0].header.copy()
        image = hdus[extension].data
        if image is None:
            return Frame.without_image(header)
        mask = hdus["MASK"].data if "MASK" in hdus else np.zeros(image.shape, np.uint8)
    if mask.shape != image.shape:
        raise ValueError(f"{path}: mask has shape {mask.shape}, image {image.shape}")
    if not mapped:
        image, mask = np.asarray(image, dtype=np.float32), np.asarray(mask, dtype=np.uint8)
    return Frame(image, mask, header)


def write_frame(path: str | Path, frame: Frame, extensions: Sequence[Any] = ()) -> None:
    """Write a frame file whole or not at all, with CHECKSUM and DATASUM.

    Parameters
    ----------
    path : path-like
    frame : Frame
    extensions : sequence of HDUs
        Extensions after the mask.
    """
    header = frame.header.copy()
    if "QCSTAT" not in header:
        header["QCSTAT"] = ("OK", "fit for use: OK or REJECTED")
    if frame.image is None:
        hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    else:
        # In the order of bytes that FITS has: astropy would swap them for each checksum.
        image = np.asarray(frame.image, dtype=">f4")
        mask = fits.ImageHDU(np.asarray(frame.mask, dtype=np.uint8), name="MASK")
        for bit, meaning in MASK_BITS.items():
            mask.header[f"BIT{bit}"] = meaning
        hdus = fits.HDUList([fits.PrimaryHDU(image, header), mask, *extensions])
    with atomic_path(path, wait=False) as beside:
        hdus.writeto(beside, checksum=True, overwrite=True)


def record_calibration(
    header: fits.Header, kind: str, path: str | Path, master: fits.Header
) -> None:
    """Write into `header` which master was used, and its DATASUM.

    Parameters
    ----------
    header : astropy.io.fits.Header
    kind : {'BIAS', 'DARK', 'FLAT', 'SKY', 'FRNG'}
    path : path-like
    master : astropy.io.fits.Header
        Header of the master as it lies on disk.
    """
    header[f"{kind}FILE"] = (Path(path).name, f"master {kind.lower()} used")
    header[f"{kind}SUM"] = (master.get("DATASUM", ""), f"DATASUM of the master {kind.lower()}")


def exposure_of(header: fits.Header) -> tuple[str, str] | None:
    """Return the properties shared by frames of one exposure, such as the chips of a camera.

    Names of raw files may repeat from night to night.

    Parameters
    ----------
    header : astropy.io.fits.Header

    Returns
    -------
    tuple of str or None
        Raw file and start of the exposure; None where no raw file is named.
    """
    raw = header.get("RAWFILE")
    return (str(raw), str(header.get("DATE-OBS", ""))) if raw else None


LONGEST_NOTE = 1000


def add_notes(header: fits.Header, notes: Iterable[str]) -> None:
    """Add remarks to be shown at the end of a run to a header: cards NOTE1, NOTE2, ...

    Parameters
    ----------
    header : astropy.io.fits.Header
    notes : iterable of str
        A line each; what does not fit one card is continued.
    """
    told = sum(1 for key in header if re.fullmatch(r"NOTE\d+", key))
    for number, note in enumerate(notes, told + 1):
        header[f"NOTE{number}"] = card_text(note, LONGEST_NOTE)
