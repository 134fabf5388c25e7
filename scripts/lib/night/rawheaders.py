"""Headers of raw files, read in blocks without the pixels, checked against the file's length."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import text

BLOCK = 2880


MAX_HEADER_BLOCKS = 400  # 36 cards each


MAX_HDUS = 200


MAX_LENGTH = 1 << 50  # bytes, also values of an axis; no disk holds more


MAX_UNPACKED = 16 * 1024**3  # bytes; more out of one .gz is no raw frame


def parse_header(block: bytes) -> dict[str, Any]:
    """Keywords of a header (bytes of 80-character cards) as dict; HIERARCH is left out of names.

    The first card of a name counts. What is no FITS value stays a text: this never fails.
    """
    cards = block.decode("latin-1")
    header: dict[str, Any] = {}
    last = None
    for start in range(0, len(cards), 80):
        card = cards[start : start + 80]
        if card[8:10] == "= ":
            key = card[:8].rstrip()
            value = card[10:]
            if key in ("COMMENT", "HISTORY", ""):
                continue
        elif card.startswith("HIERARCH "):
            key, found, value = card[9:].partition("=")
            if not found:
                continue
            key = " ".join(key.split()).upper()
        elif card.startswith("CONTINUE") and last is not None:
            piece = _card_value(card[8:])
            if isinstance(piece, str) and str(header[last]).endswith("&"):
                header[last] = header[last][:-1] + piece
            continue
        else:
            last = None
            continue
        last = None
        if key not in header:
            header[key] = value = _card_value(value)
            if isinstance(value, str):
                last = key
    return header


def _card_value(field):
    field = field.strip()
    if field.startswith("'"):
        end = 1
        while True:
            end = field.find("'", end)
            if end < 0:
                return field[1:].rstrip()
            if field[end + 1 : end + 2] != "'":
                return field[1:end].replace("''", "'").rstrip()
            end += 2
    field = field.partition("/")[0].strip()
    if field == "T":
        return True
    if field == "F":
        return False
    try:
        return int(field)
    except ValueError:
        pass
    try:
        return float(field.replace("D", "E"))
    except ValueError:
        return field or None


def _read_header_block(file):
    """Bytes of one header from the place of `file`, in whole blocks; b'' at the end of the file.

    Raises
    ------
    FrameUnusable
        When no END card comes.
    """
    data = b""
    for _ in range(MAX_HEADER_BLOCKS):
        block = file.read(BLOCK)
        data += block
        if len(block) < BLOCK:
            if not data.strip(b"\0 "):
                return b""
            raise FrameUnusable("TRUNCATED", "the file ends within a header")
        place = block.find(b"END" + b" " * 77)
        while place >= 0:
            if place % 80 == 0:
                return data
            place = block.find(b"END" + b" " * 77, place + 1)
    raise FrameUnusable("NOT_FITS", "a header has no END")


def _axes(header, prefix=""):
    """Axes (fast first) of an HDU; raises FrameUnusable where the header does not tell."""
    naxis = header.get(f"{prefix}NAXIS")
    if not isinstance(naxis, int) or isinstance(naxis, bool) or not 0 <= naxis <= 999:
        raise FrameUnusable("BAD_HEADER", f"{prefix}NAXIS is {text(naxis)[:40] or 'missing'}")
    axes = []
    for axis in range(1, naxis + 1):
        length = header.get(f"{prefix}NAXIS{axis}")
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < MAX_LENGTH:
            raise FrameUnusable(
                "BAD_HEADER", f"{prefix}NAXIS{axis} is {text(length)[:40] or 'missing'}"
            )
        axes.append(length)
    return axes


@dataclass(slots=True)
class RawHDU:
    """One HDU of a raw file, without its data.

    Parameters
    ----------
    index : int
    header : dict
        Keywords and values.
    shape : list of int
        Axes of an image with data, the slow one first; else None.
    packed_primary : bool
        Whether it is a primary image that fpack has moved into an extension.
    """

    index: int
    header: dict[str, Any]
    shape: list[int] | None = None
    packed_primary: bool = False


class RawHeaders(NamedTuple):
    """The headers of a raw file: primary header, all HDUs, and a hash of all headers."""

    primary: dict[str, Any]
    hdus: list[RawHDU]
    digest: str


def _describe_hdu(index: int, header: dict[str, Any]) -> tuple[RawHDU, int]:
    """Return an HDU and the bytes of its data."""
    axes = _axes(header)
    bitpix = header.get("BITPIX")
    if not isinstance(bitpix, int) or bitpix not in (8, 16, 32, 64, -32, -64):
        raise FrameUnusable("BAD_HEADER", f"BITPIX is {text(bitpix)[:40] or 'missing'}")
    size = 0
    if axes:
        size = 1
        for length in axes:
            size *= length
        pcount, gcount = header.get("PCOUNT", 0), header.get("GCOUNT", 1)
        if index == 0 and header.get("GROUPS") is not True:
            pcount, gcount = 0, 1
        if not isinstance(pcount, int) or not isinstance(gcount, int) or min(pcount, gcount) < 0:
            raise FrameUnusable("BAD_HEADER", "PCOUNT or GCOUNT is not a number")
        size = abs(bitpix) // 8 * gcount * (pcount + size)
        if size >= MAX_LENGTH:
            raise FrameUnusable("BAD_HEADER", "the axes are those of a file larger than any disk")
    kind = text(header.get("XTENSION")) if index else "IMAGE"
    hdu = RawHDU(index, header)
    if kind in ("IMAGE", "IUEIMAGE"):
        if axes and min(axes) > 0:
            hdu.shape = axes[::-1]
    elif kind == "BINTABLE" and header.get("ZIMAGE") is True:
        axes = _axes(header, "Z")
        if axes and min(axes) > 0:
            hdu.shape = axes[::-1]
            hdu.packed_primary = header.get("ZSIMPLE") is True
    return hdu, size


class _GzipReader:
    """The part of a file object that is needed here, on a gzip stream, reading on to its end."""

    def __init__(self, path: str) -> None:
        self._file = gzip.open(path, "rb")
        self.place = 0

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count: int) -> int:
        """Go on by `count` bytes and return how many there were."""
        done = 0
        while done < count:
            data = self._file.read(min(count - done, 1 << 20))
            if not data:
                break
            done += len(data)
            if self.place + done > MAX_UNPACKED:
                raise FrameUnusable("TOO_LARGE", f"more than {MAX_UNPACKED} bytes when unpacked")
        self.place += done
        return done

    def close(self) -> None:
        self._file.close()


class _PlainReader:
    """The same for a plain file of known size."""

    def __init__(self, path: str, size: int) -> None:
        self._file = open(path, "rb", buffering=4 * BLOCK)
        self.place = 0
        self.size = size

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count: int) -> int:
        """Go on by `count` bytes and return how many there were."""
        done = max(0, min(count, self.size - self.place))
        if done:
            self._file.seek(done, os.SEEK_CUR)
            self.place += done
        return done

    def close(self) -> None:
        self._file.close()


def read_headers(path: str | os.PathLike[str], size: int | None = None) -> RawHeaders:
    """Headers of all HDUs of a raw file, checked against the length of the file.

    Parameters
    ----------
    path : str or Path
        Plain, fpacked (.fz) or gzipped (.gz) FITS file; a gzipped one is unpacked to its end, as
        only that tells whether it is whole.
    size : int, optional
        Length of the file in bytes, when known.

    Returns
    -------
    RawHeaders

    Raises
    ------
    FrameUnusable
        When the file cannot be read, is no FITS file, or is shorter than its headers say.
    """
    path = os.fspath(path)
    try:
        if size is None:
            size = os.stat(path).st_size
        if size == 0:
            raise FrameUnusable("EMPTY", "the file has no bytes")
        reader: _GzipReader | _PlainReader
        reader = _GzipReader(path) if path.endswith(".gz") else _PlainReader(path, size)
        try:
            return _walk_hdus(reader)
        finally:
            reader.close()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FrameUnusable("BAD_GZIP", text(error) or "not a gzip file") from error
    except OSError as error:
        raise FrameUnusable("UNREADABLE", error.strerror or type(error).__name__) from error


def _walk_hdus(reader: "_GzipReader | _PlainReader") -> RawHeaders:
    hdus: list[RawHDU] = []
    # Of all headers of a file: equal in copies, hardly ever in different frames.
    digest = hashlib.blake2b(digest_size=8)
    while len(hdus) < MAX_HDUS:
        block = b""
        if not hdus:
            start = reader.read(80)
            if not start.startswith(b"SIMPLE  ="):
                raise FrameUnusable("NOT_FITS", "the file does not begin with SIMPLE")
            block = start + reader.read(BLOCK - 80)
            if len(block) < BLOCK:
                raise FrameUnusable("TRUNCATED", "the file ends within a header")
            if not _has_end(block):
                block += _read_header_block(reader)
        else:
            block = _read_header_block_or_end(reader)
            if not block:
                break
        digest.update(block)
        hdu, bytes_of_data = _describe_hdu(len(hdus), parse_header(block))
        hdus.append(hdu)
        found = reader.skip(bytes_of_data)
        if found < bytes_of_data:
            raise FrameUnusable(
                "TRUNCATED", f"{found} of {bytes_of_data} bytes of data in HDU {hdu.index}"
            )
        reader.skip(-bytes_of_data % BLOCK)
    return RawHeaders(hdus[0].header, hdus, digest.hexdigest())


def _has_end(block):
    place = block.find(b"END" + b" " * 77)
    while place >= 0:
        if place % 80 == 0:
            return True
        place = block.find(b"END" + b" " * 77, place + 1)
    return False


def _read_header_block_or_end(reader):
    """The next extension's header; b'' at the end, or where only other bytes follow."""
    first = reader.read(BLOCK)
    if not first.startswith(b"XTENSION="):
        while reader.skip(1 << 24):  # to the end: for a gzip stream, this checks it
            pass
        return b""
    if len(first) < BLOCK:
        raise FrameUnusable("TRUNCATED", "the file ends within a header")
    return first if _has_end(first) else first + _read_header_block(reader)
