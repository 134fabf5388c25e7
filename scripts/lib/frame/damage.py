"""Whether a file of ours is whole: FITS files by their checksums, others by the record."""

import mmap
import os
from pathlib import Path

import numpy as np

from lib.frame.fitsbytes import BLOCK, sum_of_part

MOST_BLOCKS = 400
"""Records of a header; a longer one is none."""

RIGHT = 0xFFFFFFFF
"""Ones' complement sum of an HDU with its CHECKSUM (FITS standard 4.0, appendix J)."""


def damage_of_fits(path: str | os.PathLike[str]) -> str:
    """Return the damage of a FITS file written by this program; '' for an intact one.

    Every HDU that it writes has a CHECKSUM, so that one without is damaged.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    OSError
        It cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return "it is empty"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as words:
            at = number = 0
            while at < size:
                first = b"SIMPLE  =" if number == 0 else b"XTENSION="
                if words[at : at + 9] != first:
                    return f"HDU {number} does not begin as one"
                header = _header(words, at)
                if not header:
                    return f"the header of HDU {number} has no end"
                try:
                    length = _data_length(header)
                except ValueError:
                    return f"the header of HDU {number} is damaged"
                end = at + len(header) + length + -length % BLOCK
                if end > size:
                    return f"it ends after {size} bytes of {end}"
                if b"CHECKSUM= " not in header or sum_of_part(words, at, end) != RIGHT:
                    return f"the checksum of HDU {number} is wrong"
                at, number = end, number + 1
    return ""


def damage_of_text(path: str | os.PathLike[str]) -> str:
    """Return the damage of a table, note or picture that is obvious at first sight; '' for none."""
    content = Path(path).read_bytes()
    if not content.strip(b"\0 \n"):
        return "it is empty"
    end = {".html": b"</html>", ".json": b"}", ".png": b"IEND\xaeB`\x82"}.get(
        Path(path).suffix, b""
    )
    return "" if content.rstrip(b"\n").endswith(end) else "its end is missing"


def _header(words: mmap.mmap, at: int) -> bytes:
    """Return the header that begins at a byte, in whole records; empty where it has no end."""
    for count in range(1, MOST_BLOCKS + 1):
        begin = at + (count - 1) * BLOCK
        block = words[begin : begin + BLOCK]
        if len(block) < BLOCK:
            return b""
        place = block.find(b"END" + b" " * 77)
        while place >= 0:
            if place % 80 == 0:
                return words[at : at + count * BLOCK]
            place = block.find(b"END" + b" " * 77, place + 1)
    return b""


def _data_length(header: bytes) -> int:
    """Return the number of data bytes that a header declares.

    Raises
    ------
    ValueError
        It does not tell.
    """
    cards = [header[k : k + 80] for k in range(0, len(header), 80)]
    numbers = {
        one[:8].rstrip(): one[10:].partition(b"/")[0]
        for one in cards
        if one[8:10] == b"= " and one.startswith((b"BITPIX", b"NAXIS", b"PCOUNT", b"GCOUNT"))
    }
    axes = [
        int(numbers.get(b"NAXIS%d" % k, b"")) for k in range(1, 1 + int(numbers.get(b"NAXIS", b"")))
    ]
    if not axes:
        return 0
    pixels = int(np.prod(axes, dtype=object)) + int(numbers.get(b"PCOUNT", b"0"))
    return abs(int(numbers.get(b"BITPIX", b""))) // 8 * int(numbers.get(b"GCOUNT", b"1")) * pixels
