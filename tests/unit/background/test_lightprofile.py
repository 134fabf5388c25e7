"""The profile of a galaxy that fills all frames tells the level of the sky."""

from dataclasses import replace

import numpy as np
import pytest

from lib.background.extendedlight import MovingLight
from lib.background.lightmodel import LargeScales, Scales, Squares
from lib.background.lightprofile import Profile, find_profile
from lib.background.lightsquares import light_image

SHAPE = (640, 640)
SHIFTS = np.array([(0, 0), (-60, 40), (50, 70), (-35, -75), (80, -30), (15, 85)], float)
SCALES = Scales(0.02, 600.0, 0.05, 400.0, 0.0005, 213.0, 0.0002)
NOISE = 0.0005


def squares_of(light, seed=1, dims=(1, 1, 0.8, 1, 1.1, 1)):
    """Squares of frames with a sky of 2 per cent, planes of their own, and some light.

    `light` is a function of places (y, x) on the sky. Returns squares and the light in them.
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(32, 640, 64.0)
    at = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    count = len(SHIFTS)
    frame = np.repeat(np.arange(count), len(at))
    at = np.tile(at, (count, 1))
    y, x = (at / 320 - 1).T
    planes = rng.normal(0, 0.01, (3, count))
    true = np.array(dims)[frame] * light(at - SHIFTS[frame])
    sky = 0.02 * (x**2 - x * y + y**3) + planes[0, frame] + planes[1, frame] * x
    value = sky + planes[2, frame] * y + true + rng.normal(0, NOISE, frame.size)
    # The core is masked.
    seen = np.hypot(*(at - SHIFTS[frame] - (330, 300)).T) > 60
    target = np.zeros(count, int)
    squares = Squares(
        value, np.full(value.size, NOISE), frame, at, target, SHIFTS, np.ones(count), SHAPE
    )
    return squares.part(np.flatnonzero(seen)), true[seen]


def disc(places, length=150.0, ratio=0.6, centre=(330, 300), index=1.0):
    """A tilted disc of 0.3 of the sky at its centre, and 0.01 to 0.1 at the edges of the frames."""
    dy, dx = (places - centre).T
    along, across = 0.8 * dx + 0.6 * dy, 0.8 * dy - 0.6 * dx
    return 0.3 * np.exp(-((np.hypot(along, across / ratio) / length) ** (1 / index)))


def test_the_profile_of_a_disc_that_fills_the_frames_tells_the_level_of_the_sky():
    squares, true = squares_of(disc)
    found = find_profile(squares, SCALES, 0)
    # Exponential, so that the index is not fitted.
    assert found.profile.index == 1
    assert found.profile.size == pytest.approx(150 * 5 / 3, rel=0.02)
    assert np.exp(-2 * np.hypot(*found.profile.stretch)) == pytest.approx(0.6, abs=0.01)
    wrong = found.light - true
    # Two per cent of the light, wherever it is: 0.0003 of the sky in the faintest squares.
    assert np.abs(wrong / true).max() < 0.02
    assert abs(wrong.mean()) < 3 * found.error
    # Stated for the case that it is not exponential beyond what is seen.
    assert found.error < 0.05 * true.mean()
    assert found.squares.strength / found.squares.strength[0] == pytest.approx(
        [1, 1, 0.8, 1, 1.1, 1], abs=0.01
    )


def bent_disc(places, bend=350.0):
    """A disc that falls twice as fast from a radius on, as those of many galaxies."""
    away = np.hypot(*(places - (330, 300)).T)
    return 0.3 * np.exp(-(away + np.clip(away - bend, 0, None)) / 150)


def test_frames_differ_from_the_sky_they_have_in_common_by_planes():
    squares, _ = squares_of(disc, dims=(1,) * 6)
    rng = np.random.default_rng(6)
    y, x = (squares.at / 320 - 1).T

    def pattern(y, x):
        return 1 + 0.03 * y - 0.02 * x + 0.04 * (x**2 - y * x + y**3)

    tilts = rng.normal(0, 0.02, (2, 6))
    frames = 1 + tilts[0, squares.frame] * y + tilts[1, squares.frame] * x
    value = pattern(y, x) * frames - 1 + rng.normal(0, NOISE / 10, x.size)
    squares = replace(squares, value=value, noise=squares.noise / 10)
    scales = replace(SCALES, light=1e-6, own=0.001)
    light = MovingLight(squares, scales, LargeScales(squares).solve(scales))
    left = (1 + value) / light_image(light.sky(), SHAPE)[tuple(squares.at.astype(int).T)]
    # Divided by it, what is left of a frame is a plane: by the sky without its tilt, it is not.
    for n in range(6):
        here = squares.frame == n
        terms = np.column_stack([np.ones(here.sum()), squares.at[here]])
        rest = left[here] - terms @ np.linalg.lstsq(terms, left[here], rcond=None)[0]
        assert rest.std() < 0.0004


def broken_disc(places, length, at, slope):
    """A disc whose slope changes at a radius, in scale lengths (Erwin et al. 2008)."""
    away = np.hypot(*(places - (330, 300)).T) / length
    return 0.3 * np.exp(-np.minimum(away, at) - slope * np.clip(away - at, 0, None))


def test_the_error_covers_a_disc_that_is_truncated():
    squares, true = squares_of(bent_disc)
    found = find_profile(squares, SCALES, 0)
    wrong = (found.light - true).mean()
    # Not exponential: wrong by much more than noise makes, and told.
    assert abs(wrong) > 0.001
    assert abs(wrong) < 2 * found.error


@pytest.mark.parametrize(
    ("length", "at", "slope"), [(80, 2.5, 0.6), (100, 3.0, 1.8), (200, 9.0, 1.0)]
)
def test_the_error_covers_discs_that_are_taken_for_others(length, at, slope):
    # They flatten outwards, are truncated, or are so large that they are hardly told from a plane.
    pulls = []
    for seed in (1, 2, 3):
        squares, true = squares_of(lambda places: broken_disc(places, length, at, slope), seed)
        found = find_profile(squares, SCALES, 0)
        pulls.append((found.light - true).mean() / found.error)
    assert np.sqrt(np.mean(np.square(pulls))) < 2


def test_the_centre_may_lie_beside_all_frames():
    squares, true = squares_of(lambda places: disc(places, centre=(-160, 300)))
    found = find_profile(squares, SCALES, 0)
    assert found.profile.y == pytest.approx(-160, abs=10)
    assert abs((found.light - true).mean()) < 2 * found.error < 0.002


def test_a_steeper_profile_than_a_disc_is_fitted_as_such():
    squares, true = squares_of(lambda places: disc(places, 20.0, index=2.0))
    found = find_profile(squares, SCALES, 0)
    assert found.profile.index == pytest.approx(2, abs=0.3)
    assert np.abs(found.light - true).max() < 0.002


def test_light_without_such_a_profile_is_left_to_the_other_model():
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(3)
    cloud = gaussian_filter(rng.normal(0, 1, (900, 900)), 60)
    cloud = 0.2 * np.clip(cloud / cloud.std() + 1.5, 0, None)
    squares, _ = squares_of(lambda at: map_coordinates(cloud, at.T + 100, order=1))
    assert find_profile(squares, replace(SCALES, light=0.2, light_length=150.0), 0) is None
    squares, _ = squares_of(lambda at: disc(at) + disc(at, 80.0, centre=(80, 560)))
    assert find_profile(squares, SCALES, 0) is None


def test_parameters_and_profile_are_the_same():
    profile = Profile(3.0, 4.0, 50.0, 1.5, (0.2, -0.1), 0.02)
    places = np.random.default_rng(5).uniform(-100, 100, (20, 2))
    again = Profile.of(profile.parameters)
    np.testing.assert_allclose(again.at(places), profile.at(places), rtol=1e-12)
    assert profile.at(np.array([[3.0, 4.0 + 1e4]])) < 1e-12
