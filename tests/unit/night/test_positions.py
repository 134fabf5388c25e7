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
