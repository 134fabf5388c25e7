"""The list of frames that the user leaves out."""

import fnmatch
import io
import os
import re
import shlex
from collections.abc import Iterable, Mapping

from lib.night.headervalues import text


def read_exclude(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """The user's list of frames to leave out: frame or file name, then the reason, a line each.

    A name may hold `*` and `?`; in quotes, as a shell has them, it is a name and no pattern; `#`
    begins a comment line.

    Returns
    -------
    dict
        Name -> reason; names that were quoted are `QuotedName`.
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
    """A name that stands for itself, whatever it holds."""

    __slots__ = ()


def _name_and_reason(line: str) -> tuple[str, str]:
    """Return the name that begins a line, and what follows it."""
    if line[0] in "'\"":
        words = io.StringIO(line)
        lexer = shlex.shlex(words, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            name = lexer.get_token()
        except ValueError:  # a quote that does not end
            name = None
        if name:
            return QuotedName(name), words.read()
    name, *rest = re.split(r"[ \t]", line, maxsplit=1)
    return name, "".join(rest)


def excluding_entry(names: Iterable[str], excluded: Mapping[str, str]) -> str | None:
    """The entry of the exclude list that meets one of a frame's names, or None."""
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
