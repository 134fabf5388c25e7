"""The arguments of the command `autoproc`."""

import argparse
import json
import re
from collections.abc import Iterable
from typing import Any

from autoproc.workflow import STEPS, AutoprocError

DOTTED = re.compile(r"\w+(\.\w+)+")
"""A key of a section, as in ``stack.combine``."""


def parser(completing: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Parameters
    ----------
    completing : bool
        Whether the parser is for completion by a shell, which offers the steps. Otherwise
        `choose_steps` validates them, with suggestions for misspelt names.
    """
    from autoproc import __version__

    parse = argparse.ArgumentParser(
        prog="autoproc",
        description="Reduce raw frames to calibrated stacks, zero points, source tables, light "
        "curves and a page about the night.",
        epilog=f"Steps, in their order: {', '.join(STEPS)}. What follows -- goes to Snakemake "
        "as it is. Two other commands: 'autoproc new-instrument FRAME...' writes an instrument "
        "file from headers, 'autoproc check-instrument FILE RAW' shows what one makes of frames.",
    )
    add = parse.add_argument
    steps: dict[str, Any] = {"metavar": "STEP"}
    if completing:
        steps["choices"] = STEPS
    add("raw", metavar="RAW", nargs="*", help="folder of raw frames [.]")
    add("-o", "--out", "--imdir", dest="imdir", metavar="DIR", help="products [imredux]")
    add("--instrument", metavar="NAME|FILE", help="[auto: detected from the headers]")
    add("--refcat", metavar="FILE", help="reference stars: online, offline, none, a table [online]")
    add("--datadir", metavar="RAW", help="the same as RAW, as in the original")
    add("--start", help="begin with this step, take what is before from disk", **steps)
    add("--stop", help="end with this step", **steps)
    add("--only", help="do only this step", **steps)
    add("--step", help="the same; takes precedence over --only", **steps)
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
        help="further keys of config/config.yaml, those of a section as stack.combine=weighted",
    )
    add("--show", action="store_true", help="show the command line of Snakemake, do nothing")
    add(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const="10",
        help="go on with what arrives in RAW, check every 10 s, until Ctrl-C",
    )
    add("--version", action="version", version=f"autoproc {__version__}")
    add(
        "--print-completion",
        metavar="SHELL",
        help="print what a shell (bash, zsh, fish) needs to complete the arguments by tab",
    )
    return parse


def completion(shell: str) -> str:
    """Return the script with which a shell completes the arguments of the command.

    Parameters
    ----------
    shell : str

    Raises
    ------
    AutoprocError
        The shell is not supported.
    """
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise AutoprocError(
            f"--print-completion: {shell!r} is no shell known, write one of {known}"
        )
    parse = parser(completing=True)
    kinds = {
        "raw": shtab.DIRECTORY,
        "datadir": shtab.DIRECTORY,
        "imdir": shtab.DIRECTORY,
        "instrument": shtab.FILE,
        "refcat": shtab.FILE,
        "customcat": shtab.FILE,
    }
    for action in parse._actions:
        if kind := kinds.get(action.dest):
            action.complete = kind  # type: ignore[attr-defined]
    return shtab.complete(parse, shell)


def raw_folders(args: dict[str, Any]) -> None:
    """Store the folders of raw frames in ``datadir``, in whichever way they were given.

    Parameters
    ----------
    args : dict
        Arguments of the command line; ``raw`` is removed.

    Raises
    ------
    AutoprocError
        They are given in both ways.
    """
    raw = args.pop("raw")
    if not raw:
        return
    if args["datadir"] is not None:
        raise AutoprocError(
            f"raw frames are both in {raw[0]!r} and in --datadir {args['datadir']!r}: write one"
        )
    args["datadir"] = raw[0] if len(raw) == 1 else raw


def settings_given(pairs: Iterable[str]) -> dict[str, str]:
    """Return keys of the configuration with their values as Snakemake reads them.

    Keys of one section, written with a dot, become the one value that Snakemake expects:
    ``stack.combine=median stack.memory=2`` is ``stack={"combine": "median", "memory": 2}``.

    Parameters
    ----------
    pairs : iterable of str
        Each ``KEY=VALUE``.

    Raises
    ------
    AutoprocError
        A pair is malformed, or a section is given both as a whole and in part.
    """
    given: dict[str, str] = {}
    sections: dict[str, Any] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise AutoprocError(
                f"--config: {pair!r} is no KEY=VALUE (the folder of raw frames comes before it)"
            )
        if DOTTED.fullmatch(key):
            *outer, last = key.split(".")
            inner = sections
            for name in outer:
                inner = inner.setdefault(name, {})
                if not isinstance(inner, dict):
                    raise AutoprocError(f"--config: {key!r} is below a key with a value")
            inner[last] = _value(value)
        else:
            given[key] = value
    for name, section in sections.items():
        if name in given:
            raise AutoprocError(f"--config: {name!r} is given both whole and in part")
        given[name] = json.dumps(section, ensure_ascii=False)
    return given


def _value(text: str) -> Any:
    """Return a value as Snakemake reads those of a section: texts, in lists where it says so."""
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (texts and lists alone)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise AutoprocError(f"--config: {text!r} is no YAML ({problem})") from error
