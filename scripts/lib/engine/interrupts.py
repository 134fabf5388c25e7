"""Orderly end of Snakemake, jobs first and without traceback, on Ctrl-C or a closed terminal."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

EXIT_CODE = 128 + signal.SIGINT

PROGRAMS = ("snakemake", "__main__.py")
"""Names of Snakemake when started as a program of its own."""

_asked = threading.Event()


def end_in_order() -> None:
    """Let SIGINT and SIGHUP end this process through `sys.exit`, which Snakemake handles."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            with suppress(ValueError):  # outside the main thread
                signal.signal(number, _end)


def ignore_at_the_end() -> None:
    """Ignore both signals: all is done, and the process is ending."""
    if Path(sys.argv[0]).name not in PROGRAMS:
        return
    for number in (signal.SIGINT, signal.SIGHUP):
        with suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


def was_asked_to_end() -> bool:
    """Tell whether this process has had one of the two: its jobs have it, too, and do not fail."""
    return _asked.is_set()


def _end(number: int, frame: FrameType | None) -> None:
    _asked.set()
    sys.exit(EXIT_CODE)
