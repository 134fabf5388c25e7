"""Saturation found in the pixels: plateaus at one top value, cores that have wrapped around."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import binary_dilation
from test_detector import facts_of

from lib.calibration.detector import assemble
from lib.calibration.prepare import prepare_frame
from lib.calibration.saturation import is_converter_top, top_plateau, wrapped_cores
from lib.frame.file import SATURATED

SHAPE = (300, 320)


def star_field(seed=3, brightest=4e5, width=1.8, ring=0.0):
    """Electrons of a sky of 300 with stars, the brightest of which have `brightest` at the peak."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.full(SHAPE, 300.0)
    for peak in brightest * np.logspace(0, -3, 40):
        cy, cx = rng.uniform(15, SHAPE[0] - 15), rng.uniform(15, SHAPE[1] - 15)
        r = np.hypot(y - cy, x - cx) - ring
        image += peak * np.exp(-(r**2) / 2 / width**2)
    return rng.poisson(image).astype(float)


def digitised(electrons, gain=2.0, bias=500.0, largest=65535, seed=4):
    noise = np.random.default_rng(seed).normal(0, 5, electrons.shape)
    return np.clip(np.round((electrons + noise) / gain + bias), 0, largest)


@pytest.mark.parametrize("largest", [4095, 16383, 50000, 65504])
def test_plateau_of_saturated_stars(largest):
    raw = digitised(star_field(), gain=2.0 * 65535 / largest, largest=largest).astype(np.uint16)
    top, count = top_plateau(raw)
    assert top == largest
    assert count == np.count_nonzero(raw == largest) >= 10


def test_plateau_of_padded_values_and_of_a_clipped_flat():
    raw = digitised(star_field(), gain=16.0, bias=256, largest=4095).astype(np.uint16) * 16
    assert top_plateau(raw)[0] == 65520
    light = np.random.default_rng(1).poisson(32100, SHAPE)
    raw = digitised(light.astype(float), bias=300, largest=16383).astype(np.uint16)
    assert top_plateau(raw)[0] == 16383 and 0.2 < (raw == 16383).mean() < 0.8


@pytest.mark.parametrize("level", [0.0, 300.0, 3e4])
@pytest.mark.parametrize("step", [1, 16])
def test_no_plateau_in_noise(level, step):
    for seed in range(20):
        light = np.random.default_rng(seed).poisson(np.full(SHAPE, level)).astype(float)
        raw = digitised(light, bias=1500, seed=seed).astype(np.uint16) // step * step
        assert top_plateau(raw) is None


def test_no_plateau_in_stars_that_do_not_saturate():
    for seed in range(20):
        assert top_plateau(digitised(star_field(seed, 3e4)).astype(np.uint16)) is None


def test_tops_of_converters():
    assert all(is_converter_top(value) for value in (1023, 4095, 16383, 65535, 65520, 65532, 4092))
    assert not any(is_converter_top(value) for value in (1024, 50000, 65000, 65504.5, 255, 7))


def test_frame_is_flagged_and_told_where_the_header_has_more(tmp_path):
    raw = digitised(star_field(), largest=16383).astype(np.uint16)
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    frame = prepare_frame(tmp_path / "r.fits", facts_of("r", shape=SHAPE, saturate=65535.0))
    assert frame.header["SATURATE"] == pytest.approx(16383 * 1.8)
    assert (frame.mask[raw == 16383] & SATURATED > 0).all()
    assert "16383" in frame.header["NOTE1"] and "65535" in frame.header["NOTE1"]


def test_a_lower_level_of_the_header_counts(tmp_path):
    raw = digitised(star_field(), largest=16383).astype(np.uint16)
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    frame = prepare_frame(tmp_path / "r.fits", facts_of("r", shape=SHAPE, saturate=12000.0))
    assert frame.header["SATURATE"] == pytest.approx(12000 * 1.8)
    assert "NOTE1" not in frame.header


@pytest.mark.parametrize(("brightest", "width"), [(4e5, 1.8), (1.8e5, 1.8), (4e5, 1.2), (1e6, 3.0)])
def test_cores_that_wrap_around(tmp_path, brightest, width):
    electrons = star_field(brightest=brightest, width=width)
    raw = (np.round(electrons / 2 + 500).astype(np.int64) % 65536).astype(np.uint16)
    over = electrons / 2 + 500 >= 65535.5
    assert over.sum() >= 6
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    image = assemble(tmp_path / "r.fits", facts_of("r", shape=SHAPE, saturate=65535.0))
    flagged = image.ccd.flags & SATURATED > 0
    assert flagged[over].mean() > 0.85
    assert not (flagged & ~binary_dilation(over, np.ones((3, 3)), iterations=5)).any()
    assert "wrapped" in image.notes[-1]


def test_a_defocused_star_has_no_wrapped_core():
    image = digitised(star_field(brightest=1.3e5, width=2.0, ring=8.0))
    assert wrapped_cores(image, image.max()) is None


def test_a_dead_pixel_in_a_bright_star_has_not_wrapped():
    image = digitised(star_field(brightest=7e4, width=2.5))
    assert 1000 < image.max() < 50_000
    y, x = np.unravel_index(np.argmax(image), image.shape)
    image[y, x] = np.median(image)
    assert wrapped_cores(image, image.max()) is None
