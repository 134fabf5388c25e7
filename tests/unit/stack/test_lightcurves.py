"""Light curves over two nights of a simulated field: afterglow, constant stars, what moves."""

import lightcurve
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from starfields import DEC, RA, make_header, make_image, make_stars, write_reference

from lib.core.settings import StackSettings
from lib.frame.file import Frame, write_frame
from lib.photometry.lightcurve import StackedFrames
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.lightcurves import place_target

BURST = 59580.0
"""MJD of the afterglow's beginning: brightness t^-1.2 from there."""

SLOPE = -1.2
NIGHTLY_ERROR = 0.06
"""[mag] By which the reference of the second night is wrong."""

AFTERGLOW = (RA + 0.004, DEC - 0.003)
POINTING = (AFTERGLOW[0] + 0.7 / 3600, AFTERGLOW[1] - 0.6 / 3600)
START, RATE = (RA - 0.012, DEC + 0.010), (30.0, -12.0)
"""Where what moves is at BURST [deg], and its motion to the east and north [arcsec/hour]."""

SITE = [31.0, -115.5, 2800.0]
PER_NIGHT = 5


def moving_at(mjd):
    hours = (mjd - BURST - 0.1) * 24
    ra = START[0] + RATE[0] * hours / 3600 / np.cos(np.radians(DEC))
    return ra, START[1] + RATE[1] * hours / 3600


def scene(stars, mjd):
    """Return the stars, the afterglow and the moving object at a time."""
    magnitude = 17.6 - 2.5 * SLOPE * np.log10((mjd - BURST) / 0.1)
    ra, dec = moving_at(mjd)
    more = {
        "ra": [AFTERGLOW[0], ra],
        "dec": [AFTERGLOW[1], dec],
        "mag": [magnitude, 18.5],
        "colour": [0.7, 0.7],
    }
    return {key: np.append(values, more[key]) for key, values in stars.items()}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Return the light curves of the target and of the positions, and the stars."""
    folder = tmp_path_factory.mktemp("campaign")
    rng = np.random.default_rng(17)
    stars = make_stars(rng, 90, faint=19.8)
    far = np.hypot((stars["ra"] - RA) * np.cos(np.radians(DEC)), stars["dec"] - DEC) < 0.019
    for place in (AFTERGLOW, *(moving_at(BURST + 0.1 + 0.01 * k) for k in range(11))):
        east = (stars["ra"] - place[0]) * np.cos(np.radians(DEC))
        far &= np.hypot(east, stars["dec"] - place[1]) * 3600 > 8
    stars = {key: values[far] for key, values in stars.items()}
    stacks = [stack_night(folder, rng, stars, night) for night in (0, 1)]
    targets = folder / "targets.csv"
    lines = ["name,time,ra,dec"]
    # Every other star, the brightest among them: the rest is compared with.
    order = np.argsort(stars["mag"])[::2]
    stars = {key: values[np.concatenate([order, np.setdiff1d(np.arange(len(values)), order)])]
             for key, values in stars.items()}  # fmt: skip
    for i in range(len(order)):
        lines.append(f"s{i},,{stars['ra'][i]:.7f},{stars['dec'][i]:.7f}")
    times = BURST + 0.08 + np.arange(0, 0.2, 0.02)
    lines += [f"mover,{t:.6f},{moving_at(t)[0]:.7f},{moving_at(t)[1]:.7f}" for t in times]
    lines += ["elsewhere,,10.0,10.0"]
    targets.write_text("\n".join(lines))
    outputs = {
        "all_table": folder / "truth.lightcurves.ecsv", "all_plot": folder / "truth.all.png"
    }  # fmt: skip
    lightcurve.run(
        stacks, folder / "truth.lightcurve.ecsv", folder / "truth.png", positions=targets,
        site=SITE, **outputs,
    )  # fmt: skip
    assert all(path.stat().st_size > 0 for path in (folder / "truth.png", outputs["all_plot"]))
    return (
        Table.read(folder / "truth.lightcurve.ecsv", format="ascii.ecsv"),
        Table.read(outputs["all_table"], format="ascii.ecsv"),
        stars,
    )


def stack_night(folder, rng, stars, night):
    """Write the frames of a night and stack them; return what the light curve takes."""
    place = folder / f"n{night}"
    place.mkdir()
    paths = []
    for i in range(PER_NIGHT):
        mjd = BURST + 0.1 + night + 0.025 * i
        header = make_header(angle=rng.uniform(-4, 4), shift=rng.uniform(-9, 9, 2))
        middle = mjd + 30 / 86400
        image = make_image(
            rng, header, scene(stars, middle), fwhm=3.2 + 0.5 * night + 0.1 * i,
            transparency=rng.uniform(0.75, 1.0),
        )  # fmt: skip
        name = f"2022010{night + 1}T00{i}000C0o"
        header["FRAME"], header["MJD-OBS"], header["SKYSUB"] = name, mjd, 400.0
        header["RA"], header["DEC"] = POINTING
        header["AIRMASS"] = 1.2
        write_frame(
            place / f"azsfp{name}.fits", Frame(image, np.zeros(image.shape, np.uint8), header)
        )
        paths.append(str(place / f"azsfp{name}.fits"))
    shifted = stars | {"mag": stars["mag"] + NIGHTLY_ERROR * night}
    reference = write_reference(place / "reference.ecsv", rng, shifted)
    stem = str(place / f"coaddtruth.r.n{night}")
    out = [f"{stem}{end}" for end in (".fits", ".weight.fits", ".cat.fits")]
    quality = str(place / "quality.json")
    make_stack(StackInputs(paths, refcat=reference), StackProducts(*out, quality), StackSettings())
    return (*out, quality, paths)


def clean(table, name, kind="frame"):
    rows = table[(table["NAME"] == name) & (table["KIND"] == kind)]
    return rows[np.isfinite(rows["FLUX"]) & (rows["FLAGS"] == 0)]


def total_error(rows):
    """Return the relative errors of fluxes, with those of the frames' scales."""
    return np.hypot(rows["FLUXERR"] / rows["FLUX"], rows["ZPERR"] / 1.0857)


def test_constant_stars_have_chi2_of_one_and_make_no_step(campaign):
    """Over both nights, though their zero points differ by 0.06 mag, and within each."""
    _, table, stars = campaign
    chi2 = freedom = inner = inner_freedom = 0.0
    steps = []
    for i in range(len(stars["ra"])):
        rows = clean(table, f"s{i}")
        if len(rows) < 2 * PER_NIGHT - 1:
            continue
        night = rows["MJD"] > BURST + 0.5
        sigma = total_error(rows) * rows["FLUX"]
        for part in (night, ~night, night | ~night):
            mean = np.average(rows["FLUX"][part], weights=sigma[part] ** -2)
            found = np.sum(((rows["FLUX"][part] - mean) / sigma[part]) ** 2)
            if part.all():
                chi2, freedom = chi2 + found, freedom + len(rows) - 1
            else:
                inner, inner_freedom = inner + found, inner_freedom + part.sum() - 1
        if rows["SNR"].min() > 50:
            steps.append(np.mean(rows["MAG"][night]) - np.mean(rows["MAG"][~night]))
    # To the scatter of chi^2 itself; test_ensemble and test_frameforced have larger samples.
    assert freedom > 150
    assert abs(chi2 / freedom - 1) < 3 * np.sqrt(2 / freedom)
    assert abs(inner / inner_freedom - 1) < 3 * np.sqrt(2 / inner_freedom)
    assert abs(np.median(steps)) < 0.004


def test_fits_of_constant_stars_scatter_by_their_errors(campaign):
    """And bins are the means of frames; what moves is fitted, too."""
    _, table, stars = campaign
    chi2 = freedom = 0.0
    for i in range(len(stars["ra"])):
        rows = clean(table, f"s{i}")
        if len(rows) < 2 * PER_NIGHT - 1:
            continue
        flux = np.asarray(rows["FLUX_PSF"])
        sigma = np.hypot(rows["FLUXERR_PSF"], rows["ZPERR"] / 1.0857 * flux)
        mean = np.average(flux, weights=sigma**-2.0)
        chi2, freedom = chi2 + np.sum(((flux - mean) / sigma) ** 2), freedom + len(rows) - 1
        # Means of the frames: here of one, or of a night.
        for row in clean(table, f"s{i}", "bin"):
            members = rows[np.abs(rows["MJD"] - row["MJD"]) < 0.4]
            members = members[members["MJD"] == row["MJD"]] if row["NFRAMES"] == 1 else members
            if len(members) == row["NFRAMES"]:
                low, high = (end(members["FLUX_PSF"]) for end in (np.min, np.max))
                assert low * (1 - 1e-9) <= row["FLUX_PSF"] <= high * (1 + 1e-9)
    assert freedom > 150
    assert abs(chi2 / freedom - 1) < 3 * np.sqrt(2 / freedom)
    moving = table[(table["NAME"] == "mover") & (table["KIND"] == "frame")][:PER_NIGHT]
    pull = (moving["MAG_PSF"] - np.mean(moving["MAG_PSF"])) / moving["MAGERR_PSF"]
    assert np.abs(pull).max() < 3.5


def test_magnitudes_are_those_of_both_nights_together(campaign):
    """The two zero points are as well known: half of the error of one is left, and is told."""
    target, table, stars = campaign
    difference = [
        np.mean(clean(table, f"s{i}")["MAG"]) - stars["mag"][i]
        for i in range(len(stars["ra"]))
        if len(clean(table, f"s{i}")) and stars["mag"][i] < 18
    ]
    assert np.median(difference) == pytest.approx(NIGHTLY_ERROR / 2, abs=0.012)
    assert 0.02 < target.meta["scale"]["r"]["common_error"] < 0.06


def test_the_afterglow_fades_as_it_does(campaign):
    """Its slope within 3 sigma; bins and stacks lie on the same line."""
    target, _, _ = campaign
    rows = target[(target["KIND"] == "frame") & np.isfinite(target["FLUX"])]
    assert len(rows) == 2 * PER_NIGHT
    sigma = total_error(rows)
    x = np.log((rows["MJD"] - BURST) / 0.3)
    design = np.column_stack([np.ones(len(x)), x]) / sigma[:, None]
    covariance = np.linalg.inv(design.T @ design)
    level, slope = covariance @ design.T @ (np.log(rows["FLUX"]) / sigma)
    assert abs(slope - SLOPE) < 3 * np.sqrt(covariance[1, 1])
    assert np.sqrt(covariance[1, 1]) < 0.02
    for kind in ("bin", "stack"):
        for row in target[target["KIND"] == kind]:
            # The mean of the fluxes: over a night it lies above the flux at the mean time.
            members = rows[np.abs(rows["MJD"] - row["MJD"]) < 0.4][: row["NFRAMES"]]
            if row["NFRAMES"] == 1:
                members = rows[rows["MJD"] == row["MJD"]]
            expected = np.exp(level) * ((members["MJD"] - BURST) / 0.3) ** SLOPE
            expected = np.average(expected, weights=members["TRANSPARENCY"] ** 2)
            assert abs(row["FLUX"] / expected - 1) < 3.5 * total_error(row) + 0.01
    assert (target["KIND"] == "stack").sum() == 2
    assert target["NFRAMES"][target["KIND"] == "stack"].tolist() == [PER_NIGHT, PER_NIGHT]


def test_the_target_is_measured_where_it_is_not_where_the_header_points(campaign):
    target, _, _ = campaign
    assert target.meta["target_source"] == "header" and target.meta["position"] == "matched"
    east = (target.meta["ra"] - AFTERGLOW[0]) * np.cos(np.radians(DEC)) * 3600
    assert np.hypot(east, (target.meta["dec"] - AFTERGLOW[1]) * 3600) < 0.05
    assert target.meta["match_distance"] == pytest.approx(0.89, abs=0.06)


def test_what_moves_is_followed(campaign):
    """As bright in every frame of the ephemeris, none beyond it, and not in the coadds."""
    _, table, _ = campaign
    rows = table[(table["NAME"] == "mover") & (table["KIND"] == "frame")]
    first = rows["MJD"] < BURST + 0.5
    assert np.isfinite(rows["FLUX"][first]).all() and np.isnan(rows["FLUX"][~first]).all()
    assert set(rows["REASON"][~first]) == {"no position at this time"}
    brightness = rows["MAG"][first]
    pull = (brightness - np.mean(brightness)) / rows["MAGERR"][first]
    assert np.abs(pull).max() < 3.5
    assert np.mean(brightness) == pytest.approx(18.5 + NIGHTLY_ERROR / 2, abs=0.04)
    # Its own position in each frame, which the error covers.
    ra, dec = moving_at(np.asarray(rows["MJD"][first]))
    east = (rows["RACEN"][first] - ra) * np.cos(np.radians(DEC)) * 3600
    north = (rows["DECCEN"][first] - dec) * 3600
    pulls = np.concatenate([east, north]) / np.tile(rows["CENERR"][first], 2)
    assert np.abs(pulls).max() < 3.5 and np.max(rows["CENERR"][first]) < 0.1
    assert not np.any((table["NAME"] == "mover") & (table["KIND"] == "stack"))
    assert table.meta["outside"] == ["elsewhere"]


def test_rows_tell_what_is_detected_and_when(campaign):
    target, table, _ = campaign
    seen = np.isfinite(table["SNR"])
    assert np.array_equal(table["DETECTED"][seen], table["SNR"][seen] >= 3)
    assert np.array_equal(np.isfinite(table["MAG"]), table["DETECTED"])
    row = target[0]
    assert row["MJD"] == pytest.approx(BURST + 0.1 + 30 / 86400, abs=1e-9)
    # Light takes up to 8.4 minutes, and TDB is 69 s ahead of UTC.
    delay = (row["BJD_TDB"] - row["MJD"] - 2400000.5) * 1440
    assert 1.15 - 8.4 < delay < 1.15 + 8.4 and abs(delay - 1.15) > 5
    assert row["ZPSYS"] == "AB" and row["APRADIUS"] == pytest.approx(1.5 * 3.2 * 0.4, rel=0.1)
    assert fits.Header(target.meta["zeropoints"]["r"])["ZPSYS"] == "AB"


def test_a_source_within_the_aperture_is_the_target_and_a_nearer_miss_is_told(caplog):
    """By headers alone: 1.4 arcsec off at a seeing of 1.2 arcsec, and 4 arcsec off."""
    source = np.array([[RA, DEC]])
    for off, kind in ((1.4, "matched"), (4.0, "given")):
        header = fits.Header({"SEEING": 1.2, "RA": RA, "DEC": DEC + off / 3600, "OBJECT": "T"})
        stack = StackedFrames(header, source, np.array([100.0]), 60.0, name="T.r")
        place, meta = place_target([stack], None, "auto")
        assert meta["position"] == kind
        if kind == "matched":
            assert place.dec[0] == DEC and not caplog.records
        else:
            assert meta["nearest_source"] == pytest.approx(4.0, abs=0.01)
            assert "no source within 1.8 arcsec of the pointing" in caplog.text
