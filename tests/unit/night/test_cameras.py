"""Shipped cameras on short headers: what a person reads from each.

Their values are those of real headers; of ALFOSC, IO:O, Sinistro, KeplerCam and some amateur
writers no header was at hand: theirs are made up after what is generally known of them; those of
DDRAGO and COATLI after what their control software writes."""

import pytest

from lib.night.frameignored import FrameIgnored
from lib.night.instrumentfile import identify, list_instruments, load_instrument
from lib.night.interpret import interpret, merged_header
from lib.night.rawheaders import RawHDU

NICKEL = {
    "OBSTYPE": "OBJECT", "OBJECT": "PG1323-085", "INSTRUME": "Nickel Direct Camera", "EXPTIME": 60,
    "FILTNAM": "V", "DATE-BEG": "2024-05-13T04:32:47.12", "RA": "13:25:39.63", "DEC": "-8:49:28.5",
    "EQUINOX": 2000, "GAIN": 1, "AIRMASS": 1.594, "TEMPDET": -109.2, "READ-SPD": 80, "COVER": 32,
    "CDELT1U": -2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 201.415, "CRPIX1": 512,
    "CRVAL2": -8.824, "CRPIX2": 512, "CD1_1": -1.0272e-4, "CD1_2": -3.946e-6, "CD2_1": 3.946e-6,
    "CD2_2": -1.0272e-4,
}  # fmt: skip
DAO = {
    "INSTRUME": "Newtonian Imager", "TELESCOP": "1.8-m", "OBSERVAT": "DAO", "OBSTYPE": "object",
    "OBJECT": "NGC7331_IPrime", "FILTER": "SDSS i prime", "EXPTIME": 180, "XBIN": 2, "YBIN": 2,
    "DATE-OBS": "2017-09-24T08:04:42", "UT": "08:04:42", "RA": "22:37:21.14", "CCDTEMP": -99.6,
    "DEC": "+34:19:39.6", "EQUINOX": 2017.73, "AIRMASS": 1.0745, "OBSMODE": "Imaging",
    "DATASEC": "[5:1015,1:2306]", "BIASSEC": "[1:4,1:2306]",
}  # fmt: skip
CPAPIR = {
    "INSTRUME": "CPAPIR", "TELESCOP": "OMM-1.6m", "DATATYPE": "SCIENCE", "OBJECT": "J1638+6422",
    "FILTER": "K", "DATE-OBS": "2017-03-19T00:12:42", "UT": 1.078014, "TEXP": 10.0, "NCOA": 1,
    "T_TOT": 9.471, "TEFF": 9.471, "RA": 249.927974775, "DEC": 64.5069173383, "EQUINOX": 2000,
    "NLEC": 1, "AIRMASS": 2.183, "OBS_LAT": 45.4556, "OBS_LON": -71.1528, "T1": 90.4,
}  # fmt: skip
NIRI = {
    "INSTRUME": "NIRI", "OBSTYPE": "OBJECT", "OBJECT": "FS 143", "FILTER1": "Kshort_G0205",
    "FILTER2": "open", "FILTER3": "pupil38_G5207", "EXPTIME": 1.001, "COADDS": 30, "LNRS": 1,
    "NDAVGS": 16, "DATE-OBS": "2003-09-12", "UT": "06:32:12.5", "RA": 277.474125,
    "DEC": 1.22497222, "EQUINOX": 2000.0, "AIRMASS": 1.097, "BEAMSPLT": "f6",
}  # fmt: skip
F2 = {
    "INSTRUME": "F2", "OBSTYPE": "OBJECT", "OBJECT": "2MASS J1148", "FILTER1": "H_G0803",
    "FILTER2": "Open", "GRISM": "Open", "MASKNAME": "None", "DECKER": "Open", "EXPTIME": 10.0,
    "LNRS": 1, "COADDS": 1, "DATE-OBS": "2015-02-13", "UTSTART": "07:35:00.841804",
    "UT": "07:34:55.8", "RA": 177.004, "DEC": -28.61355556, "EQUINOX": 2000.0, "GAIN": 4.44,
    "RDNOISE": 0.0, "AIRMASS": 1.009,
}  # fmt: skip
WIRCAM = {
    "INSTRUME": "WIRCam", "DETECTOR": "WIRCam", "OBSTYPE": "OBJECT", "OBJECT": "PSOJ280",
    "FILTER": "J", "EXPTIME": 20.0, "DATE-OBS": "2018-06-02", "UTC-OBS": "12:09:43.00",
    "MJD-OBS": 58271.5067476, "RA_DEG": 280.182083, "DEC_DEG": 63.191389, "RA": "18:40:43.70",
    "DEC": "63:11:29.0", "EQUINOX": 2000.0, "GAIN": 4.0, "RDNOISE": 30.0, "SATURATE": 65535,
    "AIRMASS": 1.376, "NEXTEND": 4,
}  # fmt: skip
WIRCHIPS = [((2048, 2048), {"EXTNAME": f"HAWAII-2RG-#{number}"}) for number in (77, 52, 54, 60)]
MEGAPRIME = {
    "INSTRUME": "MegaPrime", "DETECTOR": "MegaCam", "OBSTYPE": "OBJECT", "OBJECT": "2I",
    "FILTER": "r.MP9602", "EXPTIME": 30.102, "DATE-OBS": "2019-12-04", "UTC-OBS": "14:26:18.76",
    "MJD-OBS": 58821.601606, "RA_DEG": 170.43125, "DEC_DEG": -15.177639, "EQUINOX": 2000,
    "AIRMASS": 1.561, "NEXTEND": 40, "RASTER": "FULL", "CCDBIN1": 1, "CCDBIN2": 1,
}  # fmt: skip
MEGACHIP = {
    "GAIN": 1.615, "RDNOISE": 4, "DATASEC": "[33:2080,1:4612]", "BIASSEC": "[0:0,0:0]",
    "DETSEC": "[4160:2113,19351:14740]",
}  # fmt: skip
GMOS = {
    "INSTRUME": "GMOS-N", "OBSTYPE": "OBJECT", "OBJECT": "NGC3379_field2", "FILTER1": "open1-0",
    "FILTER2": "i_G0302", "GRATING": "MIRROR", "MASKNAME": "None", "EXPTIME": 100.0014,
    "DATE-OBS": "2003-01-07", "UT": "14:30:25.4", "TIME-OBS": "14:31:00.7", "RA": 161.97825,
    "DEC": 12.60694444, "EQUINOX": 2000.0, "AIRMASS": 1.015, "NAMPS": 1, "AMPINTEG": 5000,
}  # fmt: skip
GMOSCHIP = {
    "CCDSUM": "2 2", "GAIN": 2.32, "RDNOISE": 3.5, "DATASEC": "[33:1056,1:2304]",
    "BIASSEC": "[1:32,1:2304]",
}  # fmt: skip
GMOSCHIPS = [
    GMOSCHIP | {"CCDNAME": f"EEV {name}", "DETSEC": f"[{2048 * k + 1}:{2048 * k + 2048},1:4608]"}
    for k, name in enumerate(("9273-16-03", "9273-20-04", "9273-20-03"))
]
ALFOSC = {
    "INSTRUME": "ALFOSC_FASU", "TELESCOP": "NOT", "IMAGETYP": "OBJECT", "TCSTGT": "SN2020abc",
    "OBJECT": "SN2020abc", "ALGRNM": "Open", "ALAPRTNM": "Open", "ALFLTNM": "Open",
    "FAFLTNM": "V_Bes 530_80", "FBFLTNM": "Open", "EXPTIME": 60.0, "RA": 150.0, "DEC": 20.0,
    "DATE-OBS": "2020-03-04T01:02:03.4", "AIRMASS": 1.2, "DETXBIN": 1, "DETYBIN": 1,
}  # fmt: skip
IOO = {
    "INSTRUME": "IO:O", "TELESCOP": "Liverpool Telescope", "OBSTYPE": "EXPOSE", "OBJECT": "M 13",
    "FILTER1": "SDSS-R", "FILTER2": "clear", "FILTER3": "clear", "EXPTIME": 30.0, "CCDXBIN": 2,
    "DATE-OBS": "2019-05-06T01:02:03.456", "RA": "16:41:41.0", "DEC": "+36:27:35", "CCDYBIN": 2,
    "GAIN": 1.62, "READNOIS": 8.0, "AIRMASS": 1.1, "L1STATFL": 0, "CCDATEMP": 153.0,
}  # fmt: skip
SINISTRO = {
    "INSTRUME": "fa15", "TELESCOP": "1m0-04", "OBSTYPE": "EXPOSE", "OBJECT": "auto_focus",
    "FILTER": "rp", "EXPTIME": 20.0, "DATE-OBS": "2016-03-04T05:06:07.891", "RLEVEL": 0,
    "RA": "10:00:00.0", "DEC": "-20:00:00.0", "AIRMASS": 1.05, "CCDSUM": "1 1", "LATITUDE": -30.17,
    "LONGITUD": -70.80,
}  # fmt: skip
QUADS = ("[1:100,1:80]", "[200:101,1:80]", "[200:101,160:81]", "[1:100,160:81]")
SINISTROAMP = {
    "RDNOISE": 11.0,
    "SATURATE": 47500,
    "DATASEC": "[1:100,1:80]",
    "BIASSEC": "[105:110,1:80]",
}
KEPLERGAINS = (3.0, 3.1, 3.2, 3.1)
KEPLERCAM = {
    "INSTRUME": "KeplerCam", "OBSTYPE": "object", "OBJECT": "HAT-P-1", "FILTER": "i",
    "EXPTIME": 30.0, "DATE-OBS": "2009-11-12T03:04:05", "RA": "22:57:47", "DEC": "+38:40:30",
    "AIRMASS": 1.1, "CCDSUM": "1 1",
}  # fmt: skip
# The window 4kx4k of 4196 x 4112 pixels; angles are in degrees, the prefix S is the start.
DDRAGO = {
    "DATE": "2025-09-20T04:39:06.012", "MJD": 60938.19381958, "TCSVRSN": "1.0",
    "DATE-OBS": "2025-09-20T04:39:05.123", "MJD-OBS": 60938.19380930, "ORIGIN": "OAN/SPM",
    "TELESCOP": "OAN COLIBRI 1.3-m", "INSTRUME": "C1", "ORIGNAME": "20250920T043905C1o.fits",
    "EXPTIME": 60.0, "NFRM": 1, "EXPTYPE": "object", "CCD_NAME": "C1", "BINNING": "1",
    "READMODE": "0", "SOFTGAIN": 1.0, "DATASAT": 65535.0, "WINSEC": "[3:4194,9:4104]",
    "CCDSEC": "[49:4144,1:4096]", "DATASEC": "[49:4144,1:4096]", "BIASSEC": "[1:48,1:4096]",
    "BSPIX1": 1999.2, "BSPIX2": 2182.2, "FILTER": "i", "FWPS": "2", "PRPID": 2001, "BLKID": 12,
    "VSTID": 1, "BLKNM": "GRB 250920A", "SDTTM": -109.8, "SDATE": "2025-09-20T04:39:06.300",
    "STRRQRA": 40.0, "STRRQDE": 20.0, "STRRQEQ": 2000.0, "STRSTRA": 40.0083, "STRSTDE": 19.9917,
    "STRSTEQ": 2000.0, "STROBRA": 40.36, "STROBDE": 20.1, "STROBAM": 1.234,
}  # fmt: skip
COATLI = DDRAGO | {
    "TELESCOP": "OAN/SPM COATLI 50-cm f/8", "INSTRUME": "C0", "CCD_NAME": "C0", "SDTTM": -60.0,
    "DATASEC": "[1:1024,2:1024]", "READMODE": "0-1-3-0-0-1-1", "FILTER": "w", "BIASSEC": "",
}  # fmt: skip


def amplifiers(header, gains=(1.0, 1.1, 1.2, 1.3)):
    return [
        ((80, 110), header | {"DETSEC": place, "GAIN": gain})
        for place, gain in zip(QUADS, gains, strict=True)
    ]


CAMERAS = {
    "nickel": (NICKEL, [((1024, 1056), {})], "d1047.fits", {
        "type": "object", "filter": "V", "band": "V", "exptime": 60, "gain": 1.8, "binning": "2x2",
        "date_obs": "2024-05-13T04:32:47.120", "ra": 201.4151, "dec": -8.8246,
        "shape": [1024, 1024], "pixscale": 0.3701,
    }),
    "dao": (DAO, [((2350, 1020), {})], "dao_c182_2017_016292.fits", {
        "type": "object", "band": "i", "exptime": 180, "binning": "2x2", "shape": [2306, 1011],
        # precessed from the equinox of the date
        "ra": 339.1348, "dec": 34.2354, "pixscale": 0.608, "temperature": -99.6,
    }),
    "cpapir": (CPAPIR, [((2048, 2048), {})], "C170318_0121_SCI.fits", {
        "type": "object", "band": "K", "exptime": 9.471, "ra": 249.9280, "near_infrared": True,
        "date_obs": "2017-03-19T00:12:42.000", "pixscale": 0.8916, "saturate": 35000,
    }),
    "niri": (NIRI, [(None, {}), ((1024, 1024), {})], "N20030912S0301.fits", {
        "type": "object", "filter": "Kshort_G0205", "band": "K", "exptime": 30.03, "gain": 12.3,
        "rdnoise": 35, "saturate": 480000, "pixscale": 0.1171,
        "date_obs": "2003-09-12T06:32:12.500",
    }),
    "flamingos2": (F2, [(None, {}), ((2048, 2048), {})], "S20150213S0110.fits", {
        "type": "object", "band": "H", "exptime": 10, "gain": 4.44, "rdnoise": 11.7,
        "date_obs": "2015-02-13T07:35:00.842", "pixscale": 0.1812, "linear": 22000,
    }),
    "wircam": (WIRCAM, [(None, {}), *WIRCHIPS], "2281792o.fits", {
        "type": "object", "band": "J", "exptime": 20, "gain": 4.0, "rdnoise": 30,
        "ra": 280.1821, "dec": 63.1914, "near_infrared": True, "shape": [2048, 2048],
    }),
    "megaprime": (MEGAPRIME, [(None, {}), *[((4644, 2112), MEGACHIP)] * 40], "2463796o.fits.fz", {
        "type": "object", "band": "r", "exptime": 30.102, "gain": 1.615, "rdnoise": 4,
        "ra": 170.4312, "shape": [4612, 2048], "camera": "C22",
    }),
    "gmos": (GMOS, [(None, {}), *[((2304, 1056), one) for one in GMOSCHIPS]], "N0163.fits", {
        "type": "object", "filter": "i_G0302", "band": "i", "exptime": 100.0014, "binning": "2x2",
        "date_obs": "2003-01-07T14:31:00.700", "gain": 2.32, "shape": [2304, 1024],
        "pixscale": 0.1454, "readout": "5000",
    }),
    "alfosc": (ALFOSC, [(None, {}), ((2100, 2148), {"GAIN": 0.19, "RDNOISE": 4.2})], "AL.fits", {
        "type": "object", "filter": "V_Bes530_80", "band": "V", "gain": 0.19, "rdnoise": 4.2,
        "object": "SN2020abc", "pixscale": 0.2138,
    }),
    "ioo": (IOO, [((2048, 2056), {})], "h_e_20190506_1_1_1_0.fits", {
        "type": "object", "filter": "SDSS-R", "band": "r", "gain": 1.62, "rdnoise": 8,
        "binning": "2x2", "pixscale": 0.30, "temperature": -120.15,
    }),
    "sinistro": (SINISTRO, [(None, {}), *amplifiers(SINISTROAMP)], "x-fa15-e00.fits.fz", {
        "type": "object", "band": "r", "shape": [160, 200], "gain": 1.15, "rdnoise": 11,
        "saturate": 47500, "date_obs": "2016-03-04T05:06:07.891",
    }),
    "keplercam": (KEPLERCAM, [(None, {}), *amplifiers(SINISTROAMP, KEPLERGAINS)], "12.fits", {
        "type": "object", "band": "i", "shape": [160, 200], "gain": 3.1, "pixscale": 0.336,
    }),
    "ddrago": (DDRAGO, [((4096, 4192), {})], "20250920T043905C1o.fits", {
        "type": "object", "camera": "C1", "filter": "i", "band": "i", "object": "GRB 250920A",
        "exptime": 60.0, "date_obs": "2025-09-20T04:39:05.123", "shape": [4096, 4096], "gain": 0.0,
        "rdnoise": 6.5, "saturate": 65535, "ra": 40.0083, "dec": 19.9917, "airmass": 1.234,
        "temperature": -109.8, "binning": "1x1", "pixscale": 0.381,
    }),
    "coatli": (COATLI, [((1024, 1024), {})], "20250920T043905C0o.fits", {
        "type": "object", "camera": "C0", "filter": "w", "band": "", "shape": [1023, 1024],
        "temperature": -60.0, "pixscale": 0.23,
    }),
}  # fmt: skip
"""By instrument: primary header, images with their headers, file name, what is right."""


def hdus_of(header, images):
    hdus = [
        RawHDU(k, dict(one), list(shape) if shape else None)
        for k, (shape, one) in enumerate(images)
    ]
    hdus[0].header = header
    return hdus


def told(name, changes=None, filename=None, images=None):
    """Facts of the camera's frame, its primary header changed."""
    header, ones, raw, _ = CAMERAS[name]
    header = header | (changes or {})
    hdus = hdus_of(header, images or ones)
    return interpret(header, hdus, filename or raw, load_instrument(name))[0]


def test_every_shipped_camera_has_a_header_here_or_beside():
    beside = {"ratir", "lmi", "rimas", "efosc2", "cafos", "arcsat", "generic"}
    assert set(CAMERAS) == set(list_instruments()) - beside


@pytest.mark.parametrize("name", CAMERAS)
def test_a_science_frame_of_each_camera(name):
    header, images, raw, right = CAMERAS[name]
    assert identify(header) == name
    facts = told(name)
    for key, value in right.items():
        expected = pytest.approx(value, abs=2e-4) if isinstance(value, float) else value
        assert facts.get(key) == expected, key
    assert facts.instrument == name and facts.wcs is not None


def test_sections_and_boresight_of_ddrago_by_window_and_binning():
    (amplifier,) = told("ddrago").amplifiers
    assert amplifier.data == [0, 4096, 48, 4144] and amplifier.overscan == [0, 4096, 0, 48]
    wcs = told("ddrago").wcs
    assert [wcs["CRPIX1"], wcs["CRPIX2"]] == pytest.approx([1999.2 - 48, 2182.2])
    window = {"DATASEC": "[1:1024,1:1024]", "BIASSEC": None}
    facts = told("ddrago", window, images=[((1024, 1024), {})])
    assert facts.shape == [1024, 1024] and facts.amplifiers[0].overscan is None
    binned = {"BINNING": "2", "DATASEC": "[25:2072,1:2048]", "BIASSEC": "[1:24,1:2048]"}
    facts = told("ddrago", binned, images=[((2048, 2096), {})])
    assert facts.shape == [2048, 2048] and facts.binning == "2x2"
    assert facts.pixscale == pytest.approx(0.762, abs=1e-4)


@pytest.mark.parametrize("telescope", ["OAN COLIBRI 1.3-m", "OAN/SPM COATLI 50-cm", "DDOTI 28-cm"])
def test_other_telescopes_of_the_same_software_are_not_taken_for_ratir(telescope):
    bias = {"SOFTGAIN": 16.0, "EXPTYPE": "bias", "INSTRUME": "C0"}
    assert identify(bias | {"TELESCOP": telescope}) != "ratir"
    for own in ({}, {"TELESCOP": "OAN/SPM Harold L. Johnson 1.5-meter"}):
        assert identify(bias | own) == "ratir"


def test_amplifiers_keep_their_gains():
    facts = told("sinistro")
    assert [one.gain for one in facts.amplifiers] == [1.0, 1.1, 1.2, 1.3]
    assert [one.flip for one in facts.amplifiers] == [
        [False, False], [False, True], [True, True], [True, False]
    ]  # fmt: skip
    assert all(one.overscan == [0, 80, 104, 110] for one in facts.amplifiers)


def test_three_chips_of_gmos_with_one_or_two_amplifiers_each():
    header, ones, raw, _ = CAMERAS["gmos"]
    found = interpret(header, hdus_of(header, ones), raw, load_instrument("gmos"))
    assert [one.half for one in found] == ["92731603", "92732004", "92732003"]
    halves = [(None, {})]
    for k, one in enumerate(GMOSCHIPS):
        for side in (1, 0):  # the right amplifier comes first
            start = 2048 * k + 1024 * side
            place = {"DETSEC": f"[{start + 1}:{start + 1024},1:4608]", "GAIN": 2.0 + 0.1 * side}
            data = {"DATASEC": "[33:544,1:2304]", "BIASSEC": "[1:32,1:2304]"}
            left = {"DATASEC": "[1:512,1:2304]", "BIASSEC": "[513:544,1:2304]"}
            halves.append(((2304, 544), one | place | (data if side else left)))
    header = header | {"NAMPS": 2}
    found = interpret(header, hdus_of(header, halves), raw, load_instrument("gmos"))
    assert [one.shape for one in found] == [[2304, 1024]] * 3
    for one in found:
        assert [part.origin for part in one.amplifiers] == [[0, 512], [0, 0]]
        assert [part.gain for part in one.amplifiers] == [2.1, 2.0]
        assert not one.has_pedestal


def test_each_chip_is_a_part_of_the_frame():
    header, images, raw, _ = CAMERAS["wircam"]
    found = interpret(header, hdus_of(header, images), raw, load_instrument("wircam"))
    assert [one.amplifiers[0].hdu for one in found] == [1, 2, 3, 4]
    assert len({one.frame for one in found}) == 4
    assert {one.target for one in found} == {"PSOJ280"}


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("nickel", {"OBSTYPE": "DARK", "OBJECT": "bias", "EXPTIME": 0}, "bias"),
        ("nickel", {"OBSTYPE": "DARK", "OBJECT": "dark 60", "EXPTIME": 60}, "dark"),
        ("nickel", {"OBJECT": "sky flat"}, "flat"),
        ("nickel", {"OBJECT": "Dome flat V"}, "flat"),
        ("dao", {"OBSTYPE": "bias", "EXPTIME": 0}, "bias"),
        ("cpapir", {"DATATYPE": "CALIB", "OBJECT": "domeflat_K_ON"}, "flat"),
        ("cpapir", {"DATATYPE": "CALIB", "OBJECT": "dark_10s"}, "dark"),
        ("niri", {"OBSTYPE": "DARK", "FILTER2": "blank", "FILTER3": "Kgrism_G5204"}, "dark"),
        ("flamingos2", {"OBSTYPE": "FLAT"}, "flat"),
        ("gmos", {"OBSTYPE": "BIAS", "MASKNAME": "focus_array_new", "UT": "No Value"}, "bias"),
        ("wircam", {"OBSTYPE": "FLAT"}, "flat"),
        ("megaprime", {"OBSTYPE": "BIAS", "EXPTIME": 0.0}, "bias"),
        ("alfosc", {"IMAGETYP": "FLAT,SKY"}, "flat"),
        ("alfosc", {"IMAGETYP": "BIAS", "EXPTIME": 0.0}, "bias"),
        ("ioo", {"OBSTYPE": "SKY-FLAT"}, "flat"),
        ("sinistro", {"OBSTYPE": "SKYFLAT"}, "flat"),
        ("sinistro", {"OBSTYPE": "BIAS", "EXPTIME": 0.0}, "bias"),
        ("keplercam", {"OBSTYPE": "zero", "EXPTIME": 0.0}, "bias"),
        ("ddrago", {"EXPTYPE": "flat", "STRSTRA": None, "STRSTDE": None}, "flat"),
        ("ddrago", {"EXPTYPE": "dark", "INSTRUME": "C2", "FILTER": "z"}, "dark"),
    ],
)
def test_types(name, changes, kind):
    assert told(name, changes).type == kind


@pytest.mark.parametrize(
    ("name", "changes", "filename", "code"),
    [
        ("nickel", {"OBJECT": "focus run"}, None, "NOT_USED"),
        ("dao", {"OBJECT": "processed bias"}, None, "PROCESSED"),
        ("dao", {}, "dao_c182_2016_004034_a.fits", "PROCESSED"),
        ("cpapir", {"DATATYPE": "REDUC"}, None, "NOT_USED"),
        ("cpapir", {"DATATYPE": "FOCUS"}, None, "NOT_USED"),
        ("cpapir", {"FILTER": "INDEF"}, None, "NOT_USED"),
        ("niri", {"FILTER3": "Kgrism_G5204"}, None, "SPECTRUM"),
        ("niri", {"OBSTYPE": "ARC"}, None, "NOT_USED"),
        ("flamingos2", {"GRISM": "JH_G5801"}, None, "SPECTRUM"),
        ("flamingos2", {"MASKNAME": "4pix-slit"}, None, "SPECTRUM"),
        ("gmos", {"GRATING": "B600+_G5307"}, None, "SPECTRUM"),
        ("wircam", {}, "2281792p.fits", "NOT_RAW"),
        ("wircam", {"OBSTYPE": "FOCUS"}, None, "NOT_USED"),
        ("megaprime", {}, "1927963p.fits", "NOT_RAW"),
        ("megaprime", {"NEXTEND": 72}, None, "NOT_SUPPORTED"),
        ("alfosc", {"ALGRNM": "Grism_#4"}, None, "SPECTRUM"),
        ("ioo", {"L1STATFL": 1}, None, "PROCESSED"),
        ("sinistro", {"RLEVEL": 91}, None, "PROCESSED"),
        ("ddrago", {"EXPTYPE": "focus"}, "20250920T043905C1u.fits", "NOT_USED"),
        ("ddrago", {"INSTRUME": "C3"}, "20250920T043905C3o.fits", "UNKNOWN_CAMERA"),
        ("coatli", {}, "20250920T043905C0oc.fits", "NOT_USED"),
        ("coatli", {"FILTER": "dark"}, None, "NOT_USED"),
    ],
)
def test_what_is_not_for_imaging_has_a_reason(name, changes, filename, code):
    with pytest.raises(FrameIgnored, match=f"^{code}"):
        told(name, changes, filename)


# ------------------------------------------------------------------- writers, through generic

AMATEUR = {
    "NINA": ({
        "IMAGETYP": "LIGHT", "EXPOSURE": 30.0, "EXPTIME": 30.0, "XBINNING": 1, "YBINNING": 1,
        "DATE-LOC": "2021-03-02T21:19:00.455", "DATE-OBS": "2021-03-02T20:19:00.455", "GAIN": 120,
        "OFFSET": 30, "EGAIN": 1.0022, "INSTRUME": "ZWO ASI1600MM Pro", "CCD-TEMP": -10.0,
        "FILTER": "R", "OBJECT": "M45", "OBJCTRA": "03 47 00", "OBJCTDEC": "+24 07 00",
        "XPIXSZ": 3.8, "FOCALLEN": 500, "SWCREATE": "N.I.N.A. 1.10.2.90",
    }, "2021-03-02T20:19:00.455", 1.0022, "R", 56.75),
    "SGP": ({
        "IMAGETYP": "LIGHT", "EXPOSURE": 30, "DATE-LOC": "2020-05-30T02:22:49.0968820",
        "DATE-OBS": "2020-05-30T00:22:49.0968820", "CREATOR": "Sequence Generator Pro v3.1",
        "OBJECT": "M57", "FILTER": "Green", "XBINNING": 1, "YBINNING": 1, "RA": 283.3955,
        "DEC": 33.034, "SITELAT": "51 3 0.000", "SITELONG": "3 43 0.000", "GAIN": 120,
        "EGAIN": 3.99, "PIXSCALE": 0.65415, "AIRMASS": 1.1137,
    }, "2020-05-30T00:22:49.097", 3.99, "Green", 283.3955),
    "MaxIm": ({
        "IMAGETYP": "Light Frame", "EXPTIME": 60.0, "EXPOSURE": 60.0, "FILTER": "V",
        "DATE-OBS": "2019-05-03T08:43:34", "XBINNING": 2, "YBINNING": 2, "EGAIN": 1.43,
        "OBJECT": "M13", "OBJCTRA": "16 41 41.00", "OBJCTDEC": "+36 27 35.0", "XPIXSZ": 18.0,
        "FOCALLEN": 2000.0, "SWCREATE": "MaxIm DL Version 6.13",
    }, "2019-05-03T08:43:34.000", 1.43, "V", 250.4208),
    "APT": ({
        "IMAGETYP": "Light Frame", "EXPTIME": 120.0, "DATE-OBS": "2022-01-02T19:20:21",
        "FILTER": "B", "GAIN": 100, "OFFSET": 50, "EGAIN": 0.77, "OBJECT": "NGC 891",
        "OBJCTRA": "02 22 33", "OBJCTDEC": "+42 20 57", "XBINNING": 1, "YBINNING": 1,
        "SWCREATE": "Astro Photography Tool - APT v.4.01",
    }, "2022-01-02T19:20:21.000", 0.77, "B", 35.6375),
    "SharpCap": ({
        "FRAMETYP": "Light", "EXPTIME": 10.0, "DATE-OBS": "2023-02-03T20:21:22.5555555",
        "FILTER": "G", "GAIN": 252, "BLKLEVEL": 30, "EGAIN": 0.25, "OBJECT": "TrES-3",
        "RA": 268.029, "DEC": 37.546, "XBINNING": 1, "YBINNING": 1, "SWCREATE": "SharpCap v4.0",
    }, "2023-02-03T20:21:22.556", 0.25, "G", 268.029),
    "ASIAIR": ({
        "IMAGETYP": "Light", "EXPOSURE": 180.0, "EXPTIME": 180.0, "GAIN": 101, "OFFSET": 50,
        "DATE-OBS": "2023-09-10T22:11:12.345678", "FILTER": "I", "EGAIN": 0.2464,
        "OBJECT": "WASP-43", "RA": 154.908, "DEC": -9.806, "XBINNING": 1, "YBINNING": 1,
        "CREATOR": "ZWO ASIAIR Plus", "XPIXSZ": 3.76, "FOCALLEN": 800,
    }, "2023-09-10T22:11:12.346", 0.2464, "I", 154.908),
}  # fmt: skip
"""By program: header, start, gain, filter, right ascension."""


@pytest.mark.parametrize("writer", AMATEUR)
def test_amateur_writers_through_the_generic_camera(writer):
    header, start, gain, name, ra = AMATEUR[writer]
    assert identify(header) == "generic"
    (facts,) = interpret(
        header, hdus_of(header, [((100, 120), {})]), "a.fits", load_instrument("generic")
    )
    assert (facts.type, facts.date_obs, facts.gain, facts.filter) == ("object", start, gain, name)
    assert facts.ra == pytest.approx(ra, abs=1e-3)


@pytest.mark.parametrize("writer", ["NINA", "MaxIm", "ASIAIR"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("bias", ["BIAS", "Bias Frame", "Bias"]), ("dark", ["DARK", "Dark Frame", "Dark"]),
     ("flat", ["FLAT", "Flat Field", "Flat"])],
)  # fmt: skip
def test_calibrations_of_amateur_writers(writer, kind, words):
    header = AMATEUR[writer][0]
    for word in words:
        changed = header | {"IMAGETYP": word} | ({"EXPTIME": 0.0} if kind == "bias" else {})
        (facts,) = interpret(
            changed, hdus_of(changed, [((100, 120), {})]), "a.fits", load_instrument("generic")
        )
        assert facts.type == kind


def test_the_extension_tells_what_the_primary_does_not():
    primary, chip = {"OBSERVAT": ""}, {"OBSERVAT": "ARCSAT"}
    assert identify(merged_header(primary, chip)) == "arcsat"
    assert identify(merged_header(chip, primary)) == "arcsat"


def test_a_readout_mode_told_twice_is_that_told_once():
    """MaxIm writes READOUTM, the program that steers the telescope READMODE to science frames."""
    header = AMATEUR["MaxIm"][0] | {"READOUTM": "Monochrome"}
    modes = []
    for one in (header, header | {"READMODE": "Monochrome"}, header | {"GAINMODE": "high"}):
        (facts,) = interpret(
            one, hdus_of(one, [((100, 120), {})]), "a.fits", load_instrument("generic")
        )
        modes.append(facts.readout)
    assert modes == ["Monochrome", "Monochrome", "Monochrome high"]
