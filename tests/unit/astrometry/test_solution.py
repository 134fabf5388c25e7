"""Astrometric solutions of stacks with known truth."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from simulatedframes import (
    EMPTY,
    RADIAL,
    SCALE,
    cards,
    group,
    map_error,
    reference_of,
    simulated_frame,
    simulated_sky,
    solved,
)

from lib.astrometry import detection, firstsolution
from lib.astrometry.pixelmaps import map_from_cards
from lib.core.programs import ProgramFailed
from lib.core.sphere import project


@pytest.mark.parametrize("pv", [None, RADIAL], ids=["plain", "distorted"])
def test_group_is_solved_to_a_few_mas(pv):
    rng = np.random.default_rng(1)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, pv=pv)
    result = solved(frames, reference_of(sky, rng))
    assert result["catalogue"] == "made"
    assert {"own", "scamp"} == set(result["crossvalidation"])
    for frame, true in zip(frames, truths, strict=True):
        entry = result["frames"][frame.name]
        assert entry["status"] == "OK"
        error = map_error(entry, true)
        # 0.03 pixel at 17 mag on some 100 stars: below 2 mas in the mean of each frame.
        assert np.abs(error.mean(axis=0)).max() < 2.5
        assert np.sqrt((error**2).mean()) < 5
        assert entry["contrast"] > 2
        assert entry["nstars"] > 30
    json.dumps(result, allow_nan=False)


def test_distortion_unknown_to_the_header_raises_the_degree():
    rng = np.random.default_rng(3)
    sky = simulated_sky(rng, 700)
    frames, truths = group(rng, sky, count=3)
    cubic = {f"PV{a}_{n}": v for a in (1, 2) for n, v in ((1, 1.0), (7, 5.0), (9, 5.0))}
    truths = [t | cubic | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"} for t in truths]
    frames = [
        simulated_frame(e.name, t, e.header, sky, rng) for e, t in zip(frames, truths, strict=True)
    ]
    result = solved(frames, reference_of(sky, rng))
    assert result["degree"] == 3
    for frame, true in zip(frames, truths, strict=True):
        entry = result["frames"][frame.name]
        assert entry["cards"]["CTYPE1"] == "RA---TPV"
        assert np.sqrt((map_error(entry, true) ** 2).mean()) < 10


def test_few_stars_do_not_raise_the_degree():
    rng = np.random.default_rng(4)
    sky = simulated_sky(rng, 150)
    frames, truths = group(rng, sky, count=3)
    result = solved(frames, reference_of(sky, rng))
    assert result["degree"] == 1
    for frame, true in zip(frames, truths, strict=True):
        error = map_error(result["frames"][frame.name], true)
        assert np.abs(np.median(error, axis=0)).max() < 15


def test_a_frame_of_another_place_is_rejected_and_the_others_go_on():
    rng = np.random.default_rng(5)
    sky = simulated_sky(rng, 120)
    frames, _ = group(rng, sky, count=3)
    other = simulated_sky(rng, 120)
    frames.append(simulated_frame("2other", cards(), cards(), other, rng))
    result = solved(frames, reference_of(sky, rng))
    entry = result["frames"]["2other"]
    assert (entry["status"], entry["code"]) == ("REJECTED", "NO_MATCH")
    assert "chance 1e" in entry["numbers"]
    # Whole in the header too, where QCREASON holds 68 characters.
    assert len(f"NO_MATCH: {entry['numbers']}") <= 68
    assert result["solved"] == 3


def test_mirrored_turned_and_badly_pointed_group_is_found():
    rng = np.random.default_rng(6)
    sky = simulated_sky(rng, 8000, 1800.0)
    frames, truths = [], []
    for k in range(2):
        true = cards(150 + 0.003 * k, 20.0, angle=130, parity=1, scale=SCALE * 1.05)
        truths.append(true)
        claimed = cards(150.1, 19.684)  # 20' off
        frames.append(simulated_frame(f"2f{k}", true, claimed, sky, rng))
        frames[-1].header["POSERR"] = 0.1
    result = solved(frames, reference_of(sky, rng))
    for frame, true in zip(frames, truths, strict=True):
        error = map_error(result["frames"][frame.name], true)
        assert np.sqrt((error**2).mean()) < 8
    # The second needs no asterisms: the first has taught the camera's orientation.
    rungs = {entry["rung"] for entry in result["frames"].values()}
    assert rungs in ({"asterism", "header"}, {"asterism", "offset"})


def test_a_stray_frame_is_found_beyond_its_pointing_error():
    rng = np.random.default_rng(13)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=3)
    frames[1].header["CRVAL2"] += 20 / 60
    result = solved(frames, reference_of(sky, rng))
    assert result["frames"]["2f1"]["rung"] == "offset"
    assert np.sqrt((map_error(result["frames"]["2f1"], truths[1]) ** 2).mean()) < 8


@pytest.mark.parametrize("off", [1e-3, 0.3])
def test_frame_with_too_few_reference_stars_is_found_by_its_neighbours(off, monkeypatch):
    rng = np.random.default_rng(7)
    sky = simulated_sky(rng, 500, 600.0)
    true = [cards(150.0, 20.0), cards(150.0, 20.06), cards(150.0, 20.1)]
    frames = [
        simulated_frame(f"2f{k}", t, cards(t["CRVAL1"], t["CRVAL2"] + off), sky, rng)
        for k, t in enumerate(true)
    ]
    for frame in frames:
        frame.header["POSERR"] = 0.1
    tried, match = [], firstsolution.match_stars

    def match_stars(*args, **how):
        tried.append(args[2].asterisms)
        return match(*args, **how)

    monkeypatch.setattr(firstsolution, "match_stars", match_stars)
    # The reference covers the first field and half of the second only.
    reference = reference_of(sky, rng)
    reference = reference[reference.dec < 20.05]
    result = solved(frames, reference)
    assert result["frames"]["2f2"]["rung"] == "neighbours"
    assert np.sqrt((map_error(result["frames"]["2f2"], true[2]) ** 2).mean()) < 50
    # They take ten times longer than all else.
    assert tried and not any(tried)


def test_turned_frame_among_others_is_found():
    rng = np.random.default_rng(16)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=4)
    true = cards(150.0, 20.0, angle=130)
    turned = simulated_frame("2turned", true, cards(150.0, 20.001), sky, rng)
    result = solved([*frames[:2], turned, *frames[2:]], reference_of(sky, rng))
    assert result["frames"]["2turned"]["rung"] == "asterism"
    for frame, truth in zip([*frames, turned], [*truths, true], strict=True):
        error = map_error(result["frames"][frame.name], truth)
        assert np.sqrt((error**2).mean()) < 8


@pytest.mark.parametrize("why", ["still running after 60 s", "killed by SIGSEGV"])
def test_scamp_failing_leaves_the_own_solution(monkeypatch, why):
    def fail(argv, **_):
        raise ProgramFailed(argv[0], why)

    monkeypatch.setattr(detection, "run_program", fail)
    rng = np.random.default_rng(8)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=3)
    result = solved(frames, reference_of(sky, rng))
    assert result["method"] == "own"
    assert why in result["scamp_failed"]
    for frame, true in zip(frames, truths, strict=True):
        error = map_error(result["frames"][frame.name], true)
        assert np.sqrt((error**2).mean()) < 5


def test_wrong_reference_stars_do_not_move_the_frames():
    rng = np.random.default_rng(9)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=3)
    reference = reference_of(sky, rng)
    bad = rng.uniform(size=len(reference)) < 0.1
    reference.dec[bad] += 0.2 / 3600
    result = solved(frames, reference)
    for frame, true in zip(frames, truths, strict=True):
        error = map_error(result["frames"][frame.name], true)
        assert np.abs(error.mean(axis=0)).max() < 5


def relative_error(result, truths, frames):
    """Errors of the maps [pixel] after the common shift is taken away."""
    errors = [map_error(result["frames"][e.name], t) for e, t in zip(frames, truths, strict=True)]
    return (np.array(errors) - np.mean(errors, axis=0)) / 1000 / SCALE


@pytest.mark.parametrize("reason", ["empty", "elsewhere"])
def test_without_reference_frames_are_aligned_with_each_other(reason):
    rng = np.random.default_rng(10)
    sky = simulated_sky(rng, 100)
    frames, truths = group(rng, sky, count=2, error=8.0, angle=0.0)
    reference = EMPTY if reason == "empty" else reference_of(simulated_sky(rng, 100), rng)
    result = solved(frames, reference, reason="refcat=none")
    assert result["catalogue"] == "NONE"
    if reason == "empty":
        assert result["reason"] == "refcat=none"
    else:
        assert result["reason"].startswith("no frame matched made")
    assert np.abs(relative_error(result, truths, frames)).max() < 0.1


def test_frames_without_coordinates_are_aligned():
    rng = np.random.default_rng(11)
    sky = simulated_sky(rng, 300)
    frames, truths = group(rng, sky, count=3, angle=0.0)
    for frame in frames:
        for key in list(cards()):
            frame.header.remove(key)
    result = solved(frames, EMPTY)
    assert result["catalogue"] == "NONE"
    assert result["solved"] == 3
    # The same star has the same made-up position on all frames.
    places = []
    for frame, true in zip(frames, truths, strict=True):
        x, y = WCS(fits.Header(true)).all_world2pix([150.005], [20.003], 1)
        entry = result["frames"][frame.name]
        places.append(project(*map_from_cards(entry["cards"])(x, y), 0.0, 0.0)[0])
    assert np.ptp(places, axis=0).max() / SCALE < 0.1


def test_frames_without_coordinates_are_found_in_a_reference():
    rng = np.random.default_rng(15)
    sky = simulated_sky(rng, 300)
    frames, truths = group(rng, sky, count=2)
    for frame in frames:
        for key in list(cards()):
            frame.header.remove(key)
    result = solved(frames, reference_of(sky, rng))
    assert (result["catalogue"], result["solved"]) == ("made", 2)
    for frame, true in zip(frames, truths, strict=True):
        error = map_error(result["frames"][frame.name], true)
        assert np.sqrt((error**2).mean()) < 8


def test_single_frame_keeps_its_header():
    rng = np.random.default_rng(12)
    frames, _ = group(rng, simulated_sky(rng, 300), count=1)
    result = solved(frames, EMPTY)
    entry = result["frames"]["2f0"]
    assert entry["status"] == "OK"
    assert entry["contrast"] is None
    made = map_from_cards(entry["cards"])([450.5], [512.5])
    header = frames[0].header
    assert [float(v[0]) for v in made] == pytest.approx([header["CRVAL1"], header["CRVAL2"]])


def test_single_frame_with_reference():
    rng = np.random.default_rng(14)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=1)
    result = solved(frames, reference_of(sky, rng))
    error = map_error(result["frames"]["2f0"], truths[0])
    assert np.sqrt((error**2).mean()) < 8


def test_no_frame_at_all():
    result = solved([], EMPTY)
    assert (result["catalogue"], result["frames"]) == ("NONE", {})
