"""Frames aligned with each other: injected shifts come back within the noise of the stars."""

import numpy as np
from simulatedframes import SCALE, SETTINGS, cards, simulated_frame, simulated_sky

from lib.astrometry.alignment import align
from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.residuals import residuals
from lib.core.sphere import project

NOISE = 0.05
"""Error of a star [pixel]."""


def test_known_shifts_are_recovered():
    rng = np.random.default_rng(51)
    ra, dec, _ = simulated_sky(rng, 400)
    sky = ra, dec, np.full(400, 17.0)
    frames, truths = [], []
    for k in range(4):
        true = cards(150 + 0.002 * k, 20 + 0.001 * k)
        off = np.zeros(2) if k == 0 else rng.normal(0, 3.0, 2) / 3600
        claimed = cards(true["CRVAL1"] + off[0], true["CRVAL2"] + off[1])
        frame = simulated_frame(f"2f{k}", true, claimed, sky, rng, noise=NOISE)
        frame.pixel_to_world, frame.radius = map_from_cards(claimed), 30.0
        frames.append(frame)
        truths.append(true)
    aligned, reference, failed = align(frames, SETTINGS)
    assert not failed and {frame.name for frame in aligned} == {frame.name for frame in frames}
    assert (reference.seen > 1).all()

    found = residuals(aligned, reference)
    # Each star against the mean of the n frames that see it.
    seen = reference.seen[found.reference]
    chi2 = np.mean((found.dx**2 + found.dy**2) / (2 * (NOISE * SCALE) ** 2) * seen / (seen - 1))
    assert abs(chi2 - 1) < 4 / np.sqrt(len(reference)) + 0.05

    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, 900, 8), np.linspace(1, 1024, 8)))
    errors = []
    for frame in aligned:
        true = map_from_cards(truths[int(frame.name[2:])])(x, y)
        errors.append(
            project(*frame.pixel_to_world(x, y), 150.0, 20.0) - project(*true, 150.0, 20.0)
        )
    relative = (np.array(errors) - np.mean(errors, axis=0)) / SCALE
    per_frame = len(found) / len(frames)
    assert np.sqrt(np.mean(relative**2)) < 2 * NOISE * np.sqrt(3 / per_frame)


def test_chips_without_a_star_in_common_keep_their_places():
    """Two chips side by side in two exposures: the pointing of an exposure is that of both."""
    rng = np.random.default_rng(52)
    sky = (*simulated_sky(rng, 900, radius=700.0)[:2], np.full(900, 17.0))
    gap = 0.12  # deg, wider than a chip and the dither
    frames, truths = [], {}
    for exposure, off in enumerate([(0.0, 0.0), (4.0 / 3600, -3.0 / 3600)]):
        for chip in (0, 1):
            true = cards(150 - gap / 2 + gap * chip + 0.002 * exposure, 20 + 0.001 * exposure)
            claimed = cards(true["CRVAL1"] + off[0], true["CRVAL2"] + off[1])
            frame = simulated_frame(f"2f{exposure}{chip}", true, claimed, sky, rng, noise=NOISE)
            frame.pixel_to_world, frame.radius = map_from_cards(claimed), 30.0
            frame.header["RAWFILE"] = f"{exposure}.fits"
            frames.append(frame)
            truths[frame.name] = true
    aligned, _, failed = align(frames, SETTINGS)
    assert not failed and len(aligned) == 4
    x, y = np.array([450.0]), np.array([512.0])
    offsets = []
    for frame in aligned:
        true = map_from_cards(truths[frame.name])(x, y)
        offsets.append((project(*frame.pixel_to_world(x, y), *true) / SCALE)[0])
    # One shift of all: that of the exposure which keeps its header's system.
    assert np.ptp(offsets, axis=0).max() < 4 * NOISE


def test_frames_of_other_fields_are_not_placed_by_chance():
    rng = np.random.default_rng(53)
    sky = (*simulated_sky(rng, 900, radius=700.0)[:2], np.full(900, 17.0))
    frames = []
    for k, ra in enumerate((149.93, 150.07)):
        true = cards(ra, 20.0)
        frame = simulated_frame(f"2f{k}", true, true, sky, rng, noise=NOISE)
        frame.pixel_to_world, frame.radius = map_from_cards(true), 30.0
        frame.header["RAWFILE"] = f"{k}.fits"
        frames.append(frame)
    aligned, _, failed = align(frames, SETTINGS)
    assert len(aligned) == 1 and len(failed) == 1
