"""VOTables of servers as arrays: read in a process of bounded memory and time."""

import io
import logging
import re
import warnings

import numpy as np
from astropy.table import Column as TableColumn
from astropy.table import Table

from lib.core.guarded import GuardedFailure, guarded_arrays
from lib.core.text import shown
from lib.reference.surveys import Survey

log = logging.getLogger("autoproc")

MAX_ARRAYS = 256 << 20
"""[byte] Most of what a table becomes."""

MEMORY = 2 << 30
"""[byte] Most that reading it may take."""

SECONDS = 60.0
"""CPU time that it may take: a hundred thousand stars take five seconds."""


LEADS_ELSEWHERE = re.compile(rb"<!ENTITY|<(\w+:)?STREAM\b", re.IGNORECASE)
"""Constructs that make a reader open other files or addresses, or may hide these."""


class AnswerError(Exception):
    """A server's answer that cannot be used; the message names server, catalogue, column.

    `lasting` says that the server is not worth another question in this run.
    """

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(shown(message, 1000))
        self.lasting = lasting


def parse(survey: Survey, answer: bytes, server: str) -> dict[str, np.ndarray]:
    """Turn a VOTable into arrays under our column names and units.

    Parameters
    ----------
    survey : Survey
    answer : bytes
    server : str
        For messages.

    Returns
    -------
    dict of str to ndarray
        float64 (NaN where masked), or str for text columns; no keys where the answer has no
        stars.

    Raises
    ------
    AnswerError
        Unreadable within memory and time; or a column is missing or has another unit or shape,
        which is named.
    """
    what = f"{server}: {survey.table} ({survey.name})"
    try:
        arrays = guarded_arrays(
            lambda: _arrays(survey, answer), MAX_ARRAYS, memory=MEMORY, seconds=SECONDS
        )
    except GuardedFailure as why:
        kind, _, words = str(why).partition(": ")
        told = words if kind == AnswerError.__name__ else f"unreadable VOTable ({why})"
        raise AnswerError(f"{what}: {told}") from why
    result = {}
    rows = max((len(one) for one in arrays), default=0)
    for (key, column), array in zip(survey.columns.items(), arrays, strict=bool(arrays)):
        if len(array) < rows:
            log.warning("%s: no column '%s'; left out", what, column.names[0])
            array = np.full(rows, np.nan)
        elif array.ndim == 2:
            array = np.ascontiguousarray(array).view(f"U{array.shape[1]}")[:, 0]
        result[key] = array
    return result


def _arrays(survey: Survey, answer: bytes) -> list[np.ndarray]:
    """Return the columns of an answer in the survey's order.

    Numbers have one dimension; texts two, of code points; a column that is done without has no
    rows. An empty list where there are no stars.
    """
    found, garbled = _table(answer)
    if found is None:
        told = re.search(rb'<INFO[^>]*name="[Ee]rror[^>]*value="([^"]*)"', answer)
        if told:
            raise AnswerError(told.group(1).decode(errors="replace"))
        return []
    result = []
    for key, column in survey.columns.items():
        name = next((name for name in column.names if name in found.colnames), None)
        if name is None:
            if column.required:
                raise AnswerError(
                    f"no column '{column.names[0]}' in the answer (it has "
                    f"{', '.join(found.colnames)})"
                )
            result.append(np.empty(0))
            continue
        values = _values(found[name], column.unit, f"column '{name}'")
        unread = values.dtype.kind == "f" and not np.isfinite(values).any()
        if unread and column.required and (garbled or key in ("ra", "dec")):
            raise AnswerError(f"column '{name}' holds no numbers")
        if values.dtype.kind == "U":
            values = np.ascontiguousarray(values).view(np.uint32).reshape(len(values), -1)
        result.append(values)
    return result


def _table(answer: bytes) -> tuple[Table | None, bool]:
    """Return the first table with rows, and whether cells of it could not be read."""
    from astropy.io import votable

    if LEADS_ELSEWHERE.search(answer):
        raise AnswerError("a VOTable whose data are elsewhere, or that defines entities")
    # VizieR's dialect earns warnings by the dozen: kept here, and one kind looked for
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        tree = votable.parse(io.BytesIO(answer), verify="warn", invalid="exception")
        tables = [table for table in tree.iter_tables() if len(table.array)]
        found = tables[0].to_table(use_names_over_ids=True) if tables else None
    return found, any(issubclass(one.category, votable.exceptions.W30) for one in remarks)


def _values(column: TableColumn, unit: str, what: str) -> np.ndarray:
    """Return a column as float64 in `unit`, or as text."""
    from astropy import units as u

    if column.ndim != 1 or (column.dtype.kind == "O" and not _holds_texts(column)):
        raise AnswerError(f"{what} holds arrays")
    if column.dtype.kind in "OUS":
        values = np.ma.filled(np.ma.asarray(column.astype(str)), "")
        if not unit:
            return np.asarray(values)
        try:
            return np.array([float(v) if v.strip() else np.nan for v in values])
        except ValueError as why:
            raise AnswerError(f"{what} holds text where numbers were: {why}") from why
    if column.dtype.kind not in "iuf":
        raise AnswerError(f"{what} holds values of the type {column.dtype}")
    values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    if unit and column.unit is not None and unit != "mag":
        try:
            values = values * column.unit.to(u.Unit(unit))
        except (u.UnitsError, AttributeError, ValueError, TypeError) as why:
            raise AnswerError(f"{what} is in {column.unit}, not in {unit}") from why
    return values


def _holds_texts(column: TableColumn) -> bool:
    return all(isinstance(value, (str, bytes)) or value is np.ma.masked for value in column)
