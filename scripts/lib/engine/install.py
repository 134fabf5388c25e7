"""The single place where this workflow changes the behaviour of Snakemake.

There are three additions, none of which is essential: scripts run in forks of a warm worker, the
terminal shows progress by step, and large nights are planned faster. Where this version of
Snakemake lacks what an addition requires, the run continues without it and Snakemake's log says so.
``AUTOPROC_PLAIN=1`` turns all of them off, ``AUTOPROC_WARM=0`` only the warm worker.
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
"""Exceptions caused by a Snakemake with different internals: they cost an addition, not the run."""

log = logging.getLogger("snakemake.logging")


class Terminal:
    """The terminal output of a run, with or without the progress display.

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
        """Take over the terminal from Snakemake: jobs are about to run.

        Parameters
        ----------
        quiet : bool
            Whether to report only errors.
        earlier : dict of str to float, optional
            Rule -> time of a job in earlier runs [s].
        cores : int
            Number of cores of the run.
        room : str
            Words about the disk space.
        """
        if self.progress:
            self.progress.begin(quiet, earlier, cores, room)

    def durations(self) -> dict[str, float]:
        """Return the mean time of a job of each rule that has run [s]; {} without the display."""
        return self.progress.estimate.means() if self.progress else {}

    def end(self) -> None:
        """Return the terminal to Snakemake: the run is over."""
        if self.progress:
            self.progress.end()

    def say(self, words: str) -> None:
        """Write permanent lines."""
        words = shown_lines(words)
        if self.progress:
            self.progress.line(words)
        else:
            print(words, file=sys.stderr)


def install(workflow: Any, scripts: str | Path) -> Terminal:
    """Add the warm worker, the progress display and the faster planning to a workflow.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        The workflow, while its rules are being read and before other imports, so that the worker
        starts in parallel.
    scripts : path-like
        Directory of the rules' scripts.

    Returns
    -------
    Terminal
        The terminal output of the run.
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
    """Let Snakemake decide what is up to date independently of working directory and clock.

    Its records are kept in `imdir`, and contradicting clocks are tolerated. This changes what is up
    to date, not speed, so that ``AUTOPROC_PLAIN=1`` leaves it on.

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
    """Return the result of an addition; None, with a line in the log, where Snakemake differs."""
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
    """Return the cores of a run; `default` for ``--summary`` and other commands without cores.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        The workflow.
    default : int
        Number returned where the command line gives none.
    """
    from snakemake.exceptions import WorkflowError

    try:
        return workflow.cores or default
    except WorkflowError:
        return default
