"""Images of a survey in a folder: the one that covers a field, in fluxes, with its facts."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.settings import ReferenceSettings
from lib.reference.cutouts import survey_cutout
from lib.reference.imagesurveys import PS1_ASINH
from lib.reference.localimages import find_image
from lib.reference.vizier import ReferenceUnavailable

CENTRE, SIZE = (210.0, -12.0), 0.05
OFFLINE = ReferenceSettings(cutout_servers=())


def image_of(ra, dec, scale=0.5, side=600, seed=1):
    """Return pixels, and the cards of their place."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [side / 2 + 0.5] * 2
    wcs.wcs.cd = np.diag([-scale / 3600, scale / 3600])
    values = np.random.default_rng(seed).normal(0, 1, (side, side))
    return values.astype(np.float32), wcs.to_header()


def write(path, ra=CENTRE[0], dec=CENTRE[1], cards=None, **how):
    values, header = image_of(ra, dec, **how)
    header.update(cards or {})
    path.parent.mkdir(exist_ok=True)
    fits.PrimaryHDU(values, header).writeto(path)
    return values


def cutout(folder, cache, survey="legacy", band="r"):
    return survey_cutout(survey, band, CENTRE, SIZE, 0.5, cache, folder=folder, settings=OFFLINE)


def test_the_image_that_covers_the_field_is_cut(tmp_path):
    folder = tmp_path / "survey"
    write(folder / "away-r.fits", ra=211.0, seed=5)
    write(folder / "half-r.fits", dec=CENTRE[1] - 0.04, seed=4)
    write(folder / "here-g.fits", seed=3)
    values = write(folder / "here-r.fits", cards={"EXPTIME": 90.0})
    write(folder / "coarse-r.fits", scale=0.9, seed=6)
    write(folder / "here-invvar-r.fits", scale=0.4, seed=7)
    (folder / "notes-r.fits").write_text("not a FITS file")
    path = cutout(folder, tmp_path / "cache")
    with fits.open(path) as found:
        image, header = found[0].data, found[0].header
    assert header["TPLFILE"] == "here-r.fits" and header["EXPTIME"] == 90.0
    assert header["MAGZERO"] == 22.5 and header["COVERAGE"] == 1.0
    assert header["SURVEY"] == "DESI Legacy Surveys DR10" and header["FILTER"] == "r"
    assert abs(image.shape[0] - SIZE * 3600 / 0.5) < 4
    x, y = WCS(header).wcs_world2pix(*CENTRE, 0)
    there = values[300 - 3 : 300 + 3, 300 - 3 : 300 + 3]  # the centre is between pixels 299 and 300
    mine = image[round(float(y) - 2.5) :, round(float(x) - 2.5) :][:6, :6]
    assert np.array_equal(mine, there)


def test_stack_of_panstarrs_is_decoded_with_its_own_cards(tmp_path):
    values, header = image_of(*CENTRE, scale=0.25, side=900)
    flux = 40.0 * np.abs(values)
    header.update({"BSOFTEN": 2.2, "BOFFSET": 0.7, "EXPTIME": 1000.0})
    stored = PS1_ASINH * np.arcsinh((flux - 0.7) / (2 * 2.2))
    primary = fits.PrimaryHDU()
    primary.header["HIERARCH FPA.FILTER"] = "i.00000"
    packed = fits.CompImageHDU(
        stored.astype(np.float32), header, compression_type="GZIP_1", quantize_level=0
    )
    folder = tmp_path / "ps1"
    folder.mkdir()
    fits.HDUList([primary, packed]).writeto(folder / "rings.v3.skycell.1189.009.stk.x.fits.fz")
    path = cutout(folder, tmp_path, "ps1", "i")
    image, header = fits.getdata(path), fits.getheader(path)
    assert header["MAGZERO"] == pytest.approx(32.5)
    low = (900 - image.shape[0]) // 2
    match = [
        np.abs(image - flux[j : j + image.shape[0], i : i + image.shape[1]]).max()
        for j in range(low - 2, low + 3)
        for i in range(low - 2, low + 3)
    ]
    assert min(match) < 1e-3


@pytest.mark.parametrize(
    ("name", "cards", "band"),
    [
        ("a.fits", {"FILTER": "r DECam SDSS c0002 6415.0 1480.0"}, "r"),
        ("a_g.fits", {"FILTER": "r"}, "r"),
        ("rings.v3.skycell.1189.009.stk.z.unconv.fits", {}, "z"),
        ("legacysurvey-2100m120-image-i.fits", {}, "i"),
    ],
)
def test_band_is_told_by_header_or_name(name, cards, band, tmp_path):
    write(tmp_path / "survey" / name, cards=cards)
    found = find_image(tmp_path / "survey", band, CENTRE, SIZE)
    assert found.path.name == name
    assert "no image of band y among 1 files" in find_image(tmp_path / "survey", "y", CENTRE, SIZE)


def test_folder_of_a_band(tmp_path):
    write(tmp_path / "r" / "field.fits")
    assert find_image(tmp_path, "r", CENTRE, SIZE).covered == 1.0


def test_why_there_is_none_is_said(tmp_path):
    write(tmp_path / "survey" / "away-r.fits", ra=212.0)
    with pytest.raises(ReferenceUnavailable) as caught:
        cutout(tmp_path / "survey", tmp_path / "cache")
    assert "none of 1 images of band r covers 210.0000 -12.0000; the nearest is 1.96 deg" in str(
        caught.value
    )
    assert find_image(tmp_path / "none", "r", CENTRE, SIZE).endswith("is no folder")
