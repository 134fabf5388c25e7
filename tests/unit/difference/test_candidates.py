"""Changes put into pairs of images are found, and hardly anything else."""

import numpy as np
import pytest
from differencepairs import Seeing
from transients import run_trial

from lib.core.settings import DifferenceSettings
from lib.difference.frames import brightest_alone, motions
from lib.difference.peaks import find_peaks, measure_forms
from lib.difference.ranking import FEATURES, qualities, score


@pytest.fixture(scope="module", params=["sharper template", "elongated"])
def trial(request):
    return run_trial(11, request.param, size=420, each=6, settings=DifferenceSettings(regions=1))


def test_completeness_and_purity(trial):
    found, real = trial.matched
    bright = trial.snr >= 7.5
    assert bright.sum() > 10
    # With a threshold of 5 noise takes one in 160 of those at 7.5, and none of those at 10 (the
    # limit of what any method can reach is that of the injected S/N): nine tenths leaves room.
    assert (found[bright] >= 0).mean() >= 0.9
    significant = trial.selected & (np.abs(trial.candidates.peaks.significance) >= 6)
    assert real[significant].mean() >= 0.9


def test_fluxes_and_signs_of_what_is_found(trial):
    found, _ = trial.matched
    seen = found >= 0
    truth = trial.snr[seen] * np.where(trial.kind[seen] == "faded", -1, 1)
    got = trial.candidates.peaks.significance[found[seen]]
    # The S/N is one sigma wide, and no method is much better than the best.
    assert np.abs(got - truth).max() < 4.5
    assert np.abs(np.median(np.abs(got) / np.abs(truth)) - 1) < 0.15


def gaussian_field(places, rng, sigma=1.6, size=120):
    y, x = np.indices((size, size))
    image = rng.normal(size=(size, size))
    for xs, ys, flux, width in places:
        wide = sigma * width
        image += flux / (2 * np.pi * wide**2) * np.exp(
            -((x - xs) ** 2 + (y - ys) ** 2) / (2 * wide**2)
        )  # fmt: skip
    return image.astype(np.float32)


def test_forms_tell_rays_and_blobs_from_points():
    """A point, what is as sharp as a pixel, what is twice as wide."""
    rng = np.random.default_rng(1)
    fwhm = 1.6 * 2.355
    stamp = Seeing(fwhm).stamp(0, 0, 12, 0.5)
    offset = np.arange(-12, 13)
    stamp = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.6**2))
    stamp /= stamp.sum()
    image = gaussian_field([(30.3, 30.2, 200, 1), (80, 30, 150, 0.25), (60, 85, 500, 2)], rng)
    x, y = np.array([30.3, 80, 60]), np.array([30.2, 30, 85])
    flux = np.array([200.0, 110, 280])
    forms = measure_forms(
        image, np.ones_like(image), np.repeat(stamp[None], 3, axis=0), x, y, flux, fwhm
    )
    assert forms.width[0] == pytest.approx(1, abs=0.1)
    assert forms.width[1] < 0.7 < 1.2 < forms.width[2]
    assert forms.misfit[0] < 1.7 < 3 < forms.misfit[1]
    features = qualities(
        np.full(3, 30.0), forms.misfit, forms.width, forms.ellipticity, np.zeros(3), forms.masked,
        np.full(3, np.nan),
    )  # fmt: skip
    scores = score(features)
    assert scores[0] > 0.9 and scores[1:].max() < 0.3


def test_a_dipole_is_one_candidate_of_a_low_score():
    y, x = np.indices((80, 80))

    def bump(xs, ys, top):
        return top * np.exp(-((x - xs) ** 2 + (y - ys) ** 2) / 6)

    image = bump(30, 30, 20) - bump(33, 30, 18) + bump(60, 60, 9)
    peaks = find_peaks(image.astype(np.float32), 4.0, 5.0)
    assert len(peaks.x) == 2
    assert peaks.dipole[0] > 0.5 and peaks.dipole[1] == 0
    assert peaks.significance[0] > 0
    np.testing.assert_allclose([peaks.x[1], peaks.y[1]], [60, 60], atol=0.05)
    quality = qualities(*([np.ones(2)] * 3), np.zeros(2), peaks.dipole, np.zeros(2), np.zeros(2))
    assert score(quality)[0] < 0.3 < 0.9 < score(quality)[1]


def test_light_in_one_frame_only():
    noise = np.ones((5, 3))
    light = np.full((5, 3), 10.0)
    light[:, 1] = [50, 0.5, -0.4, 0.2, 1.0]
    light[2:, 2] = np.nan
    alone = brightest_alone(light, noise)
    assert alone[0] == 0 and alone[1] > 0.9 and np.isnan(alone[2])


def test_what_moves_is_told_from_what_stands_still():
    """Four arcseconds an hour to the north-east, nothing, and too few frames."""
    rng = np.random.default_rng(2)
    hours, snr, seeing = np.linspace(0, 0.4, 6), np.full((6, 3), 12.0), np.full(6, 1.5)
    noise = 0.5 * 1.5 / 12
    places = np.zeros((6, 3, 2)) + (150.0, 60.0)
    places[:, 0, 0] += 4 * np.sin(np.radians(30)) * hours / 3600 / np.cos(np.radians(60))
    places[:, 0, 1] += 4 * np.cos(np.radians(30)) * hours / 3600
    places += rng.normal(0, noise / 3600, places.shape) * (2, 1)  # of right ascension at 60 deg
    places[2:, 2] = np.nan
    rate, error, angle, moving = motions(59000 + hours / 24, places, snr, seeing)
    assert moving.tolist() == [True, False, False] and np.isnan(rate[2])
    assert rate[0] == pytest.approx(4, abs=4 * error[0]) and error[0] < 0.5
    assert angle[0] == pytest.approx(30, abs=np.degrees(4 * error[0] / 4))


def test_each_feature_takes_what_its_weight_says():
    for one in FEATURES:
        features = {other.name: np.ones(1) for other in FEATURES} | {one.name: np.zeros(1)}
        assert score(features)[0] == pytest.approx(1 - one.weight)
