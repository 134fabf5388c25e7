"""Programs and their time limit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib.core import programs
from lib.core.programs import ProgramFailed, run_program

SLEEP = "import time, sys; time.sleep({}); print('done'); print('x' * 200000, file=sys.stderr)"


def test_a_program_that_takes_too_long_is_killed():
    begun = time.monotonic()
    with pytest.raises(ProgramFailed, match=r"still running after 0.3 s"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.3)
    assert time.monotonic() - begun < 10


def test_all_that_it_writes_is_kept(monkeypatch):
    monkeypatch.setattr(programs, "TICK", 0.05)
    done = run_program([sys.executable, "-c", SLEEP.format(0.4)], timeout=20)
    assert done.stdout == "done\n" and len(done.stderr) == 200001


def test_time_for_which_the_program_is_stopped_does_not_count(monkeypatch):
    monkeypatch.setattr(programs, "TICK", 0.1)
    code = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    time.sleep(4)\n"
        "    os.kill(os.getppid(), signal.SIGCONT)\n"
        "    os._exit(0)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "print('done')"
    )
    assert run_program([sys.executable, "-c", code], timeout=2.5).stdout == "done\n"


def test_time_for_which_this_process_is_stopped_does_not_count(tmp_path):
    """As Ctrl-Z on a run: the program, in a group of its own, goes on and ends."""
    scripts = Path(__file__).resolve().parents[3] / "scripts"
    code = (
        "import sys; from lib.core.programs import run_program; print('begun', flush=True)\n"
        "done = run_program([sys.executable, '-c', 'import time; time.sleep(1.5); print(7)'], "
        "timeout=3.0)\nprint(done.stdout)"
    )
    env = os.environ | {"PYTHONPATH": str(scripts)}
    how = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **how) as child:
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=20)[0].strip() == "7"
