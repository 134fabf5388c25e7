"""What a run says on the terminal: a line for each step with its count and the time left.

A handler of Snakemake's logger that takes the place of its own output on the terminal; its log file
below .snakemake/log keeps everything. It is attached by the workflow itself, so that plain
``snakemake`` has it without a logger plugin being installed. A record that it does not understand
ends it, and Snakemake's own output goes on.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lib.core.pipeline import PIPELINE

SNAKEMAKE_LOGGER = "snakemake.logging"

BEFORE_START = ("run_info", "resources_info", "workflow_started")
"""Events that come before a run is known to be one, and say nothing to an observer."""

NOISE = ("Building DAG", "Using shell", "Assuming unrestricted", "Conda environments",
         "Singularity containers", "Rules claiming more threads", "Updating", "host:",
         "Config file")  # fmt: skip
"""Beginnings of messages without event that come before it, and say as little."""

QUIET_CHOICES = {"all", "progress"}

REDRAW_INTERVAL = 0.3
"""Seconds between two drawings of the line on a terminal."""

PLAIN_INTERVAL = 30.0
"""Seconds between lines of a run whose output is no terminal."""

NOT_STEPS = {*PIPELINE.collecting, "total"}


class Estimate:
    """Guess of the time that is left, from how long jobs of each rule took.

    Parameters
    ----------
    counts : dict of str to int
        Jobs of each rule.
    earlier : dict of str to float, optional
        Seconds of a job of each rule in earlier runs.
    """

    def __init__(
        self, counts: Mapping[str, int], earlier: Mapping[str, float] | None = None
    ) -> None:
        self.counts = dict(counts)
        self.earlier = dict(earlier or {})
        self.done: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def finish(self, rule: str, seconds: float) -> None:
        """Record how many seconds a job of a rule took."""
        self.done[rule] += 1
        self.seconds[rule] = self.seconds.get(rule, 0.0) + seconds

    def means(self) -> dict[str, float]:
        """Return the seconds of a job of each rule that has run."""
        return {rule: self.seconds[rule] / count for rule, count in self.done.items()}

    def left(self, elapsed: float, running: float = 0.0) -> float | None:
        """Return the seconds left, or None where nothing can be said yet.

        The work left is what jobs of the same rule took so far; of a rule without any, what they
        took in earlier runs, as much faster or slower as the others are now, or else what all
        jobs took. It goes on as much in parallel as it went so far.

        Parameters
        ----------
        elapsed : float
            Seconds since the first job began.
        running : float
            Seconds that the jobs now at work have spent, summed.
        """
        finished, spent = sum(self.done.values()), sum(self.seconds.values())
        if not finished or not spent or elapsed <= 0:
            return None
        means = self.means()
        known = [rule for rule in means if self.earlier.get(rule)]
        before = sum(self.earlier[rule] * self.done[rule] for rule in known)
        # The first jobs tell little of all: until a fifth is done, earlier runs count as well.
        trust = sum(n * self.earlier.get(rule, 0.0) for rule, n in self.counts.items()) / 5
        now = sum(self.seconds[rule] for rule in known)
        pace = (now + trust) / (before + trust) if before else 1.0
        work = 0.0
        for rule, count in self.counts.items():
            guess = pace * self.earlier[rule] if rule in self.earlier else spent / finished
            work += max(0, count - self.done[rule]) * means.get(rule, guess)
        return max(0.0, work - running) * elapsed / (spent + running)

    def whole(self, cores: int) -> float | None:
        """Return the seconds of the run as earlier runs went; None where a rule is unknown."""
        if not self.counts or not set(self.counts) <= set(self.earlier):
            return None
        return sum(self.earlier[rule] * count for rule, count in self.counts.items()) / cores


def in_words(seconds: float) -> str:
    """Return a time left in words, as exact as it deserves."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def event_of(record: logging.LogRecord) -> str | None:
    """Return the kind of a record of Snakemake's, as ``"job_info"``; None for a plain message."""
    event = getattr(record, "event", None)
    return None if event is None else str(event).lower()


class Progress(logging.Handler):
    """Handler that shows how a run goes on.

    Parameters
    ----------
    stream : text file, optional
        Standard error.
    quiet : bool
        Say only what went wrong.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        super().__init__()
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.begun = False
        self.broken = False
        self.estimate = Estimate({})
        self.running: dict[int, tuple[str, float]] = {}
        self.first: float | None = None
        self.spans: dict[str, list[float]] = {}
        self.shown: float | None = None
        self.ended = threading.Event()
        self.live = False
        self.guard = threading.RLock()

    @property
    def terminal(self) -> bool:
        """Whether the stream is a terminal on which a line can be written over."""
        return self.stream.isatty()

    def takes(self, record: logging.LogRecord) -> bool:
        """Return whether Snakemake's own output is to be silent about a record."""
        if self.broken:
            return False
        if self.begun:
            return True
        event = event_of(record)
        if event in BEFORE_START:
            return True
        return (
            event is None and record.levelno < logging.WARNING and str(record.msg).startswith(NOISE)
        )

    def begin(
        self,
        quiet: bool = False,
        earlier: Mapping[str, float] | None = None,
        cores: int = 1,
        room: str = "",
    ) -> None:
        """Take over: from here on it is a run.

        Parameters
        ----------
        quiet : bool
            Say only what went wrong, whatever was said before.
        earlier : dict of str to float, optional
            Seconds of a job of each rule in earlier runs.
        cores : int
        room : str
            What is said of the disk.
        """
        self.quiet = self.quiet or quiet
        self.begun = True
        self.estimate.earlier = dict(earlier or {})
        if not self.quiet and self.estimate.counts:
            self.line(self.heading(cores, room))
        if self.terminal and not self.quiet:
            threading.Thread(target=self.redraw, daemon=True).start()

    def heading(self, cores: int, room: str) -> str:
        """Return the heading of the lines of steps, with what is known of the run before it."""
        words = [f"{sum(self.estimate.counts.values())} jobs"]
        whole = self.estimate.whole(cores)
        if whole is not None:
            words.append(f"about {in_words(whole)}, as earlier runs went")
        if room:
            words.append(room)
        return f"  {'step':<12}{'jobs':>6}      {'time':>8}     ({', '.join(words)})"

    def redraw(self) -> None:
        """Write over the line of the steps at work until the run ends."""
        while not self.ended.wait(REDRAW_INTERVAL):
            with self.guard:
                if self.running and not self.ended.is_set():
                    self.draw()

    def end(self) -> None:
        """Leave the terminal: the run is over."""
        with self.guard:
            self.ended.set()
            self.clear()
            self.stream.flush()

    def close(self) -> None:
        """End, and release what the handler holds."""
        self.end()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record, and show what it changes."""
        with self.guard:
            if self.broken:
                return
            try:
                self.note(record)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                self.broken = True
                self.end()
                logging.getLogger(SNAKEMAKE_LOGGER).info(
                    "autoproc goes on without its progress display (%s)", error
                )

    def note(self, record: Any) -> None:
        """Take note of a record, and show what it changes; raise where it is not as expected."""
        event = event_of(record)
        if event == "run_info":
            stats = {rule: int(n) for rule, n in record.stats.items()}
            counts = {rule: n for rule, n in stats.items() if rule not in NOT_STEPS}
            self.estimate = Estimate(counts, self.estimate.earlier)
        if not self.begun:
            return
        if event == "job_info":
            self.start(record)
        elif event == "job_finished":
            self.finish(record)
        elif event in ("job_error", "group_error"):
            self.fail(record)
        elif event == "error":
            # That a job failed is said by `fail`; how it was called helps nobody.
            if "CalledProcessError" not in str(record.msg):
                self.line(str(record.msg))
        elif event is None and record.levelno >= logging.WARNING:
            self.line(str(record.msg))

    def start(self, record: Any) -> None:
        """A job has begun."""
        if self.first is None:
            self.first = record.created
        self.running[record.jobid] = (record.rule_name, record.created)
        span = self.spans.setdefault(record.rule_name, [record.created, record.created])
        span[0] = min(span[0], record.created)
        self.show()

    def finish(self, record: Any) -> None:
        """A job is done."""
        rule, begun = self.running.pop(record.job_id, ("", record.created))
        if rule in NOT_STEPS or not rule:
            return
        self.estimate.finish(rule, record.created - begun)
        self.spans[rule][1] = record.created
        if self.estimate.done[rule] == self.estimate.counts.get(rule):
            self.step_done(rule)
        self.show()

    def fail(self, record: Any) -> None:
        """A job has failed: say which, and where it is told why."""
        self.running.pop(getattr(record, "jobid", -1), None)
        rule = getattr(record, "rule_name", "group")
        logs = list(getattr(record, "log", None) or [])
        outputs = [str(path) for path in (getattr(record, "output", None) or [])]
        words = f"{rule} failed"
        if outputs:
            words += f" on {Path(outputs[0]).name}"
        if logs:
            words += f"; its log: {logs[0]}"
        self.line(words)

    def step_done(self, rule: str) -> None:
        """Leave a line that says that all jobs of a rule are done."""
        if self.quiet:
            return
        begin, end = self.spans[rule]
        count = self.estimate.counts[rule]
        words = f"  {rule:<12}{count:>6} done {end - begin:>8.1f} s"
        if not self.terminal:
            words += f"   ({self.totals()})"
        self.line(words)
        self.shown = time.monotonic()

    def totals(self) -> str:
        """Return how much of all is done, and the time left."""
        total, done = sum(self.estimate.counts.values()), sum(self.estimate.done.values())
        words = f"{done} of {total}"
        now = time.time()
        elapsed = now - self.first if self.first else 0.0
        running = sum(max(0.0, now - begun) for _, begun in self.running.values())
        left = self.estimate.left(elapsed, running) if elapsed > 2 else None
        if left is not None and done < total:
            words += f", about {in_words(left)} left"
        return words

    def show(self) -> None:
        """Say now and then how far it is, where there is no line to be written over."""
        now = time.monotonic()
        if self.shown is None:
            self.shown = now
        if self.quiet or self.terminal or now - self.shown < PLAIN_INTERVAL:
            return
        self.shown = now
        self.line(self.at_work())

    def at_work(self) -> str:
        """Return the counts of all and of the steps at work."""
        steps = []
        for rule in dict.fromkeys(rule for rule, _ in self.running.values()):
            if rule not in NOT_STEPS:
                done, count = self.estimate.done[rule], self.estimate.counts.get(rule, 0)
                steps.append(f"{rule} {done}/{count}")
        return f"  {self.totals()}: {', '.join(steps)}" if steps else f"  {self.totals()}"

    def draw(self) -> None:
        """Write over the line of the steps at work."""
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\033[K" + self.at_work()[:width])
        self.stream.flush()
        self.live = True

    def line(self, words: str) -> None:
        """Write a line that stays."""
        with self.guard:
            self.clear()
            self.stream.write(words + "\n")
            self.stream.flush()

    def clear(self) -> None:
        """Remove the line that is written over."""
        if self.live:
            self.stream.write("\r\033[K")
            self.live = False


def attach(workflow: Any) -> Progress | None:
    """Let a run tell its progress in place of Snakemake's own output on the terminal.

    Nothing changes for a dry run, for ``--verbose`` and the like, for ``--logger`` of the user's
    choice, in the processes of single jobs, and for a workflow that uses this one as a module: its
    own `onstart` is what Snakemake calls.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow

    Returns
    -------
    Progress or None
    """
    settings = workflow.output_settings
    asked_for_more = settings.dryrun or settings.verbose or settings.debug_dag
    if not workflow.is_main_process or asked_for_more or settings.printshellcmds:
        return None
    if not workflow.modifier.is_main_snakefile():
        return None
    logger = logging.getLogger(SNAKEMAKE_LOGGER)
    own = [one for one in logger.handlers if one.name == "DefaultStreamHandler"]
    if not own:
        return None
    silent = {str(choice).lower() for choice in settings.quiet or ()} & QUIET_CHOICES
    progress = Progress(own[0].stream, quiet=bool(silent))  # type: ignore[attr-defined]
    own[0].addFilter(lambda record: not progress.takes(record))
    logger.addHandler(progress)
    return progress
