"""Least-squares maps: injected shifts, rotations and distortions come back within the errors.

The bounds are those of a least-squares fit: p terms fitted to N stars of error sigma leave an rms
error of sigma sqrt(p / N) per axis over the field, known to 1 in sqrt(4 p) itself.
"""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from simulatedframes import (
    RADIAL,
    SCALE,
    cards,
    reference_of,
    simulated_frame,
    simulated_sky,
)

from lib.astrometry.firstsolution import rotate_before_distortion
from lib.astrometry.jointfit import (
    Errors,
    FrameModel,
    Unknowns,
    associate,
    fit_alone,
    fit_jointly,
    fit_polynomial,
    joint_maps,
    solve_robustly,
)
from lib.astrometry.pixelmaps import map_from_cards, tpv_terms
from lib.astrometry.residuals import residuals
from lib.core.sphere import deproject, project

NOISE = 0.05
"""Error of a star [pixel]: five times the floor of the fit."""

CUBIC = {f"PV{a}_{n}": v for a in (1, 2) for n, v in ((1, 1.0), (7, 0.1), (9, 0.1))}
"""Distortion of third order about (700, 900): a pixel at the far corner."""


def field(rng, count):
    """Stars of one magnitude, so that all have the error `NOISE`."""
    ra, dec, _ = simulated_sky(rng, count, radius=320.0)
    return ra, dec, np.full(count, 17.0)


def frame_of(true, claimed, sky, rng, name="2a"):
    """A frame whose map is the `claimed` one."""
    made = simulated_frame(name, true, claimed, sky, rng, noise=NOISE)
    made.pixel_to_world = map_from_cards(claimed)
    return made


def errors_of(pixel_to_world, true):
    """Difference of a map from the truth over the frame [pixel], shape (n, 2)."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, 900, 9), np.linspace(1, 1024, 9)))
    ra, dec = map_from_cards(true)(x, y)
    return project(*pixel_to_world(x, y), ra[0], dec[0]) / SCALE - (
        project(ra, dec, ra[0], dec[0]) / SCALE
    )


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.parametrize(
    ("change", "degree"),
    [
        ({"ra": 150.00005, "dec": 19.99996}, 1),
        ({"angle": 0.04}, 1),
        ({"scale": SCALE * 1.001}, 1),
        ({"pv": CUBIC}, 3),
    ],
    ids=["shift", "rotation", "scale", "distortion"],
)
def test_injected_change_of_one_frame_is_recovered(change, degree):
    rng = np.random.default_rng(31)
    sky = field(rng, 500)
    true = cards(**change)
    claimed = cards() | ({"CRPIX1": 700.0, "CRPIX2": 900.0} if "pv" in change else {})
    frame = frame_of(true, claimed, sky, rng)
    before = rms(errors_of(frame.pixel_to_world, true))
    expected = NOISE * np.sqrt(len(tpv_terms(degree)) / len(frame.stars))
    after = rms(errors_of(fit_alone(frame, reference_of(sky, rng), degree), true))
    assert after < 2 * expected
    assert before > 5 * after


def test_residuals_of_a_fit_are_the_noise():
    rng = np.random.default_rng(32)
    sky = field(rng, 600)
    frame = frame_of(cards(angle=0.03), cards(), sky, rng)
    reference = reference_of(sky, rng, error=0.5 * NOISE * SCALE)
    frame.pixel_to_world = fit_alone(frame, reference, 1)
    found = residuals([frame], reference)
    noise = SCALE * NOISE * np.hypot(1, 0.5)
    number = len(found)
    assert number > 0.95 * len(frame.stars)
    assert found.rms_of_both() == pytest.approx(noise, rel=4 / np.sqrt(4 * number))
    chi2 = np.sum((found.dx**2 + found.dy**2) / found.error**2) / (2 * number - 6)
    # The errors hold the floor of 0.01 pixel, which the stars here do not have: 3 % of chi2.
    assert chi2 == pytest.approx(1.0, abs=0.03 + 4 / np.sqrt(number))


def test_too_few_stars_leave_the_map_or_shift_it():
    rng = np.random.default_rng(33)
    sky = field(rng, 400)
    true = cards(150.00005, 20.0)
    frame = frame_of(true, cards(), sky, rng)
    reference = reference_of(sky, rng)
    order = associate([frame], reference).source
    assert fit_alone(frame, reference[order[:2]], 1) is frame.pixel_to_world
    # Of four stars a shift: good to half the error of one, everywhere.
    shifted = errors_of(fit_alone(frame, reference[order[:4]], 3), true)
    assert np.abs(shifted).max() < 4 * NOISE / 2
    assert np.ptp(shifted, axis=0).max() < 1e-3


def test_wrong_pairs_do_not_pull_a_fit():
    rng = np.random.default_rng(34)
    u, v = rng.uniform(-1, 1, (2, 200))
    base = np.stack([np.ones(200), u, v], axis=1)
    true = np.array([[1.0, -2.0], [0.5, 0.1], [-0.3, 0.7]])
    target = base @ true + rng.normal(0, 0.01, (200, 2))
    target[:20] += 1.0
    found = fit_polynomial(base, target, np.full(200, 100.0))
    np.testing.assert_allclose(found, true, atol=5 * 0.01 / np.sqrt(180 / 3))


# --- All frames together ------------------------------------------------------------------


def dithered(rng, sky, pv=None, frames=4):
    """Frames shifted by known amounts, their headers off by a fraction of a pixel."""
    made, truths = [], []
    for k in range(frames):
        true = cards(150 + 0.003 * k, 20 + 0.002 * (k % 3), pv=pv, angle=0.02)
        off = rng.normal(0, 0.3 * SCALE / 3600, 2)
        claimed = true | {"CRVAL1": true["CRVAL1"] + off[0], "CRVAL2": true["CRVAL2"] + off[1]}
        for key in CUBIC if pv else ():
            claimed.pop(key)
        claimed |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
        made.append(frame_of(true, claimed, sky, rng, f"2f{k}"))
        truths.append(true)
    return made, truths


@pytest.mark.parametrize(("degree", "pv"), [(1, None), (3, CUBIC)], ids=["linear", "cubic"])
def test_frames_of_known_shifts_and_distortion_are_solved_to_the_noise(degree, pv):
    rng = np.random.default_rng(35)
    sky = field(rng, 500)
    frames, truths = dithered(rng, sky, pv)
    error = NOISE * SCALE
    reference = reference_of(sky, rng, error=error)
    maps = fit_jointly(frames, reference, degree)
    found = residuals(frames, reference, maps)
    stars = len(np.unique(found.reference))
    assert len(found) > 0.95 * sum(len(frame.stars) for frame in frames)

    # Against the reference: error of star and reference, each star's reference error being one.
    assert found.rms_of_both() == pytest.approx(np.sqrt(2) * error, rel=4 / np.sqrt(2 * stars))
    chi2 = np.mean(np.r_[found.dx, found.dy] ** 2 / np.r_[found.error, found.error] ** 2)
    assert chi2 == pytest.approx(1.0, abs=0.02 + 4 / np.sqrt(stars))

    # Against the truth: the reference's error in the mean, that of the stars between frames.
    errors = np.array([errors_of(m, t) for m, t in zip(maps, truths, strict=True)])
    terms = len(tpv_terms(degree))
    mean = errors.mean(axis=0)
    assert rms(mean) < 2 * NOISE * np.sqrt((1 + 1 / len(frames)) * terms / stars)
    per_frame = len(found) / len(frames)
    assert rms(errors - mean) < 2 * NOISE * np.sqrt(3 / per_frame)


def test_stars_without_known_position_tie_frames():
    """Frames of which one sees ten reference stars only are as good as its neighbours' stars."""
    rng = np.random.default_rng(36)
    sky = field(rng, 500)
    frames, truths = dithered(rng, sky)
    every = reference_of(sky, rng)
    # Those in the north-east corner of the last frame, and the first frames' all.
    measured = associate(frames, every)
    on_last = measured.source[measured.frame == 3]
    keep = np.ones(len(every), bool)
    keep[on_last[10:]] = False
    reference = every[keep]
    found = associate(frames, reference)
    assert found.known == len(reference)
    assert len(found.start) > found.known + 50
    maps = joint_maps(frames, reference, 1, found)
    wrong = errors_of(maps[3], truths[3])
    alone = errors_of(fit_alone(frames[3], reference, 1), truths[3])
    assert rms(wrong) < 2 * NOISE * np.sqrt(3 / len(on_last)) * np.sqrt(3)
    assert rms(wrong) < rms(alone)


def test_measurements_are_those_of_the_right_stars():
    rng = np.random.default_rng(37)
    sky = field(rng, 300)
    frames, _ = dithered(rng, sky)
    found = associate(frames, reference_of(sky, rng))
    for k, frame in enumerate(frames):
        here = found.frame == k
        points = project(*frame.pixel_to_world(frame.x, frame.y), *found.centre)
        off = points[found.star[here]] - found.start[found.source[here]]
        assert np.abs(off).max() < 2 * SCALE
        assert len(np.unique(found.source[here])) == here.sum() > 0.9 * len(frame.stars)
    assert found.agrees_with(found)
    fewer = type(found)(
        found.frame[20:], found.star[20:], found.source[20:], found.start, found.known, found.centre
    )
    assert not fewer.agrees_with(found)


def test_every_unknown_has_its_place():
    unknowns = Unknowns(sources=5, frames=3, terms=2)
    places = [unknowns.position(a, s) for a in (0, 1) for s in range(5)]
    places += [unknowns.linear(a, f, t) for a in (0, 1) for f in range(3) for t in range(3)]
    places += [unknowns.shared(a, t) for a in (0, 1) for t in range(2)]
    assert sorted(places) == list(range(unknowns.total))


def test_model_without_coefficients_is_the_present_map():
    rng = np.random.default_rng(38)
    frame = frame_of(cards(), cards(angle=30.0), field(rng, 50), rng)
    model = FrameModel(frame, tpv_terms(3)[1:], frame.centre())
    same = model.map(np.zeros((3, 2)), np.zeros((9, 2)))
    wrong = errors_of(same, cards(angle=30.0))
    # A microarcsecond.
    assert np.abs(wrong).max() * SCALE < 1e-6


def robust_problem(rng, number=300, known=50):
    """A line of two unknowns per axis, the same for both: measurements and priors."""
    t = rng.uniform(-1, 1, number)
    base = np.stack([np.ones(number), t], axis=1)
    at = np.stack([np.ones(known), np.linspace(-1, 1, known)], axis=1)
    empty, none = np.zeros((number, 2)), np.zeros((known, 2))
    design = np.block([[base, empty], [empty, base], [at, none], [none, at], [np.eye(4)]])
    true = np.array([1.0, 2.0, -1.0, 0.5])
    sigma = np.r_[np.full(2 * number, 0.1), np.full(2 * known, 0.2)]
    right = np.r_[design[: len(sigma)] @ true + sigma * rng.normal(size=len(sigma)), np.zeros(4)]
    errors = Errors(
        np.full(number, 0.1), np.full(known, 0.2), np.full(4, 1e3), np.zeros(number, bool), 1e-6
    )
    return design, right, errors, true


def test_robust_solution_is_that_of_weighted_least_squares():
    design, right, errors, _ = robust_problem(np.random.default_rng(39))
    weight = np.r_[np.full(600, 1 / 0.1), np.full(100, 1 / 0.2), np.full(4, 1e-3)]
    expected = np.linalg.lstsq(design * weight[:, None], right * weight, rcond=None)[0]
    found = solve_robustly(csr_matrix(design), right, errors, clip=10.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_robust_solution_leaves_outliers_out():
    design, right, errors, true = robust_problem(np.random.default_rng(40))
    right[:30] += 3.0
    right[600:605] -= 5.0
    found = solve_robustly(csr_matrix(design), right, errors)
    np.testing.assert_allclose(found, true, atol=4 * 0.1 * np.sqrt(3 / 270))


def test_rotation_is_put_before_a_distortion_of_high_order():
    rng = np.random.default_rng(41)
    # A hundred times the usual one: 2 pixels at the far corner.
    pv = {key: value if key.endswith("_1") else 100 * value for key, value in RADIAL.items()}
    header = cards(pv=pv)
    true = cards(pv=pv, scale=SCALE * 1.004, angle=0.1)
    frame = frame_of(true, header, field(rng, 50), rng)
    # As it is found: the header's map followed by a linear one.
    centre = frame.centre()
    turn = frame.local_matrix(map_from_cards(true)) @ np.linalg.inv(frame.local_matrix())
    base = frame.pixel_to_world
    shift = project(*[[v] for v in frame.centre(map_from_cards(true))], *centre)

    def followed(x, y):
        return deproject(project(*base(x, y), *centre) @ turn.T + shift, *centre)

    frame.pixel_to_world = followed
    linear_last = rms(errors_of(followed, true))
    linear_first = rms(errors_of(rotate_before_distortion(frame), true))
    assert linear_last > 0.1
    assert linear_first < 0.1 * linear_last
