"""Gain and read noise of simulated flats and biases."""

import numpy as np
import pytest

from lib.calibration.photontransfer import photon_transfer

GAIN, RDNOISE, BIAS = 1.8, 6.0, 1000.0


def frames(rng, levels, gain=GAIN, rdnoise=RDNOISE, shape=(400, 300), stars=False):
    """Flats [DN] of these levels [electron], lit unevenly; biases where the level is 0."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    result = []
    for k, level in enumerate(levels):
        light = level * (1 + 0.1 * np.sin(x / 90) + (0.05 * k) * (y / shape[0] - 0.5))
        if stars and level:
            for row, column in rng.uniform(0, 1, (8, 2)) * shape:
                light = light + 30 * level * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
        image = rng.poisson(light) + rng.normal(0, rdnoise, shape)
        result.append(np.round(image / gain + BIAS))
    return result


@pytest.mark.parametrize(
    ("levels", "stars"), [((30000,) * 4, False), ((40000, 25000, 16000, 10000), True)]
)
def test_gain_and_read_noise_of_the_simulation(levels, stars):
    """Lamps that fade and turn, stars in the twilight: 2 % of 70,000 pixels a pair."""
    rng = np.random.default_rng(1)
    biases = frames(rng, (0,) * 4)
    found = photon_transfer(frames(rng, levels, stars=stars), biases)
    assert found.gain == pytest.approx(GAIN, rel=0.02)
    assert found.rdnoise == pytest.approx(RDNOISE, rel=0.03)
    assert (found.flat_pairs, found.bias_pairs) == (2, 2)
    assert found.scatter < 0.03


def test_rays_and_hot_pixels_do_not_count():
    rng = np.random.default_rng(2)
    flats, biases = frames(rng, (20000,) * 2), frames(rng, (0,) * 2)
    for image in flats + biases:
        image[rng.integers(0, 400, 300), rng.integers(0, 300, 300)] += 20000
    found = photon_transfer(flats, biases)
    assert found.gain == pytest.approx(GAIN, rel=0.03)
    assert found.rdnoise == pytest.approx(RDNOISE, rel=0.03)


def test_a_gain_that_cannot_be_known_is_none():
    rng = np.random.default_rng(3)
    biases = frames(rng, (0,) * 2)
    assert photon_transfer(frames(rng, (20000,) * 2), []).gain is None
    assert photon_transfer(frames(rng, (20000,)), biases).gain is None
    assert photon_transfer(frames(rng, (10,) * 2), biases).gain is None
    saturated = photon_transfer(frames(rng, (60000,) * 2), biases, highest=20000)
    assert saturated.gain is None and saturated.rdnoise is None
    assert saturated.rdnoise_dn == pytest.approx(RDNOISE / GAIN, rel=0.03)


@pytest.mark.parametrize("gain", [0.25, 5.0])
def test_integers_coarser_than_the_noise(gain):
    """Read noise of one DN and less is broadened by rounding: its variance of 1/12 DN^2."""
    rng = np.random.default_rng(4)
    found = photon_transfer(frames(rng, (30000,) * 2, gain), frames(rng, (0,) * 2, gain))
    assert found.gain == pytest.approx(gain, rel=0.03)
    expected = np.hypot(RDNOISE, gain / 12**0.5)
    assert found.rdnoise == pytest.approx(expected, rel=0.03)
