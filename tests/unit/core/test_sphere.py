"""Angles between positions, the tangent plane and its inverse, mean positions."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from lib.core.sphere import deproject, mean_position, project, separation, unit_vectors


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


@pytest.mark.parametrize("dec0", [-89.9, -30.0, 0.0, 75.0])
def test_projection_and_its_inverse(dec0):
    rng = np.random.default_rng(1)
    points = rng.uniform(-3000, 3000, (50, 2))
    ra, dec = deproject(points, 359.99, dec0)
    # 1e-6 arcsec is a hundred times the rounding of degrees in double precision.
    np.testing.assert_allclose(project(ra, dec, 359.99, dec0), points, atol=1e-6)


def test_projection_agrees_with_wcslib():
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10.0, 60.0]
    wcs.wcs.cdelt = [1 / 3600, 1 / 3600]
    wcs.wcs.crpix = [0.0, 0.0]
    ra, dec = wcs.wcs_pix2world([1000.0], [-500.0], 0)
    np.testing.assert_allclose(project(ra, dec, 10.0, 60.0)[0], [1001.0, -499.0], atol=1e-6)


def test_far_hemisphere_is_not_projected():
    assert np.all(np.isnan(project([180.0], [0.0], 0.0, 0.0)))
