"""Translate the arguments of the original autoproc into one run of Snakemake."""

import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoproc import instrument
from autoproc.arguments import completion, parser, raw_folders, settings_given
from autoproc.parfile import with_par_file
from autoproc.places import PATHS, cache_environment, elsewhere
from autoproc.running import run
from autoproc.watch import Watch, look_interval
from autoproc.workflow import PIPELINE, STEPS, AutoprocError, all_rules, note, workflow_dir

PLAIN = re.compile(
    r"(?!(nan|inf|infinity|true|false)$)(?=.*[^\W\de]|.*/)[\w./~+]([\w./~+ =-]*[\w./~+=-])?", re.I
)
"""Texts that Snakemake takes for no number, and YAML for what they are."""


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
        Raw frames; by default the current directory. For several nights a pattern such as
        ``raw/2022*``, or a list.
    imdir : path-like, optional
        Output directory; by default ``imredux``.
    start : str, optional
        First step; the products of previous steps are taken from disk.
    stop : str, optional
        Last step.
    only, step : str, optional
        The only step; `step` takes precedence over `only`.
    nocrclean : bool
        Leave cosmic rays in single frames.
    nomastersky : bool
        Subtract each frame's own median instead of a master sky.
    redo : bool
        Repeat the steps even if their files are up to date.
    quiet : bool
        Report only errors.
    rmifiles : bool
        Remove intermediate frames.
    customcat : path-like, optional
        Star catalogue in the text format of autoproc.
    customcatfilt : list of str, optional
        Filters for which it is used.
    cores : int, optional
        Number of parallel processes; by default all cores.
    options : sequence of str
        Further options of Snakemake, e.g. ``["--dry-run"]``.
    **config
        Further keys of config/config.yaml, e.g. ``refcat="none"``.

    Raises
    ------
    AutoprocError
        A step is unknown (the message lists the steps), or the run failed, after reporting why.
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
    """Return the steps to do, in order.

    Raises
    ------
    AutoprocError
        A name is not a step, or `start` comes after `stop`.
    """
    workflow_dir()
    only = step or only
    for name, value in (("start", start), ("stop", stop), ("step", only)):
        if value and value not in STEPS:
            near = difflib.get_close_matches(value.lower(), STEPS, n=1)
            meant = f"did you mean {near[0]!r}? The steps are" if near else "write one of"
            raise AutoprocError(f"{name}: {value!r} is no step, {meant} {', '.join(STEPS)}")
    if only:
        return (only,)
    first = STEPS.index(start) if start else 0
    last = STEPS.index(stop) if stop else len(STEPS) - 1
    if first > last:
        raise AutoprocError(
            f"stop: {stop!r} comes before {start!r}, write one of {', '.join(STEPS[first:])}"
        )
    return STEPS[first : last + 1]


def command_line(
    steps: Sequence[str],
    settings: Mapping[str, Any],
    redo: bool = False,
    cores: int | None = None,
    options: Sequence[str] = (),
) -> list[str] | None:
    """Return the command line of a run; None if the steps leave nothing to do.

    Parameters
    ----------
    steps : sequence of str
        Steps from `choose_steps`.
    settings : dict
        Configuration; None and False leave the values of config/config.yaml.
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
    # -P: do not import modules from the working directory, which may hold raw frames.
    words = [sys.executable, "-P", str(Path(__file__).with_name("snake.py"))]
    words += ["--snakefile", str(workflow_dir() / "Snakefile")]
    if not any(word.split("=")[0] == "--workflow-profile" for word in options):
        # Otherwise Snakemake looks for `default` and `profiles/default` in the working directory,
        # where a profile may run Python. Given as options, it is not told of at each run.
        words += ["--workflow-profile", "none", *profile_options()]
    words += ["--cores", "all" if cores is None else str(cores)]
    first = STEPS.index(steps[0])
    if first > 0:
        # The rules of previous steps are not allowed: their files must exist.
        before = {rule.name for step in PIPELINE.steps[:first] for rule in step.rules}
        words += ["--allowed-rules", *(rule for rule in all_rules() if rule not in before)]
    if not PIPELINE.is_last(done[-1], left_out):
        last = next(step for step in PIPELINE.steps if step.name == done[-1])
        words += ["--until", *(rule.name for rule in last.rules[last.rules.index(last.main) :])]
    if redo:
        # The reference stars do not change if queried again.
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


def profile_options() -> list[str]:
    """Return the content of the installation's profile as options of Snakemake."""
    import yaml

    words = []
    text = (workflow_dir() / "profiles/default/config.yaml").read_text(encoding="utf-8")
    for key, value in yaml.safe_load(text).items():
        if value is True:
            words += [f"--{key}"]
        elif value is not False:
            words += [f"--{key}", str(value)]
    return words


def config_text(value: Any) -> str:
    """Return a value as ``--config`` reads it: YAML, whatever characters a path has.

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in instrument.COMMANDS:
        return instrument.main(words)
    cut = words.index("--") if "--" in words else len(words)
    words, options = words[:cut], words[cut + 1 :]
    args = vars(parser().parse_args(words))
    show, interval, redo = args.pop("show"), args.pop("watch"), args.pop("redo")
    cores, shell = args.pop("cores"), args.pop("print_completion")
    try:
        if shell:
            print(completion(shell))
            return 0
        seconds = None if interval is None else _look_interval(interval)
        steps = choose_steps(*(args.pop(name) for name in ("start", "stop", "only", "step")))
        raw_folders(args)
        pairs = settings_given(args.pop("config"))
        settings, redo = with_par_file(args, redo)
        paths = {key: value.strip(" \"'") for key, value in pairs.items() if key in PATHS}
        given, more = elsewhere({**settings, **paths})
        if more:
            settings = given
            pairs = {key: value for key, value in pairs.items() if key not in PATHS}
        command = command_line(steps, settings, redo, cores, [*more, *options])
        if command is None:
            return 0
        if pairs:
            # As given: Snakemake reads the values.
            command += [] if "--config" in command else ["--config"]
            command += [f"{key}={value}" for key, value in pairs.items()]
        if show:
            print(shlex.join(command))
            return 0
        os.environ.update(cache_environment(given))
        if seconds is not None:
            datadir = settings["datadir"] or "."
            deep = any(f"recursive={word}" in command for word in ("1", "true", "True", "yes"))
            return Watch(lambda: run(command), datadir, seconds, note, deep).go_on()
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
