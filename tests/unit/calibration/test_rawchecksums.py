"""Raw frames are held against the checksums that they bear."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits

from lib.calibration.rawchecksums import check_checksums
from lib.frame.file import FrameRejected


def image(number, name=None):
    pixels = np.random.default_rng(number).poisson(1000, (61, 73)).astype(np.uint16)
    kind = fits.ImageHDU if name else fits.PrimaryHDU
    return kind(pixels, fits.Header({"OBJECT": f"M {number}"}))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 8
    path.write_bytes(content)


@pytest.fixture
def raw(tmp_path):
    """Three frames with checksums: plain, of two extensions, packed by fpack's way."""
    image(1).writeto(tmp_path / "plain.fits", checksum=True)
    hdus = [fits.PrimaryHDU(), image(2, "a"), image(3, "b")]
    fits.HDUList(hdus).writeto(tmp_path / "two.fits", checksum=True)
    packed = fits.CompImageHDU(image(4, "a").data, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "packed.fz", checksum=True)
    return tmp_path


FRAMES = [("plain.fits", {0}), ("two.fits", {1, 2}), ("packed.fz", {1})]


@pytest.mark.parametrize("name, hdus", FRAMES)
def test_whole_frame_is_whole_packed_or_not(raw, name, hdus):
    assert check_checksums(raw / name, hdus) == []
    zipped = raw / f"{name}.gz"
    zipped.write_bytes(gzip.compress((raw / name).read_bytes()))
    assert check_checksums(zipped, hdus) == []


@pytest.mark.parametrize("name, hdus", FRAMES)
@pytest.mark.parametrize("zipped", [False, True])
def test_flipped_pixel_is_a_reason(raw, name, hdus, zipped):
    path = raw / name
    with fits.open(path, disable_image_compression=True) as opened:
        flip(path, opened[max(hdus)].fileinfo()["datLoc"] + 5)
    if zipped:
        path = raw / f"{name}.gz"
        path.write_bytes(gzip.compress((raw / name).read_bytes()))
        (raw / name).unlink()
    with pytest.raises(FrameRejected, match=r"BAD_CHECKSUM: DATASUM \d+, data of HDU"):
        check_checksums(path, hdus)


def test_changed_header_is_told(raw):
    path = raw / "plain.fits"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'M 1     '", b"'M 31    '"))
    assert check_checksums(path, {0}) == ["checksum: the header was changed after its CHECKSUM"]


def test_checksums_that_are_wrong_in_every_frame_are_not_believed(raw):
    """Their writer computes them otherwise: no reason to lose a night."""
    for number in range(4):
        path = raw / f"{number}.fits"
        image(number).writeto(path)
        fits.setval(path, "DATASUM", value=str(1000 + number))
    (raw / "plain.fits").unlink()
    assert check_checksums(raw / "2.fits", {0}) == [
        "checksum: DATASUM of this and other frames is wrong, not believed"
    ]
    shutil.copy(raw / "2.fits", raw / "good.fits")
    fits.delval(raw / "good.fits", "DATASUM")
    with fits.open(raw / "good.fits", mode="update", checksum=True) as hdus:
        hdus[0].header["OBJECT"] = "M 2"
    with pytest.raises(FrameRejected, match="BAD_CHECKSUM"):
        check_checksums(raw / "2.fits", {0})


@pytest.mark.parametrize("value", ["", "none", "-1x", "1e9"])
def test_what_is_no_checksum_is_none(raw, value):
    path = raw / "none.fits"
    image(5).writeto(path)
    fits.setval(path, "DATASUM", value=value)
    assert check_checksums(path, {0}) == []


def test_missing_padding_is_no_damage(raw):
    path = raw / "plain.fits"
    path.write_bytes(path.read_bytes()[: 2880 * 2 + 61 * 73 * 2 - 2880])
    assert check_checksums(path, {0}) == []
