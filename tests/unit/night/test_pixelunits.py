"""Raw pixels that are not the converter's numbers: BUNIT."""

import numpy as np
import pytest
from astropy.io import fits

from lib.night import nightlog
from lib.night.pixelunits import pixel_unit

CARDS = {
    "IMAGETYP": "Light", "EXPTIME": 20.0, "FILTER": "V", "OBJECT": "M13", "RDNOISE": 5.0,
    "GAIN": 1.6,
}  # fmt: skip


def put(path, second=0, dtype=np.float32, **cards):
    header = fits.Header(CARDS | {"DATE-OBS": f"2026-05-03T08:43:{second:02d}"} | cards)
    fits.PrimaryHDU(np.full((64, 64), 100 + second, dtype), header).writeto(path)


def read(folder, instrument="generic"):
    log = nightlog.scan(folder, instrument)
    assert [row.reason for row in log.rows] == [""] * len(log.rows)
    return log


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("electron", "electron"), ("electrons", "electron"), ("ELECTRONS", "electron"),
        ("e-", "electron"), ("E", "electron"), ("[e-]", "electron"),
        ("photo-electrons", "electron"),
        ("electron/pixel", "electron"), ("e-/pix", "electron"), ("electron pix-1", "electron"),
        ("electron/s", "electron/s"), ("ELECTRONS/S", "electron/s"), ("e-/sec", "electron/s"),
        ("electron s-1", "electron/s"), ("e- s^-1", "electron/s"), ("e-/s/pixel", "electron/s"),
        ("electrons per second", "electron/s"), ("e-/pixel/s", "electron/s"),
        ("adu/s", "adu/s"), ("counts/s", "adu/s"), ("DN/s", "adu/s"), ("ADU s**-1", "adu/s"),
        ("adu", ""), ("ADU", ""), ("counts", ""), ("DN", ""), ("", ""), ("e-/ADU", ""),
        ("elephants", ""), ("ergs", ""), ("ADU/pixel", ""), ("es", ""), ("seconds", ""),
    ],
)  # fmt: skip
def test_units(unit, wanted):
    assert pixel_unit({"BUNIT": unit}) == wanted


@pytest.mark.parametrize(
    ("unit", "cards", "gain", "saturate", "told"),
    [
        ("electron", {}, 1.0, 65535 * 1.6, "BUNIT is electron: gain 1 is used"),
        ("e-", {"SATURATE": 90000.0}, 1.0, 90000, "BUNIT is electron: gain 1 is used"),
        ("e-/s", {}, 20.0, 65535 * 1.6 / 20, "BUNIT is electron/s: multiplied by the exposure"),
        ("adu/s", {}, 32.0, 65535 / 20, "BUNIT is adu/s: multiplied by the exposure"),
        ("ADU", {}, 1.6, 65535, None),
    ],
)
def test_pixels_become_electrons_once(tmp_path, unit, cards, gain, saturate, told):
    put(tmp_path / "a.fits", BUNIT=unit, **cards)
    (facts,) = read(tmp_path).frames.values()
    assert (facts.gain, facts.rdnoise) == (gain, 5.0)
    assert facts.saturate == pytest.approx(saturate, abs=0.01)
    assert any(note.startswith(told) for note in facts.notes) if told else not facts.unit
    assert (facts.calibrations["bias"] == "none") == ("/s" in unit)


def test_a_frame_in_electrons_needs_no_gain(tmp_path):
    put(tmp_path / "a.fits", BUNIT="electron", GAIN=-1)
    (facts,) = read(tmp_path).frames.values()
    assert facts.gain == 1.0


def test_a_rate_in_no_time_is_refused(tmp_path):
    put(tmp_path / "a.fits", BUNIT="electron/s", IMAGETYP="Bias", EXPTIME=0.0)
    (row,) = nightlog.scan(tmp_path, "generic").rows
    assert row.reason == "BAD_UNIT: BUNIT is electron/s in an exposure of 0 s"


def test_a_bias_in_dn_does_not_serve_frames_in_electrons(tmp_path):
    for k, (kind, unit) in enumerate((("Bias", "adu"), ("Bias", "e-"), ("Flat", "adu"))):
        put(tmp_path / f"{k}.fits", k, IMAGETYP=kind, BUNIT=unit, EXPTIME=float(kind == "Flat"))
    put(tmp_path / "o.fits", 9, BUNIT="electron")
    log = read(tmp_path)
    (frame,) = log.science
    found = log.match(frame)
    assert log.frames[log.biases[found.bias][0]].unit == "electron"
    assert found.flat is not None  # a response has no unit
    (tmp_path / "1.fits").unlink()
    log = read(tmp_path)
    assert log.match(log.science[0]).bias is None
    assert "unit adu, not electron" in log.match(log.science[0]).notes["bias"]


def test_a_gain_that_the_instrument_file_gives_counts_and_is_told(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: generic\ncameras: {C0: {gain: 1.4}}\n")
    raw = tmp_path / "raw"
    raw.mkdir()
    put(raw / "a.fits", BUNIT="electron")
    (facts,) = read(raw, str(file)).frames.values()
    assert facts.gain == 1.4
    assert "BUNIT is electron, gain 1.4 of the instrument file is used" in facts.notes
