"""Instrument files: found, read, checked; which of them a header belongs to."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from lib.night.headervalues import Header, compiled, get, text

VERSION = 3  # raise when facts change for the same header and YAML: it empties the cache


CONFIG = Path(__file__).resolve().parents[3] / "config"


class InstrumentError(ValueError):
    """An instrument file that cannot be used; the message names file and key."""


def instrument_dir() -> Path:
    """Directory of the instrument files that come with the project."""
    return CONFIG / "instruments"


def list_instruments() -> list[str]:
    """Names of the instruments that come with the project, `generic` last."""
    names = sorted(path.stem for path in instrument_dir().glob("*.yaml"))
    return sorted(names, key=lambda name: name == "generic")


def instrument_path(name_or_path: str | Path) -> Path:
    """Path of the YAML file of an instrument.

    Raises
    ------
    InstrumentError
        When there is no such instrument and no such file.
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
    raise InstrumentError(
        f"instrument: {text!r} is not known; write auto, one of "
        f"{', '.join(list_instruments())}, or the path of a YAML file"
    )


def instruments_hash(name_or_path: str | Path) -> str:
    """Hash of all that decides how headers are read with this choice of instrument."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    every = str(name_or_path) == "auto"
    names: list[str | Path] = [*list_instruments()] if every else [name_or_path]
    for name in names:
        path = instrument_path(name)
        digest.update(path.stem.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def load_instrument(name_or_path: str | Path) -> dict[str, Any]:
    """Read and check an instrument file.

    Parameters
    ----------
    name_or_path : str or Path
        Name of an instrument that comes with the project, or path of a YAML file.

    Returns
    -------
    dict
        The content of the file; every camera is completed with `defaults`.

    Raises
    ------
    InstrumentError
        One sentence that names the file and the key.
    """
    import yaml

    path = instrument_path(name_or_path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_bytes(), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InstrumentError(f"{path}: this is not YAML: {error}") from error
    check_instrument(content, path)
    defaults = content.get("defaults", {})
    content["cameras"] = {
        name: _merged(defaults, camera or {}) for name, camera in content["cameras"].items()
    }
    return content


def _merged(base, over):
    """`over` on top of `base`, mappings of sections (wcs, calibrations) merged one level deep."""
    result = dict(base)
    for key, value in over.items():
        if key in ("wcs", "calibrations") and isinstance(result.get(key), dict):
            result[key] = {**result[key], **value}
        else:
            result[key] = value
    return result


@functools.lru_cache(maxsize=1)
def _schema():
    import yaml

    with open(CONFIG / "schemas" / "instrument.schema.yaml", "rb") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_instrument(content: Any, path: Path) -> None:
    """Check the content of an instrument file against its schema.

    Raises
    ------
    InstrumentError
        One sentence that names the file, the key, and what is expected there.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(_schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(content))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "the file"
        expected = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
        message = error.message if len(error.message) < 200 else error.message[:200] + "..."
        expected = f" (expected: {expected})" if expected else ""
        raise InstrumentError(f"{path}: {key}: {message}{expected}")
    for key, pattern in _patterns(content):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InstrumentError(
                f"{path}: {key}: {pattern!r} is not a regular expression: {error}"
            ) from error


def _patterns(node, key=""):
    """Every regular expression in an instrument file, with the key that holds it."""
    if isinstance(node, dict):
        for name, value in node.items():
            where = f"{key}.{name}" if key else str(name)
            if name in ("map", "bands") and isinstance(value, dict):
                yield from ((where, str(pattern)) for pattern in value)
            elif name in ("omit", "matches", "unless", "files", "file_name"):
                yield where, str(value)
            elif key == "match" or key.startswith("match."):
                yield where, str(value)
            else:
                yield from _patterns(value, where)
    elif isinstance(node, list):
        for item in node:
            yield from _patterns(item, key)


def _matches(conditions, header):
    for key, pattern in conditions.items():
        value = get(header, key)
        if value is None or not compiled(str(pattern)).search(text(value)):
            return False
    return True


def identify(header: Header) -> str:
    """Name of the instrument whose `match` the header fulfils; `generic` when none does."""
    for name, match in _all_matches():
        if any(_matches(conditions, header) for conditions in match):
            return name
    return "generic"


@functools.lru_cache(maxsize=1)
def _all_matches():
    loaded = [load_instrument(name) for name in list_instruments()]
    return [(content["name"], content["match"]) for content in loaded if content.get("match")]
