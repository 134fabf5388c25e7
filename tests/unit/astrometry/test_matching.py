"""Identification of stars: catalogues only, no pixels."""

import numpy as np
import pytest
from scipy.stats import poisson

from lib.astrometry.mapping import Mapping
from lib.astrometry.matching import (
    Match,
    NoMatch,
    PlaneStars,
    SearchRange,
    log_poisson_tail,
    match_stars,
)

SLOW = pytest.mark.slow


POINTING_ERROR = 1200.0  # arcsec


def random_field(rng, *, stars=None, common=None, elsewhere=False):
    """A frame of 3 to 3000 stars and a reference, with everything about the frame uncertain.

    The frame has 1024x1024 pixels, is rotated at random, perhaps mirrored, up to 5 % off in scale
    and 20' in pointing. Of the stars on either list 30 to 90 % are on the other; up to 30 % false
    detections, 0.3 pixel noise, 0.3 mag between the two bands.

    Returns
    -------
    arguments : tuple
        Stars, reference and search range of `match_stars`.
    truth : dict
        mapping, number of common stars, pixel scale.
    """
    pixel = rng.uniform(0.2, 0.7)
    size = 1024 * pixel
    stars = stars or np.exp(rng.uniform(np.log(3), np.log(3000)))
    common = common or rng.uniform(0.3, 0.9)
    half = POINTING_ERROR + size
    count = int(stars / size**2 * (2 * half) ** 2)
    sky = rng.uniform(-half, half, (count, 2))
    magnitude = -rng.exponential(1.0, count)
    in_reference, in_frame = rng.uniform(size=(2, count)) < np.sqrt(common)
    angle, direction = rng.uniform(0, 2 * np.pi, 2)
    matrix = rng.uniform(0.95, 1.05) * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix *= [rng.choice([1.0, -1.0]), 1.0]
    off = POINTING_ERROR * np.sqrt(rng.uniform())
    offset = off * np.array([np.cos(direction), np.sin(direction)])
    plane = (sky - offset) @ np.linalg.inv(matrix).T
    seen = in_frame & np.all(np.abs(plane) < size / 2, axis=1)
    false = rng.integers(0, int(0.3 * stars) + 1)
    points = np.concatenate(
        [
            plane[seen] + rng.normal(0, 0.3 * pixel, (seen.sum(), 2)),
            rng.uniform(-size / 2, size / 2, (false, 2)),
        ]
    )
    bright = np.r_[magnitude[seen] + rng.normal(0, 0.3, seen.sum()), -rng.exponential(1.0, false)]
    reference = sky[in_reference]
    if elsewhere:
        reference = rng.uniform(-half, half, reference.shape)
    arguments = (
        PlaneStars(points, bright),
        PlaneStars(reference, magnitude[in_reference]),
        SearchRange(size, tolerance=max(2 * pixel, 0.6), radius=1.05 * POINTING_ERROR),
    )
    truth = {
        "mapping": Mapping(matrix, offset),
        "common": int((seen & in_reference).sum()),
        "pixel": pixel,
    }
    return arguments, truth


def worst_corner(match, arguments, truth):
    """Largest error of a match at the corners of the frame [pixel]."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * arguments[2].size / 2
    wrong = match.mapping(corners) - truth["mapping"](corners)
    return np.abs(wrong).max() / truth["pixel"]


@pytest.mark.parametrize("fields", [10, pytest.param(500, marks=SLOW)])
def test_random_fields_are_found_and_never_wrongly(fields):
    rng = np.random.default_rng(20)
    findable = found = 0
    for k in range(fields):
        arguments, truth = random_field(rng)
        findable += truth["common"] >= 8
        try:
            match = match_stars(*arguments)
        except NoMatch:
            continue
        # Beyond 5 pixels at a corner the match is another one, not an inexact one.
        assert worst_corner(match, arguments, truth) < 5, f"field {k}: {match}"
        found += truth["common"] >= 8
    assert found >= 0.99 * findable - 0.5
    assert findable > 0.5 * fields


# Crowded fields take seconds each: they are left to the slow test.
@pytest.mark.parametrize("fields", [[10, 25], pytest.param([None] * 500, marks=SLOW)],
                         ids=["sparse", "random"])  # fmt: skip
def test_field_of_another_place_is_refused(fields):
    rng = np.random.default_rng(21)
    for stars in fields:
        arguments, _ = random_field(rng, stars=stars, elsewhere=True)
        with pytest.raises(NoMatch):
            match_stars(*arguments)


def test_refusal_tells_numbers():
    arguments, _ = random_field(np.random.default_rng(3), stars=15, elsewhere=True)
    with pytest.raises(NoMatch, match=r"\d+/\d+ stars, chance 1e"):
        match_stars(*arguments)


def test_numbers_of_a_match_fit_into_a_header_card():
    index = np.arange(300)
    match = Match(Mapping(np.eye(2), np.zeros(2)), index, index, 300, 1e-9, -99.9, 0.25)
    assert match.brief == "300/300 stars, chance 1e-99.9, contrast 9999.0"
    # QCREASON holds 68 characters, ten of which are "NO_MATCH: ".
    assert len(f"best {match.brief}") <= 58


def test_offset_rung_finds_shift_without_asterisms():
    rng = np.random.default_rng(4)
    sky = rng.uniform(-1500, 1500, (900, 2))
    shift = np.array([700.0, -300.0])
    stars = (sky - shift)[np.all(np.abs(sky - shift) < 150, axis=1)]
    assert len(stars) > 5
    match = match_stars(
        PlaneStars(stars + rng.normal(0, 0.1, stars.shape), np.zeros(len(stars))),
        PlaneStars(sky, np.zeros(len(sky))),
        SearchRange(size=300.0, tolerance=0.6, radius=1200.0, asterisms=False),
    )
    assert match.rung == "offset"
    assert match.number == len(stars)
    np.testing.assert_allclose(match.mapping(np.zeros((1, 2)))[0], shift, atol=0.2)


def test_header_rung_comes_first():
    rng = np.random.default_rng(5)
    sky = rng.uniform(-300, 300, (200, 2))
    stars = sky[np.all(np.abs(sky) < 150, axis=1)] + 2.0
    zero = np.zeros
    match = match_stars(
        PlaneStars(stars, zero(len(stars))),
        PlaneStars(sky, zero(200)),
        SearchRange(size=300.0, tolerance=0.6, radius=600.0),
    )
    assert match.rung == "header"


def test_wrong_binning_is_found_with_trial_scales():
    rng = np.random.default_rng(6)
    sky = rng.uniform(-600, 600, (500, 2))
    magnitude = -rng.exponential(1.0, 500)
    inside = np.all(np.abs(sky) < 300, axis=1)
    arguments = {"size": 300.0, "tolerance": 0.6, "radius": 100.0}
    stars = PlaneStars(sky[inside] / 2, magnitude[inside])
    reference = PlaneStars(sky, magnitude)
    with pytest.raises(NoMatch):
        match_stars(stars, reference, SearchRange(**arguments))
    match = match_stars(stars, reference, SearchRange(scales=(1.0, 2.0, 0.5), **arguments))
    assert match.mapping.scale == pytest.approx(2.0, rel=1e-3)


def test_hollow_reference_is_matched_by_its_rim():
    # A catalogue without the crowded core of a cluster: the brightest stars are of no use.
    rng = np.random.default_rng(7)
    core = rng.normal(0, 60, (200, 2))
    rim = rng.uniform(-800, 800, (500, 2))
    rim = rim[np.hypot(*rim.T) > 200]
    inside = np.all(np.abs(rim) < 270, axis=1)
    shift = np.array([400.0, 250.0])
    stars = np.concatenate([core, rim[inside]]) - shift
    bright = np.r_[-rng.exponential(1.0, 200) - 1, -rng.exponential(1.0, inside.sum())]
    match = match_stars(
        PlaneStars(stars, bright),
        PlaneStars(rim, np.zeros(len(rim))),
        SearchRange(size=540.0, tolerance=1.0, radius=1440.0, asterisms=False),
    )
    np.testing.assert_allclose(match.mapping(np.zeros((1, 2)))[0], shift, atol=0.5)


@pytest.mark.parametrize("stars", [0, 1, 2])
def test_too_few_stars_are_no_match(stars):
    points = np.arange(2.0 * stars).reshape(stars, 2)
    with pytest.raises(NoMatch, match=f"{stars} stars"):
        match_stars(
            PlaneStars(points, np.zeros(stars)),
            PlaneStars(np.eye(2), np.zeros(2)),
            SearchRange(size=10.0, tolerance=1.0, radius=10.0),
        )


@pytest.mark.parametrize(("number", "mean"), [(5, 0.01), (20, 3.0), (300, 60.0)])
def test_poisson_tail_bounds_from_above(number, mean):
    exact = poisson.logsf(number - 1, mean) / np.log(10)
    assert exact <= log_poisson_tail(number, mean) + 1e-9 < exact + 0.5
