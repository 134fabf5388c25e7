"""What is done, and what is not done again."""

import re
import shutil

import pytest
from astropy.io import fits
from astropy.table import Table
from workbench import FILTERS, TARGET, WHOLE, slow_but

LAST = ("tables", "lightcurve", "night")


def science(place, band):
    """Return the names of the raw science frames of a filter."""
    found = []
    for path in sorted(place.raw.glob("*.fits")):
        header = fits.getheader(path)
        if header["OBSTYPE"].lower() == "object" and band in (header["FILTER1"], header["FILTER2"]):
            found.append(path)
    return found


def add_exposure(place, band):
    """Add a science frame: a copy of the last of a filter, taken later."""
    path = science(place, band)[-1]
    new = path.with_name("20220128T053000C0o.fits")
    shutil.copy(path, new)
    with fits.open(new, mode="update") as hdus:
        hdus[0].header["DATE-OBS"] = "2022-01-28T05:30:00"
        hdus[0].data[5, 5] += 1
    return new


def test_dry_run_shows_the_whole_dag(fresh):
    assert fresh.dry() == WHOLE
    assert fresh.names() == ["frames.ecsv"]


def test_whole_run_makes_what_the_contract_lists(reduced_night):
    coadds = [f"coadd{TARGET}.{band}{end}" for band in FILTERS
              for end in (".cat.fits", ".fits", ".weight.fits")]  # fmt: skip
    masters = ["bias-C0.fits", *(f"flat_{band}.fits" for band in FILTERS),
               *(f"sky-{band}.fits" for band in FILTERS)]  # fmt: skip
    names = set(reduced_night.names())
    assert set(coadds) | set(masters) | {"frames.ecsv", "night.html"} <= names
    frames = Table.read(reduced_night.products / "frames.ecsv")
    frames = [row["frame"] for row in frames if row["type"] == "object"]
    assert len(frames) == 6
    for prefix in ("p", "fp", "sfp", "zsfp", "azsfp"):
        assert {f"{prefix}{frame}.fits" for frame in frames} <= names
    for band in FILTERS:
        header = fits.getheader(reduced_night.products / f"coadd{TARGET}.{band}.fits")
        assert header["NSTACK"] == 3
        assert header["QCSTAT"] == "OK"
    assert "No frame was left out" in reduced_night.said.out
    for folder in ("logs", "qa", "refcat"):
        assert (reduced_night.products / folder).is_dir()


def test_nothing_is_written_beside_imdir(reduced_night):
    assert {path.name for path in reduced_night.path.iterdir()} == {
        ".snakemake", "imredux", "raw", "reference.ecsv", "truth"
    }  # fmt: skip


def test_no_frame_is_left_half_written(reduced_night):
    hidden = {path.name for path in reduced_night.products.rglob(".*")}
    records = {".nightlog.json", ".contents.jsonl", ".products.json", ".durations.json"}
    assert hidden <= records | {".run", ".snakemake"}


def test_each_log_ends_with_what_the_job_has_used(reduced_night):
    logs = sorted((reduced_night.products / "logs").rglob("*.log"))
    assert len(logs) == sum(WHOLE.values())
    for path in logs:
        last = path.read_text().splitlines()[-1]
        used = re.search(r"INFO peak memory (\d+) MB, CPU ([\d.]+) s$", last)
        assert used and int(used[1]) > 20, path


def test_second_run_does_nothing(reduced):
    def times():
        return {name: (reduced.products / name).stat().st_mtime_ns for name in reduced.names()}

    before = times()
    done = reduced.snakemake()
    assert done.did_nothing, done.out
    assert times() == before


def test_another_raw_frame_runs_only_what_it_needs(reduced):
    add_exposure(reduced, "SDSS-R")
    # Sky and solution are of all frames of the filter; the other filter has no part in it.
    assert reduced.dry() == {
        "prepare": 1,
        "flatten": 1,
        "makesky": 1,
        "skysub": 4,
        "crclean": 4,
        "solve": 1,
        "astrometry": 4,
        "stack": 1,
        "tables": 1,
        "lightcurve": 1,
        "night": 1,
    }


def test_another_raw_frame_is_stacked(reduced):
    other = reduced.products / f"coadd{TARGET}.SDSS-I.fits"
    before = other.stat().st_mtime_ns
    add_exposure(reduced, "SDSS-R")
    done = reduced.snakemake()
    assert done.code == 0, done.out
    assert fits.getval(reduced.products / f"coadd{TARGET}.SDSS-R.fits", "NSTACK") == 4
    assert other.stat().st_mtime_ns == before


def test_removed_raw_frame_leaves_its_stack(reduced):
    science(reduced, "SDSS-R")[0].unlink()
    jobs = reduced.dry()
    assert jobs["stack"] == 1
    assert "prepare" not in jobs


def test_changed_raw_frame_is_reduced_again(reduced):
    with fits.open(science(reduced, "SDSS-R")[0], mode="update") as hdus:
        hdus[0].data[5, 5] += 1
    assert reduced.dry()["prepare"] == 1


def test_excluded_frame_leaves_its_stack(reduced):
    frame = science(reduced, "SDSS-R")[0]
    (reduced.path / "exclude.txt").write_text(f"{frame.name} dome in the beam\n")
    jobs = reduced.dry(exclude="exclude.txt")
    assert jobs["stack"] == 1
    assert "prepare" not in jobs
    assert "dome in the beam" in (reduced.products / "frames.ecsv").read_text()


@pytest.mark.slow
def test_targets_in_parts_are_the_whole_night(fresh):
    for path in science(fresh, "SDSS-R"):
        fits.setval(path, "OBJNAME", value="OTHER")
    # Each target has one filter now, and its two tables are one half of all.
    every = fresh.dry()
    first = fresh.dry("--batch", "targets=1/2", "targets")
    assert first["stack"] == first["flat"] == 1 and first["prepare"] == 3
    assert first.keys() == every.keys() - {"night"}
    for part, said in ((1, "1 of 2 stacks in"), (2, "\n2 stacks in")):
        done = fresh.snakemake("--batch", f"targets={part}/2", "targets")
        assert done.code == 0 and said in done.out, done.out
        assert len(fresh.names("coadd*.weight.fits")) == part
    # The page is that of all.
    assert "OTHER.SDSS-R" in (fresh.products / "night.html").read_text()
    assert fresh.snakemake().did_nothing


@pytest.mark.parametrize("step", slow_but(["prepare", "crclean", "astrometry"], "crclean"))
def test_until_stops_after_a_step(fresh, step):
    jobs = fresh.dry("--until", step)
    order = ["prepare", "flatten", "makesky", "skysub", "crclean", "astrometry", "stack"]
    done = [rule for rule in order if rule in jobs]
    assert done == order[: order.index(step) + 1]


def test_forcerun_does_a_step_and_what_follows_again(reduced):
    jobs = reduced.dry("--forcerun", "skysub")
    assert jobs == {rule: WHOLE[rule] for rule in
                    ("skysub", "crclean", "solve", "astrometry", "stack", *LAST)}  # fmt: skip


def test_allowed_rules_take_what_is_on_disk(reduced):
    jobs = reduced.dry("--until", "flatten", "--forcerun", "flatten", "--allowed-rules",
                       "flatten", "makesky", "skysub", "crclean", "refcat", "solve",
                       "astrometry", "stack", *LAST, "all")  # fmt: skip
    assert jobs == {"flatten": 6}


def test_parameter_of_a_step_redoes_it_and_what_follows(reduced):
    jobs = reduced.dry(crclean="{sigma: 6}")
    assert jobs == {rule: WHOLE[rule] for rule in
                    ("crclean", "solve", "astrometry", "stack", *LAST)}  # fmt: skip


def test_report_of_snakemake_carries_the_products(reduced):
    done = reduced.snakemake("--report", "report.html")
    assert done.code == 0, done.out
    report = (reduced.path / "report.html").read_text()
    for band in FILTERS:
        assert f"Zero point of the coadd of {TARGET}.{band}" in report
        assert f"Positions of the stars of {TARGET}.{band}" in report
    assert "The page about the night" in report
