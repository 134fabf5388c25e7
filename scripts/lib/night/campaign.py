"""The nights of a campaign: their logs, their plans, and their folders."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lib.night.moving import moving_stacks
from lib.night.nightlog import NightLog
from lib.night.plan import Plan, plan_night, target_of, threads_of_a_stack
from lib.night.positions import Position, read_positions
from lib.night.slices import sliced, slices_of

MARKER = ".settled"
"""Name of the file in a night's folder that records what its page was made from."""

REDUCED = re.compile(r"[a-z]+(2[0-9A-Za-z_+-]*)\.fits")
"""Names of reduced frames."""


@dataclass
class Night:
    """A night of a campaign.

    Parameters
    ----------
    name : str
        Date of its evening; empty where nothing is known of it.
    log : lib.night.nightlog.NightLog
        Night log.
    plan : lib.night.plan.Plan
        Plan of the night.
    folder : str
        Folder of its products in `imdir`: ``20220127/``, or empty for `imdir` itself.
    """

    name: str
    log: NightLog
    plan: Plan
    folder: str = ""


@dataclass
class Campaign:
    """All raw frames of a run: one night, or several.

    Parameters
    ----------
    log : lib.night.nightlog.NightLog
        Log of all raw files.
    nights : dict of str to Night
        Folder -> night, in order of time. A single night lies in `imdir` itself.
    slices : dict of str to tuple of str
        Stacks over several nights and of parts of nights, ``<target>.<filter>.<mark>`` -> frames by
        time.
    keys : dict of str to str
        Folder -> digest of all that the products of the night depend on.
    settled : frozenset of str
        Folders of the nights that are complete and need no planning.
    moving : dict of str to Position
        Name of each stack in `slices` that follows a moving object -> its ephemeris.
    """

    log: NightLog
    nights: dict[str, Night]
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    moving: Mapping[str, Position] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.night_of = {
            frame: night for night in self.nights.values() for frame in night.log.frames
        }

    @property
    def wildcard(self) -> str:
        """Wildcard in the paths of rules for the folder of a night."""
        return "{night}" if self.several else ""

    @property
    def folder_pattern(self) -> str:
        """Regular expression of the folders of open nights, and of `imdir` itself."""
        return f"(?:{'|'.join(dict.fromkeys([*self.open, '']))})"

    @property
    def every_folder_pattern(self) -> str:
        """Regular expression of the folders of all nights: masters may be made for later ones."""
        return f"(?:{'|'.join(dict.fromkeys([*self.nights, '']))})"

    @property
    def open(self) -> dict[str, Night]:
        """The nights that are not settled, by folder."""
        return {
            folder: night for folder, night in self.nights.items() if folder not in self.settled
        }

    def threads_of_a_stack(self, cores: int | None) -> int:
        """Return the number of threads for one stack: few where others keep the cores busy."""
        stacks = sum(len(night.plan.stacks) for night in self.open.values())
        return threads_of_a_stack(stacks, cores)

    @property
    def several(self) -> bool:
        """Whether there are several nights."""
        return len(self.nights) > 1

    @property
    def targets(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Stacks of each target over nights and parts of nights: target -> mark -> stacks."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for name in self.slices:
            mark = name.split(".", 2)[2]
            marks = found.setdefault(target_of(name), {})
            marks[mark] = (*marks.get(mark, ()), name)
        return found

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables of targets over nights and parts of nights."""
        parts = set(self.parts)
        return tuple(
            f"{target}.{mark}.ecsv"
            for target, marks in self.targets.items()
            for mark, stacks in marks.items()
            if parts.issuperset(stacks)
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Stacks over nights and of parts of nights.

        Without those that follow a moving object and those of one frame.
        """
        return tuple(
            stack
            for stack in self.slices
            if stack not in self.moving and not stack.split(".")[2].startswith("f2")
        )

    @property
    def compared(self) -> tuple[str, ...]:
        """Those of `parts` from which a template is subtracted; frames: `difference: frames`."""
        with_template = any(night.plan.with_template for night in self.nights.values())
        return self.parts if with_template else ()

    @property
    def light_curves(self) -> tuple[str, ...]:
        """Names of the light curves over all nights."""
        if not self.several:
            return ()
        with_positions = any(night.plan.with_positions for night in self.nights.values())
        ends = ("lightcurve", "lightcurves") if with_positions else ("lightcurve",)
        return tuple(f"{target}.{end}.ecsv" for target in self.nights_of_targets for end in ends)

    @property
    def nights_of_targets(self) -> dict[str, list[Night]]:
        """The nights in which each target was observed."""
        found: dict[str, list[Night]] = {}
        for night in self.nights.values():
            for target in night.plan.targets:
                found.setdefault(target, []).append(night)
        return dict(sorted(found.items()))


def flat_night(logs: Mapping[str, NightLog], imdir: str | os.PathLike[str]) -> str:
    """Return which of several nights already lies in `imdir` itself; '' where none does.

    Parameters
    ----------
    logs : dict of str to NightLog
        Name of the night -> its log.
    imdir : path-like
        Directory of the products.
    """
    nights = {frame: name for name, log in logs.items() for frame in log.frames}
    count: dict[str, int] = {}
    try:
        names = os.listdir(imdir)
    except OSError:
        return ""
    for name in names:
        found = REDUCED.fullmatch(name)
        if found and found[1] in nights:
            count[nights[found[1]]] = count.get(nights[found[1]], 0) + 1
    return max(count, key=lambda name: (count[name], name)) if count else ""


def plan_campaign(
    log: NightLog, config: Mapping[str, Any], imdir: str | os.PathLike[str]
) -> Campaign:
    """Return the nights of a run, with what is to be made of each and of all together.

    Parameters
    ----------
    log : lib.night.nightlog.NightLog
        Log of all raw files.
    config : dict
        Configuration, checked by `lib.engine.config.check_config`.
    imdir : path-like
        Directory of the products. A night that already lies in it stays there.

    Returns
    -------
    Campaign
    """
    logs = log.by_night() if config["nights"] == "auto" else {"": log}
    alone = next(iter(logs)) if len(logs) == 1 else flat_night(logs, imdir)
    nights: dict[str, Night] = {}
    for name, one in logs.items():
        folder = "" if name == alone else f"{name}/"
        one.add_masters(config["masters"], config["max_age"])
        for earlier in nights.values():
            one.add_library(earlier.name, earlier.log, earlier.folder)
        nights[folder] = Night(name, one, plan_night(one, config), folder)
    slices = sliced(log.stacks, log.frames, slices_of(config["stack"]["by"], len(nights) > 1))
    positions = read_positions(config["targets"]) if config.get("targets") else []
    names = {frame: night.name for night in nights.values() for frame in night.log.frames}
    stacks, moving = moving_stacks(log.stacks, log.frames, positions, names)
    return Campaign(log, nights, slices | stacks, moving=moving)
