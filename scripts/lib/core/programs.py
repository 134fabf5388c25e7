"""Running the AstrOmatic programs: found under any name, with a time limit, never by a shell."""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.core.guarded import TICK, Stopwatch

NAMES = {
    "source-extractor": ("source-extractor", "sex", "sextractor"),
    "scamp": ("scamp", "SCAMP"),
    "swarp": ("SWarp", "swarp"),
}

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Environment: memory in pages of 2 MB where the system has them, a tenth of source-extractor's
time; where it has not, nothing changes."""

log = logging.getLogger("autoproc")


class ProgramMissing(RuntimeError):
    """A program that is not installed."""


class ProgramFailed(RuntimeError):
    """A program that ended badly.

    Parameters
    ----------
    name : str
    why : str
        Exit code, signal or time limit, and the last words of the program.
    """

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why
        super().__init__(f"{name}: {why}")


def find_program(name: str) -> str:
    """Return the path of a program installed under any of its names.

    Raises
    ------
    ProgramMissing
        Names what to install.
    """
    names = NAMES.get(name, (name,))
    for candidate in names:
        path = shutil.which(candidate)
        if path:
            return path
    raise ProgramMissing(
        f"{name} is not installed (looked for {', '.join(names)}): "
        f"'apt-get install {name}' or 'conda install -c conda-forge "
        f"astromatic-{name}', or 'make env'"
    )


def run_program(
    argv: Sequence[Any], *, timeout: float, cwd: str | Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its result.

    Parameters
    ----------
    argv : list of str
        Program and arguments; no shell sees them.
    timeout : float
        Time limit in seconds, after which the program is killed. Time for which it or this
        process was stopped (Ctrl-Z) does not count.
    cwd : path-like, optional

    Returns
    -------
    subprocess.CompletedProcess
        `stdout` and `stderr` are text.

    Raises
    ------
    ProgramFailed
        The program timed out, was killed by a signal or returned an exit code other than 0.
    """
    argv = [str(word) for word in argv]
    log.info("run %s", " ".join(argv))
    try:
        done = _run(argv, cwd, timeout)
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(argv[0], f"still running after {timeout:g} s") from error
    except OSError as error:
        raise ProgramFailed(argv[0], str(error)) from error
    log.info("%s", (done.stdout + done.stderr).strip())
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = words[-1] if words else "no output"
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise ProgramFailed(argv[0], f"killed by {name}: {last}")
        raise ProgramFailed(argv[0], f"exit code {done.returncode}: {last}")
    return done


def _run(argv, cwd, timeout):
    """Like `subprocess.run`, but also end the processes that the program has started."""
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=HUGE_PAGES | os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as child:
        try:
            out, err = _communicate(child, timeout)
        except BaseException:  # of whatever kind: it is raised again
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def _communicate(child: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
    """Return the output of a program; raise if it runs for longer than `timeout`."""
    watch = Stopwatch()
    while True:
        try:
            told = child.communicate(timeout=min(TICK, timeout))
        except subprocess.TimeoutExpired:
            watch.look(counts=not _is_stopped(child.pid))
            if watch.seconds >= timeout:
                raise
            continue
        watch.look()
        if watch.paused > TICK:
            log.info("paused for %.0f s, which its time limit does not count", watch.paused)
        return told


def _is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, as by Ctrl-Z."""
    try:
        # Its name, in brackets before the state, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2][1:2] in "Tt"
    except OSError:
        return False
