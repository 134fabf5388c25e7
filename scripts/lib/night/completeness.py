"""Whether a raw file is complete, or still being written.

A copying program may give a file its full length before the pixels arrive: the missing part reads
as zeros. So do rows that some detectors leave blank, but these are blank in every frame.
"""

import errno
import mmap
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib.frame.fitsbytes import BLOCK, sum_of_part
from lib.night.rawheaders import RawHDU, RawHeaders

SUSPICIOUS = 512
"""[byte] Number of zeros at the end of the image data from which on data may be missing."""

BEFORE = 2880
"""[byte] Data before these that show whether zeros are common in the frame."""

ROWS, BORDER = 4, 3
"""Rows before these, and pixels at their ends, whose zeros indicate a blank border."""

RECENT = 2.0
"""[s] A file changed more recently than this is checked again ..."""

PAUSE = 0.5
"""[s] ... after this time."""


def blank_end(path: str | os.PathLike[str], headers: RawHeaders) -> int:
    """Return the number of unexplained zero bytes at the end of a plain file's images.

    Parameters
    ----------
    path : path-like
        Raw file.
    headers : RawHeaders
        Its headers.

    Returns
    -------
    int
        0 where there are few zeros or none at the end; where all of the data are zero, or half of
        those just before, as in cameras that clip their noise; where the rows before have blank
        ends as well; where DATASUM is correct; and for gzipped files, whose own checksum was
        verified.
    """
    hdu = next((one for one in reversed(headers.hdus) if one.length), None)
    if hdu is None or not hdu.start:
        return 0
    try:
        with open(path, "rb", buffering=0) as file:
            end = hdu.start + hdu.length
            if any(os.pread(file.fileno(), 16, end - 16)):
                return 0
            written = _written(file.fileno(), hdu.start, end)
            if written < min(end, hdu.start + (1 << 16)):
                if not os.pread(file.fileno(), written - hdu.start, hdu.start).strip(b"\0"):
                    return 0
            words = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(words) < end:
            return 0
        data = np.frombuffer(words, np.uint8, hdu.length, hdu.start)
        filled = _length_without_zeros(data[: written - hdu.start])
        if filled == 0 or hdu.length - filled < SUSPICIOUS:
            return 0
        size = max(1, abs(int(hdu.header["BITPIX"])) // 8)
        before = data[max(0, filled - filled % size - BEFORE) : filled - filled % size]
        pixels = before[: len(before) // size * size].reshape(-1, size)
        if len(pixels) and (~pixels.any(axis=1)).mean() > 0.5:
            return 0
        if hdu.plain and hdu.shape and _has_blank_border(data[:filled], size * hdu.shape[-1], size):
            return 0
        return 0 if _sum_is_right(words, hdu) else hdu.length - filled
    except (OSError, ValueError):  # deleted or truncated meanwhile: the next reader will report it
        return 0


def _written(file: int, start: int, end: int) -> int:
    """Return the byte of an open file after which, up to `end`, nothing has been written."""
    hole = end
    try:
        hole = os.lseek(file, start, os.SEEK_HOLE)
        os.lseek(file, hole, os.SEEK_DATA)
    except OSError as error:
        # No data after the hole; other file systems have no holes.
        return min(hole, end) if error.errno == errno.ENXIO else end
    return end


def _has_blank_border(data: np.ndarray, row: int, size: int) -> bool:
    """Return whether the last whole rows begin or end with zeros, as in frames shifted by software.

    Parameters
    ----------
    data : ndarray of uint8
        Bytes of an image, up to its zeros.
    row, size : int
        Bytes of a row, and of a pixel.
    """
    rows = data[: len(data) // row * row].reshape(-1, row)[-ROWS:]
    if len(rows) < ROWS:
        return False
    edge = BORDER * size
    return not rows[:, :edge].any() or not rows[:, -edge:].any()


def _length_without_zeros(data: np.ndarray) -> int:
    """Return the number of bytes up to the last nonzero one."""
    end = len(data)
    while end > 0:
        start = max(0, end - (1 << 20))
        part = data[start:end]
        if part.max():
            return start + int(np.flatnonzero(part)[-1]) + 1
        end = start
    return 0


def _sum_is_right(words: mmap.mmap, hdu: RawHDU) -> bool:
    """Return whether an HDU has a DATASUM, and it is correct."""
    stated = str(hdu.header.get("DATASUM", ""))
    if not stated.isdigit():
        return False
    end = hdu.start + hdu.length + -hdu.length % BLOCK
    return sum_of_part(words, hdu.start, end) == int(stated)


def incomplete(files: Mapping[str, list[Any]]) -> dict[str, str]:
    """Return the files that end in zeros unlike other frames of their kind: name -> reason.

    Parameters
    ----------
    files : dict
        Entries of the night log; `blank` of the last item is the result of `blank_end`.
    """
    blanks: dict[tuple[Any, ...], dict[str, int]] = {}
    for name, entry in files.items():
        if entry[2] == "OK":
            first = entry[4][0]
            kind = (first["instrument"], first["camera"], tuple(first["shape"]), first["binning"])
            blanks.setdefault(kind, {})[name] = int(entry[7].get("blank", 0))
    found = {}
    for members in blanks.values():
        least = min(members.values())
        # Blank rows in all frames are due to the detector; a single frame proves nothing.
        usual = least + SUSPICIOUS if list(members.values()).count(least) > 1 else 0
        for name, blank in members.items():
            if blank > usual:
                found[name] = f"INCOMPLETE: the last {blank} bytes are zeros, as while it is copied"
    return found


def changing(folder: str, looks: Mapping[str, list[int]]) -> set[str]:
    """Return the files that change while they are being looked at.

    Parameters
    ----------
    folder : str
        Directory of the files.
    looks : dict of str to [int, int]
        Size and modification time [ns] of each file at the first look. Recently modified files get
        a pause before the second look.
    """
    now = time.time_ns()
    if any(abs(now - mtime) < 1e9 * RECENT for _, mtime in looks.values()):
        time.sleep(PAUSE)
    found = set()
    for name, before in looks.items():
        try:
            info = os.stat(os.path.join(folder, name))
        except OSError:
            found.add(name)
            continue
        if before != [info.st_size, info.st_mtime_ns]:
            found.add(name)
    return found
