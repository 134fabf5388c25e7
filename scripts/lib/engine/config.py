"""Check the configuration of a run, and say in one sentence what to write instead."""

import difflib
import math
from copy import deepcopy

import yaml
from jsonschema import Draft202012Validator

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
"""Arguments of the original autoproc that Snakemake has as options."""


class ConfigError(ValueError):
    """A configuration that cannot be run; its text says what to write instead."""


def load_schema(path):
    """Return the JSON Schema in the YAML file `path`."""
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_config(config, schema, instruments=None):
    """Return the configuration complete and with the right types.

    Values from the command line come as text or numbers: where the schema wants a switch, a
    number or a list, they are turned into one. Keys left out get the schema's ``default``.

    Parameters
    ----------
    config : dict
        As Snakemake merged it from files and ``--config``; not changed.
    schema : dict or path
        JSON Schema 2020-12 of two levels, keys and sections of keys; or the file it is in.
    instruments : iterable of str, optional
        Names that the key ``instrument`` may hold beside ``auto``.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        For the first unknown key or wrong value, in one sentence.
    """
    if not isinstance(schema, dict):
        schema = load_schema(schema)
    _check_names(config, schema)
    checked = _complete(config, schema)
    errors = sorted(
        Draft202012Validator(schema).iter_errors(checked), key=lambda error: list(error.path)
    )
    for error in errors:
        _complain([key for key in error.path if isinstance(key, str)], checked, schema)
    _check_finite(checked, schema)
    _check_flat_levels(checked)
    if instruments is not None:
        _check_instrument(checked["instrument"], sorted(instruments))
    return checked


def _check_names(config, schema):
    """Raise on a key, or a key of a section, that the schema has not."""
    sections = _sections(schema)
    for key, value in config.items():
        if key not in schema["properties"]:
            raise ConfigError(_unknown(str(key), schema))
        if key in sections and isinstance(value, dict):
            for name in value:
                if name not in sections[key]:
                    raise ConfigError(_unknown(str(name), schema["properties"][key], key))


def _sections(schema):
    """Return the keys of each section: {section: {key: schema}}."""
    return {
        key: value["properties"]
        for key, value in schema["properties"].items()
        if value.get("type") == "object"
    }


def _unknown(key, schema, section=None):
    """Return the sentence about an unknown key."""
    name = f"{section}.{key}" if section else key
    says = f"config key '{name}' is not known"
    known = list(schema["properties"])
    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if section:
        if near:
            return f"{says}: did you mean '{section}.{near[0]}'?"
        return f"{says}: section '{section}' has {', '.join(known)}."
    if key in OPTIONS:
        return f"{says}: it is an option of snakemake here, write {OPTIONS[key]} instead."
    homes = [name for name, keys in _sections(schema).items() if key in keys]
    if homes:
        within = " or ".join(f"'{home}={{{key}: ...}}'" for home in homes)
        return f"{says}: it belongs to a section, write {within}."
    if near:
        return f"{says}: did you mean '{near[0]}'?"
    return f"{says}: the keys are {', '.join(known)}."


def _complete(config, schema):
    """Return a copy of `config` with defaults filled in and values of the schema's types."""
    complete = {}
    for key, leaf in schema["properties"].items():
        if leaf.get("type") == "object":
            value = config.get(key)
            value = {} if value is None else value
            complete[key] = _complete(value, leaf) if isinstance(value, dict) else value
        elif key in config:
            complete[key] = _convert(config[key], leaf)
        else:
            complete[key] = deepcopy(leaf["default"])
    return complete


def _convert(value, leaf):
    """Return `value` as the type of its schema, or as it is where that cannot be done."""
    kinds = leaf.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "null" in kinds and value == "":
        return None
    if "boolean" in kinds:
        return SWITCHES.get(str(value).strip().lower(), value)
    if "array" in kinds:
        if value is None:
            return []
        if isinstance(value, str):
            return value.replace(",", " ").split()
    if "integer" in kinds or "number" in kinds:
        return _number(value, whole="integer" in kinds)
    return deepcopy(value)


def _number(value, whole):
    """Return the number that `value` holds, or `value` where it holds none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if whole:
        return int(number) if number.is_integer() else value
    return number


def _check_finite(checked, schema):
    """Raise on a number that is infinite or not a number: bounds of a schema let it pass."""
    for section, keys in _sections(schema).items():
        for key in keys:
            value = checked[section][key]
            if isinstance(value, float) and not math.isfinite(value):
                _complain([section, key], checked, schema)


def _check_flat_levels(checked):
    """Raise where the bounds on the level of a flat leave nothing between them."""
    levels = checked.get("flat", {})
    if "amin" in levels and "amax" in levels and levels["amin"] >= levels["amax"]:
        raise ConfigError(
            f"config key 'flat.amin' is {levels['amin']}: write a number below"
            f" flat.amax, which is {levels['amax']}."
        )


def is_instrument_file(name):
    """Return whether a value of the key ``instrument`` is the path of a file."""
    return str(name).endswith((".yaml", ".yml"))


def _check_instrument(name, instruments):
    """Raise on a name that there is no description of; a file is looked for by `check_places`."""
    if name == "auto" or name in instruments or is_instrument_file(name):
        return
    near = difflib.get_close_matches(name.lower(), instruments, n=1)
    meant = (
        f"did you mean {near[0]}?"
        if near
        else f"write auto, {_either(instruments)}, or the path of a .yaml file."
    )
    raise ConfigError(f"config key 'instrument' is '{name}', which is not known: {meant}")


def _complain(path, checked, schema):
    """Raise the sentence about the wrong value at `path`."""
    value, leaf = checked, schema
    for key in path:
        value, leaf = value[key], leaf["properties"][key]
    if value is None or value == "":
        shown = "empty"
    else:
        shown = f"'{value}'" if isinstance(value, str) else str(value)
    raise ConfigError(f"config key '{'.'.join(path)}' is {shown}: write {_allowed(path, leaf)}.")


def _allowed(path, leaf):
    """Return what the schema `leaf` lets one write, in words."""
    if "x-write" in leaf:
        return leaf["x-write"]
    if "enum" in leaf:
        return _either(leaf["enum"])
    if leaf["type"] == "object":
        key, inner = next(iter(leaf["properties"].items()))
        return f"a section, such as '{path[-1]}={{{key}: {inner['default']}}}'"
    if leaf["type"] == "boolean":
        return "true or false"
    if leaf["type"] in ("integer", "number"):
        return _range(leaf)
    return "text"


def _range(leaf):
    """Return the numbers that the schema `leaf` allows, in words."""
    noun = "a whole number" if leaf["type"] == "integer" else "a number"
    above = leaf.get("exclusiveMinimum")
    if "minimum" in leaf and "maximum" in leaf:
        return f"{noun} from {leaf['minimum']} to {leaf['maximum']}"
    words = []
    if above is not None:
        words.append(f"above {above}")
    if "minimum" in leaf:
        words.append(f"of at least {leaf['minimum']}")
    if "maximum" in leaf:
        words.append(f"of at most {leaf['maximum']}")
    return " ".join([noun, " and ".join(words)]).strip()


def _either(names):
    """Return "a, b or c"."""
    *first, last = (str(name) for name in names)
    return f"{', '.join(first)} or {last}" if first else last
