"""Where the frames of a target lie."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from framefacts import made_facts

from lib.night.pointing import Field, field_of, frame_centre


def frame(**changes):
    usual = {"shape": (200, 100), "pixscale": 3.6, "poserr": 0.02, "mjd": 51544.5 + 3652.5}
    return made_facts(**usual | changes)


def test_field_holds_the_frames():
    wcs = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 0.0, "CRPIX2": 0.0,
        "CD1_1": -6e-4, "CD1_2": 8e-4, "CD2_1": 8e-4, "CD2_2": 6e-4,
    }  # fmt: skip
    one = frame(wcs=wcs)
    # Of 100 x 200 pixels, the middle is at (50.5, 100.5).
    expected = tuple(map(float, WCS(fits.Header(wcs)).wcs_pix2world(50.5, 100.5, 1)))
    ra, dec = frame_centre(one)
    assert (ra, dec) == pytest.approx(expected, abs=1e-9)
    field = field_of([one, frame(ra=ra, dec=dec + 2.0)])
    assert (field.ra, field.dec) == pytest.approx((ra, dec + 1.0), abs=1e-3)
    # Half the distance of the two, half a diagonal and the uncertainty of the pointing.
    assert field.radius == pytest.approx(1.0 + np.hypot(200, 100) / 2000 + 0.02, abs=1e-3)
    assert field.wide == field.radius
    assert field.epoch == 2010.0


def test_field_reaches_as_far_as_frames_are_looked_for():
    one = frame(ra=150.0, dec=20.0)
    narrow, wide = field_of([one]), field_of([one], 0.4)
    assert wide.radius == narrow.radius
    assert wide.wide == pytest.approx(np.hypot(200, 100) / 2000 + 0.4, abs=1e-3)
    # A pointing that is less certain than that decides.
    assert field_of([replace(one, poserr=1.0)], 0.4).wide > 1.0


def test_field_of_frames_that_tell_no_pointing():
    field = field_of([frame(ra=None, dec=None)])
    assert field == Field(None, None, field.radius, field.radius, 2010.0)
    assert field.radius == pytest.approx(np.hypot(200, 100) / 2000, abs=1e-3)
    field = field_of([frame(ra=None, dec=None)], 0.4, (210.5, -30.25))
    assert (field.ra, field.dec) == (210.5, -30.25)
    assert field.radius == pytest.approx(np.hypot(200, 100) / 2000 + 0.4, abs=1e-3)


def test_field_is_where_the_target_is_said_to_be_if_all_frames_tell_another():
    frames = [frame(ra=150.0, dec=20.0), frame(ra=150.1, dec=20.0)]
    assert field_of(frames, 0.4, (155.0, 20.0)).ra == 155.0
    # Not where one of them does, nor where it is near.
    assert field_of([*frames, frame(ra=155.0, dec=20.0)], 0.4, (155.0, 20.0)).ra != 155.0
    assert field_of(frames, 0.4, (150.9, 20.0)) == field_of(frames, 0.4)
