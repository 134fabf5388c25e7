"""Tables as archives hand them out: told by their column names, read as answers of the survey."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS
from lib.reference.photometry import set_band
from lib.reference.referencetable import (
    USUAL_DEC,
    USUAL_RA,
    CatalogueError,
    blank_table,
    column_values,
)
from lib.reference.surveys import APASS, GAIA, PANSTARRS, SDSS, TWOMASS, Columns
from lib.reference.transformations import GAIA_TO_REFERENCE, PS1_TO_REFERENCE, transform

POSITIONS = {"ra": USUAL_RA, "dec": USUAL_DEC}
"""Names of position columns in lower case, most precise first."""

Names = Mapping[str, Sequence[str]]
"""Names that each of a survey's columns may have."""


@dataclass(frozen=True, eq=False)
class Download:
    """The columns of one survey, under the names that archives give them.

    Parameters
    ----------
    name : str
        Name as in ``meta['source']`` and ``<band>_src``.
    marks : tuple of tuple of str
        A table is of this survey where it has a column of each of these groups.
    names : mapping of str to sequence of str
        For each column of the survey.
    flags : mapping of str to float or str
        Substitutes for missing columns; NaN for all others.
    """

    name: str
    marks: tuple[tuple[str, ...], ...]
    names: Names
    flags: Mapping[str, float | str]


def _by_band(bands: str, magnitudes: str, errors: str) -> dict[str, tuple[str, ...]]:
    """Return names of magnitudes and errors; ``{}`` stands for the band."""
    names = {}
    for band in bands:
        names[band] = tuple(magnitudes.replace("{}", band).split())
        names[f"{band}_err"] = tuple(errors.replace("{}", band).split())
    return names


_GAIA_DOWNLOAD = Download(
    GAIA.name,
    (("phot_g_mean_mag", "Gmag"),),
    {
        "ra_err": ("ra_error", "e_RA_ICRS"),
        "dec_err": ("dec_error", "e_DE_ICRS"),
        "pmra": ("pmra", "pmRA"),
        "pmdec": ("pmdec", "pmDE"),
        "pmra_err": ("pmra_error", "e_pmRA"),
        "pmdec_err": ("pmdec_error", "e_pmDE"),
        "epoch": ("ref_epoch", "epoch"),
        "ruwe": ("ruwe", "RUWE"),
        "duplicated": ("duplicated_source", "Dup"),
        "G": ("phot_g_mean_mag", "Gmag"),
        "BP": ("phot_bp_mean_mag", "BPmag"),
        "RP": ("phot_rp_mean_mag", "RPmag"),
    },
    {"duplicated": 0.0},
)
_REFCAT2_DOWNLOAD = Download(
    "ATLAS-REFCAT2",
    (("rp1", "r10", "gchi"), ("g", "gmag"), ("dg", "e_gmag")),
    {
        "pmra": ("pmra", "pmRA"),
        "pmdec": ("pmdec", "pmDE"),
        **_by_band("grizJHK", "{} {}mag", "d{} e_{}mag"),
    },
    {},
)
_PANSTARRS_DOWNLOAD = Download(
    PANSTARRS.name,
    (("ymag", "yMeanPSFMag", "gMeanPSFMag", "rMeanPSFMag", "iMeanPSFMag"),),
    {
        "iKron": ("iKmag", "iMeanKronMag"),
        **_by_band("grizy", "{}mag {}MeanPSFMag", "e_{}mag {}MeanPSFMagErr"),
    },
    {},
)
_APASS_DOWNLOAD = Download(
    APASS.name,
    (("Vmag", "Johnson_V"), ("g'mag", "g_mag", "gpmag", "Sloan_g")),
    {
        **_by_band("BV", "{}mag Johnson_{}", "e_{}mag {}err"),
        **_by_band("gri", "{}'mag {}_mag {}pmag Sloan_{}", "e_{}'mag e_{}_mag e_{}pmag {}err"),
    },
    {},
)
_SDSS_DOWNLOAD = Download(
    SDSS.name,
    (("upmag", "umag", "psfMag_u", "psfMag_g", "psfMag_r", "gpmag", "rpmag"),),
    {
        "mode": ("mode",),
        "class": ("class", "cl", "type"),
        **_by_band("ugriz", "{}pmag psfMag_{} {}mag", "e_{}pmag psfMagErr_{} psfMagErr_{} e_{}mag"),
    },
    {"mode": 1.0, "class": 6.0},
)
_TWOMASS_DOWNLOAD = Download(
    TWOMASS.name,
    (("Jmag", "j_m"),),
    {
        **_by_band("JH", "{}mag", "e_{}mag"),
        "J": ("Jmag", "j_m"),
        "J_err": ("e_Jmag", "j_cmsig", "j_msigcom"),
        "H": ("Hmag", "h_m"),
        "H_err": ("e_Hmag", "h_cmsig", "h_msigcom"),
        "K": ("Kmag", "Ksmag", "k_m", "ks_m"),
        "K_err": ("e_Kmag", "e_Ksmag", "k_cmsig", "k_msigcom", "ks_msigcom"),
        "quality": ("Qflg", "ph_qual"),
    },
    {"quality": "AAA"},
)


def _refcat2(columns: Columns) -> Table:
    """ATLAS-REFCAT2: griz of Pan-STARRS, J H K of 2MASS, epoch 2015.5 (Tonry et al. 2018)."""
    table = blank_table(len(columns["ra"]))
    for name in ("ra", "dec", "pmra", "pmdec", *(f"{b}{e}" for b in "JHK" for e in ("", "_err"))):
        table[name] = columns[name]
    table["epoch"] = 2015.5
    errors = {band: np.hypot(columns[f"{band}_err"], 0.01) for band in "griz"}
    for band, (value, error) in transform(PS1_TO_REFERENCE, columns, errors).items():
        table[band], table[f"{band}_err"] = value, error
    return table


def _gaia(columns: Columns) -> Table:
    """Gaia: positions and motions; magnitudes by the relations of its documentation."""
    columns = dict(columns)
    known = ~(columns["duplicated"] > 0)
    table = GAIA.standardise(columns)
    stated = columns["epoch"][known]
    table["epoch"] = np.where(np.isfinite(stated), stated, table["epoch"])
    table["ra_err"][np.isnan(columns["ra_err"][known])] = np.nan
    table["dec_err"][np.isnan(columns["dec_err"][known])] = np.nan
    magnitudes = {name: columns[name][known] for name in ("G", "BP", "RP")}
    errors = {name: np.full(len(table), 0.003) for name in magnitudes}
    rows = np.arange(len(table))
    for band, (value, error) in transform(GAIA_TO_REFERENCE, magnitudes, errors).items():
        set_band(table, band, rows, value, error, "Gaia DR3 from G, BP-RP")
    return table


STANDARDISE = {
    _REFCAT2_DOWNLOAD: _refcat2,
    _APASS_DOWNLOAD: APASS.standardise,
    _PANSTARRS_DOWNLOAD: PANSTARRS.standardise,
    _SDSS_DOWNLOAD: SDSS.standardise,
    _GAIA_DOWNLOAD: _gaia,
    _TWOMASS_DOWNLOAD: TWOMASS.standardise,
}
"""How the columns of each become a reference table; the first whose marks a table has."""


def recognise(path: Path, raw: Table) -> Download | None:
    """Return the survey that a table is of, by its column names; None where it is of none.

    Parameters
    ----------
    path : Path
        For the message.
    raw : astropy.table.Table
        Table as read.

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        The magnitudes may be of either of two surveys with different bands.
    """
    names = set(raw.colnames)
    if names & set(BANDS) and not _matches(_REFCAT2_DOWNLOAD, names):
        return None
    found = next((one for one in STANDARDISE if _matches(one, names)), None)
    if found is None and not names & {"ra", "RA"}:
        unclear = [f"{band}mag" for band in "griz" if f"{band}mag" in names]
        if unclear:
            raise CatalogueError(
                f"{path}: {', '.join(unclear)} may be those of Pan-STARRS or of SDSS, which differ "
                "by up to 0.2 mag: take ymag or umag along with them, or rename them to "
                f"{', '.join(name[0] for name in unclear)} where they are SDSS (AB)"
            )
    return found


def _matches(download: Download, names: set[str]) -> bool:
    lower = {name.lower() for name in names}
    return all(
        any(one in names or (len(one) > 5 and one.lower() in lower) for one in group)
        for group in download.marks
    )


def survey_table(path: Path, raw: Table, download: Download) -> Table:
    """Return the reference table that the table of a survey is.

    Parameters
    ----------
    path : Path
        For messages.
    raw : astropy.table.Table
        Table as read.
    download : Download

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        For a missing position, and what is no number where numbers are wanted.
    """
    columns: Columns = {}
    for key, names in {**POSITIONS, **download.names}.items():
        name = _column_name(raw, names)
        if name is None:
            if key in POSITIONS:
                raise CatalogueError(
                    f"{path} looks like a table of {download.name} but has no column for {key}: "
                    f"write one of {', '.join(names)}"
                )
            columns[key] = np.full(len(raw), download.flags.get(key, np.nan))
            continue
        columns[key] = column_values(path, raw, name, _unit(key), text=key == "quality")
    for key in columns:
        if key in BANDS or key in ("G", "BP", "RP", "iKron"):
            columns[key][~((columns[key] > -5) & (columns[key] < 40))] = np.nan
        elif key.endswith("_err") and key[:-4] in BANDS:
            columns[key][~((columns[key] >= 0) & (columns[key] < 9))] = np.nan
    table = STANDARDISE[download](columns)
    for band in BANDS:
        # Without an error it is no measurement in these catalogues.
        table[band][np.isnan(table[f"{band}_err"])] = np.nan
        table[f"{band}_err"][np.isnan(table[band])] = np.nan
    return table


def _column_name(raw: Table, names: Sequence[str]) -> str | None:
    """Return the column that has one of the names; long ones and positions in whatever case."""
    for name in names:
        if name in raw.colnames:
            return name
    for name in names:
        long = len(name) > 5 or names in POSITIONS.values()
        near = [one for one in raw.colnames if long and one.lower() == name.lower()]
        if len(near) == 1:
            return near[0]
    return None


def _unit(key: str) -> str:
    if key in ("ra", "dec"):
        return "deg"
    if key in ("ra_err", "dec_err"):
        return "mas"
    if key.startswith("pm"):
        return "mas / yr"
    return "yr" if key == "epoch" else "mag" if key[0] in "ugrizyBVRIJHKG" else ""
