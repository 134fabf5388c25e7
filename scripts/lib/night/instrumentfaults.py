"""Validation of instrument files: all faults at once, with file, line and key."""

import copy
import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lib.core.installation import installation
from lib.night.amplifiers import parse_section
from lib.night.instrumentsource import (
    Fault,
    InstrumentError,
    Keys,
    Source,
    message_of,
    repeated_keys,
)

CONFIG = installation() / "config"

OTHER_NAMES = {
    "exposure": "exptime",
    "read_noise": "rdnoise",
    "readnoise": "rdnoise",
    "saturation": "saturate",
    "saturation_level": "saturate",
    "pixel_scale": "pixscale",
    "scale": "pixscale",
    "linearity": "linear",
    "imagetyp": "type",
    "bias_section": "overscan",
    "biassec": "overscan",
    "trimsec": "trim",
    "data_section": "trim",
    "nir": "near_infrared",
    "angle": "rotation",
    "plate_scale": "pixscale",
}
"""Names under which users know some of the keys."""

_VALUE_NAMES = (
    "type camera object filter exptime date time ra dec airmass binning temperature readout gain "
    "rdnoise saturate linear latitude longitude elevation pixscale rotation when"
).split()

VALUE_SOURCES = ("key", "value", "any", "format", "join", "wheels", "file_name")
"""Sources of a value; a mapping has exactly one of them."""

_WORDS = ("measured",)
"""Values that are neither keywords nor numbers."""

_KEYWORD = re.compile(r"[A-Z0-9_-]+(?: [A-Z0-9_-]+)*")

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.DOTALL)


def check_sources(content: Any, sources: Sequence[Source]) -> None:
    """Check the content of an instrument file, including what it extends.

    Parameters
    ----------
    content : dict
        The files, merged.
    sources : list of Source
        The file, followed by those that it extends.

    Raises
    ------
    InstrumentError
        One line per fault, with file, line, key and a suggestion.
    """
    faults = list(repeated_keys(sources[0]))
    truths = list(_truth_keys(content, ()))
    content = _without(content, [fault.keys for fault in truths])
    of_schema = list(_schema_faults(content))
    content = _without(content, [fault.keys for fault in of_schema if not fault.lacks])
    faults += [Fault(fault.keys[:-1], fault.text) for fault in truths] + of_schema
    if isinstance(content, Mapping):
        faults += _sense_faults(content)
    if faults:
        raise InstrumentError(message_of(faults, sources))


# ---------------------------------------------------------------------------- the schema


@functools.lru_cache(maxsize=1)
def _schema() -> Any:
    import yaml

    with open(CONFIG / "schemas" / "instrument.schema.yaml", "rb") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _schema_faults(content: Any) -> Iterator[Fault]:
    import jsonschema

    for error in jsonschema.Draft202012Validator(_schema()).iter_errors(content):
        yield from _faults_of(error, ())


def _without(content: Any, ways: Sequence[Keys]) -> Any:
    """Return the content without the values at some places; items of a list with their list."""
    content = copy.deepcopy(content)
    for way in ways:
        node, holder, last = content, None, None
        for key in way:
            if isinstance(node, dict):
                if key not in node:
                    break
                holder, last = node, key
            elif not (isinstance(node, list) and isinstance(key, int) and key < len(node)):
                break
            node = node[key]
        else:
            if holder is None:
                return None
            del holder[last]
    return content


def _truth_keys(node: Any, keys: Keys) -> Iterator[Fault]:
    """Yield keys that YAML reads as true or false: yes, no, on, off."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if isinstance(key, bool) or key is None:
                yield Fault(
                    (*keys, key),
                    f"YAML reads a key as {str(key).lower()}: put it in quotes, as 'on'",
                )
            else:
                yield from _truth_keys(value, (*keys, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _truth_keys(value, (*keys, place))


def _faults_of(error: Any, above: Keys) -> Iterator[Fault]:
    """Yield the faults behind an error of the schema, each at its own key."""
    keys = (*above, *error.relative_path)
    if error.validator in ("anyOf", "oneOf") and error.context:
        branches: dict[int, list[Any]] = {}
        for one in error.context:
            branches.setdefault(one.schema_path[0], []).append(one)
        fitting = [
            ones
            for ones in branches.values()
            if not any(one.validator in ("type", "enum") and not one.relative_path for one in ones)
        ]
        if len(fitting) == 1:
            for one in fitting[0]:
                yield from _faults_of(one, keys)
            return
    if error.validator == "additionalProperties" and "properties" in error.schema:
        for key in error.instance:
            if key not in error.schema["properties"]:
                yield Fault((*keys, key), unknown_key(str(key), error.schema["properties"]))
        return
    if error.validator == "oneOf" and keys and isinstance(error.instance, Mapping):
        given = [name for name in VALUE_SOURCES if name in error.instance]
        what = f"{' and '.join(given)} exclude each other" if given else "says not where from"
        yield Fault(keys, f"{what}: write one of {', '.join(VALUE_SOURCES)}")
        return
    if error.validator == "required":
        missing = re.match(r"'([^']+)'", error.message)
        if missing:
            yield Fault(keys, f"{missing.group(1)} is required and missing", True)
            return
    yield Fault(keys, _words_of(error))


def _words_of(error: Any) -> str:
    message = error.message if len(error.message) < 200 else error.message[:200] + "..."
    schema = error.schema if isinstance(error.schema, dict) else {}
    expected = schema.get("description", "")
    near = []
    if error.validator == "enum" and isinstance(error.instance, str):
        near = difflib.get_close_matches(
            error.instance, [str(one) for one in error.validator_value]
        )
        if not near:
            near = [one for one in error.validator_value if one.lower() == error.instance.lower()]
    meant = f", did you mean {near[0]!r}?" if near else ""
    return f"{message}{meant}" + (f" (expected: {expected})" if expected else "")


def unknown_key(key: str, known: Mapping[str, Any]) -> str:
    """Return the message about an unknown key."""
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    other = OTHER_NAMES.get(key.lower())
    if other in known:
        near = [str(other)]
    if near:
        return f"is not known, did you mean '{near[0]}'?"
    places = {
        "at the top of the file": _schema()["properties"],
        "in a camera": _schema()["$defs"]["camera"]["properties"],
        "in wcs of a camera": _schema()["$defs"]["camera"]["properties"]["wcs"]["properties"],
    }
    for place, keys in places.items():
        name = key if key in keys else other
        if name in keys:
            return f"is not known here: write {name} {place}"
    return f"is not known: there are {', '.join(known)}"


# ---------------------------------------------------------------------------- the sense


def _sense_faults(content: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield faults that the schema cannot express: patterns, keywords, numbers with units."""
    yield from _pattern_faults(content)
    yield from _value_faults(content, ())
    for name, camera in content.get("cameras", {}).items():
        whole = {**content.get("defaults", {}), **(camera or {})}
        keys = ("cameras", name)
        for key in ("gain", "rdnoise", "saturate"):
            if key not in whole:
                yield Fault(keys, f"{key} is required and missing")
        yield from _section_faults(whole, keys)


def _pattern_faults(content: Any) -> Iterator[Fault]:
    for keys, pattern in _patterns(content, ()):
        try:
            re.compile(pattern)
        except re.error as error:
            yield Fault(keys, f"{pattern!r} is not a regular expression: {error}")


def _patterns(node: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Yield all regular expressions of an instrument file, with their places."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            way = (*keys, name)
            if name in ("map", "bands") and isinstance(value, Mapping):
                yield from (((*way, pattern), str(pattern)) for pattern in value)
            elif name in ("omit", "matches", "unless", "files", "file_name"):
                yield way, str(value)
            elif keys and keys[0] == "match":
                yield way, str(value)
            else:
                yield from _patterns(value, way)
    elif isinstance(node, list):
        for place, item in enumerate(node):
            yield from _patterns(item, (*keys, place))


def _value_faults(node: Any, keys: Keys) -> Iterator[Fault]:
    """Yield texts that cannot be keywords: numbers with units, lower-case letters."""
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        way = (*keys, name)
        if name in _VALUE_NAMES:
            yield from _keyword_faults(value, way)
        elif name == "ignore":
            for place, rule in enumerate(value):
                yield from _value_faults(rule, (*way, place))
        elif name not in ("match", "bands", "halves"):
            yield from _value_faults(value, way)


def _keyword_faults(value: Any, keys: Keys) -> Iterator[Fault]:
    if isinstance(value, str):
        text = not_a_keyword(value)
        if text:
            yield Fault(keys, text)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _keyword_faults(item, (*keys, place))
    elif isinstance(value, Mapping):
        for name in ("key", "any", "join", "times", "divided_by", "plus"):
            if name in value:
                yield from _keyword_faults(value[name], (*keys, name))


def not_a_keyword(text: str) -> str:
    """Return why a text cannot be a header keyword; '' where it can."""
    if text in _WORDS or _KEYWORD.fullmatch(text) and not re.fullmatch(r"\d+", text):
        return ""
    if text.startswith("HIERARCH ") and text == text.upper():
        return ""
    found = _NUMBER.fullmatch(text)
    if found:
        value, unit = found.groups()
        if not unit:
            return f"{text!r} is a number in quotes: write {value}"
        return f"{text!r} is a number with a unit: write {value} alone, in the unit of the docs"
    capitals = text.upper().removeprefix("HIERARCH ")
    if _KEYWORD.fullmatch(capitals):
        return f"{text!r} is no keyword of a header: they are in capitals, write {text.upper()}"
    return f"{text!r} is no keyword of a header"


def _section_faults(camera: Mapping[str, Any], keys: Keys) -> Iterator[Fault]:
    """Yield sections that are reversed, empty, outside `shape`, or overlapping."""
    boxes: dict[Keys, Sequence[int]] = {}
    for name in ("trim", "overscan"):
        section = camera.get(name)
        if isinstance(section, str):
            yield from _text_section(section, (*keys, name))
        elif isinstance(section, Mapping):
            boxes |= {(name, binning): box for binning, box in section.items()}
        elif section:
            boxes[(name,)] = section
    for half, one in camera.get("halves", {}).items():
        boxes["halves", half, "trim"] = one["trim"]
    sound = {}
    for way, (y0, y1, x0, x1) in boxes.items():
        if y0 >= y1 or x0 >= x1:
            yield Fault(
                (*keys, *way),
                f"[{y0}, {y1}, {x0}, {x1}] is empty or reversed: write [y0, y1, x0, x1] with "
                "y0 < y1 and x0 < x1",
            )
            continue
        sound[way] = (y0, y1, x0, x1)
        shape = camera.get("shape")
        if shape and len(way) != 2 and (y1 > shape[0] or x1 > shape[1]):
            turned = " (rows come first)" if x1 <= shape[0] and y1 <= shape[1] else ""
            yield Fault(
                (*keys, *way),
                f"[{y0}, {y1}, {x0}, {x1}] is outside the frame of {shape[0]} rows and "
                f"{shape[1]} columns{turned}",
            )
    one, other = sound.get(("trim",)), sound.get(("overscan",))
    if one and other and one[0] < other[1] and other[0] < one[1]:
        if one[2] < other[3] and other[2] < one[3]:
            yield Fault((*keys, "overscan"), "lies over trim: there is no overscan in the image")


def _text_section(section: str, keys: Keys) -> Iterator[Fault]:
    """Yield faults of a section given as text: as in a header, or something that is no keyword."""
    if section.lstrip().startswith("["):
        found = parse_section(section)
        box = f"write {found[0]}" if found else "write [y0, y1, x0, x1]"
        yield Fault(
            keys, f"{section!r} is a section as headers have it: {box}, from 0 and ends excluded"
        )
    else:
        text = not_a_keyword(section)
        if text:
            yield Fault(keys, text)
