"""Cosmic rays on simulated frames whose every charge is known."""

import numpy as np
import pytest
import simulate
from cosmicframes import DETECTORS, SHAPE, altered_cores, expose
from scipy.ndimage import label, uniform_filter

from lib.calibration.cosmicrays import crclean_frame, find_cosmic_rays, repair
from lib.calibration.sharpness import NEIGHBOURS, Sharpness, sharpest_ratios
from lib.calibration.starlight import Starlight, touching
from lib.calibration.starwidth import measure_fwhm
from lib.core.settings import CrcleanSettings
from lib.frame.file import BAD, COSMIC, INTERPOLATED, SATURATED, Frame


@pytest.mark.parametrize("method", ["auto", "lacosmic"])
@pytest.mark.parametrize("fwhm", [3.0, 4.5, 6.6])  # 0.9" to 2" at 0.3" a pixel
def test_cosmic_rays_are_found_and_stars_survive(fwhm, method):
    hit = found = flagged = false = stars = altered = 0
    for seed, detector in enumerate(DETECTORS):
        frame, truth = expose(fwhm, *detector, seed=seed)
        cleaned = crclean_frame(
            Frame(frame.image, frame.mask, frame.header.copy()), CrcleanSettings(method=method)
        )
        flags = cleaned.mask & COSMIC > 0
        bright = truth.cosmic > 10 * truth.noise
        hit, found = hit + bright.sum(), found + (flags & bright).sum()
        flagged, false = flagged + flags.sum(), false + (flags & (truth.cosmic < 1)).sum()
        more = altered_cores(frame.image, cleaned.image, truth, fwhm)
        stars, altered = stars + more[0], altered + more[1]
        assert cleaned.header["NCOSMIC"] == flags.sum()
        assert (cleaned.mask[flags] & INTERPOLATED).all()
    assert hit > 100 and stars > 200
    assert found >= 0.95 * hit
    assert false <= 0.03 * flagged
    assert altered == 0


@pytest.mark.parametrize("method", ["auto", "psf", "lacosmic"])
@pytest.mark.parametrize("fwhm", [1.5, 2.0])
def test_undersampled_stars_survive(fwhm, method):
    found = hit = 0
    for seed, detector in enumerate(DETECTORS):
        frame, truth = expose(fwhm, *detector, seed=seed)
        cleaned = crclean_frame(
            Frame(frame.image, frame.mask, frame.header.copy()), CrcleanSettings(method=method)
        )
        flags = cleaned.mask & COSMIC > 0
        bright = truth.cosmic > 10 * truth.noise
        found, hit = found + (flags & bright).sum(), hit + bright.sum()
        assert (flags & (truth.cosmic < 1)).sum() <= 0.03 * flags.sum()
        stars, altered = altered_cores(frame.image, cleaned.image, truth, fwhm)
        assert stars > 50 and altered == 0
    assert method != "auto" or found >= 0.95 * hit


@pytest.mark.parametrize("psf", [{"beta": 2.2}, {"beta": 8.0}, {"ellipticity": 0.25}])
def test_stars_of_another_profile_survive(psf):
    frame, truth = expose(3.0, *DETECTORS[1], seed=7, **psf)
    cleaned = crclean_frame(Frame(frame.image, frame.mask, frame.header.copy()))
    stars, altered = altered_cores(frame.image, cleaned.image, truth, 3.0)
    assert stars > 60 and altered == 0


STRANGE_STARS = {
    "ring": (2.5, simulate.ring_spots(6, 3, 1)),
    "large ring": (3.0, simulate.ring_spots(11, 5, 1.5)),
    "ring off centre": (2.0, simulate.ring_spots(6, 2.5, 1, shift=1.5)),
    "jump": (1.8, ((0, 0, 1, 1), (3.2, 2.4, 0.6, 1))),
    "undersampled jump": (1.4, ((0, 0, 1, 1), (1.5, 0.5, 0.7, 1))),
    "coma": (2.5, simulate.coma_spots(8)),
    "spikes": (3.0, simulate.spike_spots(20, 0.08)),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE_STARS)
def test_stars_of_no_round_profile_are_no_cosmic_rays(kind):
    """Of the rays on stars some may be lost, those on the sky are found."""
    fwhm, spots = STRANGE_STARS[kind]
    frame, truth = expose(fwhm, *DETECTORS[1], seed=7, stars=40, rays=20, spots=spots)
    cleaned = crclean_frame(Frame(frame.image, frame.mask, frame.header.copy()))
    flags = cleaned.mask & COSMIC > 0
    assert (flags & (truth.cosmic < 1)).sum() <= 3
    sky = truth.stars < truth.noise
    bright = sky & (truth.cosmic > 10 * truth.noise)
    assert bright.sum() > 20
    # Where stars are undersampled some of the rays are as blurred as they.
    assert (flags & bright).sum() >= (0.8 if "jump" in kind else 0.95) * bright.sum()


def test_rays_in_stars_are_found_where_stars_are_as_wide_as_measured():
    frame, truth = expose(4.0, *DETECTORS[1], seed=7)
    header = crclean_frame(Frame(frame.image, frame.mask, frame.header.copy())).header
    assert header["CRSTARW"] == pytest.approx(header["PSFFWHM"], rel=0.1)


def test_pixels_that_touch_are_one_group():
    found = np.random.default_rng(4).random((60, 41)) < 0.15
    expected, number = label(found, np.ones((3, 3)))
    groups = touching(*np.nonzero(found), found.shape[1])
    pairs = set(zip(expected[found].tolist(), groups.tolist(), strict=True))
    assert len(pairs) == number == groups.max() + 1


def test_light_about_pixels_is_that_of_the_whole_image():
    frame, _ = expose(4.0, *DETECTORS[1], seed=7)
    noise = np.full((1, 1), 20, np.float32)
    light = Starlight(frame.image, noise)
    whole = uniform_filter(frame.image, 5) / 20
    y, x = np.indices(whole.shape)[:, ::7, ::3].reshape(2, -1)
    np.testing.assert_allclose(light.at(y, x), whole[y, x], atol=1e-3)
    for level in (2.0, 10.0):
        assert light.area(level) == pytest.approx(np.mean(whole > level), rel=0.1)


def test_no_noiseless_scene_is_sharper_than_its_profile():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 200, (2, 400))
    flux = 10 ** rng.uniform(3, 6, 400)
    scene = simulate.render_sources((200, 200), x, y, flux, simulate.PSF(3.0, 3.5), noise=0.1)
    ratios = sharpest_ratios(0.95 * 3.0)
    inner = scene[2:-2, 2:-2]
    for ring, ratio in zip(NEIGHBOURS, ratios, strict=True):
        mean = np.mean([scene[2 + dy : 198 + dy, 2 + dx : 198 + dx] for dy, dx in ring], axis=0)
        assert (inner <= ratio * mean + 1e-3).all()


@pytest.mark.parametrize("fwhm", [1.5, 2.0, 3.0, 4.5, 6.6])
def test_width_of_the_stars_is_measured_among_cosmic_rays(fwhm):
    frame, truth = expose(fwhm, *DETECTORS[1], rays=60)
    noise = np.full(SHAPE, np.sqrt(364), np.float32)
    stars = measure_fwhm(frame.image, np.ones(SHAPE, bool), noise)
    assert stars.fwhm == pytest.approx(fwhm, rel=0.05)
    assert stars.elongation < 0.05 and stars.number > 20


def test_frame_without_stars_is_cleaned_with_an_assumed_width():
    frame, truth = expose(3.0, *DETECTORS[1], stars=1)
    cleaned = crclean_frame(frame)
    assert cleaned.header["PSFFWHM"] == -1
    bright = truth.cosmic > 10 * truth.noise
    # Less is found than with the width known, but what is flagged is right.
    flags = cleaned.mask & COSMIC > 0
    assert flags.sum() > 0.5 * bright.sum()
    assert (flags & (truth.cosmic < 1)).sum() <= 0.03 * flags.sum()


def test_noise_alone_is_no_cosmic_ray():
    rng = np.random.default_rng(8)
    image = rng.normal(0, 20, (1000, 1000)).astype(np.float32)
    usable = np.ones(image.shape, bool)
    found = find_cosmic_rays(Sharpness(image, ~usable, np.full_like(image, 20), 3.0))
    # 14 correlated comparisons with a bound at 5.5 sigma: 0.3 pixels expected at most.
    assert found.sum() <= 3


def test_what_is_unusable_is_neither_flagged_nor_changed():
    frame, _ = expose(3.0, *DETECTORS[1])
    frame.image[50, 60:63] = (5e4, -3e4, 5e4)
    frame.mask[50, 60:63] = (BAD, BAD, SATURATED)
    before = frame.image.copy()
    cleaned = crclean_frame(frame)
    np.testing.assert_array_equal(cleaned.mask[50, 60:63], (BAD, BAD, SATURATED))
    np.testing.assert_array_equal(cleaned.image[50, 60:63], before[50, 60:63])


def test_sky_beside_a_hole_is_not_sharp():
    rng = np.random.default_rng(9)
    image = rng.normal(0, 20, (200, 200)).astype(np.float32)
    image[90:110, 90:110] -= 400
    usable = np.ones(image.shape, bool)
    found = find_cosmic_rays(Sharpness(image, ~usable, np.full_like(image, 20), 3.0))
    assert not found.any()


def test_repaired_pixels_continue_what_is_around():
    y, x = np.mgrid[:60, :60]
    image = (3.0 * x + 2.0 * y).astype(np.float32)
    flagged = np.zeros(image.shape, bool)
    flagged[20, 20:24] = flagged[40:43, 40:43] = flagged[0, 0] = True
    damaged = np.where(flagged, np.float32(1e4), image)
    filled = repair(damaged, flagged, np.zeros(image.shape, bool))
    # A weighted mean of symmetric neighbours is exact on a plane; at edges of a track it leans.
    assert np.abs(filled - image)[1:].max() < 3.0
    np.testing.assert_array_equal(filled[~flagged], image[~flagged])
