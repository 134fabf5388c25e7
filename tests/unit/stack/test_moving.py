"""lib.stack.moving: an object that moves among stars, its ephemeris an arcsecond off."""

import lightcurve
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table, vstack
from starfields import DEC, RA, make_header, make_image, make_stars, write_reference

from lib.core.settings import StackSettings
from lib.core.sphere import deproject, project
from lib.core.wcs import celestial_wcs
from lib.frame.file import Frame, write_frame
from lib.night.positions import read_positions
from lib.stack.coaddition import StackInputs, StackProducts, make_stack
from lib.stack.moving import make_moving_stack, shifted

NUMBER, STEP, EXPTIME = 6, 0.003, 60.0
START, MIDDLE = 59580.3, 59580.3075
PLACE = (RA + 0.002, DEC + 0.001)
RATE, OFFSET = (36.0, -15.0), (1.1, -0.8)
"""Motion [arcsec/h], and O-C [arcsec], to the east and north."""

FAINT = 21.4
"""Magnitude of the faint one: S/N of about 9 in a frame."""

FAST, BRIGHT = (260.0, 40.0), 19.0
"""Another, whose trail of 4.4 arcsec in an exposure is three times the seeing."""

FAST_PLACE = (RA + 0.001, DEC - 0.013)


def place_at(mjd, place, rate, offset):
    moved = np.array(rate) * (mjd - MIDDLE) * 24 + np.array(offset)
    ra, dec = deproject([moved], *place)
    return float(ra[0]), float(dec[0])


def trailed(stars, mjd, place, rate, magnitude, offset=(0.0, 0.0)):
    """Return the stars and an object drawn along its way through an exposure."""
    steps = 9
    times = mjd + (np.arange(steps) + 0.5) / steps * EXPTIME / 86400
    way = np.array([place_at(time, place, rate, offset) for time in times])
    each = np.full(steps, magnitude + 2.5 * np.log10(steps))
    more = {"ra": way[:, 0], "dec": way[:, 1], "mag": each, "colour": np.full(steps, 0.7)}
    return {key: np.append(values, more[key]) for key, values in stars.items()}


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Return the headers of the coadds, the light curves by name, and the folder."""
    folder = tmp_path_factory.mktemp("moving")
    rng = np.random.default_rng(5)
    stars = make_stars(rng, 110, faint=21.5)
    paths = []
    for i in range(NUMBER):
        mjd = START + STEP * i
        header = make_header(angle=rng.uniform(-4, 4), shift=rng.uniform(-9, 9, 2))
        scene = trailed(stars, mjd, PLACE, RATE, FAINT, OFFSET)
        scene = trailed(scene, mjd, FAST_PLACE, FAST, BRIGHT)
        image = make_image(
            rng, header, scene, fwhm=3.2 + 0.1 * (i % 4), transparency=rng.uniform(0.75, 1)
        )
        name = f"20220101T0{i:02d}000C0o"
        header["FRAME"], header["MJD-OBS"], header["SKYSUB"] = name, mjd, 400.0
        header["RA"], header["DEC"] = RA, DEC
        paths.append(str(folder / f"azsfp{name}.fits"))
        write_frame(paths[-1], Frame(image, np.zeros(image.shape, np.uint8), header))
    targets = folder / "targets.csv"
    targets.write_text(
        "name,time,ra,dec,rate_ra,rate_dec\n"
        + "".join(
            f"{name},{MIDDLE:.8f},{place[0]:.8f},{place[1]:.8f},{rate[0]},{rate[1]}\n"
            for name, place, rate in (("2022 AB", PLACE, RATE), ("fast", FAST_PLACE, FAST))
        )
    )
    inputs = StackInputs(paths, refcat=write_reference(folder / "ref.ecsv", rng, stars))
    stacks = []
    for position in (None, *read_positions(targets)):
        stem = f"coaddtruth.r{f'.moving-{position.key}' if position else ''}"
        out = [str(folder / f"{stem}{end}") for end in (".fits", ".weight.fits", ".cat.fits")]
        products = StackProducts(*out, folder / f"{stem}.json", folder / f"{stem}.png")
        if position is None:
            make_stack(inputs, products, StackSettings())
        else:
            make_moving_stack(inputs, products, StackSettings(), position)
        stacks.append((*out, str(folder / f"{stem}.json"), paths))
    lightcurve.run(
        stacks, folder / "truth.lightcurve.ecsv", folder / "truth.png", positions=targets,
        all_table=folder / "all.ecsv", all_plot=folder / "all.png",
        exports={"ades": folder / "truth.psv"}, observer={"name": "A. Bell", "mpc_code": "A00"},
    )  # fmt: skip
    table = Table.read(folder / "all.ecsv", format="ascii.ecsv")
    curves = {name: table[table["NAME"] == name] for name in ("2022 AB", "fast")}
    return [fits.getheader(one[0]) for one in stacks], curves, folder


def test_the_stack_holds_the_object_and_no_star(followed):
    """As deep as the ordinary one, but for the light of stars, whose pixels have no weight."""
    (still, header, _), _, folder = followed
    assert header["MOVNAME"] == "2022 AB" and header["NSTACK"] == NUMBER
    assert header["LIMMAG"] > still["LIMMAG"] - 0.4
    assert header["ABSZPT"] == still["ABSZPT"]
    image = fits.getdata(folder / "coaddtruth.r.moving-2022_AB.fits")
    weight = fits.getdata(folder / "coaddtruth.r.moving-2022_AB.weight.fits")
    noise = np.sqrt(1 / np.median(weight[weight > 0]))
    # Stars of the ordinary coadd have peaks of up to some thousand times the noise.
    deep = weight > 0.5 * np.median(weight[weight > 0])
    assert fits.getdata(folder / "coaddtruth.r.fits").max() > 1000 * noise
    assert np.percentile(image[deep], 99.9) < 8 * noise
    assert (folder / "coaddtruth.r.moving-2022_AB.png").stat().st_size > 5000


def test_light_and_place_of_a_faint_object_in_the_stack(followed):
    _, curves, folder = followed
    rows = curves["2022 AB"]
    (stack,) = rows[rows["KIND"] == "stack"]
    frames = rows[rows["KIND"] == "frame"]
    assert stack["NFRAMES"] == NUMBER and stack["FLAGS"] == 0
    assert abs(stack["MAG"] - FAINT) < 3 * np.hypot(stack["MAGERR"], 0.01)
    # All of its frames, but where stars passed: the weight tells.
    weight = fits.getdata(folder / "coaddtruth.r.moving-2022_AB.weight.fits")
    x, y = round(stack["X"]) - 1, round(stack["Y"]) - 1
    still = fits.getdata(folder / "coaddtruth.r.weight.fits")
    part = weight[y - 3 : y + 4, x - 3 : x + 4].mean() / np.percentile(still, 95)
    assert stack["SNR"] > 0.85 * np.sqrt(part * np.sum(frames["SNR"] ** 2))
    assert np.hypot(stack["OCEAST"] - OFFSET[0], stack["OCNORTH"] - OFFSET[1]) < 4 * stack["CENERR"]
    assert stack["CENERR"] < 0.05
    # Where and when: the time that the stack stands for.
    true = place_at(stack["MJD"], PLACE, RATE, OFFSET)
    off = project([stack["RACEN"]], [stack["DECCEN"]], *true)[0]
    assert np.hypot(*off) < 4 * stack["CENERR"]


def test_frames_are_measured_where_it_is_seen(followed):
    _, curves, _ = followed
    rows = curves["2022 AB"][curves["2022 AB"]["KIND"] == "frame"]
    true = np.array([place_at(mjd, PLACE, RATE, OFFSET) for mjd in rows["MJD"]])
    off = project(rows["RA"], rows["DEC"], *PLACE) - project(*true.T, *PLACE)
    assert np.hypot(*off.T).max() < 0.15
    flux = 10 ** (-0.4 * (FAINT - 25.0))
    # The scale of the best frame is not that of transparency 1: compared with the stack's.
    mean = np.average(rows["FLUX"], weights=rows["FLUXERR"] ** -2.0)
    pull = (rows["FLUX"] - mean) / rows["FLUXERR"]
    assert np.abs(pull).max() < 3.5 and 0.7 * flux < mean < 1.05 * flux
    seen = np.isfinite(rows["OCEAST"])
    assert seen.sum() >= 4
    pulls = np.concatenate(
        [(rows["OCEAST"] - OFFSET[0])[seen], (rows["OCNORTH"] - OFFSET[1])[seen]]
    ) / np.tile(rows["CENERR"][seen], 2)
    assert np.abs(pulls).max() < 4


def test_a_trail_has_its_light_and_is_told(followed):
    _, curves, _ = followed
    rows = curves["fast"]
    frames, (stack,) = rows[rows["KIND"] == "frame"], rows[rows["KIND"] == "stack"]
    assert np.all(frames["FLAGS"] & 8192) and stack["FLAGS"] & 8192
    for row in (*frames, stack):
        assert abs(row["MAG"] - BRIGHT) < 3 * np.hypot(row["MAGERR"], 0.01)
        assert row["MAGERR"] > 0.02  # the light beyond the apertures is not better known


def test_the_minor_planet_center_gets_frames_or_the_stack(followed):
    _, curves, folder = followed
    lines = (folder / "truth.psv").read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith(("|2022 AB|", "||fast|"))]
    table = vstack(list(curves.values()), metadata_conflicts="silent")
    frames = table[table["KIND"] == "frame"]
    seen = np.isfinite(frames["OCEAST"]) & (frames["SNR"] >= 5)
    assert len(rows) == seen.sum() > NUMBER


def test_a_frame_is_turned_on_the_sphere():
    """Near the pole, where a shift in right ascension turns the north: to a microarcsecond."""
    header = make_header()
    header["NAXIS1"], header["NAXIS2"] = 400, 400
    header["CRVAL2"] = 85.0
    wcs = celestial_wcs(header)
    ra, dec = (float(value) for value in wcs.all_pix2world(30, 350, 0))
    place = (ra + 0.3, dec - 0.02)
    turned = shifted(wcs, (30.0, 350.0), place)
    there = turned.all_pix2world(30, 350, 0)
    assert np.hypot(*project(*[[v] for v in there], *place)[0]) < 1e-6
    assert turned.pixel_shape == wcs.pixel_shape
    assert tuple(wcs.wcs.crval) == (RA, 85.0)
