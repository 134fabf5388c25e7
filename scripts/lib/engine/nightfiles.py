"""Files and parameters of a night's rules: their input and params functions, as methods.

Paths depend on the configuration (`imdir`, steps left out) and on the plan; the masters of a frame
depend on the night log. The rules ask here for all of these and contain no logic. Where there are
several nights, the wildcard `night` is the folder of one, and its own `NightFiles` answers.

Files that no rule makes are not inputs to Snakemake, which would judge them by their times: a good
copy may be older than the bad one, and a camera's clock ahead of ours. They are params: `given` has
their paths, in a form that Snakemake does not record; the facts of a raw frame and the contents of
other files decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lib.core.contents import ContentRecord
from lib.core.rawfiles import listed, raw_root
from lib.core.settings import EXPORT_ENDINGS, REFERENCE_SOURCES, TABLE_ENDINGS
from lib.night.campaign import Campaign, plan_campaign
from lib.night.nightlog import NightLog, open_log
from lib.night.plan import Plan, Sky, target_of
from lib.night.pointing import Field, field_of
from lib.night.targets import parse_position
from lib.night.templates import OWN, SURVEYS, wanted_template
from lib.report.frametable import begin_frames_table, log_digest
from lib.report.links import campaign_link

from .paths import NothingToReduce, tell, unasked_exclude
from .settled import settle
from .templates import NO_NIGHT, own_template, template_file, why_none

HOME = Path(__file__).resolve().parents[3]
"""Directory of the workflow."""

LIGHT_CURVES = (".lightcurve", ".lightcurves")
"""Suffixes of the names of light curves."""

RAW_ENDINGS = ".fits, .fit, .fts, .fz or .gz"


def read_campaign(config: Mapping[str, Any], *, write: bool, argv: Sequence[str] = ()) -> Campaign:
    """Return the nights of `datadir`, reading only the headers of changed files.

    Parameters
    ----------
    config : dict
        Checked by `lib.engine.config.check_config`, its paths by `lib.engine.paths.check_places`.
    write : bool
        Whether to write ``frames.ecsv``: true in the main process, false in its jobs.
    argv : sequence of str
        Command line of Snakemake; without it no night is taken as settled.

    Raises
    ------
    NothingToReduce
        There is no science frame.
    """
    datadir, imdir = ", ".join(listed(config["datadir"])), Path(config["imdir"])
    if write:
        try:
            imdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"imdir: {imdir} cannot be made ({error.strerror}), name another directory"
            ) from error
    log = open_log(config, imdir)
    campaign = plan_campaign(log, config, imdir)
    settle(campaign, config, argv if write else (), HOME)
    if write:
        for folder, night in campaign.open.items():
            (imdir / folder).mkdir(exist_ok=True)
            begin_frames_table(night.log, imdir / folder / "frames.ecsv")
        remarks = [*log.notes, *layout_remarks(campaign), *grid_remarks(campaign, config)]
        told = [] if config.get("quiet") else remarks
        for note in filter(None, [unasked_exclude(config), *told]):
            tell(note)
    if not log.rows:
        raise NothingToReduce(f"datadir: {datadir} holds no {RAW_ENDINGS} file")
    if not log.science:
        raise NothingToReduce(
            f"datadir: none of the {len(log.rows)} files in {datadir} is a science frame that "
            f"can be used; {imdir}/frames.ecsv says what each is"
        )
    return campaign


def layout_remarks(campaign: Campaign) -> list[str]:
    """Return remarks on the locations of several nights."""
    if not campaign.several:
        return []
    names = [night.name for night in campaign.nights.values()]
    said = [f"{len(names)} nights, {min(names)} to {max(names)}, each in its folder of imdir"]
    if "" in campaign.nights:
        said[0] += f"; {campaign.nights[''].name}, reduced alone before, stays in imdir itself"
    if campaign.settled:
        said[0] += f"; {len(campaign.settled)} of them have come to their end before"
    return said


def grid_remarks(campaign: Campaign, config: Mapping[str, Any]) -> list[str]:
    """Return what new nights cost where all stacks of a target share one grid."""
    if config["stack"]["grid"] != "target":
        return []
    top = Path(config["imdir"])
    new = {
        folder
        for folder, night in campaign.nights.items()
        if any(not (top / folder / name).exists() for name in night.plan.coadds)
    }
    wider = {
        target
        for target, nights in campaign.nights_of_targets.items()
        if any(night.folder in new for night in nights)
    }
    again = 0
    for stack, frames in campaign.slices.items():
        own = {campaign.night_of[frame].folder for frame in frames}
        if target_of(stack) in wider and stack not in campaign.moving and not own & new:
            again += (top / f"coadd{stack}.fits").exists()
    if not again:
        return []
    return [
        f"stack: {{grid: target}}: {again} stack{'s' if again != 1 else ''} without a new frame to "
        "be made again, on the grid that covers the new nights too"
    ]


def of_its_night(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Make an input or params function answer for the night named by its wildcards."""

    @wraps(method)
    def answer(files: NightFiles, wildcards: Any) -> Any:
        its = files.at(wildcards)
        return (
            method(files, wildcards) if its is files else getattr(its, method.__name__)(wildcards)
        )

    return answer


class NightFiles:
    """The files of a night as its rules read and write them.

    Methods with an argument `wildcards` serve as input or params functions; those that return a
    function of `wildcards` are called with what distinguishes one rule from another.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
    config : dict
        Checked by `lib.engine.config.check_config`.
    folder : str
        Folder of the night in `imdir`.
    """

    def __init__(
        self,
        night: NightLog,
        plan: Plan,
        config: Mapping[str, Any],
        folder: str = "",
    ) -> None:
        self.night = night
        self.plan = plan
        self.config = config
        self.top = config["imdir"]
        self.folder = folder
        self.imdir = f"{self.top}/{folder}".rstrip("/") if folder else self.top
        self.root = raw_root(config)
        self.contents = ContentRecord(self.top)
        self.nights: dict[str, NightFiles] = {folder: self}
        self.over_nights: NightFiles | None = None
        self.several = False
        self.key = ""
        self.settled = False

    def at(self, wildcards: Any) -> NightFiles:
        """Return the files of the night named by wildcards, or those over all nights."""
        if self.over_nights is not None and self._is_over_nights(wildcards):
            return self.over_nights
        return self.nights[getattr(wildcards, "night", "")]

    def _is_over_nights(self, wildcards):
        if hasattr(wildcards, "stack"):
            return wildcards.stack.count(".") > 1
        if getattr(wildcards, "night", "") or not hasattr(wildcards, "target"):
            return False
        if hasattr(wildcards, "mark"):
            return wildcards.mark not in ("", ".target")
        return self.several  # a light curve

    # Frames.

    def before(self, rule: str, frame: str = "") -> str:
        """Return the path of a frame, or the pattern of all frames, as a rule reads it."""
        return self._path(self.plan.prefix_before(rule), frame)

    def after(self, rule: str, frame: str = "") -> str:
        """Return the path of a frame, or the pattern of all frames, as a rule writes it."""
        return self._path(self.plan.prefix(rule), frame)

    def _path(self, prefix, frame):
        if frame:
            return f"{self.imdir}/{prefix}{frame}.fits"
        return f"{self.top}/{self.wildcard}{prefix}{{frame}}.fits"

    @property
    def wildcard(self) -> str:
        """Wildcard in the paths of rules for the folder of a night."""
        return "{night}" if self.several else ""

    def raw(self, frame: str) -> str:
        """Return the raw file of a frame."""
        return f"{self.root}/{self.night.frames[frame].raw}"

    def made(self, *kinds: str) -> Callable[[Any], dict[str, str]]:
        """Return the input function for the masters of a frame that are made here."""
        return lambda wildcards: self.at(wildcards).masters_of(wildcards.frame, kinds, ready=False)

    def given(self, *kinds: str, raw: bool = False) -> Callable[[Any], SimpleNamespace]:
        """Return the params function for the ready masters of a frame.

        Parameters
        ----------
        *kinds : str
            Kinds of masters.
        raw : bool
            Whether to include its raw file.
        """

        def given(wildcards: Any) -> SimpleNamespace:
            night = self.at(wildcards)
            ready = night.masters_of(wildcards.frame, kinds, ready=True)
            raws = {"raws": [night.raw(wildcards.frame)]} if raw else {}
            return SimpleNamespace(**ready, **raws)

        return given

    @of_its_night
    def gain_flat(self, wildcards: Any) -> dict[str, str]:
        """Return the flat of a frame if it is to measure the gain."""
        wanted = self.config["prepare"]["gain"] == "measured"
        if self.night.frames[wildcards.frame].gain > 0 and not wanted:
            return {}
        return self.masters_of(wildcards.frame, ("flat",), ready=False)

    def given_contents(self, *kinds: str) -> Callable[[Any], dict[str, str]]:
        """Return the params function for identifiers of the contents of these ready masters."""
        return lambda wildcards: self._contents(
            self.at(wildcards).masters_of(wildcards.frame, kinds, ready=True)
        )

    def _contents(self, paths):
        """Return identifiers of the contents of files, by their names in `paths`."""
        return {name: self.contents.sum_of(path) for name, path in paths.items()}

    @of_its_night
    def facts(self, wildcards: Any) -> dict[str, Any]:
        """Return the facts of a frame."""
        return self._facts(wildcards.frame)

    def _facts(self, frame):
        """Return the facts of a frame on which its steps depend, without file path and site."""
        facts = self.night.frames[frame].to_dict()
        del facts["longitude"]
        return facts | {"raw": Path(facts["raw"]).name}

    @of_its_night
    def notes(self, wildcards: Any) -> dict[str, str]:
        """Return, by kind, why a frame has no master."""
        return self.night.match(wildcards.frame).notes

    # Masters.

    def masters_of(self, frame: str, kinds: Sequence[str], ready: bool) -> dict[str, str]:
        """Return the masters that match a frame, by kind: the ready ones, or those made here."""
        match, masters = self.night.match(frame), self.night.masters
        names = {kind: match.master(kind) for kind in kinds}
        borrowed = {name: f"{self.top}/{path}" for name, path in self.night.borrowed.items()}
        return {
            kind: masters.get(name) or borrowed.get(name, f"{self.imdir}/{name}.fits")
            for kind, name in names.items()
            if name and (name in masters) == ready
        }

    @of_its_night
    def flat_missing(self, wildcards: Any) -> str:
        """Return why a frame that requires a flat has none; '' otherwise."""
        required = self.night.frames[wildcards.frame].calibrations["flat"] == "required"
        note = self.night.match(wildcards.frame).notes.get("flat", "")
        return note if required else ""

    def calibration_frames(self, kind: str, key: str) -> list[str]:
        """Return the frames of a master."""
        groups = {"bias": self.night.biases, "dark": self.night.darks, "flat": self.night.flats}
        return groups[kind][_master_name(kind, key)]

    def calibrations(self, kind: str, *needs: str) -> Callable[[Any], dict[str, Any]]:
        """Return the input function of the rule that makes a master.

        Parameters
        ----------
        kind : {'bias', 'dark', 'flat'}
        *needs : str
            Kinds of the masters with which its frames are calibrated.
        """

        def calibrations(wildcards: Any) -> dict[str, Any]:
            night = self.at(wildcards)
            frames = night.calibration_frames(kind, wildcards.key)
            return night.masters_of(frames[0], needs, ready=False)

        return calibrations

    def calibrations_given(self, kind: str, *needs: str) -> Callable[[Any], SimpleNamespace]:
        """Return the params function for its raw frames and ready masters."""

        def given(wildcards: Any) -> SimpleNamespace:
            night = self.at(wildcards)
            frames = night.calibration_frames(kind, wildcards.key)
            raws = [night.raw(frame) for frame in frames]
            return SimpleNamespace(raws=raws, **night._ready(kind, wildcards.key, needs))

        return given

    def calibrations_contents(self, kind: str, *needs: str) -> Callable[[Any], dict[str, str]]:
        """Return the params function for identifiers of the contents of these ready masters."""
        return lambda wildcards: self._contents(
            self.at(wildcards)._ready(kind, wildcards.key, needs)
        )

    def calibration_facts(self, kind: str) -> Callable[[Any], list[dict[str, Any]]]:
        """Return the params function for the facts of a master's frames."""

        def facts(wildcards: Any) -> list[dict[str, Any]]:
            night = self.at(wildcards)
            return [night._facts(one) for one in night.calibration_frames(kind, wildcards.key)]

        return facts

    @of_its_night
    def other_flats(self, wildcards: Any) -> list[str]:
        """Return the flats of the same filter with other light sources, for comparison."""
        return [f"{self.imdir}/{name}.fits" for name in self._other_flats(wildcards)]

    @of_its_night
    def other_lights(self, wildcards: Any) -> list[str]:
        """Return the light sources of these flats."""
        frames = [self.night.flats[name][0] for name in self._other_flats(wildcards)]
        return [self.night.frames[frame].source for frame in frames]

    def _other_flats(self, wildcards):
        return self.night.other_flats(f"flat_{wildcards.key}")

    def _ready(self, kind, key, needs):
        """Return the ready masters for a master's frames, and `ready`, one of the same name."""
        found = self.masters_of(self.calibration_frames(kind, key)[0], needs, ready=True)
        name = _master_name(kind, key)
        for folder in listed(self.config["masters"] or []):
            for ending in ("fits", "fit"):
                path = Path(folder, f"{name}.{ending}")
                if path.exists():
                    return found | {"ready": str(path)}
        return found

    # Skies.

    @of_its_night
    def sky(self, wildcards: Any) -> dict[str, str]:
        """Return the master sky of a frame; none with `nomastersky`."""
        if self.config["nomastersky"]:
            return {}
        return {"sky": f"{self.imdir}/{self.plan.sky_of[wildcards.frame]}.fits"}

    @of_its_night
    def sky_plan(self, wildcards: Any) -> Sky:
        """Return the plan of a master sky."""
        return self.plan.skies[f"sky-{wildcards.key}"]

    @of_its_night
    def sky_frames(self, wildcards: Any) -> list[str]:
        """Return the frames of a master sky."""
        return [self.before("makesky", frame) for frame in self.sky_plan(wildcards).frames]

    @of_its_night
    def frames_beside_sky(self, wildcards: Any) -> list[str]:
        """Return the frames of other targets that a sky may use."""
        return [self.before("makesky", frame) for frame in self.sky_plan(wildcards).others]

    # Stacks and targets.

    @property
    def stack_settings(self) -> dict[str, Any]:
        """Settings of a stack, independent of its frames."""
        return {key: value for key, value in self.config["stack"].items() if key != "by"}

    @property
    def products_of_nights(self) -> list[str]:
        """Paths of the final products of each night."""
        return [path for night in self._open() for path in night._ends()]

    def _open(self):
        return [night for night in self.nights.values() if not night.settled]

    def _ends(self):
        names = (*self.plan.coadds, *self.plan.differences)
        coadds = [f"{self.imdir}/{name}" for name in names]
        return [*coadds, *self.target_tables(), f"{self.imdir}/night.html"]

    @property
    def tables_of_nights(self) -> list[str]:
        """Paths of the tables of the targets of each night."""
        return [path for night in self._open() for path in night.target_tables()]

    @property
    def products_over_nights(self) -> list[str]:
        """Paths of the final products over all nights."""
        return self.over_nights.products_over_nights if self.over_nights else []

    def target_tables(self, wildcards: Any = None) -> list[str]:
        """Return the paths of the joint table and of the light curve of each target of a night."""
        night = self if wildcards is None else self.at(wildcards)
        names = night.plan.target_tables
        if self.several and night.imdir == self.top:  # its light curve is that of all nights
            names = tuple(one for one in names if ".lightcurve" not in one)
        return [
            f"{night.imdir}/{name}" for name in [*names, *night.exported(night.plan.stacks, names)]
        ]

    @of_its_night
    def log_digest(self, wildcards: Any) -> str:
        """Return a digest of the log of a night."""
        return log_digest(self.night)

    @of_its_night
    def night_key(self, wildcards: Any) -> str:
        """Return a digest of all that the products of one of several nights depend on."""
        return self.key

    @of_its_night
    def campaign_link(self, wildcards: Any) -> str:
        """Return the address of the page about all nights; '' where there is a single one."""
        return campaign_link(self.folder) if self.several else ""

    @of_its_night
    def nights_of_stack(self, wildcards: Any) -> list[str]:
        """Return the coadds of the nights of a stack over nights; none for a stack of one night."""
        return []

    def of_stack(self, rule: str) -> Callable[[Any], list[str]]:
        """Return the input function for a stack's frames as a rule reads them."""
        return lambda wildcards: self.at(wildcards)._frames_of(wildcards.stack, rule)

    def _frames_of(self, stack, rule):
        return [self.before(rule, frame) for frame in self.plan.stacks[stack]]

    @of_its_night
    def solution(self, wildcards: Any) -> str:
        """Return the astrometric solution of the stack of a frame."""
        return f"{self.imdir}/qa/astrometry/{self.plan.stack_of[wildcards.frame]}.json"

    @of_its_night
    def anchor(self, wildcards: Any) -> list[str]:
        """Return the solution to which a stack is tied: that of its target with most frames.

        That solution in turn is tied to the one of the first night. Stacks tied to a reference have
        no anchor, so that a new frame, or a failure, in one filter does not affect the others.
        """
        if self.config["refcat"] != "none":
            return []
        target = target_of(wildcards.stack)
        first = self.first_night_of(target)
        for night in (self, first):
            stacks = night.plan.targets[target]
            richest = max(stacks, key=lambda stack: len(night.plan.stacks[stack]))
            if night is not self or richest != wildcards.stack:
                return [f"{night.imdir}/qa/astrometry/{richest}.json"]
            if night is first:
                break
        return []

    def first_night_of(self, target: str) -> NightFiles:
        """Return the files of the first night in which a target was observed."""
        return next(one for one in self.nights.values() if target in one.plan.targets)

    @of_its_night
    def reference(self, wildcards: Any) -> str:
        """Return the reference table of the field of a stack."""
        return f"{self.imdir}/refcat/{target_of(wildcards.stack)}.ecsv"

    @of_its_night
    def reference_given(self, wildcards: Any) -> SimpleNamespace:
        """Return the sources of the reference table, where answers are kept, the target's name."""
        frames = self.plan.frames_of(wildcards.target)
        return SimpleNamespace(
            refcat=self.config["refcat"], cache=self.config["refcat_cache"],
            name=next((self.night.frames[one].object for one in frames), ""),
            name_servers=self.config["reference"]["name_servers"],
        )  # fmt: skip

    @of_its_night
    def reference_kind(self, wildcards: Any) -> str:
        """Return the source of the reference table; for the user's table its content counts."""
        refcat = self.config["refcat"]
        if refcat == "offline":
            return f"offline: {Path(self.config['refcat_cache']).expanduser().resolve()}"
        return refcat if refcat in ("online", "none") else "table"

    @of_its_night
    def reference_content(self, wildcards: Any) -> str:
        """Return an identifier of the content of the user's table; '' without one."""
        refcat = self.config["refcat"]
        return "" if refcat in REFERENCE_SOURCES else self.contents.sum_of(refcat)

    @of_its_night
    def field(self, wildcards: Any) -> Field:
        """Return the region of sky of the frames of a target."""
        frames = [self.night.frames[frame] for frame in self.plan.frames_of(wildcards.target)]
        # It is said of one target: of several it is not known of which.
        given = parse_position(self.config["target_radec"]) if len(self.plan.targets) == 1 else None
        return field_of(frames, self.config["astrometry"]["wide_radius"], given)

    @of_its_night
    def stack_flats(self, wildcards: Any) -> list[str]:
        """Return the flats of a stack's frames made here, which give the variation of the noise."""
        return self._flats(wildcards.stack, ready=False)

    @of_its_night
    def stack_given(self, wildcards: Any) -> SimpleNamespace:
        """Return the ready ones among these flats, and the user's catalogue."""
        flats = self._flats(wildcards.stack, ready=True)
        customcat = self.config["customcat"] or None
        return SimpleNamespace(flats=flats, customcat=customcat, frames=[], grid=[], moving=None)

    @of_its_night
    def stack_contents(self, wildcards: Any) -> list[str]:
        """Return identifiers of the contents of these files."""
        given = self.stack_given(wildcards)
        return [self.contents.sum_of(path) for path in [*given.flats, given.customcat] if path]

    def _flats(self, stack, ready):
        flats: dict[str, None] = {}
        for frame in self.plan.stacks[stack]:
            flats |= dict.fromkeys(self.masters_of(frame, ("flat",), ready).values())
        return list(flats)

    @of_its_night
    def grid_frames(self, wildcards: Any) -> list[str]:
        """Return the frames whose footprints the coadd covers, if these are not only its own."""
        if self.config["stack"]["grid"] == "stack":
            return []
        target = target_of(wildcards.stack)
        return [self.before("stack", frame) for frame in self.plan.frames_of(target)]

    def products(self, pattern: str) -> Callable[[Any], list[str]]:
        """Return the input function for one product of each stack of a target."""
        return lambda wildcards: [
            f"{place}/{pattern.format(stack=stack)}"
            for place, stack, _ in self.at(wildcards).stacks_behind(wildcards)
        ]

    def stacks_behind(self, wildcards: Any) -> list[tuple[str, str, Sequence[str]]]:
        """Return folder, name and frames of the stacks on which a product of a target depends."""
        names = self.plan.targets[wildcards.target]
        stacks: list[tuple[str, str, Sequence[str]]] = [
            (self.imdir, stack, self.plan.stacks[stack]) for stack in names
        ]
        # The light curve over several nights includes those that follow moving objects.
        if self.over_nights is None or self.several or hasattr(wildcards, "mark"):
            return stacks
        return [*stacks, *self.over_nights.following(wildcards.target)]

    def following(self, target: str) -> list[tuple[str, str, Sequence[str]]]:
        """Return the stacks of a target that follow moving objects: none for a single night."""
        return []

    @of_its_night
    def stacks_of_target(self, wildcards: Any) -> dict[str, tuple[str, ...]]:
        """Return the names of the frames of each stack of a target."""
        return {stack: tuple(frames) for _, stack, frames in self.stacks_behind(wildcards)}

    @of_its_night
    def frames_by_stack(self, wildcards: Any) -> SimpleNamespace:
        """Return the solved frames of each stack of a target, and the user's table of positions."""
        frames = [self.solved(frames) for _, _, frames in self.stacks_behind(wildcards)]
        return SimpleNamespace(frames=frames, positions=self.config.get("targets"))

    def other_stacks(self, wildcards: Any) -> list[str]:
        """Return the coadds of a target that only add rows to its light curve."""
        return list(self.other_stack_names(wildcards).values())

    def other_stack_names(self, wildcards: Any) -> dict[str, str]:
        """Return the names of the stacks that only add rows to a light curve, with their coadds.

        It is measured by the stacks over all nights, or those of the nights; the others are those
        of parts of nights, and of nights where all nights have one.
        """
        over, folder = self.over_nights, getattr(wildcards, "night", "")
        # Those of one of several nights are in the light curve over all.
        if over is None or (self.several and folder):
            return {}
        return over.stacks_beside(wildcards)

    def stacks_beside(self, wildcards: Any) -> dict[str, str]:
        """Return the names of stacks of a target over nights and of parts of nights; no others."""
        return {}

    # Difference images.

    def _settings_of(self, *keys: str) -> dict[str, Any]:
        return {key: self.config["difference"][key] for key in keys}

    @property
    def subtract_settings(self) -> dict[str, Any]:
        """What a difference image is made by, whichever its template."""
        return self._settings_of("method", "convolve", "regions", "kernel", "injections")

    @property
    def candidate_settings(self) -> dict[str, Any]:
        """What candidates are chosen by."""
        return self._settings_of("threshold", "score")

    def _stack_frames(self, stack: str) -> Sequence[str]:
        """The frames of a stack of the night."""
        return self.plan.stacks[stack]

    def _own_template(self, stack: str) -> str:
        """The coadd of another night of this run that is the template of a stack, or nothing."""
        if wanted_template(self.config["template"], stack) != OWN:
            return ""
        before = self.config["difference"]["before"]
        found = own_template(stack, self._stack_frames(stack), self.nights, before)
        name = ".".join(stack.split(".")[:2])
        return "" if found == NO_NIGHT else f"{self.nights[found].imdir}/coadd{name}.fits"

    def _survey_image(self, stack: str) -> str:
        """The image of a sky survey that is the template of a stack of the night."""
        return f"{self.imdir}/refcat/{stack}.template.fits"

    @of_its_night
    def template_made(self, wildcards: Any) -> list[str]:
        """Return the template of a stack that this run makes, and its weight map."""
        if self.survey(wildcards):
            return [self._survey_image(wildcards.stack)]
        found = self._own_template(wildcards.stack)
        return [found, found.removesuffix(".fits") + ".weight.fits"] if found else []

    def survey(self, wildcards: Any) -> str:
        """Return the sky survey that is the template of a stack; empty where it is another."""
        wanted = wanted_template(self.config["template"], wildcards.stack)
        return wanted if wanted in SURVEYS else ""

    def survey_given(self, wildcards: Any) -> SimpleNamespace:
        """Return where images of surveys are kept, and whether servers may be asked."""
        return SimpleNamespace(
            cache=self.config["refcat_cache"], folder=self.config["difference"]["images"],
            refcat=self.config["refcat"],
        )  # fmt: skip

    @of_its_night
    def template_given(self, wildcards: Any) -> SimpleNamespace:
        """Return the template of a stack that lies there, or why there is none."""
        template, before = self.config["template"], self.config["difference"]["before"]
        found = template_file(template, wildcards.stack, before)
        none = not found and not self.template_made(wildcards)
        return SimpleNamespace(
            template=found or None,
            why=why_none(template, wildcards.stack, before) if none else "",
        )

    @of_its_night
    def template_contents(self, wildcards: Any) -> str:
        """Return what stands for the content of a template that lies there, or for its lack."""
        given = self.template_given(wildcards)
        return self.contents.sum_of(given.template) if given.template else given.why

    @of_its_night
    def known_given(self, wildcards: Any) -> SimpleNamespace:
        """Return the solved frames of each stack of a target, and the table of known objects."""
        stacks = self.plan.targets[wildcards.target]
        return SimpleNamespace(
            frames=[self.solved(self.plan.stacks[stack]) for stack in stacks],
            known=self.config["difference"]["known"],
        )

    def of_differences(self, pattern: str) -> Callable[[Any], list[str]]:
        """Return the input function that gives one product of each stack with a difference."""

        def products(wildcards: Any) -> list[str]:
            night = self.at(wildcards)
            stacks = night.plan.targets[wildcards.target]
            return [f"{night.imdir}/{pattern.format(stack=stack)}" for stack in stacks]

        return products

    def by_stack_of_frame(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the input or params function that answers for the stack of a frame."""

        def for_frame(wildcards: Any) -> Any:
            stack = self.at(wildcards).plan.stack_of[wildcards.frame]
            folder = {"night": wildcards.night} if hasattr(wildcards, "night") else {}
            return answer(SimpleNamespace(stack=stack, **folder))

        return for_frame

    def of_stack_of_frame(self, pattern: str) -> Callable[[Any], str]:
        """Return the input function that gives one product of the stack of a frame."""
        return self.by_stack_of_frame(
            lambda wildcards: f"{self.at(wildcards).imdir}/{pattern.format(stack=wildcards.stack)}"
        )

    @property
    def frame_difference(self) -> str:
        """Pattern of the difference images of all frames."""
        return self._path(self.plan.prefix_of_differences, "")

    @of_its_night
    def reference_of_target(self, wildcards: Any) -> str:
        """Return the reference stars of a target."""
        return f"{self.imdir}/refcat/{wildcards.target}.ecsv"

    def known_content(self, wildcards: Any) -> str:
        """Return what stands for the content of the table of known objects."""
        known = self.config["difference"]["known"]
        return self.contents.sum_of(known) if known else ""

    @of_its_night
    def differences(self, wildcards: Any) -> list[str]:
        """Return the difference images of a target: of a lone night, with those of its parts."""
        over = None if self.several else self.over_nights
        parts = [] if over is None else over.differences_of_parts(wildcards.target)
        return [*self.own_differences(wildcards.target), *parts]

    def differences_of_parts(self, target: str) -> list[str]:
        """Return the difference images of a target over nights and of parts of nights."""
        return []

    def own_differences(self, target: str) -> list[str]:
        """Return the difference images that this night has of a target."""
        stacks = self.plan.targets[target] if self.plan.with_template else ()
        names = [f"diff{stack}.fits" for stack in stacks]
        return [f"{self.imdir}/{name}" for name in (*names, *self.plan.frame_differences(stacks))]

    @property
    def of_positions(self) -> dict[str, str]:
        """Products made from the user's table of positions, by the names of the outputs."""
        if not self.config.get("targets"):
            return {}
        place = f"{self.top}/{self.wildcard}"
        return {
            "all_table": f"{place}{{target}}.lightcurves.ecsv",
            "all_plot": f"{place}qa/lightcurve/{{target}}.all.png",
        }

    @property
    def exports(self) -> dict[str, str]:
        """Exported light curves, by the names of the outputs."""
        place = f"{self.top}/{self.wildcard}exports"
        return {
            f"export_{one}": f"{place}/{{target}}.{EXPORT_ENDINGS[one]}"
            for one in self.light_curve_formats
        }

    @property
    def light_curve_formats(self) -> list[str]:
        """Formats that the rule of the light curve itself writes."""
        return [one for one in self.config.get("export", ()) if one in EXPORT_ENDINGS]

    def exported(self, stacks: Iterable[str], tables: Iterable[str]) -> list[str]:
        """Return the names in `exports` of exported tables.

        Parameters
        ----------
        stacks : iterable of str
        tables : iterable of str
            Names of joint tables and light curves.
        """
        names = []
        for form in self.config.get("export", ()):
            if form not in TABLE_ENDINGS:
                continue
            stems = [f"coadd{stack}.cat" for stack in stacks]
            for table in tables:
                stem = table.removesuffix(".ecsv")
                if stem.endswith(".candidates"):
                    continue
                if not stem.endswith(LIGHT_CURVES):
                    stems.append(f"{stem}.sources")
                elif (
                    form not in EXPORT_ENDINGS
                ):  # the other formats are written by the rule of the light curve itself
                    stems.append(stem)
            names += [f"exports/{stem}.{TABLE_ENDINGS[form]}" for stem in stems]
        return names

    def exported_table(self, wildcards: Any) -> str:
        """Return the table that is exported."""
        place = f"{self.top}/{getattr(wildcards, 'night', '')}"
        if wildcards.product.endswith(".cat"):
            return f"{place}{wildcards.product}.fits"
        return f"{place}{wildcards.product.removesuffix('.sources')}.ecsv"

    def positions_content(self, wildcards: Any) -> str:
        """Return an identifier of the content of the user's table of positions."""
        targets = self.config.get("targets")
        return self.contents.sum_of(targets) if targets else ""

    @of_its_night
    def site(self, wildcards: Any) -> list[float]:
        """Return latitude, longitude and elevation of the telescope; [] where unknown."""
        frames = (self.night.frames[frame] for frame in self.plan.frames_of(wildcards.target))
        return next((list(one.site) for one in frames if one.site), [])

    def solved(self, frames: Sequence[str]) -> list[str]:
        """Return the paths of solved frames of the night."""
        return [self.before("stack", frame) for frame in frames]

    @of_its_night
    def frames_of_target(self, wildcards: Any) -> list[str]:
        """Return the solved frames of all stacks of a target."""
        return list(dict.fromkeys(sum(self.frames_by_stack(wildcards).frames, [])))


def _master_name(kind, key):
    return f"{kind}_{key}" if kind == "flat" else f"{kind}-{key}"
