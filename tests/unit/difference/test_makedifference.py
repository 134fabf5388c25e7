"""From the files of two stacks to the difference image, the candidates and the light curve."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from epochpair import FADED, NEW, VARIABLE

from lib.core.settings import DifferenceSettings
from lib.difference.candidatetable import StackFiles, make_candidates
from lib.difference.cutouts import write_sheet
from lib.difference.header import noise_remarks
from lib.difference.products import DifferenceInputs, make_difference
from lib.frame.damage import damage_of_fits
from lib.night.positions import Position
from lib.photometry.lightcurve import measure_frames
from lib.stack.lightcurves import read_stack
from lib.stack.stackflux import difference_fluxes, stack_fluxes

SETTINGS = DifferenceSettings(method="zogy")


def inputs(epoch, template, **more):
    names = ("coadd.fits", "coadd.weight.fits", "coadd.cat.fits")
    return DifferenceInputs(*(epoch.product(name) for name in names), template, **more)


@pytest.fixture(scope="module")
def made(epochs, tmp_path_factory):
    """The later stack less the earlier one: folder of the products, header, epochs."""
    early, late = epochs
    folder = tmp_path_factory.mktemp("difference")
    header = make_difference(
        inputs(late, early.product("coadd.fits"), target_radec=NEW[:2]),
        folder / "diff.fits", folder / "diff.weight.fits", SETTINGS,
    )  # fmt: skip
    return folder, header, late


@pytest.fixture(scope="module")
def candidates(made):
    folder, _, late = made
    stack = StackFiles(
        *(late.product(f"{name}") for name in ("coadd.fits", "coadd.weight.fits", "coadd.cat.fits",
                                               "quality.json")),
        str(folder / "diff.fits"), str(folder / "diff.weight.fits"), late.frames,
    )  # fmt: skip
    reference = Table.read(late.product("reference.ecsv"))
    known = [Position("2022 AB", np.array([FADED[0]] * 2), np.array([FADED[1]] * 2),
                      mjd=np.array([59000.0, 60000.0]))]  # fmt: skip
    table, rows = make_candidates(
        [stack], DifferenceSettings(), known=known, version=7,
        reference=np.column_stack([reference["ra"], reference["dec"]]),
    )  # fmt: skip
    return table, rows, reference


def nearest(table, ra, dec):
    """Return the row nearest to a place, and its distance [arcsec]."""
    apart = 3600 * np.hypot((table["RA"] - ra) * np.cos(np.radians(dec)), table["DEC"] - dec)
    return table[int(np.argmin(apart))], float(apart.min())


def test_header_and_products_say_what_was_done(made):
    folder, header, late = made
    assert header["QCSTAT"] == "OK" and header["DIFMETH"] == "zogy" and header["DIFCONV"] == "both"
    assert header["DIFTMPL"] == "coadd.fits" and header["DIFTFILT"] == "r"
    # Both stacks have the same frames' exposure and zero point.
    assert header["DIFSCALE"] == pytest.approx(1, abs=0.02)
    assert header["DIFPULL"] == pytest.approx(1, abs=0.05)
    assert header["DIFTSEE"] == pytest.approx(1.2, abs=0.1)
    assert header["DIFNVAR"] >= 1
    coadd = fits.getheader(late.product("coadd.fits"))
    assert header["ABSZPT"] == coadd["ABSZPT"] and header["CRVAL1"] == coadd["CRVAL1"]
    assert "LIMMAG" not in header
    assert header["DIFLIM3"] - header["DIFLIM5"] == pytest.approx(2.5 * np.log10(5 / 3))
    for name in ("diff.fits", "diff.weight.fits"):
        assert not damage_of_fits(folder / name)
    with fits.open(folder / "diff.fits") as hdus:
        names = [hdu.name for hdu in hdus[1:]]
        assert names == ["MASK", "SIGNIFICANCE", "FLUXERR", "PSF", "TEMPLATE"]
        weight = fits.getdata(folder / "diff.weight.fits")
        assert ((hdus["MASK"].data == 0) == (weight > 0)).all()
        assert hdus["MASK"].header["BIT2"] == "saturated in the coadd"
    assert not [key for key in header if key.startswith("NOTE")]


def test_the_new_source_has_its_magnitude(made):
    _, header, _ = made
    assert header["TGTMAG"] == pytest.approx(NEW[2], abs=4 * np.hypot(header["TGTMERR"], 0.01))
    assert header["TGTMERR"] < 0.1
    # A limit where a source is holds its photons: it is brighter than that of the sky.
    assert header["DIFLIM5"] - 0.5 < header["TGTLIM5"] < header["DIFLIM5"] + 0.02


def test_candidates_are_what_has_changed(candidates):
    table, _, reference = candidates
    listed = table[table["SCORE"] >= 0.3]
    new, apart = nearest(listed, *NEW[:2])
    assert apart < 4 * new["POSERR"] + 0.02 and new["SIGN"] == 1
    assert new["MAG"] == pytest.approx(NEW[2], abs=4 * np.hypot(new["MAGERR"], 0.01))
    assert new["NFRAMES"] == 3 and new["NSEEN"] == 3 and not new["MOVING"] and new["KNOWN"] == ""
    gone, apart = nearest(listed, *FADED[:2])
    assert apart < 4 * gone["POSERR"] + 0.02 and gone["SIGN"] == -1 and gone["KNOWN"] == "2022 AB"
    star = reference["ra"][VARIABLE], reference["dec"][VARIABLE]
    varies, apart = nearest(listed, *star)
    assert apart < 0.5 and varies["SIGN"] == -1 and varies["KNOWN"] == "reference star"
    # Nothing else, but for noise at five sigma of some ten thousand places.
    assert len(listed[np.abs(listed["SNR"]) > 6]) == 3
    assert (np.diff(table["SCORE"]) <= 0.011).all()
    assert table.meta["score"]["DIPOLE"]["weight"] == 0.95 and "Q_DIPOLE" in table.colnames
    assert table.meta["step"] == "candidates v7" and table["FILTER"][0] == "r"


def test_cutouts_show_what_is_new(candidates, tmp_path):
    table, rows, _ = candidates
    new, _ = nearest(table, *NEW[:2])
    side = rows[0].shape[0]
    parts = [rows[new["CUTOUT"]][:, k * (side + 1) :][:, :side].astype(float) for k in range(3)]
    middle = slice(side // 2 - 2, side // 2 + 3)
    bright = [part[middle, middle].mean() - np.median(part) for part in parts]
    assert bright[0] > 60 and abs(bright[1]) < 30 and bright[2] > 60
    write_sheet(tmp_path / "sheet.jpg", rows)
    assert (tmp_path / "sheet.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_light_curve_has_the_difference(made):
    folder, header, late = made
    names = ("coadd.fits", "coadd.weight.fits", "coadd.cat.fits", "quality.json")
    stack = read_stack((*(late.product(name) for name in names), late.frames))
    places = np.array([NEW[:2], FADED[:2], (10.0, 10.0)])
    positions = [Position("a", np.array([ra]), np.array([dec])) for ra, dec in places]
    frames = measure_frames([stack], positions, 50)
    new, gone, outside = difference_fluxes(stack, folder / "diff.fits", places, frames)
    assert new.kind == "difference" and new.name == stack.name
    assert new.rate * stack.exptime == pytest.approx(header["TGTFLUX"], rel=1e-4)
    assert gone.rate < -5 * gone.error
    assert np.isnan(outside.rate) and outside.flags
    files = tuple(late.product(name) for name in names[:3])
    whole = stack_fluxes(stack, files, places, frames)[0]
    assert new.zeropoint == whole.zeropoint and new.members == whole.members
    # Nothing was there before: both see the same source.
    assert new.rate == pytest.approx(whole.rate, abs=3 * np.hypot(new.error, whole.error))


def test_a_later_template_is_told_one_of_the_same_frames_refused(epochs, tmp_path):
    early, late = epochs
    header = make_difference(
        inputs(early, late.product("coadd.fits")),
        tmp_path / "d.fits",
        tmp_path / "w.fits",
        SETTINGS,
    )
    assert header["QCSTAT"] == "OK" and "not earlier" in header["NOTE1"]
    header = make_difference(
        inputs(late, late.product("coadd.fits")), tmp_path / "d.fits", tmp_path / "w.fits", SETTINGS
    )
    assert header["QCREASON"] == "TEMPLATE_SAME: 3 of 3 frames are in the template, too"


def test_noise_that_the_weights_deny_is_told():
    """Images of one night that share their exposures subtract too well."""
    assert noise_remarks(1.05) == noise_remarks(np.nan) == []
    assert "0.04 of what the weights say" in noise_remarks(0.04)[0]
    assert "2.0 times" in noise_remarks(2.0)[0]


@pytest.mark.parametrize(
    "template, code",
    [(None, "NO_TEMPLATE"), ("text", "NO_TEMPLATE"), ("away", "TEMPLATE_ELSEWHERE")],
)
def test_what_cannot_be_subtracted_is_a_header_with_the_reason(epochs, tmp_path, template, code):
    early, late = epochs
    path = tmp_path / "template.fits"
    if template == "text":
        path.write_text("not FITS")
    elif template == "away":
        with fits.open(early.product("coadd.fits")) as hdus:
            hdus[0].header["CRVAL1"] += 5
            fits.writeto(path, hdus[0].data, hdus[0].header)
    given = inputs(late, path if template else None, why="no night before 2020")
    header = make_difference(given, tmp_path / "d.fits", tmp_path / "w.fits", SETTINGS)
    assert header["QCSTAT"] == "REJECTED" and header["QCREASON"].startswith(code)
    with fits.open(tmp_path / "d.fits") as hdus:
        assert hdus[0].data is None and len(hdus) == 1


def test_a_bare_image_of_another_filter_is_taken_and_told(epochs, tmp_path):
    """Without a weight map, off by half an arcsecond, with a zero point that is none of its."""
    early, late = epochs
    path = tmp_path / "survey.fits"
    with fits.open(early.product("coadd.fits")) as hdus:
        header = WCS(hdus[0].header).to_header()
        header["CRVAL2"] += 0.6 / 3600
        header["FILTER"], header["MAGZERO"], header["MJD-END"] = "g", 24.0, 50000.0
        image = hdus[0].data * np.float32(0.1)
        image[fits.getdata(early.product("coadd.weight.fits")) <= 0] = np.nan
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, header)]).writeto(path)
    header = make_difference(
        inputs(late, path, target_radec=NEW[:2]), tmp_path / "d.fits", tmp_path / "w.fits", SETTINGS
    )
    assert header["QCSTAT"] == "OK"
    assert header["DIFSCALE"] == pytest.approx(10, rel=0.02)
    notes = " ".join(str(header[key]) for key in header if key.startswith("NOTE"))
    for words in ("without a weight map", "in filter g, the coadd in r", "contradicts the stars",
                  "off by 0.6"):  # fmt: skip
        assert words in notes
    assert "not earlier" not in notes
    assert header["TGTMAG"] == pytest.approx(NEW[2], abs=0.15)
    assert header["DIFPULL"] == pytest.approx(1, abs=0.05)
