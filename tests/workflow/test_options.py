"""The options of the original autoproc, in the workflow."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
from astropy.io import fits
from astropy.table import Table
from test_dag import science
from workbench import (
    FILTERS,
    TARGET,
    TIME_LIMIT,
    WHOLE,
    Run,
    autoproc_argv,
    autoproc_environment,
    run,
    slow_but,
)

STEPS = ("prepare", "flatten", "makesky", "skysub", "crclean", "astrometry", "stack")
BELONGS = {"bias": "prepare", "flat": "flatten", "refcat": "astrometry", "solve": "astrometry",
           "tables": "stack", "lightcurve": "stack"}  # fmt: skip


def autoproc(place, *words, cores=2):
    """Run the console command in a place."""
    argv = autoproc_argv("--datadir", "./raw/", "--imdir", "./imredux/", *words, cores=cores)
    if "--config" not in words:
        argv += ["--config", "refcat=reference.ecsv"]
    return run(argv, place.path, env=autoproc_environment())


def dry(place, *words, **config):
    """Return the jobs that the command would do, by rule."""
    done = autoproc(place, *words, "--config", "refcat=reference.ecsv", "--", "--dry-run")
    assert done.code == 0, done.out
    return done.jobs


def of_steps(*steps):
    """Return the jobs of some steps of the whole night."""
    return {rule: n for rule, n in WHOLE.items() if BELONGS.get(rule, rule) in steps}


# ---------------------------------------------------------------------------- which steps


def test_all(fresh):
    assert dry(fresh) == WHOLE


@pytest.mark.parametrize("stop", slow_but(["prepare", "makesky", "astrometry"], "makesky"))
def test_stop(fresh, stop):
    # The skies are a branch of their own: nothing else ends where they do.
    assert dry(fresh, "--stop", stop) == of_steps(*STEPS[: STEPS.index(stop) + 1])


def test_start_takes_what_is_on_disk(reduced):
    for pattern in ("coadd*", "*zsfp2*", "p2*"):  # the last are needed by nothing any more
        for path in reduced.products.glob(pattern):
            path.unlink()
    expected = of_steps("crclean", "astrometry", "stack") | {"night": 1}
    del expected["refcat"]  # that is there
    assert dry(reduced, "--start", "crclean") == expected


@pytest.mark.parametrize("option", slow_but(["--only", "--step"], "--step"))
def test_only_does_nothing_where_all_is_there(reduced, option):
    assert dry(reduced, option, "skysub") == {}


@pytest.mark.parametrize("step", slow_but(STEPS, "astrometry", "stack"))
def test_only_does_one_step(reduced, step):
    expected = of_steps(step)
    expected.pop("refcat", None)
    if step == "stack":
        expected["night"] = 1  # the page follows
    assert dry(reduced, "--only", step, "--redo") == expected


def test_start_and_stop(reduced):
    assert dry(reduced, "--start", "flatten", "--stop", "skysub", "--redo") == of_steps(
        "flatten", "makesky", "skysub"
    )


def test_start_without_its_files_says_what_to_do(fresh):
    done = autoproc(fresh, "--start", "flatten")
    assert done.code != 0
    assert "Traceback" not in done.out
    assert "bias-C0.fits" in done.out
    assert "'flatten' takes what 'prepare' makes from disk" in done.out


def test_redo_does_all_again(reduced):
    expected = dict(WHOLE)
    del expected["refcat"]
    assert dry(reduced, "--redo") == expected


def test_unknown_step(fresh):
    done = autoproc(fresh, "--stop", "sky")
    assert done.code == 2
    assert done.out.count("\n") == 1
    assert ", ".join(STEPS) in done.out


# ---------------------------------------------------------------------------- how


ODD = "put;$(touch escaped)' é"


def test_least_of_everything(raw_night, tmp_path):
    """Without cosmic rays, master sky, reference, intermediate files and words; in odd places."""
    place = raw_night.copy(tmp_path / f'night "{ODD}')
    place.raw.rename(place.path / f"in{ODD}")
    words = ("--datadir", f"./in{ODD}/", "--imdir", f"./out{ODD}/", "--nocrclean", "--nomastersky",
             "--rmifiles", "--quiet", "--config", "refcat=none")  # fmt: skip
    done = autoproc(place, *words)
    assert done.code == 0, done.out
    assert "stack" not in done.out
    products = place.path / f"out{ODD}"
    names = {path.name for path in products.glob("*.fits")}
    kept = {"bias-C0.fits", *(f"flat_{band}.fits" for band in FILTERS)}
    kept |= {f"coadd{TARGET}.{band}{end}" for band in FILTERS
             for end in (".cat.fits", ".fits", ".weight.fits")}  # fmt: skip
    assert names >= kept
    assert len(names - kept) == 6
    assert all(name.startswith("asfp2") for name in names - kept)
    for band in FILTERS:
        header = fits.getheader(products / f"coadd{TARGET}.{band}.fits")
        assert header["ASTRCAT"] == "NONE"
        assert header["NSTACK"] == 3
    assert autoproc(place, *words, "--", "--dry-run").did_nothing
    assert not list(tmp_path.rglob("escaped"))


def test_rmifiles_on_a_finished_night_does_nothing(reduced):
    assert dry(reduced, "--rmifiles") == {}


def test_nocrclean_leaves_that_step_out(reduced):
    expected = of_steps("astrometry", "stack") | {"night": 1}
    del expected["refcat"]
    assert dry(reduced, "--nocrclean") == expected


def test_nomastersky_takes_the_sky_of_each_frame(reduced):
    expected = of_steps("skysub", "crclean", "astrometry", "stack") | {"night": 1}
    del expected["refcat"]
    assert dry(reduced, "--nomastersky") == expected


def test_customcat_serves_its_filters_only(reduced):
    bands = "u g r i z y B V R I J H K".split()
    table = Table.read(reduced.path / "reference.ecsv")
    lines = ["ra dec " + " ".join(bands) + " errors mode"]
    for star in table:
        magnitudes = [star[band] + 1.0 for band in bands]
        errors = [star[f"{band}_err"] for band in bands]
        lines.append(" ".join(f"{x:.7f}" for x in (star["ra"], star["dec"], *magnitudes, *errors)))
        lines[-1] += " 0"
    (reduced.path / "stars.txt").write_text("\n".join(lines) + "\n")
    coadds = {band: reduced.products / f"coadd{TARGET}.{band}.fits" for band in FILTERS}
    before = {band: fits.getheader(path) for band, path in coadds.items()}
    done = autoproc(reduced, "--customcat", "stars.txt", "--customcatfilt", "r")
    assert done.code == 0, done.out
    after = {band: fits.getheader(path) for band, path in coadds.items()}
    for band, shift in (("SDSS-R", 1.0), ("SDSS-I", 0.0)):
        change = after[band]["ABSZPT"] - before[band]["ABSZPT"]
        # The same stars with the same errors, but for the 1e-7 of the text.
        assert change == pytest.approx(shift, abs=0.005)
    assert after["SDSS-R"]["ABSZPCAT"] == "stars.txt"
    assert after["SDSS-I"]["ABSZPCAT"] == before["SDSS-I"]["ABSZPCAT"]


def test_function_of_old(reduced):
    """As it was called: into another directory, and once more with `redo`."""
    call = """
from autoproc import autoproc, AutoprocError
known = {"options": ["--dry-run"], "cores": 2, "refcat": "reference.ecsv"}
autoproc(datadir='./raw/', imdir='./reduced/', redo=1, **known)
print("=== in imredux", flush=True)
autoproc(datadir='./raw/', imdir='./imredux/', redo=1, **known)
try:
    autoproc(only='sky')
except AutoprocError as error:
    print(error)
"""
    argv = [sys.executable, "-P", "-c", call]
    done = run(argv, reduced.path, env=autoproc_environment())
    assert done.code == 0, done.out
    fresh, _, again = done.out.partition("=== in imredux")
    assert Run(0, fresh).jobs == WHOLE
    assert Run(0, again).jobs == {rule: n for rule, n in WHOLE.items() if rule != "refcat"}
    assert ", ".join(STEPS) in again


def test_par_file_of_the_working_directory(fresh):
    (fresh.path / "pipeautoproc.par").write_text("datadir: ./raw/\nimworkingdir: ./out/\n")
    argv = autoproc_argv("--config", "refcat=none", "--", "--dry-run")
    done = run(argv, fresh.path, env=autoproc_environment())
    assert done.code == 0, done.out
    assert "datadir is taken from it" in done.out
    assert done.jobs == WHOLE
    assert (fresh.path / "out" / "frames.ecsv").exists()


# ---------------------------------------------------------------------------- a live night


def wait_until(condition, child, limit=TIME_LIMIT / 2):
    """Wait until something is the case while a process runs."""
    end = time.monotonic() + limit
    while not condition():
        assert child.poll() is None, child.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.3)


def watch(place):
    """Begin to watch the raw frames of a place, a look each second."""
    argv = autoproc_argv("--datadir", "raw", "--config", "refcat=reference.ecsv", "--watch", "1")
    return subprocess.Popen(
        [str(word) for word in argv],
        cwd=place.path,
        env=autoproc_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(child, how):
    """Stop a watch and return what it said."""
    child.send_signal(how)
    said, _ = child.communicate(timeout=TIME_LIMIT / 4)
    assert child.returncode == 0, said
    assert "Traceback" not in said
    assert "stopped" in said
    return said


def test_watch_takes_what_arrives(reduced):
    """A night goes on: one frame comes piece by piece; the command is stopped and begun again."""
    coadd = reduced.products / f"coadd{TARGET}.SDSS-R.fits"
    other = reduced.products / f"coadd{TARGET}.SDSS-I.fits"
    table, page = reduced.products / "frames.ecsv", reduced.products / "night.html"
    part = reduced.path / "arriving"
    shutil.copy(science(reduced, "SDSS-R")[-1], part)
    with fits.open(part, mode="update") as hdus:
        hdus[0].header["DATE-OBS"] = "2022-01-28T05:30:00"
    content = part.read_bytes()
    new = reduced.raw / "20220128T053000C0o.fits"
    untouched = other.stat().st_mtime_ns

    with watch(reduced) as child:
        try:
            new.write_bytes(content[: len(content) // 2])
            wait_until(lambda: "TRUNCATED" in table.read_text(), child)
        finally:
            end(child, signal.SIGTERM)
    with open(new, "ab") as file:
        file.write(content[len(content) // 2 :])

    with watch(reduced) as child:
        try:
            wait_until(lambda: coadd.exists() and fits.getval(coadd, "NSTACK") == 4, child)
            wait_until(lambda: "TRUNCATED" not in table.read_text(), child)
            wait_until(lambda: page.exists() and new.stem in page.read_text(), child)
        finally:
            end(child, signal.SIGINT)
    assert "TRUNCATED" not in page.read_text()
    # What the frame has no part in is not done again.
    assert other.stat().st_mtime_ns == untouched
