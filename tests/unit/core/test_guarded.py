"""Work in a process of bounded memory and time: its arrays, or a reason."""

import ctypes
import os
import signal
import time

import numpy as np
import pytest
from fuzzcases import TIMES, tried

from lib.core.guarded import GuardedFailure, Stopwatch, guarded_arrays

HOW = {"memory": 256 << 20, "seconds": 20.0}


def test_arrays_come_back():
    first, second = np.arange(7, dtype=">i2").reshape(1, 7), np.full((3, 5), np.pi)
    got = guarded_arrays(lambda: [first, second], 1000, **HOW)
    assert [one.shape for one in got] == [(1, 7), (3, 5)]
    assert got[0].dtype == np.int16 and got[1].dtype == np.float64
    assert np.array_equal(got[0], first) and np.array_equal(got[1], second)


class Odd(Exception):
    def __str__(self):
        raise ValueError


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: fail(KeyError("TFORM1")), "KeyError: 'TFORM1'"),
        (lambda: fail(Odd()), "Odd"),
        (lambda: fail(RecursionError("two\n lines")), "RecursionError: two lines"),
        (lambda: [np.ones(1 << 30)], "MemoryError"),
        (lambda: [np.ones(2000)], "16000 bytes of pixels, 1000 were announced"),
        (lambda: [np.array(["a"])], "pixels of the kind <U1"),
        (lambda: ctypes.string_at(0), "the library crashed .SIGSEGV"),
        (os.abort, "the library crashed .SIGABRT"),
    ],
)
def test_whatever_goes_wrong_is_a_reason(work, said):
    with pytest.raises(GuardedFailure, match=said):
        guarded_arrays(work, 1000, **HOW)


def test_time_is_bounded():
    def spin():
        while True:
            pass

    begun = time.monotonic()
    with pytest.raises(GuardedFailure, match=r"not done after 1 s of CPU time"):
        guarded_arrays(spin, 1000, memory=64 << 20, seconds=1.0)
    assert time.monotonic() - begun < 15
    with pytest.raises(GuardedFailure, match=r"not done after 0.4 s"):
        guarded_arrays(lambda: time.sleep(60), 1000, memory=64 << 20, seconds=0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_the_user_kills_is_no_fault_of_the_file(number):
    with pytest.raises(ChildProcessError, match=number.name):
        guarded_arrays(lambda: os.kill(os.getpid(), number), 1000, **HOW)


def test_a_pause_of_this_process_does_not_count():
    watch = Stopwatch(tick=0.05)
    time.sleep(0.3)
    assert watch.look() == pytest.approx(0.05)
    assert watch.paused == pytest.approx(0.25, abs=0.1)


def test_made_up_input_is_tried_to_its_end():
    """What the tests of made-up input rest on: no case is skipped, no failure lost."""

    def work(number):
        if number == 3:
            raise ValueError("no")
        if number in (5, 7 * TIMES - 1):
            os.abort()

    assert tried(work, 7) == (["3 ValueError: no"], [5, 7 * TIMES - 1])
