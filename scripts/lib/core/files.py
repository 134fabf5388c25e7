"""Files that appear whole or not at all, and folders of work that a killed process may leave."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = re.compile(r"\.autoproc-part-(\d+)\..+", re.DOTALL)
"""Names of files and folders that a process, whose number they bear, has not finished."""

SCRATCH = re.compile(r"autoproc-[a-z]+-[A-Za-z0-9_]{8}")
"""Names of the folders of work in the directory for temporary files."""

OWNER = ".autoproc-owner"
"""File in such a folder, locked as long as its process lives."""

ABANDONED = 60.0
"""[s] Age at which a folder without that file, and empty, is one that was never taken."""


@contextmanager
def neutral_directory() -> Iterator[None]:
    """Work in a directory of this package.

    Some libraries take configuration from the working directory when they are imported
    (``matplotlibrc``, ``.numba_config.yaml``): there, maybe among raw frames, nothing is asked for.
    """
    before = os.getcwd()
    os.chdir(Path(__file__).parent)
    try:
        yield
    finally:
        os.chdir(before)


def folds_case(directory: str | os.PathLike[str]) -> bool:
    """Return whether names in a directory's file system that differ in capitals alone are one."""
    path = Path(directory).absolute()
    other = path.with_name(path.name.swapcase())
    try:
        return other != path and os.path.samefile(path, other)
    except OSError:
        return False


def partial_path(path: str | os.PathLike[str]) -> Path:
    """Return the name beside `path` under which this process makes it."""
    path = Path(path)
    return path.with_name(f".autoproc-part-{os.getpid()}.{path.name}")


@contextmanager
def atomic_path(path: str | os.PathLike[str], wait: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`, renamed to it when the block succeeds.

    Parameters
    ----------
    path : path-like
    wait : bool
        Whether what was written is to be on disk before it has its name: after a power cut there
        is the old file or the new one, never an empty one. For the many frames of a night that
        would take longer than their reduction: the run waits for all of them at its end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = partial_path(path)
    try:
        yield beside
        if wait:
            write_to_disk(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_to_disk(path: str | os.PathLike[str]) -> None:
    """Wait until the content of a file is on disk.

    Raises
    ------
    OSError
        The disk has failed.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # it cannot wait
            raise
    finally:
        os.close(number)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Give a folder of work in the directory for temporary files, gone when the block ends.

    Parameters
    ----------
    purpose : str
        One word in small letters, part of its name.
    """
    with tempfile.TemporaryDirectory(prefix=f"autoproc-{purpose}-") as name:
        # Python does not hand it on to programs: the lock ends with this process alone.
        with open(Path(name, OWNER), "w") as owner:
            _lock(owner.fileno())
            yield Path(name)


def sweep_scratch(directory: str | os.PathLike[str] | None = None) -> list[Path]:
    """Remove the folders of work that killed processes of this user have left.

    Parameters
    ----------
    directory : path-like, optional
        The directory for temporary files if not given.

    Returns
    -------
    list of Path
        What was removed: only folders that hold the file which marks them as ours, and whose
        process has ended; and empty ones of such a name.
    """
    removed = []
    try:
        with os.scandir(directory or tempfile.gettempdir()) as entries:
            found = [one for one in entries if SCRATCH.fullmatch(one.name)]
    except OSError:
        return []
    for entry in found:
        try:
            if entry.is_dir(follow_symlinks=False) and _remove_abandoned(entry):
                removed.append(Path(entry.path))
        except OSError:  # another run is at it, or it is another user's
            continue
    return removed


def _remove_abandoned(entry: os.DirEntry[str]) -> bool:
    """Remove a folder of work whose process has ended; return whether that was so."""
    info = entry.stat(follow_symlinks=False)
    if info.st_uid != os.getuid():
        return False
    try:
        owner = os.open(Path(entry.path, OWNER), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - info.st_mtime < ABANDONED:
            return False
        os.rmdir(entry.path)  # only where it is empty
        return True
    try:
        if not _lock(owner):
            return False
        shutil.rmtree(entry.path)
    finally:
        os.close(owner)
    return True


def _lock(file: int) -> bool:
    """Lock an open file; return whether nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return False
    return True
