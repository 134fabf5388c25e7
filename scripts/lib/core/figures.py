"""Figures by matplotlib, without pyplot and its layout engine: a third of the time."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.core.files import atomic_path, neutral_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 90


@cache
def _matplotlib():
    """Return the classes of figures and of their canvas."""
    with neutral_directory():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    return Figure, FigureCanvasAgg


def new_figure(
    size: tuple[float, float],
    margins: tuple[float, float, float, float],
    rows: int = 1,
    columns: int = 1,
    **spaces: float,
) -> tuple["Figure", np.ndarray]:
    """Return a figure and its axes.

    Parameters
    ----------
    size : tuple of float
        Width and height [inch].
    margins : tuple of float
        Left, bottom, right and top edge of the axes, as parts of the figure.
    rows, columns : int
        Number of rows and columns of axes.
    **spaces
        wspace and hspace between them, as parts of their size.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of Axes, shape (rows, columns)
    """
    figure_class, canvas = _matplotlib()
    figure = figure_class(figsize=size, dpi=DPI)
    canvas(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(*margins, **spaces)
    return figure, axes


def save_figure(figure: "Figure", path: str | Path, ticks: int = 5) -> None:
    """Write a figure as PNG, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
    ticks : int
        Maximum number of intervals on an axis: drawing labels takes most of the time.
    """
    for axis in figure.axes:
        if axis.axison:
            axis.locator_params(nbins=ticks)
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", pil_kwargs={"compress_level": 3})
