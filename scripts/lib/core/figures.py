"""Figures by matplotlib, without pyplot and its layout engine: a third of the time."""

from lib.core.files import atomic_path

DPI = 90


def new_figure(size, margins, rows=1, columns=1, **spaces):
    """Return a figure and its axes.

    Parameters
    ----------
    size : tuple of float
        Width and height [inch].
    margins : tuple of float
        Left, bottom, right and top edge of the axes, as parts of the figure.
    rows, columns : int
        Of axes.
    **spaces
        wspace and hspace between them, as parts of their size.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : ndarray of Axes, shape (rows, columns)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(*margins, **spaces)
    return figure, axes


def save_figure(figure, path, ticks=5):
    """Write a figure as PNG, whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path-like
    ticks : int
        Intervals on an axis, at most: drawing labels takes most of the time.
    """
    for axis in figure.axes:
        if axis.axison:
            axis.locator_params(nbins=ticks)
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", pil_kwargs={"compress_level": 3})
