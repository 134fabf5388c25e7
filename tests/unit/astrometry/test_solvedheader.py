"""The solution in a frame's header, and that every reader understands it alike."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lib.astrometry.pixelmaps import fit_cards, map_from_cards
from lib.astrometry.solvedheader import apply_solution, find_solution, write_solved_frame
from lib.core.programs import find_program, run_program
from lib.core.sphere import deproject
from lib.frame.file import Frame, FrameRejected, read_frame, write_frame

ROOT = Path(__file__).resolve().parents[3]


CARDS = {
    "CTYPE1": "RA---TPV",
    "CTYPE2": "DEC--TPV",
    "CUNIT1": "deg",
    "CUNIT2": "deg",
    "CRVAL1": 150.0,
    "CRVAL2": 20.0,
    "CRPIX1": 100.5,
    "CRPIX2": 100.5,
    "CD1_1": -0.001,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 0.001,
    **{f"PV{axis}_{n}": v for axis in (1, 2) for n, v in ((0, 0.0), (1, 1.0), (7, 0.7), (9, 0.7))},
    "RADESYS": "ICRS",
    "EQUINOX": 2000.0,
}


SOLUTION = {
    "status": "OK",
    "cards": CARDS,
    "rms": [3.14159, 2.71828],
    "nstars": 42,
    "contrast": 312.0,
    "degree": 3,
    "epoch": 2022.07,
}


def test_old_coordinates_go_and_new_ones_come():
    header = fits.Header()
    old = (
        "WCSAXES CDELT1 CDELT2 CROTA2 PC1_1 PC001001 A_ORDER A_0_2 BP_1_0 LONPOLE PV1_5 PV2_31 "
        "CD1_1 CTYPE1A CRVAL1A PV1_1A RADECSYS EPOCH ASTRMS1"
    ).split()
    for key in old:
        header[key] = 7.0
    kept = {"EXPTIME": 60.0, "A": 1, "B": 2, "APERTURE": 3, "PSFSCALE": 4, "QCSTAT": "OK"}
    header.update(kept)
    new = apply_solution(header, SOLUTION, "GaiaDR3")
    for key in old:
        assert key in ("CD1_1", "ASTRMS1") or key not in new, key
    for key, value in (kept | CARDS).items():
        assert new[key] == value
    assert header["CDELT1"] == 7.0  # the caller's header is left alone


def test_quality_cards():
    new = apply_solution(fits.Header(), SOLUTION, "GaiaDR3")
    assert (new["ASTRMS1"], new["ASTRMS2"]) == (3.14, 2.72)
    assert (new["ASTRNST"], new["ASTRCONT"], new["ASTRDEG"]) == (42, 312.0, 3)
    assert (new["ASTRCAT"], new["ASTREPOC"]) == ("GaiaDR3", 2022.07)


def test_numbers_that_are_not_known_make_no_cards():
    solution = SOLUTION | {"rms": [None, None], "contrast": None}
    new = apply_solution(fits.Header(), solution, "NONE")
    assert new["ASTRCAT"] == "NONE"
    assert not {"ASTRMS1", "ASTRMS2", "ASTRCONT"} & set(new)


def test_applying_twice_is_applying_once():
    once = apply_solution(fits.Header({"EXPTIME": 1.0}), SOLUTION, "GaiaDR3")
    twice = apply_solution(once, SOLUTION, "GaiaDR3")
    assert {str(c) for c in once.cards} == {str(c) for c in twice.cards}


def test_rejection_of_the_group_reaches_the_frame():
    solved = {"frames": {"2a": {"status": "REJECTED", "code": "NO_MATCH", "numbers": "3 < 5"}}}
    with pytest.raises(FrameRejected, match="NO_MATCH: 3 < 5"):
        find_solution(solved, "2a")
    with pytest.raises(KeyError):
        find_solution(solved, "2b")


def test_cards_survive_a_file(tmp_path):
    header = apply_solution(fits.Header(), SOLUTION, "GaiaDR3")
    fits.writeto(tmp_path / "a.fits", np.zeros((200, 200), np.float32), header)
    read = fits.getheader(tmp_path / "a.fits")
    a = WCS(read).all_pix2world([1.0, 200.0], [1.0, 77.0], 1)
    b = map_from_cards(CARDS)([1.0, 200.0], [1.0, 77.0])
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def true_map(x, y):
    """A rotated frame with radial distortion of third and seventh order about its corner."""
    u, v = (np.asarray(x, float) - 30.0) / 200, (np.asarray(y, float) - 60.0) / 200
    r = u**2 + v**2
    u, v = (w * (1 + 8e-3 * r + 1e-3 * r**3) * 200 * 3.6 for w in (u, v))
    return deproject(np.stack([0.6 * v - 0.8 * u, 0.8 * v + 0.6 * u], axis=1), 0.02, 75.0)


@pytest.mark.parametrize("degree", [3, 7])
def test_swarp_and_astropy_read_a_solved_frame_alike(tmp_path, degree):
    cards = CARDS
    if degree == 7:
        cards, error = fit_cards(true_map, (200, 200))
        assert "PV1_35" in cards
        assert error < 1e-3
    y, x = np.mgrid[1:201, 1:201]
    image = np.zeros((200, 200))
    stars = [(20.0, 25.0), (180.0, 170.0), (30.0, 160.0), (100.0, 100.0)]
    for px, py in stars:
        image += 1000 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    header = fits.Header({"EXPTIME": 1.0, "CTYPE1": "RA---TAN", "CDELT1": 7.0, "A_ORDER": 2})
    frame = Frame(image.astype(np.float32), np.zeros(image.shape, np.uint8), header)
    write_frame(tmp_path / "zsfp2a.fits", frame)

    solved = {"catalogue": "GaiaDR3", "frames": {"2a": SOLUTION | {"cards": cards}}}
    write_solved_frame(tmp_path / "zsfp2a.fits", tmp_path / "azsfp2a.fits", solved, "2a", 1)
    words = "azsfp2a.fits[0] -c empty -SUBTRACT_BACK N -IMAGEOUT_NAME b.fits"
    words += " -WEIGHTOUT_NAME w.fits -PROJECTION_TYPE TAN -WRITE_XML N -VERBOSE_TYPE QUIET"
    (tmp_path / "empty").write_text("")
    run_program([find_program("swarp"), *words.split()], timeout=60, cwd=tmp_path)
    with fits.open(tmp_path / "b.fits") as hdus:
        out, wcs = hdus[0].data, WCS(hdus[0].header)
    sky = WCS(fits.getheader(tmp_path / "azsfp2a.fits"))
    plain = {k: v for k, v in cards.items() if not k.startswith("PV")}
    undistorted = map_from_cards(plain | {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    yy, xx = np.mgrid[: out.shape[0], : out.shape[1]]
    farthest = 0.0
    for px, py in stars:
        cx, cy = np.ravel(wcs.all_world2pix(*sky.all_pix2world([px], [py], 1), 0))
        near = (np.hypot(xx - cx, yy - cy) < 7) * out
        assert (near * xx).sum() / near.sum() == pytest.approx(cx, abs=0.03)
        assert (near * yy).sum() / near.sum() == pytest.approx(cy, abs=0.03)
        other = np.ravel(wcs.all_world2pix(*undistorted([px], [py]), 0))
        farthest = max(farthest, np.hypot(*(other - [cx, cy])))
    # Ten times what is allowed above: neglect of the distortion would be seen.
    assert farthest > 0.3


def test_frame_without_solution_is_rejected_and_a_rejected_one_passed_on(tmp_path):
    solved = {"catalogue": "GaiaDR3", "frames": {
        "2a": SOLUTION, "2b": {"status": "REJECTED", "code": "TOO_FEW_STARS", "numbers": "2 < 6"},
    }}  # fmt: skip
    rng = np.random.default_rng(1)
    image = rng.normal(size=(30, 40)).astype(np.float32)
    mask = rng.integers(0, 3, image.shape).astype(np.uint8)
    found = {}
    for name in ("2a", "2b"):
        source, target = tmp_path / f"zsfp{name}.fits", tmp_path / f"azsfp{name}.fits"
        write_frame(source, Frame(image, mask, fits.Header({"EXPTIME": 1.0})))
        write_solved_frame(source, target, solved, name, 1)
        found[name] = read_frame(target)
    write_solved_frame(target, tmp_path / "again.fits", solved, "2a", 1)
    assert not found["2a"].rejected
    np.testing.assert_array_equal(found["2a"].image, image)
    np.testing.assert_array_equal(found["2a"].mask, mask)
    assert "astrometry v1 catalogue=GaiaDR3" in str(found["2a"].header["HISTORY"])
    for frame in (found["2b"], read_frame(tmp_path / "again.fits")):
        assert frame.image is None
        assert frame.reason == "TOO_FEW_STARS: 2 < 6"
        assert frame.header["QCSTEP"] == "astrometry"


def test_importing_the_step_costs_little():
    """One job a frame: what is imported beyond a frame file's needs is paid for each."""
    code = (
        "import sys, astrometry; print({'astropy.wcs', 'astropy.table', 'astropy.coordinates', "
        "'scipy', 'matplotlib', 'ccdproc'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "set()"
