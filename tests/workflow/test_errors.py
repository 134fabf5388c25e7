"""A run that cannot be: one sentence that says what to do, no traceback, exit status not 0."""

import re
import shutil

import pytest
from astropy.io import fits


def check(done, *words):
    """Assert that a command was refused in one sentence that holds `words`; return it."""
    assert done.code not in (0, None), done.out
    assert "Traceback" not in done.out
    lines = [line for line in done.out.splitlines() if line.strip()]
    # Before it, Snakemake names its profile and configuration file, and remarks tell of sections
    # of the instrument file that such small frames have not.
    before = r"Using workflow specific|Config file|autoproc: instrument \w+: "
    said = [line for line in lines if not re.match(before, line)]
    assert len(said) == 1, done.out
    assert said[0].startswith("autoproc: ")
    for word in words:
        assert word in said[0]
    return said[0]


def test_missing_datadir(fresh):
    check(fresh.snakemake(datadir="nowhere"), "datadir", "nowhere")
    assert not (fresh.path / "nowhere").exists()


def test_datadir_that_is_a_file(fresh):
    check(fresh.snakemake(datadir="reference.ecsv"), "datadir", "reference.ecsv")


def test_empty_datadir(fresh):
    (fresh.path / "empty").mkdir()
    check(fresh.snakemake(datadir="empty"), "datadir", "empty", ".fits")


def test_no_science_frame(fresh):
    for path in fresh.raw.glob("*.fits"):
        if fits.getheader(path)["OBSTYPE"].lower() == "object":
            path.unlink()
    check(fresh.snakemake(), "science", "frames.ecsv")
    assert (fresh.products / "frames.ecsv").is_file()


def test_nothing_but_rubbish(fresh):
    shutil.rmtree(fresh.raw)
    fresh.raw.mkdir()
    (fresh.raw / "20220128T045424C0o.fits").write_text("no such thing")
    check(fresh.snakemake(), "science", "frames.ecsv")
    assert "NOT_FITS" in (fresh.products / "frames.ecsv").read_text()


@pytest.mark.parametrize("name, words", [("lmo", "lmi"), ("hubble", "ratir")])
def test_unknown_instrument(fresh, name, words):
    check(fresh.snakemake(instrument=name), name, words)


def test_missing_instrument_file(fresh):
    check(fresh.snakemake(instrument="./my.yaml"), "instrument", "my.yaml")


def test_unknown_key(fresh):
    check(fresh.snakemake(nocrclaen=1), "nocrclaen", "nocrclean")


def test_unknown_key_of_a_section(fresh):
    check(fresh.snakemake(crclean="{sigmas: 3}"), "crclean.sigmas", "sigma")


def test_options_of_the_old_command(fresh):
    check(fresh.snakemake(redo=1), "redo", "--forcerun")


@pytest.mark.parametrize(
    "key, value", [("nocrclean", "maybe"), ("crclean", "{sigma: much}"), ("flat", "{amin: 0.9}")]
)
def test_wrong_value(fresh, key, value):
    check(fresh.snakemake(**{key: value}), key, "write")


def test_missing_masters(fresh):
    check(fresh.snakemake(masters="nowhere"), "masters", "nowhere")


def test_missing_reference_table(fresh):
    check(fresh.snakemake(refcat="nowhere.ecsv"), "refcat", "nowhere.ecsv")


def test_missing_custom_catalogue(fresh):
    check(fresh.snakemake(customcat="nowhere.txt", customcatfilt="[r]"), "customcat", "nowhere.txt")


def test_imdir_that_is_a_file(fresh):
    (fresh.path / "taken").write_text("")
    check(fresh.snakemake(imdir="taken"), "imdir", "taken")


def test_imdir_that_is_the_raw_directory(fresh):
    before = sorted(fresh.raw.iterdir())
    check(fresh.snakemake(imdir="raw"), "imdir", "datadir")
    assert sorted(fresh.raw.iterdir()) == before


def test_missing_exclude_list_that_was_asked_for(fresh):
    check(fresh.snakemake(exclude="nowhere.txt"), "exclude", "nowhere.txt")


def test_all_faults_of_an_own_instrument_file(fresh):
    """Given by any path; each fault in a line with file, line and key."""
    own = fresh.path / "elsewhere" / "my.yaml"
    own.parent.mkdir()
    own.write_text("extends: lmi\ncameras:\n  C0: {gian: 2, rdnoise: 7 e}\n")
    done = fresh.snakemake(instrument="elsewhere/my.yaml")
    assert done.code == 2 and "Traceback" not in done.out
    assert "autoproc: elsewhere/my.yaml has 2 faults:" in done.out
    assert "elsewhere/my.yaml:3: cameras.C0.gian: is not known, did you mean 'gain'?" in done.out
    assert "elsewhere/my.yaml:3: cameras.C0.rdnoise: '7 e' is a number with a unit" in done.out
