"""Remarks on the parts of an instrument file that have no effect on the frames of a night."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.night.facts import FrameFacts
from lib.night.headervalues import Header, evaluate, get, keywords_of, number, text
from lib.night.instrumentsource import Source, place_of
from lib.night.rawheaders import RawHDU

OF_NUMBERS = ("pixscale", "rotation")
"""Numerical entries of `wcs`."""


def frame_remarks(
    header: Header, image: RawHDU, facts: FrameFacts, camera: Mapping[str, Any], name: str
) -> list[str]:
    """Return the entries of an instrument file for a frame's camera that were not used.

    Parameters
    ----------
    header : mapping
        Header of the image, merged with the primary one.
    image : RawHDU
        The image, or the first of several amplifiers.
    facts : FrameFacts
        Facts of the frame, or of its first half.
    camera : mapping
        The camera's part of the instrument file.
    name : str
        Name of the raw file.
    """
    result = []
    scale = camera.get("wcs", {})
    for key in OF_NUMBERS:
        spec = scale.get(key)
        if spec is None or isinstance(spec, (int, float)) or facts.pixscale is not None:
            continue
        if (value := evaluate(spec, header, name)) is not None:
            if number(value) is None:
                result.append(f"wcs.{key}: {text(value)[:40]!r} is no number, not used")
    if len(facts.amplifiers) != 1 or facts.half:
        return result
    shape = image.shape or []
    amplifier = facts.amplifiers[0]
    used = {"trim": amplifier.data, "overscan": amplifier.overscan}
    for key, box in used.items():
        remark = _section_remark(camera.get(key), box, header, shape, facts.binning, camera)
        if remark:
            result.append(f"{key}: {remark}")
    return result


def _section_remark(
    spec: Any,
    used: list[int] | None,
    header: Header,
    shape: list[int],
    binning: str,
    camera: Mapping[str, Any],
) -> str:
    """Return why a section was not used; '' where it was."""
    if spec is None:
        return ""
    size = "x".join(str(length) for length in shape)
    whole = [0, shape[0], 0, shape[1]]
    if isinstance(spec, str):
        told = text(get(header, spec))
        if not told or used not in (None, whole) or _is_whole(told, shape):
            return ""
        return f"{spec} = {told[:40]} is no section of the {size} frame, not used"
    if isinstance(spec, Mapping):
        if binning not in spec:
            return f"there is none for {binning} binning, frames of {size} are taken as they are"
        spec = spec[binning]
    if spec is None or used not in (None, whole) or list(spec) == whole:
        return ""
    full = camera.get("shape")
    if full and list(full) != list(shape):
        told = "x".join(str(length) for length in full)
        return f"{list(spec)} is for {told} pixels, not used in frames of {size}"
    return f"{list(spec)} is outside the {size} frame or over the image, not used"


def _is_whole(told: str, shape: Sequence[int]) -> bool:
    digits = [int(part) for part in "".join(c if c.isdigit() else " " for c in told).split()]
    return digits == [1, shape[1], 1, shape[0]]


def remark_notes(remarks: Iterable[tuple[str, str, str]]) -> list[str]:
    """Return one sentence per remark, with the number of frames.

    Parameters
    ----------
    remarks : iterable of (str, str, str)
        Instrument, camera and remark of each frame.
    """
    counts = Counter(remarks)
    return [
        f"instrument {instrument}: cameras.{camera}.{remark} ({count} frame{'s' * (count != 1)})"
        for (instrument, camera, remark), count in sorted(counts.items())
    ]


def band_notes(filters: Iterable[tuple[str, str]]) -> list[str]:
    """Return one sentence per filter of science frames that has no band.

    Parameters
    ----------
    filters : iterable of (str, str)
        Instrument and filter of each frame.
    """
    counts = Counter(filters)
    return [
        f"instrument {instrument}: filter {name!r} has no band ({count} frame"
        f"{'s' * (count != 1)}): no zero point; where it has one, write it under bands"
        for (instrument, name), count in sorted(counts.items())
    ]


# ---------------------------------------------------------------------------- keywords


def own_keywords(content: Any) -> dict[str, tuple[Any, ...]]:
    """Return the keywords that an instrument file uses, each with its place in the file."""
    found: dict[str, tuple[Any, ...]] = {}

    def walk(node: Any, keys: tuple[Any, ...]) -> None:
        if not isinstance(node, Mapping):
            return
        for name, value in node.items():
            way = (*keys, name)
            if name in ("cameras", "wcs", "site", "defaults") or keys[-1:] == ("cameras",):
                walk(value, way)
            elif name in NOT_KEYWORDS:
                continue
            elif name == "match" and isinstance(value, list):
                continue
            elif name == "ignore" and isinstance(value, list):
                for rule in value:
                    for key in keywords_of(rule.get("when")):
                        found.setdefault(key, way)
            else:
                for key in keywords_of(value):
                    found.setdefault(key, way)

    walk(content, ())
    return found


NOT_KEYWORDS = (
    "name title extends files match bands recompute_airmass amplifiers other_shapes halves parity "
    "calibrations cd refpix distortion shape hdu near_infrared poserr bayer"
).split()
"""Entries whose texts are not keywords."""


def absent_keywords(wanted: Iterable[str], headers: Sequence[Header]) -> list[str]:
    """Return the keywords that are in none of the headers of a file."""
    return [key for key in wanted if all(get(header, key) is None for header in headers)]


def keyword_notes(
    absent: Iterable[str], sources: Sequence[Source], known: Iterable[str]
) -> list[str]:
    """Return one sentence per keyword of the user's instrument file that no frame has.

    Parameters
    ----------
    absent : iterable of str
        Keywords that no frame has.
    sources : list of Source
        The file, followed by those that it extends.
    known : iterable of str
        Keywords of one of the frames.
    """
    known = list(known)
    ways = own_keywords(sources[0].content)
    result = []
    for key in absent:
        way = ways.get(key, ())
        _, line = place_of(way, sources[:1])
        near = difflib.get_close_matches(key.removeprefix("HIERARCH "), known, n=1, cutoff=0.7)
        meant = f", did you mean {near[0]}?" if near else ""
        place = ".".join(str(part) for part in way)
        file = Path(sources[0].path)
        result.append(f"{file}:{line}: {place}: no frame has the keyword {key}{meant}")
    return result
