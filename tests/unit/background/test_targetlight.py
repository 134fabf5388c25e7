"""Frames are searched for light of their targets where their large scales differ."""

import numpy as np

from lib.background.lightsquares import free_pixels
from lib.background.targetlight import differ_on_large_scales, may_hold_light

FRAMES, SIDE = 9, 16


def squares(rng, rise=0.0):
    """Noise in the squares of frames, and what moves, with a rise of so many times the noise."""
    y, x = np.indices((SIDE, SIDE))
    left = rng.normal(0, 1e-4, (FRAMES, SIDE, SIDE))
    for n, one in enumerate(left):
        one += rise * 1e-4 * np.exp(-np.hypot(y - 12 * np.sin(n), x - 12 * np.cos(n)) / 5)
        one -= one.mean()
    left[:, :2, :2] = np.nan
    return left


def test_noise_of_many_nights_is_not_taken_for_light():
    rng = np.random.default_rng(1)
    assert not any(differ_on_large_scales(squares(rng)) for _ in range(300))


def test_light_of_few_times_the_noise_of_a_square_is_seen():
    rng = np.random.default_rng(2)
    left = squares(rng, 5)
    # The rms of single squares shows it in none of the frames.
    planes, noises = np.zeros((FRAMES, 64, 64)), [1e-4 / 0.036] * FRAMES
    assert np.sqrt(np.nanmean(left**2, axis=(1, 2))).max() < 1.5e-4
    assert differ_on_large_scales(left)
    assert may_hold_light(planes, left, noises)
    assert not may_hold_light(planes, squares(rng), noises)


def test_a_single_frame_and_frames_without_sky_show_none():
    left = squares(np.random.default_rng(3))
    assert not differ_on_large_scales(left[:1])
    assert not differ_on_large_scales(np.full_like(left, np.nan))


def test_the_centroid_of_free_pixels_is_that_of_what_is_not_masked():
    free = np.ones((64, 96), bool)
    free[:, :24] = False
    free[40:, 80:] = False
    number, centre = free_pixels(free, (2, 3))
    assert number.tolist() == [[256, 1024, 1024], [256, 1024, 1024 - 24 * 16]]
    np.testing.assert_allclose(centre[0, 0], (16, 28))
    np.testing.assert_allclose(centre[0, 1], (16, 48))
    y, x = np.nonzero(free[32:, 64:])
    np.testing.assert_allclose(centre[1, 2], (32.5 + y.mean(), 64.5 + x.mean()))
