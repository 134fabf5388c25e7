"""Celestial coordinates of a header, against astropy."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from lib.core.bands import BAND_ORDER, BANDS, BLUE_TO_RED, VEGA_BANDS
from lib.core.wcs import celestial_wcs, frame_outline, pixel_scale, wcs_cards

CARDS = {
    "NAXIS": 2, "NAXIS1": 300, "NAXIS2": 200, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 150.5, "CRPIX2": 100.5, "CD1_1": -8e-5,
    "CD1_2": 6e-5, "CD2_1": 6e-5, "CD2_2": 8e-5, "EXPTIME": 60.0, "CAMERA": 1.0,
}  # fmt: skip


def test_cards_of_the_coordinates_and_no_others():
    kept = set(wcs_cards(fits.Header(CARDS)))
    assert kept == set(CARDS) - {"NAXIS", "NAXIS1", "NAXIS2", "EXPTIME", "CAMERA"}


def test_pixel_scale_agrees_with_astropy():
    wcs = celestial_wcs(fits.Header(CARDS))
    assert pixel_scale(wcs) == pytest.approx(3600 * proj_plane_pixel_scales(wcs)[0])
    assert wcs.pixel_shape == (300, 200)


def test_outline_runs_through_the_corners():
    header = fits.Header(CARDS)
    outline = frame_outline(celestial_wcs(header), points=3)
    assert outline.shape == (12, 2)
    corners = WCS(header).calc_footprint(center=False)
    for corner in corners:
        assert np.abs(outline - corner).max(axis=1).min() < 1e-9


def test_bands_are_listed_alike():
    assert set(BLUE_TO_RED) == set(BANDS) and len(BLUE_TO_RED) == len(BANDS)
    assert set(VEGA_BANDS) < set(BANDS) < set(BAND_ORDER)
