"""stack: weights, scales, grid, zero point and depth of coadds of known truth."""

import json

import depth
import numpy as np
import pytest
import sep
import simulate
from astropy.io import fits
from astropy.table import Table
from starfields import (
    BETA,
    DEC,
    SCALE,
    SIZE,
    ZP,
    make_header,
    make_stars,
    write_night,
    write_reference,
)

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs, frame_outline
from lib.frame.file import BAD, COSMIC, INTERPOLATED, read_header, reject, write_frame
from lib.frame.file import FrameRejected as Rejected
from lib.photometry.psf import moffat_alpha
from lib.photometry.zeropoint import Zeropoint
from lib.reference.referencetable import CatalogueError
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.framemeasurement import measure_frame
from lib.stack.grid import common_grid, repaired_footprint
from lib.stack.header import airmass_cards, time_cards, zeropoint_cards
from lib.stack.weights import effective_gain, frame_weight, median_variance_ratio


def run(folder, paths, settings=None, plot_path=None, threads=1, **inputs):
    out = {key: folder / f"coaddtruth.r{end}" for key, end in (
        ("coadd", ".fits"), ("weight", ".weight.fits"), ("cat", ".cat.fits"))}  # fmt: skip
    qa = folder / "truth.r.json"
    make_stack(
        StackInputs(paths, **inputs), StackProducts(*out.values(), qa, plot_path),
        StackSettings(**(settings or {})), threads=threads,
    )  # fmt: skip
    return out, json.loads(qa.read_text())


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Five equal frames of 90 stars and their reference."""
    folder = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(5)
    stars = make_stars(rng)
    paths = write_night(folder, rng, stars)
    reference = write_reference(folder / "reference.ecsv", rng, stars)
    return folder, stars, paths, reference


@pytest.fixture(scope="module")
def coadds(night):
    """The night stacked in each way: products, header and numbers."""
    folder, _, paths, reference = night
    found = {}
    for combine in ("median", "weighted", "clipped"):
        where = folder / combine
        where.mkdir()
        out, qa = run(where, paths, refcat=reference, settings={"combine": combine})
        found[combine] = (out, fits.getheader(out["coadd"]), qa)
    return found


def true_zeropoint(qa, exptime=60.0):
    """Return the zero point of a coadd whose frames had the transparency of the truth."""
    scales = [frame["scale"] for frame in qa["frames"].values() if frame["used"]]
    return ZP + 2.5 * np.log10(exptime * np.mean(scales))


def star_free(header, shape, stars, seed=1):
    """Return centres far from any star, inside the part that all frames cover."""
    rng = np.random.default_rng(seed)
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    tries = rng.integers(45, np.array(shape[::-1]) - 45, (20000, 2)).astype(float)
    # Where the wings of a star are below a tenth of the noise of a pixel, about 1.
    clear = 12 + 4.5 * (20.5 - stars["mag"])
    near = np.hypot(tries[:, :1] - x, tries[:, 1:] - y) > clear
    return tries[near.all(axis=1)][:4000].T


# Zero point -------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["median", "weighted", "clipped"])
def test_zeropoint_is_for_total_flux(coadds, combine):
    _, header, qa = coadds[combine]
    offset = header["ABSZPT"] - true_zeropoint(qa)
    assert header["ABSZPNST"] >= 20
    assert abs(offset) < 3 * header["ABSZPERR"] and abs(offset) < 0.010
    assert header["ABSZPERR"] < 0.010
    assert header["ZPSYS"] == "AB" and header["ABSZPCAT"] == "truth"
    assert abs(header["ABSZPCOL"]) < 4 * header["ABSZPCER"] and header["ABSZPCNM"] == "g-r"


def test_sum_of_pixels_of_a_star_is_its_magnitude(night, coadds):
    _, stars, _, _ = night
    out, header, _ = coadds["weighted"]
    image = fits.getdata(out["coadd"])
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(distance, np.inf)
    light = 10 ** (-0.4 * stars["mag"])
    alone = np.where(light > 0.01 * light[:, None], distance, np.inf).min(axis=1) > 40
    rows, columns = np.indices(image.shape)
    tried = 0
    for i in np.argsort(stars["mag"])[:25]:
        inside = 25 < x[i] < image.shape[1] - 25 and 25 < y[i] < image.shape[0] - 25
        if not (alone[i] and inside):
            continue
        total = float(image[np.hypot(columns - x[i], rows - y[i]) < 16].sum())
        magnitude = header["ABSZPT"] - 2.5 * np.log10(total)
        # The sum over 800 pixels of noise 10, and the light beyond 16 pixels (0.2 %).
        assert magnitude == pytest.approx(stars["mag"][i], abs=0.015 + 1.1 * 300 / total)
        tried += 1
    assert tried >= 3


def test_colour_term_of_the_frames_is_found(tmp_path):
    rng = np.random.default_rng(21)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3, colour_term=[0.1] * 3)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    out, _ = run(tmp_path, paths, refcat=reference)
    header = fits.getheader(out["coadd"])
    # Frames see mag + 0.1 (colour - 0.7): the reference is theirs less that.
    assert abs(header["ABSZPCOL"] + 0.1) < 4 * header["ABSZPCER"]
    assert 0 < header["ABSZPCER"] < 0.02


def test_slope_of_the_flat_is_told(tmp_path):
    rng = np.random.default_rng(43)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    out, _ = run(tmp_path, paths, refcat=reference)
    assert "ABSZPDX" not in fits.getheader(out["coadd"])
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data *= np.linspace(0.95, 1.05, SIZE, dtype=np.float32)
    out, qa = run(tmp_path, paths, refcat=reference)
    header = fits.getheader(out["coadd"])
    # Brighter to the right by a tenth over the frame, which lies within 4 degrees of north up.
    assert header["ABSZPDX"] == pytest.approx(1.0857 * 0.1 / SIZE, abs=4 * header["ABSZPDXE"])
    # Some 40 stars of 0.02 mag: known to 0.003 mag over the rms of their places.
    assert 0 < header["ABSZPDXE"] < 1.5 * 0.003 / (SIZE / 12**0.5)
    assert qa["zeropoint"]["spatial"]["chance"] < 1e-4
    assert header["ABSZPT"] == pytest.approx(true_zeropoint(qa), abs=0.01)
    out, _ = run(tmp_path, paths, refcat=reference, settings={"spatial_term": "off"})
    assert "ABSZPDX" not in fits.getheader(out["coadd"])


# Weights and depth ------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["median", "weighted", "clipped"])
def test_weight_map_is_the_noise_of_empty_apertures(night, coadds, combine):
    _, stars, _, _ = night
    out, header, _ = coadds[combine]
    image, weight = fits.getdata(out["coadd"]), fits.getdata(out["weight"])
    radius = header["SEEPIX"]
    x, y = star_free(header, image.shape, stars)
    reach = int(radius) + 1
    offset = np.arange(-reach, reach + 1)
    disc = np.hypot(*np.meshgrid(offset, offset)) < radius
    rows, columns = y.astype(int)[:, None, None] + offset[:, None], x.astype(int)[:, None, None]
    columns = columns + offset[None, None, :]
    sums = (image[rows, columns] * disc).sum(axis=(1, 2))
    with np.errstate(divide="ignore"):
        variance = ((1 / weight)[rows, columns] * disc).sum(axis=(1, 2))
    pull = (sums - np.median(sums)) / np.sqrt(variance)
    pull = pull[np.isfinite(pull) & (np.abs(pull) < 5)]
    assert np.std(pull) == pytest.approx(1.0, abs=0.05)
    assert header["CORRNAP"] > 500 and 0.95 < header["CORRFAC"] < 1.5


def test_depth_of_median_and_of_the_optimal_mean(coadds):
    limits = {name: header["LIMFLUX"] for name, (_, header, _) in coadds.items()}
    # The median of five Gaussian values has 1.434 times the variance of their mean.
    assert limits["median"] / limits["weighted"] == pytest.approx(1.1976, rel=0.05)
    assert limits["clipped"] / limits["weighted"] == pytest.approx(1.0, rel=0.03)
    _, header, qa = coadds["weighted"]
    # Optimal: sky 400 and read noise 8 in five frames, over the pixels of the aperture.
    radius = header["LIMRAD"] / header["PIXSCALE"]
    scale = np.mean([frame["scale"] for frame in qa["frames"].values()])
    sigma = np.sqrt((400 + 64) / 5 * np.pi * radius**2) * scale
    alpha = moffat_alpha(header["SEEPIX"], BETA)
    fraction = 1 - (1 + (radius / alpha) ** 2) ** (1 - BETA)
    assert limits["weighted"] < 1.05 * 5 * sigma / fraction
    assert limits["weighted"] > 0.85 * 5 * sigma / fraction


@pytest.mark.parametrize("number", [3, 4, 5, 9, 20])
def test_penalty_of_the_median(number):
    rng = np.random.default_rng(number)
    values = np.median(rng.normal(size=(40000, number)), axis=1)
    assert median_variance_ratio(number) == pytest.approx(values.var() * number, rel=0.035)


def test_median_penalty_tends_to_half_pi():
    assert median_variance_ratio(1) == median_variance_ratio(2) == 1.0
    assert median_variance_ratio(1001) == pytest.approx(np.pi / 2, rel=1e-3)


def test_gain_is_that_of_the_mean():
    assert effective_gain([1.0] * 4, [1.0] * 4, [2.0] * 4, "weighted") == pytest.approx(4.0)
    # Two frames, the second three times shorter: its unit holds a third of the electrons.
    assert effective_gain([1, 3], [1, 1], [1, 1 / 3], "weighted") == pytest.approx(4 / 3)
    assert effective_gain([2.0] * 3, [1.5] * 3, [1] * 3, "median") == pytest.approx(
        3 * 0.75 / median_variance_ratio(3)
    )
    assert effective_gain([1.0, 1.0], [1.0, 1.0], [1, 1], "median") == pytest.approx(2.0)


def test_unusable_pixels_weigh_nothing():
    mask = np.array([[0, BAD, COSMIC | INTERPOLATED, INTERPOLATED]], np.uint8)
    weight, repaired = frame_weight(mask, 4.0)
    assert weight.tolist() == [[0.25, 0.0, 0.25, 0.25]]
    assert repaired.tolist() == [[False, False, True, False]]


def test_pixels_of_the_grid_that_rest_on_repaired_ones():
    header = make_header(shift=(20.3, -10.6))
    header["NAXIS1"] = header["NAXIS2"] = SIZE
    grid = common_grid([celestial_wcs(header)])
    repaired = np.zeros((SIZE, SIZE), bool)
    repaired[200, 150] = repaired[90, 310] = True
    wcs = celestial_wcs(header)
    row, column = repaired_footprint(repaired, wcs, grid)
    expected = set()
    for x, y in ((150, 200), (310, 90)):
        u, v = grid.wcs.all_world2pix(*wcs.all_pix2world(x, y, 0), 0)
        u, v = round(float(u)), round(float(v))
        expected |= {(v + j, u + i) for j in (-1, 0, 1) for i in (-1, 0, 1)}
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == expected


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


# Outliers ---------------------------------------------------------------------------------


def far_from_stars(header, stars, rng, number, spacing=25):
    """Return pixels of a frame that no star is near."""
    x, y = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 0)
    tries = rng.uniform(40, SIZE - 40, (4000, 2))
    near = np.hypot(tries[:, :1] - x, tries[:, 1:] - y).min(axis=1) < spacing
    return tries[~near][:number].T


def add_to_frame(path, light):
    with fits.open(path, mode="update") as hdus:
        hdus[0].data = (hdus[0].data + light).astype(np.float32)


def weighted(folder, paths, outliers):
    folder.mkdir()
    out, qa = run(folder, paths, settings={"combine": "weighted", "outliers": outliers})
    return out, fits.getdata(out["coadd"]).astype(float), qa


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


# Frames -----------------------------------------------------------------------------------


def test_clouds_trails_and_few_stars_are_left_out_with_numbers(tmp_path):
    rng = np.random.default_rng(23)
    stars = make_stars(rng)
    paths = write_night(
        tmp_path, rng, stars, 7,
        transparency=[1.0, 0.5, 0.8, 0.05, 1.0, 1e-5, 1.0],
        ellipticity=[0, 0, 0, 0, 0.6, 0, 0],
    )  # fmt: skip
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    bad = tmp_path / "azsfp20220109T000000C0o.fits"
    header = make_header()
    header["FRAME"] = "20220109T000000C0o"
    write_frame(bad, reject(header, "astrometry", Rejected("TOO_FEW_STARS", "2 < 6")))
    out, qa = run(tmp_path, [*paths, bad], refcat=reference)
    frames = list(qa["frames"].values())
    assert [f["used"] for f in frames] == [True, True, True, False, False, False, True, False]
    assert frames[3]["reason"].startswith("CLOUDY: transparency 0.0")
    assert frames[4]["reason"].startswith("TRAILED: ellipticity 0.")
    assert frames[5]["reason"].startswith("TOO_FEW_STARS: ")
    assert frames[7]["reason"] == "TOO_FEW_STARS: 2 < 6" and frames[7]["step"] == "astrometry"
    for frame, truth in zip(frames, [1.0, 0.5, 0.8], strict=False):
        # The best frame is the best of three by some 0.5 %.
        assert frame["transparency"] == pytest.approx(truth, rel=0.02)
        assert frame["zeropoint"] == pytest.approx(ZP + 2.5 * np.log10(truth), abs=0.02)
    header = fits.getheader(out["coadd"])
    assert header["NSTACK"] == 4 and header["NREJECT"] == 4
    assert [header[f"STACK{i}"] for i in range(1, 5)] == [
        f"2022010{i}T000000C0o" for i in (0, 1, 2, 6)
    ]
    assert "STACK5" not in header
    # Scaled to the best frame: the zero point is that of a clear sky.
    assert header["ABSZPT"] == pytest.approx(ZP + 2.5 * np.log10(60), abs=0.02)
    with fits.open(out["coadd"]) as hdus:
        table = hdus["PROVENANCE"].data
        assert table["USED"].tolist() == [f["used"] for f in frames]
        assert table["RAWFILE"][0] == "20220100T000000C0o.fits"


def test_mixed_exposures_are_scaled_and_the_short_ones_left_out_of_a_median(tmp_path):
    rng = np.random.default_rng(24)
    stars = make_stars(rng)
    paths = write_night(
        tmp_path, rng, stars, 6, exptime=[2.0, 2.0, 3.0, 60.0, 60.0, 60.0],
        transparency=[1.0] * 6,
    )  # fmt: skip
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    _, median = run(tmp_path, paths, refcat=reference, settings={"combine": "median"})
    assert [f["used"] for f in median["frames"].values()] == [False] * 3 + [True] * 3
    reasons = [f["reason"] for f in median["frames"].values() if not f["used"]]
    assert all(reason.startswith("LOW_WEIGHT: 0.0") for reason in reasons)
    assert median["exptime"] == 60.0
    out, weighted = run(tmp_path, paths, refcat=reference, settings={"combine": "weighted"})
    assert weighted["nstack"] == 6
    header = fits.getheader(out["coadd"])
    assert header["EXPTIME"] == pytest.approx(31.5)
    assert header["TOTALEXP"] == pytest.approx(187.0)
    assert (header["MINEXP"], header["MAXEXP"]) == (2.0, 60.0)
    assert header["ABSZPT"] == pytest.approx(ZP + 2.5 * np.log10(31.5), abs=0.02)
    # The short frames add next to nothing: 180 s of signal in units of 31.5 s.
    assert header["GAIN"] == pytest.approx(180 / 31.5, rel=0.06)


def test_seeing_and_shape_of_frames(night):
    _, _, paths, _ = night
    with fits.open(paths[0]) as hdus:
        found = measure_frame(
            np.ascontiguousarray(hdus[0].data, "f4"), hdus["MASK"].data, hdus[0].header,
            StackSettings(),
        )  # fmt: skip
    # 3.5 pixels widened by the pixel itself.
    assert found.fwhm == pytest.approx(3.56, abs=0.12)
    assert found.seeing == pytest.approx(found.fwhm * SCALE)
    assert found.ellipticity < 0.1 and found.nstars > 30
    assert found.noise == pytest.approx(np.sqrt(464), rel=0.05)


def test_hot_pixels_do_not_change_what_a_frame_tells(night):
    """They are masked, as many as a near-infrared array has, and brighter than most stars."""
    _, _, paths, _ = night
    with fits.open(paths[0]) as hdus:
        image, mask, header = hdus[0].data.astype("f4"), hdus["MASK"].data.copy(), hdus[0].header
    plain = measure_frame(image, mask, header, StackSettings())
    hot = np.random.default_rng(8).random(image.shape) < 0.003
    found = measure_frame(
        np.where(hot, np.float32(5000), image), np.where(hot, mask | BAD, mask), header,
        StackSettings(),
    )  # fmt: skip
    # One in the core of a star, where its 30 pixels lie, takes that star away.
    assert found.nstars > (1 - 0.003) ** 30 * plain.nstars - 3 * np.sqrt(plain.nstars / 10)
    assert found.fwhm == pytest.approx(plain.fwhm, rel=0.01)
    ours, theirs = (np.column_stack([one.stars.ra, one.stars.dec]) for one in (found, plain))
    distance = np.hypot(*(ours[:, None] - theirs).T).T * 3600
    near = distance.argmin(axis=1)
    same = distance.min(axis=1) < 0.3
    assert same.sum() > 0.8 * len(theirs)
    change = found.stars.magnitude[same] - plain.stars.magnitude[near[same]]
    pull = change / found.stars.error[same]
    # What one pixel in the wings is worth, once it has the mean of its neighbours.
    assert np.abs(pull).max() < 1 and np.abs(np.median(change)) < 0.002


def test_frames_far_away_or_without_common_star(tmp_path):
    rng = np.random.default_rng(25)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 4)
    with fits.open(paths[3], mode="update") as hdus:
        hdus[0].header["CRVAL2"] = DEC + 30
    with fits.open(paths[2], mode="update") as hdus:
        hdus[0].header["CRVAL2"] = DEC + 0.2
    _, qa = run(tmp_path, paths)
    reasons = [frame["reason"] for frame in qa["frames"].values()]
    assert reasons[:2] == ["", ""]
    assert reasons[2].startswith("NO_COMMON_STARS")
    assert reasons[3].startswith("OFF_FIELD: 30.00 > 1 deg")


def test_one_frame_is_a_stack_with_a_flag(tmp_path):
    rng = np.random.default_rng(26)
    stars = make_stars(rng, 60)
    paths = write_night(tmp_path, rng, stars, 1)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    out, _ = run(tmp_path, paths, refcat=reference)
    header = fits.getheader(out["coadd"])
    assert header["NSTACK"] == 1 and "FEW_FRAMES" in header["QCFLAG"]
    assert header["ABSZPT"] == pytest.approx(ZP + 2.5 * np.log10(60), abs=0.02)


def test_no_frame_left_is_a_rejected_stack(tmp_path):
    paths = []
    for i in range(2):
        header = make_header()
        header["FRAME"] = f"2022010{i}T000000C0o"
        paths.append(tmp_path / f"azsfp{i}.fits")
        write_frame(paths[-1], reject(header, "skysub", Rejected("SKY", "1 > 0")))
    out, qa = run(tmp_path, paths, plot_path=tmp_path / "zp.png")
    for path in out.values():
        with fits.open(path) as hdus:
            assert hdus[0].data is None
            assert hdus[0].header["QCSTAT"] == "REJECTED"
            assert hdus[0].header["QCREASON"].startswith("NO_FRAMES: 0 of 2")
    assert qa["status"] == "REJECTED" and qa["nreject"] == 2
    assert (tmp_path / "zp.png").stat().st_size > 0


# References that do not serve ---------------------------------------------------------------


def flagged(folder, paths, **options):
    out, _ = run(folder, paths, **options)
    header = fits.getheader(out["coadd"])
    assert header["QCSTAT"] == "OK" and "NO_ZEROPOINT" in header["QCFLAG"]
    assert "ABSZPT" not in header and "LIMMAG" not in header and header["LIMFLUX"] > 0
    assert header["ABSZPNST"] == 0
    table = fits.getdata(out["cat"], "SOURCES")
    assert np.isnan(table["MAG_AUTO"]).all() and (table["FLUX_AUTO"] > 0).any()
    return header


def test_no_reference_aligns_by_common_stars(tmp_path):
    rng = np.random.default_rng(27)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3, transparency=[1.0, 0.6, 0.8])
    empty = tmp_path / "empty.ecsv"
    table = Table(names=["ra", "dec", "r", "r_err"])
    table.meta["source"], table.meta["reason"] = "NONE", "refcat=none"
    table.write(empty, format="ascii.ecsv")
    header = flagged(tmp_path, paths, refcat=empty, plot_path=tmp_path / "zp.png")
    assert header["ZPREASON"] == "NO_REFERENCE" and header["ASTRCAT"] == "NONE"
    assert "ASTRMS1" not in header
    frames = json.loads((tmp_path / "truth.r.json").read_text())["frames"]
    found = [frame["transparency"] for frame in frames.values()]
    assert found == pytest.approx([1.0, 0.6, 0.8], rel=0.02)


def test_reference_without_the_band_with_two_stars_or_elsewhere(tmp_path):
    rng = np.random.default_rng(28)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    table = Table.read(reference, format="ascii.ecsv")
    table.remove_columns(["r", "r_err"])
    table.write(tmp_path / "g.ecsv", format="ascii.ecsv")
    header = flagged(tmp_path, paths, refcat=tmp_path / "g.ecsv")
    assert header["ZPREASON"].startswith("NO_BAND: the reference has no r")
    bright = np.argsort(stars["mag"])
    middle = bright[30:32]
    two = write_reference(tmp_path / "two.ecsv", rng, stars, rows=middle)
    header = flagged(tmp_path, paths, refcat=two)
    assert header["ZPREASON"].startswith("TOO_FEW_REFERENCE_STARS")
    away = {key: value + (1.0 if key == "dec" else 0.0) for key, value in stars.items()}
    elsewhere = write_reference(tmp_path / "away.ecsv", rng, away)
    header = flagged(tmp_path, paths, refcat=elsewhere)
    assert header["ZPREASON"].startswith("NO_MATCH")


def test_all_reference_stars_saturated(tmp_path):
    rng = np.random.default_rng(29)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    saturated = np.argsort(stars["mag"])[:15]
    peak = 10 ** (-0.4 * (stars["mag"][saturated].max() - ZP)) * 60 * 0.04
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["SATURATE"] = peak
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars, rows=saturated)
    assert flagged(tmp_path, paths, refcat=reference)["ZPREASON"].startswith("TOO_FEW")


def custom_catalogue(path, stars, factor=1.0):
    lines = ["# the first line is skipped\n"]
    for ra, dec, mag in zip(stars["ra"], stars["dec"], stars["mag"], strict=True):
        values = ["nan"] * 13
        values[2] = f"{mag + 0.5:.4f}"  # half a magnitude from the reference: tells which served
        lines.append(" ".join([f"{ra * factor:.7f}", f"{dec:.7f}", *values, *["0.01"] * 13, "0\n"]))
    path.write_text("".join(lines))
    return path


def test_custom_catalogue_serves_its_filters_only(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars)
    for bands, offset, name in ((["r"], 0.5, "custom.txt"), (["z"], 0.0, "truth")):
        out, qa = run(tmp_path, paths[:3], refcat=reference, customcat=custom, customcatfilt=bands)
        header = fits.getheader(out["coadd"])
        assert header["ABSZPT"] == pytest.approx(true_zeropoint(qa) + offset, abs=0.02)
        assert header["ABSZPCAT"] == name and header["ASTRCAT"] == "truth"


def test_custom_catalogue_in_hours_is_an_error(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars, factor=1 / 15)
    with pytest.raises(CatalogueError, match="hours"):
        run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    assert not (tmp_path / "coaddtruth.r.fits").exists()


def test_custom_catalogue_with_wrong_columns_is_an_error(night, tmp_path):
    _, stars, paths, reference = night
    custom = custom_catalogue(tmp_path / "custom.txt", stars)
    lines = custom.read_text().splitlines(keepends=True)
    wrong = {
        "line 3 has 5 fields, not 29": "150.1 20.1 15.0 15.1 0\n",
        "line 3: .*'none'": lines[2].replace("nan", "none", 1),
        "line 3: .*'10:00:00'": " ".join(["10:00:00", "+20:00:00", *lines[2].split()[2:]]) + "\n",
        "degrees, -90 to 90": " ".join(["20.0", "150.0", *lines[2].split()[2:]]) + "\n",
    }
    for words, line in wrong.items():
        custom.write_text("".join([*lines[:2], line, *lines[3:]]))
        with pytest.raises(CatalogueError, match=words):
            run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    custom.write_text(lines[0])
    with pytest.raises(CatalogueError, match="no stars"):
        run(tmp_path, paths[:2], refcat=reference, customcat=custom, customcatfilt=["r"])
    assert not (tmp_path / "coaddtruth.r.fits").exists()


def test_saturated_stars_are_in_no_zero_point(tmp_path):
    rng = np.random.default_rng(36)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 3)
    for path in paths:  # all stars, not only those of the reference
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["SATURATE"] = 60.0
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    out, qa = run(tmp_path, paths, refcat=reference)
    header = fits.getheader(out["coadd"])
    assert header["QCSTAT"] == "REJECTED" or "ABSZPT" not in header
    assert "ABSZPT" not in header and all(
        frame["used"] or frame["reason"].startswith("TOO_FEW_STARS")
        for frame in qa["frames"].values()
    )


# Products ---------------------------------------------------------------------------------


def test_catalogue_has_true_positions_and_magnitudes(night, coadds):
    _, stars, _, _ = night
    out, header, _ = coadds["weighted"]
    table = fits.getdata(out["cat"], "SOURCES")
    offset = np.hypot(
        (table["RA"][:, None] - stars["ra"]) * np.cos(np.radians(DEC)), table["DEC"][:, None]
        - stars["dec"],
    ) * 3600  # fmt: skip
    nearest, who = offset.min(axis=1), offset.argmin(axis=1)
    clean = (nearest < 0.3) & (table["FLAGS"] == 0)
    assert clean.sum() > 35 and np.median(nearest[clean]) < 0.03
    # Kron's aperture loses some 6 % of a point source (Bertin & Arnouts 1996), more of wide wings.
    for name, bound in (("POINT", 0.015), ("AUTO", 0.1)):
        difference = table[f"MAG_{name}"][clean] - stars["mag"][who[clean]]
        assert np.abs(np.median(difference)) < bound
    assert table["STAR"][clean].mean() > 0.9
    assert (np.diff([np.median(table[f"FLUX_APER{k}"][clean]) for k in range(1, 6)]) > 0).all()
    assert table["ZP_STAR"].sum() == header["ABSZPNST"]
    # 1-based positions, as in DS9.
    world = celestial_wcs(header).all_pix2world(table["X"], table["Y"], 1)
    assert np.allclose(world[0], table["RA"]) and np.allclose(world[1], table["DEC"])


def test_errors_of_magnitudes_are_those_of_repeats(tmp_path):
    pulls = {"APER2": [], "APER4": []}
    for seed in (30, 31):
        rng = np.random.default_rng(seed)
        stars = make_stars(rng, 120)
        tables = []
        for half in ("a", "b"):
            folder = tmp_path / f"{half}{seed}"
            folder.mkdir()
            paths = write_night(folder, rng, stars, 3)
            out, _ = run(folder, paths, settings={"combine": "weighted"})
            tables.append(fits.getdata(out["cat"], "SOURCES"))
        a, b = tables
        offset = np.hypot(
            (a["RA"][:, None] - b["RA"]) * np.cos(np.radians(DEC)), a["DEC"][:, None] - b["DEC"]
        )
        who = offset.argmin(axis=1)
        same = (offset.min(axis=1) * 3600 < 0.4) & ((a["FLAGS"] | b["FLAGS"][who]) & ~512 == 0)
        # Brighter ones feel that the apertures are in units of each stack's own seeing.
        snr = a["FLUX_POINT"] / a["FLUXERR_POINT"]
        same &= (snr > 10) & (snr < 100)
        for name, values in pulls.items():
            scale = np.median(a[f"FLUX_{name}"][same] / b[f"FLUX_{name}"][who[same]])
            difference = a[f"FLUX_{name}"][same] - scale * b[f"FLUX_{name}"][who[same]]
            error = np.hypot(a[f"FLUXERR_{name}"][same], scale * b[f"FLUXERR_{name}"][who[same]])
            values.extend(difference / error)
    for values in pulls.values():
        values = np.array(values)
        assert values.size > 50
        # The MAD of 60 values or more is good to 15 %.
        assert 1.4826 * np.median(np.abs(values - np.median(values))) == pytest.approx(1, abs=0.3)


def test_limiting_magnitude_is_that_of_an_injected_star(night, coadds):
    _, stars, _, _ = night
    out, header, _ = coadds["weighted"]
    image = fits.getdata(out["coadd"]).astype("f4")
    flux = 10 ** (-0.4 * (header["LIMMAG"] - header["ABSZPT"]))
    x, y = star_free(header, image.shape, stars)
    radius = header["LIMRAD"] / header["PIXSCALE"]
    rows, columns = np.indices(image.shape)
    alpha = moffat_alpha(header["SEEPIX"], BETA)
    sums = []
    rng = np.random.default_rng(3)
    for i in rng.choice(x.size, 300, replace=False):
        cut = (slice(int(y[i]) - 12, int(y[i]) + 13), slice(int(x[i]) - 12, int(x[i]) + 13))
        r2 = (columns[cut] - x[i]) ** 2 + (rows[cut] - y[i]) ** 2
        star = flux * (BETA - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -BETA
        weight = np.clip(radius + 0.5 - np.sqrt(r2), 0, 1)
        sums.append(((image[cut] + star) * weight).sum())
    sums = np.array(sums)
    spread = 1.4826 * np.median(np.abs(sums - np.median(sums)))
    # Signal-to-noise five; the noise of this test from 300 places is good to some 7 %.
    assert np.median(sums) / spread == pytest.approx(5.0, rel=0.2)


def test_half_of_the_stars_put_into_frames_are_found_at_the_limiting_magnitude(night, tmp_path):
    _, _, paths, reference = night
    found = depth.measure_depth(
        paths, tmp_path, refcat=reference, settings=StackSettings(combine="weighted"), number=150
    )
    assert found["magnitude"].size > 100
    # The noise of LIMMAG is 0.22 mag for one star, of which a hundred are near enough to count;
    # 0.1 for the limit itself, from apertures of another part of the image.
    assert found["m50_significant"] == pytest.approx(found["limmag"], abs=0.15)
    bright = found["magnitude"] < found["limmag"] - 0.8
    assert found["listed"][bright].mean() > 0.95
    faint = found["magnitude"] > found["limmag"] + 0.6
    assert found["significant"][faint].mean() < 0.1


def test_header_of_the_coadd(coadds):
    out, header, qa = coadds["median"]
    assert (header["NSTACK"], header["NREJECT"]) == (5, 0)
    assert [header[f"STACK{i}"] for i in range(1, 6)] == list(qa["frames"])
    assert header["DATE1"] == "2022-01-01T00:00:00.000"
    assert header["DATEN"] == "2022-01-05T00:00:00.000"
    assert header["DATE-OBS"] == "2022-01-03T00:00:00.000"
    assert (header["EXPTIME"], header["TOTALEXP"]) == (60.0, 300.0)
    assert header["AIRMASS"] == pytest.approx(1.3)
    assert (header["AIRMIN"], header["AIRMAX"]) == pytest.approx((1.1, 1.5))
    assert header["SEEPIX"] == pytest.approx(3.57, abs=0.12)
    assert header["SATURATE"] == pytest.approx(59600, rel=0.01)
    assert header["GAIN"] == pytest.approx(5 / median_variance_ratio(5), rel=0.02)
    assert header["ASTRCAT"] == "truth" and header["ASTRNST"] > 40
    assert 0 < header["ASTRMS1"] < 30 and 0 < header["ASTRMS2"] < 30
    assert header["BUNIT"] == "electron" and header["QCSTAT"] == "OK" and "QCFLAG" not in header
    for path in out.values():
        with fits.open(path, checksum=True) as hdus:
            assert "DATASUM" in hdus[0].header


def test_false_airmass_and_time_do_not_count():
    headers = [make_header() for _ in range(3)]
    for header, airmass in zip(headers, [1.2, 13.37, "bad"], strict=True):
        header["AIRMASS"] = airmass
    assert airmass_cards(headers)["AIRMASS"][0] == 1.2
    assert airmass_cards([make_header()]) == {}
    assert "DATE1" not in time_cards([make_header()])


def test_vega_bands_and_both_systems():
    zeropoint = Zeropoint(value=24.0, error=0.01, n_stars=20)
    cards = zeropoint_cards(zeropoint, "J", "2MASS")
    assert cards["ZPSYS"][0] == "Vega" and cards["ABSZPVEG"][0] == 24.0
    assert cards["ABSZPAB"][0] == pytest.approx(24.91)
    cards = zeropoint_cards(zeropoint, "r", "x")
    assert cards["ZPSYS"][0] == "AB" and cards["ABSZPVEG"][0] == pytest.approx(23.84)


def test_the_same_frames_give_the_same_coadd(night, coadds, tmp_path):
    _, _, paths, reference = night
    out, _ = run(tmp_path, paths, refcat=reference, threads=2)
    first = coadds["median"][0]
    assert np.array_equal(fits.getdata(out["coadd"]), fits.getdata(first["coadd"]))
    assert np.array_equal(fits.getdata(out["weight"]), fits.getdata(first["weight"]))


def test_nothing_but_the_products_is_left(night, tmp_path):
    _, _, paths, reference = night
    run(tmp_path, paths[:2], refcat=reference, plot_path=tmp_path / "truth.r.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "coaddtruth.r.cat.fits", "coaddtruth.r.fits", "coaddtruth.r.weight.fits", "truth.r.json",
        "truth.r.png",
    ]  # fmt: skip


# Grid -------------------------------------------------------------------------------------


def test_grid_holds_all_frames_north_up():
    headers = []
    for angle, shift in ((0, (0, 0)), (90, (30, -20)), (215, (-40, 60))):
        header = make_header(angle, shift)
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, SIZE, SIZE + 50
        headers.append(header)
    grid = common_grid([celestial_wcs(header) for header in headers])
    assert grid.scale == pytest.approx(SCALE)
    wcs = grid.wcs
    for header in headers:
        x, y = wcs.all_world2pix(*frame_outline(celestial_wcs(header)).T, 0)
        assert x.min() > -0.5 and y.min() > -0.5
        assert x.max() < grid.nx - 0.5 and y.max() < grid.ny - 0.5
    east = wcs.all_pix2world([[10, 10], [9, 10], [10, 11]], 0)
    assert east[1][0] > east[0][0] and east[2][1] > east[0][1]


@pytest.mark.parametrize("ra, dec", [(0.0, 0.0), (359.999, 60.0), (120.0, -85.0)])
def test_grid_across_ra_zero_and_near_the_pole(ra, dec):
    header = make_header()
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["NAXIS1"] = header["NAXIS2"] = SIZE
    grid = common_grid([celestial_wcs(header)])
    assert abs((grid.ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3600 < 2
    assert grid.dec == pytest.approx(dec, abs=2 / 3600)
    assert SIZE < grid.nx < 1.1 * SIZE and SIZE < grid.ny < 1.1 * SIZE


def test_coadd_lies_on_the_grid_asked_for(night, tmp_path):
    _, _, paths, reference = night
    out, _ = run(tmp_path, paths[:2], refcat=reference, grid_frames=paths)
    everything = [read_header(path) for path in paths]
    grid = common_grid([celestial_wcs(header) for header in everything])
    header = fits.getheader(out["coadd"])
    assert (header["NAXIS1"], header["NAXIS2"]) == (grid.nx, grid.ny)
    assert (header["CRVAL1"], header["CRVAL2"]) == (grid.ra, grid.dec)
