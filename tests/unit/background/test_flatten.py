"""Flat-fielding on frames whose light is known."""

import numpy as np
import pytest
import simulate
from astropy.io import fits
from scipy.signal import fftconvolve

from lib.background.flatten import flatten_frame
from lib.background.sky import sky_level
from lib.calibration.corrections import divide_by_flat
from lib.frame.file import BAD, NODATA, SATURATED, SOURCE, Frame, FrameRejected

SHAPE = (256, 256)


def simulated(sky=800.0, **options):
    exposure, detector, maps = simulate.simulate_frame(
        SHAPE, stars=60, sky=sky, flat=True, cosmic_scale=0, seed=3, bad=2e-3, hot=0.0, **options
    )
    header = fits.Header({"EXPTIME": 60.0, "SATURATE": 6e4, "GAIN": 1.0, "RDNOISE": 5.0})
    frame = Frame(exposure.raw.astype(np.float32), np.zeros(SHAPE, np.uint8), header)
    flat = Frame(maps.flat.copy(), np.zeros(SHAPE, np.uint8), fits.Header())
    return frame, flat, exposure, maps


def test_flattened_frame_is_the_light_before_the_detector():
    frame, flat, exposure, maps = simulated()
    after = flatten_frame(frame, flat)
    good = after.mask & (NODATA | BAD) == 0
    light = exposure.stars + exposure.sky
    noise = np.sqrt(light * maps.flat + 25) / np.where(maps.flat > 0, maps.flat, 1)
    pull = ((after.image - light) / noise)[good]
    assert pull.std() == pytest.approx(1, abs=0.02)
    assert abs(pull.mean()) < 5 / np.sqrt(good.sum())


def test_low_response_holds_no_data():
    frame, flat, _, maps = simulated()
    after = flatten_frame(frame, flat, low_response=0.3)
    np.testing.assert_array_equal(after.mask & NODATA > 0, maps.flat < 0.3)
    assert (after.image[maps.flat < 0.3] == 0).all()
    flat.image[5, 5] = np.nan
    flat.mask[6, 6] = BAD
    mask = divide_by_flat(frame, flat).mask
    assert mask[5, 5] & NODATA and mask[6, 6] & BAD


def test_sky_level_rate_and_noise():
    frame, flat, exposure, _ = simulated()
    frame.mask[0, :9] = SATURATED
    header = flatten_frame(frame, flat).header
    # 50,000 pixels know their median to 0.16 electrons; sources below the noise add some.
    assert header["SKYCTS"] == pytest.approx(800, abs=3)
    assert header["CTRATE"] == pytest.approx(800 / 60, rel=5e-3)
    assert header["SKYNOISE"] == pytest.approx(np.sqrt(825), rel=0.08)
    assert header["NSATUR"] == 9


def test_sources_are_marked_with_their_wings():
    frame, flat, exposure, _ = simulated()
    after = flatten_frame(frame, flat)
    source = after.mask & SOURCE > 0
    seen = after.mask & NODATA == 0
    assert source[seen & (exposure.stars > 90)].all()  # three times the noise of the sky
    # Light of wings and of stars too faint to be seen raises the sky by a fiftieth of its noise.
    assert exposure.stars[seen & ~source].mean() < 0.02 * np.sqrt(825)
    level, _ = sky_level(after.image, after.mask, source)
    assert level == pytest.approx(800, abs=3)
    assert 0.02 < source.mean() < 0.6


def test_without_flat_the_response_is_one():
    frame, *_ = simulated()
    before = frame.image.copy()
    np.testing.assert_array_equal(flatten_frame(frame).image, before)


def test_sky_in_a_crowd_is_the_mode(caplog):
    """450,000 stars a square degree, a star each 80 pixels: no pixel is free of their light."""
    rng = np.random.default_rng(5)
    light = np.zeros(SHAPE)
    place = rng.integers(0, SHAPE[0], (2, 820))
    magnitude = 13 + 7.5 * rng.random(820) ** 0.6
    np.add.at(light, tuple(place), 60 * 10 ** (-0.4 * (magnitude - 24)))
    y, x = np.indices((101, 101)) - 50
    star = (1 + (x**2 + y**2) / 12.8) ** -3
    light = fftconvolve(light, star / star.sum(), mode="same").clip(0) + 500
    header = fits.Header({"EXPTIME": 60.0, "SATURATE": 1e5, "GAIN": 1.0, "RDNOISE": 6.0})
    image = (rng.poisson(light) + rng.normal(0, 6, SHAPE)).astype(np.float32)
    after = flatten_frame(Frame(image, np.zeros(SHAPE, np.uint8), header))
    assert "sources everywhere" in caplog.text
    # The darkest of it holds some light of the wings: less than the noise that it makes.
    assert 0 < after.header["SKYCTS"] - 500 < 2 * after.header["SKYNOISE"] < 100
    marked = after.mask & SOURCE > 0
    assert 0.3 < marked.mean() < 0.8
    assert np.mean(marked[light > 500 + 10 * after.header["SKYNOISE"]]) > 0.99


@pytest.mark.parametrize("case", ["shape", "saturated", "no data", "rejected flat"])
def test_unfit_frames_are_rejected(case):
    frame, flat, *_ = simulated()
    code = {"shape": "FLAT_SHAPE", "saturated": "SKY_SATURATED", "no data": "NO_DATA",
            "rejected flat": "BAD_FLAT"}[case]  # fmt: skip
    if case == "shape":
        flat.image, flat.mask = flat.image[:-1], flat.mask[:-1]
    elif case == "saturated":
        frame.header["SATURATE"] = 850.0
    elif case == "no data":
        flat.image[:] = 0.1
    else:
        flat = Frame(None, None, fits.Header({"QCSTAT": "REJECTED", "QCREASON": "NO_GOOD_INPUT"}))
    with pytest.raises(FrameRejected, match=code):
        flatten_frame(frame, flat)
