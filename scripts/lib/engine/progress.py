"""Progress of a run on the terminal: a line per step, with its count and the time left.

This is a handler of Snakemake's logger that replaces its output on the terminal; the log file in
.snakemake/log remains complete. The workflow attaches it, so that plain ``snakemake`` has it
without an installed logger plugin. On a record that it does not understand it ends, and Snakemake's
own output continues.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from lib.core.pipeline import PIPELINE
from lib.core.text import INTERRUPTED

from .interrupts import was_asked_to_end

SNAKEMAKE_LOGGER = "snakemake.logging"

BEFORE_START = ("run_info", "resources_info", "workflow_started")
"""Events before jobs start, which tell an observer nothing."""

NOISE = ("Building DAG", "Using shell", "Assuming unrestricted", "Conda environments",
         "Singularity containers", "Rules claiming more threads", "Updating", "host:",
         "Config file")  # fmt: skip
"""Beginnings of messages without event before jobs start, which tell as little."""

QUIET_CHOICES = {"all", "progress"}

REDRAW_INTERVAL = 0.3
"""[s] Interval between two updates of the line on a terminal."""

PLAIN_INTERVAL = 30.0
"""[s] Interval between lines where the output is not a terminal."""

NOT_STEPS = {*PIPELINE.collecting, "total"}


class Estimate:
    """Estimate of the remaining time, from the durations of jobs of each rule.

    Parameters
    ----------
    counts : dict of str to int
        Number of jobs of each rule.
    earlier : dict of str to float, optional
        Rule -> time of a job in earlier runs [s].
    """

    def __init__(
        self, counts: Mapping[str, int], earlier: Mapping[str, float] | None = None
    ) -> None:
        self.counts = dict(counts)
        self.earlier = dict(earlier or {})
        self.done: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def finish(self, rule: str, seconds: float) -> None:
        """Record the time of a finished job of a rule [s]."""
        self.done[rule] += 1
        self.seconds[rule] = self.seconds.get(rule, 0.0) + seconds

    def means(self) -> dict[str, float]:
        """Return the mean time of a job of each rule that has run [s]."""
        return {rule: self.seconds[rule] / count for rule, count in self.done.items()}

    def left(self, elapsed: float, running: float = 0.0) -> float | None:
        """Return the remaining time [s]; None where it cannot be estimated yet.

        Remaining jobs are assumed to take as long as previous ones of the same rule; for a rule
        without any, as long as in earlier runs, scaled by how much faster or slower the others are
        now, or as long as the mean of all jobs. The degree of parallelism is assumed to stay the
        same.

        Parameters
        ----------
        elapsed : float
            Time since the first job began [s].
        running : float
            Total time spent so far by running jobs [s].
        """
        finished, spent = sum(self.done.values()), sum(self.seconds.values())
        if not finished or not spent or elapsed <= 0:
            return None
        means = self.means()
        known = [rule for rule in means if self.earlier.get(rule)]
        before = sum(self.earlier[rule] * self.done[rule] for rule in known)
        # The first jobs are not representative: until a fifth is done, include earlier runs.
        trust = sum(n * self.earlier.get(rule, 0.0) for rule, n in self.counts.items()) / 5
        now = sum(self.seconds[rule] for rule in known)
        pace = (now + trust) / (before + trust) if before else 1.0
        work = 0.0
        for rule, count in self.counts.items():
            guess = pace * self.earlier[rule] if rule in self.earlier else spent / finished
            work += max(0, count - self.done[rule]) * means.get(rule, guess)
        return max(0.0, work - running) * elapsed / (spent + running)

    def whole(self, cores: int) -> float | None:
        """Return the expected time of the run [s] from earlier runs; None with an unknown rule."""
        if not self.counts or not set(self.counts) <= set(self.earlier):
            return None
        return sum(self.earlier[rule] * count for rule, count in self.counts.items()) / cores


def in_words(seconds: float) -> str:
    """Return a remaining time in words, with appropriate precision."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def was_interrupted(path: str | Path) -> bool:
    """Tell whether the log of a job ends with the words of one that was interrupted."""
    try:
        return f"INFO {INTERRUPTED}\n" in Path(path).read_text(errors="replace")[-400:]
    except OSError:
        return False


def event_of(record: logging.LogRecord) -> str | None:
    """Return the kind of a log record of Snakemake, e.g. ``"job_info"``; None without one."""
    event = getattr(record, "event", None)
    return None if event is None else str(event).lower()


class Progress(logging.Handler):
    """Log handler that shows the progress of a run.

    Parameters
    ----------
    stream : text file, optional
        Output stream, by default standard error.
    quiet : bool
        Report only errors.
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
        """Whether the stream is a terminal on which a line can be overwritten."""
        return self.stream.isatty()

    def takes(self, record: logging.LogRecord) -> bool:
        """Return whether Snakemake's own output of a record is to be suppressed."""
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
        """Take over the terminal: a run begins.

        Parameters
        ----------
        quiet : bool
            Report only errors, whatever was set before.
        earlier : dict of str to float, optional
            Rule -> time of a job in earlier runs [s].
        cores : int
            Number of cores.
        room : str
            Words about the disk space.
        """
        self.quiet = self.quiet or quiet
        self.begun = True
        self.estimate.earlier = dict(earlier or {})
        if not self.quiet and self.estimate.counts:
            self.line(self.heading(cores, room))
        if self.terminal and not self.quiet:
            threading.Thread(target=self.redraw, daemon=True).start()

    def heading(self, cores: int, room: str) -> str:
        """Return the heading of the list of steps, with what is known about the run beforehand."""
        words = [f"{sum(self.estimate.counts.values())} jobs"]
        whole = self.estimate.whole(cores)
        if whole is not None:
            words.append(f"about {in_words(whole)}, as earlier runs went")
        if room:
            words.append(room)
        return f"  {'step':<12}{'jobs':>6}      {'time':>8}     ({', '.join(words)})"

    def redraw(self) -> None:
        """Update the line of running steps until the run ends."""
        while not self.ended.wait(REDRAW_INTERVAL):
            with self.guard:
                if self.running and not self.ended.is_set():
                    self.draw()

    def end(self) -> None:
        """Release the terminal: the run is over."""
        with self.guard:
            self.ended.set()
            self.clear()
            self.put("")

    def close(self) -> None:
        """End, and release all resources of the handler."""
        self.end()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Process a log record, and show what it changes."""
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
        """Process a log record, and show what it changes; raise where it is not as expected."""
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
            # Failures are reported by `fail`; the command line of the job is no help.
            if "CalledProcessError" not in str(record.msg):
                self.line(str(record.msg))
        elif event is None and record.levelno >= logging.WARNING:
            self.line(str(record.msg))

    def start(self, record: Any) -> None:
        """Record that a job has begun."""
        if self.first is None:
            self.first = record.created
        self.running[record.jobid] = (record.rule_name, record.created)
        span = self.spans.setdefault(record.rule_name, [record.created, record.created])
        span[0] = min(span[0], record.created)
        self.show()

    def finish(self, record: Any) -> None:
        """Record that a job is done."""
        rule, begun = self.running.pop(record.job_id, ("", record.created))
        if rule in NOT_STEPS or not rule:
            return
        self.estimate.finish(rule, record.created - begun)
        self.spans[rule][1] = record.created
        if self.estimate.done[rule] == self.estimate.counts.get(rule):
            self.step_done(rule)
        self.show()

    def fail(self, record: Any) -> None:
        """Report a failed job, and where its error is described; nothing where all were stopped."""
        self.running.pop(getattr(record, "jobid", -1), None)
        if was_asked_to_end():
            return
        rule = getattr(record, "rule_name", "group")
        logs = list(getattr(record, "log", None) or [])
        outputs = [str(path) for path in (getattr(record, "output", None) or [])]
        stopped = any(was_interrupted(path) for path in logs)
        words = f"{rule} was interrupted" if stopped else f"{rule} failed"
        if outputs:
            words += f" on {Path(outputs[0]).name}"
        if logs and not stopped:
            words += f"; its log: {logs[0]}"
        self.line(words)

    def step_done(self, rule: str) -> None:
        """Write a permanent line: all jobs of a rule are done."""
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
        """Return the completed part of all jobs, and the remaining time."""
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
        """Write the progress periodically, where no line can be overwritten."""
        now = time.monotonic()
        if self.shown is None:
            self.shown = now
        if self.quiet or self.terminal or now - self.shown < PLAIN_INTERVAL:
            return
        self.shown = now
        self.line(self.at_work())

    def at_work(self) -> str:
        """Return the counts of all jobs and of the running steps."""
        steps = []
        for rule in dict.fromkeys(rule for rule, _ in self.running.values()):
            if rule not in NOT_STEPS:
                done, count = self.estimate.done[rule], self.estimate.counts.get(rule, 0)
                steps.append(f"{rule} {done}/{count}")
        return f"  {self.totals()}: {', '.join(steps)}" if steps else f"  {self.totals()}"

    def draw(self) -> None:
        """Overwrite the line of running steps."""
        width = shutil.get_terminal_size().columns - 1
        self.put("\r\033[K" + self.at_work()[:width])
        self.live = True

    def line(self, words: str) -> None:
        """Write a permanent line."""
        with self.guard:
            self.clear()
            self.put(words + "\n")

    def clear(self) -> None:
        """Erase the line that is overwritten."""
        if self.live:
            self.put("\r\033[K")
            self.live = False

    def put(self, text: str) -> None:
        """Write, as long as there is someone to read it: the run goes on without."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            silence(self.stream)


def silence(stream: TextIO) -> None:
    """Let a stream whose reader has gone, and all that share its file, write to nowhere.

    Snakemake would wait for ever for a job whose end could not be written.
    """
    try:
        gone = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in {stream.fileno(), 1, 2}:
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), gone):
                os.dup2(nowhere, number)
    os.close(nowhere)


def attach(workflow: Any) -> Progress | None:
    """Replace Snakemake's output on the terminal by the progress display.

    Nothing changes for dry runs, with ``--verbose`` and similar options, with ``--logger``, in the
    processes of single jobs, and for a workflow that uses this one as a module, whose own `onstart`
    Snakemake calls.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow

    Returns
    -------
    Progress or None
        None where Snakemake's output is kept.
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
