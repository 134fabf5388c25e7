"""lib.photometry.starfield: truth put in is found again, within its stated errors."""

import numpy as np
import pytest
from moffatstars import moffat_image

from lib.core.crossmatch import match
from lib.photometry.image import MeasurementImage
from lib.photometry.starfield import measure_field


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.5])
def test_total_flux_of_moffat_stars(beta):
    rng = np.random.default_rng(4)
    fwhm, noise = 4.0, 5.0
    grid = np.arange(45, 760, 72.0)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for axis in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(4.3, 5.3, x.size)
    image = moffat_image(x, y, flux, fwhm, beta, (800, 800), half=120)
    image = (image + rng.normal(0, noise, image.shape)).astype(np.float32)
    field = measure_field(MeasurementImage(image, noise, gain=1e9))
    # A pixel widens the profile a little: sqrt(4^2 + 0.68) at most.
    assert field.fwhm == pytest.approx(4.05, abs=0.08)
    assert field.stars.sum() >= 90 and field.profile.ellipticity < 0.05
    plane = np.column_stack([x, y])
    ours, theirs = match(np.column_stack([field.sources["x"], field.sources["y"]]), plane, 1.0)
    assert ours.size >= 98
    ratio = field.total[ours] / flux[theirs]
    error = np.median(field.error[ours] / field.flux[ours])
    offset = np.median(ratio) - 1
    assert abs(offset) < 3 * np.hypot(field.growth.error, error / np.sqrt(ours.size))
    assert abs(offset) < 0.01
    assert field.growth.n_stars >= 10


def test_neighbour_hidden_in_a_star_is_found_and_taken_away():
    rng = np.random.default_rng(31)
    x, y, flux = np.array([60.0, 66.0, 200.0]), np.array([60.0, 62.5, 90.0]), np.full(3, 6e4)
    flux[1] = 6e3
    grid = np.arange(40, 290, 50.0)
    more = np.array([(u, v + 260) for u in grid for v in grid[:3] - 30])
    x, y = np.append(x, more[:, 0]), np.append(y, more[:, 1])
    flux = np.append(flux, np.full(len(more), 5e4))
    image = moffat_image(x, y, flux, 4.0, 3.0, (420, 320), half=80)
    image = (image + rng.normal(0, 5, image.shape)).astype(np.float32)
    field = measure_field(MeasurementImage(image, 5.0, gain=1e9))
    apart = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    assert apart.min(axis=0)[:2].max() < 1.0
    total = field.total[apart.argmin(axis=0)]
    # Untold, the aperture of 1.5 FWHM would hold 4 % too much: half of its neighbour.
    assert total[:2] == pytest.approx(flux[:2], abs=0.015 * 6e4)


def test_coma_is_no_neighbour_of_each_star():
    rng = np.random.default_rng(32)
    grid = np.arange(40, 400, 60.0)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for axis in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(4.5, 5.5, x.size)
    image = np.zeros((420, 420))
    # A fan to one side: an eighth of the light, out to twice the FWHM.
    for angle in np.linspace(-0.5, 0.5, 7):
        for k, away in enumerate(np.linspace(3, 8, 6)):
            part = 0.125 / 42 * 2 * (6 - k) / 7
            at = x + away * np.cos(angle), y + away * np.sin(angle)
            image += moffat_image(*at, part * flux, 4.0, 3.0, image.shape, half=40)
    image += moffat_image(x, y, 0.875 * flux, 4.0, 3.0, image.shape, half=80)
    # One has a true neighbour, on another side.
    beside = x[:1] - 5.0, y[:1] + 3.5
    image += moffat_image(*beside, 0.1 * flux[:1], 4.0, 3.0, image.shape, half=40)
    image = (image + rng.normal(0, 5, image.shape)).astype(np.float32)
    field = measure_field(MeasurementImage(image, 5.0, gain=1e9))
    places = np.column_stack([np.append(x, beside[0]), np.append(y, beside[1])])
    at = np.column_stack([field.sources["x"], field.sources["y"]])
    apart = np.hypot(*(at[:, None] - places).T)
    assert apart.min(axis=1).max() < 1.5  # each has its row
    seen = field.flux > 5 * field.error
    assert seen.sum() == len(places)


def test_a_profile_wider_than_its_stars_is_not_believed(monkeypatch):
    """In a crowd the fit may run away; models as wide would fill the memory."""
    rng = np.random.default_rng(7)
    grid = np.arange(30, 200, 40.0)
    x, y = (one.ravel() for one in np.meshgrid(grid, grid))
    image = moffat_image(x, y, np.full(x.size, 4e4), 4.0, 3.0, (220, 220), half=40)
    image = (image + rng.normal(0, 5, image.shape)).astype(np.float32)
    monkeypatch.setattr("lib.photometry.starfield.fit_profile", lambda *_: (1098.0, 1.1))
    field = measure_field(MeasurementImage(image, 5.0, gain=1e9))
    assert field.fwhm == pytest.approx(2 * field.profile.half_light)


def test_nothing_found_in_noise_free_emptiness():
    assert measure_field(MeasurementImage(np.zeros((64, 64), "f4"), 1.0)) is None
