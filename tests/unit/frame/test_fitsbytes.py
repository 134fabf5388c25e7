"""FITS files written and read as bytes, against astropy."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lib.frame.file import COSMIC, Frame, read_header, write_frame
from lib.frame.fitsbytes import (
    copy_with_header,
    encode_checksum,
    map_images,
    ones_sum,
    read_head,
    read_table,
    write_ldac,
)

pytestmark = pytest.mark.filterwarnings("error")


def test_catalogue_is_read_by_astropy(tmp_path):
    cards = {"SIMPLE": True, "NAXIS": 2, "CRVAL1": 1.23456789012345e-07, "FILTER": "o'clock"}
    columns = {"X": np.array([1.5, np.pi]), "FLUX": np.array([1, 2], "f4"),
               "FLAGS": np.array([3, 4], "i2"), "N": np.array([5, 6], "i4")}  # fmt: skip
    write_ldac(tmp_path / "a.ldac", cards, columns)
    with fits.open(tmp_path / "a.ldac") as hdus:
        hdus.verify("exception")
        told = fits.Header.fromstring("".join(hdus["LDAC_IMHEAD"].data[0][0].ravel().tolist()))
        assert [told[key] for key in cards] == list(cards.values())
        for name, values in columns.items():
            assert np.array_equal(hdus["LDAC_OBJECTS"].data[name], values)


def test_table_of_astropy_is_read(tmp_path):
    table = Table({"A": [1.5, 2.5], "B": np.array([1, 2], "f4"), "C": np.array([7, -8], "i4"),
                   "D": np.array([1, -2], "i2"), "E": [True, False]})  # fmt: skip
    hdus = [fits.PrimaryHDU(np.zeros((3, 5), np.float32)), fits.BinTableHDU(table, name="SOURCES")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    read = read_table(tmp_path / "a.fits", "SOURCES")
    assert read.dtype.names == ("A", "B", "C", "D", "E")
    assert all(np.array_equal(read[name], table[name]) for name in read.dtype.names)
    assert all(read.dtype[name].isnative for name in read.dtype.names)
    with pytest.raises(KeyError, match="no OTHER"):
        read_table(tmp_path / "a.fits", "OTHER")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_half_a_table_is_told(tmp_path, part):
    path = tmp_path / "a.fits"
    fits.BinTableHDU(Table({"A": np.zeros(3000)}), name="SOURCES").writeto(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match="bytes"):
        read_table(path, "SOURCES")


def test_text_columns_are_refused(tmp_path):
    fits.BinTableHDU(Table({"A": ["text"]}), name="SOURCES").writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="columns"):
        read_table(tmp_path / "a.fits", "SOURCES")


@pytest.fixture
def frame(tmp_path):
    """A frame file of 40 x 70 pixels."""
    rng = np.random.default_rng(2)
    header = fits.Header({"FRAME": "2a", "BUNIT": "electron"})
    header.add_history("made " + "up " * 40)
    mask = (COSMIC * (rng.random((40, 70)) > 0.9)).astype(np.uint8)
    made = Frame(rng.normal(size=(40, 70)).astype(np.float32), mask, header)
    write_frame(tmp_path / "2a.fits", made)
    return tmp_path / "2a.fits", made


def test_frame_is_mapped(frame):
    path, made = frame
    lines, images = map_images(path)
    assert np.array_equal(images[""], made.image)
    assert np.array_equal(images["MASK"], made.mask)
    header = read_header(path)
    assert "".join(f"{line:80}" for line in lines) == header.tostring(endcard=False, padding=False)


def test_scaled_images_are_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((2, 2), np.uint16)).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="no plain images"):
        map_images(tmp_path / "a.fits")


def test_half_a_frame_is_told(frame):
    path, _ = frame
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="bytes"):
        map_images(path)


def test_copy_with_another_header(frame, tmp_path):
    path, made = frame
    header = read_header(path)
    # Longer by a record than before.
    for k in range(40):
        header[f"KEY{k}"] = k / 7
    copy_with_header(path, tmp_path / "copy.fits", header)
    # With `checksum` astropy warns where a sum is wrong; warnings are errors here.
    with fits.open(tmp_path / "copy.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert [hdus[0].header[f"KEY{k}"] for k in range(40)] == [k / 7 for k in range(40)]
        assert np.array_equal(hdus[0].data, made.image)
        assert np.array_equal(hdus["MASK"].data, made.mask)


def test_wrong_datasum_is_not_hidden(frame, tmp_path):
    path, _ = frame
    words = bytearray(path.read_bytes())
    words[6000] ^= 1
    path.write_bytes(words)
    copy_with_header(path, tmp_path / "copy.fits", read_header(path))
    with pytest.warns(UserWarning, match=r"Datasum|Checksum"):
        fits.open(tmp_path / "copy.fits", checksum=True).close()


def test_checksum_makes_the_sum_of_an_hdu_minus_zero():
    rng = np.random.default_rng(3)
    for _ in range(200):
        rest = rng.integers(0, 256, 2880, dtype=np.uint8).tobytes()
        total = ones_sum(rest + b"0" * 16)
        text = encode_checksum(total)
        assert text.isalnum() and text.isascii() and len(text) == 16
        # The value of a card begins at the fourth byte of a word: turned by one.
        aligned = text[1:] + text[0]
        zero = ones_sum(rest + b"0" * 16) + ones_sum(aligned.encode()) - ones_sum(b"0" * 16)
        assert zero % 0xFFFFFFFF == 0


def test_head_with_what_is_no_number(tmp_path):
    cards = {"CTYPE1": "'RA---TAN'", "CRVAL1": "nan"}
    cards |= dict.fromkeys(
        ("CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2"), "1.0"
    )
    path = tmp_path / "a.head"
    path.write_text("".join(f"{key:8}= {value} / comment\n" for key, value in cards.items()))
    with pytest.raises(ValueError, match="not finite"):
        read_head(path)


def test_image_before_a_compressed_one_is_mapped(tmp_path):
    image = np.arange(12.0, dtype=">f4").reshape(3, 4)
    noise = np.random.default_rng(1).integers(0, 30000, (100, 100)).astype(np.int16)
    hdus = [fits.PrimaryHDU(image), fits.CompImageHDU(noise, name="COVERAGE")]
    hdus += [fits.ImageHDU(image + 1, name="MORE")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    _, images = map_images(tmp_path / "a.fits")
    assert list(images) == ["", "MORE"] and (images["MORE"] == image + 1).all()
