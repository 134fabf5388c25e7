"""The surveys that VizieR serves: their columns, and how they become reference stars."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from lib.core.bands import AB_MINUS_VEGA
from lib.reference.referencetable import blank_table
from lib.reference.transformations import PS1_TO_REFERENCE, transform

RUWE_LIMIT = 1.4
"""Above it a Gaia star does not move as a single one (Lindegren 2018, GAIA-C3-TN-LU-LL-124)."""

SYNTHETIC_Y_LIMIT = 15.0
"""Gaia's synthetic y is used above this brightness [mag] only (known issue of Gaia DR3)."""


Columns = dict[str, np.ndarray]
"""Columns of a VizieR table as arrays, under our names and in our units."""


@dataclass(frozen=True)
class Column:
    """A column of a VizieR table.

    Parameters
    ----------
    names : tuple of str
        The first is asked for; it may come back under any of them.
    unit : str
        Unit to which it is converted; empty for text and pure numbers.
    required : bool
        Whether an answer without it is an error.
    """

    names: tuple[str, ...]
    unit: str = ""
    required: bool = True


@dataclass(frozen=True, eq=False)
class Survey:
    """A VizieR table, and how its columns become a reference table.

    Parameters
    ----------
    name : str
        Name as in ``meta['source']`` and ``<band>_src``.
    table : str
        VizieR's name.
    columns : dict of str to Column
    standardise : callable
        Takes a dict of float arrays, returns a reference table.
    magnitude : str
        Column that is bounded where a field has too many stars.
    declinations : tuple of float
        Range covered [deg].
    whole : bool
        Whether that range is covered completely, so that an answer without stars is an error.
    radius : float
        For matching by position [arcsec].
    max_error : float
        Magnitudes less certain than this [mag] are not taken.
    """

    name: str
    table: str
    columns: dict[str, Column] = field(repr=False)
    standardise: Callable[[Columns], Table] = field(repr=False)
    magnitude: str
    declinations: tuple[float, float] = (-90.0, 90.0)
    whole: bool = True
    radius: float = 1.0
    max_error: float = 0.15

    def covers(self, dec: float, radius: float) -> bool:
        """Whether a field reaches into the range of declinations."""
        return self.declinations[0] - radius <= dec <= self.declinations[1] + radius


def _columns(**given: str) -> dict[str, Column]:
    """Return the columns: ``key="name|other name:unit"``, a leading ``?`` for an optional one."""
    columns = {}
    for key, text in given.items():
        names, _, unit = text.removeprefix("?").partition(":")
        columns[key] = Column(tuple(names.split("|")), unit, not text.startswith("?"))
    return columns


def _magnitude_columns(bands: str, magnitude: str, error: str) -> dict[str, Column]:
    """Return columns for magnitudes and errors, ``{}`` standing for the band."""
    columns: dict[str, Column] = {}
    for band in bands:
        for key, form in ((band, magnitude), (f"{band}_err", error)):
            columns |= _columns(**{key: f"{form.replace('{}', band)}:mag"})
    return columns


def _flux_columns(bands: str, optional: bool = False) -> dict[str, Column]:
    """Return columns for magnitudes, fluxes (for the error) and flags of synthetic photometry."""
    mark = "?" if optional else ""
    columns: dict[str, Column] = {}
    for band in bands:
        columns |= _columns(**{band: f"{mark}{band}mag:mag"})
        columns |= _columns(**{f"{band}_flux": f"{mark}F{band}"})
        columns |= _columns(**{f"{band}_flux_err": f"{mark}e_F{band}"})
        columns |= _columns(**{f"{band}_flag": f"{mark}{band}Flag"})
    return columns


def _start(raw: Columns, epoch: float, position_error: float = np.nan) -> Table:
    """Return a table with the positions of `raw`, their errors in mas."""
    table = blank_table(len(raw["ra"]))
    table["ra"], table["dec"] = raw["ra"], raw["dec"]
    for name in ("ra_err", "dec_err", "pmra", "pmdec"):
        if name in raw:
            table[name] = raw[name]
    for name in ("ra_err", "dec_err"):
        table[name][~(table[name] > 0)] = position_error
    table["epoch"] = epoch
    return table


def _put(
    table: Table,
    raw: Columns,
    bands: Iterable[str],
    *,
    floor: float = 0.0,
    vega: bool = False,
    bright: Mapping[str, float] | None = None,
) -> None:
    """Copy magnitudes, from Vega to AB where they are `vega`.

    To the errors `floor` [mag] is added in quadrature; magnitudes above `bright` are left out.
    """
    for band in bands:
        magnitude = raw[band] + (AB_MINUS_VEGA[band] if vega else 0.0)
        error = np.hypot(raw[f"{band}_err"], floor)
        if bright is not None:
            magnitude = np.where(raw[band] < bright[band], np.nan, magnitude)
        table[band], table[f"{band}_err"] = magnitude, error


def _gaia(raw: Columns) -> Table:
    """Positions and proper motions of Gaia DR3, epoch 2016.0; duplicated sources left out."""
    table = _start(raw, 2016.0, position_error=1.0)
    table["pmra_err"], table["pmdec_err"] = raw["pmra_err"], raw["pmdec_err"]
    table["Gmag"] = raw["G"]
    # a star that does not fit a single one's motion weighs less, it is not thrown away
    poor = np.where(raw["ruwe"] > RUWE_LIMIT, raw["ruwe"], 1.0)
    table["ra_err"] *= poor
    table["dec_err"] *= poor
    return table[~(raw["duplicated"] > 0)]


def _gaia_synthetic(raw: Columns) -> Table:
    """Gaia synthetic photometry (Gaia Collaboration, Montegriffo et al. 2023, A&A 674, A33).

    Only magnitudes flagged as within the validated range. UBVRI are Vega (Landolt), ugriz AB
    (SDSS), y AB (Pan-STARRS). 10 mmag is the agreement of the standardised system.
    """
    table = _start(raw, 2016.0)
    for band in "ugrizyBVRI":
        error = 2.5 / math.log(10) * raw[f"{band}_flux_err"] / raw[f"{band}_flux"]
        good = raw[f"{band}_flag"] == 1
        vega = AB_MINUS_VEGA[band] if band in "BVRI" else 0.0
        table[band] = np.where(good, raw[band] + vega, np.nan)
        table[f"{band}_err"] = np.hypot(error, 0.03 if band == "u" else 0.01)
    table["excess"] = raw["excess"]
    return table


def _twomass(raw: Columns) -> Table:
    """2MASS J H Ks (Vega); photometric quality A to C (Skrutskie et al. 2006, AJ 131, 1163)."""
    table = _start(raw, 1999.5, position_error=80.0)
    _put(table, raw, "JHK")
    for k, band in enumerate("JHK"):
        fit = np.array([len(q) == 3 and q[k] in "ABC" for q in raw["quality"]], bool)
        table[band][~fit] = np.nan
    return table


def _sdss(raw: Columns) -> Table:
    """SDSS DR16 PSF magnitudes of primary point sources, turned to AB.

    u_AB = u - 0.04, z_AB = z + 0.02 (SDSS flux calibration page). Saturated below 14.
    """
    table = _start(raw, 2005.0, position_error=50.0)
    _put(table, raw, "ugriz", floor=0.01, bright=dict.fromkeys("ugriz", 14.2))
    table["u"] -= 0.04
    table["z"] += 0.02
    return table[(raw["mode"] == 1) & (raw["class"] == 6)]


def _panstarrs(raw: Columns) -> Table:
    """Pan-STARRS DR1 mean PSF magnitudes of point sources, brought to the reference bands.

    Stars by i(PSF) - i(Kron) < 0.05 (Farrow et al. 2014, MNRAS 437, 748), fainter than the
    saturation of Magnier et al. (2020, ApJS 251, 6); griz and BVRI by Tonry et al. (2012).
    """
    table = _start(raw, 2012.5, position_error=20.0)
    bright = {"g": 14.5, "r": 15.0, "i": 15.0, "z": 14.0, "y": 13.0}
    magnitudes = {b: np.where(raw[b] < bright[b], np.nan, raw[b]) for b in "grizy"}
    errors = {b: np.hypot(raw[f"{b}_err"], 0.01) for b in "grizy"}
    for band, (value, error) in transform(PS1_TO_REFERENCE, magnitudes, errors).items():
        table[band], table[f"{band}_err"] = value, error
    table["y"], table["y_err"] = magnitudes["y"], errors["y"]
    extended = raw["i"] - raw["iKron"] > 0.05
    return table[~extended]


def _skymapper(raw: Columns) -> Table:
    """SkyMapper DR4 PSF magnitudes, its own griz (Onken et al. 2024, PASA 41, e061)."""
    table = _start(raw, 2017.0, position_error=100.0)
    _put(table, raw, "griz", floor=0.01)
    return table[raw["flags"] < 4]


def _apass(raw: Columns) -> Table:
    """APASS DR9: Johnson B V (Vega) and Sloan g r i (AB) (Henden et al. 2016)."""
    table = _start(raw, 2012.0, position_error=200.0)
    _put(table, raw, "BV", floor=0.02, vega=True)
    _put(table, raw, "gri", floor=0.02)
    return table


def _usnob(raw: Columns) -> Table:
    """USNO-B1.0: photographic magnitudes, good to 0.3 mag (Monet et al. 2003, AJ 125, 984).

    Second epoch blue and red, first where that is missing, and I, taken as B R I (Vega).
    """
    table = _start(raw, 2000.0, position_error=200.0)
    unmeasured = (raw["pmra"] == 0) & (raw["pmdec"] == 0)
    for band, first, second in (("B", "B2", "B1"), ("R", "R2", "R1"), ("I", "I", "I")):
        magnitude = np.where(np.isfinite(raw[first]), raw[first], raw[second])
        table[band] = magnitude + AB_MINUS_VEGA[band]
        table[f"{band}_err"] = np.where(np.isfinite(magnitude), 0.3, np.nan)
    for name in ("pmra", "pmdec"):
        table[name][unmeasured] = np.nan
    return table


GAIA = Survey(
    "GaiaDR3",
    "I/355/gaiadr3",
    _columns(
        ra="RA_ICRS:deg",
        dec="DE_ICRS:deg",
        ra_err="e_RA_ICRS:mas",
        dec_err="e_DE_ICRS:mas",
        pmra="pmRA:mas/yr",
        pmdec="pmDE:mas/yr",
        pmra_err="e_pmRA:mas/yr",
        pmdec_err="e_pmDE:mas/yr",
        ruwe="RUWE",
        duplicated="Dup",
        G="Gmag:mag",
    ),
    _gaia,
    magnitude="Gmag",
)
GAIA_SYNTHETIC = Survey(
    "GaiaXP",
    "I/360/syntphot",
    _columns(ra="RA_ICRS:deg", dec="DE_ICRS:deg", excess="?E(BP/RP)corr|E_BP_RP_corr|E_BP_RP_Corr")
    | _flux_columns("ugrizBVRI")
    | _flux_columns("y", optional=True),
    _gaia_synthetic,
    magnitude="gmag",
    whole=False,
    radius=0.3,
)
TWOMASS = Survey(
    "2MASS",
    "II/246/out",
    _columns(
        ra="RAJ2000:deg",
        dec="DEJ2000:deg",
        ra_err="errMaj:mas",
        dec_err="?errMin:mas",
        quality="Qflg",
    )
    | _magnitude_columns("JHK", "{}mag", "e_{}mag"),
    _twomass,
    magnitude="Jmag",
)
SDSS = Survey(
    "SDSSDR16",
    "V/154/sdss16",
    _columns(
        ra="RA_ICRS:deg",
        dec="DE_ICRS:deg",
        ra_err="?e_RA_ICRS:mas",
        dec_err="?e_DE_ICRS:mas",
        mode="mode",
        **{"class": "class"},
    )
    | _magnitude_columns("ugriz", "{}pmag", "e_{}pmag"),
    _sdss,
    magnitude="rpmag",
    declinations=(-30.0, 90.0),
    whole=False,
)
PANSTARRS = Survey(
    "PS1",
    "II/349/ps1",
    _columns(
        ra="RAJ2000:deg",
        dec="DEJ2000:deg",
        ra_err="?e_RAJ2000:mas",
        dec_err="?e_DEJ2000:mas",
        iKron="iKmag:mag",
    )
    | _magnitude_columns("grizy", "{}mag", "e_{}mag"),
    _panstarrs,
    magnitude="rmag",
    declinations=(-30.0, 90.0),
    whole=False,
)
SKYMAPPER = Survey(
    "SkyMapperDR4",
    "II/379/smssdr4",
    _columns(
        ra="RAICRS|RA_ICRS:deg",
        dec="DEICRS|DE_ICRS:deg",
        ra_err="?e_RAICRS:mas",
        dec_err="?e_DEICRS:mas",
        flags="flags",
    )
    | _magnitude_columns("griz", "{}PSF", "e_{}PSF"),
    _skymapper,
    magnitude="rPSF",
    declinations=(-90.0, 16.0),
    whole=False,
)
APASS = Survey(
    "APASS9",
    "II/336/apass9",
    _columns(ra="RAJ2000:deg", dec="DEJ2000:deg", ra_err="?e_RAJ2000:mas", dec_err="?e_DEJ2000:mas")
    | _magnitude_columns("BV", "{}mag", "e_{}mag")
    | _magnitude_columns("gri", "{}'mag|{}_mag|{}pmag", "e_{}'mag|e_{}_mag|e_{}pmag"),
    _apass,
    magnitude="Vmag",
    whole=False,
    radius=2.0,
    max_error=0.06,
)
USNOB = Survey(
    "USNO-B1",
    "I/284/out",
    _columns(ra="RAJ2000:deg", dec="DEJ2000:deg", ra_err="?e_RAJ2000:mas", dec_err="?e_DEJ2000:mas",
             pmra="pmRA:mas/yr", pmdec="pmDE:mas/yr", B1="B1mag:mag", R1="R1mag:mag",
             B2="B2mag:mag", R2="R2mag:mag", I="Imag:mag"),
    _usnob,
    magnitude="R2mag",
)  # fmt: skip

ASTROMETRIC = (GAIA, SDSS, TWOMASS, APASS, USNOB, PANSTARRS, SKYMAPPER)
"""Positions are taken from the first that has stars in the field."""
PHOTOMETRIC = (GAIA_SYNTHETIC, TWOMASS, SDSS, PANSTARRS, SKYMAPPER, APASS)
"""Magnitudes are filled in this order; a band that is there is kept."""
SURROUNDINGS = (GAIA, GAIA_SYNTHETIC, TWOMASS)
"""Surveys queried for the surroundings of a field: positions, then magnitudes."""
