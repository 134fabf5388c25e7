"""How many cases a test of made-up input tries; `AUTOPROC_FUZZ` makes so many times as many."""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("AUTOPROC_FUZZ", "1"))


def cases(number):
    """Return the settings of a test of so many cases: the same ones each time, but by hand."""
    return settings(
        max_examples=number * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )
