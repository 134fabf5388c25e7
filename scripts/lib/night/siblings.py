"""The instrument of a file that no instrument file matches: that of similar files.

Calibrations often lack the keywords that identify science frames of the same camera (a dome flat
taken without the telescope control system has a blank TELESCOP).
(a dome flat is taken without the telescope's computer, its TELESCOP is blank)."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.night.headervalues import evaluate, get, keywords_of, parse_binning, safe_name, text
from lib.night.instrumentfile import instrument_path
from lib.night.instrumentsource import read_source
from lib.night.rawheaders import RawHeaders

OTHER_WORDS = ("TELESCOP", "OBSERVAT", "DETECTOR", "DETNAM", "DETID", "CAMERA", "SERNO")
"""Keywords other than INSTRUME that name camera or telescope."""

FIRST_OF_CAMERA = 2
"""Index of the first of them that names the camera, not the telescope."""

SLACK = 0.06
"""Fraction of the detector's length by which overscan and windows change that of a binned frame."""


@dataclass(frozen=True)
class Likeness:
    """Properties common to frames of one camera, as plain values for the cache.

    Parameters
    ----------
    layout : int
        Number of images in the file.
    size : tuple of int
        Rows and columns of the first image, in unbinned pixels.
    instrume : str
        INSTRUME in lower case; empty where the header has none.
    others : tuple of str
        The same for `OTHER_WORDS`.
    """

    layout: int
    size: tuple[int, ...]
    instrume: str
    others: tuple[str, ...]

    def to_list(self) -> list[Any]:
        """Return the properties as a list for JSON."""
        return [self.layout, list(self.size), self.instrume, list(self.others)]

    @classmethod
    def from_list(cls, content: list[Any]) -> "Likeness":
        """Return the properties from the result of `to_list`."""
        layout, size, instrume, others = content
        return cls(layout, tuple(size), instrume, tuple(others))


def likeness(headers: RawHeaders) -> Likeness | None:
    """Return the properties that a file shares with others of its camera; None without image.

    Parameters
    ----------
    headers : RawHeaders
        Headers of the file.
    """
    images = [hdu for hdu in headers.hdus if hdu.shape]
    if not images:
        return None
    first = images[0]
    keywords = _keywords()
    values = list(map(headers.primary.get, keywords))
    if first.index:
        values = [
            first.header.get(key) if value is None or value == "" else value
            for key, value in zip(keywords, values, strict=True)
        ]
    return _likeness(len(images), tuple(first.shape or ()), tuple(values))


@functools.lru_cache(maxsize=1)
def _binning() -> list[Any]:
    """Return the usual entries for the binning, from the generic instrument file."""
    spec: list[Any] = read_source(instrument_path("generic")).content["binning"]
    return spec


@functools.lru_cache(maxsize=1)
def _keywords() -> list[str]:
    """Return the keywords used for comparison: those of the camera and of the binning."""
    words = keywords_of(_binning())
    return ["INSTRUME", *OTHER_WORDS, *(word.removeprefix("HIERARCH ") for word in words)]


@functools.lru_cache(maxsize=4096, typed=True)
def _likeness(layout: int, shape: tuple[int, ...], values: tuple[Any, ...]) -> Likeness:
    """Return the properties for a set of values, cached because they hardly vary within a night."""
    header = dict(zip(_keywords(), values, strict=True))
    told = (parse_binning(evaluate(one, header)) for one in _binning())
    bin_x, bin_y = (int(part) for part in next(filter(None, told), "1x1").split("x"))
    rows, columns = shape[-2:] if len(shape) > 1 else (0, 0)
    words = [text(get(header, key)).lower() for key in ("INSTRUME", *OTHER_WORDS)]
    return Likeness(layout, (rows * bin_y, columns * bin_x), words[0], tuple(words[1:]))


def are_siblings(one: Likeness, other: Likeness) -> bool:
    """Return whether two files may be from the same camera.

    The layout and the detector size must be equal, and INSTRUME must agree if both have it (one may
    be longer); otherwise none of the other words may differ.
    """
    if one.layout != other.layout:
        return False
    for length, wanted in zip(one.size, other.size, strict=True):
        if abs(length - wanted) > SLACK * max(length, wanted):
            return False
    if one.instrume and other.instrume:
        return one.instrume.startswith(other.instrume) or other.instrume.startswith(one.instrume)
    return all(not a or not b or a == b for a, b in zip(one.others, other.others, strict=True))


def adopt(
    unclaimed: Mapping[str, Likeness], claimed: Iterable[tuple[str, Likeness]]
) -> dict[str, str]:
    """Return the instrument that each unmatched file joins.

    Parameters
    ----------
    unclaimed : mapping of str to Likeness
        Unmatched files, by name.
    claimed : iterable of (str, Likeness)
        Instruments of the other files in the folder.

    Returns
    -------
    dict of str to str
        File -> instrument; without files that resemble none, or two instruments.
    """
    known = set(claimed)
    cache: dict[Likeness, str] = {}
    result = {}
    for name, one in unclaimed.items():
        if one not in cache:
            ranks = [
                (_closeness(one, other), instrument)
                for instrument, other in known
                if are_siblings(one, other)
            ]
            nearest = {found for rank, found in ranks if rank == max(ranks)[0]}
            cache[one] = nearest.pop() if len(nearest) == 1 else ""
        if cache[one]:
            result[name] = cache[one]
    return result


def _closeness(one: Likeness, other: Likeness) -> tuple[int, int, bool]:
    """Return how much of two siblings agrees: INSTRUME, other words, size."""
    words = sum(a == b != "" for a, b in zip(one.others, other.others, strict=True))
    same = 2 if one.instrume == other.instrume != "" else int(bool(one.instrume and other.instrume))
    return same, words, one.size == other.size


def tell_detectors(alike: Mapping[str, Likeness]) -> dict[str, str]:
    """Return a name of the detector of each file, if there are several detectors.

    Two detectors are distinguished by INSTRUME, or another word that names camera or detector, if
    both files have it.

    Parameters
    ----------
    alike : mapping of str to Likeness
        Files of one instrument, by name.

    Returns
    -------
    dict of str to str
        File -> name for use in file names; empty where the header matches several. No entries where
        all files may be from one detector.
    """
    words = {one: (one.instrume, *one.others[FIRST_OF_CAMERA:]) for one in set(alike.values())}
    # The most specific first; those that match only one of them are identical to it.
    ordered = sorted(set(words.values()), key=lambda told: (-sum(map(bool, told)), told))
    detectors: list[tuple[str, ...]] = []
    for told in ordered:
        if not any(_one_camera(told, other) for other in detectors):
            detectors.append(told)
    if len(detectors) < 2:
        return {}
    names: dict[tuple[str, ...], str] = {}
    for told in sorted(detectors):
        first = next((word for word in told if word), "")
        own = [word for k, word in enumerate(told) if word and len({d[k] for d in detectors}) > 1]
        name = base = safe_name((own or [first])[0], replacement="-")[:24].strip("-") or "camera"
        while name in names.values():
            name = f"{base}-{len(names) + 1}"
        names[told] = name
    result = {}
    for file, one in alike.items():
        fits = [told for told in detectors if _one_camera(words[one], told)]
        result[file] = names[fits[0]] if len(fits) == 1 else ""
    return result


def _one_camera(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether no word that both have differs; one may be longer than the other."""
    return all(
        not a or not b or a.startswith(b) or b.startswith(a)
        for a, b in zip(one, other, strict=True)
    )
