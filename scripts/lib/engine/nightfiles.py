"""The files and parameters of a night's rules: their input and params functions, as methods.

A path depends on the configuration (`imdir`, steps left out) and on the plan; which masters a frame
takes depends on the night log. The rules ask here for all of these, and so hold no logic.

Files that no rule makes are no inputs to Snakemake, which would judge them by their times: a good
copy may be older than the bad one, and a camera's clock ahead of ours. They are params: `given` has
their paths, in a form that Snakemake does not record; the facts of a raw frame and the contents of
the others decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lib.core.contents import ContentRecord
from lib.core.settings import REFERENCE_SOURCES
from lib.night.nightlog import NightLog, open_log
from lib.night.plan import Plan, Sky, target_of
from lib.night.pointing import Field, field_of
from lib.report.frametable import begin_frames_table

from .paths import NothingToReduce, tell, unasked_exclude

RAW_ENDINGS = ".fits, .fit, .fts, .fz or .gz"


def read_night(config: Mapping[str, Any], *, write: bool) -> NightLog:
    """Return the night log of `datadir`; headers are read again only where a file has changed.

    Parameters
    ----------
    config : dict
        Checked by `lib.engine.config.check_config`, its paths by `lib.engine.paths.check_places`.
    write : bool
        Whether to write ``frames.ecsv``: the main process does, its jobs do not.

    Raises
    ------
    NothingToReduce
        Where there is no science frame.
    """
    datadir, imdir = config["datadir"], Path(config["imdir"])
    if write:
        imdir.mkdir(parents=True, exist_ok=True)
    night = open_log(config, imdir)
    if write:
        begin_frames_table(night, imdir / "frames.ecsv")
        remarks = [] if config.get("quiet") else night.notes
        for note in filter(None, [unasked_exclude(config), *remarks]):
            tell(note)
    if not night.rows:
        raise NothingToReduce(f"datadir: {datadir} holds no {RAW_ENDINGS} file")
    if not night.science:
        raise NothingToReduce(
            f"datadir: none of the {len(night.rows)} files in {datadir} is a science frame that "
            f"can be used; {imdir}/frames.ecsv says what each is"
        )
    return night


class NightFiles:
    """The files of a night as its rules take and write them.

    Methods that take `wildcards` serve as input or params functions; those that return a function
    of `wildcards` are called with what distinguishes one rule from another.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
    config : dict
        Checked by `lib.engine.config.check_config`.
    """

    def __init__(self, night: NightLog, plan: Plan, config: Mapping[str, Any]) -> None:
        self.night = night
        self.plan = plan
        self.config = config
        self.imdir = config["imdir"]
        self.contents = ContentRecord(self.imdir)

    # Frames.

    def before(self, rule: str, frame: str = "{frame}") -> str:
        """Return the path of a frame, or its pattern, as a rule takes it."""
        return f"{self.imdir}/{self.plan.prefix_before(rule)}{frame}.fits"

    def after(self, rule: str, frame: str = "{frame}") -> str:
        """Return the path of a frame, or its pattern, as a rule writes it."""
        return f"{self.imdir}/{self.plan.prefix(rule)}{frame}.fits"

    def raw(self, frame: str) -> str:
        """Return the raw file of a frame."""
        return f"{self.config['datadir']}/{self.night.frames[frame].raw}"

    def made(self, *kinds: str) -> Callable[[Any], dict[str, str]]:
        """Return the input function that gives the masters of a frame that are made here."""
        return lambda wildcards: self._masters(wildcards.frame, kinds, ready=False)

    def given(self, *kinds: str, raw: bool = False) -> Callable[[Any], SimpleNamespace]:
        """Return the params function that gives the ready masters of a frame.

        Parameters
        ----------
        *kinds : str
        raw : bool
            Whether its raw file, too.
        """

        def given(wildcards: Any) -> SimpleNamespace:
            ready = self._masters(wildcards.frame, kinds, ready=True)
            raws = {"raws": [self.raw(wildcards.frame)]} if raw else {}
            return SimpleNamespace(**ready, **raws)

        return given

    def gain_flat(self, wildcards: Any) -> dict[str, str]:
        """Return the flat of a frame where it is to tell the gain."""
        wanted = self.config["prepare"]["gain"] == "measured"
        if self.night.frames[wildcards.frame].gain > 0 and not wanted:
            return {}
        return self._masters(wildcards.frame, ("flat",), ready=False)

    def given_contents(self, *kinds: str) -> Callable[[Any], dict[str, str]]:
        """Return the params function for the contents of these ready masters."""
        return lambda wildcards: self._contents(self._masters(wildcards.frame, kinds, ready=True))

    def _contents(self, paths):
        """What stands for the contents of files, by their names in `paths`."""
        return {name: self.contents.sum_of(path) for name, path in paths.items()}

    def facts(self, wildcards: Any) -> dict[str, Any]:
        """Return the facts of a frame."""
        return self.night.frames[wildcards.frame].to_dict()

    def notes(self, wildcards: Any) -> dict[str, str]:
        """Return why a frame has no master of a kind, by kind."""
        return self.night.match(wildcards.frame).notes

    # Masters.

    def _masters(self, frame, kinds, ready):
        """The masters of these kinds that fit a frame, by kind: the ready ones, or the others."""
        match, masters = self.night.match(frame), self.night.masters
        names = {kind: match.master(kind) for kind in kinds}
        return {
            kind: masters.get(name, f"{self.imdir}/{name}.fits")
            for kind, name in names.items()
            if name and (name in masters) == ready
        }

    def flat_missing(self, wildcards: Any) -> str:
        """Return why a frame that cannot do without a flat has none; empty where all is well."""
        required = self.night.frames[wildcards.frame].calibrations["flat"] == "required"
        note = self.night.match(wildcards.frame).notes.get("flat", "")
        return note if required else ""

    def calibration_frames(self, kind: str, key: str) -> list[str]:
        """Return the frames that go into a master."""
        groups = {"bias": self.night.biases, "dark": self.night.darks, "flat": self.night.flats}
        return groups[kind][_master_name(kind, key)]

    def calibrations(self, kind: str, *needs: str) -> Callable[[Any], dict[str, Any]]:
        """Return the input function of the rule that makes a master.

        Parameters
        ----------
        kind : {'bias', 'dark', 'flat'}
        *needs : str
            Kinds of the masters that its own frames are calibrated by.
        """
        return lambda wildcards: self._masters(
            self.calibration_frames(kind, wildcards.key)[0], needs, ready=False
        )

    def calibrations_given(self, kind: str, *needs: str) -> Callable[[Any], SimpleNamespace]:
        """Return the params function that gives its raw frames and ready masters."""

        def given(wildcards: Any) -> SimpleNamespace:
            frames = self.calibration_frames(kind, wildcards.key)
            raws = [self.raw(frame) for frame in frames]
            return SimpleNamespace(raws=raws, **self._ready(kind, wildcards.key, needs))

        return given

    def calibrations_contents(self, kind: str, *needs: str) -> Callable[[Any], dict[str, str]]:
        """Return the params function for the contents of these ready masters."""
        return lambda wildcards: self._contents(self._ready(kind, wildcards.key, needs))

    def calibration_facts(self, kind: str) -> Callable[[Any], list[dict[str, Any]]]:
        """Return the params function that gives a master's script the facts of its frames."""

        def facts(wildcards: Any) -> list[dict[str, Any]]:
            frames = self.calibration_frames(kind, wildcards.key)
            return [self.night.frames[frame].to_dict() for frame in frames]

        return facts

    def other_flats(self, wildcards: Any) -> list[str]:
        """Return the flats of the same filter in other light, with which a flat is compared."""
        return [f"{self.imdir}/{name}.fits" for name in self._other_flats(wildcards)]

    def other_lights(self, wildcards: Any) -> list[str]:
        """Return what has lit them."""
        frames = [self.night.flats[name][0] for name in self._other_flats(wildcards)]
        return [self.night.frames[frame].source for frame in frames]

    def _other_flats(self, wildcards):
        return self.night.other_flats(f"flat_{wildcards.key}")

    def _ready(self, kind, key, needs):
        """The ready masters for a master's frames, and `ready`, of its name, to compare with."""
        found = self._masters(self.calibration_frames(kind, key)[0], needs, ready=True)
        name = _master_name(kind, key)
        for ending in ("fits", "fit"):
            path = Path(self.config["masters"] or "") / f"{name}.{ending}"
            if self.config["masters"] and path.exists():
                return found | {"ready": str(path)}
        return found

    # Skies.

    def sky(self, wildcards: Any) -> dict[str, str]:
        """Return the master sky of a frame; none with `nomastersky`."""
        if self.config["nomastersky"]:
            return {}
        return {"sky": f"{self.imdir}/{self.plan.sky_of[wildcards.frame]}.fits"}

    def sky_plan(self, wildcards: Any) -> Sky:
        """Return what the plan says of a master sky."""
        return self.plan.skies[f"sky-{wildcards.key}"]

    def sky_frames(self, wildcards: Any) -> list[str]:
        """Return the frames of a master sky."""
        return [self.before("makesky", frame) for frame in self.sky_plan(wildcards).frames]

    def frames_beside_sky(self, wildcards: Any) -> list[str]:
        """Return the frames of other targets that a sky may need."""
        return [self.before("makesky", frame) for frame in self.sky_plan(wildcards).others]

    # Stacks and targets.

    @property
    def coadds(self) -> list[str]:
        """Paths of all coadds."""
        return [f"{self.imdir}/{name}" for name in self.plan.coadds]

    @property
    def target_tables(self) -> list[str]:
        """Paths of the joint table and of the light curve of each target."""
        return [f"{self.imdir}/{name}" for name in self.plan.target_tables]

    def of_stack(self, rule: str) -> Callable[[Any], list[str]]:
        """Return the input function that gives a stack's frames as a rule takes them."""
        return lambda wildcards: self._frames_of(wildcards.stack, rule)

    def _frames_of(self, stack, rule):
        return [self.before(rule, frame) for frame in self.plan.stacks[stack]]

    def solution(self, wildcards: Any) -> str:
        """Return the astrometric solution of the stack of a frame."""
        return f"{self.imdir}/qa/astrometry/{self.plan.stack_of[wildcards.frame]}.json"

    def anchor(self, wildcards: Any) -> list[str]:
        """Return the solution that a stack is tied to: that of most frames of its target.

        None for that stack itself, nor where a reference ties each stack: then a new frame, or a
        failure, in one filter is no concern of the others.
        """
        if self.config["refcat"] != "none":
            return []
        stacks = self.plan.targets[target_of(wildcards.stack)]
        richest = max(stacks, key=lambda stack: len(self.plan.stacks[stack]))
        if richest == wildcards.stack:
            return []
        return [f"{self.imdir}/qa/astrometry/{richest}.json"]

    def reference(self, wildcards: Any) -> str:
        """Return the reference stars of the field of a stack."""
        return f"{self.imdir}/refcat/{target_of(wildcards.stack)}.ecsv"

    def reference_given(self, wildcards: Any) -> SimpleNamespace:
        """Return what the reference is made of, and where answers of servers are kept."""
        return SimpleNamespace(refcat=self.config["refcat"], cache=self.config["refcat_cache"])

    def reference_kind(self, wildcards: Any) -> str:
        """Return what the reference is made of; of the user's table the content counts."""
        refcat = self.config["refcat"]
        if refcat == "offline":
            return f"offline: {Path(self.config['refcat_cache']).expanduser().resolve()}"
        return refcat if refcat in ("online", "none") else "table"

    def reference_content(self, wildcards: Any) -> str:
        """Return what stands for the content of the user's table; empty where there is none."""
        refcat = self.config["refcat"]
        return "" if refcat in REFERENCE_SOURCES else self.contents.sum_of(refcat)

    def field(self, wildcards: Any) -> Field:
        """Return where the frames of a target lie."""
        frames = [self.night.frames[frame] for frame in self.plan.frames_of(wildcards.target)]
        return field_of(frames, self.config["astrometry"]["wide_radius"])

    def stack_flats(self, wildcards: Any) -> list[str]:
        """Return the flats of a stack's frames made here: how the noise varies over each."""
        return self._flats(wildcards.stack, ready=False)

    def stack_given(self, wildcards: Any) -> SimpleNamespace:
        """Return the ready ones among them, and the user's catalogue."""
        flats = self._flats(wildcards.stack, ready=True)
        return SimpleNamespace(flats=flats, customcat=self.config["customcat"] or None)

    def stack_contents(self, wildcards: Any) -> list[str]:
        """Return what stands for the contents of these."""
        given = self.stack_given(wildcards)
        return [self.contents.sum_of(path) for path in [*given.flats, given.customcat] if path]

    def _flats(self, stack, ready):
        flats: dict[str, None] = {}
        for frame in self.plan.stacks[stack]:
            flats |= dict.fromkeys(self._masters(frame, ("flat",), ready).values())
        return list(flats)

    def grid_frames(self, wildcards: Any) -> list[str]:
        """Return the frames whose footprint the coadd covers, where that is more than its own."""
        if self.config["stack"]["grid"] == "stack":
            return []
        target = target_of(wildcards.stack)
        return [self.before("stack", frame) for frame in self.plan.frames_of(target)]

    def products(self, pattern: str) -> Callable[[Any], list[str]]:
        """Return the input function that gives one product of each stack of a target."""
        return lambda wildcards: [
            f"{self.imdir}/{pattern.format(stack=stack)}"
            for stack in self.plan.targets[wildcards.target]
        ]

    def stacks_of_target(self, wildcards: Any) -> dict[str, tuple[str, ...]]:
        """Return the names of the frames of each stack of a target."""
        stacks = self.plan.stacks
        return {stack: tuple(stacks[stack]) for stack in self.plan.targets[wildcards.target]}

    def frames_by_stack(self, wildcards: Any) -> SimpleNamespace:
        """Return the solved frames of each stack of a target, and the user's table of positions."""
        stacks = self.plan.targets[wildcards.target]
        frames = [self._frames_of(stack, "stack") for stack in stacks]
        return SimpleNamespace(frames=frames, positions=self.config.get("targets"))

    @property
    def of_positions(self) -> dict[str, str]:
        """What is made of the user's table of positions, by the names of the outputs."""
        if not self.config.get("targets"):
            return {}
        return {
            "all_table": f"{self.imdir}/{{target}}.lightcurves.ecsv",
            "all_plot": f"{self.imdir}/qa/lightcurve/{{target}}.all.png",
        }

    def positions_content(self, wildcards: Any) -> str:
        """Return what stands for the content of the user's table of positions."""
        targets = self.config.get("targets")
        return self.contents.sum_of(targets) if targets else ""

    def site(self, wildcards: Any) -> list[float]:
        """Return latitude, longitude and elevation of the telescope; nothing where not known."""
        frames = (self.night.frames[frame] for frame in self.plan.frames_of(wildcards.target))
        return next((list(one.site) for one in frames if one.site), [])

    def frames_of_target(self, wildcards: Any) -> list[str]:
        """Return the solved frames of all stacks of a target."""
        return sum(self.frames_by_stack(wildcards).frames, [])


def _master_name(kind, key):
    return f"{kind}_{key}" if kind == "flat" else f"{kind}-{key}"
