"""Whole tables as VOTable and Parquet: read back by other readers, with units and meanings."""

import io
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import Table

from lib.engine.config import ConfigError, check_config
from lib.engine.nightfiles import NightFiles
from lib.photometry.columnmeanings import describe_columns
from lib.report.tableexports import read_product, ucd_of, votable_bytes, write_parquet


def source_table(path):
    """Write a source table as the stack does, in FITS."""
    columns = [
        fits.Column("NUMBER", "J", array=[1, 2]), fits.Column("STAR", "L", array=[True, False]),
        fits.Column("RA", "D", unit="deg", array=[150.1, 150.2]),
        fits.Column("DEC", "D", unit="deg", array=[-20.0, -20.1]),
        fits.Column("POSERR", "E", unit="mas", array=[3.0, np.inf]),
        fits.Column("FLUX_POINT", "E", unit="ct", array=[1e4, 2e3]),
        fits.Column("MAG_POINT", "E", unit="mag", array=[18.0, np.nan]),
        fits.Column("MAGERR_APER1", "E", unit="mag", array=[0.01, np.nan]),
    ]  # fmt: skip
    table = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    describe_columns(table.header)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def joint_table(path):
    table = Table({
        "NUMBER": [1, 2], "RA": [150.1, 150.2], "DEC": [-20.0, -20.1], "TARGET": [True, False],
        "FLUX_SDSS-R": [2e4, 30.0], "MAG_SDSS-R": [18.0, np.nan], "DETECTED_SDSS-R": [True, False],
    })  # fmt: skip
    table["RA"].unit = table["DEC"].unit = "deg"
    table["FLUX_SDSS-R"].unit, table["MAG_SDSS-R"].unit = "electron", "mag"
    table["FLUX_SDSS-R"].description = "total flux of a point source"
    table.meta = {"filters": {"SDSS-R": {"ABSZPT": 25.0}}}
    table.write(path, format="ascii.ecsv")
    return path


@pytest.fixture(params=["sources", "joint"])
def table(request, tmp_path):
    if request.param == "sources":
        return read_product(source_table(tmp_path / "coaddT.r.cat.fits"))
    return read_product(joint_table(tmp_path / "T.ecsv"))


def same(one, other):
    for name in one.colnames:
        assert np.array_equal(
            np.asarray(one[name]), np.asarray(other[name]), equal_nan=one[name].dtype.kind == "f"
        ), name


def test_votable_has_values_units_and_meanings(table):
    content = votable_bytes(table, "a table")
    back = Table.read(io.BytesIO(content), format="votable")
    assert back.colnames == table.colnames
    for name in back.colnames:
        if back[name].dtype.kind == "f":
            back[name] = np.ma.filled(back[name], np.nan)
    same(table, back)
    fields = parse(io.BytesIO(content)).get_first_table().fields
    assert all(one.ucd for one in fields)
    assert str(back["RA"].unit) == "deg"
    flux = next(name for name in back.colnames if name.startswith("FLUX"))
    assert "electrons" in back[flux].description


@pytest.mark.skipif(shutil.which("stilts") is None, reason="stilts is not installed")
def test_votlint_finds_nothing(tmp_path):
    for read in (source_table(tmp_path / "coaddT.r.cat.fits"), joint_table(tmp_path / "T.ecsv")):
        (tmp_path / "a.vot").write_bytes(votable_bytes(read_product(read), "a table"))
        found = subprocess.run(
            ["stilts", "votlint", "ucd=true", "unit=true", str(tmp_path / "a.vot")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout + found.stderr == ""


def test_parquet_has_values_and_units(table, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    write_parquet(path, table, "a table")
    assert parquet.read_table(path).column_names == table.colnames
    back = Table.read(path, format="parquet")
    same(table, back)
    assert str(back["RA"].unit) == "deg" and back.meta["description"] == "a table"


def test_parquet_without_its_package_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr("lib.engine.config.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="-m pip install pyarrow', or write votable instead"):
        check_config({"export": ["parquet"]})
    assert check_config({"export": ["votable"]})["export"] == ["votable"]


def test_coadd_that_was_not_made_has_an_empty_table(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "coaddT.r.cat.fits")
    table = read_product(tmp_path / "coaddT.r.cat.fits")
    back = Table.read(io.BytesIO(votable_bytes(table, "a table")), format="votable")
    assert len(back) == 0 and back.colnames == ["NUMBER"]


def test_columns_of_filters_have_the_meaning_of_their_quantity():
    assert ucd_of("MAGERR_SDSS-R") == "stat.error;phot.mag"
    assert ucd_of("FLUX_AUTO") == "phot.flux" and ucd_of("OTHER") == ""


def test_names_of_what_is_exported():
    files = SimpleNamespace(config={"export": ["gcn", "votable", "parquet"]}, top="imredux")
    tables = ["T.ecsv", "T.lightcurve.ecsv"]
    names = NightFiles.exported(files, ["T.r"], tables)
    assert names == [
        "exports/coaddT.r.cat.vot", "exports/T.sources.vot",
        "exports/coaddT.r.cat.parquet", "exports/T.sources.parquet",
        "exports/T.lightcurve.parquet",
    ]  # fmt: skip
    asked = [
        NightFiles.exported_table(files, SimpleNamespace(night="n1/", product=name))
        for name in ("coaddT.r.cat", "T.sources", "T.lightcurve")
    ]
    assert asked == [
        "imredux/n1/coaddT.r.cat.fits", "imredux/n1/T.ecsv", "imredux/n1/T.lightcurve.ecsv"
    ]  # fmt: skip
