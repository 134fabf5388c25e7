"""Products are written out to disk during a run, and all of them before it ends.

After a power cut, a product that was only in memory would be an empty file. Waiting for each frame
would take as long as a processing step, so the whole file system is written out periodically and at
the end.
"""

from __future__ import annotations

import ctypes
import os
import threading

INTERVAL = 10.0
"""[s] Interval between two write-outs: the work lost in a power cut."""


class DiskWriter:
    """A thread that periodically writes out the file system of a folder.

    Parameters
    ----------
    folder : path-like
        Folder on the file system.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, which ends with the process."""
        self._thread = threading.Thread(target=self._work, name="disk writer", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Return when everything written until now is on disk."""
        self._over.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        write_out(self.folder)

    def _work(self) -> None:
        while not self._over.wait(INTERVAL):
            write_out(self.folder)


def write_out(folder: str | os.PathLike[str]) -> None:
    """Wait until everything written to the file system of a folder is on disk."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # the folder was removed
        return
    try:
        if ctypes.CDLL(None).syncfs(number):
            os.sync()
    except AttributeError:  # not Linux
        os.sync()
    finally:
        os.close(number)
