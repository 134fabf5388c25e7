"""How long jobs took in earlier runs on an `imdir`: a first guess for the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lib.core.files import atomic_path

RECORD = ".durations.json"
"""Name of the record in `imdir`."""


def read_durations(imdir: str | Path) -> dict[str, float]:
    """Return the seconds that a job of each rule took when the rule last ran; {} if unknown."""
    try:
        found = json.loads((Path(imdir) / RECORD).read_bytes())
        return {str(rule): float(seconds) for rule, seconds in found.items() if seconds >= 0}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def write_durations(imdir: str | Path, seconds: Mapping[str, float]) -> None:
    """Keep the seconds that a job of each rule took; rules that did not run keep theirs.

    Parameters
    ----------
    imdir : path-like
    seconds : mapping of str to float
        By rule.
    """
    if not seconds:
        return
    whole = read_durations(imdir) | {rule: round(value, 3) for rule, value in seconds.items()}
    with suppress(OSError), atomic_path(Path(imdir) / RECORD) as beside:
        beside.write_text(json.dumps(dict(sorted(whole.items()))))
