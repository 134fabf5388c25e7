"""Raw files that open to more than they hold are refused by their header, everywhere."""

import gzip
import os
import time

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.calibration.prepare import prepare_frame
from lib.calibration.rawpixels import map_raw, read_raw
from lib.frame.file import FrameRejected
from lib.night import nightlog
from lib.night.frameignored import FrameUnusable
from lib.night.rawheaders import read_headers
from lib.report.framecards import raw_picture


def cards(**keys):
    """Return a header in whole records."""
    text = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in keys.items())
    text += "END".ljust(80)
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


def packed_bomb(path, rows=60_000, length=60_000):
    """Write an .fz of which every tile is the same few bytes: 0.5 MB that open to 7 GB."""
    table = {
        "XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": rows,
        "PCOUNT": 2880, "GCOUNT": 1, "TFIELDS": 1, "TTYPE1": "'COMPRESSED_DATA'",
        "TFORM1": "'1PB(60)'", "ZIMAGE": "T", "ZBITPIX": 16, "ZNAXIS": 2, "ZNAXIS1": length,
        "ZNAXIS2": rows, "ZTILE1": length, "ZTILE2": 1, "ZCMPTYPE": "'GZIP_1  '",
    }  # fmt: skip
    tile = gzip.compress(b"\0" * 2 * length)
    heap = tile.ljust(2880, b"\0")
    rows_bytes = np.full((rows, 2), (len(tile), 0), ">i4").tobytes()
    data = rows_bytes + heap
    primary = cards(SIMPLE="T", BITPIX=8, NAXIS=0, EXTEND="T")
    path.write_bytes(primary + cards(**table) + data + b"\0" * (-len(data) % 2880))


def zipped_bomb(path, behind=False):
    """Write a .gz of 3 MB that opens to 3 GB, of an image, or zeros behind a small one."""
    axes = (1000, 1000) if behind else (30_000, 30_000)
    head = cards(SIMPLE="T", BITPIX=16, NAXIS=2, NAXIS1=axes[0], NAXIS2=axes[1])
    piece = gzip.compress(b"\0" * (1 << 26))
    path.write_bytes(gzip.compress(head) + piece * 45)


def sparse_bomb(path):
    """Write a plain file of 40 GB that takes one block on disk."""
    head = cards(SIMPLE="T", BITPIX=16, NAXIS=2, NAXIS1=30_000, NAXIS2=30_000)
    path.write_bytes(head)
    os.truncate(path, len(head) + 2 * 30_000**2)


def wide_bomb(path):
    """Write a table that announces a hundred thousand million columns."""
    table = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1,
             "PCOUNT": 0, "GCOUNT": 1, "TFIELDS": 99999999999}  # fmt: skip
    primary = cards(SIMPLE="T", BITPIX=8, NAXIS=0, EXTEND="T")
    path.write_bytes(primary + cards(**table) + b"\0" * 2880)


BOMBS = {
    "packed.fits.fz": (packed_bomb, "TOO_LARGE: an image of 3600000000 pixels"),
    "tall.fits.fz": (
        lambda path: packed_bomb(path, 20_000, 30_000),
        "TOO_LARGE: .* open to 1.2 GB",
    ),
    "zipped.fits.gz": (zipped_bomb, "TOO_LARGE: .* MB on disk that open to 1.8 GB"),
    "behind.fits.gz": (lambda path: zipped_bomb(path, behind=True), "TOO_LARGE: .* open to 0.29"),
    "sparse.fits": (sparse_bomb, "TOO_LARGE: .* open to 1.8 GB"),
    "wide.fits.fz": (wide_bomb, "BAD_HEADER: TFIELDS is 99999999999"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bomb_is_refused_by_its_header(tmp_path, name):
    write, said = BOMBS[name]
    path = tmp_path / name
    write(path)
    assert 512 * path.stat().st_blocks < 4e6
    begun = time.process_time()
    with pytest.raises(FrameUnusable, match=said):
        read_headers(path)
    (row,) = nightlog.scan(tmp_path, "generic").rows
    assert row.status == "REJECTED" and row.reason.partition(":")[0] in said
    assert time.process_time() - begun < 5
    # A file that has become one since the night log was made: in prepare, and on the page.
    amplifier = {"hdu": int("fz" in name), "data": [0, 9, 0, 9]}
    facts = made_facts(amplifiers=[amplifier], shape=[9, 9], calibrations={})
    if name != "behind.fits.gz":
        with pytest.raises(FrameRejected, match=said):
            prepare_frame(path, facts)
        assert raw_picture(str(path), facts, 20)["why"].startswith(said.partition(":")[0])
    assert time.process_time() - begun < 10


def test_blank_frames_are_no_bombs(tmp_path):
    """A packed bias of a simulator, all of one value, opens to two hundred times its size."""
    data = np.full((2000, 3000), 300, np.uint16)
    fits.PrimaryHDU(data).writeto(tmp_path / "plain.fits")
    with gzip.open(tmp_path / "zipped.fits.gz", "wb") as file:
        file.write((tmp_path / "plain.fits").read_bytes())
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(data, compression_type="GZIP_2")]
    fits.HDUList(hdus).writeto(tmp_path / "packed.fits.fz")
    for name, hdu in {"plain.fits": 0, "zipped.fits.gz": 0, "packed.fits.fz": 1}.items():
        assert read_headers(tmp_path / name).hdus[hdu].shape == [2000, 3000]
        assert (read_raw(tmp_path / name, {hdu})[hdu] == 300).all()
        assert map_raw(tmp_path / name, hdu).shape == (2000, 3000)


def test_raw_file_that_is_gone_has_its_reason(tmp_path):
    facts = made_facts(amplifiers=[{"hdu": 0, "data": [0, 9, 0, 9]}], shape=[9, 9], calibrations={})
    with pytest.raises(FrameRejected, match="UNREADABLE: No such file"):
        prepare_frame(tmp_path / "gone.fits", facts)
    assert "UNREADABLE" in raw_picture(str(tmp_path / "gone.fits"), facts, 20)["why"]


def packed_pixels(path, pixels):
    """Write an image, zipped where the name ends so."""
    fits.PrimaryHDU(pixels).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("tail", [b"\xf7binary\x00" * 592, b"RECORD".ljust(2880), b"x" * 37])
def test_what_follows_the_image_is_no_matter(tmp_path, tail, zipped):
    """The standard allows special records; cameras write what they like."""
    pixels = np.arange(600, dtype=np.int16).reshape(20, 30)
    path = packed_pixels(tmp_path / "a.fits", pixels)
    content = path.read_bytes() + tail
    if zipped:
        path = tmp_path / "a.fits.gz"
        content = gzip.compress(content)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_raw(path, {0})[0], pixels)
    np.testing.assert_array_equal(map_raw(path, 0), pixels)


@pytest.mark.parametrize("shape", [(1, 20, 30), (1, 1, 20, 30), (20, 1, 30)])
@pytest.mark.parametrize("packed", [False, True])
def test_axes_of_one_pixel_are_none(tmp_path, shape, packed):
    pixels = np.arange(600, dtype=np.int16).reshape(shape)
    path = tmp_path / ("a.fits.fz" if packed else "a.fits")
    hdu = fits.CompImageHDU(pixels) if packed else fits.ImageHDU(pixels)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    assert read_headers(path).hdus[1].shape == [20, 30]
    np.testing.assert_array_equal(read_raw(path, {1})[1], pixels.reshape(20, 30))
