"""The same night on a real Slurm: the pixels are those of a local run; killed jobs come back."""

import re
import subprocess
import time

import pytest
import yaml
from astropy.io import fits
from slurm_cluster import Cluster, missing
from workbench import ROOT, TARGET, TIME_LIMIT, environment

from lib.core.pipeline import PIPELINE

COADD = f"coadd{TARGET}.SDSS-R.fits"


ELSEWHERE = {"refcat", "template", "night"}
"""Rules that run on the machine where Snakemake was started."""


def test_profile_knows_every_rule():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    memory = {word.partition(":")[0] for word in profile["set-resources"] if ":mem_mb=" in word}
    assert memory == rules - ELSEWHERE
    named = {word.partition("=")[0] for word in profile["groups"] + profile["set-threads"]}
    assert named <= memory
    assert set(PIPELINE.local_rules) - {"night"} == memory


def write_profile(path):
    """Write the profile as it is shipped, but for one job that gets too little memory at first."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    profile |= {
        "slurm-status-command": "squeue",  # sacct needs a database
        "slurm-init-seconds-before-status-checks": 1,
        "slurm-no-account": True,
        "latency-wait": 10,
        "jobs": 8,
    }
    limits = [word for word in profile["set-resources"] if not word.startswith("makesky:mem_mb")]
    profile["set-resources"] = [*limits, "makesky:mem_mb=60 if attempt == 1 else 1000 * attempt"]
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(profile))
    return path


@pytest.mark.skipif(bool(missing()), reason=missing() or "Slurm is there")
def test_same_pixels_and_killed_jobs_are_repeated(fresh, reduced_night, tmp_path):
    argv = fresh.argv("--workflow-profile", write_profile(tmp_path / "profile"),
                      f"imredux/{COADD}", cores=4)  # fmt: skip
    with Cluster() as cluster, open(tmp_path / "out", "w+") as out:
        run = subprocess.Popen(
            [str(word) for word in argv],
            cwd=fresh.path,
            env=environment(**cluster.environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        cancelled = None
        end = time.monotonic() + TIME_LIMIT
        while run.poll() is None and time.monotonic() < end:
            for number, state, _, comment in cluster.jobs():
                if cancelled is None and state == "RUNNING" and "solve" in comment:
                    cluster.call("scancel", number)
                    cancelled = number
            time.sleep(0.3)
        run.kill()
        run.wait()
        jobs, log = cluster.jobs(), cluster.log()
        out.seek(0)
        said = f"{out.read()}\n{jobs}"
    assert run.returncode == 0, said

    states = {number: state for number, state, _, _ in jobs}
    assert states.pop(cancelled) == "CANCELLED", said
    sky = [(number, memory) for number, _, memory, comment in jobs if "makesky" in comment]
    assert [memory for _, memory in sky] == ["60M", "2000M"], said
    assert f"StepId={sky[0][0]}.batch exceeded memory limit" in log
    assert states.pop(sky[0][0]) in ("FAILED", "OUT_OF_MEMORY"), said
    assert set(states.values()) == {"COMPLETED"}, said
    # bias and flat; raws; skies; positions: a job each, however many frames; makesky, solve, stack.
    assert len(states) == 7, said

    assert COADD in fresh.names()
    others = [
        name
        for name in fresh.names("*.fits")
        if pixels(fresh.products / name) != pixels(reduced_night.products / name)
    ]
    assert others == []


def pixels(path):
    """Return the bytes of all images and tables of a file."""
    with fits.open(path) as hdus:
        return [None if hdu.data is None else hdu.data.tobytes() for hdu in hdus]
