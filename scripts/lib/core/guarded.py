"""Work on what others wrote, done in a process of its own with bounded memory and time."""

import faulthandler
import json
import mmap
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from lib.core.text import shown

TICK = 0.5
"""[s] Between looks at a process; a longer silence of this one, as after Ctrl-Z, is not counted."""


class GuardedFailure(Exception):
    """The exception raised by the work, or the limit that it reached."""


class Stopwatch:
    """Seconds that this process has seen pass: time for which it was stopped does not count.

    Parameters
    ----------
    tick : float
        Longest time between two looks that counts [s].
    """

    def __init__(self, tick: float = 2 * TICK) -> None:
        self.tick = tick
        self.seconds = 0.0
        self.paused = 0.0
        self._last = time.monotonic()

    def look(self, counts: bool = True) -> float:
        """Return the seconds that have passed.

        Parameters
        ----------
        counts : bool
            Whether those since the last look are among them.
        """
        now = time.monotonic()
        step, self._last = now - self._last, now
        counted = min(step, self.tick) if counts else 0.0
        self.seconds += counted
        self.paused += step - counted
        return self.seconds


def guarded_arrays(
    work: Callable[[], list[np.ndarray]], size: int, *, memory: int, seconds: float
) -> list[np.ndarray]:
    """Return the arrays that `work` makes in a fork of this process.

    Parameters
    ----------
    work : callable
        Returns arrays of numbers.
    size : int
        Most bytes that they have together; taken from the system only as far as they are used.
    memory : int
        Most bytes that the work may take beside those.
    seconds : float
        Most CPU time; twenty times as much may pass.

    Returns
    -------
    list of ndarray
        The arrays, in native byte order.

    Raises
    ------
    GuardedFailure
        Whatever `work` raised, as text; a crash; a limit.
    ChildProcessError
        It was killed from outside, as a machine short of memory does.
    """
    shared = mmap.mmap(-1, max(size, 1))
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks where there are threads: the child calls none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(receiving)
        _child(work, shared, sending, memory, seconds)
    os.close(sending)
    try:
        told = _listen(receiving, 20 * seconds)
    except BaseException:  # of whatever kind: it is raised again
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(receiving)
    if told is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise GuardedFailure(f"not done after {20 * seconds:g} s")
    _, status = os.waitpid(pid, 0)
    _check_end(status, seconds)
    if not told:
        raise ChildProcessError("it ended without an answer")
    answer = json.loads(told)
    if "failed" in answer:
        raise GuardedFailure(answer["failed"])
    arrays, at = [], 0
    for kind, shape in answer["arrays"]:
        one = np.frombuffer(shared, kind, int(np.prod(shape, dtype=int)), at).reshape(shape)
        at += one.nbytes + -one.nbytes % 16
        arrays.append(one)
    return arrays


def _check_end(status: int, seconds: float) -> None:
    """Raise the meaning of the signal that ended a child, if one did."""
    if not os.WIFSIGNALED(status):
        return
    number = os.WTERMSIG(status)
    if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        raise ChildProcessError(f"killed by {signal.Signals(number).name}")
    if number == signal.SIGXCPU:
        raise GuardedFailure(f"not done after {seconds:g} s of CPU time")
    raise GuardedFailure(f"the library crashed ({signal.Signals(number).name})")


def _listen(receiving: int, seconds: float) -> bytes | None:
    """Return all that a child writes until it ends; None where that takes too long."""
    told, watch = b"", Stopwatch()
    while watch.look() < seconds:
        if select.select([receiving], [], [], TICK)[0]:
            piece = os.read(receiving, 1 << 16)
            if not piece:
                return told
            told += piece
    return None


def _child(
    work: Callable[[], list[np.ndarray]],
    shared: mmap.mmap,
    sending: int,
    memory: int,
    seconds: float,
) -> None:
    """Do the work within limits, put its arrays into `shared`, and end the process."""
    code = 1
    try:
        _limit(memory, seconds)
        answer = json.dumps(_work(work, shared))
        os.write(sending, answer.encode())
        code = 0
    finally:
        # Nothing of the parent is done here: no clean-up, no buffers written twice.
        os._exit(code)


def _limit(memory: int, seconds: float) -> None:
    """Bound this process, of which the interpreter and its libraries are a part already."""
    for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    # A crash is told by the parent.
    faulthandler.disable()
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not a Linux
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = held + memory
    resource.setrlimit(resource.RLIMIT_AS, (bound if most < 0 else min(bound, most), most))


def _work(work: Callable[[], list[np.ndarray]], shared: mmap.mmap) -> dict[str, Any]:
    """Return where the arrays of `work` are in `shared`, or what went wrong."""
    try:
        told, at = [], 0
        for one in work():
            array = np.ascontiguousarray(one, one.dtype.newbyteorder("="))
            if array.dtype.kind not in "iufb":
                return {"failed": f"pixels of the kind {array.dtype}"}
            end = at + array.nbytes
            if end > len(shared):
                return {"failed": f"{end} bytes of pixels, {len(shared)} were announced"}
            shared[at:end] = array.tobytes()
            told.append([array.dtype.str, list(array.shape)])
            at = end + -end % 16
    except Exception as why:  # noqa: BLE001 - what a library raises on bytes of others is its own
        return {"failed": failure_text(why)}
    return {"arrays": told}


def failure_text(why: BaseException) -> str:
    """Return kind and words of an exception as one short line."""
    try:
        words = shown(" ".join(str(why).split()))
    except Exception:  # noqa: BLE001 - even the text of it may fail
        words = ""
    return f"{type(why).__name__}: {words}"[:200].rstrip(": ")
