"""Filter names: from the text of a filter wheel to the band, and spellings of one filter."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lib.night.facts import FrameFacts
from lib.night.headervalues import OPEN, compiled, safe_name

BLOCKER = r"(?i)(nd|gg|og|rg|bg|wg|pk)[ _-]?\d[\w. -]*|\w*sort(_\w+)?|polari[sz]er.*|pol\d*"
"""Neutral-density, order-sorting and blocking filters: they change the zero point, not the band."""

SYSTEMS = {
    "sdss": "sdss sloan sdssp sdss2 ztf mp lco",
    "ps1": "ps ps1 panstarrs",
    "gunn": "gunn",
    "decam": "decam des",
    "johnson": "johnson john jon jc landolt uvbri ubvri kron morgan",
    "bessell": "bessell bessel bess bes",
    "cousins": "cousins cous kc",
    "harris": "harris har",
    "mould": "mould",
    "2mass": "2mass",
    "mko": "mko ukirt",
}
"""Words that name a photometric system, or the manufacturer of its filters."""

_SYSTEM_OF = {word: name for name, words in SYSTEMS.items() for word in words.split()}
_UPPER = {"johnson", "bessell", "cousins", "harris", "mould"}
_LOWER = {"sdss", "ps1", "gunn", "decam"}

NOISE = set(
    "filter filt band broad broadband bb std standard photometric phot prime new old wheel "
    "astrodon baader chroma optolong zwo asahi custom omega schuler edmund andover thuan nir mm "
    "pan starrs".split()
)
"""Words that say nothing about the band: manufacturers, sizes."""

NARROW = {
    "ha": "halpha",
    "halp": "halpha",
    "h-alpha": "halpha",
    "o3": "oiii",
    "s2": "sii",
    "n2": "nii",
}
"""Spellings of narrow-band filters."""


@dataclass(frozen=True)
class FilterName:
    """A filter from its name: the band, and the system if one is named.

    Parameters
    ----------
    band : str
        Band of the reference table; empty where there is none for it.
    system : str
        One of `SYSTEMS`, or empty.
    number : str
        Number of the filter at the observatory, where the name contains it.
    """

    band: str = ""
    system: str = ""
    number: str = ""


@functools.lru_cache(maxsize=4096)
def parse_filter(name: str) -> FilterName:
    """Return band and system from the name of a filter.

    Capitals matter where no system is named: R is Johnson's or Cousins', r is Sloan's.

    Parameters
    ----------
    name : str
        Name from the header, e.g. ``Bessell V``, ``V_Harris``, ``g'``, ``rp_Astrodon``, ``V#641``.
        A name with an unknown word has no band.
    """
    parts = [part.strip() for part in re.split(r"\+(?=\s*\S)", name)]
    if len(parts) > 1:
        lit = [
            part
            for part in parts
            if not any(compiled(pattern).fullmatch(part) for pattern in (OPEN, BLOCKER))
        ]
        return parse_filter(lit[0]) if len(lit) == 1 else FilterName()
    name = re.sub(r"(\\x[0-9a-f]{2})+|[`\"]", "'", name.strip())
    name, number = _cut_number(name)
    name = re.sub(r"(?<![A-Za-z])([ugrizyUGRIZYkK])'", r"\1p", name)
    system, cores, digits = "", [], False
    for word in re.split(r"[\s_.,/():;|'-]+", name):
        found, rest = _split_system(word)
        system = found or system
        if not rest or rest.lower() in NOISE:
            continue
        if re.fullmatch(r"\d+(nm|mm|a)?", rest.lower()):
            digits = digits or len(rest) > 1
            continue
        cores.append(rest)
    # Several digits are a wavelength, of a line where no system is named.
    if not cores or (digits and not system):
        return FilterName()
    return replace(_band_of(cores, system), number=number)


def _cut_number(name: str) -> tuple[str, str]:
    """Return a name without the number of the filter at the observatory, and that number."""
    # ESO, Gemini, CFHT, KPNO and CTIO.
    found = re.search(r"#\d+$|_G\d{4}\w*$|\.(MP|WC)\d{4}$|\b[kKcC]\d{4}\b", name)
    if found is None:
        return name, ""
    return f"{name[: found.start()]} {name[found.end() :]}", found.group().strip("_.")


def _split_system(word: str) -> tuple[str, str]:
    """Return the system that a word names, and the rest of the word."""
    lower = word.lower()
    if lower in _SYSTEM_OF:
        return _SYSTEM_OF[lower], ""
    for known in sorted(_SYSTEM_OF, key=len, reverse=True):
        if len(known) < 3:
            continue
        if lower.startswith(known) and len(word) - len(known) <= 2:
            return _SYSTEM_OF[known], word[len(known) :]
        if lower.endswith(known) and len(word) - len(known) <= 2:
            return _SYSTEM_OF[known], word[: -len(known)]
    found = re.fullmatch(r"([grizy])[pP]1", word)
    if found:
        return "ps1", found.group(1)
    return "", word


def _band_of(cores: list[str], system: str) -> FilterName:
    """Return the band from the words left after removing system and manufacturers."""
    nothing = FilterName()
    if len(cores) == 3 and cores[0] == "W":  # Suprime-Cam: W-J-V, W-C-RC, W-S-R
        system = {"J": "johnson", "C": "cousins", "S": "sdss"}.get(cores[1], "")
        cores = [cores[2].strip("+")] if system else cores
    if len(cores) == 2:
        first, second = cores
        if first in tuple("UBVRI") and second in ("J", "C"):
            return _band_of([first], "johnson" if second == "J" else "cousins")
        if second.lower() in ("p", "s", "short") and len(first) == 1:
            return _band_of([first + second.lower()], system)
    if len(cores) != 1:
        return nothing
    core = cores[0]
    infrared = re.fullmatch(r"(?i)([jh])|(k)(s|p|short|prime|spec)?", core)
    if infrared and system not in _UPPER | _LOWER:
        return FilterName((infrared.group(1) or infrared.group(2)).upper(), system)
    if system in _LOWER:
        found = re.fullmatch(r"(?i)([ugrizy])(p|s|prime|\+)?[12]?", core)
        return FilterName(found.group(1).lower(), system) if found else nothing
    if system in _UPPER:
        found = re.fullmatch(r"(?i)([bvri])(c|j)?", core)
        return FilterName(found.group(1).upper(), system) if found else nothing
    if core in ("B", "V", "R", "I"):
        return FilterName(core)
    if core.lower() in ("rc", "ic"):
        return FilterName(core[0].upper(), "cousins")
    if core in ("u", "g", "r", "i", "z", "y"):
        return FilterName(core)
    if core in ("Z", "Y"):  # different filters from z and y
        return FilterName(core.lower(), core)
    found = re.fullmatch(r"(?i)([ugriz])(?:p|prime)|s([ugriz])|(z)s", core)
    if found:
        return FilterName(next(one for one in found.groups() if one).lower(), "sdss")
    return nothing


def _plain(name: str) -> str:
    """Return the name of a filter without band for comparison: lower case, no separators."""
    plain = re.sub(r"[^a-z0-9#]+", "", name.lower())
    return NARROW.get(plain, plain)


def unite_filters(frames: Iterable[FrameFacts]) -> list[str]:
    """Give frames whose filter is spelled in several ways one name, in place.

    Two names of a camera are the same filter if they mean the same band and do not name two
    systems; for filters without a band, if they differ only in capitals and separators.

    Parameters
    ----------
    frames : iterable of FrameFacts
        Frames with `filter_text`.

    Returns
    -------
    list of str
        A remark on each filter with several spellings.
    """
    cameras: dict[tuple[object, ...], list[FrameFacts]] = {}
    for one in frames:
        if one.filter_text:
            # Different cameras may both be called generic.
            size = (one.binning, *one.shape)
            cameras.setdefault(
                (one.instrument, one.camera, one.detector, one.half, size), []
            ).append(one)
    remarks = []
    for members in cameras.values():
        names = {one.filter_text for one in members}
        if len(names) < 2 or not any(one.type == "object" for one in members):
            continue
        for spellings in _alike(names, {one.filter_text: one.band for one in members}):
            # The spelling of most science frames, which the observer expects.
            chosen = min(
                spellings,
                key=lambda name: (
                    -sum(one.type == "object" and one.filter_text == name for one in members),
                    name,
                ),
            )
            others = ", ".join(sorted(set(spellings) - {chosen}))
            remarks.append(f"filter {chosen}: so are called the frames with filter {others} too")
            for one in members:
                if one.filter_text in spellings:
                    one.filter_text = chosen
                    one.filter = safe_name(chosen, replacement="", empty="none")
    return list(dict.fromkeys(remarks))


def _alike(names: set[str], bands: dict[str, str]) -> list[list[str]]:
    """Return the sets of two or more names that are spellings of the same filter."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        known = parse_filter(name)
        band = known.system if known.system in ("Y", "Z") else known.band
        if known.band and known.band == bands[name] and "+" not in name:
            groups.setdefault(("band", band), []).append(name)
        else:
            groups.setdefault(("name", _plain(name)), []).append(name)
    found = []
    for (kind, _), spellings in groups.items():
        makes = {name: (parse_filter(name).system, parse_filter(name).number) for name in spellings}
        named = set(makes.values()) - {("", "")}
        if kind == "band" and len(named) > 1:
            found += [[name for name in spellings if makes[name] == one] for one in sorted(named)]
        else:
            found.append(spellings)
    return [spellings for spellings in found if len(spellings) > 1]
