"""Tables as archives hand them out: each gives the magnitudes that it holds, in our bands."""

import numpy as np
import pytest
from astropy.table import Table

from lib.reference.referencetable import CatalogueError
from lib.reference.usertable import read_user_table

RA = np.array([150.0, 150.01, 150.02])
DEC = np.array([2.0, 2.01, 2.02])
SUN = {"u": 18.0, "g": 16.5, "r": 16.0, "i": 15.85, "z": 15.8, "y": 15.75, "V": 16.2, "B": 16.9,
       "J": 14.9, "H": 14.6, "K": 14.5}  # fmt: skip
"""Magnitudes of a star like the Sun."""


def csv(path, columns):
    """Write a table whose values are the same for the three stars, but for lists."""
    table = Table({n: v if np.ndim(v) else [v] * 3 for n, v in columns.items()})
    table.write(path, format="ascii.csv")
    return path


def magnitudes(bands, magnitude, error):
    columns = {}
    for band in bands:
        columns |= {magnitude.format(band): SUN[band], error.format(band): 0.01}
    return columns


PS1 = {
    "vizier": {"RAJ2000": RA, "DEJ2000": DEC, **magnitudes("grizy", "{}mag", "e_{}mag")},
    "mast": {
        "objID": [1, 2, 3],
        "raMean": RA,
        "decMean": DEC,
        **magnitudes("grizy", "{}MeanPSFMag", "{}MeanPSFMagErr"),
    },
    "mast in small letters": {
        "ramean": RA,
        "decmean": DEC,
        **magnitudes("gri", "{}meanpsfmag", "{}meanpsfmagerr"),
    },
    "refcat2": {
        "RA": RA,
        "Dec": DEC,
        "pmra": 0.0,
        "pmdec": 0.0,
        "Gaia": 16.0,
        "rp1": 9.0,
        **magnitudes("griz", "{}", "d{}"),
        **magnitudes("JHK", "{}", "d{}"),
    },
}


@pytest.mark.parametrize("form", PS1)
def test_bands_of_pan_starrs_become_those_of_the_reference(tmp_path, form):
    table = read_user_table(csv(tmp_path / "t.csv", PS1[form]))
    colour = SUN["g"] - SUN["r"]
    # Tonry et al. (2012), table 6
    assert table["g"] == pytest.approx(SUN["g"] + 0.013 + 0.145 * colour + 0.019 * colour**2)
    assert table["r"] == pytest.approx(SUN["r"] - 0.001 + 0.004 * colour + 0.007 * colour**2)
    johnson = SUN["r"] + 0.005 + 0.462 * colour + 0.013 * colour**2
    assert table["V"] == pytest.approx(johnson - 0.01)
    assert table["ra"] == pytest.approx(RA) and table["dec"] == pytest.approx(DEC)
    if "y" in form or form == "mast":
        assert table["y"] == pytest.approx(SUN["y"])
    if form == "refcat2":
        assert table["K"] == pytest.approx(SUN["K"]) and table["epoch"] == pytest.approx(2015.5)


def test_what_pan_starrs_did_not_measure_is_missing(tmp_path):
    columns = dict(PS1["mast"])
    columns["zMeanPSFMag"] = [-999.0, SUN["z"], SUN["z"]]
    columns["iMeanKronMag"] = [SUN["i"], SUN["i"] - 0.4, SUN["i"]]
    table = read_user_table(csv(tmp_path / "t.csv", columns))
    assert len(table) == 2  # a galaxy has more light than a point
    assert np.isnan(table["z"]).tolist() == [True, False]


@pytest.mark.parametrize("names", [("{}pmag", "e_{}pmag"), ("psfMag_{}", "psfMagErr_{}"),
                                   ("{}mag", "e_{}mag")])  # fmt: skip
def test_sdss(tmp_path, names):
    columns = {"RA_ICRS": RA, "DE_ICRS": DEC, **magnitudes("ugriz", *names), "class": [6, 3, 6]}
    table = read_user_table(csv(tmp_path / "t.csv", columns))
    assert len(table) == 2
    assert table["g"] == pytest.approx(SUN["g"])
    assert table["u"] == pytest.approx(SUN["u"] - 0.04)
    # Lupton (2005): V = g - 0.5784 (g - r) - 0.0038, Vega; its AB magnitude is 0.01 less
    assert table["V"] == pytest.approx(SUN["g"] - 0.5784 * 0.5 - 0.0038 - 0.01)
    assert table["V_src"][0].startswith("Lupton")


@pytest.mark.parametrize("form", ["archive", "vizier"])
def test_gaia(tmp_path, form):
    names = {
        "archive": "ra dec ra_error dec_error pmra pmdec phot_g_mean_mag phot_bp_mean_mag "
        "phot_rp_mean_mag ruwe duplicated_source",
        "vizier": "RA_ICRS DE_ICRS e_RA_ICRS e_DE_ICRS pmRA pmDE Gmag BPmag RPmag RUWE Dup",
    }[form].split()
    twice = ["False", "False", "True"] if form == "archive" else [0, 0, 1]
    values = [RA, DEC, 0.1, 0.1, 5.0, -3.0, 16.0, 16.33, 15.51, [1.0, 2.8, 1.0], twice]
    table = read_user_table(csv(tmp_path / "t.csv", dict(zip(names, values, strict=True))))
    assert len(table) == 2
    assert table["ra_err"] == pytest.approx([0.1, 0.28])
    assert table["pmra"] == pytest.approx(5.0) and table["epoch"] == pytest.approx(2016.0)
    # A star like the Sun: V - R = 0.36, V - I = 0.71 (Vega), g - r = 0.45 (Willmer 2018)
    assert table["V"] - table["R"] == pytest.approx(0.36 - 0.01 - 0.18, abs=0.04)
    assert table["V"] - table["I"] == pytest.approx(0.71 - 0.01 - 0.42, abs=0.04)
    assert table["g"] - table["r"] == pytest.approx(0.45, abs=0.08)
    assert (table["V_err"] >= 0.03).all()


def test_gaia_of_another_epoch(tmp_path):
    columns = {"ra": RA, "dec": DEC, "pmra": 1.0, "pmdec": 1.0, "ref_epoch": 2015.5,
               "phot_g_mean_mag": 15.0}  # fmt: skip
    table = read_user_table(csv(tmp_path / "t.csv", columns))
    assert table["epoch"] == pytest.approx(2015.5)
    assert table["ra_err"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    "names",
    ["Vmag e_Vmag Bmag e_Bmag g'mag e_g'mag r'mag e_r'mag", "Vmag e_Vmag Bmag e_Bmag g_mag "
     "e_g_mag r_mag e_r_mag", "Johnson_V Verr Johnson_B Berr Sloan_g gerr Sloan_r rerr"],
)  # fmt: skip
def test_apass(tmp_path, names):
    values = [SUN["V"], 0.01, SUN["B"], 0.01, SUN["g"], 0.01, SUN["r"], 0.01]
    columns = {"radeg": RA, "decdeg": DEC, **dict(zip(names.split(), values, strict=True))}
    table = read_user_table(csv(tmp_path / "t.csv", columns))
    assert table["V"] == pytest.approx(SUN["V"] - 0.01)
    assert table["B"] == pytest.approx(SUN["B"] - 0.12)
    assert table["g"] == pytest.approx(SUN["g"])


@pytest.mark.parametrize(
    "names",
    ["RAJ2000 DEJ2000 Jmag e_Jmag Hmag e_Hmag Kmag e_Kmag Qflg",
     "ra dec j_m j_cmsig h_m h_cmsig k_m k_cmsig ph_qual"],
)  # fmt: skip
def test_twomass(tmp_path, names):
    values = [RA, DEC, SUN["J"], 0.02, SUN["H"], 0.02, SUN["K"], 0.02, ["AAA", "AAU", "ABC"]]
    table = read_user_table(csv(tmp_path / "t.csv", dict(zip(names.split(), values, strict=True))))
    assert table["J"] == pytest.approx(SUN["J"])
    assert np.isnan(table["K"]).tolist() == [False, True, False]
    assert table.meta["source"] == "2MASS (t.csv)"


def test_two_surveys_that_differ_are_not_guessed(tmp_path):
    columns = {"RAJ2000": RA, "DEJ2000": DEC, **magnitudes("gri", "{}mag", "e_{}mag")}
    with pytest.raises(CatalogueError, match="gmag, rmag, imag may be those of Pan-STARRS or"):
        read_user_table(csv(tmp_path / "t.csv", columns))


def test_own_columns_are_taken_as_they_are(tmp_path):
    columns = {"ra": RA, "dec": DEC, "g": 16.5, "g_err": 0.01, "r": 16.0, "r_err": 0.01,
               "V": [np.nan, 16.1, 16.1], "V_err": 0.01, "phot_g_mean_mag": 15.9}  # fmt: skip
    table = read_user_table(csv(tmp_path / "t.csv", columns))
    assert table["g"] == pytest.approx(16.5)
    # A band that the table has is left as it is; one that it has not is derived.
    assert np.isnan(table["V"]).tolist() == [True, False, False]
    assert np.isfinite(table["B"]).all() and np.isnan(table["I"]).all()
