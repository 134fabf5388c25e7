"""Reduce what arrives in a directory of raw frames, night-long."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from autoproc.workflow import load

NOTHING_YET = 3
"""Exit code of the workflow where a directory holds no science frame."""

IMPOSSIBLE = 2
"""Exit code where the configuration cannot be run."""

SHORTEST, LONGEST = 0.1, 86400.0
"""[s] Between looks."""

FIRST_WAIT, LAST_WAIT = 10.0, 600.0
"""[s] After a run that failed until it is tried again: the first, and after many failures."""

State = tuple[int, int, int]
"""Size, times of change of content and of entry [ns] of a file."""


def look_interval(text: str) -> float:
    """Return the seconds between looks that a text states.

    Raises
    ------
    ValueError
        One sentence that says what to write.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(
            f"--watch: {text!r} is no time between looks, write seconds from {SHORTEST:g} to "
            f"{LONGEST:.0f}, as --watch 10"
        )
    return seconds


def raw_files(
    datadir: str | os.PathLike | Sequence[str], recursive: bool = False
) -> dict[str, State]:
    """Return what lies in the directories of raw frames, by name.

    Parameters
    ----------
    datadir : path-like or list of str
        A directory, a pattern of directories, or several.
    recursive : bool
        Whether the directories below count, too.

    Raises
    ------
    OSError
        A directory cannot be read, or there is none.
    """
    places = load("rawfiles").raw_places(datadir, recursive)
    found = {}
    for name in places.names():
        try:
            info = os.stat(os.path.join(places.root, name))
        except OSError:  # gone meanwhile, a link to nowhere or to itself: the run lists it
            continue
        found[name] = (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


def settled(before: Mapping[str, State], now: Mapping[str, State]) -> dict[str, State]:
    """Return the files that have not changed between two looks."""
    return {name: state for name, state in now.items() if before.get(name) == state}


class Watch:
    """A directory that is watched, and what has been reduced of it.

    Parameters
    ----------
    run : callable
        Reduces the directory; returns the exit code.
    datadir : path-like or list of str
    interval : float
        Seconds between looks.
    note : callable
        Tells the user a sentence.
    recursive : bool
        Whether the directories below count, too.
    """

    def __init__(
        self,
        run: Callable[[], int],
        datadir: str | os.PathLike | Sequence[str],
        interval: float,
        note: Callable[[str], None],
        recursive: bool = False,
    ) -> None:
        self.run, self.datadir, self.interval, self.note = run, datadir, interval, note
        self.recursive = recursive
        self.seen: dict[str, State] = {}
        self.reduced: dict[str, State] | None = None
        self.away = False
        self.wait = FIRST_WAIT
        self.again: float | None = None

    def look(self) -> int | None:
        """Look once, and reduce what has settled; return an exit code where that is the end."""
        before = self.seen
        self.seen = self._files()
        ready = settled(before, self.seen)
        due = self.again is not None and time.monotonic() >= self.again
        if not ready or (ready == self.reduced and not due):
            return None
        first, self.reduced, self.again = self.reduced is None, ready, None
        try:
            code = self.run()
        except OSError as error:  # no memory or no room for another process
            self.note(str(error))
            code = 1
        if code == IMPOSSIBLE and first and not self.away:
            return code
        if code == NOTHING_YET:
            self.note("waiting for a science frame")
        elif code:
            self.wait = max(self.wait, self.interval)
            self.again = time.monotonic() + self.wait
            self.note(
                f"the run failed (exit code {code}): once more in {self.wait:g} s, or when a "
                "frame arrives"
            )
            self.wait = min(2 * self.wait, max(LAST_WAIT, self.interval))
            return None
        self.wait = FIRST_WAIT
        return None

    def _files(self) -> dict[str, State]:
        """Return what lies there; nothing as long as the directory is away."""
        try:
            now = raw_files(self.datadir, self.recursive)
        except OSError as error:
            if not self.away:
                self.note(f"{self.datadir}: {error.strerror or error}; waiting for it")
            self.away = True
            return {}
        if self.away:
            self.note(f"{self.datadir} is back")
        self.away = False
        return now

    def go_on(self) -> int:
        """Look again and again, until told to stop (SIGINT or SIGTERM).

        Returns
        -------
        int
            Exit code: 0 when stopped, else that of a run that the configuration made impossible.
        """
        going = True

        def stop(number, frame):
            nonlocal going
            going = False
            raise KeyboardInterrupt

        before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
        self.note(f"watching {self.datadir}, checked every {self.interval:g} s; stop with Ctrl-C")
        try:
            while going:
                code = self.look()
                if code is not None:
                    return code
                time.sleep(self.interval)
        except KeyboardInterrupt:
            pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        self.note("stopped; the same command goes on from here")
        return 0
