"""Raw frames that bear checksums (FITS standard 4.0, appendix J) are held against them."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

from lib.frame.file import FrameRejected
from lib.frame.fitsbytes import BLOCK, ones_sum
from lib.night.frameignored import FrameUnusable
from lib.night.rawheaders import RawHDU, read_headers

PIECE = 1 << 22
"""[byte] Data are summed in pieces of this size, whole words."""

WITNESSES = 5
"""Other frames that are asked whether their writer's checksums can be believed."""

RIGHT = 0xFFFFFFFF
"""Sum of an HDU with its CHECKSUM; as a sum of words it is the same as 0."""


def check_checksums(path: str | Path, hdus: Iterable[int]) -> list[str]:
    """Hold some HDUs of a raw file against their DATASUM and CHECKSUM, where they have them.

    Where the data of no other frame of the folder are those of its DATASUM either, their writer's
    checksums are not believed.

    Parameters
    ----------
    path : path-like
    hdus : iterable of int

    Returns
    -------
    list of str
        Remarks about the frame.

    Raises
    ------
    FrameRejected
        BAD_CHECKSUM: the data have changed since they were written.
    """
    notes = []
    for number, stated, found, header_is_whole in _sums(path, sorted(hdus)):
        if stated != found:
            if _believed(Path(path), number):
                raise FrameRejected(
                    "BAD_CHECKSUM", f"DATASUM {stated}, data of HDU {number} {found}"
                )
            notes.append("checksum: DATASUM of this and other frames is wrong, not believed")
        elif not header_is_whole:
            notes.append("checksum: the header was changed after its CHECKSUM")
    return list(dict.fromkeys(notes))


def _sums(path: str | Path, wanted: list[int]) -> list[tuple[int, int, int, bool]]:
    """Return number, DATASUM, sum of the data, and whether the header is as CHECKSUM says."""
    found = []
    try:
        hdus = read_headers(path, last=wanted[-1]).hdus
        with _opened(path) as file:
            for number in wanted:
                stated = _stated(hdus[number])
                if stated is None or not hdus[number].length:
                    continue
                begin = hdus[number - 1].end if number else 0
                data = hdus[number].end - (hdus[number].length + -hdus[number].length % BLOCK)
                header = _sum(file, begin, data)
                total = _sum(file, data, hdus[number].end)
                bears = "CHECKSUM" in hdus[number].header
                whole = not bears or (header + total) % RIGHT == 0
                found.append((number, stated % RIGHT, total % RIGHT, whole))
    except (OSError, EOFError, FrameUnusable, IndexError) as why:
        raise FrameRejected("UNREADABLE", f"{type(why).__name__} {why}") from why
    return found


def _stated(hdu: RawHDU) -> int | None:
    """Return DATASUM as a number; None where there is none."""
    value: Any = hdu.header.get("DATASUM")
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def _believed(path: Path, number: int) -> bool:
    """Return whether the DATASUM of some other frame beside this one is right, or none has one."""
    asked = 0
    for other in sorted(path.parent.iterdir()):
        if other.name == path.name or other.suffix != path.suffix or other.name.startswith("."):
            continue
        try:
            sums = _sums(other, [number])
        except FrameRejected:
            continue
        for _, stated, found, _ in sums:
            if stated == found:
                return True
            asked += 1
        if asked == WITNESSES:
            break
    # One other frame that was damaged, too, proves nothing.
    return asked < 2


def _opened(path: str | Path) -> BinaryIO:
    if str(path).endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return open(path, "rb")


def _sum(file: BinaryIO, begin: int, end: int) -> int:
    """Return the ones' complement sum of some bytes of a file; missing bytes count as zeros."""
    file.seek(begin)
    total = 0
    while begin < end:
        piece = file.read(min(PIECE, end - begin))
        if not piece:
            break
        begin += len(piece)
        total = ones_sum(piece + b"\0" * (-len(piece) % 4), total)
    return total
