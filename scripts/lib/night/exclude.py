"""The list of frames that the user leaves out."""

import fnmatch
import os
import shlex
from collections.abc import Iterable, Mapping

from lib.night.headervalues import text


def read_exclude(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """The user's list of frames to leave out: frame or file name, then the reason, a line each.

    A name may hold `*` and `?`; one with spaces is put in quotes; `#` begins a comment line.

    Returns
    -------
    dict
        Name -> reason.
    """
    result: dict[str, str] = {}
    if path is None or not os.path.exists(path):
        return result
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, _, reason = line.partition(" ")
            if line[0] in "'\"":
                try:
                    name = shlex.split(line)[0]
                    reason = line[len(name) + 2 :]
                except ValueError:
                    pass
            elif "\t" in name:
                name, _, reason = line.partition("\t")
            result[name] = text(reason.strip()) or "no reason given"
    return result


def excluding_entry(names: Iterable[str], excluded: Mapping[str, str]) -> str | None:
    """The entry of the exclude list that meets one of a frame's names, or None."""
    for name in filter(None, names):
        if name in excluded:
            return name
    patterns = [entry for entry in excluded if "*" in entry or "?" in entry]
    for entry in patterns:
        if any(fnmatch.fnmatchcase(name, entry) for name in filter(None, names)):
            return entry
    return None
