"""Check of the configuration, with one sentence that says what to write instead.

The keys are declared by the dataclasses in `lib.core.settings`.
"""

import difflib
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import date
from functools import cache
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le
from pydantic import TypeAdapter, ValidationError

from lib.core.settings import EXPORT_NEEDS, Settings, Write
from lib.engine.templates import date_to_mjd
from lib.night.slices import parse_slice

SWITCHES = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

OPTIONS = {
    "start": "--forcerun STEP",
    "stop": "--until STEP",
    "only": "--allowed-rules STEP",
    "step": "--allowed-rules STEP",
    "redo": "--forcerun STEP",
}
"""Arguments of the original autoproc that are options of Snakemake."""


class ConfigError(ValueError):
    """An unusable configuration; the message says what to write instead."""


@dataclass(frozen=True)
class Key:
    """A key of the configuration, as declared in the settings.

    Parameters
    ----------
    name : str
        Name, with its section: ``flat.amin``.
    annotation : type
    default
    kinds : frozenset of type
        Types that its value may have: bool, int, float, str, tuple or NoneType.
    words : tuple
        Allowed values; empty where there is no such list.
    marks : tuple
        Bounds, and how to complete "write ...".
    """

    name: str
    annotation: Any
    default: Any
    kinds: frozenset[type]
    words: tuple[Any, ...]
    marks: tuple[Any, ...]


def check_config(
    config: Mapping[str, Any], instruments: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return the complete configuration with the declared types.

    Values from the command line are texts or numbers, and are converted to switches, numbers or
    lists as declared. Missing keys get their default.

    Parameters
    ----------
    config : dict
        Configuration as merged by Snakemake from files and ``--config``; not changed.
    instruments : iterable of str, optional
        Values of the key ``instrument`` in addition to ``auto``.

    Returns
    -------
    dict
        Keys, and sections of keys, in the order of `lib.core.settings.Settings`.

    Raises
    ------
    ConfigError
        The first unknown key or wrong value, in one sentence.
    """
    _check_names(config)
    checked: dict[str, Any] = {}
    for name, entry in _entries().items():
        if isinstance(entry, Key):
            checked[name] = _checked(config, name, entry)
            continue
        section = config.get(name)
        section = {} if section is None else section
        if not isinstance(section, dict):
            _complain(name, section, _example(name, entry))
        checked[name] = {key: _checked(section, key, leaf) for key, leaf in entry.items()}
    _check_flat_levels(checked["flat"])
    _check_slices(checked["stack"]["by"])
    _check_export(checked["export"], checked["observer"])
    _check_date(checked["difference"]["before"])
    if instruments is not None:
        _check_instrument(checked["instrument"], sorted(instruments))
    return checked


# ---------------------------------------------------------------------------- what is declared


@cache
def _entries() -> dict[str, Any]:
    """Return the keys and sections of the settings; a section is a dict of its keys."""
    return _entries_of(Settings)


def _entries_of(settings: type, section: str = "") -> dict[str, Any]:
    hints = get_type_hints(settings, include_extras=True)
    return {
        one.name: _entries_of(hints[one.name], f"{one.name}.")
        if is_dataclass(hints[one.name])
        else _key(f"{section}{one.name}", hints[one.name], one)
        for one in fields(settings)
    }


def _key(name: str, annotation: Any, field: Field) -> Key:
    default = field.default if field.default is not MISSING else None
    kinds: set[type] = set()
    words: list[Any] = []
    marks: list[Any] = []

    def take_apart(one: Any) -> None:
        origin = get_origin(one)
        if origin is Annotated:
            inner, *more = get_args(one)
            marks.extend(more)
            take_apart(inner)
        elif origin in (Union, UnionType):
            for part in get_args(one):
                take_apart(part)
        elif origin is Literal:
            words.extend(get_args(one))
        else:
            kinds.add(origin or one)

    take_apart(annotation)
    default = list(default) if isinstance(default, tuple) else default
    return Key(name, annotation, default, frozenset(kinds), tuple(words), tuple(marks))


def _sections() -> dict[str, dict[str, Key]]:
    """Return the keys of each section."""
    return {name: entry for name, entry in _entries().items() if isinstance(entry, dict)}


# ---------------------------------------------------------------------------- names


def _check_names(config: Mapping[str, Any]) -> None:
    """Raise on an unknown key or section."""
    for key, value in config.items():
        entry = _entries().get(key)
        if entry is None:
            raise ConfigError(_unknown(str(key), _entries()))
        if isinstance(entry, dict) and isinstance(value, dict):
            for name in value:
                if name not in entry:
                    raise ConfigError(_unknown(str(name), entry, key))


def _unknown(key: str, known: Mapping[str, Any], section: str | None = None) -> str:
    """Return the message about an unknown key."""
    name = f"{section}.{key}" if section else key
    says = f"config key '{name}' is not known"
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if section:
        if near:
            return f"{says}: did you mean '{section}.{near[0]}'?"
        return f"{says}: section '{section}' has {', '.join(known)}."
    if key in OPTIONS:
        return f"{says}: it is an option of snakemake here, write {OPTIONS[key]} instead."
    homes = [name for name, keys in _sections().items() if key in keys]
    if homes:
        within = " or ".join(f"'{home}={{{key}: ...}}'" for home in homes)
        return f"{says}: it belongs to a section, write {within}."
    if near:
        return f"{says}: did you mean '{near[0]}'?"
    return f"{says}: the keys are {', '.join(known)}."


# ---------------------------------------------------------------------------- values


def _checked(config: Mapping[str, Any], name: str, key: Key) -> Any:
    """Return the value of a key, converted and validated, or its default."""
    if name not in config:
        return _convert(deepcopy(key.default), key)
    value = _convert(config[name], key)
    if not _is_valid(value, key):
        _complain(key.name, value, _allowed(key))
    return value


@cache
def _adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation)


def _is_valid(value: Any, key: Key) -> bool:
    """Return whether a value has the declared type, is within the bounds, and is finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    try:
        # Lists are declared as tuples, which are immutable.
        _adapter(key.annotation).validate_python(
            tuple(value) if isinstance(value, list) else value, strict=True
        )
    except ValidationError:
        return False
    return True


def _convert(value: Any, key: Key) -> Any:
    """Return `value` converted to the type of its key, or unchanged where it cannot be."""
    if NoneType in key.kinds and value == "":
        return None
    if isinstance(value, date) and str in key.kinds:
        # YAML takes 2024-03-01 for one.
        return value.isoformat()
    if bool in key.kinds:
        return SWITCHES.get(str(value).strip().lower(), value)
    if tuple in key.kinds and str not in key.kinds:
        if value is None:
            return []
        if isinstance(value, str):
            return value.replace(",", " ").split()
    if int in key.kinds or float in key.kinds:
        return _number(value, whole=int in key.kinds)
    if isinstance(value, str):
        # Snakemake keeps anything in {...} on the command line as text.
        return next((word for word in key.words if str(word) == value), value)
    return deepcopy(value)


def _number(value: Any, whole: bool) -> Any:
    """Return the number given by `value`, or `value` itself where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return value
    if whole:
        return int(number) if number.is_integer() else value
    return number


def _check_flat_levels(flat: Mapping[str, Any]) -> None:
    """Raise where the bounds on the level of flats exclude everything."""
    if flat["amin"] >= flat["amax"]:
        raise ConfigError(
            f"config key 'flat.amin' is {flat['amin']}: write a number below"
            f" flat.amax, which is {flat['amax']}."
        )


def _check_slices(words: Iterable[str]) -> None:
    """Raise on an invalid word of ``stack.by``."""
    for word in words:
        try:
            parse_slice(word)
        except ValueError as error:
            raise ConfigError(f"config key 'stack.by' holds '{word}': {error}.") from None


def _check_export(formats: Collection[str], observer: Mapping[str, Any]) -> None:
    """Raise where an export format requires a missing key of section ``observer``."""
    for one in formats:
        for key in EXPORT_NEEDS.get(one, ()):
            if not observer[key]:
                raise ConfigError(
                    f"config key 'observer.{key}' is empty: write it, as export: [{one}] needs it."
                )
    if "parquet" in formats and find_spec("pyarrow") is None:
        raise ConfigError(
            "config key 'export' has parquet, which needs the package pyarrow: "
            f"'{sys.executable} -m pip install pyarrow', or write votable instead."
        )


def _check_date(before: str | None) -> None:
    """Raise where ``difference.before`` is no date."""
    try:
        date_to_mjd(before)
    except ValueError:
        raise ConfigError(
            f"config key 'difference.before' is '{before}': write a date such as 2024-03-01."
        ) from None


def is_instrument_file(name: str) -> bool:
    """Return whether a value of the key ``instrument`` is the path of a file."""
    return str(name).endswith((".yaml", ".yml"))


def _check_instrument(name: str, instruments: list[str]) -> None:
    """Raise on an unknown instrument; files are checked by `check_places`."""
    if name == "auto" or name in instruments or is_instrument_file(name):
        return
    near = difflib.get_close_matches(name.lower(), instruments, n=1)
    meant = (
        f"did you mean {near[0]}?"
        if near
        else f"write auto, {_either(instruments)}, or the path of a .yaml file."
    )
    raise ConfigError(f"config key 'instrument' is '{name}', which is not known: {meant}")


# ---------------------------------------------------------------------------- sentences


def _complain(name: str, value: Any, allowed: str) -> NoReturn:
    """Raise the message about a wrong value."""
    if value is None or value == "":
        shown = "empty"
    else:
        shown = f"'{value}'" if isinstance(value, str) else str(value)
    raise ConfigError(f"config key '{name}' is {shown}: write {allowed}.")


def _example(name: str, section: Mapping[str, Key]) -> str:
    key, first = next(iter(section.items()))
    return f"a section, such as '{name}={{{key}: {first.default}}}'"


def _allowed(key: Key) -> str:
    """Return the allowed values of a key, in words."""
    for mark in key.marks:
        if isinstance(mark, Write):
            return mark.text
    if key.words:
        return _either(key.words)
    if bool in key.kinds:
        return "true or false"
    if int in key.kinds or float in key.kinds:
        return _range(key) + (", or nothing" if NoneType in key.kinds else "")
    return "text"


def _range(key: Key) -> str:
    """Return the allowed range of a number, in words."""
    noun = "a whole number" if int in key.kinds else "a number"
    lowest = next((mark.ge for mark in key.marks if isinstance(mark, Ge)), None)
    above = next((mark.gt for mark in key.marks if isinstance(mark, Gt)), None)
    highest = next((mark.le for mark in key.marks if isinstance(mark, Le)), None)
    if lowest is not None and highest is not None:
        return f"{noun} from {lowest} to {highest}"
    words = []
    if above is not None:
        words.append(f"above {above}")
    if lowest is not None:
        words.append(f"of at least {lowest}")
    if highest is not None:
        words.append(f"of at most {highest}")
    return " ".join([noun, " and ".join(words)]).strip()


def _either(names: Iterable[Any]) -> str:
    """Return "a, b or c"."""
    *first, last = (str(name) for name in names)
    return f"{', '.join(first)} or {last}" if first else last
