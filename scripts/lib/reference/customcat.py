"""A custom catalogue: magnitudes in the text format of the original autoproc."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS
from lib.reference.referencetable import (
    CatalogueError,
    blank_table,
    check_positions,
    source_name,
)
from lib.reference.repeats import merge_repeats


def read_customcat(path: str | Path) -> Table:
    """Read a custom catalogue in the original's text format.

    The first line is skipped; then on each line ra dec, the magnitudes in the order
    u g r i z y B V R I J H K, their 13 errors, and the mode.

    Returns
    -------
    astropy.table.Table
        A reference table with the column ``mode`` besides.

    Raises
    ------
    CatalogueError
        Names the line whose fields are wrong in number, or not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise CatalogueError(f"there is no custom catalogue {path}")
    order = "ra dec " + " ".join(BANDS) + ", the 13 errors, mode"
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines()[1:], start=2):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        # 10:00:24 -0:18:00, 10h00m24s -0d18m00s, or six fields for two
        sexagesimal = set(words[0]) & set(":h") or len(words) == 4 + 3 + 2 * len(BANDS)
        hint = "; positions are decimal degrees" if sexagesimal else ""
        if len(words) != 3 + 2 * len(BANDS):
            raise CatalogueError(
                f"{path} line {number} has {len(words)} fields, not 29: {order}{hint}"
            )
        try:
            rows.append([float(word) for word in words])
        except ValueError as why:
            raise CatalogueError(
                f"{path} line {number}: {why}; the fields are {order}{hint}"
            ) from None
    if not rows:
        raise CatalogueError(f"{path} has no stars below its first line; the fields are {order}")
    values = np.array(rows)
    table = blank_table(len(values))
    table["ra"], table["dec"] = values[:, 0], values[:, 1]
    for k, band in enumerate(BANDS):
        magnitude, error = values[:, 2 + k], values[:, 2 + len(BANDS) + k]
        # the original writes 0 or +-99 (and their like) where a band is not known
        usable = (magnitude > -5) & (magnitude < 40) & (magnitude != 0) & (error >= 0) & (error < 9)
        table[band] = np.where(usable, magnitude, np.nan)
        table[f"{band}_err"] = np.where(usable, error, np.nan)
    table["mode"] = values[:, -1].astype(int)
    assumed: list[str] = []
    table = merge_repeats(path, check_positions(path, table, assumed), assumed)
    table.meta["source"] = source_name("", path)
    table.meta["assumed"] = assumed
    return table
