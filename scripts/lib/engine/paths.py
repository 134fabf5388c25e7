"""Files and directories named by the configuration, and the claim of a run to its `imdir`."""

import atexit
import difflib
import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lib.core.files import PARTIAL, sweep_scratch
from lib.core.pipeline import PIPELINE
from lib.core.rawfiles import NoRawFolder, places_of
from lib.core.settings import REFERENCE_SOURCES
from lib.core.text import shown
from lib.engine.config import ConfigError, is_instrument_file
from lib.night.templates import OWN, SURVEYS

DEFAULT_EXCLUDE = "config/exclude.txt"
"""The list of the installation, whatever the working directory; the only list that may be
missing."""

INSTALLATION = Path(__file__).resolve().parents[3]

UNSAFE = re.compile(r"[{}\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that Snakemake would take for a wildcard, or cannot have in a path."""

PATH_VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>")
"""Text that Snakemake would take for a variable in the path of an output."""


class NothingToReduce(ConfigError):
    """A directory without science frames, which may still get some."""

    exit_code = 3


def refuse(error: Exception) -> NoReturn:
    """End the process with one sentence.

    For an exception, Snakemake would add where in the rules it was raised.

    Parameters
    ----------
    error : Exception
        Its text is the sentence; its `exit_code`, if any, the exit code (default 2); `lines`, if
        any, are several faults.
    """
    sentence = str(error)
    if isinstance(error, OSError) and error.filename:
        sentence = f"{error.filename}: {error.strerror}"
    first, *more = getattr(error, "lines", [sentence])
    tell(first)
    for line in more:
        print(shown(line), file=sys.stderr, flush=True)
    sys.exit(getattr(error, "exit_code", 2))


def tell(sentence: str) -> None:
    """Write a sentence to the console, in addition to Snakemake's output."""
    print(f"autoproc: {shown(sentence)}", file=sys.stderr, flush=True)


def check_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths of `config` normalised: `~` expanded, without `./` and `//`.

    Parameters
    ----------
    config : dict
        Checked by `lib.engine.config.check_config`.

    Returns
    -------
    dict
        The keys whose values are paths.

    Raises
    ------
    ConfigError
        The first path that does not exist or cannot be used, in one sentence.
    """
    plain = {
        key: _plain(config.get(key))
        for key in ("datadir", "imdir", "masters", "customcat", "targets")
    }
    try:
        raws = places_of({**config, **plain})
    except NoRawFolder as error:
        raise ConfigError(str(error)) from None
    own = config["exclude"] != DEFAULT_EXCLUDE
    plain["exclude"] = _plain(config["exclude"]) if own else str(INSTALLATION / DEFAULT_EXCLUDE)
    refcat = config["refcat"]
    if refcat not in REFERENCE_SOURCES:
        plain["refcat"] = _plain(refcat)
        near = difflib.get_close_matches(str(refcat), REFERENCE_SOURCES, 1)
        _check_file("refcat", plain["refcat"], f", did you mean '{near[0]}'?" if near else "")
    if is_instrument_file(config["instrument"]):
        plain["instrument"] = _plain(config["instrument"])
        _check_file("instrument", plain["instrument"])
    for one in _each(plain["masters"]):
        if not os.path.isdir(one):
            raise ConfigError(f"masters: there is no directory {one}")
    if plain["customcat"]:
        _check_file("customcat", plain["customcat"])
    if plain["targets"]:
        _check_file("targets", plain["targets"])
    if own and plain["exclude"]:
        _check_file("exclude", plain["exclude"])
    plain |= _check_templates(config)
    for folder in raws.folders:
        _check_imdir(plain["imdir"], folder)
    strings = {key: paths for key, paths in plain.items() if key not in ("template", "difference")}
    for key, path in [(key, one) for key, paths in strings.items() for one in _each(paths)]:
        if UNSAFE.search(path):
            raise ConfigError(
                f"{key}: {path!r} holds a brace, a control character or no UTF-8, take another name"
            )
    if found := PATH_VARIABLE.search(plain["imdir"]):
        raise ConfigError(
            f"imdir: Snakemake takes {found.group()} in {plain['imdir']!r} for a variable, take "
            "another name"
        )
    return plain


def _check_templates(config):
    """The keys `template` and `difference` with plain paths; those without fields must be there."""
    if not config.get("template"):
        return {}
    known, images = (_plain(config["difference"][key]) for key in ("known", "images"))
    if known:
        _check_file("difference.known", known)
    if images and not os.path.isdir(images):
        raise ConfigError(f"difference.images: there is no directory {images}")

    def checked(value):
        if not value or value == OWN or value in SURVEYS:
            return value
        path = _plain(value)
        if "{" not in path and not os.path.exists(path):
            raise ConfigError(
                f"template: there is no file or directory {path}; write own for an earlier "
                f"coadd, or {', '.join(SURVEYS)}"
            )
        return path

    template = config["template"]
    if isinstance(template, Mapping):
        template = {key: checked(value) for key, value in template.items()}
    else:
        template = checked(template)
    return {
        "template": template,
        "difference": {**config["difference"], "known": known, "images": images},
    }


def _each(paths):
    """Return the paths of a key that may have one, several or none."""
    if not paths:
        return []
    return list(paths) if isinstance(paths, (list, tuple)) else [paths]


def _plain(path):
    if not path:
        return path
    if isinstance(path, (list, tuple)):
        return [_plain(one) for one in path]
    return os.path.normpath(os.path.expanduser(str(path)))


def _check_file(key, path, hint=""):
    if not os.path.isfile(path):
        raise ConfigError(f"{key}: there is no file {path}{hint}")


def _check_imdir(imdir, datadir):
    if not os.path.exists(imdir):
        return
    if not os.path.isdir(imdir):
        raise ConfigError(f"imdir: {imdir} is a file, write the name of a directory")
    if os.path.samefile(imdir, datadir):
        raise ConfigError(
            f"imdir: {imdir} is datadir, where nothing is ever written: name another directory"
        )


def unasked_exclude(config: Mapping[str, Any], directory: str | Path = ".") -> str:
    """Return a remark on an exclude list in the working directory that is not read; else ''.

    Files in the working directory are used as configuration only if they are named.

    Parameters
    ----------
    config : dict
        Configuration, with the paths from `check_places`.
    directory : path-like
        The working directory.
    """
    path = Path(directory, DEFAULT_EXCLUDE)
    used = Path(config["exclude"])
    if used != INSTALLATION / DEFAULT_EXCLUDE or not path.is_file() or path.resolve() == used:
        return ""
    return f"{path} is not read: write exclude={path.resolve()} to leave out the frames in it"


class Claim:
    """The claim of a run to its `imdir`, so that two runs never use the same one.

    It ends with the process, in whatever way that ends: nothing needs to be unlocked after a crash.

    Parameters
    ----------
    imdir : path-like
    """

    def __init__(self, imdir: str | Path) -> None:
        self.path = Path(imdir) / ".run"
        self._file: TextIO | None = None

    def is_free(self) -> bool:
        """Return whether no other run has claimed it now."""
        try:
            with open(self.path, encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no such file, or a file system without locks
            return True
        return True

    def take(self) -> None:
        """Claim the directory.

        Raises
        ------
        ConfigError
            Another run has claimed it.
        """
        # Append mode keeps the words of the run that has claimed it.
        file = open(self.path, "a+", encoding="utf-8")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Another process may just be asking whether it is free.
                time.sleep(0.2)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            file.close()
            raise ConfigError(
                f"imdir: another run is at work in {self.path.parent} (process {who}): "
                "wait for its end, or give another imdir"
            ) from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Release the claim; the end of the process does the same."""
        if self._file:
            self._file.close()
            self._file = None


def work_as_remote_job(workflow: Any) -> None:
    """Do the work of a cluster's job in this process, and sweep its node before and after.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    """
    # Else each of a job's frames would be handed on to a whole Snakemake of its own.
    workflow.localrules(*PIPELINE.local_rules)
    # What killed jobs have left on this node: the run that began them sees only its own.
    sweep_scratch()
    atexit.register(sweep_scratch)


OWN_FOLDERS = ("logs", "qa", "refcat")
"""Folders of `imdir` to which only this workflow writes."""


def sweep(imdir: str | Path) -> list[Path]:
    """Remove half-written files and working directories left by a killed process.

    Only files with the mark of `lib.core.files` are removed, in `imdir` itself and in the
    workflow's own folders in it: anything else is the user's.

    Parameters
    ----------
    imdir : path-like
        Directory of the products, claimed: no other run is working in it.

    Returns
    -------
    list of Path
        The files removed.
    """
    removed = sweep_scratch()
    for place in [imdir, *(Path(imdir, name) for name in OWN_FOLDERS)]:
        for folder, folders, names in os.walk(place):
            for name in [*folders, *names]:
                found = PARTIAL.fullmatch(name)
                if not found or _alive(int(found.group(1))):
                    continue
                path = Path(folder, name)
                if name in folders and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                removed.append(path)
            folders[:] = [] if place == imdir else [one for one in folders if "." != one[0]]
    return removed


def _alive(pid):
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
