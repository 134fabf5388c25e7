"""Finding which star of a frame is which star of a reference, and how sure that is.

All positions are on one tangent plane, in arcseconds. A hypothesis (shift, or shift with rotation,
scale and parity) comes from votes of pairs of stars; it is believed only when it matches many
more stars than chance would (Poisson, with the number of hypotheses tried), whatever its residual.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaln

FEW, MANY = 60, 300
"""Brightest stars used to tell hypotheses apart, and to verify one."""

BUCKETS = 1 << 21
"""Size of the hash table of votes, a power of two."""

BUDGETS = (300_000, 2_500_000)
"""Pairs of pairs looked at in a first and in a second attempt."""

MOST_OFFSETS = 6_000_000
"""Largest number of pairs of a star and a reference star looked at for a shift."""

DEEPER = 1.5
"""Reference stars taken for each star of the frame, per area: magnitudes of two bands differ."""


class NoMatch(Exception):
    """No believable match; says in numbers how near the best one came."""


@dataclass(frozen=True)
class Mapping:
    """Linear map of a plane: ``points @ matrix.T + offset``.

    Parameters
    ----------
    matrix : ndarray, shape (2, 2)
    offset : ndarray, shape (2,)
        In arcseconds.
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, points):
        """Return the mapped points, shape (n, 2)."""
        return points @ self.matrix.T + self.offset

    @property
    def scale(self):
        """Factor by which lengths grow."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix))))

    @property
    def parity(self):
        """+1, or -1 for a mirror image."""
        return 1 if np.linalg.det(self.matrix) > 0 else -1

    @property
    def rotation(self):
        """Angle in degrees; of the mirror image where the parity is -1."""
        a = self.matrix * np.array([self.parity, 1.0])
        return float(np.degrees(np.arctan2(a[1, 0] - a[0, 1], a[0, 0] + a[1, 1])))

    @property
    def aspect(self):
        """Ratio of the longer to the shorter stretch; 1 for a similarity."""
        s = np.linalg.svd(self.matrix, compute_uv=False)
        return float(s[0] / s[1])


@dataclass(frozen=True)
class Match:
    """A set of identified stars.

    Parameters
    ----------
    mapping : Mapping
        From the plane of the frame to that of the reference.
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
    def number(self):
        """Number of identified stars."""
        return len(self.stars)

    @property
    def contrast(self):
        """Identified stars over those expected by chance, at most 9999."""
        return float(min(self.number / max(self.expected, 1e-9), 9999.0))

    def __str__(self):
        return f"{self.brief}, rms {self.rms:.2f} arcsec"

    @property
    def brief(self):
        """The numbers that it is judged by, short enough for a header card."""
        return (
            f"{self.number}/{self.tested} stars, chance 1e{self.log_chance:.1f}, "
            f"contrast {self.contrast:.1f}"
        )


def same_orientation(a, b, angle=1.0, scale=0.01):
    """Whether two linear parts agree in parity, rotation [deg] and scale (relative)."""
    turn = Mapping(a @ np.linalg.inv(b), np.zeros(2))
    return turn.parity == 1 and abs(turn.rotation) < angle and abs(turn.scale - 1) < scale


def brightest_per_cell(points, magnitude, cell, number):
    """Choose the brightest stars of every cell of a square grid.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    magnitude : ndarray, shape (n,)
        Any monotonic measure, small is bright; NaN counts as faintest.
    cell : float
        Side of a cell, in the unit of `points`.
    number : int
        Stars of each cell.

    Returns
    -------
    ndarray of int
        Indices, bright first.
    """
    if len(points) == 0:
        return np.zeros(0, int)
    order = np.argsort(np.where(np.isfinite(magnitude), magnitude, np.inf), kind="stable")
    key = np.floor(points[order] / cell).astype(np.int64)
    key -= key.min(axis=0)
    key = key[:, 0] * (key[:, 1].max() + 1) + key[:, 1]
    group = np.argsort(key, kind="stable")
    first = np.r_[0, np.flatnonzero(np.diff(key[group])) + 1]
    start = np.repeat(first, np.diff(np.r_[first, len(key)]))
    rank = np.empty(len(key), int)
    rank[group] = np.arange(len(key)) - start
    return order[rank < number]


def fit_mapping(source, target, kind):
    """Least-squares linear map of `source` onto `target`.

    Parameters
    ----------
    source, target : ndarray, shape (n, 2)
    kind : {'shift', 'similarity', 'mirror', 'affine'}
        'mirror' is a similarity with parity -1.

    Returns
    -------
    Mapping
    """
    p0, q0 = source.mean(axis=0), target.mean(axis=0)
    p, q = source - p0, target - q0
    if kind == "shift":
        matrix = np.eye(2)
    elif kind == "affine":
        matrix = np.linalg.lstsq(p, q, rcond=None)[0].T
    else:
        flip = np.array([-1.0 if kind == "mirror" else 1.0, 1.0])
        z = (p * flip) @ [1, 1j]
        factor = np.vdot(z, q @ [1, 1j]) / max(np.vdot(z, z).real, 1e-12)
        matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]]) * flip
    return Mapping(matrix, q0 - matrix @ p0)


def nearest_pairs(tree, points, tolerance):
    """Identify points with stars of a tree, each with at most one, nearest first.

    Returns
    -------
    i, j : ndarray of int
        Indices into `points` and into the tree.
    distance : ndarray of float
    """
    distance, j = tree.query(points, distance_upper_bound=tolerance)
    i = np.flatnonzero(np.isfinite(distance))
    i = i[np.argsort(distance[i], kind="stable")]
    _, unique = np.unique(j[i], return_index=True)
    i = np.sort(i[unique])
    return i, j[i], distance[i]


def offset_hypotheses(stars, reference, radius, cell, number=20):
    """Find shifts by which most stars meet a reference star (votes in a 2-D histogram).

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds, scale and rotation known to within `cell` over the frame.
    radius : float
        Largest shift [arcsec].
    cell : float
        Width of a histogram cell [arcsec]; votes are summed over 3x3.
    number : int
        Hypotheses returned.

    Returns
    -------
    list of Mapping
    trials : float
        Number of independent shifts that were looked at.
    """
    shift = (reference[None, :, :] - stars[:, None, :]).reshape(-1, 2)
    shift = shift[np.einsum("ij,ij->i", shift, shift) < radius**2]
    count = len(shift)
    if count == 0:
        return [], 1.0
    cell = max(cell, radius / 1500.0)
    half = int(np.ceil(radius / cell)) + 2
    index = np.floor(shift / cell).astype(int) + half
    votes = np.bincount(index[:, 0] * 2 * half + index[:, 1], minlength=4 * half * half)
    votes = votes.reshape(2 * half, 2 * half).astype(np.int32)
    votes = votes + np.roll(votes, 1, 0) + np.roll(votes, -1, 0)
    votes = votes + np.roll(votes, 1, 1) + np.roll(votes, -1, 1)
    seen = np.unique(votes.ravel()[index[:, 0] * 2 * half + index[:, 1]])
    floor = max(1, seen[-1] // 4)
    at = np.flatnonzero(votes.ravel() >= floor)
    at = at[np.argsort(votes.ravel()[at], kind="stable")[::-1][: 40 * number]]
    found, taken = [], np.zeros((0, 2))
    for k in at:
        middle = (np.array(divmod(k, 2 * half)) - half + 0.5) * cell
        if len(taken) and np.min(np.hypot(*(taken - middle).T)) < 2.5 * cell:
            continue
        taken = np.vstack([taken, middle])
        close = np.all(np.abs(shift - middle) <= 1.5 * cell, axis=1)
        found.append(Mapping(np.eye(2), np.median(shift[close], axis=0)))
        if len(found) == number:
            break
    return found, float(count)


def pair_hypotheses(
    stars, reference, radius, size, scale=1.0, scale_error=0.08, number=400, budget=400_000
):
    """Find rotation, scale, parity and shift from pairs of stars (votes in four dimensions).

    A pair in the frame and a pair in the reference give one similarity each way round; true pairs
    agree on one cell of (rotation, scale, x, y), chance pairs are spread over all.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds; the origin is the assumed middle of the frame.
    radius : float
        Largest distance of the true middle of the frame from the assumed one [arcsec].
    size : float
        Side of the frame [arcsec].
    scale, scale_error : float
        Scale of the reference in units of the frame's, and its relative tolerance.
    number : int
        Hypotheses returned for each parity.
    budget : int
        Pairs of pairs looked at; longest pairs are given up first.

    Returns
    -------
    list of Mapping
    trials : float
    """
    star_pairs, known_pairs = pairs_of_pairs(stars, reference, size, scale, scale_error, budget)
    if len(star_pairs) == 0:
        return [], 1.0
    q = reference @ np.array([1, 1j])
    c, d = q[known_pairs[:, 0]], q[known_pairs[:, 1]]
    found = []
    for parity in (1, -1):
        p = stars @ np.array([parity, 1j])
        a, b = p[star_pairs[:, 0]], p[star_pairs[:, 1]]
        factor = (d - c) / (b - a)
        offset = np.concatenate([c - factor * a, d + factor * a])
        factor = np.concatenate([factor, -factor])
        keep = np.abs(offset) < radius + 0.1 * size
        for f, o in vote(factor[keep], offset[keep], size, number):
            matrix = np.array([[f.real, -f.imag], [f.imag, f.real]])
            found.append(Mapping(matrix * [parity, 1.0], np.array([o.real, o.imag])))
    return found, 4.0 * float(len(star_pairs))


def pairs_of_pairs(stars, reference, size, scale, scale_error, budget):
    """Put each pair of stars beside the pairs of reference stars of the same length.

    See `pair_hypotheses`.

    Returns
    -------
    star_pairs, known_pairs : ndarray of int, shape (n, 2)
        Indices of the stars of each pair.
    """
    pairs_p = np.column_stack(np.triu_indices(len(stars), 1))
    length_p = np.hypot(*(stars[pairs_p[:, 1]] - stars[pairs_p[:, 0]]).T)
    tree = cKDTree(reference)
    longest = 1.0 * size
    while True:
        use = (length_p > 0.06 * size) & (length_p < longest)
        reach = longest * scale * (1 + scale_error)
        total = tree.count_neighbors(tree, reach) - len(reference)
        if total < 4 * budget:
            pairs_q = tree.query_pairs(reach, output_type="ndarray")
            length_q = np.hypot(*(reference[pairs_q[:, 1]] - reference[pairs_q[:, 0]]).T)
            order = np.argsort(length_q)
            pairs_q, length_q = pairs_q[order], length_q[order]
            low = np.searchsorted(length_q, length_p[use] * scale / (1 + scale_error))
            high = np.searchsorted(length_q, length_p[use] * scale * (1 + scale_error))
            if (high - low).sum() <= budget or longest < 0.1 * size:
                break
        longest *= 0.8
    count = high - low
    count[np.cumsum(count) > budget] = 0
    inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    star_pairs = pairs_p[np.repeat(np.flatnonzero(use), count)]
    return star_pairs, pairs_q[np.repeat(low, count) + inside]


def vote(factor, offset, size, number):
    """Find the similarities on which most pairs of pairs agree.

    Parameters
    ----------
    factor, offset : ndarray of complex, shape (n,)
        Rotation with scale, and shift [arcsec].
    size : float
        Side of the frame [arcsec].
    number : int
        Cells returned.

    Returns
    -------
    iterable of tuple of complex
        Mean factor and offset of each of the fullest cells, fullest first.
    """
    if len(factor) == 0:
        return ()
    cells = (
        np.angle(factor) / np.radians(1.5),
        np.log(np.abs(factor)) / 0.015,
        offset.real / (0.02 * size),
        offset.imag / (0.02 * size),
    )
    key = np.zeros(len(factor))
    for cell in cells:
        cell = np.floor(cell, out=cell)
        cell -= cell.min()
        key *= cell.max() + 1
        key += cell
    key = key.astype(np.int64)
    # Sorting all the votes would take most of the time: only well-filled buckets are sorted.
    bucket = (key * 0x9E3779B1 >> 7) & (BUCKETS - 1)
    filled = np.bincount(bucket, minlength=BUCKETS)
    above = np.cumsum(np.bincount(filled)[::-1])[::-1]
    enough = max(np.count_nonzero(above >= number) - 1, 1)
    held = filled[bucket] >= enough
    key, factor, offset = key[held], factor[held], offset[held]
    _, index, votes = np.unique(key, return_inverse=True, return_counts=True)
    best = np.argsort(votes, kind="stable")[::-1][:number]
    position = np.full(len(votes), -1)
    position[best] = np.arange(len(best))
    member = position[index]
    held = member >= 0

    def mean(values):
        real, imaginary = (
            np.bincount(member[held], part[held], len(best)) for part in (values.real, values.imag)
        )
        return (real + 1j * imaginary) / votes[best]

    return zip(mean(factor), mean(offset), strict=True)


def log_poisson_tail(number, mean):
    """Decimal logarithm of an upper bound to the chance of `number` events or more.

    Sum of the geometric series that bounds the Poisson terms; 0 where `number` <= `mean`.
    """
    if number <= mean:
        return 0.0
    mean = max(mean, 1e-300)
    log_term = number * np.log(mean) - mean - gammaln(number + 1.0)
    return float(min(0.0, (log_term - np.log1p(-mean / (number + 1.0))) / np.log(10.0)))


@dataclass(frozen=True)
class Field:
    """Stars of a frame and reference stars on one tangent plane, thinned to equal density.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
    tree : cKDTree
        Of `reference`.
    """

    stars: np.ndarray
    reference: np.ndarray
    star_index: np.ndarray
    reference_index: np.ndarray
    tree: cKDTree


def thin(stars, star_mag, reference, reference_mag, size, number, scale=1.0):
    """Keep about `number` bright stars of the frame and somewhat more reference stars per frame.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
    star_mag, reference_mag : ndarray
        Small is bright.
    size : float
        Side of the frame [arcsec].
    number : int
    scale : float
        Scale of the reference in units of the frame's.

    Returns
    -------
    Field
    """
    each = max(1, int(np.ceil(number / 4)))
    i = brightest_per_cell(stars, star_mag, size / 2, each)
    j = brightest_per_cell(reference, reference_mag, scale * size / 2, int(np.ceil(DEEPER * each)))
    return Field(stars[i], reference[j], i, j, cKDTree(reference[j]))


def count_matches(field, mappings, tolerance):
    """Return how many stars each mapping brings within `tolerance` of a reference star."""
    if not mappings:
        return np.zeros(0, int)
    points = np.concatenate([m(field.stars) for m in mappings])
    distance, _ = field.tree.query(points, distance_upper_bound=tolerance)
    return np.isfinite(distance).reshape(len(mappings), -1).sum(axis=1)


def verify(few, many, mapping, tolerance, trials, free_scale):
    """Refine a hypothesis and find out how probable it is by chance.

    Parameters
    ----------
    few, many : Field
        To begin and to end with.
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
    similarity = "similarity" if mapping.parity == 1 else "mirror"
    used = 2 if free_scale else 1
    steps = ((few, 6), (few, 4), (many, 3), (many, 2), (many, 1), (many, 1), (many, 1))
    for field, factor in steps:
        i, j, distance = nearest_pairs(field.tree, mapping(field.stars), factor * tolerance)
        if len(i) < 3:
            return None
        source, target = field.stars[i], field.reference[j]
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
    used = max(used, 2 if free_scale else 1)
    points = mapping(many.stars)
    i, j, distance = nearest_pairs(many.tree, points, tolerance)
    if len(i) < 3:
        return None
    density = len(many.reference) / max(np.prod(np.ptp(many.reference, axis=0)), tolerance**2)
    if len(many.reference) > 7:
        # The seventh neighbour tells the local density, the identified star not counted.
        seventh = many.tree.query(points, k=7)[0][:, -1]
        local = 6.0 / (np.pi * np.maximum(seventh, tolerance) ** 2)
    else:
        local = np.full(len(points), density)
    # Stars beyond the edge of the reference cannot be identified by chance either.
    expected = float(np.sum(-np.expm1(-np.pi * tolerance**2 * local)))
    log_chance = log_poisson_tail(len(i) - used, expected) + np.log10(max(trials, 1.0))
    residual = points[i] - many.reference[j]
    rms = float(np.sqrt(np.sum(residual**2) / max(2 * (len(i) - used), 1)))
    return Match(
        mapping,
        many.star_index[i],
        many.reference_index[j],
        len(points),
        expected,
        float(log_chance),
        rms,
    )


def best_match(few, many, hypotheses, trials, tolerance, free_scale, keep=25):
    """Verify the hypotheses that look best and return the least probable by chance, or None."""
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


def match_stars(
    stars,
    star_mag,
    reference,
    reference_mag,
    *,
    size,
    tolerance,
    radius,
    first_radius=30.0,
    min_matched=5,
    contrast=2.0,
    log_chance=-6.0,
    scale_error=0.08,
    scales=(1.0,),
    asterisms=True,
):
    """Identify the stars of a frame, by a ladder of ever fewer assumptions.

    1. header: shift of at most `first_radius`, scale and rotation as assumed;
    2. offset: shift of at most `radius`;
    3. asterism: any rotation, mirror image, each of `scales` to within `scale_error`.

    Parameters
    ----------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds on one tangent plane; the origin is the assumed middle of the frame.
    star_mag, reference_mag : ndarray
        Small is bright.
    size : float
        Side of the frame [arcsec].
    tolerance : float
        Distance at which stars count as identified [arcsec].
    radius : float
        Uncertainty of the pointing [arcsec].
    min_matched : int
        Fewer identified stars are no solution.
    contrast : float
        Least ratio of identified stars to those expected by chance.
    log_chance : float
        Largest decimal logarithm of the number of such hypotheses expected by chance.
    scales : sequence of float
        Trial scales of the third rung, in the order they are tried.
    asterisms : bool
        Whether the third rung is climbed.

    Returns
    -------
    Match

    Raises
    ------
    NoMatch
        With the numbers of the best hypothesis.
    """
    inside = np.all(np.isfinite(reference), axis=1)
    reach = max(radius, first_radius) + 0.75 * size * max(max(scales), 1.0) * (1 + scale_error)
    inside &= np.hypot(*np.nan_to_num(reference).T) < reach
    kept = np.flatnonzero(inside)
    if len(stars) < 3 or len(kept) < 3:
        raise NoMatch(f"{len(stars)} stars, {len(kept)} reference stars in reach")

    def fields(scale):
        data = (stars, star_mag, reference[kept], reference_mag[kept], size)
        return (thin(*data, number, scale) for number in (FEW * 2 // 3, FEW, MANY))

    nearest = None

    def judge(match, rung):
        nonlocal nearest
        if match is None:
            return None
        match = replace(match, rung=rung, reference=kept[match.reference])
        if nearest is None or match.log_chance < nearest.log_chance:
            nearest = match
        m = match.mapping
        sound = m.aspect < 1.03 and abs(np.hypot(*m.offset)) < radius + size
        if rung != "asterism":
            sound &= m.parity == 1 and abs(m.scale - 1) < 0.03 and abs(m.rotation) < 3.0
        if (
            sound
            and match.number >= min_matched
            and match.contrast >= contrast
            and match.log_chance <= log_chance
        ):
            return match
        return None

    # Cells as wide as half a degree of rotation moves the corner of the frame.
    cell = max(1.5 * tolerance, 0.004 * size)
    _, few, many = fields(1.0)
    for rung, reach in (("header", min(first_radius, radius)), ("offset", radius)):
        for lead in (few, many):
            if len(lead.stars) * len(lead.reference) > MOST_OFFSETS:
                break
            hypotheses, trials = offset_hypotheses(lead.stars, lead.reference, reach, cell)
            match = judge(best_match(lead, many, hypotheses, trials, tolerance, False), rung)
            if match:
                return match
            if len(many.stars) == len(few.stars):
                break
    for scale in scales if asterisms else ():
        fewer, few, many = fields(scale)
        attempts = [(fewer, few, BUDGETS[0]), (fewer, few, BUDGETS[1]), (many, many, BUDGETS[1])]
        for lead, check, budget in attempts if scale == scales[0] else attempts[:2]:
            hypotheses, trials = pair_hypotheses(
                lead.stars, lead.reference, radius, size, scale, scale_error, budget=budget
            )
            match = judge(best_match(check, many, hypotheses, trials, tolerance, True), "asterism")
            if match:
                return match
    raise NoMatch(f"best {nearest.brief}" if nearest else "no star met a reference star")
