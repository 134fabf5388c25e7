import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from lib.core.files import atomic_path
from lib.frame.file import (
    BAD,
    COSMIC,
    MASK_BITS,
    SOURCE,
    Frame,
    FrameRejected,
    read_frame,
    read_header,
    reject,
    write_frame,
)
from lib.frame.step import process


def example():
    header = fits.Header({"BUNIT": "electron", "FRAME": "20220128T045424C0o"})
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 2] = BAD | COSMIC
    return Frame(np.arange(20, dtype=np.float32).reshape(4, 5), mask, header)


def test_frame_file_round_trip(tmp_path):
    frame = example()
    write_frame(tmp_path / "a.fits", frame)
    back = read_frame(tmp_path / "a.fits")
    np.testing.assert_array_equal(back.image, frame.image)
    np.testing.assert_array_equal(back.mask, frame.mask)
    assert back.image.dtype == np.float32 and back.image.dtype.isnative
    assert back.header["QCSTAT"] == "OK" and not back.rejected
    assert read_header(tmp_path / "a.fits")["FRAME"] == "20220128T045424C0o"
    assert os.listdir(tmp_path) == ["a.fits"]


def test_frame_file_has_checksums_and_the_table_of_bits(tmp_path):
    write_frame(tmp_path / "a.fits", example())
    with fits.open(tmp_path / "a.fits", checksum=True) as hdus:
        assert all("DATASUM" in hdu.header for hdu in hdus)
        assert hdus[0].verify_checksum() == hdus[1].verify_checksum() == 1
        assert hdus["MASK"].data.dtype == np.uint8
        assert all(f"BIT{bit}" in hdus["MASK"].header for bit in MASK_BITS)


def test_ccddata_opens_a_frame_file(tmp_path):
    write_frame(tmp_path / "a.fits", example())
    ccd = CCDData.read(tmp_path / "a.fits")
    assert ccd.unit == "electron" and ccd.header["FRAME"] == example().header["FRAME"]
    np.testing.assert_array_equal(ccd.data, example().image)
    # Its reader takes every bit for a mask.
    np.testing.assert_array_equal(ccd.mask, example().mask > 0)


def test_frame_and_ccddata_are_the_same_pixels():
    frame = example()
    frame.mask[0, 0] = SOURCE
    ccd = frame.to_ccddata()
    assert ccd.unit == "electron"
    assert ccd.data is frame.image and ccd.flags is frame.mask and ccd.header is frame.header
    assert ccd.mask[1, 2] and ccd.mask.sum() == 1
    back = Frame.from_ccddata(ccd)
    assert back.image is frame.image and back.mask is frame.mask and back.header is frame.header
    assert list(back.header) == list(example().header)


@pytest.mark.parametrize("unit", ["adu", "adu/s", ""])
def test_frame_of_a_foreign_ccddata(unit):
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    ccd = CCDData(np.arange(20.0).reshape(4, 5), unit=unit, mask=mask, meta={"OBJECT": "M 1"})
    frame = Frame.from_ccddata(ccd)
    assert frame.image.dtype == np.float32 and frame.header["OBJECT"] == "M 1"
    assert frame.mask[2, 3] == BAD and np.count_nonzero(frame.mask) == 1
    assert frame.to_ccddata().unit == ccd.unit
    ccd.mask = None
    assert not Frame.from_ccddata(ccd).mask.any()


def test_rejected_frame_is_no_ccddata():
    frame = reject(example().header, "solve", FrameRejected("TOO_FEW_STARS", "2 < 6"))
    with pytest.raises(ValueError, match="TOO_FEW_STARS"):
        frame.to_ccddata()


def test_rejected_frame_is_a_header_with_the_reason(tmp_path):
    why = FrameRejected("TOO_FEW_STARS", "2 < 6")
    write_frame(tmp_path / "a.fits", reject(example().header, "astrometry", why))
    back = read_frame(tmp_path / "a.fits")
    assert back.rejected and back.image is None
    assert back.reason == "TOO_FEW_STARS: 2 < 6"
    assert back.header["QCSTEP"] == "astrometry"


def test_reason_with_text_that_fits_cannot_hold(tmp_path):
    why = FrameRejected("X", "näh\n" * 50)
    write_frame(tmp_path / "a.fits", reject(example().header, "prepare", why))
    assert read_frame(tmp_path / "a.fits").reason.startswith(r"X: n\xe4h\x0a")


def test_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.fits") as beside:
        beside.write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_steps_pass_rejected_frames_on(tmp_path):
    def refuse(frame):
        raise FrameRejected("SATURATED", "0.9 > 0.5")

    write_frame(tmp_path / "a.fits", example())
    log = tmp_path / "log"
    process("prepare", 1, tmp_path / "a.fits", tmp_path / "b.fits", refuse, log_path=log)
    process("flatten", 1, tmp_path / "b.fits", tmp_path / "c.fits", None, log_path=log)
    back = read_frame(tmp_path / "c.fits")
    assert back.reason == "SATURATED: 0.9 > 0.5" and back.header["QCSTEP"] == "prepare"
    assert "passed on" in log.read_text()


def test_steps_write_their_history(tmp_path):
    write_frame(tmp_path / "a.fits", example())
    process(
        "crclean",
        3,
        tmp_path / "a.fits",
        tmp_path / "b.fits",
        lambda frame: frame,
        log_path=tmp_path / "log",
        parameters={"sigma": 4.5},
    )
    history = str(read_header(tmp_path / "b.fits")["HISTORY"])
    assert "autoproc crclean v3 sigma=4.5" in history
