"""Run Snakemake: what stops or pauses this process does so to Snakemake and its jobs."""

import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any


def run(command: Sequence[str]) -> int:
    """Run a command and return its exit code; 128 and the signal where one ended it.

    SIGINT and SIGHUP end its jobs, then itself; SIGTERM lets the jobs that run come to their end;
    SIGTSTP pauses all. Each reaches the command once, whether a terminal or somebody else sent it:
    it has a process group of its own.

    Parameters
    ----------
    command : sequence of str
    """
    ours = threading.current_thread() is threading.main_thread()
    apart = ours and not _terminal_stops_writers()
    stopped: list[int] = []
    with subprocess.Popen(command, process_group=0 if apart else None) as child:
        before = _pass_on_signals(child, apart, stopped) if ours else {}
        try:
            while True:
                try:
                    code = child.wait()
                    break
                except KeyboardInterrupt:
                    # It has been told, and ends its jobs first.
                    continue
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if stopped:
        print("autoproc: stopped; the next run goes on from here", file=sys.stderr, flush=True)
    return code if code >= 0 else 128 - code


def _pass_on_signals(child: subprocess.Popen, apart: bool, stopped: list[int]) -> dict[int, Any]:
    """Pass signals on to a command; return the handlers that were there before.

    What stops it is added to `stopped`.
    """
    before: dict[int, Any] = {}

    def tell(number: int) -> None:
        with suppress(ProcessLookupError):
            if apart:
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        tell(signal.SIGINT)
        _as_before(number, frame)

    def finish(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)
        _as_before(number, frame)

    def _as_before(number: int, frame: FrameType | None) -> None:
        handler = before[number]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)

    def pause(number: int, frame: FrameType | None) -> None:
        tell(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGSTOP)
        tell(signal.SIGCONT)

    handlers = {signal.SIGINT: stop, signal.SIGHUP: stop, signal.SIGTERM: finish}
    if apart:
        handlers[signal.SIGTSTP] = pause
    for number, handler in handlers.items():
        # What nohup or a shell has told us to ignore is ignored by the command, too.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _terminal_stops_writers() -> bool:
    """Return whether the terminal stops processes in the background that write to it."""
    try:
        return bool(termios.tcgetattr(sys.stderr.fileno())[3] & termios.TOSTOP)
    except (OSError, ValueError, termios.error):  # no terminal
        return False
