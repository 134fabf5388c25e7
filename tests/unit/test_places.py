"""What a killed process leaves behind is removed; what others are at work on is not."""

import os
import subprocess
import sys

import pytest

from lib.engine.config import ConfigError
from lib.engine.paths import check_places, sweep


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


def test_instrument_file_by_path(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "my.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    config = {
        "datadir": "raw", "imdir": "red", "masters": "", "customcat": "", "refcat": "none",
        "exclude": "config/exclude.txt", "instrument": "./my.yaml",
    }  # fmt: skip
    assert check_places(config)["instrument"] == "my.yaml"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_places(config | {"instrument": "~/my.yaml"})["instrument"] == f"{tmp_path}/my.yaml"
    with pytest.raises(ConfigError, match="instrument: there is no file your.yml"):
        check_places(config | {"instrument": "your.yml"})
    assert "instrument" not in check_places(config | {"instrument": "lmi"})
