"""Locations and names of the raw files of a night or of a season.

This module imports the standard library only: ``autoproc --watch`` reads it outside of the
workflow.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".gz")
"""Endings of the names of raw files, in small letters."""


class NoRawFolder(FileNotFoundError):
    """No directory that a key of the configuration means; its text is a sentence."""


@dataclass(frozen=True)
class RawPlaces:
    """The directories of raw files of a run.

    Parameters
    ----------
    root : str
        Directory to which the names of raw files are relative.
    folders : tuple of str
        Paths of the directories that are searched.
    recursive : bool
        Whether the directories below them are searched, too.
    leave_out : str
        A directory that is not searched: that of the products.
    """

    root: str
    folders: tuple[str, ...]
    recursive: bool = False
    leave_out: str = ""

    def names(self) -> list[str]:
        """Return the names of the raw files below `root`, sorted.

        Raises
        ------
        OSError
            A directory that was asked for cannot be read; one below it that cannot is passed over.
        """
        found: set[str] = set()
        for folder in self.folders:
            below = os.path.relpath(folder, self.root)
            start = "" if below == os.curdir else f"{below}/"
            found.update(start + name for name in self._names_in(folder))
        return sorted(found)

    def _names_in(self, folder: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if is_raw_name(entry.name))
        if not self.recursive:
            return
        products = os.path.realpath(self.leave_out) if self.leave_out else None
        seen = {os.path.realpath(folder)}
        for place, folders, names in os.walk(folder, followlinks=True):
            if place != folder:
                start = os.path.relpath(place, folder)
                yield from (f"{start}/{name}" for name in names if is_raw_name(name))
            kept = []
            for one in sorted(folders):
                real = os.path.realpath(os.path.join(place, one))
                if one[0] != "." and real != products and real not in seen:
                    seen.add(real)
                    kept.append(one)
            folders[:] = kept


def is_raw_name(name: str) -> bool:
    """Return whether a file's name is that of a raw file."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def raw_places(
    datadir: str | os.PathLike[str] | Sequence[str],
    recursive: bool = False,
    leave_out: str | os.PathLike[str] = "",
) -> RawPlaces:
    """Return the directories that `datadir` means.

    Parameters
    ----------
    datadir : path-like or sequence of str
        A directory; a pattern of directories such as ``raw/2022*/``; or several of these.
    recursive : bool
        Whether to search the directories below them, too.
    leave_out : path-like
        Directory of the products, which is not searched.

    Returns
    -------
    RawPlaces
        Of one directory, names start from it; of a pattern, from what stands before its first
        wildcard; of several, from what these have in common.

    Raises
    ------
    NoRawFolder
        There is no such directory.
    """
    found = [_meant(word) for word in listed(datadir)]
    roots = [root for root, _ in found]
    root = roots[0]
    if len(set(roots)) > 1:
        if len({os.path.isabs(one) for one in roots}) > 1:
            roots = [os.path.abspath(one) for one in roots]
        root = os.path.commonpath(roots) or os.curdir
    folders = dict.fromkeys(folder for _, several in found for folder in several)
    return RawPlaces(root, tuple(folders), recursive, os.fspath(leave_out))


def places_of(config: Mapping[str, Any]) -> RawPlaces:
    """Return where the raw files of a configuration lie."""
    return raw_places(config["datadir"], config.get("recursive", False), config.get("imdir", ""))


def raw_root(config: Mapping[str, Any]) -> str:
    """Return the directory to which names of raw files are relative, even if files are gone."""
    try:
        return places_of(config).root
    except NoRawFolder:
        return listed(config["datadir"])[0]


def listed(paths: str | os.PathLike[str] | Iterable[str] | None) -> list[str]:
    """Return the paths of a key or a named input, which may be none, one or several."""
    if not paths:
        return []
    return [os.fspath(paths)] if isinstance(paths, (str, os.PathLike)) else list(paths)


def _meant(word: str) -> tuple[str, list[str]]:
    """Return what names start from, and the directories that a path or pattern means."""
    plain = os.path.normpath(word)
    if os.path.isdir(plain) or not glob.has_magic(plain):
        if not os.path.isdir(plain):
            raise NoRawFolder(f"datadir: there is no directory {plain}")
        return plain, [plain]
    folders = sorted(path for path in glob.glob(plain, recursive=True) if os.path.isdir(path))
    if not folders:
        raise NoRawFolder(f"datadir: no directory fits {plain}")
    parts = plain.split(os.sep)
    fixed = parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))]
    root = os.sep.join(fixed) or (os.sep if plain.startswith(os.sep) else os.curdir)
    return root, folders
