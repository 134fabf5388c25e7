"""lib.photometry.emptyapertures: noise of white noise, room for apertures."""

import numpy as np
import pytest

from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area


def test_empty_apertures_touch_nothing_occupied():
    rng = np.random.default_rng(13)
    occupied = rng.random((300, 400)) < 0.0005
    radius = 6.0
    x, y = empty_apertures(summed_area(occupied), radius)
    assert x.size > 300
    rows, columns = np.nonzero(occupied)
    distance = np.hypot(x[:, None] - columns, y[:, None] - rows)
    assert distance.min() > radius
    assert min(x.min(), y.min()) > radius
    assert x.max() < 400 - radius and y.max() < 300 - radius


def test_no_room_for_apertures():
    assert empty_apertures(summed_area(np.ones((50, 50), bool)), 3.0)[0].size == 0
    assert empty_apertures(summed_area(np.zeros((8, 8), bool)), 10.0)[0].size == 0


def test_noise_of_white_noise_is_that_of_the_map():
    rng = np.random.default_rng(14)
    sigma = np.linspace(2, 6, 500)[None, :] * np.ones((500, 1))
    image = rng.normal(0, 1, sigma.shape) * sigma
    x, y = empty_apertures(summed_area(np.zeros(image.shape, bool)), 4.0)
    maps = image.astype("f4"), (sigma**2).astype("f4")
    _, ratio = aperture_noise(*maps, x, y, 4.0, subpix=1)
    assert ratio == pytest.approx(1.0, abs=0.04)
