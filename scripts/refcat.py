"""Make the reference table of one target: from a user's table, the cache, or VizieR.

The rule hands over the field; what is written always is a table in the form of
`lib.catalogues`, without rows and with a reason where no reference can be had. Run as a
program it freezes the answers for a list of fields, for a mountain without network::

    python scripts/refcat.py --fields fields.csv --out refcat_cache
"""

import gzip
import hashlib
import json
import logging
import math
import re
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lib.catalogues import (
    AB_MINUS_VEGA,
    BANDS,
    PS1_TO_REFERENCE,
    blank_table,
    check_angles,
    cut_out,
    empty_reference,
    fill_by_transformation,
    join_photometry,
    match_positions,
    move_to_epoch,
    read_reference,
    separation,
    tie_to_reference,
    transform,
    write_reference,
)
from lib.frames import atomic_path
from lib.steps import start_log

log = logging.getLogger("autoproc")

VERSION = 1

SERVERS = (
    "vizier.cds.unistra.fr",
    "vizier.cfa.harvard.edu",
    "vizier.nao.ac.jp",
    "vizier.iucaa.in",
)
"""VizieR and its mirrors, in the order they are tried."""

TIMEOUT = 60.0
"""Seconds a server has for one answer, all in all."""
ROW_LIMIT = 100_000
"""Rows after which an answer counts as cut off and the field is asked for again, brighter."""
LARGE = 20_000
"""Rows above which a user's table is cut out around the field."""
RUWE_LIMIT = 1.4
"""Above it a Gaia star does not move as a single one (Lindegren 2018, GAIA-C3-TN-LU-LL-124)."""


WIDEST = 3.0
"""Radius [deg] above which a field is not asked for."""
NO_SERVER = "no server is left that answers"
SYNTHETIC_Y_LIMIT = 15.0
"""Gaia's synthetic y is used above this brightness [mag] only (known issue of Gaia DR3)."""


class ReferenceUnavailable(Exception):
    """No reference now, perhaps later: the network, the servers, or the cache lack it."""


class AnswerError(Exception):
    """A server's answer that cannot be used; the message names server, catalogue, column.

    `lasting` says that the server is not worth another question in this run.
    """

    def __init__(self, message, lasting=False):
        super().__init__(message)
        self.lasting = lasting


class TimeLimitReached(Exception):
    """The whole of an answer took longer than it may."""


# --- the catalogues ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a VizieR table: its names (the first is asked for), unit, and need."""

    names: tuple
    unit: str = ""
    required: bool = True


@dataclass(frozen=True, eq=False)
class Survey:
    """A VizieR table, and how its columns become a reference table.

    Parameters
    ----------
    name : str
        As in ``meta['source']`` and ``<band>_src``.
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
        Whether all of that range is covered, so that an answer without stars is an error.
    radius : float
        For matching by position [arcsec].
    max_error : float
        Magnitudes less certain than this [mag] are not taken.
    """

    name: str
    table: str
    columns: dict = field(repr=False)
    standardise: object = field(repr=False)
    magnitude: str
    declinations: tuple = (-90.0, 90.0)
    whole: bool = True
    radius: float = 1.0
    max_error: float = 0.15

    def covers(self, dec, radius):
        """Whether a field reaches into the range of declinations."""
        return self.declinations[0] - radius <= dec <= self.declinations[1] + radius


def _columns(**given):
    """Return the columns: ``key="name|other name:unit"``, a leading ``?`` for an optional one."""
    columns = {}
    for key, text in given.items():
        names, _, unit = text.removeprefix("?").partition(":")
        columns[key] = Column(tuple(names.split("|")), unit, not text.startswith("?"))
    return columns


def _magnitude_columns(bands, magnitude, error):
    """Return columns for magnitudes and errors, ``{}`` standing for the band."""
    columns = {}
    for band in bands:
        for key, form in ((band, magnitude), (f"{band}_err", error)):
            columns |= _columns(**{key: f"{form.replace('{}', band)}:mag"})
    return columns


def _flux_columns(bands, optional=False):
    """Return columns for magnitudes, fluxes (for the error) and flags of synthetic photometry."""
    mark = "?" if optional else ""
    columns = {}
    for band in bands:
        columns |= _columns(**{band: f"{mark}{band}mag:mag"})
        columns |= _columns(**{f"{band}_flux": f"{mark}F{band}"})
        columns |= _columns(**{f"{band}_flux_err": f"{mark}e_F{band}"})
        columns |= _columns(**{f"{band}_flag": f"{mark}{band}Flag"})
    return columns


def _start(raw, epoch, position_error=np.nan):
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


def _put(table, raw, bands, *, floor=0.0, vega=False, bright=None):
    """Copy magnitudes: Vega to AB where told, errors no smaller than `floor` [mag]."""
    for band in bands:
        magnitude = raw[band] + (AB_MINUS_VEGA[band] if vega else 0.0)
        error = np.hypot(raw[f"{band}_err"], floor)
        if bright is not None:
            magnitude = np.where(raw[band] < bright[band], np.nan, magnitude)
        table[band], table[f"{band}_err"] = magnitude, error


def _gaia(raw):
    """Positions and proper motions of Gaia DR3, epoch 2016.0; duplicated sources left out."""
    table = _start(raw, 2016.0, position_error=1.0)
    table["pmra_err"], table["pmdec_err"] = raw["pmra_err"], raw["pmdec_err"]
    table["Gmag"] = raw["G"]
    # a star that does not fit a single one's motion weighs less, it is not thrown away
    poor = np.where(raw["ruwe"] > RUWE_LIMIT, raw["ruwe"], 1.0)
    table["ra_err"] *= poor
    table["dec_err"] *= poor
    return table[~(raw["duplicated"] > 0)]


def _gaia_synthetic(raw):
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


def _twomass(raw):
    """2MASS J H Ks (Vega); photometric quality A to C (Skrutskie et al. 2006, AJ 131, 1163)."""
    table = _start(raw, 1999.5, position_error=80.0)
    _put(table, raw, "JHK")
    for k, band in enumerate("JHK"):
        fit = np.array([len(q) == 3 and q[k] in "ABC" for q in raw["quality"]], bool)
        table[band][~fit] = np.nan
    return table


def _sdss(raw):
    """SDSS DR16 PSF magnitudes of primary point sources, turned to AB.

    u_AB = u - 0.04, z_AB = z + 0.02 (SDSS flux calibration page). Saturated below 14.
    """
    table = _start(raw, 2005.0, position_error=50.0)
    _put(table, raw, "ugriz", floor=0.01, bright=dict.fromkeys("ugriz", 14.2))
    table["u"] -= 0.04
    table["z"] += 0.02
    return table[(raw["mode"] == 1) & (raw["class"] == 6)]


def _panstarrs(raw):
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


def _skymapper(raw):
    """SkyMapper DR4 PSF magnitudes, its own griz (Onken et al. 2024, PASA 41, e061)."""
    table = _start(raw, 2017.0, position_error=100.0)
    _put(table, raw, "griz", floor=0.01)
    return table[raw["flags"] < 4]


def _apass(raw):
    """APASS DR9: Johnson B V (Vega) and Sloan g r i (AB) (Henden et al. 2016)."""
    table = _start(raw, 2012.0, position_error=200.0)
    _put(table, raw, "BV", floor=0.02, vega=True)
    _put(table, raw, "gri", floor=0.02)
    return table


def _usnob(raw):
    """USNO-B1.0: photographic magnitudes, good to 0.3 mag (Monet et al. 2003, AJ 125, 984).

    Second epoch blue and red, first where that is missing, and I, taken as B R I (Vega).
    """
    table = _start(raw, 2000.0, position_error=200.0)
    still = (raw["pmra"] == 0) & (raw["pmdec"] == 0)
    for band, first, second in (("B", "B2", "B1"), ("R", "R2", "R1"), ("I", "I", "I")):
        magnitude = np.where(np.isfinite(raw[first]), raw[first], raw[second])
        table[band] = magnitude + AB_MINUS_VEGA[band]
        table[f"{band}_err"] = np.where(np.isfinite(magnitude), 0.3, np.nan)
    for name in ("pmra", "pmdec"):
        table[name][still] = np.nan
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
"""Magnitudes are filled in this order, a band that is there being kept."""
SURVEYS = {survey.table: survey for survey in (*ASTROMETRIC, GAIA_SYNTHETIC)}


# --- asking VizieR ----------------------------------------------------------------------------


@contextmanager
def time_limit(seconds):
    """Raise `TimeLimitReached` when the block takes longer.

    A socket's time-out starts anew with every byte; this one does not. In a thread other than
    the main one, where signals cannot be had, only the socket's is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum, frame):
        raise TimeLimitReached(f"no whole answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # again every second: an exception raised within a destructor would be lost
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _client(survey, server, timeout, row_limit, brighter_than):
    """Return an astroquery client for one table at one server."""
    from astroquery.vizier import VizierClass

    class MirrorClient(VizierClass):
        """VizieR at a host name (https) or at an address with its scheme written out."""

        def _server_to_url(self, return_type="votable"):
            host = self.VIZIER_SERVER
            return f"{host if '://' in host else 'https://' + host}/viz-bin/{return_type}"

    bound = {} if brighter_than is None else {survey.magnitude: f"<{brighter_than:g}"}
    return MirrorClient(
        columns=list(dict.fromkeys(column.names[0] for column in survey.columns.values())),
        column_filters=bound,
        vizier_server=server,
        timeout=timeout,
        row_limit=row_limit,
    )


def ask(survey, ra, dec, radius, server, *, timeout=TIMEOUT, row_limit=ROW_LIMIT, bound=None):
    """Ask one server for the stars of one catalogue in a field.

    Parameters
    ----------
    survey : Survey
    ra, dec, radius : float
        Circle [deg].
    server : str
        Host name, or an address with ``http://`` for a local mirror.
    timeout : float
        Seconds for the whole answer.
    row_limit : int
    bound : float, optional
        Only stars brighter than this.

    Returns
    -------
    answer : bytes
        The VOTable as it came.
    query : str
        What was asked.

    Raises
    ------
    AnswerError
        No connection, a time-out, an HTTP error, or something that is not a whole VOTable.
    """
    import requests
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    what = f"{server}: {survey.table} ({survey.name})"
    client = _client(survey, server, timeout, row_limit, bound)
    centre = SkyCoord(ra, dec, unit="deg", frame="icrs")
    request = {"radius": radius * u.deg, "catalog": survey.table, "frame": "icrs", "cache": False}
    query = client.query_region_async(centre, get_query_payload=True, **request)
    try:
        with time_limit(timeout):
            response = client.query_region_async(centre, **request)
    except (TimeLimitReached, requests.Timeout) as why:
        raise AnswerError(f"{what}: timed out ({why})", lasting=True) from why
    except requests.RequestException as why:
        raise AnswerError(f"{what}: no answer ({_cause(why)})", lasting=True) from why
    if response.status_code != 200:
        raise AnswerError(f"{what}: HTTP {response.status_code} {response.reason}")
    answer = response.content
    if not answer.strip():
        raise AnswerError(f"{what}: an answer without content")
    if b"<VOTABLE" not in answer[:2000]:
        raise AnswerError(f"{what}: not a VOTable but {answer[:60]!r}")
    if b"</VOTABLE>" not in answer[-2000:]:
        raise AnswerError(f"{what}: the answer breaks off after {len(answer)} bytes")
    return answer, query


def _cause(why):
    """Return the last words of a chain of network errors, which say what happened."""
    told = re.findall(r"\[Errno -?\d+\] ([^\"'()]+)", str(why))
    return told[-1].strip() if told else f"{type(why).__name__}: {str(why)[:150]}"


def parse(survey, answer, server):
    """Turn a VOTable into arrays under our column names and units.

    Parameters
    ----------
    survey : Survey
    answer : bytes
    server : str
        For messages.

    Returns
    -------
    dict of str to ndarray
        float64 (NaN where masked), or str for text columns; no keys where the answer has no
        stars.

    Raises
    ------
    AnswerError
        Unreadable; or a column is missing or has another unit, which is named.
    """
    import io

    from astropy.io import votable

    what = f"{server}: {survey.table} ({survey.name})"
    try:
        # VizieR's dialect earns warnings by the dozen: kept here, and one kind looked for
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            tree = votable.parse(io.BytesIO(answer), verify="warn", invalid="exception")
            tables = [table for table in tree.iter_tables() if len(table.array)]
            found = tables[0].to_table(use_names_over_ids=True) if tables else None
    except (ValueError, OSError, IndexError, KeyError, votable.exceptions.VOWarning) as why:
        raise AnswerError(f"{what}: unreadable VOTable ({str(why)[:200]})") from why
    garbled = any(issubclass(r.category, votable.exceptions.W30) for r in remarks)
    if found is None:
        told = re.search(rb'<INFO[^>]*name="[Ee]rror[^>]*value="([^"]*)"', answer)
        if told:
            raise AnswerError(f"{what}: {told.group(1).decode(errors='replace')}")
        return {}
    result = {}
    for key, column in survey.columns.items():
        name = next((name for name in column.names if name in found.colnames), None)
        if name is None:
            if column.required:
                raise AnswerError(
                    f"{what}: no column '{column.names[0]}' in the answer (it has "
                    f"{', '.join(found.colnames)})"
                )
            log.warning("%s: no column '%s'; done without", what, column.names[0])
            result[key] = np.full(len(found), np.nan)
            continue
        values = _values(found[name], column.unit, f"{what}: column '{name}'")
        unread = values.dtype.kind == "f" and not np.isfinite(values).any()
        if unread and column.required and (garbled or key in ("ra", "dec")):
            raise AnswerError(f"{what}: column '{name}' holds no numbers")
        result[key] = values
    return result


def _values(column, unit, what):
    """Return a column as float64 in `unit`, or as text."""
    from astropy import units as u

    if column.dtype.kind in "OUS":
        values = np.ma.filled(np.ma.asarray(column.astype(str)), "")
        if not unit:
            return np.asarray(values)
        try:
            return np.array([float(v) if v.strip() else np.nan for v in values])
        except ValueError as why:
            raise AnswerError(f"{what} holds text where numbers were: {why}") from why
    values = np.ma.filled(np.ma.asarray(column).astype(float), np.nan)
    if unit and column.unit is not None and unit != "mag":
        try:
            values = values * column.unit.to(u.Unit(unit))
        except (u.UnitsError, AttributeError) as why:
            raise AnswerError(f"{what} is in {column.unit}, not in {unit}") from why
    return values


# --- the cache --------------------------------------------------------------------------------

_MARK = b"<!-- autoproc "


def cache_name(survey, ra, dec, radius):
    """Return the name of the file of an answer: catalogue and circle, to be read by eye too."""
    return f"{survey.table.replace('/', '_')}_{ra:08.4f}{dec:+08.4f}_r{radius:.3f}.vot.gz"


def find_cached(cache, survey, ra, dec, radius):
    """Return the path of the smallest cached answer that holds a whole circle, or None."""
    name = re.compile(
        re.escape(survey.table.replace("/", "_"))
        + r"_(\d{3}\.\d{4})([+-]\d{2}\.\d{4})_r(\d+\.\d{3})\.vot\.gz"
    )
    fit = []
    for path in sorted(Path(cache).glob(f"{survey.table.replace('/', '_')}_*.vot.gz")):
        if found := name.fullmatch(path.name):
            centre_ra, centre_dec, around = map(float, found.groups())
            # 0.1 arcsec: the name rounds the centre
            if separation(ra, dec, centre_ra, centre_dec) + radius <= around + 3e-5:
                fit.append((around, path))
    return min(fit)[1] if fit else None


def save_answer(path, answer, record):
    """Write an answer and its record (query, date, checksum) as one file, whole or not at all.

    The record is a comment behind the VOTable, so the file remains one for any reader.
    """
    record = record | {"sha256": hashlib.sha256(answer).hexdigest()}
    text = json.dumps(record).replace("-", "\\u002d")  # a comment must not hold two hyphens
    with atomic_path(path) as beside:
        content = answer + b"\n" + _MARK + text.encode() + b" -->\n"
        beside.write_bytes(gzip.compress(content, mtime=0))
    return record


def load_answer(path):
    """Read an answer from the cache.

    Returns
    -------
    answer : bytes
    record : dict

    Raises
    ------
    AnswerError
        The file is broken: unreadable, without its record, or not what the checksum says.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
        answer, mark, tail = content.rpartition(b"\n" + _MARK)
        record = json.loads(tail.rpartition(b" -->")[0])
    except (OSError, EOFError, ValueError, gzip.zlib.error) as why:
        raise AnswerError(f"{path}: broken cache file ({why})") from why
    if not mark or record.get("sha256") != hashlib.sha256(answer).hexdigest():
        raise AnswerError(f"{path}: broken cache file (its checksum is another)")
    return answer, record


@dataclass
class Service:
    """Where answers come from: the cache, then the servers in turn.

    Parameters
    ----------
    cache : path-like
    servers : sequence of str
        Empty for the cache alone.
    timeout : float
        Seconds an answer may take.
    row_limit : int
    """

    cache: Path
    servers: tuple = SERVERS
    timeout: float = TIMEOUT
    row_limit: int = ROW_LIMIT
    failed: set = field(default_factory=set)
    unavailable: dict = field(default_factory=dict)

    def get(self, survey, ra, dec, radius):
        """Return the stars of a catalogue in a circle, and the record of the answer.

        Returns
        -------
        table : astropy.table.Table
            As the catalogue's `standardise` makes it; no rows where it has no stars there.
        record : dict

        Raises
        ------
        ReferenceUnavailable
            Neither the cache nor any server has a usable answer; the message lists why.
        """
        circle = (survey.table, ra, dec, radius)
        if circle in self.unavailable:
            raise ReferenceUnavailable(self.unavailable[circle])
        said = []
        path = find_cached(self.cache, survey, ra, dec, radius)
        if path is not None:
            try:
                answer, record = load_answer(path)
                return self._table(survey, answer, record, ra, dec, radius), record
            except AnswerError as why:
                said.append(str(why))
                log.warning("%s", why)
        if not self.servers:
            said.append(
                f"{survey.table} ({survey.name}): the cache {self.cache} has no answer that covers "
                f"{radius:.3f} deg around {ra:.4f} {dec:+.4f}"
            )
        # a wider circle around a rounded centre serves other nights' pointings too
        wide = math.ceil((radius + 0.02) * 20) / 20
        centre = round(ra, 2) % 360.0, round(dec, 2)
        for server in self.servers:
            if server in self.failed:
                continue
            try:
                answer, record = self._ask(survey, *centre, wide, server)
                table = self._table(survey, answer, record, ra, dec, radius)
            except AnswerError as why:
                log.warning("%s", why)
                said.append(str(why))
                if why.lasting:
                    self.failed.add(server)
                continue
            path = Path(self.cache) / cache_name(survey, *centre, wide)
            try:
                record = save_answer(path, answer, record)
            except OSError as why:
                log.warning("%s: not kept in the cache: %s", survey.name, why)
            log.info("%s: %d rows from %s", survey.name, record["rows"], server)
            return table, record
        if not said:
            said = [NO_SERVER]
        self.unavailable[circle] = "; ".join(said)
        raise ReferenceUnavailable(self.unavailable[circle])

    def _ask(self, survey, ra, dec, radius, server):
        """Return an answer that is not cut off, brighter and brighter where the field is rich."""
        for bound in (None, 20.0, 18.0, 16.0, 14.0):
            answer, query = ask(
                survey, ra, dec, radius, server,
                timeout=self.timeout, row_limit=self.row_limit, bound=bound,
            )  # fmt: skip
            raw = parse(survey, answer, server)
            rows = len(raw.get("ra", ()))
            if rows < self.row_limit:
                break
            log.warning("%s: %s: cut off at %d rows, asked again", server, survey.table, rows)
        else:
            raise AnswerError(f"{server}: {survey.table}: over {self.row_limit} stars below mag 14")
        if rows == 0 and survey.whole:
            raise AnswerError(
                f"{server}: {survey.table} ({survey.name}): an empty answer, and the catalogue "
                f"covers the whole sky (no '{survey.columns['ra'].names[0]}')"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "catalogue": survey.name, "table": survey.table, "server": server, "query": query,
            "date": now, "rows": rows, "ra": ra, "dec": dec, "radius": radius,
        }  # fmt: skip
        return answer, record

    def _table(self, survey, answer, record, ra, dec, radius):
        raw = parse(survey, answer, record["server"])
        if not raw:
            return blank_table(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            table = survey.standardise(raw)
        table = table[np.isfinite(table["ra"]) & np.isfinite(table["dec"])]
        return cut_out(table, ra, dec, radius)


# --- the reference ----------------------------------------------------------------------------


def online_reference(service, ra, dec, radius, epoch, *, least=3, complete=True):
    """Return the reference of a field from catalogues.

    Parameters
    ----------
    service : Service
    ra, dec, radius : float
        Circle [deg].
    epoch : float or None
        Decimal year the positions are moved to.
    least : int
        Stars that positions of a catalogue are worth having from.
    complete : bool
        Whether a catalogue of photometry that cannot be had is a failure; else it is left out
        and ``meta['missing']`` says so.

    Returns
    -------
    astropy.table.Table

    Raises
    ------
    ReferenceUnavailable
    """
    said, records, table, base = [], [], None, None
    for survey in ASTROMETRIC:
        if not survey.covers(dec, radius):
            continue
        try:
            stars, record = service.get(survey, ra, dec, radius)
        except ReferenceUnavailable as why:
            said.append(str(why))
            if complete and survey is ASTROMETRIC[0]:
                raise  # before the last attempt nothing less than the best will do
            continue
        records.append(record)
        if len(stars) >= least:
            table, base = stars, survey
            break
        said.append(f"{survey.name} has {len(stars)} stars there")
    if table is None:
        raise ReferenceUnavailable("; ".join(dict.fromkeys(said)))
    missing = said
    own = table.copy()
    for band in BANDS:
        table[band], table[f"{band}_err"] = np.nan, np.nan
        table[f"{band}_src"] = np.full(len(table), "", dtype="U40")
    joined = {}
    for survey in PHOTOMETRIC:
        if not survey.covers(dec, radius):
            continue
        photometry = own
        if survey is not base:
            try:
                photometry, record = service.get(survey, ra, dec, radius)
            except ReferenceUnavailable as why:
                if complete:
                    raise
                missing.append(str(why))
                continue
            records.append(record)
        if len(photometry):
            join_survey(table, photometry, survey)
            joined[survey] = photometry
    if GAIA_SYNTHETIC in joined:
        # the archive's y lacks a correction that matters for faint stars, so Pan-STARRS, which
        # saturates at 13, comes first
        synthetic = joined[GAIA_SYNTHETIC]
        synthetic["y"][~(synthetic["y"] < SYNTHETIC_Y_LIMIT)] = np.nan
        join_photometry(table, synthetic, "GaiaXP", radius=GAIA_SYNTHETIC.radius, bands="y")
    if PANSTARRS in joined:
        derived = "Tonry et al. 2012 from PS1"
        join_photometry(table, joined[PANSTARRS], derived, bands="BVRI")
    fill_by_transformation(table)
    if base is USNOB:
        join_photometry(table, own, base.name, max_error=0.5)
    if epoch is not None:
        table = move_to_epoch(table, epoch)
    table.meta["source"] = base.name
    table.meta["query"] = f"circle {ra:.5f} {dec:+.5f} radius {radius:.4f} deg, ICRS"
    table.meta["date"] = max(record["date"] for record in records)
    table.meta["catalogues"] = records
    if missing:
        table.meta["missing"] = list(dict.fromkeys(missing))
    return table


def join_survey(table, photometry, survey):
    """Join one catalogue's photometry to the reference in place, minding its peculiarities."""
    if survey is SKYMAPPER:
        # its bands have no published relation to SDSS: the field's own stars give one
        own = photometry.copy()
        for band in "griz":
            tied = photometry.copy()
            fit = tie_to_reference(table, tied, band, "g", "i", radius=survey.radius)
            own[band], own[f"{band}_err"] = tied[band], tied[f"{band}_err"]
            if fit is None:
                log.info("SkyMapper %s: too few common stars to tie it to the reference", band)
            else:
                log.info("SkyMapper %s: %+.3f %+.3f (g-i), scatter %.3f, %d stars", band, *fit)
        photometry = own
    if survey is GAIA_SYNTHETIC and "Gmag" in table.colnames:
        photometry = _without_blends(table, photometry, survey.radius)
    # what is only derived comes after all measurements: see `online_reference`
    later = {GAIA_SYNTHETIC: "y", PANSTARRS: "BVRI"}.get(survey, "")
    filled = join_photometry(
        table,
        photometry,
        survey.name,
        radius=survey.radius,
        bands=[band for band in BANDS if band not in later],
        max_error=survey.max_error,
    )
    log.info("%s: filled %s", survey.name, ", ".join(f"{b} {n}" for b, n in filled.items()) or "-")
    return filled


def _without_blends(table, photometry, radius):
    """Return the synthetic photometry without stars whose BP and RP hold others' light.

    |C*| above 5 sigma of its scatter with G: Riello et al. (2021, A&A 649, A3), equation 18.
    """
    rows, others = match_positions(
        table["ra"], table["dec"], photometry["ra"], photometry["dec"], radius
    )
    g = np.asarray(table["Gmag"])[rows]
    sigma = 0.0059898 + 8.817481e-12 * g**7.618399
    blended = np.abs(np.asarray(photometry["excess"])[others]) > 5 * sigma
    keep = np.ones(len(photometry), bool)
    keep[others[blended]] = False
    return photometry[keep]


def table_reference(path, ra, dec, radius, epoch):
    """Return the reference that a user's table is for a field.

    A large table is cut out around the field; a small one is taken whole, unless none of its
    stars lies in the field.
    """
    path = Path(path).expanduser()
    table = read_reference(path)
    table.meta["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if len(table) == 0:
        return empty_reference(table.meta.get("reason") or f"{path.name} has no rows")
    if ra is not None:
        check_angles(table, path, ra, dec)
        away = separation(table["ra"], table["dec"], ra, dec)
        if away.min() > radius:
            return empty_reference(
                f"{path.name} has no star within {radius:.2f} deg of {ra:.4f} {dec:+.4f}; "
                f"its nearest is {away.min():.2f} deg away"
            )
        if len(table) > LARGE:
            table = table[away <= radius]
    if epoch is not None:
        table = move_to_epoch(table, epoch)
    return table


def make_reference(
    refcat,
    ra,
    dec,
    radius,
    epoch,
    cache,
    *,
    servers=SERVERS,
    timeout=TIMEOUT,
    row_limit=ROW_LIMIT,
    last_attempt=True,
):
    """Return the reference table of a field.

    Parameters
    ----------
    refcat : str
        ``online``, ``offline`` (the cache alone), ``none``, or the path of a table.
    ra, dec : float or None
        Centre of the field [deg]; None where no pointing is known.
    radius : float or None
        Of the field and the search about its pointing [deg].
    epoch : float or None
        Decimal year of observation.
    cache : path-like
        Directory of answers, shared among nights.
    servers : sequence of str
    timeout : float
        Seconds per answer.
    row_limit : int
    last_attempt : bool
        Whether to go on with what there is when servers fail, instead of raising.

    Returns
    -------
    astropy.table.Table
        Without rows, and with ``meta['reason']``, where there is no reference.

    Raises
    ------
    ReferenceUnavailable
        Servers fail and it is not the last attempt.
    lib.catalogues.CatalogueError
        The user's table is not fit for use.
    """
    if refcat == "none":
        return empty_reference("refcat: none")
    if refcat not in ("online", "offline"):
        return table_reference(refcat, ra, dec, radius, epoch)
    if ra is None or dec is None or radius is None:
        return empty_reference("no frame of the target tells where it points")
    if radius > WIDEST:
        return empty_reference(f"the field has a radius of {radius:.1f} deg, over {WIDEST:g}")
    offline = refcat == "offline"
    service = Service(
        Path(cache).expanduser(), () if offline else tuple(servers), timeout, row_limit
    )
    try:
        return online_reference(
            service, ra, dec, radius, epoch, complete=not (offline or last_attempt)
        )
    except ReferenceUnavailable as why:
        if not (offline or last_attempt):
            raise
        log.warning("no reference: %s", why)
        return empty_reference(f"no catalogue could be had: {why}")


# --- a bundle for a mountain without network --------------------------------------------------


def read_fields(path):
    """Read the fields to freeze: lines (or CSV) of name, ra, dec, radius [deg].

    Raises
    ------
    ValueError
        Naming the line that is not of that form.
    """
    fields = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words or [word.lower() for word in words[1:3]] == ["ra", "dec"]:
            continue
        try:
            name, ra, dec, radius = words[0], *map(float, words[1:4])
        except ValueError:
            raise ValueError(
                f"{path} line {number}: '{line}' is not: name ra dec radius (decimal degrees)"
            ) from None
        if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 5):
            raise ValueError(f"{path} line {number}: '{line}' is no circle of radius <= 5 deg")
        fields.append((name, ra, dec, radius))
    return fields


def freeze(fields, out, *, servers=SERVERS, timeout=TIMEOUT, row_limit=ROW_LIMIT):
    """Fill a cache with every catalogue's answer for each field.

    Parameters
    ----------
    fields : list of (name, ra, dec, radius)
    out : path-like
        Directory to be named as ``refcat_cache`` with ``refcat: offline``.

    Returns
    -------
    list of str
        What could not be had, a sentence each.
    """
    out = Path(out).expanduser()
    service = Service(out, tuple(servers), timeout, row_limit)
    wanted = dict.fromkeys((GAIA, *PHOTOMETRIC))
    missing, listing = [], []
    for name, ra, dec, radius in fields:
        for survey in wanted:
            if not survey.covers(dec, radius):
                continue
            try:
                table, record = service.get(survey, ra, dec, radius)
            except ReferenceUnavailable as why:
                missing.append(f"{name}: {why}")
                continue
            listing.append({"field": name, "stars": len(table)} | record)
    with atomic_path(out / "bundle.json") as beside:
        beside.write_text(json.dumps(listing, indent=1) + "\n")
    return missing


def main(arguments=None):
    """Freeze the catalogues of a list of fields."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--fields", required=True, help="lines of: name ra dec radius [deg]")
    parser.add_argument("--out", required=True, help="directory to fill (refcat_cache)")
    parser.add_argument("--server", action="append", help="VizieR host, may be repeated")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds per answer")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        fields = read_fields(options.fields)
    except (OSError, ValueError) as why:
        parser.error(str(why))
    missing = freeze(
        fields, options.out, servers=options.server or SERVERS, timeout=options.timeout
    )
    for sentence in missing:
        log.error("%s", sentence)
    log.info("%d fields, %d answers missing; in %s", len(fields), len(missing), options.out)
    return 1 if missing else 0


def run_rule(job):
    """Do the rule's job: `job` is Snakemake's object."""
    start_log(job.log[0] if job.log else None)
    values = job.params
    attempt = int(job.resources.get("attempt", 1))
    table = make_reference(
        values.refcat,
        values.ra,
        values.dec,
        values.radius,
        values.epoch,
        values.cache,
        servers=values.get("servers") or SERVERS,
        timeout=float(values.get("timeout") or TIMEOUT),
        row_limit=int(values.get("row_limit") or ROW_LIMIT),
        last_attempt=attempt >= int(values.get("attempts") or 1),
    )
    write_reference(job.output[0], table)
    log.info("%s: %d stars", table.meta["source"], len(table))


if "snakemake" in globals():
    run_rule(globals()["snakemake"])
elif __name__ == "__main__":
    raise SystemExit(main())
