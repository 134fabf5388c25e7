"""Sections of a detector: amplifiers, overscan, halves, and how they make one frame."""

import math
import re
from typing import Any

from lib.night.facts import Amplifier
from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import Header, get, text
from lib.night.rawheaders import RawHDU


def parse_section(value: Any) -> tuple[list[int], list[bool]] | None:
    """`[x1:x2,y1:y2]` (1-based, ends included) as ([y0, y1, x0, x1], [flip_y, flip_x]) or None.

    The result is 0-based with the end excluded, as numpy counts.
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
    """A section of the YAML (numbers, keyword, or a mapping by binning) for this frame.

    Returns None where there is none or it makes no sense for this frame.
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
    """Return the one amplifier of a frame, or of a half of it.

    Raises
    ------
    FrameUnusable
        Where a half is not within the frame.
    """
    shape = hdu.shape or []
    whole = [0, shape[0], 0, shape[1]]
    trim = (half or camera).get("trim", camera.get("trim"))
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


def extension_amplifiers(
    hdus: list[RawHDU], headers: dict[int, Header], binning: str
) -> tuple[list[Amplifier], list[int]]:
    """Amplifiers of a multi-extension file, placed by DETSEC; (list, shape of joined frame).

    Raises
    ------
    FrameUnusable
        When sections are missing, outside, or of another size than their place.
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
    """A position (1-based) in the raw HDU as position in the frame, and the signs of its axes."""
    y0, y1, x0, x1 = amplifier.data
    flip_y, flip_x = amplifier.flip
    oy, ox = amplifier.origin
    x_new = ox + (x1 - x + 1 if flip_x else x - x0)
    y_new = oy + (y1 - y + 1 if flip_y else y - y0)
    return x_new, y_new, -1 if flip_x else 1, -1 if flip_y else 1


def to_raw(amplifier: Amplifier, x: float, y: float) -> tuple[float, float]:
    """A position (1-based) in the frame as position in the raw HDU of this amplifier."""
    y0, y1, x0, x1 = amplifier.data
    flip_y, flip_x = amplifier.flip
    oy, ox = amplifier.origin
    x_raw = x1 + 1 - (x - ox) if flip_x else x - ox + x0
    y_raw = y1 + 1 - (y - oy) if flip_y else y - oy + y0
    return x_raw, y_raw
