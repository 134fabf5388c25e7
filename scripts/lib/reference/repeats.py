"""Rows of a user's table that repeat others: two tables put together, or one twice."""

import logging
from pathlib import Path

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS

log = logging.getLogger("autoproc")

SAME_PLACE = 0.02
"""[arcsec] Rows closer than this are one star, whatever they say."""

CLOSE = 0.7
"""[arcsec] Rows closer than this may be one star of two catalogues."""

ALIKE = 0.3
"""[mag] Largest difference of its magnitudes there."""

SYSTEMATIC = 0.2
"""Part of the rows that must have such a partner: double stars are fewer in any field."""


MANY = 20
"""In a table with fewer such rows, half of all must have a partner."""


def merge_repeats(path: str | Path, table: Table, notes: list[str]) -> Table:
    """Return the rows of a table without those that repeat another one.

    Twice the same star would leave no star without a neighbour: no pattern to be matched, and no
    star for a zero point.

    Parameters
    ----------
    path : path-like
        For the message.
    table : astropy.table.Table
        A reference table. A row that is kept gets the magnitudes that only its repetition has.
    notes : list of str
        Remarks on rows left out are appended.
    """
    number = len(table)
    table = _merged(table, _same_place(table))
    if _is_systematic(_number_close(table), table):
        partner = _close_partner(table)
        if _is_systematic(int((partner >= 0).sum()), table):
            table = _merged(table, partner)
    if len(table) < number:
        told = f"{number - len(table)} of {number} rows repeat others and are left out"
        log.warning("%s: %s", path, told)
        notes.append(told)
    return table


def _same_place(table: Table) -> np.ndarray:
    """Return the first row at the place of each row; -1 for the first ones themselves."""
    cells = np.rint(np.c_[table["ra"], table["dec"]] * (3600 / SAME_PLACE)).astype(np.int64)
    _, first, place = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    found = first[np.ravel(place)]
    return np.where(found == np.arange(len(table)), -1, found)


def _is_systematic(number: int, table: Table) -> bool:
    return number > len(table) * (SYSTEMATIC if number > MANY else 0.5)


def _number_close(table: Table) -> int:
    """Return how many rows can have another one within `CLOSE`: this many at most.

    Two places so close fall into one cell of twice the width, in one of four grids that are half a
    cell apart. Most tables need no more than this, and not scipy.
    """
    width = 2 * CLOSE / 3600
    # The narrowest circle of declination: elsewhere the cells are too wide, never too narrow.
    narrowest = np.cos(np.radians(np.max(np.abs(table["dec"]), initial=0.0)))
    scaled = np.c_[table["ra"] * narrowest, table["dec"]] / width
    close = np.zeros(len(table), bool)
    for shift in ((0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5)):
        cells = np.floor(scaled + shift).astype(np.int64)
        _, place, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        close |= count[np.ravel(place)] > 1
    return int(close.sum())


def _close_partner(table: Table) -> np.ndarray:
    """Return the row that each row is nearest to, and that is nearest to it; -1 for none."""
    from scipy.spatial import cKDTree

    ra, dec = np.radians(table["ra"]), np.radians(table["dec"])
    at = np.c_[np.cos(ra) * np.cos(dec), np.sin(ra) * np.cos(dec), np.sin(dec)]
    distance, nearest = cKDTree(at).query(at, 2, distance_upper_bound=np.radians(CLOSE / 3600))
    rows = np.arange(len(table))
    # Of itself and another one, in whatever order.
    other = np.where(nearest[:, 0] == rows, nearest[:, 1], nearest[:, 0])
    other[~np.isfinite(distance).all(axis=1)] = -1
    mutual = (other >= 0) & (other[other] == rows)
    partner = np.where(mutual, other, -1)
    difference = np.full(len(table), np.nan)
    for band in BANDS:
        values = np.asarray(table[band], float)
        apart = np.abs(values - values[partner])
        difference = np.where(np.isnan(difference), apart, difference)
    partner[difference > ALIKE] = -1
    return partner


def _merged(table: Table, partner: np.ndarray) -> Table:
    """Return the rows whose partner comes later or is none, completed by their partners."""
    rows = np.arange(len(table))
    later = rows[(partner >= 0) & (partner < rows)]
    if not len(later):
        return table
    first = partner[later]
    for band in BANDS:
        missing = np.isnan(np.asarray(table[band], float)[first])
        for name in (band, f"{band}_err"):
            table[name][first[missing]] = table[name][later[missing]]
    keep = np.ones(len(table), bool)
    keep[later] = False
    return table[keep]
