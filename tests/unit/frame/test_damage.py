"""Damage of files is seen, whatever byte it is in."""

import random

import numpy as np
import pytest
from astropy.io import fits

from lib.frame.damage import damage_of_fits, damage_of_text
from lib.frame.file import Frame, write_frame


@pytest.fixture
def product(tmp_path):
    path = tmp_path / "p2.fits"
    rng = np.random.default_rng(1)
    image = rng.normal(100, 5, (60, 70)).astype(np.float32)
    header = fits.Header({"OBJECT": "M 1", "GAIN": 1.5})
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(9.0))], name="T")
    write_frame(path, Frame(image, np.zeros(image.shape, np.uint8), header), [table])
    return path


def test_whole_file_is_whole(product):
    assert damage_of_fits(product) == ""


def test_every_flipped_bit_is_seen(product):
    """In 600 places of header, pixels, mask, table and padding."""
    good = product.read_bytes()
    places = random.Random(3)
    for _ in range(600):
        bad = bytearray(good)
        bad[places.randrange(len(bad))] ^= 1 << places.randrange(8)
        product.write_bytes(bad)
        assert damage_of_fits(product) != ""


@pytest.mark.parametrize("part", [0, 1, 100, 2880, 5000, -2880, -1])
def test_every_short_file_is_seen(product, part):
    product.write_bytes(product.read_bytes()[:part])
    assert damage_of_fits(product) != ""


def test_what_follows_and_what_is_no_product_is_seen(product):
    good = product.read_bytes()
    for bad in (good + b"\0" * 2880, b"\0" * len(good), b"null", b"SIMPLE  =" + b" " * 9000):
        product.write_bytes(bad)
        assert damage_of_fits(product) != ""


@pytest.mark.parametrize(
    "name, good",
    [("a.json", b'{"a": 1}\n'), ("a.html", b"<html></html>\n"), ("a.ecsv", b"ra\n1\n")],
)
def test_text_is_whole_to_its_end(tmp_path, name, good):
    path = tmp_path / name
    path.write_bytes(good)
    assert damage_of_text(path) == ""
    for bad in (b"", b"\0" * 40) if name == "a.ecsv" else (b"", b"\0" * 40, b"null", good[:-3]):
        path.write_bytes(bad)
        assert damage_of_text(path) != ""
