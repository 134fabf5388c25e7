"""The reference stars of a stack, and the scatter of its positions about them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.crossmatch import match
from lib.core.sphere import mean_position, project
from lib.core.stats import MAD_TO_SIGMA, excess_scatter
from lib.photometry.coaddzeropoint import Reference
from lib.photometry.flags import FLAG_PARTIAL
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.reference.customcat import read_customcat
from lib.reference.referencetable import check_angles, source_name


@dataclass(frozen=True)
class StackReference:
    """Stars of known position and magnitude, and the names of their catalogues.

    Parameters
    ----------
    stars : mapping of str to ndarray, or None
        For positions.
    source : str
    photometric : mapping of str to ndarray, or None
        For magnitudes: the same, or the custom catalogue.
    photometric_source : str
    reason : str
        Why there is none.
    """

    stars: Reference | None
    source: str
    photometric: Reference | None
    photometric_source: str
    reason: str = ""


def load_reference(path: str | Path | None) -> tuple[dict[str, np.ndarray] | None, str, str]:
    """Read the reference table; None where it is empty.

    Parameters
    ----------
    path : path-like, optional

    Returns
    -------
    columns : dict of str to ndarray, or None
    source : str
    reason : str
        Why it is empty.
    """
    if not path:
        return None, "NONE", ""
    from astropy.table import Table

    table = Table.read(path, format="ascii.ecsv")
    source = source_name(table.meta.get("source"), path)
    if len(table) == 0:
        return None, "NONE", str(table.meta.get("reason", ""))
    columns: dict[str, np.ndarray] = {
        name: np.ma.filled(np.ma.asarray(table[name], float), np.nan)
        for name in table.colnames
        if table[name].dtype.kind in "fiu"
    }
    return columns, source, ""


def find_reference(
    refcat: str | Path | None,
    customcat: str | Path | None,
    customcatfilt: Collection[str],
    headers: list[fits.Header],
) -> StackReference:
    """Return the reference of a stack, with the custom catalogue where it serves the filter.

    Parameters
    ----------
    refcat : path-like, optional
        Reference table (ECSV), which may be empty.
    customcat : path-like, optional
        Custom catalogue.
    customcatfilt : collection of str
        Bands or filters whose magnitudes it gives.
    headers : list of astropy.io.fits.Header
        Headers of the frames; the first has the band and the filter of all.

    Returns
    -------
    StackReference

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        A custom catalogue that cannot be used.
    """
    stars, source, reason = load_reference(refcat)
    first = headers[0]
    if not customcat or not {first.get("BAND"), first.get("FILTER")} & set(customcatfilt):
        return StackReference(stars, source, stars, source, reason)
    custom = read_customcat(customcat)
    for header in headers:
        if "CRVAL1" in header and "NAXIS1" in header:
            check_angles(custom, customcat, header["CRVAL1"], header["CRVAL2"])
            break
    columns = {name: np.asarray(custom[name]) for name in custom.colnames}
    return StackReference(stars, source, columns, source_name("", customcat), reason)


CENTRING_ERROR = 0.01
"""[pixel] Error of a position that no photons tell: how pixels sample a star, and frames align."""

BRIGHT_SNR = 50.0
"""Least S/N of the stars that tell how good positions are where noise does not matter."""

MIN_BRIGHT_STARS = 8
"""Fewer do not tell it."""

COMPARED_SNR = 10.0
"""Least S/N of the stars whose positions are compared with the reference."""


def astrometric_scatter(
    coadd: MeasuredCoadd, reference: Reference, radius: float
) -> tuple[tuple[float, float], int]:
    """Compare the positions of the stars of a coadd with the reference.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    reference : mapping with ra, dec [deg]
    radius : float
        Arcsec.

    Returns
    -------
    rms : tuple of float
        Robust rms about zero per axis, east and north [mas].
    number : int
        Stars compared.
    """
    assert coadd.field is not None
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    plane = project(sky[:, 0], sky[:, 1], ra0, dec0)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    # Fainter ones tell more of their own noise, and of chance, than of the solution.
    plane = plane[
        ((coadd.field.flags & ~(1 | FLAG_PARTIAL)) == 0) & (coadd.field.snr > COMPARED_SNR)
    ]
    ours, theirs = match(plane, at, radius)
    if ours.size < 2:
        return (np.nan, np.nan), int(ours.size)
    offset = 1000.0 * (plane[ours] - at[theirs])
    east, north = MAD_TO_SIGMA * np.median(np.abs(offset), axis=0)
    return (float(east), float(north)), ours.size


def centring_error(
    coadd: MeasuredCoadd, reference: Reference | None, error: np.ndarray, radius: float
) -> float:
    """Return the error of positions beyond that of photons and sky: solution, pixels, profile.

    Where bright stars scatter about the reference by more than their errors and its own tell, that.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    reference : mapping with ra, dec [deg], and their errors [mas] where known
        None where the coadd is not tied to one.
    error : ndarray, shape (n,)
        Errors of the positions of its sources [pixel].
    radius : float
        Arcsec.

    Returns
    -------
    float
        [pixel].
    """
    field = coadd.field
    assert field is not None
    if reference is None:
        return CENTRING_ERROR
    rows = np.flatnonzero(((field.flags & ~FLAG_PARTIAL) == 0) & (field.snr > BRIGHT_SNR))
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    plane = project(sky[rows, 0], sky[rows, 1], ra0, dec0)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    ours, theirs = match(plane, at, radius)
    if ours.size < MIN_BRIGHT_STARS:
        return CENTRING_ERROR
    offset = (plane[ours] - at[theirs]) / coadd.scale
    offset -= np.median(offset, axis=0)
    stated = np.stack([
        np.nan_to_num(np.asarray(reference.get(key, np.zeros(len(at))), float)[theirs])
        for key in ("ra_err", "dec_err")
    ], axis=1) / (1000 * coadd.scale)  # fmt: skip
    variance = error[rows[ours], None] ** 2 + stated**2
    return max(CENTRING_ERROR, excess_scatter(offset.ravel(), variance.ravel()))
