"""Frames whose headers tell nothing of use are found in the reference, or said not to be."""

import numpy as np
import pytest
from simulatedframes import SCALE, SHAPE, cards, map_error, reference_of, simulated_frame, solved
from simulatedframes import simulated_sky as sky_of

from lib.astrometry.blind import quad_hypotheses, star_quads, trial_scales

RADIUS = 1100.0  # arcsec: some forty frames


@pytest.fixture(scope="module")
def sky():
    return sky_of(np.random.default_rng(5), count=4500, radius=RADIUS)


def frames_of(sky, truths, claimed, seed=6):
    rng = np.random.default_rng(seed)
    return [
        simulated_frame(f"2b{k}", true, header, sky, rng)
        for k, (true, header) in enumerate(zip(truths, claimed, strict=True))
    ]


def test_codes_do_not_know_place_rotation_or_scale():
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 100, (30, 2))
    quads, codes = star_quads(points)
    turn = 7.3 * np.array([[np.cos(1.1), -np.sin(1.1)], [np.sin(1.1), np.cos(1.1)]])
    again, theirs = star_quads(points @ turn.T + [500, -300])
    assert len(quads) > 100 and codes == pytest.approx(theirs, abs=1e-9)
    assert np.array_equal(quads, again)
    # The two farthest apart are first, and the others lie between.
    assert np.abs(codes[:, [0, 2]] - 0.5).max() < 1.0 and np.all(codes[:, 0] <= codes[:, 2])


def test_the_true_similarity_is_among_those_voted_for():
    rng = np.random.default_rng(2)
    reference = rng.uniform(-1000, 1000, (800, 2))
    seen = np.abs(reference - [300, -200]).max(axis=1) < 250
    stars = (reference[seen] - [300, -200])[:40] / 1.9 * [-1, 1]
    found, trials = quad_hypotheses(stars, reference, 500 / 1.9, 2.0)
    near = [np.hypot(*(one.offset - [300, -200])) < 10 and one.parity == -1 for one in found]
    assert trials > 10 and any(near)
    best = found[near.index(True)]
    assert best.scale == pytest.approx(1.9, rel=0.01)


def test_scales_are_bounded_by_what_cameras_have():
    for scale in (0.05, 0.3, 2.0, 30.0):
        tried = np.array(trial_scales(scale)) * scale
        assert len(set(tried)) == len(tried)
        if 0.1 <= scale <= 10:
            assert tried[0] == scale and 0.099 < tried.min() < 0.13 and 8 < tried.max() < 10.1


@pytest.mark.parametrize(
    "true_scale, angle, parity",
    [(SCALE, 0.0, -1), (SCALE, 131.0, -1), (2 * SCALE, 40.0, 1), (0.55 * SCALE, 250.0, -1)],
)
def test_pointing_wrong_by_degrees(sky, true_scale, angle, parity):
    truths = [
        cards(150.1 + shift, 20.09, angle=angle, scale=true_scale, parity=parity)
        for shift in (0.0, 0.004, -0.003)
    ]
    claimed = [cards(157.0 - k, 24.0) for k in range(3)]
    frames = frames_of(sky, truths, claimed)
    entries = solved(frames, reference_of(sky, np.random.default_rng(7)))["frames"]
    assert {one["status"] for one in entries.values()} == {"OK"}
    # One is found anywhere, the others where that one is.
    assert sorted(one["rung"] for one in entries.values()).count("blind") == 1
    assert "few stars" not in {one["rung"] for one in entries.values()}
    for k, true in enumerate(truths):
        assert np.abs(map_error(entries[f"2b{k}"], true)).max() < 100


def test_field_that_rotates_is_followed(sky):
    """As on an altazimuth mount without derotator, and without a word of it in the headers."""
    truths = [cards(150.1, 20.09, angle=7.0 * k, scale=0.6 * SCALE) for k in range(3)]
    entries = solved(frames_of(sky, truths, [{}] * 3), reference_of(sky, np.random.default_rng(7)))[
        "frames"
    ]
    assert {one["status"] for one in entries.values()} == {"OK"}
    for k, true in enumerate(truths):
        assert np.abs(map_error(entries[f"2b{k}"], true)).max() < 100


def test_no_cards_at_all_and_a_scale_of_five_times_less():
    sky = sky_of(np.random.default_rng(5), count=2000, radius=RADIUS)
    truths = [cards(149.95, 20.12, angle=77.0, scale=5 * SCALE)]
    frames = frames_of(sky, truths, [{}])
    entries = solved(frames, reference_of(sky, np.random.default_rng(8)))["frames"]
    assert entries["2b0"]["status"] == "OK" and entries["2b0"]["rung"] == "blind"
    assert entries["2b0"]["pixel_scale"] == pytest.approx(5 * SCALE, rel=1e-3)
    assert np.abs(map_error(entries["2b0"], truths[0])).max() < 300


def test_a_frame_of_another_field_is_not_found_and_says_so(sky):
    elsewhere = sky_of(np.random.default_rng(9), count=4500, radius=RADIUS)
    frames = frames_of(elsewhere, [cards(150.05, 20.05)], [cards(157.0, 24.0)])
    assert len(frames[0].stars) > 50 and frames[0].shape == SHAPE
    content = solved(frames, reference_of(sky, np.random.default_rng(7)))
    assert content["catalogue"] == "NONE"
    assert "nowhere in the reference" in content["reason"]
    assert "0.1 to 10 arcsec/pixel" in content["reason"]
