"""Values of raw headers: numbers, texts, angles, dates, entries of instrument files."""

import datetime
import functools
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

Header = Mapping[str, Any]
"""Keywords of a header and their values, texts as they are."""

MAX_TEXT = 200  # characters of a header value that are looked at


OPEN = (
    r"(?i)(no[ _-]?filter|open|opn|clear|clr|air|empty|hole|free|none|no|null|nul|n/?a|blank|indef"
    r"|unknown|undefined|pass|out|home|-+|\.+)([ _-]?\d+(-\d+)?)?|pupil.*"
)
"""What a wheel says that has no filter in the beam; a pupil mask is none."""

MAX_OBJECT = 68  # characters that fit one header card


MAX_NAME = 64


def number(value: Any) -> float | None:
    """A finite float, or None for anything that is not one."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip().replace("D", "E").replace("d", "e")
        if len(value) > MAX_TEXT or "_" in value:
            return None
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def text(value: Any) -> str:
    """A header value as one line of printable ASCII; other characters are escaped.

    Escaping, not dropping, keeps apart the names that differ only there.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    try:
        value = str(value)
    except ValueError:  # an integer of thousands of digits
        return ""
    value = value[: 4 * MAX_TEXT].strip()
    return re.sub(r"[^\x20-\x7e]", lambda match: f"\\x{ord(match.group()):02x}", value)[
        :MAX_TEXT
    ].strip()


def safe_name(value: Any, replacement: str = "_", empty: str = "unknown") -> str:
    """A header text as part of a file name: [A-Za-z0-9_+-], at most 64 characters."""
    name = re.sub(r"[^A-Za-z0-9_+-]+", replacement, text(value))
    return name[:MAX_NAME].strip("_") or empty


def object_text(value: Any) -> str:
    """OBJECT as it goes into a header card; what does not fit is told apart by a hash."""
    value = text(value)
    if len(value) <= MAX_OBJECT:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    return f"{value[: MAX_OBJECT - 9].rstrip()}~{digest}"


def get(header: Header, key: str) -> Any:
    """Value of a keyword, with or without HIERARCH in front; None where absent or blank."""
    if key.startswith("HIERARCH "):
        key = key[9:]
    value = header.get(key)
    if isinstance(value, str) and not value.strip():
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return text(value)


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@functools.lru_cache(maxsize=65536)
def map_items(items: tuple[tuple[str, Any], ...], value: str) -> Any:
    for pattern, result in items:
        if compiled(str(pattern)).fullmatch(value):
            return result
    return None


def evaluate(spec: Any, header: Header, filename: str = "") -> Any:
    """The value that an entry of an instrument file has for a header.

    Parameters
    ----------
    spec : str, number, list or dict
        A keyword; a constant number; a list of alternatives, the first that gives a value
        counts; or a mapping: one of `key`, `value`, `format`, `join`, `wheels`, `file_name`,
        then `omit`, `map`, and arithmetic `times`, `divided_by`, `plus`, in this order.
    header : mapping
        The header of the frame.
    filename : str
        Name of the raw file, without its folder.

    Returns
    -------
    str, float, int, bool or None
        None where the header does not tell.
    """
    if isinstance(spec, str):
        return get(header, spec)
    if isinstance(spec, (int, float)):
        return spec
    if isinstance(spec, list):
        for item in spec:
            value = evaluate(item, header, filename)
            if value is not None:
                return value
        return None
    if spec is None:
        return None
    value = _source(spec, header, filename)
    if value is None:
        return None
    if "omit" in spec and compiled(str(spec["omit"])).fullmatch(text(value)):
        return None
    if "map" in spec:
        value = map_items(tuple(spec["map"].items()), text(value))
    if value is None or not ("times" in spec or "divided_by" in spec or "plus" in spec):
        return value
    return _arithmetic(spec, value, header, filename)


def wheel_text(values: Iterable[object]) -> str | None:
    """Return the filter that one or more wheels put into the beam.

    Parameters
    ----------
    values : iterable
        What the header has of each wheel.

    Returns
    -------
    str or None
        The words of wheels that hold a filter, joined by ``+``, each once; the first wheel's word
        where none does; None where the header tells nothing.
    """
    told = [one for one in (text(value) for value in values if value is not None) if one]
    filters = [one for one in told if not compiled(OPEN).fullmatch(one)]
    if not filters:
        return told[0] if told else None
    # The number of a slot beside the name of what is in it.
    filters = [one for one in filters if not one.isdigit()] or filters[:1]
    kept: list[str] = []
    for one in filters:
        words = set(_words(one))
        if not any(words <= set(_words(other)) or set(_words(other)) <= words for other in kept):
            kept.append(one)
    return "+".join(kept)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9']+", name) if word]


def _source(spec, header, filename):
    if "value" in spec:
        return spec["value"]
    if "key" in spec:
        return get(header, spec["key"])
    if "any" in spec:
        return evaluate(spec["any"], header, filename)
    if "wheels" in spec:
        return wheel_text(evaluate(part, header, filename) for part in spec["wheels"])
    if "file_name" in spec:
        match = compiled(spec["file_name"]).search(filename[:MAX_TEXT])
        return match.group(1) if match else None
    if "format" in spec:
        missing = []

        def fill(match):
            value = text(get(header, match.group(1)))
            if not value:
                missing.append(match.group(1))
            return value

        value = re.sub(r"\{([^{}]+)\}", fill, spec["format"])
        return None if missing else value
    parts = [evaluate(part, header, filename) for part in spec["join"]]
    parts = [text(part) for part in parts if part is not None and text(part)]
    return spec.get("with", "-").join(parts) if parts else None


def _arithmetic(spec, value, header, filename):
    result = number(value)
    if result is None:
        return None
    if "times" in spec:
        factor = number(evaluate(spec["times"], header, filename))
        if factor is None:
            return None
        result *= factor
    if "divided_by" in spec:
        factor = number(evaluate(spec["divided_by"], header, filename))
        if not factor:
            return None
        result /= factor
    for term in spec.get("plus", ()):
        term = number(evaluate(term, header, filename))
        if term is None:
            return None
        result += term
    return number(result)


def keywords_of(spec: Any) -> list[str]:
    """The keywords that an entry looks at, for a message."""
    if isinstance(spec, str):
        return [spec]
    if isinstance(spec, list):
        return [key for item in spec for key in keywords_of(item)]
    if isinstance(spec, dict):
        found = [spec["key"]] if "key" in spec else []
        found += re.findall(r"\{([^{}]+)\}", spec.get("format", ""))
        for name in ("any", "join", "wheels", "times", "divided_by", "plus"):
            found += keywords_of(spec.get(name, []))
        return found
    return []


def angle(value: Any, hours: bool = False) -> float | None:
    """Degrees from a number or a sexagesimal text; None when it is neither.

    Parameters
    ----------
    value : number or str
        A number counts as degrees; a text with separators as hours when `hours`.
    hours : bool
        Whether a sexagesimal text is in hours (right ascension).
    """
    plain = number(value)
    if plain is not None:
        return plain
    if not isinstance(value, str) or len(value) > 40:
        return None
    match = re.fullmatch(
        r"\s*([+-]?)\s*(\d{1,3})[\s:hd]+(\d{1,2})(?:[\s:m']+(\d{1,2}(?:\.\d*)?)[s\"]?)?\s*", value
    )
    if not match:
        return None
    sign, first, minutes, seconds = match.groups()
    minutes, seconds = float(minutes), float(seconds or 0)
    if minutes >= 60 or seconds >= 60.001:
        return None
    degrees = float(first) + minutes / 60 + seconds / 3600
    return (-degrees if sign == "-" else degrees) * (15 if hours else 1)


_DATE = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d*)?))?)?Z?"
)


_TIME = re.compile(r"(\d{1,2})[: ](\d{1,2})(?:[: ](\d{1,2}(?:\.\d*)?))?Z?")


def mjd_of(date: Any, time: Any = None) -> float | None:
    """Modified Julian date (UTC, days) of a date text, with the time in it or beside it.

    Returns None where the text is no date between 1970 and 2100, or no time is known.
    """
    match = _DATE.fullmatch(text(date))
    if not match:
        return None
    year, month, day, hour, minute, second = match.groups()
    if hour is None:
        seconds = number(time)
        if seconds is not None:  # seconds of the day, as ESO and Calar Alto write it
            hour, minute, second = 0, 0, seconds
        else:
            match = _TIME.fullmatch(text(time))
            if not match:
                return None
            hour, minute, second = match.groups()
    seconds = int(hour) * 3600 + int(minute) * 60 + float(second or 0)
    try:
        day = datetime.date(int(year), int(month), int(day)).toordinal() - 678576
    except ValueError:
        return None
    if not 0 <= seconds < 86401 or not 1970 <= int(year) <= 2100:
        return None
    return round(day + seconds / 86400, 9)


def iso_of(mjd: float) -> str:
    """ISO text of a modified Julian date, to the millisecond."""
    milliseconds = round(mjd * 86400_000)
    day, rest = divmod(milliseconds, 86400_000)
    date = datetime.date.fromordinal(day + 678576)
    seconds, rest = divmod(rest, 1000)
    return (
        f"{date.isoformat()}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:"
        f"{seconds % 60:02d}.{rest:03d}"
    )


def parse_binning(value: Any) -> str | None:
    """'AxB' (along x, along y) of texts like '2 2', '2x2', '1,1', '2'; None for others."""
    match = re.fullmatch(r"\s*(\d{1,2})(?:\.0*)?(?:[\sxX*,]+(\d{1,2})(?:\.0*)?)?\s*", text(value))
    if not match:
        return None
    x, y = int(match.group(1)), int(match.group(2) or match.group(1))
    return f"{x}x{y}" if 1 <= x <= 64 and 1 <= y <= 64 else None
