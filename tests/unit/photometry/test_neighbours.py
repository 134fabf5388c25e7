"""lib.photometry.neighbours: stars modelled, and measured without their neighbours."""

import numpy as np
import pytest
import sep
from moffatstars import moffat_image

from lib.photometry.apertures import aperture_fluxes
from lib.photometry.image import MeasurementImage
from lib.photometry.neighbours import StarModels, deblended_fluxes, faint_sources
from lib.photometry.psf import StarAperture, Wings, moffat_alpha, moffat_fraction


def test_stars_that_share_an_aperture_are_solved_for():
    wings = Wings(moffat_alpha(4.0, 3.0), 3.0, 1.0)
    x, y = np.array([0.0, 4.0, 40.0]), np.array([0.0, 3.0, 0.0])
    flux = np.array([1000.0, 300.0, 500.0])
    image = moffat_image(x + 60, y + 60, flux, 4.0, 3.0, (120, 180), half=59)
    sums, _, _ = aperture_fluxes(MeasurementImage(image.astype("f4"), 1.0), x + 60, y + 60, [6.0])
    part = float(moffat_fraction(6.0, wings.alpha, 3.0))
    found = deblended_fluxes(sums[:, 0], x, y, StarAperture(6.0, part, wings))
    # A hundredth of the brighter one: pixels are not points. The sums hold 25 % of the other.
    assert found == pytest.approx(flux, abs=0.01 * flux.max())


def test_models_of_many_stars_are_those_of_each():
    rng = np.random.default_rng(34)
    x, y = rng.uniform(-3, 123, (2, 30))
    flux = 10 ** rng.uniform(2, 6, 30)
    flux[3] = 0
    wings = Wings(2.5, 3.0, 0.9, 0.1, -0.05)
    image = rng.normal(0, 1, (120, 110)).astype(np.float32)
    models = StarModels(image, x, y, flux, wings, 1.0, 5.0)
    rows, columns = np.indices(image.shape)
    light = []
    for i in range(30):
        whole = flux[i] * wings.density(columns - x[i], rows - y[i])
        near = np.maximum(abs(columns - np.rint(x[i])), abs(rows - np.rint(y[i])))
        light.append(np.where(near <= models.half[i], whole, 0))
    light = np.array(light)
    assert models.residual == pytest.approx(image - light.sum(axis=0), abs=1e-5 * flux.max())
    chosen = np.arange(30) % 2 == 0
    assert models.image(chosen) == pytest.approx(light[chosen].sum(axis=0), abs=1e-5 * flux.max())
    alone = [
        sep.sum_circle((models.residual + light[i]).astype("f4"), [x[i]], [y[i]], 5.0)[0][0]
        for i in range(30)
    ]
    assert models.apertures(5.0) == pytest.approx(alone, rel=1e-4, abs=0.1)


@pytest.mark.parametrize("covered", [1.0, 0.55, 0.3])
def test_faint_sources_are_those_of_the_noise_wherever_frames_reach(covered):
    """A turned frame leaves corners without data, whose zeros are no noise."""
    rng = np.random.default_rng(5)
    size, fwhm = 500, 3.5
    image = rng.normal(0, 1, (size, size))
    bad = np.arange(size)[:, None] + np.zeros(size) >= covered * size
    image[bad] = 0
    image = image.astype(np.float32)
    noise = np.ones_like(image)
    segments = np.zeros(image.shape, np.int32)
    found, theirs = faint_sources(image, MeasurementImage(image, noise, bad), segments, fwhm)
    # Gaussian noise has hardly a peak above 4 sigma in some thousand independent places.
    assert len(found) <= 3
    assert not (theirs[bad] > 0).any()
