"""What stops the command stops what it runs; it runs where little may be written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoproc import places
from autoproc.running import run

ROOT = Path(__file__).resolve().parents[3]

CHILD = """
import signal, subprocess, sys, time
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print("ready", flush=True)
try:
    job.wait()
    time.sleep(60)
except KeyboardInterrupt:
    job.wait()
    print("ended", flush=True)
"""

JOB = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("job ended", flush=True)
"""


def command():
    """Return a process of its own that runs a child with a job."""
    code = f"from autoproc.running import run; run({[sys.executable, '-c', CHILD, JOB]!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signal_to_the_command_alone_ends_all(number):
    with command() as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert said == "job ended\nended\n"


def test_what_is_paused_pauses_all():
    with command() as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGTSTP)
            wait_for(lambda: session_states(process.pid) == ["T", "T", "T"])
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: "T" not in session_states(process.pid))
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
    assert said == "job ended\nended\n"


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def session_states(leader):
    """Return the states of the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[3]) == leader and words[0] != "Z":
            found.append(words[0])
    return found


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = "import os, signal; os.kill(os.getppid(), signal.SIGHUP)"
        assert run([sys.executable, "-c", code]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_directory_that_cannot_be_written_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    settings = {"datadir": "raw", "imdir": "red", "refcat": "none", "instrument": "lmi"}
    assert places.elsewhere(settings) == (settings, [])
    monkeypatch.setattr(places, "writable", lambda _: False)
    given, options = places.elsewhere(settings | {"customcat": "stars.txt"})
    assert given == {
        "datadir": f"{tmp_path}/raw", "imdir": f"{tmp_path}/red", "refcat": "none",
        "instrument": "lmi", "customcat": f"{tmp_path}/stars.txt",
    }  # fmt: skip
    assert options == ["--directory", f"{tmp_path}/red"]


def test_caches_go_where_they_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = {"datadir": str(tmp_path / "raw"), "imdir": str(tmp_path / "red")}
    assert places.cache_environment(settings) == {}
    monkeypatch.setenv("HOME", "/dev/null/home")
    found = places.cache_environment(settings)
    assert set(found.values()) == {f"{tmp_path}/red/.cache"} and "XDG_CACHE_HOME" in found
    # Nothing is ever written among raw frames.
    settings["imdir"] = settings["datadir"]
    assert places.cache_environment(settings) == {}
    assert not (tmp_path / "raw").exists()


def test_ctrl_c_while_snakemake_is_imported_is_no_traceback(tmp_path):
    package = tmp_path / "snakemake"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, ROOT / "src/autoproc/snake.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


def test_what_was_stopped_says_so_in_a_sentence():
    child = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(30)"
    quiet = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {child}"
    code = "import sys; from autoproc.running import run; "
    code += f"sys.exit(run([sys.executable, '-c', {quiet!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "autoproc: stopped; the next run goes on from here\n"
