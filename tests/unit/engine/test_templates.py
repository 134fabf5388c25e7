"""Which template a stack has, by the configuration and by what lies there."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from lib.engine.config import ConfigError, check_config
from lib.engine.templates import (
    NO_NIGHT,
    date_to_mjd,
    own_template,
    template_file,
    wanted_template,
    why_none,
)
from lib.night.templates import SURVEYS
from lib.reference.imagesurveys import IMAGE_SURVEYS


def test_surveys_are_those_that_have_images():
    assert set(SURVEYS) == set(IMAGE_SURVEYS)


def test_one_for_all_or_for_each():
    assert wanted_template("refs/{target}_{filter}.fits", "M1.SDSS-R") == "refs/M1_SDSS-R.fits"
    each = {"M1.r": "a.fits", "r": "own", "M2": "b.fits", "default": "{filter}.fits"}
    stacks = ("M1.r", "M3.r", "M2.i", "M3.i", "M1.r.1h-20240101T000000")
    found = [wanted_template(each, stack) for stack in stacks]
    assert found == ["a.fits", "own", "b.fits", "i.fits", "a.fits"]
    assert wanted_template({"r": "own"}, "M1.i") == wanted_template(None, "M1.i") == ""


def test_dates():
    assert date_to_mjd("2000-01-01") == 51544
    assert date_to_mjd("2000-01-01T12:00:00") == 51544.5
    assert date_to_mjd(None) == np.inf
    with pytest.raises(ConfigError, match="write a date such as 2024-03-01"):
        check_config({"difference": {"before": "spring"}})


def write_coadd(path, end, total, status="OK"):
    path.parent.mkdir(exist_ok=True)
    header = fits.Header({"MJD-END": end, "TOTALEXP": total, "QCSTAT": status})
    fits.writeto(path, np.zeros((3, 3), np.float32), header)


def test_the_deepest_coadd_of_a_directory_before_a_date(tmp_path):
    write_coadd(tmp_path / "20240101/coaddM1.r.fits", 60310.0, 600.0)
    write_coadd(tmp_path / "20240201/coaddM1.r.fits", 60341.0, 900.0)
    write_coadd(tmp_path / "20240301/coaddM1.r.fits", 60370.0, 9000.0)
    write_coadd(tmp_path / "20240105/coaddM1.r.fits", 60314.0, 9000.0, "REJECTED")
    write_coadd(tmp_path / "20240101/coaddM1.i.fits", 60310.0, 9999.0)
    where = str(tmp_path)
    names = [template_file(where, "M1.r", date)[len(where) :]
             for date in (None, "2024-02-15", "2024-01-15", "2020-01-01")]  # fmt: skip
    assert names == [f"/20240{day}/coaddM1.r.fits" for day in ("301", "201", "101")] + [""]
    assert why_none(where, "M1.r", "2020-01-01").endswith(
        "has no coadd of M1.r that ends before 2020-01-01"
    )
    assert template_file("own", "M1.r") == template_file("ps1", "M1.r") == ""


def test_own_is_the_deepest_earlier_night_and_never_itself():
    def night(day, number, exptime=60.0):
        names = [f"2{day}{k}" for k in range(number)]
        frames = {
            name: SimpleNamespace(frame=name, mjd=60000.0 + day + k / 100, exptime=exptime)
            for k, name in enumerate(names)
        }
        return SimpleNamespace(
            night=SimpleNamespace(frames=frames), plan=SimpleNamespace(stacks={"M1.r": names})
        )

    nights = {f"{day}/": night(day, number) for day, number in ((1, 4), (2, 6), (5, 9), (8, 20))}

    def chosen(folder, before=None):
        return own_template("M1.r", nights[folder].plan.stacks["M1.r"], nights, before)

    assert [chosen(f"{day}/") for day in (1, 2, 5, 8)] == [NO_NIGHT, "1/", "2/", "5/"]
    # 60003 is 2023-02-28.
    assert [chosen(f"{day}/", "2023-02-28") for day in (1, 2, 8)] == ["2/", "1/", "2/"]
    assert own_template("M1.i", [], nights, None) == NO_NIGHT
