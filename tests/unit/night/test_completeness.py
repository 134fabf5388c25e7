"""A raw file that is still being written is no frame; once it is whole, it is."""

import os
import threading
import time

import numpy as np
import pytest
from astropy.io import fits

from lib.night import completeness, nightlog

SHAPE = (120, 200)


def header(second):
    return fits.Header({"IMAGETYP": "LIGHT", "OBJECT": "field", "FILTER": "V", "EXPTIME": 60.0,
                        "DATE-OBS": f"2024-03-01T01:{second:02d}:03.25", "RA": 150.0, "DEC": 20.0,
                        "GAIN": 1.5, "RDNOISE": 5.0, "PIXSCALE": 0.5})  # fmt: skip


def write(path, second, dtype=np.uint16, blank=0, **how):
    """Write a frame of noise whose last rows hold zeros in the file; return its bytes."""
    rng = np.random.default_rng(second)
    data = rng.normal(40_000 if dtype == np.uint16 else 500, 20, SHAPE).astype(dtype)
    if blank:
        data[-blank:] = 32768 if dtype == np.uint16 else 0
    if how.pop("packed", False):
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(data, header(second))]
        fits.HDUList(hdus).writeto(path, **how)
    else:
        fits.PrimaryHDU(data, header(second)).writeto(path, **how)
    return path.read_bytes()


def fill(path, content, part):
    """Write the first part of a file's bytes, and zeros up to its full length."""
    with open(path, "wb") as file:
        file.write(content[: int(part * len(content))])
        file.truncate(len(content))


def outcome(folder):
    rows = nightlog.scan(folder, "generic", cache=folder / ".nightlog.json").rows
    return {row.raw: (row.status, row.reason.partition(":")[0]) for row in rows}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(completeness, "PAUSE", 0.01)


@pytest.mark.parametrize("part", [0.5, 0.9, 0.94])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_frame_filled_in_part_is_left_out_until_it_is_whole(tmp_path, dtype, part):
    content = [write(tmp_path / f"{k}.fits", k, dtype) for k in range(3)]
    fill(tmp_path / "2.fits", content[2], part)
    os.utime(tmp_path / "2.fits", (1e9, 1e9))
    found = outcome(tmp_path)
    assert found["2.fits"] == ("REJECTED", "INCOMPLETE")
    assert found["0.fits"] == found["1.fits"] == ("OK", "")
    # The copier ends, and sets the time of its source.
    (tmp_path / "2.fits").write_bytes(content[2])
    os.utime(tmp_path / "2.fits", (9e8, 9e8))
    assert outcome(tmp_path)["2.fits"] == ("OK", "")


def test_single_and_packed_frames_too(tmp_path):
    content = write(tmp_path / "1.fits", 1)
    fill(tmp_path / "1.fits", content, 0.8)
    assert outcome(tmp_path)["1.fits"] == ("REJECTED", "INCOMPLETE")
    content = write(tmp_path / "2.fits.fz", 2, np.int16, packed=True)
    assert outcome(tmp_path)["2.fits.fz"] == ("OK", "")
    fill(tmp_path / "2.fits.fz", content, 0.8)
    assert outcome(tmp_path)["2.fits.fz"] == ("REJECTED", "INCOMPLETE")


def test_blank_rows_of_a_detector_are_its_own(tmp_path):
    for k in range(3):
        content = write(tmp_path / f"{k}.fits", k, blank=9)
    assert {one for one, _ in outcome(tmp_path).values()} == {"OK"}
    fill(tmp_path / "2.fits", content, 0.6)
    found = outcome(tmp_path)
    assert found.pop("2.fits") == ("REJECTED", "INCOMPLETE")
    assert set(found.values()) == {("OK", "")}


def test_blank_borders_of_shifted_frames_are_no_gaps(tmp_path):
    rng = np.random.default_rng(1)
    for k, (rows, columns) in enumerate([(0, 5), (4, 9), (11, 3), (30, 40)]):
        data = rng.normal(500, 20, SHAPE).astype(np.float32)
        data[SHAPE[0] - rows :], data[:, SHAPE[1] - columns :] = 0, 0
        fits.PrimaryHDU(data, header(k)).writeto(tmp_path / f"{k}.fits")
    assert set(outcome(tmp_path).values()) == {("OK", "")}


def test_a_right_checksum_proves_blank_rows(tmp_path):
    content = write(tmp_path / "1.fits", 1, blank=9, checksum=True)
    assert outcome(tmp_path)["1.fits"] == ("OK", "")
    fill(tmp_path / "1.fits", content, 0.8)
    assert outcome(tmp_path)["1.fits"] == ("REJECTED", "INCOMPLETE")


def test_clipped_noise_is_not_missing(tmp_path):
    """A bias of a camera that clips at zero: half of its pixels, and the last ones by chance."""
    data = np.maximum(np.random.default_rng(1).normal(-30, 10, SHAPE), 0).astype(np.int16)
    assert (data[-2:] > 0).sum() < 5
    data[-4:] = 0
    fits.PrimaryHDU(data, header(1)).writeto(tmp_path / "1.fits")
    assert outcome(tmp_path)["1.fits"] == ("OK", "")


def test_frame_that_grows_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(completeness, "PAUSE", 0.4)
    write(tmp_path / "1.fits", 1)
    write(tmp_path / "2.fits", 2)

    def touch():
        time.sleep(0.2)
        with open(tmp_path / "2.fits", "r+b") as file:
            file.seek(5000)
            file.write(b"\1\2")

    writer = threading.Thread(target=touch)
    writer.start()
    assert outcome(tmp_path) == {"1.fits": ("OK", ""), "2.fits": ("REJECTED", "INCOMPLETE")}
    writer.join()
    assert outcome(tmp_path)["2.fits"] == ("OK", "")
