"""Interpretation of raw headers with the file of their instrument.

Headers are untrusted input: whatever they contain, `interpret` returns valid facts or raises
`FrameIgnored`.
`FrameIgnored`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lib.night.airmass import airmass_at, altitude
from lib.night.amplifiers import numbered_sections
from lib.night.bayer import colour_frames
from lib.night.electronics import LARGEST_GAIN, read_electronics, required
from lib.night.exposuretime import exposure_time
from lib.night.facts import FrameFacts
from lib.night.filternames import parse_filter
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.headerpointing import Place, header_pointing
from lib.night.headervalues import (
    CardHeader,
    Header,
    angle,
    compiled,
    evaluate,
    get,
    keywords_of,
    map_items,
    number,
    object_text,
    parse_binning,
    quantity,
    readings,
    safe_name,
    text,
)
from lib.night.layout import (
    Chip,
    chip_amplifiers,
    chips_of,
    chosen_image,
    images_left_out,
    mosaic_refpix,
)
from lib.night.pixelunits import (
    DN_RATE,
    ELECTRON,
    ELECTRON_RATE,
    electrons_each,
    pixel_unit,
)
from lib.night.rawheaders import RawHDU
from lib.night.recurring import Recurring
from lib.night.reducedframes import reduced_before
from lib.night.starttime import iso_of, start_of_exposure
from lib.night.wcscards import camera_matrix, cd_scale, wcs_cards

TYPES = ("bias", "dark", "flat", "object")


CALIBRATIONS = ("bias", "dark", "flat")


MAX_AXIS = 100_000  # pixels


DARK_FLAT = r"(?i)dark[s\W_]*flat|flat[s\W_]*dark"
"""Names of darks with the exposure of the flats, which most patterns for flats match as well."""


LAMP_OFF = r"(?i)(lamp|light|led|quartz|halogen)s?[ _-]*off|off[ _-]*(lamp|flat)|flat[ _-]*off"


FLAT_SOURCES = {
    r"(?i)sky|twi|dusk|dawn|zenith": "sky",
    r"(?i)dome|lamp|screen|panel|internal|quartz|halogen|\bled\b": "dome",
}
"""Header texts about the light source of a flat; the first match is used."""


DEFAULT_SETTINGS: dict[str, Any] = {
    "gain_setting": ["GAIN", "GAINSET", "ISOSPEED", "EGAIN"],
    "offset": [],
}
"""Where a camera's settings are looked for that an instrument file does not name."""


LONGITUDES = [
    "OBSGEO-L", "HIERARCH ESO TEL GEOLON", "SITELONG", "LONG-OBS", "LONGITUD", "SITE-LON",
    "OBS-LONG",
]  # fmt: skip
"""Keywords of the longitude of a site, east positive, for instrument files without one."""


_PRODUCT_KEYS = ("QCSTAT", "ABSZPT")  # written by the workflow itself, by no camera


class _Memory:
    """Answers about the headers of a camera that recur from frame to frame.

    Parameters
    ----------
    instrument, camera : dict
    """

    def __init__(self, instrument: dict[str, Any], camera: dict[str, Any]) -> None:
        # Kept alive, so that their ids stay unique.
        self.instrument, self.camera = instrument, camera
        rules = [rule["when"] for rule in instrument.get("ignore", ())]
        self.kind = Recurring([instrument["type"], instrument.get("object"), *rules])
        settings = [instrument.get(key, spec) for key, spec in DEFAULT_SETTINGS.items()]
        site = instrument.get("site", {})
        more = [instrument.get(key) for key in ("object", "filter", "binning", "readout")]
        places = [site.get(key) for key in ("latitude", "longitude", "elevation")]
        levels = [camera.get("saturate"), camera.get("linear"), instrument["type"]]
        levels.append(camera.get("gain"))
        self.setup = Recurring([*settings, *more, *places, *levels], ["BUNIT"])
        self.electronics = Recurring([camera.get("gain"), camera.get("rdnoise")])
        self.wcs = camera.get("wcs", {}) | {"shape": camera.get("shape")}
        self.matrix = Recurring([self.wcs.get("pixscale"), self.wcs.get("rotation")])


_memories: dict[tuple[int, int], _Memory] = {}

MOST_CAMERAS = 64
"""Number of cameras with remembered settings; beyond that all are forgotten."""


def _memory(instrument: dict[str, Any], camera: dict[str, Any]) -> _Memory:
    """Return the memory of a camera."""
    found = _memories.get((id(instrument), id(camera)))
    if found is None:
        if len(_memories) >= MOST_CAMERAS:
            _memories.clear()
        found = _memories[id(instrument), id(camera)] = _Memory(instrument, camera)
    return found


def _site(instrument: dict[str, Any], header: Header, name: str) -> list[float] | None:
    """Return latitude, longitude [deg] and elevation [m]; None where the header has none."""
    site = instrument.get("site", {})
    latitude = angle(evaluate(site.get("latitude"), header, name))
    longitude = angle(evaluate(site.get("longitude"), header, name))
    if latitude is None or longitude is None or abs(latitude) > 90:
        return None
    height = quantity(evaluate(site.get("elevation"), header, name))
    elevation = height[0] if height is not None and -500 < height[0] < 9000 else 0.0
    return [latitude, longitude, elevation]


def _longitude(instrument: dict[str, Any], header: Header, name: str) -> float | None:
    """Return the longitude of the site [deg, east] from the instrument file or a keyword."""
    told = angle(evaluate(instrument.get("site", {}).get("longitude", LONGITUDES), header, name))
    return told if told is not None and -180 <= told <= 360 else None


def _header_airmass(instrument: dict[str, Any], header: Header, name: str) -> float | None:
    """Return the airmass in the header; None where it has none between 1 and 40."""
    told = quantity(evaluate(instrument.get("airmass"), header, name))
    if told is None or not 0.99 <= told[0] <= 40:
        return None
    return max(1.0, told[0])  # allow for 1 rounded to 0.9999


def _airmass(
    rule: str, place: Place, exptime: float, ra: float | None, dec: float | None
) -> float | None:
    """Return the airmass in the header, or computed from the pointing where it is implausible."""
    value = place.airmass
    if rule == "never" or (rule == "absent" and value is not None):
        return value
    if place.latitude is None or place.longitude is None or ra is None or dec is None:
        return value
    middle = place.mjd + exptime / 172800
    computed = airmass_at(altitude(middle, ra, dec, place.latitude, place.longitude))
    if computed is None:  # below the horizon: time, site or pointing is wrong, not the airmass
        return value
    if value is None or max(value, computed) > 1.5 * min(value, computed):
        return round(computed, 4)
    return value


def _missing(what: str, spec: Any) -> FrameUnusable:
    keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "nothing"
    return FrameUnusable("MISSING_KEYWORD", f"no usable {what} (looked at: {keys})")


def merged_header(primary: Header, extension: Header) -> Header:
    """Return an extension's header merged over the primary one; blank values hide nothing."""
    result: dict[str, Any] = dict(primary)
    taken = []
    for key, value in extension.items():
        if key not in result or (value is not None and value != ""):
            result[key] = value
            taken.append(key)
    if not isinstance(primary, CardHeader) or not isinstance(extension, CardHeader):
        return result
    card_of = primary.card_of | {key: extension.card_of[key] for key in taken}
    return CardHeader(result, extension.cards + primary.cards, card_of)


def _check_shape(hdu: RawHDU) -> None:
    shape = hdu.shape or []
    if len(shape) != 2:
        raise FrameUnusable("NOT_2D", f"{len(shape)} axes in HDU {hdu.index}")
    if not all(isinstance(n, int) and 1 < n <= MAX_AXIS for n in shape):
        raise FrameUnusable("BAD_SHAPE", f"{shape[0]} x {shape[1]} pixels")


def interpret(
    header: Header, hdus: list[RawHDU], filename: str, instrument: dict[str, Any]
) -> list[FrameFacts]:
    """Return the facts of a raw file: of one frame, or of each half of a split detector.

    Parameters
    ----------
    header : mapping
        Primary header.
    hdus : list of RawHDU
        All HDUs of the file.
    filename : str
        Path of the raw file below the data directory.
    instrument : dict
        Instrument file, from `lib.night.instrumentfile.load_instrument`.

    Returns
    -------
    list of FrameFacts
        `frame` is the stem from which the night log makes the unique name.

    Raises
    ------
    FrameIgnored
        The frame is not used (or its subclass `FrameUnusable`); with all faults, and the properties
        that are known nevertheless.
    """
    try:
        return _facts(header, hdus, filename, instrument)
    except FrameIgnored as reason:
        raise _with_all_faults(reason, header, hdus, filename, instrument) from None


def _facts(
    header: Header, hdus: list[RawHDU], filename: str, instrument: dict[str, Any]
) -> list[FrameFacts]:
    """Return the facts of a raw file; raise at the first fault."""
    name = filename.rsplit("/", 1)[-1]
    if any(get(header, key) is not None for key in _PRODUCT_KEYS):
        raise FrameIgnored("PRODUCT", "the file was written by autoproc, it is not a raw frame")
    files = instrument.get("files")
    if files and not compiled(files).fullmatch(name):
        raise FrameIgnored("NOT_RAW", f"the name does not fit {files}")
    images = [hdu for hdu in hdus if hdu.shape]
    if not images:
        raise FrameUnusable("NO_IMAGE", "no image in the file")

    camera_name = _camera_name(instrument, header, images, name)
    camera = instrument["cameras"][camera_name]
    memory = _memory(instrument, camera)
    chips = chips_of(camera, hdus, images)
    used = [hdu for chip in chips for hdu in chip.hdus]
    for hdu in used:
        _check_shape(hdu)
    headers = {
        hdu.index: merged_header(header, hdu.header) if hdu.index else header for hdu in used
    }
    header_all = headers[used[0].index]
    common = _common_facts(instrument, camera_name, camera, header_all, name)
    common.raw = filename
    common.frame = frame_stem(name, common)
    if left := images_left_out(camera, images, chips):
        common.notes.append(
            f"{left} more images like HDU {chips[0].hdus[0].index} are not used; "
            "amplifiers: chips or extensions in an instrument file of your own takes them"
        )
    result = []
    for chip in chips:
        parts = (camera.get("halves") if not chip.label else None) or {chip.label: None}
        for label, half in parts.items():
            alone = len(chips) == len(parts) == 1
            facts = common if alone else replace(common, notes=list(common.notes))
            facts.half = label
            if label:
                facts.frame = f"{common.frame}_{safe_name(label)}"
            if half is not None and facts.type not in ("bias", "dark"):
                facts.filter_text = text(half.get("filter", label))
            facts.amplifiers, facts.shape = chip_amplifiers(
                camera, half, chip, headers, facts.binning
            )
            _note_sections(facts, camera, headers)
            _add_electronics(facts, memory, headers, name)
            _add_filter(facts, instrument)
            _add_wcs(facts, memory, chip, chips, headers, name)
            own = headers[facts.amplifiers[0].hdu]
            result += colour_frames(facts, camera.get("bayer", "none"), own)
    return result


def _note_sections(facts: FrameFacts, camera: dict[str, Any], headers: dict[int, Header]) -> None:
    """Add a note on sections of several amplifiers that do not form a frame."""
    if len(facts.amplifiers) > 1 or camera.get("amplifiers") not in ("auto", "chips", "sections"):
        return
    names = numbered_sections(headers[facts.amplifiers[0].hdu])
    if len(names) > 1 and not facts.half:
        facts.notes.append(
            f"the sections of amplifiers {', '.join(names)} make up no frame: it is taken as one"
        )


def _add_wcs(
    facts: FrameFacts,
    memory: _Memory,
    chip: Chip,
    chips: list[Chip],
    headers: dict[int, Header],
    name: str,
) -> None:
    """Add the initial WCS of a frame and its pixel scale."""
    wcs = memory.wcs
    refpix = mosaic_refpix(chip, chips, headers, facts.binning)
    if refpix is not None:
        wcs = wcs | {"refpix": refpix, "shape": None}
    own = [headers[hdu.index] for hdu in chip.hdus]
    matrix = memory.matrix.answer(
        own[0], name, lambda: camera_matrix(wcs, own[0], name, facts.binning), facts.binning
    )
    cards, cd = wcs_cards(wcs, matrix, [own[0], *own], facts, chip.hdus[0].shape or [])
    facts.wcs = cards if facts.type == "object" else None
    facts.pixscale = round(cd_scale(cd), 6) if cd else None


def _with_all_faults(
    first: FrameIgnored,
    header: Header,
    hdus: list[RawHDU],
    filename: str,
    instrument: dict[str, Any],
) -> FrameIgnored:
    """Return the exception with all other faults of the frame, and its known properties.

    Each value is evaluated separately; only frames that are not used come here.
    """
    images = [hdu for hdu in hdus if hdu.shape]
    if not images or first.code in ("PRODUCT", "NOT_RAW"):
        return first
    name = filename.rsplit("/", 1)[-1]
    faults: list[FrameUnusable] = []

    def tried(what: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return what(*arguments)
        except FrameUnusable as fault:
            faults.append(fault)
        except FrameIgnored:
            pass
        return None

    camera_name = tried(_camera_name, instrument, header, images, name)
    camera = instrument["cameras"].get(camera_name) or next(iter(instrument["cameras"].values()))
    image = tried(chosen_image, camera, hdus, images) or images[0]
    every = merged_header(header, image.header) if image.index else header
    kind = tried(_frame_type, instrument, every, name)
    exposure = tried(exposure_time, instrument["exptime"], every, name, kind or "")
    kind, exptime, _ = exposure or (kind, None, [])
    dates = instrument["date"], instrument.get("time")
    start = tried(start_of_exposure, *dates, every, name, exptime or 0.0)
    mjd = start.mjd if start else None
    at = instrument.get("ra"), instrument.get("dec")
    pointing = header_pointing(*at, every, name, Place(mjd or 0.0))
    told: dict[str, Any] = {"camera": camera_name, "type": kind, "exptime": exptime, "mjd": mjd}
    told |= {"instrument": instrument["name"], "ra": pointing.ra, "dec": pointing.dec}
    told["date_obs"] = None if mjd is None else iso_of(mjd)
    told["object"] = object_text(evaluate(instrument.get("object"), every, name))
    told["target"] = safe_name(told["object"], empty="") if kind == "object" else kind
    if kind not in ("bias", "dark"):
        words = text(evaluate(instrument.get("filter"), every, name))
        told["filter"] = safe_name(words, replacement="", empty="")
        told["band"] = _band(instrument, words)
        if not words and kind and not camera.get("halves"):
            faults.append(_missing("filter", instrument.get("filter", [])))
    chips = tried(chips_of, camera, hdus, images) or []
    if len(chips) == 1 and not chips[0].joined:
        specs = camera.get("gain"), camera.get("rdnoise")
        gain, rdnoise, _ = tried(read_electronics, *specs, every, name) or (None, None, [])
        told |= {"gain": gain, "rdnoise": rdnoise}
    told = {key: value for key, value in told.items() if value not in (None, "")}
    return _joined_faults(first, faults, told)


def _joined_faults(
    first: FrameIgnored, faults: Sequence[FrameUnusable], told: dict[str, Any]
) -> FrameIgnored:
    """Return an exception with the texts of all faults and the properties that are known."""
    if not isinstance(first, FrameUnusable):
        return FrameIgnored(first.code, first.text, told)
    more = dict.fromkeys(
        fault.text if fault.code == first.code else str(fault)
        for fault in faults
        if str(fault) != str(first)
    )
    return FrameUnusable(first.code, "; ".join([first.text, *more]), told)


def _add_electronics(
    facts: FrameFacts, memory: _Memory, headers: dict[int, Header], name: str
) -> None:
    """Add gain and read noise of the amplifiers and of the frame."""
    camera, unit, factor = memory.camera, facts.unit, 1.0
    if unit:
        factor, note = electrons_each(unit, facts.exptime)
        if unit == ELECTRON and isinstance(camera.get("gain"), (int, float)):
            factor = camera["gain"]
            note = f"BUNIT is electron, gain {factor:g} of the instrument file is used"
        facts.notes += [note] if note not in facts.notes else []
    for amplifier in facts.amplifiers:
        # Values of single amplifiers take precedence over values for all of an image.
        specs = amplifier.gain or camera.get("gain"), amplifier.rdnoise or camera.get("rdnoise")
        if unit in (ELECTRON, ELECTRON_RATE):
            specs = factor, specs[1]
        own = headers[amplifier.hdu]
        gain, rdnoise, notes = memory.electronics.answer(
            own, name, partial(read_electronics, *specs, own, name),
            amplifier.gain, amplifier.rdnoise, unit, factor,
        )  # fmt: skip
        amplifier.gain = gain * factor if unit == DN_RATE else gain
        amplifier.rdnoise = rdnoise
        facts.notes += [note for note in notes if note not in facts.notes]
    gains = [amplifier.gain for amplifier in facts.amplifiers]
    facts.gain = round(sum(gains) / len(gains), 6)
    facts.rdnoise = max(amplifier.rdnoise for amplifier in facts.amplifiers)


def _add_filter(facts: FrameFacts, instrument: dict[str, Any]) -> None:
    """Add the filter as part of file names, and its band; biases and darks have none."""
    if facts.type in ("bias", "dark"):
        facts.filter_text = ""
        return
    facts.filter = safe_name(facts.filter_text, replacement="", empty="none")
    facts.band = _band(instrument, facts.filter_text)


def _camera_name(
    instrument: dict[str, Any], header: Header, images: list[RawHDU], name: str
) -> str:
    cameras = instrument["cameras"]
    if "camera" not in instrument:
        return str(next(iter(cameras)))
    spec = instrument["camera"]
    value = evaluate(spec, header, name)
    if value is None and images[0].index:
        value = evaluate(spec, merged_header(header, images[0].header), name)
    if value is None:
        keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "the file name"
        raise FrameUnusable("MISSING_KEYWORD", f"no camera (looked at: {keys})")
    if text(value) not in cameras:
        raise FrameUnusable(
            "UNKNOWN_CAMERA", f"{text(value)!r}, the instrument has {', '.join(cameras)}"
        )
    return text(value)


def _band(instrument: dict[str, Any], filter_text: str) -> str:
    """Return the band of a filter from the instrument file or, without entry, from its name."""
    band = map_items(tuple(instrument.get("bands", {}).items()), filter_text)
    return parse_filter(filter_text).band if band is None else str(band)


def _frame_type(instrument: dict[str, Any], header: Header, name: str) -> str:
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
    if kind == "flat" and _says(DARK_FLAT, instrument, header, name):
        kind = "dark"
    if kind == "flat" and _says(LAMP_OFF, instrument, header, name):
        raise FrameIgnored("NOT_USED", "a flat with its lamp off")
    if kind not in TYPES:
        raise FrameIgnored("NOT_USED", f"the frame is of type {kind[:40]}")
    return kind


def _says(pattern: str, instrument: dict[str, Any], header: Header, name: str) -> bool:
    """Return whether the type or the object of a frame in the header matches a pattern."""
    specs = [*dict.fromkeys(keywords_of(instrument["type"])), instrument.get("object")]
    return any(
        compiled(pattern).search(text(evaluate(spec, header, name))) is not None for spec in specs
    )


def _flat_source(instrument: dict[str, Any], header: Header, name: str) -> str:
    """Return the light source of a flat: ``sky``, ``dome``, or '' where the header does not say."""
    for pattern, source in FLAT_SOURCES.items():
        if _says(pattern, instrument, header, name):
            return source
    return ""


def _setting(instrument: dict[str, Any], key: str, header: Header, name: str) -> str:
    """Return a camera setting as text, with numbers normalised; '' where unknown."""
    value = evaluate(instrument.get(key, DEFAULT_SETTINGS[key]), header, name)
    figure = number(value)
    return text(value)[:24] if figure is None else f"{figure:.3g}"


def _ignore(instrument: dict[str, Any], header: Header, name: str, kind: str) -> None:
    for rule in instrument.get("ignore", ()):
        if kind not in rule.get("types", TYPES):
            continue
        value = evaluate(rule["when"], header, name)
        if value is None:
            continue
        value = text(value)
        if "matches" in rule and not compiled(rule["matches"]).search(value):
            continue
        if "unless" in rule and compiled(rule["unless"]).search(value):
            continue
        code, _, words = rule["reason"].partition(":")
        raise FrameIgnored(code.strip(), f"{words.strip()} ({value[:40]})")


def _kind(instrument: dict[str, Any], header: Header, name: str) -> str:
    """Return the type of a frame; raise where its camera does not use this type."""
    kind = _frame_type(instrument, header, name)
    _ignore(instrument, header, name, kind)
    return kind


@dataclass(frozen=True)
class _Setup:
    """Header values common to most frames of a camera; fields as in `FrameFacts`."""

    object: str
    filter_text: str
    site: list[float] | None
    saturate: float
    linear: float | None
    binning: str
    readout: str
    source: str
    gain_setting: str
    offset: str
    unit: str
    notes: list[str]


def _setup(
    instrument: dict[str, Any], camera: dict[str, Any], header: Header, name: str, kind: str
) -> _Setup:
    """Return the values common to frames of a camera; raise without filter or saturation."""
    filter_text = text(evaluate(instrument.get("filter"), header, name))
    if not filter_text and kind in ("flat", "object") and not camera.get("halves"):
        raise _missing("filter", instrument.get("filter", []))
    saturate, notes = required(
        camera.get("saturate"), header, name, (1, 1e12), "BAD_SATURATE", "saturation"
    )
    unit = pixel_unit(header)
    if unit.startswith(ELECTRON):
        saturate *= _header_gain(camera, header, name)
    linear = number(evaluate(camera.get("linear"), header, name))
    return _Setup(
        object=object_text(evaluate(instrument.get("object"), header, name)),
        filter_text=filter_text,
        site=_site(instrument, header, name),
        saturate=round(saturate, 3),
        linear=round(linear, 3) if linear is not None and linear > 0 else None,
        binning=parse_binning(evaluate(instrument.get("binning", "1x1"), header, name)) or "1x1",
        readout=text(evaluate(instrument.get("readout"), header, name))[:64],
        source=_flat_source(instrument, header, name) if kind == "flat" else "",
        gain_setting=_setting(instrument, "gain_setting", header, name),
        offset=_setting(instrument, "offset", header, name),
        unit=unit,
        notes=notes,
    )


def _header_gain(camera: dict[str, Any], header: Header, name: str) -> float:
    """Return the gain by which a frame, and its saturation, were converted to electrons; else 1.

    A constant in the instrument file describes the converter, a keyword the frame.
    """
    if any(one.keyword for one in readings(camera.get("saturate"), header, name)):
        return 1.0
    told = [quantity(one.value) for one in readings(camera.get("gain"), header, name)]
    return max([1.0, *(one[0] for one in told if one is not None and one[0] < LARGEST_GAIN)])


def _wanted_calibrations(camera: dict[str, Any]) -> dict[str, str]:
    """Return whether calibrations are required, optional or none: by default only flats are."""
    wanted = camera.get("calibrations", {})
    return {one: wanted.get(one, "required" if one == "flat" else "none") for one in CALIBRATIONS}


def _temperature(instrument: dict[str, Any], header: Header, name: str) -> float | None:
    """Return the temperature of the detector; None where unknown or out of this world."""
    told = quantity(evaluate(instrument.get("temperature"), header, name))
    return round(told[0], 2) if told is not None and abs(told[0]) <= 1000 else None


def _common_facts(
    instrument: dict[str, Any],
    camera_name: str,
    camera: dict[str, Any],
    header: Header,
    name: str,
) -> FrameFacts:
    """Return the facts common to the halves of a detector."""
    memory = _memory(instrument, camera)
    kind = memory.kind.answer(header, name, lambda: _kind(instrument, header, name))
    kind, exptime, notes = exposure_time(instrument["exptime"], header, name, kind)
    mjd, more = start_of_exposure(instrument["date"], instrument.get("time"), header, name, exptime)
    notes += more
    setup = memory.setup.answer(
        header, name, lambda: _setup(instrument, camera, header, name, kind), kind
    )
    latitude, longitude = setup.site[:2] if setup.site else (None, None)
    place = Place(mjd, latitude, longitude, _header_airmass(instrument, header, name))
    pointing = header_pointing(instrument.get("ra"), instrument.get("dec"), header, name, place)
    if kind == "object":
        notes += pointing.notes
    ra, dec = pointing.ra, pointing.dec
    airmass = _airmass(instrument.get("recompute_airmass", "absent"), place, exptime, ra, dec)
    notes += setup.notes
    calibrations, more = reduced_before(header, kind, _wanted_calibrations(camera))
    notes += more
    saturate = setup.saturate
    if setup.unit in (ELECTRON_RATE, DN_RATE):
        if kind in ("flat", "object"):
            calibrations |= {"bias": "none", "dark": "none"}
        saturate = round(saturate / exptime, 3) if exptime > 0 else saturate
    return FrameFacts(
        instrument=instrument["name"],
        camera=camera_name,
        type=kind,
        exptime=round(exptime, 5),
        mjd=mjd,
        date_obs=iso_of(mjd),
        object=setup.object,
        target=safe_name(setup.object, empty="unknown" if kind == "object" else kind),
        ra=ra,
        dec=dec,
        airmass=None if airmass is None else round(airmass, 4),
        binning=setup.binning,
        temperature=_temperature(instrument, header, name),
        readout=setup.readout,
        saturate=saturate,
        linear=setup.linear,
        near_infrared=bool(camera.get("near_infrared", False)),
        poserr=float(camera.get("poserr", 0.1)),
        calibrations=calibrations,
        filter_text=setup.filter_text,
        source=setup.source,
        gain_setting=setup.gain_setting,
        offset=setup.offset,
        unit=setup.unit,
        notes=notes,
        ra_guessed=pointing.guessed,
        site=setup.site,
        longitude=None if setup.site else _longitude(instrument, header, name),
    )


_STEM = re.compile(
    r"(2\d{7}T\d{6}[0-9A-Za-z_+-]{0,48})(?:\.(?:fits|fit|fts))?(?:\.fz|\.gz)?", re.IGNORECASE
)


_LETTERS = {"bias": "b", "dark": "d", "flat": "f", "object": "o"}


def frame_stem(filename: str, facts: FrameFacts) -> str:
    """Return the name of a frame before it is made unique.

    It is the raw stem, or else made from time, camera and type.
    """
    match = _STEM.fullmatch(filename)
    if match:
        return match.group(1)
    stamp = facts.date_obs[:19].replace("-", "").replace(":", "")
    if not stamp.startswith("2"):
        stamp = f"2{stamp}"  # before 2000: names of frames must nevertheless begin with 2
    return f"{stamp}{safe_name(facts.camera)}{_LETTERS[facts.type]}"
