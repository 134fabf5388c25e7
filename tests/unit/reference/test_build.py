"""The reference of a field, with the real astroquery client against a loopback VizieR."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import refcat
from astropy.table import Table
from referencefield import EPOCH, FIELD, online, settings, truth_of
from vizier_server import Sky, VizierServer

from lib.core.bands import BANDS
from lib.core.sphere import separation
from lib.frame.step import run_rule
from lib.reference import build
from lib.reference.build import make_reference
from lib.reference.field import Field
from lib.reference.freeze import freeze
from lib.reference.referencetable import CatalogueError, read_reference
from lib.reference.surveys import ASTROMETRIC
from lib.reference.vizier import ReferenceUnavailable

ROOT = Path(__file__).resolve().parents[3]


def test_positions_are_those_of_the_epoch_of_observation(server, tmp_path):
    table = online(server, tmp_path)
    stars = truth_of(table, server.sky)  # within 0.5 mas though the fast star moved 7.6 arcsec
    assert len(set(stars)) == len(table) > 80
    assert (table["epoch"] == EPOCH).all()
    expected = np.hypot(0.05, 0.02 * (EPOCH - 2016.0))
    np.testing.assert_allclose(table["ra_err"], expected, rtol=1e-3)


def test_fast_star_has_its_photometry(tmp_path):
    sky = Sky()
    sky.ra[0], sky.dec[0] = 150.01, 2.01
    with VizierServer(sky) as server:
        table = online(server, tmp_path)
    star = table[truth_of(table, sky) == 0][0]
    assert star["pmra"] == 600.0
    # found in surveys made up to 17 years before Gaia, 12 arcsec away
    assert abs(star["y"] - sky.mag["y"][0]) < 0.03


def test_every_band_is_filled_close_to_the_truth(server, tmp_path):
    table = online(server, tmp_path)
    stars = truth_of(table, server.sky)
    for band in BANDS:
        known = np.isfinite(table[band])
        if band in "JHK":
            # 2MASS ends at 16.5 and nothing else measures these
            assert (known == (server.sky.mag["J"][stars] < 16.5)).all()
        else:
            assert known.all(), band
        difference = (np.asarray(table[band]) - server.sky.mag[band][stars])[known]
        error = np.asarray(table[f"{band}_err"])[known]
        assert (np.abs(difference) < 4 * error).all(), band
        assert np.abs(np.median(difference)) < 0.03, band
        assert ((table[f"{band}_src"] != "") == known).all()


def test_the_best_measurement_comes_first(server, tmp_path):
    table = online(server, tmp_path)
    stars = truth_of(table, server.sky)
    bright = server.sky.mag["g"][stars] < 17.0
    for band in "ugrizBVRI":
        assert set(table[f"{band}_src"][bright]) == {"GaiaXP"}
    for band in "ugriz":
        assert set(table[f"{band}_src"][~bright]) == {"SDSSDR16"}
    assert set(table["J_src"]) <= {"2MASS", ""}
    assert set(table["y_src"]) == {"PS1", "GaiaXP"}  # the brightest are saturated in PS1
    assert "Tonry et al. 2012 from PS1" in set(table["R_src"][~bright])


def test_meta_tells_what_was_asked_of_whom(server, tmp_path):
    meta = online(server, tmp_path).meta
    assert meta["source"] == "GaiaDR3"
    tables = [record["table"] for record in meta["catalogues"]]
    assert tables[:2] == ["I/355/gaiadr3", "I/360/syntphot"]
    for record in meta["catalogues"]:
        assert record["server"] == server.address and record["date"] <= meta["date"]
        assert record["table"] in record["query"] and len(record["sha256"]) == 64
    assert "reason" not in meta and "missing" not in meta


def test_one_request_for_each_catalogue(server, tmp_path):
    online(server, tmp_path)
    asked = [request["-source"] for request in server.requests]
    assert len(asked) == len(set(asked)) == 7


def test_southern_field_is_tied_to_gaia_by_its_own_stars(tmp_path):
    sky = Sky(ra=80.0, dec=-60.0)
    with VizierServer(sky) as server:
        table = online(server, tmp_path, field=(80.0, -60.0, 0.2))
        asked = {request["-source"] for request in server.requests}
    assert "II/349/ps1" not in asked and "V/154/sdss16" not in asked
    stars = truth_of(table, sky)
    faint = sky.mag["g"][stars] > 17.0
    assert set(table["g_src"][faint]) == {"SkyMapperDR4"}
    for band in "griz":
        difference = (np.asarray(table[band]) - sky.mag[band][stars])[faint]
        assert np.abs(difference).max() < 0.03, band
    # from these, by published relations
    assert np.isfinite(table["V"]).all()
    assert any("Lupton" in source for source in table["R_src"])


def asked_for(server):
    """Return the catalogues and radii that a server was asked for."""
    return [(request["-source"], float(request["-c.rd"])) for request in server.requests]


def test_positions_reach_as_far_as_the_wide_search(tmp_path):
    sky = Sky(radius=0.5, n=900)
    with VizierServer(sky) as server:
        table = online(server, tmp_path, wide=0.45)
        narrow = online(server, tmp_path)
        asked = asked_for(server)
        online(server, tmp_path, wide=0.45)
        assert asked_for(server) == asked  # the cache has them
    away = separation(table["ra"], table["dec"], *FIELD[:2])
    far = table[away > 0.3]
    assert len(far) > 100 and away.max() == pytest.approx(0.45, abs=0.02)
    # Only what tells positions is asked for so far off, and the field itself has all its stars.
    assert {name for name, radius in asked if radius > 0.3} == {
        "I/355/gaiadr3", "I/360/syntphot", "II/246/out"
    }  # fmt: skip
    assert len(table[away <= 0.2]) == len(narrow)
    assert len(set(zip(table["ra"], table["dec"], strict=True))) == len(table)
    truth_of(far, sky)
    assert np.isfinite(far["r"]).any() and np.isfinite(far["J"]).any()


def test_crowded_surroundings_are_their_brighter_stars(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SURROUNDINGS_ROW_LIMIT", 400)
    sky = Sky(radius=0.5, n=900)
    with VizierServer(sky) as server:
        narrow, table = online(server, tmp_path), online(server, tmp_path, wide=0.45)
        # The field of another night there is asked for as if these had not been.
        other = online(server, tmp_path, field=(150.0, 2.0, 0.4))
    away = separation(table["ra"], table["dec"], *FIELD[:2])
    assert (away <= 0.2).sum() == len(narrow)
    assert 50 < (away > 0.2).sum() < 400
    assert len(other) > len(table)


def test_surroundings_that_cannot_be_had_are_done_without(server, tmp_path, caplog):
    freeze([("first", *FIELD)], tmp_path, settings(server.address))
    table = online(None, tmp_path, value="offline", wide=0.6, servers=())
    assert table.meta["source"] == "GaiaDR3" and len(table) > 80
    assert separation(table["ra"], table["dec"], *FIELD[:2]).max() <= FIELD[2]
    assert "no stars beyond 0.20 deg" in caplog.text
    down = online(None, tmp_path, servers=["http://127.0.0.1:9"], wide=0.6, last_attempt=False)
    assert len(down) == len(table)


def test_duplicates_go_and_poor_astrometry_weighs_less(tmp_path):
    sky = Sky()
    n = len(sky.ra)
    sky.extra[("I/355/gaiadr3", "Dup")] = (np.arange(n) % 10 == 0).astype(int)
    ruwe = np.where(np.arange(n) % 10 == 1, 4.0, 1.0)
    sky.extra[("I/355/gaiadr3", "RUWE")] = ruwe
    with VizierServer(sky) as server:
        table = online(server, tmp_path)
    stars = truth_of(table, sky)
    assert (stars % 10 != 0).all()
    poor = ruwe[stars] > 1.4
    assert poor.any()
    assert np.min(table["ra_err"][poor]) > 1.3 * np.max(table["ra_err"][~poor])


def test_star_without_proper_motion_stays_with_a_larger_error(tmp_path):
    sky = Sky()
    motion = sky.pmra.copy()
    motion[5:40] = np.nan
    sky.extra[("I/355/gaiadr3", "pmRA")] = motion
    sky.extra[("I/355/gaiadr3", "pmDE")] = np.where(np.isnan(motion), np.nan, sky.pmdec)
    with VizierServer(sky) as server:
        table = online(server, tmp_path)
    unknown = np.isnan(table["pmra"])
    assert unknown.sum() > 10
    np.testing.assert_allclose(table["ra_err"][unknown], 5.0 * (EPOCH - 2016.0), rtol=1e-3)


def test_blended_synthetic_photometry_is_left_out(tmp_path):
    sky = Sky()
    sky.extra[("I/360/syntphot", "E(BP/RP)corr")] = np.where(np.arange(300) < 150, 0.5, 0.0)
    with VizierServer(sky) as server:
        table = online(server, tmp_path)
    first = truth_of(table, sky) < 150
    assert "GaiaXP" not in set(table["r_src"][first])
    assert "GaiaXP" in set(table["r_src"][~first])


BROKEN = ["http500", "garbage", "nothing", "empty", "truncated", "cut", "error"]


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_answer_names_server_and_catalogue(fault, tmp_path):
    with VizierServer(faults={"I/355/gaiadr3": fault}) as server:
        with pytest.raises(ReferenceUnavailable) as caught:
            online(server, tmp_path, last_attempt=False)
    assert server.address in str(caught.value)
    assert "I/355/gaiadr3" in str(caught.value)
    assert not list(tmp_path.glob("I_355*"))  # nothing broken is kept


@pytest.mark.parametrize("fault", BROKEN)
def test_next_mirror_is_asked(fault, server, tmp_path):
    with VizierServer(faults={"*": fault}) as first:
        table = online(server, tmp_path, servers=[first.address, server.address],
                       last_attempt=False)  # fmt: skip
    assert table.meta["source"] == "GaiaDR3" and len(table) > 80
    assert len(first.asked("I/355/gaiadr3")) == 1


@pytest.mark.parametrize("fault", ["slow", "trickle"])
def test_time_limit_is_for_the_whole_answer(fault, server, tmp_path):
    with VizierServer(faults={"*": fault}, delay=30) as first:
        start = time.monotonic()
        table = online(server, tmp_path, servers=[first.address, server.address], timeout=1.0,
                       last_attempt=False)  # fmt: skip
        assert time.monotonic() - start < 10
        # having been waited for once it is not waited for again
        assert len(first.requests) == 1
    assert table.meta["source"] == "GaiaDR3"


def test_server_that_is_down(server, tmp_path):
    table = online(server, tmp_path, servers=["http://127.0.0.1:9", server.address])
    assert len(table) > 80


@pytest.mark.parametrize(
    ("survey", "fault", "words"),
    [
        ("I/355/gaiadr3", ("rename", "pmRA", "pm_ra"), ["no column 'pmRA'", "pm_ra"]),
        ("I/355/gaiadr3", ("unit", "pmRA", "km"), ["'pmRA' is in km", "mas/yr"]),
        ("II/246/out", ("rename", "Jmag", "Jm"), ["no column 'Jmag'"]),
    ],
)
def test_renamed_column_is_named(survey, fault, words, tmp_path):
    with VizierServer(faults={survey: fault}) as server:
        with pytest.raises(ReferenceUnavailable) as caught:
            online(server, tmp_path, last_attempt=False)
    for word in [server.address, survey, *words]:
        assert word in str(caught.value)


def test_optional_column_is_done_without(tmp_path, caplog):
    fault = ("rename", "ymag", "y_ps1")
    with VizierServer(faults={"I/360/syntphot": fault}) as server:
        table = online(server, tmp_path, last_attempt=False)
    assert set(table["y_src"]) <= {"PS1", "Tonry et al. 2012 from z, g-r"}
    assert "no column 'ymag'" in caplog.text


def test_all_servers_down_fails_first_and_then_goes_on(tmp_path):
    down = ["http://127.0.0.1:9", "http://127.0.0.1:19"]
    with pytest.raises(ReferenceUnavailable, match="127.0.0.1:9.*127.0.0.1:19"):
        online(None, tmp_path, servers=down, last_attempt=False)
    table = online(None, tmp_path, servers=down, last_attempt=True)
    assert len(table) == 0 and table.meta["source"] == "NONE"
    reason, (detail,) = table.meta["reason"], table.meta["missing"]
    assert reason == "no answer from 2 catalogue servers, see logs/refcat"
    assert "127.0.0.1:9: I/355/gaiadr3" in detail
    assert "(Connection refused)" in detail and len(detail) < 300
    assert set(BANDS) <= set(table.colnames)


def test_catalogue_that_failed_is_not_asked_for_again(tmp_path):
    faults = {"I/355/gaiadr3": "http500", "V/154/sdss16": "http500"}
    with VizierServer(faults=faults) as server:
        table = online(server, tmp_path)
        # it would have served for positions, and then for magnitudes
        assert len(server.asked("V/154/sdss16")) == 1
    assert table.meta["source"] == "2MASS"
    assert len([line for line in table.meta["missing"] if "V/154/sdss16" in line]) == 1


def test_next_catalogue_only_on_the_last_attempt(tmp_path):
    with VizierServer(faults={"I/355/gaiadr3": "http500", "I/360/syntphot": "http500"}) as server:
        with pytest.raises(ReferenceUnavailable):
            online(server, tmp_path, last_attempt=False)
        table = online(server, tmp_path, last_attempt=True)
    assert table.meta["source"] == "SDSSDR16" and len(table) > 80
    assert any("I/355/gaiadr3" in sentence for sentence in table.meta["missing"])
    assert np.isfinite(table["V"]).any() and np.isfinite(table["J"]).any()


def test_every_catalogue_can_be_the_one_for_positions(tmp_path):
    order = [survey.table for survey in ASTROMETRIC]
    for k, survey in enumerate(ASTROMETRIC):
        faults = dict.fromkeys(order[:k], "error")
        with VizierServer(faults=faults) as server:
            table = online(server, tmp_path / str(k), last_attempt=True)
        assert table.meta["source"] == survey.name
        ra, dec = server.sky.at(EPOCH)
        away = [separation(ra, dec, star["ra"], star["dec"]).min() for star in table]
        assert np.median(away) * 3600 < 0.6  # arcsec: most have no proper motions, over up to 27 yr
        assert (table["ra_err"] > 0).all()
        assert np.isfinite([table[band] for band in "BVRI"]).any()


def test_photographic_magnitudes_come_last(tmp_path):
    faults = dict.fromkeys([s.table for s in ASTROMETRIC if s.name != "USNO-B1"], "error")
    with VizierServer(faults=faults) as server:
        table = online(server, tmp_path)
    assert table.meta["source"] == "USNO-B1"
    assert set(table["B_src"]) == {"GaiaXP", "USNO-B1"}
    assert (table["B_err"][table["B_src"] == "USNO-B1"] == 0.3).all()


def test_survey_without_stars_there_is_no_fault(tmp_path):
    with VizierServer(faults={"V/154/sdss16": "empty", "II/349/ps1": "empty"}) as server:
        table = online(server, tmp_path, last_attempt=False)
        online(server, tmp_path, last_attempt=False)
        assert len(server.asked("V/154/sdss16")) == 1  # that it has none is remembered
    assert len(table) > 80 and "missing" not in table.meta


def test_positions_left_blank_are_an_error(tmp_path):
    with VizierServer(faults={"I/355/gaiadr3": ("blank", "RA_ICRS")}) as server:
        with pytest.raises(ReferenceUnavailable, match="'RA_ICRS' holds no numbers"):
            online(server, tmp_path, last_attempt=False)


def test_second_night_needs_no_network(server, tmp_path):
    first = online(server, tmp_path)
    asked = len(server.requests)
    # a night later the telescope points 30 arcsec away
    ra, dec, radius = FIELD
    again = online(server, tmp_path, field=(ra + 0.008, dec - 0.008, radius))
    assert len(server.requests) == asked
    assert abs(len(again) - len(first)) < 0.2 * len(first)


def test_offline_uses_the_cache_alone(server, tmp_path):
    online(server, tmp_path)
    asked = len(server.requests)
    table = online(server, tmp_path, value="offline", last_attempt=False)
    assert len(server.requests) == asked
    assert table.meta["source"] == "GaiaDR3" and len(table) > 80
    assert np.isfinite(table["R"]).all()


def test_offline_without_an_answer_says_so_at_once(tmp_path):
    table = online(None, tmp_path, value="offline", servers=[], last_attempt=False)
    assert len(table) == 0
    assert "has no catalogue of the field (refcat: offline)" in table.meta["reason"]
    (detail,) = table.meta["missing"]
    assert "150.0000 +2.0000" in detail and "I/355/gaiadr3" in detail


def test_cache_that_cannot_be_written_is_done_without(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    table = online(server, tmp_path / "file", last_attempt=False)
    assert len(table) > 80 and len(table.meta["catalogues"]) == 7


def user_table(path, n=50, ra=150.0, **more):
    rng = np.random.default_rng(1)
    table = Table({"ra": ra + rng.uniform(-0.1, 0.1, n), "dec": 2 + rng.uniform(-0.1, 0.1, n)})
    for name, value in ({"r": 15.0, "r_err": 0.01} | more).items():
        table[name] = value
    table.write(path)
    return path


def test_users_table(tmp_path):
    path = user_table(tmp_path / "t.ecsv", pmra=10.0, pmdec=-10.0, epoch=2016.0)
    given = Table.read(path)
    table = make_reference(str(path), Field(*FIELD, epoch=EPOCH), tmp_path)
    assert len(table) == 50 and table.meta["source"] == "t.ecsv"
    moved = (np.asarray(table["dec"]) - given["dec"]) * 3.6e6
    np.testing.assert_allclose(moved, -10 * (EPOCH - 2016), atol=1e-3)


def test_users_table_without_pointing_is_taken_whole(tmp_path):
    path = user_table(tmp_path / "t.ecsv")
    assert len(make_reference(str(path), Field(None, None, None), tmp_path)) == 50


def test_small_table_is_not_cut_and_a_large_one_is(tmp_path, monkeypatch):
    path = user_table(tmp_path / "t.ecsv")
    narrow = (150.0, 2.0, 0.05)
    assert len(make_reference(str(path), Field(*narrow, epoch=EPOCH), tmp_path)) == 50
    monkeypatch.setattr(build, "CUT_OUT_ABOVE", 10)
    assert 0 < len(make_reference(str(path), Field(*narrow, epoch=EPOCH), tmp_path)) < 50


def test_users_table_of_another_field_is_taken_for_frames_may_be_lost_and_it_is_said_so(
    tmp_path, caplog
):
    path = user_table(tmp_path / "t.ecsv", ra=300.0)
    table = make_reference(str(path), Field(*FIELD, epoch=EPOCH), tmp_path)
    assert len(table) == 50 and "its nearest is 14" in table.meta["elsewhere"]
    assert "looked for in all of it" in caplog.text


def test_users_table_of_many_other_fields_is_empty_with_a_reason(tmp_path):
    path = user_table(tmp_path / "t.ecsv", ra=np.repeat([300.0, 320.0], 25))
    table = make_reference(str(path), Field(*FIELD, epoch=EPOCH), tmp_path)
    assert len(table) == 0 and "its nearest is 14" in table.meta["reason"]


def test_none_and_no_pointing(tmp_path):
    assert (
        make_reference("none", Field(*FIELD, epoch=EPOCH), tmp_path).meta["reason"]
        == "refcat: none"
    )
    table = make_reference("online", Field(None, None, None, epoch=EPOCH), tmp_path)
    assert len(table) == 0 and "points" in table.meta["reason"]
    table = make_reference("online", Field(150.0, 2.0, 30.0, epoch=EPOCH), tmp_path)
    assert len(table) == 0 and "30.0 deg" in table.meta["reason"]


def test_users_table_without_rows(tmp_path):
    (tmp_path / "t.csv").write_text("ra,dec,r,r_err\n")
    table = make_reference(str(tmp_path / "t.csv"), Field(*FIELD, epoch=EPOCH), tmp_path)
    assert len(table) == 0 and "t.csv has no rows" in table.meta["reason"]


class Values(SimpleNamespace):
    """Stands for Snakemake's named lists."""

    def get(self, name, default=None):
        return getattr(self, name, default)


def rule(tmp_path, value, *, attempts=3, **more):
    params = {
        "ra": 150.0, "dec": 2.0, "radius": 0.2, "epoch": EPOCH, "attempts": attempts, "timeout": 5,
        "given": SimpleNamespace(refcat=value, cache=tmp_path / "cache"),
    }  # fmt: skip
    (tmp_path / "logs" / "refcat").mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(
        input=[],
        params=Values(**params | more),
        output=[tmp_path / "refcat" / "field.ecsv"],
        log=[tmp_path / "logs" / "refcat" / "field.log"],
    )


def test_rule_writes_and_logs(server, tmp_path):
    job = rule(tmp_path, "online", servers=[server.address])
    run_rule(job, refcat.main)
    table = read_reference(job.output[0])
    assert len(table) > 80 and table.meta["source"] == "GaiaDR3"
    assert "GaiaDR3: " in job.log[0].read_text()


def test_rule_asks_thrice_and_then_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(refcat, "PAUSE", 0.0)
    job = rule(tmp_path, "online", servers=["http://127.0.0.1:9"])
    run_rule(job, refcat.main)
    table = read_reference(job.output[0])
    assert len(table) == 0 and "127.0.0.1:9" in table.meta["missing"][0]
    assert job.log[0].read_text().count("asking again") == 2


def test_rule_does_not_ask_a_wrong_table_again(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    job = rule(tmp_path, str(tmp_path / "t.csv"))
    with pytest.raises(CatalogueError, match="no column 'ra'"):
        run_rule(job, refcat.main)
    assert "asking again" not in job.log[0].read_text()


@pytest.mark.parametrize("value", ["none", "path"])
def test_without_network_it_starts_quickly(tmp_path, value):
    if value == "path":
        value = str(user_table(tmp_path / "t.ecsv"))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); "
        f"from lib.reference.build import make_reference; "
        f"from lib.reference.field import Field; "
        f"from lib.reference.referencetable import write_reference; "
        f"write_reference({str(tmp_path / 'out.ecsv')!r}, "
        f"make_reference({value!r}, Field(150.0, 2.0, 0.2, epoch=2022.0), 'cache')); "
        f"heavy = {{'astroquery', 'scipy', 'requests', 'pyvo'}} & set(sys.modules); "
        f"assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
    assert (tmp_path / "out.ecsv").is_file()
