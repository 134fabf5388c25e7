"""SCAMP: its arguments, its result, its failures."""

import numpy as np
import pytest
from simulatedframes import (
    RADIAL,
    SETTINGS,
    group,
    reference_of,
    simulated_sky,
    solved,
)

from lib.astrometry import detection
from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.residuals import residuals, weighted_rms
from lib.astrometry.scamp import run_scamp
from lib.core.programs import ProgramFailed, run_program
from lib.frame.fitsbytes import read_head


def test_scamp_runs_in_one_thread(monkeypatch):
    """With more it adds up in another order now and then, and the last digits differ."""
    commands = []

    def note(argv, **how):
        commands.append(argv)
        return run_program(argv, **how)

    monkeypatch.setattr(detection, "run_program", note)
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 200)
    frames, _ = group(rng, sky, count=3)
    solved(frames, reference_of(sky, rng))
    assert commands
    assert {argv[argv.index("-NTHREADS") + 1] for argv in commands} == {1}


def test_scamp_alone_reproduces_the_truth():
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 500)
    frames, truths = group(rng, sky, count=3, pv=RADIAL)
    reference = reference_of(sky, rng)
    for frame, true in zip(frames, truths, strict=True):
        frame.pixel_to_world = map_from_cards(true)
    maps = run_scamp(frames, reference, 3, SETTINGS, crossid=0.5)
    found = residuals(frames, reference, maps=maps)
    assert len(found.dx) > 200
    # The noise of the stars themselves.
    assert weighted_rms(found.dx, found.error) < 0.01


def fail_at(monkeypatch, fails, why="exit code 1: no"):
    """Let the calls of source-extractor fail that `fails`, given the number, says; count them."""
    calls = []

    def sometimes(argv, **how):
        calls.append(argv)
        if fails(len(calls)):
            raise ProgramFailed(argv[0], why)
        return run_program(argv, **how)

    monkeypatch.setattr(detection, "run_program", sometimes)
    return calls


def test_killed_scamp_is_run_again(monkeypatch):
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 300)
    frames, _ = group(rng, sky, count=3)
    reference = reference_of(sky, rng)
    expected = solved(frames, reference)
    for frame in frames:
        frame.match = None
    calls = fail_at(monkeypatch, lambda number: number % 2, "killed by SIGKILL: no output")
    assert solved(frames, reference) == expected
    assert len(calls) > 4


def test_unreadable_scamp_header(tmp_path):
    path = tmp_path / "a.head"
    path.write_text("CTYPE1  = 'RA---TPV'\nEND     \n")
    with pytest.raises(ValueError, match="no CRVAL1"):
        read_head(path)
