"""Durations of jobs in earlier runs on an `imdir`, as a first estimate for the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lib.core.files import atomic_path

RECORD = ".durations.json"
"""Name of the record in `imdir`."""


def read_durations(imdir: str | Path) -> dict[str, float]:
    """Return the mean time of a job of each rule in its last run [s]; {} if unknown."""
    try:
        found = json.loads((Path(imdir) / RECORD).read_bytes())
        return {str(rule): float(seconds) for rule, seconds in found.items() if seconds >= 0}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def write_durations(imdir: str | Path, seconds: Mapping[str, float]) -> None:
    """Record the mean time of a job of each rule [s]; rules that did not run keep theirs.

    Parameters
    ----------
    imdir : path-like
        Directory of the products.
    seconds : mapping of str to float
        Rule -> time of a job [s].
    """
    if not seconds:
        return
    whole = read_durations(imdir) | {rule: round(value, 3) for rule, value in seconds.items()}
    with suppress(OSError), atomic_path(Path(imdir) / RECORD) as beside:
        beside.write_text(json.dumps(dict(sorted(whole.items()))))
