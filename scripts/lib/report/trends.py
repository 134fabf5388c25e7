"""Changes of masters and stacks from night to night: the table nights.ecsv, and its plot."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.core.figures import new_figure, save_figure
from lib.core.stats import mad_std
from lib.frame.file import UNUSABLE, read_frame
from lib.night.campaign import Campaign, Night
from lib.report.frametable import ecsv_text
from lib.report.outcomes import NightOutcome, quality_numbers
from lib.report.products import cards_of, write_if_changed
from lib.report.summary import stack_numbers

TABLE = "nights.ecsv"
"""Name in `imdir`."""

KINDS = {
    "night": "string",
    "mjd": "float64",
    "kind": "string",
    "name": "string",
    "frames": "int64",
    "level": "float64",
    "rdnoise": "float64",
    "structure": "float64",
    "change": "float64",
    "bad": "int64",
    "seeing": "float64",
    "sky": "float64",
    "zeropoint": "float64",
    "limit": "float64",
    "datasum": "string",
}
"""Columns and their ECSV datatypes."""

BLOCK = 32
"""[pixel] Side of the blocks whose medians give the large-scale structure of a master."""


def block_medians(image: NDArray[np.floating], mask: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Return the medians of the good pixels in blocks of `BLOCK` x `BLOCK` pixels.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)

    Returns
    -------
    ndarray, shape (ny // BLOCK, nx // BLOCK)
        NaN where a block has no good pixel; a single block for smaller images.
    """
    good = np.where((mask & UNUSABLE) > 0, np.nan, image)
    side = min(BLOCK, *image.shape)
    rows, columns = (length // side for length in image.shape)
    parts = good[: rows * side, : columns * side].reshape(rows, side, columns, side)
    blocks = parts.swapaxes(1, 2).reshape(rows, columns, side * side)
    found = np.full((rows, columns), np.nan)
    any_good = np.isfinite(blocks).any(axis=2)
    found[any_good] = np.nanmedian(blocks[any_good], axis=1)
    return found


def master_numbers(path: Path, before: Path | None = None) -> dict[str, Any]:
    """Return the figures by which masters of successive nights are compared.

    Parameters
    ----------
    path : Path
    before : Path, optional
        Master of the same name of the previous night.

    Returns
    -------
    dict
        level (median), structure (robust scatter of `block_medians`, for a flat relative to its
        level), change (for a flat the robust scatter of the ratio to the previous one, otherwise
        the difference of the levels), bad (unusable pixels), rdnoise [adu].
    """
    master = read_frame(path)
    if master.image is None or master.mask is None:
        return {}
    blocks = block_medians(master.image, master.mask)
    level = float(np.nanmedian(blocks))
    relative = path.name.startswith("flat_")
    found = {
        "level": level,
        "structure": mad_std(blocks / level if relative else blocks),
        "bad": int(((master.mask & UNUSABLE) > 0).sum()),
        "rdnoise": master.header.get("RDNOISE1"),
    }
    earlier = read_frame(before) if before is not None else None
    if earlier is not None and earlier.image is not None and earlier.mask is not None:
        others = block_medians(earlier.image, earlier.mask)
        if others.shape == blocks.shape:
            change = mad_std(blocks / others) if relative else level - float(np.nanmedian(others))
            found["change"] = change
    return {key: value for key, value in found.items() if value is not None and np.isfinite(value)}


def night_rows(
    night: Night, result: NightOutcome, places: Iterable[Path], known: Mapping[Any, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of a night: one per master, and one per stack.

    Parameters
    ----------
    night : lib.night.campaign.Night
    result : NightOutcome
    places : iterable of Path
        Directory of the night's products, followed by those of previous nights, nearest first.
    known : dict
        Previous rows of the table by (night, name), kept for unchanged masters.
    """
    place, *earlier = places
    rows = []
    common = {"night": night.name, "mjd": round(night.log.middle, 4)}
    for name, cards in sorted(result.masters.items()):
        kind = name[:4].rstrip("-_")
        if kind not in ("bias", "dark", "flat"):
            continue
        path = place / f"{name}.fits"
        datasum = str(cards_of(path, ["DATASUM"]).get("DATASUM", ""))
        row = dict(known.get((night.name, name), {}))
        if not datasum or row.get("datasum") != datasum:
            before = (one / f"{name}.fits" for one in earlier)
            row = master_numbers(path, next((one for one in before if one.exists()), None))
        frames = {"frames": cards.get("NCOMBINE"), "datasum": datasum}
        rows.append(row | common | {"kind": kind, "name": name} | frames)
    for stack, one in result.stacks.items():
        numbers = stack_numbers(stack, one, result.frames)
        members = [result.frames[frame] for frame in one.frames if frame in result.frames]
        skies = [quality_numbers(member).get("sky") for member in members]
        told = [sky for sky in skies if sky is not None]
        rows.append(
            common
            | {"kind": "stack", "name": stack, "frames": numbers.used, "seeing": numbers.seeing}
            | {"zeropoint": numbers.zeropoint, "limit": numbers.limit}
            | {"sky": float(np.median(told)) if told else None}
        )
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the existing table; none where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = []
    try:
        for row in csv.DictReader(io.StringIO("\n".join(lines)), strict=True):
            kinds = {"float64": float, "int64": int, "string": str}
            rows.append({key: kinds[KINDS[key]](value) for key, value in row.items() if value})
    except (ValueError, KeyError, TypeError, csv.Error):
        return []
    return rows


def write_trends(
    campaign: Campaign, results: Mapping[str, NightOutcome], imdir: str | Path
) -> list[dict[str, Any]]:
    """Bring nights.ecsv and its plot up to date.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
    results : dict of str to NightOutcome
        Folder -> outcome of each open night; the rows of other nights are kept.
    imdir : path-like

    Returns
    -------
    list of dict
        The rows of the table.
    """
    top, rows = Path(imdir), []
    before = read_rows(top / TABLE)
    known = {(row.get("night"), row.get("name")): row for row in before}
    earlier: list[Path] = []
    for folder, night in campaign.nights.items():
        place = top / folder
        if folder in results:
            rows += night_rows(night, results[folder], [place, *reversed(earlier)], known)
        else:
            rows += [row for row in before if row.get("night") == night.name]
        earlier.append(place)
    text = ecsv_text(rows, KINDS, {"content": "masters and stacks of each night"})
    if write_if_changed(top / TABLE, text) or not (top / "qa/trends.png").exists():
        plot_trends(rows, top / "qa/trends.png")
    return rows


PANELS = (
    ("bias", "level", "bias level [adu]"),
    ("bias", "rdnoise", "read noise [adu]"),
    ("flat", "change", "flat: scatter of the ratio to the one before"),
    ("flat", "bad", "unusable pixels of the flat"),
    ("stack", "zeropoint", "zero point [mag]"),
    ("stack", "sky", "sky [electron]"),
)
"""Kind of rows, their column, and the label of the panel."""


def plot_trends(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Plot the changes of masters and stacks from night to night.

    Parameters
    ----------
    rows : list of dict
        Rows from `write_trends`.
    path : path-like
        PNG file to write.
    """
    figure, axes = new_figure((10, 9), (0.08, 0.06, 0.98, 0.97), 3, 2, hspace=0.3, wspace=0.2)
    times = [row["mjd"] for row in rows if "mjd" in row] or [0.0]
    margin = 0.05 * (max(times) - min(times)) or 1.0
    for axis, (kind, key, title) in zip(axes.flat, PANELS, strict=True):
        shown: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row.get("kind") == kind and row.get(key) is not None:
                shown.setdefault(row["name"], []).append((row["mjd"], row[key]))
        for name, points in sorted(shown.items())[:10]:
            axis.plot(*zip(*points, strict=True), "o-", ms=4, lw=0.8, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlim(min(times) - margin, max(times) + margin)
        axis.tick_params(labelsize=8)
        if shown:
            axis.legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("MJD")
    save_figure(figure, path)
