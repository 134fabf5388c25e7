"""Corrections by ccdproc: what the equations say, in single precision to the last bit."""

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from framefacts import made_facts

from lib.calibration.corrections import check_master_fits, divide_by_flat, subtract_bias_and_dark
from lib.calibration.detector import gain_map
from lib.frame.file import BAD, COSMIC, NODATA, SATURATED, Frame, FrameRejected

SHAPE = (60, 70)


def master(image, unit="adu", bad=None):
    mask = np.zeros(SHAPE, np.uint8)
    if bad:
        mask[bad] = BAD
    return Frame(image.astype(np.float32), mask, fits.Header({"BUNIT": unit}))


@pytest.fixture
def parts():
    """Raw frame, bias, dark current and flat."""
    rng = np.random.default_rng(1)
    flags = np.zeros(SHAPE, np.uint8)
    flags[3, 4] = SATURATED
    raw = CCDData(rng.uniform(400, 6e4, SHAPE).astype(np.float32), unit=u.adu, flags=flags)
    bias = master(rng.normal(400, 5, SHAPE), bad=(1, 2))
    dark = master(rng.gamma(2, 0.05, SHAPE), "adu/s", bad=(5, 6))
    return raw, bias, dark, master(rng.normal(1, 0.02, SHAPE), "", bad=(7, 8))


def test_bias_and_scaled_dark(parts):
    raw, bias, dark, _ = parts
    before = raw.data.copy()
    ccd = subtract_bias_and_dark(raw, 37.3, bias, dark)
    expected = raw.data - bias.image - dark.image * np.float32(37.3)
    assert ccd.data.dtype == np.float32 and ccd.unit == u.adu
    np.testing.assert_array_equal(ccd.data, expected)
    assert ccd.flags[3, 4] == SATURATED and ccd.flags[1, 2] == ccd.flags[5, 6] == BAD
    assert np.count_nonzero(ccd.flags) == 3
    np.testing.assert_array_equal(raw.data, before)
    assert np.count_nonzero(raw.flags) == 1


def test_dark_that_holds_its_bias_replaces_it(parts):
    raw, bias, dark, _ = parts
    dark.header["BUNIT"] = "adu"
    ccd = subtract_bias_and_dark(raw, 37.3, bias, dark)
    np.testing.assert_array_equal(ccd.data, raw.data - dark.image)
    assert ccd.flags[5, 6] == BAD and ccd.flags[1, 2] == 0


def test_without_masters_nothing_changes(parts):
    raw, *_ = parts
    ccd = subtract_bias_and_dark(raw, None)
    assert ccd.data is raw.data and ccd.flags is raw.flags


def test_flat(parts):
    raw, _, _, flat = parts
    flat.image[10, 11], flat.image[12, 13] = 0.1, np.nan
    header = fits.Header()
    frame = divide_by_flat(Frame(raw.data, raw.flags, header), flat, 0.3)
    expected = raw.data / flat.image
    expected[10, 11] = expected[12, 13] = 0
    assert frame.image.dtype == np.float32 and frame.header is header
    np.testing.assert_array_equal(frame.image, expected)
    assert frame.mask[10, 11] == frame.mask[12, 13] == NODATA
    assert frame.mask[7, 8] == BAD and frame.mask[3, 4] == SATURATED
    # What else is known of the flat says nothing of the frame.
    flat.mask[20, 20] = COSMIC
    assert divide_by_flat(Frame(raw.data, raw.flags, header), flat).mask[20, 20] == 0


@pytest.mark.parametrize("gains", [(1.7, None), (1.7, 2.3)])
def test_gain_in_single_precision(parts, gains):
    raw, *_ = parts
    amplifiers = [
        {"hdu": 0, "data": [0, 60, 0, 35], "origin": [0, 0], "gain": gains[0]},
        {"hdu": 0, "data": [0, 60, 4, 39], "origin": [0, 35], "gain": gains[1]},
    ]
    gain = gain_map(made_facts(gain=1.7, shape=SHAPE, amplifiers=amplifiers))
    ccd = ccdproc.gain_correct(raw, gain, add_keyword=False)
    assert ccd.unit == u.electron and ccd.data.dtype == np.float32
    right = np.float32(gains[1] or 1.7)
    np.testing.assert_array_equal(ccd.data[:, :35], raw.data[:, :35] * np.float32(1.7))
    np.testing.assert_array_equal(ccd.data[:, 35:], raw.data[:, 35:] * right)


def test_masters_that_do_not_fit(parts):
    _, bias, *_ = parts
    with pytest.raises(FrameRejected, match=r"BIAS_SHAPE: \(60, 70\) for a frame of \(60, 71\)"):
        check_master_fits(bias, (60, 71), "BIAS")
    bias.header["QCSTAT"], bias.header["QCREASON"] = "REJECTED", "NO_GOOD_INPUT"
    with pytest.raises(FrameRejected, match="BAD_BIAS: NO_GOOD_INPUT"):
        check_master_fits(bias, SHAPE, "BIAS")
