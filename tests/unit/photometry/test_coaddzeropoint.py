"""Photometry of whole coadds: truth put in is found again, within its stated errors."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from moffatstars import moffat_image

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs
from lib.photometry.coaddzeropoint import coadd_zeropoint
from lib.photometry.image import MeasurementImage
from lib.photometry.measuredcoadd import CoaddNoise, MeasuredCoadd
from lib.photometry.sources import detect_sources
from lib.photometry.sourcetable import kron_photometry
from lib.photometry.starfield import FieldSettings, measure_field
from lib.stack.depth import measure_coadd

RA = 150.0


def crowded(rng, number, size=420, fwhm=3.5, beta=3.5, sky=400.0, exposures=5):
    """Return stars (x, y, magnitude, flux) and a coadd of them; 25 is one electron per second."""
    x, y = rng.uniform(-20, size + 20, (2, number))
    magnitude = 20.5 - 4.7 * rng.power(0.7, number) ** 1.5
    flux = 60 * 10 ** (-0.4 * (magnitude - 25))
    light = moffat_image(x, y, flux, fwhm, beta, (size, size), half=40, points=3)
    image = rng.poisson((light + sky) * exposures) / exposures - sky
    image += rng.normal(0, 8 / np.sqrt(exposures), image.shape)
    return x, y, magnitude, flux, image.astype(np.float32)


@pytest.mark.parametrize("number", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_zeropoint_of_images_is_within_its_error_of_the_truth(number):
    settings = StackSettings(colour_term="off")
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": 0.0, "CRPIX1": 1.0,
        "CRPIX2": 1.0, "CD1_1": -1 / 9000, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1 / 9000,
    }  # fmt: skip
    wcs = celestial_wcs(fits.Header(cards))
    pulls, offsets = [], []
    for seed in range(number):
        rng = np.random.default_rng(1000 + seed)
        x, y, magnitude, _, image = crowded(rng, 80)
        weight = np.full(image.shape, 5 / 464, np.float32)
        coadd = measure_coadd(
            image, weight, wcs=wcs, scale=0.4, gain=5.0, saturate=5e4, settings=settings
        )
        ra, dec = wcs.all_pix2world(x, y, 0)
        reference = {
            "ra": ra, "dec": dec,
            "r": magnitude + rng.normal(0, 0.01, x.size), "r_err": np.full(x.size, 0.01),
        }  # fmt: skip
        found, _ = coadd_zeropoint(coadd, reference, "r", settings)
        offsets.append(found.value - 25 - 2.5 * np.log10(60))
        pulls.append(offsets[-1] / found.error)
        assert found.n_stars >= 20
    # 0.1, 0.8 and 1.2 are asked for, of 200 fields; fewer do not tell as well.
    chance = 0 if number >= 200 else 1 / np.sqrt(number)
    assert abs(np.mean(pulls)) < 0.1 + 2 * chance
    assert 0.8 - 1.5 * chance < np.std(pulls) < 1.2 + 1.5 * chance
    assert np.max(np.abs(offsets)) < 0.010


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_differs_from_pixel_to_pixel_makes_no_source_without_place_or_width(seed):
    rng = np.random.default_rng(seed)
    noise = np.where(rng.random((400, 400)) < 0.2, 8, 1).astype(np.float32)
    image = (rng.normal(0, 1, noise.shape) * noise).astype(np.float32)
    sources, segments = detect_sources(image, noise, None, 1.0, 5)
    # Moments weighted by negative light: no root of these.
    assert ((sources["x2"] < 0) | (sources["y2"] < 0)).sum() > 20
    assert (sources["a"] > 0).all() and (sources["b"] > 0).all()
    assert np.isfinite(sources["theta"]).all()
    for axis in ("x", "y"):
        low, high = sources[f"{axis}min"], sources[f"{axis}max"]
        assert ((low <= sources[axis]) & (sources[axis] <= high)).all()
    field = measure_field(MeasurementImage(image, noise), FieldSettings(threshold=1.0))
    all_pixels = np.ones(image.shape, bool)
    coadd = MeasuredCoadd(
        image, noise**2, all_pixels, ~all_pixels, np.zeros((1, 1)), field,
        CoaddNoise(np.array([1.0, 9.0]), np.ones(2)), WCS(naxis=2), scale=1.0, gain=1.0,
    )  # fmt: skip
    flux, error, *_ = kron_photometry(coadd, np.ones(len(field.sources)))
    assert np.isfinite(flux).all() and (error > 0).all()
