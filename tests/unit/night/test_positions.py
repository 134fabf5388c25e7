"""lib.night.positions: tables of positions, proper motions, ephemerides."""

import numpy as np
import pytest

from lib.night.positions import read_positions
from lib.night.targets import TargetError


def written(folder, text, name="targets.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_fixed_positions_in_degrees_and_sexagesimal(tmp_path):
    path = written(tmp_path, "name,ra,dec\nV1,150.5,-20.25\nSS Cyg,21:42:42.8,+43:35:09.9\n")
    first, second = read_positions(path)
    assert (first.ra[0], first.dec[0]) == (150.5, -20.25)
    assert second.ra[0] == pytest.approx(15 * (21 + 42 / 60 + 42.8 / 3600))
    assert second.dec[0] == pytest.approx(43 + 35 / 60 + 9.9 / 3600)
    assert second.key == "SS_Cyg" and not second.moving


def test_proper_motion_moves_a_star(tmp_path):
    """Barnard's star: 10.4 arcsec a year, pmra with cos(dec)."""
    path = written(tmp_path, "name,ra,dec,pmra,pmdec,epoch\nB,269.452,4.6934,-802.8,10362.5,2000\n")
    (star,) = read_positions(path)
    ra, dec = star.at(51544.5 + 20 * 365.25)
    assert (dec[0] - 4.6934) * 3600 == pytest.approx(207.25, abs=0.01)
    east = (ra[0] - 269.452) * np.cos(np.radians(4.6934)) * 3600
    assert east == pytest.approx(-16.056, abs=0.01)


def test_an_ephemeris_is_interpolated_on_the_sphere(tmp_path):
    """A great circle across RA = 0, rows an hour apart: to a milliarcsecond; none beyond."""
    times = 59607.0 + np.arange(7) / 24
    angle = 0.05 * (np.arange(7) - 3)  # degrees
    rows = [
        f"2022 AB,{mjd:.8f},{a % 360:.10f},{0.3 * np.sin(np.radians(a)):.10f}"
        for mjd, a in zip(times, angle, strict=True)
    ]
    (body,) = read_positions(written(tmp_path, "name,time,ra,dec\n" + "\n".join(rows)))
    assert body.moving
    ra, dec = body.at([59607.0 + 2.5 / 24, 59606.9])
    assert ((ra[0] + 180) % 360 - 180) * 3.6e6 == pytest.approx(-0.025 * 3.6e6, abs=1)
    assert dec[0] * 3.6e6 == pytest.approx(0.3 * np.sin(np.radians(-0.025)) * 3.6e6, abs=1)
    assert np.isnan(ra[1]) and np.isnan(dec[1])


def test_times_in_words_and_fixed_rows_beside_an_ephemeris(tmp_path):
    text = """# %ECSV 1.0
# ---
# datatype:
# - {name: name, datatype: string}
# - {name: time, datatype: string}
# - {name: ra, datatype: float64}
# - {name: dec, datatype: float64}
# schema: astropy-2.0
name time ra dec
Ceres 2022-01-28T00:00:00 10.0 5.0
Ceres 2022-01-28T02:00:00Z 10.1 5.1
star "" 11.0 5.0
"""
    ceres, star = read_positions(written(tmp_path, text, "t.ecsv"))
    assert ceres.mjd == pytest.approx([59607.0, 59607.0 + 2 / 24], abs=1e-9)
    assert ceres.at(59607.0 + 1 / 24)[0][0] == pytest.approx(10.05, abs=1e-5)
    assert not star.moving


@pytest.mark.parametrize(
    "text, says",
    [
        ("name,ra\na,1\n", "column dec is missing"),
        ("name,ra,dec\na,400,1\n", "'a' has no position"),
        ("name,ra,dec\na,1,x\n", "'a' has no position"),
        ("name,ra,dec\na,1,1\na,2,1\n", "'a' has 2 rows; several need a time"),
        ("name,ra,dec\nV 1,1,1\nV_1,2,1\n", "'V 1' and 'V_1' are one name"),
        ("name,ra,dec,pmra\na,1,1,fast\n", "pmra of 'a' is 'fast'"),
        ("name,time,ra,dec\na,yesterday,1,1\na,2022-01-01,1,1\n", "time 'yesterday' of 'a'"),
        ("name,time,ra,dec\na,59000,1,1\na,59000,2,1\n", "two different times"),
        ("name,time,ra,dec\na,59000,1,1\na,59001,9,1\n", "8.0 deg apart"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, text, says):
    with pytest.raises(TargetError, match=says.replace("(", r"\(")) as told:
        read_positions(written(tmp_path, text))
    assert "targets.csv" in str(told.value) and "\n" not in str(told.value)


HORIZONS = """\
Target body name: 433 Eros (A898 PA)              {source: JPL#659}
Center-site name: Paranal
 Date__(UT)__HR:MN     R.A._____(ICRF)_____DEC    APmag   S-brt
$$SOE
 2022-Jan-28 05:00 *m  10 00 24.50 +20 18 00.0   12.345   6.1
 2022-Jan-28 06:00     10 00 26.50 +20 18 30.0   12.345   6.1
$$EOE
"""

HORIZONS_CSV = """\
Target body name: (2022 AB1)                      {source: JPL#3}
 Date__(TT)__HR:MN, , ,R.A._(ICRF), DEC_(ICRF), dRA*cosD,d(DEC)/dt,
$$SOE
 2022-Jan-28 05:00,*,m, 150.102083, 20.3000000, 30.0, 12.0,
 2022-Jan-28 06:00,*,m, 150.110416, 20.3083333, 30.0, 12.0,
$$EOE
"""


def test_output_of_horizons_as_it_is(tmp_path):
    (eros,) = read_positions(written(tmp_path, HORIZONS, "eros.txt"))
    assert eros.name == "433" and eros.mjd == pytest.approx([59607 + 5 / 24, 59607 + 6 / 24])
    ra, dec = eros.at(59607 + 5 / 24)
    assert (ra[0], dec[0]) == (pytest.approx(150.1020833, abs=1e-6), pytest.approx(20.3, abs=1e-6))
    (body,) = read_positions(written(tmp_path, HORIZONS_CSV, "b.txt"))
    # TT is 69.184 s ahead of UTC.
    assert body.name == "2022 AB1" and body.mjd[0] == pytest.approx(59607 + 5 / 24 - 69.184 / 86400)


@pytest.mark.parametrize(
    "head, time",
    [
        ("targetname,datetime_jd,RA,DEC", "2459606.5"),
        ("Target,datetime_str,ra_icrf,dec_icrf", "2022-Jan-27 00:00:00.000"),
        ("designation,MJD,RAJ2000,DEJ2000", "59606"),
        ("name,Date (UTC),R.A. (J2000),Dec (J2000)", "2022/01/27 00:00"),
    ],
)
def test_columns_by_their_usual_names(tmp_path, head, time):
    later = {"2459606.5": "2459606.6", "59606": "59606.1"}.get(time, "2022-01-27T02:24:00")
    text = f"{head}\n2022 AB,{time},10.0,5.0\n2022 AB,{later},10.1,5.0\n"
    (body,) = read_positions(written(tmp_path, text))
    assert body.name == "2022 AB" and body.mjd == pytest.approx([59606.0, 59606.1], abs=1e-8)


def test_rates_to_the_east_and_north_hold_for_a_day(tmp_path):
    text = "name,time,ra,dec,rate_ra,rate_dec\nmover,59607.0,150.0,60.0,-36.0,18.0\n"
    (body,) = read_positions(written(tmp_path, text))
    ra, dec = body.at([59607.0 + 2 / 24, 59608.5])
    assert (ra[0] - 150.0) * 3600 * np.cos(np.radians(dec[0])) == pytest.approx(-72.0, abs=0.001)
    # On a great circle, off the parallel by 72^2 / 2 tan(60 deg) arcsec in radians.
    assert (dec[0] - 60.0) * 3600 == pytest.approx(36.0 - 72.0**2 / 2 * 1.732 / 206265, abs=0.001)
    assert np.isnan(ra[1]) and body.motion(59607.1) == pytest.approx((-36.0, 18.0), abs=0.05)
    moved = body.shifted(1.5, -0.5).at(59607.0)
    assert (moved[0][0] - 150.0) * 1800 == pytest.approx(1.5, abs=1e-4)
    assert (moved[1][0] - 60.0) * 3600 == pytest.approx(-0.5, abs=1e-4)


def test_apparent_positions_are_refused(tmp_path):
    with pytest.raises(TargetError, match="apparent positions"):
        read_positions(written(tmp_path, "name,time,RA_app,DEC_app\na,59000,1,1\na,59001,1,1\n"))
