"""Pictures of images."""

import base64
import io

import numpy as np
from PIL import Image

from lib.frame.file import COSMIC, SATURATED
from lib.report import pictures


def test_block_means_and_bits():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(13, 17)).astype(np.float32)
    small = pictures.block_mean(image, 4)
    expected = image[:12, :16].reshape(3, 4, 4, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(small, expected, rtol=1e-5, atol=1e-6)
    mask = np.zeros((13, 17), np.uint8)
    mask[5, 9], mask[6, 10] = COSMIC, SATURATED
    bits = pictures.block_bits(mask, 4)
    assert bits[1, 2] == COSMIC | SATURATED and bits.sum() == COSMIC | SATURATED


def test_reduced_picture_has_no_holes_within_the_data():
    image = np.full((64, 64), 3.0, np.float32)
    valid = np.ones(image.shape, bool)
    image[30:38, 30:38], image[28:40, 26:30] = 0, 900  # beside a burnt-out core, light
    valid[30:38, 30:38] = False
    image[5, 5], valid[5, 5] = np.nan, False  # a lone pixel does not spoil its block
    valid[:, 48:] = False
    small, covered = pictures.reduce_covered(image, valid, 4)
    assert small[1, 1] == 3 and small[8, 7] > 100
    assert covered[:, :12].all() and not covered[:, 12:].any()


def test_enclosed_pixels_take_the_value_beside_them():
    image = np.add.outer(np.zeros(20), np.arange(20.0)).astype(np.float32)
    covered = np.ones(image.shape, bool)
    covered[5:12, 5:9] = covered[15, 15] = False  # enclosed
    covered[3:6, 17:] = False  # open to the rim
    image[~covered] = 0
    filled = pictures.fill_enclosed(image, covered)
    assert filled.sum() == 29 and filled[5:12, 5:9].all() and filled[15, 15]
    assert image[15, 15] == 15
    assert image[5:12, 5].max() < image[5:12, 8].min()
    assert 4 <= image[5:12, 5:9].min() and image[5:12, 5:9].max() <= 9
    assert (image[3:6, 17:] == 0).all()


def test_picture_and_thumbnail_show_the_same():
    rng = np.random.default_rng(5)
    image = rng.normal(0, 1, (600, 400)).astype(">f4")
    image[300:320, 100:120] += 1000
    image[0, 0] = np.nan
    valid = np.ones(image.shape, bool)
    uris = pictures.covered_pictures(image, valid, (200, 50), (90, 90))
    large, small = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))
        for uri in uris
    )
    assert (large.shape, small.shape) == ((200, 133), (50, 33))
    # The star stands where it is, rows from the top.
    for picture in (large, small):
        y, x = np.unravel_index(np.argmax(picture), picture.shape)
        assert abs(x / picture.shape[1] - 110 / 400) < 0.05
        assert abs(y / picture.shape[0] - 290 / 600) < 0.05


def test_stretch_shows_faint_and_bright():
    rng = np.random.default_rng(2)
    image = rng.normal(1000, 10, (200, 200)).astype(np.float32)
    image[50:60, 50:60] += 50  # 5 sigma
    image[140:160, 140:160] += 5000
    grey = pictures.stretch(image)
    sky = np.median(grey)
    assert grey[155, 155] >= 250
    assert sky + 30 < np.median(grey[50:60, 50:60]) < 200
    assert 10 < sky < 120
    image[0, 0] = np.nan
    assert pictures.stretch(image)[0, 0] == 0


def test_pictures_stand_upright():
    picture = np.zeros((10, 20), np.uint8)
    picture[9, 0] = 255  # top left on the sky
    uri = pictures.encode(picture, 0)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))
    assert shown.shape == (10, 20) and shown[0, 0] == 255 and shown[9, 0] == 0


def test_colour_picture_of_equal_images_is_grey_and_of_unequal_ones_coloured():
    rng = np.random.default_rng(4)
    sky = rng.normal(0, 1, (80, 80))
    for y, x in rng.integers(5, 75, (12, 2)):
        sky[y - 1 : y + 2, x - 1 : x + 2] += 300
    same = pictures.composite(sky, 7 * sky, 3 * sky)
    assert np.ptp(same.astype(int), axis=-1).max() <= 1
    red = sky.copy()
    red[40:43, 40:43] += 900
    star = pictures.composite(red, sky, sky)[41, 41].astype(int)
    assert star[0] > star[1] + 20 and star[0] > star[2] + 20


def test_three_images_are_chosen_by_the_sky_they_share():
    whole, left, right = (np.full((10, 10), np.nan) for _ in range(3))
    whole[:] = 1
    left[:, :6] = 1
    right[:, 6:] = 1
    chosen = pictures.choose_three([whole, left, right, left, whole])
    assert 2 not in chosen
    assert pictures.choose_three([left, right, left]) is None
    assert pictures.choose_three([whole, left]) is None
