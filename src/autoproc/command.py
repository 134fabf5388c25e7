"""Translate the arguments of the original autoproc into one run of Snakemake."""

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoproc import instrument
from autoproc.places import PATHS, cache_environment, elsewhere
from autoproc.running import run
from autoproc.watch import Watch, look_interval

ROOT = Path(__file__).resolve().parents[2]
"""The directory of the workflow, where it was installed together with this package."""


def _load(module: str) -> Any:
    """Return a module of the workflow's core, or None where there is no workflow.

    Its file is read by path: the modules of the workflow are nobody else's, and do not get onto
    the module path of whoever imports this package.
    """
    path = ROOT / f"scripts/lib/core/{module}.py"
    if not path.is_file():
        return None
    name = f"{__package__}._{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


PIPELINE: Any = getattr(_load("pipeline"), "PIPELINE", None)

STEPS: tuple[str, ...] = PIPELINE.step_names if PIPELINE else ()
"""The steps in their order."""

PAR_FILE = "pipeautoproc.par"

PAR_KEYS = {
    "datadir": "datadir",
    "imworkingdir": "imdir",
    "rmifiles": "rmifiles",
    "overwrite": "redo",
    "verbose": "quiet",
}
"""Keys of `pipeautoproc.par` that still say something, and the argument that replaces each."""


PLAIN = re.compile(
    r"(?!(nan|inf|infinity|true|false)$)(?=.*[^\W\de]|.*/)[\w./~+]([\w./~+ =-]*[\w./~+=-])?", re.I
)
"""Texts that Snakemake takes for no number, and YAML for what they are."""


class AutoprocError(RuntimeError):
    """Arguments that make no sense, or a run that failed."""


def autoproc(
    datadir: str | os.PathLike | None = None,
    imdir: str | os.PathLike | None = None,
    start: str | None = None,
    stop: str | None = None,
    only: str | None = None,
    step: str | None = None,
    nocrclean: bool = False,
    nomastersky: bool = False,
    redo: bool = False,
    quiet: bool = False,
    rmifiles: bool = False,
    customcat: str | os.PathLike | None = None,
    customcatfilt: Sequence[str] | None = None,
    *,
    cores: int | None = None,
    options: Sequence[str] = (),
    **config: Any,
) -> None:
    """Reduce a directory of raw frames.

    Parameters
    ----------
    datadir : path-like, optional
        Raw frames; the current directory if not given.
    imdir : path-like, optional
        Output directory; ``imredux`` if not given.
    start : str, optional
        Begin with this step; what the ones before would make is taken as it is on disk.
    stop : str, optional
        End with this step.
    only, step : str, optional
        Do only this step; `step` takes precedence over `only`.
    nocrclean : bool
        Leave cosmic rays in single frames.
    nomastersky : bool
        Subtract each frame's own median instead of a master sky.
    redo : bool
        Do the steps again even where their files are up to date.
    quiet : bool
        Say only what went wrong.
    rmifiles : bool
        Remove intermediate frames.
    customcat : path-like, optional
        Star catalogue in the text format of autoproc.
    customcatfilt : list of str, optional
        Filters whose magnitudes come from it.
    cores : int, optional
        Processes at once; all cores if not given.
    options : sequence of str
        Further options of Snakemake, as ``["--dry-run"]``.
    **config
        Further keys of config/config.yaml, as ``refcat="none"``.

    Raises
    ------
    AutoprocError
        For an unknown step, with the names of the steps; where the run failed, after it has said
        why.
    """
    settings: Mapping[str, Any] = {
        "datadir": datadir,
        "imdir": imdir,
        "nocrclean": nocrclean,
        "nomastersky": nomastersky,
        "quiet": quiet,
        "rmifiles": rmifiles,
        "customcat": customcat,
        "customcatfilt": customcatfilt,
    }
    settings, redo = with_par_file(settings, redo)
    steps = choose_steps(start, stop, only, step)
    settings, more = elsewhere({**settings, **config})
    command = command_line(steps, settings, redo, cores, [*more, *options])
    if command is None:
        return
    os.environ.update(cache_environment(settings))
    code = run(command)
    if code:
        hint = ""
        if steps[0] != STEPS[0]:
            hint = (
                f"; where it says that input files are missing: '{steps[0]}' takes the files of "
                f"'{STEPS[STEPS.index(steps[0]) - 1]}' and before from disk, so make them first"
            )
        raise AutoprocError(f"the run failed (exit code {code}), see above{hint}")


def choose_steps(
    start: str | None = None,
    stop: str | None = None,
    only: str | None = None,
    step: str | None = None,
) -> tuple[str, ...]:
    """Return the steps to do, in their order.

    Raises
    ------
    AutoprocError
        For a name that is no step, and where `start` comes after `stop`.
    """
    workflow_dir()
    only = step or only
    for name, value in (("start", start), ("stop", stop), ("step", only)):
        if value and value not in STEPS:
            raise AutoprocError(f"{name}: {value!r} is no step, write one of {', '.join(STEPS)}")
    if only:
        return (only,)
    first = STEPS.index(start) if start else 0
    last = STEPS.index(stop) if stop else len(STEPS) - 1
    if first > last:
        raise AutoprocError(
            f"stop: {stop!r} comes before {start!r}, write one of {', '.join(STEPS[first:])}"
        )
    return STEPS[first : last + 1]


def with_par_file(
    settings: Mapping[str, Any], redo: bool, path: str | os.PathLike = PAR_FILE
) -> tuple[Mapping[str, Any], bool]:
    """Return settings and `redo`, completed from `pipeautoproc.par` where they are not given.

    For every key in the file it is told what replaces it.
    """
    if not os.path.isfile(path):
        return settings, redo
    settings = dict(settings)
    for key, value in read_par_file(path).items():
        new = PAR_KEYS.get(key)
        if new is None:
            if value:
                note(f"{path}: {key} is no longer needed, ignored")
            continue
        if not value:
            continue
        if new in ("datadir", "imdir"):
            used = settings[new] is None
            settings[new] = value if used else settings[new]
            text = f"{new}={value}"
            if used and not _is_within(value, Path(path).parent):
                text += f" ({'written' if new == 'imdir' else 'read'} outside of this directory)"
        else:
            wanted = (value == "0") if key == "verbose" else (value != "0")
            used = wanted
            text = "--redo" if new == "redo" else f"{new}=1"
            if new == "redo":
                redo = redo or wanted
            else:
                settings[new] = settings[new] or wanted
        if used:
            where = "the option" if new == "redo" else "in config/config.yaml"
            note(f"{path}: {key} is taken from it; {where} {text} replaces it")
    return settings, redo


def _is_within(path: str, directory: Path) -> bool:
    """Return whether a path, with all its links followed, is below a directory."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def read_par_file(path: str | os.PathLike) -> dict[str, str]:
    """Return the keys and values of a `pipeautoproc.par`: one ``key: value`` a line."""
    found = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            key, colon, value = line.partition(":")
            if colon and not key.strip().startswith("#"):
                found[key.strip()] = value.strip()
    return found


def workflow_dir() -> Path:
    """Return the directory of the Snakefile.

    Raises
    ------
    AutoprocError
        Where this package was installed without it.
    """
    if PIPELINE is None or not (ROOT / "Snakefile").is_file():
        raise AutoprocError(
            f"there is no Snakefile in {ROOT}: install with 'make env', or 'pip install -e .', "
            "in the directory of autoproc"
        )
    return ROOT


def find_scripts() -> None:
    """Let the modules below scripts/ be imported.

    Raises
    ------
    AutoprocError
        As `workflow_dir` does.
    """
    scripts = str(workflow_dir() / "scripts")
    if scripts not in sys.path:
        sys.path.insert(0, scripts)


def all_rules() -> list[str]:
    """Return the names of all rules of the workflow."""
    return [*PIPELINE.collecting, *(rule.name for rule in PIPELINE.rules)]


def command_line(
    steps: Sequence[str],
    settings: Mapping[str, Any],
    redo: bool = False,
    cores: int | None = None,
    options: Sequence[str] = (),
) -> list[str] | None:
    """Return the command line of a run, or None where the steps leave nothing to do.

    Parameters
    ----------
    steps : sequence of str
        As `choose_steps` gives them.
    settings : dict
        Configuration; what is None or False stays as config/config.yaml says.
    redo : bool
    cores : int, optional
    options : sequence of str
        Further options of Snakemake.

    Returns
    -------
    list of str or None
    """
    left_out = PIPELINE.left_out(settings)
    done = [step for step in steps if step not in left_out]
    if not done:
        note(f"{', '.join(steps)}: left out as asked for, nothing to do")
        return None
    # -P: what lies in the working directory, maybe among raw frames, is no module.
    words = [sys.executable, "-P", "-m", "snakemake"]
    words += ["--snakefile", str(workflow_dir() / "Snakefile")]
    if not any(word.split("=")[0] == "--workflow-profile" for word in options):
        # Otherwise Snakemake looks for `default` and `profiles/default` in the working directory,
        # where a profile may run Python.
        words += ["--workflow-profile", str(workflow_dir() / "profiles" / "default")]
    words += ["--cores", "all" if cores is None else str(cores)]
    first = STEPS.index(steps[0])
    if first > 0:
        # The rules of the steps before do not exist: their files have to.
        before = {rule.name for step in PIPELINE.steps[:first] for rule in step.rules}
        words += ["--allowed-rules", *(rule for rule in all_rules() if rule not in before)]
    if steps[-1] != STEPS[-1]:
        words += ["--until", done[-1]]
    if redo:
        # Magnitudes and positions of the reference stars do not change by asking again.
        words += ["--forcerun"]
        words += [
            rule.name
            for step in PIPELINE.steps
            if step.name in done
            for rule in step.rules
            if not rule.network
        ]
    words += options
    given = {key: value for key, value in settings.items() if value not in (None, False, [], ())}
    if given:
        words += ["--config"]
        words += [f"{key}={config_text(value)}" for key, value in given.items()]
    return words


def config_text(value: Any) -> str:
    """Return a value as ``--config`` reads it back: YAML, whatever a path holds.

    Snakemake strips quotes from both ends before it reads YAML: a blank outside keeps them.
    """
    if isinstance(value, (bool, int, float)):
        return str(value)
    if not isinstance(value, (str, os.PathLike)):
        return json.dumps(value, ensure_ascii=False)
    text = os.fspath(value)
    quoted = _in_quotes(text)
    return quoted if PLAIN.fullmatch(text) else f" {quoted} "


def _in_quotes(text: str) -> str:
    """Return a text as a double-quoted scalar of YAML."""

    def escaped(letter: str) -> str:
        if letter in '"\\':
            return f"\\{letter}"
        code = ord(letter)
        if letter.isprintable():
            return letter
        return f"\\x{code:02x}" if code < 256 else f"\\U{code:08x}"

    return '"' + "".join(map(escaped, text)) + '"'


# ---------------------------------------------------------------------------- command


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parse = argparse.ArgumentParser(
        prog="autoproc",
        description="Reduce a directory of raw frames: the arguments of the original autoproc, "
        "translated into one run of Snakemake.",
        epilog=f"Steps, in their order: {', '.join(STEPS)}. What follows -- goes to Snakemake "
        "as it is. Two other commands: 'autoproc new-instrument FRAME...' writes an instrument "
        "file from headers, 'autoproc check-instrument FILE RAW' shows what one makes of frames.",
    )
    add = parse.add_argument
    add("--datadir", help="raw frames [.]")
    add("--imdir", help="output directory [imredux]")
    add("--start", metavar="STEP", help="begin with this step, take what is before from disk")
    add("--stop", metavar="STEP", help="end with this step")
    add("--only", metavar="STEP", help="do only this step")
    add("--step", metavar="STEP", help="the same; takes precedence over --only")
    add("--nocrclean", action="store_true", help="leave cosmic rays in single frames")
    add("--nomastersky", action="store_true", help="subtract each frame's own median")
    add("--redo", action="store_true", help="do the steps again though their files are there")
    add("--quiet", action="store_true", help="say only what went wrong")
    add("--rmifiles", action="store_true", help="remove intermediate frames")
    add("--customcat", metavar="FILE", help="star catalogue in the text format of autoproc")
    add("--customcatfilt", metavar="FILTER", nargs="+", help="filters calibrated with it")
    add("--cores", type=int, help="processes at once [all cores]")
    add(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="further keys of config/config.yaml",
    )
    add("--show", action="store_true", help="show the command line of Snakemake, do nothing")
    add(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const="10",
        help="go on with what arrives in datadir, check every 10 s, until Ctrl-C",
    )
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in instrument.COMMANDS:
        return instrument.main(words)
    cut = words.index("--") if "--" in words else len(words)
    words, options = words[:cut], words[cut + 1 :]
    parse = parser()
    args = vars(parse.parse_args(words))
    show, interval, redo = args.pop("show"), args.pop("watch"), args.pop("redo")
    cores = args.pop("cores")
    try:
        seconds = None if interval is None else _look_interval(interval)
        steps = choose_steps(*(args.pop(name) for name in ("start", "stop", "only", "step")))
        pairs = [pair.partition("=") for pair in args.pop("config")]
        for key, found, _ in pairs:
            if not found:
                raise AutoprocError(f"--config: {key!r} is no KEY=VALUE")
        settings, redo = with_par_file(args, redo)
        paths = {key: value.strip(" \"'") for key, _, value in pairs if key in PATHS}
        given, more = elsewhere({**settings, **paths})
        if more:
            settings, pairs = given, [pair for pair in pairs if pair[0] not in PATHS]
        command = command_line(steps, settings, redo, cores, [*more, *options])
        if command is None:
            return 0
        if pairs:
            # As given: Snakemake reads the values.
            command += [] if "--config" in command else ["--config"]
            command += [f"{key}={value}" for key, _, value in pairs]
        if show:
            print(" ".join(_quoted(word) for word in command))
            return 0
        os.environ.update(cache_environment(given))
        if seconds is not None:
            datadir = settings["datadir"] or "."
            return Watch(lambda: run(command), datadir, seconds, note).go_on()
    except AutoprocError as error:
        note(str(error))
        return 2
    except OSError as error:
        note(f"{error.filename}: {error.strerror}")
        return 2
    code = run(command)
    if code and steps[0] != STEPS[0]:
        before = STEPS[STEPS.index(steps[0]) - 1]
        note(f"{steps[0]!r} takes what {before!r} makes from disk: if it is not there, make it")
    return code


def _look_interval(text: str) -> float:
    try:
        return look_interval(text)
    except ValueError as error:
        raise AutoprocError(str(error)) from error


def _quoted(word):
    import shlex

    return shlex.quote(word)


def note(words: str) -> None:
    """Say something that is no product; where nobody can hear it, as on a full disk, go on."""
    shown = getattr(_load("text"), "shown", ascii)
    with suppress(OSError):
        print(f"autoproc: {shown(words)}", file=sys.stderr, flush=True)
