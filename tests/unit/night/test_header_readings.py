"""Single values of headers, each as a person reads it, or a reason or note that tells why not."""

import pytest

from lib.night.exposuretime import exposure_time
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU, parse_header

BASE = {
    "INSTRUME": "Some camera",
    "IMAGETYP": "Light",
    "EXPTIME": 60.0,
    "FILTER": "r",
    "GAIN": 1.5,
    "RDNOISE": 5.0,
    "RA": 150.0,
    "DEC": 20.0,
    "OBJECT": "field",
    "DATE-OBS": "2023-03-10T03:10:00",
}

START = 60013 + 190 / 1440


def card(keyword, value, comment=""):
    if isinstance(value, bool):
        value = "T" if value else "F"
    elif isinstance(value, str):
        value = f"'{value}'"
    return f"{keyword:<8}= {value!s:>20} / {comment}"[:80].ljust(80)


def facts_of(changes, comments=None):
    """Return what the generic instrument reads of a header; None takes a keyword out."""
    content = {key: value for key, value in (BASE | changes).items() if value is not None}
    comments = comments or {}
    cards = "".join(card(key, value, comments.get(key, "")) for key, value in content.items())
    header = parse_header(cards.encode("latin-1"))
    return interpret(header, [RawHDU(0, header, [512, 512])], "x.fits", load_instrument("generic"))[
        0
    ]


DATE_TEXTS = [
    "2023-03-10T03:10:00Z",
    "2023-03-10T03:10:00.000(UTC)",
    "2023-03-10T03:10:00 UTC",
    "2023-03-10T03-10-00",
    "2023-03-10T03:09:60.0",
    "2023/03/10 03:10:00",
    "20230310T031000",
    "2023-069T03:10:00",
    "2023-03-10T03:10:00+00:00",
    "2023-03-09T20:10:00-07:00",
    "2023-03-09T20:10:00.0-0700",
    "2023-03-10T08:40:00+05:30",
    "2023-03-10T12:10:00+09",
    "2023-03-10T03:10:00,000",
    "2023-03-10T03h10m00s",
    "10.03.2023 03:10:00",
    "10-Mar-2023 03:10:00",
    "10 march 2023 03:10:00",
]


@pytest.mark.parametrize("date", DATE_TEXTS)
def test_date_with_zone_or_suffix(date):
    facts = facts_of({"DATE-OBS": date})
    assert facts.mjd == pytest.approx(START, abs=2e-9)
    assert facts.notes == []


@pytest.mark.parametrize(
    "changes",
    [
        {"DATE-OBS": "2023-03-10", "UT": "03:10:00"},
        {"DATE-OBS": "2023-03-10", "UT": 190 / 60},
        {"DATE-OBS": "2023-03-10", "UT": f"{190 / 60:.9f}"},
        {"DATE-OBS": "2023-03-10", "UTC": 11400.0},
        {"DATE-OBS": "2023-03-10", "UT": "03h10m00s"},
        {"DATE-OBS": "2023-03-10", "UT": "No Value", "TIME-OBS": "03:10:00"},
        {"DATE-OBS": "2023-03-10", "UTSTART": "2023-03-10T03:10:00"},
        {"DATE-OBS": "2023-03-10T00:00:00", "TIME-OBS": "03:10:00"},
        {"DATE-OBS": None, "DATEOBS": "2023-03-10", "TIMEOBS": "03:10:00"},
        {"DATE-OBS": None, "MJD": START},
        {"DATE-OBS": None, "JD_UTC": 2400000.5 + START},
        {"DATE-OBS": "2023-03-10T03:10:37", "TIMESYS": "TAI"},
        {"DATE-OBS": "2023-03-10T03:10:18", "TIMESYS": "GPS"},
        {"DATE-OBS": "2023-03-10T03:11:09.184", "TIMESYS": "TT"},
        {"TIMESYS": "UT1"},
    ],
)
def test_start_from_other_keywords_and_scales(changes):
    assert facts_of(changes).mjd == pytest.approx(START, abs=2e-8)


def test_a_day_without_time_beside_a_date_and_local_time_with_its_zone_are_as_they_should_be():
    changes = {"DATE-OBS": "2023-03-10", "UT": "03:10:00", "MJD-OBS": 60013.0}
    assert facts_of(changes).notes == []
    facts = facts_of({"DATE-OBS": "2023-03-09T20:10:00-0700"}, {"DATE-OBS": "start, LT"})
    assert facts.notes == [] and facts.mjd == pytest.approx(START)


def test_old_dates_of_the_standard_are_of_the_last_century_and_no_others():
    facts = facts_of({"DATE-OBS": "10/03/99", "UT": "03:10:00"})
    assert facts.date_obs == "1999-03-10T03:10:00.000"
    with pytest.raises(FrameUnusable, match="BAD_DATE"):
        facts_of({"DATE-OBS": "10/03/23", "UT": "03:10:00"})


@pytest.mark.parametrize(
    ("changes", "comments", "earlier"),
    [
        ({}, {"DATE-OBS": "UTC of the end of the exposure"}, 60),
        ({}, {"DATE-OBS": "[UTC] midpoint of exposure"}, 30),
        ({"DATE-OBS": None, "DATE-END": "2023-03-10T03:10:00"}, {}, 60),
        ({"DATE-OBS": None, "MJD-AVG": START}, {}, 30),
        ({"DATE-OBS": "2023-03-10", "UT": "03:10:00"}, {"UT": "UT at exposure end"}, 60),
        ({}, {"DATE-OBS": "start, not the end of exposure"}, 0),
        ({"DATE-OBS": "2023-03-10", "UT": "03:10:00"}, {"DATE-OBS": "date at END of night"}, 0),
    ],
)
def test_a_start_that_is_the_end_or_the_middle(changes, comments, earlier):
    facts = facts_of(changes, comments)
    assert facts.mjd == pytest.approx(START - earlier / 86400, abs=2e-9)
    assert bool(facts.notes) == bool(earlier)


def test_local_time_and_disagreeing_times_are_told():
    facts = facts_of({}, {"DATE-OBS": "local time of start"})
    assert "local time" in facts.notes[0]
    facts = facts_of(
        {"DATE-OBS": "2023-03-09T20:10:00", "MJD-OBS": START}, {"DATE-OBS": "local time"}
    )
    assert facts.mjd == pytest.approx(START)
    facts = facts_of({"MJD-OBS": START + 7 / 24})
    assert "7.00 h off" in facts.notes[0]
    # Many coadds: the end lies long after the exposure.
    assert facts_of({"DATE-END": "2023-03-10T03:40:00"}).notes == []


@pytest.mark.parametrize(
    ("changes", "comment", "seconds"),
    [
        ({"EXPTIME": "60 s"}, "", 60),
        ({"EXPTIME": "60.0 / seconds"}, "", 60),
        ({"EXPTIME": "0:01:00"}, "", 60),
        ({"EXPTIME": "1.5 min"}, "", 90),
        ({"EXPTIME": "250 ms"}, "", 0.25),
        ({"EXPTIME": 60000}, "[ms] exposure", 60),
        ({"EXPTIME": 60000}, "exposure in milliseconds", 60),
        ({"EXPTIME": 60000, "EXPOSURE": 60.0}, "", 60),
        ({"EXPTIME": 60000, "DATE-END": "2023-03-10T03:11:01"}, "", 60),
        ({"EXPTIME": -1, "EXPOSURE": 60}, "", 60),
        ({"EXPTIME": 0, "EXPOSURE": 60}, "", 60),
        ({"EXPTIME": "", "EXPOSURE": "60 sec"}, "", 60),
        ({"EXPTIME": 60}, "[s] total, min. 1 s", 60),
    ],
)
def test_exposure_with_a_unit(changes, comment, seconds):
    assert facts_of(changes, {"EXPTIME": comment}).exptime == pytest.approx(seconds)


def test_exposure_of_a_bias_may_be_zero_and_one_beyond_a_night_is_told():
    facts = facts_of({"IMAGETYP": "bias", "EXPTIME": 0, "EXPOSURE": 60})
    assert facts.exptime == 0
    assert "longer than a night" in facts_of({"EXPTIME": 60000}).notes[0]


@pytest.mark.parametrize(
    ("changes", "comments", "gain", "told"),
    [
        ({"GAIN": -1, "EGAIN": 1.6}, {}, 1.6, False),
        ({"GAIN": 0, "EGAIN": 1.6}, {}, 1.6, False),
        ({"GAIN": "nan", "EGAIN": 1.6}, {}, 1.6, False),
        ({"GAIN": 100, "EGAIN": 0.8}, {}, 0.8, True),
        ({"GAIN": 120, "EGAIN": 1.0}, {"GAIN": "Sensor gain"}, 1.0, True),
        ({"GAIN": 5, "EGAIN": 0.8}, {"GAIN": "camera gain"}, 0.8, True),
        ({"GAIN": 1, "EGAIN": 1.79}, {}, 1.79, True),
        ({"GAIN": 2.5, "EGAIN": 1.5}, {}, 2.5, True),
        ({"GAIN": "1.5 e-/ADU"}, {}, 1.5, False),
        ({"GAIN": 25.0}, {"GAIN": "[e-/ADU] conversion"}, 25.0, False),
        ({"GAIN": 0.5}, {"GAIN": "[ADU/e-]"}, 2.0, False),
    ],
)
def test_first_sane_gain(changes, comments, gain, told):
    facts = facts_of(changes, comments)
    assert facts.gain == pytest.approx(gain)
    assert any(note.startswith("gain:") for note in facts.notes) == told


def test_a_flat_with_the_lamp_off_is_no_flat():
    for kind in ("flat lamp off", "FLAT-OFF", "Lamp Off Flat"):
        with pytest.raises(FrameIgnored, match="lamp off"):
            facts_of({"IMAGETYP": kind})
    assert facts_of({"IMAGETYP": "flat lamp on"}).type == "flat"


def test_values_that_cannot_be_give_way_to_the_next_and_are_told():
    facts = facts_of({"RDNOISE": 0, "SATURATE": 0, "READNOIS": 4.0, "CCD-TEMP": "-20.0 C"})
    assert (facts.rdnoise, facts.saturate, facts.temperature) == (4.0, 65535.0, -20.0)
    assert len(facts.notes) == 2


@pytest.mark.parametrize(
    ("changes", "comments", "ra"),
    [
        ({"RA": "10:00:00"}, {}, 150.0),
        ({"RA": "10 00 00.0"}, {}, 150.0),
        ({"RA": "10h00m00s"}, {}, 150.0),
        ({"RA": "10:00.0"}, {}, 150.0),
        ({"RA": "150d00m00s"}, {}, 150.0),
        ({"RA": "150:00:00"}, {}, 150.0),
        ({"RA": "10.0h"}, {}, 150.0),
        ({"RA": 10.0}, {"RA": "[h] right ascension"}, 150.0),
        ({"RA": 10.0}, {"RA": "RA in hours"}, 150.0),
        ({"RA": 10.0}, {"RA": "[deg] 00:40:00.0 RA (J2000)"}, 10.0),
        ({"RA": 10.0, "OBJCTRA": "10 00 00"}, {}, 150.0),
        ({"RA": 10.0, "CRVAL1": 150.1, "CTYPE1": "RA---TAN"}, {}, 150.0),
        ({"RA": 10.0, "CRVAL1": 10.1, "CTYPE1": "RA---TAN"}, {}, 10.0),
        # At 14.3 h sidereal time of Greenwich; longitudes east or west positive.
        ({"RA": 10.0, "SITELAT": 31.0, "SITELONG": -24.0}, {}, 150.0),
        ({"RA": 10.0, "SITELAT": 31.0, "SITELONG": 24.0}, {}, 150.0),
        ({"RA": 10.0, "AIRMASS": 1.03, "SITELAT": 31.0, "SITELONG": -60.0}, {}, 150.0),
        ({"RA": 10.0, "AIRMASS": 1.3, "SITELAT": 31.0, "SITELONG": 115.5}, {}, 10.0),
        ({"RA": 10.0}, {}, 10.0),
        ({"RA": "00 00 00", "DEC": "+00 00 00"}, {}, None),
        ({"RA": 0.0, "DEC": 0.0, "OBJCTRA": "10 00 00", "OBJCTDEC": "+20 00 00"}, {}, 150.0),
    ],
)
def test_right_ascension_in_hours_or_degrees(changes, comments, ra):
    facts = facts_of(changes, comments)
    assert facts.ra == (None if ra is None else pytest.approx(ra, abs=1e-5))


@pytest.mark.parametrize(
    ("text", "degrees"),
    [
        ("-00:30:00", -0.5),
        ("- 0:30:00", -0.5),
        ("-00d30m00s", -0.5),
        ("-00\u00b030'00\"", -0.5),
        ("+20*00:00", 20.0),
        ("20:00:00 N", 20.0),
        ("20:00:00 S", -20.0),
        ("-0.5", -0.5),
        ("20 30.5", 20 + 30.5 / 60),
    ],
)
def test_declination_in_all_its_spellings(text, degrees):
    cards = "".join(card(key, value) for key, value in (BASE | {"DEC": "@"}).items())
    cards = cards.replace("'@'".rjust(20), f"'{text.replace(chr(39), chr(39) * 2)}'".ljust(20))
    lines = cards.encode("latin-1")
    header = parse_header(b"".join(lines[i : i + 80] for i in range(0, len(lines), 80)))
    facts = interpret(
        header, [RawHDU(0, header, [512, 512])], "x.fits", load_instrument("generic")
    )[0]
    assert facts.dec == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize(
    "seconds, kind", [(0.0, "bias"), (1e-32, "bias"), (32e-6, "bias"), (0.5, "dark")]
)
def test_dark_of_next_to_no_exposure_is_a_bias(seconds, kind):
    header = {"EXPTIME": seconds}
    found, value, _ = exposure_time(["EXPTIME"], header, "one.fits", "dark")
    assert (found, value) == (kind, seconds)


def test_a_month_by_its_name_in_capitals():
    facts = facts_of({"DATE-OBS": "10-OCT-2023", "UT": "03:10:00"})
    assert facts.date_obs == "2023-10-10T03:10:00.000"
    for date in ("03/10/2023 03:10:00", "10-Foo-2023 03:10:00", "10.13.2023 03:10:00"):
        with pytest.raises(FrameUnusable, match="BAD_DATE"):
            facts_of({"DATE-OBS": date})


@pytest.mark.parametrize(
    ("ra", "dec", "comment", "wanted"),
    [
        (2.617993878, 0.3490658504, "[rad] telescope", (150.0, 20.0)),
        (-2.617993878, -0.3490658504, "radians", (210.0, -20.0)),
        (2.617993878, 0.3490658504, "[deg]", (2.6179939, 0.3490659)),
    ],
)
def test_a_position_in_radians(ra, dec, comment, wanted):
    facts = facts_of({"RA": ra, "DEC": dec}, {"RA": comment, "DEC": comment})
    assert (facts.ra, facts.dec) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"CCDXBIN": 2, "CCDYBIN": 2}, {"XBIN": 2, "YBIN": 2}, {"CCDSUM": "2 2"},
        {"BINNING": "2x2"}, {"XBINNING": 2, "YBINNING": 2},
    ],
)  # fmt: skip
def test_binning(changes):
    assert facts_of(changes).binning == "2x2"


@pytest.mark.parametrize("key", ["OBS_TYPE", "DATA-TYP", "FRAME"])
@pytest.mark.parametrize(
    ("words", "kind"), [("OBJECT", "object"), ("SKYFLAT", "flat"), ("obj", "object")]
)
def test_type_by_other_keywords(key, words, kind):
    assert facts_of({"IMAGETYP": None, key: words}).type == kind


@pytest.mark.parametrize("key", ["EXP", "EXP-TIME", "EXPOSURE"])
def test_exposure_by_other_keywords(key):
    assert facts_of({"EXPTIME": None, key: 12.5}).exptime == 12.5
