"""The one door through which this workflow changes how Snakemake behaves.

Three additions, none of which a run needs: scripts run in forks of a warm worker, the terminal
shows progress by step, and large nights are planned faster. Where this Snakemake has not what an
addition builds on, the run goes on without it, and Snakemake's log says so. ``AUTOPROC_PLAIN=1``
turns all of them off, ``AUTOPROC_WARM=0`` the warm worker alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.core.text import shown_lines

if TYPE_CHECKING:
    from lib.engine.progress import Progress
    from lib.engine.worker import WarmWorker

UNEXPECTED = (
    AttributeError,
    ImportError,
    KeyError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What comes of a Snakemake whose insides differ: a lost addition, not a failed run."""

log = logging.getLogger("snakemake.logging")


class Terminal:
    """What a run says on the terminal, with the progress display or without.

    Parameters
    ----------
    progress : Progress or None
        None leaves the terminal to Snakemake.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress

    def begin(
        self,
        quiet: bool = False,
        earlier: Mapping[str, float] | None = None,
        cores: int = 1,
        room: str = "",
    ) -> None:
        """Take over from Snakemake: jobs are about to run.

        Parameters
        ----------
        quiet : bool
        earlier : dict of str to float, optional
            Seconds of a job of each rule in earlier runs.
        cores : int
        room : str
            What is said of the disk.
        """
        if self.progress:
            self.progress.begin(quiet, earlier, cores, room)

    def durations(self) -> dict[str, float]:
        """Return the seconds of a job of each rule that has run; {} without the display."""
        return self.progress.estimate.means() if self.progress else {}

    def end(self) -> None:
        """Give the terminal back: the run is over."""
        if self.progress:
            self.progress.end()

    def say(self, words: str) -> None:
        """Write lines that stay."""
        words = shown_lines(words)
        if self.progress:
            self.progress.line(words)
        else:
            print(words, file=sys.stderr)


def install(workflow: Any, scripts: str | Path) -> Terminal:
    """Add the warm worker, the progress display and the faster planner to a workflow.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        While its rules are being read, before any other import: the worker starts meanwhile.
    scripts : path-like
        Directory of the rules' scripts.

    Returns
    -------
    Terminal
    """
    if os.environ.get("AUTOPROC_PLAIN", "0") not in ("", "0"):
        return Terminal()
    if os.environ.get("AUTOPROC_WARM") != "0":
        attempt("warm worker", lambda: _attach_worker(workflow, scripts))
    terminal = Terminal(attempt("progress display", lambda: _attach_progress(workflow)))
    for name, patch in _patches(workflow).items():
        attempt(name, patch)
    return terminal


def keep_records(imdir: str | Path) -> None:
    """Let Snakemake judge products by what they are made of, wherever and whenever it is called.

    It keeps its record in `imdir`, and goes on where clocks contradict each other. No speed is
    gained by it, and what is up to date depends on it: ``AUTOPROC_PLAIN=1`` leaves it on.

    Parameters
    ----------
    imdir : path-like
        Directory of the products.
    """
    from lib.engine.clocks import tolerate_clocks
    from lib.engine.made import keep_record_in

    attempt("tolerance of clocks", tolerate_clocks)
    attempt("record in imdir", lambda: keep_record_in(imdir))


def attempt(name: str, addition: Callable[[], Any]) -> Any:
    """Return what an addition gives; None, with a line in the log, where Snakemake differs."""
    try:
        return addition()
    except UNEXPECTED as error:
        log.info("autoproc runs without its %s (%s: %s)", name, type(error).__name__, error)
        return None


def _attach_worker(workflow: Any, scripts: str | Path) -> WarmWorker | None:
    from lib.engine import worker

    return worker.attach(workflow, scripts)


def _attach_progress(workflow: Any) -> Progress | None:
    from lib.engine import progress

    return progress.attach(workflow)


def _patches(workflow: Any) -> dict[str, Callable[[], None]]:
    from lib.engine import patches

    return {
        "tuned garbage collector": patches.tune_garbage_collector,
        "cache of scripts": lambda: patches.cache_source_files(workflow),
    }


def available_cores(workflow: Any, default: int = 2) -> int:
    """Return the cores of a run; `default` for ``--summary`` and others that need none.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    default : int
    """
    from snakemake.exceptions import WorkflowError

    try:
        return workflow.cores or default
    except WorkflowError:
        return default
