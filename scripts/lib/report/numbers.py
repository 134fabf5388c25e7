"""Format of numbers on the page and in the summary."""

import math
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object, digits: int, unit: str = "") -> str:
    """Return a number as text with a number of decimals; a dash where there is none."""
    if not is_number(value):
        return "–"
    return f"{value:.{digits}f}{unit}"


def duration(seconds: float) -> str:
    """Return a duration in words: ``45 s``, ``12 min``, ``1 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def rounded(value: float | None, digits: int) -> float | None:
    """Return a number for JSON, rounded; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)
