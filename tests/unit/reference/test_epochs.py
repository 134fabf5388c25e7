"""Proper motion, and the stars of two catalogues that are the same."""

import numpy as np
import pytest

from lib.reference.epochs import match_positions, move_positions, move_to_epoch
from lib.reference.referencetable import blank_table


@pytest.mark.parametrize("dec", [0.0, -60.0, 89.0])
def test_proper_motion_is_along_a_great_circle(dec):
    """A unit vector moved by its proper motion in the tangent plane, and normalised."""
    years, (pmra, pmdec) = 30.0, (3000.0, -5000.0)
    a, d = np.radians(359.9999), np.radians(dec)
    radial = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.cross(radial, east)
    moved = radial + np.radians(1 / 3.6e6) * years * (pmra * east + pmdec * north)
    ra, dec = move_positions([359.9999], [dec], [pmra], [pmdec], [years])
    expected = np.degrees(
        [np.arctan2(moved[1], moved[0]) % (2 * np.pi), np.arctan2(moved[2], np.hypot(*moved[:2]))]
    )
    # Microarcseconds.
    np.testing.assert_allclose([ra[0], dec[0]], expected, rtol=0, atol=1e-10)


def test_star_without_proper_motion_stays():
    ra, dec = move_positions([10.0, 20.0], [0.0, 5.0], [np.nan, 0.0], [np.nan, 0.0], [50.0, -50.0])
    np.testing.assert_allclose([ra, dec], [[10.0, 20.0], [0.0, 5.0]], rtol=0, atol=1e-12)


def test_far_epochs_raise_no_warning():
    """Warnings are errors here: 1850 has no leap seconds."""
    table = blank_table(1)
    table["ra"], table["dec"], table["epoch"] = 10.0, 20.0, 1850.0
    assert move_to_epoch(table, 2026.5)["epoch"][0] == 2026.5


def test_errors_grow_with_the_years():
    table = blank_table(3)
    table["ra"], table["dec"], table["epoch"] = 150.0, 2.0, 2016.0
    table["ra_err"] = table["dec_err"] = 0.1
    table["pmra"] = table["pmdec"] = [10.0, np.nan, 10.0]
    table["pmra_err"] = table["pmdec_err"] = [0.5, np.nan, 0.5]
    table["epoch"][2] = np.nan
    moved = move_to_epoch(table, 2026.0)
    np.testing.assert_allclose(moved["ra_err"], [np.hypot(0.1, 5), np.hypot(0.1, 50), 0.1])
    assert moved["dec"][1] == pytest.approx(2.0, abs=1e-12)  # unknown motion: where it was
    assert moved["ra"][2] == pytest.approx(150.0, abs=1e-12)  # unknown epoch too
    assert moved["dec"][0] == pytest.approx(2.0 + 100 / 3.6e6, abs=1e-10)
    assert table["dec"][0] == 2.0  # the given table is not changed


def test_matches_are_mutual():
    ra1, ra2 = np.array([10.0, 10.0 + 0.3 / 3600, 10.1]), np.array([10.0 + 0.05 / 3600, 20.0])
    first, second = match_positions(ra1, [0, 0, 0], ra2, [0, 0], 1.0)
    assert (list(first), list(second)) == ([0], [0])
    first, second = match_positions(ra1, [0, 0, 0], [], [], 1.0)
    assert len(first) == len(second) == 0
