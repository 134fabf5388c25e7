"""lib.stack.frameselection: which frames are stacked, and how they are scaled."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.wcs import WCS
from stackruns import run
from starfields import (
    DEC,
    ZP,
    make_header,
    make_stars,
    write_night,
    write_reference,
)

from lib.core.settings import StackSettings
from lib.frame.file import FrameRejected as Rejected
from lib.frame.file import reject, write_frame
from lib.stack.framemeasurement import measure_frame
from lib.stack.frameselection import (
    FrameZeropoints,
    chip_levels,
    depths_by_seeing,
    flux_scales,
    frame_zeropoints,
    judge_frames,
    leave_out_trailed,
    levels_against_stars,
    select_frames,
    shared_corrections,
)
from lib.stack.stackframe import FrameStars, StackFrame


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


def with_ellipticity(folder, value):
    frame = StackFrame(f"e{value}", folder / "a.fits", fits.Header())
    frame.measured = SimpleNamespace(ellipticity=value)
    return frame


@pytest.mark.parametrize(
    ("found", "left_out"),
    [
        ([0.45, 0.5, 0.44], []),
        ([0.45, 0.1, 0.44], [0.45, 0.44]),
        ([0.45], [0.45]),
        ([0.9, 0.92], [0.9, 0.92]),
        ([0.39, 0.45, 0.6], [0.6]),
    ],
)
def test_elongated_frames_stay_where_all_are_alike(tmp_path, found, left_out):
    frames = [with_ellipticity(tmp_path, value) for value in found]
    leave_out_trailed(frames, 0.4)
    out = [frame for frame in frames if not frame.used]
    assert [frame.measured.ellipticity for frame in out] == left_out
    assert all(frame.reason.startswith("TRAILED: ellipticity 0.") for frame in out)


def test_depth_of_a_mean_is_that_of_its_profile():
    y, x = np.mgrid[-40:41, -40:41]
    seeing, weight = np.array([3.0, 4.0, 9.0]), np.array([1.0, 0.5, 2.0])
    sigma = seeing / 2.3548
    stars = [np.exp(-(x**2 + y**2) / (2 * s**2)) / (2 * np.pi * s**2) for s in sigma]
    expected = []
    for n in (1, 2, 3):
        mean = np.average(stars[:n], axis=0, weights=weight[:n])
        expected.append(np.sqrt(np.sum(mean**2) * weight[:n].sum()))
    found = depths_by_seeing(seeing, weight)
    np.testing.assert_allclose(found / found[0], np.array(expected) / expected[0], rtol=1e-3)


def test_frames_without_which_stars_are_deeper_are_left_out(tmp_path):
    rng = np.random.default_rng(31)
    stars = make_stars(rng)
    paths = write_night(tmp_path, rng, stars, 6, fwhm=[3.5, 9.0, 3.4, 4.2, 11.0, 3.6])
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    limits = {}
    for bound in (0, "auto"):
        settings = {"max_seeing": bound, "combine": "weighted"}
        out, qa = run(tmp_path, paths, refcat=reference, settings=settings)
        limits[bound] = fits.getval(out["coadd"], "LIMMAG")
        reasons = [frame["reason"] for frame in qa["frames"].values()]
        if not bound:
            assert reasons == [""] * 6
    assert [bool(reason) for reason in reasons] == [False, True, False, False, True, False]
    words = reasons[1].split()
    assert words[0] == "BAD_SEEING:" and float(words[1]) == pytest.approx(3.6, abs=0.3)
    # As told, by profiles taken for Gaussians and limits known to some hundredths.
    gain = float(words[3])
    assert 0.05 < gain < 0.2 and limits["auto"] - limits[0] == pytest.approx(gain, abs=0.06)


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


# Parts --------------------------------------------------------------------------------------


def make_zeropoints(value, scatter=None, common=None, group=None):
    n = len(value)
    return FrameZeropoints(
        np.array(value), np.full(n, 0.01) if scatter is None else np.array(scatter),
        np.full(n, 30) if common is None else np.array(common),
        np.zeros(n, int) if group is None else np.array(group), absolute=True,
    )  # fmt: skip


def test_transparency_is_relative_to_the_best_trusted_frame():
    # The brightest has too few common stars to be the best.
    zeropoints = make_zeropoints([25.0, 24.0, 25.5, 22.0], common=[30, 30, 2, 30])
    transparency, reasons = judge_frames(zeropoints, StackSettings())
    assert transparency == pytest.approx(10 ** (0.4 * np.array([0, -1, 0.5, -3])))
    assert [str(reason) for reason in reasons if reason] == ["CLOUDY: transparency 0.063 < 0.1"]
    assert reasons[3] is not None


def test_frames_without_common_stars_or_of_scattered_ones_are_left_out():
    zeropoints = make_zeropoints(
        [25.0, 25.0, 25.0, np.nan, 25.0], scatter=[0.01, 0.5, 0.01, 0.01, 0.01],
        group=[0, 0, 0, 1, 2],
    )  # fmt: skip
    _, reasons = judge_frames(zeropoints, StackSettings())
    assert [reason.code if reason else "" for reason in reasons] == [
        "", "BAD_PHOTOMETRY", "", "NO_COMMON_STARS", "NO_COMMON_STARS",
    ]  # fmt: skip
    _, reasons = judge_frames(make_zeropoints([np.nan, np.nan]), StackSettings())
    assert [reason.code for reason in reasons] == ["NO_COMMON_STARS"] * 2


def test_scales_bring_frames_to_the_median_exposure():
    assert flux_scales([30.0, 60.0, 120.0], [1.0, 0.5, 1.0]).tolist() == [2.0, 2.0, 0.5]


def test_zero_points_of_frames_follow_the_reference():
    rng = np.random.default_rng(4)
    ra, dec = 150 + rng.uniform(-0.02, 0.02, 40), 20 + rng.uniform(-0.02, 0.02, 40)
    magnitude, error = rng.uniform(15, 19, 40), np.full(40, 0.01)
    stars = [
        FrameStars(ra, dec, magnitude - zeropoint + rng.normal(0, 0.01, 40), error)
        for zeropoint in (25.0, 24.5, 24.8)
    ]
    reference = {"ra": ra, "dec": dec, "r": magnitude, "r_err": error}
    found = frame_zeropoints(stars, reference, "r", 1.5)
    # Each has 40 stars of 0.01 mag, and 0.01 more by which frames may differ.
    assert found.absolute and found.value == pytest.approx([25.0, 24.5, 24.8], abs=0.01)
    relative = frame_zeropoints(stars, None, "r", 1.5)
    assert not relative.absolute and relative.value.sum() == pytest.approx(0, abs=1e-9)
    assert relative.value - relative.value[0] == pytest.approx([0, -0.5, -0.2], abs=0.01)


def chips_of_two_exposures(rng, levels, zeropoints):
    """Return stars and headers of two chips, which share none, in two exposures."""
    stars, headers, skies = [], [], []
    for chip in (0, 1):
        ra, dec = 150 + 0.1 * chip + rng.uniform(0, 0.02, 15), 20 + rng.uniform(0, 0.02, 15)
        skies.append((ra, dec, rng.uniform(15, 18, 15)))
    for exposure, cloud in enumerate((0.0, 0.3)):
        for chip, (ra, dec, magnitude) in enumerate(skies):
            seen = magnitude - zeropoints[chip] + cloud + rng.normal(0, 0.005, 15)
            stars.append(FrameStars(ra, dec, seen, np.full(15, 0.005)))
            headers.append(fits.Header(
                {"RAWFILE": f"{exposure}.fits", "FLATSET": "a", "FLATLEV": levels[chip]}
            ))  # fmt: skip
    catalogue = [np.concatenate([sky[k] for sky in skies]) for k in (0, 1, 2)]
    ra, dec, magnitude = catalogue
    # Colour terms: what the reference has differs from star to star.
    wrong = magnitude + rng.normal(0, 0.04, magnitude.size)
    reference = {"ra": ra, "dec": dec, "r": wrong, "r_err": np.full(ra.size, 0.01)}
    return stars, headers, reference


def test_chips_are_tied_by_their_flats():
    """A chip of 0.8 of the other's sensitivity, without a star or reference in common."""
    rng = np.random.default_rng(8)
    right = [25.0, 25.0 + 2.5 * np.log10(0.8)]
    stars, headers, reference = chips_of_two_exposures(rng, [20000.0, 16000.0], right)
    chips = chip_levels(headers)
    assert chips.shape == (4, 2)
    apart = frame_zeropoints(stars, None, "r", 1.5)
    assert len(set(apart.group)) == 2
    for given in (None, reference):
        found = frame_zeropoints(stars, given, "r", 1.5, chips)
        assert len(set(found.group)) == 1
        assert found.value - found.value[0] == pytest.approx(
            [0, right[1] - right[0], -0.3, right[1] - right[0] - 0.3], abs=0.01
        )
    assert levels_against_stars(frame_zeropoints(stars, reference, "r", 1.5), chips) < 0.01


def test_flats_of_chips_that_were_not_lit_alike_are_found():
    rng = np.random.default_rng(9)
    stars, headers, reference = chips_of_two_exposures(rng, [20000.0, 16000.0], [25.0, 25.0])
    alone = frame_zeropoints(stars, reference, "r", 1.5)
    assert levels_against_stars(alone, chip_levels(headers)) > 0.05


def test_frames_of_one_chip_have_no_ties():
    headers = [fits.Header({"RAWFILE": f"{k}.fits", "FLATLEV": 1e4}) for k in range(3)]
    assert chip_levels(headers).shape == (3, 0)
    assert chip_levels([fits.Header({"RAWFILE": "0.fits"})] * 2).shape == (2, 0)


def test_parts_of_light_that_agree_are_one():
    fractions, errors = shared_corrections(
        np.array([0.95, 0.951, 0.9, 0.949]), np.array([0.002, 0.002, 0.04, 0.002])
    )
    assert fractions == pytest.approx(np.full(4, 0.95), abs=1e-4)
    assert (errors[[0, 1, 3]] <= 0.002).all() and errors[2] < 0.04


def test_parts_of_light_that_differ_are_kept():
    given = np.array([0.95, 0.97, 0.93, 0.949])
    fractions, errors = shared_corrections(given, np.full(4, 0.001))
    assert fractions == pytest.approx(given, abs=5e-4)
    assert errors == pytest.approx(np.full(4, 0.001), rel=0.1)


@pytest.mark.parametrize("spread", [0.0, 0.003, 0.02])
def test_errors_of_shared_parts_of_light_hold(spread):
    rng = np.random.default_rng(6)
    pulls = []
    for _ in range(100):
        truth = np.log(0.95) + spread * rng.normal(size=5)
        stated = np.full(5, 0.004) * rng.uniform(0.5, 2, 5)
        fractions, errors = shared_corrections(np.exp(truth + stated * rng.normal(size=5)), stated)
        pulls.append((np.log(fractions) - truth) / errors)
    assert np.std(pulls) < 1.3


STRANGE_STARS = {
    "ring": (2.5, simulate.ring_spots(6, 3, 1)),
    "ring off centre": (1.5, simulate.ring_spots(4, 1.5, 0.8, shift=0.7)),
    "coma": (2.5, simulate.coma_spots(8)),
}


@pytest.mark.parametrize("kind", STRANGE_STARS)
def test_transparencies_are_true_whatever_stars_look_like(kind):
    """To 1 %, the zero points of the frames to 1.5 %: two errors of 20 stars' flat field."""
    fwhm, spots = STRANGE_STARS[kind]
    rng = np.random.default_rng(1)
    transparency, size, frames = [1.0, 0.7, 1.0], 420, []
    places = np.array([(x, y) for x in range(45, size, 66) for y in range(45, size, 66)])
    header = make_header()
    ra, dec = WCS(header).all_pix2world(*(places + rng.uniform(-10, 10, places.shape)).T, 0)
    reference = {"ra": ra, "dec": dec, "r": rng.uniform(13.5, 17.5, len(ra))}
    reference["r_err"] = np.full(len(ra), 0.005)
    for number, clear in enumerate(transparency):
        header = make_header(angle=rng.uniform(-4, 4), shift=rng.uniform(-5, 5, 2))
        header["SKYSUB"], header["SATURATE"] = 400.0, 1e7
        header["NAXIS1"] = header["NAXIS2"] = size
        x, y = WCS(header).all_world2pix(ra, dec, 0)
        flux = 10 ** (-0.4 * (reference["r"] - ZP)) * header["EXPTIME"] * clear
        psf = simulate.PSF(fwhm, 3.0, spots=spots)
        image = simulate.render_sources((size, size), x, y, flux, psf, 20.0)
        image = rng.poisson(image + 400) - 400 + rng.normal(0, 8, image.shape)
        frame = StackFrame(str(number), Path(str(number)), header)
        mask = np.zeros(image.shape, np.uint8)
        frame.measured = measure_frame(image.astype("f4"), mask, header, StackSettings())
        frames.append(frame)
    used = select_frames(frames, reference, "r", StackSettings())
    assert len(used) == len(frames)
    found = np.array([frame.zeropoint.transparency for frame in frames])
    zeropoint = np.array([frame.zeropoint.value for frame in frames])
    assert found / found[0] == pytest.approx(transparency, rel=0.01)
    assert zeropoint == pytest.approx(ZP + 2.5 * np.log10(transparency), abs=0.015)
