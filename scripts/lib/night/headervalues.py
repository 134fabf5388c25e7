"""Values from raw headers: numbers, texts, angles, dates, entries of instrument files."""

import functools
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Header = Mapping[str, Any]
"""Keywords of a header and their values, texts unchanged."""


class CardHeader(dict[str, Any]):
    """Keywords and values of a header that keeps its cards, so that comments can be looked up.

    Parameters
    ----------
    content : mapping
        Keywords and values.
    cards : str
        All cards, 80 characters each.
    card_of : dict of str to str
        Card of each keyword, with its continuation cards.
    """

    __slots__ = ("card_of", "cards")

    def __init__(
        self,
        content: Mapping[str, Any] | None = None,
        cards: str = "",
        card_of: dict[str, str] | None = None,
    ) -> None:
        super().__init__(content or {})
        self.cards = cards
        self.card_of = {} if card_of is None else card_of


class Reading(NamedTuple):
    """A value of an entry of an instrument file, and the keyword it comes from.

    `keyword` is empty for a constant, or a value made from several keywords.
    """

    value: Any
    keyword: str = ""


MEASURED = "measured"
"""Alternative for `gain`: to be measured from the night's flats and biases."""

MAX_TEXT = 200  # characters of a header value that are looked at


OPEN = (
    r"(?i)(no[ _-]?filter|open|opn|clear|clr|air|empty|hole|free|none|no|null|nul|n/?a|blank|indef"
    r"|unknown|undefined|pass|out|home|-+|\.+)([ _-]?\d+(-\d+)?)?|pupil.*"
)
"""Words of a wheel without a filter in the beam; a pupil mask is no filter."""

MAX_OBJECT = 68  # characters that fit one header card


MAX_NAME = 64


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
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


_QUANTITY = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?)(?:\s*[/,(\[]?\s*([A-Za-z%].*)|\s+.*)?\s*"
)


def quantity(value: Any) -> tuple[float, str] | None:
    """Return a number and the unit that follows it: ``"1.5 e-/ADU"`` gives 1.5 and ``e-/ADU``.

    None where the text does not begin with a number followed by a blank, a slash or a letter.
    """
    plain = number(value)
    if plain is not None:
        return plain, ""
    match = _QUANTITY.fullmatch(value[:MAX_TEXT]) if isinstance(value, str) else None
    plain = number(match.group(1)) if match else None
    if match is None or plain is None:
        return None
    return plain, (match.group(2) or "").strip(" /()[]")


def text(value: Any) -> str:
    """Return a header value as one line of printable ASCII, with other characters escaped.

    Escaping keeps names distinct that differ only in such characters.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    try:
        return _printable(str(value)[: 4 * MAX_TEXT])
    except ValueError:  # an integer with thousands of digits
        return ""


@functools.lru_cache(maxsize=16384)
def _printable(value: str) -> str:
    value = value.strip()
    if not (value.isascii() and value.isprintable()):
        value = re.sub(r"[^\x20-\x7e]", lambda match: f"\\x{ord(match.group()):02x}", value)
    return value[:MAX_TEXT].strip()


def safe_name(value: Any, replacement: str = "_", empty: str = "unknown") -> str:
    """Return a header text as part of a file name: [A-Za-z0-9_+-], at most 64 characters."""
    return _name(text(value), replacement) or empty


@functools.lru_cache(maxsize=4096)
def _name(value: str, replacement: str) -> str:
    return re.sub(r"[^A-Za-z0-9_+-]+", replacement, value)[:MAX_NAME].strip("_")


def object_text(value: Any) -> str:
    """Return OBJECT as written to a header card; longer texts are kept distinct by a hash."""
    value = text(value)
    if len(value) <= MAX_OBJECT:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    return f"{value[: MAX_OBJECT - 9].rstrip()}~{digest}"


def get(header: Header, key: str) -> Any:
    """Return the value of a keyword, with or without HIERARCH; None where absent or blank."""
    if key.startswith("HIERARCH "):
        key = key[9:]
    value = header.get(key)
    if value is None:
        return None
    if type(value) is str:
        return None if not value or value.isspace() else value
    if isinstance(value, (int, float)):
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
    """Return the value of an entry of an instrument file for a header.

    Parameters
    ----------
    spec : str, number, list or dict
        A keyword; a constant number; a list of alternatives, of which the first with a value is
        used; or a mapping: one of `key`, `value`, `format`, `join`, `wheels`, `file_name`, then
        `omit`, `map`, and arithmetic `times`, `divided_by`, `plus`, in this order.
    header : mapping
        The header of the frame.
    filename : str
        Name of the raw file, without its folder.

    Returns
    -------
    str, float, int, bool or None
        None where the header has no value.
    """
    if isinstance(spec, str):
        return get(header, spec)
    if isinstance(spec, (int, float)):
        return spec
    if isinstance(spec, list):
        for item in spec:
            # Most alternatives are keywords of other cameras.
            if type(item) is str and item not in header and " " not in item:
                continue
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
    """Return the filter in the beam from the texts of one or more wheels.

    Parameters
    ----------
    values : iterable
        Header values of the wheels.

    Returns
    -------
    str or None
        Words of the wheels that have a filter in the beam, joined by ``+``, without repetition; the
        word of the first wheel where none has; None where the header says nothing.
    """
    told = [one for one in (text(value) for value in values if value is not None) if one]
    filters = [one for one in told if not compiled(OPEN).fullmatch(one)]
    if not filters:
        return told[0] if told else None
    # The number of a slot, in addition to the name of its filter.
    filters = [one for one in filters if not one.isdigit()] or filters[:1]
    kept: list[str] = []
    for one in filters:
        words = set(_words(one))
        if not any(words <= set(_words(other)) or set(_words(other)) <= words for other in kept):
            kept.append(one)
    return "+".join(kept)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z0-9']+", name) if word]


def readings(spec: Any, header: Header, filename: str = "") -> list[Reading]:
    """Return the values of all alternatives of an entry, in order.

    Parameters
    ----------
    spec, header, filename
        As for `evaluate`, which returns the first of these values.
    """
    if isinstance(spec, list):
        found: list[Reading] = []
        for item in spec:
            if not isinstance(item, str):
                found += readings(item, header, filename)
            elif (item in header or " " in item) and (value := get(header, item)) is not None:
                found.append(Reading(value, item))
        return found
    if isinstance(spec, dict) and "any" in spec:
        parts = spec["any"] if isinstance(spec["any"], list) else [spec["any"]]
        values = [
            (
                evaluate({**spec, "any": part}, header, filename),
                part if isinstance(part, str) else "",
            )
            for part in parts
        ]
        return [Reading(value, part) for value, part in values if value is not None]
    value = evaluate(spec, header, filename)
    if value is None:
        return []
    keyword = spec if isinstance(spec, str) else ""
    if isinstance(spec, dict) and "key" in spec and not {"times", "divided_by", "plus"} & set(spec):
        keyword = spec["key"]
    return [Reading(value, keyword)]


_QUOTED = re.compile(r"\s*'(?:[^']|'')*'")


def comment_of(header: Header, keyword: str) -> str:
    """Return the comment of a keyword's card; '' where there is none."""
    if not isinstance(header, CardHeader) or not keyword:
        return ""
    card = header.card_of.get(keyword.removeprefix("HIERARCH "))
    return _comment(card[:80]) if card else ""


@functools.lru_cache(maxsize=4096)
def _comment(card: str) -> str:
    field = card.partition("=")[2]
    if "'" in field:
        quoted = _QUOTED.match(field)
        field = field[quoted.end() :] if quoted else field
    return text(field.partition("/")[2])


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
    """Return the keywords that an entry uses, for messages."""
    if isinstance(spec, str):
        return [] if spec == MEASURED else [spec]
    if isinstance(spec, list):
        return [key for item in spec for key in keywords_of(item)]
    if isinstance(spec, dict):
        found = [spec["key"]] if "key" in spec else []
        found += re.findall(r"\{([^{}]+)\}", spec.get("format", ""))
        for name in ("any", "join", "wheels", "times", "divided_by", "plus"):
            found += keywords_of(spec.get(name, []))
        return found
    return []


_ANGLE = re.compile(
    r"([+-]?)\s*(\d{1,3})(\s*[hd\u00b0:*]\s*|\s+)(\d{1,2}(?:\.\d*)?)"
    r"(?:(?:\s*['m:\u2032]\s*|\s+)(?:(\d{1,2}(?:\.\d*)?)\s*(?:s|''|[\"\u2033])?)?)?\s*([NnSsEeWw]?)"
)

_PLAIN_ANGLE = re.compile(
    r"([+-]?\d+(?:\.\d*)?)\s*(h|hr|hrs|hours?|d|deg|degrees?|\u00b0)\.?", re.I
)


def angle(value: Any, hours: bool = False) -> float | None:
    """Return degrees from a number or a sexagesimal text; None for anything else.

    Parameters
    ----------
    value : number or str
        A number is in degrees unless a unit follows it; a sexagesimal text is in hours if `hours`
        is set, unless it says degrees (``150d00m00s``) or begins with 24 or more.
    hours : bool
        Whether sexagesimal texts are in hours (right ascension).
    """
    if not isinstance(value, str):
        return number(value)
    return _angle(value, hours) if len(value) <= 40 else number(value)


@functools.lru_cache(maxsize=16384)
def _angle(value: str, hours: bool) -> float | None:
    plain = number(value)
    if plain is not None:
        return plain
    value = value.strip()
    match = _PLAIN_ANGLE.fullmatch(value)
    if match:
        return float(match.group(1)) * (15 if match.group(2)[0] in "hH" else 1)
    match = _ANGLE.fullmatch(value)
    if not match:
        return None
    sign, first, mark, minutes, seconds, side = match.groups()
    if float(minutes) >= 60 or float(seconds or 0) >= 60.001 or (seconds and "." in minutes):
        return None
    if side and (hours or sign):
        return None
    degrees = float(first) + float(minutes) / 60 + float(seconds or 0) / 3600
    if sign == "-" or side in tuple("sSwW"):
        degrees = -degrees
    mark = mark.strip()
    in_hours = mark == "h" or (hours and mark not in ("d", "\u00b0") and float(first) < 24)
    return degrees * 15 if in_hours else degrees


def parse_binning(value: Any) -> str | None:
    """Return ``AxB`` (along x, along y) from texts like '2 2', '2x2', '1,1', '2', or None."""
    return _binning(text(value))


@functools.lru_cache(maxsize=4096)
def _binning(value: str) -> str | None:
    match = re.fullmatch(r"\s*(\d{1,2})(?:\.0*)?(?:[\sxX*,]+(\d{1,2})(?:\.0*)?)?\s*", value)
    if not match:
        return None
    x, y = int(match.group(1)), int(match.group(2) or match.group(1))
    return f"{x}x{y}" if 1 <= x <= 64 and 1 <= y <= 64 else None
