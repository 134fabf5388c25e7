"""lib.photometry.locallight: where an image is crowded, against scenes of known density."""

import numpy as np
import pytest
from moffatstars import moffat_image

from lib.photometry.locallight import LEAST, LocalLight

FWHM, SIZE = 3.6, 400


def scene(places, rng, noise=20.0):
    image = moffat_image(*places, np.full(places.shape[1], 1e4), FWHM, 3.0, (SIZE, SIZE))
    return (image + rng.normal(0, noise, image.shape)).astype(np.float32)


def test_light_is_the_density_of_the_stars():
    rng = np.random.default_rng(1)
    thin, dense = rng.uniform(0, SIZE, (2, 300)), rng.uniform(0, SIZE, (2, 1500))
    dense = dense[:, dense[0] < SIZE / 2]
    image = scene(np.concatenate([thin, dense], axis=1), rng)
    light = LocalLight.of(image, np.ones(image.shape, bool), FWHM)
    y = np.linspace(60, 340, 15)
    left, right = (light.at(np.full(15, x), y) for x in (100.0, 300.0))
    # 1800 stars in the area of the image on the left, 300 on the right: 1.71 and 0.29 of the mean;
    # some twenty and three within the Gaussian.
    assert np.mean(left) == pytest.approx(1.71, rel=0.1)
    assert np.mean(right) == pytest.approx(0.29, rel=0.25)
    again = LocalLight.from_hdu(light.hdu())
    np.testing.assert_array_equal(again.at(y, y), light.at(y, y))
    part = LocalLight.of(image[:, 200:].copy(), np.ones((SIZE, 200), bool), FWHM, light.level)
    np.testing.assert_allclose(part.at(np.full(15, 100.0), y), right, rtol=0.15)


def test_sky_without_stars_and_pixels_without_weight():
    rng = np.random.default_rng(2)
    image = scene(rng.uniform(0, SIZE, (2, 500)), rng)
    covered = np.ones(image.shape, bool)
    covered[:, :60] = False
    light = LocalLight.of(image, covered, FWHM)
    assert np.isfinite(light.cells).all() and light.cells.min() >= np.float32(LEAST)
    empty = LocalLight.of(rng.normal(0, 20, image.shape).astype(np.float32), covered, FWHM)
    assert np.isfinite(empty.cells).all() and empty.level > 0
