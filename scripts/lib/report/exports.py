"""Light curves in the formats of other services: AAVSO, GCN, SkyPortal, TNS, ADES, VOTable.

Tables in, texts out; nothing is sent anywhere. What a format requires in addition (codes of
observers and telescopes) is in section ``observer`` of the configuration.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from astropy.table import Table, vstack

from lib.core.settings import ObserverSettings
from lib.core.text import card_text
from lib.core.times import JD_OF_MJD, MJD_ZERO
from lib.photometry.flags import FLAG_SATURATED
from lib.report.circular import CircularRow, circular_text
from lib.report.tableexports import SOFTWARE, votable_bytes

AAVSO_FILTERS = {
    "B": "B", "V": "V", "R": "R", "I": "I", "J": "J", "H": "H", "K": "K", "u": "SU",
    "g": "SG", "r": "SR", "i": "SI", "z": "SZ",
}  # fmt: skip

SNCOSMO_BANDS = {
    "u": "sdssu", "g": "sdssg", "r": "sdssr", "i": "sdssi", "z": "sdssz", "y": "ps1::y",
    "B": "bessellb", "V": "bessellv", "R": "bessellr", "I": "besselli",
    "J": "2massj", "H": "2massh", "K": "2massks",
}  # fmt: skip
"""Names of bands in SkyPortal, which are those of sncosmo."""

TNS_FILTERS = {"u": 20, "g": 21, "r": 22, "i": 23, "z": 24}
"""Numbers of the Sloan bands on the server; other bands, and Vega magnitudes, are not reported."""

TNS_AB = "1"
"""Number of the AB system on the server."""

ADES_BANDS = {
    "B": "Bj", "V": "Vj", "R": "Rc", "I": "Ic", "g": "Sg", "r": "Sr", "i": "Si",
    "z": "Sz", "y": "Py",
}  # fmt: skip

ADES_CATALOGUES = (("gaia dr3", "Gaia3"), ("gaia edr3", "Gaia3E"), ("gaia", "Gaia3"),
                   ("sdss", "SDSS8"), ("2mass", "2MASS"))  # fmt: skip

PROVISIONAL = re.compile(r"\d{4} [A-HJ-Y][A-HJ-Z]\d*|[ADCPX]/\d{4} [A-Z]{1,2}\d*(-[A-Z])?")
"""Provisional designations of the Minor Planet Center."""

NUMBERED = re.compile(r"\d+([IPD](-[A-Z]{1,2})?)?")
"""Permanent designations of the Minor Planet Center."""

NIGHT = 0.5
"""[d] Frames further from a stack belong to another night."""

LEAST_ASTROMETRY_SNR = 5.0
"""Minimum S/N of a reported position."""


def export_text(name: str, tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return light curves in one of the formats.

    Parameters
    ----------
    name : str
        Format, a key of `lib.core.settings.EXPORT_ENDINGS`.
    tables : list of astropy.table.Table
        Light curves from `lib.photometry.lightcurvetable.light_curve_table`, one per position, with
        ``bands`` (filter -> band) and ``astrometric_catalogue`` in ``meta``.
    observer : ObserverSettings

    Returns
    -------
    str
        Content of the file.
    """
    writers: dict[str, Callable[[Sequence[Table], ObserverSettings], str]] = {
        "aavso": aavso_text, "gcn": gcn_table, "skyportal": skyportal_json, "tns": tns_json,
        "ades": ades_psv, "votable": votable_text,
    }  # fmt: skip
    return writers[name](tables, observer)


def _frames(table: Table, *kinds: str) -> Table:
    """Return the unsaturated rows of some kinds that have a magnitude or a limit."""
    known = np.isfinite(table["MAG"]) | np.isfinite(table["LIMIT"])
    wanted = np.isin(np.asarray(table["KIND"], str), kinds or ("frame",))
    return table[known & wanted & ((np.asarray(table["FLAGS"]) & FLAG_SATURATED) == 0)]


def _band(table: Table, name: str) -> str:
    return str(table.meta.get("bands", {}).get(name, "")) or name


def _error(row: Any) -> float:
    """Return the error of a magnitude, including that of the scale of its frame."""
    return float(np.hypot(row["MAGERR"], np.nan_to_num(row["ZPERR"])))


def _iso(mjd: float, decimals: int = 3) -> str:
    """Return a time in ISO 8601, e.g. 2022-01-28T05:00:00.000, rounded."""
    step = 10 ** (6 - decimals)
    microseconds = round(mjd * 86400e6 / step) * step
    time = MJD_ZERO + timedelta(microseconds=microseconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[: 20 + decimals - (decimals == 0)]


# ---------------------------------------------------------------------------- AAVSO


def aavso_text(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return frames in the Extended File Format 1.2 of the AAVSO.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    lines = [
        "#TYPE=EXTENDED", f"#OBSCODE={observer.aavso_code}", f"#SOFTWARE={SOFTWARE}", "#DELIM=,",
        "#DATE=JD", "#OBSTYPE=CCD",
        "#NAME,DATE,MAG,MERR,FILT,TRANS,MTYPE,CNAME,CMAG,KNAME,KMAG,AMASS,GROUP,CHART,NOTES",
    ]  # fmt: skip
    for table in tables:
        name = re.sub(r"[^\x20-\x7e]|,", "_", str(table.meta["name"]))[:30]
        rows = _frames(table)
        others = {str(one) for one in rows["FILTER"]
                  if _band(table, str(one)) not in AAVSO_FILTERS}  # fmt: skip
        if others:
            lines.append(f"#{name}: no code for filter {' '.join(sorted(others))}, left out")
        for row in rows:
            if str(row["FILTER"]) in others:
                continue
            seen = bool(row["DETECTED"])
            magnitude = f"{row['MAG']:.3f}" if seen else f"<{row['LIMIT']:.3f}"
            error = f"{min(_error(row), 9.999):.3f}" if seen else "na"
            airmass = f"{row['AIRMASS']:.3f}" if np.isfinite(row["AIRMASS"]) else "na"
            band = AAVSO_FILTERS[_band(table, str(row["FILTER"]))]
            note = f"ensemble of {row['NCOMP']} stars; {row['ZPSYS']} magnitudes"
            lines.append(",".join([
                name, f"{row['MJD'] + JD_OF_MJD:.6f}", magnitude, error, band, "NO", "STD",
                "ENSEMBLE", "na", "na", "na", airmass, "na", "na", note,
            ]))  # fmt: skip
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------- GCN


def gcn_table(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return stacks and bins, or frames where there are neither, as text for a circular.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    return "\n\n".join(map(_circular, tables)) + "\n"


def _circular(table: Table) -> str:
    rows = next(
        (found for kind in ("stack", "bin", "frame") if len(found := _frames(table, kind))),
        table[:0],
    )
    entries = []
    for row in sorted(rows, key=lambda row: (row["MJD"], str(row["FILTER"]))):
        seen = bool(row["DETECTED"])
        entries.append(CircularRow(
            _iso(row["MJD"], 0), float(row["EXPTIME"]), str(row["FILTER"]),
            float(row["MAG"]) if seen else None, _error(row) if seen else None,
            None if seen else float(row["LIMIT"]), str(row["ZPSYS"]),
        ))  # fmt: skip
    place = None
    if not table.meta.get("moving") and len(rows):
        place = float(rows["RA"][0]), float(rows["DEC"][0]), None
    catalogues = (str(one.get("ABSZPCAT", "")) for one in table.meta.get("zeropoints", {}).values())
    name = str(table.meta["name"])
    text = circular_text(name, place, entries, catalogues)
    return (
        text or f"{card_text(name, 60)}: neither magnitudes nor limits, for want of a zero point."
    )


# ---------------------------------------------------------------------------- SkyPortal


def skyportal_json(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return frames in the format of SkyPortal (Fritz) for photometry: lists, one value per point.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    keys = ("obj_id", "mjd", "filter", "mag", "magerr", "limiting_mag", "magsys", "ra", "dec")
    points: dict[str, list[Any]] = {key: [] for key in keys}
    for table in tables:
        for row in _frames(table):
            band = SNCOSMO_BANDS.get(_band(table, str(row["FILTER"])))
            if band is None:
                continue
            seen = bool(row["DETECTED"])
            # The limit at three sigma.
            limit = row["LIMIT"]
            if seen:
                limit = row["MAG"] + 2.5 * np.log10(row["FLUX"] / (3 * row["FLUXERR"]))
            values = (
                str(table.meta["name"]), round(float(row["MJD"]), 8), band,
                round(float(row["MAG"]), 4) if seen else None,
                round(_error(row), 4) if seen else None, round(float(limit), 4),
                str(row["ZPSYS"]).lower(), round(float(row["RA"]), 7), round(float(row["DEC"]), 7),
            )  # fmt: skip
            for key, value in zip(keys, values, strict=True):
                points[key].append(value)
    whole = {"instrument_id": observer.skyportal_instrument, "limiting_mag_nsigma": 3,
             "origin": SOFTWARE} | points  # fmt: skip
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


# ---------------------------------------------------------------------------- TNS


def tns_json(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return AT reports for bulk upload to the Transient Name Server, one per position.

    A report has the first detection, the last one, and the last limit before the first; positions
    without detection in a band of the server have no report.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    reports: dict[str, Any] = {}
    for table in tables:
        rows = [row for row in _frames(table) if row["ZPSYS"] == "AB"
                and _band(table, str(row["FILTER"])) in TNS_FILTERS]  # fmt: skip
        seen = [row for row in rows if row["DETECTED"]]
        if not seen:
            continue
        first = seen[0]
        before = [row for row in rows if not row["DETECTED"] and row["MJD"] < first["MJD"]]
        if before:
            silent = _tns_point(table, before[-1], observer) | {"archiveid": "",
                                                                "archival_remarks": ""}  # fmt: skip
        else:
            silent = {"archiveid": "0", "archival_remarks": "no earlier limit of this instrument"}
        points = [seen[0], seen[-1]] if len(seen) > 1 else seen
        reports[str(len(reports))] = {
            "ra": {"value": f"{first['RA']:.7f}", "error": "0.5", "units": "arcsec"},
            "dec": {"value": f"{first['DEC']:+.7f}", "error": "0.5", "units": "arcsec"},
            "reporting_group_id": str(observer.tns_group),
            "discovery_data_source_id": str(observer.tns_group),
            "reporter": observer.name,
            "discovery_datetime": _iso(first["MJD"]).replace("T", " "),
            "at_type": "1",
            "internal_name": str(table.meta["name"]),
            "non_detection": silent,
            "photometry": {"photometry_group": {
                str(k): _tns_point(table, row, observer) for k, row in enumerate(points)
            }},
        }  # fmt: skip
    return json.dumps({"at_report": reports}, indent=1, allow_nan=False) + "\n"


def _tns_point(table: Table, row: Any, observer: ObserverSettings) -> dict[str, str]:
    """Return a row as a measurement or a limit."""
    seen = bool(row["DETECTED"])
    value = {"flux": f"{row['MAG']:.3f}", "flux_error": f"{_error(row):.3f}"} if seen else {}
    limit = {"limiting_flux": "" if seen else f"{row['LIMIT']:.3f}"}
    return value | limit | {
        "obsdate": _iso(row["MJD"]).replace("T", " "),
        "flux_units": TNS_AB,
        "filter_value": str(TNS_FILTERS[_band(table, str(row["FILTER"]))]),
        "instrument_value": str(observer.tns_instrument),
        "exptime": f"{row['EXPTIME']:g}", "observer": observer.name, "comments": "",
    }  # fmt: skip


# ---------------------------------------------------------------------------- ADES


ADES_COLUMNS = ("permID", "provID", "trkSub", "mode", "stn", "obsTime", "ra", "dec", "rmsRA",
                "rmsDec", "astCat", "mag", "rmsMag", "band", "logSNR", "seeing", "exp")  # fmt: skip


def ades_psv(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return measured positions of moving objects in ADES 2022, PSV, for the Minor Planet Center.

    The positions are centroids measured in the frames, not those of the ephemeris, or in a stack
    that follows an object too faint for single frames. Objects without ephemeris are left out.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    lines = [
        "# version=2022", "# observatory", f"! mpcCode {observer.mpc_code}", "# submitter",
        f"! name {observer.name}", "# observers", f"! name {observer.name}", "# measurers",
        f"! name {observer.name}", "# telescope", f"! design {observer.telescope_design}",
        f"! aperture {observer.telescope_aperture:g}", f"! detector {observer.detector}",
        "# software", f"! astrometry {SOFTWARE}", f"! photometry {SOFTWARE}",
        "|".join(ADES_COLUMNS),
    ]  # fmt: skip
    for table in tables:
        if not table.meta.get("moving"):
            continue
        seen = table[np.isfinite(table["RACEN"]) & (table["SNR"] >= LEAST_ASTROMETRY_SNR)]
        kinds = np.asarray(seen["KIND"], str)
        frames = seen[kinds == "frame"]
        for row in (*frames, *(one for one in seen[kinds == "stack"] if not _within(one, frames))):
            lines.append("|".join(_ades_row(table, row, observer)))
    return "\n".join(lines) + "\n"


def _within(stack: Any, frames: Table) -> bool:
    """Return whether one of some frames was taken in the night of a stack, in its filter."""
    same = np.asarray(frames["FILTER"], str) == str(stack["FILTER"])
    return bool((same & (np.abs(frames["MJD"] - stack["MJD"]) < NIGHT)).any())


def _ades_row(table: Table, row: Any, observer: ObserverSettings) -> list[str]:
    name = str(table.meta["name"])
    perm, prov, track = "", "", ""
    if NUMBERED.fullmatch(name):
        perm = name
    elif PROVISIONAL.fullmatch(name):
        prov = name
    else:
        track = re.sub(r"[^-A-Za-z0-9_]", "", name)[:8]
    error = f"{min(max(row['CENERR'], 0.001), 99.0):.3f}"
    band = ADES_BANDS.get(_band(table, str(row["FILTER"])), "")
    photometry = ["", "", ""]
    if band and np.isfinite(row["MAG"]):
        photometry = [f"{row['MAG']:.2f}", f"{max(_error(row), 0.01):.2f}", band]
    seeing = f"{row['SEEING']:.1f}" if np.isfinite(row["SEEING"]) else ""
    return [
        perm, prov, track, observer.detector[:3], observer.mpc_code, _iso(row["MJD"], 2) + "Z",
        f"{row['RACEN']:.6f}", f"{row['DECCEN']:+.6f}", error, error,
        _ades_catalogue(str(table.meta.get("astrometric_catalogue", ""))), *photometry,
        f"{np.log10(row['SNR']):.2f}", seeing, f"{row['EXPTIME']:.0f}",
    ]  # fmt: skip


def _ades_catalogue(name: str) -> str:
    """Return the code of the astrometric catalogue; UNK for one that the list lacks."""
    lower = name.lower().replace("_", " ").replace("-", " ")
    return next((code for words, code in ADES_CATALOGUES if words in lower), "UNK")


# ---------------------------------------------------------------------------- VOTable


def votable_text(tables: Sequence[Table], observer: ObserverSettings) -> str:
    """Return all rows as a VOTable 1.4.

    Parameters
    ----------
    tables, observer
        As for `export_text`.
    """
    joined = vstack([Table(one, meta={}) for one in tables], metadata_conflicts="silent")
    for name in joined.colnames:
        joined[name].unit = tables[0][name].unit
        joined[name].description = tables[0][name].description
    return votable_bytes(joined, f"light curves by {SOFTWARE}").decode()
