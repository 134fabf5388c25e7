"""A warm process that runs the rules' scripts, so that packages are imported once per run.

Snakemake starts an interpreter for each job, which imports numpy and astropy again: half a second
of CPU, more than a step takes on a small frame. Here one process imports what the steps share and
then waits; each job is a fork of it, with everything loaded. The jobs of whole stacks need more,
and are forks of a branch that imports that as well. In every other respect a job remains a process
of its own, with its own exit code, environment and memory. Only jobs of the same kind of step are
run in the process of a previous one, if that succeeded and did not take much memory: clearing
memory for a new process takes a sixth to a third of their time.

Other jobs with more than one thread, jobs in containers or conda environments, and all jobs if the
warm process cannot be started, run as Snakemake runs them. So do all jobs with ``AUTOPROC_WARM=0``
(``AUTOPROC_PLAIN=1`` also turns off the other additions of `lib.engine.install`).

The two processes communicate over a socket pair, which has no name on disk: a crash leaves nothing
behind, and when one process ends, the other sees the end of the stream.
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
"""Their jobs run in a branch of the warm process, with any number of threads: threads are started
by our own code, not by a library loaded for a single one."""

BRANCH_TRIGGERS = PIPELINE.before_stacks
"""Steps of frames whose first job starts the branch, so that it is ready when needed."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Variables that Snakemake sets to the number of threads of a job."""

MALLOC_TUNABLES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864"
    ":glibc.malloc.trim_threshold=134217728"
)
"""Tunables of glibc: by default each operation on arrays takes new memory page by page."""

TEMPORARY_VARIABLES = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")

REQUEST_LIMIT = 1 << 20
"""[byte] Maximum size of a request: environment and names of a job."""

RUNS_NOTHING_HERE = ("dryrun_exec", "touch_exec", "non_local_exec")
"""Settings of Snakemake's executors without jobs for this machine."""

STOP_LIMIT = 10.0
"""[s] Time after which a process that does not stop is killed."""


class Unavailable(Exception):
    """The warm process could not be started, or has ended."""


class WarmWorker:
    """The warm process as seen from Snakemake; started by the first job at the latest.

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
        """Return the fork of the process that also imports `PRELOAD_STACK`; not started yet."""
        self._branch = self._branch or WorkerBranch(self)
        return self._branch

    def start(self) -> None:
        """Start the process if necessary; it loads packages in the background.

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
        """End the warm process, its branch, and any jobs still running.

        A further job would start it again.
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
        """Pass a request and the socket for its answer to the warm process.

        Raises
        ------
        Unavailable
        """
        words = json.dumps(request).encode()
        if len(words) > REQUEST_LIMIT:
            raise Unavailable(f"request of {len(words)} bytes")
        self.start()
        # Snakemake calls this from several threads: requests must not interleave.
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
        """Run a script and wait for it.

        Parameters
        ----------
        script : str
            Path of the file that Snakemake made for the job.
        environment : dict of str to str

        Returns
        -------
        int
            Exit code; for a job killed by a signal minus its number, also where the warm process
            died with it.

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
    """A fork of the warm process that also imports `PRELOAD_STACK`.

    Parameters
    ----------
    stem : WarmWorker
        The warm process, with which it ends.
    """

    def __init__(self, stem: WarmWorker) -> None:
        super().__init__(stem.scripts)
        self.stem = stem

    def _start(self, theirs: socket.socket) -> None:
        self.stem.send(BRANCH, theirs)

    def stop(self) -> None:
        """Tell the branch to end; its stem waits for it when ending."""
        self.close()


def job_environment(threads: int, tmpdir: str | None = None) -> dict[str, str]:
    """Return the environment that Snakemake gives a job with a number of threads."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    if tmpdir:
        environment |= dict.fromkeys(TEMPORARY_VARIABLES, tmpdir)
    return environment


def attach(workflow: Any, scripts: str | Path) -> WarmWorker:
    """Run the scripts of a workflow's rules in forks of a warm worker.

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
        This version of Snakemake runs scripts in an unknown way.
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
    # A cluster job may not need it.
    if not getattr(workflow, "remote_exec", True):
        start_early(workflow, worker)
    return worker


def threads_here(job: Any, step: str) -> int | None:
    """Return the threads of a job that the warm worker can run; None for any other.

    Parameters
    ----------
    job : snakemake.script.PythonScript
        A job that lacks one of the attributes used here cannot be run.
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
    """Start a warm worker while Snakemake is planning.

    Whether jobs run on this machine is known only afterwards: if not, the worker ends again.

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
