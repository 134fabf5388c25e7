"""The wheel: the command with its workflow, as pip or pipx installs them."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from workbench import ROOT

from autoproc import __version__

PARTS = ("Snakefile", "environment.yml", "pyproject.toml", "requirements.in", "README.md",
         "LICENSE", "config", "profiles", "report", "rules", "scripts", "src")  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder in which the wheel is unpacked, as on a module path."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part)
        else:
            shutil.copy(ROOT / part, source / part)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", place, source], check=True, capture_output=True)
    with zipfile.ZipFile(next(place.glob("autoproc-*.whl"))) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


def autoproc(installed, folder, *words):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "autoproc", *words],
        cwd=folder,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wheel_holds_what_runs_and_nothing_else(installed):
    names = {path.name for path in (installed / "autoproc" / "installed").iterdir()}
    assert names == {"Snakefile", "environment.yml", "config", "profiles", "report", "rules",
                     "scripts"}  # fmt: skip
    assert not [path for path in installed.rglob("*") if path.suffix in (".pyc", ".nbi", ".nbc")]
    (metadata,) = installed.glob("autoproc-*.dist-info/METADATA")
    text = metadata.read_text()
    assert f"Version: {__version__}" in text
    for package in ("snakemake", "ccdproc", "astroscrappy", "astroquery"):
        assert f"Requires-Dist: {package}" in text


def test_installed_command_reduces_with_its_own_workflow(installed, fresh):
    said = autoproc(installed, fresh.path, "raw", "--stop", "prepare", "--refcat", "none")
    assert "prepare" in said and "failed" not in said
    made = sorted((fresh.path / "imredux").glob("p2*.fits"))
    assert len(made) == 6
    assert f"autoproc {__version__}".encode() in made[0].read_bytes()
    shown = autoproc(installed, fresh.path, "raw", "--show")
    assert str(installed / "autoproc" / "installed" / "Snakefile") in shown
