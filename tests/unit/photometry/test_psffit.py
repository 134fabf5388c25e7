"""Fits of the point-spread function, against stars of known place and flux."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.wcs import WCS
from moffatstars import jittered_grid, moffat_image

from lib.core.settings import StackSettings
from lib.core.stats import mad_std
from lib.photometry.coaddpsf import psf_measurement, psf_of_coadd, resolve_crowd
from lib.photometry.injection import CROWDED, confusion, crowding
from lib.photometry.psf import Wings, moffat_alpha
from lib.photometry.psfbuild import FIT_RADIUS, PsfImage, PsfStars, build_psf
from lib.photometry.psffit import psf_photometry
from lib.photometry.psfmodel import PsfModel
from lib.photometry.sourcetable import measure_sources
from lib.photometry.underlying import UnderlyingLight
from lib.stack.depth import detection_settings, measure_coadd

FWHM, BETA, SKY = 3.4, 3.0, 300.0
SETTINGS = StackSettings()
ROUND = Wings(moffat_alpha(FWHM, 2.6), 2.6, 1.0)


def light_within(radius, fwhm=FWHM, beta=BETA):
    return 1 - (1 + (radius / moffat_alpha(fwhm, beta)) ** 2) ** (1 - beta)


def noisy(rng, light, sky=SKY):
    image = rng.poisson(light + sky).astype(np.float32) - np.float32(sky)
    return image, np.full(image.shape, sky, np.float32)


def grid_of_stars(rng, size=400, step=31.0):
    x, y = jittered_grid(rng, 24, size - 24, step)
    x, y = (place + rng.uniform(-3, 3, place.size) for place in (x, y))
    return x, y, 10 ** rng.uniform(2.8, 5.3, x.size)


def built(image, variance, x, y, flux, fwhm=FWHM, wings=ROUND, gain=1.0, light=None):
    rows = np.argsort(-flux)[: len(flux) // 2]
    light = light_within(FIT_RADIUS * fwhm, fwhm) if light is None else light
    return build_psf(PsfImage(image, variance, gain), PsfStars(x, y, rows), fwhm, wings, light)


def pulls(fitted, flux):
    return (fitted.flux - flux) / fitted.error


@pytest.fixture(scope="module")
def field():
    """A field of round stars, its model and its stars."""
    rng = np.random.default_rng(3)
    x, y, flux = grid_of_stars(rng)
    image, variance = noisy(rng, moffat_image(x, y, flux, FWHM, BETA, (400, 400), half=40))
    near = (place + rng.normal(0, 0.1, x.size) for place in (x, y))
    return image, variance, built(image, variance, *near, flux), x, y, flux


def test_fluxes_are_true_within_their_errors(field):
    image, variance, psf, x, y, flux = field
    rng = np.random.default_rng(4)
    near = [place + rng.normal(0, 0.15, x.size) for place in (x, y)]
    fitted = psf_photometry(image, variance, psf, *near, gain=1.0, free=True)
    snr = flux / fitted.error
    assert np.median(fitted.flux[snr > 60] / flux[snr > 60]) == pytest.approx(1, abs=0.003)
    for least, most in ((5, 60), (60, 2000)):
        some = (snr > least) & (snr < most)
        # 50 stars: the width is known to a tenth.
        assert some.sum() > 40 and 0.75 < np.std(pulls(fitted, flux)[some]) < 1.3
    bright = snr > 60
    # A Gaussian of S/N n is placed to sigma / n.
    expected = FWHM / 2.355 / snr
    shift = np.hypot(fitted.x - x, fitted.y - y)[bright] / expected[bright]
    assert np.median(shift) < 2.0
    assert np.median(fitted.chi2[bright]) == pytest.approx(1, abs=0.15)
    assert np.all(fitted.seen > 0.99)


def test_forced_fits_of_empty_places_and_of_holes(field):
    _, variance, psf, *_ = field
    rng = np.random.default_rng(5)
    x, y = jittered_grid(rng, 20, 380, 18.0)
    flux = np.where(np.arange(x.size) % 2, -600.0, 0.0)
    image = moffat_image(x, y, flux, FWHM, BETA, variance.shape, half=20)
    image = (image + rng.normal(0, np.sqrt(SKY), image.shape)).astype(np.float32)
    fitted = psf_photometry(image, variance, psf, x, y, rounds=1)
    assert np.std(pulls(fitted, flux)) == pytest.approx(1, abs=0.12)
    assert abs(np.mean(pulls(fitted, flux))) < 4 / np.sqrt(x.size)
    # No unbiased estimate is better than sky noise over the root of the sum of squares.
    assert np.all(fitted.error > 0.98 * np.sqrt(SKY * fitted.area))


def test_pairs_share_their_light_and_say_so(field):
    _, variance, psf, *_ = field
    rng = np.random.default_rng(6)
    x, y = jittered_grid(rng, 30, 370, 34.0)
    apart = 0.8 * FWHM
    angle = rng.uniform(0, 2 * np.pi, x.size)
    xs = np.concatenate([x, x + apart * np.cos(angle)])
    ys = np.concatenate([y, y + apart * np.sin(angle)])
    flux = np.repeat([2e3, 1e3], x.size)
    image, _ = noisy(rng, moffat_image(xs, ys, flux, FWHM, BETA, variance.shape, half=25))
    fitted = psf_photometry(image, variance, psf, xs, ys, gain=1.0)
    alone = psf_photometry(image, variance, psf, x, y, gain=1.0)
    assert 0.8 < np.std(pulls(fitted, flux)) < 1.25
    one, other = (
        moffat_image([40.0 + shift], [40.0], [1.0], FWHM, BETA, (81, 81), half=40)
        for shift in (0, apart)
    )
    shared = np.sum(one * other) / np.sum(one**2)
    first = slice(x.size)
    larger = np.median(fitted.error[first]) / np.median(alone.error)
    # Of two unknowns that share so much of their light; the noise is that of the sky, mostly.
    assert larger == pytest.approx(1 / np.sqrt(1 - shared**2), rel=0.05)
    assert np.median(alone.flux / flux[first]) == pytest.approx(1 + shared / 2, abs=0.05)


def test_model_is_kept_in_a_file(field):
    *_, psf, x, y, _ = field
    again = PsfModel.from_hdu(psf.hdu())
    radius = np.full(x.size, 2 * FWHM)
    ours, theirs = psf.stamps(x, y, radius).values, again.stamps(x, y, radius).values
    assert np.abs(ours - theirs).max() < 1e-6
    moved = again.shifted(30, 20).stamps(x - 30, y - 20, radius).values
    assert np.abs(moved - theirs).max() < 1e-6


def test_stamps_hold_the_derivatives(field):
    *_, psf, x, y, _ = field
    step, radius = 1e-3, np.array([8.0])
    at = x[:1], y[:1]
    middle = psf.stamps(*at, radius)
    for axis in (0, 1):
        shift = [step * (axis == 0), step * (axis == 1)]
        one, other = (
            psf.stamps(at[0] + s * shift[0], at[1] + s * shift[1], radius).light.astype(float)
            for s in (1, -1)
        )
        inside = (one != 0) & (other != 0)
        slope = (one - other)[inside] / (2 * step)
        assert middle.values[1 + axis][inside] == pytest.approx(slope, abs=2e-4)


def ring_image(x, y, flux, shape, inner, outer, blur, half=18):
    """Return stars of a telescope out of focus: rings, blurred by the seeing."""
    from scipy.ndimage import gaussian_filter

    image, fine = np.zeros(shape), 3
    for xs, ys, light in zip(x, y, flux, strict=True):
        x0, y0 = round(xs) - half, round(ys) - half
        at = (np.arange(fine * (2 * half + 1)) + 0.5) / fine - 0.5
        r = np.hypot(at[None, :] + x0 - xs, at[:, None] + y0 - ys)
        ring = gaussian_filter(((r > inner) & (r < outer)).astype(float), fine * blur)
        ring = ring.reshape(2 * half + 1, fine, -1, fine).sum(axis=(1, 3))
        image[y0 : y0 + 2 * half + 1, x0 : x0 + 2 * half + 1] += light * ring / ring.sum()
    return image


def test_rings_of_a_telescope_out_of_focus():
    rng = np.random.default_rng(7)
    x, y = jittered_grid(rng, 40, 440, 64.0)
    flux = 10 ** rng.uniform(4.5, 6, x.size)
    image, variance = noisy(rng, ring_image(x, y, flux, (480, 480), 3.0, 8.0, 1.2))
    psf = built(image, variance, x, y, flux, 15.0, Wings(moffat_alpha(15.0, 4), 4, 1), light=1.0)
    fitted = psf_photometry(image, variance, psf, x, y, gain=1.0, free=True)
    # But for the light that is too far out to be measured, which is that of all stars.
    common = np.median(fitted.flux / flux)
    assert common == pytest.approx(1, abs=0.05)
    bright = flux > 200 * fitted.error
    assert np.std(fitted.flux[bright] / flux[bright]) < 0.004
    middle = psf.stamps(x[:1], y[:1], np.array([12.0]))
    table = middle.light.reshape(2 * middle.half[0] + 1, -1)
    h = middle.half[0]
    assert table[h, h] < 0.6 * table[h, h + 5]


def test_undersampled_stars():
    rng, fwhm = np.random.default_rng(8), 1.3
    x, y, flux = grid_of_stars(rng, 300, 19.0)
    light = moffat_image(x, y, flux, fwhm, BETA, (300, 300), half=20, points=11)
    image, variance = noisy(rng, light)
    near = [place + rng.normal(0, 0.05, x.size) for place in (x, y)]
    wings = Wings(moffat_alpha(1.5, 2.6), 2.6, 1.0)
    psf = built(image, variance, *near, flux, fwhm, wings)
    fitted = psf_photometry(image, variance, psf, *near, gain=1.0, free=True)
    bright = flux > 60 * fitted.error
    assert np.median(fitted.flux[bright] / flux[bright]) == pytest.approx(1, abs=0.005)
    # Wherever in its pixel a star is.
    assert 0.75 < np.std(pulls(fitted, flux)[bright]) < 1.3


def test_light_of_undersampled_stars_does_not_hang_on_their_place_in_a_pixel():
    """Where pixels say nothing between stars a model could grow there as the fluxes shrink."""
    rng, fwhm = np.random.default_rng(8), 1.3
    x, y, flux = grid_of_stars(rng, 300, 40.0)
    # Sharper than any Moffat profile that the model starts from.
    light = moffat_image(x, y, flux, fwhm, 30.0, (300, 300), half=20, points=11)
    image, variance = noisy(rng, light)
    wings = Wings(moffat_alpha(1.5, 2.6), 2.6, 1.0)
    psf = built(image, variance, x, y, flux, fwhm, wings, light=1.0)
    shift = np.arange(8) / 8 - 0.5
    dx, dy = (150 + axis.ravel() for axis in np.meshgrid(shift, shift))
    stamps = psf.stamps(dx, dy, np.full(dx.size, FIT_RADIUS * fwhm))
    sums = np.add.reduceat(stamps.light.astype(float), stamps.start[:-1])
    assert np.std(sums) / np.mean(sums) < 0.002


def test_elongation_that_changes_over_the_field():
    rng, size = np.random.default_rng(9), 420
    x, y, flux = grid_of_stars(rng, size, 29.0)
    light = np.zeros((size, size))
    alpha = moffat_alpha(FWHM, BETA)
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    for xs, ys, f in zip(x, y, flux, strict=True):
        part = np.s_[max(0, int(ys) - 25) : int(ys) + 26, max(0, int(xs) - 25) : int(xs) + 26]
        # Round on the left, 1 : 1.5 on the right, of one light.
        q = 1 + 0.5 * xs / size
        r2 = ((xx[part] - xs) / q) ** 2 + ((yy[part] - ys) * 1.0) ** 2
        light[part] += f * (BETA - 1) / (np.pi * alpha**2 * q) * (1 + r2 / alpha**2) ** -BETA
    image, variance = noisy(rng, light)
    psf = built(image, variance, x, y, flux, 1.1 * FWHM, ROUND, light=0.97)
    assert psf.degree == 2
    fitted = psf_photometry(image, variance, psf, x, y, gain=1.0, free=True)
    bright = flux > 100 * fitted.error
    ratio = fitted.flux[bright] / flux[bright]
    left, right = (np.median(ratio[side]) for side in (x[bright] < 200, x[bright] >= 200))
    # One model for all would be off by several per cent.
    assert left / right == pytest.approx(1, abs=0.01)
    even = replace(psf, coefficients=psf.coefficients[:1], degree=0)
    fitted = psf_photometry(image, variance, even, x, y, gain=1.0, free=True)
    ratio = fitted.flux[bright] / flux[bright]
    left, right = (np.median(ratio[side]) for side in (x[bright] < 120, x[bright] >= 300))
    assert abs(left / right - 1) > 0.02


def coadd_of(rng, x, y, flux, shape, saturate=1e9):
    light = moffat_image(x, y, flux, FWHM, BETA, shape, half=40)
    image, _ = noisy(rng, light)
    weight = np.full(shape, 1 / SKY, np.float32)
    core = image > saturate
    image[core], weight[core] = saturate, 0
    return measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=1.0, gain=1.0, saturate=saturate, settings=SETTINGS
    )


def with_psf(coadd):
    crowded = crowding(coadd) >= CROWDED
    field = coadd.field
    total = field.core_flux / field.core.fraction if crowded else field.total
    psf, reason = psf_of_coadd(coadd, total, crowded)
    return replace(coadd, psf=psf, psf_reason=reason)


def matched(field, x, y, reach=1.5):
    from scipy.spatial import cKDTree

    at = np.column_stack([field.sources["x"], field.sources["y"]])
    apart, index = cKDTree(at).query(np.column_stack([x, y]))
    near = apart < reach
    return index[near], near


def test_ordinary_field_agrees_with_apertures_and_truth():
    rng = np.random.default_rng(10)
    x, y, flux = grid_of_stars(rng)
    coadd = with_psf(coadd_of(rng, x, y, flux, (400, 400)))
    measured = measure_sources(coadd, coadd.field, [FWHM])
    rows, near = matched(coadd.field, x, y)
    psf, point, true = measured.psf, measured.point, flux[near]
    bright = true > 60 * point.error[rows]
    ratio = psf.flux[rows] / point.flux[rows]
    error = np.minimum(psf.error, point.error)[rows] / true
    assert np.median(ratio[bright]) == pytest.approx(1, abs=0.002)
    assert np.all(np.abs(ratio[bright] - 1) < 5 * error[bright] + 0.003)
    for least, most in ((5, 60), (60, 300)):
        some = (true > least * psf.error[rows]) & (true < most * psf.error[rows])
        pull = ((psf.flux[rows] - true) / psf.error[rows])[some]
        assert some.sum() > 25 and 0.7 < mad_std(pull) < 1.4
    assert np.nanmedian(measured.psf_chi2[rows]) == pytest.approx(1, abs=0.2)


def test_saturated_stars_are_told_by_their_wings():
    rng = np.random.default_rng(11)
    x, y, flux = grid_of_stars(rng)
    flux[::12] = 10 ** rng.uniform(5.9, 6.7, flux[::12].size)
    coadd = with_psf(coadd_of(rng, x, y, flux, (400, 400), saturate=2.5e4))
    measured = psf_measurement(coadd, coadd.field, UnderlyingLight.none(len(coadd.field.sources)))
    rows, near = matched(coadd.field, x, y, 3.0)
    lost = flux[near] > 6e5
    assert lost.sum() >= 8
    pull = ((measured.flux - 0)[rows] - flux[near]) / measured.error[rows]
    told = lost & np.isfinite(pull)
    assert told.sum() >= lost.sum() - 1
    assert np.all(np.abs(pull[told]) < 4) and np.median(np.abs(pull[told])) < 1.5
    assert np.median((measured.error[rows] / flux[near])[told]) < 0.1


def test_field_without_stars_says_why():
    rng = np.random.default_rng(12)
    coadd = with_psf(coadd_of(rng, np.array([60.0]), np.array([70.0]), [3e4], (160, 160)))
    assert coadd.psf is None and coadd.psf_reason.startswith("TOO_FEW_STARS")
    measured = measure_sources(coadd, coadd.field, [FWHM])
    assert np.isnan(measured.psf.flux).all() and len(measured.psf.flux) == len(measured.point.flux)


def test_crowd_is_resolved_and_its_errors_are_the_scatter():
    """200,000 stars per square degree of 0.6 arcsec pixels."""
    rng, size = np.random.default_rng(13), 270
    number = int(200_000 * (size * 0.6 / 3600) ** 2)
    x, y = rng.uniform(4, size - 4, (2, number))
    mag = 13 + 7.5 * rng.random(number) ** 0.6
    flux = 10 ** (-0.4 * (mag - 28.4))
    coadd = with_psf(coadd_of(rng, x, y, flux, (size, size)))
    before = len(coadd.field.sources)
    coadd = replace(coadd, field=resolve_crowd(coadd, coadd.field))
    assert len(coadd.field.sources) > 1.8 * before
    measured = measure_sources(coadd, coadd.field, [FWHM], crowded=True)
    # Sources that only the fits show have no pixels of their own to be the light of a galaxy.
    hidden = np.arange(len(coadd.field.sources)) >= before
    assert (
        np.isnan(measured.auto.flux[hidden]).all() and np.isnan(measured.kron_reach[hidden]).all()
    )
    assert np.isfinite(measured.auto.flux[~hidden]).all()
    crowd = confusion(coadd, detection_settings(SETTINGS), 128, [FWHM])
    psf = (crowd.widen(measured, coadd.field) if crowd else measured).psf
    rows, near = matched(coadd.field, x, y)
    assert near[mag < 18].mean() > 0.95
    wrong = -2.5 * np.log10(psf.flux[rows] / flux[near])
    stated = 1.0857 * psf.error[rows] / psf.flux[rows]
    ratios = []
    for bright, faint, most in ((16, 18, 0.04), (18, 20, 0.12)):
        some = (mag[near] > bright) & (mag[near] < faint)
        scatter = mad_std(wrong[some])
        assert scatter < most
        ratios.append(scatter / np.median(stated[some]))
    # What is added for confusion rests on some 60 stars a bin, which know it to a quarter.
    assert np.mean(ratios) < 1.3 and max(ratios) < 1.3 * 1.25 and min(ratios) > 0.5
    # Apertures about bright stars differ by what the fits leave, not by the light of neighbours.
    point = (crowd.widen(measured, coadd.field) if crowd else measured).point
    bright = mag[near] < 16
    wrong = -2.5 * np.log10(point.flux[rows] / flux[near])[bright]
    stated = 1.0857 * np.median((point.error[rows] / point.flux[rows])[bright])
    assert 0.6 < mad_std(wrong) / stated < 1.5


def test_stars_at_the_edge_are_fitted_inside_the_image(field):
    """Beyond it nothing tells where they are; their light outside may push them there."""
    image, variance, psf, *_ = field
    rng = np.random.default_rng(8)
    size = 120
    along = np.linspace(15, size - 15, 5)
    x = np.r_[np.full(5, -0.9), along, np.full(5, size - 0.1), along]
    y = np.r_[along, np.full(5, -0.9), along, np.full(5, size - 0.1)]
    flux = np.full(x.size, 3e4)
    edge, noise = noisy(rng, moffat_image(x, y, flux, FWHM, BETA, (size, size), half=40))
    begun = np.clip(x, 0, size - 1), np.clip(y, 0, size - 1)
    fitted = psf_photometry(edge, noise, psf, *begun, gain=1.0, free=True, rounds=8)
    for place in (fitted.x, fitted.y):
        assert place.min() >= 0 and place.max() <= size - 1


def test_pixels_without_a_value_tell_nothing_where_the_sky_is_fitted(field):
    image, variance, psf, x, y, flux = field
    rng = np.random.default_rng(14)
    hole = rng.random(image.shape) < 0.03
    broken, lost = np.where(hole, np.nan, image), np.where(hole, 0, variance)
    near = [place + rng.normal(0, 0.1, x.size) for place in (x, y)]
    how = {"gain": 1.0, "free": True, "sky_box": 64}
    by_value = psf_photometry(broken, variance, psf, *near, **how)
    by_weight = psf_photometry(image, lost, psf, *near, **how)
    assert by_value.flux == pytest.approx(by_weight.flux, rel=1e-4, abs=1e-2)
    bright = flux > 60 * by_value.error
    assert np.std(pulls(by_value, flux)[bright]) < 1.4


def test_error_of_the_profile_is_measured_on_its_stars():
    """Stars whose images differ by some per cent from pixel to pixel, and those that do not."""
    for wrong in (0.0, 0.006):
        rng = np.random.default_rng(15)
        x, y, _ = grid_of_stars(rng)
        flux = 10 ** rng.uniform(5.5, 6.3, x.size)
        light = moffat_image(x, y, flux, FWHM, BETA, (400, 400), half=40)
        light *= 1 + wrong * rng.normal(size=light.shape)
        image, variance = noisy(rng, light)
        psf = built(image, variance, x, y, flux)
        # The splines themselves follow the core to two thousandths.
        assert wrong * 0.7 < psf.profile_error < wrong * 1.3 + 0.003
