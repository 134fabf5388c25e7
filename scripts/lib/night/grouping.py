"""Groups of frames: those of a master, of a stack, of a sky."""

from collections.abc import Callable, Iterable
from typing import Any

from lib.night.calibrationmatch import (
    GROUP_KEYS,
    TEMPERATURE_TOLERANCE,
    CalibrationGroup,
    exposure_tolerance,
)
from lib.night.facts import FrameFacts
from lib.night.naming import exposure_text, hashable, qualified


def middle(values: Iterable[float]) -> float | None:
    """Return the upper median of some values; None without values."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


def clusters(
    values: Iterable[float | None], tolerance: Callable[[float], float]
) -> dict[float | None, float | None]:
    """Label numbers by chains of neighbours closer than ``tolerance(value)``.

    Returns
    -------
    dict
        Value -> label, the smallest value of its chain; None -> None.
    """
    labels: dict[float | None, float | None] = {None: None}
    previous = label = None
    for value in sorted(v for v in set(values) if v is not None):
        if previous is None or value - previous > tolerance(previous):
            label = value
        labels[value] = label
        previous = value
    return labels


def group_calibrations(kind: str, frames: list[FrameFacts]) -> dict[str, CalibrationGroup]:
    """Return the groups of calibration frames of a kind, by the name of their master.

    Parameters
    ----------
    kind : {'bias', 'dark', 'flat'}
    frames : list of FrameFacts
        Frames ordered by time.
    """
    groups = []
    for members in _same_configuration(kind, frames):
        if kind == "flat":  # the response of the pixels hardly depends on temperature
            groups.append(_describe(kind, members, False))
            continue
        labels = clusters([one.temperature for one in members], lambda _: TEMPERATURE_TOLERANCE)
        parts: dict[float | None, list[FrameFacts]] = {}
        for facts in members:
            parts.setdefault(labels[facts.temperature], []).append(facts)
        # The temperature is in the name only where groups differ in nothing else.
        groups += [
            _describe(kind, parts[label], len(parts) > 1)
            for label in sorted(parts, key=lambda v: (v is None, v or 0))
        ]
    if kind == "flat":
        bases = [f"flat_{group.filter}" for group in groups]
    else:
        bases = [f"{kind}-{group.camera}" for group in groups]
    fixed = () if kind == "flat" else ("camera",)
    for group, name in zip(
        groups, qualified(bases, [group.labels for group in groups], fixed), strict=True
    ):
        group.name = name
    return {group.name: group for group in sorted(groups, key=lambda one: one.name)}


def _same_configuration(kind: str, frames: list[FrameFacts]) -> list[list[FrameFacts]]:
    """Return the frames in sets with the properties that a group must share."""
    exposures: dict[float | None, float | None] = {}
    if kind == "dark":
        exposures = clusters([one.exptime for one in frames], exposure_tolerance)
    found: dict[tuple[Any, ...], list[FrameFacts]] = {}
    for facts in frames:
        key = tuple(
            exposures[facts.exptime] if name == "exptime" else hashable(getattr(facts, name))
            for name in GROUP_KEYS[kind]
        )
        found.setdefault(key, []).append(facts)
    return [found[key] for key in sorted(found, key=repr)]


def _describe(kind: str, members: list[FrameFacts], by_temperature: bool) -> CalibrationGroup:
    first = members[0]
    exptime = middle(one.exptime for one in members)
    temperature = middle(one.temperature for one in members if one.temperature is not None)
    labels = {name: getattr(first, name) for name in GROUP_KEYS[kind]}
    if kind == "dark":
        labels["exptime"] = exposure_text(exptime)
    if by_temperature and temperature is not None:
        labels["temperature"] = f"T{round(temperature / 5) * 5}"
    return CalibrationGroup(
        instrument=first.instrument,
        camera=first.camera,
        half=first.half,
        binning=first.binning,
        readout=first.readout,
        shape=first.shape,
        filter=first.filter,
        exptime=exptime,
        temperature=temperature,
        gain_setting=first.gain_setting,
        offset=first.offset,
        detector=first.detector,
        unit=first.unit,
        source=first.source if kind == "flat" else None,
        frames=[one.frame for one in members],
        labels=labels,
    )


def group_stacks(science: list[FrameFacts]) -> dict[str, list[str]]:
    """Return the frames of each stack ``<target>.<filter>``, sorted by name.

    Cameras that observed a target in the same filter get separate stacks.
    """
    cameras: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
    for facts in science:
        key = (facts.target, facts.filter)
        cameras.setdefault(key, set()).add((facts.instrument, facts.camera, facts.detector))
    stacks: dict[str, list[str]] = {}
    for facts in science:
        found = cameras[facts.target, facts.filter]
        name = f"{facts.target}.{facts.filter}"
        if len(found) > 1:
            name += f"-{facts.camera}"
            if len({(camera, detector) for _, camera, detector in found}) < len(found):
                name += f"-{facts.instrument}"
            if facts.detector:
                name += f"-{facts.detector}"
        stacks.setdefault(name, []).append(facts.frame)
    return dict(sorted(stacks.items()))


def group_skies(science: list[FrameFacts]) -> dict[str, list[str]]:
    """Return the frames of each master sky ``sky-<filter>``, sorted by name.

    A near-infrared sky changes within minutes, so each target has its own.
    """
    targets: dict[tuple[str, bool], set[str]] = {}
    for facts in science:
        targets.setdefault((facts.filter, facts.near_infrared), set()).add(facts.target)
    groups: dict[tuple[Any, ...], list[FrameFacts]] = {}
    for facts in science:
        apart = facts.near_infrared and len(targets[facts.filter, True]) > 1
        base = f"sky-{facts.filter}" + (f"-{facts.target}" if apart else "")
        key = (base,) + tuple(
            hashable(getattr(facts, name))
            for name in ("instrument", "camera", "detector", "half", "binning", "shape", "readout")
        )
        groups.setdefault(key, []).append(facts)
    keys = sorted(groups, key=repr)
    names = qualified(
        [key[0] for key in keys], [groups[key][0] for key in keys], ("exptime", "temperature")
    )
    named = sorted(zip(names, keys, strict=True), key=lambda item: item[0])
    return {name: [facts.frame for facts in groups[key]] for name, key in named}
