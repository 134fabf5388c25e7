"""The source table of a coadd: errors of automatic magnitudes, against repeats."""

from dataclasses import replace

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter, shift
from scipy.signal import fftconvolve

from lib.core.settings import StackSettings
from lib.photometry.emptyapertures import summed_area
from lib.photometry.measuredcoadd import CoaddNoise, MeasuredCoadd
from lib.photometry.psf import moffat_alpha
from lib.photometry.skystructure import local_excess
from lib.photometry.sourcetable import (
    KRON_FACTOR,
    KRON_LEAST,
    KRON_REGION,
    SourceFluxes,
    SourceMeasurements,
    kron_variance_factor,
    source_table,
)
from lib.photometry.zeropoint import Zeropoint
from lib.stack.depth import measure_coadd

SIZE, FWHM, GAIN, SKY = 520, 3.5, 2.0, 40.0
SHIFT = 0.5


def make_scene(rng, step=40, fine=3):
    """Return a noise-free image, half of stars and half of exponential discs, and its sources.

    One to each square of `step` pixels. Drawn on a grid `fine` times as fine and convolved with
    a Moffat profile (beta 3) there.
    """
    noise = np.sqrt(SKY) * 1.5 * FWHM * np.sqrt(np.pi)  # in the aperture of point sources
    places = np.arange(step / 2, SIZE, step)
    number = places.size**2
    x, y = (one.ravel() + rng.uniform(-6, 6, number) for one in np.meshgrid(places, places))
    flux = noise * np.exp(rng.uniform(np.log(8), np.log(250), number))
    disc = np.arange(number) % 2 == 1
    length, axis, angle = (
        rng.uniform(*span, number) for span in ((1.0, 3.0), (0.4, 1.0), (0, np.pi))
    )
    grid = np.zeros((fine * SIZE, fine * SIZE))
    for k in range(number):
        column, row = round(fine * x[k] + 1), round(fine * y[k] + 1)
        x[k], y[k] = (column - 1) / fine, (row - 1) / fine
        if not disc[k]:
            grid[row, column] += flux[k]
            continue
        half = 30 * fine
        rows = np.arange(max(0, row - half), min(len(grid), row + half + 1))
        columns = np.arange(max(0, column - half), min(len(grid), column + half + 1))
        dx, dy = (columns - column)[None] / fine, (rows - row)[:, None] / fine
        along = dx * np.cos(angle[k]) + dy * np.sin(angle[k])
        across = (dy * np.cos(angle[k]) - dx * np.sin(angle[k])) / axis[k]
        light = np.exp(-np.hypot(along, across) / length[k])
        grid[np.ix_(rows, columns)] += flux[k] * light / light.sum()
    reach = np.arange(-40 * fine, 40 * fine + 1) / fine
    psf = (1 + (reach**2 + reach[:, None] ** 2) / moffat_alpha(FWHM, 3.0) ** 2) ** -3.0
    image = fftconvolve(grid, psf / psf.sum(), mode="same")
    return image.reshape(SIZE, fine, SIZE, fine).sum(axis=(1, 3)), x, y, disc


def measure(rng, truth):
    """Return the source table of a scene with noise that resampling has made alike."""
    electrons = rng.poisson(GAIN * np.maximum(truth + SKY, 0)) / GAIN - SKY
    noisy = electrons + rng.normal(0, np.sqrt(SKY * (1 - 1 / GAIN)), truth.shape)
    # As a stack does: neighbours share their noise.
    image = shift(noisy, SHIFT, order=3, mode="mirror")
    weight = np.full(truth.shape, 1 / SKY, np.float32)
    settings = StackSettings()
    coadd = measure_coadd(
        image.astype(np.float32), weight, wcs=WCS(naxis=2), scale=1.0, gain=GAIN, saturate=1e9,
        settings=settings,
    )  # fmt: skip
    return source_table(coadd, Zeropoint(value=25.0), settings.apertures)


@pytest.fixture(scope="module")
def repeats():
    """Pairs of measurements of the same sources: a table of each, and which are discs.

    And the error of the aperture corrections [mag].
    """
    pairs, corrections = [], []
    for seed in range(5):
        rng = np.random.default_rng(400 + seed)
        truth, x, y, disc = make_scene(rng)
        tables, rows = [], []
        for _ in range(2):
            hdu = measure(rng, truth)
            table = hdu.data
            corrections.append(hdu.header["APCORERR"])
            apart = np.hypot(
                table["X"] - 1 - SHIFT - x[:, None], table["Y"] - 1 - SHIFT - y[:, None]
            )
            nearest = apart.argmin(axis=1)
            found = (apart.min(axis=1) < 1.5) & (table["FLAGS"][nearest] & ~512 == 0)
            tables.append(table)
            rows.append(np.where(found, nearest, -1))
        both = (rows[0] >= 0) & (rows[1] >= 0)
        pairs.append((tables[0][rows[0][both]], tables[1][rows[1][both]], disc[both]))
    return pairs, np.median(corrections)


def pulls(pairs, name):
    """Return S/N of each source, difference of its fluxes over their error, which are discs."""
    found = []
    for a, b, disc in pairs:
        error = np.hypot(a[f"FLUXERR_{name}"], b[f"FLUXERR_{name}"])
        pull = (a[f"FLUX_{name}"] - b[f"FLUX_{name}"]) / error
        found.append((np.minimum(a["SNR"], b["SNR"]), pull, disc))
    return (np.concatenate(part) for part in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["AUTO", "POINT", "APER4"])
def test_errors_are_the_scatter_of_repeats(repeats, name):
    pairs, correction = repeats
    snr, pull, disc = pulls(pairs, name)
    kinds = {"all": np.ones(disc.size, bool), "discs": disc, "stars": ~disc}
    for low, high, kind in (
        (8, 20, "all"), (20, 60, "all"), (60, 250, "all"), (10, 250, "discs"), (10, 250, "stars"),
    ):  # fmt: skip
        those = (snr >= low) & (snr < high) & kinds[kind]
        of = pull[those]
        assert of.size > 90
        width = 1.4826 * np.median(np.abs(of - np.median(of)))
        assert 0.8 < width < 1.2, (low, high, kind)
        # A tail would not show in the median deviation.
        assert (np.abs(of) > 4).mean() < 0.02
        kept = of[np.abs(of) < 5]
        bound = kept.std() / np.sqrt(kept.size)
        if name == "POINT":  # all sources of an image share their correction to total flux
            bound = np.hypot(bound, correction / 1.0857 * snr[those].mean() / np.sqrt(len(pairs)))
        assert abs(kept.mean()) < 3 * bound


def test_errors_of_positions_are_the_scatter_of_repeats(repeats):
    move, error, snr, disc = (
        np.concatenate(part)
        for part in zip(
            *(
                (
                    np.ravel([a["X"] - b["X"], a["Y"] - b["Y"]]),
                    np.tile(np.hypot(a["POSERR"], b["POSERR"]) / 1000, 2),
                    np.tile(np.minimum(a["SNR"], b["SNR"]), 2),
                    np.tile(disc, 2),
                )
                for a, b, disc in repeats[0]
            ),
            strict=True,
        )
    )
    for low, high in ((10, 20), (20, 50), (50, 250)):
        # The window is that of stars, which also tells the noise that pixels share.
        for kind, most in ((~disc, 1.2), (disc, 1.35)):
            pull = (move / error)[(snr >= low) & (snr < high) & kind]
            assert pull.size > 60
            assert 0.8 < 1.4826 * np.median(np.abs(pull)) < most, (low, high, most)


def test_automatic_apertures_hold_most_of_the_light_and_are_steady(repeats):
    for a, b, _ in repeats[0]:
        bright = a["SNR"] > 50
        point = bright & a["STAR"] & b["STAR"]
        ratio = a["FLUX_AUTO"][point] / a["FLUX_POINT"][point]
        assert 0.94 < np.median(ratio) < 1.0
        assert (a["KRON_RADIUS"] >= 0.999 * KRON_LEAST * a["A_IMAGE"]).all()
        faint = ~bright
        change = np.log(a["KRON_RADIUS"] / b["KRON_RADIUS"])[faint]
        # Twice as much with 3.5 pixels as the least radius.
        assert 1.4826 * np.median(np.abs(change)) < 0.3


def test_noise_of_the_kron_radius_adds_to_that_of_the_aperture():
    """White noise on a disc, the aperture following its Kron radius."""
    rng = np.random.default_rng(8)
    axis, length = 5.0, 4.5
    y, x = np.mgrid[-40:41, -40:41]
    r = np.hypot(x, y) / axis
    light = 1e5 * np.exp(-r * axis / length)
    within = r < KRON_REGION

    def automatic(image):
        radius = KRON_FACTOR * (r * image)[within].sum() / image[within].sum()
        # Parts of pixels on the rim, or the flux would move in steps.
        part = np.clip((radius - r) * axis + 0.5, 0, 1)
        return radius, (part * image).sum(), part

    radius, _, part = automatic(light)
    assert KRON_LEAST < radius < KRON_REGION
    noise = rng.normal(0, 200.0, (1500, *r.shape))
    free = np.std([automatic(light + n)[1] for n in noise])
    fast = np.std([(part * n).sum() for n in noise])
    # The slope of the growth curve stands for all kinds of sources: good to a tenth.
    assert kron_variance_factor(np.array([radius]))[0] == pytest.approx(
        (free / fast) ** 2, rel=0.15
    )
    assert free / fast > 1.1


def test_noise_is_larger_where_the_sky_has_structure():
    """A ghost with structure on the scale of apertures covers a corner of the image."""
    rng, size, radius = np.random.default_rng(10), 800, 5.0
    white = rng.normal(0, 3.0, (size, size))
    blobs = gaussian_filter(rng.normal(0, 1, (size, size)), 6)
    blobs[300:] = blobs[:, 300:] = 0
    image = white + 0.5 * blobs / blobs[:300, :300].std()
    image[700, 700] = 1e4  # a hot pixel is no structure
    image = image.astype(np.float32)
    variance = np.full(image.shape, 9.0, np.float32)
    occupied = np.zeros(image.shape, bool)
    x, y = rng.uniform(20, size - 20, (2, 400))
    excess = local_excess(image, variance, summed_area(occupied), x, y, radius)
    inside = np.maximum(x, y) < 250
    outside = np.maximum(x, y) > 350
    # What is laid about there says how much it must be.
    at = rng.uniform(20, 280, (2, 3000))
    ratio = sep.sum_circle(image, *at, radius, subpix=5)[0].std() / (3 * np.sqrt(np.pi) * radius)
    assert ratio > 1.5
    assert np.median(excess[inside]) == pytest.approx(ratio, rel=0.1)
    # The rms of 60 overlapping apertures is good to a tenth or so.
    assert np.median(excess[outside]) < 1.05 and excess[outside].max() < 1.5
    none = local_excess(image, variance, summed_area(~occupied), x, y, radius)
    assert (none == 1).all()


def test_table_without_sources():
    plane, covered = np.ones((64, 64), np.float32), np.ones((64, 64), bool)
    coadd = MeasuredCoadd(
        plane, plane, covered, ~covered, np.zeros((1, 1)), None,
        CoaddNoise(np.ones(1), np.ones(1)), WCS(naxis=2), scale=1.0, gain=1.0,
    )  # fmt: skip
    table = source_table(coadd, Zeropoint(), (1.0, 2.0))
    assert isinstance(table, fits.BinTableHDU) and len(table.data) == 0


def test_error_of_the_flat_is_part_of_all_errors():
    flux = np.array([100.0, 10000.0])
    plain = SourceFluxes(flux, np.array([5.0, 20.0]))
    none = SourceMeasurements.none(1)
    measured = replace(none, point=plain, auto=plain, apertures=[plain])
    found = measured.with_flat_error(0.02)
    expected = [np.hypot(5.0, 2.0), np.hypot(20.0, 200.0)]
    for one in (found.point, found.auto, *found.apertures):
        np.testing.assert_allclose(one.error, expected)
        np.testing.assert_array_equal(one.flux, flux)
    assert measured.with_flat_error(0.0) is measured
