"""lib.core.crossmatch and the projection that it works in."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from lib.core.crossmatch import common_stars, match
from lib.core.sphere import project


@pytest.mark.parametrize("ra0, dec0", [(10.0, 20.0), (359.99, -75.0), (0.001, 89.0)])
def test_gnomonic_projection_agrees_with_astropy(ra0, dec0):
    centre = SkyCoord(ra0, dec0, unit="deg")
    angles, radii = np.array([10.0, 130.0, 250.0]), np.array([30.0, 200.0, 600.0])
    sky = centre.directional_offset_by(angles * u.deg, radii * u.arcsec)
    plane = project(sky.ra.deg, sky.dec.deg, ra0, dec0)
    distance = np.degrees(np.tan(np.radians(radii / 3600))) * 3600
    assert np.allclose(np.hypot(*plane.T), distance, atol=1e-5)
    assert np.allclose(np.degrees(np.arctan2(*plane.T)) % 360, angles, atol=1e-4)


def test_match_is_one_to_one_and_leaves_doubles_out():
    reference = np.array([[0, 0], [10, 0], [10.5, 0], [20, 0], [np.nan, 0], [50, 0]], float)
    plane = np.array([[0.3, 0], [-0.1, 0], [10.2, 0], [20.4, 0], [35, 0]], float)
    ours, theirs = match(plane, reference, 1.0)
    assert dict(zip(ours.tolist(), theirs.tolist(), strict=True)) == {1: 0, 3: 3}


def test_match_of_nothing():
    empty = np.empty((0, 2))
    for a, b in ((empty, np.zeros((3, 2))), (np.zeros((3, 2)), empty)):
        assert match(a, b, 1.0)[0].size == 0
    assert match(np.array([[0.0, 0]]), np.array([[0.1, 0]]), 1.0)[0].size == 1


def test_stars_of_frames_get_common_numbers():
    stars = np.array([[0, 0], [10, 0], [20, 0], [30, 5]], float)
    frames = [stars[[0, 1]] + 0.1, stars + 0.0, stars[[3, 2]] - 0.1, np.empty((0, 2))]
    numbers, count = common_stars(frames, 1.0)
    assert count == 4
    assert numbers[0].tolist() == numbers[1][[0, 1]].tolist()
    assert numbers[2].tolist() == numbers[1][[3, 2]].tolist()
    assert numbers[3].size == 0
