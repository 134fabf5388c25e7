"""The warm process itself: it imports what the steps share, and forks for each job.

A program started by `lib.engine.worker` with two arguments: the number of its control socket, and
the directory of the scripts.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # Run as a program: its directory must not be searched for modules.
    sys.path[0] = sys.argv[2]

from lib.core.pipeline import PIPELINE  # noqa: E402

PRELOAD = (
    "snakemake.logging",
    "snakemake.io",
    "snakemake.iocontainers",
    "lib.frame.step",
    "lib.frame.fitsbytes",
    "lib.calibration.prepare",
    "lib.calibration.cosmicrays",
    "lib.background.flatten",
    "lib.background.makesky",
    "lib.background.subtraction",
    "lib.background.sky",
    "lib.core.columns",
    "lib.calibration.masters",
    "lib.background.mastersky",
    "astropy.table",
    "scipy.fft",
    "scipy.ndimage",
    "scipy.sparse.csgraph",
    "scipy.special",
    "sep",
)
"""Modules used by the steps of frames, masters and skies."""

PRELOAD_STACK = (
    "solve",
    "stack",
    "lib.photometry.forced",
    "lib.report.page",
    "astropy.io.ascii",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "scipy.interpolate",
    "scipy.sparse.linalg",
    "scipy.spatial",
)
"""Further modules used by the steps of whole stacks."""

REUSING_STEPS = PIPELINE.local_rules
"""Their jobs leave only their log open: another job may follow in the same process."""

MEMORY_LIMIT = 600
"""[MB] A job that has used more ends its process, to free all memory."""

IDLE_LIMIT = 1.0
"""[s] A process without a job ends after this time, to free its memory."""

Request = dict[str, Any]

BRANCH: Request = {"branch": True}
"""Request for a branch instead of a job; the socket sent with it is its control."""

GC_THRESHOLDS = (20_000, 10, 10)
"""Thresholds of the garbage collector: arrays are freed without it, whereas it visits every live
header card."""

PR_SET_PDEATHSIG = 1


def step_of(script: str) -> str:
    """Return the step of a script made by Snakemake: tmp….<step>.py."""
    return os.path.basename(script).removesuffix(".py").rpartition(".")[2]


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):  # not Linux
        return


def send(stream: socket.socket, words: bytes, rights: Sequence[Any] = ()) -> None:
    """Send a message, preceded by its length, for `receive`."""
    stream.sendmsg([len(words).to_bytes(4, "big")], rights)
    stream.sendall(words)


def receive(stream: socket.socket) -> tuple[Request, socket.socket | None] | None:
    """Return the next request and the socket for its answer, if it has one; None at the end."""
    head, rights, _, _ = stream.recvmsg(4, socket.CMSG_SPACE(array.array("i").itemsize))
    if not head:
        return None
    numbers = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    left = int.from_bytes(head, "big")
    words = bytearray()
    while len(words) < left:
        part = stream.recv(left - len(words))
        if not part:
            return None
        words += part
    return json.loads(words), socket.socket(fileno=numbers[0]) if numbers else None


def load(names: Iterable[str]) -> None:
    """Import modules that the forks will share."""
    with importlib.import_module("lib.core.files").neutral_directory():
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError:
                # Modules that this version of Snakemake has elsewhere are imported by the jobs.
                if not name.startswith("snakemake."):
                    raise
    # Otherwise the first collection in each fork would copy every page with an object.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@dataclass
class Fork:
    """A fork of the warm worker, as seen by the worker.

    Parameters
    ----------
    link : socket.socket
        Socket to the fork: requests are sent to it, and a byte for each successful job comes back.
    reply : socket.socket or None
        Socket for the exit code of its job; None without a job.
    idle_since : float
        Time at which its last job ended [s].
    """

    link: socket.socket
    reply: socket.socket | None
    idle_since: float = 0.0

    def end(self, code: int) -> None:
        """Report the exit code of the job, if there is one, to Snakemake."""
        if self.reply is not None:
            answer(self.reply, code.to_bytes(4, "big", signed=True))
            self.reply.close()
            self.reply = None


class Dispatcher:
    """The main loop of the warm worker: gives each request to a new or idle fork.

    Parameters
    ----------
    control : socket.socket
        Socket from which requests come; the worker ends with it.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.forks: dict[int, Fork] = {}
        self.branches: set[int] = set()
        # The end of a child wakes the loop through this pipe.
        self.wake, self.tell = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.tell, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.tell, warn_on_full_buffer=False)

    def serve(self) -> tuple[Request, socket.socket] | None:
        """Dispatch requests until the control socket is closed.

        Returns
        -------
        tuple or None
            In a fork its first request, and its socket to the warm worker or, in a branch, its
            control; None at the end.
        """
        while True:
            if not self.wait():
                continue
            received = receive(self.control)
            if received is None:
                self.end_forks()
                return None
            request, reply = received
            if reply is None:
                continue
            if request != BRANCH and self.reuse(request, reply):
                continue
            link = self.fork(request, reply)
            if link is not None:
                return request, link

    def wait(self) -> bool:
        """Wait for jobs to end and for a request; return whether there is one."""
        busy = {fork.link: fork for fork in self.forks.values() if fork.reply}
        patience = IDLE_LIMIT if len(busy) < len(self.forks) else None
        watched: list[Any] = [self.control, self.wake, *busy]
        ready, _, _ = select.select(watched, [], [], patience)
        for fork in (busy[link] for link in ready if link in busy):
            # Otherwise the fork died; SIGCHLD reports how.
            if read_byte(fork.link):
                fork.end(0)
                fork.idle_since = time.monotonic()
        if self.wake in ready:
            os.read(self.wake, 4096)
            self.report_exits()
        self.dismiss_idle()
        return self.control in ready

    def fork(self, request: Request, reply: socket.socket) -> socket.socket | None:
        """Fork for a request; return the fork's socket in the fork, None in the worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        is_branch = request == BRANCH
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent()
            link, unused = (reply, theirs) if is_branch else (theirs, reply)
            others = [end for fork in self.forks.values() for end in (fork.link, fork.reply) if end]
            for one in (self.control, unused, ours, *others):
                one.close()
            os.close(self.wake)
            os.close(self.tell)
            return link
        theirs.close()
        if is_branch:
            self.branches.add(pid)
            ours.close()
            reply.close()
        else:
            self.forks[pid] = Fork(ours, reply)
            answer(reply, b"+")
        return None

    def reuse(self, request: Request, reply: socket.socket) -> bool:
        """Give a request to an idle fork; return whether there was one."""
        if step_of(request["script"]) not in REUSING_STEPS:
            return False
        for fork in self.forks.values():
            if fork.reply is None and fork.link.fileno() >= 0:
                try:
                    send(fork.link, json.dumps(request).encode())
                except OSError:  # killed
                    continue
                fork.reply = reply
                answer(reply, b"+")
                return True
        return False

    def report_exits(self) -> None:
        """Report the exit codes of forks that have ended to Snakemake."""
        while self.forks or self.branches:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self.branches:
                self.branches.remove(pid)
                continue
            fork = self.forks.pop(pid)
            fork.end(os.waitstatus_to_exitcode(status))
            fork.link.close()

    def dismiss_idle(self) -> None:
        """End the forks that have been idle for long."""
        long_ago = time.monotonic() - IDLE_LIMIT
        for fork in self.forks.values():
            if fork.reply is None and fork.idle_since < long_ago:
                fork.link.close()

    def end_forks(self) -> None:
        """End all forks and branches, and wait, so that their CPU time is counted."""
        for pid in (*self.forks, *self.branches):
            os.kill(pid, signal.SIGTERM)
        for pid in (*self.forks, *self.branches):
            os.waitpid(pid, 0)


def read_byte(link: socket.socket) -> bool:
    """Read a byte from a process; return whether there was one."""
    try:
        return bool(link.recv(1))
    except OSError:
        return False


def answer(reply: socket.socket, words: bytes) -> None:
    """Send an answer; if nobody listens, the control socket will close as well."""
    try:
        reply.sendall(words)
    except OSError:
        return


def run_script(request: Request, path: list[str]) -> None:
    """Run a script as ``python script`` does.

    Parameters
    ----------
    request : dict
    path : list of str
        `sys.path` of a fresh interpreter.
    """
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script = request["script"]
    sys.argv[:] = [script]
    sys.path[:] = [os.path.dirname(script), *path]
    main = types.ModuleType("__main__")
    main.__file__ = script
    vars(main)["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    exec(code, main.__dict__)


def end_process(code: int) -> NoReturn:
    """End the process like an interpreter, but without cleaning up its modules.

    That would copy every page that a fork shares with its parent.
    """
    # Begin the traceback in the script.
    kind, error, trace = sys.exc_info()
    if error is not None and kind is not None and kind is not SystemExit:
        while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(kind, error.with_traceback(trace), trace)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if kind is KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def may_take_another(request: Request) -> bool:
    """Return whether the process of a successful job may run another one."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    known = step_of(request["script"]) in REUSING_STEPS
    return known and held < MEMORY_LIMIT and threading.active_count() == 1


def next_request(link: socket.socket) -> Request | None:
    """Report that the job succeeded, and wait for another; return None where none comes.

    Parameters
    ----------
    link : socket.socket
        Socket to the warm process.

    Returns
    -------
    dict or None
        The request.
    """
    importlib.import_module("lib.frame.step").end_log()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        link.sendall(b".")
        received = receive(link)
    except OSError:
        received = None
    reset_peak_memory()
    # Leaving the context re-enables warnings that were shown once.
    with warnings.catch_warnings():
        pass
    return received and received[0]


def reset_peak_memory() -> None:
    """Reset the kernel's measure of the peak memory of this process (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def exit_code(stop: SystemExit) -> int:
    """Return the exit code of a SystemExit; a message is printed."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def do_jobs(first: Request, link: socket.socket, path: list[str]) -> None:
    """Run a script, and further ones while the warm worker sends some.

    Parameters
    ----------
    first : dict
        First request.
    link : socket.socket
        Socket to the warm worker.
    path : list of str
        `sys.path` of a fresh interpreter.
    """
    request: Request | None = first
    while request is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            run_script(request, path)
            # The job is done: from here on Ctrl-C ends the process silently.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = 0
        except SystemExit as stop:
            code = exit_code(stop)
        finally:
            if code or not may_take_another(request):
                end_process(code)
        request = next_request(link)


def main() -> None:
    """Import the shared modules, serve requests, and in each fork run the script."""
    # Ctrl-C reaches the jobs, which are in the same group; this process ends with Snakemake.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number, _ = sys.argv[1:]
    path = sys.path[1:]
    control = socket.socket(fileno=int(number))
    load(PRELOAD)
    task = Dispatcher(control).serve()
    if task and task[0] == BRANCH:
        load(PRELOAD_STACK)
        # A branch ends with its control socket, once its jobs have ended.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        task = Dispatcher(task[1]).serve()
    if task:
        do_jobs(*task, path)
    end_process(0)


if __name__ == "__main__":
    main()
