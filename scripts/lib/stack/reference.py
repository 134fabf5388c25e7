"""The reference stars of a stack, and the astrometric scatter about them."""

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
from lib.reference.referencetable import check_angles, read_written_reference, source_name


@dataclass(frozen=True)
class StackReference:
    """Stars with known positions and magnitudes, and the names of their catalogues.

    Parameters
    ----------
    stars : mapping of str to ndarray, or None
        Stars for the astrometry.
    source : str
        Name of the catalogue.
    photometric : mapping of str to ndarray, or None
        Stars for the photometry: the same, or the custom catalogue.
    photometric_source : str
        Name of their catalogue.
    reason : str
        Why there is no reference.
    """

    stars: Reference | None
    source: str
    photometric: Reference | None
    photometric_source: str
    reason: str = ""


def load_reference(path: str | Path | None) -> tuple[dict[str, np.ndarray] | None, str, str]:
    """Read the reference table.

    Parameters
    ----------
    path : path-like, optional
        Reference table (ECSV), which may be empty.

    Returns
    -------
    columns : dict of str to ndarray, or None
        Columns of the table; None where it is empty.
    source : str
        Name of the catalogue.
    reason : str
        Why it is empty.
    """
    if not path:
        return None, "NONE", ""
    table = read_written_reference(path)
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
    """Return the reference of a stack, with the custom catalogue for the filters it is used for.

    Parameters
    ----------
    refcat : path-like, optional
        Reference table (ECSV), which may be empty.
    customcat : path-like, optional
        Custom catalogue.
    customcatfilt : collection of str
        Bands or filters for which the custom catalogue is used.
    headers : list of astropy.io.fits.Header
        Headers of the frames; band and filter are read from the first.

    Returns
    -------
    StackReference

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        The custom catalogue cannot be used.
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
"""[pixel] Systematic error of a position, from pixel phase and the alignment of frames."""

BRIGHT_SNR = 50.0
"""Minimum S/N of stars used to measure the systematic error of positions."""

MIN_BRIGHT_STARS = 8
"""Minimum number of these stars."""

COMPARED_SNR = 10.0
"""Minimum S/N of stars whose positions are compared with the reference."""


def astrometric_scatter(
    coadd: MeasuredCoadd, reference: Reference, radius: float
) -> tuple[tuple[float, float], int]:
    """Return the scatter of the positions of a coadd's stars about the reference.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    reference : mapping with ra, dec [deg]
    radius : float
        Maximum distance of a match [arcsec].

    Returns
    -------
    rms : tuple of float
        Robust rms about zero, in east and north [mas].
    number : int
        Number of stars compared.
    """
    assert coadd.field is not None
    sky = coadd.source_positions()
    ra0, dec0 = mean_position(*sky.T)
    plane = project(sky[:, 0], sky[:, 1], ra0, dec0)
    at = project(reference["ra"], reference["dec"], ra0, dec0)
    # Fainter stars are dominated by their noise and by chance matches.
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
    """Return the systematic error of positions: astrometric solution, pixel phase, profile.

    It is the scatter of bright stars about the reference that their errors, and those of the
    reference, do not explain, where that is larger than `CENTRING_ERROR`.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    reference : mapping with ra, dec [deg], and their errors [mas] where known
        None where the coadd is not tied to a reference.
    error : ndarray, shape (n,)
        Errors of the positions of the sources [pixel].
    radius : float
        Maximum distance of a match [arcsec].

    Returns
    -------
    float
        Systematic error per axis [pixel].
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
