"""What every step does around its image math."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib.core.contents import ContentRecord, checksum
from lib.frame.file import Frame, write_frame
from lib.frame.step import DamagedInput, run_by_hand, run_rule, stop_log


class Named(list):
    """As Snakemake gives inputs and params to a script."""

    def get(self, name, default=None):
        return getattr(self, name, default)


@pytest.fixture
def job(tmp_path):
    """A job with a product of last week and a raw file as inputs, a note as output."""
    image = np.ones((40, 50), np.float32)
    product = tmp_path / "p2a.fits"
    write_frame(product, Frame(image, np.zeros(image.shape, np.uint8)))
    week = time.time() - 7 * 86400
    os.utime(product, (week, week))
    (tmp_path / "2a.fits").write_bytes(b"raw")
    log = tmp_path / "logs" / "stack" / "M1.r.log"
    log.parent.mkdir(parents=True)
    params = Named()
    params.given = SimpleNamespace(raws=[str(tmp_path / "2a.fits")])
    params.facts = {"content": "abc"}
    yield SimpleNamespace(
        input=Named([str(product)]),
        output=[str(tmp_path / "qa.json")],
        params=params,
        log=[str(log)],
    )
    stop_log()


def work(job):
    with open(job.output[0], "w") as file:
        file.write("{}")


def test_what_was_read_and_written_is_recorded(job, tmp_path):
    run_rule(job, work)
    record = ContentRecord(tmp_path)
    assert record.find("raw:2a.fits")["content"] == "abc"
    assert record.find("raw:2a.fits")["sum"] == checksum(tmp_path / "2a.fits")
    assert record.find("made:qa.json")["sum"] == checksum(tmp_path / "qa.json")


def test_product_that_has_rotted_is_named_and_removed(job, tmp_path):
    product = tmp_path / "p2a.fits"
    times = product.stat().st_mtime_ns
    content = bytearray(product.read_bytes())
    content[-4000] ^= 1
    product.write_bytes(content)
    os.utime(product, ns=(times, times))
    with pytest.raises(DamagedInput, match="p2a.fits is damaged .the checksum of HDU"):
        run_rule(job, work)
    assert not product.exists() and not (tmp_path / "qa.json").exists()


@pytest.mark.parametrize("name", ["p2a.fits", "qa/note.json"])
def test_product_of_an_earlier_run_is_held_against_its_checksum(job, tmp_path, name):
    """An hour old, its times unchanged: rotten since, and found before it is used."""
    hour = time.time() - 3600
    note = tmp_path / "qa" / "note.json"
    note.parent.mkdir()
    note.write_text('{"n": 123}')
    ContentRecord(tmp_path).write("made:qa/note.json", None, checksum(note))
    job.input.append(str(note))
    (tmp_path / ".run").write_text("1")
    for path in (*job.input, tmp_path / ".run"):
        os.utime(path, (hour, hour))
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, (hour, hour))
    run_rule(job, work)  # of the run that goes on: not read
    os.utime(tmp_path / ".run")
    with pytest.raises(DamagedInput, match=f"{name} is damaged"):
        run_rule(job, work)
    assert not path.exists()


def test_products_of_this_night_are_not_read_twice(job, monkeypatch):
    os.utime(job.input[0])
    monkeypatch.setattr("lib.frame.step.damage_of_fits", lambda _: pytest.fail("read"))
    run_rule(job, work)


def test_interrupt_ends_a_job_without_a_traceback(job):
    def work(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_rule(job, work)
    assert stop.value.code == 130
    stop_log()
    assert "INFO interrupted" in Path(job.log[0]).read_text()


def test_a_script_by_hand_asks_as_in_snakemake(tmp_path, monkeypatch):
    parts = {
        "input": {"coadds": ["c.fits"]}, "output": ["t.ecsv"], "log": str(tmp_path / "log"),
        "params": {"version": 2, "given": {"frames": [["a.fits"]]}},
    }  # fmt: skip
    monkeypatch.setattr("sys.argv", ["tables.py", json.dumps(parts)])
    seen = []
    run_by_hand(
        lambda job: seen.extend(
            [job.input.coadds, job.input.get("differences"), job.params.get("version"),
             job.params.given.frames, job.output[0]]
        )
    )  # fmt: skip
    stop_log()
    assert seen == [["c.fits"], None, 2, [["a.fits"]], "t.ecsv"]
