"""Which calibrations fit a frame, and why others do not."""

from lib.night.headervalues import number, parse_binning, safe_name, text
from lib.night.naming import shape_text

TEMPERATURE_TOLERANCE = 5.0  # K


def exposure_tolerance(exptime):
    return 0.01 + 0.01 * exptime


# What a group of calibration frames must have in common, in the order in which names are made
# unique and reasons are told.
GROUP_KEYS = {
    "bias": ("instrument", "camera", "half", "binning", "readout", "shape"),
    "dark": ("instrument", "camera", "half", "binning", "readout", "shape", "exptime"),
    "flat": ("instrument", "camera", "filter", "half", "binning", "readout", "shape"),
}


def temperature_difference(group, facts):
    if group.get("temperature") is None or facts["temperature"] is None:
        return 0.0
    return abs(group["temperature"] - facts["temperature"])


def ready_group(stem, kind, header, shape):
    """What a ready master is, as far as its header and name tell; None fits everything."""
    group = {"name": stem, "shape": shape, "half": None, "instrument": None, "frames": []}
    group["camera"] = text(header.get("CAMERA")) or None
    group["binning"] = parse_binning(header.get("BINNING"))
    group["readout"] = text(header.get("READOUT")) or None
    group["exptime"] = number(header.get("EXPTIME"))
    group["temperature"] = number(header.get("CCDTEMP"))
    group["filter"] = None
    if kind == "flat":
        group["filter"] = safe_name(header.get("FILTER"), "", "") or None
        group["flat_name"] = stem[5:]
    elif group["camera"] is None:
        group["camera"] = stem[5:].split("-")[0]
    return group


def differences(kind, group, facts):
    """The keys on which a group does not fit a frame, as `key: its value, not the frame's`."""
    why = []
    for key in GROUP_KEYS[kind]:
        if key == "exptime":
            continue
        value, wanted = group[key], facts[key]
        if key == "filter" and value is None:  # a ready flat: its name tells
            name = group["flat_name"]
            if name != wanted and not name.startswith(f"{wanted}-"):
                why.append(f"filter {name}, not {wanted}")
            continue
        if value is None or value == wanted:
            continue
        if key == "shape":
            value, wanted = shape_text(value), shape_text(wanted)
        why.append(f"{key} {value or 'none'}, not {wanted or 'none'}")
    if temperature_difference(group, facts) > TEMPERATURE_TOLERANCE:
        why.append(f"temperature {group['temperature']:g}, not {facts['temperature']:g}")
    return why


def nearest_darks(fits, exptime, bias):
    """Of the darks that fit, those of the same exposure; else, with a bias, the longest."""
    same = [
        item
        for item in fits
        if item[1]["exptime"] is not None
        and abs(item[1]["exptime"] - exptime) <= exposure_tolerance(exptime)
    ]
    if same:
        return same, []
    usable = [item for item in fits if item[1]["exptime"]]
    if bias is not None and usable:
        longest = max(item[1]["exptime"] for item in usable)
        return [item for item in usable if item[1]["exptime"] == longest], []
    why = [f"not {exptime:g} s, and without a bias it cannot be scaled"]
    return [], [(name, [f"exptime {group['exptime'] or 0:g} s, {why[0]}"]) for name, group in fits]
