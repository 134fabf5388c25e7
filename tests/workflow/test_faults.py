"""Whatever happens to a run: the next one ends with the same products as if nothing had."""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from astropy.io import fits
from same import differences
from workbench import FILTERS, ROOT, TARGET, TIME_LIMIT, WHOLE, Place, environment, simulated


def begin(place, *words, cores=2, **options):
    """Start a run and return its process; it leads a session of its own."""
    log = open(place.path / "said.txt", "ab")
    with log:
        return subprocess.Popen(
            [str(word) for word in place.argv(*words, cores=cores)],
            cwd=place.path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **options,
        )


def jobs_of(run):
    """Return the process ids of all that a run has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == run.pid:
            continue
        try:
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after_name[3]) == run.pid and after_name[0] != "Z":
            found.append(int(entry.name))
    return found


def kill_all(run):
    """End a run and all that it started."""
    for pid in [run.pid, *jobs_of(run)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    run.wait(TIME_LIMIT)


def half_written(place):
    """Return the temporary files below imredux."""
    lasting = {
        ".nightlog.json", ".run", ".contents.jsonl", ".products.json", ".durations.json",
        ".snakemake",
    }  # fmt: skip
    return [path for path in place.products.rglob(".*") if path.name not in lasting]


def check_ends_well(place, reference, cores=2):
    """Assert that a plain run succeeds and gives the products of the reference."""
    done = place.snakemake(cores=cores)
    assert done.code == 0, done.out
    assert differences(place.products, reference.products) == []
    assert half_written(place) == []
    assert place.snakemake().did_nothing


# ---------------------------------------------------------------------------- killed


def kill_at_random(place, seed, times, longest):
    """Start a run and kill it, so many times; every other time its jobs live on."""
    moments = random.Random(seed)
    for number in range(times):
        run = begin(place)
        try:
            run.wait(moments.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            if number % 2:
                os.kill(run.pid, signal.SIGKILL)
                run.wait(TIME_LIMIT)
                continue
        kill_all(run)


def lose_what_was_not_on_disk(place, seed):
    """Empty half of what was written in the last half minute: products, notes and records alike."""
    lots = random.Random(seed)
    for path in sorted(place.products.rglob("*")):
        recent = path.is_file() and time.time() - path.stat().st_mtime < 30
        if recent and lots.random() < 0.5:
            path.write_bytes(b"")


def test_killed_run_goes_on_after_a_power_cut(fresh, reduced_night):
    kill_at_random(fresh, seed=1, times=3, longest=7.0)
    lose_what_was_not_on_disk(fresh, seed=1)
    # On one core and in another place, as the reference was not.
    check_ends_well(fresh, reduced_night, cores=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_run_killed_at_a_random_moment_goes_on(fresh, reduced_night, seed):
    kill_at_random(fresh, seed=100 + seed, times=1, longest=40.0)
    check_ends_well(fresh, reduced_night)


def kill_jobs(place, seed, times, pause):
    """Run, and kill some of what the run has started; return the exit code."""
    moments = random.Random(seed)
    run = begin(place)
    try:
        for _ in range(times):
            time.sleep(moments.uniform(0.5, pause))
            jobs = jobs_of(run)
            if run.poll() is None and jobs:
                try:
                    os.kill(moments.choice(jobs), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        return run.wait(TIME_LIMIT)
    finally:
        kill_all(run)


@pytest.mark.slow
def test_killed_jobs_are_done_by_the_next_run(fresh, reduced_night):
    kill_jobs(fresh, seed=2, times=6, pause=3.0)
    check_ends_well(fresh, reduced_night)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_jobs_killed_at_random_moments_are_done_again(fresh, reduced_night, seed):
    kill_jobs(fresh, seed=200 + seed, times=8, pause=5.0)
    check_ends_well(fresh, reduced_night)


# ---------------------------------------------------------------------------- the same again


@pytest.mark.slow
def test_one_core_in_another_place_gives_the_same(fresh, reduced_night, tmp_path):
    """Identical pixels, tables and headers, whatever the path and the number of cores."""
    fresh.path.rename(tmp_path / "quite another place")
    place = Place(tmp_path / "quite another place")
    done = place.snakemake(cores=1)
    assert done.code == 0, done.out
    assert differences(place.products, reduced_night.products) == []


@pytest.mark.slow
def test_near_infrared_night_gives_the_same_too(tmp_path):
    """Its sky is made in two passes, its detector has two filters and a distortion."""
    options = {"instrument": "ratir", "cameras": ("C3",), "exposures": 4, "stars": 30}
    one = simulated(tmp_path / "one", **options)
    other = one.copy(tmp_path / "quite" / "another place")
    for place, cores in ((one, 2), (other, 1)):
        done = place.snakemake(cores=cores)
        assert done.code == 0, done.out
    assert differences(one.products, other.products) == []


# ---------------------------------------------------------------------------- two at once


def test_two_runs_at_once_in_one_imdir(fresh, reduced_night):
    first, second = begin(fresh), begin(fresh)
    codes = {first.wait(TIME_LIMIT), second.wait(TIME_LIMIT)}
    said = (fresh.path / "said.txt").read_text()
    assert codes == {0, 2}, said
    assert said.count("another run is at work in imredux") == 1
    assert "Traceback" not in said
    assert differences(fresh.products, reduced_night.products) == []
    assert fresh.snakemake().did_nothing


# ---------------------------------------------------------------------------- rotten bytes


def flipped(content):
    return content[:-3000] + bytes([content[-3000] ^ 1]) + content[-2999:]


def nothing(content):
    return b""


DAMAGE = {
    "fp2*.fits": flipped,
    "sfp2*.fits": lambda content: content[: len(content) // 2],
    f"flat_{FILTERS[0]}.fits": nothing,
    f"coadd{TARGET}.*.fits": flipped,
    f"refcat/{TARGET}.ecsv": flipped,
    "qa/stack/*.json": lambda content: b"null",
    "qa/astrometry/*.json": lambda content: b"[" * 100_000,
    "qa/headers.json": lambda content: b'{"version": 2, "files": []}',
    "qa/frames/index.json": lambda content: b"[]",
    "frames.ecsv": lambda content: content.decode().encode("utf-16"),
    "night.html": nothing,
}


def test_damaged_products_and_notes_are_made_again(reduced, reduced_night):
    for pattern, damage in DAMAGE.items():
        path = sorted(reduced.products.glob(pattern))[0]
        path.write_bytes(damage(path.read_bytes()))
    looked = reduced.snakemake("--dry-run")
    assert looked.code == 0 and "fp20220128T" in looked.out, looked.out
    wanted = {"flat", "flatten", "skysub", "refcat", "solve", "stack", "night"}
    assert wanted <= looked.jobs.keys(), looked.out
    check_ends_well(reduced, reduced_night)


@pytest.mark.parametrize("content", [b"", "frame,raw\n1,2\n".encode("utf-16")])
def test_table_of_frames_is_mended_when_there_is_nothing_to_do(reduced, content):
    table = reduced.products / "frames.ecsv"
    good = table.read_bytes()
    table.write_bytes(content)
    assert reduced.snakemake().did_nothing
    assert table.read_bytes() == good


# ---------------------------------------------------------------------------- no space


STEPS = {
    "bias": "bias-C0.fits",
    "flat": "flat_SDSS-R.fits",
    "prepare": "p2*.fits",
    "flatten": "fp2*.fits",
    "makesky": "sky-*.fits",
    "skysub": "sfp2*.fits",
    "crclean": "zsfp2*.fits",
    "astrometry": "azsfp2*.fits",
    "stack": "coadd*.fits",
}


IN_CI = ("stack",)


@pytest.mark.parametrize("steps", [IN_CI, pytest.param(tuple(STEPS), marks=pytest.mark.slow)])
def test_disk_full_in_each_step(fresh, reduced_night, steps):
    """No file may grow beyond 400 kB: no frame can be written, but the notes of a run can."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))

    for step in steps:
        (fresh.path / "said.txt").unlink(missing_ok=True)
        run = begin(fresh, "--until", step, preexec_fn=limit)
        code = run.wait(TIME_LIMIT)
        said = (fresh.path / "said.txt").read_text()
        assert code != 0, (step, said)
        assert half_written(fresh) == [], step
        assert list(fresh.products.glob(STEPS[step])) == [], step
        done = fresh.snakemake("--until", step)
        assert done.code == 0, (step, done.out)
    check_ends_well(fresh, reduced_night)


# ---------------------------------------------------------------------------- broken programs

BROKEN = {
    "hangs": "sleep 1000",
    "crashes": "kill -SEGV $$",
    "fails": "echo 'no licence' >&2; exit 3",
    "does nothing": "exit 0",
    "writes half a file": "for f in *.ldac; do head -c 100 $f > ${f%.ldac}.head; done",
}


def one_in_ci(name):
    """Return all ways in which a program breaks; but for one they are slow tests."""
    return [pytest.param(how, marks=() if how == name else pytest.mark.slow) for how in BROKEN]


def fake(place, *names, body):
    """Put programs of these names first in the path of the environment that is returned."""
    directory = place.path / "fake"
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    return environment(PATH=f"{directory}:{os.environ['PATH']}")


def check_rule_fails_and_is_mended(place, reference, env, rule, section, products):
    """Assert that a rule with a broken program leaves nothing, and is done by the next run."""
    done = place.snakemake("--forcerun", rule, env=env, **{section: "{timeout: 4}"})
    assert done.code != 0
    assert f"{rule} failed" in done.out
    assert not list(place.products.glob(products))
    check_ends_well(place, reference)


@pytest.mark.parametrize("how", one_in_ci("hangs"))
def test_broken_scamp_loses_no_frame(reduced, how):
    env = fake(reduced, "scamp", body=BROKEN[how])
    done = reduced.snakemake("--forcerun", "solve", env=env, astrometry="{timeout: 4}")
    assert done.code == 0, done.out
    for band in FILTERS:
        header = fits.getheader(reduced.products / f"coadd{TARGET}.{band}.fits")
        assert header["NSTACK"] == 3
        assert header["ASTRCAT"] != "NONE"


@pytest.mark.slow
@pytest.mark.parametrize("how", one_in_ci("writes half a file"))
def test_broken_extractor_fails_and_the_next_run_mends_it(reduced, reduced_night, how):
    body = {"writes half a file": "printf 'SIMPLE  =' > stars.ldac"}.get(how, BROKEN[how])
    env = fake(reduced, "source-extractor", "sex", "sextractor", body=body)
    check_rule_fails_and_is_mended(
        reduced, reduced_night, env, "solve", "astrometry", "qa/astrometry/*.json"
    )


def test_missing_program_is_named(reduced):
    """A machine without source-extractor."""
    directory = reduced.path / "bin"
    directory.mkdir()
    for name in ("bash", "sh", "which"):
        (directory / name).symlink_to(shutil.which(name))
    (directory / "scamp").symlink_to(shutil.which("scamp"))
    done = reduced.snakemake("--forcerun", "solve", env=environment(PATH=str(directory)))
    assert done.code != 0
    assert "source-extractor is not installed" in done.out


# ---------------------------------------------------------------------------- another version


@pytest.fixture
def other_version(tmp_path):
    """A copy of the workflow, to be changed."""
    copy = tmp_path / "workflow"
    copy.mkdir()
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, copy)
    for name in ("rules", "scripts", "config", "profiles"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


class Elsewhere(Place):
    """A place reduced by the workflow in another directory."""

    workflow = ROOT

    def argv(self, *words, **options):
        argv = super().argv(*words, **options)
        return [self.workflow / "Snakefile" if word == ROOT / "Snakefile" else word
                for word in argv]  # fmt: skip


def test_newer_version_of_a_step_redoes_it_and_what_follows(reduced, other_version):
    place = Elsewhere(reduced.path)
    place.workflow = other_version
    assert place.dry() == {}
    rules = other_version / "rules" / "crclean.smk"
    text = rules.read_text()
    version = int(text.partition("version=")[2].partition(",")[0])
    rules.write_text(text.replace(f"version={version},", f"version={version + 1},"))
    again = ("crclean", "solve", "astrometry", "stack", "tables", "lightcurve", "night")
    expected = {rule: WHOLE[rule] for rule in again}
    assert place.dry() == expected
    # A user who knows better keeps what there is.
    touched = place.snakemake("--touch")
    assert touched.code == 0, touched.out
    assert place.dry() == {}
