"""Draft of an instrument file from the headers and, where useful, the pixels of some frames."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.calibration.photontransfer import PhotonTransfer, photon_transfer
from lib.core.bands import BANDS
from lib.night.amplifiers import parse_section
from lib.night.electronics import read_electronics
from lib.night.filternames import parse_filter
from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import (
    angle,
    evaluate,
    get,
    keywords_of,
    map_items,
    number,
    safe_name,
    text,
)
from lib.night.instrumentfile import identify, load_instrument
from lib.night.interpret import TYPES
from lib.night.wcscards import cd_scale, header_wcs
from lib.report.measuredcamera import RawFrame, dark_edges, measure_frames, read_frames

FLAT_WORDS = "(?i).*flat.*"
BIAS_WORDS = "(?i)(bias|zero).*"
DARK_WORDS = "(?i)dark.*"

NEAR = {
    "object": "OBJ|TARG",
    "filter": "FILT|WHEEL",
    "exptime": "EXP|ITIME|ELAP|TINT",
    "date": "DATE|MJD|JD",
    "time": "^UT|TIME",
    "ra": "RA",
    "dec": "DEC",
    "airmass": "AIRM|SECZ|AM$",
    "binning": "BIN|CCDSUM|SUM",
    "temperature": "TEMP",
    "readout": "READ|SPEED|MODE|SPD",
    "gain": "GAIN|ADU|EPERDN",
    "rdnoise": "NOIS|RON",
    "saturate": "SAT",
}
"""Fragments of keywords that may have a value missing under the usual keywords."""

NAMES = ("INSTRUME", "CURRINST", "DETECTOR", "CAMERA")
"""Keywords that name the camera."""


@dataclass
class Draft:
    """An instrument file in the making.

    Parameters
    ----------
    lines : list of str
    guessed, missing : list of str
        Keys that need checking, and keys for which nothing was found.
    """

    lines: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, line: str, comment: str = "") -> None:
        """Add a line with a comment."""
        self.lines.append(f"{line:<37} # {comment}" if comment else line)


def new_instrument(frames: Sequence[RawFrame]) -> Draft:
    """Return a draft of the instrument file for frames of one camera.

    Each entry says whether it was found in the headers (with the value of a frame), guessed, or is
    missing; usual entries are left to the generic instrument.

    Parameters
    ----------
    frames : sequence of RawFrame
        At least one frame, with `kind` set.
    """
    generic = load_instrument("generic")
    draft = Draft()
    names = next(filter(None, (_distinct(frames, key) for key in NAMES)), ["mycam"])
    draft.add(f"name: {safe_name(names[0].split()[0], '-').lower()}", "the name in file and page")
    title = ", ".join(filter(None, [*names[:1], *_distinct(frames, "TELESCOP")[:1]]))
    draft.add(f"title: {_quoted(title)}")
    draft.add("extends: generic", "what is not here is as in config/instruments/generic.yaml")
    _add_match(draft, frames)
    _add_type(draft, frames, generic)
    science = [one for one in frames if one.kind == "object"] or list(frames)
    draft.add("")
    keys = "object filter exptime date time ra dec airmass binning temperature readout".split()
    for key in keys:
        if key != "time" or not _dates_hold_time(generic, science):
            _add_value(draft, key, generic.get(key), science)
    _add_bands(draft, frames, generic)
    _add_camera(draft, frames, science, generic)
    return draft


def _dates_hold_time(generic: Mapping[str, Any], frames: Sequence[RawFrame]) -> bool:
    dates = [evaluate(generic["date"], one.header) for one in frames]
    return all(number(date) is not None or ":" in text(date) for date in dates)


def _distinct(frames: Sequence[RawFrame], key: str) -> list[str]:
    """Return the values of a keyword, most frequent first."""
    found = Counter(text(get(one.header, key)) for one in frames)
    return [value for value, _ in found.most_common() if value]


def _quoted(value: Any) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _add_match(draft: Draft, frames: Sequence[RawFrame]) -> None:
    draft.add("")
    for key in ("INSTRUME", "CURRINST", "DETECTOR", "CAMERA", "TELESCOP", "OBSERVAT"):
        values = _distinct(frames, key)
        if values:
            draft.add("match:")
            for value in values[:4]:
                draft.add(
                    f"  - {{{key}: {_quoted('(?i)^' + re.escape(value.split()[0]))}}}", "found"
                )
            return
    draft.add("# match: missing: no keyword names the camera; give the file as instrument=...")
    draft.missing.append("match")


# ---------------------------------------------------------------------------- types


def guess_types(frames: Sequence[RawFrame]) -> list[Any]:
    """Set the type of each frame, and return the alternatives of `type` that give it.

    OBJECT is used where the keyword of types says object for flats and biases as well.
    """
    generic = load_instrument("generic")["type"]
    entries = generic if isinstance(generic, list) else [generic]
    maps: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, dict):
            maps = entry.get("map", {}) | maps
    keys = list(dict.fromkeys(key for entry in entries for key in keywords_of(entry)))
    keys = [key for key in keys if _distinct(frames, key)]
    best = max(keys, key=lambda key: _types_told(frames, key, maps), default="")
    words = {"flat": FLAT_WORDS, "bias": BIAS_WORDS, "dark": DARK_WORDS}
    for one in frames:
        kind = map_items(tuple(maps.items()), text(get(one.header, best))) if best else None
        name = text(get(one.header, "OBJECT"))
        told = next((kind for kind, word in words.items() if re.fullmatch(word, name)), "")
        if kind in (None, "object") and told and best != "OBJECT":
            kind = told
        exptime = number(evaluate(load_instrument("generic")["exptime"], one.header))
        if kind == "dark" and exptime == 0:
            kind = "bias"
        one.kind = kind if kind in TYPES else ""
    return [best] if best else []


def _types_told(frames: Sequence[RawFrame], key: str, maps: Mapping[str, str]) -> tuple[int, int]:
    kinds = [map_items(tuple(maps.items()), text(get(one.header, key))) for one in frames]
    return sum(kind is not None for kind in kinds), len(set(kinds))


def _add_type(draft: Draft, frames: Sequence[RawFrame], generic: Mapping[str, Any]) -> None:
    keys = guess_types(frames)
    draft.add("")
    if not keys:
        draft.add("# type: missing: no keyword tells it; from the file name, as in")
        draft.add("# type: {file_name: '(bias|dark|flat|object)'}")
        draft.missing.append("type")
        return
    key = keys[0]
    told: dict[str, set[str]] = {}
    by_object: dict[str, set[str]] = {}
    values: dict[str, set[str]] = {}
    for one in frames:
        value, name = text(get(one.header, key)), text(get(one.header, "OBJECT"))
        values.setdefault(value, set()).add(one.kind)
        told.setdefault(value, set()).add(one.path.name)
    for one in frames:
        value, name = text(get(one.header, key)), text(get(one.header, "OBJECT"))
        if len(values[value] - {""}) > 1 and one.kind not in ("object", ""):
            by_object.setdefault(one.kind, set()).add(name)
    words = {"flat": FLAT_WORDS, "bias": BIAS_WORDS, "dark": DARK_WORDS}
    draft.add("type:", "must come out as bias, dark, flat or object")
    if by_object:
        pairs = ", ".join(f"{_quoted(words[kind])}: {kind}" for kind in sorted(by_object))
        names = sorted(name for ones in by_object.values() for name in ones)
        draft.add(f"  - {{key: OBJECT, map: {{{pairs}}}}}", f"guessed from {', '.join(names[:3])}")
        draft.guessed.append("type")
    draft.add(f"  - key: {key}")
    draft.add("    map:")
    for value, kinds in sorted(values.items()):
        kind = "object" if "object" in kinds else next(iter(kinds - {""}), "")
        count = f"{len(told[value])} frames, {min(told[value])}"
        if not value:
            draft.add(f"      # {count}: have no {key}")
        elif kind:
            draft.add(f"      {_quoted('(?i)' + re.escape(value))}: {kind}", f"found: {count}")
        else:
            draft.add(
                f"      {_quoted('(?i)' + re.escape(value))}: other",
                f"MISSING: bias, dark, flat or object? {count}",
            )
            draft.missing.append(f"type {value}")


# ---------------------------------------------------------------------------- values


def _add_value(draft: Draft, key: str, spec: Any, frames: Sequence[RawFrame]) -> None:
    """Add the first alternative of the generic instrument with a value in the headers."""
    options = spec if isinstance(spec, list) else [spec]
    for option in options:
        if isinstance(option, dict) and "value" in option:
            continue
        option = _present(option, frames)
        values = [evaluate(option, one.header, one.path.name) for one in frames]
        values = [value for value in values if value is not None and _fits(key, value)]
        if values:
            shown = ", ".join(dict.fromkeys(text(value)[:30] for value in values[:20]))
            draft.add(f"{key}: {_yaml(option)}", f"found: {shown[:60]}")
            if key == "exptime":
                _add_coadds(draft, option, frames)
            return
    if key == "time":
        return
    near = _near(NEAR.get(key, key.upper()), frames[0].header)
    hint = f"; perhaps {', '.join(near)}" if near else ""
    needed = key in ("exptime", "date", "filter")
    if needed:
        draft.missing.append(key)
    draft.add(f"# {key}: {'MISSING' if needed else 'not found'}{hint}")


COADDS = ("COADDS", "NCOADDS", "NCOADD", "COADD", "NCOA")
"""Keywords for the number of exposures summed in a frame."""


def _add_coadds(draft: Draft, option: Any, frames: Sequence[RawFrame]) -> None:
    """Add a remark on coadded exposures: headers do not say whether they are summed or averaged."""
    for key in COADDS:
        counts = {number(get(one.header, key)) for one in frames} - {None, 1.0}
        if counts and isinstance(option, str):
            shown = ", ".join(f"{count:g}" for count in sorted(filter(None, counts)))
            draft.add(f"# {key} = {shown}: where they are summed and {option} is of one of them,")
            draft.add(f"# exptime: {{key: {option}, times: {key}}}")
            draft.guessed.append("exptime")
            return


def _present(option: Any, frames: Sequence[RawFrame]) -> Any:
    """Return an alternative without the filter wheels and keywords that no frame has."""

    def has(one: Any) -> bool:
        return any(evaluate(one, frame.header) is not None for frame in frames)

    kind = next(
        (kind for kind in ("wheels", "join") if isinstance(option, dict) and kind in option), ""
    )
    if not kind:
        return option
    parts: list[Any] = []
    for part in option[kind]:
        parts += [one for one in (part if isinstance(part, list) else [part]) if has(one)][:1]
    if not parts:
        return option
    return parts[0] if len(parts) == 1 else option | {kind: parts}


def _fits(key: str, value: Any) -> bool:
    if key in ("ra", "dec"):
        return angle(value) is not None
    if key == "exptime":
        return (number(value) or 0) >= 0 and number(value) is not None
    if key == "airmass":
        return 1 <= (number(value) or 0) <= 40
    if key == "temperature":
        return number(value) is not None
    return text(value) != ""


def _near(pattern: str, header: Mapping[str, Any]) -> list[str]:
    """Return keywords that may have a value, with it."""
    found = [key for key in header if re.search(pattern, key) and get(header, key) is not None]
    return [f"{key} = {text(header[key])[:24]}" for key in found[:5]]


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(one) for one in value) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_ -]*", value) and value.lower() not in _TRUTHS
        return value if plain else _quoted(value)
    return str(value)


_TRUTHS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def _add_bands(draft: Draft, frames: Sequence[RawFrame], generic: Mapping[str, Any]) -> None:
    """Add the filters whose band does not follow from the name, and the others as a comment."""
    lit = [one for one in frames if one.kind in ("flat", "object")]
    names = Counter(text(evaluate(generic["filter"], one.header)) for one in lit)
    draft.add("")
    draft.add("# bands, filter: band of the reference, of the filters whose name does not tell it:")
    for name, count in sorted(names.items()):
        band = parse_filter(name).band if name else ""
        frames_of = f"{count} frame{'s' * (count != 1)}"
        if band:
            draft.add(f"# {name} is {band}", f"guessed from the name; {frames_of}")
        elif name:
            told = f"{frames_of} without band, without zero point"
            draft.add(f"# bands: {{{_quoted(re.escape(name))}: ?}}", f"MISSING: {told}")
            draft.missing.append(f"band of {name} (one of {' '.join(BANDS)})")


# ---------------------------------------------------------------------------- the camera


def _add_camera(
    draft: Draft,
    frames: Sequence[RawFrame],
    science: Sequence[RawFrame],
    generic: Mapping[str, Any],
) -> None:
    shape = Counter(tuple(one.shape[-2:]) for one in science).most_common(1)[0][0]
    alike = [one for one in frames if tuple(one.shape[-2:]) == shape]
    camera = generic["cameras"]["C0"]
    draft.add("")
    draft.add("cameras:")
    draft.add("  C0:")
    several = science[0].images > 1
    if several:
        count = f"{science[0].images} images in a file"
        draft.add(
            "    amplifiers: auto", f"guessed: {count}: single, extensions, chips or sections"
        )
        draft.guessed.append("amplifiers")
    else:
        draft.add(f"    shape: [{shape[0]}, {shape[1]}]", "rows, columns: found")
    bands = {parse_filter(text(evaluate(generic["filter"], one.header))).band for one in science}
    if bands & {"J", "H", "K"}:
        draft.add("    near_infrared: true", "guessed from the filters: one sky per target")
        draft.guessed.append("near_infrared")
    # Each of several images has its own sections and gain in its header.
    edges = None if several else _add_sections(draft, alike, shape)
    measured = photon_transfer([], []) if several else measure_frames(alike, edges)
    _add_electronics(draft, alike, camera, measured)
    kinds = Counter(one.kind for one in frames)
    # Entries that these frames lack but others may have: used if present, never required.
    needs = {kind: "required" if kinds[kind] else "optional" for kind in ("bias", "flat")}
    dark = "required" if kinds["dark"] and not kinds["bias"] else "optional"
    needs = {"bias": needs["bias"], "dark": dark, "flat": needs["flat"]}
    lacking = [kind for kind in needs if not kinds[kind]]
    found = f"no {' and no '.join(lacking)} among them" if lacking else "all were among them"
    written = ", ".join(f"{kind}: {need}" for kind, need in needs.items())
    draft.add(f"    calibrations: {{{written}}}", f"as these frames are: {found}")
    draft.guessed.append("calibrations")
    _add_scale(draft, science, camera)


def _add_sections(
    draft: Draft, frames: Sequence[RawFrame], shape: tuple[int, ...]
) -> list[int] | None:
    """Add trim and overscan from headers or unilluminated edges of flats; return the trim."""
    found: dict[str, tuple[str, list[int]]] = {}
    for name, keys in (("trim", ("TRIMSEC", "DATASEC")), ("overscan", ("BIASSEC", "OVERSCAN"))):
        for key in keys:
            told = parse_section(get(frames[0].header, key))
            if told and told[0][1] <= shape[0] and told[0][3] <= shape[1]:
                found[name] = (key, told[0])
                break
    measured = dark_edges(frames) if "overscan" not in found else None
    if measured and (measured[1] or "trim" not in found):
        trim, overscan = measured
        draft.add(f"    trim: {trim}", "guessed: where flats see light; [y0, y1, x0, x1] from 0")
        if overscan:
            draft.add(f"    overscan: {overscan}", "guessed: the dark columns or rows of flats")
        else:
            draft.add("    # overscan: none: flats see light to the edges")
        draft.guessed.append("trim, overscan")
        return trim
    for name in ("trim", "overscan"):
        if name in found:
            draft.add(f"    {name}: {found[name][0]}", f"found: {found[name][1]} [y0, y1, x0, x1]")
        else:
            draft.add(f"    # {name}: not found: [y0, y1, x0, x1], from 0, where there is one")
    return found["trim"][1] if "trim" in found else None


def _add_electronics(
    draft: Draft,
    frames: Sequence[RawFrame],
    camera: Mapping[str, Any],
    measured: PhotonTransfer,
) -> None:
    """Add gain, read noise and saturation: measured, from the header, or missing."""
    values = {"gain": measured.gain, "rdnoise": measured.rdnoise}
    header_gain = _usable(camera.get("gain"), frames[0])
    if (
        measured.rdnoise is None
        and measured.rdnoise_dn
        and header_gain
        and not _is_setting(header_gain[0], frames[0])
    ):
        values["rdnoise"] = measured.rdnoise_dn * header_gain[1]
    units = {"gain": "e/DN", "rdnoise": "e"}
    for key, value in values.items():
        told, setting = _usable(camera.get(key), frames[0]), ""
        if key == "gain" and told:
            setting = _is_setting(told[0], frames[0])
        beside = f"; header: {told[0]} = {told[1]:g}" if told else ""
        if value is not None:
            pairs = f"pairs of flats {measured.flat_pairs}, of biases {measured.bias_pairs}"
            draft.add(f"    {key}: {value:.3g}", f"measured, {units[key]}: {pairs}{beside}")
        elif setting:
            draft.add("    # gain: MISSING [e/DN]: give two flats and two biases", setting)
            draft.missing.append("gain")
        elif told:
            draft.add(f"    {key}: {told[0]}", f"found: {told[1]:g} {units[key]}; not measured")
            draft.guessed.append(key)
        else:
            near = _near(NEAR[key], frames[0].header)
            hint = f"; perhaps {', '.join(near)}" if near else ""
            draft.add(f"    # {key}: MISSING [{units[key]}]: give two flats and two biases{hint}")
            draft.missing.append(key)
    told = _usable(camera.get("saturate"), frames[0])
    top = 65535 if abs(number(frames[0].header.get("BITPIX")) or 0) == 16 else None
    level = told[0] if told else top
    if told or top:
        source = f"found: {told[1]:g} DN" if told else "guessed: the top of 16 bits"
        draft.add(f"    saturate: {level}", f"{source}; lower where the well is full before")
        draft.guessed.append("saturate")


def _is_setting(keyword: str, frame: RawFrame) -> str:
    """Return why a keyword is a camera setting rather than a gain; '' if it is not."""
    try:
        read_electronics([keyword], 1.0, frame.header, frame.path.name)
    except FrameUnusable as reason:
        return reason.text
    return ""


def _usable(spec: Any, frame: RawFrame) -> tuple[str, float] | None:
    """Return the first keyword of an entry with a positive number."""
    for option in spec if isinstance(spec, list) else [spec]:
        if isinstance(option, str):
            value = number(get(frame.header, option))
            if value is not None and value > 0:
                return option, value
    return None


def _add_scale(draft: Draft, science: Sequence[RawFrame], camera: Mapping[str, Any]) -> None:
    found = next((wcs for one in science if (wcs := header_wcs(one.header))), None)
    if found:
        scale = 3600 * cd_scale(found[2]) if cd_scale(found[2]) < 0.01 else cd_scale(found[2])
        draft.add(
            f"    wcs: {{header: true, pixscale: {scale:.4g}, scale_with_binning: false}}",
            "found: the WCS of the header",
        )
        return
    told = evaluate(camera.get("wcs", {}).get("pixscale"), science[0].header)
    scale = number(told) or 0.0
    if 0.01 < scale < 100:
        draft.add(
            f"    wcs: {{pixscale: {scale:.4g}, scale_with_binning: false}}",
            "found; orientation guessed: a solved night tells it",
        )
        draft.guessed.append("wcs")
        return
    near = _near("(?<!B)SCALE|PIX(?!$)|FOCAL|PIXSZ", science[0].header)
    hint = f"; perhaps {', '.join(near)}" if near else ""
    draft.add(f"    # wcs: {{pixscale: 0.5}}  MISSING: arcsec per pixel{hint}")
    draft.missing.append("pixscale")


def write_draft(draft: Draft, count: int) -> str:
    """Return the text of an instrument file, with a head that lists what to check."""
    frames = f"{count} frame{'s' * (count != 1)}"
    head = [f"# Written from {frames}: found in headers, measured, guessed or MISSING."]
    if draft.missing:
        head.append(f"# MISSING: {', '.join(dict.fromkeys(draft.missing))}.")
    if draft.guessed:
        head.append(f"# To be looked at: {', '.join(dict.fromkeys(draft.guessed))}.")
    head.append("# Then: autoproc check-instrument THIS RAW/")
    return "\n".join([*head, *(line.rstrip() for line in draft.lines)]) + "\n"


def lines_of(paths: Iterable[str | Path]) -> Iterator[str]:
    """Yield the instrument file of frames as one text.

    Raises
    ------
    ValueError
        None of the files can be read.
    """
    frames, failed = read_frames(paths)
    for sentence in failed:
        print(f"autoproc: {sentence}", file=sys.stderr)
    if not frames:
        raise ValueError("none of the files is a frame that can be read")
    guess_types(frames)
    draft = new_instrument(frames)
    for name, _ in Counter(identify(one.header) for one in frames).most_common(1):
        if name != "generic":
            draft.lines.insert(0, f"# The shipped instrument {name} reads these frames already.")
    yield write_draft(draft, len(frames))


def main(arguments: Sequence[str]) -> int:
    """Run ``autoproc new-instrument``; return the exit code."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="autoproc new-instrument",
        description="Write an instrument file from the headers of raw frames: some of each type, "
        "at best two biases and two flats, in which gain and read noise are measured.",
    )
    parser.add_argument("frames", nargs="+", metavar="FRAME", help="raw frames, or their folder")
    parser.add_argument("-o", "--output", help="file to be written [standard output]")
    options = parser.parse_args(arguments)
    try:
        content = "".join(lines_of(options.frames))
        if options.output:
            with open(options.output, "x", encoding="utf-8") as file:
                file.write(content)
        else:
            print(content, end="")
    except (ValueError, OSError) as error:
        print(f"autoproc: {error}", file=sys.stderr)
        return 2
    return 0
