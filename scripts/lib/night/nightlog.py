"""The night log: what every raw file is, and what belongs together.

The only place where raw headers are read for grouping. What was found is kept in a cache, so
that a second start costs milliseconds."""

import filecmp
import gc
import hashlib
import json
import logging
import os
import re
import stat
from pathlib import Path

from lib.night.calibrationmatch import (
    GROUP_KEYS,
    TEMPERATURE_TOLERANCE,
    differences,
    exposure_tolerance,
    nearest_darks,
    ready_group,
    temperature_difference,
)
from lib.night.exclude import excluding_entry, read_exclude
from lib.night.frameignored import FrameIgnored, FrameUnusable
from lib.night.instrumentfile import identify, instruments_hash, load_instrument
from lib.night.interpret import CALIBRATIONS, interpret, merged_header
from lib.night.naming import (
    exposure_text,
    hashable,
    qualified,
    shape_text,
    unique_frames,
    unique_names,
)
from lib.night.rawheaders import read_headers

SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".gz")


COLUMNS = (
    "frame raw status reason instrument camera type target object filter band exptime date_obs "
    "mjd airmass ra dec binning readout shape gain rdnoise saturate temperature bias dark flat "
    "calnote"
).split()


_FLOATS = {"exptime", "mjd", "airmass", "ra", "dec", "gain", "rdnoise", "saturate", "temperature"}


log = logging.getLogger(__name__)


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
            found = identify(header)
            if found == "generic" and len(infos) > 1:
                merged = merged_header(header, infos[1]["header"])
                found = identify(merged)
            used = load_instrument(found)
        else:
            used = instrument
        facts = interpret(header, infos, name, used)
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
    lib.night.instrumentfile.InstrumentError
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
    key = instruments_hash(instrument)
    known = _read_cache(cache, key, os.path.abspath(datadir))
    loaded = None if str(instrument) == "auto" else load_instrument(instrument)
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
        unique_frames(candidates)
        unique_names([f for f in candidates if f["type"] == "object"], "object", "target")
        unique_names([f for f in candidates if f["filter"]], "filter_text", "filter")
        by_raw = {}
        for facts in candidates:
            del facts["filter_text"]
            by_raw.setdefault(facts["raw"], []).append(facts)

        unused = set(excluded)
        for name in sorted(files):
            _, _, status, reason, _, guess, _ = files[name]
            if name not in by_raw:
                stem = _stem(name)
                hit = excluding_entry((name, guess, stem), excluded)
                if hit is not None:
                    unused.discard(hit)
                    status, reason = "IGNORED", f"EXCLUDED: {excluded[hit]}"
                self.rows.append({"frame": guess, "raw": name, "status": status, "reason": reason})
                continue
            stem = _stem(name)
            for facts in by_raw[name]:
                row = {"raw": name, "status": status, "reason": reason, **facts}
                hit = excluding_entry((facts["frame"], name, stem), excluded)
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
            exposures = _clusters([f["exptime"] for f in frames], exposure_tolerance)
        groups = {}
        for facts in frames:
            key = tuple(
                exposures[facts["exptime"]] if name == "exptime" else hashable(facts[name])
                for name in GROUP_KEYS[kind]
            )
            groups.setdefault(key, []).append(facts)
        split = []
        for key in sorted(groups, key=repr):
            members = groups[key]
            labels = _clusters([f["temperature"] for f in members], lambda _: TEMPERATURE_TOLERANCE)
            parts = {}
            for facts in members:
                parts.setdefault(labels[facts["temperature"]], []).append(facts)
            # A temperature is part of the name only where groups differ by it alone.
            split += [
                (parts[label], len(parts) > 1)
                for label in sorted(parts, key=lambda v: (v is None, v or 0))
            ]
        described = []
        for members, by_temperature in split:
            group = {name: members[0][name] for name in GROUP_KEYS[kind]}
            group["label"] = dict(group)
            if kind == "dark":
                group["label"]["exptime"] = exposure_text(_middle([f["exptime"] for f in members]))
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
        names = qualified(bases, [group["label"] for group in described], fixed)
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
                hashable(facts[name])
                for name in ("instrument", "camera", "half", "binning", "shape", "readout")
            )
            groups.setdefault(key, []).append(facts)
        keys = sorted(groups, key=repr)
        names = qualified(
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
            self._ready[kind].append(ready_group(stem, kind, header, shape))
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
            hashable(facts[name])
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
            why = differences(kind, group, facts)
            if why:
                failed.append((len(why), name, why))
            else:
                fits.append((name, group))
        if not fits:
            for group in self._ready[kind]:
                why = differences(kind, group, facts)
                if why:
                    failed.append((len(why), group["name"], why))
                else:
                    fits.append((group["name"], group))
        if kind == "dark":
            fits, other = nearest_darks(fits, facts["exptime"], bias)
            failed += [(0, name, why) for name, why in other]
        if fits:
            fits.sort(key=lambda item: (temperature_difference(item[1], facts), item[0]))
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
                row["shape"] = shape_text(row["shape"])
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


def _middle(values):
    return sorted(values)[len(values) // 2] if values else None
