"""The files and directories that a configuration names, and the claim of a run to its own."""

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
from lib.core.rawfiles import NoRawFolder, places_of
from lib.core.settings import REFERENCE_SOURCES
from lib.core.text import shown
from lib.engine.config import ConfigError, is_instrument_file

DEFAULT_EXCLUDE = "config/exclude.txt"
"""The list of the installation, wherever a run begins; the one list that need not exist."""

INSTALLATION = Path(__file__).resolve().parents[3]

UNSAFE = re.compile(r"[{}\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What Snakemake would take for a wildcard, or cannot hold, in a path."""

PATH_VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>")
"""What Snakemake would take for a variable in the path of an output."""


class NothingToReduce(ConfigError):
    """A directory without a science frame, which may have one later."""

    exit_code = 3


def refuse(error: Exception) -> NoReturn:
    """End the process with one sentence.

    Snakemake would add to an exception where in the rules it was raised.

    Parameters
    ----------
    error : Exception
        Its text is the sentence, its `exit_code` the exit code: 2 where it has none. One that
        tells of several faults has `lines`.
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
    """Write a sentence to the console, beside Snakemake's own output."""
    print(f"autoproc: {shown(sentence)}", file=sys.stderr, flush=True)


def check_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` with its paths in plain form: `~` expanded, no `./`, no `//`.

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
        In one sentence, for the first path that is not there or cannot serve.
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
    for folder in raws.folders:
        _check_imdir(plain["imdir"], folder)
    for key, path in [(key, one) for key, paths in plain.items() for one in _each(paths)]:
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


def _each(paths):
    """The paths of a key that may hold one, several or none."""
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
    """Return what to say of a list in the working directory that is not read; else nothing.

    Nothing there is taken as configuration unless it is named.

    Parameters
    ----------
    config : dict
        With the paths of `check_places`.
    directory : path-like
    """
    path = Path(directory, DEFAULT_EXCLUDE)
    used = Path(config["exclude"])
    if used != INSTALLATION / DEFAULT_EXCLUDE or not path.is_file() or path.resolve() == used:
        return ""
    return f"{path} is not read: write exclude={path.resolve()} to leave out the frames in it"


class Claim:
    """The claim of a run to its `imdir`, so that two runs never work in the same.

    It ends with the process, however that ends: nothing is left to be unlocked after a crash.

    Parameters
    ----------
    imdir : path-like
    """

    def __init__(self, imdir: str | Path) -> None:
        self.path = Path(imdir) / ".run"
        self._file: TextIO | None = None

    def is_free(self) -> bool:
        """Return whether no other run has it now."""
        try:
            with open(self.path, encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # none there, or a file system without locks
            return True
        return True

    def take(self) -> None:
        """Take the claim.

        Raises
        ------
        ConfigError
            Where another run has it.
        """
        # Append mode: whoever has it has written there who it is.
        file = open(self.path, "a+", encoding="utf-8")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Somebody may just have asked whether it is free.
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
        """Give it back; the end of the process does the same."""
        if self._file:
            self._file.close()
            self._file = None


OWN_FOLDERS = ("logs", "qa", "refcat")
"""Folders of `imdir` that only this workflow writes to."""


def sweep(imdir: str | Path) -> list[Path]:
    """Remove the half-written files and the folders of work that a killed process left.

    Only what bears the mark of `lib.core.files` goes, in `imdir` itself and in the folders in it
    that are the workflow's own: whatever else lies there, or in another folder, is the user's.

    Parameters
    ----------
    imdir : path-like
        Claimed: no other run is at work in it.

    Returns
    -------
    list of Path
        What was removed.
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
