"""The plan of a night: what is to be made from which frames, given night log and configuration.

`plan_night` is a pure function, so that the rules and the page see the same plan.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.core.pipeline import PIPELINE
from lib.core.settings import MakeskySettings
from lib.night.facts import FrameFacts
from lib.night.nightlog import NightLog
from lib.night.templates import SURVEYS, wanted_template

MOST_FRAMES = 300
"""Maximum number of frames of a sky: more hardly reduce its noise, and each occupies disk space."""

MOST_THREADS = 4
"""Maximum number of threads for one stack."""

SMOOTHING = 3.0
"""[pixel] Sigma of the Gaussian that smooths a master sky, with setting auto."""


@dataclass(frozen=True)
class Sky:
    """A master sky to be made.

    Parameters
    ----------
    frames : tuple of str
        Names of its frames, ordered by time.
    near_infrared : bool
        Whether the sky differs from pixel to pixel and changes with time, as for infrared arrays.
    sigma : float
        Sigma of the Gaussian that smooths it [pixel]; 0 for none.
    structure : bool
        Whether real structure on the scale of pixels survives the smoothing.
    passes : int
        2 where sources detected in the sum of the frames are masked and the sky is made again.
    others : tuple of str
        Frames of other targets in the same filter, nearest in time first, whose sky is used where
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
        ``<target>.<filter>`` -> frames, ordered by time.
    targets : dict of str to tuple of str
        Target -> its stacks, in alphabetical order of targets.
    skies : dict of str to Sky
        ``sky-<filter>``, with ``-w1`` and so on where a series is divided in time.
    stack_of, sky_of : dict of str to str
        The same, from the frame.
    left_out : frozenset of str
        Steps that the configuration leaves out.
    surveyed : tuple of str
        Stacks whose template is an image of a sky survey.
    with_positions : bool
        Whether the user lists further positions to be measured.
    differences_of_frames : bool
        Whether the template is subtracted from each frame, too.
    """

    stacks: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]]
    skies: Mapping[str, Sky]
    stack_of: Mapping[str, str]
    sky_of: Mapping[str, str]
    left_out: frozenset[str]
    with_positions: bool = False
    surveyed: tuple[str, ...] = ()
    differences_of_frames: bool = False

    def prefix_before(self, rule: str) -> str:
        """Return the prefix of the frames that a rule reads."""
        return PIPELINE.prefix_before(rule, self.left_out)

    def prefix(self, rule: str) -> str:
        """Return the prefix of the frames that a rule writes."""
        return PIPELINE.prefix(rule, self.left_out)

    def frames_of(self, target: str) -> tuple[str, ...]:
        """Return the frames of all stacks of a target."""
        return tuple(frame for stack in self.targets[target] for frame in self.stacks[stack])

    @property
    def with_template(self) -> bool:
        """Whether a template is subtracted from each coadd."""
        return "subtract" not in self.left_out

    @property
    def differences(self) -> tuple[str, ...]:
        """Names of the difference images, of their weight maps, and of those of frames."""
        stacks = self.stacks if self.with_template else ()
        names = [f"diff{stack}{end}.fits" for stack in stacks for end in ("", ".weight")]
        return (*names, *self.frame_differences(stacks))

    @property
    def prefix_of_differences(self) -> str:
        """Prefix of the difference images of frames."""
        return "d" + self.prefix_before("subtract")

    def frame_differences(self, stacks: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the difference images of the frames of stacks, if any."""
        if not self.differences_of_frames:
            return ()
        prefix = self.prefix_of_differences
        return tuple(f"{prefix}{frame}.fits" for one in stacks for frame in self.stacks[one])

    @property
    def coadds(self) -> tuple[str, ...]:
        """Names of the coadds."""
        return tuple(f"coadd{stack}.fits" for stack in self.stacks)

    @property
    def target_tables(self) -> tuple[str, ...]:
        """Names of the joint table, the light curves and the candidates of each target."""
        curves = [".lightcurve.ecsv", *([".lightcurves.ecsv"] if self.with_positions else [])]
        curves += [".candidates.ecsv"] if self.with_template else []
        return tuple(
            name
            for target in self.targets
            for name in (table_name(target), *(f"{target}{end}" for end in curves))
        )


def threads_of_a_stack(stacks: int, cores: int | None) -> int:
    """Return the number of threads for one of several stacks: few where others use the cores."""
    return max(1, min(MOST_THREADS, (cores or 2) // max(1, stacks)))


def plan_night(log: NightLog, config: Mapping[str, Any]) -> Plan:
    """Return what is to be made of a night.

    Parameters
    ----------
    log : lib.night.nightlog.NightLog
        The night log, which is not changed.
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
        differences_of_frames=bool(config.get("difference", {}).get("frames")),
        surveyed=tuple(
            stack
            for stack in log.stacks
            if wanted_template(config.get("template"), stack) in SURVEYS
        ),
    )


def plan_skies(
    groups: Mapping[str, Sequence[str]],
    frames: Mapping[str, FrameFacts],
    settings: MakeskySettings,
) -> dict[str, Sky]:
    """Return the master skies; a series that is long, or outlasts its sky, gets several.

    Parameters
    ----------
    groups : dict of str to list of str
        Name of a sky -> frames, ordered by time.
    frames : dict of str to FrameFacts
        Facts of each frame.
    settings : MakeskySettings
        Settings of the step.
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
    """Return the properties common to frames of one sky, apart from the target."""
    names = ("filter", "instrument", "camera", "half", "binning", "shape", "readout")
    return tuple(str(getattr(facts, name)) for name in names)


def frames_beside(
    series: Sequence[FrameFacts], alike: Sequence[FrameFacts], minutes: float
) -> tuple[str, ...]:
    """Return frames of other targets, nearest in time first, at most as many as of this target.

    Parameters
    ----------
    series : list of FrameFacts
        Frames of the target, ordered by time.
    alike : list of FrameFacts
        Frames of the same configuration, of any target.
    minutes : float
        Maximum time from the series [min].
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
    """Return the name of the joint table of a target.

    It is the target, but frames.target for a target named frames: frames.ecsv is the night log.
    """
    return f"{target}{'.target' if target == 'frames' else ''}.ecsv"


def time_windows(
    mjd: Sequence[float], minutes: float, least: int, most: int = MOST_FRAMES
) -> list[list[int]]:
    """Divide a series of frames that lasts longer than its sky is stable.

    Parameters
    ----------
    mjd : sequence of float
        Times of the frames [d], in order.
    minutes : float
        Approximate length of a part [min]; infinite for a stable sky.
    least : int
        Minimum number of frames in a part.
    most : int
        Maximum number of frames in a part.

    Returns
    -------
    list of list of int
        Indices of the frames of each part, in order; the parts are of nearly equal size.
    """
    span = (mjd[-1] - mjd[0]) * 1440
    parts = max(1, min(round(span / minutes), len(mjd) // least), math.ceil(len(mjd) / most))
    return [[int(i) for i in part] for part in np.array_split(np.arange(len(mjd)), parts)]
