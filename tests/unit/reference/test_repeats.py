"""Rows that repeat others are left out; double stars are not."""

import numpy as np
import pytest
from astropy.table import Table, vstack

from lib.reference.referencetable import blank_table
from lib.reference.repeats import CLOSE, _number_close, merge_repeats


def field(number=400, seed=1):
    rng = np.random.default_rng(seed)
    table = blank_table(number)
    table["ra"], table["dec"] = rng.uniform(149.8, 150.2, number), rng.uniform(1.8, 2.2, number)
    for band in ("g", "r"):
        table[band] = rng.uniform(13, 21, number)
        table[f"{band}_err"] = 0.01
    return table


def moved(table, arcsec, magnitudes=0.0, seed=2):
    rng = np.random.default_rng(seed)
    other = table.copy()
    angle = rng.uniform(0, 2 * np.pi, len(table))
    other["ra"] += arcsec * np.cos(angle) / 3600 / np.cos(np.radians(2))
    other["dec"] += arcsec * np.sin(angle) / 3600
    other["r"] += rng.normal(0, magnitudes, len(table))
    return other


@pytest.mark.parametrize("arcsec, magnitudes", [(0.0, 0.0), (0.0, 1.0), (0.1, 0.02), (0.4, 0.05)])
def test_every_row_twice_is_every_row_once(arcsec, magnitudes):
    table = field()
    assumed = []
    found = merge_repeats("t", vstack([table, moved(table, arcsec, magnitudes)]), assumed)
    assert assumed == ["400 of 800 rows repeat others and are left out"]
    assert np.array_equal(found["ra"], table["ra"]) and np.array_equal(found["r"], table["r"])


def test_what_only_the_repetition_knows_is_kept():
    table = field()
    other = moved(table, 0.2)
    table["r"][::2], table["r_err"][::2] = np.nan, np.nan
    found = merge_repeats("t", vstack([table, other]), [])
    assert len(found) == 400 and np.isfinite(found["r"]).all()
    assert np.array_equal(found["r"][::2], other["r"][::2])


def test_double_stars_and_crowds_stay():
    table = field()
    doubles = moved(table[:40], 0.5)
    both = vstack([table, doubles])
    assert len(merge_repeats("t", both, [])) == 440
    # Neighbours that are no more alike than any two stars.
    unlike = moved(table, 0.5)
    unlike["g"] += 1.0
    assert len(merge_repeats("t", vstack([table, unlike]), [])) == 800


def test_one_star_many_times_takes_no_time():
    table = field(1)
    found = merge_repeats("t", vstack([table] * 20_000), [])
    assert len(found) == 1
    assert len(merge_repeats("t", field(1), [])) == 1


@pytest.mark.parametrize("dec", [2.0, -60.0, 85.0])
def test_rows_that_may_be_close_are_counted_wherever_they_lie(dec):
    rng = np.random.default_rng(3)
    ra, decs = rng.uniform(200, 201, 300), dec + rng.uniform(0, 0.5, 300)
    angle = rng.uniform(0, 2 * np.pi, 300)
    shift = 0.99 * CLOSE / 3600
    near = ra + shift * np.cos(angle) / np.cos(np.radians(decs)), decs + shift * np.sin(angle)
    table = Table({"ra": np.r_[ra, near[0]], "dec": np.r_[decs, near[1]]})
    assert _number_close(table) == 600
    assert _number_close(table[:300]) < 60
