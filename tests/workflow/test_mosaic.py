"""A camera of 2 x 2 chips with gaps: each has its own calibrations, one stack holds all."""

import re

import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.table import Table
from scipy.spatial import cKDTree
from workbench import TARGET, simulated

GAP, SIDE, OVERSCAN = 16, 248, 8
CORNERS = [(0, 0), (0, SIDE + GAP), (SIDE + GAP, 0), (SIDE + GAP, SIDE + GAP)]
LEVELS = (0, 150, -80, 300)  # DN by which the chips' electronics differ
EXPOSURES, CALIBRATIONS = 3, 3


def cut(path):
    """Make a raw frame one of four chips, each with an overscan and a level of its own."""
    with fits.open(path) as hdus:
        header, pixels = hdus[0].header.copy(), hdus[0].data.astype(np.int64)
    header["INSTRUME"] = "FOURCHIP"
    primary = fits.Header({key: header[key] for key in header if not re.match("NAXIS|B[SZ]", key)})
    chips = [fits.PrimaryHDU(header=primary)]
    rng = np.random.default_rng(len(path.name))
    for number, ((y, x), level) in enumerate(zip(CORNERS, LEVELS, strict=True), start=1):
        image = pixels[y : y + SIDE, x : x + SIDE] + level
        strip = rng.normal(500 + level, 3, (SIDE, OVERSCAN))
        chip = fits.ImageHDU(np.hstack([image, strip]).astype(np.uint16), name=f"CCD{number}")
        chip.header["CCDNAME"] = f"E2V {number}"
        chip.header["DATASEC"] = f"[1:{SIDE},1:{SIDE}]"
        chip.header["BIASSEC"] = f"[{SIDE + 1}:{SIDE + OVERSCAN},1:{SIDE}]"
        # The binning is 2: DETSEC counts unbinned pixels.
        chip.header["DETSEC"] = f"[{2 * x + 1}:{2 * (x + SIDE)},{2 * y + 1}:{2 * (y + SIDE)}]"
        if "CRPIX1" in header:
            for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2"):
                chip.header[key] = header[key]
            chip.header["CRPIX1"] = header["CRPIX1"] - x
            chip.header["CRPIX2"] = header["CRPIX2"] - y
        chips.append(chip)
    fits.HDUList(chips).writeto(path, overwrite=True)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    place = simulated(
        tmp_path_factory.mktemp("mosaic"), exposures=EXPOSURES, filters=("SDSS-R",), stars=60,
        calibrations=CALIBRATIONS, faint_limit=20.5,
    )  # fmt: skip
    place.truth = simulate.load_truth(place.path)
    for path in place.raw.glob("*.fits"):
        cut(path)
    done = place.snakemake(instrument="generic")
    assert done.code == 0, done.out
    return place


def test_each_chip_has_its_own_calibrations(mosaic):
    chips = [f"CCD{number}" for number in (1, 2, 3, 4)]
    assert mosaic.names("bias-*.fits") == [f"bias-C0-{chip}.fits" for chip in chips]
    assert mosaic.names("flat_*.fits") == [f"flat_SDSS-R-{chip}.fits" for chip in chips]
    for path in mosaic.products.glob("azsfp*.fits"):
        header = fits.getheader(path)
        chip = path.stem.split("_")[-1]
        assert header["BIASFILE"] == f"bias-C0-{chip}.fits"
        assert header["FLATFILE"] == f"flat_SDSS-R-{chip}.fits"


def test_one_stack_holds_all_chips(mosaic):
    header = fits.getheader(mosaic.products / f"coadd{TARGET}.SDSS-R.fits")
    assert header["NSTACK"] == 4 * EXPOSURES and header["NREJECT"] == 0
    # An exposure is one, however many chips have seen it.
    assert header["TOTALEXP"] == pytest.approx(EXPOSURES * header["EXPTIME"])
    assert min(header["NAXIS1"], header["NAXIS2"]) > 2 * SIDE + GAP


def test_stars_on_all_chips_are_as_bright_as_they_are(mosaic):
    header = fits.getheader(mosaic.products / f"coadd{TARGET}.SDSS-R.fits")
    sources = Table.read(mosaic.products / f"coadd{TARGET}.SDSS-R.cat.fits", "SOURCES")
    sources = sources[(sources["SNR"] > 40) & (sources["FLAGS"] & 16 == 0) & sources["STAR"]]
    stars = mosaic.truth["stars"]
    scale = np.cos(np.radians(np.median(stars["dec"])))
    tree = cKDTree(np.column_stack([stars["ra"] * scale, stars["dec"]]))
    apart, index = tree.query(np.column_stack([sources["RA"] * scale, sources["DEC"]]))
    assert len(sources) > 40 and np.median(apart) * 3600 < 0.03
    wrong = np.asarray(sources["MAG_POINT"] - stars["r"][index])
    error = header["ABSZPERR"]
    assert abs(np.median(wrong)) < 0.01 + 3 * error
    # Quarters of the coadd are those of the chips, but for the dither.
    right = sources["X"] > header["NAXIS1"] / 2
    upper = sources["Y"] > header["NAXIS2"] / 2
    quarters = [wrong[(right == x) & (upper == y)] for x in (False, True) for y in (False, True)]
    medians = [np.median(one) for one in quarters]
    # A dozen stars each tell it to 0.005; without the levels of their flats they differ by 0.04.
    assert np.ptp(medians) < 0.02
