"""The pixels of raw files, whatever those hold: all of them, or a reason."""

import gzip
import io
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.guarded import GuardedFailure, failure_text, guarded_arrays
from lib.frame.file import FrameRejected
from lib.night.frameignored import FrameUnusable
from lib.night.rawheaders import RawHDU, read_headers

BITPIX_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}

SPARE_MEMORY = 512 << 20
"""[byte] What a library may take beside a few copies of the pixels that it unpacks."""

SPARE_SECONDS, PIXELS_PER_SECOND = 20.0, 5e5
"""CPU time that unpacking may take, and for each second more the pixels: ten times what it does."""


def read_raw(path: str | Path, hdus: set[int]) -> dict[int, np.ndarray]:
    """Return the pixels of some HDUs of a raw file.

    The layout of the file is checked before a library sees it. Plain images are then read as
    they are; packed ones, whose tables may hold anything, by a process of bounded memory and time.

    Parameters
    ----------
    path : path-like
    hdus : set of int

    Returns
    -------
    dict of int to ndarray, shape (ny, nx)

    Raises
    ------
    FrameRejected
        UNREADABLE or NO_IMAGE, or what the check of the layout says: what an archive, a broken
        disk or a hand may leave.
    ChildProcessError
        The reading process was killed from outside, which says nothing of the file.
    """
    wanted = sorted(hdus)
    images = _checked(path, wanted)
    try:
        if all(one.plain for one in images[: wanted[-1] + 1]):
            found = _read(path, wanted, images[wanted[-1]].end)
        else:
            pixels = [int(np.prod(images[number].shape or [0])) for number in wanted]
            size = sum(8 * one + 16 for one in pixels)
            found = guarded_arrays(
                lambda: _read(path, wanted, images[wanted[-1]].end),
                size,
                memory=4 * size + SPARE_MEMORY,
                seconds=SPARE_SECONDS + sum(pixels) / PIXELS_PER_SECOND,
            )
    except GuardedFailure as why:
        raise FrameRejected("UNREADABLE", str(why)) from why
    except (MemoryError, ChildProcessError):
        # The layout of a plain image has been checked: it is the machine that is too small.
        raise
    except Exception as why:  # noqa: BLE001 - what a library raises on bytes of others is its own
        raise FrameRejected("UNREADABLE", failure_text(why)) from why
    return {number: _flat(raw, number) for number, raw in zip(wanted, found, strict=True)}


def map_raw(path: str | Path, hdu: int) -> np.ndarray:
    """Return the pixels of an image of a raw file for a picture.

    Parameters
    ----------
    path : path-like
    hdu : int

    Returns
    -------
    ndarray, shape (ny, nx)
        As stored, read where they are used; those of a packed image as `read_raw` gives them.

    Raises
    ------
    FrameRejected
        As for `read_raw`.
    """
    images = _checked(path, [hdu])
    if not all(one.plain for one in images[: hdu + 1]) or str(path).endswith(".gz"):
        return read_raw(path, {hdu})[hdu]
    one = images[hdu]
    try:
        kind = BITPIX_TYPES[one.header["BITPIX"]]
        raw = np.memmap(path, kind, "r", one.start, tuple(one.shape or ()))
    except (OSError, ValueError) as why:
        raise FrameRejected("UNREADABLE", failure_text(why)) from why
    return _flat(raw, hdu)


def _checked(path: str | Path, wanted: list[int]) -> list[RawHDU]:
    """Return the HDUs of a file whose layout is sane up to the last one wanted."""
    try:
        images = read_headers(path, last=wanted[-1]).hdus
    except FrameUnusable as why:
        raise FrameRejected(why.code, why.text) from why
    for number in wanted:
        if number >= len(images) or images[number].shape is None:
            raise FrameRejected("NO_IMAGE", f"HDU {number} holds no 2-D image")
    return images


def _read(path: str | Path, wanted: list[int], end: int) -> list[np.ndarray]:
    """Return the pixels of some HDUs, whether or not the rest of the file is FITS."""
    with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as file:
        content = io.BytesIO(file.read(end))
    with fits.open(content, memmap=False) as opened:
        found = [opened[number].data for number in wanted]
    return [np.empty(0) if one is None else one for one in found]


def _flat(raw: np.ndarray | None, number: int) -> np.ndarray:
    """Return an image without its axes of one pixel's length."""
    raw = np.empty(0) if raw is None else np.squeeze(raw)
    if raw.ndim != 2:
        raise FrameRejected("NO_IMAGE", f"HDU {number} holds no 2-D image")
    return raw
