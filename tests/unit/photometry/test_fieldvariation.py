"""lib.photometry.fieldvariation: stars that vary over the field."""

import numpy as np
import pytest
import simulate

from lib.photometry.fieldvariation import fit_variation
from lib.photometry.image import MeasurementImage
from lib.photometry.starfield import measure_field

SIZE, NOISE, GAIN = 640, 5.0, 1.0


def field_of_stars(ellipticity, seed=3, spacing=66):
    """Return image, x, y and fluxes of stars ever longer from the centre of the field outwards."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(30, SIZE - 10, spacing), np.arange(30, SIZE - 10, spacing))
    x, y = (axis.ravel() + rng.uniform(-4, 4, axis.size) for axis in (x, y))
    flux = 10 ** rng.uniform(4.2, 5.6, x.size)
    scene = np.zeros((SIZE, SIZE))
    for one in zip(x, y, flux, strict=True):
        u, v = (2 * place / SIZE - 1 for place in one[:2])
        long = ellipticity * (u**2 + v**2) / 2
        # The longer axis grows, the shorter one is the seeing.
        psf = simulate.PSF(
            3.8 / np.sqrt(1 - long), 3.0, ellipticity=long, angle=np.degrees(np.arctan2(v, u))
        )
        place = [np.array([value]) for value in one]
        simulate.render_sources(scene.shape, *place, psf, NOISE, out=scene)
    image = scene + rng.normal(0, 1, scene.shape) * np.sqrt(NOISE**2 + scene / GAIN)
    return image.astype(np.float32), x, y, flux


@pytest.mark.parametrize("ellipticity", [0.0, 0.35])
def test_fluxes_hold_where_stars_vary_over_the_field(ellipticity):
    image, x, y, flux = field_of_stars(ellipticity)
    field = measure_field(MeasurementImage(image, NOISE, gain=GAIN))
    distance = np.hypot(field.sources["x"] - x[:, None], field.sources["y"] - y[:, None])
    row = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1
    assert (field.variation is not None) == (ellipticity > 0)
    offset = np.log(field.total[row] / flux)
    error = np.hypot(field.error[row] / field.flux[row], field.lost_error[row])
    assert abs(np.median(offset)) < 3 * np.hypot(field.growth.error, 0.001)
    pull = (offset - np.median(offset)) / np.hypot(error, 0.003)
    assert 1.4826 * np.median(np.abs(pull)) < 1.3
    # No part of a star passes for a source of its own.
    assert (field.snr > 5).sum() <= len(x) + 1


def test_chance_makes_no_variation():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(200):
        x, y = rng.uniform(0, 1000, (2, 40))
        error = 10 ** rng.uniform(-3, -1.7, 40)
        part = 0.9 * np.exp(rng.normal(0, np.hypot(error, 0.003)))
        found.append(fit_variation(x, y, part, error))
    assert sum(one is not None for one in found) <= 4


def test_surface_is_found_and_ends_where_stars_do():
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 1000, (2, 60))

    def truth(x, y):
        return 0.04 * ((x - 500) ** 2 + (y - 500) ** 2) / 500**2

    part = 0.9 * np.exp(truth(x, y) + rng.normal(0, 0.004, 60))
    found = fit_variation(x, y, part, np.full(60, 0.003))
    assert found.degree == 2
    factor, error = found.at(x, y)
    left = np.log(part / factor)
    assert np.std(left) < 0.006 and (error < 0.005).all()
    far, _ = found.at(np.array([9000.0]), np.array([500.0]))
    assert far[0] <= factor.max() + 1e-9
