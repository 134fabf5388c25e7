"""What a run says on the terminal: a line for each step with its count and the time left.

A handler of Snakemake's logger interface that takes the place of its own output on the terminal;
its log file below .snakemake/log keeps everything. It is attached by the workflow itself, so that
plain ``snakemake`` has it without a plugin being installed.
"""

import logging
import shutil
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

BEFORE_START = (LogEvent.RUN_INFO, LogEvent.RESOURCES_INFO, LogEvent.WORKFLOW_STARTED)
"""Events that come before a run is known to be one, and say nothing to an observer."""

NOISE = ("Building DAG", "Using shell", "Assuming unrestricted", "Conda environments",
         "Singularity containers", "Rules claiming more threads", "Updating", "host:")  # fmt: skip
"""Beginnings of messages without event that come before it, and say as little."""

QUIET_CHOICES = {"all", "progress"}

REDRAW_INTERVAL = 0.3
"""Seconds between two drawings of the line on a terminal."""

PLAIN_INTERVAL = 30.0
"""Seconds between lines of a run whose output is no terminal."""

NOT_STEPS = {"all", "targets", "total"}


class Estimate:
    """Guess of the time that is left, from how long jobs of each rule took.

    Parameters
    ----------
    counts : dict of str to int
        Jobs of each rule.
    """

    def __init__(self, counts):
        self.counts = dict(counts)
        self.done = Counter()
        self.seconds = Counter()

    def finish(self, rule, seconds):
        """Note that a job of a rule took so many seconds."""
        self.done[rule] += 1
        self.seconds[rule] += seconds

    def left(self, elapsed, running=0.0):
        """Return the seconds left, or None where nothing can be said yet.

        The work left is what jobs of the same rule took so far, of a rule without any what all
        jobs took; it goes on as much in parallel as it went so far.

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
        mean = spent / finished
        work = 0.0
        for rule, count in self.counts.items():
            each = self.seconds[rule] / self.done[rule] if self.done[rule] else mean
            work += max(0, count - self.done[rule]) * each
        return max(0.0, work - running) * elapsed / (spent + running)


def in_words(seconds):
    """Return a time left in words, as exact as it deserves."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class Progress(LogHandlerBase):
    """Handler that shows how a run goes on.

    Parameters
    ----------
    common_settings : snakemake.settings.types.OutputSettings
    settings : None
    stream : text file, optional
        Standard error.
    quiet : bool
        Say only what went wrong.
    """

    def __init__(self, common_settings, settings=None, *, stream=None, quiet=False):
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.begun = False
        self.estimate = Estimate({})
        self.running = {}
        self.first = None
        self.spans = {}
        self.shown = None
        self.ended = threading.Event()
        self.live = False
        self.guard = threading.RLock()
        super().__init__(common_settings, settings)

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    @property
    def terminal(self):
        """Whether the stream is a terminal on which a line can be written over."""
        return self.stream.isatty()

    def takes(self, record):
        """Return whether Snakemake's own output is to be silent about a record."""
        if self.begun:
            return True
        event = getattr(record, "event", None)
        if event in BEFORE_START:
            return True
        return (
            event is None and record.levelno < logging.WARNING and str(record.msg).startswith(NOISE)
        )

    def begin(self):
        """Take over: from here on it is a run."""
        self.begun = True
        if self.terminal and not self.quiet:
            threading.Thread(target=self.redraw, daemon=True).start()

    def redraw(self):
        """Write over the line of the steps at work until the run ends."""
        while not self.ended.wait(REDRAW_INTERVAL):
            with self.guard:
                if self.running and not self.ended.is_set():
                    self.draw()

    def end(self):
        """Leave the terminal: the run is over."""
        with self.guard:
            self.ended.set()
            self.clear()
            self.stream.flush()

    def close(self):
        """End, and release what the handler holds."""
        self.end()
        super().close()

    def emit(self, record):
        """Take note of a record, and show what it changes."""
        event = getattr(record, "event", None)
        with self.guard:
            if event == LogEvent.RUN_INFO:
                stats = {rule: int(n) for rule, n in record.stats.items()}
                self.estimate = Estimate({k: n for k, n in stats.items() if k not in NOT_STEPS})
            if not self.begun:
                return
            if event == LogEvent.JOB_INFO:
                self.start(record)
            elif event == LogEvent.JOB_FINISHED:
                self.finish(record)
            elif event in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
                self.fail(record)
            elif event == LogEvent.ERROR:
                # That a job failed is said by `fail`; how it was called helps nobody.
                if "CalledProcessError" not in str(record.msg):
                    self.line(str(record.msg))
            elif event is None and record.levelno >= logging.WARNING:
                self.line(str(record.msg))

    def start(self, record):
        """A job has begun."""
        if self.first is None:
            self.first = record.created
        self.running[record.jobid] = (record.rule_name, record.created)
        span = self.spans.setdefault(record.rule_name, [record.created, record.created])
        span[0] = min(span[0], record.created)
        self.show()

    def finish(self, record):
        """A job is done."""
        rule, begun = self.running.pop(record.job_id, ("", record.created))
        if rule in NOT_STEPS or not rule:
            return
        self.estimate.finish(rule, record.created - begun)
        self.spans[rule][1] = record.created
        if self.estimate.done[rule] == self.estimate.counts.get(rule):
            self.step_done(rule)
        self.show()

    def fail(self, record):
        """A job has failed: say which, and where it is told why."""
        self.running.pop(getattr(record, "jobid", None), None)
        rule = getattr(record, "rule_name", "group")
        logs = list(getattr(record, "log", None) or [])
        outputs = [str(path) for path in (getattr(record, "output", None) or [])]
        words = f"{rule} failed"
        if outputs:
            words += f" on {Path(outputs[0]).name}"
        if logs:
            words += f"; its log: {logs[0]}"
        self.line(words)

    def step_done(self, rule):
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

    def totals(self):
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

    def show(self):
        """Say now and then how far it is, where there is no line to be written over."""
        now = time.monotonic()
        if self.shown is None:
            self.shown = now
        if self.quiet or self.terminal or now - self.shown < PLAIN_INTERVAL:
            return
        self.shown = now
        self.line(self.at_work())

    def at_work(self):
        """Return the counts of all and of the steps at work."""
        steps = []
        for rule in dict.fromkeys(rule for rule, _ in self.running.values()):
            if rule not in NOT_STEPS:
                done, count = self.estimate.done[rule], self.estimate.counts.get(rule, 0)
                steps.append(f"{rule} {done}/{count}")
        return f"  {self.totals()}: {', '.join(steps)}" if steps else f"  {self.totals()}"

    def draw(self):
        """Write over the line of the steps at work."""
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r\033[K" + self.at_work()[:width])
        self.stream.flush()
        self.live = True

    def line(self, words):
        """Write a line that stays."""
        with self.guard:
            self.clear()
            self.stream.write(words + "\n")
            self.stream.flush()

    def clear(self):
        """Remove the line that is written over."""
        if self.live:
            self.stream.write("\r\033[K")
            self.live = False


def attach(workflow, quiet=False):
    """Let a run tell its progress in place of Snakemake's own output on the terminal.

    Nothing changes for a dry run, for ``--verbose`` and the like, for ``--logger`` of the user's
    choice, and in the processes of single jobs.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    quiet : bool
        Say only what went wrong.

    Returns
    -------
    Progress or None
    """
    settings = workflow.output_settings
    asked_for_more = settings.dryrun or settings.verbose or settings.debug_dag
    if not workflow.is_main_process or asked_for_more or settings.printshellcmds:
        return None
    logger = workflow.logger_manager.logger
    own = [one for one in logger.handlers if one.name == "DefaultStreamHandler"]
    if not own:
        return None
    silent = {str(choice) for choice in settings.quiet or ()} & QUIET_CHOICES
    progress = Progress(settings, stream=own[0].stream, quiet=quiet or bool(silent))
    own[0].addFilter(lambda record: not progress.takes(record))
    logger.addHandler(progress)
    return progress
