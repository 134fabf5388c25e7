"""Instrument files: found, read, checked, and matched to headers."""

import difflib
import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib.night.headervalues import Header, compiled, get, safe_name, text
from lib.night.instrumentfaults import CONFIG, VALUE_SOURCES, check_sources
from lib.night.instrumentsource import InstrumentError, Source, fault_message, read_source

VERSION = 23  # raise when facts change for the same header and YAML; invalidates the cache


def instrument_dir() -> Path:
    """Return the directory of the instrument files shipped with the project."""
    return CONFIG / "instruments"


def list_instruments() -> list[str]:
    """Return the names of the shipped instruments, `generic` last."""
    names = sorted(path.stem for path in instrument_dir().glob("*.yaml"))
    return sorted(names, key=lambda name: name == "generic")


def instrument_path(name_or_path: str | Path) -> Path:
    """Return the path of the YAML file of an instrument.

    Raises
    ------
    InstrumentError
        There is no such instrument and no such file.
    """
    text = str(name_or_path)
    if re.fullmatch(r"[A-Za-z0-9_-]+", text):
        path = instrument_dir() / f"{text}.yaml"
        if path.is_file():
            return path
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise InstrumentError(f"instrument: there is no file {text}")
    near = difflib.get_close_matches(text.lower(), list_instruments(), n=1)
    meant = f", did you mean {near[0]}?" if near else ""
    raise InstrumentError(
        f"instrument: {text!r} is not known{meant or ';'} write auto, one of "
        f"{', '.join(list_instruments())}, or the path of a YAML file"
    )


def instruments_hash(name_or_path: str | Path) -> str:
    """Return a hash of all that decides how headers are read with a choice of instrument."""
    every = str(name_or_path) == "auto"
    digest = hashlib.sha256(f"version {VERSION}".encode())
    names: list[str | Path] = [*list_instruments()] if every else [name_or_path]
    for name in names:
        if every:  # what they extend is among them
            paths = [instrument_path(name)]
        else:
            paths = [source.path for source in read_sources(instrument_path(name))]
        for path in paths:
            digest.update(path.stem.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def read_sources(path: Path) -> list[Source]:
    """Return an instrument file followed by those that it extends.

    Raises
    ------
    InstrumentError
        One of them is not YAML or does not exist, or extends itself.
    """
    sources = [read_source(path)]
    while isinstance(sources[-1].content, dict) and "extends" in sources[-1].content:
        base = sources[-1].content["extends"]
        try:
            found = _extended(base, sources[-1].path.parent)
            if any(found.resolve() == one.path.resolve() for one in sources):
                raise InstrumentError(f"{base} extends itself")
        except InstrumentError as error:
            raise InstrumentError(
                fault_message(sources[-1:], ("extends",), str(error).removeprefix("instrument: "))
            ) from None
        sources.append(read_source(found))
    return sources


def _extended(base: Any, folder: Path) -> Path:
    if not isinstance(base, str):
        raise InstrumentError("write the name of an instrument or the path of a YAML file")
    path = Path(base).expanduser()
    if path.suffix in (".yaml", ".yml") and not path.is_absolute():
        base = str(folder / path)
    return instrument_path(base)


NOT_EXTENDED = ("name", "title", "match", "extends")
"""Keys that a file does not inherit from the file that it extends."""


def extend(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the content of an instrument file merged over that of the file that it extends.

    Mappings are merged key by key; a `null` removes a key. In a `map` and in `bands`, own entries
    come first. A value with its own source replaces the inherited one. Only the cameras named by
    the file are kept, each merged over the one of the same name, or over the only one.
    """
    base = {key: value for key, value in base.items() if key not in NOT_EXTENDED}
    result = merge_values(base, {key: own[key] for key in own if key not in ("cameras",)})
    defaults = own.get("defaults") or {}
    cameras = base.get("cameras")
    cameras = cameras if isinstance(cameras, dict) else {}
    cameras = {name: _extend_camera(camera or {}, defaults) for name, camera in cameras.items()}
    named = own.get("cameras")
    if isinstance(named, dict):
        only = next(iter(cameras.values())) if len(cameras) == 1 else {}
        cameras = {
            name: _extend_camera(cameras.get(name, only), camera or {})
            for name, camera in named.items()
        }
    elif named is not None:
        cameras = named
    result.pop("defaults", None)
    return result | {"cameras": cameras}


def _extend_camera(base: dict[str, Any], own: Any) -> Any:
    """Return a camera merged over another; an own pixel scale replaces all of the inherited one."""
    if not isinstance(own, dict):
        return own
    scale = own.get("wcs")
    if isinstance(scale, dict) and ("pixscale" in scale or "cd" in scale):
        kept = {key: one for key, one in base.get("wcs", {}).items() if key not in OF_SCALE}
        base = base | {"wcs": kept}
    return merge_values(base, own)


OF_SCALE = ("pixscale", "cd", "rotation", "parity", "scale_with_binning")
"""Keys that define the pixel scale together, and are inherited together."""


def merge_values(base: Any, own: Any) -> Any:
    """Return a value of an instrument file merged over an inherited one."""
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    if any(name in own for name in VALUE_SOURCES) and any(name in base for name in VALUE_SOURCES):
        return own
    result = dict(base)
    for key, value in own.items():
        if value is None:
            result.pop(key, None)
        elif (
            key in ("map", "bands") and isinstance(value, dict) and isinstance(base.get(key), dict)
        ):
            rest = {name: one for name, one in base[key].items() if name not in value}
            result[key] = {name: one for name, one in value.items() if one is not None} | rest
        else:
            result[key] = merge_values(base.get(key), value)
    return result


def load_instrument(name_or_path: str | Path) -> dict[str, Any]:
    """Read and check an instrument file, including what it extends.

    Parameters
    ----------
    name_or_path : str or Path
        Name of a shipped instrument, or path of a YAML file.

    Returns
    -------
    dict
        Content of the file; each camera is completed with `defaults`.

    Raises
    ------
    InstrumentError
        One line per fault, with file, line and key.
    """
    if isinstance(name_or_path, str) and "." not in name_or_path and "/" not in name_or_path:
        return _load_shipped(name_or_path)
    return _load(instrument_path(name_or_path))


@functools.lru_cache(maxsize=64)
def _load_shipped(name: str) -> dict[str, Any]:
    return _load(instrument_path(name))


def _load(path: Path) -> dict[str, Any]:
    sources = read_sources(path)
    content: Any = None
    for source in reversed(sources):
        own = source.content
        if isinstance(own, dict):
            own = {"name": safe_name(source.path.stem, replacement="-")} | own
        if isinstance(content, dict) and isinstance(own, dict):
            own = extend(content, own)
        content = complete(own)
    check_sources(content, sources)
    return content


def complete(content: Any) -> Any:
    """Return the content of an instrument file with its cameras completed from `defaults`."""
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), dict):
        return content
    defaults = content.get("defaults") or {}
    if not isinstance(defaults, dict):
        return content
    cameras = {
        name: camera if camera is not None and not isinstance(camera, dict)
        else _merged(defaults, camera or {})
        for name, camera in content["cameras"].items()
    }  # fmt: skip
    return content | {"cameras": cameras}


def _merged(base, over):
    """Return `over` merged over `base`; wcs and calibrations are merged one level deep."""
    result = dict(base)
    for key, value in over.items():
        if key in ("wcs", "calibrations") and isinstance(result.get(key), dict):
            result[key] = {**result[key], **value}
        else:
            result[key] = value
    return result


def identify(header: Header) -> str:
    """Return the instrument whose `match` a header satisfies; `generic` where there is none."""
    keywords, found = _identity()
    return found(tuple(map(header.get, keywords)))


@functools.lru_cache(maxsize=1)
def _identity() -> tuple[list[str], Callable[[tuple[Any, ...]], str]]:
    """Return the keywords that identify instruments, and a function of their values that does so.

    Within a night the values hardly vary; each combination is evaluated once.
    """
    matches = _all_matches()
    words = [key for _, match in matches for conditions in match for key in conditions]
    keywords = list(dict.fromkeys(word.removeprefix("HIERARCH ") for word in words))

    def told(values: tuple[Any, ...]) -> str:
        header = dict(zip(keywords, values, strict=True))
        for name, match in matches:
            if any(_matches(conditions, header) for conditions in match):
                return name
        return "generic"

    return keywords, functools.lru_cache(maxsize=4096, typed=True)(told)


def _matches(conditions: Mapping[str, str], header: Header) -> bool:
    for key, pattern in conditions.items():
        value = get(header, key)
        # '.*' requires the keyword; only conditions on what a value must not be hold without it
        if value is None and "(?!" not in str(pattern):
            return False
        if not compiled(str(pattern)).search(text(value)):
            return False
    return True


@functools.lru_cache(maxsize=1)
def _all_matches() -> list[tuple[str, list[dict[str, str]]]]:
    """Return the name and `match` of each instrument; the rest of its file is read when needed."""
    result = []
    for name in list_instruments():
        content = read_source(instrument_path(name)).content
        match = content.get("match") if isinstance(content, dict) else None
        if not isinstance(content, dict) or match and not _sound(match):
            match = load_instrument(name).get("match")  # raises the errors of the file
        if match:
            result.append((name, match))
    return result


def _sound(match: Any) -> bool:
    try:
        return all(compiled(pattern) for one in match for pattern in one.values())
    except (AttributeError, TypeError, re.error):
        return False
