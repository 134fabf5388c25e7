"""Plots of light curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lib.core.figures import new_figure, save_figure
from lib.photometry.forced import filter_order

MOST_PANELS = 24
"""Maximum number of light curves in a figure."""

MARKERS = {
    "frame": ("o", 3, 0.45),
    "bin": ("o", 5, 1.0),
    "stack": ("s", 6, 1.0),
    "difference": ("D", 6, 1.0),
}
"""Marker, its size and its opacity, for each kind of row."""


def plot_light_curve(path: str | Path, table: Table, title: str) -> None:
    """Plot magnitudes and limits against time, or fluxes where there is no zero point.

    Frames are drawn faint where there are bins; horizontal bars of bins and stacks span their
    exposures.

    Parameters
    ----------
    path : path-like
        PNG file to write.
    table : astropy.table.Table
        Light curve, from `lib.photometry.lightcurvetable.light_curve_table`.
    title : str
        Title of the plot.
    """
    figure, axes = new_figure((8, 5), (0.1, 0.11, 0.97, 0.92))
    axis = axes[0, 0]
    if draw_light_curve(axis, table):
        axis.legend(title="filter", fontsize=8)
    else:
        axis.text(0.02, 0.5, "the target was not measured")
        axis.set_axis_off()
    axis.set_title(title)
    save_figure(figure, path, ticks=8)


def plot_light_curves(path: str | Path, tables: Sequence[Table]) -> None:
    """Plot the light curves of several positions, one panel each, at most 24.

    Parameters
    ----------
    path : path-like
        PNG file to write.
    tables : list of astropy.table.Table
        Light curves, from `lib.photometry.lightcurvetable.light_curve_table`.
    """
    shown = list(tables)[:MOST_PANELS]
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure, axes = new_figure(
        (4.2 * columns, 2.6 * rows), (0.07, 0.14 / rows, 0.98, 1 - 0.12 / rows), rows, columns,
        wspace=0.25, hspace=0.5,
    )  # fmt: skip
    for axis in axes.ravel()[len(shown) :]:
        axis.set_axis_off()
    for axis, table in zip(axes.ravel(), shown, strict=False):
        if not draw_light_curve(axis, table):
            axis.set_axis_off()
        axis.set_title(str(table.meta.get("name", "")), fontsize=8)
    if not shown:
        axes[0, 0].text(0.02, 0.5, "no position lies in this field")
    save_figure(figure, path, ticks=4)


def draw_light_curve(axis: Any, table: Table) -> bool:
    """Draw a light curve into axes; return whether it had any point or limit.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    table : astropy.table.Table
    """
    known = np.isfinite(table["MJD"])
    start = float(np.floor(np.min(table["MJD"][known]))) if known.any() else 0.0
    span = float(np.ptp(table["MJD"][known])) if known.any() else 0.0
    unit, factor = ("days", 1.0) if span > 2 else ("hours", 24.0)
    calibrated = bool(np.isfinite(table["MAG"]).any() or np.isfinite(table["LIMIT"]).any())
    key = "MAG" if calibrated else "FLUX"
    drawn = False
    for number, name in enumerate(filter_order(set(table["FILTER"]))):
        colour, labelled = f"C{number % 10}", False
        for kind, (marker, size, opacity) in MARKERS.items():
            rows = table[(table["FILTER"] == name) & (table["KIND"] == kind) & known]
            if not len(rows):
                continue
            style = {"color": colour, "alpha": opacity, "ms": size}
            if kind != "frame":
                style["mfc"] = "none" if kind in ("stack", "difference") else colour
            time = factor * (np.asarray(rows["MJD"]) - start)
            shown = np.isfinite(rows[key])
            if shown.any():
                axis.errorbar(
                    time[shown], np.asarray(rows[key])[shown],
                    np.asarray(rows[f"{key}ERR"])[shown], fmt=marker, elinewidth=0.8,
                    label=None if labelled else name, **style,
                )  # fmt: skip
                labelled = drawn = True
            limits = np.isfinite(rows["LIMIT"]) & calibrated
            if limits.any():
                axis.plot(
                    time[limits], np.asarray(rows["LIMIT"])[limits], "v",
                    label=None if labelled else name, **(style | {"mfc": "none"}),
                )  # fmt: skip
                labelled = drawn = True
    if calibrated and drawn:
        axis.invert_yaxis()
    label = magnitude_label(table) if calibrated else "flux [electron / s]"
    axis.set(xlabel=f"{unit} since MJD {start:.0f} (UTC)", ylabel=label)
    return drawn


def magnitude_label(table: Table) -> str:
    """Return the label of an axis of magnitudes: their system, by filter where it is not one.

    Parameters
    ----------
    table : astropy.table.Table
        Table with FILTER, ZPSYS, MAG and LIMIT; rows with neither of these are not drawn.
    """
    systems: dict[str, list[str]] = {}
    drawn = table[np.isfinite(table["MAG"]) | np.isfinite(table["LIMIT"])]
    filters, named = (np.asarray(drawn[key], str) for key in ("FILTER", "ZPSYS"))
    for name in filter_order(set(filters)):
        for system in sorted(set(named[filters == name]) - {""}):
            systems.setdefault(system, []).append(name)
    if len(systems) < 2:
        return f"magnitude ({next(iter(systems))})" if systems else "magnitude"
    told = (f"{system}: {', '.join(names)}" for system, names in systems.items())
    return f"magnitude ({'; '.join(told)})"
