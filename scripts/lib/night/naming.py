"""Unique names of frames, targets, filters and groups."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lib.night.facts import FrameFacts
from lib.night.headervalues import safe_name


def unique_frames(candidates: Iterable[FrameFacts]) -> None:
    """Give each frame a unique name, in place, in the order of `candidates`.

    The first frame of a name keeps it; others get the milliseconds of their start appended, then a
    counter.
    """
    used = set()
    for facts in candidates:
        stem = facts.frame
        tail = f"_{safe_name(facts.half)}" if facts.half else ""
        base = stem[: -len(tail)] if tail and stem.endswith(tail) else stem
        name = base + tail
        if name in used:
            moment = facts.date_obs[20:23]
            head = re.match(r"(2\d{7}T\d{6})(.*)", base)
            base = f"{head.group(1)}{moment}{head.group(2)}" if head else f"{base}_{moment}"
            name, count = base + tail, 2
            while name in used:
                name = f"{base}-{count}{tail}"
                count += 1
        used.add(name)
        facts.frame = name


def unique_names(frames: list[FrameFacts], raw_key: str, safe_key: str) -> None:
    """Number the safe names shared by different raw texts, in place.

    A text identical to its safe name keeps it; otherwise the one observed first does.
    """
    first: dict[tuple[str, str], float] = {}
    for facts in frames:
        item = (getattr(facts, raw_key), getattr(facts, safe_key))
        first[item] = min(first.get(item, facts.mjd), facts.mjd)
    by_name: dict[str, list[tuple[bool, float, str]]] = {}
    for (raw, safe), mjd in first.items():
        by_name.setdefault(safe, []).append((raw != safe, mjd, raw))
    if all(len(raws) == 1 for raws in by_name.values()):
        return
    used = set(by_name)
    renamed = {}
    for safe in sorted(by_name):
        for count, (_, _, raw) in enumerate(sorted(by_name[safe])[1:], start=2):
            name = f"{safe[:58]}_{count}"
            while name in used:
                count += 1
                name = f"{safe[:58]}_{count}"
            used.add(name)
            renamed[raw, safe] = name
    for facts in frames:
        key = (getattr(facts, raw_key), getattr(facts, safe_key))
        setattr(facts, safe_key, renamed.get(key, key[1]))


def unfold_case(frames: list[FrameFacts], key: str) -> list[str]:
    """Number names that differ only in capitals, for case-insensitive file systems.

    Parameters
    ----------
    frames : list of FrameFacts
        Frames, changed in place.
    key : {'filter', 'target'}

    Returns
    -------
    list of str
        One remark per changed name.
    """
    used: dict[str, str] = {}
    renamed = {}
    for name in sorted({getattr(one, key) for one in frames}):
        own, count = name, 2
        while own.lower() in used:
            own = f"{name[:58]}_{count}"
            count += 1
        used[own.lower()] = own
        if own != name:
            renamed[name] = own
    for one in frames:
        setattr(one, key, renamed.get(getattr(one, key), getattr(one, key)))
    return [
        f"{key} {name} is called {own} in file names: this file system does not tell capitals"
        for name, own in renamed.items()
    ]


def shape_text(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def exposure_text(exptime: float | None) -> str:
    return f"{exptime:.4g}".replace(".", "p").replace("+", "") + "s"


_QUALIFIERS = (
    "camera", "detector", "half", "exptime", "binning", "shape", "readout", "gain_setting",
    "offset", "unit", "source", "temperature", "instrument",
)  # fmt: skip

_PREFIXES = {"gain_setting": "gain", "offset": "offset"}
"""Words put before the values of numerical qualifiers."""


def qualified(bases: list[str], groups: Sequence[Any], fixed: Sequence[str]) -> list[str]:
    """Return names of groups: the base, with the qualifiers needed to distinguish them.

    Parameters
    ----------
    bases : list of str
        Base name of each group.
    groups : list of dict
        Properties of each group.
    fixed : tuple of str
        Properties already expressed by the base.

    Returns
    -------
    list of str
    """
    members: dict[str, list[int]] = {}
    for index, base in enumerate(bases):
        members.setdefault(base, []).append(index)
    names = [""] * len(bases)
    taken = set()
    keys = [key for key in _QUALIFIERS if key not in fixed]
    for base in sorted(members):
        for index, name in _told_apart(base, members[base], groups, keys):
            plain, count = name, 2
            while name in taken:
                name = f"{plain}-{count}"
                count += 1
            taken.add(name)
            names[index] = name
    return names


def _told_apart(name, indices, groups, keys):
    """Yield (index, name) of groups, with one qualifier for each key needed to distinguish them."""
    if len(indices) == 1 or not keys:
        return [(index, name) for index in indices]
    parts: dict[str, list[int]] = {}
    for index in indices:
        parts.setdefault(str(groups[index].get(keys[0], "")), []).append(index)
    result = []
    for value in sorted(parts):
        own = name
        if len(parts) > 1:
            qualifier = _qualifier(keys[0], groups[parts[value][0]].get(keys[0]))
            own = f"{name}-{qualifier}" if qualifier else name
        result += _told_apart(own, parts[value], groups, keys[1:])
    return result


def _qualifier(key, value):
    if value is None or value == "":
        return ""
    if key == "shape":
        return shape_text(value)
    if key in _PREFIXES:
        value = _PREFIXES[key] + str(value).replace(".", "p")
    return safe_name(str(value), empty="")[:24]
