"""Places in which tests reduce a simulated night, and the commands that they run there."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import simulate

ROOT = Path(__file__).resolve().parents[2]
TEST_NIGHT = runpy.run_path(str(ROOT / ".test/make_night.py"))["NIGHT"]
TARGET = "GRB220128A"
FILTERS = ("SDSS-I", "SDSS-R")
WHOLE = {
    "bias": 1,
    "flat": 2,
    "prepare": 6,
    "flatten": 6,
    "makesky": 2,
    "skysub": 6,
    "crclean": 6,
    "refcat": 1,
    "solve": 2,
    "astrometry": 6,
    "stack": 2,
    "tables": 1,
    "lightcurve": 1,
    "night": 1,
}
"""Jobs of each rule; other rules are not counted."""


def slow_but(values, *kept):
    """Return the values of a parametrized test; but for those kept they are slow tests."""
    return [
        pytest.param(value, marks=() if value in kept else pytest.mark.slow) for value in values
    ]


TIME_LIMIT = 600  # s, of a whole run on a busy machine


@dataclass
class Run:
    """How a command ended."""

    code: int
    out: str

    @property
    def jobs(self):
        """Jobs of each rule of `WHOLE` in the table that a dry run begins with."""
        table = re.search(r"^job +count\n[- ]+\n(.*?)\n\n", self.out, re.M | re.S)
        lines = table.group(1).splitlines() if table else []
        found = {name: int(number) for name, number in (line.split() for line in lines)}
        return {rule: n for rule, n in found.items() if rule in WHOLE}

    @property
    def did_nothing(self):
        return self.code == 0 and "Nothing to be done" in self.out


def environment(**changes):
    """Return the environment of a command, without Snakemake settings of the user."""
    environ = {key: value for key, value in os.environ.items() if "SNAKEMAKE" not in key}
    return environ | changes


def run(argv, cwd, env=None, timeout=TIME_LIMIT, **options):
    """Run a command to its end and return what it said on both streams."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        **options,
    )
    return Run(done.returncode, done.stdout)


@dataclass
class Place:
    """A directory with raw/, imredux/ and .snakemake/: all that a night is."""

    path: Path

    @property
    def raw(self):
        return self.path / "raw"

    @property
    def products(self):
        return self.path / "imredux"

    def argv(self, *words, cores=2, **config):
        """Return the command line of a run here."""
        config = {"datadir": "raw", "imdir": "imredux", "refcat": "reference.ecsv"} | config
        settings = [f"{key}={value}" for key, value in config.items()]
        start = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
        return [*start, "--cores", cores, *words, "--config", *settings]

    def snakemake(self, *words, cores=2, env=None, timeout=TIME_LIMIT, **config):
        """Run Snakemake here."""
        return run(self.argv(*words, cores=cores, **config), self.path, env, timeout)

    def dry(self, *words, **config):
        """Return the jobs that a run would do, by rule."""
        done = self.snakemake("--dry-run", *words, **config)
        assert done.code == 0, done.out
        return done.jobs

    def copy(self, path, products=True):
        """Return a copy, with the times of the files; or of the raw frames alone."""
        left_out = () if products else ("imredux", ".snakemake")
        shutil.copytree(self.path, path, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
        return Place(path)

    def names(self, pattern="*"):
        """Return the names of the files of imredux itself, sorted."""
        return sorted(
            path.name
            for path in self.products.glob(pattern)
            if path.is_file() and path.name[0] != "."
        )


def simulated(path, **options):
    """Write raw frames and their reference table into `path`, which must be new.

    By default there are no stars fainter than r = 21: the field is no crowd.
    """
    night = simulate.Night(**TEST_NIGHT | options)
    simulate.simulate_night(path, night)
    return Place(path)


def autoproc_argv(*words, cores=2):
    """Return the command line of the console command."""
    code = "import sys; from autoproc import main; sys.exit(main())"
    return [sys.executable, "-P", "-c", code, "--cores", cores, *words]


def autoproc_environment(**changes):
    """Return an environment in which the command is found without being installed."""
    return environment(PYTHONPATH=str(ROOT / "src"), **changes)
