"""What a killed process leaves behind is removed; what others are at work on is not."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.core.files import OWNER, sweep_scratch
from lib.core.pipeline import PIPELINE
from lib.engine import paths
from lib.engine.config import ConfigError
from lib.engine.paths import check_places, sweep, work_as_remote_job


def ended():
    """Return the number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_leavings_of_the_dead_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    dead, alive = ended(), os.getpid()
    mark = ".autoproc-part-"
    for pid in (dead, alive):
        (tmp_path / f"{mark}{pid}.coaddx.r.fits").touch()
        (tmp_path / f"{mark}{pid}.stack-abc").mkdir()
        (tmp_path / f"{mark}{pid}.stack-abc" / "f00001.fits").touch()
    (tmp_path / "qa" / "frames").mkdir(parents=True)
    (tmp_path / "qa" / "frames" / f"{mark}{dead}.x.json").touch()
    kept = {".run", ".nightlog.json", "coaddx.r.fits"}
    for name in kept:
        (tmp_path / name).touch()
    assert len(sweep(tmp_path)) == 3
    left = {path.name for path in tmp_path.iterdir()}
    assert left == kept | {"qa", f"{mark}{alive}.coaddx.r.fits", f"{mark}{alive}.stack-abc"}
    assert not any((tmp_path / "qa" / "frames").iterdir())


def test_files_of_the_user_are_not_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    dead = ended()
    users = [
        ".20220128.fits", f".{dead}.backup", f".paper.{dead}.tmp", f".{dead}.folder/paper.tex",
        "raw/.20220128.fits", f"raw/.autoproc-part-{dead}.fits", ".autoproc-part-x.y",
        f"papers/qa/.autoproc-part-{dead}.tex", f"qa/.{dead}.json",
    ]  # fmt: skip
    for name in users:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f".autoproc-part-{dead}.link").symlink_to(tmp_path / "papers")
    assert [path.name for path in sweep(tmp_path)] == [f".autoproc-part-{dead}.link"]
    assert all((tmp_path / name).read_text() == "mine" for name in users)


def test_scratch_of_killed_processes_is_swept(tmp_path):
    here = Path(__file__).resolve().parents[3] / "scripts"
    work = (
        "import sys, time; from lib.core.files import scratch_folder\n"
        "with scratch_folder('scamp') as folder:\n"
        "    (folder / 'x.ldac').touch(); print(folder, flush=True); time.sleep(60)"
    )
    how = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | {
        "PYTHONPATH": str(here), "TMPDIR": str(tmp_path)}}  # fmt: skip
    killed, alive = (subprocess.Popen([sys.executable, "-c", work], **how) for _ in "12")
    try:
        left, used = (Path(one.stdout.readline().strip()) for one in (killed, alive))
        killed.kill()
        killed.wait()
        users = tmp_path / "autoproc-scamp-mytables"
        users.mkdir()
        (users / "paper.tex").touch()
        never = tmp_path / "autoproc-detect-abcd1234"
        never.mkdir()
        for folder in (users, never):
            os.utime(folder, (1e9, 1e9))
        (tmp_path / "autoproc-scamp-aaaaaaaa").symlink_to(users)
        assert sorted(sweep_scratch(tmp_path)) == sorted([left, never])
        assert (used / "x.ldac").exists()
        assert (users / "paper.tex").exists()
    finally:
        for one in (killed, alive):
            one.kill()
            one.wait()
            one.stdout.close()


def test_job_of_a_cluster_sweeps_its_node_before_and_after(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    local, at_exit = [], []
    monkeypatch.setattr(paths.atexit, "register", at_exit.append)
    job = SimpleNamespace(localrules=lambda *rules: local.extend(rules))
    left = [tmp_path / f"autoproc-{purpose}-abcd1234" for purpose in ("scamp", "detect")]
    for begin in (lambda: work_as_remote_job(job), lambda: [one() for one in at_exit]):
        for folder in left:
            folder.mkdir()
            (folder / OWNER).touch()  # not locked: its process has ended
            (folder / "x.ldac").touch()
        begin()
        assert not any(folder.exists() for folder in left)
    assert set(local) == set(PIPELINE.local_rules)


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
    with pytest.raises(ConfigError, match="refcat: there is no file onlin, did you mean 'online'?"):
        check_places(config | {"refcat": "onlin"})
    assert "instrument" not in check_places(config | {"instrument": "lmi"})
