"""Check of an instrument file on a folder of raw frames, before anything is reduced."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lib.calibration.detector import assemble
from lib.calibration.photontransfer import PhotonTransfer, photon_transfer
from lib.frame.file import FrameRejected
from lib.night.calibrationmatch import DETECTOR_KEYS
from lib.night.facts import FrameFacts
from lib.night.instrumentfile import read_sources
from lib.night.instrumentsource import InstrumentError
from lib.night.interpret import CALIBRATIONS
from lib.night.naming import hashable, shape_text
from lib.night.nightlog import NightLog, scan

MOST_PAIRS = 4
"""Maximum number of pairs of flats, and of biases, measured for a camera setting."""

DISAGREE = 1.3
"""Factor between stated and measured value above which a line is marked."""

HEAD = (
    *("file", "taken for", "target", "filter", "band", "exposure", "start (UTC)", "RA Dec"),
    *("gain", "noise", ""),
)

TELLING = 0.8
"""Fraction of the saturation level above which a flat is not used to measure the gain."""


def check_instrument(
    instrument: str, datadir: str | Path, night: NightLog | None = None
) -> Iterator[str]:
    """Yield, line by line, how an instrument file interprets raw frames.

    Parameters
    ----------
    instrument : str
        ``auto``, a shipped instrument, or the path of a YAML file.
    datadir : path-like
        Folder of raw frames.
    night : NightLog, optional
        Night log of the folder, if its headers have been read.

    Raises
    ------
    lib.night.instrumentsource.InstrumentError
        The file is wrong.
    OSError
        There is no such folder.
    """
    night = night or scan(datadir, instrument)
    if instrument.endswith((".yaml", ".yml")):
        chain = [str(source.path.stem) for source in read_sources(Path(instrument))[1:]]
        yield f"{instrument}: no fault" + (f", on top of {', '.join(chain)}" if chain else "")
    yield ""
    yield f"{len(night.rows)} frames in {datadir}"
    yield from columns(list(frame_rows(night)))
    yield from _part("Filters", filter_lines(night))
    yield from _part("Sections", section_lines(night.frames.values()))
    yield from _part("Gain and read noise", electronics_lines(night, Path(datadir)))
    yield from _part("Calibrations", calibration_lines(night))
    yield from _part("To be looked at", night.notes)
    yield ""
    yield verdict(night)


def _part(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if lines:
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def frame_rows(night: NightLog) -> Iterator[tuple[str, ...]]:
    """Yield a row per frame: its interpretation, or why it is not used."""
    yield HEAD
    for row in night.rows:
        ra, dec = row.get("ra"), row.get("dec")
        exptime, gain, noise = (row.get(name) for name in ("exptime", "gain", "rdnoise"))
        kind = row.get("type") or "?"
        yield (
            row.raw + (f" {row.facts.half}" if row.facts and row.facts.half else ""),
            kind if row.status == "OK" else f"({kind})",
            row.get("object") or row.get("target") or "",
            row.get("filter") or "",
            row.get("band") or "",
            "" if exptime is None else f"{exptime:g} s",
            (row.get("date_obs") or "")[:19],
            "" if ra is None or dec is None else f"{ra:.4f} {dec:+.4f}",
            f"{gain:.3g}" if gain else "",
            f"{noise:.3g}" if noise else "",
            "" if row.status == "OK" else f"{row.status}: {row.reason}",
        )


def columns(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table as lines of aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).rstrip()


def filter_lines(night: NightLog) -> Iterator[str]:
    """Yield a line per filter: its band, its flats and science frames."""
    found: dict[str, Counter[str]] = {}
    bands = {}
    for facts in night.frames.values():
        if facts.type in ("flat", "object"):
            found.setdefault(facts.filter, Counter())[facts.type] += 1
            bands[facts.filter] = facts.band
    for name, counts in sorted(found.items()):
        band = f"band {bands[name]}" if bands[name] else "NO BAND: no zero point"
        yield f"{name}: {band}; {counts['flat']} flats, {counts['object']} science frames"


def section_lines(frames: Iterable[FrameFacts]) -> Iterator[str]:
    """Yield a line per division of frames into image and overscan, as [y0, y1, x0, x1]."""
    ways: Counter[str] = Counter()
    for facts in frames:
        parts = [
            f"HDU {one.hdu} image {one.data}, "
            + (f"overscan {one.overscan}" if one.overscan else "no overscan")
            + (f", to {one.origin}" if len(facts.amplifiers) > 1 else "")
            for one in facts.amplifiers
        ]
        camera = facts.camera + (f" {facts.half}" if facts.half else "")
        ways[f"{camera}, binning {facts.binning}: {'; '.join(parts)}"] += 1
    for way, count in sorted(ways.items()):
        yield f"{way} ({count} frame{'s' * (count != 1)})"


def electronics_lines(night: NightLog, datadir: Path) -> Iterator[str]:
    """Yield a line per amplifier and setting: gain and read noise, stated and measured."""
    settings: dict[tuple[object, ...], list[FrameFacts]] = {}
    for facts in night.frames.values():
        key = tuple(hashable(getattr(facts, name)) for name in DETECTOR_KEYS)
        settings.setdefault(key, []).append(facts)
    for frames in settings.values():
        frames.sort(key=lambda one: one.mjd)
        first = frames[0]
        where = f"{first.camera}, binning {first.binning}"
        where += f", {first.readout}" if first.readout else ""
        measured = measure(frames, datadir)
        for number, (amplifier, found) in enumerate(zip(first.amplifiers, measured, strict=True)):
            place = f"{where}, amplifier {number + 1}" if len(first.amplifiers) > 1 else where
            yield f"{place}: {_compared(amplifier.gain, amplifier.rdnoise, found)}"


def _compared(gain: float, rdnoise: float, found: PhotonTransfer) -> str:
    """Return stated and measured values; a stated gain of 0 is measured from the night's flats."""
    told = f"gain {gain:g} e/DN" if gain else "gain left to the flats"
    if found.gain is None and found.rdnoise_dn is None:
        return f"{told}, read noise {rdnoise:g} e; not measured: no two biases"
    if found.gain is None:
        noise = (found.rdnoise_dn or 0) * gain
        return (
            f"{told}; not measured: no two flats of a filter; "
            f"read noise {rdnoise:g} e; measured {noise:.1f} e with this gain"
            f"{_mark(rdnoise, noise)}"
        )
    error = f" ± {found.gain * found.scatter:.2g}" if found.scatter else ""
    noise = found.rdnoise or 0
    pairs = f"{found.flat_pairs} pair{'s' * (found.flat_pairs != 1)} of flats"
    return (
        f"{told}; measured {found.gain:.3g}{error} ({pairs}){_mark(gain, found.gain)}; "
        f"read noise {rdnoise:g} e; measured {noise:.1f}{_mark(rdnoise, noise)}"
    )


def _mark(told: float, measured: float) -> str:
    if told <= 0 or measured <= 0 or max(told, measured) < DISAGREE * min(told, measured):
        return ""
    return f" DIFFERS by a factor {max(told, measured) / min(told, measured):.1f}"


def measure(frames: Sequence[FrameFacts], datadir: Path) -> list[PhotonTransfer]:
    """Measure gain and read noise of each amplifier in the flats and biases of one setting."""
    biases = [one for one in frames if one.type == "bias"][: 2 * MOST_PAIRS]
    filters = Counter(one.filter for one in frames if one.type == "flat")
    found: list[list[PhotonTransfer]] = [[] for _ in frames[0].amplifiers]
    dark = _images(biases, datadir) if len(biases) > 1 else []
    for name, _ in filters.most_common() or [("", 0)]:
        flats = [one for one in frames if one.type == "flat" and one.filter == name]
        lit = _images(flats[: 2 * MOST_PAIRS], datadir) if dark else []
        for number, amplifier in enumerate(frames[0].amplifiers):
            y, x = amplifier.origin
            ny, nx = amplifier.size
            place = (slice(y, y + ny), slice(x, x + nx))
            highest = TELLING * frames[0].saturate
            found[number].append(
                photon_transfer([one[place] for one in lit], [one[place] for one in dark], highest)
            )
        if all(ones[-1].flat_pairs > 1 for ones in found):
            break
    return [max(ones, key=lambda one: one.flat_pairs) for ones in found]


def _images(frames: Sequence[FrameFacts], datadir: Path) -> list[np.ndarray]:
    result = []
    for facts in frames:
        try:
            result.append(assemble(datadir / facts.raw, facts).ccd.data)
        except FrameRejected:
            continue
    return result


def calibration_lines(night: NightLog) -> Iterator[str]:
    """Yield a line per stack and missing calibration."""
    for stack, frames in night.stacks.items():
        lacking: dict[tuple[str, str], int] = {}
        for frame in frames:
            match, facts = night.match(frame), night.frames[frame]
            for kind in CALIBRATIONS:
                if facts.calibrations.get(kind) != "none" and match.master(kind) is None:
                    need = facts.calibrations.get(kind, "")
                    key = (f"no {kind} ({need})", match.notes.get(kind, ""))
                    lacking[key] = lacking.get(key, 0) + 1
        for (what, why), count in lacking.items():
            yield f"{stack}: {what} for {count} of {len(frames)} frames: {why}"
    if not night.stacks:
        return
    for kind, groups in zip(CALIBRATIONS, (night.biases, night.darks, night.flats), strict=True):
        masters = ", ".join(f"{name} of {len(frames)}" for name, frames in groups.items())
        yield f"{kind}: {masters or 'none'}"


def lacking_required(night: NightLog) -> list[str]:
    """Return the science frames that lack a required calibration."""
    return [
        frame
        for frame in night.science
        if any(
            night.frames[frame].calibrations.get(kind) == "required"
            and night.match(frame).master(kind) is None
            for kind in CALIBRATIONS
        )
    ]


def verdict(night: NightLog) -> str:
    """Return the last line: the number of science frames that can be reduced."""
    lacking = set(lacking_required(night))
    left = sum(row.status == "REJECTED" for row in night.rows)
    good = len(night.science) - len(lacking)
    shapes = {shape_text(one.shape) for one in night.frames.values()}
    return (
        f"{good} science frames can be reduced ({', '.join(sorted(shapes)) or 'no pixels'}); "
        f"{len(lacking)} lack a calibration, {left} files cannot be used"
    )


def main(arguments: Sequence[str]) -> int:
    """Run ``autoproc check-instrument``; return the exit code: 0 if frames can be reduced."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="autoproc check-instrument",
        description="Show what an instrument file makes of raw frames; nothing is written.",
    )
    parser.add_argument("instrument", help="a YAML file, the name of an instrument, or auto")
    parser.add_argument("datadir", help="directory of raw frames")
    options = parser.parse_args(arguments)
    try:
        night = scan(options.datadir, options.instrument)
        for line in check_instrument(options.instrument, options.datadir, night):
            print(line)
    except (InstrumentError, OSError) as error:
        print(f"autoproc: {error}", file=sys.stderr)
        return 2
    return 0 if len(lacking_required(night)) < len(night.science) else 1
