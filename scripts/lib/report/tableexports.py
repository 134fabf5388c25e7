"""Whole tables in the formats of other programs: VOTable and Parquet."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lib.photometry.columnmeanings import meaning

SOFTWARE = "autoproc"

UCDS = {
    "NUMBER": "meta.id", "NAME": "meta.id;src", "FRAME": "meta.id;obs.image",
    "FILTER": "meta.id;instr.filter", "MJD": "time.epoch", "BJD_TDB": "time.epoch",
    "EXPTIME": "time.duration;obs.exposure", "AIRMASS": "obs.airMass",
    "SEEING": "instr.obsty.seeing", "RA": "pos.eq.ra", "DEC": "pos.eq.dec",
    "RACEN": "pos.eq.ra;stat.mean", "DECCEN": "pos.eq.dec;stat.mean", "FLUX": "phot.count",
    "FLUXERR": "stat.error;phot.count", "SNR": "stat.snr;phot.flux", "MAG": "phot.mag",
    "MAGERR": "stat.error;phot.mag", "LIMIT": "phot.mag;stat.max", "FLAGS": "meta.code",
    "TARGET": "meta.code", "MATCH": "meta.id.cross", "LISTED": "meta.code",
    "DETECTED": "meta.code",
}  # fmt: skip
"""UCDs of the columns of light curves and joint tables; in the latter, ``_<filter>`` follows the
name."""


def read_product(path: str | Path) -> Table:
    """Return a table from the products, with units and descriptions of its columns.

    Parameters
    ----------
    path : path-like
        Source table of a coadd (``.cat.fits``), or ECSV. A coadd that was not made has a table of
        one column without rows.
    """
    path = Path(path)
    if path.suffix != ".fits":
        return Table.read(path, format="ascii.ecsv")
    from astropy.io import fits

    with fits.open(path) as found:
        if "SOURCES" not in found:
            empty = Table({"NUMBER": np.zeros(0, int)})
            empty["NUMBER"].description = meaning("NUMBER")[1]
            return empty
        with warnings.catch_warnings(action="ignore"):
            table = Table.read(found["SOURCES"], mask_invalid=False)
    for name in table.colnames:
        table[name].description = meaning(name)[1] or table[name].description
    # Structural cards of the file are not part of the table.
    table.meta = {}
    return table


def ucd_of(name: str) -> str:
    """Return the UCD of a column; '' where it is unknown.

    Parameters
    ----------
    name : str
        Name of a column of a source table, a joint table or a light curve.
    """
    return UCDS.get(name) or meaning(name)[0] or UCDS.get(name.split("_", 1)[0], "")


def _virtual_unit(unit: Any) -> tuple[Any, str]:
    """Return a unit defined by the VO standard, and the part that it cannot express."""
    from astropy import units

    if unit is None or "electron" not in str(unit):
        return unit, ""
    rest = units.Unit(unit) / units.electron
    return None if rest == units.dimensionless_unscaled else rest, " [electrons]"


def votable_bytes(table: Table, description: str) -> bytes:
    """Return a table as a VOTable 1.4.

    Parameters
    ----------
    table : astropy.table.Table
    description : str
        Description of the table.
    """
    from astropy.io.votable import from_table

    copy = Table(table, meta={})
    for name in copy.colnames:
        unit, what = _virtual_unit(table[name].unit)
        words = f"{table[name].description or ''}{what}".strip()
        if copy[name].dtype.kind == "U":
            copy[name] = np.array([str(value) for value in copy[name]], dtype=object)
        copy[name].unit, copy[name].description = unit, words or None
    document = from_table(copy)
    first = document.get_first_table()
    for entry in first.fields:
        entry.ucd = ucd_of(entry.name) or None
    first.description = description
    content = io.BytesIO()
    document.to_xml(content)
    # astropy writes infinities in a non-standard form
    return content.getvalue().replace(b"InF</TD>", b"Inf</TD>")


def write_votable(path: str | Path, table: Table, description: str) -> None:
    """Write a table as from `votable_bytes`.

    Parameters
    ----------
    path : path-like
    table, description
        As for `votable_bytes`.
    """
    Path(path).write_bytes(votable_bytes(table, description))


def write_parquet(path: str | Path, table: Table, description: str) -> None:
    """Write a table as Parquet, with units and descriptions in its metadata as astropy stores them.

    Parameters
    ----------
    path : path-like
    table, description
        As for `votable_bytes`.
    """
    copy = Table(table)
    copy.meta = {"description": description, **copy.meta}
    copy.write(path, format="parquet", overwrite=True)


WRITERS: dict[str, Callable[[str | Path, Table, str], None]] = {
    ".vot": write_votable,
    ".parquet": write_parquet,
}
"""By the ending of the file."""
