"""What the headers of a night say again and again, worked out once.

Most of what is asked of a header (its camera's settings, sections, filter, target) is the same in
many frames. It is kept by the cards on which it depends: other cards, another answer.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from lib.night.headervalues import MAX_TEXT, CardHeader, Header, compiled, keywords_of

T = TypeVar("T")

MOST = 4096
"""Answers that are kept of one question; beyond, they are forgotten."""


def _file_patterns(spec: Any) -> Iterator[str]:
    """Yield the regular expressions that an entry of an instrument file searches in file names."""
    if isinstance(spec, dict):
        if "file_name" in spec:
            yield spec["file_name"]
        spec = list(spec.values())
    if isinstance(spec, list):
        for item in spec:
            yield from _file_patterns(item)


class Recurring:
    """The answers to one question about headers.

    Parameters
    ----------
    specs : iterable
        Entries of an instrument file on which the answer depends.
    keywords : iterable of str
        Keywords on which it depends beside.
    """

    def __init__(self, specs: Iterable[Any], keywords: Iterable[str] = ()) -> None:
        specs = list(specs)
        names = [*keywords, *(key for spec in specs for key in keywords_of(spec))]
        self.keywords = list(dict.fromkeys(name.removeprefix("HIERARCH ") for name in names))
        self.patterns = [compiled(one) for spec in specs for one in _file_patterns(spec)]
        self._answers: dict[Hashable, Any] = {}

    def answer(self, header: Header, filename: str, ask: Callable[[], T], *more: Hashable) -> T:
        """Return the answer for a header: a new one where its cards were not seen before.

        Parameters
        ----------
        header : mapping
            One without cards is asked each time.
        filename : str
        ask : callable
            Works out the answer, which must not be changed by who gets it. What it raises is
            raised, and asked again.
        *more : hashable
            What the answer depends on beside.
        """
        if not isinstance(header, CardHeader):
            return ask()
        groups = [self._group(pattern, filename) for pattern in self.patterns]
        key = (*map(header.card_of.get, self.keywords), *groups, *more)
        try:
            found: T = self._answers[key]
        except KeyError:
            if len(self._answers) >= MOST:
                self._answers.clear()
            found = self._answers[key] = ask()
        return found

    @staticmethod
    def _group(pattern: re.Pattern[str], filename: str) -> str | None:
        match = pattern.search(filename[:MAX_TEXT])
        return match.group(1) if match else None
