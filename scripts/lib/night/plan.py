"""The plan of a night: what is to be made of which frames, from the night log and a configuration.

`plan_night` is a pure function, so that the rules and whoever looks at a night afterwards see the
same plan.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.core.pipeline import PIPELINE
from lib.core.settings import MakeskySettings
from lib.night.facts import FrameFacts
from lib.night.nightlog import NightLog

MOST_FRAMES = 300
"""Frames of a sky: more make it hardly less noisy, and each is held on disk meanwhile."""

MOST_THREADS = 4
"""Threads of a job of one stack, at most."""

SMOOTHING = 3.0
"""[pixel] sigma of the Gaussian that smooths a master sky, where the configuration says auto."""


@dataclass(frozen=True)
class Sky:
    """A master sky to be made.

    Parameters
    ----------
    frames : tuple of str
        Its frames, by time.
    near_infrared : bool
        Whether the pixels of the array differ in their sky, and that sky changes.
    sigma : float
        Of the Gaussian that smooths it [pixel]; 0 for none.
    structure : bool
        Whether structure of the pixels that is not noise outlives the smoothing.
    passes : int
        2 where sources found on the sum of the frames are masked and the sky is made again.
    others : tuple of str
        Frames of other targets in the same filter, nearest in time first: their sky serves where
        the target fills the frames.
    """

    frames: tuple[str, ...]
    near_infrared: bool
    sigma: float
    structure: bool
    passes: int
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be made of a night.

    Parameters
    ----------
    stacks : dict of str to tuple of str
        ``<target>.<filter>`` -> frames, by time.
    targets : dict of str to tuple of str
        Target -> its stacks, in the order of the names of the targets.
    skies : dict of str to Sky
        ``sky-<filter>``, with ``-w1`` and so on where a series is parted in time.
    stack_of, sky_of : dict of str to str
        The same, from the frame.
    left_out : frozenset of str
        Steps that the configuration leaves out.
    with_positions : bool
        Whether the user gives more positions to be measured.
    """

    stacks: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]]
    skies: Mapping[str, Sky]
    stack_of: Mapping[str, str]
    sky_of: Mapping[str, str]
    left_out: frozenset[str]
    with_positions: bool = False

    def prefix_before(self, rule: str) -> str:
        """Return the prefix of the frames that a rule takes."""
        return PIPELINE.prefix_before(rule, self.left_out)

    def prefix(self, rule: str) -> str:
        """Return the prefix of the frames that a rule writes."""
        return PIPELINE.prefix(rule, self.left_out)

    def frames_of(self, target: str) -> tuple[str, ...]:
        """Return the frames of all stacks of a target."""
        return tuple(frame for stack in self.targets[target] for frame in self.stacks[stack])

    @property
    def coadds(self) -> tuple[str, ...]:
        """Names of the coadds."""
        return tuple(f"coadd{stack}.fits" for stack in self.stacks)

    @property
    def target_tables(self) -> tuple[str, ...]:
        """Names of the joint table and of the light curves of each target."""
        curves = [".lightcurve.ecsv", *([".lightcurves.ecsv"] if self.with_positions else [])]
        return tuple(
            name
            for target in self.targets
            for name in (table_name(target), *(f"{target}{end}" for end in curves))
        )


def threads_of_a_stack(stacks: int, cores: int | None) -> int:
    """Return the threads of a job of one of so many stacks: few where these keep cores busy."""
    return max(1, min(MOST_THREADS, (cores or 2) // max(1, stacks)))


def plan_night(log: NightLog, config: Mapping[str, Any]) -> Plan:
    """Return what is to be made of a night.

    Parameters
    ----------
    log : lib.night.nightlog.NightLog
        Not changed.
    config : dict
        Checked by `lib.engine.config.check_config`.

    Returns
    -------
    Plan
    """
    skies = plan_skies(log.skies, log.frames, MakeskySettings(**config.get("makesky", {})))
    targets: dict[str, tuple[str, ...]] = {}
    for stack in log.stacks:
        target = target_of(stack)
        targets[target] = (*targets.get(target, ()), stack)
    return Plan(
        stacks={stack: tuple(frames) for stack, frames in log.stacks.items()},
        targets=dict(sorted(targets.items())),
        skies=skies,
        stack_of=dict(log.stack_of),
        sky_of={frame: name for name, sky in skies.items() for frame in sky.frames},
        left_out=PIPELINE.left_out(config),
        with_positions=bool(config.get("targets")),
    )


def plan_skies(
    groups: Mapping[str, Sequence[str]],
    frames: Mapping[str, FrameFacts],
    settings: MakeskySettings,
) -> dict[str, Sky]:
    """Return the master skies: a series that outlasts its sky, or is very long, gets several.

    Parameters
    ----------
    groups : dict of str to list of str
        Name of a sky -> frames, by time.
    frames : dict of str to FrameFacts
        Facts of each frame.
    settings : MakeskySettings
    """
    skies = {}
    alike: dict[tuple[Any, ...], list[FrameFacts]] = {}
    for members in groups.values():
        for frame in members:
            if frames[frame].near_infrared:
                alike.setdefault(sky_configuration(frames[frame]), []).append(frames[frame])
    for name, members in groups.items():
        near_infrared = frames[members[0]].near_infrared
        parts = time_windows(
            [frames[frame].mjd for frame in members],
            settings.window if near_infrared else math.inf,
            settings.window_frames,
        )
        passes = 2 if near_infrared else 1
        same = alike.get(sky_configuration(frames[members[0]]), []) if near_infrared else []
        for number, part in enumerate(parts, 1):
            skies[name if len(parts) == 1 else f"{name}-w{number}"] = Sky(
                frames=tuple(members[i] for i in part),
                near_infrared=near_infrared,
                sigma=SMOOTHING if isinstance(settings.smooth, str) else settings.smooth,
                structure=settings.smooth == "auto" and near_infrared,
                passes=passes if settings.sky_passes == "auto" else settings.sky_passes,
                others=frames_beside([frames[members[i]] for i in part], same, settings.window)
                if same
                else (),
            )
    return skies


def sky_configuration(facts: FrameFacts) -> tuple[Any, ...]:
    """Return what frames of one sky have in common, whatever their target."""
    names = ("filter", "instrument", "camera", "half", "binning", "shape", "readout")
    return tuple(str(getattr(facts, name)) for name in names)


def frames_beside(
    series: Sequence[FrameFacts], alike: Sequence[FrameFacts], minutes: float
) -> tuple[str, ...]:
    """Return frames of other targets, nearest in time first: no more than there are of this one.

    Parameters
    ----------
    series : list of FrameFacts
        By time.
    alike : list of FrameFacts
        Of the same configuration, of any target.
    minutes : float
        From the series, at most.
    """
    target, first, last = series[0].target, series[0].mjd, series[-1].mjd
    apart = {
        one.frame: max(first - one.mjd, one.mjd - last, 0.0) * 1440
        for one in alike
        if one.target != target
    }
    near = sorted((gap, frame) for frame, gap in apart.items() if gap <= minutes)
    return tuple(frame for _, frame in near[: max(3, len(series))])


def target_of(stack: str) -> str:
    """Return the target of a stack."""
    return stack.split(".")[0]


def table_name(target: str) -> str:
    """Return the joint table of a target; frames.ecsv is the night log, so frames.target.ecsv."""
    return f"{target}{'.target' if target == 'frames' else ''}.ecsv"


def time_windows(
    mjd: Sequence[float], minutes: float, least: int, most: int = MOST_FRAMES
) -> list[list[int]]:
    """Part a series of frames where it lasts longer than its sky stays the same.

    Parameters
    ----------
    mjd : sequence of float
        Times of the frames [d], in order.
    minutes : float
        Length of a part, about; infinite where the sky stays.
    least : int
        Frames in a part, at least.
    most : int
        Frames in a part, at most.

    Returns
    -------
    list of list of int
        Indices of the frames of each part, in order: parts of nearly as many frames each.
    """
    span = (mjd[-1] - mjd[0]) * 1440
    parts = max(1, min(round(span / minutes), len(mjd) // least), math.ceil(len(mjd) / most))
    return [[int(i) for i in part] for part in np.array_split(np.arange(len(mjd)), parts)]
