"""Instrument files on real frames, before anything is reduced."""

import re

import pytest

from lib.night.nightlog import scan
from lib.report.instrumentcheck import check_instrument
from lib.report.measuredcamera import read_frames
from lib.report.newinstrument import guess_types, new_instrument, write_draft

OTHERS = {"efosc2_g": "efosc2", "cafos_ngc2420_BV": "cafos", "nickel": "nickel"}


@pytest.mark.parametrize("name", ["arcsat2019_auto", "halo_in_sky"])
def test_calibrations_without_telescope_join_the_night(real_data, name):
    log = scan(real_data(f"strangers/{name}"))
    assert {row.get("instrument") for row in log.rows} == {"arcsat"}
    assert all(row.status == "OK" for row in log.rows)
    assert all(log.match(frame).master("bias") for frame in log.science)


@pytest.mark.parametrize(
    ("name", "gain", "rdnoise"), [("nickel", 1.80, 9.6), ("arcsat_xo1b_z", 1.33, 16.1)]
)
def test_gain_and_read_noise_measured_beside_those_told(real_data, name, gain, rdnoise):
    (line,) = [one for one in check_instrument("auto", real_data(name)) if "measured" in one]
    found = [float(one) for one in re.findall(r"measured ([\d.]+)", line)]
    assert found[0] == pytest.approx(gain, rel=0.02) and found[1] == pytest.approx(
        rdnoise, rel=0.02
    )
    assert "DIFFERS" not in line


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_from_the_frames_reads_them_as_the_shipped_one(real_data, name, tmp_path):
    """As if the camera were not shipped: types, filters, bands, times, pointings are the same."""
    folder = real_data(name)
    frames, failed = read_frames([folder])
    guess_types(frames)
    path = tmp_path / "new.yaml"
    path.write_text(write_draft(new_instrument(frames), len(frames)))
    ours, theirs = scan(folder, path), scan(folder, OTHERS[name])
    assert not failed
    mine = {row.raw: row for row in ours.rows}
    for row in theirs.rows:
        if row.status == "OK":
            for key in ("type", "band", "exptime", "date_obs", "ra", "dec", "object"):
                assert mine[row.raw].get(key) == row.get(key), (row.raw, key)
