"""Finding which star of a frame is which star of a reference, and how sure that is.

All positions are on one tangent plane, in arcseconds. A hypothesis (shift, or shift with rotation,
scale and parity) comes from votes of pairs of stars (`lib.astrometry.hypotheses`); it is accepted
only when it matches many more stars than chance would (Poisson, with the number of hypotheses
tried), whatever its residual.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln

from lib.astrometry.hypotheses import offset_hypotheses, pair_hypotheses
from lib.astrometry.mapping import (
    Kind,
    Mapping,
    brightest_per_cell,
    fit_mapping,
    nearest_pairs,
)
from lib.core.settings import AstrometrySettings

SELECTION_STARS, VERIFICATION_STARS = 60, 300
"""Brightest stars of a frame used to choose among hypotheses, and to verify one."""

PAIR_BUDGETS = (300_000, 2_500_000)
"""Pairs of pairs compared in a first and in a second attempt."""

MAX_OFFSETS = 6_000_000
"""Maximum number of pairs of a star and a reference star that vote for a shift."""

REFERENCE_EXCESS = 1.5
"""Reference stars taken for each star of the frame, per area: magnitudes of two bands differ."""


class NoMatch(Exception):
    """No match is accepted; says in numbers how near the best one came."""


@dataclass(frozen=True)
class PlaneStars:
    """Stars on a tangent plane.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Arcseconds; the origin is the assumed middle of the frame.
    magnitude : ndarray, shape (n,)
        Any monotonic measure, small is bright.
    """

    points: np.ndarray
    magnitude: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: np.ndarray) -> "PlaneStars":
        return PlaneStars(self.points[index], self.magnitude[index])


@dataclass(frozen=True)
class SearchRange:
    """How far the truth may be from what is assumed of a frame.

    Parameters
    ----------
    size : float
        Side of the frame [arcsec].
    tolerance : float
        Distance at which stars count as identified [arcsec].
    radius : float
        Uncertainty of the pointing [arcsec].
    first_radius : float
        Uncertainty of the pointing where the header is right [arcsec].
    scales : sequence of float
        Trial scales of the asterisms, in the order they are tried.
    asterisms : bool
        Whether any rotation, and a mirror image, is tried.
    """

    size: float
    tolerance: float
    radius: float
    first_radius: float = 30.0
    scales: tuple[float, ...] = (1.0,)
    asterisms: bool = True


@dataclass(frozen=True)
class Match:
    """A set of identified stars.

    Parameters
    ----------
    mapping : Mapping
        Maps the plane of the frame to that of the reference.
    stars, reference : ndarray of int
        Indices of the identified pairs, one reference star to one star.
    tested : int
        Stars of the frame that could have been identified.
    expected : float
        Number of pairs expected by chance.
    log_chance : float
        Decimal logarithm of the expected number of hypotheses as good by chance.
    rms : float
        Residual per axis [arcsec].
    rung : str
        Step of the ladder that found it.
    """

    mapping: Mapping
    stars: np.ndarray
    reference: np.ndarray
    tested: int
    expected: float
    log_chance: float
    rms: float
    rung: str = ""

    @property
    def number(self) -> int:
        """Number of identified stars."""
        return len(self.stars)

    @property
    def contrast(self) -> float:
        """Identified stars over those expected by chance, at most 9999."""
        return float(min(self.number / max(self.expected, 1e-9), 9999.0))

    def __str__(self) -> str:
        return f"{self.brief}, rms {self.rms:.2f} arcsec"

    @property
    def brief(self) -> str:
        """The numbers by which it is accepted or not, short enough for a header card."""
        return (
            f"{self.number}/{self.tested} stars, chance 1e{self.log_chance:.1f}, "
            f"contrast {self.contrast:.1f}"
        )


def log_poisson_tail(number: float, mean: float) -> float:
    """Return the decimal logarithm of an upper bound to the chance of `number` events or more.

    Sum of the geometric series that bounds the Poisson terms; 0 where `number` <= `mean`.
    """
    if number <= mean:
        return 0.0
    mean = max(mean, 1e-300)
    log_term = number * np.log(mean) - mean - gammaln(number + 1.0)
    return float(min(0.0, (log_term - np.log1p(-mean / (number + 1.0))) / np.log(10.0)))


@dataclass(frozen=True)
class ThinnedStars:
    """Stars of a frame and reference stars on one tangent plane, thinned to equal density.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
    star_index, reference_index : ndarray of int
        Rows in the lists before thinning.
    tree : cKDTree
        Tree of the positions in `reference`.
    """

    stars: np.ndarray
    reference: np.ndarray
    star_index: np.ndarray
    reference_index: np.ndarray
    tree: cKDTree


def thin(
    stars: PlaneStars, reference: PlaneStars, size: float, number: int, scale: float = 1.0
) -> ThinnedStars:
    """Keep about `number` bright stars of the frame and somewhat more reference stars per frame.

    Parameters
    ----------
    stars, reference : PlaneStars
    size : float
        Side of the frame [arcsec].
    number : int
    scale : float
        Scale of the reference in units of the frame's.

    Returns
    -------
    ThinnedStars
    """
    each = max(1, int(np.ceil(number / 4)))
    i = brightest_per_cell(stars.points, stars.magnitude, size / 2, each)
    j = brightest_per_cell(
        reference.points,
        reference.magnitude,
        scale * size / 2,
        int(np.ceil(REFERENCE_EXCESS * each)),
    )
    known = reference.points[j]
    return ThinnedStars(stars.points[i], known, i, j, cKDTree(known))


def count_matches(thinned: ThinnedStars, mappings: list[Mapping], tolerance: float) -> np.ndarray:
    """Return how many stars each mapping brings within `tolerance` of a reference star."""
    if not mappings:
        return np.zeros(0, int)
    points = np.concatenate([m(thinned.stars) for m in mappings])
    distance, _ = thinned.tree.query(points, distance_upper_bound=tolerance)
    return np.isfinite(distance).reshape(len(mappings), -1).sum(axis=1)


def refine_mapping(
    few: ThinnedStars, many: ThinnedStars, mapping: Mapping, tolerance: float, free_scale: bool
) -> tuple[Mapping, int] | None:
    """Fit a hypothesis to the stars that it identifies, ever more of them, ever closer.

    Parameters
    ----------
    few, many : ThinnedStars
        Lists of stars with which the search begins and ends.
    mapping : Mapping
    tolerance : float
        [arcsec]
    free_scale : bool
        See `verify`.

    Returns
    -------
    mapping : Mapping
    used : int
        Stars that it takes to fix the last fit.
    None where fewer than three stars are left.
    """
    similarity: Kind = "similarity" if mapping.parity == 1 else "mirror"
    used = 2 if free_scale else 1
    steps = ((few, 6), (few, 4), (many, 3), (many, 2), (many, 1), (many, 1), (many, 1))
    for thinned, factor in steps:
        i, j, distance = nearest_pairs(thinned.tree, mapping(thinned.stars), factor * tolerance)
        if len(i) < 3:
            return None
        source, target = thinned.stars[i], thinned.reference[j]
        if factor > 2 and len(i) > 8:
            # A crowd of chance pairs pulls a least-squares fit: the nearer half leads.
            near = distance <= np.median(distance)
            source, target = source[near], target[near]
        kind, used = similarity, 2
        if len(i) >= 10 and factor <= 2:
            kind, used = "affine", 3
        elif len(i) < 5 and not free_scale:
            kind, used = "shift", 1
        if kind == "shift":
            moved = fit_mapping(mapping(source), target, "shift")
            mapping = Mapping(mapping.matrix, mapping.offset + moved.offset)
        else:
            mapping = fit_mapping(source, target, kind)
        if not np.all(np.isfinite(mapping.matrix)) or mapping.scale < 1e-3:
            return None
    return mapping, max(used, 2 if free_scale else 1)


def expected_by_chance(thinned: ThinnedStars, points: np.ndarray, tolerance: float) -> float:
    """Return how many points would meet a reference star by chance, from its local density."""
    if len(thinned.reference) > 7:
        # The seventh neighbour tells the local density, the identified star not counted.
        seventh = thinned.tree.query(points, k=7)[0][:, -1]
        local = 6.0 / (np.pi * np.maximum(seventh, tolerance) ** 2)
    else:
        area = max(np.prod(np.ptp(thinned.reference, axis=0)), tolerance**2)
        local = np.full(len(points), len(thinned.reference) / area)
    # Stars beyond the edge of the reference cannot be identified by chance either.
    return float(np.sum(-np.expm1(-np.pi * tolerance**2 * local)))


def verify(
    few: ThinnedStars,
    many: ThinnedStars,
    mapping: Mapping,
    tolerance: float,
    trials: float,
    free_scale: bool,
) -> Match | None:
    """Refine a hypothesis and find out how probable it is by chance.

    Parameters
    ----------
    few, many : ThinnedStars
        Lists of stars with which the search begins and ends.
    mapping : Mapping
        Hypothesis.
    tolerance : float
        Distance at which stars count as identified [arcsec].
    trials : float
        Number of hypotheses that were looked at.
    free_scale : bool
        Whether the hypothesis chose scale and rotation too (two stars) or a shift only (one).

    Returns
    -------
    Match or None
        None where fewer than three stars are left.
    """
    refined = refine_mapping(few, many, mapping, tolerance, free_scale)
    if refined is None:
        return None
    mapping, used = refined
    points = mapping(many.stars)
    i, j, _ = nearest_pairs(many.tree, points, tolerance)
    if len(i) < 3:
        return None
    expected = expected_by_chance(many, points, tolerance)
    log_chance = log_poisson_tail(len(i) - used, expected) + np.log10(max(trials, 1.0))
    residual = points[i] - many.reference[j]
    return Match(
        mapping,
        many.star_index[i],
        many.reference_index[j],
        tested=len(points),
        expected=expected,
        log_chance=float(log_chance),
        rms=float(np.sqrt(np.sum(residual**2) / max(2 * (len(i) - used), 1))),
    )


def best_match(
    few: ThinnedStars,
    many: ThinnedStars,
    hypotheses: list[Mapping],
    trials: float,
    tolerance: float,
    free_scale: bool,
    keep: int = 25,
) -> Match | None:
    """Verify the `keep` best hypotheses and return the match least probable by chance, or None."""
    count = count_matches(few, hypotheses, 4 * tolerance)
    order = np.argsort(count, kind="stable")[::-1][:keep]
    best = None
    for k in order:
        match = verify(few, many, hypotheses[k], tolerance, trials, free_scale)
        if match and (best is None or match.log_chance < best.log_chance):
            best = match
            if best.log_chance < -30:
                break
    return best


def shift_matches(
    stars: PlaneStars, reference: PlaneStars, search: SearchRange
) -> Iterator[Match | None]:
    """Yield the best shifts within ever larger radii: rungs 'header' and 'offset'."""
    size, tolerance = search.size, search.tolerance
    few, many = (thin(stars, reference, size, n) for n in (SELECTION_STARS, VERIFICATION_STARS))
    # Cells as wide as half a degree of rotation moves the corner of the frame.
    cell = max(1.5 * tolerance, 0.004 * size)
    first_radius = min(search.first_radius, search.radius)
    for rung, radius in (("header", first_radius), ("offset", search.radius)):
        for lead in (few, many):
            if len(lead.stars) * len(lead.reference) > MAX_OFFSETS:
                break
            hypotheses, trials = offset_hypotheses(lead.stars, lead.reference, radius, cell)
            match = best_match(lead, many, hypotheses, trials, tolerance, False)
            yield match and replace(match, rung=rung)
            if len(many.stars) == len(few.stars):
                break


def asterism_matches(
    stars: PlaneStars, reference: PlaneStars, search: SearchRange, scale_error: float
) -> Iterator[Match | None]:
    """Yield the best similarities for ever more scales and pairs of stars: rung 'asterism'."""
    numbers = (SELECTION_STARS * 2 // 3, SELECTION_STARS, VERIFICATION_STARS)
    for scale in search.scales:
        fewer, few, many = (thin(stars, reference, search.size, n, scale) for n in numbers)
        small, large = PAIR_BUDGETS
        attempts = [(fewer, few, small), (fewer, few, large), (many, many, large)]
        for lead, check, budget in attempts if scale == search.scales[0] else attempts[:2]:
            hypotheses, trials = pair_hypotheses(
                lead.stars,
                lead.reference,
                search.radius,
                search.size,
                scale,
                scale_error,
                budget=budget,
            )
            match = best_match(check, many, hypotheses, trials, search.tolerance, True)
            yield match and replace(match, rung="asterism")


def accepted(match: Match, search: SearchRange, settings: AstrometrySettings) -> bool:
    """Tell whether a match is good enough, and its map one that a frame can have."""
    m = match.mapping
    sound = m.aspect < 1.03 and abs(np.hypot(*m.offset)) < search.radius + search.size
    if match.rung not in ("asterism", "blind"):
        sound &= m.parity == 1 and abs(m.scale - 1) < 0.03 and abs(m.rotation) < 3.0
    return bool(
        sound
        and match.number >= settings.min_matched
        and match.contrast >= settings.min_contrast
        and match.log_chance <= settings.log_chance
    )


def match_stars(
    stars: PlaneStars,
    reference: PlaneStars,
    search: SearchRange,
    settings: AstrometrySettings | None = None,
) -> Match:
    """Identify the stars of a frame, by a ladder of ever fewer assumptions.

    1. header: shift of at most `first_radius`, scale and rotation as assumed;
    2. offset: shift of at most `radius`;
    3. asterism: any rotation, mirror image, each of `scales` to within `scale_error`.

    Parameters
    ----------
    stars, reference : PlaneStars
        On one tangent plane; reference positions may be NaN.
    search : SearchRange
    settings : AstrometrySettings, optional
        min_matched, min_contrast, log_chance: what a match must have; scale_error.

    Returns
    -------
    Match

    Raises
    ------
    NoMatch
        There is no match; with the numbers of the best hypothesis.
    """
    settings = settings or AstrometrySettings()
    inside = np.all(np.isfinite(reference.points), axis=1)
    margin = max(max(search.scales), 1.0) * (1 + settings.scale_error)
    reach = max(search.radius, search.first_radius) + 0.75 * search.size * margin
    inside &= np.hypot(*np.nan_to_num(reference.points).T) < reach
    kept = np.flatnonzero(inside)
    if len(stars) < 3 or len(kept) < 3:
        raise NoMatch(f"{len(stars)} stars, {len(kept)} reference stars in reach")
    ladder = [shift_matches(stars, reference[kept], search)]
    if search.asterisms:
        ladder.append(asterism_matches(stars, reference[kept], search, settings.scale_error))
    best: Match | None = None
    for rung in ladder:
        for match in rung:
            if match is None:
                continue
            match = replace(match, reference=kept[match.reference])
            if accepted(match, search, settings):
                return match
            if best is None or match.log_chance < best.log_chance:
                best = match
    raise NoMatch(f"best {best.brief}" if best else "no star met a reference star")
