"""The ways to install (apt and pip, conda) give the same set."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import autoproc

ROOT = Path(__file__).resolve().parents[3]

CONDA_NAMES = {"snakemake": "snakemake-minimal", "matplotlib": "matplotlib-base"}
PROGRAMS = {"astromatic-source-extractor", "astromatic-scamp"}
"""Of a run; the tests compare stacks with SWarp's."""


def wanted(name):
    """Return the packages named in a .in file."""
    lines = (ROOT / name).read_text().splitlines()
    return {re.match(r"[\w.-]+", line)[0].lower() for line in lines if re.match(r"\w", line)}


def locked(name):
    """Return {package: version} of a lock file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))


def conda():
    """Return {package: version constraint} of environment.yml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pairs = (re.fullmatch(r"([\w-]+)(.*)", line).groups() for line in environment["dependencies"])
    return dict(pairs)


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "requirements-difference"])
def test_everything_wanted_is_locked(name):
    assert wanted(f"{name}.in") <= set(locked(f"{name}.lock"))


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-difference.lock"]
)
def test_lock_is_complete_and_tied_to_no_machine(name):
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=\S)", text)
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert pins
    assert all("==" in entry and "--hash=sha256:" in entry for entry in pins)
    assert "://" not in text
    assert not re.search(r"^(-i|--index|--extra-index|--find-links|-f)\b", text, re.MULTILINE)


def test_locks_agree_on_what_they_share():
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    shared = run.keys() & dev.keys()
    assert {name: run[name] for name in shared} == {name: dev[name] for name in shared}


def test_conda_has_the_locked_versions():
    lock = locked("requirements.lock")
    minor = {name: ".".join(lock[name].split(".")[:2]) for name in wanted("requirements.in")}
    expected = {CONDA_NAMES.get(name, name): f"={version}" for name, version in minor.items()}
    given = conda()
    assert (
        given.pop("python")
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert {given.pop(name)[:2] for name in PROGRAMS} == {">="}
    assert given == expected


def test_one_version_of_autoproc():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "autoproc.__version__"}
    version = autoproc.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_install_asks_apt_for_every_program():
    script = (ROOT / "tools" / "install.sh").read_text()
    asked = re.findall(r"missing\+=\(([\w-]+)\)", script)
    assert {f"astromatic-{name}" for name in asked} == PROGRAMS | {"astromatic-swarp"}


def test_container_has_every_program():
    lines = (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    asked = {word for verb, rest in steps if verb == "RUN" for word in rest.split()}
    assert {name.removeprefix("astromatic-") for name in PROGRAMS} | {"python3-venv"} <= asked
    assert ["RUN", "make env && chmod -R a+rX ."] in steps


def test_workflow_catalog_tells_how_to_run_it():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    keys = set(re.findall(r"(\w+)=<", usage["mandatory-flags"]["flags"]))
    assert keys == {"datadir", "imdir"}
    text = (ROOT / "config/README.md").read_text()
    assert all(f"`{key}`" in text for key in keys)


def test_one_image_for_all_jobs():
    """One name without blanks or braces, which Snakemake would take for wildcards."""
    lines = (ROOT / "Snakefile").read_text().splitlines()
    (line,) = (one for one in lines if one.startswith("container:"))
    assert line == 'container: os.environ.get("AUTOPROC_IMAGE", "autoproc.sif")'
    assert "autoproc.sif" in (ROOT / "Containerfile").read_text()


def test_hosted_ci_runs_what_anyone_runs():
    ci = (ROOT / ".ci/run").read_text()
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    (command,) = (step["run"] for step in jobs["test"]["steps"] if "run" in step)
    assert command == "make test"
    assert ci.splitlines()[-1] == f"exec {command}"


def test_hooks_before_a_commit_are_those_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    lint = makefile[makefile.index("\nlint:") : makefile.index("\nformat:")]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]:
        assert hook["entry"].removeprefix(".venv/bin/") in lint
