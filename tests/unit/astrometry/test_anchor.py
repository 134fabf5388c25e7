"""Stacks of one target are tied to each other, and place the few stars of one by another."""

import json
from copy import deepcopy

import numpy as np
from simulatedframes import (
    EMPTY,
    SCALE,
    SETTINGS,
    cards,
    map_error,
    reference_of,
    simulated_frame,
    simulated_sky,
)

from lib.astrometry.anchor import read_anchor
from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.solution import solve_frames, write_solution
from lib.core.sphere import deproject


def stack_of(rng, sky, name, off, *, depth=19.0, count=3):
    """Frames of one filter whose headers are off by the same [arcsec]."""
    frames, truths = [], []
    for k in range(count):
        ra, dec = 150 + 0.003 * k, 20 + 0.002 * (k % 2)
        true = cards(ra, dec, angle=0.1)
        claimed = cards(ra + off[0] / 3600, dec + off[1] / 3600)
        frames.append(simulated_frame(f"2{name}{k}", true, claimed, sky, rng, depth=depth))
        truths.append(true)
    return frames, truths


def offered(path, frames, reference, catalogue):
    """Solve a stack and read what its file offers to others."""
    solution = solve_frames(deepcopy(frames), reference, SETTINGS, catalogue=catalogue)
    write_solution(path, solution, "r")
    return read_anchor(path)


def middle(entry):
    """Position of the middle of a solved frame [arcsec, about 150 +20]."""
    ra, dec = map_from_cards(entry.as_json()["cards"])(450.5, 512.5)
    return 3600 * np.array([(ra - 150) * np.cos(np.radians(20)), dec - 20]).ravel()


def test_without_reference_filters_share_their_coordinates(tmp_path):
    rng = np.random.default_rng(3)
    sky = simulated_sky(rng)
    red, truths = stack_of(rng, sky, "r", (3.0, -2.0))
    blue, _ = stack_of(rng, sky, "g", (-2.5, 4.0))
    anchor = offered(tmp_path / "r.json", red, EMPTY, "NONE")
    alone, tied = (
        solve_frames(deepcopy(blue), EMPTY, SETTINGS, catalogue="NONE", anchor=one)
        for one in (None, anchor)
    )
    first = solve_frames(deepcopy(red), EMPTY, SETTINGS, catalogue="NONE")
    apart = [
        np.hypot(*(middle(one.frames["2g1"]) - middle(first.frames["2r1"])))
        for one in (alone, tied)
    ]
    # Both look at one place: the headers differ by eight arcseconds.
    assert apart[0] > 5 and apart[1] < 0.2 * SCALE
    assert (tied.method, tied.catalogue) == ("tied", "NONE")


def test_few_stars_are_placed_by_another_filter(tmp_path):
    """Not in the reference, and alone on their frames: the other filter has them."""
    rng = np.random.default_rng(6)
    ra, dec, magnitude = simulated_sky(rng)
    few_ra, few_dec = deproject(np.array([[-60.0, 40.0], [75.0, -30.0]]), 150.0, 20.0)
    bright = np.r_[11.5, 12.3, np.clip(magnitude, 15, None)]
    sky = np.r_[few_ra, ra], np.r_[few_dec, dec], bright
    red, _ = stack_of(rng, sky, "r", (3.0, -2.0))
    narrow, truths = stack_of(rng, sky, "h", (3.0, -2.0), depth=13.0)
    assert {len(frame.stars) for frame in narrow} == {2}
    known = sky[2] > 13
    reference = reference_of(tuple(one[known] for one in sky), rng)
    anchor = offered(tmp_path / "r.json", red, reference, "made")
    assert json.loads((tmp_path / "r.json").read_text())["anchor"]["stars"]["ra"]
    alone, helped = (
        solve_frames(deepcopy(narrow), reference, SETTINGS, catalogue="made", anchor=one)
        for one in (None, anchor)
    )
    assert alone.catalogue == "NONE"
    assert helped.catalogue == "made" and helped.solved == 3
    for frame, true in zip(narrow, truths, strict=True):
        error = map_error(helped.frames[frame.name].as_json(), true)
        assert np.abs(np.median(error, axis=0)).max() < 200 * SCALE


def test_a_stack_without_solution_offers_nothing(tmp_path):
    solution = solve_frames([], EMPTY, SETTINGS, catalogue="NONE")
    write_solution(tmp_path / "r.json", solution, "r")
    assert read_anchor(tmp_path / "r.json") is None
