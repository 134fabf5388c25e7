"""Where a run may write, whoever calls it from wherever: a directory or a home may be read-only."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATHS = ("datadir", "imdir", "customcat", "masters", "exclude", "refcat", "instrument",
         "refcat_cache")  # fmt: skip
"""Keys of the configuration whose values may be paths."""

NO_PATHS = {"refcat": ("online", "offline", "none")}

DEFAULTS = {"datadir": ".", "imdir": "imredux"}

CACHES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
"""Where Snakemake, astropy and matplotlib keep what they need again, if not at home."""


def writable(folder: str | os.PathLike) -> bool:
    """Return whether files can be made in a directory, by making one that has no name."""
    try:
        with tempfile.TemporaryFile(dir=str(folder)):
            return True
    except OSError:
        return False


def elsewhere(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return settings and options of Snakemake for a working directory that cannot be written.

    Snakemake works in `imdir` then, and all paths are absolute.

    Parameters
    ----------
    settings : dict
        Configuration.

    Returns
    -------
    settings : dict
        As they are where the working directory can be written.
    options : list of str

    Raises
    ------
    OSError
        Where `imdir` cannot be written either.
    """
    here = Path(".snakemake")
    if writable(here if here.is_dir() else "."):
        return dict(settings), []
    given = dict(settings)
    for key in PATHS:
        value = given.get(key) or DEFAULTS.get(key)
        if isinstance(value, (str, os.PathLike)) and _is_path(key, os.fspath(value)):
            given[key] = os.path.abspath(os.path.expanduser(value))
        elif isinstance(value, (list, tuple)):
            given[key] = [os.path.abspath(os.path.expanduser(one)) for one in value]
    os.makedirs(given["imdir"], exist_ok=True)
    return given, ["--directory", given["imdir"]]


def _is_path(key: str, value: str) -> bool:
    if key == "instrument":
        return value.endswith((".yaml", ".yml"))
    return value not in NO_PATHS.get(key, ())


def cache_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that keep caches in `imdir` where the home directory takes none.

    Parameters
    ----------
    settings : dict
        Configuration.

    Returns
    -------
    dict of str to str
        Empty where all is as usual.
    """
    try:
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        usual.mkdir(parents=True, exist_ok=True)
        if writable(usual):
            return {}
    except (OSError, RuntimeError):  # a home that is none
        pass
    datadir, imdir = (settings.get(key) or DEFAULTS[key] for key in DEFAULTS)
    raws = datadir if isinstance(datadir, (list, tuple)) else [datadir]
    own = Path(os.path.abspath(imdir), ".cache")
    try:
        if os.path.realpath(imdir) in map(os.path.realpath, raws):  # nothing is written there
            return {}
        own.mkdir(parents=True, exist_ok=True)
    except OSError:  # the run says what is wrong with it
        return {}
    return dict.fromkeys(CACHES, str(own))
