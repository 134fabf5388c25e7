"""lib.stack.weights: variances, weights and gains of known frames."""

import numpy as np
import pytest
from astropy.io import fits

from lib.frame.file import BAD, COSMIC, INTERPOLATED, Frame, write_frame
from lib.stack.weights import (
    FlatCache,
    effective_gain,
    frame_variance,
    frame_weight,
    median_variance_ratio,
    sky_variance,
)


@pytest.mark.parametrize("number", [3, 4, 5, 9, 20])
def test_penalty_of_the_median(number):
    rng = np.random.default_rng(number)
    values = np.median(rng.normal(size=(40000, number)), axis=1)
    assert median_variance_ratio(number) == pytest.approx(values.var() * number, rel=0.035)


def test_median_penalty_tends_to_half_pi():
    assert median_variance_ratio(1) == median_variance_ratio(2) == 1.0
    assert median_variance_ratio(1001) == pytest.approx(np.pi / 2, rel=1e-3)


def test_gain_is_that_of_the_mean():
    assert effective_gain([1.0] * 4, [1.0] * 4, [2.0] * 4, "weighted") == pytest.approx(4.0)
    # Two frames, the second three times shorter: its unit holds a third of the electrons.
    assert effective_gain([1, 3], [1, 1], [1, 1 / 3], "weighted") == pytest.approx(4 / 3)
    assert effective_gain([2.0] * 3, [1.5] * 3, [1] * 3, "median") == pytest.approx(
        3 * 0.75 / median_variance_ratio(3)
    )
    assert effective_gain([1.0, 1.0], [1.0, 1.0], [1, 1], "median") == pytest.approx(2.0)


def test_unusable_pixels_weigh_nothing():
    mask = np.array([[0, BAD, COSMIC | INTERPOLATED, INTERPOLATED]], np.uint8)
    weight, repaired = frame_weight(mask, 4.0)
    assert weight.tolist() == [[0.25, 0.0, 0.25, 0.25]]
    assert repaired.tolist() == [[False, False, True, False]]


def test_variance_of_the_sky_behind_a_flat():
    # 400 electrons of sky at a gain of 2, read noise of 8 electrons, half of the light.
    flat = np.array([1.0, 0.5])
    found = sky_variance(200.0, 8.0, 2.0, flat)
    assert found.tolist() == [100 + 16, 200 + 64]
    rng = np.random.default_rng(3)
    light = rng.poisson(400 * flat, (200000, 2)) + rng.normal(0, 8, (200000, 2))
    assert (light / 2 / flat).var(axis=0) == pytest.approx(found, rel=0.02)


def test_header_without_sky_and_read_noise_has_no_variance():
    assert frame_variance(fits.Header()) == 0
    header = fits.Header({"SKYSUB": 100.0, "RDNOISE": 3.0, "GAIN": 1.0})
    assert frame_variance(header) == 109.0


def test_flats_are_read_once_and_zero_response_is_unknown(tmp_path, caplog):
    image = np.ones((4, 5), np.float32)
    image[1, 2] = 0
    given, beside = tmp_path / "masters/flat_r.fits", tmp_path / "flat_g.fits"
    given.parent.mkdir()
    for path in (given, beside):
        write_frame(path, Frame(image, np.zeros(image.shape, np.uint8), fits.Header()))
    flats = FlatCache([given], tmp_path)

    def named(name, datasum=""):
        return fits.Header({"FLATFILE": name, "FLATSUM": datasum})

    flat = flats.get(named("flat_r.fits"), image.shape)
    assert np.isnan(flat[1, 2]) and np.isfinite(flat).sum() == image.size - 1
    given.unlink()
    assert flats.get(named("flat_r.fits"), image.shape) is flat
    assert flats.get(named("flat_g.fits"), image.shape) is not None
    assert flats.get(named("flat_g.fits"), (5, 4)) is None
    assert flats.get(named(""), image.shape) is None
    assert flats.get(named("flat_z.fits"), image.shape) is None
    assert "flat flat_z.fits is not there" in caplog.text


def test_flats_of_one_name_of_several_nights_are_told_by_their_sums(tmp_path):
    paths = [tmp_path / night / "flat_r.fits" for night in ("20220127", "20220129")]
    mask = np.zeros((4, 5), np.uint8)
    for level, path in enumerate(paths, 1):
        path.parent.mkdir()
        write_frame(path, Frame(np.full(mask.shape, level, np.float32), mask, fits.Header()))
    flats = FlatCache(paths, tmp_path)
    for level, path in enumerate(paths, 1):
        header = fits.Header(
            {"FLATFILE": "flat_r.fits", "FLATSUM": fits.getheader(path)["DATASUM"]}
        )
        assert (flats.get(header, mask.shape) == level).all()
    header["FLATSUM"] = "1"
    assert flats.get(header, mask.shape) is None
