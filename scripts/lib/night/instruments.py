"""What an instrument's YAML file says, applied to raw headers.

An instrument is data: a YAML file (config/instruments/) tells where in the header, or with
which constant, the facts of a frame are found. This module loads and checks such files and
turns one raw header into the facts that the rest of the workflow uses. Headers are hostile
input: whatever they hold, `interpret` gives sane facts or raises `FrameIgnored`.
"""

import datetime
import functools
import hashlib
import json
import math
import re
from pathlib import Path

VERSION = 1  # raise when facts change for the same header and YAML: it empties the cache

CONFIG = Path(__file__).resolve().parents[3] / "config"
TYPES = ("bias", "dark", "flat", "object")
CALIBRATIONS = ("bias", "dark", "flat")
MAX_TEXT = 200  # characters of a header value that are looked at
MAX_OBJECT = 68  # characters that fit one header card
MAX_NAME = 64
MAX_AXIS = 100_000  # pixels

_PRODUCT_KEYS = ("QCSTAT", "ABSZPT")  # written by the workflow itself, by no camera


class InstrumentError(ValueError):
    """An instrument file that cannot be used; the message names file and key."""


class FrameIgnored(Exception):
    """A raw frame that is not for this job.

    Parameters
    ----------
    code : str
        One word in capitals, e.g. ``SPECTRUM``.
    text : str
        What was found, in words.
    """

    status = "IGNORED"

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class FrameUnusable(FrameIgnored):
    """A raw frame that would be for this job but cannot be used."""

    status = "REJECTED"


# ---------------------------------------------------------------------------- loading


def instrument_dir():
    """Directory of the instrument files that come with the project."""
    return CONFIG / "instruments"


def list_instruments():
    """Names of the instruments that come with the project, `generic` last."""
    names = sorted(path.stem for path in instrument_dir().glob("*.yaml"))
    return sorted(names, key=lambda name: name == "generic")


def instrument_path(name_or_path):
    """Path of the YAML file of an instrument.

    Raises
    ------
    InstrumentError
        When there is no such instrument and no such file.
    """
    text = str(name_or_path)
    if re.fullmatch(r"[A-Za-z0-9_-]+", text):
        path = instrument_dir() / f"{text}.yaml"
        if path.is_file():
            return path
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise InstrumentError(f"instrument: there is no file {text}")
    raise InstrumentError(
        f"instrument: {text!r} is not known; write auto, one of "
        f"{', '.join(list_instruments())}, or the path of a YAML file"
    )


def instruments_hash(name_or_path):
    """Hash of all that decides how headers are read with this choice of instrument."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    names = list_instruments() if str(name_or_path) == "auto" else [name_or_path]
    for name in names:
        path = instrument_path(name)
        digest.update(path.stem.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def load_instrument(name_or_path):
    """Read and check an instrument file.

    Parameters
    ----------
    name_or_path : str or Path
        Name of an instrument that comes with the project, or path of a YAML file.

    Returns
    -------
    dict
        The content of the file; every camera is completed with `defaults`.

    Raises
    ------
    InstrumentError
        One sentence that names the file and the key.
    """
    import yaml

    path = instrument_path(name_or_path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_bytes(), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InstrumentError(f"{path}: this is not YAML: {error}") from error
    check_instrument(content, path)
    defaults = content.get("defaults", {})
    content["cameras"] = {
        name: _merged(defaults, camera or {}) for name, camera in content["cameras"].items()
    }
    return content


def _merged(base, over):
    """`over` on top of `base`, mappings of sections (wcs, calibrations) merged one level deep."""
    result = dict(base)
    for key, value in over.items():
        if key in ("wcs", "calibrations") and isinstance(result.get(key), dict):
            result[key] = {**result[key], **value}
        else:
            result[key] = value
    return result


@functools.lru_cache(maxsize=1)
def _schema():
    import yaml

    with open(CONFIG / "schemas" / "instrument.schema.yaml", "rb") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_instrument(content, path):
    """Check the content of an instrument file against its schema.

    Raises
    ------
    InstrumentError
        One sentence that names the file, the key, and what is expected there.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(_schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(content))
    if error is not None:
        key = ".".join(str(part) for part in error.absolute_path) or "the file"
        expected = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
        message = error.message if len(error.message) < 200 else error.message[:200] + "..."
        expected = f" (expected: {expected})" if expected else ""
        raise InstrumentError(f"{path}: {key}: {message}{expected}")
    for key, pattern in _patterns(content):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InstrumentError(
                f"{path}: {key}: {pattern!r} is not a regular expression: {error}"
            ) from error


def _patterns(node, key=""):
    """Every regular expression in an instrument file, with the key that holds it."""
    if isinstance(node, dict):
        for name, value in node.items():
            where = f"{key}.{name}" if key else str(name)
            if name in ("map", "bands") and isinstance(value, dict):
                yield from ((where, str(pattern)) for pattern in value)
            elif name in ("omit", "matches", "unless", "files", "file_name"):
                yield where, str(value)
            elif key == "match" or key.startswith("match."):
                yield where, str(value)
            else:
                yield from _patterns(value, where)
    elif isinstance(node, list):
        for item in node:
            yield from _patterns(item, key)


# ---------------------------------------------------------------------------- values


def number(value):
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


def text(value):
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


def safe_name(value, replacement="_", empty="unknown"):
    """A header text as part of a file name: [A-Za-z0-9_+-], at most 64 characters."""
    name = re.sub(r"[^A-Za-z0-9_+-]+", replacement, text(value))
    return name[:MAX_NAME].strip("_") or empty


def object_text(value):
    """OBJECT as it goes into a header card; what does not fit is told apart by a hash."""
    value = text(value)
    if len(value) <= MAX_OBJECT:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    return f"{value[: MAX_OBJECT - 9].rstrip()}~{digest}"


def get(header, key):
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
def _compiled(pattern):
    return re.compile(pattern)


@functools.lru_cache(maxsize=65536)
def _map_items(items, value):
    for pattern, result in items:
        if _compiled(str(pattern)).fullmatch(value):
            return result
    return None


def evaluate(spec, header, filename=""):
    """The value that an entry of an instrument file has for a header.

    Parameters
    ----------
    spec : str, number, list or dict
        A keyword; a constant number; a list of alternatives, the first that gives a value
        counts; or a mapping: one of `key`, `value`, `format`, `join`, `file_name`,
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
    if "omit" in spec and _compiled(str(spec["omit"])).fullmatch(text(value)):
        return None
    if "map" in spec:
        value = _map_items(tuple(spec["map"].items()), text(value))
    if value is None or not ("times" in spec or "divided_by" in spec or "plus" in spec):
        return value
    return _arithmetic(spec, value, header, filename)


def _source(spec, header, filename):
    if "value" in spec:
        return spec["value"]
    if "key" in spec:
        return get(header, spec["key"])
    if "any" in spec:
        return evaluate(spec["any"], header, filename)
    if "file_name" in spec:
        match = _compiled(spec["file_name"]).search(filename[:MAX_TEXT])
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


def keywords_of(spec):
    """The keywords that an entry looks at, for a message."""
    if isinstance(spec, str):
        return [spec]
    if isinstance(spec, list):
        return [key for item in spec for key in keywords_of(item)]
    if isinstance(spec, dict):
        found = [spec["key"]] if "key" in spec else []
        found += re.findall(r"\{([^{}]+)\}", spec.get("format", ""))
        for name in ("any", "join", "times", "divided_by", "plus"):
            found += keywords_of(spec.get(name, []))
        return found
    return []


# ---------------------------------------------------------------------------- time, place


def angle(value, hours=False):
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


def mjd_of(date, time=None):
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


def iso_of(mjd):
    """ISO text of a modified Julian date, to the millisecond."""
    milliseconds = round(mjd * 86400_000)
    day, rest = divmod(milliseconds, 86400_000)
    date = datetime.date.fromordinal(day + 678576)
    seconds, rest = divmod(rest, 1000)
    return (
        f"{date.isoformat()}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:"
        f"{seconds % 60:02d}.{rest:03d}"
    )


def altitude(mjd, ra, dec, latitude, longitude):
    """Altitude of a position (deg), good to about 0.3 deg.

    Parameters
    ----------
    mjd : float
        UTC, days.
    ra, dec : float
        Position (deg); its precession since J2000 is neglected.
    latitude, longitude : float
        Site (deg, east positive).

    Notes
    -----
    Mean sidereal time, Meeus, Astronomical Algorithms (1998), eq. 12.4.
    """
    sidereal = 280.46061837 + 360.98564736629 * (mjd - 51544.5) + longitude
    hour_angle = math.radians(sidereal - ra)
    dec, latitude = math.radians(dec), math.radians(latitude)
    sine = math.sin(latitude) * math.sin(dec)
    sine += math.cos(latitude) * math.cos(dec) * math.cos(hour_angle)
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def airmass_at(altitude_deg):
    """Airmass at an apparent altitude (deg), Pickering (2002); None below 2 deg."""
    if altitude_deg < 2:
        return None
    return 1 / math.sin(math.radians(altitude_deg + 244 / (165 + 47 * altitude_deg**1.1)))


def _airmass(instrument, header, filename, facts):
    value = number(evaluate(instrument.get("airmass"), header, filename))
    if value is not None and not 1 <= value <= 40:
        # a rounded 0.9999 is an honest 1
        value = 1.0 if value is not None and 0.99 <= value < 1 else None
    rule = instrument.get("recompute_airmass", "absent")
    if rule == "never" or (rule == "absent" and value is not None):
        return value
    site = instrument.get("site", {})
    latitude = angle(evaluate(site.get("latitude"), header, filename))
    longitude = angle(evaluate(site.get("longitude"), header, filename))
    if None in (latitude, longitude, facts["ra"]) or abs(latitude) > 90:
        return value
    middle = facts["mjd"] + facts["exptime"] / 172800
    computed = airmass_at(altitude(middle, facts["ra"], facts["dec"], latitude, longitude))
    if computed is None:  # under the horizon: time, site or pointing is wrong, not the airmass
        return value
    if value is None or max(value, computed) > 1.5 * min(value, computed):
        return round(computed, 4)
    return value


# ---------------------------------------------------------------------------- sections


def parse_section(value):
    """`[x1:x2,y1:y2]` (1-based, ends included) as ([y0, y1, x0, x1], [flip_y, flip_x]) or None.

    The result is 0-based with the end excluded, as numpy counts.
    """
    match = re.fullmatch(
        r"\s*\[\s*(\d{1,6})\s*:\s*(\d{1,6})\s*,\s*(\d{1,6})\s*:\s*(\d{1,6})\s*\]\s*", text(value)
    )
    if not match:
        return None
    x1, x2, y1, y2 = (int(part) for part in match.groups())
    flip = [y2 < y1, x2 < x1]
    x1, x2 = sorted((x1, x2))
    y1, y2 = sorted((y1, y2))
    if x1 < 1 or y1 < 1:
        return None
    return [y1 - 1, y2, x1 - 1, x2], flip


def _inside(section, shape):
    y0, y1, x0, x1 = section
    return 0 <= y0 < y1 <= shape[0] and 0 <= x0 < x1 <= shape[1]


def _overlap(one, two):
    return one[0] < two[1] and two[0] < one[1] and one[2] < two[3] and two[2] < one[3]


def _resolve_section(spec, header, shape, binning, camera):
    """A section of the YAML (numbers, keyword, or a mapping by binning) for this frame.

    Returns None where there is none or it makes no sense for this frame.
    """
    if isinstance(spec, dict):
        spec = spec.get(binning)
    if spec is None:
        return None
    if isinstance(spec, str):
        parsed = parse_section(get(header, spec))
        return parsed[0] if parsed and _inside(parsed[0], shape) else None
    full = camera.get("shape")
    if not full or list(full) == list(shape):
        section = list(spec)
    elif camera.get("other_shapes", "whole") == "scale":
        sy, sx = shape[0] / full[0], shape[1] / full[1]
        if abs(sy - sx) > 0.01 * sx:
            return None
        section = [
            math.ceil(spec[0] * sy),
            math.floor(spec[1] * sy),
            math.ceil(spec[2] * sx),
            math.floor(spec[3] * sx),
        ]
    else:
        return None
    return section if _inside(section, shape) else None


def _single_amplifier(camera, half, header, info, binning):
    shape = info["shape"]
    whole = [0, shape[0], 0, shape[1]]
    trim = (half or camera).get("trim", camera.get("trim"))
    data = _resolve_section(trim, header, shape, binning, camera)
    if data is not None and isinstance(trim, str):
        area = (data[1] - data[0]) * (data[3] - data[2])
        if area < 0.25 * shape[0] * shape[1]:  # nonsense, as in windowed frames
            data = None
    if data is None:
        if half is not None:
            raise FrameUnusable(
                "WRONG_SHAPE",
                f"{shape[0]}x{shape[1]} pixels, the halves are cut from "
                f"{'x'.join(str(n) for n in camera.get('shape', ['?']))}",
            )
        data = whole
    overscan = _resolve_section(camera.get("overscan"), header, shape, binning, camera)
    if overscan is not None and _overlap(data, overscan):
        overscan = None
    return {
        "hdu": info["index"],
        "data": data,
        "overscan": overscan,
        "origin": [0, 0],
        "flip": [False, False],
    }


def _extension_amplifiers(infos, headers, binning):
    """Amplifiers of a multi-extension file, placed by DETSEC; (list, shape of joined frame).

    Raises
    ------
    FrameUnusable
        When sections are missing, outside, or of another size than their place.
    """
    bin_x, bin_y = (int(part) for part in binning.split("x"))
    amplifiers, places = [], []
    for info in infos:
        header, shape = headers[info["index"]], info["shape"]
        place = parse_section(get(header, "DETSEC"))
        if place is None:
            raise FrameUnusable("BAD_SECTION", f"no usable DETSEC in extension {info['index']}")
        data = parse_section(get(header, "DATASEC"))
        data = data[0] if data else [0, shape[0], 0, shape[1]]
        if not _inside(data, shape):
            raise FrameUnusable("BAD_SECTION", f"DATASEC outside extension {info['index']}")
        overscan = parse_section(get(header, "BIASSEC"))
        overscan = overscan[0] if overscan else None
        if overscan and (not _inside(overscan, shape) or _overlap(overscan, data)):
            overscan = None
        (y0, y1, x0, x1), flip = place
        if (y1 - y0, x1 - x0) != (data[1] - data[0], data[3] - data[2]):
            # DETSEC counts unbinned pixels
            y0, y1, x0, x1 = y0 // bin_y, y1 // bin_y, x0 // bin_x, x1 // bin_x
        if (y1 - y0, x1 - x0) != (data[1] - data[0], data[3] - data[2]):
            raise FrameUnusable(
                "BAD_SECTION", f"DATASEC and DETSEC differ in size in extension {info['index']}"
            )
        places.append([y0, y1, x0, x1])
        amplifiers.append(
            {
                "hdu": info["index"],
                "data": data,
                "overscan": overscan,
                "origin": [y0, x0],
                "flip": flip,
            }
        )
    for k, place in enumerate(places):
        if any(_overlap(place, other) for other in places[:k]):
            raise FrameUnusable("BAD_SECTION", "the DETSEC of two extensions overlap")
    low_y, low_x = min(p[0] for p in places), min(p[2] for p in places)
    shape = [max(p[1] for p in places) - low_y, max(p[3] for p in places) - low_x]
    if shape[0] * shape[1] > 4 * sum((p[1] - p[0]) * (p[3] - p[2]) for p in places):
        raise FrameUnusable("BAD_SECTION", "DETSEC leaves most of the joined frame empty")
    for amplifier in amplifiers:
        amplifier["origin"] = [amplifier["origin"][0] - low_y, amplifier["origin"][1] - low_x]
    return amplifiers, shape


# ---------------------------------------------------------------------------- WCS


def _orientation(wcs, header, filename, binning):
    """CD matrix (deg/px) ((11, 12), (21, 22)) that the YAML gives, or None.

    With scales s1, s2 ("/px) and rotation t: CD1_1 = -s1 cos t, CD2_1 = s1 sin t,
    CD1_2 = s2 sin t, CD2_2 = s2 cos t, over 3600; `parity: mirrored` changes the sign of s1.
    """
    bin_x, bin_y = (int(part) for part in binning.split("x"))
    if not wcs.get("scale_with_binning", True):
        bin_x = bin_y = 1
    if "cd" in wcs:
        (a, b), (c, d) = wcs["cd"]
        return (a * bin_x / 3600, b * bin_y / 3600), (c * bin_x / 3600, d * bin_y / 3600)
    scales = wcs.get("pixscale")
    if (
        isinstance(scales, list)
        and len(scales) == 2
        and all(isinstance(scale, (int, float)) for scale in scales)
    ):
        s1, s2 = scales
    else:
        s1 = s2 = number(evaluate(scales, header, filename))
        if s1 is None or not 1e-4 < abs(s1) < 1e4:
            return None
    rotation = number(evaluate(wcs.get("rotation", 0), header, filename))
    if rotation is None:
        rotation = 0.0
    if wcs.get("parity") == "mirrored":
        s1 = -s1
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    s1, s2 = s1 * bin_x / 3600, s2 * bin_y / 3600
    return (-s1 * cos, s2 * sin), (s1 * sin, s2 * cos)


def _scale(cd):
    """Pixel scale ("/px) of a CD matrix (deg/px)."""
    (a, b), (c, d) = cd
    return 3600 * math.sqrt(abs(a * d - b * c))


def header_wcs(header):
    """The linear celestial WCS of a header: (crval, crpix, cd, pv cards) or None.

    A distortion other than TPV is left out; the WCS is the first guess of the astrometry.
    """
    types = [text(get(header, f"CTYPE{axis}")) for axis in (1, 2)]
    if not re.fullmatch(r"RA---(TAN|TPV|TAN-SIP)", types[0]) or not re.fullmatch(
        r"DEC--(TAN|TPV|TAN-SIP)", types[1]
    ):
        return None
    crval = [number(get(header, f"CRVAL{axis}")) for axis in (1, 2)]
    crpix = [number(get(header, f"CRPIX{axis}")) for axis in (1, 2)]
    if None in crval or None in crpix or abs(crval[1]) > 90 or not -360 <= crval[0] <= 360:
        return None
    if max(abs(value) for value in crpix) > 1e6:
        return None
    cd = [[number(get(header, f"CD{i}_{j}")) for j in (1, 2)] for i in (1, 2)]
    if all(value is None for row in cd for value in row):
        delta = [number(get(header, f"CDELT{axis}")) for axis in (1, 2)]
        if None in delta:
            return None
        pc = [[number(get(header, f"PC{i}_{j}")) for j in (1, 2)] for i in (1, 2)]
        if any(value is not None for row in pc for value in row):
            pc = [
                [(1.0 if i == j else 0.0) if pc[i][j] is None else pc[i][j] for j in (0, 1)]
                for i in (0, 1)
            ]
            cd = [[delta[i] * pc[i][j] for j in (0, 1)] for i in (0, 1)]
        else:
            turn = math.radians(number(get(header, "CROTA2")) or 0.0)
            cos, sin = math.cos(turn), math.sin(turn)
            cd = [[delta[0] * cos, -delta[1] * sin], [delta[0] * sin, delta[1] * cos]]
    cd = [[value or 0.0 for value in row] for row in cd]
    if max(abs(value) for row in cd for value in row) > 10:
        return None
    if not 1e-3 < _scale(cd) < 1e3:
        return None
    cards = {}
    if types[0].endswith("TPV"):
        for axis in (1, 2):
            for term in range(40):
                value = number(get(header, f"PV{axis}_{term}"))
                if value is not None:
                    cards[f"PV{axis}_{term}"] = value
    return crval, crpix, cd, cards


def _wcs_cards(wcs, headers, filename, facts, raw_shape):
    """Cards of the first WCS of the frame, CRPIX in the trimmed or joined frame; or None."""
    header = headers[0]
    cd = _orientation(wcs, header, filename, facts["binning"])
    pv = {}
    used = None
    if wcs.get("header", False):
        for index, candidate in enumerate(headers):
            found = header_wcs(candidate)
            if found is None:
                continue
            if cd is not None and abs(math.log(_scale(found[2]) / _scale(cd))) > math.log(1.2):
                continue  # another scale than the camera can have
            crval, crpix, cd, pv = found
            used = max(index - 1, 0)
            break
    if used is None:
        if cd is None or facts["ra"] is None:
            return None, cd
        used = 0
        crval = [facts["ra"], facts["dec"]]
        crpix = wcs.get("refpix")
        full = wcs.get("shape")
        if crpix is None:
            crpix = [(raw_shape[1] + 1) / 2, (raw_shape[0] + 1) / 2]
            if len(facts["amplifiers"]) > 1:
                # the middle of the joined frame, told in pixels of its first amplifier
                first = facts["amplifiers"][0]
                crpix = _to_raw(first, (facts["shape"][1] + 1) / 2, (facts["shape"][0] + 1) / 2)
        elif full:
            crpix = [crpix[0] * raw_shape[1] / full[1], crpix[1] * raw_shape[0] / full[0]]
    amplifier = facts["amplifiers"][min(used, len(facts["amplifiers"]) - 1)]
    x, y, sign_x, sign_y = _to_frame(amplifier, *crpix)
    (a, b), (c, d) = cd
    cd = (a * sign_x, b * sign_y), (c * sign_x, d * sign_y)
    distortion = wcs.get("distortion")
    if distortion and not pv:
        for axis in (1, 2):
            for term, value in distortion.items():
                pv[f"PV{axis}_{term}"] = float(value)
    kind = "TPV" if pv else "TAN"
    cards = {
        "CTYPE1": f"RA---{kind}",
        "CTYPE2": f"DEC--{kind}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": round(crval[0] % 360, 9) % 360,
        "CRVAL2": round(crval[1], 9),
        "CRPIX1": round(x, 4),
        "CRPIX2": round(y, 4),
        "CD1_1": cd[0][0],
        "CD1_2": cd[0][1],
        "CD2_1": cd[1][0],
        "CD2_2": cd[1][1],
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
    }
    cards.update(pv)
    return cards, cd


def _to_frame(amplifier, x, y):
    """A position (1-based) in the raw HDU as position in the frame, and the signs of its axes."""
    y0, y1, x0, x1 = amplifier["data"]
    flip_y, flip_x = amplifier["flip"]
    oy, ox = amplifier["origin"]
    x_new = ox + (x1 - x + 1 if flip_x else x - x0)
    y_new = oy + (y1 - y + 1 if flip_y else y - y0)
    return x_new, y_new, -1 if flip_x else 1, -1 if flip_y else 1


def _to_raw(amplifier, x, y):
    """A position (1-based) in the frame as position in the raw HDU of this amplifier."""
    y0, y1, x0, x1 = amplifier["data"]
    flip_y, flip_x = amplifier["flip"]
    oy, ox = amplifier["origin"]
    x_raw = x1 + 1 - (x - ox) if flip_x else x - ox + x0
    y_raw = y1 + 1 - (y - oy) if flip_y else y - oy + y0
    return x_raw, y_raw


# ---------------------------------------------------------------------------- interpretation


def _matches(conditions, header):
    for key, pattern in conditions.items():
        value = get(header, key)
        if value is None or not _compiled(str(pattern)).search(text(value)):
            return False
    return True


def identify(header):
    """Name of the instrument whose `match` the header fulfils; `generic` when none does."""
    for name, match in _all_matches():
        if any(_matches(conditions, header) for conditions in match):
            return name
    return "generic"


@functools.lru_cache(maxsize=1)
def _all_matches():
    loaded = [load_instrument(name) for name in list_instruments()]
    return [(content["name"], content["match"]) for content in loaded if content.get("match")]


def _required(value, check, code, what, spec):
    if value is None:
        keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "nothing"
        raise FrameUnusable("MISSING_KEYWORD", f"no usable {what} (looked at: {keys})")
    if not check(value):
        raise FrameUnusable(code, f"{what} is {value:g}")
    return value


def _in_range(value, low, high):
    return low <= value <= high


def parse_binning(value):
    """'AxB' (along x, along y) of texts like '2 2', '2x2', '1,1', '2'; None for others."""
    match = re.fullmatch(r"\s*(\d{1,2})(?:\.0*)?(?:[\sxX*,]+(\d{1,2})(?:\.0*)?)?\s*", text(value))
    if not match:
        return None
    x, y = int(match.group(1)), int(match.group(2) or match.group(1))
    return f"{x}x{y}" if 1 <= x <= 64 and 1 <= y <= 64 else None


def merged_header(primary, extension):
    """The header of an extension on top of the primary one's keywords."""
    result = dict(primary)
    result.update(extension)
    return result


def _images(hdus_info):
    images = []
    for info in hdus_info:
        shape = info.get("shape")
        if shape:
            images.append(info)
    return images


def _check_shape(info):
    shape = info["shape"]
    if len(shape) != 2:
        raise FrameUnusable("NOT_2D", f"{len(shape)} axes in HDU {info['index']}")
    if not all(isinstance(n, int) and 1 < n <= MAX_AXIS for n in shape):
        raise FrameUnusable("BAD_SHAPE", f"{shape[0]} x {shape[1]} pixels")


def _use_extensions(mode, images):
    """Whether the images of the file are the amplifiers of one detector."""
    if mode == "extensions":
        return True
    if mode != "auto" or len(images) < 2 or any(info["index"] == 0 for info in images):
        return False
    shape = images[0]["shape"]
    return all(
        info["shape"] == shape and get(info["header"], "DETSEC") is not None for info in images
    )


def interpret(header, hdus_info, filename, instrument):
    """The facts of a raw frame.

    Parameters
    ----------
    header : mapping
        Primary header.
    hdus_info : list of dict
        For each HDU: `index`, `header` (mapping), `shape` (list, slow axis first, of an image
        with data; else None).
    filename : str
        Path of the raw file below the data directory.
    instrument : dict
        From `load_instrument`.

    Returns
    -------
    list of dict
        Facts, JSON-able; one item per frame, a split detector gives one per half. `frame` is
        the stem from which the night log makes the unique name.

    Raises
    ------
    FrameIgnored
        Also as its subclass `FrameUnusable`: the frame is not used, and why.
    """
    name = filename.rsplit("/", 1)[-1]
    if any(get(header, key) is not None for key in _PRODUCT_KEYS):
        raise FrameIgnored("PRODUCT", "the file was written by autoproc, it is not a raw frame")
    files = instrument.get("files")
    if files and not _compiled(files).fullmatch(name):
        raise FrameIgnored("NOT_RAW", f"the name does not fit {files}")
    images = _images(hdus_info)
    if not images:
        raise FrameUnusable("NO_IMAGE", "no image in the file")

    header_all = header
    camera_name = _camera_name(instrument, header, images, name)
    camera = instrument["cameras"][camera_name]
    mode = camera.get("amplifiers", "single")
    several = _use_extensions(mode, images)
    if several:
        infos = [info for info in images if info["index"] > 0 or mode == "extensions"]
    else:
        infos = [_chosen_image(camera, hdus_info, images)]
    for info in infos:
        _check_shape(info)
    headers = {
        info["index"]: merged_header(header, info["header"]) if info["index"] else header
        for info in infos
    }
    header_all = headers[infos[0]["index"]]

    facts = _common_facts(instrument, camera_name, camera, header_all, name)
    facts["raw"] = filename
    facts["frame"] = frame_stem(name, facts)
    wcs = camera.get("wcs", {})
    result = []
    for label, half in (camera.get("halves") or {"": None}).items():
        own = dict(facts)
        own["half"] = label
        if half is not None:
            own["frame"] = f"{facts['frame']}_{safe_name(label)}"
            if own["type"] not in ("bias", "dark"):
                own["filter_text"] = text(half.get("filter", label))
        if several:
            amplifiers, shape = _extension_amplifiers(infos, headers, own["binning"])
        else:
            amplifiers = [_single_amplifier(camera, half, header_all, infos[0], own["binning"])]
            y0, y1, x0, x1 = amplifiers[0]["data"]
            shape = [y1 - y0, x1 - x0]
        for amplifier in amplifiers:
            amplifier.update(_electronics(camera, headers[amplifier["hdu"]], name))
        own["amplifiers"] = amplifiers
        own["shape"] = shape
        own["gain"] = round(sum(a["gain"] for a in amplifiers) / len(amplifiers), 6)
        own["rdnoise"] = max(a["rdnoise"] for a in amplifiers)
        own["filter"] = safe_name(own["filter_text"], replacement="", empty="none")
        own["band"] = _band(instrument, own["filter_text"])
        if own["type"] in ("bias", "dark"):
            own["filter"] = own["band"] = own["filter_text"] = ""
        wcs_headers = [header_all] + [headers[info["index"]] for info in infos]
        cards, cd = _wcs_cards(
            {**wcs, "shape": camera.get("shape")}, wcs_headers, name, own, infos[0]["shape"]
        )
        own["wcs"] = cards if own["type"] == "object" else None
        own["pixscale"] = round(_scale(cd), 6) if cd else None
        result.append(own)
    return result


def _camera_name(instrument, header, images, name):
    cameras = instrument["cameras"]
    if "camera" not in instrument:
        return next(iter(cameras))
    spec = instrument["camera"]
    value = evaluate(spec, header, name)
    if value is None and images[0]["index"]:
        value = evaluate(spec, merged_header(header, images[0]["header"]), name)
    if value is None:
        keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "the file name"
        raise FrameUnusable("MISSING_KEYWORD", f"no camera (looked at: {keys})")
    if text(value) not in cameras:
        raise FrameUnusable(
            "UNKNOWN_CAMERA", f"{text(value)!r}, the instrument has {', '.join(cameras)}"
        )
    return text(value)


def _chosen_image(camera, hdus_info, images):
    """The image HDU of a frame of one amplifier.

    fpack moves a primary image into the first extension, hence the shift.
    """
    if "hdu" not in camera:
        for info in images:
            if text(get(info["header"], "EXTNAME")) == "SCI":
                return info
        return images[0]
    wanted = camera["hdu"]
    packed = len(hdus_info) > 1 and hdus_info[1].get("packed_primary", False)
    index = wanted + 1 if packed and not hdus_info[0].get("shape") else wanted
    for info in images:
        if info["index"] == index:
            return info
    raise FrameUnusable("NO_IMAGE", f"no image in HDU {wanted}")


def _band(instrument, filter_text):
    band = _map_items(tuple(instrument.get("bands", {}).items()), filter_text)
    return "" if band is None else str(band)


def _electronics(camera, header, name):
    """Gain (e/DN) and read noise (e) of one amplifier."""
    gain = number(evaluate(camera.get("gain"), header, name))
    gain = _required(
        gain, lambda v: _in_range(v, 1e-4, 1e4), "BAD_GAIN", "gain", camera.get("gain")
    )
    spec = camera.get("rdnoise")
    rdnoise = number(evaluate(spec, header, name))
    rdnoise = _required(
        rdnoise, lambda v: _in_range(v, 1e-3, 1e4), "BAD_RDNOISE", "read noise", spec
    )
    return {"gain": round(gain, 6), "rdnoise": round(rdnoise, 4)}


def _frame_type(instrument, header, name):
    spec = instrument["type"]
    kind = evaluate(spec, header, name)
    if kind is None:
        keys = list(dict.fromkeys(keywords_of(spec)))
        found = [text(get(header, key)) for key in keys]
        if not any(found):
            raise FrameUnusable(
                "MISSING_KEYWORD", f"no frame type (looked at: {', '.join(keys) or 'file name'})"
            )
        raise FrameUnusable("UNKNOWN_TYPE", ", ".join(value[:40] for value in found if value))
    kind = text(kind)
    if kind not in TYPES:
        raise FrameIgnored("NOT_USED", f"the frame is of type {kind[:40]}")
    return kind


def _ignore(instrument, header, name, kind):
    for rule in instrument.get("ignore", ()):
        if kind not in rule.get("types", TYPES):
            continue
        value = evaluate(rule["when"], header, name)
        if value is None:
            continue
        value = text(value)
        if "matches" in rule and not _compiled(rule["matches"]).search(value):
            continue
        if "unless" in rule and _compiled(rule["unless"]).search(value):
            continue
        code, _, words = rule["reason"].partition(":")
        raise FrameIgnored(code.strip(), f"{words.strip()} ({value[:40]})")


def _common_facts(instrument, camera_name, camera, header, name):
    kind = _frame_type(instrument, header, name)
    _ignore(instrument, header, name, kind)

    exptime = number(evaluate(instrument["exptime"], header, name))
    if exptime is None and kind == "bias":
        exptime = 0.0
    exptime = _required(
        exptime,
        lambda v: _in_range(v, 0, 1e6),
        "BAD_EXPTIME",
        "exposure time",
        instrument["exptime"],
    )
    if kind == "dark" and exptime == 0:
        kind = "bias"  # some observatories have no other name for it
    if kind == "object" and exptime == 0:
        raise FrameUnusable("BAD_EXPTIME", "exposure time is 0")

    facts = {
        "instrument": instrument["name"],
        "camera": camera_name,
        "type": kind,
        "exptime": round(exptime, 5),
    }
    facts["mjd"] = _mjd(instrument, header, name)
    facts["date_obs"] = iso_of(facts["mjd"])

    target = evaluate(instrument.get("object"), header, name)
    facts["object"] = object_text(target)
    facts["target"] = safe_name(facts["object"], empty="unknown" if kind == "object" else kind)
    filter_value = text(evaluate(instrument.get("filter"), header, name))
    if not filter_value and kind in ("flat", "object") and not camera.get("halves"):
        _required(None, None, None, "filter", instrument.get("filter", []))
    facts["filter_text"] = filter_value

    ra = angle(evaluate(instrument.get("ra"), header, name), hours=True)
    dec = angle(evaluate(instrument.get("dec"), header, name))
    if ra is None or dec is None or not -360 <= ra <= 360 or abs(dec) > 90:
        ra = dec = None
    facts["ra"] = None if ra is None else round(ra % 360, 7) % 360
    facts["dec"] = None if dec is None else round(dec, 7)
    airmass = _airmass(instrument, header, name, facts)
    facts["airmass"] = None if airmass is None else round(airmass, 4)

    facts["binning"] = parse_binning(evaluate(instrument.get("binning", "1x1"), header, name))
    if facts["binning"] is None:
        facts["binning"] = "1x1"
    temperature = number(evaluate(instrument.get("temperature"), header, name))
    if temperature is not None and abs(temperature) > 1000:
        temperature = None
    facts["temperature"] = None if temperature is None else round(temperature, 2)
    facts["readout"] = text(evaluate(instrument.get("readout"), header, name))[:64]

    saturate = number(evaluate(camera.get("saturate"), header, name))
    saturate = _required(
        saturate,
        lambda v: _in_range(v, 1, 1e12),
        "BAD_SATURATE",
        "saturation",
        camera.get("saturate"),
    )
    linear = number(evaluate(camera.get("linear"), header, name))
    facts["saturate"] = round(saturate, 3)
    facts["linear"] = round(linear, 3) if linear is not None and linear > 0 else None
    facts["near_infrared"] = bool(camera.get("near_infrared", False))
    facts["poserr"] = float(camera.get("poserr", 0.1))
    facts["calibrations"] = {
        kind: camera.get("calibrations", {}).get(kind, "required" if kind == "flat" else "none")
        for kind in CALIBRATIONS
    }
    return facts


def _mjd(instrument, header, name):
    specs = instrument["date"]
    specs = specs if isinstance(specs, list) else [specs]
    time = evaluate(instrument.get("time"), header, name)
    for spec in specs:
        value = evaluate(spec, header, name)
        if value is None:
            continue
        mjd = mjd_of(value, time)
        if mjd is None:
            day = number(value)  # MJD or JD
            if day is not None and 40587 <= day <= 88127:
                mjd = round(day, 9)
            elif day is not None and 2440587 <= day <= 2488128:
                mjd = round(day - 2400000.5, 9)
        if mjd is not None:
            return mjd
    found = [text(evaluate(spec, header, name)) for spec in specs]
    found = [value[:40] for value in found if value]
    if found:
        raise FrameUnusable("BAD_DATE", f"not a date with time: {', '.join(found)}")
    keys = ", ".join(dict.fromkeys(keywords_of(specs)))
    raise FrameUnusable("MISSING_KEYWORD", f"no date (looked at: {keys})")


_STEM = re.compile(
    r"(2\d{7}T\d{6}[0-9A-Za-z_+-]{0,48})(?:\.(?:fits|fit|fts))?(?:\.fz|\.gz)?", re.IGNORECASE
)
_LETTERS = {"bias": "b", "dark": "d", "flat": "f", "object": "o"}


def frame_stem(filename, facts):
    """Name of a frame before it is made unique: the raw stem, else from time, camera, type."""
    match = _STEM.fullmatch(filename)
    if match:
        return match.group(1)
    stamp = re.sub(r"[-:]", "", facts["date_obs"][:19])
    if not stamp.startswith("2"):
        stamp = f"2{stamp}"  # before 2000: the names of frames begin with 2 all the same
    return f"{stamp}{safe_name(facts['camera'])}{_LETTERS[facts['type']]}"


def facts_key(facts):
    """Canonical JSON text of facts, for comparison and tests of determinism."""
    return json.dumps(facts, sort_keys=True)
