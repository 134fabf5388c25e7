"""Finding a frame anywhere in a reference, at any scale and rotation, by quadrilaterals of stars.

The method is that of Astrometry.net (Lang et al. 2010, AJ 139, 1782): four stars have a shape that
neither shift, rotation nor scale changes; those of the frame are looked up in an index of those of
the reference. The index is made on the spot, for stars as dense as the frame shows them at each of
a ladder of scales.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.hypotheses import vote
from lib.astrometry.mapping import Mapping
from lib.astrometry.matching import (
    SELECTION_STARS,
    VERIFICATION_STARS,
    Match,
    NoMatch,
    PlaneStars,
    SearchRange,
    accepted,
    best_match,
    thin,
)
from lib.astrometry.pixelmaps import PixelMap, map_from_cards, tan_cards
from lib.astrometry.starlists import Reference, reference_extent
from lib.core.settings import AstrometrySettings
from lib.core.sphere import project

PIXEL_SCALES = (0.1, 10.0)
"""Smallest and largest scale that is looked for [arcsec/pixel]."""

SCALE_STEP = 1.25
"""Ratio of neighbouring scales: the density of the stars compared changes by its square."""

QUAD_STARS = 40
"""Brightest stars of a frame of which quadrilaterals are formed."""

QUAD_NEIGHBOURS = 6
"""Nearest neighbours of a star, of which any three form a quadrilateral with it."""

CODE_TOLERANCE = 0.012
"""Largest distance of the codes of two quadrilaterals that are taken for one: coordinates of two
stars, in units of the distance of the other two."""

HYPOTHESES = 60
"""Most voted similarities of each parity that are verified."""


def star_quads(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Form quadrilaterals of neighbouring stars, and their codes.

    The two stars farthest apart are at 0 and 1 of the complex plane; the code is where the others
    are. Of the two ways round that is taken whose code has the smaller sum of real parts.

    Parameters
    ----------
    points : ndarray, shape (n, 2)

    Returns
    -------
    quads : ndarray of int, shape (m, 4)
        Rows of `points`: the stars at 0 and 1, and the others.
    codes : ndarray, shape (m, 4)
        Real and imaginary parts of the others.
    """
    k = min(QUAD_NEIGHBOURS, len(points) - 1)
    if k < 3:
        return np.empty((0, 4), int), np.empty((0, 4))
    _, near = cKDTree(points).query(points, k=k + 1)
    groups = [near[:, [0, *three]] for three in combinations(range(1, k + 1), 3)]
    quads = np.unique(np.sort(np.concatenate(groups), axis=1), axis=0)
    quads = quads[(np.diff(quads, axis=1) > 0).all(axis=1)]
    z = (points @ np.array([1, 1j]))[quads]
    pairs = np.array(list(combinations(range(4), 2)))
    length = np.abs(z[:, pairs[:, 0]] - z[:, pairs[:, 1]])
    longest = pairs[np.argmax(length, axis=1)]
    rest = np.array([[i for i in range(4) if i not in pair] for pair in pairs])
    others = rest[np.argmax(length, axis=1)]
    order = np.concatenate([longest, others], axis=1)
    quads, z = np.take_along_axis(quads, order, 1), np.take_along_axis(z, order, 1)
    apart = z[:, 1] - z[:, 0]
    good = np.abs(apart) > 0
    quads, z, apart = quads[good], z[good], apart[good]
    code = (z[:, 2:] - z[:, :1]) / apart[:, None]
    turned = code.real.sum(axis=1) > 1
    quads[turned, :2] = quads[turned, 1::-1]
    code[turned] = 1 - code[turned]
    swapped = code[:, 0].real > code[:, 1].real
    quads[swapped, 2:] = quads[swapped, :1:-1]
    code[swapped] = code[swapped, ::-1]
    return quads, np.column_stack([code[:, 0].real, code[:, 0].imag, code[:, 1].real,
                                   code[:, 1].imag])  # fmt: skip


def quad_hypotheses(
    stars: np.ndarray, reference: np.ndarray, size: float, scale: float
) -> tuple[list[Mapping], float]:
    """Find similarities from quadrilaterals of one shape, by votes.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        On planes of their own [arcsec], equally dense at this scale.
    size : float
        Side of the frame [arcsec].
    scale : float
        Scale of the reference in units of the frame's, known to a step of the ladder.

    Returns
    -------
    list of Mapping
    trials : float
        Number of pairs of quadrilaterals that were of one shape.
    """
    known, known_codes = star_quads(reference)
    if not len(known):
        return [], 1.0
    tree, q = cKDTree(known_codes), reference @ np.array([1, 1j])
    found: list[Mapping] = []
    trials = 1.0
    for parity in (1, -1):
        mirrored = stars * [parity, 1.0]
        quads, codes = star_quads(mirrored)
        if not len(quads):
            continue
        lists = tree.query_ball_point(codes, CODE_TOLERANCE)
        number = np.array([len(one) for one in lists])
        if not number.sum():
            continue
        ours = quads[np.repeat(np.arange(len(quads)), number)]
        theirs = known[np.concatenate([one for one in lists if one]).astype(int)]
        p = mirrored @ np.array([1, 1j])
        factor = (q[theirs[:, 1]] - q[theirs[:, 0]]) / (p[ours[:, 1]] - p[ours[:, 0]])
        offset = q[theirs].mean(axis=1) - factor * p[ours].mean(axis=1)
        keep = np.abs(np.log(np.abs(factor) / scale)) < np.log(SCALE_STEP)
        trials += float(np.count_nonzero(keep))
        for f, o in vote(factor[keep], offset[keep], size * scale, HYPOTHESES):
            matrix = np.array([[f.real, -f.imag], [f.imag, f.real]])
            found.append(Mapping(matrix * [parity, 1.0], np.array([o.real, o.imag])))
    return found, trials


def trial_scales(header_scale: float) -> list[float]:
    """Return the scales that are tried, in units of the header's, the likeliest first."""
    low, high = (np.log(limit / header_scale) / np.log(SCALE_STEP) for limit in PIXEL_SCALES)
    steps = list(range(int(np.ceil(low)), int(np.floor(high)) + 1)) or [0]
    return [SCALE_STEP**k for k in sorted(steps, key=abs)]


def centred_map(frame: AstrometryFrame, ra: float, dec: float) -> PixelMap:
    """Return the linear part of a frame's map, with its middle at another place [deg]."""
    (a, b), (c, d) = frame.local_matrix() / 3600
    x, y = frame.middle
    return map_from_cards(tan_cards((ra, dec), (float(x), float(y)), ((a, b), (c, d))))


def blind_match(
    frame: AstrometryFrame, reference: Reference, settings: AstrometrySettings
) -> tuple[Match, PixelMap, tuple[float, float]]:
    """Find a frame in a reference, whatever its header says of place, rotation, parity and scale.

    Parameters
    ----------
    frame : AstrometryFrame
    reference : Reference
    settings : AstrometrySettings
        Requirements for a match.

    Returns
    -------
    match : Match
    start : callable
        Map from which `match.mapping` leads to the true one.
    centre : tuple of float
        ra, dec of the tangent plane of the mapping [deg].

    Raises
    ------
    NoMatch
    """
    extent = reference_extent(reference)
    if extent is None:
        raise NoMatch("the reference is empty")
    centre = extent[:2]
    start = centred_map(frame, *centre)
    stars = PlaneStars(project(*start(frame.x, frame.y), *centre), frame.magnitude)
    points = project(reference.ra, reference.dec, *centre)
    inside = np.flatnonzero(np.isfinite(points).all(axis=1))
    known = PlaneStars(points[inside], reference.magnitude[inside])
    scale = frame.scale
    search = SearchRange(
        size=float(np.sqrt(np.prod(frame.shape)) * scale), tolerance=frame.tolerance * scale,
        radius=3600 * extent[2],
    )  # fmt: skip
    best: Match | None = None
    for match in _matches(stars, known, search, trial_scales(scale)):
        if match is None:
            continue
        match = replace(match, reference=inside[match.reference])
        if accepted(match, search, settings):
            return match, start, centre
        if best is None or match.log_chance < best.log_chance:
            best = match
    raise NoMatch(
        "nowhere in the reference, at no scale of {:g} to {:g} arcsec/pixel: ".format(*PIXEL_SCALES)
        + (f"best {best.brief}" if best else "no four stars of one shape")
    )


def _matches(
    stars: PlaneStars, known: PlaneStars, search: SearchRange, scales: Sequence[float]
) -> Iterator[Match | None]:
    """Yield the best match of each scale."""
    trials = 0.0
    for scale in scales:
        lead, few, many = (
            thin(stars, known, search.size, number, scale)
            for number in (QUAD_STARS, SELECTION_STARS, VERIFICATION_STARS)
        )
        if len(lead.stars) < 4 or len(lead.reference) < 4:
            yield None
            continue
        hypotheses, number = quad_hypotheses(lead.stars, lead.reference, search.size, scale)
        trials += number
        match = best_match(few, many, hypotheses, trials, search.tolerance * scale, True)
        yield match and replace(match, rung="blind")


def moved_map(frame: AstrometryFrame, other: AstrometryFrame) -> PixelMap:
    """Return the map of a frame as if it pointed where another, solved one does."""
    (a, b), (c, d) = other.local_matrix() / 3600
    x, y = frame.middle
    return map_from_cards(tan_cards(other.centre(), (float(x), float(y)), ((a, b), (c, d))))
