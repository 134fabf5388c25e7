"""A night of bad frames: each is listed with its reason, every good one is in its stack."""

import gzip
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from test_dag import science
from workbench import FILTERS, TARGET

BAND = "SDSS-R"

# What a shell, a path, a page or a table would take for something else.
OBJECTS = [
    "../../escaped$(touch escaped); `touch escaped`",
    "\"; touch escaped; echo \"'<script>alert(1)</script>'",
    "x" * 300,
    "{frame} %s \\n | & > escaped",
    "frames",  # whose table must not be that of the night
]

FILE_NAMES = [
    "with space, quote'\"double, étoile ☆.fits",
    "semi;colon $(touch escaped) per%scent *.fits",
    "-rf.fits",
    "<word> {frame} <wildcards.frame>.fits",
    "ba\\ck # sl,ash= turned\u202eround.fits",
]


class Frames:
    """Writes raw frames: variants of one good exposure, each at its own minute."""

    def __init__(self, raw, source):
        self.raw = raw
        self.minute = 0
        with fits.open(source) as hdus:
            self.header = hdus[0].header.copy(strip=True)
            self.data = np.asarray(hdus[0].data, dtype=np.float64)

    def write(self, name, data=None, drop=(), scale=None, **cards):
        self.minute += 1
        header = self.header.copy()
        header["DATE-OBS"] = f"2022-01-28T06:{self.minute:02d}:00"
        header.update({key.replace("_", "-"): value for key, value in cards.items()})
        for key in drop:
            del header[key]
        hdu = fits.PrimaryHDU(self.data.astype(np.uint16) if data is None else data, header)
        if scale:
            hdu.scale("int16", bscale=scale[0], bzero=scale[1])
        path = self.raw / name
        hdu.writeto(path)
        return path


def spoil(place):
    """Add bad frames; return {file: code of the reason} and the good ones added."""
    frames = Frames(place.raw, science(place, BAND)[0])
    counts = frames.data.astype(np.uint16)
    good, bad = [], {}

    good.append(frames.write("int32.fits", counts.astype(np.int32)).name)
    good.append(frames.write("float32.fits", counts.astype(np.float32)).name)
    good.append(frames.write("big-endian-64.fits", counts.astype(np.float64)).name)
    good.append(frames.write("scaled.fits", counts.astype(np.float32), scale=(1.0, 20000.0)).name)
    path = frames.write("packed.fits")
    with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    path.unlink()
    good.append("packed.fits.gz")
    good += [frames.write(name).name for name in FILE_NAMES]
    good.append(frames.write("backwards.fits", DATE_OBS="2022-01-27T23:00:00").name)
    # Two exposures that began at the same time, as clocks that were set back make them.
    moment = "2022-01-28T05:59:59"
    good += [frames.write(name, counts + n, DATE_OBS=moment).name
             for n, name in enumerate(("one.fits", "other.fits"))]  # fmt: skip

    path = frames.write("truncated.fits")
    path.write_bytes(path.read_bytes()[:-100_000])
    bad[path.name] = "TRUNCATED"
    path = frames.write("cut-header.fits")
    path.write_bytes(path.read_bytes()[:1000])
    bad[path.name] = "TRUNCATED"
    (place.raw / "empty.fits").touch()
    bad["empty.fits"] = "EMPTY"
    (place.raw / "text.fits").write_text("SIMPLE, but no frame\n" * 500)
    bad["text.fits"] = "NOT_FITS"
    packed = bytearray((place.raw / "packed.fits.gz").read_bytes())
    (place.raw / "cut.fits.gz").write_bytes(packed[: len(packed) // 2])
    bad["cut.fits.gz"] = "BAD_GZIP"
    packed[len(packed) // 2] ^= 0xFF
    (place.raw / "flipped.fits.gz").write_bytes(packed)
    bad["flipped.fits.gz"] = "BAD_GZIP"
    # At its full length, but 90 % of it is there.
    path = frames.write("filling.fits")
    content = path.read_bytes()
    path.write_bytes(content[: int(0.9 * len(content))].ljust(len(content), b"\0"))
    bad[path.name] = "INCOMPLETE"
    bad.update(spoil_packed(frames, counts))
    for name in ("esc\x1b[2J.fits", os.fsdecode(b"no-utf8-\xff.fits")):
        shutil.copy(place.raw / "float32.fits", place.raw / name)
    bad[frames.write("small.fits", counts[:200, :300]).name] = "NO_"
    bad[frames.write("cube.fits", np.stack([counts, counts])).name] = "NOT_2D"
    bad[frames.write("line.fits", counts[0]).name] = "NOT_2D"
    bad[frames.write("nan.fits", np.full(counts.shape, np.nan, np.float32)).name] = ""
    bad[frames.write("zero.fits", np.zeros(counts.shape, np.uint16)).name] = ""
    bad[frames.write("full.fits", np.full(counts.shape, 65535, np.uint16)).name] = ""
    bad[frames.write("noise.fits", np.random.default_rng(1).integers(
        900, 1100, counts.shape).astype(np.uint16)).name] = ""  # fmt: skip
    bad[frames.write("no-type.fits", drop=["OBSTYPE"]).name] = "MISSING_KEYWORD"
    bad[frames.write("no-date.fits", drop=["DATE-OBS"]).name] = "MISSING_KEYWORD"
    bad[frames.write("no-exptime.fits", drop=["EXPTIME"]).name] = "MISSING_KEYWORD"
    bad[frames.write("bad-date.fits", DATE_OBS="yesterday").name] = "BAD_DATE"
    bad[frames.write("bad-exptime.fits", EXPTIME=-3.0).name] = "BAD_EXPTIME"
    shutil.copy(place.raw / "int32.fits", place.raw / "again.fits")
    (place.raw / "a-directory.fits").mkdir()
    bad["a-directory.fits"] = "NOT_A_FILE"
    (place.raw / "dangling.fits").symlink_to("nowhere")
    bad["dangling.fits"] = "UNREADABLE"
    duplicates = {"again.fits", "int32.fits"}

    named = {}
    for number, name in enumerate(OBJECTS):
        cards = {"OBJECT": name, "OBJNAME": name} if len(name) < 60 else {"OBJECT": name}
        path = frames.write(f"object{number}.fits", drop=["OBJNAME"] if len(name) > 60 else (),
                            **cards)  # fmt: skip
        named[path.name] = name
    # A line feed, which no FITS library writes.
    path = frames.write("object-newline.fits", OBJECT="two lines?", OBJNAME="two lines?")
    path.write_bytes(path.read_bytes().replace(b"two lines?", b"two\nlines\0"))
    named[path.name] = "two\nlines"
    # Nor letters beyond ASCII.
    path = frames.write("object-letters.fits", OBJECT="letters XX YYY", OBJNAME="letters XX YYY")
    content = path.read_bytes().replace(b"XX YYY", "é ☆".encode())
    path.write_bytes(content)
    named[path.name] = "letters é ☆"
    return good, bad, duplicates, named


def spoil_packed(frames, counts):
    """Add packed frames: good ones, spoilt ones, and two that open to gigabytes."""
    packed = fits.CompImageHDU(counts, frames.header, compression_type="RICE_1")
    path = frames.raw / "packed-tiles.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path)
    content = path.read_bytes()
    (frames.raw / "odd-form.fits.fz").write_bytes(content.replace(b"'1PB(", b"'9QZ("))
    one = f"TFIELDS = {1:>20}".encode()
    wide = content.replace(one, f"TFIELDS = {10**12 - 1:>20}".encode())
    (frames.raw / "wide.fits.fz").write_bytes(wide)
    heap = content.rfind(b"END" + b" " * 77) // 2880 * 2880 + 2880 + 8 * len(counts)
    tiles = bytearray(content)
    tiles[heap : heap + 4000] = b"\xff" * 4000
    path.write_bytes(tiles)
    axes = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": 30000, "NAXIS2": 30000}
    head = "".join(f"{key:<8}= {value:>20}".ljust(80) for key, value in axes.items())
    head = (head + "END").ljust(2880).encode()
    zipped = gzip.compress(head) + gzip.compress(b"\0" * (1 << 24)) * 120
    (frames.raw / "bomb.fits.gz").write_bytes(zipped)
    return {path.name: "", "odd-form.fits.fz": "", "wide.fits.fz": "BAD_HEADER",
            "bomb.fits.gz": "TOO_LARGE"}  # fmt: skip


def everything(place):
    """Return all paths of a place, without what is below imredux and .snakemake."""
    return {
        str(path.relative_to(place.path))
        for path in place.path.rglob("*")
        if path.relative_to(place.path).parts[0] not in ("imredux", ".snakemake")
    }


def contents(place):
    """Return size and time of change of every raw file."""
    states = {path.name: path.lstat() for path in place.raw.iterdir()}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


@pytest.fixture(scope="module")
def night(raw_night, passing_folder):
    """The spoilt night, reduced."""
    with passing_folder("hostile") as folder:
        place = raw_night.copy(folder / "up" / "night")
        place.first = [path.name for path in science(place, BAND)]
        place.added = spoil(place)
        place.raw.chmod(0o555)
        place.before = everything(place)
        place.contents = contents(place)
        place.outside = sorted(path.name for path in place.path.parent.parent.rglob("*")
                               if place.path not in path.parents)  # fmt: skip
        place.said = place.snakemake()
        yield place
        place.raw.chmod(0o755)


@pytest.fixture(scope="module")
def rows(night):
    """The rows of frames.ecsv by raw file."""
    table = Table.read(night.products / "frames.ecsv")
    # What is not printed is shown in the table.
    return {str(row["raw"]).replace("\\u202e", "\u202e"): row for row in table}


def stacked(header):
    return {header[f"STACK{n}"] for n in range(1, header["NSTACK"] + 1)}


def test_exit_status_is_that_of_success(night):
    assert night.said.code == 0, night.said.out
    assert "Traceback" not in night.said.out


def test_every_good_frame_is_in_its_stack(night, rows):
    good, _, duplicates, _ = night.added
    frames = {str(rows[name]["frame"]) for name in (*night.first, *good) if name not in duplicates}
    header = fits.getheader(night.products / f"coadd{TARGET}.{BAND}.fits")
    found = {name.removeprefix("azsfp").removesuffix(".fits") for name in stacked(header)}
    missing = frames - found
    assert not missing, [
        str(rows[name]["reason"]) for name in rows if rows[name]["frame"] in missing
    ]
    assert header["NSTACK"] == len(frames) + 1


def test_other_filter_is_whole(night):
    other = next(band for band in FILTERS if band != BAND)
    assert fits.getval(night.products / f"coadd{TARGET}.{other}.fits", "NSTACK") == 3


def test_every_bad_frame_is_listed_with_its_reason(night, rows):
    _, bad, _, _ = night.added
    for name, code in bad.items():
        assert rows[name]["status"] in ("REJECTED", "IGNORED"), name
        assert str(rows[name]["reason"]).startswith(code), (name, rows[name]["reason"])
        assert str(rows[name]["reason"]).strip("-"), name


def test_one_of_two_copies_is_used(night, rows):
    _, _, duplicates, _ = night.added
    reasons = sorted(str(rows[name]["reason"]).partition(":")[0] for name in duplicates)
    assert reasons[-1] == "DUPLICATE"
    assert reasons[0] != "DUPLICATE"


def test_every_object_has_its_stack(night, rows):
    *_, named = night.added
    targets = set()
    for name in named:
        target = str(rows[name]["target"])
        assert (night.products / f"coadd{target}.{BAND}.fits").exists(), name
        targets.add(target)
    assert len(targets) == len(named)


def test_every_target_has_its_table(night, rows):
    *_, named = night.added
    for name in named:
        target = str(rows[name]["target"])
        table = "frames.target" if target == "frames" else target
        assert "RA" in Table.read(night.products / f"{table}.ecsv").colnames, name


def test_nothing_is_written_outside_imdir(night):
    assert everything(night) == night.before
    assert contents(night) == night.contents
    now = sorted(path.name for path in night.path.parent.parent.rglob("*")
                 if night.path not in path.parents)  # fmt: skip
    assert now == night.outside
    assert not list(night.path.parent.parent.rglob("*escaped.fits"))
    assert not list(night.path.rglob("escaped"))


def test_all_names_below_imdir_are_plain(night):
    import re

    names = {str(path.relative_to(night.products)) for path in night.products.rglob("*")}
    # But for Snakemake's record, which names each product in its own code.
    names = {name for name in names if not name.startswith(".snakemake/")}
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_+./-]+", name)] == []


def test_no_terminal_obeys_a_name(night):
    """Neither the console nor the table nor the page holds what is not printed."""
    table = (night.products / "frames.ecsv").read_text()
    for text in (table, night.said.out, (night.products / "night.html").read_text()):
        assert not {"\x1b", "\x9b", "\u202e", "\udcff"} & set(text)
    assert "esc\\x1b[2J.fits" in table and "BAD_FILE_NAME" in table
    assert "turned\\u202eround.fits" in table


def test_page_holds_no_markup_of_a_header(night):
    page = (night.products / "night.html").read_text()
    assert "<script>alert(1)" not in page


def test_second_run_does_nothing(night):
    assert night.snakemake().did_nothing
