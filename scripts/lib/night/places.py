"""Targets: spellings of OBJECT that mean one target, and names that may do so."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.core.sphere import unit_vectors
from lib.night.facts import FrameFacts
from lib.night.pointing import frame_centre

SAME_FIELD = 0.25
"""[fraction of a field's smaller side] Pointings closer than this show the same field."""

FIELD = 0.1
"""[deg] Smaller side of a field of unknown pixel scale."""

MOST_NAMES = 4
"""Maximum number of names listed in a remark."""


@dataclass(frozen=True)
class Place:
    """The pointing of the frames with one name.

    Parameters
    ----------
    target, object : str
        Name as part of file names, and as in the header.
    frames : list of FrameFacts
    ra, dec : float
        Median pointing [deg].
    spread : float
        Maximum distance of a frame from it [deg].
    field : float
        Smaller side of the smallest field [deg].
    """

    target: str
    object: str
    frames: list[FrameFacts]
    ra: float
    dec: float
    spread: float
    field: float


def plain_target(name: str, filter_text: str) -> str:
    """Return a name for comparison: letters and digits, without trailing filter or series number.

    Parameters
    ----------
    name : str
        OBJECT: ``NGC 2420 B``, ``ngc2420``, ``M13_003``.
    filter_text : str
        Filter of the frame, which observers append to names.
    """
    words = [word for word in re.split(r"[\s_.,:;#()-]+", name.lower()) if word]
    own = {word for word in re.split(r"[\s_.,:;#()-]+", filter_text.lower()) if word}
    own |= {re.sub(r"[^a-z0-9]", "", filter_text.lower())}
    while len(words) > 1 and words[-1] in own | {"filter", "band"}:
        words.pop()
    rest = "".join(words[:-1])
    # Catalogue numbers are kept: NGC 7331.
    if len(words) > 1 and re.fullmatch(r"\d{1,4}", words[-1]) and re.search(r"\d", rest):
        words.pop()
    return re.sub(r"[^a-z0-9+]", "", "".join(words))


def _centre(facts: FrameFacts) -> tuple[float, float] | None:
    """Return the pointing of a frame; for a chip or half, that of its camera."""
    if facts.half and facts.ra is not None and facts.dec is not None:
        return facts.ra, facts.dec
    return frame_centre(facts)


def _apart(ra: np.ndarray | float, dec: np.ndarray | float, ra0: float, dec0: float) -> np.ndarray:
    """Return the angular distances of positions from another one [deg]."""
    # Importing astropy.coordinates would take longer than reading a night.
    vectors = np.atleast_2d(unit_vectors(ra, dec))
    chord = np.linalg.norm(vectors - unit_vectors(ra0, dec0), axis=-1)
    return np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1)))


def _place(frames: list[FrameFacts]) -> Place | None:
    """Return the pointing of frames of one name; None where it is unknown."""
    centres = [centre for one in frames if (centre := _centre(one)) is not None]
    if not centres:
        return None
    ra, dec = np.array(centres).T
    middle = ra[0] + np.median((ra - ra[0] + 180) % 360 - 180), float(np.median(dec))
    sides = [min(one.shape) * one.pixscale / 3600 for one in frames if one.pixscale and one.shape]
    return Place(
        target=frames[0].target,
        object=frames[0].object,
        frames=frames,
        ra=float(middle[0] % 360),
        dec=middle[1],
        spread=float(np.max(_apart(ra, dec, *middle))),
        field=min(sides, default=FIELD),
    )


def _same(one: Place, two: Place) -> bool:
    """Return whether two names point at the same field."""
    field = min(one.field, two.field)
    apart = float(_apart(one.ra, one.dec, two.ra, two.dec)[0])
    return apart < SAME_FIELD * field and max(one.spread, two.spread) < field


def unite_targets(science: Sequence[FrameFacts]) -> list[str]:
    """Give frames of one place whose OBJECT is spelled differently the same target, in place.

    Names are spellings of one target if they differ only in capitals, separators, a trailing filter
    of the frame, or a trailing series number. The user is asked about other names that point at one
    field.

    Parameters
    ----------
    science : sequence of FrameFacts
        Science frames with `target` and `filter_text`.

    Returns
    -------
    list of str
        Remarks.
    """
    by_target: dict[str, list[FrameFacts]] = {}
    for one in science:
        by_target.setdefault(one.target, []).append(one)
    if len(by_target) < 2:
        return []
    places = [place for frames in by_target.values() if (place := _place(frames)) is not None]
    remarks = []
    for spellings in _alike(places):
        # The most common spelling, and the shortest of these.
        chosen = min(spellings, key=lambda one: (-len(one.frames), len(one.target), one.target))
        others = [one for one in spellings if one is not chosen]
        remarks.append(
            f"target {chosen.target}: the same field is called "
            f"{_listed([one.target for one in others])} too; it is one target"
        )
        for spelling in others:
            for frame in spelling.frames:
                frame.target = chosen.target
            places.remove(spelling)
    for cluster in _clusters(places):
        remarks.append(
            f"targets {_listed([one.target for one in cluster])} point at one field: are they one? "
            "An entry of `object` in the instrument file gives them one name"
        )
    return remarks


def _listed(names: Sequence[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _alike(places: Sequence[Place]) -> list[list[Place]]:
    """Return the sets of two or more places whose names are spellings of one target."""
    names: dict[str, list[Place]] = {}
    for place in places:
        plain = {plain_target(place.object, one.filter_text) for one in place.frames}
        if len(plain) == 1 and "" not in plain:
            names.setdefault(plain.pop(), []).append(place)
    return [
        cluster
        for spellings in names.values()
        for cluster in _clusters(spellings)
    ]  # fmt: skip


def _clusters(places: Sequence[Place]) -> list[list[Place]]:
    """Return the sets of two or more places in the same field."""
    found: list[list[Place]] = []
    # Compare only neighbours in declination, for nights of thousands of targets.
    ordered = sorted(places, key=lambda one: one.dec)
    used: set[int] = set()
    largest = max((one.field for one in ordered), default=0.0)
    for k, one in enumerate(ordered):
        if k in used:
            continue
        cluster = [one]
        for j in range(k + 1, len(ordered)):
            if ordered[j].dec - one.dec > SAME_FIELD * largest:
                break
            if j not in used and _same(one, ordered[j]):
                cluster.append(ordered[j])
                used.add(j)
        if len(cluster) > 1:
            found.append(cluster)
    return found
