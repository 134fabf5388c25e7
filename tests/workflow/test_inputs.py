"""What a run takes from outside counts by what it holds, whatever its times say."""

import base64
import os
import shutil
import time

import pytest
from astropy.io import fits
from test_dag import science
from workbench import FILTERS, Place, slow_but

DAY = 86400.0


def put_back(path, content, seconds):
    """Replace a file by one that is older than what was made of it."""
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))


def test_times_and_places_of_inputs_do_not_count(reduced):
    for path in [*reduced.raw.iterdir(), reduced.path / "reference.ecsv"]:
        os.utime(path, (time.time() + DAY, time.time() + DAY))
    assert reduced.dry() == {}
    shutil.move(reduced.raw, reduced.path / "moved")
    assert reduced.dry(datadir="moved") == {}


def test_older_good_copy_of_a_raw_frame_is_reduced(reduced):
    path = science(reduced, "SDSS-R")[0]
    good = path.read_bytes()
    put_back(path, good[:-3000] + b"\1" + good[-2999:], path.stat().st_mtime)
    jobs = reduced.dry()
    assert jobs["prepare"] == 1 and jobs["stack"] == 1
    put_back(path, good, 1e9)
    assert reduced.dry() == {}


@pytest.mark.parametrize("kind, rule", [("BIAS", "bias"), ("FLAT", "flat")])
def test_older_good_copy_of_a_calibration_frame_is_used(reduced, kind, rule):
    path = next(one for one in sorted(reduced.raw.iterdir())
                if kind in fits.getval(one, "OBSTYPE").upper())  # fmt: skip
    good = path.read_bytes()
    put_back(path, good[:-3000] + b"\1" + good[-2999:], 1e9)
    assert reduced.dry()[rule] >= 1


def test_older_good_reference_table_is_used(reduced):
    path = reduced.path / "reference.ecsv"
    put_back(path, path.read_bytes() + b"\n", 1e9)
    jobs = reduced.dry()
    assert jobs["refcat"] == 1 and jobs["stack"] == len(FILTERS)


def test_older_good_master_is_used(reduced):
    """Instead of raw flats: what is made of it follows its content."""
    masters = reduced.path / "masters"
    masters.mkdir()
    name = f"flat_{FILTERS[0]}.fits"
    shutil.copy(reduced.products / name, masters)
    for path in reduced.raw.iterdir():
        if "FLAT" in fits.getval(path, "OBSTYPE").upper():
            path.unlink()
    done = reduced.snakemake("--until", "flatten", masters="masters")
    assert done.code == 0, done.out
    assert "flatten" not in reduced.dry("--until", "flatten", masters="masters")
    content = bytearray((masters / name).read_bytes())
    content[-100_000] ^= 1
    put_back(masters / name, bytes(content), 1e9)
    assert reduced.dry("--until", "flatten", masters="masters")["flatten"] == 3


def test_clocks_need_not_agree(fresh):
    """The camera is ahead by half a minute, five minutes and a day."""
    for number, path in enumerate([*sorted(fresh.raw.iterdir()), fresh.path / "reference.ecsv"]):
        ahead = time.time() + (30, 300, DAY)[number % 3]
        os.utime(path, (ahead, ahead))
    last = ("--until", "prepare", "refcat")
    done = fresh.snakemake(*last)
    assert done.code == 0, done.out
    assert len(fresh.names("p2*.fits")) == 6
    assert fresh.dry(*last) == {}


def test_another_working_directory_knows_what_was_done(reduced, tmp_path):
    other = Place(tmp_path / "other")
    other.path.mkdir()
    there = {
        "datadir": reduced.raw,
        "imdir": os.path.relpath(reduced.products, other.path),
        "refcat": reduced.path / "reference.ecsv",
    }
    assert other.dry(**there) == {}
    done = other.snakemake("--until", "crclean", crclean="{sigma: 6}", **there)
    assert done.code == 0, done.out
    assert reduced.dry()["crclean"] == 6


@pytest.mark.parametrize(
    "content", slow_but([b"", b"[" * 100_000, b"[1]", b'{"rule": [1]}'], b"", b"[1]")
)
def test_product_of_which_nothing_is_known_is_made_again(reduced, content):
    """As after a power cut, or where a folder was copied without the record."""
    frame = science(reduced, "SDSS-R")[0].stem
    name = base64.urlsafe_b64encode(f"zsfp{frame}.fits".encode()).decode()
    (reduced.products / ".snakemake" / "metadata" / name).write_bytes(content)
    assert reduced.dry("--until", "crclean") == {"crclean": 1}
