# Takes: the configuration and the raw headers. Gives: the night log, names and input functions.

import sys
from pathlib import Path

# Where this workflow lies, also where another uses it as a module.
HOME = Path(workflow.snakefile).resolve().parents[1]
sys.path.insert(0, f"{HOME}/scripts")

from lib.engine.install import available_cores, install

# First of all: the warm worker gets ready while the rest is read.
TERMINAL = install(workflow, HOME / "scripts")

from lib.engine.config import ConfigError, check_config
from lib.night.instrumentfile import InstrumentError, list_instruments
from lib.night.nightlog import scan
from lib.night.plan import plan_night, target_of
from lib.report.frametable import begin_frames_table
from lib.engine.paths import NothingToReduce, check_places, refuse, tell


def read_night():
    """Read the raw headers (anew only where a file has changed) and write frames.ecsv."""
    datadir, imdir = Path(config["datadir"]), Path(config["imdir"])
    exclude = Path(config["exclude"])
    if not exclude.exists():
        # The default lies with the workflow, wherever it is run from.
        exclude = HOME / exclude
    if workflow.is_main_process:
        imdir.mkdir(parents=True, exist_ok=True)
    night = scan(
        datadir,
        config["instrument"],
        exclude=exclude,
        cache=imdir / ".nightlog.json",
    )
    night.add_masters(config["masters"])
    if workflow.is_main_process:
        begin_frames_table(night, imdir / "frames.ecsv")
        for note in night.notes:
            tell(note)
    if not night.rows:
        raise NothingToReduce(
            f"datadir: {datadir} holds no .fits, .fit, .fts, .fz or .gz file"
        )
    if not night.science:
        raise NothingToReduce(
            f"datadir: none of the {len(night.rows)} files in {datadir} is a science frame that "
            f"can be used; {imdir}/frames.ecsv says what each is"
        )
    return night


try:
    config.update(check_config(config, list_instruments()))
    config.update(check_places(config))
    NIGHT = read_night()
    PLAN = plan_night(NIGHT, config)
except (ConfigError, InstrumentError, OSError) as error:
    refuse(error)


if workflow.remote_exec:

    # A job of a cluster does the work itself: else each of its frames would be handed on to a
    # whole Snakemake of its own.
    localrules:
        bias,
        dark,
        flat,
        prepare,
        flatten,
        makesky,
        skysub,
        crclean,
        solve,
        astrometry,
        stack,
        tables,
        lightcurve,


RAWDIR = config["datadir"]
IMDIR = config["imdir"]


wildcard_constraints:
    frame=r"2[0-9A-Za-z_+-]*",
    key=r"[A-Za-z0-9_+-]+",
    stack=r"[A-Za-z0-9_+-]+\.[A-Za-z0-9_+-]+",
    target=r"[A-Za-z0-9_+-]+",


def intermediate(path):
    """Mark a file to be deleted once no step needs it, where `rmifiles` asks for that."""
    return temp(path) if config["rmifiles"] else path


def frame_before(rule, frame="{frame}"):
    """Return the path of a frame, or its pattern, as a rule takes it."""
    return f"{IMDIR}/{PLAN.prefix_before(rule)}{frame}.fits"


def frame_after(rule, frame="{frame}"):
    """Return the path of a frame, or its pattern, as a rule writes it."""
    return f"{IMDIR}/{PLAN.prefix(rule)}{frame}.fits"


def raw(frame):
    """Return the raw file of a frame."""
    return f"{RAWDIR}/{NIGHT.frames[frame].raw}"


def master(name):
    """Return the path of a master: one made here, else the ready one."""
    return NIGHT.masters.get(name, f"{IMDIR}/{name}.fits")


def masters_of(frame, *kinds):
    """Return the masters of these kinds that fit a frame, by kind."""
    found = NIGHT.match(frame)
    return {kind: master(name) for kind in kinds if (name := found.master(kind))}


def master_frames(kind, key):
    """Return the frames that go into a master."""
    groups = {"bias": NIGHT.biases, "dark": NIGHT.darks, "flat": NIGHT.flats}[kind]
    return groups[f"{kind}_{key}" if kind == "flat" else f"{kind}-{key}"]


def master_inputs(kind, *needs):
    """Return the input function of a rule that makes a master of raw frames."""

    def inputs(wildcards):
        frames = master_frames(kind, wildcards.key)
        return {"raws": [raw(frame) for frame in frames]} | masters_of(
            frames[0], *needs
        )

    return inputs


def master_facts(kind):
    """Return the params function that hands a master's script the facts of its inputs."""

    def facts(wildcards):
        frames = master_frames(kind, wildcards.key)
        return [NIGHT.frames[frame].to_dict() for frame in frames]

    return facts


def frame_facts(wildcards):
    return NIGHT.frames[wildcards.frame].to_dict()


def sky_of(wildcards):
    """Return the master sky of a frame; none with `nomastersky`."""
    if config["nomastersky"]:
        return {}
    return {"sky": f"{IMDIR}/{PLAN.sky_of[wildcards.frame]}.fits"}


def sky_plan(wildcards):
    """Return what the plan says of a master sky."""
    return PLAN.skies[f"sky-{wildcards.key}"]


def sky_frames(wildcards):
    return [frame_before("makesky", frame) for frame in sky_plan(wildcards).frames]


def stack_frames(rule):
    """Return the input function that gives a stack's frames as a rule takes them."""
    return lambda wildcards: [
        frame_before(rule, frame) for frame in PLAN.stacks[wildcards.stack]
    ]


def stack_of(wildcards):
    return PLAN.stack_of[wildcards.frame]


def stack_refcat(wildcards):
    """Return the reference stars of the field of a stack."""
    return f"{IMDIR}/refcat/{target_of(wildcards.stack)}.ecsv"


coadds = [f"{IMDIR}/{name}" for name in PLAN.coadds]
target_tables = [f"{IMDIR}/{name}" for name in PLAN.target_tables]
