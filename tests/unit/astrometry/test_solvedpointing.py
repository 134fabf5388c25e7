"""Where the telescope pointed by the solution, and what the coadd and the page take of it."""

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.solution import take_for_hours
from lib.astrometry.solvedheader import apply_solution
from lib.astrometry.solvedpointing import solved_pointing
from lib.report.pointingremarks import pointing_remarks
from lib.stack.header import pointing_cards

SCALE = 0.6 / 3600


def cards(ra, dec, x=256.0, y=256.0, turn=0.0):
    cos, sin = SCALE * np.cos(turn), SCALE * np.sin(turn)
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": x,
        "CRPIX2": y,
        "CD1_1": -cos,
        "CD1_2": sin,
        "CD2_1": sin,
        "CD2_2": cos,
    }


def header(ra=150.0, dec=20.0, **changes):
    made = fits.Header()
    made.update(cards(150.0, 20.0) | {"RA": ra, "DEC": dec} | changes)
    return made


def pointing(header, cards):
    return solved_pointing(header, (512, 512), map_from_cards(cards))


def test_pointing_moves_with_the_solution():
    # The whole frame lies 0.3 deg further north than its header has it.
    ra, dec = pointing(header(), cards(150.0, 20.3))
    assert (ra, dec) == (pytest.approx(150.0), pytest.approx(20.3))
    # The target a minute of arc north of the middle, on a frame that is right.
    ra, dec = pointing(header(dec=20 + 1 / 60), cards(150.0, 20.0))
    assert (ra, dec) == (pytest.approx(150.0, abs=1e-6), pytest.approx(20 + 1 / 60, abs=1e-6))
    # The pixel counts: on a frame turned by half a circle that target is a minute south.
    ra, dec = pointing(header(dec=20 + 1 / 60), cards(150.0, 20.0, turn=np.pi))
    assert dec == pytest.approx(20 - 1 / 60, abs=1e-6)


def test_pointing_beside_the_frame_moves_with_the_solution():
    """One half of a split detector: the telescope points at the other."""
    right = header(dec=20 + 300 * SCALE)
    for turn in (0.0, np.pi / 2, np.pi):
        ra, dec = pointing(right, cards(150.0, 20.3, turn=turn))
        north = 300 * SCALE * np.cos(turn)
        assert dec == pytest.approx(20.3 + north, abs=1e-5)
        assert abs(ra - 150) * np.cos(np.radians(20.3)) == pytest.approx(
            300 * SCALE * abs(np.sin(turn)), abs=1e-5
        )
    off = [solved(right, cards(150.0, 20.0)) for _ in range(3)]
    assert "POINTOFF" not in pointing_cards(off)


def test_pointing_outside_of_the_frame_is_that_of_its_middle():
    ra, dec = pointing(header(ra=151.0), cards(149.0, 21.0, x=256.5, y=256.5))
    assert (ra, dec) == (pytest.approx(149.0), pytest.approx(21.0))
    assert pointing(fits.Header(), cards(150.0, 20.0)) is None


def solved(header, new, catalogue="a table"):
    solution = {"cards": new, "nstars": 30, "degree": 1, "rms": [20.0, 20.0]}
    solution["pointing"] = pointing(header, new)
    return apply_solution(header, solution, catalogue)


def test_coadd_takes_the_pointing_of_the_solution_only_where_the_header_is_off():
    good = [solved(header(), cards(150.0, 20.0 + 0.2 / 60)) for _ in range(3)]
    assert pointing_cards(good)["DEC"][0] == 20.0 and "POINTOFF" not in pointing_cards(good)
    off = [solved(header(), cards(150.0, 20.3)) for _ in range(3)]
    found = pointing_cards(off)
    assert found["DEC"][0] == pytest.approx(20.3)
    assert found["POINTOFF"][0] == pytest.approx(18.0, abs=0.01)
    alone = [solved(header(), cards(150.0, 20.3), "NONE") for _ in range(3)]
    assert pointing_cards(alone)["DEC"][0] == 20.0


def test_right_ascension_in_hours_that_the_reference_has_shown():
    made = header(ra=10.0)
    made["CRVAL1"] = 10.0
    take_for_hours(made)
    assert (made["RA"], made["CRVAL1"]) == (150.0, 150.0)


def test_remarks_name_offset_and_unit():
    guessed = made_facts(frame="2o", ra=10.0, dec=20.0, ra_guessed=True)
    told = made_facts(frame="2o", ra=10.0, dec=20.0)
    assert "20.1'" in pointing_remarks("a.r", {"POINTOFF": 20.1, "ASTRCAT": "x"}, told)[0]
    assert "hours" in pointing_remarks("a.r", {"POINTOFF": 7890.0, "ASTRCAT": "x"}, guessed)[0]
    assert "150 deg" in pointing_remarks("a.r", {"ASTRCAT": "NONE"}, guessed)[0]
    assert pointing_remarks("a.r", {"ASTRCAT": "NONE"}, told) == []
    assert pointing_remarks("a.r", {"ASTRCAT": "x"}, guessed) == []
