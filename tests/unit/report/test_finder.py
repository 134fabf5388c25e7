"""Finding charts."""

import base64
import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from lib.report import finder


def write_coadd(folder, angle, parity=1, size=400):
    """Write a coadd of one star at its target, turned by an angle [deg]; return its cards."""
    a = np.radians(angle)
    scale = 0.5 / 3600
    matrix = scale * np.array([[-parity * np.cos(a), np.sin(a)], [parity * np.sin(a), np.cos(a)]])
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
        "CRPIX1": 200.0, "CRPIX2": 180.0, "NAXIS1": size, "NAXIS2": size,
    } | {f"CD{i + 1}_{j + 1}": float(matrix[i, j]) for i in (0, 1) for j in (0, 1)}  # fmt: skip
    header = fits.Header({key: value for key, value in cards.items() if "NAXIS" not in key})
    ra, dec = 150.004, 2.006
    x, y = WCS(header).all_world2pix(ra, dec, 0)
    rows, columns = np.mgrid[:size, :size]
    image = np.random.default_rng(1).normal(0, 1, (size, size))
    image += 3000 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    fits.writeto(folder / "coaddT.r.fits", image.astype(np.float32), header)
    fits.writeto(folder / "coaddT.r.weight.fits", np.ones((size, size), np.float32))
    return cards, header, (ra, dec)


@pytest.mark.parametrize(("angle", "parity"), [(0, 1), (90, 1), (30, 1), (20, -1)])
def test_target_and_directions_are_where_the_coordinates_have_them(tmp_path, angle, parity):
    cards, header, (ra, dec) = write_coadd(tmp_path, angle, parity)
    north = ra, dec + 40 / 3600
    chart = finder.make_finder([("T.r", cards)], (ra, dec), north, tmp_path)
    picture = Image.open(io.BytesIO(base64.b64decode(chart.picture.split(",")[1]))).convert("L")
    dark = np.asarray(picture)
    y, x = (axis.mean() for axis in np.nonzero(dark < 20))
    side = len(dark)
    assert chart.target == pytest.approx((100 * (x + 0.5) / side, 100 * (y + 0.5) / side), abs=0.6)
    # The way to a star in the north is that of the arrow, and 40" long.
    way = np.subtract(chart.star, chart.target)
    width = 361 * 0.5
    assert np.hypot(*way) == pytest.approx(100 * 40 / width, abs=0.1)
    assert way / np.hypot(*way) == pytest.approx(chart.north, abs=0.01)
    wcs = WCS(header)
    there = np.subtract(wcs.all_world2pix(ra + 10 / 3600, dec, 0), wcs.all_world2pix(ra, dec, 0))
    east = there * (1, -1) / np.hypot(*there)
    assert chart.east == pytest.approx(east, abs=0.01)
    assert chart.bar == pytest.approx(100 * 30 / width, abs=0.1) and chart.bar_words == "30″"


def test_chart_at_the_edge_is_white_beyond_the_data():
    image = np.full((50, 60), 5.0, np.float32)
    shown, valid = finder.cut_out(image, None, 2, 48, 10)
    assert shown.shape == valid.shape == (21, 21)
    expected = np.zeros((21, 21), bool)
    expected[:12, 8:] = True
    assert (valid == expected).all() and (shown[valid] == 5).all()


def test_target_outside_of_every_stack_has_no_chart(tmp_path):
    cards, *_ = write_coadd(tmp_path, 0)
    assert finder.make_finder([("T.r", cards)], (151.0, 2.0), None, tmp_path) is None
    assert finder.make_finder([("T.r", {})], (150.0, 2.0), None, tmp_path) is None
