"""FITS files as simple as our own and as those that the AstrOmatic programs take and give back.

Written and read as bytes, in a tenth of the time that astropy takes, which must be ready for all
that FITS allows.
"""

import math
import mmap
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

BLOCK = 2880
"""[byte] Size of the records of FITS."""

COPIED = 1 << 20
"""[byte] Size of the pieces in which files are copied."""

PIECE = 1 << 22
"""[byte] Size of the pieces in which they are summed."""

END = f"{'END':80}".encode("ascii")

BITPIX: dict[np.dtype, int] = {np.dtype("f4"): -32, np.dtype("u1"): 8}
"""Types of pixels."""

FORMATS: dict[np.dtype, str] = {
    np.dtype("f8"): "D",
    np.dtype("f4"): "E",
    np.dtype("i2"): "I",
    np.dtype("i4"): "J",
}
"""Types of columns; SCAMP crashes where one is not of the type source-extractor gives it."""

IMAGES = {str(bits): kind.newbyteorder(">") for kind, bits in BITPIX.items()}

NEEDED = (
    "CTYPE1", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip
"""Cards that a solution must have."""

TYPES = {form: kind.newbyteorder(">") for kind, form in FORMATS.items()} | {"L": np.dtype("S1")}


def card(key: str, value: bool | int | float | str) -> str:
    """Return a card of a header, 80 characters.

    Parameters
    ----------
    key : str
    value : bool, int, float or str
    """
    if isinstance(value, str):
        text = "'{:8}'".format(value.replace("'", "''"))
    elif isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    else:
        text = f"{value!r:>20}".upper()
    return f"{key:8}= {text:70}"


def header_bytes(cards: Mapping[str, Any], fill: bool = True) -> bytes:
    """Return a header, up to END or filled to whole records."""
    text = "".join(card(key, value) for key, value in cards.items()) + f"{'END':80}"
    return (text + " " * (-len(text) % BLOCK if fill else 0)).encode("ascii")


def table_extension(
    name: str,
    columns: Sequence[tuple[str, str]],
    data: np.ndarray,
    dimensions: Mapping[str, str] | None = None,
) -> bytes:
    """Return a binary table extension as bytes.

    Parameters
    ----------
    name : str
    columns : list of (str, str)
        Names and formats.
    data : ndarray
        Structured, of big-endian numbers or of bytes, a row an element.
    dimensions : dict of str to str, optional
        Cards of TDIM.
    """
    cards = {
        "XTENSION": "BINTABLE",
        "BITPIX": 8,
        "NAXIS": 2,
        "NAXIS1": data.dtype.itemsize,
        "NAXIS2": len(data),
        "PCOUNT": 0,
        "GCOUNT": 1,
        "TFIELDS": len(columns),
        "EXTNAME": name,
    }
    for number, (column, form) in enumerate(columns, start=1):
        cards |= {f"TTYPE{number}": column, f"TFORM{number}": form}
    # Text is filled with blanks: on zeros, as astropy writes, SCAMP crashes.
    fill = b" " if data.dtype.kind == "S" else b"\0"
    head = header_bytes({**cards, **(dimensions or {})})
    return head + data.tobytes() + fill * (-data.nbytes % BLOCK)


def write_ldac(
    path: str | Path, cards: Mapping[str, Any], columns: Mapping[str, np.ndarray]
) -> None:
    """Write a FITS_LDAC catalogue.

    Parameters
    ----------
    path : path-like
    cards : dict
        Header of the image the catalogue stands for.
    columns : dict of str to ndarray
    """
    block = header_bytes(cards, fill=False)
    image = table_extension(
        "LDAC_IMHEAD",
        [("Field Header Card", f"{len(block)}A")],
        np.array([block]),
        {"TDIM1": f"(80, {len(block) // 80})"},
    )
    rows = np.empty(
        len(next(iter(columns.values()))),
        [(name, values.dtype.newbyteorder(">")) for name, values in columns.items()],
    )
    for name, values in columns.items():
        rows[name] = values
    forms = [(name, FORMATS[values.dtype]) for name, values in columns.items()]
    objects = table_extension("LDAC_OBJECTS", forms, rows)
    primary = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True})
    Path(path).write_bytes(primary + image + objects)


def read_table(path: str | Path, extension: str) -> np.ndarray:
    """Read a table.

    Parameters
    ----------
    path : path-like
    extension : str
        EXTNAME.

    Returns
    -------
    ndarray
        Structured, of booleans and of numbers in this machine's byte order.

    Raises
    ------
    KeyError
        There is no such table.
    ValueError
        Not all of it is there, or it has columns of other kinds.
    """
    words = Path(path).read_bytes()
    found = next((hdu for hdu in _hdus(words) if hdu[0].get("EXTNAME") == extension), None)
    if found is None:
        raise KeyError(f"{path}: no {extension}")
    cards, _, lengths, at, size = found
    columns = range(1, int(cards["TFIELDS"]) + 1)
    names = [cards[f"TTYPE{k}"] for k in columns]
    forms = [cards[f"TFORM{k}"].removeprefix("1") for k in columns]
    if not set(forms) <= set(TYPES):
        raise ValueError(f"{path}: columns {sorted(set(forms) - set(TYPES))}")
    kinds = [TYPES[form] for form in forms]
    stored = np.dtype(list(zip(names, kinds, strict=True)))
    if stored.itemsize != lengths[0] or len(words) < at + size:
        raise ValueError(f"{path}: {len(words)} bytes, not {at + size}")
    rows = np.frombuffer(words, stored, lengths[1], at)
    native = [bool if form == "L" else TYPES[form].newbyteorder("=") for form in forms]
    table = np.empty(len(rows), list(zip(names, native, strict=True)))
    for name, form in zip(names, forms, strict=True):
        table[name] = rows[name] == b"T" if form == "L" else rows[name]
    return table


def map_images(path: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Map the images of a file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    lines : list of str
        Primary header, END left out.
    images : dict of str to ndarray
        Images as on disk, by EXTNAME; "" for the primary HDU.

    Raises
    ------
    ValueError
        The file is not whole, or no file of plain images.
    """
    with open(path, "rb") as file:
        words = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header: list[str] = []
    images: dict[str, np.ndarray] = {}
    for cards, lines, lengths, at, size in _hdus(words):
        header = header or lines
        if not lengths or cards.get("XTENSION") == "BINTABLE":
            continue
        kind = IMAGES.get(cards["BITPIX"])
        if kind is None or len(lengths) != 2 or "BZERO" in cards or "BSCALE" in cards:
            raise ValueError(f"{path}: no plain images")
        if at + size > len(words):
            raise ValueError(f"{path}: {len(words)} bytes, not {at + size}")
        pixels = np.frombuffer(words, kind, math.prod(lengths), at)
        images[cards.get("EXTNAME", "")] = pixels.reshape(lengths[::-1])
    return header, images


def copy_with_header(source: str | Path, target: str | Path, header: "fits.Header") -> None:
    """Write a copy of a file with another primary header, its data untouched.

    Parameters
    ----------
    source, target : path-like
    header : astropy.io.fits.Header
        True for the data; where it has their DATASUM, it gets a CHECKSUM that is right.

    Raises
    ------
    ValueError
        The source ends before its data do.
    """
    header.remove("CHECKSUM", ignore_missing=True)
    if "DATASUM" in header:
        header["CHECKSUM"] = ("0" * 16, "HDU checksum")
        words = header.tostring().encode("ascii")
        header["CHECKSUM"] = encode_checksum(ones_sum(words, int(header["DATASUM"])))
    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(header.tostring().encode("ascii"))
        block = b""
        while END not in (block[k : k + 80] for k in range(0, len(block), 80)):
            block = old.read(BLOCK)
            if len(block) < BLOCK:
                raise ValueError(f"{source}: a header without end")
        shutil.copyfileobj(old, new, COPIED)


def ones_sum(data: bytes, start: int = 0) -> int:
    """Return the ones' complement sum of bytes as 32-bit words.

    Source: FITS standard 4.0, appendix J.

    Parameters
    ----------
    data : bytes
        Whole records.
    start : int
        Sum of what comes before.
    """
    total = start + int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def sum_of_part(content: mmap.mmap, begin: int, end: int) -> int:
    """Return the `ones_sum` of some bytes of a file, whole records, without holding all of them."""
    total = 0
    for start in range(begin, end, PIECE):
        total = ones_sum(content[start : min(end, start + PIECE)], total)
    return total


def encode_checksum(total: int) -> str:
    """Return the value of CHECKSUM by which an HDU of a sum has the sum -0.

    Source: FITS standard 4.0, appendix J: each byte of the complement is spread over four
    characters that are digits or letters, and all are turned by one.

    Parameters
    ----------
    total : int
        `ones_sum` of the HDU with sixteen characters 0.
    """
    columns = []
    for byte in (~total & 0xFFFFFFFF).to_bytes(4, "big"):
        four = [byte // 4 + ord("0")] * 4
        four[0] += byte % 4
        for first in (0, 2):
            while not (chr(four[first]).isalnum() and chr(four[first + 1]).isalnum()):
                four[first] += 1
                four[first + 1] -= 1
        columns.append(four)
    text = "".join(chr(column[k]) for k in range(4) for column in columns)
    return text[-1] + text[:-1]


def _hdus(
    words: bytes | mmap.mmap,
) -> Iterator[tuple[dict[str, str], list[str], list[int], int, int]]:
    """Yield the cards of each HDU as text, its lines, lengths of axes, first byte and bytes."""
    at = 0
    while at < len(words):
        lines: list[str] = []
        while "END" not in (line[:8].rstrip() for line in lines[-BLOCK // 80 :]):
            block = words[at : at + BLOCK].decode("ascii", "replace")
            if len(block) < BLOCK:
                raise ValueError(f"a header ends after {len(words)} bytes")
            lines += [block[k : k + 80] for k in range(0, BLOCK, 80)]
            at += BLOCK
        lines = [line.rstrip() for line in lines]
        lines = lines[: lines.index("END")]
        cards = {line[:8].rstrip(): line[10:].partition("/")[0].strip(" '") for line in lines}
        lengths = [int(cards[f"NAXIS{k}"]) for k in range(1, int(cards["NAXIS"]) + 1)]
        # What compressed images hold lies behind their table.
        count = math.prod(lengths) + int(cards.get("PCOUNT", 0)) if lengths else 0
        size = abs(int(cards["BITPIX"])) // 8 * count
        yield cards, lines, lengths, at, size
        at += size + -size % BLOCK


def read_head(path: str | Path) -> dict[str, Any]:
    """Read the WCS cards of a .head file written by SCAMP.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        A card is missing, or is no finite number.
    """
    cards: dict[str, Any] = {}
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        key, text = line[:8].strip(), line[10:].partition("/")[0].strip()
        if key.startswith("CTYPE"):
            cards[key] = text.strip("' ")
        elif key.startswith(("CRVAL", "CRPIX", "CD1_", "CD2_", "PV1_", "PV2_")):
            cards[key] = float(text)
    for key in NEEDED:
        if key not in cards:
            raise ValueError(f"{path}: no {key}")
    if not all(math.isfinite(value) for value in cards.values() if not isinstance(value, str)):
        raise ValueError(f"{path}: not finite")
    return cards
