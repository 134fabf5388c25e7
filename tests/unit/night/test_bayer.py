"""Colour matrices: told, or parted into frames of each colour, or of cells."""

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from test_header_readings import BASE, facts_of

from lib.calibration.detector import assemble, odd_greens
from lib.night.bayer import bayer_pattern
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU

COLOUR = BASE | {
    "BAYERPAT": "RGGB",
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 20.0,
    "CRPIX1": 20.0,
    "CRPIX2": 31.0,
    "CD1_1": -1e-4,
    "CD2_2": 1e-4,
}


@pytest.mark.parametrize(
    ("cards", "pattern"),
    [
        ({"BAYERPAT": "RGGB"}, "RGGB"),
        ({"COLORTYP": "GBRG"}, "GBRG"),
        ({"BAYERPAT": "RGGB", "XBAYROFF": 1}, "GRBG"),
        ({"BAYERPAT": "RGGB", "YBAYROFF": 1}, "GBRG"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "TOP-DOWN", "NAXIS2": 100}, "RGGB"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP", "NAXIS2": 100}, "GBRG"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP", "NAXIS2": 101}, "RGGB"),
        ({"BAYERPAT": "RGGB", "BAYOFFX": 1, "BAYOFFY": 1}, "BGGR"),
        ({"BAYERPAT": "RGGB", "BAYROFFY": 3}, "GBRG"),
        ({"BAYERPAT": "bggr", "ROWORDER": "bottom-up", "ZNAXIS2": 100, "NAXIS2": 25}, "GRBG"),
        ({"BAYERPAT": "NONE"}, ""),
        ({}, ""),
    ],
)
def test_pattern(cards, pattern):
    assert bayer_pattern(cards) == pattern


def test_a_matrix_is_told_where_it_is_not_parted():
    assert "RGGB" in facts_of({"BAYERPAT": "RGGB"}).notes[0]
    assert facts_of({"BAYERPAT": "RGGB", "IMAGETYP": "Bias"}).notes == []


def frames_of(tmp_path, mode, header=COLOUR, shape=(60, 80)):
    path = tmp_path / f"{mode}.yaml"
    content = {"name": "osc", "extends": "generic", "cameras": {"C0": {"bayer": mode}}}
    path.write_text(yaml.safe_dump(content))
    return interpret(header, [RawHDU(0, header, list(shape))], "x.fits", load_instrument(path))


def raw_matrix(tmp_path, shape=(60, 80)):
    """Levels 100, 200 and 210, 300 in R, the two G, B; one pixel of each marks its place."""
    raw = np.zeros(shape, np.uint16)
    raw[0::2, 0::2], raw[0::2, 1::2], raw[1::2, 0::2], raw[1::2, 1::2] = 100, 200, 210, 300
    raw[10, 20], raw[11, 31] = 900, 800
    path = tmp_path / "m.fits"
    fits.PrimaryHDU(raw).writeto(path)
    return path


def test_planes_of_each_colour(tmp_path):
    path = raw_matrix(tmp_path)
    red, green, blue = frames_of(tmp_path, "split")
    assert [one.filter for one in (red, green, blue)] == ["TR", "TG", "TB"]
    assert [one.band for one in (red, green, blue)] == ["R", "V", "B"]
    assert len({one.frame for one in (red, green, blue)}) == 3
    images = [assemble(path, one).ccd.data for one in (red, green, blue)]
    assert [float(np.median(image)) for image in images] == [100, 205, 300]
    assert {image.shape for image in images} == {(30, 40)}
    assert images[0][5, 10] == 900 and images[2][5, 15] == 800
    # The mean of two greens: twice the electrons by DN, and the noise of two reads.
    assert (red.gain, green.gain) == (1.5, 3.0)
    assert green.rdnoise == pytest.approx(5 * 2**0.5, abs=1e-3)


def test_cells(tmp_path):
    (cell,) = frames_of(tmp_path, "superpixel")
    image = assemble(raw_matrix(tmp_path), cell).ccd.data
    assert float(np.median(image)) == 202.5 and cell.filter == "r"
    assert cell.gain == 6.0 and cell.rdnoise == 10.0 and cell.pixscale == pytest.approx(0.72)


def test_world_coordinates_of_a_plane_are_those_of_its_pixels(tmp_path):
    whole = WCS({key: COLOUR[key] for key in COLOUR if key[0] == "C"}, naxis=2)
    (cell,) = frames_of(tmp_path, "superpixel")
    red, _, blue = frames_of(tmp_path, "split")
    # Pixel (16, 6) of a plane, from 1: columns 31 and 32, rows 11 and 12 of the raw frame.
    for facts, place in ((red, (31, 11)), (blue, (32, 12)), (cell, (31.5, 11.5))):
        found = WCS(facts.wcs, naxis=2).all_pix2world(16, 6, 1)
        np.testing.assert_allclose(found, whole.all_pix2world(*place, 1), atol=1e-8)


def test_a_section_that_begins_at_an_odd_pixel(tmp_path):
    header = COLOUR | {"TRIMSEC": "[2:79,2:59]"}
    red, _, blue = frames_of(tmp_path, "split", header)
    path = raw_matrix(tmp_path)
    assert float(np.median(assemble(path, red).ccd.data)) == 100
    assert float(np.median(assemble(path, blue).ccd.data)) == 300
    whole = WCS({key: COLOUR[key] for key in COLOUR if key[0] == "C"}, naxis=2)
    found = WCS(red.wcs, naxis=2).all_pix2world(1, 1, 1)
    np.testing.assert_allclose(found, whole.all_pix2world(3, 3, 1), atol=1e-8)


@pytest.mark.parametrize("rowless", ["RGGB", "GRBG"])
@pytest.mark.parametrize("true", ["RGGB", "GRBG"])
@pytest.mark.parametrize("light", [0.0, 2000.0])
def test_a_matrix_that_the_pixels_contradict_is_told(rowless, true, light):
    """Red, green and blue light of 0.6, 1, 0.8 on a bias of 500 DN; a dark frame tells nothing."""
    rng = np.random.default_rng(3)
    image = rng.normal(500, 5, (200, 200))
    for place, colour in enumerate(true):
        part = image[place // 2 :: 2, place % 2 :: 2]
        part += rng.normal(light * {"R": 0.6, "G": 1.0, "B": 0.8}[colour], 30, part.shape)
    phases = [[place // 2, place % 2] for place, colour in enumerate(rowless) if colour == "G"]
    told = odd_greens(image.astype(np.float32), phases)
    assert bool(told) == (rowless != true and light > 0)
    assert odd_greens(image, phases[:1]) == []
