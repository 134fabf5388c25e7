"""lib.report.exports: each format against its published description."""

import io
import json
import re

import numpy as np
import pytest
from astropy.io.votable import parse, validate
from astropy.time import Time

from lib.core.settings import EXPORT_ENDINGS, ObserverSettings
from lib.engine.config import ConfigError, check_config
from lib.night.positions import Position
from lib.photometry.frameforced import FrameFluxes
from lib.photometry.lightcurve import FrameQuality, MeasuredFrame
from lib.photometry.lightcurvetable import BinRule, light_curve_table
from lib.report.exports import export_text

OBSERVER = ObserverSettings(
    name="A. Bell", aavso_code="TST01", mpc_code="A00", telescope_aperture=1.5,
    skyportal_instrument=7, tns_group=42, tns_instrument=149,
)  # fmt: skip
MJD = 59607.25


def made_table(name="SS Cyg", moving=False, band="r", flux=(2.0, 100.0, 60.0)):
    """Return a light curve: a limit and two detections, 20th magnitude at flux 100."""
    frames = []
    for k, value in enumerate(flux):
        one = (np.array([v]) for v in (value, 1.0, 1.0, 0, 99.0, 49.0))
        fluxes = FrameFluxes(*one, 1.0, np.array([[99.0, 49.0]]))
        frames.append(MeasuredFrame(
            name=f"2022f{k}", filter="SDSS-R", stack=0, mjd=MJD + k / 24, date_obs="", exptime=1.0,
            airmass=1.25, sky=100.0, quality=FrameQuality(seeing=1.5, transparency=1.0, used=True),
            radius=2.2, reason="", fluxes=fluxes, zeropoint=0.0, zeropoint_error=0.003,
            offset=25.0, offset_error=0.01, n_comparison=20,
            centroids=np.array([[150.00001, -20.00001]]), tie_error=0.02,
        ))  # fmt: skip
    place = Position(name, np.array([150.0]), np.array([-20.0]))
    if moving:
        place = Position(
            name, np.array([150.0, 150.1]), np.array([-20.0, -20.0]), mjd=np.array([MJD, MJD + 1])
        )
    table = light_curve_table(frames, 0, place, BinRule(0.0, 0.25), (), None, {"SDSS-R": "AB"})
    table.meta = {
        "name": name, "moving": moving, "bands": {"SDSS-R": band},
        "astrometric_catalogue": "Gaia DR3", "zeropoints": {"SDSS-R": {"ABSZPCAT": "Pan-STARRS"}},
    }  # fmt: skip
    return table


def test_aavso_extended():
    """Parameters, their order, 15 fields of at most so many letters, JD of the middle in UTC."""
    text = export_text("aavso", [made_table(), made_table("V,1 Ori")], OBSERVER)
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[:6] == [
        "#TYPE=EXTENDED", "#OBSCODE=TST01", "#SOFTWARE=autoproc", "#DELIM=,", "#DATE=JD",
        "#OBSTYPE=CCD",
    ]  # fmt: skip
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    assert len(rows) == 6 and all(len(row) == 15 for row in rows) and text.isascii()
    assert "" not in text.splitlines()
    for name, date, magnitude, error, band, trans, kind, *_, notes in rows:
        assert 0 < len(name) <= 30 and len(date) <= 16 and len(magnitude) <= 8
        assert re.fullmatch(r"<?\d+\.\d+", magnitude)
        assert error == "na" or (len(error) <= 6 and float(error) < 10)
        assert (band, trans, kind) == ("SR", "NO", "STD") and len(notes) <= 100
    limit, first = rows[0], rows[1]
    assert limit[2] == f"<{25 - 2.5 * np.log10(5.0):.3f}" and limit[3] == "na"
    assert first[2] == "20.000" and float(first[3]) == pytest.approx(0.0113, abs=0.001)
    assert float(first[1]) == pytest.approx(Time(MJD + 1 / 24, format="mjd").jd, abs=1e-6)
    assert float(first[11]) == 1.25
    # No row in a filter that the format has no code for, and it is said so.
    other = export_text("aavso", [made_table(band="y")], OBSERVER).splitlines()
    assert all(line.startswith("#") for line in other) and "no code for filter" in other[-1]


def test_gcn_table_is_plain_text():
    text = export_text("gcn", [made_table("GRB 220128A")], OBSERVER)
    lines = text.splitlines()
    assert text.isascii() and max(map(len, lines)) < 80 and lines[0] == "GRB 220128A"
    assert "2022-01-28T07:00:00       1 s  SDSS-R    20.00 +/- 0.01     AB" in lines
    assert any("> 23.25 (3 sigma)" in line for line in lines)
    assert "Calibrated against Pan-STARRS." in lines
    assert lines[1] == "RA, Dec (J2000): 10:00:00.000 -20:00:00.00 = 150.000000 -20.000000 deg"
    assert "RA, Dec" not in export_text("gcn", [made_table("433", moving=True)], OBSERVER)
    bare = made_table("T")
    bare["MAG"] = bare["LIMIT"] = np.nan
    assert export_text("gcn", [bare], OBSERVER) == (
        "T: neither magnitudes nor limits, for want of a zero point.\n"
    )


def test_skyportal_photometry():
    """Lists of one length; null where not seen; filters of sncosmo, systems ab and vega."""
    point = json.loads(export_text("skyportal", [made_table()], OBSERVER))
    assert point["instrument_id"] == 7 and point["limiting_mag_nsigma"] == 3
    lists = ("obj_id", "mjd", "filter", "mag", "magerr", "limiting_mag", "magsys", "ra", "dec")
    assert set(lists) <= set(point) and {len(point[key]) for key in lists} == {3}
    assert set(point["filter"]) == {"sdssr"} and set(point["magsys"]) == {"ab"}
    assert point["mag"][0] is None and point["magerr"][0] is None
    assert point["mag"][1] == pytest.approx(20.0) and None not in point["limiting_mag"]
    # Three sigma are 33 times fainter than S/N 100.
    assert point["limiting_mag"][1] == pytest.approx(25 - 2.5 * np.log10(3), abs=1e-3)


def test_tns_report():
    """Mandatory fields of the bulk manual; the limit lies before the first detection."""
    whole = json.loads(export_text("tns", [made_table(), made_table("dark", flux=(1, 1, 1))],
                                   OBSERVER))  # fmt: skip
    assert list(whole) == ["at_report"] and list(whole["at_report"]) == ["0"]
    report = whole["at_report"]["0"]
    assert set(report) >= {
        "ra", "dec", "reporting_group_id", "discovery_data_source_id", "reporter",
        "discovery_datetime", "at_type", "non_detection", "photometry",
    }  # fmt: skip
    assert report["reporter"] == "A. Bell" and report["at_type"] == "1"
    assert report["discovery_datetime"] == "2022-01-28 07:00:00.000"
    assert float(report["dec"]["value"]) == pytest.approx(-20.0)
    silent = report["non_detection"]
    assert silent["limiting_flux"] == "23.253" and silent["obsdate"] < report["discovery_datetime"]
    points = report["photometry"]["photometry_group"]
    assert [points[key]["flux"] for key in ("0", "1")] == ["20.000", "20.555"]
    for one in points.values():
        assert (one["flux_units"], one["filter_value"], one["instrument_value"]) == (
            "1", "22", "149"
        )  # fmt: skip
    never = json.loads(export_text("tns", [made_table(flux=(100.0, 90.0, 80.0))], OBSERVER))
    assert never["at_report"]["0"]["non_detection"]["archiveid"] == "0"


ADES_PATTERNS = {
    "permID": r"(\d+([IPD](-[A-Z]{1,2})?)?)?",
    "provID": r"(\d{4} [A-HJ-Y][A-HJ-Z]\d*|[ADCPX]/\d{4} [A-Z]{1,2}\d*(-[A-Z])?)?",
    "trkSub": r"[-A-Za-z0-9_]{0,8}",
    "mode": r"CCD|CMO",
    "stn": r"[A-Z0-9]{3}",
    "obsTime": r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z",
    "ra": r"\d{1,3}\.\d{1,9}",
    "dec": r"[+-]\d{1,2}\.\d{1,9}",
    "rmsRA": r"\d{1,2}\.\d{1,4}",
    "rmsDec": r"\d{1,2}\.\d{1,4}",
    "astCat": r"[.A-Za-z0-9_]{1,8}",
    "mag": r"(\d{1,2}\.\d{1,4})?",
    "rmsMag": r"(\d\.\d{1,3})?",
    "band": r"[A-Za-z0-9_]{0,3}",
    "logSNR": r"\d\.\d{1,3}",
    "seeing": r"\d{1,3}\.\d",
    "exp": r"\d{1,5}",
}
"""Of the schema for submissions (submit.xsd)."""


@pytest.mark.parametrize(
    "name, field", [("433", "permID"), ("2022 AB1", "provID"), ("P/2010 R2", "provID"),
                    ("new object 1", "trkSub")],
)  # fmt: skip
def test_ades_of_what_moves(name, field):
    """Header records, columns and values of the schema; the centroids, not the ephemeris."""
    tables = [made_table(name, moving=True), made_table("a star")]
    lines = export_text("ades", tables, OBSERVER).splitlines()
    assert lines[0] == "# version=2022"
    records = [line for line in lines if line[:1] in "#!"]
    order = [line[2:].split()[0] for line in records if line.startswith("# ")][1:]
    assert order == ["observatory", "submitter", "observers", "measurers", "telescope", "software"]
    for needed in ("! mpcCode A00", "! name A. Bell", "! aperture 1.5", "! design Reflector",
                   "! detector CCD"):  # fmt: skip
        assert needed in records
    columns, *rows = (line.split("|") for line in lines if line not in records)
    assert len(rows) == 2 and all(len(row) == len(columns) for row in rows)
    for row in rows:
        values = dict(zip(columns, row, strict=True))
        for key, value in values.items():
            assert re.fullmatch(ADES_PATTERNS[key], value), (key, value)
        named = [key for key in ("permID", "provID", "trkSub") if values[key]]
        assert named == [field]
        assert values["ra"] == "150.000010" and values["dec"] == "-20.000010"
        assert values["astCat"] == "Gaia3" and values["band"] == "Sr"
    assert rows[0][columns.index("obsTime")] == "2022-01-28T07:00:00.00Z"
    assert float(rows[0][columns.index("rmsRA")]) == pytest.approx(0.021, abs=0.001)


def test_votable_is_read_again_and_is_valid(tmp_path):
    text = export_text("votable", [made_table(), made_table("V 1")], OBSERVER)
    document = parse(io.BytesIO(text.encode()), verify="exception")
    table = document.get_first_table().to_table()
    assert len(table) == 6 and set(table["NAME"]) == {"SS Cyg", "V 1"}
    assert np.array_equal(table["DETECTED"], [False, True, True] * 2)
    assert str(table["MJD"].unit) == "d" and table["MAG"][1] == pytest.approx(20.0)
    fields = {one.name: one for one in document.get_first_table().fields}
    assert fields["MAG"].ucd == "phot.mag" and fields["MJD"].ucd == "time.epoch"
    path = tmp_path / "curve.vot"
    path.write_text(text)
    said = io.StringIO()
    assert validate(path, said, xmllint=False), said.getvalue()


def test_what_a_format_needs_is_asked_for_at_the_start():
    with pytest.raises(ConfigError, match="'observer.aavso_code' is empty"):
        check_config({"export": ["gcn", "aavso"]})
    with pytest.raises(ConfigError, match="write a list of aavso, gcn"):
        check_config({"export": ["fits"]})
    checked = check_config({"export": ["gcn", "votable"]})
    assert checked["export"] == ["gcn", "votable"] and set(checked["export"]) <= set(EXPORT_ENDINGS)
