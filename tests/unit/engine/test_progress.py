"""The progress that a run shows."""

import io
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from lib.engine import progress


class Terminal(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def record(event=None, message="", level=logging.INFO, created=0.0, **facts):
    made = logging.LogRecord("snakemake", level, "x.py", 1, message, (), None)
    made.created = created
    if event:
        made.event = event
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def run(handler, jobs=3):
    """Let a handler see a run of a rule and of one that fails."""
    stats = {"all": 1, "prepare": jobs, "stack": 1, "total": jobs + 2}
    handler.emit(record(LogEvent.RUN_INFO, stats=stats))
    handler.begin()
    for k in range(jobs):
        handler.emit(record(LogEvent.JOB_INFO, created=float(k), jobid=k, rule_name="prepare"))
        handler.emit(record(LogEvent.JOB_FINISHED, created=k + 0.5, job_id=k))
    handler.emit(record(LogEvent.JOB_INFO, created=9.0, jobid=99, rule_name="stack"))
    handler.emit(
        record(LogEvent.JOB_ERROR, "Error", logging.ERROR, 9.5, jobid=99, rule_name="stack",
               output=["im/coaddT.r.fits"], log=["im/logs/stack/T.r.log"])
    )  # fmt: skip


def test_progress_counts_steps_and_names_what_failed():
    stream = Terminal(False)
    run(progress.Progress(stream=stream))
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"  step +jobs +time +\(4 jobs\)", lines[0])
    assert re.fullmatch(r"  prepare +3 done +2\.5 s +\(3 of 4.*\)", lines[1])
    assert lines[0].index("jobs") + 4 == lines[1].index("3") + 1
    assert lines[-1] == "stack failed on coaddT.r.fits; its log: im/logs/stack/T.r.log"
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()


def test_jobs_that_were_interrupted_have_not_failed(tmp_path, monkeypatch):
    stream, log = Terminal(False), tmp_path / "T.r.log"
    log.write_text("2026-01-01 00:00:00,000 INFO interrupted\n... INFO 1 s, 2 MB\n")
    handler = progress.Progress(stream=stream, quiet=True)
    handler.begin()
    facts = {"jobid": 99, "rule_name": "stack", "output": ["im/coaddT.r.fits"], "log": [str(log)]}
    failed = record(LogEvent.JOB_ERROR, "Error", logging.ERROR, 9.5, **facts)
    handler.emit(failed)
    assert stream.getvalue() == "stack was interrupted on coaddT.r.fits\n"
    log.write_text("... ERROR no stars\n")
    monkeypatch.setattr(progress, "was_asked_to_end", lambda: True)
    handler.emit(failed)
    monkeypatch.undo()
    handler.emit(failed)
    assert stream.getvalue().splitlines()[1:] == [f"stack failed on coaddT.r.fits; its log: {log}"]


def test_progress_on_a_terminal_writes_over_its_line(monkeypatch):
    monkeypatch.setattr(progress, "REDRAW_INTERVAL", 0.01)
    stream = Terminal(True)
    handler = progress.Progress(stream=stream)
    handler.emit(record(LogEvent.RUN_INFO, stats={"prepare": 3, "total": 3}))
    handler.begin()
    handler.emit(record(LogEvent.JOB_INFO, jobid=1, rule_name="prepare", created=time.time()))
    deadline = time.monotonic() + 5
    while "prepare 0/3" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    handler.end()
    assert "\r\033[K  0 of 3: prepare 0/3" in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")
    written = len(stream.getvalue())
    time.sleep(0.05)
    assert len(stream.getvalue()) == written, "it writes on after the end"


def test_quiet_says_only_what_failed():
    stream = Terminal(True)
    run(progress.Progress(stream=stream, quiet=True))
    assert stream.getvalue().splitlines() == [
        "stack failed on coaddT.r.fits; its log: im/logs/stack/T.r.log"
    ]


def test_nothing_is_hidden_before_a_run_begins():
    handler = progress.Progress(stream=Terminal(False))
    assert not handler.takes(record(None, "Nothing to be done"))
    assert not handler.takes(record(LogEvent.ERROR, "wrong config", logging.ERROR))
    assert handler.takes(record(None, "Building DAG of jobs..."))
    handler.begin()
    assert handler.takes(record(None, "anything"))


def test_heading_tells_what_is_known_before():
    stream = Terminal(False)
    handler = progress.Progress(stream=stream)
    handler.emit(record(LogEvent.RUN_INFO, stats={"all": 1, "prepare": 30, "stack": 2, "total": 3}))
    handler.begin(earlier={"prepare": 1.0, "stack": 15.0}, cores=2, room="1.5 GB to write")
    assert "(32 jobs, about 30 s, as earlier runs went, 1.5 GB to write)" in stream.getvalue()
    quiet = Terminal(False)
    handler = progress.Progress(stream=quiet)
    handler.emit(record(LogEvent.RUN_INFO, stats={"prepare": 3, "total": 3}))
    handler.begin(quiet=True)
    assert quiet.getvalue() == ""


def test_time_left_of_a_step_that_has_not_run_is_that_of_earlier_runs():
    estimate = progress.Estimate({"prepare": 10, "stack": 2}, {"prepare": 1.0, "stack": 30.0})
    assert estimate.whole(2) == pytest.approx(35.0)
    for _ in range(10):
        estimate.finish("prepare", 1.0)
    # 10 s of work took 5 s; 60 s are left.
    assert estimate.left(5.0) == pytest.approx(30.0)
    slow = progress.Estimate({"prepare": 10, "stack": 2}, {"prepare": 1.0, "stack": 30.0})
    for _ in range(10):
        slow.finish("prepare", 2.0)
    # The machine is slower, as far as a tenth of the work can tell.
    assert 30.0 < slow.left(10.0) < 60.0
    assert progress.Estimate({"prepare": 1, "new": 1}, {"prepare": 1.0}).whole(1) is None


def test_time_left_follows_the_steps():
    estimate = progress.Estimate({"prepare": 10, "stack": 2})
    assert estimate.left(5.0) is None
    for _ in range(10):
        estimate.finish("prepare", 1.0)
    estimate.finish("stack", 30.0)
    # 40 s of work took 20 s: two at a time, and one stack of 30 s is left.
    assert estimate.left(20.0) == pytest.approx(15.0)
    # After 10 s more on it, 20 s are left to one job: work so far went at 50 s in 30 s.
    assert estimate.left(30.0, running=10.0) == pytest.approx(20 * 30 / 50)
    estimate.finish("stack", 30.0)
    assert estimate.left(35.0) == 0


def test_a_run_goes_on_where_nobody_reads_what_it_shows():
    """As where the terminal has gone, or `less` was left: what shares the pipe is silent, too."""
    program = """
import sys, io
from test_progress import progress, run
sys.stdin.readline()
run(progress.Progress(stream=sys.stderr))
print("to the same pipe", flush=True)
open(sys.argv[1], "w").write("at the end")
"""
    with tempfile.TemporaryDirectory() as folder:
        end = Path(folder, "end")
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        child = subprocess.Popen(
            [sys.executable, "-c", program, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        child.stdout.close()
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.wait(60) == 0
        assert end.read_text() == "at the end"
