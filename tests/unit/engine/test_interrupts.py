"""Ctrl-C and a closed terminal end a run in order."""

import os
import signal
import sys

import pytest

from lib.engine import interrupts


@pytest.fixture(autouse=True)
def handlers():
    interrupts._asked.clear()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGHUP)}
    # The tests themselves may have been started with these ignored, by nohup or in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupts._asked.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ends_as_exit_does_and_is_ignored_at_the_end(number, monkeypatch):
    interrupts.end_in_order()
    with pytest.raises(SystemExit) as stop:
        os.kill(os.getpid(), number)
    assert stop.value.code == 130 and interrupts.was_asked_to_end()
    monkeypatch.setattr(sys, "argv", ["/bin/snakemake"])
    interrupts.ignore_at_the_end()
    os.kill(os.getpid(), number)


def test_what_is_ignored_stays_so():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.end_in_order()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_process_of_another_program_keeps_its_handlers(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    interrupts.ignore_at_the_end()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
