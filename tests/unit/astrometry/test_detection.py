"""Stars found on painted frames, and the rule from files to JSON."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from simulatedframes import SCALE, SETTINGS

from lib.astrometry import detection
from lib.astrometry.detection import detect
from lib.astrometry.residuals import plot_residuals
from lib.astrometry.solution import detect_all, solve_stack, write_solution
from lib.astrometry.solvedheader import apply_solution
from lib.core.programs import ProgramFailed, run_program
from lib.core.settings import AstrometrySettings
from lib.frame.file import BAD, COSMIC, NODATA, SATURATED, Frame, FrameRejected, write_frame


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
    frame = detect(tmp_path / "zsfp2a.fits", SETTINGS)
    assert (frame.name, frame.shape) == ("2a", (200, 200))
    found = np.column_stack([frame.x, frame.y])
    for place in np.array(GRID) + 1:
        # 20000 electrons, sigma 2 pixels, noise 10: an error of some 0.02 pixel.
        assert np.hypot(*(found - place).T).min() < 0.1
    assert np.all((frame.error > 0.003) & (frame.error < 0.1))


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
    frame = detect(tmp_path / "2.fits", SETTINGS)
    assert len(frame.stars) == len(GRID)
    assert np.hypot(frame.x - 31.3, frame.y - 26.7).min() > 20
    assert np.hypot(frame.x - 155, frame.y - 11).min() > 10


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -1), (-1, 1)])
def test_star_with_a_masked_pixel_stays_where_it_is(tmp_path, shift):
    places = np.rint(GRID).astype(int) + shift
    mask = np.zeros((200, 200), np.uint8)
    mask[places[:, 1], places[:, 0]] = BAD
    painted_frame(tmp_path / "2.fits", GRID, mask=mask)
    with fits.open(tmp_path / "2.fits", mode="update") as hdus:
        hdus[0].data[mask > 0] = -500.0
    frame = detect(tmp_path / "2.fits", SETTINGS)
    found = np.column_stack([frame.x, frame.y]) - 1
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
    frame = detect(tmp_path / "2.fits", SETTINGS)
    assert len(frame.stars) == len(GRID) - 1
    assert np.hypot(frame.x - 121.3, frame.y - 116.7).min() > 20


def test_a_frame_without_stars_is_rejected_one_of_two_is_not(tmp_path):
    painted_frame(tmp_path / "2.fits", GRID[:2])
    assert len(detect(tmp_path / "2.fits", SETTINGS).stars) == 2
    painted_frame(tmp_path / "2.fits", [])
    with pytest.raises(FrameRejected, match="TOO_FEW_STARS: 0 < 1"):
        detect(tmp_path / "2.fits", SETTINGS)


def test_frame_without_usable_pixel(tmp_path):
    painted_frame(tmp_path / "2.fits", GRID, mask=np.full((200, 200), BAD, np.uint8))
    with pytest.raises(FrameRejected, match="TOO_FEW_STARS: 0 < 1, no usable pixel"):
        detect(tmp_path / "2.fits", SETTINGS)


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
    paths_of_all = [*paths, tmp_path / "zsfp2b.fits"]
    solution = solve_stack(paths_of_all, table, SETTINGS, threads=2)
    write_solution(tmp_path / "s.json", solution, "s")
    plot_residuals(tmp_path / "s.png", solution.reference, solution.residuals, "s")
    read = json.loads((tmp_path / "s.json").read_text())
    assert read["frames"]["2b"] == {
        "status": "REJECTED",
        "code": "TOO_FEW_STARS",
        "numbers": "0 < 1",
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
        solve_stack([tmp_path / "2.fits"], table, AstrometrySettings())


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
    frames, rejected = detect_all(paths, SETTINGS, 1)
    assert ([e.name for e in frames], rejected) == (["2a0", "2a1", "2a2"], {})


def test_frame_that_cannot_be_searched_is_rejected(tmp_path, monkeypatch):
    paths = painted_frames(tmp_path, 3)
    calls = fail_at(monkeypatch, lambda number: number in (2, 4))
    frames, rejected = detect_all(paths, SETTINGS, 1)
    assert [e.name for e in frames] == ["2a0", "2a2"]
    assert rejected["2a1"].code == "DETECTION_FAILED"
    assert len(calls) == 5  # the last one proves that the machine is well


def test_machine_that_breaks_down_is_no_verdict_on_the_rest(tmp_path, monkeypatch):
    paths = painted_frames(tmp_path, 3)
    fail_at(monkeypatch, lambda number: number > 1)
    with pytest.raises(ProgramFailed, match="exit code 1"):
        detect_all(paths, SETTINGS, 1)
