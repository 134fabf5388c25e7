"""Regions blend into each other, and what is convolved in parts is what is convolved whole."""

import numpy as np
from scipy.signal import fftconvolve

from lib.difference.matched import convolved, spread_bad
from lib.difference.regions import Regions, choose_regions


def gaussian(sigma, half=5):
    offset = np.arange(-half, half + 1)
    kernel = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def test_one_kernel_in_all_regions_is_one_convolution():
    image = np.random.default_rng(1).normal(size=(90, 70)).astype(np.float32)
    kernel = gaussian(1.3)
    whole = fftconvolve(image, kernel, mode="same")
    for number in (1, 2, 3):
        regions = Regions(image.shape, number)
        parts = convolved(image, np.repeat(kernel[None], number**2, axis=0), regions)
        np.testing.assert_allclose(parts, whole, atol=2e-6)


def test_kernels_change_linearly_between_the_nodes():
    regions = Regions((60, 80), 2)
    sums = np.array([1.0, 2.0, 1.0, 2.0])
    kernels = sums[:, None, None] * gaussian(1.0)
    flat = convolved(np.ones((60, 80), np.float32), kernels, regions)
    inner = flat[10:50, 10:70]
    # Nodes lie in the columns 19.5 and 59.5.
    expected = 1 + np.clip((np.arange(10, 70) - 19.5) / 40, 0, 1)
    np.testing.assert_allclose(inner, np.tile(expected, (40, 1)), rtol=1e-5)


def test_bad_pixels_reach_as_far_as_the_kernel_weighs_them():
    bad = np.zeros((21, 21), bool)
    bad[10, 10] = True
    kernel = np.zeros((1, 7, 7))
    kernel[0, 3, 3:6] = 1.0  # a pixel takes from itself and from two to its left
    reached = spread_bad(bad, kernel)
    assert sorted(zip(*np.nonzero(reached), strict=True)) == [(10, 10), (10, 11), (10, 12)]
    image = np.zeros((21, 21), np.float32)
    image[10, 10] = 1
    assert ((convolved(image, kernel, Regions((21, 21), 1)) > 1e-6) == reached).all()


def test_number_of_regions_follows_the_stars_or_the_user():
    numbers = [choose_regions((500, 500), stars, 0).number for stars in (3, 15, 16, 36, 500)]
    assert numbers == [1, 1, 2, 3, 3]
    assert choose_regions((500, 500), 3, 5).number == 5
