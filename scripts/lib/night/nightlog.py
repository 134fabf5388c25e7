"""The night log: what every raw file is, and what belongs together.

The only place where raw headers are read for grouping. Headers are read in blocks, without the
pixels, and what was found is kept in a cache, so that a second start costs milliseconds.
"""

import filecmp
import fnmatch
import gc
import gzip
import hashlib
import json
import logging
import os
import re
import shlex
import stat
import zlib
from pathlib import Path

from lib.night import instruments
from lib.night.instruments import CALIBRATIONS, FrameIgnored, FrameUnusable, safe_name, text

BLOCK = 2880
MAX_HEADER_BLOCKS = 400  # 36 cards each
MAX_HDUS = 200
MAX_LENGTH = 1 << 50  # bytes, also values of an axis; no disk holds more
MAX_UNPACKED = 16 * 1024**3  # bytes; more out of one .gz is no raw frame
TEMPERATURE_TOLERANCE = 5.0  # K
SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".gz")
COLUMNS = (
    "frame raw status reason instrument camera type target object filter band exptime date_obs "
    "mjd airmass ra dec binning readout shape gain rdnoise saturate temperature bias dark flat "
    "calnote"
).split()
_FLOATS = {"exptime", "mjd", "airmass", "ra", "dec", "gain", "rdnoise", "saturate", "temperature"}

log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------- raw headers


def parse_header(block):
    """Keywords of a header (bytes of 80-character cards) as dict; HIERARCH is left out of names.

    The first card of a name counts. What is no FITS value stays a text: this never fails.
    """
    cards = block.decode("latin-1")
    header = {}
    last = None
    for start in range(0, len(cards), 80):
        card = cards[start : start + 80]
        if card[8:10] == "= ":
            key = card[:8].rstrip()
            value = card[10:]
            if key in ("COMMENT", "HISTORY", ""):
                continue
        elif card.startswith("HIERARCH "):
            key, found, value = card[9:].partition("=")
            if not found:
                continue
            key = " ".join(key.split()).upper()
        elif card.startswith("CONTINUE") and last is not None:
            piece = _card_value(card[8:])
            if isinstance(piece, str) and str(header[last]).endswith("&"):
                header[last] = header[last][:-1] + piece
            continue
        else:
            last = None
            continue
        last = None
        if key not in header:
            header[key] = value = _card_value(value)
            if isinstance(value, str):
                last = key
    return header


def _card_value(field):
    field = field.strip()
    if field.startswith("'"):
        end = 1
        while True:
            end = field.find("'", end)
            if end < 0:
                return field[1:].rstrip()
            if field[end + 1 : end + 2] != "'":
                return field[1:end].replace("''", "'").rstrip()
            end += 2
    field = field.partition("/")[0].strip()
    if field == "T":
        return True
    if field == "F":
        return False
    try:
        return int(field)
    except ValueError:
        pass
    try:
        return float(field.replace("D", "E"))
    except ValueError:
        return field or None


def _read_header_block(file):
    """Bytes of one header from the place of `file`, in whole blocks; b'' at the end of the file.

    Raises
    ------
    FrameUnusable
        When no END card comes.
    """
    data = b""
    for _ in range(MAX_HEADER_BLOCKS):
        block = file.read(BLOCK)
        data += block
        if len(block) < BLOCK:
            if not data.strip(b"\0 "):
                return b""
            raise FrameUnusable("TRUNCATED", "the file ends within a header")
        place = block.find(b"END" + b" " * 77)
        while place >= 0:
            if place % 80 == 0:
                return data
            place = block.find(b"END" + b" " * 77, place + 1)
    raise FrameUnusable("NOT_FITS", "a header has no END")


def _axes(header, prefix=""):
    """Axes (fast first) of an HDU; raises FrameUnusable where the header does not tell."""
    naxis = header.get(f"{prefix}NAXIS")
    if not isinstance(naxis, int) or isinstance(naxis, bool) or not 0 <= naxis <= 999:
        raise FrameUnusable("BAD_HEADER", f"{prefix}NAXIS is {text(naxis)[:40] or 'missing'}")
    axes = []
    for axis in range(1, naxis + 1):
        length = header.get(f"{prefix}NAXIS{axis}")
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < MAX_LENGTH:
            raise FrameUnusable(
                "BAD_HEADER", f"{prefix}NAXIS{axis} is {text(length)[:40] or 'missing'}"
            )
        axes.append(length)
    return axes


def _hdu_info(index, header):
    """Description of an HDU for `interpret`, and the bytes of its data."""
    axes = _axes(header)
    bitpix = header.get("BITPIX")
    if not isinstance(bitpix, int) or bitpix not in (8, 16, 32, 64, -32, -64):
        raise FrameUnusable("BAD_HEADER", f"BITPIX is {text(bitpix)[:40] or 'missing'}")
    size = 0
    if axes:
        size = 1
        for length in axes:
            size *= length
        pcount, gcount = header.get("PCOUNT", 0), header.get("GCOUNT", 1)
        if index == 0 and header.get("GROUPS") is not True:
            pcount, gcount = 0, 1
        if not isinstance(pcount, int) or not isinstance(gcount, int) or min(pcount, gcount) < 0:
            raise FrameUnusable("BAD_HEADER", "PCOUNT or GCOUNT is not a number")
        size = abs(bitpix) // 8 * gcount * (pcount + size)
        if size >= MAX_LENGTH:
            raise FrameUnusable("BAD_HEADER", "the axes are those of a file larger than any disk")
    kind = text(header.get("XTENSION")) if index else "IMAGE"
    info = {"index": index, "header": header, "shape": None}
    if kind in ("IMAGE", "IUEIMAGE"):
        if axes and min(axes) > 0:
            info["shape"] = axes[::-1]
    elif kind == "BINTABLE" and header.get("ZIMAGE") is True:
        axes = _axes(header, "Z")
        if axes and min(axes) > 0:
            info["shape"] = axes[::-1]
            info["packed_primary"] = header.get("ZSIMPLE") is True
    return info, size


class _GzipReader:
    """The part of a file object that is needed here, on a gzip stream, reading on to its end."""

    def __init__(self, path):
        self._file = gzip.open(path, "rb")
        self.place = 0

    def read(self, count):
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count):
        """Go on by `count` bytes and return how many there were."""
        done = 0
        while done < count:
            data = self._file.read(min(count - done, 1 << 20))
            if not data:
                break
            done += len(data)
            if self.place + done > MAX_UNPACKED:
                raise FrameUnusable("TOO_LARGE", f"more than {MAX_UNPACKED} bytes when unpacked")
        self.place += done
        return done

    def close(self):
        self._file.close()


class _PlainReader:
    """The same for a plain file of known size."""

    def __init__(self, path, size):
        self._file = open(path, "rb", buffering=4 * BLOCK)
        self.place = 0
        self.size = size

    def read(self, count):
        data = self._file.read(count)
        self.place += len(data)
        return data

    def skip(self, count):
        """Go on by `count` bytes and return how many there were."""
        done = max(0, min(count, self.size - self.place))
        if done:
            self._file.seek(done, os.SEEK_CUR)
            self.place += done
        return done

    def close(self):
        self._file.close()


def read_headers(path, size=None):
    """Headers of all HDUs of a raw file, checked against the length of the file.

    Parameters
    ----------
    path : str or Path
        Plain, fpacked (.fz) or gzipped (.gz) FITS file; a gzipped one is unpacked to its end, as
        only that tells whether it is whole.
    size : int, optional
        Length of the file in bytes, when known.

    Returns
    -------
    header : dict
        The primary header.
    hdus_info : list of dict
        As `lib.night.instruments.interpret` takes them; the first also has `digest`, a hash of all
        headers.

    Raises
    ------
    FrameUnusable
        When the file cannot be read, is no FITS file, or is shorter than its headers say.
    """
    path = os.fspath(path)
    try:
        if size is None:
            size = os.stat(path).st_size
        if size == 0:
            raise FrameUnusable("EMPTY", "the file has no bytes")
        reader = _GzipReader(path) if path.endswith(".gz") else _PlainReader(path, size)
        try:
            return _walk_hdus(reader)
        finally:
            reader.close()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FrameUnusable("BAD_GZIP", text(error) or "not a gzip file") from error
    except OSError as error:
        raise FrameUnusable("UNREADABLE", error.strerror or type(error).__name__) from error


def _walk_hdus(reader):
    infos = []
    # Of all headers of a file: equal in copies, hardly ever in different frames.
    digest = hashlib.blake2b(digest_size=8)
    while len(infos) < MAX_HDUS:
        block = b""
        if not infos:
            start = reader.read(80)
            if not start.startswith(b"SIMPLE  ="):
                raise FrameUnusable("NOT_FITS", "the file does not begin with SIMPLE")
            block = start + reader.read(BLOCK - 80)
            if len(block) < BLOCK:
                raise FrameUnusable("TRUNCATED", "the file ends within a header")
            if not _has_end(block):
                block += _read_header_block(reader)
        else:
            block = _read_header_block_or_end(reader)
            if not block:
                break
        digest.update(block)
        info, bytes_of_data = _hdu_info(len(infos), parse_header(block))
        infos.append(info)
        found = reader.skip(bytes_of_data)
        if found < bytes_of_data:
            raise FrameUnusable(
                "TRUNCATED", f"{found} of {bytes_of_data} bytes of data in HDU {info['index']}"
            )
        reader.skip(-bytes_of_data % BLOCK)
    infos[0]["digest"] = digest.hexdigest()
    return infos[0]["header"], infos


def _has_end(block):
    place = block.find(b"END" + b" " * 77)
    while place >= 0:
        if place % 80 == 0:
            return True
        place = block.find(b"END" + b" " * 77, place + 1)
    return False


def _read_header_block_or_end(reader):
    """The next extension's header; b'' at the end, or where only other bytes follow."""
    first = reader.read(BLOCK)
    if not first.startswith(b"XTENSION="):
        while reader.skip(1 << 24):  # to the end: for a gzip stream, this checks it
            pass
        return b""
    if len(first) < BLOCK:
        raise FrameUnusable("TRUNCATED", "the file ends within a header")
    return first if _has_end(first) else first + _read_header_block(reader)


# ---------------------------------------------------------------------------- scanning


def _entry(path, name, size, instrument):
    """What is kept of one raw file: [status, reason, facts, ...]."""
    stem = _stem(name)
    guess = stem if re.fullmatch(r"2[0-9A-Za-z_+-]{0,63}", stem) else ""
    try:
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name):
            raise FrameUnusable("BAD_FILE_NAME", "control characters or no UTF-8 in the name")
        if "{" in name or "}" in name:  # Snakemake would take it for a wildcard
            raise FrameUnusable("BAD_FILE_NAME", "braces in the name")
        header, infos = read_headers(path, size)
        if instrument is None:
            found = instruments.identify(header)
            if found == "generic" and len(infos) > 1:
                merged = instruments.merged_header(header, infos[1]["header"])
                found = instruments.identify(merged)
            used = instruments.load_instrument(found)
        else:
            used = instrument
        facts = instruments.interpret(header, infos, name, used)
    except FrameIgnored as reason:
        return [reason.status, str(reason), [], guess, ""]
    return ["OK", "", facts, guess, infos[0]["digest"]]


def _duplicates(datadir, files):
    """Files that hold the same frame as another one: name -> name of the one that is used.

    The same name packed and not, with the same start; or copies, byte by byte.
    """
    seen, result = {}, {}
    for name, entry in files.items():  # sorted: the plain file comes before the packed one
        if entry[2] != "OK":
            continue
        first = entry[4][0]
        keys = (
            (_stem(name), first["mjd"], first["exptime"], first["camera"]),
            (entry[6], entry[0]),
        )
        for key in keys:
            other = seen.get(key)
            if other is None:
                continue
            if key is keys[0] or _same_bytes(datadir, name, other):
                result[name] = other
                break
        if name not in result:
            for key in keys:
                seen.setdefault(key, name)
    return result


def _same_bytes(datadir, one, two):
    try:
        return filecmp.cmp(os.path.join(datadir, one), os.path.join(datadir, two), shallow=False)
    except OSError:
        return False


def _stem(name):
    """A raw file's name without the endings that tell format and packing."""
    return re.sub(r"(\.(fits|fit|fts))?(\.gz|\.fz)?$", "", name, flags=re.IGNORECASE)


SIGNATURE = len('{"digest":"0123456789abcdef",')


def _signed(content):
    """The bytes of a JSON mapping with a digest of it as its first member."""
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    return b'{"digest":"' + digest.encode() + b'",' + content[1:]


def _read_cache(path, key, datadir):
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data != _signed(b"{" + data[SIGNATURE:]):
            raise ValueError("damaged")
        content = json.loads(data)
        if content["key"] == key and content["datadir"] == datadir:
            return content["files"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s cannot be used, the headers are read again", path)
    return {}


def _cached_ok(entry):
    """Whether an entry of the cache has the form that is needed (a cache may be damaged)."""
    return (
        isinstance(entry, list)
        and len(entry) == 7
        and isinstance(entry[2], str)
        and isinstance(entry[4], list)
        and all(isinstance(facts, dict) and "frame" in facts for facts in entry[4])
    )


def _write_atomically(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    finally:
        if beside.exists():
            beside.unlink()


def read_exclude(path):
    """The user's list of frames to leave out: frame or file name, then the reason, a line each.

    A name may hold `*` and `?`; one with spaces is put in quotes; `#` begins a comment line.

    Returns
    -------
    dict
        Name -> reason.
    """
    result = {}
    if path is None or not os.path.exists(path):
        return result
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, _, reason = line.partition(" ")
            if line[0] in "'\"":
                try:
                    name = shlex.split(line)[0]
                    reason = line[len(name) + 2 :]
                except ValueError:
                    pass
            elif "\t" in name:
                name, _, reason = line.partition("\t")
            result[name] = text(reason.strip()) or "no reason given"
    return result


def _excluded(names, excluded):
    """The entry of the exclude list that meets one of a frame's names, or None."""
    for name in filter(None, names):
        if name in excluded:
            return name
    patterns = [entry for entry in excluded if "*" in entry or "?" in entry]
    for entry in patterns:
        if any(fnmatch.fnmatchcase(name, entry) for name in filter(None, names)):
            return entry
    return None


def scan(datadir, instrument="auto", exclude=None, cache=None):
    """Read the headers of a directory of raw frames.

    Parameters
    ----------
    datadir : str or Path
        Directory; files whose name ends in .fits .fit .fts .fz .gz count, folders below do not.
    instrument : str
        `auto` (told from each header), the name of an instrument, or the path of a YAML file.
    exclude : str or Path, optional
        The user's list of frames to leave out.
    cache : str or Path, optional
        File that keeps what was read. It is written only when something changed.

    Returns
    -------
    NightLog

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        When there is no such directory.
    lib.night.instruments.InstrumentError
        When the instrument is not known or its file is wrong.
    """
    # A night is many small dicts, none of them garbage: looking for some costs half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _scan(os.fspath(datadir), instrument, exclude, cache)
    finally:
        if collecting:
            gc.enable()


def _scan(datadir, instrument, exclude, cache):
    key = instruments.instruments_hash(instrument)
    known = _read_cache(cache, key, os.path.abspath(datadir))
    loaded = None if str(instrument) == "auto" else instruments.load_instrument(instrument)
    files, changed = {}, False
    with os.scandir(datadir) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        ]
    for name in sorted(names):
        path = os.path.join(datadir, name)
        try:
            info = os.stat(path)
        except OSError as error:
            files[name] = [0, 0, "REJECTED", f"UNREADABLE: {error.strerror}", [], "", ""]
            continue
        stamp = [info.st_size, info.st_mtime_ns]
        entry = known.get(name)
        if _cached_ok(entry) and entry[:2] == stamp:
            files[name] = entry
            continue
        changed = True
        if stat.S_ISREG(info.st_mode):
            files[name] = stamp + _entry(path, name, info.st_size, loaded)
        else:
            files[name] = stamp + ["REJECTED", "NOT_A_FILE: a folder or device", [], "", ""]
    if cache is not None and (changed or len(files) != len(known)):
        content = {"key": key, "datadir": os.path.abspath(datadir), "files": files}
        _write_atomically(cache, _signed(json.dumps(content, separators=(",", ":")).encode()))
    for name, other in _duplicates(datadir, files).items():
        entry = files[name]
        files[name] = [*entry[:2], "REJECTED", f"DUPLICATE: the same frame as {other}", [],
                       entry[5], ""]  # fmt: skip
    return NightLog(files, read_exclude(exclude))


# ---------------------------------------------------------------------------- naming


def _unique_frames(candidates):
    """Give each facts dict its unique frame name, in the order of `candidates`.

    The first of a name keeps it; others get the milliseconds of their start, then a counter.
    """
    used = set()
    for facts in candidates:
        stem = facts["frame"]
        tail = f"_{safe_name(facts['half'])}" if facts["half"] else ""
        base = stem[: -len(tail)] if tail and stem.endswith(tail) else stem
        name = base + tail
        if name in used:
            moment = facts["date_obs"][20:23]
            head = re.match(r"(2\d{7}T\d{6})(.*)", base)
            base = f"{head.group(1)}{moment}{head.group(2)}" if head else f"{base}_{moment}"
            name, count = base + tail, 2
            while name in used:
                name = f"{base}-{count}{tail}"
                count += 1
        used.add(name)
        facts["frame"] = name


def _unique_names(frames, raw_key, safe_key):
    """Number the names of different raw texts that became the same safe name.

    The text that is its own safe name keeps it; else the one observed first.
    """
    first = {}
    for facts in frames:
        item = (facts[raw_key], facts[safe_key])
        first[item] = min(first.get(item, facts["mjd"]), facts["mjd"])
    by_name = {}
    for (raw, safe), mjd in first.items():
        by_name.setdefault(safe, []).append((raw != safe, mjd, raw))
    if all(len(raws) == 1 for raws in by_name.values()):
        return
    used = set(by_name)
    renamed = {}
    for safe in sorted(by_name):
        for count, (_, _, raw) in enumerate(sorted(by_name[safe])[1:], start=2):
            name = f"{safe[:58]}_{count}"
            while name in used:
                count += 1
                name = f"{safe[:58]}_{count}"
            used.add(name)
            renamed[raw, safe] = name
    for facts in frames:
        facts[safe_key] = renamed.get((facts[raw_key], facts[safe_key]), facts[safe_key])


def _clusters(values, tolerance):
    """Label numbers (None allowed) by chains of neighbours that are closer than tolerance(value).

    Returns a dict value -> label, the smallest value of the chain.
    """
    labels = {None: None}
    previous = label = None
    for value in sorted(v for v in set(values) if v is not None):
        if previous is None or value - previous > tolerance(previous):
            label = value
        labels[value] = label
        previous = value
    return labels


def _exposure_tolerance(exptime):
    return 0.01 + 0.01 * exptime


def _exposure_text(exptime):
    return f"{exptime:.4g}".replace(".", "p").replace("+", "") + "s"


def _shape_text(shape):
    return f"{shape[1]}x{shape[0]}"


# What a group of calibration frames must have in common, in the order in which names are made
# unique and reasons are told.
_GROUP_KEYS = {
    "bias": ("instrument", "camera", "half", "binning", "readout", "shape"),
    "dark": ("instrument", "camera", "half", "binning", "readout", "shape", "exptime"),
    "flat": ("instrument", "camera", "filter", "half", "binning", "readout", "shape"),
}
_QUALIFIERS = ("camera", "half", "exptime", "binning", "shape", "readout", "temperature",
               "instrument")  # fmt: skip


def _qualified(bases, groups, fixed):
    """Names of groups: the base, and of the qualifiers those needed to tell them apart.

    Parameters
    ----------
    bases : list of str
        The base name of each group.
    groups : list of dict
        The properties of each group.
    fixed : tuple of str
        Properties that are in the base already.

    Returns
    -------
    list of str
    """
    members = {}
    for index, base in enumerate(bases):
        members.setdefault(base, []).append(index)
    names = [None] * len(bases)
    taken = set()
    keys = [key for key in _QUALIFIERS if key not in fixed]
    for base in sorted(members):
        for index, name in _told_apart(base, members[base], groups, keys):
            plain, count = name, 2
            while name in taken:
                name = f"{plain}-{count}"
                count += 1
            taken.add(name)
            names[index] = name
    return names


def _told_apart(name, indices, groups, keys):
    """(index, name) of groups, with a qualifier for each key that is needed to tell them apart."""
    if len(indices) == 1 or not keys:
        return [(index, name) for index in indices]
    parts = {}
    for index in indices:
        parts.setdefault(str(groups[index].get(keys[0], "")), []).append(index)
    result = []
    for value in sorted(parts):
        own = name
        if len(parts) > 1:
            qualifier = _qualifier(keys[0], groups[parts[value][0]].get(keys[0]))
            own = f"{name}-{qualifier}" if qualifier else name
        result += _told_apart(own, parts[value], groups, keys[1:])
    return result


def _qualifier(key, value):
    if value is None or value == "":
        return ""
    if key == "shape":
        return _shape_text(value)
    return safe_name(str(value), empty="")[:24]


# ---------------------------------------------------------------------------- the log


class NightLog:
    """What a directory of raw frames holds.

    Parameters
    ----------
    files : dict
        Raw file name -> [size, mtime, status, reason, list of facts, guessed frame name, hash of
        the headers].
    excluded : dict
        Frame or file name -> the user's reason.

    Attributes
    ----------
    frames : dict
        Frame name -> facts, of the frames that are used.
    rows : list of dict
        One row per frame and per file without frames.
    science : list of str
        Names of the science frames, by time.
    biases, darks, flats : dict
        Name of the master -> names of its frames, by time.
    stacks : dict
        `<target>.<filter>` -> frames, by time.
    skies : dict
        `sky-<filter>` -> frames, by time.
    stack_of, sky_of : dict
        The same, from the frame.
    masters : dict
        Name -> path of the ready masters that were added.
    notes : list of str
        Remarks for the user, e.g. names in the exclude list that fit no frame.
    """

    def __init__(self, files, excluded=None):
        self.frames = {}
        self.rows = []
        self.masters = {}
        self.notes = []
        self._ready = {kind: [] for kind in CALIBRATIONS}
        self._matches = {}
        self._fill(files, dict(excluded or {}))
        self._group()

    # -- what there is

    def _fill(self, files, excluded):
        candidates = []
        for name in sorted(files):
            for facts in files[name][4]:
                # Own copies of what is changed here: the entries may be written to the cache.
                facts = dict(facts)
                candidates.append(facts)
        # Names given by the observatory first, so that made-up ones never push them aside.
        candidates.sort(key=lambda f: (not f["raw"].startswith(f["frame"][:15]), f["raw"]))
        _unique_frames(candidates)
        _unique_names([f for f in candidates if f["type"] == "object"], "object", "target")
        _unique_names([f for f in candidates if f["filter"]], "filter_text", "filter")
        by_raw = {}
        for facts in candidates:
            del facts["filter_text"]
            by_raw.setdefault(facts["raw"], []).append(facts)

        unused = set(excluded)
        for name in sorted(files):
            _, _, status, reason, _, guess, _ = files[name]
            if name not in by_raw:
                stem = _stem(name)
                hit = _excluded((name, guess, stem), excluded)
                if hit is not None:
                    unused.discard(hit)
                    status, reason = "IGNORED", f"EXCLUDED: {excluded[hit]}"
                self.rows.append({"frame": guess, "raw": name, "status": status, "reason": reason})
                continue
            stem = _stem(name)
            for facts in by_raw[name]:
                row = {"raw": name, "status": status, "reason": reason, **facts}
                hit = _excluded((facts["frame"], name, stem), excluded)
                need = facts["calibrations"].get(facts["type"])
                if hit is not None:
                    unused.discard(hit)
                    row["status"], row["reason"] = "IGNORED", f"EXCLUDED: {excluded[hit]}"
                elif need == "none":
                    row["status"] = "IGNORED"
                    row["reason"] = f"NOT_NEEDED: {facts['camera']} is used without {facts['type']}"
                else:
                    self.frames[facts["frame"]] = facts
                self.rows.append(row)
        self.notes += [f"exclude: no frame is called {name}" for name in sorted(unused)]

    # -- what belongs together

    def _group(self):
        ordered = sorted(self.frames.values(), key=lambda f: (f["mjd"], f["frame"]))
        self._groups = {kind: {} for kind in CALIBRATIONS}
        for kind in CALIBRATIONS:
            self._group_calibrations(kind, [f for f in ordered if f["type"] == kind])
        self.biases = {name: g["frames"] for name, g in self._groups["bias"].items()}
        self.darks = {name: g["frames"] for name, g in self._groups["dark"].items()}
        self.flats = {name: g["frames"] for name, g in self._groups["flat"].items()}

        science = [f for f in ordered if f["type"] == "object"]
        self.science = [f["frame"] for f in science]
        self._group_stacks(science)
        self._group_skies(science)

    def _group_calibrations(self, kind, frames):
        exposures = {}
        if kind == "dark":
            exposures = _clusters([f["exptime"] for f in frames], _exposure_tolerance)
        groups = {}
        for facts in frames:
            key = tuple(
                exposures[facts["exptime"]] if name == "exptime" else _hashable(facts[name])
                for name in _GROUP_KEYS[kind]
            )
            groups.setdefault(key, []).append(facts)
        split = []
        for key in sorted(groups, key=repr):
            members = groups[key]
            warmth = _clusters([f["temperature"] for f in members], lambda _: TEMPERATURE_TOLERANCE)
            parts = {}
            for facts in members:
                parts.setdefault(warmth[facts["temperature"]], []).append(facts)
            # A temperature is part of the name only where groups differ by it alone.
            split += [
                (parts[label], len(parts) > 1)
                for label in sorted(parts, key=lambda v: (v is None, v or 0))
            ]
        described = []
        for members, by_temperature in split:
            group = {name: members[0][name] for name in _GROUP_KEYS[kind]}
            group["label"] = dict(group)
            if kind == "dark":
                group["label"]["exptime"] = _exposure_text(_middle([f["exptime"] for f in members]))
            group["exptime"] = _middle([f["exptime"] for f in members])
            group["temperature"] = _middle(
                [f["temperature"] for f in members if f["temperature"] is not None]
            )
            if by_temperature and group["temperature"] is not None:
                group["label"]["temperature"] = f"T{round(group['temperature'] / 5) * 5}"
            group["filter"] = members[0]["filter"]
            group["frames"] = [f["frame"] for f in members]
            described.append(group)
        if kind == "flat":
            bases, fixed = [f"flat_{group['filter']}" for group in described], ()
        else:
            bases, fixed = [f"{kind}-{group['camera']}" for group in described], ("camera",)
        names = _qualified(bases, [group["label"] for group in described], fixed)
        for name, group in sorted(zip(names, described, strict=True), key=lambda item: item[0]):
            self._groups[kind][name] = group

    def _group_stacks(self, science):
        cameras = {}
        for facts in science:
            key = (facts["target"], facts["filter"])
            cameras.setdefault(key, set()).add((facts["instrument"], facts["camera"]))
        self.stacks, self.stack_of = {}, {}
        for facts in science:
            found = cameras[facts["target"], facts["filter"]]
            name = f"{facts['target']}.{facts['filter']}"
            if len(found) > 1:
                name += f"-{facts['camera']}"
                if len({camera for _, camera in found}) < len(found):
                    name += f"-{facts['instrument']}"
            self.stacks.setdefault(name, []).append(facts["frame"])
            self.stack_of[facts["frame"]] = name
        self.stacks = dict(sorted(self.stacks.items()))

    def _group_skies(self, science):
        targets = {}
        for facts in science:
            targets.setdefault((facts["filter"], facts["near_infrared"]), set()).add(
                facts["target"]
            )
        groups = {}
        for facts in science:
            apart = facts["near_infrared"] and len(targets[facts["filter"], True]) > 1
            base = f"sky-{facts['filter']}" + (f"-{facts['target']}" if apart else "")
            key = (base,) + tuple(
                _hashable(facts[name])
                for name in ("instrument", "camera", "half", "binning", "shape", "readout")
            )
            groups.setdefault(key, []).append(facts)
        keys = sorted(groups, key=repr)
        names = _qualified(
            [key[0] for key in keys], [groups[key][0] for key in keys], ("exptime", "temperature")
        )
        self.skies, self.sky_of = {}, {}
        for name, key in sorted(zip(names, keys, strict=True), key=lambda item: item[0]):
            self.skies[name] = [facts["frame"] for facts in groups[key]]
            for facts in groups[key]:
                self.sky_of[facts["frame"]] = name

    # -- calibrations

    def add_masters(self, directory):
        """Take ready masters (bias-C0.fits, flat_H.fits, ...) into the matching; raws win.

        Parameters
        ----------
        directory : str or Path or None
            Directory of the ready masters; None or empty adds nothing.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            When there is no such directory.
        """
        if not directory:
            return
        self._matches.clear()
        directory = os.fspath(directory)
        for name in sorted(os.listdir(directory)):
            match = re.fullmatch(r"((bias-|dark-|flat_)[A-Za-z0-9_+-]+)\.fits?", name)
            if not match:
                continue
            stem, kind = match.group(1), match.group(2)[:4]
            if stem in self._groups[kind]:
                continue
            path = os.path.join(directory, name)
            try:
                header, infos = read_headers(path)
            except FrameUnusable as reason:
                self.notes.append(f"masters: {name}: {reason}")
                continue
            shape = next((info["shape"] for info in infos if info["shape"]), None)
            if shape is None or len(shape) != 2:
                self.notes.append(f"masters: {name}: no image in it")
                continue
            self._ready[kind].append(_ready_group(stem, kind, header, shape))
            self.masters[stem] = path

    def match(self, frame):
        """The masters that belong to a frame.

        Parameters
        ----------
        frame : str
            Name of a frame, of any type.

        Returns
        -------
        dict
            `bias`, `dark`, `flat`: name of the master or None; `notes`: kind -> why none, for
            the kinds that the frame wants, with each candidate and the keys on which it failed.
        """
        facts = self.frames[frame]
        key = tuple(
            _hashable(facts[name])
            for name in (
                "type", "instrument", "camera", "half", "filter", "binning", "readout", "shape",
                "exptime", "temperature",
            )
        )  # fmt: skip
        if key not in self._matches:
            self._matches[key] = self._find(facts)
        return self._matches[key]

    def _find(self, facts):
        wanted = {"bias": (), "dark": ("bias",), "flat": ("bias", "dark"), "object": CALIBRATIONS}
        result = dict.fromkeys(CALIBRATIONS)
        result["notes"] = {}
        for kind in wanted[facts["type"]]:
            if facts["calibrations"][kind] == "none":
                continue
            name, note = self._pick(kind, facts, result["bias"])
            result[kind] = name
            if name is None:
                result["notes"][kind] = note
        return result

    def _pick(self, kind, facts, bias):
        fits, failed = [], []
        for name, group in self._groups[kind].items():
            why = _differences(kind, group, facts)
            if why:
                failed.append((len(why), name, why))
            else:
                fits.append((name, group))
        if not fits:
            for group in self._ready[kind]:
                why = _differences(kind, group, facts)
                if why:
                    failed.append((len(why), group["name"], why))
                else:
                    fits.append((group["name"], group))
        if kind == "dark":
            fits, other = _nearest_darks(fits, facts["exptime"], bias)
            failed += [(0, name, why) for name, why in other]
        if fits:
            fits.sort(key=lambda item: (_warmth(item[1], facts), item[0]))
            return fits[0][0], ""
        if not failed:
            return None, f"there is no {kind} frame"
        failed.sort()
        told = [f"{name}: {', '.join(why)}" for _, name, why in failed[:6]]
        more = f"; and {len(failed) - 6} more" if len(failed) > 6 else ""
        return None, f"none of {len(failed)} fits; " + "; ".join(told) + more

    # -- the table

    def table_text(self):
        """The table of frames as ECSV text."""
        kinds = {name: "float64" if name in _FLOATS else "string" for name in COLUMNS}
        types = [f"# - {{name: {name}, datatype: {kind}}}" for name, kind in kinds.items()]
        lines = ["# %ECSV 1.0", "# ---", "# datatype:", *types, "# schema: astropy-2.0"]
        lines.append(",".join(COLUMNS))
        lines[2:2] = ["# delimiter: ','"]
        for row in self.rows:
            row = dict(row)
            frame = row["frame"]
            if frame in self.frames and self.frames[frame]["raw"] == row["raw"]:
                found = self.match(frame)
                row.update({kind: found[kind] for kind in CALIBRATIONS})
                row["calnote"] = "; ".join(f"{k}: {v}" for k, v in found["notes"].items())
            if "shape" in row:
                row["shape"] = _shape_text(row["shape"])
            fields = []
            for name in COLUMNS:
                value = row.get(name)
                if value is None:
                    fields.append("")
                elif name in _FLOATS:
                    fields.append(repr(float(value)))
                else:
                    fields.append(_cell(value))
            lines.append(",".join(fields))
        return "\n".join(lines) + "\n"

    def write(self, path):
        """Write the table (ECSV); an unchanged file is left as it is.

        Returns
        -------
        bool
            Whether the file was written.
        """
        content = self.table_text().encode()
        try:
            with open(path, "rb") as file:
                if file.read() == content:
                    return False
        except FileNotFoundError:
            pass
        _write_atomically(path, content)
        return True


def _cell(value):
    """A text as field of the table: quoted, and on one line whatever is in it."""
    if not value:
        return ""
    if not value.isprintable():
        value = value.encode("unicode_escape").decode("ascii")
    return '"' + value.replace('"', '""') + '"'


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def _middle(values):
    return sorted(values)[len(values) // 2] if values else None


def _warmth(group, facts):
    if group.get("temperature") is None or facts["temperature"] is None:
        return 0.0
    return abs(group["temperature"] - facts["temperature"])


def _ready_group(stem, kind, header, shape):
    """What a ready master is, as far as its header and name tell; None fits everything."""
    group = {"name": stem, "shape": shape, "half": None, "instrument": None, "frames": []}
    group["camera"] = text(header.get("CAMERA")) or None
    group["binning"] = instruments.parse_binning(header.get("BINNING"))
    group["readout"] = text(header.get("READOUT")) or None
    group["exptime"] = instruments.number(header.get("EXPTIME"))
    group["temperature"] = instruments.number(header.get("CCDTEMP"))
    group["filter"] = None
    if kind == "flat":
        group["filter"] = safe_name(header.get("FILTER"), "", "") or None
        group["flat_name"] = stem[5:]
    elif group["camera"] is None:
        group["camera"] = stem[5:].split("-")[0]
    return group


def _differences(kind, group, facts):
    """The keys on which a group does not fit a frame, as `key: its value, not the frame's`."""
    why = []
    for key in _GROUP_KEYS[kind]:
        if key == "exptime":
            continue
        value, wanted = group[key], facts[key]
        if key == "filter" and value is None:  # a ready flat: its name tells
            name = group["flat_name"]
            if name != wanted and not name.startswith(f"{wanted}-"):
                why.append(f"filter {name}, not {wanted}")
            continue
        if value is None or value == wanted:
            continue
        if key == "shape":
            value, wanted = _shape_text(value), _shape_text(wanted)
        why.append(f"{key} {value or 'none'}, not {wanted or 'none'}")
    if _warmth(group, facts) > TEMPERATURE_TOLERANCE:
        why.append(f"temperature {group['temperature']:g}, not {facts['temperature']:g}")
    return why


def _nearest_darks(fits, exptime, bias):
    """Of the darks that fit, those of the same exposure; else, with a bias, the longest."""
    same = [
        item
        for item in fits
        if item[1]["exptime"] is not None
        and abs(item[1]["exptime"] - exptime) <= _exposure_tolerance(exptime)
    ]
    if same:
        return same, []
    usable = [item for item in fits if item[1]["exptime"]]
    if bias is not None and usable:
        longest = max(item[1]["exptime"] for item in usable)
        return [item for item in usable if item[1]["exptime"] == longest], []
    why = [f"not {exptime:g} s, and without a bias it cannot be scaled"]
    return [], [(name, [f"exptime {group['exptime'] or 0:g} s, {why[0]}"]) for name, group in fits]
