"""The commands about instrument files, on the frames of a camera that nobody knows."""

import numpy as np
import pytest
import yaml
from astropy.io import fits

from lib.night.instrumentfile import load_instrument
from lib.night.nightlog import scan
from lib.report import instrumentcheck, newinstrument

GAIN, RDNOISE, BIAS = 2.4, 9.0, 800.0
SHAPE, TRIM = (200, 230), (0, 200, 0, 200)


def write(path, rng, kind, level, second, **keys):
    """A frame of a camera whose GAIN is a setting, with 30 columns of overscan at its right."""
    image = np.zeros(SHAPE)
    y0, y1, x0, x1 = TRIM
    image[y0:y1, x0:x1] = rng.poisson(level * np.ones((y1 - y0, x1 - x0)))
    image += rng.normal(0, RDNOISE, SHAPE)
    header = fits.Header()
    header.update({"INSTRUME": "Stranger CCD", "OBSTYPE": kind, "FILTNAM": "V", "EXPTIME": 0.0})
    header.update({"DATE-BEG": f"2024-05-13T01:00:{second:02d}", "RA": "13:25:39", "GAIN": 1})
    header.update({"DEC": "-08:49:28", "AIRMASS": 1.2, "OBJECT": "none"} | keys)
    data = np.clip(np.round(image / GAIN + BIAS), 0, 65535).astype(np.uint16)
    fits.PrimaryHDU(data, header).writeto(path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Biases are darks of 0 s, twilight flats are objects: as at the Nickel telescope."""
    folder = tmp_path_factory.mktemp("stranger") / "raw"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for k in range(4):
        write(folder / f"b{k}.fits", rng, "DARK", 0, k)
        write(folder / f"f{k}.fits", rng, "OBJECT", 40000, 10 + k, OBJECT="sky flat", EXPTIME=4.0)
        write(folder / f"s{k}.fits", rng, "OBJECT", 300, 20 + k, OBJECT="PG 1323", EXPTIME=60.0)
    write(folder / "odd.fits", rng, "OBJECT", 300, 40, EXPTIME=60.0, FILTNAM="Wash T2")
    return folder


def new(capsys, *arguments):
    code = newinstrument.main([str(one) for one in arguments])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_a_new_file_reads_the_frames_it_was_written_from(raw, tmp_path, capsys):
    code, content, _ = new(capsys, raw)
    assert code == 0
    path = tmp_path / "stranger.yaml"
    path.write_text(content)
    log = scan(raw, path)
    assert {row.raw[0]: row.get("type") for row in log.rows if row.status == "OK"} == {
        "b": "bias", "f": "flat", "s": "object", "o": "object"
    }  # fmt: skip
    facts = next(one for one in log.frames.values() if one.raw == "s0.fits")
    assert facts.gain == pytest.approx(GAIN, rel=0.03)
    assert facts.rdnoise == pytest.approx(RDNOISE, rel=0.05)
    assert facts.amplifiers[0].data == list(TRIM)
    assert facts.amplifiers[0].overscan == [0, 200, 204, 230]
    assert (facts.filter, facts.band, facts.exptime) == ("V", "V", 60.0)
    assert facts.date_obs.startswith("2024-05-13T01:00:20")
    assert facts.calibrations == {"bias": "required", "dark": "optional", "flat": "required"}


def test_a_new_file_says_what_was_found_guessed_and_missing(raw, capsys):
    _, content, _ = new(capsys, raw)
    assert "filter: FILTNAM" in content and "found: Wash T2, V" in content
    assert "guessed from sky flat" in content
    assert "MISSING: band of Wash T2" in content
    assert "header: GAIN = 1" in content and "measured, e/DN: pairs of flats 2" in content
    assert "# wcs: {pixscale: 0.5}  MISSING" in content


def test_headers_alone_leave_gaps_that_are_named(tmp_path, capsys):
    header = fits.Header()
    header.update({"KIND": "x", "SPECTEMP": -30.0, "EXPTOTAL": 5.0})
    fits.PrimaryHDU(np.zeros((20, 20), np.int16), header).writeto(tmp_path / "a.fits")
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE")
    code, content, error = new(capsys, tmp_path)
    assert code == 0 and "broken.fits" in error
    for words in (
        "# type: missing",
        "# exptime: MISSING; perhaps EXPTOTAL = 5.0",
        "# match: missing",
    ):
        assert words in content
    assert "# temperature: not found; perhaps SPECTEMP = -30.0" in content
    assert yaml.safe_load(content)["extends"] == "generic"
    path = tmp_path / "new.yaml"
    assert new(capsys, tmp_path / "a.fits", "-o", path)[0] == 0
    assert load_instrument(path)["name"] == "mycam"
    assert new(capsys, tmp_path / "a.fits", "-o", path)[0] == 2  # nothing is overwritten
    assert new(capsys, tmp_path / "nothing.fits")[0] == 2


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ("s", {"bias": "optional", "dark": "optional", "flat": "optional"}),
        ("fs", {"bias": "optional", "dark": "optional", "flat": "required"}),
        ("bs", {"bias": "required", "dark": "optional", "flat": "optional"}),
    ],
)
def test_calibrations_are_asked_for_where_they_were_seen(raw, tmp_path, capsys, kinds, wanted):
    _, content, _ = new(capsys, *(raw / f"{kind}{k}.fits" for kind in kinds for k in range(2)))
    path = tmp_path / "stranger.yaml"
    path.write_text(content)
    (facts,) = (one for one in scan(raw, path).frames.values() if one.raw == "s0.fits")
    assert facts.calibrations == wanted
    assert ("no flat among them" in content) == ("f" not in kinds)


def check(capsys, *arguments):
    code = instrumentcheck.main([str(one) for one in arguments])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_check_shows_what_each_frame_was_taken_for(raw, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(
        """extends: generic
type:
  join: [OBSTYPE, OBJECT]
  with: ' '
  map: {'DARK.*': bias, '.*flat': flat, 'OBJECT.*': object}
filter: FILTNAM
cameras:
  C0:
    shape: [200, 230]
    trim: [0, 200, 0, 200]
    overscan: [0, 200, 206, 231]
    gain: 1.2
    rdnoise: 8
"""
    )
    code, out, _ = check(capsys, path, raw)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 2 and not out.strip()
    path.write_text(path.read_text().replace("231", "230"))
    code, out, _ = check(capsys, path, raw)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert lines[0].endswith("mine.yaml: no fault, on top of generic")
    assert any(
        line.startswith("f1.fits flat sky flat V V 4 s 2024-05-13T01:00:11") for line in lines
    )
    assert "V: band V; 4 flats, 4 science frames" in lines
    assert "WashT2: NO BAND: no zero point; 0 flats, 1 science frames" in lines
    assert (
        "C0, binning 1x1: HDU 0 image [0, 200, 0, 200], overscan [0, 200, 206, 230] (13 frames)"
        in lines
    )
    (electronics,) = [line for line in lines if "gain 1.2 e/DN" in line]
    assert "DIFFERS by a factor 2.0" in electronics and "(2 pairs of flats)" in electronics
    assert any("none.WashT2: no flat (required) for 1 of 1 frames" in line for line in lines)
    assert (
        lines[-1]
        == "4 science frames can be reduced (200x200); 1 lack a calibration, 0 files cannot be used"
    )


def test_check_of_frames_that_cannot_be_used(raw, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: generic\nexptime: LENGTH\n")
    code, out, _ = check(capsys, path, raw)
    assert code == 1
    assert "no usable exposure time (looked at: LENGTH)" in out
    assert "mine.yaml:2: exptime: no frame has the keyword LENGTH" in out
    assert check(capsys, path, tmp_path / "nowhere")[0] == 2
    path.write_text("extends: generic\nfilters: X\n")
    code, _, error = check(capsys, path, raw)
    assert code == 2 and "did you mean 'filter'" in error


def test_a_new_file_names_only_keywords_that_frames_have(tmp_path, capsys):
    header = fits.Header()
    header.update({"IMAGETYP": "light", "FILTER": "R", "FILTER2": "B", "READMODE": "slow"})
    header.update({"XBINNING": 2, "YBINNING": 2, "EXPTIME": 5.0, "COADDS": 3})
    fits.PrimaryHDU(np.zeros((20, 20), np.int16), header).writeto(tmp_path / "a.fits")
    lines = new(capsys, tmp_path)[1]
    assert "# exptime: {key: EXPTIME, times: COADDS}" in lines and "near_infrared" not in lines
    content = yaml.safe_load(lines)
    assert "The shipped" not in lines
    assert content["readout"] == "READMODE"
    assert content["filter"] == {"wheels": ["FILTER", "FILTER2"]}
    assert content["binning"] == {"join": ["XBINNING", "YBINNING"], "with": "x"}


def test_a_new_file_says_that_the_camera_is_known(tmp_path, capsys):
    header = fits.Header()
    header.update({"INSTRUME": "EFOSC", "EXPTIME": 5.0})
    fits.PrimaryHDU(np.zeros((20, 20), np.int16), header).writeto(tmp_path / "a.fits")
    assert "# The shipped instrument efosc2 reads these frames already." in new(capsys, tmp_path)[1]


def test_several_images_keep_the_gains_of_their_headers(tmp_path, capsys):
    """Two amplifiers of a detector: what is measured in the first is not that of the second."""
    rng = np.random.default_rng(6)
    for k, (kind, level) in enumerate([("bias", 0), ("bias", 0), ("flat", 9000), ("flat", 9000)]):
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(), fits.ImageHDU()]
        hdus[0].header.update({"IMAGETYP": kind, "EXPTIME": 1.0, "FILTER": "V"})
        hdus[0].header["DATE-OBS"] = f"2024-01-02T03:04:0{k}"
        for one, gain, place in zip(
            hdus[1:], (1.5, 2.5), ("[1:80,1:90]", "[81:160,1:90]"), strict=True
        ):
            one.data = np.round(rng.poisson(level, (90, 80)) / gain + 500).astype(np.int16)
            one.header.update({"GAIN": gain, "RDNOISE": 4.0, "DETSEC": place})
            one.header["DATASEC"] = "[1:80,1:90]"
        fits.HDUList(hdus).writeto(tmp_path / f"{k}.fits")
    path = tmp_path / "mine.yaml"
    path.write_text(new(capsys, tmp_path)[1])
    frames = scan(tmp_path, path).frames.values()
    assert [[one.gain for one in facts.amplifiers] for facts in frames] == [[1.5, 2.5]] * 4
    assert {tuple(facts.shape) for facts in frames} == {(90, 160)}
    code, out, _ = check(capsys, path, tmp_path)
    assert code == 1 and "amplifier 2: gain 2.5 e/DN" in out
