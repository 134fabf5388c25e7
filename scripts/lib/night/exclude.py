"""The user's list of frames to leave out."""

import fnmatch
import io
import os
import re
import shlex
from collections.abc import Iterable, Mapping

from lib.night.headervalues import text


def read_exclude(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return the user's list of frames to leave out: name of a frame or file, and the reason.

    Each line has a name and a reason. A name may contain the patterns `*` and `?`, unless it is
    quoted; `#` begins a comment line.

    Returns
    -------
    dict
        Name -> reason; quoted names are `QuotedName`.
    """
    result: dict[str, str] = {}
    if path is None or not os.path.exists(path):
        return result
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, reason = _name_and_reason(line)
            result[name] = text(reason.strip()) or "no reason given"
    return result


class QuotedName(str):
    """A name to be taken literally."""

    __slots__ = ()


def _name_and_reason(line: str) -> tuple[str, str]:
    """Return the name at the beginning of a line, and the rest of the line."""
    if line[0] in "'\"":
        words = io.StringIO(line)
        lexer = shlex.shlex(words, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            name = lexer.get_token()
        except ValueError:  # an unterminated quote
            name = None
        if name:
            return QuotedName(name), words.read()
    name, *rest = re.split(r"[ \t]", line, maxsplit=1)
    return name, "".join(rest)


def excluding_entry(names: Iterable[str], excluded: Mapping[str, str]) -> str | None:
    """Return the entry of the exclude list that matches one of a frame's names, or None."""
    for name in filter(None, names):
        if name in excluded:
            return name
    for entry in excluded:
        if isinstance(entry, QuotedName) or not set(entry) & set("*?"):
            continue
        pattern = entry.replace("[", "[[]")
        if any(fnmatch.fnmatchcase(name, pattern) for name in filter(None, names)):
            return entry
    return None
