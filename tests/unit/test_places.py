"""What a killed process leaves behind is removed; what others are at work on is not."""

import os
import subprocess
import sys

from lib.places import sweep


def test_leavings_of_the_dead_are_swept(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead, alive = done.pid, os.getpid()
    for pid in (dead, alive):
        (tmp_path / f".{pid}.coaddx.r.fits").touch()
        (tmp_path / f".{pid}.stack-abc").mkdir()
        (tmp_path / f".{pid}.stack-abc" / "f00001.fits").touch()
    (tmp_path / "qa").mkdir()
    (tmp_path / "qa" / f".{dead}.x.json").touch()
    kept = {".run", ".nightlog.json", "coaddx.r.fits"}
    for name in kept:
        (tmp_path / name).touch()
    assert len(sweep(tmp_path)) == 3
    left = {path.name for path in tmp_path.iterdir()}
    assert left == kept | {"qa", f".{alive}.coaddx.r.fits", f".{alive}.stack-abc"}
    assert not any((tmp_path / "qa").iterdir())
