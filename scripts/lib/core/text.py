"""Texts of others (names of files, headers, servers, tables) as they are shown.

A terminal obeys control characters, and bidirectional marks turn what is read around: both are
shown, not sent.
"""

import re
from typing import Any

INTERRUPTED = "interrupted"
"""Message in the log of a job ended by Ctrl-C."""

NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def shown(text: Any, longest: int | None = None) -> str:
    """Return a text on one line in which each character that is not printed is escaped.

    Letters of all languages stay.

    Parameters
    ----------
    text : object
        What is no text is turned into one.
    longest : int, optional
        Characters kept; what is cut off is marked by dots.
    """
    found = str(text)
    if not found.isprintable():
        found = "".join(one if one.isprintable() else _escaped(one) for one in found)
    if longest is not None and len(found) > longest:
        found = found[: longest - 3] + "..."
    return found


def shown_lines(text: Any) -> str:
    """Return a text of several lines as `shown`, with its line feeds and tabs."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in found)


def card_text(text: Any, longest: int = 60) -> str:
    """Return a text as a card of a FITS header holds it: printable ASCII, all else escaped."""
    return NOT_ASCII.sub(lambda found: _escaped(found.group()), str(text))[:longest].strip()


def shown_within(value: Any) -> Any:
    """Return a value of lists and dicts whose texts are all as `shown_lines`."""
    if isinstance(value, str):
        return shown_lines(value)
    if isinstance(value, dict):
        return {shown(key): shown_within(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown_within(one) for one in value]
    return value


def _escaped(letter: str) -> str:
    code = ord(letter)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
