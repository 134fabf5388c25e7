"""Instrument files that extend others, and what is said of those that are wrong."""

import re

import pytest

from lib.engine.paths import refuse
from lib.night.instrumentfaults import not_a_keyword
from lib.night.instrumentfile import InstrumentError, instruments_hash, load_instrument

GENERIC = load_instrument("generic")


def load(tmp_path, text, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return load_instrument(path)


def faults(tmp_path, text):
    """Lines and keys of the faults, and the sentences."""
    with pytest.raises(InstrumentError) as caught:
        load(tmp_path, text)
    found = re.findall(r"mine\.yaml:(\d+): ([^ ]+): (.*)", str(caught.value))
    return {key: (int(line), words) for line, key, words in found}


def test_a_file_holds_only_what_differs(tmp_path):
    mine = load(
        tmp_path,
        """
extends: generic
filter: WHEEL
type: {map: {Q: bias}}
bands: {clear: r}
cameras:
  A: {gain: 2.5, overscan: null, calibrations: {bias: required}}
""",
    )
    assert mine["name"] == "mine" and "match" not in mine
    assert mine["filter"] == "WHEEL" and mine["exptime"] == GENERIC["exptime"]
    assert mine["type"]["any"] == GENERIC["type"]["any"]
    assert list(mine["type"]["map"].items())[0] == ("Q", "bias")
    assert list(mine["type"]["map"])[1:] == list(GENERIC["type"]["map"])
    assert list(mine["bands"])[0] == "clear" and len(mine["bands"]) == len(GENERIC["bands"]) + 1
    assert list(mine["cameras"]) == ["A"]
    camera, base = mine["cameras"]["A"], GENERIC["cameras"]["C0"]
    assert camera["gain"] == 2.5 and camera["rdnoise"] == base["rdnoise"]
    assert "overscan" not in camera and camera["trim"] == "TRIMSEC"
    assert camera["calibrations"] == {**base["calibrations"], "bias": "required"}


def test_an_own_value_with_a_source_replaces_the_other(tmp_path):
    mine = load(tmp_path, "extends: generic\ntype: {key: KIND, map: {L: object}}\n")
    assert mine["type"] == {"key": "KIND", "map": {"L": "object"}}
    assert list(mine["cameras"]) == ["C0"]


def test_an_own_scale_is_told_unbinned_as_documented(tmp_path):
    """The header's scale of the generic camera is that of the binned pixels."""
    mine = load(tmp_path, "extends: generic\ncameras: {C0: {wcs: {pixscale: 0.3}}}\n")
    assert mine["cameras"]["C0"]["wcs"] == {"header": True, "pixscale": 0.3}
    again = load(
        tmp_path, "extends: mine.yaml\ncameras: {C0: {wcs: {cd: [[0, 1], [1, 0]]}}}", "b.yaml"
    )
    assert again["cameras"]["C0"]["wcs"] == {"header": True, "cd": [[0, 1], [1, 0]]}


def test_defaults_stand_above_what_is_extended(tmp_path):
    mine = load(
        tmp_path, "extends: ratir\ndefaults: {rdnoise: 12, linear: null}\ncameras: {C1: {gain: 3}}"
    )
    assert list(mine["cameras"]) == ["C1"]
    ratir = load_instrument("ratir")["cameras"]["C1"]
    assert mine["cameras"]["C1"] == {**ratir, "gain": 3, "rdnoise": 12}


def test_a_changed_base_is_noticed(tmp_path):
    base, mine = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("extends: generic\n")
    mine.write_text("extends: base.yaml\n")
    before = instruments_hash(mine)
    assert instruments_hash(mine) == before
    base.write_text("extends: generic\nfilter: WHEEL\n")
    assert instruments_hash(mine) != before


def test_all_faults_at_once_with_line_key_and_what_was_meant(tmp_path):
    found = faults(
        tmp_path,
        """extends: generic
filter: Filter
exposure: EXPTIME
gain: 1.5
bands: {Ha: R, 'r(': r, i: Z, on: V}
cameras:
  A:
    gain: 1.6 e/DN
    rdnoise: '7'
    read_noise: 7
    shape: [1024, 2048]
    trim: [0, 2048, 0, 1024]
    overscan: [10, 0, 4, 20]
    calibrations: {bias: requird}
    wcs: {pixscale: 0.35", rotaton: 3, parity: mirrored}
""",
    )
    assert {key: line for key, (line, _) in found.items()} == {
        "filter": 2, "exposure": 3, "gain": 4, "bands.i": 5, "bands.r(": 5, "bands": 5,
        "cameras.A.gain": 8, "cameras.A.rdnoise": 9, "cameras.A.read_noise": 10,
        "cameras.A.trim": 12, "cameras.A.overscan": 13, "cameras.A.calibrations.bias": 14,
        "cameras.A.wcs.pixscale": 15, "cameras.A.wcs.rotaton": 15,
    }  # fmt: skip
    for key, words in {
        "filter": "write FILTER",
        "exposure": "did you mean 'exptime'",
        "gain": "write gain in a camera",
        "bands.i": "did you mean 'z'",
        "bands": "quotes",
        "cameras.A.gain": "a number with a unit: write 1.6",
        "cameras.A.rdnoise": "write 7",
        "cameras.A.read_noise": "did you mean 'rdnoise'",
        "cameras.A.trim": "outside the frame of 1024 rows and 2048 columns (rows come first)",
        "cameras.A.overscan": "reversed",
        "cameras.A.calibrations.bias": "did you mean 'required'",
        "cameras.A.wcs.pixscale": "a number with a unit: write 0.35",
        "cameras.A.wcs.rotaton": "did you mean 'rotation'",
    }.items():
        assert words in found[key][1], key


def test_sections_as_headers_have_them_are_translated(tmp_path):
    found = faults(
        tmp_path,
        "extends: generic\ncameras:\n  A:\n    trim: '[33:1024,1:2048]'\n    overscan: '[3:9]'\n",
    )
    assert "write [0, 2048, 32, 1024]" in found["cameras.A.trim"][1]
    assert found["cameras.A.overscan"][0] == 5
    found = faults(
        tmp_path, "extends: generic\ncameras: {A: {trim: [0, 9, 0, 9], overscan: [0, 9, 8, 12]}}"
    )
    assert "over trim" in found["cameras.A.overscan"][1]


def test_what_is_missing_and_what_is_there_twice(tmp_path):
    found = faults(
        tmp_path,
        "type: {key: A, value: b}\nobject: OBJECT\nfilter: F\nfilter: G\nexptime: E\n"
        "date: D\ncameras:\n  A: {gain: 1, saturate: 9}\n",
    )
    assert "twice, in lines 3 and 4" in found["filter"][1]
    assert "exclude each other" in found["type"][1]
    assert found["cameras.A"] == (8, "rdnoise is required and missing")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("extends: arcsta\n", 1, "did you mean arcsat"),
        ("name: a\nextends: nowhere.yaml\n", 2, "there is no file"),
        ("extends: mine.yaml\n", 1, "extends itself"),
        ("name: a\n  b: [c\n", 2, "not YAML"),
        ("extends: generic\ncameras: 3\n", 2, "not of type 'object'"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, text, line, words):
    with pytest.raises(InstrumentError, match=words) as caught:
        load(tmp_path, text)
    assert f"mine.yaml:{line}:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_of_the_extended_file_is_told_in_its_place(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: generic\n\nfilter: Filter\n")
    with pytest.raises(InstrumentError, match=r"base\.yaml:3: filter: "):
        load(tmp_path, "extends: base.yaml\n")


def test_keywords():
    for word in ("EXPTIME", "RA-D", "HIERARCH ESO INS FILT1 NAME", "HIERARCH a.b".upper(), "2MASS"):
        assert not_a_keyword(word) == ""
    for word in ("exptime", "1.6", "0.35 arcsec", '0.35"', "5", "[1:2,3:4]", "", "1e-3 e/s"):
        assert not_a_keyword(word), word


def test_the_console_shows_a_line_for_each_fault(tmp_path, capsys):
    """A key of the file cannot break the lines."""
    with pytest.raises(InstrumentError) as caught:
        load(tmp_path, 'extends: generic\nfilter: Filter\nobject: Object\n"a\\nb": X\n')
    assert len(caught.value.lines) == 4
    with pytest.raises(SystemExit) as ended:
        refuse(caught.value)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 4
    assert lines[0].startswith("autoproc: ") and lines[0].endswith("mine.yaml has 3 faults:")
    assert lines[3].strip().startswith(f"{tmp_path}/mine.yaml:4: a\\x0ab: is not known")
