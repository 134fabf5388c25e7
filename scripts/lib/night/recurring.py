"""Answers about headers that recur from frame to frame, computed once.

Most questions about a header (settings, sections, filter, target) have the same answer in many
frames. Answers are cached by the cards on which they depend.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, TypeVar

from lib.night.headervalues import MAX_TEXT, CardHeader, Header, compiled, keywords_of

T = TypeVar("T")

MOST = 4096
"""Maximum number of cached answers to a question; beyond that they are forgotten."""


def _file_patterns(spec: Any) -> Iterator[str]:
    """Yield the regular expressions of an instrument file's entry for file names."""
    if isinstance(spec, dict):
        if "file_name" in spec:
            yield spec["file_name"]
        spec = list(spec.values())
    if isinstance(spec, list):
        for item in spec:
            yield from _file_patterns(item)


class Recurring:
    """The cached answers to one question about headers.

    Parameters
    ----------
    specs : iterable
        Entries of an instrument file on which the answer depends.
    keywords : iterable of str
        Further keywords on which it depends.
    """

    def __init__(self, specs: Iterable[Any], keywords: Iterable[str] = ()) -> None:
        specs = list(specs)
        names = [*keywords, *(key for spec in specs for key in keywords_of(spec))]
        self.keywords = list(dict.fromkeys(name.removeprefix("HIERARCH ") for name in names))
        self.patterns = [compiled(one) for spec in specs for one in _file_patterns(spec)]
        self._answers: dict[Hashable, Any] = {}

    def answer(self, header: Header, filename: str, ask: Callable[[], T], *more: Hashable) -> T:
        """Return the answer for a header, computed if its cards were not seen before.

        Parameters
        ----------
        header : mapping
            Header; without cards the answer is computed each time.
        filename : str
        ask : callable
            Computes the answer, which callers must not change. Its exceptions are passed on, and
            not cached.
        *more : hashable
            Further arguments on which the answer depends.
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
