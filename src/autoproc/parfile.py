"""The parameter file of the original, `pipeautoproc.par`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoproc.workflow import note

PAR_FILE = "pipeautoproc.par"

PAR_KEYS = {
    "datadir": "datadir",
    "imworkingdir": "imdir",
    "rmifiles": "rmifiles",
    "overwrite": "redo",
    "verbose": "quiet",
}
"""Keys of `pipeautoproc.par` that still say something, and the argument that replaces each."""


def with_par_file(
    settings: Mapping[str, Any], redo: bool, path: str | os.PathLike = PAR_FILE
) -> tuple[Mapping[str, Any], bool]:
    """Return settings and `redo`, completed from `pipeautoproc.par` where they are not given.

    For every key in the file it is told what replaces it.
    """
    if not os.path.isfile(path):
        return settings, redo
    settings = dict(settings)
    for key, value in read_par_file(path).items():
        new = PAR_KEYS.get(key)
        if new is None:
            if value:
                note(f"{path}: {key} is no longer needed, ignored")
            continue
        if not value:
            continue
        if new in ("datadir", "imdir"):
            used = settings[new] is None
            settings[new] = value if used else settings[new]
            text = f"{new}={value}"
            if used and not _is_within(value, Path(path).parent):
                text += f" ({'written' if new == 'imdir' else 'read'} outside of this directory)"
        else:
            wanted = (value == "0") if key == "verbose" else (value != "0")
            used = wanted
            text = "--redo" if new == "redo" else f"{new}=1"
            if new == "redo":
                redo = redo or wanted
            else:
                settings[new] = settings[new] or wanted
        if used:
            where = "the option" if new == "redo" else "in config/config.yaml"
            note(f"{path}: {key} is taken from it; {where} {text} replaces it")
    return settings, redo


def _is_within(path: str, directory: Path) -> bool:
    """Return whether a path, with all its links followed, is below a directory."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def read_par_file(path: str | os.PathLike) -> dict[str, str]:
    """Return the keys and values of a `pipeautoproc.par`: one ``key: value`` a line."""
    found = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, colon, value = line.partition(":")
            if colon and not key.strip().startswith("#"):
                found[key.strip()] = value.strip()
    return found
