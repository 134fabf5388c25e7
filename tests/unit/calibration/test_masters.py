"""Master frames: which inputs go in, which pixels are bad, and what a master is compared with."""

import numpy as np
import pytest
import simulate
from astropy.io import fits
from framefacts import made_facts

import lib.calibration.masters
from lib.calibration.bias import make_bias
from lib.calibration.dark import hot_pixels, make_dark
from lib.calibration.detector import fill_holes
from lib.calibration.flat import deviant_pixels, illuminated_area, make_flat
from lib.calibration.masters import (
    Input,
    NoGoodInput,
    combine_inputs,
    compare_masters,
    judge_siblings,
    outliers,
    pixel_noise,
    rejected_master,
    unstable_pixels,
)
from lib.frame.file import BAD, NODATA, SATURATED, Frame, FrameRejected

SHAPE = (96, 128)


def facts_of(frame, exptime=0.0, **changes):
    amplifier = {
        "hdu": 0,
        "data": [0, SHAPE[0], 0, SHAPE[1]],
        "overscan": None,
        "origin": [0, 0],
    }
    return made_facts(
        **{
            "frame": frame,
            "shape": list(SHAPE),
            "amplifiers": [amplifier],
            "gain": 2.0,
            "rdnoise": 8.0,
            "saturate": 60000,
            "linear": None,
            "exptime": exptime,
            "instrument": "test",
            "camera": "C0",
            "filter": "r",
        }
        | changes
    )


def write(folder, name, image):
    fits.PrimaryHDU(np.asarray(image).clip(0, 65535).round().astype(np.uint16)).writeto(
        folder / f"{name}.fits"
    )
    return folder / f"{name}.fits"


def judged(planes):
    inputs = [
        Input(f"2b{n}", float(np.median(plane)), pixel_noise(plane))
        for n, plane in enumerate(planes)
    ]
    judge_siblings(inputs, planes)
    return [one.why.split(":")[0] for one in inputs]


def test_siblings_that_stand_apart_are_left_out():
    rng = np.random.default_rng(1)
    planes = list(rng.normal(1000, 5, (8, *SHAPE)).astype(np.float32))
    assert judged(planes) == [""] * 8
    planes[1] = planes[1] + 40
    planes[3] = 1000 + 4 * (planes[3] - 1000)
    planes[5] = planes[5] + np.linspace(-30, 30, SHAPE[1], dtype=np.float32)
    assert judged(planes) == ["", "LEVEL", "", "NOISE", "", "GRADIENT", "", ""]


def test_two_inputs_cannot_tell_which_of_them_is_wrong():
    assert not outliers([1.0, 100.0], floor=1.0).any()
    np.testing.assert_array_equal(outliers([1, 1.1, 0.9, 100], 1.0), [False, False, False, True])


def test_pixel_noise_is_blind_to_gradients_and_stars():
    rng = np.random.default_rng(2)
    image = rng.normal(0, 7, (200, 200)) + np.linspace(0, 500, 200)
    image[50:60, 50:60] += 4000
    assert pixel_noise(image) == pytest.approx(7, rel=0.05)


def test_spooled_inputs_give_the_same_master(monkeypatch):
    rng = np.random.default_rng(3)
    planes = rng.normal(100, 5, (7, *SHAPE)).astype(np.float32)
    names = [f"2b{n}" for n in range(7)]

    def read(n):
        return planes[n].copy(), None

    in_memory = combine_inputs(names, read, judge_siblings, SHAPE, clip=4.0)[0]
    monkeypatch.setattr(lib.calibration.masters, "IN_MEMORY", 0)
    spooled = combine_inputs(names, read, judge_siblings, SHAPE, clip=4.0)[0]
    np.testing.assert_array_equal(in_memory, spooled)


def test_a_master_without_inputs_tells_why_of_each():
    def read(n):
        raise FrameRejected("SATURATED", f"{n + 90}% of the pixels")

    with pytest.raises(NoGoodInput, match="0 < 1 of 2") as caught:
        combine_inputs(["2f1", "2f2"], read, judge_siblings, SHAPE, clip=4.0)
    master = rejected_master("flat", facts_of("2f1"), ["2f1", "2f2"], caught.value)
    assert master.rejected and master.header["NCOMBINE"] == 0
    assert master.header["LEFT2"] == "2f2 SATURATED: 91% of the pixels"


def test_pixels_that_scatter_are_unstable():
    rng = np.random.default_rng(4)
    extent = np.abs(rng.normal(3, 0.8, SHAPE)).astype(np.float32)
    extent[10, 20] = 60
    assert not unstable_pixels(extent, 1.0, 4).any()
    found = unstable_pixels(extent, 1.0, 9)
    assert found[10, 20] and found.sum() == 1
    # As much as its own photons make a bright pixel scatter.
    expected = np.ones(SHAPE, np.float32)
    expected[10, 20] = 20
    assert not unstable_pixels(extent, expected, 9).any()


def test_unstable_pixels_and_a_cosmic_ray_in_biases(tmp_path):
    rng = np.random.default_rng(5)
    paths = []
    for n in range(9):
        image = rng.normal(500, 4, SHAPE)
        image[30, 40] += 300 * (n % 2)
        if n == 3:
            image[60, 70:75] += 5000
        paths.append(write(tmp_path, f"2b{n}", image))
    bias = make_bias(paths, [facts_of(path.stem) for path in paths])
    assert bias.mask[30, 40] & BAD
    assert not bias.mask[60, 70:75].any()
    assert bias.image[60, 70:75] == pytest.approx(500, abs=6)
    assert bias.header["NBAD"] == (bias.mask > 0).sum() <= 3


def test_hot_pixels_of_a_dark(tmp_path):
    rng = np.random.default_rng(6)
    rate = rng.gamma(16, 0.05 / 16, SHAPE)
    rate[20, 30:33] = 40.0
    bias = Frame(np.full(SHAPE, 500, np.float32), np.zeros(SHAPE, np.uint8), fits.Header())
    paths = []
    for n in range(6):
        image = 500 + (rng.poisson(rate * 60) + rng.normal(0, 8, SHAPE)) / 2
        paths.append(write(tmp_path, f"2d{n}", image))
    dark = make_dark(paths, [facts_of(path.stem, 60.0) for path in paths], bias)
    assert (dark.mask[20, 30:33] & BAD).all()
    # A hot pixel is hot, not unstable: its scatter is that of its electrons.
    assert dark.header["NHOT"] == 3 and dark.header["NUNSTABL"] == 0
    assert dark.image[20, 31] == pytest.approx(20, rel=0.02)
    assert not hot_pixels(np.ones(SHAPE), 50).any()


def test_flat_marks_what_it_cannot_correct(tmp_path):
    rng = np.random.default_rng(7)
    maps = simulate.simulate_frame(
        SHAPE, stars=0, flat=True, bad=4e-3, hot=0.0, grain=0.01, dust_rings=2, seed=7
    )[2]
    flat = maps.flat.copy()
    flat[:, :4] = 0.02
    paths = []
    for n in range(5):
        image = (rng.poisson(50000 * flat) + rng.normal(0, 8, SHAPE)) / 2
        paths.append(write(tmp_path, f"2f{n}", image))
    made = make_flat(paths, [facts_of(path.stem, 5.0) for path in paths])
    assert made.header["ILLUM"] == f"[0:{SHAPE[0]},6:{SHAPE[1]}]"
    assert (made.mask[:, :6] & NODATA).all()
    inner = np.s_[:, 6:]
    defect = maps.bad[inner] > 0
    marked = made.mask[inner] & (BAD | NODATA) > 0
    clear = defect & (flat[inner] < 0.6)
    assert clear.sum() > 10 and marked[clear].all()
    # A hundredth of grain, and dust: nothing of that is a defect.
    assert (marked & ~defect).sum() == 0
    good = ~marked & ~defect
    error = made.image[inner][good] / flat[inner][good]
    assert (error / np.median(error) - 1).std() < 1.3 / np.sqrt(5 * 50000 * 0.8)


def test_deviant_pixels_stand_in_their_surroundings():
    image = np.linspace(0.8, 1.2, SHAPE[1], dtype=np.float32) * np.ones((SHAPE[0], 1), np.float32)
    image[40, 50], image[60, 70], image[20:22, 20:22] = 0.55, 1.6, 0.5
    image[80, 80] = 0.85  # 20 per cent
    found = deviant_pixels(image, 0.3)
    expected = np.zeros(SHAPE, bool)
    expected[40, 50] = expected[60, 70] = expected[20:22, 20:22] = True
    np.testing.assert_array_equal(found, expected)


def test_illuminated_area_of_a_shifted_field():
    response = np.ones(SHAPE, np.float32)
    assert illuminated_area(response) == [0, 96, 0, 128]
    response[:10] = response[:, 120:] = 0.05
    assert illuminated_area(response) == [12, 96, 0, 118]
    assert illuminated_area(response * 0) == [0, 96, 0, 128]


def test_the_core_of_a_burnt_out_star_is_saturated():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = SATURATED
    mask[13:17, 13:17] = 0
    mask[14:16, 10:13] = 0  # a gap in the rim
    # Two bleeding columns and the edges between them enclose much that is fine.
    mask[:, 30] = mask[:, 38] = mask[0, 30:39] = mask[39, 30:39] = SATURATED
    fill_holes(mask, SATURATED)
    assert (mask[10:20, 10:20] == SATURATED).all()
    assert not mask[1:39, 31:38].any()


def test_difference_from_a_ready_master_is_told():
    rng = np.random.default_rng(8)
    mask = np.zeros(SHAPE, np.uint8)
    made = Frame(rng.normal(10, 1, SHAPE).astype(np.float32), mask, fits.Header())
    ready = Frame(made.image - 3, mask, fits.Header())
    compare_masters(made.header, made, ready)
    assert made.header["CMPMED"] == pytest.approx(3, abs=1e-3)
    compare_masters(made.header, made, Frame(made.image / 1.05, mask), relative=True)
    assert made.header["CMPMED"] == pytest.approx(0.05, abs=1e-4)
    header = fits.Header()
    compare_masters(header, made, Frame(made.image[1:], mask[1:]))
    assert header["CMPNOTE"] == "shape (95, 128)"
    compare_masters(header, made, Frame(None, None))
    assert header["CMPNOTE"] == "no image to compare"


@pytest.mark.parametrize("exptime, rate", [(10.0, 0.02), (300.0, 0.5)])
def test_noise_of_a_short_dark_is_not_scaled_up(tmp_path, exptime, rate):
    """Of three darks for a flat of 350 s: the structure counts as far as it is not noise."""
    rng = np.random.default_rng(8)
    true = rng.gamma(16, rate / 16, SHAPE) * (1 + 0.3 * np.linspace(-1, 1, SHAPE[1]))
    true[20, 30] = 400 * rate
    bias = Frame(np.full(SHAPE, 500, np.float32), np.zeros(SHAPE, np.uint8), fits.Header())
    bias.header["NCOMBINE"] = 50
    paths = []
    for n in range(3):
        image = 500 + (rng.poisson(true * exptime) + rng.normal(0, 8, SHAPE)) / 2
        paths.append(write(tmp_path, f"2d{n}", image))
    dark = make_dark(paths, [facts_of(path.stem, exptime) for path in paths], bias)
    error = 2 * dark.image - true
    noise = np.sqrt(64 + true.mean() * exptime) / np.sqrt(3) / exptime
    rest = np.ones(SHAPE, bool)
    rest[19:22, 29:32] = False
    if exptime == 10:
        assert dark.header["DARKWGT"] < 0.2
        assert error[rest].std() < 0.3 * noise
    else:
        assert "DARKWGT" not in dark.header
        assert error[rest].std() == pytest.approx(noise, rel=0.15)
    assert abs(np.median(error[rest])) < 0.1 * noise
