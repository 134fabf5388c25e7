"""Reference tables: what is read, what is refused and in which words."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from lib.core.bands import BANDS
from lib.reference.referencetable import (
    CatalogueError,
    blank_table,
    check_angles,
    cut_out,
    empty_reference,
    read_reference,
    read_written_reference,
    write_reference,
)


def small_table(**more):
    """Return the least a user may give: positions and one band."""
    return Table(
        {"ra": [150.0, 150.1, 150.2], "dec": [2.0, 2.1, 2.2], "r": [15.0, 16.0, 17.0]}
        | {"r_err": [0.01, 0.02, 0.03]}
        | more
    )


@pytest.mark.parametrize("ending", [".ecsv", ".fits", ".csv", ".fits.gz"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, ending):
    given = small_table(R=[14.8, 15.8, 16.8], R_err=[0.01, 0.01, 0.01])
    path = tmp_path / f"stars{ending}"
    kind = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}.get(ending, "fits")
    given.write(path, format=kind)
    table = read_reference(path)
    assert list(table["r"]) == [15.0, 16.0, 17.0]  # and not mixed with R
    assert list(table["R"]) == [14.8, 15.8, 16.8]
    assert list(table["ra"]) == [150.0, 150.1, 150.2]
    assert np.isnan(table["K"]).all() and np.isnan(table["pmra"]).all()
    assert set(BANDS) <= set(table.colnames)
    assert table.meta["source"] == path.name


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(3)
    table = blank_table(50)
    for name in table.colnames:
        table[name] = rng.uniform(1, 8, 50)
    table["epoch"] = 2022.5
    table["g"][:20] = np.nan
    table["g_err"][:20] = np.nan
    table["g_src"] = np.where(np.isnan(table["g"]), "", "GaiaXP")
    table["working"] = 1.0
    table.meta["source"] = "GaiaDR3"
    path = tmp_path / "new" / "field.ecsv"
    write_reference(path, table)
    again = read_reference(path)
    for name in ("ra", "dec", "r", "r_err", "g", "pmra", "epoch"):
        np.testing.assert_allclose(again[name], table[name], atol=6e-5, equal_nan=True)
    assert list(again["g_src"]) == list(table["g_src"])
    assert "working" not in again.colnames
    assert again.meta["source"] == "GaiaDR3" and len(again.meta["checksum"]) == 64
    assert list(path.parent.iterdir()) == [path]  # nothing left beside it


def test_fast_reader_reads_as_the_one_of_ecsv(tmp_path):
    rng = np.random.default_rng(8)
    table = blank_table(200)
    for name in table.colnames[:-4]:
        table[name] = rng.normal(0, 10.0 ** rng.integers(-3, 4), 200)
    table["g"][::3] = np.nan
    table["g_src"] = np.where(np.isnan(table["g"]), "", "Gaia XP, 'synthetic'")
    table["i_src"], table["z_src"] = "", '"#1'
    table.meta |= {"source": "GaiaDR3", "notes": ["a: b", "# c"]}
    for rows in (table, table[:1]):
        write_reference(tmp_path / "field.ecsv", rows)
        fast = read_written_reference(tmp_path / "field.ecsv")
        slow = Table.read(tmp_path / "field.ecsv", format="ascii.ecsv")
        assert fast.meta == slow.meta and fast.colnames == slow.colnames
        for name in slow.colnames:
            empty = np.nan if slow[name].dtype.kind == "f" else ""
            np.testing.assert_array_equal(fast[name], np.ma.filled(slow[name], empty), err_msg=name)
            assert fast[name].unit == slow[name].unit and not hasattr(fast[name], "mask")
    write_reference(tmp_path / "none.ecsv", empty_reference("refcat: none"))
    assert read_written_reference(tmp_path / "none.ecsv").meta["reason"] == "refcat: none"


def test_checksum_knows_the_numbers(tmp_path):
    sums = []
    for r in (15.0, 15.0, 15.1):
        table = blank_table(1)
        table["ra"], table["dec"], table["r"] = 1.0, 2.0, r
        write_reference(tmp_path / "t.ecsv", table)
        sums.append(table.meta["checksum"])
    assert sums[0] == sums[1] != sums[2]


def test_table_without_stars_tells_why(tmp_path):
    write_reference(tmp_path / "none.ecsv", empty_reference("refcat: none"))
    table = read_reference(tmp_path / "none.ecsv")
    assert len(table) == 0 and set(BANDS) <= set(table.colnames)
    assert table.meta["source"] == "NONE" and table.meta["reason"] == "refcat: none"


def test_masked_and_absurd_values_are_missing(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text(
        "ra,dec,r,r_err,name\n"
        "150.0,2.0,15.0,0.01,a\n"
        "150.1,2.1,,,b\n"
        "150.2,2.2,-99,0.01,c\n"
        "150.3,2.3,99.9,99.9,d\n"
        ",2.4,15,0.01,e\n"
    )
    table = read_reference(path)
    assert len(table) == 4
    assert np.isfinite(table["r"]).tolist() == [True, False, False, False]
    assert np.isfinite(table["r_err"]).tolist() == [True, False, False, False]


def test_stated_units_are_converted(tmp_path):
    table = small_table()
    table["ra"] = (np.array([150.0, 150.1, 150.2]) / 15) * u.hourangle
    table["dec"] = np.radians([2.0, 2.1, 2.2]) * u.rad
    table["ra_err"] = [0.05, 0.06, 0.07] * u.arcsec
    table["pmra"] = [1.0, 2.0, 3.0] * u.arcsec / u.yr
    table["r"].unit = u.mag
    table.write(tmp_path / "t.ecsv")
    read = read_reference(tmp_path / "t.ecsv")
    np.testing.assert_allclose(read["ra"], [150.0, 150.1, 150.2])
    np.testing.assert_allclose(read["dec"], [2.0, 2.1, 2.2])
    np.testing.assert_allclose(read["ra_err"], [50.0, 60.0, 70.0])
    np.testing.assert_allclose(read["pmra"], [1000.0, 2000.0, 3000.0])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("ra", "RAJ2000", None),
        ("dec", "DE_ICRS", None),
        ("r", "rmag", "rmag is r (AB)"),
        ("r", "r_psf", "r_psf is r (AB)"),
        ("r", "r mag", "r mag is r (AB)"),
        ("r_err", "e_r", None),
        ("r_err", "dr", None),
        ("r_err", "magerr_r", None),
    ],
)
def test_usual_names_are_understood_and_told(tmp_path, old, new, told):
    table = small_table()
    table.rename_column(old, new)
    table.write(tmp_path / "t.ecsv")
    read = read_reference(tmp_path / "t.ecsv")
    assert read["r"].tolist() == [15.0, 16.0, 17.0]
    assert read["r_err"].tolist() == [0.01, 0.02, 0.03]
    assert read["ra"].tolist() == [150.0, 150.1, 150.2]
    assert told is None or told in read.meta["assumed"]


def test_errors_that_are_not_given_are_assumed_and_told(tmp_path):
    table = small_table()
    table.remove_column("r_err")
    table.write(tmp_path / "t.ecsv")
    read = read_reference(tmp_path / "t.ecsv")
    assert (read["r_err"] == 0.05).all() and (read["ra_err"] == 50).all()
    assert any("r_err" in line for line in read.meta["assumed"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename_column("ra", "rectascension"), ["no column 'ra'", "degrees"]),
        (lambda t: t.remove_column("dec"), ["no column 'dec'"]),
        (
            lambda t: t.add_columns([t["r"], t["r"]], names=["gmag", "g_psf"]),
            ["gmag, g_psf", "each be 'g'", " ".join(BANDS)],
        ),
        (lambda t: t.replace_column("dec", [2.0, 2.1, 95.0]), ["dec is 95", "-90 to 90"]),
        (lambda t: t.replace_column("ra", [2.0, 2.1, 700.0]), ["ra is 700", "0 to 360"]),
        (lambda t: t.replace_column("ra", ["10:00:01", "1", "2"]), ["10:00:01", "decimal degrees"]),
        (lambda t: t.replace_column("ra", [np.nan] * 3), ["no row has both"]),
        (lambda t: t.add_column([51544.5] * 3, name="epoch"), ["51544.5", "decimal year"]),
    ],
)
def test_a_wrong_table_is_refused_with_what_to_write(tmp_path, change, words):
    table = small_table()
    change(table)
    table.write(tmp_path / "t.ecsv")
    with pytest.raises(CatalogueError) as caught:
        read_reference(tmp_path / "t.ecsv")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("column", "unit", "words"),
    [("ra", u.m, "must be in deg"), ("pmra", u.km / u.s, "mas / yr"), ("r", u.Jy, "magnitudes")],
)
def test_a_wrong_unit_is_named(tmp_path, column, unit, words):
    table = small_table(pmra=[1.0, 1.0, 1.0])
    table[column].unit = unit
    table.write(tmp_path / "t.ecsv")
    with pytest.raises(CatalogueError, match=words):
        read_reference(tmp_path / "t.ecsv")


@pytest.mark.parametrize("name", ["BPmag", "RPmag", "Gmag", "U", "id", "psf", "ra_error", "mode"])
def test_other_columns_are_left_alone(tmp_path, name):
    small_table(**{name: [1.0, 2.0, 3.0]}).write(tmp_path / "t.ecsv")
    assert name not in read_reference(tmp_path / "t.ecsv").colnames


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("1 2 3\n")
    (tmp_path / "t.fits").write_bytes(b"SIMPLE  = nonsense")
    (tmp_path / "t.ecsv").write_text("no header\n1,2\n")
    with pytest.raises(CatalogueError, match=r"\.ecsv, \.fits or \.csv"):
        read_reference(tmp_path / "t.txt")
    for name in ("t.fits", "t.ecsv"):
        with pytest.raises(CatalogueError, match="cannot be read"):
            read_reference(tmp_path / name)
    with pytest.raises(CatalogueError, match="there is no reference table"):
        read_reference(tmp_path / "absent.ecsv")


@pytest.mark.parametrize(("factor", "word"), [((1 / 15, 1), "hours"), ((np.pi / 180,) * 2, "radi")])
def test_hours_and_radians_are_told_by_the_field(factor, word):
    ra, dec = np.array([150.0, 150.1]), np.array([2.0, 2.1])
    table = Table({"ra": ra * factor[0], "dec": dec * factor[1]})
    with pytest.raises(CatalogueError, match=word):
        check_angles(table, "t.csv", 150.05, 2.05)


def test_degrees_are_not_taken_for_hours():
    check_angles(Table({"ra": [10.0, 10.1], "dec": [2.0, 2.1]}), "t.csv", 10.0, 2.0)
    check_angles(Table({"ra": [150.0, 150.1], "dec": [2.0, 2.1]}), "t.csv", 150.0, 2.0)
    # a table of quite another place is no matter of units
    check_angles(Table({"ra": [10.0, 10.1], "dec": [50.0, 50.1]}), "t.csv", 300.0, 2.0)


def test_cut_out_across_ra_zero_and_at_the_pole():
    table = Table({"ra": [359.95, 0.05, 1.0, 180.0], "dec": [0.0, 0.0, 0.0, 0.0]})
    assert list(cut_out(table, 0.0, 0.0, 0.1)["ra"]) == [359.95, 0.05]
    table["dec"] = 89.99
    assert len(cut_out(table, 77.0, 89.99, 0.1)) == 4
