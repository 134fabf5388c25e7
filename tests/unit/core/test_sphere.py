"""Angles between positions, the tangent plane and its inverse, mean positions."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from lib.core.sphere import mean_position, separation, unit_vectors


def test_separation_agrees_with_astropy():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, (2, 100)), rng.uniform(-90, 90, (2, 100))
    wanted = SkyCoord(ra[0], dec[0], unit="deg").separation(SkyCoord(ra[1], dec[1], unit="deg"))
    np.testing.assert_allclose(separation(ra[0], dec[0], ra[1], dec[1]), wanted.deg, rtol=1e-9)


def test_separation_is_exact_when_small_and_when_large():
    assert separation(10.0, 0.0, 10.0 + 1e-9, 0.0) == pytest.approx(1e-9, rel=1e-4)
    assert separation(0.0, 30.0, 180.0, -30.0) == pytest.approx(180.0)
    vectors = unit_vectors([10.0, 40.0], [20.0, -5.0])
    assert separation(10.0, 20.0, 40.0, -5.0) == pytest.approx(
        np.degrees(np.arccos(vectors[0] @ vectors[1]))
    )


def test_mean_position_across_ra_zero():
    ra, dec = mean_position([359.0, 1.0], [10.0, 10.0])
    assert ra % 360 == pytest.approx(0.0, abs=1e-9) or ra == pytest.approx(360.0)
    assert dec == pytest.approx(10.0, abs=0.01)
