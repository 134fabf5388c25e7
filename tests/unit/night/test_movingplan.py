"""lib.night.moving: which frames a moving object is on."""

from types import SimpleNamespace

import numpy as np

from lib.night.moving import moving_stacks, track
from lib.night.positions import Position

NIGHTS = {"2a": "20220127", "2b": "20220127", "2c": "20220128", "2d": "20220128", "2e": "20220128"}
TIMES = {"2a": 59607.10, "2b": 59607.20, "2c": 59608.10, "2d": 59608.20, "2e": 59608.30}


def frame(mjd, ra=150.0):
    return SimpleNamespace(
        mjd=mjd, exptime=60.0, wcs=None, ra=ra, dec=20.0, shape=(1000, 1000), pixscale=0.4,
        poserr=None,
    )  # fmt: skip


def mover(name="2022 AB", days=2.0, rate=0.05):
    """Return a body that leaves the field of 0.08 degrees about (150, 20) after a day or so."""
    mjd = 59607.0 + np.linspace(0, days, 9)
    return Position(name, 150.0 + rate * (mjd - 59607.0), np.full(9, 20.0), mjd=mjd)


def test_a_stack_for_each_night_and_one_without_number_where_there_is_one():
    frames = {name: frame(mjd) for name, mjd in TIMES.items()}
    stacks, followed = moving_stacks({"M1.r": list(TIMES)}, frames, [mover()], NIGHTS)
    assert stacks == {
        "M1.r.moving-2022_AB-n20220127": ("2a", "2b"),
        "M1.r.moving-2022_AB-n20220128": ("2c", "2d", "2e"),
    }
    assert {one.name for one in followed.values()} == {"2022 AB"}
    first, _ = moving_stacks({"M1.r": list(TIMES)}, frames, [mover(days=0.5)], NIGHTS)
    assert first == {"M1.r.moving-2022_AB": ("2a", "2b")}


def test_frames_elsewhere_and_fixed_positions_have_none():
    frames = {name: frame(mjd, 151.0 if name > "2b" else 150.0) for name, mjd in TIMES.items()}
    star = Position("star", np.array([150.0]), np.array([20.0]))
    stacks, _ = moving_stacks({"M1.r": list(TIMES)}, frames, [mover(), star], NIGHTS)
    assert list(stacks.values()) == [("2a", "2b")]
    # One frame is no stack; frames of unknown pointing are looked at by the stack itself.
    frames = {"2a": frame(TIMES["2a"]), "2b": frame(TIMES["2b"], 170.0)}
    assert not moving_stacks({"M1.r": list(frames)}, frames, [mover()], NIGHTS)[0]
    frames["2b"].ra = None
    assert len(moving_stacks({"M1.r": list(frames)}, frames, [mover()], NIGHTS)[0]) == 1


def test_another_ephemeris_is_another_track():
    times = [59607.1, 59607.2]
    assert track(mover(), times) == track(mover(), times)
    assert track(mover(), times) != track(mover(rate=0.0501), times)
