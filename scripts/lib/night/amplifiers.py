"""Sections of a detector: amplifiers, overscan, halves, and how they form one frame."""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from lib.night.facts import Amplifier
from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import Header, get, number, text
from lib.night.rawheaders import RawHDU


def parse_section(value: Any) -> tuple[list[int], list[bool]] | None:
    """Return `[x1:x2,y1:y2]` as ([y0, y1, x0, x1], [flip_y, flip_x]); None where it is no section.

    The FITS section is 1-based with ends included, the result 0-based with ends excluded.
    """
    match = re.fullmatch(
        r"\s*\[\s*(\d{1,6})\s*:\s*(\d{1,6})\s*,\s*(\d{1,6})\s*:\s*(\d{1,6})\s*\]\s*", text(value)
    )
    if not match:
        return None
    x1, x2, y1, y2 = (int(part) for part in match.groups())
    flip = [y2 < y1, x2 < x1]
    x1, x2 = sorted((x1, x2))
    y1, y2 = sorted((y1, y2))
    if x1 < 1 or y1 < 1:
        return None
    return [y1 - 1, y2, x1 - 1, x2], flip


def _inside(section, shape):
    y0, y1, x0, x1 = section
    return 0 <= y0 < y1 <= shape[0] and 0 <= x0 < x1 <= shape[1]


def _overlap(one, two):
    return one[0] < two[1] and two[0] < one[1] and one[2] < two[3] and two[2] < one[3]


def _resolve_section(spec, header, shape, binning, camera):
    """Return a section of the instrument file for this frame; None where it has none.

    Also None where the section makes no sense for the frame. `spec` is a list of numbers, a
    keyword, or a mapping by binning.
    """
    if isinstance(spec, dict):
        spec = spec.get(binning)
    if spec is None:
        return None
    if isinstance(spec, str):
        parsed = parse_section(get(header, spec))
        return parsed[0] if parsed and _inside(parsed[0], shape) else None
    full = camera.get("shape")
    if not full or list(full) == list(shape):
        section = list(spec)
    elif camera.get("other_shapes", "whole") == "scale":
        sy, sx = shape[0] / full[0], shape[1] / full[1]
        if abs(sy - sx) > 0.01 * sx:
            return None
        section = [
            math.ceil(spec[0] * sy),
            math.floor(spec[1] * sy),
            math.ceil(spec[2] * sx),
            math.floor(spec[3] * sx),
        ]
    else:
        return None
    return section if _inside(section, shape) else None


def single_amplifier(
    camera: dict[str, Any], half: dict[str, Any] | None, header: Header, hdu: RawHDU, binning: str
) -> Amplifier:
    """Return the amplifier of a frame, or of a half of it, that is read through only one.

    Raises
    ------
    FrameUnusable
        A half lies outside the frame.
    """
    shape = hdu.shape or []
    whole = [0, shape[0], 0, shape[1]]
    trim = (half or camera).get("trim", camera.get("trim"))
    if trim == "TRIMSEC" and get(header, trim) is None:
        trim = "DATASEC"
    data = _resolve_section(trim, header, shape, binning, camera)
    if data is not None and isinstance(trim, str):
        area = (data[1] - data[0]) * (data[3] - data[2])
        if area < 0.25 * shape[0] * shape[1]:  # nonsense, as in windowed frames
            data = None
    if data is None:
        if half is not None:
            raise FrameUnusable(
                "WRONG_SHAPE",
                f"{shape[0]}x{shape[1]} pixels, the halves are cut from "
                f"{'x'.join(str(n) for n in camera.get('shape', ['?']))}",
            )
        data = whole
    overscan = _resolve_section(camera.get("overscan"), header, shape, binning, camera)
    if overscan is not None and _overlap(data, overscan):
        overscan = None
    return Amplifier(hdu.index, data, overscan)


DATA_KEYS = ("TSEC", "TRIMSEC", "DATASEC", "DSEC", "AMPSEC", "ASEC")
OVERSCAN_KEYS = ("BIASSEC", "BSEC")
GAIN_KEYS = ("GAIN", "GTGAIN", "EGAIN", "GAIN_")
RDNOISE_KEYS = ("RDNOISE", "RDNOIS", "GTRON", "READNOI", "RON", "RDNOISE_")
"""Keywords of an amplifier among several of one image, without its number or letter."""

_NUMBERED = re.compile(rf"(?:{'|'.join(DATA_KEYS)})_?(\d{{1,2}}|[A-H])")


_FIRST_OVERSCANS = [
    f"{key}{joint}{name}"
    for key in OVERSCAN_KEYS
    for joint in ("", "_")
    for name in ("1", "01", "11", "0", "00", "A")
]
"""One of these is present where amplifiers have sections of their own: a quick test."""


def section_amplifiers(header: Header, hdu: RawHDU) -> tuple[list[Amplifier], list[int]] | None:
    """Return the amplifiers of an image whose header has a section for each, and their joint shape.

    Examples are DATASEC1 and BIASSEC1 (KeplerCam and its relatives), TSEC11 and BSEC11 (Arcon),
    DSECA and BSECA (MegaCam), AMPSEC1. Pixels between the data sections, such as overscan in the
    middle, are left out.

    Parameters
    ----------
    header : mapping
        Header of the image.
    hdu : RawHDU

    Returns
    -------
    tuple, or None
        None where there are fewer than two such sections, or they make no sense.
    """
    amplifiers = []
    for name in numbered_sections(header):
        data = _numbered(header, DATA_KEYS, name, hdu)
        if data is None:
            return None
        overscan = _numbered(header, OVERSCAN_KEYS, name, hdu)
        if overscan and _overlap(data, overscan):
            data = _without(data, overscan)
        amplifiers.append(
            Amplifier(
                hdu.index, data, overscan,
                gain=_numbered_value(header, GAIN_KEYS, name),
                rdnoise=_numbered_value(header, RDNOISE_KEYS, name),
            )
        )  # fmt: skip
    if not any(one.overscan for one in amplifiers):
        return None  # a value is used only if all amplifiers have one
    return join_amplifiers(amplifiers)


def numbered_sections(header: Header) -> list[str]:
    """Return the numbers or letters of the amplifiers for which an image has sections."""
    if not any(key in header for key in _FIRST_OVERSCANS):
        return []
    return sorted({found.group(1) for key in header if (found := _NUMBERED.fullmatch(key))})


def _numbered(header: Header, keys: Sequence[str], name: str, hdu: RawHDU) -> list[int] | None:
    """Return the section of an amplifier from the first keyword with a section inside the image."""
    for key in keys:
        for joint in ("", "_"):
            told = parse_section(get(header, f"{key}{joint}{name}"))
            if told and _inside(told[0], hdu.shape):
                return told[0]
    return None


def _numbered_value(header: Header, keys: Sequence[str], name: str) -> float:
    for key in keys:
        value = number(get(header, f"{key}{name}"))
        if value is not None and 0 < value < 1e4:
            return value
    return 0.0


def _without(data: list[int], overscan: list[int]) -> list[int]:
    """Return the larger part of a section that remains beside an overscan within it."""
    y0, y1, x0, x1 = data
    sides = [
        [y0, y1, x0, min(x1, overscan[2])], [y0, y1, max(x0, overscan[3]), x1],
        [y0, min(y1, overscan[0]), x0, x1], [max(y0, overscan[1]), y1, x0, x1],
    ]  # fmt: skip
    return max(sides, key=lambda one: max(0, one[1] - one[0]) * max(0, one[3] - one[2]))


def join_amplifiers(amplifiers: list[Amplifier]) -> tuple[list[Amplifier], list[int]] | None:
    """Place the amplifiers of one image side by side, without the pixels between their data.

    Parameters
    ----------
    amplifiers : list of Amplifier
        Amplifiers; their `origin` is set.

    Returns
    -------
    tuple, or None
        Amplifiers and shape of the frame; None where there are fewer than two, sections overlap, or
        they leave gaps in the frame.
    """
    data = [one.data for one in amplifiers]
    if len(data) < 2:
        return None
    for k, one in enumerate(data):
        if one[1] - one[0] < 1 or one[3] - one[2] < 1:
            return None
        if any(_overlap(one, other) for other in data[:k]):
            return None
    rows, columns = (
        sorted({place for one in data for place in range(one[low], one[low + 1])}) for low in (0, 2)
    )
    shape = [len(rows), len(columns)]
    if sum((one[1] - one[0]) * (one[3] - one[2]) for one in data) != shape[0] * shape[1]:
        return None
    for amplifier in amplifiers:
        if amplifier.overscan and any(_overlap(amplifier.overscan, one) for one in data):
            amplifier.overscan = None
        y0, _, x0, _ = amplifier.data
        amplifier.origin = [bisect_left(rows, y0), bisect_left(columns, x0)]
    return amplifiers, shape


def listed_amplifiers(
    camera: dict[str, Any], header: Header, hdu: RawHDU, binning: str
) -> tuple[list[Amplifier], list[int]]:
    """Return the amplifiers that an instrument file lists for an image, and their joint shape.

    Parameters
    ----------
    camera : dict
        Camera of the instrument file; `amplifiers` is a list of mappings with `data`, and
        optionally `overscan`, `gain`, `rdnoise`.
    header : mapping
        Header of the image.
    hdu : RawHDU
    binning : str
        Binning, as ``2x2``.

    Raises
    ------
    FrameUnusable
        BAD_SECTION: a section is not inside the frame, or the sections do not form one.
    """
    shape = hdu.shape or []
    amplifiers = []
    for entry in camera["amplifiers"]:
        data = _resolve_section(entry["data"], header, shape, binning, camera)
        overscan = _resolve_section(entry.get("overscan"), header, shape, binning, camera)
        if data is None or (overscan is None and "overscan" in entry):
            raise FrameUnusable(
                "BAD_SECTION", f"an amplifier's section is not in {shape[0]}x{shape[1]} pixels"
            )
        amplifiers.append(Amplifier(
            hdu.index, data, overscan,
            gain=float(entry.get("gain", 0.0)), rdnoise=float(entry.get("rdnoise", 0.0)),
        ))  # fmt: skip
    if len(amplifiers) == 1:
        y0, y1, x0, x1 = amplifiers[0].data
        return amplifiers, [y1 - y0, x1 - x0]
    joined = join_amplifiers(amplifiers)
    if joined is None:
        raise FrameUnusable("BAD_SECTION", "the amplifiers overlap or leave gaps in the frame")
    return joined


def extension_amplifiers(
    hdus: list[RawHDU], headers: dict[int, Header], binning: str
) -> tuple[list[Amplifier], list[int]]:
    """Return the amplifiers of a multi-extension file, placed by DETSEC, and their joint shape.

    Raises
    ------
    FrameUnusable
        Sections are missing, outside, or not of the size of their place.
    """
    bin_x, bin_y = (int(part) for part in binning.split("x"))
    amplifiers: list[Amplifier] = []
    places: list[list[int]] = []
    for hdu in hdus:
        header, shape = headers[hdu.index], hdu.shape or []
        place = parse_section(get(header, "DETSEC"))
        if place is None:
            raise FrameUnusable("BAD_SECTION", f"no usable DETSEC in extension {hdu.index}")
        told = parse_section(get(header, "DATASEC"))
        data = told[0] if told else [0, shape[0], 0, shape[1]]
        if not _inside(data, shape):
            raise FrameUnusable("BAD_SECTION", f"DATASEC outside extension {hdu.index}")
        told = parse_section(get(header, "BIASSEC"))
        overscan = told[0] if told else None
        if overscan and (not _inside(overscan, shape) or _overlap(overscan, data)):
            overscan = None
        (y0, y1, x0, x1), flip = place
        if (y1 - y0, x1 - x0) != (data[1] - data[0], data[3] - data[2]):
            # DETSEC counts unbinned pixels
            y0, y1, x0, x1 = y0 // bin_y, y1 // bin_y, x0 // bin_x, x1 // bin_x
        if (y1 - y0, x1 - x0) != (data[1] - data[0], data[3] - data[2]):
            raise FrameUnusable(
                "BAD_SECTION", f"DATASEC and DETSEC differ in size in extension {hdu.index}"
            )
        places.append([y0, y1, x0, x1])
        amplifiers.append(Amplifier(hdu.index, data, overscan, [y0, x0], flip))
    for k, one in enumerate(places):
        if any(_overlap(one, other) for other in places[:k]):
            raise FrameUnusable("BAD_SECTION", "the DETSEC of two extensions overlap")
    low_y, low_x = min(p[0] for p in places), min(p[2] for p in places)
    shape = [max(p[1] for p in places) - low_y, max(p[3] for p in places) - low_x]
    if shape[0] * shape[1] > 4 * sum((p[1] - p[0]) * (p[3] - p[2]) for p in places):
        raise FrameUnusable("BAD_SECTION", "DETSEC leaves most of the joined frame empty")
    for amplifier in amplifiers:
        amplifier.origin = [amplifier.origin[0] - low_y, amplifier.origin[1] - low_x]
    return amplifiers, shape


def to_frame(amplifier: Amplifier, x: float, y: float) -> tuple[float, float, int, int]:
    """Return the position (1-based) in the frame of a position in the raw HDU.

    Also returned are the signs of the axes.
    """
    y0, y1, x0, x1 = amplifier.data
    flip_y, flip_x = amplifier.flip
    oy, ox = amplifier.origin
    x_new = ox + (x1 - x + 1 if flip_x else x - x0)
    y_new = oy + (y1 - y + 1 if flip_y else y - y0)
    return x_new, y_new, -1 if flip_x else 1, -1 if flip_y else 1


def to_raw(amplifier: Amplifier, x: float, y: float) -> tuple[float, float]:
    """Return the position (1-based) in the raw HDU of a position in the frame."""
    y0, y1, x0, x1 = amplifier.data
    flip_y, flip_x = amplifier.flip
    oy, ox = amplifier.origin
    x_raw = x1 + 1 - (x - ox) if flip_x else x - ox + x0
    y_raw = y1 + 1 - (y - oy) if flip_y else y - oy + y0
    return x_raw, y_raw
