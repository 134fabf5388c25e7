"""Second images of stars."""

import numpy as np
import pytest
import simulate

from lib.photometry.doubled import second_images
from lib.photometry.image import MeasurementImage
from lib.photometry.starfield import measure_field

FWHM = 3.5


def stars(rng, number=60, size=900):
    return (
        rng.uniform(0, size, number),
        rng.uniform(0, size, number),
        10 ** rng.uniform(3, 5, number),
    )


@pytest.mark.parametrize("ratio", [0.25, 0.67, 1.0])
@pytest.mark.parametrize("offset", [(8.8, 6.6), (-30.0, 12.0)])
def test_jump_is_found_with_its_length(ratio, offset):
    rng = np.random.default_rng(1)
    x, y, flux = stars(rng)
    noise = rng.normal(1, 0.03, 2 * flux.size)
    both = np.concatenate([flux, ratio * flux]) * noise
    found = second_images(np.r_[x, x + offset[0]], np.r_[y, y + offset[1]], both, FWHM)
    assert found == pytest.approx(np.hypot(*offset), abs=0.1)


@pytest.mark.parametrize("number", [5, 60, 400, 6000])
def test_stars_by_themselves_are_single(number):
    for seed in range(20):
        assert second_images(*stars(np.random.default_rng(seed), number), FWHM) == 0


def test_ghosts_of_some_stars_are_no_second_images():
    rng = np.random.default_rng(3)
    x, y, flux = stars(rng)
    some = np.argsort(-flux)[:8]
    both = np.concatenate([flux, 0.3 * flux[some]])
    assert second_images(np.r_[x, x[some] + 20], np.r_[y, y[some]], both, FWHM) == 0


def test_flux_of_stars_whose_profile_has_two_peaks():
    """A jump of 4 px: what each star has beside it is its own light, and no neighbour."""
    rng = np.random.default_rng(4)
    x, y = (axis.ravel() + rng.uniform(-8, 8, 100) for axis in np.mgrid[25:475:10j, 25:475:10j])
    flux = 10 ** rng.uniform(3.3, 5.3, 100)
    psf = simulate.PSF(FWHM, 3.0, spots=((0.0, 0.0, 0.6, 1.0), (3.2, 2.4, 0.4, 1.0)))
    truth = simulate.render_sources((500, 500), x, y, flux, psf, 20.0)
    image = (rng.poisson(truth + 400) - 400).astype(np.float32)
    field = measure_field(MeasurementImage(image, 20.0))
    at = np.column_stack([field.sources["x"], field.sources["y"]])
    near = np.hypot(at[:, :1] - x - 1.3, at[:, 1:] - y - 1.0).argmin(axis=0)
    off = 2.5 * np.log10(field.total[near] / flux)
    bright = flux > 3e4
    # One aperture correction for all: bright stars had up to 0.1 mag less than faint ones.
    assert abs(np.median(off[bright])) < 0.01
    assert abs(np.median(off[bright]) - np.median(off[(flux > 1e4) & ~bright])) < 0.01
    assert np.std(off[bright]) < 0.01
