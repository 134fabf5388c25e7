"""Magnitudes joined from other catalogues."""

import numpy as np
import pytest

from lib.reference.epochs import move_positions
from lib.reference.photometry import join_photometry, tie_to_reference
from lib.reference.referencetable import blank_table


def two_catalogues(n=200, seed=2):
    """Return a reference of 2016 with proper motions, and the same stars seen in 2000."""
    rng = np.random.default_rng(seed)
    table, other = blank_table(n), blank_table(n)
    table["ra"], table["dec"] = rng.uniform(150, 150.3, n), rng.uniform(2, 2.3, n)
    table["pmra"], table["pmdec"] = rng.normal(0, 300, n), rng.normal(0, 300, n)
    table["epoch"], other["epoch"] = 2016.0, 2000.0
    other["ra"], other["dec"] = move_positions(
        table["ra"], table["dec"], table["pmra"], table["pmdec"], -16.0
    )
    other["r"], other["r_err"] = rng.uniform(14, 18, n), 0.02
    return table, other


def test_photometry_follows_proper_motion_and_keeps_what_is_there():
    table, other = two_catalogues()
    table["r"][:10], table["r_err"][:10] = 5.0, 0.001
    other["r_err"][10:20] = 0.5
    filled = join_photometry(table, other, "SDSS", radius=0.5)
    assert filled["r"] == 180
    assert (table["r"][:10] == 5.0).all() and np.isnan(table["r"][10:20]).all()
    np.testing.assert_allclose(table["r"][20:], other["r"][20:])
    assert (table["r_src"][20:] == "SDSS").all() and (table["r_src"][:20] == "").all()


def test_without_motion_the_fast_stars_would_be_lost():
    table, other = two_catalogues()
    table["pmra"] = table["pmdec"] = np.nan
    assert join_photometry(table, other, "SDSS", radius=0.5)["r"] < 20


def test_survey_is_tied_by_the_stars_of_the_field():
    rng = np.random.default_rng(6)
    table, other = two_catalogues(300)
    colour = rng.uniform(0.2, 1.5, 300)
    other["g"], other["i"] = 17.0 + colour, 17.0
    other["g_err"] = other["i_err"] = 0.01
    truth = np.asarray(other["g"]) + 0.07 + 0.2 * colour
    table["g"] = np.where(np.arange(300) < 60, truth + rng.normal(0, 0.02, 300), np.nan)
    table["g"][:3] += 1.0  # variables, blends
    offset, slope, scatter, n = tie_to_reference(table, other, "g", "g", "i")
    assert offset == pytest.approx(0.07, abs=0.02) and slope == pytest.approx(0.2, abs=0.02)
    assert 0.012 < scatter < 0.03 and 45 <= n <= 57
    tied = np.isfinite(other["g"])
    assert tied.sum() > 250
    assert np.abs(np.asarray(other["g"]) - truth)[tied].max() < 0.03


def test_too_few_common_stars_tie_nothing():
    table, other = two_catalogues(50)
    other["g"], other["i"], other["g_err"] = 17.0, 16.0, 0.01
    table["g"][:5] = 17.1
    assert tie_to_reference(table, other, "g", "g", "i") is None
    assert np.isnan(other["g"]).all()
