"""Nothing of the working directory is taken as configuration, or run, unless it is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoproc import command
from lib.engine.paths import DEFAULT_EXCLUDE, INSTALLATION, check_places, unasked_exclude

PLACES = {
    "datadir": "raw", "imdir": "red", "masters": "", "customcat": "", "refcat": "none",
    "exclude": DEFAULT_EXCLUDE, "instrument": "auto",
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_libraries_read_no_configuration_of_the_working_directory(here):
    (here / "matplotlibrc").write_text("figure.dpi: 33\ntext.usetex: True\n")
    (here / ".numba_config.yaml").write_text("disable_jit: 1\nopt: 0\n")
    (here / "sitecustomize.py").write_text("raise SystemExit('run')")
    code = (
        "from lib.core.compiled import compiled\n"
        "from lib.core.figures import new_figure\n"
        "@compiled('f8(f8)')\ndef twice(x):\n    return 2 * x\n"
        "assert twice.signatures\n"
        "assert twice(2.0) == 4.0\n"
        "new_figure((1, 1), (0, 0, 1, 1))\n"
        "import matplotlib, os\n"
        "assert matplotlib.rcParams['figure.dpi'] != 33\n"
        "assert not matplotlib.rcParams['text.usetex']\n"
        "print(os.getcwd())"
    )
    scripts = str(INSTALLATION / "scripts")
    env = os.environ | {"PYTHONPATH": scripts, "NUMBA_CACHE_DIR": str(here / "cache")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(here), done.stderr


def test_exclude_list_is_that_of_the_installation_or_the_one_named(here):
    config = check_places(PLACES)
    assert config["exclude"] == str(INSTALLATION / DEFAULT_EXCLUDE)
    assert unasked_exclude(config) == ""
    (here / "config").mkdir()
    (here / DEFAULT_EXCLUDE).write_text("*.fits all of them\n")
    config = check_places(PLACES)
    assert config["exclude"] == str(INSTALLATION / DEFAULT_EXCLUDE)
    assert f"exclude={here / DEFAULT_EXCLUDE}" in unasked_exclude(config)
    config = check_places(PLACES | {"exclude": str(here / DEFAULT_EXCLUDE)})
    assert config["exclude"] == str(here / DEFAULT_EXCLUDE)
    assert unasked_exclude(config) == ""


@pytest.mark.parametrize("inside", [True, False])
def test_par_file_says_where_it_leads(here, tmp_path_factory, capsys, inside):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (here / "link").symlink_to(here / "raw" if inside else elsewhere)
    (here / "pipeautoproc.par").write_text(
        "datadir: raw\nimworkingdir: link/red\nsnakefile: /x\noptions: --configfile x\nrefcat: x\n"
    )
    settings, redo = command.with_par_file({"datadir": None, "imdir": None}, False)
    assert settings == {"datadir": "raw", "imdir": "link/red"} and not redo
    said = capsys.readouterr().err.splitlines()
    assert sum("no longer needed" in line for line in said) == 3
    (line,) = (line for line in said if "imworkingdir" in line)
    assert ("written outside of this directory" in line) is not inside
    assert not any("outside" in line for line in said if "datadir" in line)


def test_workflow_is_that_of_the_installation_and_no_profile_is_taken(here):
    for name in ("default", "profiles", "Snakefile", "config"):
        (here / name).mkdir()
    words = command.command_line(command.STEPS, {})
    assert words[1] == "-P"
    path = Path(words[words.index("--snakefile") + 1])
    assert path.is_absolute() and path.is_relative_to(INSTALLATION)
    # The options of the installation's profile are written out instead.
    assert words[words.index("--workflow-profile") + 1] == "none"
    assert "--keep-going" in words and "--nolock" in words
