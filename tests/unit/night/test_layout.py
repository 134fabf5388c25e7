"""Chips and amplifiers of raw files, as headers or instrument files tell."""

import numpy as np
import pytest
from astropy.io import fits

from lib.calibration.detector import assemble, gain_map
from lib.night import nightlog
from lib.night.frameignored import FrameUnusable
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU, read_headers

PRIMARY = {
    "IMAGETYP": "object", "OBJECT": "f", "FILTER": "r", "EXPTIME": 60.0, "RA": 150.0, "DEC": 20.0,
    "DATE-OBS": "2024-03-01T03:00:00", "RDNOISE": 5.0, "GAIN": 1.5, "PIXSCALE": 0.5,
}  # fmt: skip


def read(hdus, instrument="generic"):
    """Return the facts of a file made of (header, shape) of its HDUs."""
    hdus = [RawHDU(k, header, shape) for k, (header, shape) in enumerate(hdus)]
    loaded = load_instrument(instrument) if isinstance(instrument, str) else instrument
    return interpret(hdus[0].header, hdus, "a.fits", loaded)


def gmos(names, amplifiers=2):
    """Return the HDUs of a camera of three chips in a row, each of one or two amplifiers."""
    hdus = [(PRIMARY, None)]
    width = 40 // amplifiers
    for chip, name in enumerate(names):
        for k in range(amplifiers):
            start = 80 * chip + 2 * width * k
            header = {
                "EXTNAME": "SCI", "CCDNAME": name, "CCDSUM": "2 2", "GAIN": 2.0 + 0.1 * k,
                "DETSEC": f"[{start + 1}:{start + 2 * width},1:60]",
                "DATASEC": f"[1:{width},1:30]", "BIASSEC": f"[{width + 1}:{width + 4},1:30]",
            }  # fmt: skip
            hdus.append((header, [30, width + 4]))
    return hdus


@pytest.mark.parametrize("amplifiers", [1, 2])
def test_three_chips_of_one_or_two_amplifiers(amplifiers):
    found = read(gmos(["EEV 2037-06-03", "EEV 8194-19-04", "EEV 8261-07-04"], amplifiers))
    assert [one.half for one in found] == ["20370603", "81941904", "82610704"]
    assert len({one.frame for one in found}) == 3
    for chip, one in enumerate(found):
        assert one.shape == [30, 40] and one.binning == "2x2"
        hdus = [amplifier.hdu for amplifier in one.amplifiers]
        assert hdus == [1 + amplifiers * chip + k for k in range(amplifiers)]
        assert all(amplifier.overscan for amplifier in one.amplifiers)


def test_chips_without_a_wcs_lie_where_their_sections_say():
    """The middle of the mosaic is the pointing, seen from each chip."""
    left, middle, right = read(gmos(["A1", "A2", "A3"]))
    assert [one.wcs["CRPIX1"] for one in (left, middle, right)] == [60.5, 20.5, -19.5]
    assert {one.wcs["CRPIX2"] for one in (left, middle, right)} == {15.5}
    assert {one.wcs["CRVAL1"] for one in (left, middle, right)} == {150.0}


def test_one_chip_read_out_by_two_amplifiers_is_one_frame():
    (facts,) = read(gmos(["A1"]))
    assert facts.half == "" and facts.shape == [30, 40]


def named(names, **cards):
    return [(PRIMARY, None)] + [({"EXTNAME": name} | cards, [30, 40]) for name in names]


def test_chips_known_by_their_names_only():
    found = read(named(["CCD1", "CCD2", "CCD3", "CCD4"]))
    assert [one.half for one in found] == ["CCD1", "CCD2", "CCD3", "CCD4"]
    assert [one.amplifiers[0].hdu for one in found] == [1, 2, 3, 4]


@pytest.mark.parametrize("names", [["SCI", "VAR", "DQ"], ["SCI", "ERR"], ["IMAGE", "MASK"]])
def test_what_describes_an_image_is_no_chip(names):
    (facts,) = read(named(names))
    assert facts.amplifiers[0].hdu == 1 and facts.notes == []


def test_images_that_are_not_used_are_told():
    (facts,) = read(named(["", "", ""]))
    assert "2 more images" in facts.notes[0]


def mega(count=3):
    """Chips as MegaCam writes them: two amplifiers beside each other, overscan at both edges."""
    chip = {
        "GAIN": 1.6, "GAINA": 1.54, "GAINB": 1.63, "RDNOISE": 5.0, "BIASSEC": "[0:0,0:0]",
        "DATASEC": "[5:44,1:28]", "DSECA": "[5:24,1:28]", "DSECB": "[25:44,1:28]",
        "BSECA": "[1:4,1:30]", "BSECB": "[45:48,1:30]",
    }  # fmt: skip
    return [(PRIMARY | {"NEXTEND": count}, None)] + [
        (
            chip | {"EXTNAME": f"ccd{k:02d}", "DETSEC": f"[{50 * k + 1}:{50 * k + 40},1:28]"},
            [30, 48],
        )
        for k in range(count)
    ]


def test_all_chips_of_a_mosaic_beside_a_chosen_one():
    chosen = {"amplifiers": "single", "hdu": 2, "trim": "DATASEC"}
    generic = load_instrument("generic")
    (camera,) = generic["cameras"].values()

    def changed(**keys):
        return generic | {"cameras": {"C0": camera | keys}}

    (facts,) = read(mega(), changed(**chosen))
    assert facts.amplifiers[0].hdu == 2 and "2 more images like HDU 2" in facts.notes[0]
    found = read(mega(), changed(amplifiers="chips"))
    assert [one.half for one in found] == ["ccd00", "ccd01", "ccd02"]
    for one in found:
        assert one.shape == [28, 40] and [amp.gain for amp in one.amplifiers] == [1.54, 1.63]
        assert [amp.overscan for amp in one.amplifiers] == [[0, 30, 0, 4], [0, 30, 44, 48]]
        assert not any("not used" in note for note in one.notes)


def test_a_gap_between_sections_is_one_between_chips():
    sections = ["[1:40,1:30]", "[51:90,1:30]"]
    hdus = [(PRIMARY, None)] + [({"DETSEC": section}, [30, 40]) for section in sections]
    assert [one.half for one in read(hdus)] == ["chip1", "chip2"]


def quadrants(keys, gains):
    """Return a header and pixels: four amplifiers, overscan in the middle, each of its level."""
    data, overscan, gain, noise = keys
    raw, header = np.zeros((40, 72)), dict(PRIMARY)
    for number, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        name = ("11", "12", "21", "22")[number] if data == "TSEC" else "ABCD"[number]
        if data == "DATASEC":
            name = str(number + 1)
        rows = slice(20 * y, 20 * y + 20)
        start = 40 * x
        columns = slice(start, start + 32)
        strip = slice(32, 36) if x == 0 else slice(36, 40)
        header[f"{data}{name}"] = f"[{start + 1}:{start + 32},{rows.start + 1}:{rows.stop}]"
        header[f"{overscan}{name}"] = (
            f"[{strip.start + 1}:{strip.stop},{rows.start + 1}:{rows.stop}]"
        )
        header[f"{gain}{name}"], header[f"{noise}{name}"] = gains[number], 4.0 + number
        raw[rows, columns] = 1000 + 100 * number + 300 / gains[number]
        raw[rows, strip] = 1000 + 100 * number
    return header, raw


@pytest.mark.parametrize(
    "keys",
    [
        ("DATASEC", "BIASSEC", "GAIN", "RDNOISE"), ("TSEC", "BSEC", "GTGAIN", "GTRON"),
        ("DSEC", "BSEC", "GAIN", "RDNOISE"), ("AMPSEC", "BIASSEC", "GAIN", "RDNOISE"),
    ],
)  # fmt: skip
def test_amplifiers_of_one_image_with_overscan_in_the_middle(tmp_path, keys):
    gains = [1.5, 2.0, 1.2, 3.0]
    cards, raw = quadrants(keys, gains)
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(raw.astype(np.float32), fits.Header(cards)).writeto(path)
    headers = read_headers(path)
    (facts,) = interpret(headers.primary, headers.hdus, "a.fits", load_instrument("generic"))
    assert facts.shape == [40, 64] and len(facts.amplifiers) == 4
    assert [one.gain for one in facts.amplifiers] == gains
    assert [one.rdnoise for one in facts.amplifiers] == [4.0, 5.0, 6.0, 7.0]
    assert [one.origin for one in facts.amplifiers] == [[0, 0], [0, 32], [20, 0], [20, 32]]
    ccd = assemble(path, facts).ccd
    np.testing.assert_allclose(ccd.data * gain_map(facts).value, 300, rtol=1e-5)


def test_a_reference_pixel_beyond_the_overscan_is_moved_by_it():
    cards, raw = quadrants(("DATASEC", "BIASSEC", "GAIN", "RDNOISE"), [1.5] * 4)
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0,
           "CRPIX2": 30.0, "CD1_1": -0.5 / 3600, "CD2_2": 0.5 / 3600}  # fmt: skip
    for told, right in ((10.0, 10.0), (50.0, 42.0)):
        (facts,) = read([(cards | wcs | {"CRPIX1": told}, list(raw.shape))])
        assert (facts.wcs["CRPIX1"], facts.wcs["CRPIX2"]) == (right, 30.0)


def test_sections_that_make_no_frame_are_told():
    cards, raw = quadrants(("DATASEC", "BIASSEC", "GAIN", "RDNOISE"), [1.5] * 4)
    cards["DATASEC2"] = "[20:51,1:20]"  # over that of the first
    (facts,) = read([(cards, list(raw.shape))])
    assert len(facts.amplifiers) == 1
    assert "sections of amplifiers 1, 2, 3, 4" in facts.notes[0]


def listed(sections):
    instrument = dict(load_instrument("generic"))
    camera = dict(instrument["cameras"]["C0"])
    camera["amplifiers"] = [{"data": data, "overscan": strip} for data, strip in sections]
    return instrument | {"cameras": {"C0": camera}}


def test_amplifiers_told_in_an_instrument_file():
    sections = [([0, 40, 0, 32], [0, 40, 32, 36]), ([0, 40, 40, 72], [0, 40, 36, 40])]
    (facts,) = read([(PRIMARY, [40, 72])], listed(sections))
    assert facts.shape == [40, 64]
    assert [one.origin for one in facts.amplifiers] == [[0, 0], [0, 32]]
    with pytest.raises(FrameUnusable, match="BAD_SECTION"):
        read([(PRIMARY, [40, 60])], listed(sections))


def test_chips_have_calibrations_of_their_own_and_one_stack(tmp_path):
    for k, kind in enumerate(["bias", "flat", "object", "object"]):
        header = fits.Header(PRIMARY | {"IMAGETYP": kind, "EXPTIME": 0.0 if kind == "bias" else 9.0,
                                        "DATE-OBS": f"2024-03-01T03:0{k}:00"})  # fmt: skip
        hdus = [fits.PrimaryHDU(header=header)]
        for number in (1, 2):
            pixels = np.full((30, 40), 100 * k + number, np.int16)
            hdus.append(fits.ImageHDU(pixels, name=f"CCD{number}"))
        fits.HDUList(hdus).writeto(tmp_path / f"{k}.fits")
    log = nightlog.scan(tmp_path)
    assert list(log.biases) == ["bias-C0-CCD1", "bias-C0-CCD2"]
    assert list(log.flats) == ["flat_r-CCD1", "flat_r-CCD2"]
    (stack,) = log.stacks.values()
    assert len(stack) == 4
    for frame in stack:
        chip = log.frames[frame].half
        assert log.match(frame).bias == f"bias-C0-{chip}"
        assert log.match(frame).flat == f"flat_r-{chip}"
