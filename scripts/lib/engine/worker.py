"""A warm process that runs the rules' scripts, so that packages are imported once a run.

Snakemake starts an interpreter for each job, which imports numpy and astropy anew: half a second of
CPU, more than a step's work on a small frame. Here one process, started at once, imports
what the steps share and then waits; each job is a fork of it, which has all that loaded. The jobs
of whole stacks, which need more, are forks of a branch of it that imports that, too. Whatever else
a job is, it stays: a process of its own, with its own exit code, environment and memory. Only jobs
of the same kind of step go on in the process of the one before, if that ended well and did not take
much memory: a sixth to a third of their time is memory that the kernel clears for a new process.

Other jobs with more than one thread, jobs in containers or in conda environments, and all jobs
where the warm process cannot be had, run as Snakemake runs them. So do all with
``AUTOPROC_WARM=0`` (``AUTOPROC_PLAIN=1`` turns off whatever else `lib.engine.install` adds, too).

The two processes talk over a socket pair, which has no name on disk: nothing is left behind by a
crash, and when one of the two ends, the other sees the end of the stream.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.core.pipeline import PIPELINE
from lib.engine import workerprocess
from lib.engine.workerprocess import BRANCH, Request, send, step_of

STACK_STEPS = PIPELINE.stack_rules
"""Their jobs run in a warm process of their own, a branch of the other, with any number of threads:
these are started by our own code, not by a library that was loaded for one."""

BRANCH_TRIGGERS = PIPELINE.before_stacks
"""Steps of frames at whose first job it is started, so that it is ready when it is needed."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What Snakemake sets to the threads of a job."""

MALLOC_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864"
    ":glibc.malloc.trim_threshold=134217728"
)
"""Tunables of glibc: arrays take memory anew and page by page for each operation otherwise."""

TEMPORARY_VARIABLES = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")

REQUEST_LIMIT = 1 << 20
"""[byte] Largest request: the environment and names of a job."""

RUNS_NOTHING_HERE = ("dryrun_exec", "touch_exec", "non_local_exec")
"""Settings of Snakemake's executors that have no job for this machine."""

STOP_LIMIT = 10.0
"""[s] Time after which a process that does not stop is killed."""


class Unavailable(Exception):
    """The warm process could not be started, or has ended."""


class WarmWorker:
    """The warm process, seen from Snakemake; started by the first job, if not before.

    Parameters
    ----------
    scripts : path-like
        Directory of the scripts, from which `PRELOAD` is imported.
    """

    def __init__(self, scripts: str | Path) -> None:
        self.scripts = str(scripts)
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._guard = threading.Lock()
        self._branch: WorkerBranch | None = None

    def branch(self) -> WorkerBranch:
        """Return the fork of the process that imports `PRELOAD_STACK`, too; not started yet."""
        self._branch = self._branch or WorkerBranch(self)
        return self._branch

    def start(self) -> None:
        """Start the process, if that has not been done; it gets ready while others work.

        Raises
        ------
        Unavailable
        """
        with self._guard:
            if self._control is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    self._start(theirs)
                except Unavailable:
                    ours.close()
                    raise
                finally:
                    theirs.close()
                self._control = ours

    def _start(self, theirs: socket.socket) -> None:
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        environment.setdefault("GLIBC_TUNABLES", MALLOC_TUNABLES)
        argv = [sys.executable, workerprocess.__file__, str(theirs.fileno()), self.scripts]
        try:
            self._process = subprocess.Popen(
                argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        except OSError as error:
            raise Unavailable(str(error)) from error
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the warm process, its branch, and with them the jobs that still run.

        Another job would start it again.
        """
        if self._branch is not None:
            self._branch.stop()
        self.close()
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is None:
            return
        if not self._asked:
            process.kill()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Tell the process to end."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def send(self, request: Request, reply: socket.socket) -> None:
        """Hand a request and the socket for its answer to the warm process.

        Raises
        ------
        Unavailable
        """
        words = json.dumps(request).encode()
        if len(words) > REQUEST_LIMIT:
            raise Unavailable(f"request of {len(words)} bytes")
        self.start()
        # Snakemake calls from several threads: a request must go out in one piece.
        with self._guard:
            self._asked = True
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reply.fileno()]))]
            try:
                if self._control is None:
                    raise Unavailable("it has ended")
                send(self._control, words, rights)
            except OSError as error:
                raise Unavailable(str(error)) from error

    def run(self, script: str, environment: Mapping[str, str]) -> int:
        """Run a script to its end.

        Parameters
        ----------
        script : str
            Path of the file that Snakemake made for the job.
        environment : dict of str to str

        Returns
        -------
        int
            Exit code; of a job killed by a signal its number, negative, and so also where the
            warm process has died with it.

        Raises
        ------
        Unavailable
            The job has not begun.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            with theirs:
                request = {"script": script, "environment": environment, "cwd": os.getcwd()}
                self.send(request, theirs)
            begun = ours.recv(1)
            if not begun:
                raise Unavailable("it ended before the job began")
            status = b""
            while len(status) < 4:
                part = ours.recv(4 - len(status))
                if not part:
                    return -signal.SIGKILL
                status += part
        return int.from_bytes(status, "big", signed=True)


class WorkerBranch(WarmWorker):
    """A fork of the warm process that imports `PRELOAD_STACK`, too.

    Parameters
    ----------
    stem : WarmWorker
        It ends with that.
    """

    def __init__(self, stem: WarmWorker) -> None:
        super().__init__(stem.scripts)
        self.stem = stem

    def _start(self, theirs: socket.socket) -> None:
        self.stem.send(BRANCH, theirs)

    def stop(self) -> None:
        """Tell the branch to end, for which its stem waits when that ends."""
        self.close()


def job_environment(threads: int, tmpdir: str | None = None) -> dict[str, str]:
    """Return the environment that Snakemake gives a job with this number of threads."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    if tmpdir:
        environment |= dict.fromkeys(TEMPORARY_VARIABLES, tmpdir)
    return environment


def attach(workflow: Any, scripts: str | Path) -> WarmWorker:
    """Let the scripts of a workflow's rules run in forks of a warm worker.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    scripts : path-like
        Directory of the scripts.

    Returns
    -------
    WarmWorker

    Raises
    ------
    AttributeError
        Where this Snakemake runs scripts in another way than is known here.
    """
    from snakemake.script import PythonScript

    unpatched = getattr(PythonScript, "execute_script", None)
    plain = getattr(unpatched, "plain", unpatched)
    if plain is None or list(inspect.signature(plain).parameters)[:2] != ["self", "fname"]:
        raise AttributeError("PythonScript.execute_script(self, fname)")
    worker = WarmWorker(scripts)
    branch = worker.branch()

    def execute_script(self: Any, fname: str, *args: Any, **options: Any) -> Any:
        threads = threads_here(self, step_of(fname))
        if threads is None:
            return plain(self, fname, *args, **options)
        step = step_of(fname)
        try:
            environment = job_environment(threads, temporary_directory(self))
            if step in BRANCH_TRIGGERS:
                branch.start()
            code = (branch if step in STACK_STEPS else worker).run(fname, environment)
        except Unavailable:
            return plain(self, fname, *args, **options)
        if code:
            raise subprocess.CalledProcessError(code, f"{sys.executable} {fname}")
        return None

    execute_script.plain = plain  # type: ignore[attr-defined]
    PythonScript.execute_script = execute_script
    # A job of a cluster may have no use for it.
    if not getattr(workflow, "remote_exec", True):
        start_early(workflow, worker)
    return worker


def threads_here(job: Any, step: str) -> int | None:
    """Return the threads of a job that the warm worker may do; None for any other.

    Parameters
    ----------
    job : snakemake.script.PythonScript
        One that lacks an attribute asked for here is none of the worker's.
    step : str
    """
    elsewhere = ("container_img", "conda_env", "env_modules", "bench_record")
    try:
        if any(getattr(job, name) is not None for name in elsewhere) or not job.is_local:
            return None
        threads = int(job.threads)
    except (AttributeError, TypeError, ValueError):
        return None
    return threads if threads == 1 or step in STACK_STEPS else None


def temporary_directory(job: Any) -> str | None:
    """Return the resource `tmpdir` of a job."""
    try:
        found = job.resources.get("tmpdir")
    except AttributeError:
        return None
    return found if isinstance(found, str) else None


def start_early(workflow: Any, worker: WarmWorker) -> None:
    """Start a warm worker while Snakemake finds out what there is to do.

    Snakemake tells only afterwards whether it is to run jobs here: if not, the worker ends again.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    worker : WarmWorker
    """
    execute = getattr(workflow, "execute", None)
    if execute is None:
        return

    def execute_here(*args: Any, **settings: Any) -> Any:
        plugin = settings.get("executor_plugin", args[0] if args else None)
        kind = getattr(plugin, "common_settings", None)
        # On a cluster the jobs run elsewhere.
        if any(getattr(kind, name, False) for name in RUNS_NOTHING_HERE):
            worker.stop()
        return execute(*args, **settings)

    # Otherwise the first job tries again.
    with contextlib.suppress(Unavailable):
        worker.start()
        workflow.execute = execute_here
