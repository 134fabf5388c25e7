"""Start of an exposure in UTC, from the various ways headers give it."""

import datetime
import functools
import re
from typing import Any, NamedTuple, NoReturn

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import (
    Header,
    Reading,
    comment_of,
    get,
    keywords_of,
    number,
    readings,
    text,
)

FIRST_YEAR, LAST_YEAR = 1970, 2100

MJD_BOUNDS = (40587.0, 88127.0)
"""The same as modified Julian dates."""

DISAGREEMENT = 120.0
"""[s] Maximum difference, beyond the exposure, between two times of a header: files are written
later."""

_DATE = re.compile(
    r"(?:(\d{4})(?:[-/.](\d{1,2})[-/.](\d{1,2})|-(\d{3})|(\d{2})(\d{2}))|(\d{1,2})/(\d{1,2})/(\d{2}))"
    r"(?:[Tt _]+(.+))?"
)

_DAY_FIRST = re.compile(r"(\d{1,2})(?:\.(\d{1,2})\.|[-/ ]([A-Za-z]{3})[a-z]*[-/ ])(\d{4})(.*)")
"""Dates with the day first where this is unambiguous: with dots, as in Europe, or with the name of
the month."""

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()

_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,12})?)"
)
"""The form required by the standard, and used in nearly every header."""

_TIME = re.compile(
    r"(?:(\d{1,2})[:\sh-](\d{1,2})(?:[:\sm-](\d{1,2}(?:\.\d*)?)s?)?|(\d{2})(\d{2})(\d{2}(?:\.\d*)?))"
    r"\s*\(?(Z|UTC?|GMT|[+-]\d{2}(?::?\d{2})?)?\)?",
    re.IGNORECASE,
)

_SECONDS = re.compile(r"\[s(ec)?\]|\bseconds?\b", re.IGNORECASE)

_HOURS = re.compile(r"\[h(r|rs|ours?)?\]|\bhours?\b|\bhrs?\b", re.IGNORECASE)

_END = re.compile(r"\b(end|stop|finish|close)\b(?!.*\bnight)", re.IGNORECASE)

_MIDDLE = re.compile(
    r"\bmid(dle|point|-point|-exposure|-?time)?\b|\bcent(re|er)\b|\bmean\b|\baverage\b",
    re.IGNORECASE,
)

_START = re.compile(r"\b(start|begin|beginning|began|open)\b", re.IGNORECASE)

_LOCAL = re.compile(r"\blocal\b|\bLT\b", re.IGNORECASE)

_ZONE = re.compile(r":\d\d(\.\d*)?\s*\(?(Z|UTC?|GMT|[+-]\d\d:?\d\d)\)?\s*$", re.IGNORECASE)


class Start(NamedTuple):
    """Start of an exposure [MJD, UTC], and remarks about it."""

    mjd: float
    notes: list[str]


def _clock(value: Any, seconds_told: bool = False, hours_told: bool = False) -> float | None:
    """Return the seconds of the day from a text such as 03:10:00, minus its time zone.

    Numbers below 24 are hours, unless the comment mentions seconds; larger ones are seconds, as
    written by ESO and Calar Alto.
    """
    plain = number(value)
    if plain is not None and not re.fullmatch(r"\s*\d{6}(\.\d*)?\s*", text(value)):
        if plain < 0 or plain >= 86401 or (hours_told and plain > 24):
            return None
        return plain * 3600 if plain < 24 and not seconds_told else plain
    match = _TIME.fullmatch(text(value))
    if not match:
        return None
    hour, minute, second = match.group(1, 2, 3) if match.group(1) else match.group(4, 5, 6)
    seconds = int(hour) * 3600 + int(minute) * 60 + float(second or 0)
    if int(minute) >= 60 or float(second or 0) >= 61 or seconds >= 86401:
        return None
    zone = match.group(7) or ""
    if zone[:1] in ("+", "-"):
        digits = zone[1:].replace(":", "")
        east = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
        seconds += east if zone[0] == "-" else -east
    return seconds


def _day(match: re.Match[str]) -> int | None:
    """Return the modified Julian day of a date."""
    year, month, day, of_year, month2, day2, old_day, old_month, old_year = match.groups()[:9]
    try:
        if old_year:  # DD/MM/YY, the FITS standard until 1999
            date = datetime.date(1900 + int(old_year), int(old_month), int(old_day))
        elif of_year:
            date = datetime.date(int(year), 1, 1) + datetime.timedelta(int(of_year) - 1)
            if date.year != int(year):
                return None
        else:
            date = datetime.date(int(year), int(month or month2), int(day or day2))
    except ValueError:
        return None
    return date.toordinal() - 678576 if FIRST_YEAR <= date.year <= LAST_YEAR else None


@functools.lru_cache(maxsize=4096)
def _iso_day(date: str) -> int | None:
    match = _DATE.fullmatch(date)
    return _day(match) if match else None


def _year_first(date: str) -> str:
    """Return a date text in the order year, month, day, and with a decimal point in its seconds."""
    date = re.sub(r"(?<=\d),(?=\d)", ".", date)
    match = _DAY_FIRST.fullmatch(date)
    if match is None:
        return date
    day, month, name, year, rest = match.groups()
    if name:
        if name.lower() not in _MONTHS:
            return date
        month = str(_MONTHS.index(name.lower()) + 1)
    return f"{year}-{int(month):02d}-{int(day):02d}{rest}"


def mjd_of(date: Any, time: Any = None) -> float | None:
    """Return the modified Julian date [d] of a date text, with the time in it or given separately.

    A time zone (``+02:00``) is subtracted. None where the text is not a date between 1970 and 2100,
    or the time is unknown.
    """
    iso = _ISO.fullmatch(date) if isinstance(date, str) else None
    if iso and (day := _iso_day(iso.group(1))) is not None:
        clock = int(iso.group(2)) * 3600 + int(iso.group(3)) * 60 + float(iso.group(4))
        return round(day + clock / 86400, 9)
    match = _DATE.fullmatch(_year_first(text(date).removesuffix("Z")))
    day = _day(match) if match else None
    if match is None or day is None:
        return None
    within = match.group(10)
    seconds = _clock(time) if within is None else _clock(within) if ":" in within or len(
        within
    ) > 4 else None  # fmt: skip
    return None if seconds is None else round(day + seconds / 86400, 9)


def iso_of(mjd: float) -> str:
    """Return a modified Julian date in ISO 8601, to the millisecond."""
    milliseconds = round(mjd * 86400_000)
    day, rest = divmod(milliseconds, 86400_000)
    date = datetime.date.fromordinal(day + 678576)
    seconds, rest = divmod(rest, 1000)
    return (
        f"{date.isoformat()}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:"
        f"{seconds % 60:02d}.{rest:03d}"
    )


@functools.lru_cache(maxsize=256)
def _ahead_of_utc(scale: str, day: int) -> float | None:
    """Return the offset of a time scale from UTC on a day [s]; None: unknown."""
    if scale in ("", "UTC", "UT", "UT1", "UTC(NIST)", "GMT", "Z", "NULL", "NONE", "UNKNOWN"):
        return 0.0  # UT1 is within a second
    from astropy.time import Time

    scale = {"TDT": "TT", "ET": "TDB", "IAT": "TAI"}.get(scale, scale)
    if scale not in ("TAI", "TT", "TDB", "TCB", "TCG", "GPS"):
        return None
    moment = Time(day, format="mjd", scale="tai" if scale == "GPS" else scale.lower())
    ahead = round((day - moment.utc.mjd) * 86400, 3)
    return ahead - 19.0 if scale == "GPS" else ahead


def _julian(value: Any) -> float | None:
    """Return the modified Julian date of a number that is an MJD or a JD; None for others."""
    day = number(value)
    if day is None:
        return None
    if day > 2400000.5:
        day -= 2400000.5
    return round(day, 9) if MJD_BOUNDS[0] <= day <= MJD_BOUNDS[1] else None


def _with_time(reading: Reading, times: list[Reading], header: Header) -> tuple[float, str] | None:
    """Return the date and time of a reading [MJD], and the keyword with the time of day."""
    date = reading.value
    if isinstance(date, (int, float)):
        mjd = _julian(date)
        return None if mjd is None else (mjd, reading.keyword)
    mjd = mjd_of(date) if ":" in date or len(date) > 10 else None
    if mjd is not None and mjd % 1:
        return mjd, reading.keyword
    for time in times:  # use the first that is a time: others may say "No Value"
        both = mjd_of(time.value) if isinstance(time.value, str) else None
        if both is None:
            comment = comment_of(header, time.keyword)
            seconds = _clock(
                time.value, bool(_SECONDS.search(comment)), bool(_HOURS.search(comment))
            )
            match = _DATE.fullmatch(_year_first(text(date)).partition("T")[0].removesuffix("Z"))
            day = _day(match) if match else None
            both = None if seconds is None or day is None else round(day + seconds / 86400, 9)
        if both is not None:
            return both, time.keyword or reading.keyword
    if mjd is not None:
        return mjd, reading.keyword
    mjd = _julian(date)
    return None if mjd is None else (mjd, reading.keyword)


@functools.lru_cache(maxsize=4096)
def _is_local(comment: str) -> bool:
    return bool(_LOCAL.search(comment)) and not re.search(r"\bUTC?\b", comment)


@functools.lru_cache(maxsize=4096)
def _share_gone(keyword: str, comment: str) -> float:
    """Return the fraction of the exposure completed at the time that a keyword gives."""
    name = keyword.upper()
    if re.search(r"(END|STOP)$", name):
        return 1.0
    if re.search(r"(MID|AVG|MEAN|MIDDLE|CEN)$", name):
        return 0.5
    if _START.search(comment) or not comment:
        return 0.0
    return 1.0 if _END.search(comment) else 0.5 if _MIDDLE.search(comment) else 0.0


def start_of_exposure(date: Any, time: Any, header: Header, filename: str, exptime: float) -> Start:
    """Return the start of an exposure.

    Parameters
    ----------
    date, time : str, number, list or dict
        Entries of the instrument file; the first alternative with date and time is used.
    header : mapping
        Header of the frame.
    filename : str
        Name of the raw file.
    exptime : float
        Exposure time [s], subtracted where the header has the end or middle of the exposure.

    Returns
    -------
    Start

    Raises
    ------
    FrameUnusable
        BAD_DATE or MISSING_KEYWORD.
    """
    times = readings(time, header, filename)
    dates = readings(date, header, filename)
    found: list[tuple[bool, Start, str]] = []
    scale = text(get(header, "TIMESYS")).upper()
    for reading in dates:
        moment = _with_time(reading, times, header)
        if moment is None:
            continue
        mjd, keyword = moment
        comment = comment_of(header, keyword)
        notes = []
        gone = _share_gone(keyword, comment)
        if gone:
            mjd -= gone * exptime / 86400
            part = "end" if gone == 1 else "middle"
            notes.append(f"{keyword} is the {part} of the exposure: the start is earlier")
        ahead = _ahead_of_utc(scale, int(mjd)) if "UTC" not in keyword else 0.0
        if ahead is None:
            notes.append(f"TIMESYS {scale[:20]} is not known: {keyword} is taken for UTC")
        mjd -= (ahead or 0.0) / 86400
        local = _is_local(comment) and not _ZONE.search(text(reading.value))
        if local:
            notes.append(f"{keyword} is a local time by its comment, and taken for UTC")
        found.append((local, Start(round(mjd, 9), notes), keyword))
    if not found:
        _refuse(date, dates)
    _, start, keyword = min(found, key=lambda one: one[0])
    for _, other, name in found:
        if _share_gone(name, "") == 1:  # with coadds and readout: no start to compare with
            continue
        apart = abs(other.mjd - start.mjd) * 86400
        # A whole number of days is a date without time.
        if apart > DISAGREEMENT + exptime and name != keyword and other.mjd % 1:
            start.notes.append(
                f"{name} is {apart / 3600:.2f} h off {keyword}, which is used as the start"
            )
            break
    return start


def _refuse(date: Any, dates: list[Reading]) -> NoReturn:
    """Raise an exception that says why no reading is a date with a time."""
    found = [text(reading.value)[:40] for reading in dates]
    found = [value for value in found if value]
    if found:
        raise FrameUnusable("BAD_DATE", f"not a date with time: {', '.join(found)}")
    keys = ", ".join(dict.fromkeys(keywords_of(date)))
    raise FrameUnusable("MISSING_KEYWORD", f"no date (looked at: {keys})")
