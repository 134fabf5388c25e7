"""What each raw file of a night is: read from its headers, or from the cache.

This is the only place where raw headers are interpreted for grouping.
"""

import filecmp
import hashlib
import json
import logging
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from lib.core.contents import RECORD, ContentRecord, Stamp, checksum
from lib.core.files import atomic_path
from lib.core.guarded import failure_text
from lib.core.rawfiles import RawPlaces
from lib.night.completeness import blank_end, changing, incomplete
from lib.night.facts import FrameFacts
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.instrumentfile import identify, instruments_hash, load_instrument, read_sources
from lib.night.instrumentremarks import (
    absent_keywords,
    band_notes,
    frame_remarks,
    keyword_notes,
    own_keywords,
    remark_notes,
)
from lib.night.instrumentsource import InstrumentError, Source
from lib.night.interpret import interpret, merged_header
from lib.night.rawheaders import RawHeaders, read_headers
from lib.night.siblings import Likeness, adopt, likeness, tell_detectors

NIGHT_FOLDERS = "[12]" + 7 * "[0-9]" + "/"
"""Glob pattern of the folders of nights in `imdir`."""

ENDINGS = re.compile(r"(\.(fits|fit|fts))?(\.gz|\.fz)?$", re.IGNORECASE)

log = logging.getLogger(__name__)

TOLD = (
    "camera", "type", "exptime", "mjd", "instrument", "ra", "dec", "date_obs", "object", "target",
    "filter", "band", "gain", "rdnoise",
)  # fmt: skip
"""Properties listed in the table also for files that are not used."""


def _claiming(headers: RawHeaders) -> str:
    """Return the instrument whose file matches a raw file and its image extensions, or ''."""
    found = identify(headers.primary)
    for hdu in headers.hdus[1:]:
        if found != "generic":
            break
        if hdu.index == 1 or hdu.shape:
            found = identify(merged_header(headers.primary, hdu.header))
    return "" if found == "generic" else found


def _entry(path: str, name: str, size: int, choice: "Choice") -> list[Any]:
    """Return the cache entry of a raw file: [status, reason, facts, guess, digest, more]."""
    stem = stem_of(os.path.basename(name))
    guess = stem if re.fullmatch(r"2[0-9A-Za-z_+-]{0,63}", stem) else ""
    more: dict[str, Any] = {}
    try:
        if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name):
            raise FrameUnusable("BAD_FILE_NAME", "control characters or no UTF-8 in the name")
        headers = read_headers(path, size)
        if blank := blank_end(path, headers):
            more["blank"] = blank
        if choice.keywords:
            all_headers = [hdu.header for hdu in headers.hdus]
            more["absent"] = absent_keywords(choice.keywords, all_headers)
        if alike := likeness(headers):
            more["alike"] = alike.to_list()
        instruments = [choice.loaded] if choice.loaded else []
        if not instruments:
            claimed = _claiming(headers)
            adopted = "" if claimed else choice.adopted.get(name, "")
            more |= {"claimed": claimed, "adopted": adopted}
            names = [claimed] if claimed else [adopted, "generic"]
            instruments = [load_instrument(one) for one in names if one]
        facts, used = _interpret(headers, name, instruments)
        remarks = _remarks(headers, name, facts[0], used)
        if remarks:
            more["remarks"] = remarks
    except FrameIgnored as reason:
        return [reason.status, str(reason), [], guess, "", more | {"told": reason.told}]
    except (MemoryError, InstrumentError):
        raise
    except Exception as error:  # noqa: BLE001 - an unforeseen header costs only its own frame
        log.exception("%r cannot be interpreted", name)
        return ["REJECTED", f"UNEXPECTED: {failure_text(error)}", [], guess, "", more]
    return ["OK", "", [one.to_dict() for one in facts], guess, headers.digest, more]


def _interpret(
    headers: RawHeaders, name: str, instruments: list[dict[str, Any]]
) -> tuple[list[FrameFacts], dict[str, Any]]:
    """Return the facts, and the first instrument that can read them; otherwise its exception."""
    reason = None
    for instrument in instruments:
        try:
            return interpret(headers.primary, headers.hdus, name, instrument), instrument
        except FrameUnusable as error:
            reason = reason or error
    assert reason is not None
    raise reason


def _remarks(
    headers: RawHeaders, name: str, facts: FrameFacts, instrument: dict[str, Any]
) -> list[str]:
    """Return the entries of an instrument file for a frame's camera that were not used."""
    image = headers.hdus[facts.amplifiers[0].hdu]
    header = merged_header(headers.primary, image.header) if image.index else headers.primary
    return frame_remarks(header, image, facts, instrument["cameras"][facts.camera], name)


class RawRecords:
    """The checksums of raw files found by jobs: records of an `imdir` and of the nights in it.

    Parameters
    ----------
    imdir : Path
    """

    def __init__(self, imdir: Path) -> None:
        self._found: dict[str, list[tuple[ContentRecord, dict[str, Any]]]] = {}
        for path in sorted(imdir.glob(f"{NIGHT_FOLDERS}{RECORD}")) + [imdir / RECORD]:
            record = ContentRecord(path.parent)
            for name, entry in record.entries.items():
                if name.startswith("raw:"):
                    self._found.setdefault(name[4:], []).append((record, entry))

    def find(self, name: str, stamp: Stamp) -> tuple[ContentRecord | None, dict[str, Any]]:
        """Return the record and cache entry of a raw file.

        Files of the same name are distinguished by size and times.
        """
        found = self._found.get(os.path.basename(name), [])
        if len(found) > 1:
            found = [one for one in found if one[1].get("stamp") in (None, list(stamp))]
        return found[0] if found else (None, {})


def _content(records: RawRecords | None, name: str, path: str, stamp: Stamp, headers: str) -> str:
    """Return an identifier of the content of a raw file that is stable as long as its bytes are.

    Once a job has read the file, it is the checksum: changed times have no effect, and changed
    bytes do whatever the times. Until then size, time and headers are used, to avoid reading a
    night twice.
    """
    size, mtime, _ = stamp
    plain = hashlib.blake2b(f"{size} {mtime} {headers}".encode(), digest_size=8).hexdigest()
    record, known = records.find(name, stamp) if records else (None, {})
    if record is None or not isinstance(known.get("content"), str):
        return plain
    if known.get("stamp") == list(stamp):
        return known["content"]
    try:
        found = checksum(path)
        if found == known["sum"]:
            record.write(known["name"], stamp, found, content=known["content"])
            return known["content"]
    except OSError:
        found = "unreadable"
    words = f"{plain} {found} {known.get('failed', '')}"
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def _duplicates(datadir: str, files: dict[str, list[Any]]) -> dict[str, str]:
    """Return the files that contain the same frame as another one: name -> name of the one used.

    Duplicates are the same name with and without compression, with the same start; and identical
    copies.
    """
    seen: dict[Any, str] = {}
    result: dict[str, str] = {}
    for name, entry in files.items():  # sorted: the plain file comes before the compressed one
        if entry[2] != "OK":
            continue
        first = entry[4][0]
        keys = (
            (stem_of(name), first["mjd"], first["exptime"], first["camera"]),
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


def stem_of(name: str) -> str:
    """Return a raw file's name without the extensions for format and compression."""
    return ENDINGS.sub("", name)


SIGNATURE = len('{"digest":"0123456789abcdef",')


def _signed(content):
    """Return the bytes of a JSON mapping with its digest as first member."""
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    return b'{"digest":"' + digest.encode() + b'",' + content[1:]


def _read_cache(
    path: str | os.PathLike[str] | None, key: str, datadir: str
) -> dict[str, list[Any]]:
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data != _signed(b"{" + data[SIGNATURE:]):
            raise ValueError("damaged")
        content = json.loads(data)
        if content["key"] == key:
            return _renamed(content["files"], content["datadir"], datadir)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        log.warning("%s cannot be used, the headers are read again", path)
    return {}


def _renamed(files: dict[str, list[Any]], before: str, now: str) -> dict[str, list[Any]]:
    """Return cache entries with their names relative to another directory, where they are in it."""
    if before == now:
        return files
    renamed = {}
    for name, entry in files.items():
        own = os.path.relpath(os.path.join(before, name), now)
        if not own.startswith(os.pardir):
            for facts in entry[4]:
                facts["raw"] = own
            renamed[own] = entry
    return renamed


def _cached_ok(entry: Any) -> TypeGuard[list[Any]]:
    """Return whether a cache entry has the expected form (caches may be damaged)."""
    return (
        isinstance(entry, list)
        and len(entry) == 9
        and all(isinstance(text, str) for text in entry[2:4])
        and isinstance(entry[4], list)
        and isinstance(entry[7], dict)
        and isinstance(entry[7].get("told", {}), dict)
        and isinstance(entry[8], list)
        and all(isinstance(facts, dict) and "frame" in facts for facts in entry[4])
    )


@dataclass
class Choice:
    """How the instrument of each file is determined.

    Parameters
    ----------
    loaded : dict or None
        The instrument of all files; None if it is identified for each file.
    adopted : dict of str to str
        Instrument, from their siblings, of files that no instrument file matches.
    sources : list of Source
        The user's own instrument file, followed by those that it extends.
    """

    loaded: dict[str, Any] | None
    adopted: dict[str, str] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, instrument: str | Path) -> "Choice":
        """Return the choice given by the configuration.

        Raises
        ------
        lib.night.instrumentsource.InstrumentError
            The instrument is unknown, or its file is wrong.
        """
        if str(instrument) == "auto":
            return cls(None)
        sources = []
        if str(instrument).endswith((".yaml", ".yml")):
            sources = read_sources(Path(instrument))
        loaded = load_instrument(instrument)
        keywords = list(own_keywords(sources[0].content)) if sources else []
        return cls(loaded, sources=sources, keywords=keywords)


def _without_frames(entry: list[Any], why: str) -> list[Any]:
    """Return the entry of a file that is not used, with its known properties."""
    told = {
        key: entry[4][0][key] for key in TOLD if entry[4] and entry[4][0].get(key) not in (None, "")
    }
    return [*entry[:2], "REJECTED", why, [], entry[5], "", {"told": told}, entry[8]]


def _join_siblings(datadir: str, files: dict[str, list[Any]], choice: Choice) -> bool:
    """Read files that no instrument matches as their siblings; return whether there were any."""
    claims = {name: entry[7] for name, entry in files.items() if "alike" in entry[7]}
    if not any(more["claimed"] or more["adopted"] for more in claims.values()):
        return False
    alike = {name: Likeness.from_list(more["alike"]) for name, more in claims.items()}
    claimed = {(more["claimed"], alike[name]) for name, more in claims.items() if more["claimed"]}
    unclaimed = {name: alike[name] for name, more in claims.items() if not more["claimed"]}
    choice.adopted = adopt(unclaimed, claimed)
    changed = False
    for name in unclaimed:
        entry = files[name]
        if claims[name]["adopted"] != choice.adopted.get(name, ""):
            path = os.path.join(datadir, name)
            files[name] = [*entry[:2], *_entry(path, name, entry[0], choice), entry[8]]
            changed = True
    return changed


def _tell_detectors(files: dict[str, list[Any]]) -> list[str]:
    """Name the detectors of frames where instrument files do not, and return a remark on them."""
    alike = {
        name: Likeness.from_list(entry[7]["alike"])
        for name, entry in files.items()
        if entry[4] and entry[4][0]["instrument"] == "generic" and "alike" in entry[7]
    }
    names = tell_detectors(alike)
    for file, name in names.items():
        for one in files[file][4]:
            one["detector"] = name
    known = sorted(set(names.values()) - {""})
    if not known:
        return []
    return [f"{len(known)} cameras in one folder, by their headers: {', '.join(known)}"]


def _sibling_notes(files: dict[str, list[Any]]) -> list[str]:
    """Return one sentence per instrument that files have joined."""
    joined: dict[str, list[str]] = {}
    for name, entry in files.items():
        adopted = entry[7].get("adopted")
        if adopted:
            instrument = entry[4][0]["instrument"] if entry[4] else adopted
            joined.setdefault(instrument, []).append(name)
    return [
        f"instrument: {len(names)} file{'s' * (len(names) != 1)} that no instrument claims "
        f"({names[0]}{' ...' * (len(names) > 1)}) read as {instrument}, like the other frames of "
        "the same camera"
        for instrument, names in joined.items()
        if instrument != "generic"
    ]


def _remark_notes(datadir: str, files: dict[str, list[Any]], choice: Choice) -> list[str]:
    """Return one sentence per entry of the instrument files that has no effect in this night."""
    used = [entry for entry in files.values() if entry[4]]
    remarks = [
        (entry[4][0]["instrument"], entry[4][0]["camera"], remark)
        for entry in used
        for remark in entry[7].get("remarks", ())
    ]
    bandless = [
        (facts["instrument"], facts["filter_text"] or facts["filter"])
        for entry in used
        for facts in entry[4]
        if facts["type"] == "object" and not facts["band"]
    ]
    notes = remark_notes(remarks) + band_notes(bandless)
    lacking = [set(entry[7]["absent"]) for entry in files.values() if "absent" in entry[7]]
    absent = set.intersection(*lacking) if lacking else set()
    if absent:
        name = next(name for name, entry in files.items() if "absent" in entry[7])
        known = []
        with suppress(FrameUnusable):  # deleted since it was read
            known = [key for hdu in read_headers(f"{datadir}/{name}").hdus for key in hdu.header]
        notes += keyword_notes(
            [key for key in choice.keywords if key in absent], choice.sources, known
        )
    return notes


def read_files(
    places: RawPlaces, instrument: str | Path, cache: str | os.PathLike[str] | None
) -> tuple[dict[str, list[Any]], list[str]]:
    """Read the headers of raw files that have changed since they were last read.

    Parameters
    ----------
    places : RawPlaces
        Where the raw files are.
    instrument : str or Path
        See `lib.night.nightlog.scan`.
    cache : path-like or None
        File that caches the headers.

    Returns
    -------
    files : dict of str to list
        Entry of each file: size, time [ns], status, reason, facts, name of a frame, digest of its
        headers, more; time of its last status change, and identifier of its content.
    notes : list of str
        Remarks about the files.
    """
    key, datadir = instruments_hash(instrument), places.root
    known = _read_cache(cache, key, os.path.abspath(datadir))
    choice = Choice.of(instrument)
    records = None if cache is None else RawRecords(Path(cache).parent)
    files, read = _read_changed(places, known, choice, records)
    changed = bool(read)
    written = changing(datadir, read)
    if choice.loaded is None:
        changed |= _join_siblings(datadir, files, choice)
    if cache is not None and (changed or len(files) != len(known)):
        whole = {"key": key, "datadir": os.path.abspath(datadir), "files": files}
        with atomic_path(cache) as beside:
            beside.write_bytes(_signed(json.dumps(whole, separators=(",", ":")).encode()))
    for entry in files.values():
        for one in entry[4]:
            one["content"] = entry[8][1]
    notes = _sibling_notes(files) + _tell_detectors(files) + _remark_notes(datadir, files, choice)
    unfinished = dict.fromkeys(written, "INCOMPLETE: it changes while it is read")
    for name, why in (incomplete(files) | unfinished).items():
        files[name] = _without_frames(files[name], why)
    for name, other in _duplicates(datadir, files).items():
        files[name] = _without_frames(files[name], f"DUPLICATE: the same frame as {other}")
    return files, notes


def _read_changed(
    places: RawPlaces,
    known: dict[str, list[Any]],
    choice: Choice,
    records: RawRecords | None,
) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
    """Return the entries of all files, and size and time [ns] of those that were read now."""
    files: dict[str, list[Any]] = {}
    read: dict[str, list[int]] = {}
    for name in places.names():
        path = os.path.join(places.root, name)
        try:
            info = os.stat(path)
        except OSError as error:
            files[name] = [0, 0, "REJECTED", f"UNREADABLE: {error.strerror}", [], "", "", {}, []]
            continue
        stamp = (info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        entry = known.get(name)
        # A file that could not be read may be readable now, even if unchanged.
        if (
            _cached_ok(entry)
            and (*entry[:2], *entry[8][:1]) == stamp
            and not entry[3].startswith("UNREADABLE")
            and not (records and records.find(name, stamp)[1].get("failed"))
        ):
            files[name] = entry
            continue
        if stat.S_ISREG(info.st_mode):
            kept = _entry(path, name, info.st_size, choice)
            content = _content(records, name, path, stamp, kept[4]) if kept[2] else ""
        else:
            kept = ["REJECTED", "NOT_A_FILE: a folder or device", [], "", "", {}]
            content = ""
        files[name] = [*stamp[:2], *kept, [stamp[2], content]]
        read[name] = list(stamp[:2])
    return files, read
