"""Identification of stars: catalogues only, no pixels."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import poisson

from lib.astrometry.matching import (
    Mapping,
    Match,
    NoMatch,
    brightest_per_cell,
    fit_mapping,
    log_poisson_tail,
    match_stars,
    nearest_pairs,
    offset_hypotheses,
)
from lib.core.sphere import deproject, project

SLOW = pytest.mark.slow

POINTING_ERROR = 1200.0  # arcsec


def random_field(rng, *, stars=None, common=None, elsewhere=False):
    """A frame of 3 to 3000 stars and a reference, with everything about the frame uncertain.

    The frame has 1024x1024 pixels, is rotated at random, perhaps mirrored, up to 5 % off in scale
    and 20' in pointing. Of the stars on either list 30 to 90 % are on the other; up to 30 % false
    detections, 0.3 pixel noise, 0.3 mag between the two bands.

    Returns
    -------
    arguments : dict
        Of `match_stars`.
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
    arguments = {
        "stars": points,
        "star_mag": bright,
        "reference": reference,
        "reference_mag": magnitude[in_reference],
        "size": size,
        "tolerance": max(2 * pixel, 0.6),
        "radius": 1.05 * POINTING_ERROR,
    }
    truth = {
        "mapping": Mapping(matrix, offset),
        "common": int((seen & in_reference).sum()),
        "pixel": pixel,
    }
    return arguments, truth


def worst_corner(match, arguments, truth):
    """Largest error of a match at the corners of the frame [pixel]."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * arguments["size"] / 2
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
            match = match_stars(**arguments)
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
            match_stars(**arguments)


def test_refusal_tells_numbers():
    arguments, _ = random_field(np.random.default_rng(3), stars=15, elsewhere=True)
    with pytest.raises(NoMatch, match=r"\d+/\d+ stars, chance 1e"):
        match_stars(**arguments)


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
        stars + rng.normal(0, 0.1, stars.shape),
        np.zeros(len(stars)),
        sky,
        np.zeros(len(sky)),
        size=300.0,
        tolerance=0.6,
        radius=1200.0,
        asterisms=False,
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
        stars, zero(len(stars)), sky, zero(200), size=300.0, tolerance=0.6, radius=600.0
    )
    assert match.rung == "header"


def test_wrong_binning_is_found_with_trial_scales():
    rng = np.random.default_rng(6)
    sky = rng.uniform(-600, 600, (500, 2))
    magnitude = -rng.exponential(1.0, 500)
    inside = np.all(np.abs(sky) < 300, axis=1)
    arguments = {"size": 300.0, "tolerance": 0.6, "radius": 100.0}
    stars = sky[inside] / 2
    with pytest.raises(NoMatch):
        match_stars(stars, magnitude[inside], sky, magnitude, **arguments)
    match = match_stars(
        stars, magnitude[inside], sky, magnitude, scales=(1.0, 2.0, 0.5), **arguments
    )
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
        stars,
        bright,
        rim,
        np.zeros(len(rim)),
        size=540.0,
        tolerance=1.0,
        radius=1440.0,
        asterisms=False,
    )
    np.testing.assert_allclose(match.mapping(np.zeros((1, 2)))[0], shift, atol=0.5)


@pytest.mark.parametrize("stars", [0, 1, 2])
def test_too_few_stars_are_no_match(stars):
    points = np.arange(2.0 * stars).reshape(stars, 2)
    with pytest.raises(NoMatch, match=f"{stars} stars"):
        match_stars(
            points,
            np.zeros(stars),
            np.eye(2),
            np.zeros(2),
            size=10.0,
            tolerance=1.0,
            radius=10.0,
        )


@pytest.mark.parametrize("dec0", [-89.9, -30.0, 0.0, 75.0])
def test_projection_and_its_inverse(dec0):
    rng = np.random.default_rng(1)
    points = rng.uniform(-3000, 3000, (50, 2))
    ra, dec = deproject(points, 359.99, dec0)
    # 1e-6 arcsec is a hundred times the rounding of degrees in double precision.
    np.testing.assert_allclose(project(ra, dec, 359.99, dec0), points, atol=1e-6)


def test_projection_agrees_with_wcslib():
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10.0, 60.0]
    wcs.wcs.cdelt = [1 / 3600, 1 / 3600]
    wcs.wcs.crpix = [0.0, 0.0]
    ra, dec = wcs.wcs_pix2world([1000.0], [-500.0], 0)
    np.testing.assert_allclose(project(ra, dec, 10.0, 60.0)[0], [1001.0, -499.0], atol=1e-6)


def test_far_hemisphere_is_not_projected():
    assert np.all(np.isnan(project([180.0], [0.0], 0.0, 0.0)))


@pytest.mark.parametrize("kind", ["similarity", "mirror", "affine"])
def test_fit_mapping_recovers(kind):
    rng = np.random.default_rng(2)
    matrix = 1.2 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    if kind == "mirror":
        matrix = matrix * [-1.0, 1.0]
    if kind == "affine":
        matrix = matrix @ [[1.0, 0.1], [0.0, 1.0]]
    points = rng.uniform(-100, 100, (10, 2))
    mapping = fit_mapping(points, points @ matrix.T + [5, 6], kind)
    np.testing.assert_allclose(mapping.matrix, matrix, atol=1e-12)
    np.testing.assert_allclose(mapping.offset, [5, 6], atol=1e-9)
    assert mapping.parity == (-1 if kind == "mirror" else 1)
    if kind != "affine":
        assert mapping.scale == pytest.approx(1.2)
        assert mapping.aspect == pytest.approx(1.0)
        assert mapping.rotation == pytest.approx(np.degrees(1))


def test_nearest_pairs_uses_each_star_once():
    tree = cKDTree([[0.0, 0.0], [10.0, 0.0]])
    i, j, distance = nearest_pairs(tree, np.array([[0.5, 0], [0.1, 0], [10, 0.2], [5, 5]]), 1.0)
    assert list(i) == [1, 2]
    assert list(j) == [0, 1]
    np.testing.assert_allclose(distance, [0.1, 0.2])


def test_brightest_per_cell():
    points = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [5.0, 5.0]])
    chosen = brightest_per_cell(points, np.array([3.0, 1.0, np.nan, 9.0]), 1.0, 2)
    assert list(chosen) == [1, 0, 3]


@pytest.mark.parametrize(("number", "mean"), [(5, 0.01), (20, 3.0), (300, 60.0)])
def test_poisson_tail_bounds_from_above(number, mean):
    exact = poisson.logsf(number - 1, mean) / np.log(10)
    assert exact <= log_poisson_tail(number, mean) + 1e-9 < exact + 0.5


def test_offset_without_stars_in_reach():
    found, _ = offset_hypotheses(np.zeros((1, 2)), np.full((1, 2), 1e4), 10.0, 1.0)
    assert found == []
