"""Running the workflow as a user does, for the tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def reduce(directory, *arguments, cores=2, **config):
    """Run Snakemake in a directory of its own and return the finished process.

    Parameters
    ----------
    directory : path-like
        Working directory: Snakemake keeps its records there.
    *arguments : str
        More options of Snakemake.
    cores : int
    **config
        Configuration, as ``--config`` takes it.

    Returns
    -------
    subprocess.CompletedProcess
        With `stdout` and `stderr` as text.
    """
    settings = [f"{key}={value}" for key, value in config.items()]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            ROOT / "Snakefile",
            "--directory",
            directory,
            "--cores",
            str(cores),
            *arguments,
            "--config",
            *settings,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
