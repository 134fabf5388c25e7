"""Products that are not whole are found at the start of a run, and removed."""

import os
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

from lib.core.contents import ContentRecord, checksum
from lib.core.pipeline import PIPELINE
from lib.engine import intact
from lib.engine.commandline import only_looks
from lib.engine.intact import Products, product_names
from lib.frame.file import Frame, write_frame
from lib.night.plan import Plan, Sky

NAMES = ["p2a.fits", "fp2a.fits", "qa/stack/M1.r.json", "absent.fits"]


@pytest.fixture
def imdir(tmp_path):
    """Two frames and a note, as a run has left them at its end."""
    for number, name in enumerate(NAMES[:2]):
        image = np.full((40, 50), number, np.float32)
        write_frame(tmp_path / name, Frame(image, np.zeros(image.shape, np.uint8)))
    note = tmp_path / NAMES[2]
    note.parent.mkdir(parents=True)
    note.write_text('{"frames": 3}')
    ContentRecord(tmp_path).write(f"made:{NAMES[2]}", None, checksum(note))
    Products(tmp_path, NAMES).settle()
    return tmp_path


def test_products_of_every_rule_are_looked_at():
    night = SimpleNamespace(biases={"bias-C0": []}, darks={"dark-C0": []}, flats={"flat_r": []})
    frames = ("2a", "2b")
    plan = Plan(
        stacks={"M1.r": frames},
        targets={"M1": ("M1.r",)},
        skies={"sky-r": Sky(frames, near_infrared=False, sigma=3.0, structure=False, passes=1)},
        stack_of=dict.fromkeys(frames, "M1.r"),
        sky_of=dict.fromkeys(frames, "sky-r"),
        left_out=frozenset(),
        surveyed=("M1.r",),
    )
    lasting, intermediate = product_names(night, plan)
    names = [*lasting, *intermediate]
    for rule in PIPELINE.rules:
        for pattern in rule.gives:
            one = re.sub(r"<\w+>", "[^/]+", re.escape(pattern))
            assert any(re.fullmatch(one, name) for name in names), pattern
    for rule in PIPELINE.frame_rules:
        assert {f"{PIPELINE.prefix(rule)}{frame}.fits" for frame in frames} <= set(names), rule


def spoil(path, place=-1000):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_whole_products_are_not_read_again(imdir, monkeypatch):
    monkeypatch.setattr(intact, "damage", lambda *_: pytest.fail("read again"))
    assert Products(imdir, NAMES).check(remove=True) == {}


def test_damaged_products_are_removed_until_they_are_made(imdir):
    spoil(imdir / NAMES[0])
    spoil(imdir / NAMES[2], 3)
    (imdir / NAMES[1]).write_bytes(b"")
    products = Products(imdir, NAMES)
    assert set(products.check(remove=True)) == set(NAMES[:3])
    assert not any((imdir / name).exists() for name in NAMES)
    # A run that is killed before it has made them does not forget them.
    products = Products(imdir, NAMES)
    assert products.check(remove=True) == {} and set(products.again) == set(NAMES[:3])
    (imdir / NAMES[2]).write_text('{"frames": 4}')
    ContentRecord(imdir).write(f"made:{NAMES[2]}", None, checksum(imdir / NAMES[2]))
    products.settle()
    assert Products(imdir, NAMES).again == NAMES[:2][::-1]


def test_products_of_a_killed_run_are_read_once(imdir):
    image = np.ones((40, 50), np.float32)
    write_frame(imdir / NAMES[3], Frame(image, np.zeros(image.shape, np.uint8)))
    assert Products(imdir, NAMES).check(remove=True) == {}
    assert Products(imdir, NAMES).whole.keys() == set(NAMES)


def test_a_look_removes_nothing(imdir):
    spoil(imdir / NAMES[0])
    assert set(Products(imdir, NAMES).check(remove=False)) == {NAMES[0]}
    assert set(Products(imdir, NAMES).check(remove=True)) == {NAMES[0]}


def test_files_of_others_are_not_touched(imdir):
    (imdir / "p2other.fits").write_bytes(b"")
    Products(imdir, NAMES).check(remove=True)
    assert (imdir / "p2other.fits").exists()


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 200_000, b"\xff\xfe", b'{"whole": 3}'])
def test_damaged_record_costs_a_look(imdir, content):
    (imdir / intact.RECORD).write_bytes(content)
    assert Products(imdir, NAMES).check(remove=True) == {}
    assert Products(imdir, NAMES).whole.keys() == set(NAMES[:3])


def test_products_dated_later_than_now_get_the_time_of_now(imdir):
    """The clock was ahead when they were made, and has been set right."""
    later = time.time() + 3600
    for name in NAMES[:3]:
        os.utime(imdir / name, (later, later))
    Products(imdir, NAMES).check(remove=True)
    times = {(imdir / name).stat().st_mtime_ns for name in NAMES[:3]}
    assert len(times) == 1 and times.pop() <= time.time_ns()


@pytest.mark.parametrize(
    "words, looks",
    [("--cores 2", False), ("-n", True), ("-np", True), ("--dry-run", True), ("--touch", True),
     ("--until stack --config datadir=-n.d", False), ("--report=r.html", True)],
)  # fmt: skip
def test_a_look_is_told_from_a_run(words, looks):
    assert only_looks(["snakemake", *words.split()]) is looks
