"""UCDs and descriptions of the columns of source tables.

Unified content descriptors: IVOA recommendation UCD1+ (version 1.6); in FITS they are TUCDn, as
TOPCAT and STIL have it, descriptions in TCOMMn.
"""

import re
from collections.abc import Iterator

from astropy.io import fits

MEANINGS = {
    "NUMBER": ("meta.id", "number of the source in this table"),
    "RA": ("pos.eq.ra;meta.main", "right ascension, ICRS"),
    "DEC": ("pos.eq.dec;meta.main", "declination, ICRS"),
    "POSERR": ("stat.error;pos.eq", "error of the position, mean of both axes"),
    "X": ("pos.cartesian.x;instr.pixel", "column, the first is 1"),
    "Y": ("pos.cartesian.y;instr.pixel", "row, the first is 1"),
    "SNR": ("stat.snr;phot.flux", "FLUX_POINT over its error"),
    "CHI2_PSF": ("stat.fit.chi2", "mean square of the residuals of PSF over the noise"),
    "KRON_RADIUS": ("phys.angSize", "semi-major axis of the AUTO aperture"),
    "A_IMAGE": ("phys.angSize.smajAxis", "rms along the major axis"),
    "B_IMAGE": ("phys.angSize.sminAxis", "rms along the minor axis"),
    "THETA": ("pos.posAng", "major axis, from x towards y"),
    "ELLIPTICITY": ("src.ellipticity", "1 - B_IMAGE / A_IMAGE"),
    "HALF_LIGHT": ("phys.angSize", "radius of half the light"),
    "SIZE_RATIO": ("arith.ratio;phys.angSize", "HALF_LIGHT over that of stars"),
    "STAR": ("src.class.starGalaxy", "as large as a star"),
    "PEAK": ("phot.count;stat.max", "brightest pixel, electrons"),
    "FLAGS": ("meta.code.qual", "sum of bits, see docs/stack.md"),
    "NFRAMES": ("meta.number;obs", "frames that count in the core"),
    "ZP_STAR": ("meta.code", "counts in the zero point"),
}
"""UCD and description of a column."""

FLUXES = {
    "POINT": "of a point source, total",
    "PSF": "of a point source, total, by a PSF fit",
    "AUTO": "in the elliptical Kron aperture",
}
"""Descriptions of the kinds of fluxes; those of APERn are in circular apertures."""

FLUX_COLUMN = re.compile(r"(FLUX|FLUXERR|MAG|MAGERR)_(\w+)")


def meaning(name: str) -> tuple[str, str]:
    """Return UCD and description of a column of a source table; '' for unknown columns."""
    if name in MEANINGS:
        return MEANINGS[name]
    found = FLUX_COLUMN.fullmatch(name)
    if found is None:
        return "", ""
    quantity, kind = found.groups()
    where = FLUXES.get(kind, f"in circular aperture {kind.removeprefix('APER')}")
    ucd = "phot.mag" if quantity.startswith("MAG") else "phot.flux"
    what = "magnitude" if quantity.startswith("MAG") else "flux"
    unit = "" if quantity.startswith("MAG") else ", electrons"
    if quantity.endswith("ERR"):
        return f"stat.error;{ucd}", f"error of the {what} {where}{unit}"
    return ucd, f"{what} {where}{unit}"


def describe_columns(header: fits.Header) -> None:
    """Write UCDs and descriptions of the columns into the header of a source table.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the binary table, changed in place.
    """
    for number, name in _columns(header):
        ucd, words = meaning(name)
        if words:
            header.set(f"TUCD{number}", ucd, after=f"TFORM{number}")
            header.set(f"TCOMM{number}", words, after=f"TUCD{number}")


def _columns(header: fits.Header) -> Iterator[tuple[int, str]]:
    for number in range(1, header["TFIELDS"] + 1):
        yield number, header[f"TTYPE{number}"]
