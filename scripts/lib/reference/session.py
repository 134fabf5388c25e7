"""Answers of servers over HTTP, bounded in bytes and time, from the host that was asked."""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests

MAX_ANSWER = 128 << 20
"""[byte] Most of an answer, unpacked: a hundred thousand stars of a catalogue take 40 MB."""

PIECE = 1 << 16


class TooLong(requests.RequestException):
    """An answer of more than `MAX_ANSWER` bytes."""


class OtherHost(requests.RequestException):
    """A redirection to another host than the one that was asked."""


class BoundedSession(requests.Session):
    """A session whose answers end, and come from where they were asked for.

    Parameters
    ----------
    limit : int
        Bytes that an answer may have when unpacked.
    """

    def __init__(self, limit: int = MAX_ANSWER) -> None:
        super().__init__()
        self.limit = limit
        self.max_redirects = 3
        # Proxies of the environment hold; passwords of a .netrc are nobody's business here.
        self.auth = _no_password

    def get_redirect_target(self, resp: Any) -> str | None:
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        host = urlsplit(target).hostname
        if host is not None and host != urlsplit(resp.url).hostname:
            raise OtherHost(f"redirected to {host}, which was not asked")
        return target

    def send(self, request: Any, **options: Any) -> Any:
        options["stream"] = True
        response = super().send(request, **options)
        if response._content is not False:  # read already, as the end of a redirection
            return response
        content = bytearray()
        for piece in response.iter_content(PIECE):
            content += piece
            if len(content) > self.limit:
                response.close()
                raise TooLong(f"more than {self.limit / 1e6:.0f} MB")
        response._content = bytes(content)
        return response


def _no_password(request: Any) -> Any:
    return request


class TimeLimitReached(Exception):
    """The whole of an answer took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitReached` when the block takes longer.

    A socket's time-out starts anew with every byte; this one does not. In a thread other than
    the main one, where signals do not arrive, only the socket's is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise TimeLimitReached(f"no whole answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # again every second: an exception raised within a destructor would be lost
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def last_cause(why: Exception) -> str:
    """Return the last message in a chain of network errors, which is the cause."""
    told = re.findall(r"\[Errno -?\d+\] ([^\"'()]+)", str(why))
    return told[-1].strip() if told else f"{type(why).__name__}: {str(why)[:150]}"
