"""The reference stars of a stack, and the flats that tell how its noise varies."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.frame.file import read_frame
from lib.reference.catalogues import check_angles, read_customcat

log = logging.getLogger("autoproc")


@dataclass(frozen=True)
class Reference:
    """Stars of known position and magnitude, and what to call them.

    Parameters
    ----------
    stars : dict of str to ndarray, or None
        For positions.
    source : str
    photometric : dict of str to ndarray, or None
        For magnitudes: the same, or the custom catalogue.
    photometric_source : str
    reason : str
        Why there is none.
    """

    stars: dict | None
    source: str
    photometric: dict | None
    photometric_source: str
    reason: str = ""


def load_reference(path):
    """Read the reference table; None where it is empty.

    Returns
    -------
    dict of str to ndarray, or None
    source : str
    reason : str
        Why it is empty.
    """
    if not path:
        return None, "NONE", ""
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    source = str(table.meta.get("source") or Path(path).name)
    if len(table) == 0:
        return None, "NONE", str(table.meta.get("reason", ""))
    columns = {name: np.ma.filled(np.ma.asarray(table[name], float), np.nan)
               for name in table.colnames if table[name].dtype.kind in "fiu"}  # fmt: skip
    return columns, source, ""


def find_reference(refcat, customcat, customcatfilt, records):
    """Return the reference of a stack, with the custom catalogue where it serves the filter."""
    stars, source, reason = load_reference(refcat)
    first = records[0]["header"]
    if not (customcat and {first.get("BAND"), first.get("FILTER")} & set(customcatfilt)):
        return Reference(stars, source, stars, source, reason)
    custom = read_customcat(customcat)
    for header in (record["header"] for record in records):
        if "CRVAL1" in header and "NAXIS1" in header:
            check_angles(custom, customcat, header["CRVAL1"], header["CRVAL2"])
            break
    columns = {name: np.asarray(custom[name]) for name in custom.colnames}
    return Reference(stars, source, columns, Path(customcat).name, reason)


class FlatCache:
    """Flats by name, each read once.

    Parameters
    ----------
    paths : iterable of path-like
        Flats that frames may name in their header.
    directory : path-like
        Where to look for others.
    """

    def __init__(self, paths, directory):
        self.paths = {Path(path).name: Path(path) for path in paths}
        self.directory = Path(directory)
        self.flats = {}

    def get(self, name, shape):
        """Return the flat a frame was divided by, or None where it is not there."""
        if not name:
            return None
        if name not in self.flats:
            path = self.paths.get(name, self.directory / name)
            flat = None
            if path.exists():
                master = read_frame(path)
                if master.image is not None:
                    flat = np.where(master.image > 0, master.image, np.nan)
            else:
                log.warning("flat %s is not there: weights without it", name)
            self.flats[name] = flat
        flat = self.flats[name]
        return flat if flat is not None and flat.shape == shape else None
