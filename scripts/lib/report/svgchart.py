"""Charts as SVG, without a script: for pages that need none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

import numpy as np

PALETTE = ("#4c78d8", "#2ca58d", "#e0912f", "#d1495b", "#8a5cc2", "#5f8f3e", "#b85c9e", "#4aa3c7",
           "#9c755f", "#c2a200")  # fmt: skip
"""Colours of filters, and of what else is told apart: those of the page of a night."""

MARGINS = (58, 12, 26, 26)
"""[pixel] Left, right, top and bottom of the frame of a chart."""

LEAST_SPAN = 5e-4
"""[largest value] Half of the range of an ordinate, at least: what varies by less is constant."""

LARGE_GAP = 60.0
"""[pixel] Between labels of the abscissa, at least."""


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Parameters
    ----------
    label, colour : str
    x, y : ndarray, shape (n,)
        What is not finite is not drawn.
    error : ndarray, shape (n,), optional
        Of y.
    mark : {'dot', 'square', 'limit'}
    faint, joined : bool
        Drawn faintly; with a line from point to point.
    """

    label: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    mark: str = "dot"
    faint: bool = False
    joined: bool = False


def chart(
    series: Sequence[Series], title: str, size: tuple[int, int] = (700, 280), *,
    inverted: bool = False,
) -> str:  # fmt: skip
    """Return a chart against time as an SVG element.

    Parameters
    ----------
    series : list of Series
        Abscissae are MJD.
    title : str
        Drawn above, and read aloud.
    size : tuple of int
        Width and height [pixel].
    inverted : bool
        Whether values grow downwards, as magnitudes do.

    Returns
    -------
    str
        Empty where there is nothing to draw.
    """
    x = np.concatenate([one.x for one in series]) if series else np.empty(0)
    y = np.concatenate([one.y for one in series]) if series else np.empty(0)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return ""
    width, height = size
    left, right, top, bottom = MARGINS
    low_x, high_x = _padded(x[good], 0.03, 0.02)
    low_y, high_y = _padded(y[good], 0.08, LEAST_SPAN * float(np.abs(y[good]).max()))

    def px(value: float) -> float:
        return left + (value - low_x) / (high_x - low_x) * (width - left - right)

    def py(value: float) -> float:
        part = (value - low_y) / (high_y - low_y)
        return top + (part if inverted else 1 - part) * (height - top - bottom)

    lines = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        f'<text x="{left}" y="15">{escape(title)}</text>',
        f'<rect class="frame" x="{left}" y="{top}" width="{width - left - right}" '
        f'height="{height - top - bottom}"/>',
    ]
    for value, words in _ticks(low_y, high_y, max(2, (height - top - bottom) // 30)):
        place = py(value)
        lines.append(f'<path class="grid" d="M{left} {place:.1f}H{width - right}"/>')
        lines.append(f'<text x="{left - 5}" y="{place + 4:.1f}" text-anchor="end">{words}</text>')
    for value, words in _time_ticks(low_x, high_x, (width - left - right) / LARGE_GAP):
        place = px(value)
        lines.append(f'<path class="grid" d="M{place:.1f} {top}V{height - bottom}"/>')
        lines.append(
            f'<text x="{place:.1f}" y="{height - 9}" text-anchor="middle">{words}</text>'
        )  # fmt: skip
    lines += [_drawn(one, px, py) for one in series]
    return "\n".join([*lines, "</svg>"])


def _drawn(one: Series, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    """Return the paths of a series."""
    known = np.isfinite(one.x) & np.isfinite(one.y)
    places = [(px(a), py(b)) for a, b in zip(one.x[known], one.y[known], strict=True)]
    style = f'stroke="{one.colour}" fill="none"' + (' opacity=".4"' if one.faint else "")
    paths = []
    if one.joined:
        way = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        paths.append(f'<path {style} d="M{way}"/>')
    if one.error is not None:
        bars = "".join(
            f"M{px(a):.1f} {py(b - e):.1f}V{py(b + e):.1f}"
            for a, b, e in zip(one.x[known], one.y[known], one.error[known], strict=True)
            if np.isfinite(e)
        )
        paths.append(f'<path {style} d="{bars}"/>' if bars else "")
    shapes = {"dot": "M{0:.1f} {1:.1f}h0", "square": "M{0:.1f} {1:.1f}m-4-4h8v8h-8z",
              "limit": "M{0:.1f} {1:.1f}m-4-3h8l-4 7z"}  # fmt: skip
    marks = "".join(shapes[one.mark].format(a, b) for a, b in places)
    if one.mark == "dot":
        style += f' stroke-width="{4 if one.faint else 6}" stroke-linecap="round"'
    paths.append(f'<path {style} d="{marks}"/>' if marks else "")
    return "".join(paths)


def _padded(values: np.ndarray, part: float, least: float) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    more = max(part * (high - low), least, 1e-12)
    return low - more, high + more


def _step(span: float, number: float) -> float:
    """Return the next of 1, 2 and 5 times a power of ten that parts a span in so many."""
    rough = span / max(1.0, number)
    unit = 10.0 ** math.floor(math.log10(rough))
    return next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= 0.999 * rough)


def _ticks(low: float, high: float, number: float) -> list[tuple[float, str]]:
    step = _step(high - low, number)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:.{digits}f}".replace("-", "−")) for k in range(first, last + 1)]


def _time_ticks(low: float, high: float, number: float) -> list[tuple[float, str]]:
    """Return times (MJD) and how they are written: hours within two days, else dates."""
    zero = datetime(1858, 11, 17)
    if high - low < 2:
        step = next(
            (one for one in (1 / 96, 1 / 48, 1 / 24, 1 / 12, 1 / 8, 1 / 4, 1 / 2)
             if (high - low) / one <= number), 1.0,
        )  # fmt: skip
        pattern = "%H:%M"
    else:
        step = max(1.0, math.ceil((high - low) / number))
        pattern = "%m-%d" if high - low < 330 else "%Y-%m-%d"
    first, last = math.ceil(low / step), math.floor(high / step)
    return [
        (k * step, (zero + timedelta(days=k * step, seconds=1)).strftime(pattern))
        for k in range(first, last + 1)
    ]
