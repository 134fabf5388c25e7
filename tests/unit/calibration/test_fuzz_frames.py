"""Hostile raw frames up to their pixels: prepared, or a reason, in bounded memory and time.

80 cases; `AUTOPROC_FUZZ=125` makes 10,000, other ones each time.
"""

import gzip
import re
import time

import numpy as np
import pytest
from astropy.io import fits
from fuzzcases import cases
from hypothesis import given
from hypothesis import strategies as st

from lib.calibration.prepare import prepare_frame
from lib.calibration.rawpixels import map_raw, read_raw
from lib.frame.file import FrameRejected
from lib.night import nightlog
from lib.night.rawheaders import BLOCK

REASON = re.compile(r"[A-Z][A-Z_0-9]+(: .+)?")

SHAPE = (40, 60)

pytestmark = pytest.mark.filterwarnings("ignore")


HEADER = fits.Header({"IMAGETYP": "LIGHT", "OBJECT": "field", "FILTER": "V", "EXPTIME": 60.0,
                      "DATE-OBS": "2024-03-01T01:02:03.25", "RA": 150.0, "DEC": 20.0, "GAIN": 1.5,
                      "RDNOISE": 5.0, "PIXSCALE": 0.5, "SATURATE": 60000.0})  # fmt: skip

PIXELS = np.random.default_rng(3).normal(500, 20, SHAPE)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Small raw files, plain and of each packing, by name."""
    folder = tmp_path_factory.mktemp("seeds")
    whole = PIXELS.astype(np.int16)
    fits.PrimaryHDU(whole, HEADER).writeto(folder / "plain.fits")
    scaled = fits.PrimaryHDU(PIXELS.astype(np.uint16), HEADER)
    scaled.writeto(folder / "scaled.fits")
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=np.arange(3))])
    mef = [fits.PrimaryHDU(header=HEADER), table, fits.ImageHDU(whole, name="SCI")]
    fits.HDUList(mef).writeto(folder / "mef.fits")
    for kind in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        packed = fits.CompImageHDU(whole, HEADER, compression_type=kind)
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / f"{kind}.fits.fz")
    packed = fits.CompImageHDU(PIXELS.astype(np.float32), HEADER, quantize_level=8)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / "quantised.fits.fz")
    content = (folder / "scaled.fits").read_bytes()
    (folder / "zipped.fits.gz").write_bytes(gzip.compress(content, mtime=0))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepared(folder, name, content):
    """Prepare what the night log takes of a file; return the reasons why not."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(content)
    night = nightlog.scan(folder, "generic")
    said = [row.reason for row in night.rows if row.status != "OK"]
    for facts in night.frames.values():
        try:
            frame = prepare_frame(folder / name, facts)
            assert frame.image.shape == tuple(facts.shape)
        except FrameRejected as why:
            said.append(str(why))
    return said


def test_seeds_are_right(seeds, tmp_path):
    for name, content in seeds.items():
        assert prepared(tmp_path / "raw", name, content) == [], name
        hdu = 2 if name == "mef.fits" else int(name.endswith(".fz"))
        path = tmp_path / "raw" / name
        assert np.allclose(read_raw(path, {hdu})[hdu], PIXELS, atol=4.0), name
        assert map_raw(path, hdu).shape == SHAPE


KEYWORDS = """
    BITPIX NAXIS NAXIS1 NAXIS2 PCOUNT GCOUNT TFIELDS GROUPS BSCALE BZERO BLANK THEAP XTENSION
    TTYPE1 TTYPE2 TFORM1 TFORM2 TFORM3 TDIM1 TSCAL1 TZERO1 TNULL1 TDISP1
    ZIMAGE ZTENSION ZSIMPLE ZBITPIX ZNAXIS ZNAXIS1 ZNAXIS2 ZTILE1 ZTILE2 ZCMPTYPE ZQUANTIZ ZDITHER0
    ZNAME1 ZVAL1 ZNAME2 ZVAL2 ZMASKCMP ZBLANK ZSCALE ZZERO ZPCOUNT ZGCOUNT
""".split()

VALUES = st.one_of(
    st.integers(-3, 70).map(str),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(["'RICE_1  '", "'GZIP_1  '", "'PLIO_1  '", "'HCOMPRESS_1'", "'NOCOMPRESS'",
                     "''", "T", "F", "", "99999999999", "'1PB(999999999)'", "'1QE'", "'1PJ(3)'",
                     "'999999999999999B'", "'0A'", "'(9,9,99999999)'", "'SUBTRACTIVE_DITHER_2'",
                     "'COMPRESSED_DATA'", "'GZIP_COMPRESSED_DATA'", "'BINTABLE'", "'TABLE'",
                     "'BLOCKSIZE'", "'BYTEPIX'", "1E300", "nan"]),
)  # fmt: skip


def with_card(content, key, value):
    """Return a file with a card changed, or put in the place of the last END."""
    start = content.rfind(f"{key:<8}=".encode())
    start = start if start >= 0 else content.rfind(b"END" + b" " * 77)
    if start < 0:
        return content
    card = f"{key:<8}= {value:>20}".ljust(80)[:80].encode()
    if content[start : start + 3] == b"END" and (start + 80) % BLOCK:
        card += b"END" + b" " * 77
    return content[:start] + card + content[start + len(card) :]


@cases(40)
@given(
    kind=st.integers(0, 9),
    cards=st.lists(st.tuples(st.sampled_from(KEYWORDS), VALUES), min_size=1, max_size=4),
)
def test_any_structure_is_prepared_or_has_its_reason(seeds, tmp_path_factory, kind, cards):
    name = sorted(seeds)[kind % len(seeds)]
    content = seeds[name]
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    for key, value in cards:
        content = with_card(content, key, value)
    if name.endswith(".gz"):
        content = gzip.compress(content, 1)
    begun = time.monotonic()
    said = prepared(tmp_path_factory.getbasetemp() / "structure", name, content)
    assert all(REASON.fullmatch(one) for one in said)
    assert time.monotonic() - begun < 60


@cases(40)
@given(
    kind=st.integers(0, 9),
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=30
    ),
)
def test_spoilt_tiles_are_prepared_or_have_their_reason(seeds, tmp_path_factory, kind, places):
    packed = [name for name in sorted(seeds) if name.endswith((".fz", ".gz"))]
    name = packed[kind % len(packed)]
    content = bytearray(seeds[name])
    start = (
        0 if name.endswith(".gz") else content.rfind(b"END" + b" " * 77) // BLOCK * BLOCK + BLOCK
    )
    for where, value in places:
        content[start + int(where * (len(content) - start))] = value
    said = prepared(tmp_path_factory.getbasetemp() / "tiles", name, bytes(content))
    assert all(REASON.fullmatch(one) for one in said)
