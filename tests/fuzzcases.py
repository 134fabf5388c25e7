"""How many cases a test of made-up input tries, and cheap ways to try them.

`AUTOPROC_FUZZ=5` makes five times as many, other ones each time.
"""

import contextlib
import mmap
import os
import random
import resource
import signal
from collections.abc import Callable
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings

from lib.core import guarded

TIMES = int(os.environ.get("AUTOPROC_FUZZ", "1"))

SEED = "" if TIMES == 1 else os.urandom(8).hex()

SECONDS = 10
"""[s] CPU time of one case of a batch before its process is ended."""

MEMORY = 2 << 30
"""[byte] What the cases of a batch may take."""


def cases(number):
    """Return the settings of a test of so many cases: the same ones each time, but by hand."""
    return settings(
        max_examples=number * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )


def chance(kind: str, number: int) -> random.Random:
    """Return the random numbers of one case: the same ones each time, but by hand."""
    return random.Random(f"{SEED} {kind} {number}")


def tried(work: Callable[[int], None], number: int) -> tuple[list[str], list[int]]:
    """Do so many cases in a forked process each time one ends it.

    Within it what is guarded elsewhere by a process of its own is not: 10 ms a case are saved.

    Parameters
    ----------
    work : callable
        Does the case of a number.
    number : int
        Of cases; times `AUTOPROC_FUZZ`.

    Returns
    -------
    failed : list of str
        Case and exception.
    ended : list of int
        Cases that ended the process: to be tried guarded.
    """
    failed, ended, done, number = [], [], 0, number * TIMES
    while done < number:
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receiving)
            _worker(work, range(done, number), sending)
        os.close(sending)
        with os.fdopen(receiving, encoding="utf-8") as told:
            for line in told:
                case, _, words = line.strip().partition(" ")
                done = int(case) + 1
                if words:
                    failed.append(line.strip())
        _, status = os.waitpid(pid, 0)
        if status:
            ended.append(done - 1)
        assert done, "the first process did nothing"
    return failed, ended


def _worker(work, numbers, sending):
    code = 1
    try:
        # what ends it must end it, whatever the parent has set
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        guarded.faulthandler.disable()
        with contextlib.ExitStack() as stack:
            for place in ("lib.calibration.rawpixels", "lib.reference.votable"):
                stack.enter_context(mock.patch(f"{place}.guarded_arrays", _unguarded))
            for number in numbers:
                os.write(sending, f"{number}\n".encode())
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    work(number)
                except Exception as why:  # noqa: BLE001 - what it finds
                    text = f"{number} {guarded.failure_text(why)}\n"
                    os.write(sending, text.encode("utf-8", "replace"))
        code = 0
    finally:
        os._exit(code)


def _unguarded(work, size, **_):
    """`guarded_arrays` in this process."""
    shared = mmap.mmap(-1, max(size, 1))
    answer = guarded._work(work, shared)
    if "failed" in answer:
        raise guarded.GuardedFailure(answer["failed"])
    arrays, at = [], 0
    for kind, shape in answer["arrays"]:
        one = np.frombuffer(shared, kind, int(np.prod(shape, dtype=int)), at).reshape(shape)
        at += one.nbytes + -one.nbytes % 16
        arrays.append(one)
    return arrays
