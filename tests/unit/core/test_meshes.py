"""Meshes laid over an image: counts and noise in squares, values read between centres."""

import numpy as np
import pytest

from lib.core.meshes import bilinear, bilinear_at, count_in_squares, noise_map, sum_in_squares


@pytest.mark.parametrize("shape", [(64, 48), (61, 47), (8, 8), (5, 3), (1, 20)])
@pytest.mark.parametrize("side", [5, 8])
def test_pixels_are_counted_and_summed_in_squares_and_in_parts_of_squares(shape, side):
    mask = np.random.default_rng(1).random(shape) < 0.4
    rows, columns = (-(-size // side) for size in shape)
    whole = np.zeros((rows * side, columns * side), int)
    whole[: shape[0], : shape[1]] = mask
    expected = whole.reshape(rows, side, columns, side).sum(axis=(1, 3))
    np.testing.assert_array_equal(count_in_squares(mask, side), expected)
    image = np.where(mask, np.float32(2.5), np.float32(0))
    np.testing.assert_allclose(sum_in_squares(image, side), 2.5 * expected)


def test_coarse_map_between_its_points():
    coarse = np.array([[1.0, 2, 3], [4, 5, 6]])
    fine = bilinear(coarse, (4, 6))
    np.testing.assert_allclose(fine[0], [1, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(fine[:, 0], [1, 1.75, 3.25, 4])
    for part in (coarse, coarse[:1], coarse[:, :1], coarse[:1, :1], fine):
        y, x = np.indices((4, 6)).reshape(2, -1)
        at = bilinear_at(part.astype(np.float32), (4, 6), y, x)
        np.testing.assert_allclose(at, bilinear(part, (4, 6)).ravel(), rtol=1e-6)


def test_noise_is_at_least_that_of_the_photons():
    rng = np.random.default_rng(8)
    image = rng.normal(0, 10, (300, 300))
    image[:, 150:] *= 2
    unusable = np.zeros(image.shape, bool)
    unusable[::7] = True
    image[::7] = 1e6
    noise = bilinear(noise_map(image.astype(np.float32), unusable, 10.0), image.shape)
    assert np.median(noise[:, :80]) == pytest.approx(10, rel=0.05)
    assert np.median(noise[:, 230:]) == pytest.approx(20, rel=0.05)
    assert noise_map(image.astype(np.float32), unusable, 50.0) == pytest.approx(50)
