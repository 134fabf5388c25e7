"""What names of filters mean, and which are spellings of one."""

import pytest
from framefacts import made_facts

from lib.night.filternames import parse_filter, unite_filters
from lib.night.headervalues import wheel_text

NAMES = {
    "u": "u'_SDSS 353_55,SDSS-U,Sloan u",
    "g": "g,g',gp,gprime,SDSS-G,SDSS g,g' SDSS k1017,g_G0301,g#782,SG,g_PS1,gP1,ZTF_g,"
    "g DECam SDSS c0001 4720.0 1520.0,g.MP9401,g\\xe2\\x80\\xb2,sdssg",
    "r": "r,r',rp,RP,SDSS r prime,r-SDSS,sdss_r,sloan r',rp_Astrodon,r_G0303,W-S-R+,SR,Gunn r",
    "i": "i,ip,i#705,Gunn i,iPrime",
    "z": "z,Z,zs,z_s,z.MP9801,gunn_z,Z_G1101,SDSS zs",
    "y": "y,Y,Y DECam c0005 10095.0 1130.0",
    "B": "B,Bessell-B,B Harris k1002,Johnson B,JohnsonB",
    "V": "V,Bessell V,V_Bessell,V Bess,V_Bes 530_80,V_Harris,Harris V,V#641,V-band,W-J-V,V+ND3,"
    "Johnson v,V filter",
    "R": "R,Rc,RC,R_J,BesR,Cousins R,CousinsR,Johnson-Cousins R,Johnson/Cousins R,W-C-RC,KC R",
    "I": "I,Ic,I_C,Bessell I,BessellI,Cousins-I",
    "J": "J,2MASS J,J_2MASS,J_G0202+PK50_G0201,MKO J",
    "H": "H,H_G0803",
    "K": "K,Ks,Kp,K',Kshort,K_s,Kprime_G0206,Kshort_G1105,Ks MKO",
    "": "U,G,b,v,L,Red,Green,Luminance,Clear,Halpha,H-alpha,H_a,Ha#692,H2,H 656,JH,JH_G0809,"
    "K-long_G0812,VR DECam,gri.MP9605,CaHK.MP9303,OIII 5007,HaC_G0337,ri_G0349,FakeBlank,48,V+R",
}


@pytest.mark.parametrize(
    ("band", "name"), [(band, name) for band, names in NAMES.items() for name in names.split(",")]
)
def test_bands_of_names(band, name):
    assert parse_filter(name).band == band


@pytest.mark.parametrize(
    ("wheels", "filter_text"),
    [
        (["Open", "R"], "R"), (["V", None, "Clear"], "V"), (["R", "NO_FILTER"], "R"),
        (["open1-6", "r_G0303"], "r_G0303"), (["J_G0202", "open", "Pupil38_G5207"], "J_G0202"),
        (["Air", "B"], "B"), (["empty", "g"], "g"), (["none", "r"], "r"), (["V", "V", "5"], "V"),
        (["3", "V"], "V"), (["Bessell V", "V"], "Bessell V"), (["GG455", "g"], "GG455+g"),
        (["Open", "Clear"], "Open"), ([48], "48"), ([None, None], None),
    ],
)  # fmt: skip
def test_two_wheels(wheels, filter_text):
    assert wheel_text(wheels) == filter_text


def named(*texts):
    """Return flats and science frames of some filters, after their spellings are united."""
    frames = [
        made_facts(
            type="object" if text.startswith("*") else "flat",
            filter_text=text.strip("*"), filter=text.strip("*"),
            band=parse_filter(text.strip("*")).band, shape=[20, 30],
        )
        for text in texts
    ]  # fmt: skip
    notes = unite_filters(frames)
    return [one.filter_text for one in frames], notes


def test_spellings_of_one_filter():
    assert named("V", "*Bessell V", "*V_Bessell", "*Bessell V")[0] == ["Bessell V"] * 4
    texts, notes = named("SDSS-g", "*g'")
    assert texts == ["g'", "g'"] and "SDSS-g" in notes[0]
    assert named("H-alpha", "*Halpha", "*OIII")[0] == ["Halpha", "Halpha", "OIII"]


@pytest.mark.parametrize(
    "texts",
    [
        ["R", "*r"], ["Bessell V", "*Johnson V", "*V"], ["r.MP9601", "*r.MP9602"],
        ["V#641", "*V#606"], ["z_G0304", "*Z_G0322"], ["V", "*V+ND3"], ["G", "*g"],
        ["R", "*r'", "*Red"],
    ],
)  # fmt: skip
def test_other_filters_stay_apart(texts):
    found, notes = named(*texts)
    assert found == [text.strip("*") for text in texts] and notes == []


@pytest.mark.parametrize(
    ("name", "band"),
    [("Ks + clear", "K"), ("clear + J", "J"), ("V+open", "V"), ("J + H", ""), ("r'+", "")],
)
def test_wheels_joined_by_the_camera_itself(name, band):
    assert parse_filter(name).band == band
