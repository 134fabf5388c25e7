"""The gain that flats tell, against the truth, beside that of the header."""

import numpy as np
import pytest
from test_detector import GAIN, SHAPE, camera, facts_of, make_masters  # noqa: F401

from lib.calibration.flat import make_flat
from lib.calibration.measuredgain import gains_of, with_measured_gain
from lib.calibration.prepare import prepare_frame
from lib.frame.file import FrameRejected
from lib.night.headervalues import keywords_of
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU


def flats_of(camera, bias, gains=(GAIN,), light=4000.0, count=4, **changes):  # noqa: F811
    """Make a master flat of four raw ones; the night log believes the gains given."""
    level = f"g{light:g}-{count}-{bias is None}"
    paths = [
        camera.expose(f"{level}-{i}", 5.0, light * (1 + 0.05 * i), dark=False) for i in range(count)
    ]
    facts = [facts_of(path.stem, 5.0, gain=gains[0], **changes) for path in paths]
    return make_flat(paths, facts, bias)


def test_gain_of_flats_is_the_true_one_and_agreement_is_not_told(camera):  # noqa: F811
    bias, _, _ = make_masters(camera)
    flat = flats_of(camera, bias)
    # 18,000 pixels of 10^4 electrons in two pairs: the variance is known to 1 per cent.
    assert gains_of(flat.header) == [pytest.approx(GAIN, rel=0.03)]
    assert flat.header["GAINPAIR"] == 2 and "NOTE1" not in flat.header


@pytest.mark.parametrize("wrong", [1.0, 100.0, 0.05])
def test_another_gain_of_the_header_is_told(camera, wrong):  # noqa: F811
    bias, _, _ = make_masters(camera)
    flat = flats_of(camera, bias, (wrong,))
    assert gains_of(flat.header) == [pytest.approx(GAIN, rel=0.03)]
    assert f"{wrong:g}" in flat.header["NOTE1"]


def test_no_gain_from_one_flat_or_without_bias_or_of_faint_flats(camera):  # noqa: F811
    bias, _, _ = make_masters(camera)
    assert gains_of(flats_of(camera, bias, count=1).header) == []
    assert gains_of(flats_of(camera, None).header) == []
    faint = flats_of(camera, bias, light=3.0, saturate=200.0)
    assert faint.rejected or gains_of(faint.header) == []


def test_frame_takes_the_measured_gain(camera):  # noqa: F811
    bias, dark, _ = make_masters(camera)
    flat = flats_of(camera, bias, (0.0,))
    path = camera.expose("o", 30.0, 40.0)
    facts, notes = with_measured_gain(facts_of("o", 30.0, gain=0.0), flat, wanted=False)
    frame = prepare_frame(path, facts, bias, dark)
    expected = np.median(camera.flat * 40.0 * 30.0)
    assert np.median(frame.image) == pytest.approx(expected, rel=0.03)
    assert frame.header["RAWGAIN"] == pytest.approx(GAIN, rel=0.03)
    assert "flats" in notes[0]


def test_header_gain_stays_where_no_flat_tells_another():
    facts, notes = with_measured_gain(facts_of("o"), None, wanted=True)
    assert facts.gain == GAIN and "no flat" in notes[0]
    assert with_measured_gain(facts_of("o"), None, wanted=False) == (facts_of("o"), [])
    with pytest.raises(FrameRejected, match="NO_GAIN"):
        with_measured_gain(facts_of("o", gain=0.0), None, wanted=False)


def test_amplifiers_of_different_gain(camera):  # noqa: F811
    bias, _, _ = make_masters(camera)
    half = SHAPE[1] // 2
    places = [(0, half), (half, SHAPE[1])]
    amplifiers = [
        {"hdu": 0, "data": [0, SHAPE[0], x0, x1], "origin": [0, x0], "gain": 0.0, "rdnoise": 6.0}
        for x0, x1 in places
    ]
    plain = make_flat(*zip(*[
        (path, facts_of(path.stem, 5.0))
        for path in (camera.expose(f"p{i}", 5.0, 4000.0, dark=False) for i in range(4))
    ], strict=True), bias)  # fmt: skip
    flat = flats_of(camera, bias, (0.0,), amplifiers=amplifiers)
    gains = gains_of(flat.header)
    assert gains == [pytest.approx(GAIN, rel=0.04)] * 2
    ratio = np.median(flat.image[:, half + 5 : -5]) / np.median(flat.image[:, 5 : half - 5])
    usual = np.median(plain.image[:, half + 5 : -5]) / np.median(plain.image[:, 5 : half - 5])
    assert ratio / usual == pytest.approx(gains[1] / gains[0], rel=0.01)


def test_an_instrument_file_asks_for_the_measured_gain(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: generic\ncameras: {C0: {gain: measured}}\n")
    header = {
        "IMAGETYP": "Light", "EXPTIME": 60.0, "FILTER": "r", "GAIN": 1.5, "RDNOISE": 5.0,
        "RA": 150.0, "DEC": 20.0, "OBJECT": "field", "DATE-OBS": "2023-03-10T03:10:00",
    }  # fmt: skip
    (facts,) = interpret(header, [RawHDU(0, header, [50, 50])], "x.fits", load_instrument(path))
    assert facts.gain == 0 and facts.rdnoise == 5.0
    assert "measured" not in keywords_of(["GAIN", "measured"])
