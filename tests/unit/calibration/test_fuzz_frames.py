"""Hostile raw frames up to their pixels: prepared, or a reason, in bounded memory and time.

4,000 cases, 20 of them through the night log and all of prepare; `AUTOPROC_FUZZ=5` makes five times
as many, other ones each time.
"""

import gzip
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from fuzzcases import chance, tried

from lib.calibration.detector import assemble
from lib.calibration.prepare import prepare_frame
from lib.calibration.rawpixels import map_raw, read_raw
from lib.frame.file import FrameRejected
from lib.night import completeness, nightlog
from lib.night.frameignored import FrameIgnored
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import BLOCK, read_headers

REASON = re.compile(r"[A-Z][A-Z_0-9]+(: .+)?")

SHAPE = (40, 60)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Do not wait for files to be copied."""
    monkeypatch.setattr(completeness, "PAUSE", 0.0)


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

WORDS = [
    "'RICE_1  '", "'GZIP_1  '", "'PLIO_1  '", "'HCOMPRESS_1'", "'NOCOMPRESS'", "''", "T", "F", "",
    "99999999999", "'1PB(999999999)'", "'1QE'", "'1PJ(3)'", "'999999999999999B'", "'0A'",
    "'(9,9,99999999)'", "'SUBTRACTIVE_DITHER_2'", "'COMPRESSED_DATA'", "'GZIP_COMPRESSED_DATA'",
    "'BINTABLE'", "'TABLE'", "'BLOCKSIZE'", "'BYTEPIX'", "1E300", "nan", "inf", "-0.0", "1e-320",
]  # fmt: skip


def odd_value(rng):
    """Return the text of a value that a structure keyword should not have, most of the time."""
    kind = rng.randrange(4)
    if kind == 0:
        return str(rng.randint(-3, 70))
    if kind == 1:
        return str(rng.choice([-1, 1]) * int(10 ** rng.uniform(0, 20)))
    return rng.choice(WORDS) if kind == 2 else str(rng.gauss(0, 10.0 ** rng.randint(-3, 12)))


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


def odd_structure(seeds, number):
    """Return name and bytes of a frame with one to four cards changed."""
    rng = chance("structure", number)
    name = rng.choice(sorted(seeds))
    content = seeds[name]
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    for _ in range(rng.randint(1, 4)):
        content = with_card(content, rng.choice(KEYWORDS), odd_value(rng))
    return name, gzip.compress(content, 1) if name.endswith(".gz") else content


def spoilt_tiles(seeds, number):
    """Return name and bytes of a packed frame with one to thirty bytes of its data changed."""
    rng = chance("tiles", number)
    name = rng.choice([name for name in sorted(seeds) if name.endswith((".fz", ".gz"))])
    content = bytearray(seeds[name])
    start = (
        0 if name.endswith(".gz") else content.rfind(b"END" + b" " * 77) // BLOCK * BLOCK + BLOCK
    )
    for _ in range(rng.randint(1, 30)):
        content[rng.randrange(start, len(content))] = rng.randrange(256)
    return name, bytes(content)


def assembled(folder, name, content):
    """Read header and pixels of a file as the night log and prepare do; return the reasons."""
    path = folder / name
    path.write_bytes(content)
    said = []
    try:
        headers = read_headers(path)
        found = interpret(headers.primary, headers.hdus, name, load_instrument("generic"))
    except FrameIgnored as why:
        return [str(why)]
    for facts in found:
        try:
            assert assemble(path, facts).ccd.shape == tuple(facts.shape)
        except FrameRejected as why:
            said.append(str(why))
    return said


@pytest.mark.parametrize("made", [odd_structure, spoilt_tiles])
def test_any_frame_is_prepared_or_has_its_reason(
    seeds, tmp_path, made: Callable[..., tuple[str, bytes]]
):
    def one(number, reading=assembled, folder=tmp_path):
        for reason in reading(folder, *made(seeds, number)):
            assert REASON.fullmatch(reason), reason

    failed, ended = tried(one, 2000)
    assert failed == []
    for number in [*range(10), *ended]:
        begun = time.monotonic()
        one(number, prepared, tmp_path / "guarded")
        assert time.monotonic() - begun < 60
