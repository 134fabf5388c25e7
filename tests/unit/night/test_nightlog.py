"""The night log: reading headers, the cache, names, groups, matching."""

import gzip
import json
import os
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lib.core.contents import ContentRecord
from lib.night import nightlog, rawlog
from lib.night.exclude import excluding_entry, read_exclude
from lib.night.frameignored import FrameUnusable
from lib.night.instrumentfile import InstrumentError
from lib.night.rawheaders import parse_header, read_headers

ROOT = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("AUTOPROC_REAL_DATA", ROOT.parent / "shared" / "data"))
FRAME = re.compile(r"2[0-9A-Za-z_+-]*")
STACK = re.compile(r"[A-Za-z0-9_+-]+\.[A-Za-z0-9_+-]+")


def header_of(kind="LIGHT", target="field", band="V", exptime=60.0, second=0, **extra):
    """Header of a camera with common keywords."""
    header = fits.Header()
    header["IMAGETYP"] = kind
    header["OBJECT"] = target
    header["FILTER"] = band
    header["EXPTIME"] = exptime
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    header["DATE-OBS"] = f"2024-03-01T{clock}.25"
    header["RA"] = 150.0
    header["DEC"] = 20.0
    header["GAIN"] = 1.5
    header["RDNOISE"] = 5.0
    header["PIXSCALE"] = 0.5
    for key, value in extra.items():
        header[key] = value
    return header


def put(folder, name, shape=(20, 30), dtype=np.int16, **keys):
    path = folder / name
    value = keys.get("second", 0) % 100
    fits.PrimaryHDU(np.full(shape, value, dtype), header_of(**keys)).writeto(path)
    return path


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def night(raw):
    """Two targets in two filters with bias, dark and flats."""
    for k in range(3):
        put(raw, f"b{k}.fits", kind="BIAS", exptime=0.0, second=k)
        put(raw, f"d{k}.fits", kind="DARK", exptime=60.0, second=100 + k)
        put(raw, f"fV{k}.fits", kind="FLAT", band="V", exptime=5.0, second=200 + k)
        put(raw, f"v{k}.fits", target="M 1", band="V", second=1000 + 100 * k)
        put(raw, f"r{k}.fits", target="M 1", band="R", second=2000 + 100 * k)
        put(raw, f"o{k}.fits", target="other", band="V", second=3000 + 100 * k, RA=170.0)
    return raw


def reasons(log):
    return {row.raw: row.reason for row in log.rows}


# ------------------------------------------------------------------------- headers


def test_header_parser_agrees_with_astropy():
    header = fits.Header()
    header["TEXT"] = "it's a / text"
    header["EMPTY"] = ""
    header["YES"] = True
    header["NO"] = (False, "a comment / with a slash")
    header["INT"] = (-42, "comment")
    header["FLOAT"] = 1.25e-7
    header["HIERARCH ESO DET OUT1 CONAD"] = 1.1
    header["HIERARCH ESO INS FILT1 NAME"] = "g#782"
    header["LONG"] = "x" * 150 + "&" + "y" * 20
    header["COMMENT"] = "EXPTIME = 5"
    header["HISTORY"] = "= 5"
    header["LAST"] = "end"
    parsed = parse_header(header.tostring().encode("ascii"))
    for key in header:
        if key in ("COMMENT", "HISTORY"):
            assert key not in parsed
        elif header[key] == "":
            assert parsed[key] == ""
        else:
            assert parsed[key] == header[key], key


def test_header_parser_takes_any_bytes():
    rng = random.Random(3)
    good = header_of().tostring().encode("ascii")
    for _ in range(300):
        block = bytearray(good)
        for _ in range(rng.randint(1, 40)):
            block[rng.randrange(len(block))] = rng.randrange(256)
        assert isinstance(parse_header(bytes(block)), dict)
    assert parse_header(b"KEY     = 'it''s".ljust(80)) == {"KEY": "it''s"}
    assert parse_header(b"KEY     = 1.5D3".ljust(80)) == {"KEY": 1500.0}


def test_all_faults_of_a_frame_are_told_at_once_with_what_is_known(raw, tmp_path):
    """A frame without gain is still of a type, a target and a filter."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: generic\ncameras: {C0: {gain: [GAIN, EGAIN]}}\n")
    header = header_of(target="NGC 1", band="R", second=7)
    del header["GAIN"]
    image = np.zeros((20, 30), np.int16)
    fits.PrimaryHDU(image, header).writeto(raw / "nogain.fits")
    header["EXPTIME"], header["DATE-OBS"] = "long", "yesterday"
    fits.PrimaryHDU(image, header).writeto(raw / "more.fits")
    rows = {row.raw: row for row in nightlog.scan(raw, mine).rows}
    one = rows["nogain.fits"]
    assert one.reason.startswith("MISSING_KEYWORD: no usable gain (looked at: GAIN")
    assert [one.get(key) for key in ("type", "target", "filter", "exptime", "ra", "gain")] == [
        "object", "NGC_1", "R", 60.0, 150.0, None
    ]  # fmt: skip
    two = rows["more.fits"].reason
    assert two.startswith("MISSING_KEYWORD: no usable exposure time")
    assert "BAD_DATE: not a date with time: yesterday" in two and "no usable gain" in two
    assert rows["more.fits"].get("target") == "NGC_1" and rows["more.fits"].get("mjd") is None
    table = nightlog.scan(raw, mine).table_text()
    assert ',"NGC_1","NGC 1","R",' in table


def test_every_broken_file_has_a_row_and_a_reason(raw):
    good = put(raw, "good.fits")
    content = good.read_bytes()
    (raw / "empty.fits").write_bytes(b"")
    (raw / "short.fits").write_bytes(content[: 2880 + 100])
    (raw / "header.fits").write_bytes(content[:1000])
    (raw / "text.fits").write_text("hello " * 1000)
    (raw / "noend.fits").write_bytes((b"SIMPLE  =                    T".ljust(80)) * 36 * 10)
    (raw / "bad.fits.gz").write_bytes(gzip.compress(content)[:-30])
    (raw / "nogzip.fits.gz").write_bytes(content)
    (raw / "crc.fits.gz").write_bytes(gzip.compress(content)[:-8] + b"12345678")
    (raw / "folder.fits").mkdir()
    (raw / "gone.fits").symlink_to(raw / "nowhere")
    os.mkfifo(raw / "pipe.fits")
    fits.PrimaryHDU(header=header_of()).writeto(raw / "noimage.fits")
    put(raw, "cube.fits", shape=(3, 20, 30))
    put(raw, "line.fits", shape=(30,))
    fits.PrimaryHDU(np.zeros((20, 30)), fits.Header()).writeto(raw / "bare.fits")
    (raw / "new\nline.fits").write_bytes(content)
    (raw / os.fsdecode(b"latin\xe9.fits")).write_bytes(content)
    (raw / "notes.txt").write_text("not a frame")
    (raw / ".hidden.fits").write_text("half of a copy")
    negative = content.replace(b"NAXIS1  =                   30", b"NAXIS1  =                  -30")
    (raw / "negative.fits").write_bytes(negative)
    log = nightlog.scan(raw)
    found = reasons(log)
    codes = {name: reason.split(":")[0] for name, reason in found.items()}
    assert codes == {
        "good.fits": "",
        "empty.fits": "EMPTY",
        "short.fits": "TRUNCATED",
        "header.fits": "TRUNCATED",
        "text.fits": "NOT_FITS",
        "noend.fits": "TRUNCATED",
        "bad.fits.gz": "BAD_GZIP",
        "nogzip.fits.gz": "BAD_GZIP",
        "crc.fits.gz": "BAD_GZIP",
        "folder.fits": "NOT_A_FILE",
        "gone.fits": "UNREADABLE",
        "pipe.fits": "NOT_A_FILE",
        "noimage.fits": "NO_IMAGE",
        "cube.fits": "NOT_2D",
        "line.fits": "NOT_2D",
        "bare.fits": "MISSING_KEYWORD",
        "new\nline.fits": "BAD_FILE_NAME",
        os.fsdecode(b"latin\xe9.fits"): "BAD_FILE_NAME",
        "negative.fits": "BAD_HEADER",
    }
    assert list(log.frames) == ["20240301T000000C0o"]
    for row in log.rows:
        assert (row.status == "OK") == (row.raw == "good.fits")
    from astropy.table import Table

    log.write(raw / "frames.ecsv")
    table = Table.read(raw / "frames.ecsv")
    assert len(table) == len(codes)
    assert str(raw) not in (raw / "frames.ecsv").read_text()


def test_hostile_file_names_are_frames_like_others(raw):
    names = ["a b.fits", "q'u\"o.fits", "x;$(touch y).fits", "été.fits", "-rf.fits", "a,b.fits"]
    for k, name in enumerate(names):
        put(raw, name, second=k)
    log = nightlog.scan(raw)
    assert len(log.frames) == len(names)
    assert {facts.raw for facts in log.frames.values()} == set(names)
    assert all(FRAME.fullmatch(name) for name in log.frames)


def test_packed_files_are_read(raw):
    path = put(raw, "a.fits", second=1)
    (raw / "b.fits.gz").write_bytes(gzip.compress(path.read_bytes().replace(b":01.25", b":02.25")))
    image = fits.CompImageHDU(np.ones((20, 30), np.int16), header_of(second=3))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(raw / "c.fits.fz")
    content = (raw / "c.fits.fz").read_bytes()
    (raw / "d.fits.fz").write_bytes(content[: len(content) - 2880])
    log = nightlog.scan(raw)
    shapes = {facts.raw: facts.shape for facts in log.frames.values()}
    assert shapes == {name: [20, 30] for name in ("a.fits", "b.fits.gz", "c.fits.fz")}
    hdus = {facts.raw: facts.amplifiers[0].hdu for facts in log.frames.values()}
    assert hdus == {"a.fits": 0, "b.fits.gz": 0, "c.fits.fz": 1}
    assert reasons(log)["d.fits.fz"].startswith("TRUNCATED")


@pytest.mark.parametrize(
    "card, value",
    [
        ("BITPIX", "16.0"),
        ("BITPIX", "T"),
        ("NAXIS", "2.0"),
        ("NAXIS1", "30.0"),
        ("NAXIS1", "9" * 60),
        ("NAXIS2", "999999999999"),
    ],
)
def test_structure_that_is_no_number_of_its_kind_costs_one_frame(raw, card, value):
    content = put(raw, "bad.fits").read_bytes()
    start = next(k for k in range(0, 2880, 80) if content[k : k + 9].rstrip(b" =").decode() == card)
    wrong = f"{card:<8}= {value:>20}".ljust(80).encode()
    (raw / "bad.fits").write_bytes(content[:start] + wrong + content[start + 80 :])
    put(raw, "good.fits", second=1)
    found = reasons(nightlog.scan(raw))
    assert re.match("BAD_HEADER: .{10,100}$|TRUNCATED: .{10,100}$", found.pop("bad.fits"))
    assert found == {"good.fits": ""}


def test_data_without_padding_is_whole(raw):
    path = put(raw, "a.fits")
    path.write_bytes(path.read_bytes()[: 2880 + 20 * 30 * 2])
    assert nightlog.scan(raw).rows[0].status == "OK"


def test_damaged_files_never_raise(raw):
    content = bytearray(put(raw, "a.fits").read_bytes())
    rng = random.Random(5)
    for k in range(200):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 60)):
            damaged[rng.randrange(2880)] = rng.choice(b"0123456789'=/ TF-+.eEN\0\xff")
        (raw / f"x{k}.fits").write_bytes(damaged[: rng.choice([len(damaged), 2880, 3000])])
    log = nightlog.scan(raw)
    assert len({row.raw for row in log.rows}) == 201
    for row in log.rows:
        assert row.status == "OK" or re.match(r"[A-Z0-9_]+: .", row.reason)


def test_missing_directory_and_unknown_instrument(tmp_path):
    with pytest.raises(FileNotFoundError):
        nightlog.scan(tmp_path / "nowhere")
    with pytest.raises(InstrumentError):
        nightlog.scan(tmp_path, "hubble")
    assert nightlog.scan(tmp_path).rows == []


# ------------------------------------------------------------------------- cache and table


def test_cache_gives_the_same_and_follows_changes(night, tmp_path, monkeypatch):
    cache = tmp_path / "deep" / "cache.json"
    first = nightlog.scan(night, cache=cache)
    assert first.rows == nightlog.scan(night).rows

    def unread(*_):
        raise AssertionError("a header was read again")

    with monkeypatch.context() as patch:
        patch.setattr(rawlog, "read_headers", unread)
        again = nightlog.scan(night, cache=cache)
    assert again.rows == first.rows and again.frames == first.frames
    before = cache.read_bytes()

    put(night, "new.fits", target="new", second=5000)
    (night / "v0.fits").unlink()
    changed = nightlog.scan(night, cache=cache)
    assert changed.frames == nightlog.scan(night).frames
    assert len(changed.frames) == len(first.frames)
    assert "new.V" in changed.stacks
    assert cache.read_bytes() != before


@pytest.mark.parametrize(
    "damage",
    [b"", b"junk", b"[]", b"{}", b'{"key": 1}', b"\xff\xfe", b"[" * 100_000],
)
def test_damaged_cache_is_read_anew(night, tmp_path, damage):
    cache = tmp_path / "cache.json"
    good = nightlog.scan(night, cache=cache)
    cache.write_bytes(damage)
    assert nightlog.scan(night, cache=cache).frames == good.frames
    content = json.loads(cache.read_bytes())
    for name in content["files"]:
        content["files"][name] = [1, "two"]
    cache.write_text(json.dumps(content))
    assert nightlog.scan(night, cache=cache).frames == good.frames


def test_cache_is_of_no_use_when_the_instrument_changes(night, tmp_path):
    text = (ROOT / "config" / "instruments" / "generic.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: generic", "name: mine"))
    cache = tmp_path / "cache.json"
    before = nightlog.scan(night, mine, cache=cache)
    mine.write_text(mine.read_text().replace("poserr: 0.2", "poserr: 0.7"))
    after = nightlog.scan(night, mine, cache=cache)
    frame = before.science[0]
    assert before.frames[frame].poserr == 0.2
    assert after.frames[frame].poserr == 0.7


def test_table_is_written_only_when_it_changes(night, tmp_path):
    from astropy.table import Table

    path = tmp_path / "out" / "frames.ecsv"
    log = nightlog.scan(night)
    assert log.write(path) is True
    stamp = path.stat().st_mtime_ns
    assert log.write(path) is False
    assert path.stat().st_mtime_ns == stamp
    assert [p.name for p in path.parent.iterdir()] == ["frames.ecsv"]
    table = Table.read(path)
    assert set(nightlog.COLUMNS) == set(table.colnames)
    assert len(table) == 18
    science = table[table["type"] == "object"]
    assert set(science["bias"]) == {"bias-C0"}
    assert table["exptime"].dtype == float
    row = science[science["filter"] == "R"][0]
    assert "flat_V: filter V, not R" in row["calnote"]


# ------------------------------------------------------------------------- names


def test_names_stay_unique(raw):
    put(raw, "20240301T000000C0o.fits", second=0)
    put(raw, "zz.fits", second=0, target="a")
    put(raw, "zzz.fits", second=0, target="b")
    put(raw, "aa.fits", second=0, target="c")
    log = nightlog.scan(raw)
    names = {facts.raw: name for name, facts in log.frames.items()}
    assert names == {
        "20240301T000000C0o.fits": "20240301T000000C0o",
        "aa.fits": "20240301T000000250C0o",
        "zz.fits": "20240301T000000250C0o-2",
        "zzz.fits": "20240301T000000250C0o-3",
    }


def test_halves_have_unique_names(raw):
    for name in ("20240301T000000C2o.fits", "copy of 20240301T000000C2o.fits"):
        header = header_of(INSTRUME="RATIR", SOFTGAIN=1.0, target=name[:4])
        fits.PrimaryHDU(np.zeros((256, 256), np.int16), header).writeto(raw / name)
    log = nightlog.scan(raw)
    assert sorted(log.frames) == [
        "20240301T000000250C2o_Y",
        "20240301T000000250C2o_Z",
        "20240301T000000C2o_Y",
        "20240301T000000C2o_Z",
    ]
    assert {facts.half for facts in log.frames.values()} == {"Z", "Y"}


def test_targets_that_become_alike_are_numbered(raw):
    for k, target in enumerate(["M_1", "M 1", "M/1", "M_1_2"]):
        put(raw, f"{k}.fits", target=target, second=10 * k, RA=150.0 + k)
    log = nightlog.scan(raw)
    targets = {facts.object: facts.target for facts in log.frames.values()}
    assert targets == {"M_1": "M_1", "M 1": "M_1_3", "M/1": "M_1_4", "M_1_2": "M_1_2"}
    assert len(log.stacks) == 4
    assert all(STACK.fullmatch(name) for name in log.stacks)


def test_filters_that_become_alike_are_numbered(raw):
    put(raw, "a.fits", band="g#1", second=1)
    put(raw, "b.fits", band="g1", second=2)
    put(raw, "c.fits", kind="FLAT", band="g#1", second=3)
    log = nightlog.scan(raw)
    by_raw = {facts.raw: facts.filter for facts in log.frames.values()}
    assert by_raw["b.fits"] == "g1"
    assert by_raw["a.fits"] == by_raw["c.fits"] == "g1_2"


def test_copies_of_a_frame_count_once(raw):
    path = put(raw, "a.fits", second=1)
    (raw / "copy of a.fits").write_bytes(path.read_bytes())
    (raw / "a.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    put(raw, "b.fits", second=2)
    # the same header, other pixels: another frame
    content = bytearray(path.read_bytes())
    content[2880:2900] = b"other pixels of this"
    (raw / "c.fits").write_bytes(content)
    log = nightlog.scan(raw)
    assert {facts.raw for facts in log.frames.values()} == {"a.fits", "b.fits", "c.fits"}
    found = reasons(log)
    assert found["copy of a.fits"] == found["a.fits.gz"] == "DUPLICATE: the same frame as a.fits"


def test_frames_before_2000_have_names(raw):
    path = put(raw, "a.fits")
    path.write_bytes(path.read_bytes().replace(b"2024-03-01", b"1998-03-01"))
    (name,) = nightlog.scan(raw).frames
    assert FRAME.fullmatch(name)


def test_exclude_list(night, tmp_path):
    exclude = tmp_path / "exclude.txt"
    (night / "with space.fits").write_bytes((night / "v0.fits").read_bytes()[:-1000] + b"x" * 1000)
    exclude.write_text(
        "# a comment\n\nv1.fits trailed, wind\n20240301T003320C0o\n"
        "r1\tclouds\n'with space.fits' a copy\nnever.fits what\n"
    )
    log = nightlog.scan(night, exclude=exclude)
    found = reasons(log)
    assert found["v1.fits"] == "EXCLUDED: trailed, wind"
    assert found["r0.fits"] == "EXCLUDED: no reason given"
    assert found["r1.fits"] == "EXCLUDED: clouds"
    assert found["with space.fits"] == "EXCLUDED: a copy"
    assert log.notes == ["exclude: no frame is called never.fits"]
    assert len(log.stacks["M_1.R"]) == 1
    assert all(row.status == "IGNORED" for row in log.rows if row.reason.startswith("EXCLUDED"))


def test_frame_that_a_job_could_not_read_is_tried_again(raw, tmp_path):
    path = put(raw, "v1.fits", target="M 1", band="V", second=1000)
    record = ContentRecord(tmp_path)

    def content():
        log = nightlog.scan(raw, "generic", cache=tmp_path / ".nightlog.json")
        (facts,) = log.frames.values()
        return facts.content

    first = content()
    assert content() == first
    seen = {first}
    for _ in range(2):
        path.rename(tmp_path / "away")
        with record.reading("raw:v1.fits", path, content=first):
            pass
        (tmp_path / "away").rename(path)
        assert content() not in seen
        seen.add(content())
    last = content()
    with record.reading("raw:v1.fits", path, content=last):
        pass
    assert content() == last


@pytest.mark.parametrize(
    "line, name, others",
    [
        ("'*.fits'  a file of that name", "*.fits", "v1.fits"),
        ("'[1]?.fits' it's the moon", "[1]?.fits", "v1.fits"),
        ("""'it'"'"'s #1.fits'   clouds""", "it's #1.fits", "its.fits"),
        ('"two words.fits"\tclouds', "two words.fits", "two"),
        ("[x]*.fits moon", "[x]1.fits", "x1.fits"),
    ],
)
def test_exclude_list_takes_names_as_the_page_offers_them(tmp_path, line, name, others):
    (tmp_path / "exclude.txt").write_text(f"{line}\n")
    excluded = read_exclude(tmp_path / "exclude.txt")
    assert excluding_entry([name], excluded) is not None
    assert excluding_entry([others], excluded) is None
    (why,) = excluded.values()
    assert why in ("a file of that name", "it's the moon", "clouds", "moon")


def test_exclude_list_takes_patterns(night, tmp_path):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("v?.fits clouds\n20240301T0033*C0o moon\n")
    found = reasons(nightlog.scan(night, exclude=exclude))
    assert found["v0.fits"] == found["v1.fits"] == "EXCLUDED: clouds"
    assert found["r0.fits"] == "EXCLUDED: moon"


# ------------------------------------------------------------------------- groups and matching


def test_groups(night):
    log = nightlog.scan(night)
    assert list(log.biases) == ["bias-C0"] and len(log.biases["bias-C0"]) == 3
    assert list(log.darks) == ["dark-C0"] and list(log.flats) == ["flat_V"]
    assert list(log.stacks) == ["M_1.R", "M_1.V", "other.V"]
    assert {name: len(frames) for name, frames in log.skies.items()} == {"sky-R": 3, "sky-V": 6}
    assert [log.frames[f].mjd for f in log.science] == sorted(
        log.frames[f].mjd for f in log.science
    )
    for name, frames in log.stacks.items():
        assert all(log.stack_of[frame] == name for frame in frames)
    for name, frames in log.skies.items():
        assert all(log.sky_of[frame] == name for frame in frames)


def test_match_and_notes(night):
    log = nightlog.scan(night)
    good = log.match(log.stacks["M_1.V"][0])
    assert (good.bias, good.dark, good.flat, good.notes) == ("bias-C0", "dark-C0", "flat_V", {})
    poor = log.match(log.stacks["M_1.R"][0])
    assert poor.flat is None
    assert poor.notes["flat"] == "none of 1 fits; flat_V: filter V, not R"
    flat = log.match(log.flats["flat_V"][0])
    assert (flat.bias, flat.dark, flat.flat) == ("bias-C0", "dark-C0", None)
    dark = log.match(log.darks["dark-C0"][0])
    assert (dark.bias, dark.dark) == ("bias-C0", None)
    assert log.match(log.biases["bias-C0"][0]).notes == {}


def test_notes_name_each_key_that_failed(raw):
    put(raw, "o.fits", second=50)
    put(raw, "b.fits", kind="BIAS", exptime=0.0, XBINNING=2, YBINNING=2, shape=(10, 15))
    put(raw, "f.fits", kind="FLAT", band="B", READMODE="fast", second=3, **{"CCD-TEMP": -10.0})
    log = nightlog.scan(raw)
    (frame,) = log.science
    notes = log.match(frame).notes
    assert notes["bias"] == "none of 1 fits; bias-C0: binning 2x2, not 1x1, shape 15x10, not 30x20"
    assert notes["flat"] == "none of 1 fits; flat_B: filter B, not V, readout fast, not none"
    assert notes["dark"] == "there is no dark frame"


def test_dark_of_the_same_exposure_then_the_longest(raw):
    for k, exptime in enumerate((30.0, 60.0, 60.003, 300.0)):
        put(raw, f"d{k}.fits", kind="DARK", exptime=exptime, second=k)
    put(raw, "o60.fits", exptime=60.0, second=50)
    put(raw, "o90.fits", exptime=90.0, second=60)
    log = nightlog.scan(raw)
    assert list(log.darks) == ["dark-C0-300s", "dark-C0-30s", "dark-C0-60s"]
    assert len(log.darks["dark-C0-60s"]) == 2
    matched = {log.frames[f].raw: log.match(f) for f in log.science}
    assert matched["o60.fits"].dark == "dark-C0-60s"
    assert matched["o90.fits"].dark is None
    assert "without a bias" in matched["o90.fits"].notes["dark"]
    put(raw, "b.fits", kind="BIAS", exptime=0.0, second=7)
    log = nightlog.scan(raw)
    matched = {log.frames[f].raw: log.match(f) for f in log.science}
    assert matched["o60.fits"].dark == "dark-C0-60s"
    assert matched["o90.fits"].dark == "dark-C0-300s"


def test_temperature_keeps_calibrations_apart(raw):
    put(raw, "b1.fits", kind="BIAS", exptime=0.0, second=1, **{"CCD-TEMP": -20.1})
    put(raw, "b2.fits", kind="BIAS", exptime=0.0, second=2, **{"CCD-TEMP": -19.8})
    put(raw, "b3.fits", kind="BIAS", exptime=0.0, second=3, **{"CCD-TEMP": -40.0})
    put(raw, "cold.fits", second=10, **{"CCD-TEMP": -39.0})
    put(raw, "warm.fits", second=20, **{"CCD-TEMP": -20.0})
    put(raw, "hot.fits", second=30, **{"CCD-TEMP": 10.0})
    put(raw, "none.fits", second=40)
    log = nightlog.scan(raw)
    assert list(log.biases) == ["bias-C0-T-20", "bias-C0-T-40"]
    matched = {log.frames[f].raw: log.match(f) for f in log.science}
    assert matched["cold.fits"].bias == "bias-C0-T-40"
    assert matched["warm.fits"].bias == "bias-C0-T-20"
    assert matched["none.fits"].bias is not None
    assert "temperature -19.8, not 10" in matched["hot.fits"].notes["bias"]


def test_qualifiers_only_where_needed(raw):
    put(raw, "b1.fits", kind="BIAS", exptime=0.0, second=1)
    put(raw, "b2.fits", kind="BIAS", exptime=0.0, second=2, XBINNING=2, YBINNING=2)
    put(raw, "f1.fits", kind="FLAT", second=3)
    put(raw, "f2.fits", kind="FLAT", band="R", second=4)
    put(raw, "f3.fits", kind="FLAT", band="R", second=5, READMODE="1 MHz")
    log = nightlog.scan(raw)
    assert list(log.biases) == ["bias-C0-1x1", "bias-C0-2x2"]
    assert list(log.flats) == ["flat_R", "flat_R-1_MHz", "flat_V"]


def ratir(folder, name, second, shape=(256, 256), **extra):
    header = header_of(
        second=second, INSTRUME="RATIR", SOFTGAIN=1.0, PRPSLID=1, VSTID=extra.pop("visit", 0)
    )
    header.update(extra)
    header["SDATE"] = header["DATE-OBS"]
    fits.PrimaryHDU(np.full(shape, second % 99, np.int16), header).writeto(folder / name)


def test_ratir_night(raw):
    for k in range(2):
        for camera in range(4):
            stem = f"20240301T00{k:02d}{camera:02d}"
            ratir(raw, f"{stem}C{camera}o.fits", 60 * k + camera, FILTER="i", visit=k)
            ratir(raw, f"20240301T01{k:02d}{camera:02d}C{camera}f.fits", 3600 + 60 * k + camera,
                  FILTER="i")  # fmt: skip
            ratir(raw, f"20240301T02{k:02d}{camera:02d}C{camera}b.fits", 7200 + 60 * k + camera)
    log = nightlog.scan(raw)
    assert list(log.biases) == ["bias-C0", "bias-C1"]
    assert list(log.flats) == ["flat_H", "flat_J", "flat_Y", "flat_Z", "flat_i-C0", "flat_i-C1"]
    assert list(log.stacks) == sorted(
        f"1-vis{k}.{band}" for k in range(2) for band in ("H", "J", "Y", "Z", "i-C0", "i-C1")
    )
    # the infrared sky by target, the optical one of the night
    assert list(log.skies) == sorted(
        [f"sky-{band}-1-vis{k}" for band in "HJYZ" for k in range(2)] + ["sky-i-C0", "sky-i-C1"]
    )
    unused = {row.reason for row in log.rows if row.status == "IGNORED"}
    assert unused == {f"NOT_NEEDED: C{k} is used without bias" for k in (2, 3)}
    for frame in log.science:
        found = log.match(frame)
        camera = log.frames[frame].camera
        assert found.bias == (f"bias-{camera}" if camera in ("C0", "C1") else None)
        assert found.flat is not None
    assert all(STACK.fullmatch(name) for name in log.stacks)
    assert all(FRAME.fullmatch(name) for name in log.frames)


def master(folder, name, shape=(20, 30), **keys):
    header = fits.Header()
    header.update(keys)
    fits.PrimaryHDU(np.ones(shape, np.float32), header).writeto(folder / name)


def test_ready_masters(raw, tmp_path):
    put(raw, "v.fits", second=10)
    put(raw, "r.fits", band="R", second=20)
    put(raw, "fV.fits", kind="FLAT", band="V", second=1)
    ready = tmp_path / "ready"
    ready.mkdir()
    master(ready, "flat_V.fits")
    master(ready, "flat_R.fits", FILTER="R", CAMERA="C0")
    master(ready, "bias-C0.fits", shape=(40, 40))
    master(ready, "dark-C0.fits", EXPTIME=60.0)
    (ready / "flat_B.fits").write_text("broken")
    (ready / "readme.txt").write_text("")
    log = nightlog.scan(raw)
    log.add_masters(ready)
    matched = {log.frames[f].raw: log.match(f) for f in log.science}
    assert matched["v.fits"].flat == "flat_V" and "flat_V" not in log.masters
    assert matched["r.fits"].flat == "flat_R"
    assert log.masters["flat_R"] == str(ready / "flat_R.fits")
    assert matched["v.fits"].bias is None
    assert "bias-C0: shape 40x40, not 30x20" in matched["v.fits"].notes["bias"]
    assert matched["v.fits"].dark == "dark-C0"
    told = [note for note in log.notes if note.startswith("masters:")]
    assert told == [
        "masters: dark-C0.fits: its header does not say whether its bias is subtracted; "
        "its pixels tell",
        "masters: flat_B.fits: NOT_FITS: the file does not begin with SIMPLE",
    ]
    with pytest.raises(FileNotFoundError):
        log.add_masters(tmp_path / "nowhere")


def test_order_of_the_files_does_not_matter(night, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    names = sorted(os.listdir(night))
    random.Random(1).shuffle(names)
    for name in names:
        os.link(night / name, other / name)
    one, two = nightlog.scan(night), nightlog.scan(other)
    assert one.table_text() == two.table_text()
    assert one.frames == two.frames


def test_a_thousand_frames_are_quick(raw, tmp_path):
    content = put(raw, "0.fits").read_bytes()
    for k in range(1, 1000):
        stamp = b"%02d:%02d:%02d" % (k // 3600, k // 60 % 60, k % 60)
        (raw / f"{k}.fits").write_bytes(content.replace(b"T00:00:00", b"T" + stamp))
    cache = tmp_path / "c.json"
    start = time.process_time()
    log = nightlog.scan(raw, cache=cache)
    cold = time.process_time() - start
    start = time.process_time()
    nightlog.scan(raw, cache=cache)
    warm = time.process_time() - start
    assert len(log.frames) == 1000
    # 20,000 in 60 s and 2 s, with a factor of two for a slow machine
    assert cold < 6 and warm < 0.2


# ------------------------------------------------------------------------- real frames


def real(folder):
    path = REAL / folder
    if not path.is_dir():
        pytest.skip(f"no real data in {path}")
    return nightlog.scan(path)


def test_real_efosc2():
    log = real("efosc2_g")
    assert len(log.rows) == 16
    spectra = [row for row in log.rows if row.status != "OK"]
    assert len(spectra) == 2
    assert all(row.reason.startswith("SPECTRUM") for row in spectra)
    assert {name: len(frames) for name, frames in log.stacks.items()} == {
        "J123410-332638.g782": 3,
        "Q1010-0100.g782": 3,
    }
    assert "20220128T045424C0o" in log.frames
    assert len(log.biases["bias-C0"]) == 5 and len(log.flats["flat_g782"]) == 3
    for frame in log.science:
        assert log.match(frame).notes == {}
        assert log.frames[frame].band == "g"


def test_real_cafos():
    log = real("cafos_ngc2420_BV")
    assert all(row.status == "OK" for row in log.rows) and len(log.rows) == 15
    assert {name: len(frames) for name, frames in log.stacks.items()} == {
        "NCG2420_B.JohnsonB": 6,
        "NCG2420_V.JohnsonV": 5,
    }
    for frame in log.science:
        found = log.match(frame)
        assert found.bias == "bias-C0"
        assert found.flat == f"flat_{log.frames[frame].filter}"


def test_real_arcsat():
    log = real("arcsat_xo1b_z")
    assert all(row.status == "OK" for row in log.rows) and len(log.rows) == 26
    assert {name: len(frames) for name, frames in log.stacks.items()} == {
        "43Bet_Com.z": 1,
        "XO1-b.z": 10,
    }
    for frame in log.science:
        facts = log.frames[frame]
        assert 1 <= facts.airmass < 1.2  # 13.37 in six of the headers
        assert log.match(frame).dark == "dark-C0"
        assert facts.wcs["CD1_1"] == pytest.approx(-0.67 / 3600, rel=0.01)


def test_real_single_frame_with_overscan():
    log = real("single")
    (facts,) = log.frames.values()
    assert facts.instrument == "generic"
    assert facts.shape == [520, 512]
    assert facts.amplifiers[0].overscan == [0, 520, 3, 13]
    assert facts.amplifiers[0].gain == 1.9 and facts.rdnoise == 5.0


def test_headers_of_real_frames_agree_with_astropy():
    real("efosc2_g")
    for path in sorted(REAL.glob("*/*.fits"))[::7]:
        header, infos, _ = read_headers(path)
        reference = fits.getheader(path)
        for key in reference:
            if key in ("COMMENT", "HISTORY", "") or reference[key] == "":
                continue
            assert header[key] == reference[key], (path.name, key)
        assert infos[0].shape == [reference["NAXIS2"], reference["NAXIS1"]]


def test_unreadable_directory_entry_message_has_no_path(tmp_path):
    with pytest.raises(FrameUnusable) as caught:
        read_headers(tmp_path / "gone.fits")
    assert str(tmp_path) not in str(caught.value)


def contents(night, tmp_path, record=None):
    """Return what the log of a night says of the content of each raw file."""
    log = nightlog.scan(night, "generic", cache=tmp_path / "red" / ".nightlog.json")
    found = {one.raw: one.content for one in log.frames.values()}
    if record:
        # As a job does that reads them.
        for name, content in found.items():
            with record.reading(f"raw:{name}", night / name, content=content):
                pass
    return found


def test_content_follows_the_bytes_once_a_job_has_read_them(night, tmp_path):
    record = ContentRecord(tmp_path / "red")
    before = contents(night, tmp_path, record)
    assert all(before.values()) and len(before) > 3
    first, second, third = sorted(before)[:3]
    good = (night / second).read_bytes()
    times = (night / second).stat().st_mtime_ns
    os.utime(night / first, (0, 0))
    bad = bytearray(good)
    bad[-2000] ^= 1
    (night / second).write_bytes(bad)
    os.utime(night / second, ns=(times, times))
    now = contents(night, tmp_path)
    assert {name for name in before if now[name] != before[name]} == {second}
    # The good one comes back, older than the bad one; the cache is lost, the night moves.
    (night / second).write_bytes(good)
    os.utime(night / second, (1e9, 1e9))
    (tmp_path / "red" / ".nightlog.json").unlink()
    moved = night.rename(tmp_path / "moved")
    assert contents(moved, tmp_path) == before


def test_content_follows_size_and_time_before_a_job_has_read_it(night, tmp_path):
    before = contents(night, tmp_path)
    first = min(before)
    os.utime(night / first, (0, 0))
    now = contents(night, tmp_path)
    assert {name for name in before if now[name] != before[name]} == {first}
