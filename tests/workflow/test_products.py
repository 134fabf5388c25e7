"""Products as other programs see them: the FITS verifier of HEASARC, and STIL of TOPCAT."""

import re
import shutil
import subprocess

import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS

from lib.report.tableexports import read_product, write_votable


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@needs("fitsverify")
def test_fitsverify_finds_nothing(reduced_night):
    files = sorted(str(path) for path in reduced_night.path.joinpath("imredux").glob("*.fits"))
    assert len(files) > 30
    found = subprocess.run(["fitsverify", "-q", *files], capture_output=True, text=True)
    bad = [line for line in found.stdout.splitlines() if not line.startswith("verification OK")]
    assert bad == [] and len(found.stdout.splitlines()) == len(files)


@needs("stilts")
def test_source_table_tells_stil_what_its_columns_are(reduced_night):
    table = min(reduced_night.path.joinpath("imredux").glob("*.cat.fits"))
    said = subprocess.run(
        ["stilts", "tpipe", f"in={table}#1", "cmd=meta name units ucd description", "ofmt=csv"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = [line.split(",", 3) for line in said.splitlines()[1:]]
    assert len(rows) > 40
    assert [name for name, _, ucd, words in rows if not (ucd and words)] == []
    units = {name: unit for name, unit, _, _ in rows}
    assert units["RA"] == "deg" and units["FLUX_AUTO"] == "ct" and units["MAG_AUTO"] == "mag"
    without = {name for name, unit in units.items() if not unit}
    assert without <= {"NUMBER", "SNR", "ELLIPTICITY", "SIZE_RATIO", "STAR", "FLAGS", "ZP_STAR",
                       "NFRAMES", "CHI2_PSF"}  # fmt: skip


@needs("stilts")
def test_votlint_finds_nothing_in_the_tables(reduced_night, tmp_path):
    imdir = reduced_night.path / "imredux"
    tables = [min(imdir.glob("coadd*.cat.fits")), *sorted(imdir.glob("*.lightcurve.ecsv"))[:1]]
    tables += [one for one in sorted(imdir.glob("[!f]*.ecsv")) if "." not in one.stem][:1]
    assert len(tables) == 3
    for path in tables:
        write_votable(tmp_path / "a.vot", read_product(path), path.name)
        found = subprocess.run(
            ["stilts", "votlint", str(tmp_path / "a.vot")], capture_output=True, text=True
        )
        assert (found.returncode, found.stdout + found.stderr) == (0, ""), path.name


def test_coadd_tells_who_made_what_when(reduced_night):
    path = min(reduced_night.path.joinpath("imredux").glob("coadd*[!t].fits"))
    header = fits.getheader(path)
    raw = fits.getheader(min(reduced_night.raw.glob("2*.fits")))
    for key in ("TELESCOP", "INSTRUME"):
        assert header[key] == raw[key]
    assert header["INSTFILE"] == "lmi"
    assert re.fullmatch(r"autoproc \d+\.\d+\.\d+\S*", header["CREATOR"])
    assert header["TIMESYS"] == "UTC" and re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]+", header["DATE"])
    assert header["MAGZERO"] == header["ABSZPT"]
    assert header["MJD-BEG"] < header["MJD-AVG"] < header["MJD-END"]
    image = CCDData.read(path)
    assert image.unit == "electron" and WCS(header).has_celestial
    table = Table.read(path.with_suffix(".cat.fits"), hdu="SOURCES")
    assert str(table["FLUX_POINT"].unit) == "ct"
