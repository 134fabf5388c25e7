"""Stars put into a coadd tell its completeness and its confusion: against the truth of a scene."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from lib.core.settings import StackSettings
from lib.core.stats import mad_std
from lib.photometry.coaddpsf import psf_of_coadd, resolve_crowd
from lib.photometry.confusion import Confusion
from lib.photometry.injection import (
    complete_flux,
    confusion,
    crowding,
    excess_law,
    inject_stars,
)
from lib.photometry.locallight import LocalLight
from lib.photometry.psf import Wings, moffat_alpha
from lib.photometry.sourcetable import measure_sources
from lib.stack.depth import detection_settings, limiting_flux, measure_coadd

FWHM, SKY = 3.6, 400.0
SETTINGS = StackSettings()
HOW = detection_settings(SETTINGS)
STAR = Wings(moffat_alpha(FWHM, 3.0), 3.0, 1.0)


def measured_scene(rng, number, size=420, flux=None, places=None):
    """A coadd of stars of known place and flux, measured."""
    x, y = rng.uniform(8, size - 8, (2, number)) if places is None else places
    if flux is None:
        flux = 10 ** (-0.4 * (13 + 7.5 * rng.random(number) ** 0.6 - 28.4))
    empty = (rng.poisson(SKY, (size, size)) - SKY).astype(np.float32)
    image = inject_stars(empty, x, y, flux, STAR, 1.0, rng)
    weight = np.full(image.shape, 1 / SKY, np.float32)
    coadd = measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=1.0, gain=1.0, saturate=1e9, settings=SETTINGS
    )
    return coadd, x, y, flux


def resolved(coadd):
    """The coadd with its point-spread function, its crowd resolved by fits of that."""
    field = coadd.field
    psf, _ = psf_of_coadd(coadd, field.core_flux / field.core.fraction, crowded=True)
    coadd = replace(coadd, psf=psf)
    return replace(coadd, field=resolve_crowd(coadd, field))


def test_light_put_in_is_the_flux():
    image = np.zeros((121, 121), np.float32)
    x, y = np.array([60.3]), np.array([59.8])
    after = inject_stars(image, x, y, np.array([1e6]), STAR, 1e6, np.random.default_rng(1))
    inside = 1 - (1 + (32 / STAR.alpha) ** 2) ** -2
    assert after.sum() == pytest.approx(1e6, rel=1.5 * (1 - inside) + 1e-3)
    assert not image.any()


def test_half_of_the_stars_of_the_flux_found_are_in_the_table():
    rng = np.random.default_rng(12)
    coadd, *_ = measured_scene(rng, 60, flux=10 ** rng.uniform(3.8, 5.2, 60))
    limit = limiting_flux(coadd).flux
    assert crowding(coadd) < 0.03 and confusion(coadd, HOW, 128, [FWHM]) is None
    complete = complete_flux(coadd, limit, HOW, 128, SETTINGS.catalogue_snr)
    # Deeper than S/N 5, less deep than S/N 3.
    assert 0.6 < complete / limit < 1.05
    found, number = 0, 0
    for _ in range(3):
        mixed = np.r_[np.full(80, complete), np.full(20, 1e5)]
        again, x, y, _ = measured_scene(rng, 100, flux=mixed)
        field = again.field
        at = np.column_stack([field.sources["x"], field.sources["y"]])
        measured = measure_sources(again, field, [FWHM]).point
        at = at[measured.flux > SETTINGS.catalogue_snr * measured.error]
        apart, _ = cKDTree(at).query(np.column_stack([x, y])[:80])
        found, number = found + (apart < 0.75 * FWHM).sum(), number + 80
    # The fit is good to a tenth of a magnitude, the fraction to 0.025.
    assert 0.3 < found / number < 0.72


def test_a_few_wide_images_are_no_crowd():
    coadd, *_ = measured_scene(np.random.default_rng(5), 30, size=100)
    number = len(coadd.field.sources)
    # As dense as a crowd.
    assert 10 < number < 40 and number * np.pi * coadd.field.fwhm**2 / 100**2 > 0.03
    assert crowding(coadd) == 0.0 and confusion(coadd, HOW, 128, [FWHM]) is None


def test_crowd_without_a_significant_source_has_no_confusion_measured(caplog):
    coadd, *_ = measured_scene(np.random.default_rng(5), 120, size=150)
    assert crowding(coadd) > 0.06
    faint = replace(coadd, field=replace(coadd.field, error=np.abs(coadd.field.flux) + 1))
    assert confusion(faint, HOW, 128, [FWHM]) is None
    assert "no source is above 5 sigma" in caplog.text


def test_errors_in_a_crowd_are_the_scatter():
    first, x, y, flux = measured_scene(np.random.default_rng(3), 1000)
    assert crowding(first) > 0.06
    coadd = resolved(first)
    crowd = confusion(coadd, HOW, 128, [FWHM])
    plain = measure_sources(coadd, coadd.field, [FWHM], crowded=True)
    widths, offsets = [], []
    for one, measured in (
        (coadd, crowd.widen(plain, coadd.field).point),
        # As in a field that is not crowded.
        (first, measure_sources(first, first.field, [FWHM]).point),
    ):
        at = np.column_stack([one.field.sources["x"], one.field.sources["y"]])
        apart, row = cKDTree(at).query(np.column_stack([x, y]))
        good = (apart < 0.8 * FWHM) & (flux > 1.5e4) & (flux < 2e5)
        assert good.sum() > 100
        off = measured.flux[row[good]] / flux[good] - 1
        widths.append(mad_std(off / (measured.error[row[good]] / flux[good])))
        offsets.append((off, flux[good], x[good], y[good]))
    assert 0.7 < widths[0] < 1.5
    # Without the crowd in them the errors are far too small.
    assert widths[1] > 2.5
    # The median offset of the stars is told to a fifth of it and its own error.
    off, *stars = offsets[0]
    error = 3 * np.std(off) / np.sqrt(off.size)
    assert abs(np.median(off) - crowd.bias_at(*stars)) < 0.2 * abs(np.median(off)) + error
    # The inner aperture scatters less than the mean of both.
    assert mad_std(off) < mad_std(offsets[1][0])


def test_half_of_the_stars_of_that_flux_are_in_the_table_of_a_crowd():
    rng = np.random.default_rng(21)
    bright = 10 ** (-0.4 * (13 + 7.5 * rng.random(900) ** 0.6 - 28.4))
    coadd = resolved(measured_scene(rng, bright.size, flux=bright)[0])
    limit = limiting_flux(coadd).flux
    complete = complete_flux(coadd, limit, HOW, 128, SETTINGS.catalogue_snr)
    # Not noise but other stars hide it.
    assert complete > 1.2 * limit
    found, number = 0, 0
    for _ in range(2):
        again, x, y, _ = measured_scene(rng, 1000, flux=np.r_[np.full(100, complete), bright])
        again = resolved(again)
        measured = measure_sources(again, again.field, [FWHM], crowded=True)
        listed = measured.point.flux > SETTINGS.catalogue_snr * measured.point.error
        at = np.column_stack([again.field.sources["x"], again.field.sources["y"]])[listed]
        apart, row = cKDTree(at).query(np.column_stack([x, y])[:100])
        ratio = measured.psf.flux[listed][row] / complete
        found += np.count_nonzero((apart < 0.75 * FWHM) & (ratio > 0.5) & (ratio < 2))
        number += 100
    # The fit is good to 0.15 mag, in which the fraction changes by as much.
    assert 0.3 < found / number < 0.7


def test_errors_are_those_of_the_place_in_a_cluster():
    """In the core of a cluster most sources are blends, outside of it hardly any."""
    rng = np.random.default_rng(6)
    number, size = 500, 420
    core = 210 + 22 * rng.standard_t(3, (2, number))
    places = np.concatenate([core, rng.uniform(8, size - 8, (2, 150))], axis=1)
    places = places[:, np.all((places > 8) & (places < size - 8), axis=0)]
    coadd, x, y, flux = measured_scene(rng, places.shape[1], places=places)
    coadd = resolved(coadd)
    field = coadd.field
    crowd = confusion(coadd, HOW, 128, [FWHM])
    plain = measure_sources(coadd, field, [FWHM], crowded=True)
    wider = crowd.widen(plain, field)
    at = np.column_stack([field.sources["x"], field.sources["y"]])
    apart, row = cKDTree(at).query(np.column_stack([x, y]))
    away = np.hypot(x - 210, y - 210)
    stated, pulls = [], []
    for inside in (away < 30, (away > 100) & (away < 200)):
        good = inside & (apart < 0.8 * FWHM) & (flux > 2e4) & (flux < 2e5)
        for one in (plain, wider):
            error = one.psf.error[row[good]] / flux[good]
            wrong = one.psf.flux[row[good]] / flux[good] - 1
            stated.append(np.median(error))
            pulls.append(mad_std(wrong / error))
    before, core, outside_before, outside = stated
    # Several stars lie within a FWHM of each other: what is taken for one often is two, and more
    # than injected stars tell, which start from the sources as they are seen.
    assert core > 0.05 and core > 5 * outside and pulls[1] < pulls[0] / 5
    assert outside < 1.6 * outside_before and 0.5 < pulls[3] < 1.3


@pytest.mark.parametrize("slope", [0.3, 0.9])
def test_errors_beyond_those_stated_are_a_power_of_the_flux(slope):
    rng, number = np.random.default_rng(31), 600
    flux = 10 ** rng.uniform(3.5, 5.7, number)
    error, beyond = 20 / flux**0.9, 0.02 * (flux / 1e4) ** -slope
    deviation = np.hypot(error, beyond) * rng.normal(size=number)
    # One in ten is the light of another star.
    blended = rng.random(number) < 0.1
    deviation[blended] += 10 ** rng.uniform(-1, 1, blended.sum())
    level, power, _ = excess_law(flux, deviation, error)
    told = np.hypot(level * flux**-power, error)
    # Half of a tenth more than the others is within 0.76 of their sigma, not 0.67.
    assert np.median(told / np.hypot(beyond, error)) == pytest.approx(0.765 / 0.6745, abs=0.12)
    for rows in np.array_split(np.argsort(flux), 3):
        # The width of 200 is known to 0.08.
        assert mad_std(deviation[rows] / told[rows]) == pytest.approx(1, abs=0.2)


def test_confusion_is_kept_in_a_file():
    rng = np.random.default_rng(32)
    image = rng.random((60, 80)).astype(np.float32)
    light = LocalLight.of(image, np.ones(image.shape, bool), FWHM).to_power(1.5)
    flux = np.array([1e3, 1e4, 1e5])
    made = [k / flux**0.5 for k in range(1, 9)]
    crowd = Confusion(flux, *made[:3], made[3:6], *made[6:], light)
    again = Confusion.from_hdus(*crowd.hdus())
    x, y, stars = np.array([10.0, 60.0]), np.array([50.0, 8.0]), np.array([3e3, 4e5])
    for one, other in zip(
        (crowd.psf, crowd.auto, *crowd.apertures), (again.psf, again.auto, *again.apertures),
        strict=True,
    ):  # fmt: skip
        assert again.beyond(other, stars, x, y) == pytest.approx(crowd.beyond(one, stars, x, y))
    assert again.bias_at(stars, x, y) == pytest.approx(crowd.bias_at(stars, x, y))
