"""Columns of source tables say what they are."""

import numpy as np
from astropy.io import fits

from lib.photometry.columnmeanings import FLUXES, MEANINGS, describe_columns, meaning


def test_fluxes_of_every_kind():
    assert meaning("FLUX_APER3") == ("phot.flux", "flux in circular aperture 3, electrons")
    assert meaning("MAGERR_AUTO") == (
        "stat.error;phot.mag",
        "error of the magnitude in the elliptical Kron aperture",
    )
    assert meaning("OTHER") == ("", "")


def test_cards_stand_with_their_column():
    columns = [fits.Column(name, "E", array=np.zeros(2)) for name in ("RA", "OTHER", "MAG_POINT")]
    table = fits.BinTableHDU.from_columns(columns)
    describe_columns(table.header)
    assert table.header["TUCD1"] == "pos.eq.ra;meta.main"
    assert "TUCD2" not in table.header and "TCOMM2" not in table.header
    assert table.header["TCOMM3"] == "magnitude of a point source, total"
    keys = list(table.header)
    assert keys.index("TUCD1") == keys.index("TFORM1") + 1 == keys.index("TCOMM1") - 1


def test_descriptions_fit_into_one_card():
    names = [f"{one}_{kind}" for one in ("FLUX", "FLUXERR", "MAG", "MAGERR")
             for kind in (*FLUXES, "APER1")]  # fmt: skip
    assert max(len(meaning(name)[1]) for name in [*MEANINGS, *names]) <= 68
