"""Headers of raw files, read in blocks without the pixels, checked against the file length."""

import functools
import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import CardHeader, text

BLOCK = 2880


MAX_HEADER_BLOCKS = 400  # 36 cards each


MAX_HDUS = 200


MAX_LENGTH = 1 << 50  # bytes, and maximum of an axis; beyond any disk


MAX_PIXELS = 1 << 30  # of one image


HARMLESS = 256 << 20  # bytes to which a compressed file may always expand


MAX_RATIO = 100  # compression ratio of larger files; noise keeps frames below 20


MAX_FIELDS = 999  # columns of a table, by the standard


PACKINGS = {"RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"}


def parse_header(block: bytes) -> CardHeader:
    """Return the keywords of a header (bytes of 80-character cards), without HIERARCH.

    The first card of a keyword is used. Invalid FITS values remain texts: this never fails.
    """
    cards = block.decode("latin-1")
    header: dict[str, Any] = {}
    card_of: dict[str, str] = {}
    last = None
    for start in range(0, len(cards), 80):
        card = cards[start : start + 80]
        key, value = _parsed(card)
        if key == COMMENTARY:
            continue
        if key == CONTINUED:
            if last is not None and isinstance(value, str) and str(header[last]).endswith("&"):
                header[last] = header[last][:-1] + value
                card_of[last] += card
            continue
        last = None
        if key and key not in header:
            header[key] = value
            card_of[key] = card
            if type(value) is str:
                last = key
    return CardHeader(header, cards, card_of)


CONTINUED, COMMENTARY = "CONTINUE ", "COMMENT "
"""Keywords from `_parsed` for cards without keyword: no keyword ends with a space."""


@functools.lru_cache(maxsize=16384)
def _parsed(card: str) -> tuple[str, Any]:
    """Return keyword and value of a card; an empty keyword for invalid ones.

    Most cards are the same in all frames of a night, so results are cached.
    """
    if card[8:10] == "= ":
        key = card[:8].rstrip()
        if key in ("COMMENT", "HISTORY", ""):
            return COMMENTARY, None
        return key, _card_value(card[10:])
    if card.startswith("HIERARCH "):
        key, found, value = card[9:].partition("=")
        if not found:
            return COMMENTARY, None
        return " ".join(key.split()).upper(), _card_value(value)
    if card.startswith("CONTINUE"):
        return CONTINUED, _card_value(card[8:])
    return "", None


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
    """Return the bytes of the header at the current position, in whole blocks; b'' at the end.

    Raises
    ------
    FrameUnusable
        The header has no END card.
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
    """Return the axes of an HDU, fastest first; raise FrameUnusable where the header lacks them."""
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
        Index of the HDU.
    header : dict
        Keywords and values.
    shape : list of int
        Axes of an image with data, slowest first; else None.
    packed_primary : bool
        Whether it is a primary image that fpack moved into an extension.
    plain : bool
        Whether it is not compressed, so that its pixels are stored as they are.
    unpacked : int
        Size of a compressed image after decompression [byte].
    start, length : int
        First byte and size of its data in a plain file.
    end : int
        Size of the file, decompressed if .gz, up to its end [byte].
    """

    index: int
    header: dict[str, Any]
    shape: list[int] | None = None
    packed_primary: bool = False
    plain: bool = True
    unpacked: int = 0
    start: int = 0
    length: int = 0
    end: int = 0


class RawHeaders(NamedTuple):
    """The headers of a raw file: primary header, all HDUs, and a hash of all headers."""

    primary: dict[str, Any]
    hdus: list[RawHDU]
    digest: str


def _describe_hdu(index: int, header: dict[str, Any]) -> tuple[RawHDU, int]:
    """Return an HDU and the size of its data [byte]."""
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
    hdu = RawHDU(index, header, plain=kind in ("IMAGE", "IUEIMAGE") and "GROUPS" not in header)
    if kind in ("IMAGE", "IUEIMAGE"):
        if axes and min(axes) > 0:
            hdu.shape = _image_shape(axes)
    elif kind in ("BINTABLE", "TABLE", "A3DTABLE"):
        fields = header.get("TFIELDS")
        if not isinstance(fields, int) or not 0 <= fields <= MAX_FIELDS:
            raise FrameUnusable("BAD_HEADER", f"TFIELDS is {text(fields)[:40] or 'missing'}")
        if kind == "BINTABLE" and header.get("ZIMAGE") is True:
            axes = _packed_axes(header)
            if axes and min(axes) > 0:
                hdu.shape = _image_shape(axes)
                hdu.packed_primary = header.get("ZSIMPLE") is True
                hdu.unpacked = math.prod(axes) * abs(header["ZBITPIX"]) // 8
    return hdu, size


def _image_shape(axes: list[int]) -> list[int]:
    """Return the axes of an image, slowest first, without trailing axes of length one."""
    long = [length for length in axes if length > 1]
    return (long if len(axes) > 2 and len(long) == 2 else axes)[::-1]


def _is_count(value: Any) -> bool:
    """Return whether a header value is a non-negative integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _packed_axes(header: dict[str, Any]) -> list[int]:
    """Return the axes, fastest first, of a compressed image, after checking its table.

    Raises
    ------
    FrameUnusable
        The table cannot contain such an image; nothing is decompressed.
    """
    axes = _axes(header, "Z")
    bits = header.get("ZBITPIX")
    if not isinstance(bits, int) or bits not in (8, 16, 32, 64, -32, -64):
        raise FrameUnusable("BAD_HEADER", f"ZBITPIX is {text(bits)[:40] or 'missing'}")
    packing = text(header.get("ZCMPTYPE"))
    if packing not in PACKINGS:
        raise FrameUnusable("BAD_HEADER", f"ZCMPTYPE is {packing[:40] or 'missing'}")
    tiles = 1
    for axis, length in enumerate(axes, start=1):
        tile = header.get(f"ZTILE{axis}", length if axis == 1 else 1)
        if not _is_count(tile) or tile == 0:
            raise FrameUnusable("BAD_HEADER", f"ZTILE{axis} is {text(tile)[:40]}")
        tiles *= -(-length // tile)
    rows = header.get("NAXIS2")
    if axes and rows != tiles:
        raise FrameUnusable("BAD_HEADER", f"{text(rows)} rows for {tiles} tiles of pixels")
    return axes


def _check_unpacked(hdus: list[RawHDU], data: int, stored: int) -> None:
    """Raise where a file would expand to implausibly much data.

    Parameters
    ----------
    hdus : list of RawHDU
    data : int
        Size according to the headers [byte].
    stored : int
        Size of the file on disk [byte].
    """
    pixels = math.prod(hdus[-1].shape or [0])
    if pixels > MAX_PIXELS:
        raise FrameUnusable("TOO_LARGE", f"an image of {pixels} pixels, {MAX_PIXELS} at most")
    _check_ratio(data + sum(hdu.unpacked for hdu in hdus), stored)


def _check_ratio(unpacked: int, stored: int) -> None:
    if unpacked > max(HARMLESS, MAX_RATIO * stored):
        raise FrameUnusable(
            "TOO_LARGE",
            f"{stored / 1e6:.3g} MB on disk that open to {unpacked / 1e9:.3g} GB or more",
        )


class _GzipReader:
    """The part of the file interface needed here, on a gzip stream, which is read to its end."""

    seekable = False

    def __init__(self, path: str, stored: int) -> None:
        self._file = gzip.open(path, "rb")
        self.place = 0
        self.stored = stored

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count: int) -> int:
        """Skip up to `count` bytes and return how many there were."""
        done = 0
        while done < count:
            data = self._file.read(min(count - done, 1 << 20))
            if not data:
                break
            done += len(data)
            _check_ratio(self.place + done, self.stored)
        self.place += done
        return done

    def close(self) -> None:
        self._file.close()


class _PlainReader:
    """The same for a plain file of known size."""

    seekable = True

    def __init__(self, path: str, size: int, stored: int) -> None:
        self._file = open(path, "rb", buffering=4 * BLOCK)
        self.place = 0
        self.size = size
        self.stored = stored

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count: int) -> int:
        """Skip up to `count` bytes and return how many there were."""
        done = max(0, min(count, self.size - self.place))
        if done:
            self._file.seek(done, os.SEEK_CUR)
            self.place += done
        return done

    def close(self) -> None:
        self._file.close()


def read_headers(
    path: str | os.PathLike[str], size: int | None = None, last: int | None = None
) -> RawHeaders:
    """Return the headers of all HDUs of a raw file, checked against the length of the file.

    Parameters
    ----------
    path : str or Path
        Plain, fpacked (.fz) or gzipped (.gz) FITS file; a gzipped one is decompressed to its end,
        the only way to know whether it is complete.
    size : int, optional
        Length of the file [byte], if known.
    last : int, optional
        Index of the last HDU needed: nothing after its header is read.

    Returns
    -------
    RawHeaders

    Raises
    ------
    FrameUnusable
        The file cannot be read, is not FITS, is shorter than its headers say, or would expand to
        implausibly much data.
    """
    path = os.fspath(path)
    try:
        info = os.stat(path)
        size = info.st_size if size is None else size
        if size == 0:
            raise FrameUnusable("EMPTY", "the file has no bytes")
        # Holes occupy no disk space; some file systems do not report it.
        stored = min(size, 512 * info.st_blocks) or size
        reader: _GzipReader | _PlainReader
        packed = path.lower().endswith(".gz")
        reader = _GzipReader(path, stored) if packed else _PlainReader(path, size, stored)
        try:
            return _walk_hdus(reader, MAX_HDUS - 1 if last is None else last)
        finally:
            reader.close()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FrameUnusable("BAD_GZIP", text(error) or "not a gzip file") from error
    except OSError as error:
        raise FrameUnusable("UNREADABLE", error.strerror or type(error).__name__) from error


def _walk_hdus(reader: "_GzipReader | _PlainReader", last: int) -> RawHeaders:
    hdus: list[RawHDU] = []
    announced = 0
    # A hash of all headers: equal in copies, hardly ever in different frames.
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
        hdu.start, hdu.length = reader.place * reader.seekable, bytes_of_data
        hdu.end = reader.place + bytes_of_data + -bytes_of_data % BLOCK
        announced += bytes_of_data
        if isinstance(reader, _GzipReader) or bytes_of_data <= reader.size - reader.place:
            _check_unpacked(hdus, announced, reader.stored)
        if hdu.index >= last and isinstance(reader, _GzipReader):
            break
        found = reader.skip(bytes_of_data)
        if found < bytes_of_data:
            raise FrameUnusable(
                "TRUNCATED", f"{found} of {bytes_of_data} bytes of data in HDU {hdu.index}"
            )
        if hdu.index >= last:
            break
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
    """Return the next extension's header; b'' at the end, or where other bytes follow."""
    first = reader.read(BLOCK)
    if not first.startswith(b"XTENSION="):
        while reader.skip(1 << 24):  # read to the end, which verifies the checksum of a gzip stream
            pass
        return b""
    if len(first) < BLOCK:
        raise FrameUnusable("TRUNCATED", "the file ends within a header")
    return first if _has_end(first) else first + _read_header_block(reader)
