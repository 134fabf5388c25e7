"""Colour pictures."""

import numpy as np
import pytest
from astropy.wcs import WCS

from lib.report import colour


@pytest.mark.parametrize("degrees", [0.1, 2.0])
def test_pixels_between_grids_are_those_of_the_coordinates(degrees):
    step = degrees / 500

    def made(ra, dec, angle):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = (
            ["RA---TAN", "DEC--TAN"],
            [ra, dec],
            [250, 250],
        )
        a = np.radians(angle)
        wcs.wcs.cd = step * np.array([[-np.cos(a), np.sin(a)], [np.sin(a), np.cos(a)]])
        return wcs

    one, other = made(10.0, 60.0, 0), made(10.0 + degrees / 3, 60.0 - degrees / 4, 30)
    x, y = np.arange(0, 500, 7.0), np.arange(0, 400, 7.0)
    column, row = colour.between_grids(one, other, x, y)
    assert column.shape == row.shape == (len(y), len(x))
    grid = np.meshgrid(x, y)
    expected = other.all_world2pix(*one.all_pix2world(*(v.ravel() for v in grid), 0), 0)
    np.testing.assert_allclose(column.ravel(), expected[0], atol=0.1)
    np.testing.assert_allclose(row.ravel(), expected[1], atol=0.1)
