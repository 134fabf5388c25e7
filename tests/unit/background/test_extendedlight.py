"""Light of targets is told from the sky, with truth that knows nothing of how."""

import numpy as np
import pytest
from astropy.io import fits

from lib.background.largesources import first_sky_ring, large_halo, still_light
from lib.background.makesky import sky_from_frames
from lib.background.mastersky import read_sky, write_sky
from lib.background.subtraction import skysub_frame
from lib.frame.file import SOURCE, Frame, read_frame, write_frame

SHAPE = (320, 320)
LEVEL = 900.0
DITHER = [(0, 0), (-34, 21), (26, 37), (-19, -40), (41, -16), (8, 44)]


def nebula(rng, scale=40, size=520):
    """A nebula of 0.2 of the sky on scales larger than the dither."""
    from scipy.ndimage import gaussian_filter

    cloud = gaussian_filter(rng.normal(0, 1, (size, size)), scale)
    return 0.2 * np.clip(cloud / cloud.std() + 1.5, 0, None)


def pattern():
    """A sky that stays on the detector."""
    y, x = np.indices(SHAPE) / SHAPE[0] * 2 - 1
    return 1 + 0.03 * (x**2 - x * y - y**3)


def frames_of(folder, sky, cloud, dither, rng, target="t", stars=25, dims=(1,) * 6):
    """Write frames with a nebula, or None, that moves by `dither`; return paths and the nebula."""
    at = np.random.default_rng(3).uniform(60, 440, (2, stars))
    y, x = np.indices(SHAPE)
    paths, lights = [], []
    for n, (dy, dx) in enumerate(dither):
        top, left = 100 - dy, 100 - dx
        light = np.zeros(SHAPE) if cloud is None else cloud[top:, left:][: SHAPE[0], : SHAPE[1]]
        light = dims[n] * light
        image = LEVEL * (sky + light)
        mask = np.zeros(SHAPE, np.uint8)
        for sy, sx in (at.T - [top, left]) if target == "t" else ():
            away = (y - sy) ** 2 + (x - sx) ** 2
            image = image + 600 * np.exp(-away / 2 / 1.7**2)
            mask[away < 9**2] |= SOURCE
        image = rng.poisson(image) + rng.normal(0, 5, SHAPE)
        level = float(np.median(image[mask == 0]))
        header = fits.Header(
            {"FRAME": f"2{target}{n}", "QCSTAT": "OK", "TARGET": target, "SKYCTS": level,
             "SKYNOISE": level**0.5, "GAIN": 1.0, "RDNOISE": 5.0, "SATURATE": 6e4, "EXPTIME": 60.0}
        )  # fmt: skip
        paths.append(folder / f"fp2{target}{n}.fits")
        write_frame(paths[-1], Frame(image.astype(np.float32), mask, header))
        lights.append(light)
    return paths, lights


def slope_of(paths, lights, sky_path):
    """Return the slope of the nebula measured on the true one, over all frames.

    Each frame's plane is free: the nebula's own is not known.
    """
    y, x = np.indices(SHAPE)
    slopes = []
    for path, light in zip(paths, lights, strict=True):
        frame = read_frame(path)
        after = skysub_frame(frame, read_sky(sky_path, frame.header["FRAME"]), order=1)
        free = after.mask == 0
        terms = np.column_stack([light[free] * LEVEL, np.ones(free.sum()), x[free], y[free]])
        slopes.append(np.linalg.lstsq(terms, after.image[free], rcond=None)[0][0])
    return np.mean(slopes), after


def test_a_nebula_larger_than_the_dither_stays_also_through_clouds(tmp_path):
    rng = np.random.default_rng(1)
    clouds = (1.0, 0.7, 1.0, 0.85, 1.0, 1.0)
    paths, lights = frames_of(tmp_path, np.ones(SHAPE), nebula(rng), DITHER, rng, dims=clouds)
    sky = sky_from_frames(paths)
    write_sky(tmp_path / "sky.fits", sky)
    slope, after = slope_of(paths, lights, tmp_path / "sky.fits")
    assert slope == pytest.approx(1, abs=0.03)
    assert after.header["SKYMODE"] == "separated"
    assert after.header["EXTZERO"] != "profile"
    # The flat is perfect: what is left in the sky is its noise and less than a tenth of the nebula.
    assert sky.image.std() < 0.02


def test_a_disc_whose_outskirts_fill_all_frames_keeps_its_surface_brightness(tmp_path):
    y, x = np.indices((520, 520))
    away = np.hypot(x - 250, (y - 270) / 0.7)
    sums = np.zeros((2, 4))
    # The noise of one night makes up to 5 per cent of the faintest light: the mean of four.
    for seed in (11, 12, 13, 14):
        rng = np.random.default_rng(seed)
        # 0.02 to 0.1 of the sky at the edges of the frames.
        paths, lights = frames_of(tmp_path, pattern(), 0.6 * np.exp(-away / 80), DITHER, rng)
        for path, light in zip(paths, lights, strict=True):
            frame = read_frame(path)
            frame.mask[light > 0.25] |= SOURCE
            write_frame(path, frame)
        master = sky_from_frames(paths)
        write_sky(tmp_path / "sky.fits", master)
        assert master.header["EXTZERO"] == "profile"
        for path, light in zip(paths, lights, strict=True):
            frame = read_frame(path)
            sky = read_sky(tmp_path / "sky.fits", frame.header["FRAME"])
            after = skysub_frame(frame, sky, order=1)
            assert after.header["EXTZERR"] == master.header["EXTZERR"]
            wrong = LEVEL * pattern() - frame.image + after.image
            assert abs(wrong.mean()) < 2 * LEVEL * master.header["EXTZERR"]
            for n, faint in enumerate((0.2, 0.1, 0.05, 0.02)):
                here = (light > faint) & (light < 2 * faint)
                sums[:, n] += wrong[here].sum(), LEVEL * light[here].sum()
    # The light that is lost or gained with the sky.
    assert np.abs(sums[0] / sums[1]).max() < 0.02


def test_sky_that_stays_on_the_detector_is_no_light(tmp_path):
    rng = np.random.default_rng(2)
    paths, _ = frames_of(tmp_path, pattern(), None, DITHER, rng)
    sky = sky_from_frames(paths)
    assert not sky.light
    difference = sky.image / pattern()
    assert (difference / np.median(difference)).std() < 0.005


def test_frames_beside_the_target_tell_its_light_without_dither(tmp_path):
    rng = np.random.default_rng(4)
    paths, lights = frames_of(tmp_path, pattern(), nebula(rng), [(0, 0), (1, 0), (0, 1)], rng)
    beside, _ = frames_of(tmp_path, pattern(), None, [(0, 0)] * 3, rng, target="beside")
    write_sky(tmp_path / "sky.fits", sky_from_frames(paths, others=beside))
    slope, _ = slope_of(paths, lights, tmp_path / "sky.fits")
    assert slope == pytest.approx(1, abs=0.03)


def test_a_halo_of_frames_that_all_point_alike_is_not_told_from_sky_but_kept():
    y, x = np.indices((40, 40))
    away = np.hypot(y - 20, x - 18)
    hidden = np.repeat(np.repeat(away < 6, 8, axis=0), 8, axis=1)
    halo = 1 + 0.1 * np.exp(-away / 8) + np.random.default_rng(6).normal(0, 0.001, away.shape)
    blocks = np.where(away < 6, np.nan, halo)
    light = still_light(blocks, hidden, 0.001)
    true = 0.1 * np.exp(-away / 8)
    # Where light has not ended at the edge of the frame, its level is not known.
    rest = (light - true)[away >= 6]
    assert np.abs(rest - np.median(rest)).max() < 0.005
    # Without a large source, or where it does not rise towards it: sky.
    assert still_light(blocks, np.zeros_like(hidden), 0.001) is None
    tilted = np.where(away < 6, np.nan, 1 + 0.002 * x + 0.001 * y)
    assert still_light(tilted, hidden, 0.001) is None


def test_the_mask_of_a_large_source_grows_to_where_its_light_ends():
    rng = np.random.default_rng(7)
    y, x = np.indices((512, 512))
    away = np.hypot(y - 250, x - 260)
    image = 1000 + 400 * np.exp(-away / 25) + 0.05 * x + rng.normal(0, 30, away.shape)
    mask = np.where(away < 45, SOURCE, 0).astype(np.uint8)
    halo = large_halo(image.astype(np.float32), mask)
    # 0.7 electrons, a fortieth of the noise, at 160; the ring about it would be seen to 1.
    assert halo[away < 110].all()
    assert not halo[away > 200].any()
    assert large_halo(image.astype(np.float32), np.zeros_like(mask)) is None


def test_light_ends_where_a_ring_is_no_brighter_than_all_beyond():
    rng = np.random.default_rng(8)
    ring = np.repeat(np.arange(12), 200)
    values = np.clip(5 - ring, 0, None) + rng.normal(0, 1, ring.size)
    assert first_sky_ring(values, ring) == 5
    assert first_sky_ring(rng.normal(0, 1, ring.size), ring) <= 1
