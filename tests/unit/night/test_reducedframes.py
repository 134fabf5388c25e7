"""Frames that have been reduced before they are handed in: told, and not calibrated twice."""

import pytest
from test_header_readings import BASE, card, facts_of

from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU, parse_header


def with_history(*lines, **changes):
    cards = "".join(card(key, value) for key, value in (BASE | changes).items())
    cards += "".join(f"HISTORY {line}".ljust(80) for line in lines)
    header = parse_header(cards.encode())
    return interpret(header, [RawHDU(0, header, [512, 512])], "x.fits", load_instrument("generic"))[
        0
    ]


def left(facts):
    return {kind for kind, need in facts.calibrations.items() if need != "none"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"bias", "dark", "flat"}),
        ({"CALSTAT": "BDF"}, set()),
        ({"CALSTAT": "DF"}, set()),
        ({"CALSTAT": "B"}, {"dark", "flat"}),
        ({"CALSTAT": "F"}, {"bias", "dark"}),
        ({"CALSTAT": "BDF", "IMAGETYP": "Flat"}, {"flat"}),
        ({"ZEROCOR": "Mar 10 Zero level correction image is z.fits"}, {"dark", "flat"}),
        ({"FLATCOR": "PERFORM"}, {"bias", "dark", "flat"}),
        ({"DARKCOR": "OMIT", "FLATCOR": "COMPLETE"}, {"bias", "dark"}),
        ({"BIASCOR": True, "DARKCOR": False}, {"dark", "flat"}),
    ],
)
def test_status_cards(changes, wanted):
    facts = facts_of(changes)
    assert left(facts) == wanted
    assert bool(facts.notes) == (wanted != {"bias", "dark", "flat"})


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("master bias subtracted", {"dark", "flat"}),
        ("Bias subtraction", {"dark", "flat"}),
        ("Subtracted scaled dark frame dark_60.fits", {"bias", "flat"}),
        ("divided by normalised flat", {"bias", "dark"}),
        ("Image was flat-fielded", {"bias", "dark"}),
        ("flat field not corrected", {"bias", "dark", "flat"}),
        ("bias correction off", {"bias", "dark", "flat"}),
        ("File was processed by PinPoint 7.0.0", {"bias", "dark", "flat"}),
        ("SUBARRAY read, corrected for zero point of clock", {"bias", "dark", "flat"}),
    ],
)
def test_history(line, wanted):
    assert left(with_history("observed", line)) == wanted


def test_floating_point_pixels_are_told():
    assert "floating point" in with_history(BITPIX=-32).notes[0]
    assert with_history(BITPIX=16).notes == []
    assert with_history(BITPIX=-32, IMAGETYP="bias").notes == []
