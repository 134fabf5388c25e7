"""Every instrument file against headers as its camera writes them, and against hostile ones."""

import copy
import json
import math
import random
import re

import numpy as np
import pytest

from lib.night.airmass import airmass_at, altitude
from lib.night.amplifiers import parse_section, to_frame, to_raw
from lib.night.facts import Amplifier, FrameFacts
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.headervalues import angle, evaluate, number, object_text, safe_name
from lib.night.instrumentfile import (
    CONFIG,
    InstrumentError,
    identify,
    list_instruments,
    load_instrument,
)
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU
from lib.night.starttime import iso_of, mjd_of

SAFE = re.compile(r"[A-Za-z0-9_+-]{1,64}")
FRAME = re.compile(r"2[0-9A-Za-z_+-]*")


def hdu(shape=(1024, 1024), index=0, header=None):
    return RawHDU(index, header or {}, list(shape) if shape else None)


def read(name, header, filename="raw.fits", shape=(1024, 1024)):
    return interpret(header, [hdu(shape, 0, header)], filename, load_instrument(name))


RATIR = {
    "INSTRUME": "RATIR",
    "SOFTGAIN": 4,
    "FILTER": "r",
    "EXPTIME": 80.0,
    "SDATE": "2014-05-06T03:04:05.678",
    "PRPSLID": 12,
    "VSTID": 3,
    "ETRRQRA": 150.0,
    "ETRRQDE": 20.0,
    "ETRRQRAO": 0.01,
    "ETRRQDEO": -0.02,
    "STRRQAP": "rcenter",
    "STROBAM": 1.23,
}
LMI = {
    "INSTRUME": "lmi",
    "OBSTYPE": "OBJECT",
    "OBJECT": "",
    "OBJNAME": "M 67",
    "FILTER1": "OPEN",
    "FILTER2": "SDSS-R",
    "EXPTIME": 30.0,
    "DATE-OBS": "2016-02-03",
    "UT": "04:05:06.7",
    "RA": "08:51:18",
    "DEC": "+11:48:00",
    "AIRMASS": 1.1,
    "CCDSUM": "2 2",
    "GAIN": 2.89,
}
RIMAS = {
    "INSTRUME": "RIMAS",
    "ASICINDX": 1,
    "OBJTYPE": "OBJECT",
    "OBJNAME": "GRB",
    "FILTER": "H",
    "EXPTIME": 10.0,
    "DATE": "2024-03-01T02:03:04",
    "RA-D": 100.0,
    "DEC-D": 30.0,
    "ROT": 90.0,
    "GAIN0": 2.2,
    "SATURATE": 40000,
    "LATITUDE": 34.74,
    "LONGITUD": -111.42,
    "ALTITUDE": 2361,
}
EFOSC2 = {
    "INSTRUME": "EFOSC",
    "OBJECT": "field",
    "ESO DPR CATG": "SCIENCE",
    "ESO DPR TYPE": "OBJECT",
    "ESO DPR TECH": "IMAGE",
    "ESO INS FILT1 NAME": "g#782",
    "ESO DET OUT1 CONAD": 1.1,
    "ESO DET OUT1 RON": 7.8,
    "ESO DET READ SPEED": "slow",
    "ESO DET WIN1 BINX": 2,
    "ESO DET WIN1 BINY": 2,
    "EXPTIME": 180.0057,
    "DATE-OBS": "2022-01-28T04:54:24.340",
    "RA": 152.565583,
    "DEC": -1.01059,
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 152.565583,
    "CRVAL2": -1.010586,
    "CRPIX1": 517.0,
    "CRPIX2": 488.25,
    "CDELT1": 2.0,
    "CDELT2": 2.0,
    "CD1_1": 6.688889e-05,
    "CD1_2": 0.0,
    "CD2_1": -0.0,
    "CD2_2": 6.688889e-05,
}
CAFOS = {
    "INSTRUME": "CAFOS 2.2",
    "OBJECT": "NCG2420 B",
    "IMAGETYP": "science",
    "INSFLNAM": "JohnsonB  ",
    "INSGRNAM": "FREE",
    "CCDSENS": 1.43,
    "CCDRON": 7.4,
    "CCDSPEED": "slow",
    "CCDBINX": 1,
    "CCDBINY": 1,
    "EXPTIME": 60.0,
    "DATE-OBS": "2021-03-28T23:06:34",
    "RA": 114.9,
    "DEC": 21.5,
    "AIRMASS": 1.57,
    "BIASSEC": "[0,513:0,1536]",
    "DATASEC": "[513,513:1536,1536]",
}
ARCSAT = {
    "TELESCOP": "ARCSAT 0.5-m",
    "IMAGETYP": "LIGHT",
    "OBJECT": "XO1-b",
    "FILTER": "z",
    "EXPTIME": 60.0,
    "DATE-OBS": "2025-06-02T06:00:22.140",
    "RA": "16 02 11.83",
    "DEC": "+28 10 10.7",
    "AIRMASS": 13.3748,
    "XBINNING": 1,
    "YBINNING": 1,
    "CCD-TEMP": -25.02,
    "LAT-OBS": 32.780278,
    "LONG-OBS": -105.820278,
}
GENERIC = {
    "INSTRUME": "STE3 CCD",
    "IMAGETYP": "object",
    "OBJECT": "rf0420",
    "FILTERS": 48,
    "EXPTIME": 150.04,
    "DATE-OBS": "2013-07-13",
    "UT": "00:57:33",
    "RA": "22:04:08",
    "DEC": "-00:55:31",
    "SECZ": 1.176,
    "TRIMSEC": "[  17: 528,   1: 520]",
    "BIASSEC": "[   4:  13,   1: 520]",
    "GAIN": 1.9,
    "RDNOISE": 5.0,
}
GOOD = {
    "ratir": (RATIR, "20140506T030405C0o.fits", (1024, 1024)),
    "lmi": (LMI, "lmi.0012.fits", (3102, 3122)),
    "rimas": (RIMAS, "rimas.0001.C1.fits", (2048, 2048)),
    "efosc2": (EFOSC2, "EFOSC.2022-01-28T04:54:24.341.fits", (1030, 1030)),
    "cafos": (CAFOS, "uamA_0023.fits", (1024, 1024)),
    "arcsat": (ARCSAT, "XO1-b_z_20250602_060016.fits", (1024, 1024)),
    "generic": (GENERIC, "a.fits", (520, 536)),
}


def sane(facts):
    """What must hold for any facts, whatever the header said."""
    assert FrameFacts.from_dict(json.loads(json.dumps(facts.to_dict(), allow_nan=False))) == facts
    assert FRAME.fullmatch(facts.frame)
    assert SAFE.fullmatch(facts.target)
    assert facts.type in ("bias", "dark", "flat", "object")
    if facts.type in ("flat", "object"):
        assert SAFE.fullmatch(facts.filter)
    else:
        assert facts.filter == ""
    assert facts.object.isascii() and facts.object.isprintable() or facts.object == ""
    assert len(facts.object) <= 68
    assert facts.airmass is None or 1 <= facts.airmass <= 40
    assert (facts.ra is None) == (facts.dec is None)
    assert facts.ra is None or (0 <= facts.ra < 360 and abs(facts.dec) <= 90)
    assert 0 <= facts.exptime <= 1e6
    # 0: to be measured
    assert facts.gain >= 0 and facts.rdnoise > 0 and facts.saturate > 0
    assert re.fullmatch(r"\d+x\d+", facts.binning)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", facts.date_obs)
    for amplifier in facts.amplifiers:
        y0, y1, x0, x1 = amplifier.data
        assert 0 <= y0 < y1 and 0 <= x0 < x1
    if facts.wcs:
        (a, b), (c, d) = [[facts.wcs[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)]
        assert abs(a * d - b * c) > 0


# ------------------------------------------------------------------------- files of instruments


def test_every_instrument_loads_and_carries_its_file_name():
    names = list_instruments()
    assert set(GOOD) <= set(names)  # the others: test_cameras.py
    assert names[-1] == "generic"
    for name in names:
        assert load_instrument(name)["name"] == name


@pytest.mark.parametrize("name", GOOD)
def test_identify(name):
    assert identify(GOOD[name][0]) == name


def test_ratir_calibrations_are_known_by_one_keyword():
    header = {"SOFTGAIN": 4, "SDATE": "2014-05-06T03:04:05", "EXPTIME": 0}
    assert identify(header) == "ratir"
    (facts,) = read("ratir", header, "20140506T030405C0b.fits")
    assert facts.type == "bias" and facts.ra is None and facts.wcs is None


@pytest.mark.parametrize("name", GOOD)
def test_good_header_gives_sane_facts_again_and_again(name):
    header, filename, shape = GOOD[name]
    first = read(name, header, filename, shape)
    again = read(name, copy.deepcopy(header), filename, shape)
    assert first == again
    for facts in first:
        sane(facts)
        assert facts.instrument == name


def test_unknown_instrument_names_the_known_ones():
    with pytest.raises(InstrumentError, match="hubble.*arcsat.*generic"):
        load_instrument("hubble")
    with pytest.raises(InstrumentError, match="no file"):
        load_instrument("/nowhere/mine.yaml")


MINE = """
name: mine
type: {key: IMAGETYP, map: {light: object}}
object: OBJECT
filter: FILTER
exptime: EXPTIME
date: DATE-OBS
cameras:
  A: {gain: 2.0, rdnoise: 5, saturate: 60000}
"""


def test_own_yaml_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    mine = load_instrument(str(path))
    header = {"IMAGETYP": "light", "OBJECT": "a", "FILTER": "V", "EXPTIME": 1, "DATE-OBS": "x"}
    header["DATE-OBS"] = "2020-01-02T03:04:05"
    (facts,) = interpret(header, [hdu((50, 40), 0, header)], "x.fits", mine)
    assert facts.frame == "20200102T030405Ao"
    assert facts.gain == 2.0
    assert facts.shape == [50, 40]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("gain: 2.0", "gian: 2.0", r"cameras\.A.*gian"),
        ("filter: FILTER\n", "", "filter.*required"),
        ("light: object", "'(': object", r"type.*regular expression"),
        ("rdnoise: 5", "poserr: -1", r"cameras\.A\.poserr"),
        ("name: mine", "name: [", "not YAML"),
        ("rdnoise: 5", "rdnoise: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_wrong_yaml_names_file_and_key(tmp_path, old, new, what):
    path = tmp_path / "wrong.yaml"
    path.write_text(MINE.replace(old, new))
    with pytest.raises(InstrumentError, match=what) as caught:
        load_instrument(path)
    assert "wrong.yaml" in str(caught.value)


# ------------------------------------------------------------------------- values


def test_evaluate_alternatives_maps_and_arithmetic():
    header = {"A": "", "B": "on", "N": 4, "HUGE": 10**400, "T": True}
    assert evaluate(["A", "B"], header) == "on"
    assert evaluate(["A", 7], header) == 7
    assert evaluate("HIERARCH B", header) == "on"
    assert evaluate({"key": "B", "map": {"of.": "no", "o.": "yes"}}, header) == "yes"
    assert evaluate({"key": "B", "omit": "on"}, header) is None
    assert evaluate({"value": 16.8, "divided_by": "N"}, header) == pytest.approx(4.2)
    assert evaluate({"value": 65536, "divided_by": "N", "plus": [-1]}, header) == 16383
    assert evaluate({"key": "N", "times": "MISSING"}, header) is None
    assert evaluate({"value": 1, "divided_by": {"value": 0}}, header) is None
    assert evaluate({"key": "HUGE", "times": 2}, header) is None
    assert evaluate({"format": "{B}-{N}"}, header) == "on-4"
    assert evaluate({"format": "{B}-{A}"}, header) is None
    assert evaluate({"join": ["B", "A", "N"], "with": "/"}, header) == "on/4"
    assert evaluate({"file_name": r"C(\d)"}, header, "xC3.fits") == "3"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        ("1.5D3", 1500.0),
        (True, None),
        (float("nan"), None),
        ("inf", None),
        ("1_0", None),
        (10**400, None),
        ("9" * 300, None),
        (None, None),
        ([], None),
        (1j, None),
    ],
)
def test_number(value, expected):
    assert number(value) == expected


def test_angles():
    assert angle("16 02 11.83", hours=True) == pytest.approx(240.5492917)
    assert angle("-00:55:31") == pytest.approx(-0.9252778)
    assert angle("12h30m00s", hours=True) == pytest.approx(187.5)
    assert angle("152.5", hours=True) == 152.5
    for nonsense in ("", "12:61:00", "a:b:c", "1:2:3:4", None, "12:00:00" * 40):
        assert angle(nonsense) is None


def test_dates_against_known_julian_dates():
    assert mjd_of("2000-01-01T12:00:00") == pytest.approx(51544.5, abs=1e-9)
    assert mjd_of("2022-01-28T04:54:24.341Z") == pytest.approx(59607.20444839, abs=2e-9)
    assert mjd_of("2013-07-13", "00:57:33") == pytest.approx(56486.0399653, abs=1e-7)
    assert mjd_of("2013-07-13", 3453) == mjd_of("2013-07-13", "00:57:33")
    assert iso_of(59607.363277813) == "2022-01-28T08:43:07.203"
    assert iso_of(51544.999999999) == "2000-01-02T00:00:00.000"
    for nonsense in ("", "2000-13-01T00:00:00", "2000-02-30T00:00:00", "2000-01-01", "0001-01-01"):
        assert mjd_of(nonsense) is None
    assert mjd_of("2000-01-01T25:00:00") is None


def test_altitude_of_pole_is_latitude_and_of_zenith_is_90():
    assert altitude(58000.0, 10.0, 90.0, 35.0, 20.0) == pytest.approx(35.0)
    # where the hour angle is zero and declination the latitude
    sidereal = (280.46061837 + 360.98564736629 * (58000.0 - 51544.5) + 20.0) % 360
    assert altitude(58000.0, sidereal, 35.0, 35.0, 20.0) == pytest.approx(90.0, abs=1e-5)
    assert airmass_at(90.0) == pytest.approx(1.0, abs=1e-5)
    assert airmass_at(30.0) == pytest.approx(2.0, abs=0.01)
    assert airmass_at(1.0) is None


def test_sections():
    assert parse_section("[  17: 528,   1: 520]") == ([0, 520, 16, 528], [False, False])
    assert parse_section("[10:1,1:5]") == ([0, 5, 0, 10], [False, True])
    for nonsense in ("[0,513:0,1536]", "[0:5,1:5]", "", None, "[1:2]", 5, "[-1:5,1:5]"):
        assert parse_section(nonsense) is None


def test_safe_names():
    assert safe_name("g#782", "") == "g782"
    assert safe_name("../../x") == "x"
    assert safe_name("NCG2420 B") == "NCG2420_B"
    assert safe_name("$(rm -rf ~);`x`") == "rm_-rf_x"
    assert safe_name("") == safe_name("///") == "unknown"
    assert len(safe_name("x" * 300)) == 64
    assert object_text("α") != object_text("β")
    long = object_text("x" * 150 + "1")
    assert len(long) <= 68 and long != object_text("x" * 150 + "2")
    assert "\n" not in object_text("a\nb")


# ------------------------------------------------------------------------- instrument by instrument


def test_ratir_ccd():
    (facts,) = read("ratir", RATIR, "20140506T030405C0o.fits")
    assert facts.frame == "20140506T030405C0o"
    assert facts.camera == "C0"
    assert facts.target == "12-vis3"
    assert facts.filter == facts.band == "r"
    assert facts.gain == pytest.approx(16.80 / 4)
    assert facts.saturate == pytest.approx(2**16 / 4 - 1)
    assert facts.airmass == 1.23
    assert facts.shape == [1023, 898]
    assert facts.amplifiers[0].data == [0, 1023, 125, 1023]
    wcs = facts.wcs
    assert (wcs["CRVAL1"], wcs["CRVAL2"]) == (pytest.approx(150.01), pytest.approx(19.98))
    assert (wcs["CRPIX1"], wcs["CRPIX2"]) == (512 - 125, 512)
    turn = math.radians(0.60)
    assert wcs["CD1_1"] == pytest.approx(-0.3168 * math.cos(turn) / 3600)
    assert wcs["CD2_1"] == pytest.approx(0.3168 * math.sin(turn) / 3600)
    assert wcs["CD1_2"] == pytest.approx(0.3171 * math.sin(turn) / 3600)
    assert wcs["CD2_2"] == pytest.approx(0.3171 * math.cos(turn) / 3600)
    assert wcs["CTYPE1"] == "RA---TAN"
    assert not facts.near_infrared
    assert facts.calibrations["bias"] == "required"


@pytest.mark.parametrize(
    ("letter", "kind"), [("b", "bias"), ("d", "dark"), ("f", "flat"), ("o", "object")]
)
def test_ratir_type_is_the_last_letter(letter, kind):
    (facts,) = read("ratir", RATIR, f"20140506T030405C1{letter}.fits")
    assert facts.type == kind
    assert facts.gain == pytest.approx(18.64 / 4)
    assert facts.filter == ("r" if letter in "fo" else "")


def test_ratir_halves():
    z, y = read("ratir", RATIR, "20140506T030405C2o.fits", (2048, 2048))
    assert [f.frame for f in (z, y)] == ["20140506T030405C2o_Z", "20140506T030405C2o_Y"]
    assert [f.filter for f in (z, y)] == ["Z", "Y"]
    assert [f.band for f in (z, y)] == ["z", "y"]
    assert z.shape == [971, 1900] and y.shape == [908, 1803]
    assert z.wcs["CRPIX1"] == 1177 - 100 and z.wcs["CRPIX2"] == 1031 - 4
    assert z.wcs["CTYPE1"] == "RA---TPV"
    a, b = -19.60381671, -4128.15179797
    for axis in (1, 2):
        terms = {k: z.wcs[f"PV{axis}_{k}"] for k in (1, 17, 19, 21, 31, 33, 35, 37)}
        assert terms == pytest.approx(
            {1: 1, 17: a, 19: 2 * a, 21: a, 31: b, 33: 3 * b, 35: 3 * b, 37: b}
        )
    assert z.near_infrared and z.calibrations["bias"] == "none"
    j, h = read("ratir", RATIR, "20140506T030405C3o.fits", (2048, 2048))
    assert [j.filter, h.filter] == ["J", "H"]
    wcs = j.wcs
    determinant = wcs["CD1_1"] * wcs["CD2_2"] - wcs["CD1_2"] * wcs["CD2_1"]
    assert determinant > 0  # the mirrored one


def test_ratir_apertures_move_the_pointing():
    for aperture, ra, dec in (
        ("ricenter", 0, 0),
        ("riZJcenter", 1.2, 0),
        ("riYHcenter", -1.8, 0),
        ("ZJcenter", 2.2, 0.7),
        ("YHcenter", -3.2, 0.7),
        ("never heard of", 0, 0),
    ):
        (facts,) = read("ratir", {**RATIR, "STRRQAP": aperture}, "20140506T030405C0o.fits")
        assert facts.ra == pytest.approx(150.01 - ra / 60)
        assert facts.dec == pytest.approx(19.98 - dec / 60)


def test_ratir_binned_halves_scale_and_wrong_shapes_are_rejected():
    z, _ = read("ratir", RATIR, "20140506T030405C2o.fits", (1024, 1024))
    assert z.amplifiers[0].data == [2, 487, 50, 1000]
    with pytest.raises(FrameUnusable, match="WRONG_SHAPE"):
        read("ratir", RATIR, "20140506T030405C2o.fits", (512, 2048))
    with pytest.raises(FrameUnusable, match="MISSING_KEYWORD.*SOFTGAIN"):
        read("ratir", {**RATIR, "SOFTGAIN": None}, "20140506T030405C0o.fits")
    with pytest.raises(FrameIgnored, match="NOT_RAW"):
        read("ratir", RATIR, "zsfp20140506T030405C0o.fits")


def test_lmi():
    (facts,) = read("lmi", LMI, "lmi.0012.fits", (3102, 3122))
    assert facts.target == "M_67"
    assert facts.filter == "SDSS-R" and facts.band == "r"
    assert facts.binning == "2x2"
    assert facts.frame == "20160203T040506C0o"
    assert facts.shape == [3076, 3069]
    assert facts.pixscale == pytest.approx(0.24)
    assert facts.saturate == 65000 and facts.gain == 2.89
    assert facts.ra == pytest.approx(132.825)
    assert read("lmi", LMI, "lmi.0012.fits", (600, 700))[0].shape == [600, 700]
    both = {**LMI, "FILTER1": "B", "FILTER2": "V"}
    assert read("lmi", both, "lmi.1.fits")[0].filter == "B-V"
    assert read("lmi", {**LMI, "FILTER1": "V", "FILTER2": "OPEN"}, "lmi.1.fits")[0].band == "V"
    for kind, expected in (("BIAS", "bias"), ("DOME FLAT", "flat"), ("SKY FLAT", "flat")):
        assert read("lmi", {**LMI, "OBSTYPE": kind}, "lmi.1.fits")[0].type == expected
    with pytest.raises(FrameIgnored, match="focus"):
        read("lmi", {**LMI, "OBSTYPE": "FOCUS"}, "lmi.1.fits")


def test_lmi_uses_the_wcs_of_the_header():
    header = {
        **LMI,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 132.8,
        "CRVAL2": 11.8,
        "CRPIX1": 1500.0,
        "CRPIX2": 1501.0,
        "CD1_1": -6.67e-5,
        "CD1_2": 1e-7,
        "CD2_1": 1e-7,
        "CD2_2": 6.67e-5,
    }
    (facts,) = read("lmi", header, "lmi.1.fits", (3102, 3122))
    assert facts.wcs["CRVAL1"] == 132.8
    assert facts.wcs["CRPIX1"] == 1500 - 27 and facts.wcs["CRPIX2"] == 1501 - 3
    # one that no LMI can have is not believed
    (facts,) = read("lmi", {**header, "CD1_1": -1e-3, "CD2_2": 1e-3}, "lmi.1.fits")
    assert facts.wcs["CRVAL1"] == pytest.approx(132.825)


def test_rimas():
    (facts,) = read("rimas", RIMAS, "r1.fits", (2048, 2048))
    assert facts.camera == "C1" and facts.gain == 2.2 and facts.saturate == 40000
    assert facts.pixscale == pytest.approx(0.19)
    assert facts.wcs["CD2_1"] == pytest.approx(0.19 / 3600)
    height = altitude(facts.mjd + 5 / 86400, 100.0, 30.0, 34.74, -111.42)
    assert facts.airmass == pytest.approx(1 / math.sin(math.radians(height)), rel=0.02)
    with pytest.raises(FrameUnusable, match="UNKNOWN_CAMERA"):
        read("rimas", {**RIMAS, "ASICINDX": 9}, "r1.fits")


def test_efosc2():
    (facts,) = read("efosc2", EFOSC2, "EFOSC.fits", (1030, 1030))
    assert facts.frame == "20220128T045424C0o"
    assert facts.filter == "g782" and facts.band == "g"
    assert facts.gain == 1.1 and facts.rdnoise == 7.8
    assert facts.pixscale == pytest.approx(0.2408, abs=1e-4)
    y0, _, x0, _ = facts.amplifiers[0].data
    assert facts.wcs["CRPIX1"] == 517 - x0 and facts.wcs["CRPIX2"] == 488.25 - y0
    assert facts.wcs["CD1_1"] == 6.688889e-05
    dark = {**EFOSC2, "ESO DPR CATG": "CALIB", "ESO DPR TYPE": "DARK", "EXPTIME": 0.0}
    assert read("efosc2", dark, "e.fits")[0].type == "bias"
    assert read("efosc2", {**dark, "EXPTIME": 60.0}, "e.fits")[0].type == "dark"
    with pytest.raises(FrameIgnored, match="^SPECTRUM: .*"):
        read("efosc2", {**EFOSC2, "ESO DPR TECH": "SPECTRUM"}, "e.fits")
    flat = {**EFOSC2, "ESO DPR TYPE": "SKY,FLAT", "ESO DPR CATG": "CALIB"}
    assert read("efosc2", flat, "e.fits")[0].type == "flat"


def test_efosc2_hierarch_from_astropy():
    from astropy.io import fits

    header = fits.Header()
    for key, value in EFOSC2.items():
        header[f"HIERARCH {key}" if key.startswith("ESO") else key] = value
    (facts,) = read("efosc2", header, "EFOSC.fits", (1030, 1030))
    assert facts.filter == "g782"


def test_cafos_does_not_believe_its_sections():
    (facts,) = read("cafos", CAFOS, "uamA_0023.fits")
    assert facts.target == "NCG2420_B" and facts.object == "NCG2420 B"
    assert facts.filter == "JohnsonB" and facts.band == "B"
    assert facts.gain == 1.43 and facts.rdnoise == 7.4
    assert facts.poserr == 0.4
    wcs = facts.wcs
    assert wcs["CD1_2"] == wcs["CD2_1"] == pytest.approx(0.525 / 3600)
    assert wcs["CD1_1"] == wcs["CD2_2"] == 0
    assert min(facts.shape) > 1000
    assert facts.amplifiers[0].overscan is None
    with pytest.raises(FrameIgnored, match="SPECTRUM"):
        read("cafos", {**CAFOS, "INSGRNAM": "blue-200"}, "a.fits")
    assert read("cafos", {**CAFOS, "INSGRNAM": "x", "IMAGETYP": "bias", "EXPTIME": 0}, "a.fits")


def test_arcsat_airmass_of_another_time_is_replaced():
    (facts,) = read("arcsat", ARCSAT)
    assert facts.airmass == pytest.approx(1 / math.sin(math.radians(83.5)), abs=0.01)
    (facts,) = read("arcsat", {**ARCSAT, "AIRMASS": 1.01})
    assert facts.airmass == 1.01
    (facts,) = read("arcsat", {**ARCSAT, "AIRMASS": None, "RA": None})
    assert facts.airmass is None and facts.wcs is None
    (facts,) = read("arcsat", ARCSAT)
    assert facts.wcs["CD1_1"] < 0 and facts.wcs["CD2_2"] < 0
    assert facts.ra == pytest.approx(240.5492917)


def test_generic_sections_and_split_date():
    (facts,) = read("generic", GENERIC, "a.fits", (520, 536))
    assert facts.amplifiers[0].data == [0, 520, 16, 528]
    assert facts.amplifiers[0].overscan == [0, 520, 3, 13]
    assert facts.date_obs == "2013-07-13T00:57:33.000"
    assert facts.airmass == 1.176
    wrong = {**GENERIC, "BIASSEC": "[10:20,1:520]"}  # overlaps the image
    assert read("generic", wrong, "a.fits", (520, 536))[0].amplifiers[0].overscan is None
    tiny = {**GENERIC, "TRIMSEC": "[1:2,1:2]"}
    assert read("generic", tiny, "a.fits", (520, 536))[0].shape == [520, 536]


def amplifiers_of(detsecs, shape=(20, 15), **extra):
    primary = {k: v for k, v in GENERIC.items() if k not in ("TRIMSEC", "BIASSEC", "GAIN")}
    primary.update(extra)
    infos = [hdu(None, 0, primary)]
    for index, detsec in enumerate(detsecs, start=1):
        header = {
            "DATASEC": "[1:10,1:20]",
            "BIASSEC": "[11:15,1:20]",
            "GAIN": 1.0 + index,
            "RDNOISE": 4.0 + index,
        }
        if detsec:
            header["DETSEC"] = detsec
        infos.append(hdu(shape, index, header))
    return interpret(primary, infos, "m.fits", load_instrument("generic"))


def test_amplifiers_in_extensions():
    (facts,) = amplifiers_of(["[1:10,1:20]", "[20:11,1:20]"])
    one, two = facts.amplifiers
    assert facts.shape == [20, 20]
    assert one.hdu == 1 and two.hdu == 2
    assert one.origin == [0, 0] and two.origin == [0, 10]
    assert one.flip == [False, False] and two.flip == [False, True]
    assert two.data == [0, 20, 0, 10] and two.overscan == [0, 20, 10, 15]
    assert (one.gain, two.gain) == (2.0, 3.0)
    sane(facts)
    # binned: DETSEC counts unbinned pixels
    (facts,) = amplifiers_of(["[1:20,1:40]", "[21:40,1:40]"], CCDSUM="2 2")
    assert facts.shape == [20, 20] and facts.binning == "2x2"


@pytest.mark.parametrize(
    "detsecs",
    [["[1:10,1:20]", "[5:14,1:20]"], ["[1:10,1:20]", "junk"], ["[1:10,1:20]", "[11:22,1:20]"],
     ["[1:10,1:20]", "[90001:90010,1:20]"]],
)  # fmt: skip
def test_amplifiers_with_wrong_sections_are_rejected(detsecs):
    with pytest.raises(FrameUnusable, match="BAD_SECTION"):
        amplifiers_of(detsecs)


def test_positions_in_raw_and_frame_are_inverse():
    rng = np.random.default_rng(1)
    for flip in ([False, False], [True, False], [False, True], [True, True]):
        amplifier = Amplifier(0, [3, 40, 7, 60], None, [5, 9], flip)
        x, y = rng.uniform(1, 50, 2)
        x_new, y_new, _, _ = to_frame(amplifier, x, y)
        assert to_raw(amplifier, x_new, y_new) == pytest.approx((x, y))
    # the first pixel of the data section is the first of the frame
    plain = Amplifier(0, [3, 40, 7, 60])
    assert to_frame(plain, 8, 4)[:2] == (1, 1)
    turned = Amplifier(0, [3, 40, 7, 60], flip=[True, True])
    assert to_frame(turned, 60, 40)[:2] == (1, 1)


def test_image_in_first_extension_and_packed_primary():
    primary = {"SIMPLE": True}
    infos = [hdu(None, 0, primary), hdu((1024, 1024), 1, RATIR)]
    infos[1].packed_primary = True
    (facts,) = interpret(RATIR, infos, "20140506T030405C0o.fits.fz", load_instrument("ratir"))
    assert facts.amplifiers[0].hdu == 1
    assert facts.frame == "20140506T030405C0o"


def test_what_is_no_image():
    for infos, code in (
        ([hdu(None)], "NO_IMAGE"),
        ([hdu((3, 20, 20))], "NOT_2D"),
        ([hdu((20,))], "NOT_2D"),
        ([hdu((1, 20))], "BAD_SHAPE"),
        ([hdu((200_000, 20))], "BAD_SHAPE"),
    ):
        with pytest.raises(FrameUnusable, match=code):
            interpret(GENERIC, infos, "a.fits", load_instrument("generic"))
    with pytest.raises(FrameIgnored, match="PRODUCT"):
        read("generic", {**GENERIC, "QCSTAT": "OK"})


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("EXPTIME", -1.0, "BAD_EXPTIME"),
        ("EXPTIME", "a while", "MISSING_KEYWORD"),
        ("EXPTIME", float("nan"), "MISSING_KEYWORD"),
        ("EXPTIME", 0, "BAD_EXPTIME"),
        ("DATE-OBS", "yesterday", "BAD_DATE"),
        ("DATE-OBS", None, "MISSING_KEYWORD"),
        ("IMAGETYP", None, "MISSING_KEYWORD"),
        ("IMAGETYP", "party", "UNKNOWN_TYPE"),
        ("FILTER", None, "MISSING_KEYWORD"),
    ],
)
def test_missing_and_wrong_keywords_have_their_codes(key, value, code):
    with pytest.raises(FrameUnusable) as caught:
        read("arcsat", {**ARCSAT, key: value})
    assert caught.value.code == code
    assert caught.value.status == "REJECTED"


@pytest.mark.parametrize(
    "value",
    ["../../x", "$(touch /tmp/x)", "a\nb", "x" * 300, "", "   ", "名前", "<script>", "-rf", "\0",
     "'; DROP", float("nan"), 10**400, True, -1, None],
)  # fmt: skip
@pytest.mark.parametrize("key", ["OBJECT", "FILTER"])
def test_hostile_names_stay_names(key, value):
    try:
        facts = read("arcsat", {**ARCSAT, key: value})
    except FrameIgnored as reason:
        assert reason.code == "MISSING_KEYWORD"
    else:
        sane(facts[0])


JUNK = [
    None, True, False, 0, -1, 1, 10**400, -(10**30), 1e308, -1e-308, float("nan"), float("inf"),
    "", " ", "x" * 300, "a\nb\r\0", "../../x", "$(id)", "名", "\ud800", "[1:2,3:4]", "[0:0,0:0]",
    "[9999999:1,1:1]", "2020-01-01T00:00:00", "1e400", "1" * 5000, "NaN", "T", "24:00:00",
    "RA---TAN", "DEC--TAN", "2 2", "0 0", "OPEN", "0x10", "{EXPTIME}", b"bytes", 1 + 2j, [1],
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_random_headers_give_sane_facts_or_a_reason(name):
    rng = random.Random(name)
    header, filename, shape = GOOD[name]
    keys = [*header, "AIRMASS", "CD1_1", "CD2_2", "CTYPE1", "CTYPE2", "CRVAL1", "DETSEC", "CCDSUM"]
    accepted = 0
    for _ in range(400):
        hostile = dict(header)
        for key in rng.sample(keys, rng.randint(1, 6)):
            hostile[key] = rng.choice(JUNK)
        if rng.random() < 0.2:
            shape = rng.choice([(1024, 1024), (2048, 2048), (1, 1), (3,), (5, 5, 5), (7, 900)])
        try:
            found = read(name, hostile, filename, shape)
        except FrameIgnored as reason:
            assert re.match(r"[A-Z_0-9]+: .", str(reason)), reason
            assert str(reason).isprintable()
            continue
        accepted += 1
        for facts in found:
            sane(facts)
    assert accepted > 20


def test_example_of_the_docs_works(tmp_path):
    words = (CONFIG.parent / "docs" / "instruments.md").read_text()
    path = tmp_path / "mycam.yaml"
    short, whole = re.findall(r"```yaml\n(.*?)```", words, re.S)
    path.write_text(short)
    header = {**GENERIC, "WHEEL2": "R", "GAIN": 9}
    (facts,) = interpret(header, [hdu((520, 536), 0, header)], "x.fits", load_instrument(path))
    sane(facts)
    assert (facts.filter, facts.gain, facts.rdnoise) == ("R", 1.8, 5.2)
    path.write_text(whole)
    header = {**GENERIC, "FILTER": "SDSS-R", "READMODE": "slow"}
    info = hdu((2048, 2112), 0, header)
    (facts,) = interpret(header, [info], "x.fits", load_instrument(path))
    sane(facts)
    assert facts.band == "r" and facts.shape == [2048, 2048]


def test_site_is_a_fact():
    """By the header where it tells, else by the instrument file; none where neither does."""
    assert read("arcsat", ARCSAT)[0].site == [32.780278, -105.820278, 2788.0]
    silent = {key: value for key, value in ARCSAT.items() if not key.endswith("-OBS")}
    silent["DATE-OBS"] = ARCSAT["DATE-OBS"]
    assert read("arcsat", silent)[0].site == [32.78028, -105.82028, 2788.0]
    assert read("generic", GENERIC, "a.fits", (520, 536))[0].site is None
