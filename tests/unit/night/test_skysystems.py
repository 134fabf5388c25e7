"""Positions of other equinoxes against astropy, and WCS turned to the north of ICRS."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import FK4, FK5, TETE, SkyCoord
from astropy.time import Time
from astropy.utils import iers
from astropy.wcs import WCS
from test_header_readings import BASE, START, card, facts_of

from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU, parse_header
from lib.night.skysystems import SkySystem, system_of, to_icrs

TRUE = SkyCoord(150.0, 20.0, unit="deg")


def apart(facts):
    return TRUE.separation(SkyCoord(facts.ra, facts.dec, unit="deg")).arcsec


def sexagesimal(position):
    return {
        "RA": position.ra.to_string("hour", sep=":", precision=3, pad=True),
        "DEC": position.dec.to_string("deg", sep=":", precision=2, pad=True, alwayssign=True),
    }


@pytest.mark.parametrize(
    "cards",
    [
        {"EQUINOX": 1950.0},
        {"EPOCH": 1950.0},
        {"EQUINOX": "B1950"},
        {"RADESYS": "FK4"},
        {"RADECSYS": "FK4", "EQUINOX": 1950.0},
    ],
)
def test_pointing_of_fk4(cards):
    facts = facts_of(sexagesimal(TRUE.transform_to(FK4(equinox="B1950"))) | cards)
    assert apart(facts) < 0.1
    assert "FK4 1950" in facts.notes[0]


@pytest.mark.parametrize(
    "cards", [{"EQUINOX": 2023.2}, {"EQUINOX": "J2023.2"}, {"EPOCH": 2023.2, "RADESYS": "FK5"}]
)
def test_pointing_of_fk5_of_date(cards):
    facts = facts_of(sexagesimal(TRUE.transform_to(FK5(equinox="J2023.2"))) | cards)
    assert apart(facts) < 0.1
    assert "FK5 2023.2" in facts.notes[0]


@pytest.mark.parametrize(
    ("cards", "comment"),
    [({"RADESYS": "GAPPT", "EQUINOX": 0.0}, ""), ({"EQUINOX": "JNOW"}, ""), ({}, "RA (JNow)")],
)
def test_apparent_pointing_but_for_nutation(cards, comment):
    with iers.conf.set_temp("auto_download", False):
        apparent = TRUE.transform_to(TETE(obstime=Time(START, format="mjd")))
    facts = facts_of(sexagesimal(apparent) | cards, {"RA": comment})
    assert apart(facts) < 20
    assert TRUE.separation(SkyCoord(apparent.ra, apparent.dec)).arcsec > 1000


@pytest.mark.parametrize(
    "cards",
    [
        {"EQUINOX": 2000.0},
        {"EQUINOX": 0.0},
        {"EQUINOX": -9999.9, "RADECSYS": "FK5"},
        {"EPOCH": 2002.479, "EQUINOX": 2000.0},
        {"RADESYS": "ICRS"},
        {"RADECSYS": "Null"},
        {},
    ],
)
def test_pointing_that_stays_as_it_is(cards):
    facts = facts_of(sexagesimal(TRUE) | cards)
    assert apart(facts) < 0.1 and facts.notes == []


def test_comment_of_the_right_ascension_tells_its_equinox():
    old = sexagesimal(TRUE.transform_to(FK4(equinox="B1950")))
    assert apart(facts_of(old | {"EQUINOX": 2000.0}, {"RA": "RA (B1950)"})) < 0.1
    facts = facts_of(sexagesimal(TRUE) | {"EQUINOX": 2023.2}, {"RA": "RA J2000"})
    assert apart(facts) < 0.1


@pytest.mark.parametrize(
    ("cards", "frame"),
    [
        ({"EQUINOX": 1950.0}, FK4(equinox="B1950")),
        ({"RADESYS": "FK5", "EQUINOX": 2023.2}, FK5(equinox="J2023.2")),
    ],
)
def test_header_wcs_of_another_equinox(cards, frame):
    centre = SkyCoord(150.0, 70.0, unit="deg").transform_to(frame)
    scale, turn = 0.6 / 3600, np.radians(30)
    content = BASE | {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": float(centre.ra.deg),
        "CRVAL2": float(centre.dec.deg),
        "CRPIX1": 256.0,
        "CRPIX2": 256.0,
        "CD1_1": -scale * np.cos(turn),
        "CD1_2": scale * np.sin(turn),
        "CD2_1": scale * np.sin(turn),
        "CD2_2": scale * np.cos(turn),
    }
    header = parse_header(
        "".join(card(key, value) for key, value in (content | cards).items()).encode()
    )
    facts = interpret(
        header, [RawHDU(0, header, [512, 512])], "x.fits", load_instrument("generic")
    )[0]
    told = WCS({key: value for key, value in content.items() if key[0] == "C"}, naxis=2)
    x, y = [1.0, 512.0, 256.0, 1.0], [1.0, 512.0, 256.0, 512.0]
    expected = SkyCoord(*told.all_pix2world(x, y, 1), unit="deg", frame=frame).icrs
    found = SkyCoord(*WCS(facts.wcs, naxis=2).all_pix2world(x, y, 1), unit="deg")
    assert found.separation(expected).arcsec.max() < 0.05


def test_system_of_the_standard():
    assert system_of({"EQUINOX": 1975.0}) == SkySystem("FK4", 1975.0)
    assert system_of({"EQUINOX": 1985.0}) == SkySystem("FK5", 1985.0)
    assert system_of({"RADESYS": "ICRS", "EQUINOX": 2017.6}, wcs=True).is_icrs
    assert system_of({"RADESYS": "ICRS", "EQUINOX": 2017.6}) == SkySystem("FK5", 2017.6)
    assert system_of({"TELEQUIN": 2017.6, "EQUINOX": 2000.0}, "TELRA").equinox == 2017.6


def test_poles_and_the_origin_of_right_ascension():
    for ra, dec in ((0.0, 0.0), (359.99, -89.9), (10.0, 89.99)):
        there = SkyCoord(ra, dec, unit="deg", frame=FK5(equinox="J2023.2")).icrs
        found = SkyCoord(*to_icrs(ra, dec, SkySystem("FK5", 2023.2), START), unit="deg")
        assert there.separation(found) < 0.02 * u.arcsec
