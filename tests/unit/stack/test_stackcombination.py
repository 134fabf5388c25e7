"""lib.stack.combination: masked pixels, rays and satellites in stacks."""

import numpy as np
import pytest
import sep
import simulate
from astropy.io import fits
from stackruns import add_to_frame, far_from_stars, run, weighted
from starfields import (
    SIZE,
    ZP,
    make_stars,
    write_night,
)

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs
from lib.frame.file import BAD, COSMIC, INTERPOLATED
from lib.stack.combination import combination_of


def test_masked_pixels_do_not_reach_the_coadd(tmp_path):
    rng = np.random.default_rng(22)
    stars = make_stars(rng, 60)
    paths = write_night(tmp_path, rng, stars, 3)
    with fits.open(paths[0], mode="update") as hdus:
        # One repaired pixel, one bad one with nonsense, and a block without data.
        hdus["MASK"].data[200, 150] = COSMIC | INTERPOLATED
        hdus["MASK"].data[250, 150] = BAD
        hdus[0].data[250, 150] = 1e6
        hdus["MASK"].data[300:330, 100:140] = BAD
        hdus[0].data[300:330, 100:140] = np.nan
    header = fits.getheader(paths[0])
    frame_wcs = celestial_wcs(header)
    plain_out, _ = run(tmp_path, paths, settings={"combine": "weighted"})
    weight = fits.getdata(plain_out["weight"])
    image = fits.getdata(plain_out["coadd"])
    wcs = celestial_wcs(fits.getheader(plain_out["coadd"]))
    assert np.isfinite(image).all() and np.isfinite(weight).all()
    full = np.median(weight[200:240, 200:240])

    def around(x, y, reach):
        u, v = wcs.all_world2pix(*frame_wcs.all_pix2world(x, y, 0), 0)
        u, v = round(float(u)), round(float(v))
        return (slice(v - reach, v + reach + 1), slice(u - reach, u + reach + 1))

    low = weight < 0.8 * full
    assert low[around(150, 200, 1)].all() and low[around(150, 200, 6)].sum() == 9
    assert low[around(150, 250, 1)].all() and low[around(150, 250, 6)].sum() == 36
    assert low[around(120, 315, 10)].all()
    assert np.abs(image[around(150, 250, 3)]).max() < 200


def test_satellites_and_missed_rays_do_not_reach_the_coadd(tmp_path):
    rng = np.random.default_rng(40)
    stars = make_stars(rng, 60)
    paths = write_night(tmp_path, rng, stars, 5, fwhm=[3.0, 3.4, 3.8, 4.4, 3.6])
    _, clean, qa = weighted(tmp_path / "clean", paths, True)
    assert [(f["outliers"], f["trail"]) for f in qa["frames"].values()] == [(0, 0)] * 5
    # A satellite of three times the noise, and rays as wide as stars or of two pixels.
    trail = simulate.satellite_trail((SIZE, SIZE), 120, 21, 3 * 21.5 * 1.45 * 2.5, 3.4)
    add_to_frame(paths[1], trail)
    header = fits.getheader(paths[3])
    x, y = far_from_stars(header, stars, rng, 12)
    rays = simulate.render_sources(
        (SIZE, SIZE), x[:6], y[:6], np.full(6, 6000.0), simulate.PSF(4.4), 1.0
    )
    for u, v in zip(x[6:], y[6:], strict=True):
        rays[int(v), int(u) : int(u) + 2] += 1500
    add_to_frame(paths[3], rays)
    _, dirty, _ = weighted(tmp_path / "dirty", paths, False)
    out, masked, qa = weighted(tmp_path / "masked", paths, True)
    light = np.clip(dirty - clean, 0, None)
    seen = light > 0.5 * np.sqrt(464 / 5)
    assert seen.sum() > 500
    # What is left: of the faint rim, and the noise of four frames in place of five.
    assert (masked - clean)[seen].sum() < 0.05 * light[seen].sum()
    assert light[seen].sum() > 2e4
    frames = list(qa["frames"].values())
    assert [f["trail"] > 0 for f in frames] == [False, True, False, False, False]
    assert 50 < frames[3]["outliers"] < 1500
    assert sum(f["outliers"] for f in frames) - frames[3]["outliers"] < 300
    header = fits.getheader(out["coadd"])
    assert header["NTRAIL"] == 1
    assert header["NOUTLIER"] == sum(f["outliers"] + f["trail"] for f in frames)
    table = fits.getdata(out["coadd"], "PROVENANCE")
    assert table["OUTLIERS"].tolist() == [f["outliers"] for f in frames]


@pytest.mark.parametrize(
    "fwhm", [[3.0, 3.4, 3.8, 4.4, 3.6], [2.5, 2.6, 4.5, 3.0, 3.2], [2.4, 2.4, 5.0], [4.5, 4.4, 2.5]]
)
def test_stars_keep_their_flux_when_the_seeing_changes(tmp_path, fwhm):
    rng = np.random.default_rng(41)
    stars = make_stars(rng, 90, bright=14.7)
    paths = write_night(tmp_path, rng, stars, len(fwhm), fwhm=fwhm)
    out, with_all, _ = weighted(tmp_path / "all", paths, False)
    _, without, _ = weighted(tmp_path / "without", paths, True)
    header = fits.getheader(out["coadd"])
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    for radius in (1.5, 3.0):
        sums = [
            sep.sum_circle(image, x, y, radius * header["SEEPIX"])[0]
            for image in (with_all, without)
        ]
        bright = sums[0] > 2000
        assert bright.sum() > 40
        assert np.abs(2.5 * np.log10(sums[1] / sums[0]))[bright].max() < 0.001


def test_what_varies_or_comes_is_left_in_the_coadd(tmp_path):
    rng = np.random.default_rng(42)
    stars = make_stars(rng, 60)
    paths = write_night(tmp_path, rng, stars, 6)
    header = fits.getheader(paths[0])
    places = far_from_stars(header, stars, rng, 2)
    brighter = np.argsort(stars["mag"])[15]
    sky = np.column_stack([
        np.append(celestial_wcs(header).all_pix2world(*places, 0)[k], stars[key][brighter])
        for k, key in enumerate(("ra", "dec"))
    ])  # fmt: skip
    # A new star in the last two, one that is not seen again (as a ray), and a flare.
    flux = [20000.0, 20000.0, 10 ** (-0.4 * (stars["mag"][brighter] - ZP)) * 60]
    for number, chosen in ((5, [0]), (4, [0]), (2, [1, 2])):
        u, v = celestial_wcs(fits.getheader(paths[number])).all_world2pix(*sky.T, 0)
        add_to_frame(paths[number], simulate.render_sources(
            (SIZE, SIZE), u[chosen], v[chosen], np.array(flux)[chosen], simulate.PSF(3.5), 1.0
        ))  # fmt: skip
    out, plain, _ = weighted(tmp_path / "plain", paths, False)
    _, masked, qa = weighted(tmp_path / "masked", paths, True)
    x, y = celestial_wcs(fits.getheader(out["coadd"])).all_world2pix(*sky.T, 0)
    before, after = (sep.sum_circle(image, x, y, 6.0)[0] for image in (plain, masked))
    assert after[[0, 2]] == pytest.approx(before[[0, 2]], rel=0.001)
    assert after[1] < 0.05 * before[1]
    assert list(qa["frames"].values())[2]["outliers"] > 10


@pytest.mark.parametrize(
    "combine, outliers, number, expected",
    [
        ("auto", True, 3, "weighted"),
        ("auto", True, 2, "median"),
        ("auto", False, 9, "median"),
        ("median", True, 9, "median"),
        ("clipped", True, 2, "clipped"),
    ],
)
def test_the_mean_is_taken_where_outliers_can_be_told(combine, outliers, number, expected):
    settings = StackSettings(combine=combine, outliers=outliers)
    assert combination_of(settings, number) == expected
