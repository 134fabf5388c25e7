"""Reference tables: what is read, what is refused and in which words, and the arithmetic."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from lib.core.sphere import match_positions, separation
from lib.reference.catalogues import (
    AB_MINUS_VEGA,
    BANDS,
    PS1_TO_REFERENCE,
    TRANSFORMATIONS,
    CatalogueError,
    blank_table,
    check_angles,
    cut_out,
    empty_reference,
    fill_by_transformation,
    join_photometry,
    move_positions,
    move_to_epoch,
    read_customcat,
    read_reference,
    tie_to_reference,
    transform,
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
        (lambda t: t.rename_column("ra", "RAJ2000"), ["no column 'ra'", "RAJ2000", "degrees"]),
        (lambda t: t.remove_column("dec"), ["no column 'dec'"]),
        (lambda t: t.rename_column("r", "rmag"), ["'rmag' to 'r'", " ".join(BANDS)]),
        (lambda t: t.rename_column("r", "r_psf"), ["'r_psf' to 'r'"]),
        (lambda t: t.rename_column("r", "Ks"), ["'Ks' to 'K'"]),
        (lambda t: t.rename_column("r_err", "e_r"), ["'e_r' to 'r_err'"]),
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


# --- custom catalogue ---


def customcat_line(ra, magnitudes, errors, mode=0):
    return " ".join(map(str, [ra, 2.0, *magnitudes, *errors, mode])) + "\n"


def test_customcat(tmp_path):
    path = tmp_path / "custom.txt"
    magnitudes = np.arange(13) + 10.5
    missing = [99.0, 0.0, -99.0, *magnitudes[3:]]
    path.write_text(
        "anything at all in the first line\n"
        + customcat_line(150.0, magnitudes, [0.01] * 13)
        + "\n"
        + customcat_line(150.1, missing, [0.02] * 13, mode=2)
    )
    table = read_customcat(path)
    assert [float(table[band][0]) for band in BANDS] == list(magnitudes)
    assert (table["K_err"] == [0.01, 0.02]).all()
    assert np.isnan([table[band][1] for band in "ugr"]).all()
    assert table["i"][1] == magnitudes[3]
    assert list(table["mode"]) == [0, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("150 2 15 16\n", "line 2 has 4 fields, not 29"),
        (customcat_line(150, [1] * 13, [1] * 13).replace(" 1 ", " x ", 1), "line 2"),
        ("", "no stars"),
        (customcat_line("10:00:24", [1] * 13, [1] * 13), "line 2: .*decimal degrees"),
        (customcat_line("10h00m24s", [1] * 13, [1] * 13), "line 2: .*decimal degrees"),
        (customcat_line("10 00 24 0 18", [1] * 13, [1] * 13), "33 fields.*decimal degrees"),
    ],
)
def test_wrong_customcat_names_the_line(tmp_path, text, words):
    (tmp_path / "c.txt").write_text("header\n" + text)
    with pytest.raises(CatalogueError, match=words):
        read_customcat(tmp_path / "c.txt")


# --- the sphere ---


def test_separation_agrees_with_astropy():
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, (2, 100)), rng.uniform(-90, 90, (2, 100))
    wanted = SkyCoord(ra[0], dec[0], unit="deg").separation(SkyCoord(ra[1], dec[1], unit="deg"))
    np.testing.assert_allclose(separation(ra[0], dec[0], ra[1], dec[1]), wanted.deg, rtol=1e-9)


def test_cut_out_across_ra_zero_and_at_the_pole():
    table = Table({"ra": [359.95, 0.05, 1.0, 180.0], "dec": [0.0, 0.0, 0.0, 0.0]})
    assert list(cut_out(table, 0.0, 0.0, 0.1)["ra"]) == [359.95, 0.05]
    table["dec"] = 89.99
    assert len(cut_out(table, 77.0, 89.99, 0.1)) == 4


@pytest.mark.parametrize("dec", [0.0, -60.0, 89.0])
def test_proper_motion_agrees_with_astropy(dec):
    star = SkyCoord(
        359.9999 * u.deg, dec * u.deg, pm_ra_cosdec=900 * u.mas / u.yr, pm_dec=-700 * u.mas / u.yr,
        distance=50 * u.pc, obstime=Time("J2016"),
    )  # fmt: skip
    wanted = star.apply_space_motion(new_obstime=Time("J2026.5"))
    ra, dec = move_positions([359.9999], [dec], [900.0], [-700.0], 10.5)
    away = separation(ra, dec, wanted.ra.deg, wanted.dec.deg)
    assert away[0] * 3.6e6 < 0.01  # mas


def test_errors_grow_with_the_years():
    table = blank_table(3)
    table["ra"], table["dec"], table["epoch"] = 150.0, 2.0, 2016.0
    table["ra_err"] = table["dec_err"] = 0.1
    table["pmra"] = table["pmdec"] = [10.0, np.nan, 10.0]
    table["pmra_err"] = table["pmdec_err"] = [0.5, np.nan, 0.5]
    table["epoch"][2] = np.nan
    moved = move_to_epoch(table, 2026.0)
    np.testing.assert_allclose(moved["ra_err"], [np.hypot(0.1, 5), np.hypot(0.1, 50), 0.1])
    assert moved["dec"][1] == pytest.approx(2.0, abs=1e-12)  # unknown motion: where it was
    assert moved["ra"][2] == pytest.approx(150.0, abs=1e-12)  # unknown epoch too
    assert moved["dec"][0] == pytest.approx(2.0 + 100 / 3.6e6, abs=1e-10)
    assert table["dec"][0] == 2.0  # the given table is not changed


def test_matches_are_mutual():
    ra1, ra2 = np.array([10.0, 10.0 + 0.3 / 3600, 10.1]), np.array([10.0 + 0.05 / 3600, 20.0])
    first, second = match_positions(ra1, [0, 0, 0], ra2, [0, 0], 1.0)
    assert (list(first), list(second)) == ([0], [0])
    first, second = match_positions(ra1, [0, 0, 0], [], [], 1.0)
    assert len(first) == len(second) == 0


# --- photometry ---


def two_catalogues(n=200, seed=2):
    """Return a reference of 2016 with proper motions, and the same stars seen in 2000."""
    rng = np.random.default_rng(seed)
    table, other = blank_table(n), blank_table(n)
    table["ra"], table["dec"] = rng.uniform(150, 150.3, n), rng.uniform(2, 2.3, n)
    table["pmra"], table["pmdec"] = rng.normal(0, 300, n), rng.normal(0, 300, n)
    table["epoch"], other["epoch"] = 2016.0, 2000.0
    other["ra"], other["dec"] = move_positions(
        table["ra"], table["dec"], table["pmra"], table["pmdec"], -16.0
    )
    other["r"], other["r_err"] = rng.uniform(14, 18, n), 0.02
    return table, other


def test_photometry_follows_proper_motion_and_keeps_what_is_there():
    table, other = two_catalogues()
    table["r"][:10], table["r_err"][:10] = 5.0, 0.001
    other["r_err"][10:20] = 0.5
    filled = join_photometry(table, other, "SDSS", radius=0.5)
    assert filled["r"] == 180
    assert (table["r"][:10] == 5.0).all() and np.isnan(table["r"][10:20]).all()
    np.testing.assert_allclose(table["r"][20:], other["r"][20:])
    assert (table["r_src"][20:] == "SDSS").all() and (table["r_src"][:20] == "").all()


def test_without_motion_the_fast_stars_would_be_lost():
    table, other = two_catalogues()
    table["pmra"] = table["pmdec"] = np.nan
    assert join_photometry(table, other, "SDSS", radius=0.5)["r"] < 20


# A star of solar colours in three systems. Sun: Willmer (2018, ApJS 236, 47), table 3.
SUN_AB = {"u": 6.39, "g": 5.11, "r": 4.65, "i": 4.53, "z": 4.50,
          "B": 5.31, "V": 4.80, "R": 4.60, "I": 4.51}  # fmt: skip
SUN_PS1 = {"g": 5.03, "r": 4.64, "i": 4.52, "z": 4.51, "y": 4.50}


def as_arrays(magnitudes, error=0.01):
    values = {band: np.array([magnitudes.get(band, np.nan)]) for band in BANDS}
    return values, {band: np.array([error]) for band in BANDS}


@pytest.mark.parametrize("relation", TRANSFORMATIONS, ids=lambda t: f"{t.band}<{t.base} {t.source}")
def test_relations_reproduce_the_sun(relation):
    values, errors = as_arrays(SUN_AB | {"y": SUN_PS1["y"]})
    result, error = relation.apply(values, errors)
    # the scatter of the relation and 0.05 mag of the Sun's own magnitudes and systems
    assert abs(result[0] - values[relation.band][0]) < 0.05 + 2 * relation.scatter
    assert error[0] >= relation.scatter


def test_panstarrs_relations_reproduce_the_sun():
    values, errors = as_arrays(SUN_PS1)
    result = transform(PS1_TO_REFERENCE, values, errors)
    assert set(result) == set("grizBVRI")
    for band, (value, _) in result.items():
        assert abs(value[0] - SUN_AB[band]) < 0.06, band


def test_error_of_a_relation_is_propagated():
    v_of_g = next(t for t in TRANSFORMATIONS if t.band == "V")
    rng = np.random.default_rng(4)
    n = 20000
    g, r = 16 + rng.normal(0, 0.02, n), 15.4 + rng.normal(0, 0.03, n)
    values, _ = v_of_g.apply({"g": g, "r": r}, {"g": 0.02, "r": 0.03})
    _, error = v_of_g.apply({"g": 16.0, "r": 15.4}, {"g": 0.02, "r": 0.03})
    assert error == pytest.approx(np.hypot(values.std(), v_of_g.scatter), rel=0.03)


def test_relations_stop_at_the_end_of_their_colours():
    values, errors = as_arrays({"g": 17.0, "r": 15.2, "i": 14.0})
    for relation in TRANSFORMATIONS:
        if relation.band in "BV" and relation.base == "g":
            assert np.isnan(relation.apply(values, errors)[0][0])


def test_bands_are_filled_from_measurements_only():
    table = blank_table(1)
    for band in "gri":
        table[band], table[f"{band}_err"] = SUN_AB[band], 0.01
    table["V"], table["V_err"] = 4.9, 0.02
    fill_by_transformation(table)
    assert table["V"][0] == 4.9  # measured: kept
    for band in "BRI":
        assert abs(table[band][0] - SUN_AB[band]) < 0.07
        assert "Lupton" in table[f"{band}_src"][0]
    assert np.isnan(table["z"][0])  # R and I were derived, and derived ones derive nothing
    assert np.isnan(table["u"][0]) and np.isnan(table["K"][0])


def test_vega_offsets_turn_the_suns_magnitudes_to_ab():
    sun_vega = {"B": 5.44, "V": 4.81, "R": 4.43, "I": 4.10}  # Willmer (2018), uncertain by 0.02
    for band, magnitude in sun_vega.items():
        assert magnitude + AB_MINUS_VEGA[band] == pytest.approx(SUN_AB[band], abs=0.02)


def test_survey_is_tied_by_the_stars_of_the_field():
    rng = np.random.default_rng(6)
    table, other = two_catalogues(300)
    colour = rng.uniform(0.2, 1.5, 300)
    other["g"], other["i"] = 17.0 + colour, 17.0
    other["g_err"] = other["i_err"] = 0.01
    truth = np.asarray(other["g"]) + 0.07 + 0.2 * colour
    table["g"] = np.where(np.arange(300) < 60, truth + rng.normal(0, 0.02, 300), np.nan)
    table["g"][:3] += 1.0  # variables, blends
    offset, slope, scatter, n = tie_to_reference(table, other, "g", "g", "i")
    assert offset == pytest.approx(0.07, abs=0.02) and slope == pytest.approx(0.2, abs=0.02)
    assert 0.012 < scatter < 0.03 and 45 <= n <= 57
    tied = np.isfinite(other["g"])
    assert tied.sum() > 250
    assert np.abs(np.asarray(other["g"]) - truth)[tied].max() < 0.03


def test_too_few_common_stars_tie_nothing():
    table, other = two_catalogues(50)
    other["g"], other["i"], other["g_err"] = 17.0, 16.0, 0.01
    table["g"][:5] = 17.1
    assert tie_to_reference(table, other, "g", "g", "i") is None
    assert np.isnan(other["g"]).all()
