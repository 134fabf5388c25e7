"""lib.stack.coaddition: stacks of frames of known truth, from files to products."""

import numpy as np
import pytest
from astropy.io import fits
from stackruns import run, true_zeropoint
from starfields import (
    DEC,
    SIZE,
    ZP,
    make_header,
    make_stars,
    write_night,
    write_reference,
)

from lib.core.wcs import celestial_wcs
from lib.frame.file import FrameRejected as Rejected
from lib.frame.file import read_header, reject, write_frame
from lib.stack.grid import common_grid
from lib.stack.weights import median_variance_ratio


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
        snr = a["FLUX_APER3"] / a["FLUXERR_APER3"]
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


def test_the_same_frames_give_the_same_coadd(night, coadds, tmp_path):
    _, _, paths, reference = night
    out, _ = run(tmp_path, paths, refcat=reference, threads=2)
    first = coadds["weighted"][0]
    assert np.array_equal(fits.getdata(out["coadd"]), fits.getdata(first["coadd"]))
    assert np.array_equal(fits.getdata(out["weight"]), fits.getdata(first["weight"]))


def test_nothing_but_the_products_is_left(night, tmp_path):
    _, _, paths, reference = night
    run(tmp_path, paths[:2], refcat=reference, plot_path=tmp_path / "truth.r.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "coaddtruth.r.cat.fits", "coaddtruth.r.fits", "coaddtruth.r.weight.fits", "truth.r.json",
        "truth.r.png",
    ]  # fmt: skip


def test_coadd_lies_on_the_grid_asked_for(night, tmp_path):
    _, _, paths, reference = night
    out, _ = run(tmp_path, paths[:2], refcat=reference, grid_frames=paths)
    everything = [read_header(path) for path in paths]
    grid = common_grid([celestial_wcs(header) for header in everything])
    header = fits.getheader(out["coadd"])
    assert (header["NAXIS1"], header["NAXIS2"]) == (grid.nx, grid.ny)
    assert (header["CRVAL1"], header["CRVAL2"]) == (grid.ra, grid.dec)
