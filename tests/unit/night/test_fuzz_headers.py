"""Hostile headers and files: a row with a reason, never an exception.

13,000 cases; `AUTOPROC_FUZZ=5` makes five times as many, other ones each time.
"""

import csv
import gzip
import json
import os
import re

import numpy as np
import pytest
from astropy.io import fits
from fuzzcases import TIMES, cases, chance
from hypothesis import given
from hypothesis import strategies as st
from test_instruments import GOOD, JUNK, read, sane

from lib.night import completeness, nightlog, rawlog
from lib.night.exclude import read_exclude
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import parse_header, read_headers
from lib.report.frametable import begin_frames_table


@pytest.fixture(scope="module", autouse=True)
def without_waiting():
    """Wait neither for the disk nor for files to be copied: thousands are new."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda number: None)
        patch.setattr(completeness, "PAUSE", 0.0)
        yield


REASON = re.compile(r"[A-Z][A-Z_0-9]+: .+")
STACK = re.compile(r"[A-Za-z0-9_+-]+\.[A-Za-z0-9_+-]+")


# ---------------------------------------------------------------------------- values

VALUES = st.one_of(
    st.sampled_from(JUNK),
    st.text(max_size=80),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.from_regex(r"\[[-0-9]{1,6}:[-0-9]{1,6},[-0-9]{1,6}:[-0-9]{1,6}\]", fullmatch=True),
    st.from_regex(r"[+-]?\d{1,3}[: ]\d{1,2}[: ]\d{1,2}(\.\d{1,4})?", fullmatch=True),
    st.datetimes().map(lambda moment: moment.isoformat()),
)

FURTHER_KEYS = """
    AIRMASS CD1_1 CD1_2 CD2_2 CTYPE1 CTYPE2 CRVAL1 CRPIX1 DETSEC CCDSUM TRIMSEC BIASSEC DATASEC
    PIXSCALE SITELAT SITELONG GAIN RDNOISE SATURATE
""".split()

KEYS = sorted({key for header, _, _ in GOOD.values() for key in header} | set(FURTHER_KEYS))

SHAPES = st.one_of(
    st.none(), st.lists(st.integers(0, 4000), max_size=4).map(tuple), st.just((1024, 1024))
)


@cases(3000)
@given(
    name=st.sampled_from(sorted(GOOD)),
    changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=8),
    dropped=st.sets(st.sampled_from(KEYS), max_size=2),
    shape=SHAPES,
    filename=st.one_of(st.none(), st.text(max_size=60)),
)
def test_any_header_gives_sane_facts_or_a_reason(name, changes, dropped, shape, filename):
    header, usual, good_shape = GOOD[name]
    header = {key: value for key, value in (dict(header) | changes).items() if key not in dropped}
    try:
        found = read(name, header, usual if filename is None else filename, shape or good_shape)
    except FrameIgnored as reason:
        assert REASON.fullmatch(str(reason))
        assert str(reason).isprintable()
        return
    for facts in found:
        sane(facts)


def card(key, value):
    """Return a card of a header, of whatever is given."""
    return f"{key:<8}= {value}"[:80].ljust(80).encode("latin-1", "replace")


CARDS = st.one_of(
    st.binary(min_size=80, max_size=80),
    st.builds(card, st.sampled_from(KEYS), VALUES.map(str)),
)


@cases(1000)
@given(st.lists(CARDS, max_size=12))
def test_any_cards_are_read(cards):
    header = parse_header(b"".join(cards))
    assert all(isinstance(key, str) for key in header)


# ---------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Small raw files of several kinds: plain, with an extension, packed both ways."""
    folder = tmp_path_factory.mktemp("seeds")
    header = fits.Header({"IMAGETYP": "LIGHT", "OBJECT": "field", "FILTER": "V", "EXPTIME": 60.0,
                          "DATE-OBS": "2024-03-01T01:02:03.25", "RA": 150.0, "DEC": 20.0,
                          "GAIN": 1.5, "RDNOISE": 5.0, "PIXSCALE": 0.5})  # fmt: skip
    data = np.arange(600, dtype=np.int16).reshape(20, 30)
    fits.PrimaryHDU(data, header).writeto(folder / "plain.fits")
    primary = fits.PrimaryHDU(header=header)
    fits.HDUList([primary, fits.ImageHDU(data, name="SCI")]).writeto(folder / "mef.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header)]).writeto(folder / "rice.fz")
    packed = gzip.compress((folder / "plain.fits").read_bytes(), mtime=0)
    (folder / "packed.fits.gz").write_bytes(packed)
    return folder


BYTES = b"0123456789'=/ TF-+.eEN\0\xff\n"

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["byte", "swap", "value", "cut", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=20,
)


def mutate(content, changes):
    """Return bytes with some of them changed: single ones, cards swapped, values replaced."""
    content = bytearray(content)
    for kind, where, what in changes:
        if not content:
            break
        # Most of what is interesting is at the beginning.
        place = int(where * where * len(content))
        card = place // 80 * 80
        if kind == "byte":
            content[place] = BYTES[what % len(BYTES)]
        elif kind == "swap":
            other = what % len(content) // 80 * 80
            one, two = content[card : card + 80], content[other : other + 80]
            if len(one) == len(two):
                content[card : card + 80], content[other : other + 80] = two, one
        elif kind == "value":
            junk = str(JUNK[what % len(JUNK)])[:70].encode("latin-1", "replace")
            content[card + 10 : card + 80] = junk.ljust(70)[: max(0, len(content) - card - 10)]
        elif kind == "cut":
            del content[place:]
        else:
            content[place:place] = content[card : card + 2880]
    return bytes(content)


@cases(2000)
@given(kind=st.integers(0, 3), changes=CHANGES, instrument=st.sampled_from(["auto", "generic"]))
def test_any_file_has_its_row(seeds, tmp_path_factory, kind, changes, instrument):
    seed = sorted(seeds.iterdir())[kind]
    name = seed.name
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(mutate(seed.read_bytes(), changes))
    night = nightlog.scan(folder, instrument)
    assert len(night.rows) >= 1
    for row in night.rows:
        assert row.raw == name
        assert row.status in ("OK", "IGNORED", "REJECTED")
        assert row.status == "OK" or REASON.fullmatch(row.reason)
    for frame, facts in night.frames.items():
        sane(facts)
        night.match(frame)
    assert all(STACK.fullmatch(name) for name in night.stacks)
    path = folder.with_suffix(".ecsv")
    begin_frames_table(night, path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    table = list(csv.reader(lines))
    assert len(table) == len(night.rows) + 1
    assert {len(row) for row in table} == {len(table[0])}
    path.unlink()


STRUCTURE = """
    SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 NAXIS3 PCOUNT GCOUNT GROUPS EXTEND BSCALE BZERO
""".split()

NUMBERS = ["16.0", "2.", "1E2", "T", "F", "", "0x10", "'16'", "9" * 68, "-0", "+16", "nan", "1e999"]


def odd_number(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return str(rng.choice([-1, 1]) * rng.randrange(10 ** rng.randint(1, 68)))
    if kind == 1:
        return str(rng.randint(-70, 1000))
    return rng.choice(NUMBERS) if kind == 2 else str(rng.gauss(0, 10.0 ** rng.randint(-9, 300)))


def odd_structure(content, number):
    """Return a frame with one to three cards of its structure changed."""
    rng = chance("header", number)
    for _ in range(rng.randint(1, 3)):
        key, value = rng.choice(STRUCTURE), odd_number(rng)
        start = content.find(f"{key:<8}=".encode())
        start = start if start >= 0 else content.find(b"END" + b" " * 77)
        card = f"{key:<8}= {value[:70]:>20}".ljust(80).encode()
        content = content[:start] + card + content[start + 80 :]
    return content


def test_any_structure_has_its_row(seeds, tmp_path):
    """Each by the reader of headers, one in forty by the whole night log."""
    content = (seeds / "plain.fits").read_bytes()
    path, generic = tmp_path / "bad.fits", load_instrument("generic")
    for number in range(4000 * TIMES):
        path.write_bytes(odd_structure(content, number))
        if number % 40 == 0:
            (row, *_) = nightlog.scan(tmp_path, "generic").rows
            assert row.status == "OK" or REASON.fullmatch(row.reason), number
            continue
        try:
            headers = read_headers(path)
            found = interpret(headers.primary, headers.hdus, path.name, generic)
        except FrameIgnored as reason:
            assert REASON.fullmatch(str(reason)), number
        else:
            for facts in found:
                sane(facts)


def test_any_bytes_are_no_frame(tmp_path):
    path = tmp_path / "bytes.fits"
    for number in range(2500 * TIMES):
        rng = chance("bytes", number)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 80, 2880, rng.randrange(6000)])))
        with pytest.raises(FrameUnusable):
            read_headers(path)


# ---------------------------------------------------------------------------- other input


@cases(250)
@given(st.text())
def test_any_exclude_list_is_read(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "exclude.txt"
    path.write_text(text, encoding="utf-8", errors="replace")
    for name, reason in read_exclude(path).items():
        assert isinstance(name, str)
        assert reason.isprintable() and reason


@cases(250)
@given(changes=CHANGES)
def test_damaged_cache_is_not_trusted(seeds, tmp_path_factory, changes):
    rawlog.log.setLevel("CRITICAL")  # it warns of each
    folder = tmp_path_factory.getbasetemp() / "cached"
    folder.mkdir(exist_ok=True)
    if not (folder / "plain.fits").exists():
        (folder / "plain.fits").write_bytes((seeds / "plain.fits").read_bytes())
    cache = folder / ".cache.json"
    cache.unlink(missing_ok=True)
    first = nightlog.scan(folder, "generic", cache=cache)
    json.loads(cache.read_bytes())
    cache.write_bytes(mutate(cache.read_bytes(), changes))
    night = nightlog.scan(folder, "generic", cache=cache)
    assert [row.raw for row in night.rows] == [row.raw for row in first.rows]
