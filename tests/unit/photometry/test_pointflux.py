"""Fluxes of point sources from two apertures, against stars of known light."""

import numpy as np
import pytest
import sep

from lib.photometry.pointflux import ApertureSums, core_aperture, point_fluxes
from lib.photometry.psf import moffat_alpha, moffat_fraction

FWHM, BETA, NOISE, GAIN = 4.0, 3.0, 5.0, 2.0
RADII = (1.5 * FWHM, 0.75 * FWHM)


def star(size=41, fwhm=FWHM):
    """Return a star of flux 1 in the middle of a small image."""
    fine = 5
    at = (np.arange(size * fine) + 0.5) / fine - 0.5 - size // 2
    alpha = moffat_alpha(fwhm, BETA)
    light = (BETA - 1) / np.pi / alpha**2 * (1 + (at**2 + at[:, None] ** 2) / alpha**2) ** -BETA
    return light.reshape(size, fine, size, fine).mean(axis=(1, 3))


def measure(rng, flux, number, fwhm=FWHM):
    """Return the flux of many stars, the error stated, and that of the wide aperture alone."""
    light = flux * star(fwhm=fwhm)
    place = [light.shape[0] // 2]
    fractions = [sep.sum_circle(star(), place, place, radius, subpix=5)[0][0] for radius in RADII]
    sums = np.empty((2, number))
    for k in range(number):
        image = rng.poisson(GAIN * light) / GAIN + rng.normal(0, NOISE, light.shape)
        for row, radius in zip(sums, RADII, strict=True):
            row[k] = sep.sum_circle(image, place, place, radius, subpix=5)[0][0]
    both = []
    for row, radius, fraction in zip(sums, RADII, fractions, strict=True):
        error = np.sqrt(NOISE**2 * np.pi * radius**2 + np.maximum(row, 0) / GAIN)
        both.append(ApertureSums(row, error, float(fraction)))
    return (*point_fluxes(*both, 0.01), np.sqrt(both[0].variance))


@pytest.mark.parametrize("snr", [0, 4, 30, 300])
def test_flux_is_true_and_its_error_the_scatter(snr):
    rng = np.random.default_rng(17)
    limit = NOISE * np.sqrt(np.pi) * RADII[1] / 0.75
    flux, error, wide = measure(rng, snr * limit, 400)
    assert flux.std() == pytest.approx(np.median(error), rel=0.12)
    assert abs(flux.mean() - snr * limit) < 3.5 * flux.std() / 20 + 0.004 * snr * limit
    gain = np.median(wide / error)
    # (0.60 / 0.91) / (0.75 / 1.5) for what is faint; the brightest rest on the wide aperture.
    if snr < 10:
        assert gain > 1.3
    if snr == 300:
        assert 1 <= gain < 1.05


def test_extended_source_has_the_flux_of_the_wide_aperture():
    rng = np.random.default_rng(3)
    light = 5e4 * star(fwhm=2 * FWHM)
    inside = sep.sum_circle(light, [20], [20], RADII[0], subpix=5)[0][0]
    flux, _, _ = measure(rng, 5e4, 5, fwhm=2 * FWHM)
    total = inside / moffat_fraction(RADII[0], moffat_alpha(FWHM, BETA), BETA)
    assert flux == pytest.approx(np.full(5, total), rel=0.02)


def test_core_is_measured_on_stars_and_its_scatter_with_it():
    rng = np.random.default_rng(8)
    flux = rng.uniform(3e4, 3e5, 60)
    part = 0.7 * (1 + rng.normal(0, 0.02, 60))
    noise = np.array([30.0, 60.0])
    inner = flux * part + rng.normal(0, noise[0], 60)
    outer = inner + flux * (1 - part) + rng.normal(0, np.sqrt(60**2 - 30**2), 60)
    found = core_aperture(3.0, inner, outer, noise, 0.95, 0.6, 0.0)
    assert found.fraction == pytest.approx(0.7 * 0.95, abs=3 * 0.95 * 0.014 / np.sqrt(60))
    assert found.scatter == pytest.approx(0.02, rel=0.35)
    few = core_aperture(3.0, inner[:4], outer[:4], noise, 0.95, 0.6, 0.0)
    assert few.fraction == 0.6 and few.scatter == 0.05
