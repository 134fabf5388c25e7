"""Products tell who observed what, where and for whom, as the raw header does."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from lib.calibration.carried import carried_cards, common_cards


def facts(hdu=0, site=None):
    return SimpleNamespace(amplifiers=[SimpleNamespace(hdu=hdu)], site=site)


def write(path, primary, extension=None):
    hdus = fits.HDUList([fits.PrimaryHDU(np.zeros((4, 4), "i2"))])
    hdus[0].header.update(primary)
    if extension is not None:
        hdus.append(fits.ImageHDU(np.zeros((4, 4), "i2")))
        hdus[1].header.update(extension)
    hdus.writeto(path)
    return path


def test_cards_are_carried_under_one_name(tmp_path):
    raw = write(
        tmp_path / "2.fits",
        {"TELESCOP": "NTT", "INSTRUME": "EFOSC", "OBSERVER": "N. N.", "PROG-ID": "108.22F6.001",
         "HIERARCH ESO OBS PI-COI NAME": "A. Stronomer", "ORIGIN": "  "},
    )  # fmt: skip
    cards = {key: value for key, (value, _) in carried_cards(raw, facts()).items()}
    assert cards == {"TELESCOP": "NTT", "INSTRUME": "EFOSC", "OBSERVER": "N. N.",
                     "PROPID": "108.22F6.001", "PI": "A. Stronomer"}  # fmt: skip


def test_the_image_counts_before_the_file(tmp_path):
    raw = write(tmp_path / "2.fits", {"INSTRUME": "mosaic", "TELESCOP": "4m"}, {"INSTRUME": "chip"})
    cards = carried_cards(raw, facts(hdu=1))
    assert cards["INSTRUME"][0] == "chip" and cards["TELESCOP"][0] == "4m"


def test_the_site_is_that_of_the_night_log(tmp_path):
    raw = write(tmp_path / "2.fits", {"SITELAT": "-30:14:00"})
    cards = carried_cards(raw, facts(site=[31.04, -115.45, None]))
    assert cards["SITELAT"][0] == 31.04 and cards["SITELONG"][0] == -115.45
    assert "SITEELEV" not in cards
    assert "SITELAT" not in carried_cards(raw, facts())


@pytest.mark.parametrize("content", [b"", b"no FITS file"])
def test_what_cannot_be_read_carries_nothing(tmp_path, content):
    (tmp_path / "2.fits").write_bytes(content)
    assert carried_cards(tmp_path / "2.fits", facts()) == {}


def test_a_stack_has_what_its_frames_have_alike():
    one = fits.Header({"TELESCOP": "1m", "OBSERVER": "A", "SITELAT": 30.5, "EXPTIME": 3.0})
    other = fits.Header({"TELESCOP": "1m", "OBSERVER": "B", "SITELAT": 30.5})
    assert {k: v for k, (v, _) in common_cards([one, other]).items()} == {
        "TELESCOP": "1m", "SITELAT": 30.5,
    }  # fmt: skip
