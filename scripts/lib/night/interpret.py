"""What a raw header says of its frame, read with the file of its instrument.

Headers are hostile input: whatever they hold, `interpret` gives sane facts or raises
`FrameIgnored`."""

import json
import re

from lib.night.airmass import airmass_at, altitude
from lib.night.amplifiers import extension_amplifiers, single_amplifier
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.headervalues import (
    angle,
    compiled,
    evaluate,
    get,
    iso_of,
    keywords_of,
    map_items,
    mjd_of,
    number,
    object_text,
    parse_binning,
    safe_name,
    text,
)
from lib.night.wcscards import cd_scale, wcs_cards

TYPES = ("bias", "dark", "flat", "object")


CALIBRATIONS = ("bias", "dark", "flat")


MAX_AXIS = 100_000  # pixels


_PRODUCT_KEYS = ("QCSTAT", "ABSZPT")  # written by the workflow itself, by no camera


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


def _required(value, check, code, what, spec):
    if value is None:
        keys = ", ".join(dict.fromkeys(keywords_of(spec))) or "nothing"
        raise FrameUnusable("MISSING_KEYWORD", f"no usable {what} (looked at: {keys})")
    if not check(value):
        raise FrameUnusable(code, f"{what} is {value:g}")
    return value


def _in_range(value, low, high):
    return low <= value <= high


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
    if files and not compiled(files).fullmatch(name):
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
            amplifiers, shape = extension_amplifiers(infos, headers, own["binning"])
        else:
            amplifiers = [single_amplifier(camera, half, header_all, infos[0], own["binning"])]
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
        cards, cd = wcs_cards(
            {**wcs, "shape": camera.get("shape")}, wcs_headers, name, own, infos[0]["shape"]
        )
        own["wcs"] = cards if own["type"] == "object" else None
        own["pixscale"] = round(cd_scale(cd), 6) if cd else None
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
    band = map_items(tuple(instrument.get("bands", {}).items()), filter_text)
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
        if "matches" in rule and not compiled(rule["matches"]).search(value):
            continue
        if "unless" in rule and compiled(rule["unless"]).search(value):
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
