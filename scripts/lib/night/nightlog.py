"""The night log: what each raw file is, and which frames belong together.

The headers' content is cached (`lib.night.rawlog`), so that a second start takes milliseconds.
"""

import gc
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.core.files import atomic_path, folds_case
from lib.core.rawfiles import RawPlaces, listed, places_of
from lib.core.text import shown
from lib.night.calibrationmatch import (
    DETECTOR_KEYS,
    GROUP_KEYS,
    SETTINGS,
    SOURCES,
    CalibrationGroup,
    CalibrationMatch,
    bias_remark,
    differences,
    exposure_tolerance,
    made_here,
    nearest_darks,
    preference,
    ready_group,
)
from lib.night.exclude import excluding_entry, read_exclude
from lib.night.facts import FrameFacts
from lib.night.filternames import unite_filters
from lib.night.frameignored import FrameUnusable
from lib.night.grouping import group_calibrations, group_skies, group_stacks
from lib.night.interpret import CALIBRATIONS
from lib.night.naming import (
    hashable,
    shape_text,
    unfold_case,
    unique_frames,
    unique_names,
)
from lib.night.nights import tell_nights
from lib.night.places import unite_targets
from lib.night.rawheaders import read_headers
from lib.night.rawlog import read_files, stem_of
from lib.night.remarks import clashing_times, header_remarks

COLUMNS = (
    "frame raw status reason instrument camera type target object filter band exptime date_obs "
    "mjd airmass ra dec binning readout shape gain rdnoise saturate temperature bias dark flat "
    "calnote note"
).split()

FLOAT_COLUMNS = {
    "exptime",
    "mjd",
    "airmass",
    "ra",
    "dec",
    "gain",
    "rdnoise",
    "saturate",
    "temperature",
}

CACHE = ".nightlog.json"
"""Name of the cache of headers in `imdir`."""

MASTER_FILE = re.compile(r"(?:.*/)?(?:bias-|dark-|flat_)[A-Za-z0-9_+-]+\.fits?")
"""Names of ready masters."""

WANTED: dict[str, tuple[str, ...]] = {
    "bias": (),
    "dark": ("bias",),
    "flat": ("bias", "dark"),
    "object": CALIBRATIONS,
}
"""Calibrations needed by frames of each type."""


def scan(
    datadir: str | os.PathLike[str] | RawPlaces,
    instrument: str | Path = "auto",
    exclude: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> "NightLog":
    """Read the headers of a directory of raw frames.

    Parameters
    ----------
    datadir : str or Path or RawPlaces
        Directory; files ending in .fits .fit .fts .fz .gz are read, subdirectories are not. Or the
        places of raw files, from `lib.core.rawfiles.raw_places`.
    instrument : str
        `auto` (identified from each header), the name of an instrument, or the path of a YAML file.
    exclude : str or Path, optional
        The user's list of frames to leave out.
    cache : str or Path, optional
        File that caches the headers. It is written only if something changed.

    Returns
    -------
    NightLog

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such directory.
    lib.night.instrumentfile.InstrumentError
        The instrument is unknown, or its file is wrong.
    """
    # A night is many small dicts, none of them garbage: looking for some costs half of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        places = datadir
        if not isinstance(places, RawPlaces):
            places = RawPlaces(os.fspath(places), (os.fspath(places),))
        files, notes = read_files(places, instrument, cache)
        fold = cache is not None and folds_case(Path(cache).parent)
        return NightLog(files, read_exclude(exclude), notes, fold)
    finally:
        if collecting:
            gc.enable()


def open_log(config: Mapping[str, Any], imdir: str | os.PathLike[str]) -> "NightLog":
    """Return the log of all raw files of a run; only headers of changed files are read.

    Parameters
    ----------
    config : dict
        Checked by `lib.engine.config.check_config`, its paths by `lib.engine.paths.check_places`.
    imdir : path-like
        Directory of the products, which has the cache of headers.
    """
    cache = os.path.join(imdir, CACHE)
    return scan(places_of(config), config["instrument"], config["exclude"], cache)


@dataclass
class LogRow:
    """A row of the night log: a frame, or a file without frames.

    Parameters
    ----------
    frame : str
        Name of the frame; for a file without frames the name it would have, or empty.
    raw : str
        Name of the raw file.
    status : {'OK', 'IGNORED', 'REJECTED'}
    reason : str
        ``CODE: words``; empty where the frame is used.
    facts : FrameFacts or None
        Facts of a usable frame.
    told : dict
        Known properties of a frame without facts, by column.
    """

    frame: str
    raw: str
    status: str
    reason: str
    facts: FrameFacts | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column; `default` where it has none."""
        if name in ("frame", "raw", "status", "reason"):
            return getattr(self, name)
        if self.facts is None:
            return self.told.get(name, default)
        if name == "note":
            return "; ".join(self.facts.notes)
        return self.facts.get(name, default)


class NightLog:
    """The contents of a directory of raw frames.

    Parameters
    ----------
    files : dict
        Raw file name -> [size, mtime, status, reason, list of facts, guessed frame name, hash of
        the headers, more, [ctime, identifier of the content]].
    excluded : dict
        Frame or file name -> the user's reason.
    notes : iterable of str
        Remarks for the user on how the files were read.
    fold_case : bool
        Whether the file system of the products ignores case.

    Attributes
    ----------
    frames : dict of str to FrameFacts
        Usable frames by name.
    rows : list of LogRow
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
    borrowed : dict
        Name ``20220127/flat_r`` -> path below `imdir` of the masters of earlier nights that were
        considered.
    notes : list of str
        Remarks for the user, e.g. names in the exclude list that match no frame.
    """

    def __init__(
        self,
        files: dict[str, list[Any]],
        excluded: Mapping[str, str] | None = None,
        notes: Iterable[str] = (),
        fold_case: bool = False,
    ) -> None:
        self._fold_case = fold_case
        self.frames: dict[str, FrameFacts] = {}
        self.rows: list[LogRow] = []
        self.masters: dict[str, str] = {}
        self.notes: list[str] = list(notes)
        self.borrowed: dict[str, str] = {}
        self._ready: dict[str, list[CalibrationGroup]] = {kind: [] for kind in CALIBRATIONS}
        self._library: list[tuple[str, NightLog, str]] = []
        self._max_age: dict[str, float | None] = {}
        self._matches: dict[str | tuple[Any, ...], CalibrationMatch] = {}
        self._fill(files, dict(excluded or {}))
        self._group()

    def _group(self) -> None:
        """Group the frames into masters, stacks and skies."""
        ordered = sorted(self.frames.values(), key=lambda one: (one.mjd, one.frame))
        self.notes += header_remarks(ordered) + clashing_times(ordered)
        self._groups = {
            kind: group_calibrations(kind, [one for one in ordered if one.type == kind])
            for kind in CALIBRATIONS
        }
        self.biases, self.darks, self.flats = (
            {name: group.frames for name, group in self._groups[kind].items()}
            for kind in CALIBRATIONS
        )
        science = [one for one in ordered if one.type == "object"]
        self.science = [one.frame for one in science]
        self.stacks = group_stacks(science)
        self.skies = group_skies(science)
        self.stack_of = {frame: name for name, members in self.stacks.items() for frame in members}
        self.sky_of = {frame: name for name, members in self.skies.items() for frame in members}

    def _fill(self, files: dict[str, list[Any]], excluded: dict[str, str]) -> None:
        """Make the rows, and give each frame its unique name."""
        candidates = [FrameFacts.from_dict(one) for name in sorted(files) for one in files[name][4]]
        # Names given by the observatory first, so that they take precedence over generated ones.
        candidates.sort(
            key=lambda one: (not os.path.basename(one.raw).startswith(one.frame[:15]), one.raw)
        )
        unique_frames(candidates)
        unique_names([one for one in candidates if one.type == "object"], "object", "target")
        self.notes += unite_targets([one for one in candidates if one.type == "object"])
        self.notes += unite_filters(candidates)
        unique_names([one for one in candidates if one.filter], "filter_text", "filter")
        if self._fold_case:
            self.notes += unfold_case([one for one in candidates if one.filter], "filter")
            science = [one for one in candidates if one.type == "object"]
            self.notes += unfold_case(science, "target")
        by_raw: dict[str, list[FrameFacts]] = {}
        for facts in candidates:
            facts.filter_text = ""
            by_raw.setdefault(facts.raw, []).append(facts)

        unused = set(excluded)
        for name in sorted(files):
            _, _, status, reason, _, guess, _, more, _ = files[name]
            found = by_raw.get(name)
            rows = [LogRow(one.frame, name, status, reason, one) for one in found or ()]
            told = more.get("told", {})
            for row in rows or [LogRow(guess, name, status, reason, None, told)]:
                self.rows.append(row)
                plain = os.path.basename(name)
                called = dict.fromkeys((row.frame, name, stem_of(name), plain, stem_of(plain)))
                hit = excluding_entry((*called, shown(name)), excluded)
                if hit is not None:
                    unused.discard(hit)
                    row.status, row.reason = "IGNORED", f"EXCLUDED: {excluded[hit]}"
                elif row.facts is not None:
                    self._use(row, row.facts)
        self.notes += [f"exclude: no frame is called {name}" for name in sorted(unused)]

    def by_night(self) -> dict[str, "NightLog"]:
        """Return the log of each night by name, in order; the whole log for a single night.

        Files that are no frames belong to the night of the other files in their directory.
        """
        nights, notes = tell_nights(list(self.frames.values()))
        names = sorted(set(nights.values()))
        if len(names) < 2:
            return dict.fromkeys(names or [""], self)
        self.notes += notes
        placed: dict[str, str] = {}
        for facts in self.frames.values():
            placed.setdefault(os.path.dirname(facts.raw), nights[facts.frame])
        parts: dict[str, list[LogRow]] = {name: [] for name in names}
        for row in self.rows:
            told = nights.get(row.frame) or placed.get(os.path.dirname(row.raw))
            parts[told or names[0]].append(row)
        return {name: self._part(rows) for name, rows in parts.items()}

    def _part(self, rows: list[LogRow]) -> "NightLog":
        """Return the log of some of the rows; names are unchanged."""
        part = NightLog({})
        part.rows = rows
        part.frames = {
            row.frame: self.frames[row.frame] for row in rows if row.status == "OK"
        }  # fmt: skip
        part._group()
        return part

    def _use(self, row: LogRow, facts: FrameFacts) -> None:
        """Add a frame to the log, unless its camera does not use frames of this type."""
        if facts.calibrations.get(facts.type) == "none":
            row.status = "IGNORED"
            row.reason = f"NOT_NEEDED: {facts.camera} is used without {facts.type}"
        else:
            self.frames[facts.frame] = facts

    # -- calibrations

    def add_masters(
        self,
        directories: str | os.PathLike[str] | Sequence[str] | None,
        max_age: Mapping[str, float | None] | None = None,
    ) -> None:
        """Make ready masters (bias-C0.fits, flat_H.fits, ...) available; those made from raws win.

        Parameters
        ----------
        directories : str or Path or list of str or None
            Directories of the ready masters, and of folders of these; None or empty adds nothing.
        max_age : dict of str to float
            Maximum age, by kind, of masters of other nights [d]; None: unlimited.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            When there is no such directory.
        """
        self._max_age = dict(max_age or {})
        for directory in listed(directories) if directories else ():
            self._matches.clear()
            for name, path in ready_masters(directory):
                self._add_ready(name, path)

    def _add_ready(self, name: str, path: str) -> None:
        """Make a ready master available, unless one of the same name is made here."""
        plain = name.rpartition("/")[2]
        kind = plain[:4]
        if name in self._groups[kind]:
            return
        shown_name = f"{name}{os.path.splitext(path)[1]}"
        try:
            headers = read_headers(path)
        except FrameUnusable as reason:
            self.notes.append(f"masters: {shown_name}: {reason}")
            return
        shape = next((hdu.shape for hdu in headers.hdus if hdu.shape), None)
        if shape is None or len(shape) != 2:
            self.notes.append(f"masters: {shown_name}: no image in it")
            return
        if kind == "dark" and not made_here(headers.primary, kind):
            self.notes.append(f"masters: {shown_name}: {bias_remark(headers.primary)}")
        if name in self.masters:  # from another directory
            name = f"{os.path.basename(os.path.dirname(path))}/{plain}"
            if name in self.masters:
                self.notes.append(f"masters: {path} is not used, there is another {name}")
                return
        group = ready_group(plain, kind, headers.primary, shape)
        group.name = name
        self._ready[kind].append(group)
        self.masters[name] = path

    def add_library(self, night: str, log: "NightLog", folder: str) -> None:
        """Make the masters of an earlier night available; the night's own and ready ones win.

        Parameters
        ----------
        night : str
            Name of the earlier night.
        log : NightLog
            Log of the earlier night.
        folder : str
            Folder of its masters in `imdir`, with trailing slash.
        """
        self._matches.clear()
        self._library.append((night, log, folder))

    @property
    def middle(self) -> float:
        """Median time of the frames [MJD]: of the science frames where there are any."""
        names = self.science or list(self.frames)
        times = sorted(self.frames[name].mjd for name in names)
        return times[len(times) // 2] if times else math.nan

    def match(self, frame: str) -> CalibrationMatch:
        """Return the masters that match a frame.

        Parameters
        ----------
        frame : str
            Name of a frame of any type.
        """
        if frame not in self._matches:
            self._matches[frame] = self._match(self.frames[frame])
        return self._matches[frame]

    def _match(self, facts: FrameFacts) -> CalibrationMatch:
        """Return the match of all frames with the same properties, found once."""
        key = tuple(
            hashable(getattr(facts, name))
            for name in (
                "type", "instrument", "camera", "detector", "half", "filter", "binning", "readout",
                "shape", "exptime", "temperature", *SETTINGS,
            )
        )  # fmt: skip
        key += tuple(facts.calibrations.values())
        if key not in self._matches:
            self._matches[key] = self._find(facts)
        return self._matches[key]

    def _find(self, facts: FrameFacts) -> CalibrationMatch:
        found: dict[str, str | None] = {}
        notes: dict[str, str] = {}
        taken: dict[str, str] = {}
        for kind in WANTED[facts.type]:
            if facts.calibrations[kind] == "none":
                continue
            found[kind], note = self._pick(kind, facts, found.get("bias"))
            if note:
                (notes if found[kind] is None else taken)[kind] = note
        return CalibrationMatch(**found, notes=notes, taken=taken)

    def _pick(self, kind: str, facts: FrameFacts, bias: str | None) -> tuple[str | None, str]:
        """Return the name of the master of a kind and a remark; or None and the reason."""
        failed: list[tuple[int, str, list[str]]] = []
        nearer: list[tuple[int, str, list[str]]] = []
        for age, groups in self._sources(kind):
            fits, why_not = self._fitting(kind, facts, groups)
            if kind == "dark":
                pedestal = facts.type == "flat" and facts.has_pedestal
                fits, other = nearest_darks(fits, facts.exptime, bias, pedestal)
                why_not += [(0, name, why) for name, why in other]
            most = self._max_age.get(kind)
            if age is not None and most is not None and abs(age) > most:
                words = f"{days_apart(age)}, max_age.{kind} is {most:g}"
                why_not += [(len(DETECTOR_KEYS), one.name, [words]) for one in fits]
                fits = []
            if fits:
                best = min(fits, key=lambda one: preference(one, facts))
                return best.name, "" if age is None else _taken(best.name, age, nearer)
            failed += why_not
            nearer += why_not if age is not None else []
        if not failed:
            return None, f"there is no {kind} frame"
        failed.sort()
        told = [f"{name}: {', '.join(why)}" for _, name, why in failed[:6]]
        more = f"; and {len(failed) - 6} more" if len(failed) > 6 else ""
        return None, f"none of {len(failed)} fits; " + "; ".join(told) + more

    def _sources(self, kind: str) -> Iterator[tuple[float | None, list[CalibrationGroup]]]:
        """Yield the groups in which to look for a master, by source.

        The first are those of the night itself, then ready masters without a date, whose age is
        None, then ready masters and those of earlier nights with their age [d], nearest in time
        first.
        """
        yield None, list(self._groups[kind].values())
        yield None, [one for one in self._ready[kind] if one.mjd is None]
        sources: list[tuple[float, str, list[CalibrationGroup] | NightLog, str]] = []
        dated: dict[int, list[CalibrationGroup]] = {}
        for one in self._ready[kind]:
            if one.mjd is not None:
                dated.setdefault(math.floor(one.mjd), []).append(one)
        for day, groups in dated.items():
            sources.append((self.middle - (groups[0].mjd or day), "", groups, ""))
        for night, log, folder in self._library:
            if log._groups[kind]:
                sources.append((self.middle - log.middle, night, log, folder))
        for age, night, source, folder in sorted(sources, key=lambda one: (abs(one[0]), one[1])):
            if isinstance(source, NightLog):
                groups = []
                for name, group in source._groups[kind].items():
                    groups.append(replace(group, name=f"{night}/{name}"))
                    self.borrowed[f"{night}/{name}"] = f"{folder}{name}.fits"
                yield age, groups
            else:
                yield age, source

    @staticmethod
    def _fitting(
        kind: str, facts: FrameFacts, groups: Iterable[CalibrationGroup]
    ) -> tuple[list[CalibrationGroup], list[tuple[int, str, list[str]]]]:
        """Return the groups that fit a frame, and the others with their number of differences."""
        fits, failed = [], []
        for group in groups:
            why = differences(kind, group, facts)
            if why:
                failed.append((len(why), group.name, why))
            else:
                fits.append(group)
        return fits, failed

    def other_flats(self, name: str) -> list[str]:
        """Return the flats of the same filter and camera with other, less preferred light sources.

        Parameters
        ----------
        name : str
            Name of a flat that is made here.
        """
        flats = self._groups["flat"]
        own = flats[name]
        keys = [key for key in GROUP_KEYS["flat"] if key not in ("source", *SETTINGS)]
        return [
            other.name
            for other in sorted(flats.values(), key=lambda one: SOURCES.index(one.source or ""))
            if SOURCES.index(other.source or "") > SOURCES.index(own.source or "")
            and all(getattr(other, key) == getattr(own, key) for key in keys)
        ]

    def calibration_remarks(self) -> list[str]:
        """Return remarks on flats and frames whose bias pedestal is not removed."""
        remarks = []
        used = {self.match(frame).flat for frame in self.science}
        for name, group in self._groups["flat"].items():
            facts = self.frames[group.frames[0]]
            if name in used and facts.has_pedestal:
                remarks += [f"{name}: {why}" for why in self._pedestal_remarks(facts)]
        elsewhere: dict[str, int] = {}
        for frame in self.science:
            for kind, why in self.match(frame).taken.items():
                elsewhere[f"{kind} of another night: {why}"] = (
                    elsewhere.get(f"{kind} of another night: {why}", 0) + 1
                )
        remarks += [f"{count} science frames, {why}" for why, count in elsewhere.items()]
        lacking: dict[str, int] = {}
        for frame in self.science:
            facts, found = self.frames[frame], self.match(frame)
            if facts.has_pedestal and not (found.bias or found.dark) and found.notes.get("bias"):
                why = f"of {facts.camera}: no bias and no dark; bias: {found.notes['bias']}"
                lacking[why] = lacking.get(why, 0) + 1
        return remarks + [f"{count} science frames {why}" for why, count in lacking.items()]

    def _pedestal_remarks(self, facts: FrameFacts) -> list[str]:
        found = self.match(facts.frame)
        if found.bias or not {"bias", "dark"} & (found.notes.keys() | {found.dark and "dark"}):
            return []
        if found.dark is None:
            notes = "; ".join(f"{kind}: {why}" for kind, why in found.notes.items())
            return [f"its flats have no bias and no dark, their pedestal stays in ({notes})"]
        groups = {one.name: one for _, several in self._sources("dark") for one in several}
        exptime = groups[found.dark].exptime or 0.0
        if abs(exptime - facts.exptime) <= exposure_tolerance(facts.exptime):
            return []
        return [
            f"its flats of {facts.exptime:g} s have no bias; {found.dark} of {exptime:g} s is "
            "subtracted for the pedestal"
        ]

    # -- the table

    def table_text(self) -> str:
        """Return the table of frames as ECSV text."""
        kinds = {name: "float64" if name in FLOAT_COLUMNS else "string" for name in COLUMNS}
        types = [f"# - {{name: {name}, datatype: {kind}}}" for name, kind in kinds.items()]
        lines = ["# %ECSV 1.0", "# ---", "# datatype:", *types, "# schema: astropy-2.0"]
        lines.append(",".join(COLUMNS))
        lines[2:2] = ["# delimiter: ','"]
        for row in self.rows:
            more: dict[str, Any] = {}
            if row.frame in self.frames and self.frames[row.frame].raw == row.raw:
                found = self.match(row.frame)
                more = {kind: found.master(kind) for kind in CALIBRATIONS}
                more["calnote"] = found.remarks
            if row.facts is not None:
                more["shape"] = shape_text(row.facts.shape)
            fields = []
            for name in COLUMNS:
                value = more[name] if name in more else row.get(name)
                if value is None:
                    fields.append("")
                elif name in FLOAT_COLUMNS:
                    fields.append(repr(float(value)))
                else:
                    fields.append(_cell(value))
            lines.append(",".join(fields))
        return "\n".join(lines) + "\n"

    def write(self, path: str | os.PathLike[str]) -> bool:
        """Write the table of frames (ECSV), unless the file is up to date.

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
        with atomic_path(path) as beside:
            beside.write_bytes(content)
        return True


def ready_masters(directory: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Return name and path of the master files in a directory and in its subdirectories.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        When there is no such directory.
    """
    directory = os.fspath(directory)
    found = []
    for entry in sorted(os.listdir(directory)):
        path = os.path.join(directory, entry)
        names = [entry]
        if os.path.isdir(path) and not entry.startswith("."):
            names = [f"{entry}/{name}" for name in sorted(os.listdir(path))]
        for name in names:
            if MASTER_FILE.fullmatch(name):
                found.append((os.path.splitext(name)[0], os.path.join(directory, name)))
    return found


def days_apart(age: float) -> str:
    """Return the age of a master [d] in words; negative for one taken later."""
    days = round(abs(age))
    if days == 0:
        return "of the same day"
    return f"{days} d {'older' if age > 0 else 'younger'}"


def _taken(name: str, age: float, nearer: list[tuple[int, str, list[str]]]) -> str:
    """Return the remark on a master of another night."""
    told = "; ".join(f"{other}: {', '.join(why)}" for _, other, why in nearer[:6])
    more = f"; and {len(nearer) - 6} more" if len(nearer) > 6 else ""
    return f"{name}, {days_apart(age)}" + (f"; nearer but other: {told}{more}" if told else "")


def _cell(value):
    """Return a text as field of the table, quoted and on one line."""
    if not value:
        return ""
    return '"' + shown(value).replace('"', '""') + '"'
