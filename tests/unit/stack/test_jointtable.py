"""Joint table and light curve: forced photometry in filters and exposures, truth known."""

import json
import shutil
from types import SimpleNamespace

import lightcurve
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from starfields import DEC, RA, ZP, make_stars, write_night, write_reference

from lib.core.settings import StackSettings
from lib.frame.file import FrameRejected, read_frame, reject, write_frame
from lib.night.targets import parse_position
from lib.photometry.flags import FLAG_OUTSIDE
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.jointtable import joint_table, with_saturated

TARGET = (RA + 0.004, DEC - 0.003)
MAGS = np.array([19.2, 19.2, 18.6, 19.2])  # of the target in the frames of r
TRANSPARENCY = np.array([1, 0.7, 1, 0.9])


def make_night(folder, rng):
    """Write four frames in r, where the target varies, and three in z, where it is too faint."""
    stars = make_stars(rng, 70)
    away = np.hypot((stars["ra"] - TARGET[0]) * np.cos(np.radians(DEC)), stars["dec"] - TARGET[1])
    stars = {key: values[away * 3600 > 8] for key, values in stars.items()}
    paths, truth = {"r": [], "z": []}, {}
    for i, mag in enumerate(MAGS):
        (folder / f"r{i}").mkdir()
        whole = with_target(stars, mag)
        found = write_night(folder / f"r{i}", rng, whole, 1, transparency=[TRANSPARENCY[i]])
        paths["r"] += name_frames(found, f"2022010{i + 1}T000000C0o", "r", 59580.0 + i)
    for i in range(3):
        (folder / f"z{i}").mkdir()
        found = write_night(folder / f"z{i}", rng, with_target(stars, 26.0), 1)
        paths["z"] += name_frames(found, f"2022010{i + 1}T000000C1o", "z", 59580.1 + i)
    truth = with_target(stars, 19.2)
    return stars, truth, paths


def with_target(stars, mag):
    return {
        "ra": np.append(stars["ra"], TARGET[0]), "dec": np.append(stars["dec"], TARGET[1]),
        "mag": np.append(stars["mag"], mag), "colour": np.append(stars["colour"], 0.7),
    }  # fmt: skip


def name_frames(paths, frame, band, mjd):
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            header = hdus[0].header
            header["FRAME"], header["FILTER"], header["BAND"] = frame, band, band
            header["MJD-OBS"], header["RA"], header["DEC"] = mjd, *TARGET
    return paths


def make_reference(path, rng, stars):
    write_reference(path, rng, stars)
    table = Table.read(path, format="ascii.ecsv")
    table["z"], table["z_err"] = table["r"], table["r_err"]
    table.write(path, format="ascii.ecsv", overwrite=True)
    return path


def stack_all(folder, paths, reference):
    """Stack each filter; return what rules tables and lightcurve take."""
    stacks = []
    for name, frames in paths.items():
        stem = folder / f"coaddtruth.{name}"
        out = [
            stem.with_name(f"{stem.name}{end}") for end in (".fits", ".weight.fits", ".cat.fits")
        ]
        quality = folder / f"{name}.json"
        inputs = StackInputs(frames, refcat=reference)
        make_stack(inputs, StackProducts(*out, quality), StackSettings())
        stacks.append((*out, quality, frames))
    return stacks


def join(folder, stacks, target_radec=None):
    path = folder / "truth.ecsv"
    products = zip(*(s[:3] for s in stacks), strict=True)
    table = joint_table(*products, parse_position(target_radec), StackSettings().table_snr)
    table.write(path, format="ascii.ecsv", overwrite=True)
    return Table.read(path, format="ascii.ecsv")


def follow(folder, stacks, **options):
    path, plot = folder / "truth.lightcurve.ecsv", folder / "truth.png"
    parts = [tuple(map(str, s[:4])) + (s[4],) for s in stacks]
    lightcurve.run(parts, path, plot, **options)
    assert plot.stat().st_size > 0
    return Table.read(path, format="ascii.ecsv")


def frames_of(curve):
    return curve[curve["KIND"] == "frame"]


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(41)
    stars, truth, paths = make_night(folder, rng)
    reference = make_reference(folder / "reference.ecsv", rng, stars)
    stacks = stack_all(folder, paths, reference)
    return folder, truth, stacks, join(folder, stacks)


def test_every_source_of_every_coadd_is_in_the_table(night):
    """Sources of S/N 5 in one filter are in; what is in no filter is out."""
    _, truth, stacks, table = night
    for s in stacks:
        name = fits.getval(s[0], "FILTER")
        cat = fits.getdata(s[2], "SOURCES")
        assert cat["SNR"].min() >= 3
        cat = cat[cat["SNR"] >= 5]
        east = (cat["RA"][:, None] - table["RA"]) * np.cos(np.radians(DEC))
        apart = 3600 * np.hypot(east, cat["DEC"][:, None] - table["DEC"]).min(axis=1)
        assert apart.max() < 0.4 * 1.6  # of the seeing
        assert table[f"LISTED_{name}"].sum() > 0.95 * len(cat)
        ratio = table[f"FLUX_{name}"] / table[f"FLUXERR_{name}"]
        assert np.array_equal(table[f"DETECTED_{name}"], ratio >= 3)
    assert np.array_equal(table["NUMBER"], np.arange(1, len(table) + 1))
    # Of a million pixels' noise no peak is expected above 5 sigma; the wings of saturated stars
    # and blends may be taken for sources.
    east = (table["RA"][1:, None] - truth["ra"]) * np.cos(np.radians(DEC))
    apart = 3600 * np.hypot(east, table["DEC"][1:, None] - truth["dec"]).min(axis=1)
    assert (apart > 1.6).mean() < 0.05


def test_forced_magnitudes_are_true_within_their_errors(night):
    _, truth, _, table = night
    east = (np.asarray(table["RA"])[:, None] - truth["ra"]) * np.cos(np.radians(DEC))
    apart = 3600 * np.hypot(east, np.asarray(table["DEC"])[:, None] - truth["dec"])
    who = apart.argmin(axis=1)
    same = (apart.min(axis=1) < 0.4) & ~table["TARGET"] & (who < len(truth["mag"]) - 1)
    for name in "rz":
        flux, error = table[f"FLUX_{name}"], table[f"FLUXERR_{name}"]
        zeropoint = table.meta["filters"][name]["ABSZPT"]
        true = 10 ** (-0.4 * (truth["mag"][who] - zeropoint))
        clean = same & (table[f"FLAGS_{name}"] == 0) & (true > 5 * error)
        assert clean.sum() > 25
        # One per cent: the zero point, and how alike stars are after a median.
        pull = ((flux - true) / np.hypot(error, 0.01 * true))[clean]
        assert abs(np.median(pull)) < 4 * 1.25 / np.sqrt(clean.sum())
        # The median absolute deviation of n values is good to 1.17 / sqrt(n).
        faint = clean & (true < 50 * error)
        pull = ((flux - true) / error)[faint]
        width = 1.4826 * np.median(np.abs(pull - np.median(pull)))
        assert width == pytest.approx(1.0, abs=4 * 1.17 / np.sqrt(faint.sum()))
        bright = clean & (true > 100 * error)
        difference = (table[f"MAG_{name}"] - truth["mag"][who])[bright]
        assert np.abs(np.median(difference)) < 0.01


def test_forced_flux_of_a_lonely_source_is_that_of_its_own_coadd(night):
    """Position, aperture and background are the same: there is no noise between the two."""
    _, _, stacks, table = night
    compared = 0
    for s in stacks:
        name = fits.getval(s[0], "FILTER")
        cat = fits.getdata(s[2], "SOURCES")

        def apart_from(other, cat=cat):
            east = (cat["RA"][:, None] - other["RA"]) * np.cos(np.radians(DEC))
            return 3600 * np.hypot(east, cat["DEC"][:, None] - other["DEC"])

        apart = apart_from(table[1:])
        who = apart.argmin(axis=1) + 1
        isolated = ((apart < 12).sum(axis=1) == 1) & ((apart_from(cat) < 12).sum(axis=1) == 1)
        # The table has the position of the filter that shows it best.
        same = isolated & (apart.min(axis=1) < 1e-3)
        forced, own = table[f"FLUX_{name}"][who[same]], cat["FLUX_POINT"][same]
        assert np.all(np.abs(forced - own) < 0.01 * cat["FLUXERR_POINT"][same])
        compared += same.sum()
    assert compared > 10


def test_target_has_the_first_row_also_where_it_is_not_seen(night):
    _, _, _, table = night
    assert table["TARGET"].sum() == 1 and table["TARGET"][0]
    row = table[0]
    assert (row["RA"], row["DEC"]) == pytest.approx(TARGET)
    assert table.meta["target_source"] == "header"
    # A star that varies is no outlier: the mean flux, weighted by the noise of the scaled frames.
    mean = np.average(10 ** (-0.4 * MAGS), weights=TRANSPARENCY**2)
    assert row["MAG_r"] == pytest.approx(-2.5 * np.log10(mean), abs=0.1)
    assert np.isnan(row["LIMIT_r"]) and table["NUMBER"][row["MATCH"] - 1] == row["MATCH"] > 0
    assert np.isnan(row["MAG_z"]) and row["LIMIT_z"] > 20
    limmag = table.meta["filters"]["z"]["LIMMAG"]
    # 3 sigma in 1.5 FWHM, not 5 sigma in 0.75: brighter by the noise of the larger aperture.
    assert row["LIMIT_z"] == pytest.approx(limmag, abs=1.0)


def test_position_from_config_and_off_the_coadd(night, tmp_path):
    _, truth, stacks, _ = night
    empty = (RA - 0.012, DEC + 0.011)
    table = join(tmp_path, stacks, target_radec=list(empty))
    assert table.meta["target_source"] == "config"
    assert (table["RA"][0], table["DEC"][0]) == pytest.approx(empty)
    table = join(tmp_path, stacks, target_radec=[RA + 0.3, DEC])
    row = table[0]
    assert row["TARGET"] and np.isnan(row["FLUX_r"]) and row["FLAGS_r"] & FLAG_OUTSIDE
    # A position of another target of the night.
    table = join(tmp_path, stacks, target_radec=[RA + 90, DEC])
    assert table.meta["target_source"] == "header"


def test_one_filter_without_reference_gives_fluxes(night, tmp_path):
    _, _, stacks, _ = night
    frames = stacks[0][4]
    alone = stack_all(tmp_path, {"r": frames}, None)
    table = join(tmp_path, alone)
    assert np.isfinite(table["FLUX_r"]).any() and np.isnan(table["MAG_r"]).all()
    assert np.isnan(table["LIMIT_r"]).all() and "MAG_z" not in table.colnames
    curve = frames_of(follow(tmp_path, alone))
    assert np.isnan(curve["MAG"]).all() and np.isfinite(curve["FLUX"]).all()
    relative = curve["FLUX"] / curve["FLUX"][0]
    assert relative == pytest.approx(10 ** (-0.4 * (MAGS - 19.2)), rel=0.1)


def test_error_of_the_flat_is_in_the_joint_table(night, tmp_path):
    _, _, stacks, table = night
    coadd = tmp_path / "coaddtruth.r.fits"
    shutil.copy(stacks[0][0], coadd)
    with fits.open(coadd, mode="update") as hdus:
        hdus[0].header["FLATERR"] = 0.03
    found = join(tmp_path, [(coadd, *stacks[0][1:]), *stacks[1:]])
    expected = np.hypot(table["FLUXERR_r"], 0.03 * table["FLUX_r"])
    np.testing.assert_allclose(found["FLUXERR_r"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["FLUXERR_z"], table["FLUXERR_z"])


def test_rejected_coadds_are_left_out_with_their_reason(night, tmp_path):
    _, _, stacks, _ = night
    lost = []
    for i, path in enumerate(stacks[1][4]):
        lost.append(tmp_path / f"azsfp{i}.fits")
        header = read_frame(path).header
        write_frame(lost[-1], reject(header, "astrometry", FrameRejected("NO_MATCH", "0 < 5")))
    none = stack_all(tmp_path, {"z": lost}, None)
    table = join(tmp_path, [stacks[0], *none])
    assert table.meta["left_out"]["z"].startswith("NO_FRAMES") and "FLUX_z" not in table.colnames
    curve = frames_of(follow(tmp_path, [stacks[0], *none]))
    gone = curve["FILTER"] == "z"
    assert gone.sum() == 3 and np.isnan(curve["FLUX"][gone]).all()
    assert all("NO_MATCH" in reason for reason in curve["REASON"][gone])
    table = join(tmp_path, none)
    assert not table["TARGET"].sum() or len(table) == 1
    assert len(frames_of(follow(tmp_path, none))) == 3


def test_light_curve_follows_the_target(night):
    folder, _, stacks, _ = night
    curve = frames_of(follow(folder, stacks))
    assert np.all(np.diff(curve["MJD"]) >= 0) and len(curve) == 7
    red = curve[curve["FILTER"] == "r"]
    # Signal-to-noise ratios of about 20 to 40 in single frames.
    assert np.abs((red["MAG"] - MAGS) / np.hypot(red["MAGERR"], 0.01)).max() < 3.5
    assert red["MAG"][2] < red["MAG"][0] - 0.3
    assert red["TRANSPARENCY"] == pytest.approx([1, 0.7, 1, 0.9], rel=0.02)
    assert red["MJD"][0] == pytest.approx(59580.0 + 30 / 86400)
    faint = curve[curve["FILTER"] == "z"]
    assert np.isnan(faint["MAG"]).sum() >= 2
    assert (np.isfinite(faint["LIMIT"]) == np.isnan(faint["MAG"])).all()
    assert curve["USED"].all() and (np.ma.filled(curve["REASON"], "") == "").all()


def test_error_of_the_flat_is_in_the_light_curve(night, tmp_path):
    """A flat that may be 5 % off: fluxes as before, their errors as large as that at least."""
    _, _, stacks, _ = night
    coadd, weight, cat, quality, frames = stacks[0]
    before = frames_of(follow(tmp_path, [stacks[0]]))
    doubted = []
    for number, path in enumerate(frames):
        doubted.append(tmp_path / f"{number}.fits")
        doubted[-1].write_bytes(path.read_bytes())
        fits.setval(doubted[-1], "FLATERR", value=0.05)
    after = frames_of(follow(tmp_path, [(coadd, weight, cat, quality, doubted)]))
    np.testing.assert_allclose(after["FLUX"], before["FLUX"])
    np.testing.assert_allclose(
        after["FLUXERR"], np.hypot(before["FLUXERR"], 0.05 * before["FLUX"]), rtol=1e-6
    )


def test_frames_left_out_of_the_stack_are_in_the_light_curve(night, tmp_path):
    _, _, stacks, _ = night
    coadd, weight, cat, quality, frames = stacks[0]
    numbers = json.loads(quality.read_text())
    name = list(numbers["frames"])[1]
    numbers["frames"][name].update(used=False, reason="LOW_WEIGHT: 0.05 < 0.1")
    other = tmp_path / "r.json"
    other.write_text(json.dumps(numbers))
    curve = frames_of(follow(tmp_path, [(coadd, weight, cat, other, frames)]))
    row = curve[list(curve["FRAME"]).index(name)]
    assert not row["USED"] and row["REASON"].startswith("LOW_WEIGHT") and np.isfinite(row["MAG"])


def test_zero_point_of_a_frame_is_that_of_the_coadd(night):
    _, _, stacks, _ = night
    header = fits.getheader(stacks[0][0])
    assert header["ABSZPT"] == pytest.approx(ZP + 2.5 * np.log10(60), abs=0.02)


def test_saturated_stars_have_the_flux_of_the_source_table():
    """Apertures on their cores hold nothing; what is near but not saturated stays."""
    sky = np.array([[150.0, 20.0], [150.01, 20.0], [150.02, 20.0]])
    coadd = SimpleNamespace(header={"SEEING": 1.6, "FLATERR": 0.01})
    cat = np.zeros(3, [("RA", "f8"), ("DEC", "f8"), ("FLAGS", "i4"), ("FLUX_POINT", "f4"),
                       ("FLUXERR_POINT", "f4")])  # fmt: skip
    cat["RA"], cat["DEC"] = sky[:, 0] + 1e-5, sky[:, 1]
    cat["FLAGS"], cat["FLUX_POINT"], cat["FLUXERR_POINT"] = [256, 512, 256], [5e6, 3e4, -1], 1e5
    forced = (
        np.array([np.nan, 3e4, np.nan, 7.0]), np.array([np.nan, 400.0, np.nan, 2.0]),
        np.array([2048 | 1024, 0, 2048, 0]),
    )  # fmt: skip
    flux, error, flags = with_saturated(forced, coadd, sky, cat)
    np.testing.assert_array_equal(flux, [5e6, 3e4, np.nan, 7.0])
    np.testing.assert_allclose(error, [1e5, 500.0, np.nan, np.hypot(2, 0.07)])
    assert flags.tolist() == [256 | 1024, 0, 2048, 0]
