"""What a run writes is on disk when it ends."""

import os

from lib.core.files import atomic_path
from lib.engine import ondisk
from lib.engine.ondisk import DiskWriter


def test_writes_out_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(ondisk, "INTERVAL", 0.01)
    monkeypatch.setattr(ondisk, "write_out", done.append)
    writer = DiskWriter(tmp_path)
    writer.start()
    while len(done) < 3:
        pass
    writer.finish()
    count = len(done)
    assert count > 3 and set(done) == {tmp_path}
    writer.finish()
    assert len(done) == count + 1


def test_folder_that_is_gone_ends_nothing(tmp_path):
    ondisk.write_out(tmp_path)
    ondisk.write_out(tmp_path / "gone")


def test_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(os, "fdatasync", lambda _: names.append(sorted(os.listdir(tmp_path))))
    with atomic_path(tmp_path / "note") as beside:
        beside.write_text("whole")
    with atomic_path(tmp_path / "frame", wait=False) as beside:
        beside.write_text("later")
    assert len(names) == 1 and "note" not in names[0] and names[0][0].endswith("note")
