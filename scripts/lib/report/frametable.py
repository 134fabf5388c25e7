"""The table frames.ecsv: one row per raw frame, with its outcome."""

import hashlib
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord, checksum, stamp_of
from lib.core.text import shown
from lib.night.interpret import CALIBRATIONS
from lib.night.naming import shape_text
from lib.night.nightlog import COLUMNS, FLOAT_COLUMNS, NightLog
from lib.report.numbers import is_number
from lib.report.outcomes import Outcome, quality_numbers
from lib.report.products import write_if_changed

OUTCOME_COLUMNS = {
    "status": "string",
    "step": "string",
    "reason": "string",
    "used": "string",
    "fwhm": "float64",
    "ellipticity": "float64",
    "sky": "float64",
    "zeropoint": "float64",
    "transparency": "float64",
    "nstars": "int64",
    "astrms1": "float64",
    "astrms2": "float64",
    "ncosmic": "int64",
}
"""Columns added to the night log by the outcome, and their ECSV datatypes."""


def log_rows(night: NightLog) -> list[dict[str, Any]]:
    """Return the rows of the night log as plain values, with the masters of each frame."""
    rows = []
    for one in night.rows:
        row = {name: one.get(name) for name in COLUMNS}
        if one.facts is not None:
            row["shape"] = shape_text(one.facts.shape)
        if one.status == "OK":
            found = night.match(one.frame)
            row |= {kind: found.master(kind) or "" for kind in CALIBRATIONS}
            row["calnote"] = found.remarks
        rows.append(row)
    return rows


def log_digest(night: NightLog) -> str:
    """Return a digest of the night log, which changes with the raw files and their facts."""
    return hashlib.sha256(night.table_text().encode("utf-8", "backslashreplace")).hexdigest()[:16]


def begin_frames_table(night: NightLog, path: str | Path) -> bool:
    """Write frames.ecsv if it does not list the present raw frames.

    A table of the same raw frames is kept, because it may have their outcomes. A damaged one is
    kept as well, and rewritten by whoever knows the outcomes.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    path : path-like
        Path of ``frames.ecsv``.

    Returns
    -------
    bool
        Whether the file was written.
    """
    damaged = table_is_damaged(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if not damaged and log_digest(night) in file.read(4000):
                return False
    except FileNotFoundError:
        pass
    return write_frames_table(night, [], path, record=not damaged)


def table_is_damaged(path: str | Path) -> bool:
    """Return whether frames.ecsv differs from what was last written."""
    known = ContentRecord(Path(path).parent).find(f"made:{Path(path).name}").get("sum")
    try:
        return bool(known) and checksum(path) != known
    except OSError:
        return True


def write_frames_table(
    night: NightLog, outcomes: list[Outcome], path: str | Path, record: bool = True
) -> bool:
    """Write the night log with the outcome of each frame, unless the file is up to date.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    outcomes : list of Outcome
        One per row of the log; empty where nothing is known yet.
    path : path-like
        Path of ``frames.ecsv``.
    record : bool
        Whether the table is complete, and recorded as such.

    Returns
    -------
    bool
        Whether the file was written.
    """
    kinds = {name: "float64" if name in FLOAT_COLUMNS else "string" for name in COLUMNS}
    kinds = {"frame": "string", "raw": "string"} | OUTCOME_COLUMNS | kinds
    complete = log_rows(night)
    for row, outcome in zip(complete, outcomes, strict=bool(outcomes)):
        row |= {key: getattr(outcome, key) for key in ("status", "step", "reason", "used")}
        row |= quality_numbers(outcome)
        row["gain"] = row["gain"] or outcome.cards.get("RAWGAIN")
        row["note"] = "; ".join(filter(None, [row["note"], *outcome.cards.get("NOTE", ())]))
    text = ecsv_text(complete, kinds, {"nightlog": log_digest(night)})
    written = write_if_changed(path, text)
    known, name = ContentRecord(Path(path).parent), f"made:{Path(path).name}"
    if record and known.find(name).get("sum") != (found := checksum(path)):
        known.write(name, stamp_of(path), found)
    return written


def ecsv_text(rows: list[dict[str, Any]], kinds: dict[str, str], meta: dict[str, str]) -> str:
    """Return rows as an ECSV table (APE 6, https://github.com/astropy/astropy-APEs).

    Parameters
    ----------
    rows : list of dict
        Rows of the table.
    kinds : dict of str to str
        Columns and their datatypes; values missing in a row are empty fields.
    meta : dict of str to str
        Metadata of the table.
    """
    lines = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    lines += [f"# - {{name: {name}, datatype: {kind}}}" for name, kind in kinds.items()]
    lines += ["# meta: !!omap"] if meta else []
    lines += [f"# - {{{key}: '{value}'}}" for key, value in meta.items()]
    lines += ["# schema: astropy-2.0", ",".join(kinds)]
    for row in rows:
        lines.append(",".join(_cell(row.get(name), kind) for name, kind in kinds.items()))
    return "\n".join(lines) + "\n"


def _cell(value: Any, kind: str) -> str:
    """Return a value as a field of a comma-separated ECSV table."""
    if kind != "string":
        if not is_number(value):
            return ""
        return str(int(value)) if kind == "int64" else repr(float(value))
    text = "" if value is None else shown(" ".join(str(value).split()))
    return '"' + text.replace('"', '""') + '"' if set(text) & set(" ',\"#") else text
