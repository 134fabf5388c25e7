"""Astrometric solutions: maps and cards, groups of frames with known truth, and detection."""

import json

import numpy as np
import pytest
import solve
from astrometry import apply_solution
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from starlink import Ast

from lib.astrometry import detection, firstsolution
from lib.astrometry.crossvalidation import degrees_allowed
from lib.astrometry.detection import CATALOGUE_COLUMNS, detect
from lib.astrometry.pixelmaps import (
    fit_cards,
    remembering,
    sky_from_cards,
    sky_from_tpv,
    starting_sky,
    tpv_terms,
)
from lib.astrometry.residuals import plot_residuals, residuals, weighted_rms
from lib.astrometry.scamp import run_scamp
from lib.astrometry.starlists import Exposure, Reference, reference_extent, reference_from_table
from lib.core.programs import ProgramFailed, run_program
from lib.core.sphere import deproject, project
from lib.frame.file import BAD, COSMIC, NODATA, SATURATED, Frame, FrameRejected, write_frame
from lib.frame.fitsbytes import read_head

SHAPE = (1024, 900)
SCALE = 0.3  # arcsec a pixel

RADIAL = {}
for axis in (1, 2):
    RADIAL |= {f"PV{axis}_1": 1.0, f"PV{axis}_17": -19.6, f"PV{axis}_19": -39.2}
    RADIAL |= {f"PV{axis}_21": -19.6}


def cards(ra=150.0, dec=20.0, *, angle=0.0, scale=SCALE, pv=None, parity=-1):
    """WCS cards of a frame, the optical axis off its middle where distorted."""
    a = np.radians(angle)
    cd = scale / 3600 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    cd = cd * [parity, 1.0]
    projection = "TPV" if pv else "TAN"
    return {
        "CTYPE1": f"RA---{projection}",
        "CTYPE2": f"DEC--{projection}",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": 700.0 if pv else 450.5,
        "CRPIX2": 900.0 if pv else 512.5,
        "CD1_1": cd[0, 0],
        "CD1_2": cd[0, 1],
        "CD2_1": cd[1, 0],
        "CD2_2": cd[1, 1],
        **(pv or {}),
    }


def simulated_sky(rng, count=400, radius=300.0, ra=150.0, dec=20.0):
    """Stars about a point: ra, dec [deg] and magnitude."""
    points = rng.uniform(-radius, radius, (count, 2))
    return (*deproject(points, ra, dec), 19 - rng.exponential(1.5, count))


def simulated_exposure(name, true, claimed, sky, rng, *, noise=0.03, depth=19.0):
    """An exposure with the stars that `true` cards put on it, and the header `claimed`."""
    ra, dec, magnitude = sky
    with np.errstate(invalid="ignore"):
        x, y = WCS(fits.Header(true)).all_world2pix(ra, dec, 1, quiet=True)
    on = (x > 1) & (x < SHAPE[1]) & (y > 1) & (y < SHAPE[0]) & (magnitude < depth)
    x, y, magnitude = x[on], y[on], magnitude[on]
    error = noise * 10 ** (0.2 * (magnitude - 17))
    dtype = [(name, "f8") for name in CATALOGUE_COLUMNS[:2]]
    dtype += [(name, "f4") for name in CATALOGUE_COLUMNS[2:10]]
    dtype += [(name, "i2") for name in CATALOGUE_COLUMNS[10:12]]
    dtype += [(name, "i4") for name in CATALOGUE_COLUMNS[12:]]
    stars = np.zeros(len(x), dtype)
    stars["XWIN_IMAGE"] = x + error * rng.normal(size=len(x))
    stars["YWIN_IMAGE"] = y + error * rng.normal(size=len(x))
    for key in ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"):
        stars[key] = error
    stars["FLUX_AUTO"] = 10 ** (-0.4 * (magnitude - 25))
    stars["FLUXERR_AUTO"] = stars["FLUX_AUTO"] * error / 1.5
    stars["FWHM_IMAGE"], stars["FLUX_RADIUS"], stars["ELONGATION"] = 4.0, 2.0, 1.0
    stars = stars[np.argsort(-stars["FLUX_AUTO"])]
    header = fits.Header(claimed)
    header.update({"POSERR": 0.05, "PIXSCALE": SCALE, "MJD-OBS": 59607.0, "EXPTIME": 60.0})
    return Exposure(name, header, SHAPE, stars)


def reference_of(sky, rng, error=0.0005):
    """Reference with Gaussian errors [arcsec]."""
    ra, dec, magnitude = sky
    points = project(ra, dec, 150.0, 20.0) + rng.normal(0, error, (len(ra), 2))
    return Reference(*deproject(points, 150.0, 20.0), np.full(len(ra), error), np.array(magnitude))


def group(rng, sky, *, frames=4, pv=None, error=4.0, angle=0.1, **how):
    """Dithered exposures whose headers are off in pointing [arcsec] and angle [deg]."""
    made, truths = [], []
    for k in range(frames):
        ra, dec = 150 + 0.003 * k, 20 + 0.002 * (k % 3)
        true = cards(ra, dec, angle=angle, pv=pv, scale=SCALE * 1.0005)
        off = rng.normal(0, error / 3600, 2)
        claimed = cards(ra + off[0], dec + off[1], pv=pv)
        made.append(simulated_exposure(f"2f{k}", true, claimed, sky, rng, **how))
        truths.append(true)
    return made, truths


def map_error(entry, true):
    """Difference of solved cards from the truth over the frame [mas], shape (n, 2)."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, 900, 8), np.linspace(1, 1024, 8)))
    ra, dec = sky_from_cards(entry["cards"])(x, y)
    true_ra, true_dec = WCS(fits.Header(true)).all_pix2world(x, y, 1)
    return 3.6e6 * np.stack([(ra - true_ra) * np.cos(np.radians(dec)), dec - true_dec], axis=1)


OPTIONS = solve.DEFAULTS | {"timeout": 60.0}


def solved(exposures, reference, **how):
    """Entries and summary of `solve_group`."""
    arguments = {"catalogue": "made"} | how
    return solve.solve_group(exposures, reference, OPTIONS, **arguments)[0]


EMPTY = Reference(*(np.zeros(0) for _ in range(4)))


# --- Maps and cards -----------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_tpv_terms_are_those_of_wcslib(degree):
    index, i, j = tpv_terms(degree)[-2]
    header = fits.Header(cards(pv={"PV1_1": 1.0, "PV2_1": 1.0}))
    header[f"PV1_{index}"] = 0.01 if index > 1 else 1.01
    x, y = np.array([100.0, 800.0]), np.array([50.0, 70.0])
    got = project(*WCS(header).all_pix2world(x, y, 1), 150.0, 20.0) / 3600
    cd = np.array([[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]])
    xi, eta = cd @ [x - header["CRPIX1"], y - header["CRPIX2"]]
    np.testing.assert_allclose(got[:, 0], xi + 0.01 * xi**i * eta**j, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dec", "pv"), [(20.0, None), (-89.5, None), (20.0, RADIAL)])
def test_cards_reproduce_a_map(dec, pv):
    true = cards(0.01, dec, angle=33, pv=pv)
    made, error = fit_cards(sky_from_cards(true), SHAPE)
    assert made["CTYPE1"] == ("RA---TPV" if pv else "RA---TAN")
    assert error < 2e-4
    x, y = np.array([1.0, 333.0, 900.0]), np.array([1024.0, 77.0, 3.0])
    a = project(*sky_from_cards(made)(x, y), 0.01, dec)
    b = project(*sky_from_cards(true)(x, y), 0.01, dec)
    # Between the nodes too: 1 mas is far below what is asked of a solution.
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 7])
def test_quick_map_of_tpv_is_that_of_wcslib(degree):
    rng = np.random.default_rng(degree)
    made = cards(359.99, 70.0, angle=33)
    if degree > 1:
        made |= {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.001, "PV2_1": 0.999}
        for axis in (1, 2):
            for index, i, j in tpv_terms(degree):
                if i + j > 1:
                    made[f"PV{axis}_{index}"] = rng.normal() * 0.05 ** (1 - i - j) * 1e-3
    x, y = rng.uniform(1, 900, (2, 50))
    ra, dec = sky_from_tpv(made)(x, y)
    expected = sky_from_cards(made)(x, y)
    # Microarcseconds.
    np.testing.assert_allclose([ra, dec], expected, rtol=0, atol=1e-10)


def test_quick_map_refuses_radial_terms():
    with pytest.raises(ValueError, match="PV1_3"):
        sky_from_tpv(cards(pv={"PV1_1": 1.0, "PV1_3": 0.1}))


def test_maps_remember_only_what_cannot_change():
    calls = []

    @remembering
    def sky(x, y):
        calls.append(len(x))
        return x + 1, y + 1

    x, y = np.arange(3.0), np.arange(3.0)
    sky(x, y)
    x[0] = 5
    assert sky(x, y)[0][0] == 6
    assert len(calls) == 2
    for values in (x, y):
        values.flags.writeable = False
    assert sky(x, y) is sky(x, y)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="read-only"):
        sky(x, y)[0][0] = 0


@pytest.mark.parametrize("pv", [None, RADIAL])
def test_cards_are_read_alike_by_ast(pv):
    """AST is what DS9 reads coordinates with, WCSLIB what astropy does."""
    made, _ = fit_cards(sky_from_cards(cards(angle=33, pv=pv)), SHAPE)
    header = fits.Header(made | {"NAXIS": 2, "NAXIS1": SHAPE[1], "NAXIS2": SHAPE[0]})
    channel = Ast.FitsChan()
    for card in header.cards:
        channel.putfits(str(card), False)
    channel.Card = 1
    x, y = np.random.default_rng(1).uniform(1, 900, (2, 50))
    ra, dec = np.degrees(channel.read().tran([x, y]))
    expected = np.array(WCS(header).all_pix2world(x, y, 1))
    # Microarcseconds.
    np.testing.assert_allclose([ra % 360, dec], expected, rtol=0, atol=3e-10)


def test_starting_map_without_any_coordinates():
    header = fits.Header({"PIXSCALE": 0.5})
    sky, radius = starting_sky(header, (100, 100))
    ra, dec = sky([50.5, 49.5], [50.5, 50.5])
    assert radius is None
    assert (ra[0], dec[0]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert ra[1] * 3600 == pytest.approx(0.5, rel=1e-6)


def test_starting_map_from_pointing_or_reference():
    sky, radius = starting_sky(
        fits.Header({"RA": 10.0, "DEC": -5.0, "POSERR": 0.2}), (100, 100), (50.0, 1.0, 0.3)
    )
    assert [float(v[0]) for v in sky([50.5], [50.5])] == pytest.approx([10.0, -5.0])
    assert radius == 0.2
    sky, radius = starting_sky(fits.Header(), (100, 100), (50.0, 1.0, 0.3))
    assert [float(v[0]) for v in sky([50.5], [50.5])] == pytest.approx([50.0, 1.0])
    assert radius == 0.3


def test_reference_extent_across_zero():
    reference = Reference(np.array([359.9, 0.1]), np.zeros(2), np.full(2, 0.1), np.zeros(2))
    ra, dec, radius = reference_extent(reference)
    assert min(ra, 360 - ra) < 1e-9
    assert dec == pytest.approx(0.0)
    assert radius == pytest.approx(0.1)


def test_reference_from_table_fills_magnitudes_and_errors():
    table = Table({"ra": [1.0, 2.0, np.nan], "dec": [0.0, 0.0, 0.0]})
    table["ra_err"], table["dec_err"] = [3.0, np.nan, 1.0], [3.0, 1.0, 1.0]
    table["r"], table["J"] = [15.0, np.nan, 3.0], [13.0, 14.0, 1.0]
    reference = reference_from_table(table, "r")
    assert len(reference) == 2
    np.testing.assert_allclose(reference.error, [0.003, 0.1])
    np.testing.assert_allclose(reference.magnitude, [15.0, 16.0])


@pytest.mark.parametrize(
    ("number", "choice", "degrees"),
    [(5, "auto", [1]), (40, "auto", [1, 3]), (200, "auto", [1, 3, 5, 7]), (200, 3, [1, 3])],
)
def test_degrees_allowed(number, choice, degrees):
    assert degrees_allowed(number, choice) == degrees


# --- Groups -------------------------------------------------------------------------------


@pytest.mark.parametrize("pv", [None, RADIAL], ids=["plain", "distorted"])
def test_group_is_solved_to_a_few_mas(pv):
    rng = np.random.default_rng(1)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, pv=pv)
    result = solved(exposures, reference_of(sky, rng))
    assert result["catalogue"] == "made"
    assert {"own", "scamp"} == set(result["crossvalidation"])
    for exposure, true in zip(exposures, truths, strict=True):
        entry = result["frames"][exposure.name]
        assert entry["status"] == "OK"
        error = map_error(entry, true)
        # 0.03 pixel at 17 mag on some 100 stars: below 2 mas in the mean of each frame.
        assert np.abs(error.mean(axis=0)).max() < 2.5
        assert np.sqrt((error**2).mean()) < 5
        assert entry["contrast"] > 2
        assert entry["nstars"] > 30
    json.dumps(result, allow_nan=False)


def test_scamp_runs_in_one_thread(monkeypatch):
    """With more it adds up in another order now and then, and the last digits differ."""
    commands = []

    def note(argv, **how):
        commands.append(argv)
        return run_program(argv, **how)

    monkeypatch.setattr(detection, "run_program", note)
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 200)
    exposures, _ = group(rng, sky, frames=3)
    solved(exposures, reference_of(sky, rng))
    assert commands
    assert {argv[argv.index("-NTHREADS") + 1] for argv in commands} == {1}


def test_scamp_alone_reproduces_the_truth():
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=3, pv=RADIAL)
    reference = reference_of(sky, rng)
    for exposure, true in zip(exposures, truths, strict=True):
        exposure.sky = sky_from_cards(true)
    maps = run_scamp(exposures, reference, 3, OPTIONS, crossid=0.5)
    found = residuals(exposures, reference, sky=maps)
    assert len(found["dx"]) > 200
    # The noise of the stars themselves.
    assert weighted_rms(found["dx"], found["error"]) < 0.01


def test_distortion_unknown_to_the_header_raises_the_degree():
    rng = np.random.default_rng(3)
    sky = simulated_sky(rng, 700)
    exposures, truths = group(rng, sky, frames=3)
    cubic = {f"PV{a}_{n}": v for a in (1, 2) for n, v in ((1, 1.0), (7, 5.0), (9, 5.0))}
    truths = [t | cubic | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"} for t in truths]
    exposures = [
        simulated_exposure(e.name, t, e.header, sky, rng)
        for e, t in zip(exposures, truths, strict=True)
    ]
    result = solved(exposures, reference_of(sky, rng))
    assert result["degree"] == 3
    for exposure, true in zip(exposures, truths, strict=True):
        entry = result["frames"][exposure.name]
        assert entry["cards"]["CTYPE1"] == "RA---TPV"
        assert np.sqrt((map_error(entry, true) ** 2).mean()) < 10


def test_few_stars_do_not_raise_the_degree():
    rng = np.random.default_rng(4)
    sky = simulated_sky(rng, 150)
    exposures, truths = group(rng, sky, frames=3)
    result = solved(exposures, reference_of(sky, rng))
    assert result["degree"] == 1
    for exposure, true in zip(exposures, truths, strict=True):
        error = map_error(result["frames"][exposure.name], true)
        assert np.abs(np.median(error, axis=0)).max() < 15


def test_a_frame_of_another_place_is_rejected_and_the_others_go_on():
    rng = np.random.default_rng(5)
    sky = simulated_sky(rng, 120)
    exposures, _ = group(rng, sky, frames=3)
    other = simulated_sky(rng, 120)
    exposures.append(simulated_exposure("2other", cards(), cards(), other, rng))
    result = solved(exposures, reference_of(sky, rng))
    entry = result["frames"]["2other"]
    assert (entry["status"], entry["code"]) == ("REJECTED", "NO_MATCH")
    assert "chance 1e" in entry["numbers"]
    # Whole in the header too, where QCREASON holds 68 characters.
    assert len(f"NO_MATCH: {entry['numbers']}") <= 68
    assert result["solved"] == 3


def test_mirrored_turned_and_badly_pointed_group_is_found():
    rng = np.random.default_rng(6)
    sky = simulated_sky(rng, 8000, 1800.0)
    exposures, truths = [], []
    for k in range(2):
        true = cards(150 + 0.003 * k, 20.0, angle=130, parity=1, scale=SCALE * 1.05)
        truths.append(true)
        claimed = cards(150.1, 19.684)  # 20' off
        exposures.append(simulated_exposure(f"2f{k}", true, claimed, sky, rng))
        exposures[-1].header["POSERR"] = 0.1
    result = solved(exposures, reference_of(sky, rng))
    for exposure, true in zip(exposures, truths, strict=True):
        error = map_error(result["frames"][exposure.name], true)
        assert np.sqrt((error**2).mean()) < 8
    # The second needs no asterisms: the first has taught the camera's orientation.
    rungs = {entry["rung"] for entry in result["frames"].values()}
    assert rungs in ({"asterism", "header"}, {"asterism", "offset"})


def test_a_stray_frame_is_found_beyond_its_pointing_error():
    rng = np.random.default_rng(13)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=3)
    exposures[1].header["CRVAL2"] += 20 / 60
    result = solved(exposures, reference_of(sky, rng))
    assert result["frames"]["2f1"]["rung"] == "offset"
    assert np.sqrt((map_error(result["frames"]["2f1"], truths[1]) ** 2).mean()) < 8


@pytest.mark.parametrize("off", [1e-3, 0.3])
def test_frame_with_too_few_reference_stars_is_found_by_its_neighbours(off, monkeypatch):
    rng = np.random.default_rng(7)
    sky = simulated_sky(rng, 500, 600.0)
    true = [cards(150.0, 20.0), cards(150.0, 20.06), cards(150.0, 20.1)]
    exposures = [
        simulated_exposure(f"2f{k}", t, cards(t["CRVAL1"], t["CRVAL2"] + off), sky, rng)
        for k, t in enumerate(true)
    ]
    for exposure in exposures:
        exposure.header["POSERR"] = 0.1
    tried, match = [], firstsolution.match_stars

    def match_stars(*args, **how):
        tried.append(how["asterisms"])
        return match(*args, **how)

    monkeypatch.setattr(firstsolution, "match_stars", match_stars)
    # The reference covers the first field and half of the second only.
    reference = reference_of(sky, rng)
    reference = reference[reference.dec < 20.05]
    result = solved(exposures, reference)
    assert result["frames"]["2f2"]["rung"] == "neighbours"
    assert np.sqrt((map_error(result["frames"]["2f2"], true[2]) ** 2).mean()) < 50
    # They take ten times longer than all else.
    assert tried and not any(tried)


def test_turned_frame_among_others_is_found():
    rng = np.random.default_rng(16)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=4)
    true = cards(150.0, 20.0, angle=130)
    turned = simulated_exposure("2turned", true, cards(150.0, 20.001), sky, rng)
    result = solved([*exposures[:2], turned, *exposures[2:]], reference_of(sky, rng))
    assert result["frames"]["2turned"]["rung"] == "asterism"
    for exposure, truth in zip([*exposures, turned], [*truths, true], strict=True):
        error = map_error(result["frames"][exposure.name], truth)
        assert np.sqrt((error**2).mean()) < 8


@pytest.mark.parametrize("why", ["still running after 60 s", "killed by SIGSEGV"])
def test_scamp_failing_leaves_the_own_solution(monkeypatch, why):
    def fail(argv, **_):
        raise ProgramFailed(argv[0], why)

    monkeypatch.setattr(detection, "run_program", fail)
    rng = np.random.default_rng(8)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=3)
    result = solved(exposures, reference_of(sky, rng))
    assert result["method"] == "own"
    assert why in result["scamp_failed"]
    for exposure, true in zip(exposures, truths, strict=True):
        error = map_error(result["frames"][exposure.name], true)
        assert np.sqrt((error**2).mean()) < 5


def test_wrong_reference_stars_do_not_move_the_frames():
    rng = np.random.default_rng(9)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=3)
    reference = reference_of(sky, rng)
    bad = rng.uniform(size=len(reference)) < 0.1
    reference.dec[bad] += 0.2 / 3600
    result = solved(exposures, reference)
    for exposure, true in zip(exposures, truths, strict=True):
        error = map_error(result["frames"][exposure.name], true)
        assert np.abs(error.mean(axis=0)).max() < 5


# --- No reference -------------------------------------------------------------------------


def relative_error(result, truths, exposures):
    """Errors of the maps [pixel] after the common shift is taken away."""
    errors = [
        map_error(result["frames"][e.name], t) for e, t in zip(exposures, truths, strict=True)
    ]
    return (np.array(errors) - np.mean(errors, axis=0)) / 1000 / SCALE


@pytest.mark.parametrize("reason", ["empty", "elsewhere"])
def test_without_reference_frames_are_aligned_with_each_other(reason):
    rng = np.random.default_rng(10)
    sky = simulated_sky(rng, 100)
    exposures, truths = group(rng, sky, frames=2, error=8.0, angle=0.0)
    reference = EMPTY if reason == "empty" else reference_of(simulated_sky(rng, 100), rng)
    result = solved(exposures, reference, reason="refcat=none")
    assert result["catalogue"] == "NONE"
    if reason == "empty":
        assert result["reason"] == "refcat=none"
    else:
        assert result["reason"].startswith("no frame matched made")
    assert np.abs(relative_error(result, truths, exposures)).max() < 0.1


def test_frames_without_coordinates_are_aligned():
    rng = np.random.default_rng(11)
    sky = simulated_sky(rng, 300)
    exposures, truths = group(rng, sky, frames=3, angle=0.0)
    for exposure in exposures:
        for key in list(cards()):
            exposure.header.remove(key)
    result = solved(exposures, EMPTY)
    assert result["catalogue"] == "NONE"
    assert result["solved"] == 3
    # The same star has the same made-up position on all frames.
    places = []
    for exposure, true in zip(exposures, truths, strict=True):
        x, y = WCS(fits.Header(true)).all_world2pix([150.005], [20.003], 1)
        entry = result["frames"][exposure.name]
        places.append(project(*sky_from_cards(entry["cards"])(x, y), 0.0, 0.0)[0])
    assert np.ptp(places, axis=0).max() / SCALE < 0.1


def test_frames_without_coordinates_are_found_in_a_reference():
    rng = np.random.default_rng(15)
    sky = simulated_sky(rng, 300)
    exposures, truths = group(rng, sky, frames=2)
    for exposure in exposures:
        for key in list(cards()):
            exposure.header.remove(key)
    result = solved(exposures, reference_of(sky, rng))
    assert (result["catalogue"], result["solved"]) == ("made", 2)
    for exposure, true in zip(exposures, truths, strict=True):
        error = map_error(result["frames"][exposure.name], true)
        assert np.sqrt((error**2).mean()) < 8


def test_single_frame_keeps_its_header():
    rng = np.random.default_rng(12)
    exposures, _ = group(rng, simulated_sky(rng, 300), frames=1)
    result = solved(exposures, EMPTY)
    entry = result["frames"]["2f0"]
    assert entry["status"] == "OK"
    assert entry["contrast"] is None
    made = sky_from_cards(entry["cards"])([450.5], [512.5])
    header = exposures[0].header
    assert [float(v[0]) for v in made] == pytest.approx([header["CRVAL1"], header["CRVAL2"]])


def test_single_frame_with_reference():
    rng = np.random.default_rng(14)
    sky = simulated_sky(rng, 500)
    exposures, truths = group(rng, sky, frames=1)
    result = solved(exposures, reference_of(sky, rng))
    error = map_error(result["frames"]["2f0"], truths[0])
    assert np.sqrt((error**2).mean()) < 8


def test_coordinates_that_are_none_of_the_sky():
    header = fits.Header({"CTYPE1": "PIXEL", "CRVAL1": 512.0, "RA": 10.0, "DEC": 20.0})
    sky, _ = starting_sky(header, (100, 100))
    assert float(sky([50.5], [50.5])[0][0]) == pytest.approx(10.0)


def test_no_frame_at_all():
    result = solved([], EMPTY)
    assert (result["catalogue"], result["frames"]) == ("NONE", {})


# --- Detection and the rule ---------------------------------------------------------------


def painted_frame(path, positions, *, mask=None, fluxes=20000.0):
    """Write a frame with Gaussian stars (0-based positions) on noise of 10 electrons."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    image = rng.normal(0, 10, (200, 200))
    for (px, py), flux in zip(positions, np.broadcast_to(fluxes, len(positions)), strict=True):
        image += flux / (2 * np.pi * 4) * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    header = fits.Header({"GAIN": 1.0, "SATURATE": 1e5, "FRAME": "2a", "PIXSCALE": SCALE})
    bits = np.zeros(image.shape, np.uint8) if mask is None else mask
    write_frame(path, Frame(image.astype(np.float32), bits, header))


GRID = [(30.3 + 45 * a, 25.7 + 45 * b) for a in range(4) for b in range(4)]


def test_detection_finds_stars_where_they_are(tmp_path):
    painted_frame(tmp_path / "zsfp2a.fits", GRID)
    exposure = detect(tmp_path / "zsfp2a.fits", OPTIONS)
    assert (exposure.name, exposure.shape) == ("2a", (200, 200))
    found = np.column_stack([exposure.x, exposure.y])
    for place in np.array(GRID) + 1:
        # 20000 electrons, sigma 2 pixels, noise 10: an error of some 0.02 pixel.
        assert np.hypot(*(found - place).T).min() < 0.1
    assert np.all((exposure.error > 0.003) & (exposure.error < 0.1))


@pytest.mark.parametrize("vignetted", [0, 10], ids=["few pixels", "many"])
def test_masked_pixels_make_no_stars(tmp_path, vignetted):
    mask = np.zeros((200, 200), np.uint8)
    mask[:vignetted] = NODATA
    mask[20:33, 24:37] = SATURATED  # the first star
    painted_frame(tmp_path / "2.fits", [*GRID, (100.0, 100.0)], mask=mask)
    with fits.open(tmp_path / "2.fits", mode="update") as hdus:
        hdus[0].data[10, 150:160] = 5000.0
        hdus["MASK"].data[10, 150:160] = COSMIC
        hdus[0].data[150, 10:14] = np.nan
        hdus["MASK"].data[150, 10:14] = BAD
        hdus[0].data[:vignetted] = np.random.default_rng(1).normal(900, 300, (vignetted, 200))
    exposure = detect(tmp_path / "2.fits", OPTIONS)
    assert len(exposure.stars) == len(GRID)
    assert np.hypot(exposure.x - 31.3, exposure.y - 26.7).min() > 20
    assert np.hypot(exposure.x - 155, exposure.y - 11).min() > 10


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-1, 1)])
def test_star_with_a_masked_pixel_stays_where_it_is(tmp_path, shift):
    places = np.rint(GRID).astype(int) + shift
    mask = np.zeros((200, 200), np.uint8)
    mask[places[:, 1], places[:, 0]] = BAD
    painted_frame(tmp_path / "2.fits", GRID, mask=mask)
    with fits.open(tmp_path / "2.fits", mode="update") as hdus:
        hdus[0].data[mask > 0] = -500.0
    exposure = detect(tmp_path / "2.fits", OPTIONS)
    found = np.column_stack([exposure.x, exposure.y]) - 1
    offsets = np.array([(found - place)[np.hypot(*(found - place).T).argmin()] for place in GRID])
    # A mean of four neighbours lacks an eighth of the peak, sigma being 2 pixels: at 1 pixel from
    # the centre 0.5 % of the light, which draws it by 0.01 pixel where the window counts twice.
    assert np.abs(offsets.mean(axis=0)).max() < 0.02
    assert offsets.std(axis=0).max() < 0.05


def test_saturated_star_is_not_several(tmp_path):
    mask = np.zeros((200, 200), np.uint8)
    y, x = np.mgrid[:200, :200]
    mask[np.hypot(x - 120.3, y - 115.7) < 6] = SATURATED
    painted_frame(tmp_path / "2.fits", GRID, mask=mask, fluxes=[2e4] * 10 + [2e6] + [2e4] * 5)
    exposure = detect(tmp_path / "2.fits", OPTIONS)
    assert len(exposure.stars) == len(GRID) - 1
    assert np.hypot(exposure.x - 121.3, exposure.y - 116.7).min() > 20


@pytest.mark.parametrize("positions", [[], GRID[:2]])
def test_too_few_stars_are_told(tmp_path, positions):
    painted_frame(tmp_path / "2.fits", positions)
    with pytest.raises(FrameRejected, match=f"TOO_FEW_STARS: {len(positions)} < 6"):
        detect(tmp_path / "2.fits", OPTIONS)


def test_frame_without_usable_pixel(tmp_path):
    painted_frame(tmp_path / "2.fits", GRID, mask=np.full((200, 200), BAD, np.uint8))
    with pytest.raises(FrameRejected, match="TOO_FEW_STARS: 0 < 6, no usable pixel"):
        detect(tmp_path / "2.fits", OPTIONS)


def test_rule_from_files_to_json_and_plot(tmp_path):
    paths = []
    for k in range(3):
        path = tmp_path / f"zsfp2a{k}.fits"
        painted_frame(path, [(x + k, y) for x, y in GRID + [(160.0, 88.0), (90.0, 166.0)]])
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["FRAME"] = f"2a{k}"
        paths.append(path)
    painted_frame(tmp_path / "zsfp2b.fits", [])
    with fits.open(tmp_path / "zsfp2b.fits", mode="update") as hdus:
        hdus[0].header["FRAME"] = "2b"
    table = Table({"ra": np.zeros(0), "dec": np.zeros(0)}, meta={"reason": "refcat=none"})
    result, reference, found = solve.solve(
        [*paths, tmp_path / "zsfp2b.fits"], table, {"timeout": 60}, threads=2
    )
    solve.write_result(tmp_path / "s.json", result)
    plot_residuals(tmp_path / "s.png", reference, found, "s")
    read = json.loads((tmp_path / "s.json").read_text())
    assert read["frames"]["2b"] == {
        "status": "REJECTED",
        "code": "TOO_FEW_STARS",
        "numbers": "0 < 6",
    }
    assert [read["frames"][f"2a{k}"]["status"] for k in range(3)] == ["OK"] * 3
    assert (read["catalogue"], read["reason"]) == ("NONE", "refcat=none")
    # The frames have no coordinates at all: each star has one made-up position all the same.
    places = []
    for k in range(3):
        header = apply_solution(fits.getheader(paths[k]), read["frames"][f"2a{k}"], "NONE")
        places.append(WCS(header).all_pix2world([100.0 + k], [100.0], 1))
    assert np.ptp(places, axis=0).max() * 3600 / SCALE < 0.1
    assert (tmp_path / "s.png").stat().st_size > 10000


def test_broken_source_extractor_is_no_verdict_on_the_frames(tmp_path, monkeypatch):
    def fail(argv, **_):
        raise ProgramFailed(argv[0], "exit code 1: no")

    monkeypatch.setattr(detection, "run_program", fail)
    painted_frame(tmp_path / "2.fits", GRID)
    table = Table({"ra": np.zeros(0), "dec": np.zeros(0)})
    with pytest.raises(ProgramFailed, match="exit code 1"):
        solve.solve([tmp_path / "2.fits"], table, {})


def painted_frames(folder, number):
    """Paint frames alike; return their paths."""
    paths = []
    for k in range(number):
        paths.append(folder / f"zsfp2a{k}.fits")
        painted_frame(paths[-1], [*GRID, (160.0, 88.0), (90.0, 166.0)])
        fits.setval(paths[-1], "FRAME", value=f"2a{k}")
    return paths


def fail_at(monkeypatch, fails, why="exit code 1: no"):
    """Let the calls of source-extractor fail that `fails`, given the number, says; count them."""
    calls = []

    def sometimes(argv, **how):
        calls.append(argv)
        if fails(len(calls)):
            raise ProgramFailed(argv[0], why)
        return run_program(argv, **how)

    monkeypatch.setattr(detection, "run_program", sometimes)
    return calls


@pytest.mark.parametrize("why", ["exit code 1: no", "killed by SIGKILL: no output"])
def test_passing_fault_costs_no_frame(tmp_path, monkeypatch, why):
    paths = painted_frames(tmp_path, 3)
    fail_at(monkeypatch, lambda number: number == 2, why)
    exposures, rejected = solve.detect_all(paths, OPTIONS, 1)
    assert ([e.name for e in exposures], rejected) == (["2a0", "2a1", "2a2"], {})


def test_frame_that_cannot_be_searched_is_rejected(tmp_path, monkeypatch):
    paths = painted_frames(tmp_path, 3)
    calls = fail_at(monkeypatch, lambda number: number in (2, 4))
    exposures, rejected = solve.detect_all(paths, OPTIONS, 1)
    assert [e.name for e in exposures] == ["2a0", "2a2"]
    assert rejected["2a1"]["code"] == "DETECTION_FAILED"
    assert len(calls) == 5  # the last one proves that the machine is well


def test_machine_that_breaks_down_is_no_verdict_on_the_rest(tmp_path, monkeypatch):
    paths = painted_frames(tmp_path, 3)
    fail_at(monkeypatch, lambda number: number > 1)
    with pytest.raises(ProgramFailed, match="exit code 1"):
        solve.detect_all(paths, OPTIONS, 1)


def test_killed_scamp_is_run_again(monkeypatch):
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 300)
    exposures, _ = group(rng, sky, frames=3)
    reference = reference_of(sky, rng)
    expected = solved(exposures, reference)
    for exposure in exposures:
        exposure.match = None
    calls = fail_at(monkeypatch, lambda number: number % 2, "killed by SIGKILL: no output")
    assert solved(exposures, reference) == expected
    assert len(calls) > 4


def test_unreadable_scamp_header(tmp_path):
    path = tmp_path / "a.head"
    path.write_text("CTYPE1  = 'RA---TPV'\nEND     \n")
    with pytest.raises(ValueError, match="no CRVAL1"):
        read_head(path)
