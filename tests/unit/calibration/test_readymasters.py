"""Masters of others: with or without their bias, of any level."""

import numpy as np
import pytest
from astropy.io import fits

from lib.calibration.corrections import subtract_bias_and_dark
from lib.calibration.readymasters import read_dark, read_flat
from lib.frame.file import Frame, FrameRejected

SHAPE = (60, 80)


@pytest.fixture
def bias():
    rng = np.random.default_rng(4)
    image = 1000 + rng.normal(0, 2, 80)[None, :] + rng.normal(0, 0.5, SHAPE)
    return Frame(image.astype(np.float32), np.zeros(SHAPE, np.uint8))


def put(path, pixels, **cards):
    fits.writeto(path, pixels.astype(np.float32), fits.Header(cards), overwrite=True)
    return path


@pytest.mark.parametrize("rate", [0.02, 5.0, 40.0])  # the last: as high as the bias in 60 s
@pytest.mark.parametrize("subtracted", [True, False])
def test_a_dark_is_told_by_its_pixels(tmp_path, bias, rate, subtracted):
    rng = np.random.default_rng(5)
    pixels = 60 * rate + rng.normal(0, 1, SHAPE) + (0 if subtracted else bias.image)
    path = put(tmp_path / "dark-C0.fits", pixels, EXPTIME=60.0)
    dark = read_dark(path, bias)
    assert dark.header["BUNIT"] == ("adu/s" if subtracted else "adu")
    assert "measured" in dark.header["NOTE1"]
    frame = Frame(bias.image + np.float32(30 * rate), np.zeros(SHAPE, np.uint8)).to_ccddata()
    frame.unit = "adu"
    left = subtract_bias_and_dark(frame, 30.0, bias, dark)
    assert np.median(left.data) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    "cards",
    [{"CALSTAT": "BM"}, {"ZEROCOR": "Mar 1"}, {"BIASSUB": True}, {"BUNIT": "DN/s"}],
)
def test_a_dark_is_told_by_its_header(tmp_path, bias, cards):
    pixels = np.full(SHAPE, 3.0)
    dark = read_dark(put(tmp_path / "d.fits", pixels, EXPTIME=60.0, **cards), bias)
    assert dark.header["BUNIT"] == "adu/s"
    assert np.median(dark.image) == pytest.approx(3.0 if "BUNIT" in cards else 0.05)


def test_a_dark_in_other_units_is_refused(tmp_path):
    path = put(tmp_path / "d.fits", np.ones(SHAPE), EXPTIME=60.0, BUNIT="electron")
    with pytest.raises(FrameRejected, match="DARK_UNIT"):
        read_dark(path)


def test_a_flat_in_counts_is_brought_to_one(tmp_path):
    response = 1 + 0.1 * np.linspace(-1, 1, 80)[None, :] * np.ones(SHAPE)
    flat = read_flat(put(tmp_path / "flat_V.fits", 30000 * response))
    np.testing.assert_allclose(flat.image, response / np.median(response), rtol=1e-5)
    with pytest.raises(FrameRejected, match="BAD_FLAT"):
        read_flat(put(tmp_path / "flat_V.fits", np.zeros(SHAPE)))
