"""The room that a run needs is told, and a run that would fill the disk is refused."""

import shutil
from types import SimpleNamespace

import pytest

from lib.core.pipeline import PIPELINE
from lib.engine.config import check_config
from lib.engine.diskspace import DiskTooSmall, check_room, in_bytes, room_needed

FRAMES = ("2a", "2b", "2c")
PIXELS = 100 * 200


@pytest.fixture
def night():
    return SimpleNamespace(frames={one: SimpleNamespace(shape=[100, 200]) for one in FRAMES})


@pytest.fixture
def plan():
    return SimpleNamespace(
        stack_of=dict.fromkeys(FRAMES, "M1.r"),
        stacks={"M1.r": FRAMES},
        skies={"sky-r": SimpleNamespace(frames=FRAMES)},
        left_out=frozenset(),
        prefix=lambda rule: PIPELINE.prefix(rule, frozenset()),
    )


def room(night, plan, imdir, cores=2, **more):
    return room_needed(night, plan, check_config({"imdir": str(imdir)} | more), cores)


def test_room_is_that_of_the_products(night, plan, tmp_path):
    # p, fp, sfp, zsfp, azsfp of 5 byte a pixel; a sky of 5 frames; image and weight of 1.5 frames
    expected = PIXELS * (3 * 5 * 5 + 5 * 5 + 1.5 * 8)
    assert room(night, plan, tmp_path / "none") == pytest.approx(expected)


def test_what_is_there_needs_no_room(night, plan, tmp_path):
    whole = room(night, plan, tmp_path)
    (tmp_path / "pfp2a.fits").touch()
    assert room(night, plan, tmp_path) == whole
    (tmp_path / "zsfp2a.fits").touch()
    assert room(night, plan, tmp_path) == whole - 5 * PIXELS
    for name in ("coaddM1.r.fits", "sky-r.fits"):
        (tmp_path / name).touch()
    assert room(night, plan, tmp_path) == PIXELS * (14 * 5)


def test_early_frames_that_are_removed_need_room_for_some_at_once(night, plan, tmp_path):
    kept = room(night, plan, tmp_path)
    assert room(night, plan, tmp_path, rmifiles=True) == kept - PIXELS * 4 * 5
    for frame in FRAMES:
        (tmp_path / f"azsfp{frame}.fits").touch()
    assert room(night, plan, tmp_path, rmifiles=True) == PIXELS * (25 + 12)


def test_a_run_that_cannot_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(3e9)))
    assert check_room(int(2.9e9), tmp_path / "not" / "yet") == int(3e9)
    with pytest.raises(DiskTooSmall, match=r"needs 3.1 GB on disk and .* has 3.0 GB left"):
        check_room(int(3.1e9), tmp_path)


@pytest.mark.parametrize("size, words", [(2e5, "200 kB"), (2.06e8, "206 MB"), (1.5e9, "1.5 GB"),
                                         (67.2e9, "67 GB"), (2e12, "2.0 TB")])  # fmt: skip
def test_bytes_in_words(size, words):
    assert in_bytes(size) == words
