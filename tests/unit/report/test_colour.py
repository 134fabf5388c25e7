"""Colour pictures."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lib.report import colour
from lib.report.sizes import Sizes


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


def star_field(folder, name, fwhm, shift, zero=(), size=200):
    """Write a coadd of five stars seen at `fwhm` pixels, its grid shifted; return its cards."""
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 40.0,
        "CRPIX1": 100.0 + shift[0], "CRPIX2": 100.0 + shift[1], "CD1_1": -1e-4, "CD2_2": 1e-4,
        "CD1_2": 0.0, "CD2_1": 0.0, "NAXIS1": size, "NAXIS2": size, "SEEING": 0.36 * fwhm,
        "ASTRCAT": "x",
    }  # fmt: skip
    rows, columns = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for x, y in ((60, 60.4), (120.5, 80), (90, 140), (150, 150.2), (40, 120)):
        distance = (columns - x - shift[0]) ** 2 + (rows - y - shift[1]) ** 2
        image += 1000 / fwhm**2 * np.exp(-4 * np.log(2) * distance / fwhm**2)
    weight = np.ones((size, size), np.float32)
    for x, y, radius in zero:
        weight[np.hypot(columns - x - shift[0], rows - y - shift[1]) < radius] = 0
    fits.writeto(folder / f"coadd{name}.fits", image.astype(np.float32))
    fits.writeto(folder / f"coadd{name}.weight.fits", weight)
    return cards


def test_stars_of_all_filters_have_one_place_and_one_width(tmp_path):
    """Seen with other seeing on other grids, a star has one colour from core to wing."""
    chosen = [
        ("T.g", star_field(tmp_path, "T.g", 5.0, (0, 0))),
        ("T.r", star_field(tmp_path, "T.r", 3.5, (3.4, -7.7))),
        ("T.i", star_field(tmp_path, "T.i", 4.2, (-11.25, 2.5))),
    ]
    planes, holes = colour.on_one_grid(chosen, tmp_path, Sizes(coadd=400))
    assert not np.any(holes)
    g = planes[0]
    bright = g > 0.05 * np.nanmax(g)
    for plane in planes[1:]:
        assert np.isfinite(plane[bright]).all()
        # Split or rounded to whole pixels its flanks would be off by a third, without matched
        # widths its core by three quarters.
        np.testing.assert_allclose(plane[bright], g[bright], atol=0.005 * np.nanmax(g))
    assert np.isnan(planes[2]).any(), "beyond the data of one filter there is nothing"


def test_burnt_out_cores_have_one_size_in_all_filters():
    rows, columns = np.mgrid[:60, :60]
    star = 1000 * np.exp(-((columns - 30.0) ** 2 + (rows - 30.0) ** 2) / 60) + 1
    holes = [np.hypot(columns - 30, rows - 30) < radius for radius in (2, 5, 0)]
    planes = [star * factor for factor in (1.0, 2.0, 3.0)]
    joined = colour.join_holes([p.astype(np.float32) for p in planes], holes)
    ratio = np.array(joined) / joined[0]
    np.testing.assert_allclose(ratio[1], 2, rtol=1e-3)
    np.testing.assert_allclose(ratio[2], 3, rtol=1e-3)
    assert joined[0][30, 30] > joined[0][30, 38], "the core is brighter than its rim"


def test_bad_pixels_on_the_flank_of_a_star_do_not_brighten_it():
    rows, columns = np.mgrid[:60, :60]
    star = (1000 * np.exp(-((columns - 30.0) ** 2 + (rows - 30.0) ** 2) / 60)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 1, star.shape).astype(np.float32)
    holes = [np.hypot(columns - 37, rows - 27) < 1.5, np.zeros(star.shape, bool)]
    planes = [star + noise, 2 * star + noise]
    for plane, joined in zip(planes, colour.join_holes(planes, holes), strict=True):
        np.testing.assert_array_equal(joined, plane)
    assert not colour.on_peaks([star + noise], holes[0]).any()
    assert colour.on_peaks([star + noise], np.hypot(columns - 30, rows - 30) < 3).sum() > 20


def test_colour_picture_is_made_of_filters_that_see_the_target(tmp_path):
    """Four filters, of which the bluest does not see the target."""
    stacks = {}
    for name, shift in (("g", 120), ("r", 0), ("i", 2), ("z", 4)):
        stacks[f"T.{name}"] = star_field(tmp_path, f"T.{name}", 4.0, (shift, 0))
    made = colour.make_composites(stacks, tmp_path, Sizes(), (10.0, 40.0))
    assert made["T"].filters == ["z", "i", "r"]
    away = stacks["T.r"] | {"CRPIX1": 20.0}
    assert colour.target_pixel(away, (200, 200), (10.0, 40.0)) == (99, 19)
