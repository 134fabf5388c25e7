"""What a run writes gets onto the disk while it works, and all of it before the run ends.

A product in memory only would be an empty file after a power cut. To wait for each frame takes as
long as a step of it does; so all of a file system is written out, now and then and at the end.
"""

from __future__ import annotations

import ctypes
import os
import threading

INTERVAL = 10.0
"""[s] Between two times: what a power cut may cost."""


class DiskWriter:
    """A thread that writes out the file system of a folder.

    Parameters
    ----------
    folder : path-like
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the end of the process ends it, too."""
        self._thread = threading.Thread(target=self._work, name="disk writer", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Return when all that was written until now is on disk."""
        self._over.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        write_out(self.folder)

    def _work(self) -> None:
        while not self._over.wait(INTERVAL):
            write_out(self.folder)


def write_out(folder: str | os.PathLike[str]) -> None:
    """Wait until all that was written to the file system of a folder is on disk."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone
        return
    try:
        if ctypes.CDLL(None).syncfs(number):
            os.sync()
    except AttributeError:  # not Linux
        os.sync()
    finally:
        os.close(number)
