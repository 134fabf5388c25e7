"""A user's table as reference: under our column names, or under those of a survey's archive."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS
from lib.reference.downloads import recognise, survey_table
from lib.reference.referencetable import checked_reference, own_reference, read_table_file
from lib.reference.transformations import fill_by_transformation


def read_user_table(path: str | Path) -> Table:
    """Return the reference that a table of the user's is.

    Under the column names of an archive (PS1, SDSS, Gaia, ATLAS-REFCAT2, APASS, 2MASS) it is read
    as that survey's answers are: its flags count, its bands are brought to those of the reference.
    Bands that the table has not at all are derived from their neighbours by published relations.

    Parameters
    ----------
    path : path-like
        ECSV, FITS or CSV.

    Returns
    -------
    astropy.table.Table
        Table as from `lib.reference.referencetable.read_reference`.

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        The message says what is wrong and what to write instead.
    """
    path = Path(path)
    raw = read_table_file(path)
    download = recognise(path, raw)
    if download is None:
        table = own_reference(path, raw)
    else:
        assumed = [f"its columns are those of {download.name}"]
        found = survey_table(path, raw, download)
        table = checked_reference(path, found, raw.meta, assumed)
        if "source" not in {str(key).lower() for key in raw.meta}:
            table.meta["source"] = f"{download.name} ({path.name})"
    missing = [band for band in BANDS if not np.isfinite(table[band]).any()]
    fill_by_transformation(table, bands=missing)
    return table
