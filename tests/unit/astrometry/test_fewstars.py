"""Frames of few stars are placed by sister frames, header and fluxes; chance is not believed."""

import numpy as np
import pytest
from simulatedframes import (
    EMPTY,
    SCALE,
    SETTINGS,
    SHAPE,
    cards,
    map_error,
    reference_of,
    simulated_frame,
    simulated_sky,
    solved,
)

from lib.astrometry.fewstars import PointingCorrection, match_few, predicted
from lib.astrometry.matching import PlaneStars
from lib.core.sphere import deproject, project

FEW = np.array([[-60.0, 40.0], [75.0, -30.0], [10.0, 95.0], [40.0, 50.0]])


def sky_of_few(rng, number, count=300):
    """`number` bright stars that every frame sees, and many that none does."""
    ra, dec, magnitude = simulated_sky(rng, count)
    magnitude = np.clip(magnitude, 18.0, None) + 2.0
    few_ra, few_dec = deproject(FEW[:number], 150.0, 20.0)
    bright = 14 + 0.6 * np.arange(number)
    return np.r_[few_ra, ra], np.r_[few_dec, dec], np.r_[bright, magnitude]


def pointed(rng, sky, depths, off=(4.0, -3.0), jitter=0.5):
    """Frames to some depths, whose headers are off alike."""
    frames, truths = [], []
    for k, depth in enumerate(depths):
        ra, dec = 150 + 0.002 * (k % 3), 20 + 0.0015 * (k % 2)
        wrong = (np.array(off) + rng.normal(0, jitter, 2)) / 3600
        true = cards(ra, dec, angle=0.1)
        claimed = cards(ra + wrong[0], dec + wrong[1])
        frames.append(simulated_frame(f"2f{k}", true, claimed, sky, rng, depth=depth))
        frames[-1].header["MJD-OBS"] += k / 1440
        truths.append(true)
    return frames, truths


@pytest.mark.parametrize("number", [3, 4])
def test_frames_of_few_stars_are_found_in_the_reference(number):
    rng = np.random.default_rng(20 + number)
    sky = sky_of_few(rng, number)
    frames, truths = pointed(rng, sky, [17.0] * 4)
    assert {len(frame.stars) for frame in frames} == {number}
    result = solved(frames, reference_of(sky, rng))
    assert result["catalogue"] == "made" and result["solved"] == 4
    for frame, true in zip(frames, truths, strict=True):
        entry = result["frames"][frame.name]
        assert entry["rung"] in ("few stars", "header", "offset", "neighbours")
        # A rotation by 0.1 degrees moves the edge of the frame by 3 pixels: it is not known.
        assert np.abs(np.median(map_error(entry, true), axis=0)).max() < 1000 * SCALE


def test_one_or_two_stars_are_enough_where_sisters_are_solved():
    rng = np.random.default_rng(5)
    ra, dec, magnitude = simulated_sky(rng)
    few_ra, few_dec = deproject(FEW[:2], 150.0, 20.0)
    sky = np.r_[few_ra, ra], np.r_[few_dec, dec], np.r_[11.0, 12.2, np.clip(magnitude, 13, None)]
    frames, truths = pointed(rng, sky, [19.0, 12.5, 19.0, 11.5, 19.0])
    assert [len(frames[k].stars) for k in (1, 3)] == [2, 1]
    result = solved(frames, reference_of(sky, rng))
    for k in (1, 3):
        entry = result["frames"][f"2f{k}"]
        assert entry["status"] == "OK" and entry["rung"] == "few stars"
        error = map_error(entry, truths[k])
        assert np.abs(error).max() < 300 * SCALE


@pytest.mark.parametrize("number", [3, 4])
def test_without_reference_few_stars_align_frames(number):
    rng = np.random.default_rng(30 + number)
    sky = sky_of_few(rng, number)
    frames, truths = pointed(rng, sky, [17.0] * 4)
    result = solved(frames, EMPTY)
    assert result["catalogue"] == "NONE" and result["solved"] == 4
    errors = [
        map_error(result["frames"][frame.name], true)
        for frame, true in zip(frames, truths, strict=True)
    ]
    middle = np.median(errors, axis=1)
    # To a fifth of a pixel they lie on each other, wherever all are.
    assert np.ptp(middle, axis=0).max() < 200 * SCALE


def test_few_stars_of_another_place_are_not_believed():
    accepted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sky = sky_of_few(rng, 3)
        away = simulated_sky(rng, 300)
        frames, _ = pointed(rng, sky, [17.0] * 3)
        accepted += solved(frames, reference_of(away, rng))["catalogue"] != "NONE"
    assert accepted == 0


def test_chance_of_few_stars_is_as_often_as_stated():
    rng = np.random.default_rng(9)
    side, chances = 300.0, []
    for _ in range(1500):
        stars = PlaneStars(rng.uniform(-side / 2, side / 2, (3, 2)), rng.uniform(14, 17, 3))
        known = PlaneStars(rng.uniform(-side / 2, side / 2, (20, 2)), rng.uniform(14, 17, 20))
        match = match_few(
            stars, known, area=side**2, radius=4.0, tolerance=0.9, spread=0.5
        )  # fmt: skip
        chances.append(0.0 if match is None else match.log_chance)
    chances = np.array(chances)
    # 3 stars, 20 others, 4 arcsec: a pair in every thirtieth field.
    assert np.mean(chances < 0) == pytest.approx(3 * 20 * np.pi * 16 / side**2, rel=0.35)
    assert np.mean(chances <= -2) < 0.013
    assert np.mean(chances <= -4) == 0


def test_sisters_predict_as_well_as_they_agree():
    turn = np.eye(2)
    steady = [PointingCorrection(k, np.array([5.0, 1.0 + 0.01 * k]), turn) for k in range(5)]
    nearest, radius = predicted(steady, 3.2, SCALE)
    assert nearest is steady[3] and radius == 5 * SCALE
    moving = [PointingCorrection(k, np.array([3.0 * k, 0.0]), turn) for k in range(5)]
    assert predicted(moving, 0.0, SCALE)[1] == 12.0
    assert predicted(steady[:1], 0.0, SCALE)[1] == 15 * SCALE
    assert (
        SETTINGS.min_stars == 6 and SHAPE[0] * SCALE > 2 * np.abs(project(150, 20, 150, 20)).max()
    )
