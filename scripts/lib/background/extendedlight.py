"""Light of the target in the sky of its frames, told from the sky by what moves with the telescope.

What stays on the detector while the telescope moves is sky (or flat field); what moves with the
stars is light of galaxies, nebulae or clusters, however large. The large scales of all frames are
modelled at once as sky + light + what changes from frame to frame, each a Gaussian process
(Rasmussen & Williams 2006, chapter 2), whose amplitudes and scales are those of the highest
marginal likelihood. Frames of other targets, and frames beside the target, share its sky but not
its light: they need no rule of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from lib.background.sky import NOT_SKY, block_sky, fit_surface, surface
from lib.core.meshes import bilinear
from lib.core.stats import mad_std
from lib.frame.file import SOURCE

MOVING = 0.055
"""[noise of a pixel] What the squares of frames have not in common, rms: noise alone makes 0.04."""

LARGE = 0.01
"""[fraction of the frame] Hidden in one piece: a galaxy, a cluster, the halo of a bright star."""

RING = 3
"""[mesh of 8 px] Width of the rings in which the light of a large source is followed."""

OUTSIDE = 0.08
"""[fraction of the sky pixels] That lie outside of the light of a large source, at least."""

Place = tuple[str, tuple[int, ...] | None]
"""Target and offset (dy, dx) [px] of a frame; None where no star tells it."""

MOST_VALUES = 2000
"""Squares of all frames that are modelled at once: more take minutes."""

MOST_TRIAL_VALUES = 320
"""The same while amplitudes and scales are looked for."""

MOST_FRAMES = 12
"""Frames that are modelled; the light in others follows from where they point."""

LEAST_SQUARE = 24
"""[px] Size of the squares, at least: their medians have a fiftieth of the noise of a pixel."""

FINE = 12
"""[px] Mesh on which the light is told."""

LEVEL_GROUND = 0.06
"""[range of the light] Within which its faint places lie where it ends."""

CLEAR_EVIDENCE = 12.0
"""[ln] Light is believed where it makes the frames so much more likely."""

PLANE = 0.1
"""[fraction of the sky] By which the sky of a frame may be tilted."""


@dataclass(frozen=True)
class Scales:
    """Amplitudes, as fractions of the sky, and lengths [px] of the parts of the model.

    Parameters
    ----------
    sky, sky_length : float
        What all frames have in common on the detector.
    light, light_length : float
        What the frames of a target have in common on the sky; an amplitude of 0: none.
    own, own_length : float
        What one frame has for itself.
    scatter : float
        Between neighbouring squares, beside noise.
    """

    sky: float
    sky_length: float
    light: float
    light_length: float
    own: float
    own_length: float
    scatter: float


@dataclass(frozen=True)
class Squares:
    """Medians of squares of some frames, relative to the level of each.

    Parameters
    ----------
    value, noise : ndarray, shape (m,)
    frame : ndarray of int, shape (m,)
        To which each belongs.
    at : ndarray, shape (m, 2)
        (y, x) on the detector [px].
    target : ndarray of int, shape (n,)
        Of each frame; frames of different targets have no light in common.
    shift : ndarray, shape (n, 2)
        Offset of each frame within its target [px].
    strength : ndarray, shape (n,)
        Of the light in each frame, relative to its sky level, 1 in the median.
    shape : tuple of int
        Of a frame.
    """

    value: np.ndarray
    noise: np.ndarray
    frame: np.ndarray
    at: np.ndarray
    target: np.ndarray
    shift: np.ndarray
    strength: np.ndarray
    shape: tuple[int, int]

    def part(self, which: np.ndarray) -> "Squares":
        """Return some of the squares."""
        return replace(
            self, value=self.value[which], noise=self.noise[which], frame=self.frame[which],
            at=self.at[which],
        )  # fmt: skip

    @property
    def on_sky(self) -> np.ndarray:
        """Positions relative to the target of each, shape (m, 2) [px]."""
        return self.at - self.shift[self.frame]


def matern(distance: np.ndarray, length: float) -> np.ndarray:
    """Return the correlation of a Matern process of index 3/2 over distances [px]."""
    ratio = np.sqrt(3) / length * distance
    return (1 + ratio) * np.exp(-ratio)


def smooth_matern(distance: np.ndarray, length: float) -> np.ndarray:
    """Return the same of index 5/2: smoother, as the sky is."""
    ratio = np.sqrt(5) / length * distance
    return (1 + ratio + ratio**2 / 3) * np.exp(-ratio)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distances between positions, shape (len(one), len(other))."""
    from scipy.spatial.distance import cdist

    return cdist(one, other)


class LargeScales:
    """The model of the squares of frames: covariances of its parts, its likelihood, its solution.

    Parameters
    ----------
    squares : Squares
    """

    def __init__(self, squares: Squares) -> None:
        self.squares = squares
        self.apart = distances(squares.at, squares.at)
        self.apart_on_sky = distances(squares.on_sky, squares.on_sky)
        target = squares.target[squares.frame]
        self.same_target = target[:, None] == target
        self.same_frame = squares.frame[:, None] == squares.frame
        place = 2 * squares.at / np.array(squares.shape) - 1
        strength = squares.strength[squares.frame]
        self.strength = np.where(self.same_target, strength[:, None] * strength, 0)
        self.own = self.same_frame * (1 + PLANE**2 * (place @ place.T))

    def covariance(self, scales: Scales) -> np.ndarray:
        """Return the covariance of the values."""
        total = self.own + scales.sky**2 * smooth_matern(self.apart, scales.sky_length)
        own = scales.own**2 * smooth_matern(self.apart, scales.own_length)
        total += np.where(self.same_frame, own, 0)
        if scales.light > 0:
            light = scales.light**2 * matern(self.apart_on_sky, scales.light_length)
            total += light * self.strength
        total[np.diag_indices_from(total)] += self.squares.noise**2 + scales.scatter**2
        return total

    def log_likelihood(self, scales: Scales) -> float:
        """Return the marginal likelihood of the values [ln], up to a constant."""
        try:
            factor = cho_factor(self.covariance(scales), lower=True, overwrite_a=True)
        except LinAlgError:
            return -np.inf
        value = self.squares.value
        fit = value @ cho_solve(factor, value)
        return float(-0.5 * fit - np.log(np.diag(factor[0])).sum())

    def solve(self, scales: Scales) -> np.ndarray:
        """Return the weights of the values, from which each part follows at any place."""
        factor = cho_factor(self.covariance(scales), lower=True, overwrite_a=True)
        return cho_solve(factor, self.squares.value)


def prior(scales: Scales) -> float:
    """Return how likely such amplitudes are before the frames are seen [ln].

    Flats are good to a per cent or so; galaxies and nebulae are as they are.
    """
    chance = -0.5 * (np.log(max(scales.sky, 1e-6) / 0.01) / 1.5) ** 2
    chance -= 0.5 * (np.log(max(scales.own, 1e-6) / 0.002) / 1.5) ** 2
    if scales.light > 0:
        chance -= 0.5 * (np.log(scales.light / 0.05) / 2) ** 2
    return float(chance)


def best_scales(
    model: LargeScales,
    light: bool,
    typical: float,
    rest: float,
    begin: Scales | None = None,
) -> tuple[Scales, float]:
    """Return the amplitudes and lengths that make the values most likely, and how likely [ln].

    Parameters
    ----------
    model : LargeScales
    light : bool
        Whether the frames may hold light of their targets.
    typical : float
        Amplitude of what the frames show.
    rest : float
        The same of what they have not in common.
    begin : Scales, optional
        Near the best, to be improved.
    """
    from scipy.optimize import minimize

    size = float(max(model.squares.shape))

    def scales_of(log):
        sky, sky_length, own, scatter = np.exp(log[:4])
        bright, length = np.exp(log[4:]) if light else (0.0, 1.0)
        return Scales(sky, sky_length, bright, length, own, size / 3, scatter)

    def badness(log):
        scales = scales_of(log)
        lengths = np.log([scales.sky_length / size * 2, scales.light_length / size * 4])
        wide = np.abs(lengths[: 2 if light else 1])
        chance = prior(scales) - 5 * np.clip(wide - np.log(4), 0, None).sum()
        value = model.log_likelihood(scales) + chance
        return -value if np.isfinite(value) else 1e10

    starts: list[tuple[float, ...]] = [(typical, size / 2, rest, rest / 4)]
    if light:
        starts = [
            (typical / 10, size / 2, rest / 4, rest / 4, typical, size / 5),
            (typical, size / 2, rest / 4, rest / 4, rest, size / 5),
        ]
    if begin is not None:
        starts = [
            (begin.sky, begin.sky_length, begin.own, begin.scatter, begin.light, begin.light_length)
        ]
    found = []
    for start in starts:
        first = np.log(np.maximum(start, 1e-5))
        step = np.vstack([first, first + 0.7 * np.eye(first.size)])
        options = {"initial_simplex": step, "maxfev": 22 * first.size, "xatol": 0.03, "fatol": 0.3}
        found.append(minimize(badness, first, method="Nelder-Mead", options=options))
    best = min(found, key=lambda one: one.fun)
    return scales_of(best.x), -float(best.fun)


def promising(
    model: LargeScales, without: Scales, plain: float, amplitudes: tuple[float, ...]
) -> bool:
    """Tell whether light of some amplitude and length makes the frames more likely.

    Parameters
    ----------
    model : LargeScales
    without : Scales
        The best without light.
    plain : float
        How likely they are [ln].
    amplitudes : tuple of float
        Of the light, to be tried.
    """
    size = max(model.squares.shape)
    for amplitude in amplitudes:
        for length in (size / 8, size / 3):
            for share in (0.2, 1.0):
                scales = replace(
                    without, sky=without.sky * share, own=without.own / 4, light=amplitude,
                    light_length=length,
                )  # fmt: skip
                if model.log_likelihood(scales) + prior(scales) > plain:
                    return True
    return False


@dataclass(frozen=True)
class Separation:
    """What the large scales of frames are made of.

    Parameters
    ----------
    sky : ndarray of float32, shape (rows, columns)
        The sky that all have in common, 1 in the median.
    light : ndarray of float32, shape (n, rows, columns)
        Light of the target in each frame, as a fraction of its sky level.
    evidence : float
        How much more likely the frames are with light than without [ln].
    scales : Scales
    """

    sky: np.ndarray
    light: np.ndarray
    evidence: float
    scales: Scales


def measure_squares(
    planes: Sequence[np.ndarray],
    places: Sequence[Place],
    noises: Sequence[float],
    strength: np.ndarray,
    which: Sequence[int],
) -> Squares:
    """Measure the squares of some frames.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape (ny, nx)
        Normalised frames, NaN where no sky is shown.
    places : list of (target, shift)
        Of each frame.
    noises : sequence of float
        Of a pixel of each frame.
    strength : ndarray, shape (n,)
        See `Squares`.
    which : list of int
        Frames to be measured.

    Returns
    -------
    Squares
    """
    shape = planes[0].shape
    size = max(LEAST_SQUARE, float(np.sqrt(np.prod(shape) * len(which) / MOST_VALUES)))
    values, noise, frames, at = [], [], [], []
    for n in which:
        plane = planes[n]
        free = np.isfinite(plane)
        blocks = block_sky(np.where(free, plane, 0), free, size)
        rows, columns = blocks.shape
        share = block_sky_share(free, blocks.shape)
        known = np.isfinite(blocks)
        y, x = np.nonzero(known)
        at.append(np.stack([(y + 0.5) * shape[0] / rows, (x + 0.5) * shape[1] / columns], axis=1))
        values.append(blocks[known] - 1.0)
        number = share[known] * np.prod(shape) / blocks.size
        noise.append(1.25 * noises[n] / np.sqrt(number))
        frames.append(np.full(len(y), n))
    target, shift = name_targets(places)
    return Squares(
        np.concatenate(values).astype(float), np.concatenate(noise), np.concatenate(frames),
        np.concatenate(at), target, shift, strength, shape,
    )  # fmt: skip


def block_sky_share(free: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Return the part of free pixels in each of (rows, columns) parts of an image, about."""
    rows = np.linspace(0, free.shape[0], counts[0] + 1).astype(int)
    columns = np.linspace(0, free.shape[1], counts[1] + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(free, rows[:-1], 0, int), columns[:-1], 1)
    return np.maximum(sums / (np.diff(rows)[:, None] * np.diff(columns)), 1e-3)


def name_targets(places: Sequence[Place]) -> tuple[np.ndarray, np.ndarray]:
    """Return number of the target and shift of each frame; one of unknown shift is its own."""
    names: dict[object, int] = {}
    target, shifts = [], []
    for n, (name, shift) in enumerate(places):
        target.append(names.setdefault(n if shift is None else name, len(names)))
        shifts.append(shift or (0, 0))
    return np.array(target), np.array(shifts, float)


def separate_light(
    planes: Sequence[np.ndarray],
    places: Sequence[Place],
    noises: Sequence[float],
    strength: np.ndarray,
) -> Separation | None:
    """Tell light of the targets from the sky.

    Parameters
    ----------
    planes, places, noises, strength
        See `measure_squares`.

    Returns
    -------
    Separation or None
        None where the frames are as likely without such light.
    """
    rng = np.random.default_rng(1)
    count = len(planes)
    which = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).astype(int)).tolist()
    squares = measure_squares(planes, places, noises, strength, which)
    values = squares.value
    few = np.sort(rng.permutation(values.size)[:MOST_TRIAL_VALUES])
    trial = LargeScales(squares.part(few))
    typical = float(np.std(values[few]))
    rest = max(common_rest(squares), 1e-4)
    without, plain = best_scales(trial, False, typical, rest)
    if not promising(trial, without, plain, (typical, rest)):
        return None
    scales, likely = best_scales(trial, True, typical, rest)
    evidence = likely - plain
    if evidence < CLEAR_EVIDENCE:
        return None
    few = np.sort(rng.permutation(values.size)[: 2 * MOST_TRIAL_VALUES])
    scales, _ = best_scales(LargeScales(squares.part(few)), True, typical, rest, scales)
    model = LargeScales(squares)
    weights = model.solve(scales)
    squares = fit_strength(squares, scales, weights)
    weights = LargeScales(squares).solve(scales)
    return predict(squares, scales, weights, count, evidence)


def fit_strength(squares: Squares, scales: Scales, weights: np.ndarray) -> Squares:
    """Return the squares with the strength of the light in each frame as they show it.

    Clouds dim a target, not the sky.
    """
    sky = (
        scales.sky**2
        * smooth_matern(distances(squares.at, squares.at), scales.sky_length)
        @ weights
    )
    strength = squares.strength.copy()
    for n in np.unique(squares.frame):
        here = squares.frame == n
        light = light_at(squares, scales, weights, squares.on_sky[here], squares.target[n])
        place = 2 * squares.at[here] / np.array(squares.shape) - 1
        terms = np.column_stack([light, np.ones(here.sum()), place])
        noise = np.hypot(squares.noise[here], np.hypot(scales.own, scales.scatter))
        terms, value = terms / noise[:, None], (squares.value - sky)[here] / noise
        inverse = np.linalg.pinv(terms.T @ terms)
        if inverse[0, 0] < 0.05**2:
            strength[n] = np.clip(inverse[0] @ terms.T @ value, 0.3, 3)
    return replace(squares, strength=strength)


def common_rest(squares: Squares) -> float:
    """Return the scatter of the values about what the frames have in common at each place."""
    from scipy.stats import binned_statistic_dd

    place = [squares.at[:, 0], squares.at[:, 1]]
    bins = [max(2, int(size // 64)) for size in squares.shape]
    level = np.zeros(squares.frame.max() + 1)
    for n in np.unique(squares.frame):
        level[n] = np.median(squares.value[squares.frame == n])
    value = squares.value - level[squares.frame]
    mean, _, number = binned_statistic_dd(place, value, "median", bins, expand_binnumbers=True)
    return float(np.std(value - mean[number[0] - 1, number[1] - 1]))


def light_at(
    squares: Squares, scales: Scales, weights: np.ndarray, at: np.ndarray, target: int
) -> np.ndarray:
    """Return the light of a target at places on the sky, in a frame of strength 1."""
    same = np.flatnonzero(squares.target[squares.frame] == target)
    if not same.size:
        return np.zeros(len(at))
    light = scales.light**2 * matern(distances(at, squares.on_sky[same]), scales.light_length)
    return light @ (weights[same] * squares.strength[squares.frame[same]])


def predict(
    squares: Squares, scales: Scales, weights: np.ndarray, count: int, evidence: float
) -> Separation:
    """Return sky and light on a mesh of `FINE` pixels."""
    shape = squares.shape
    rows, columns = (max(1, round(size / FINE)) for size in shape)
    y, x = np.indices((rows, columns)).reshape(2, -1)
    at = np.stack([(y + 0.5) * shape[0] / rows, (x + 0.5) * shape[1] / columns], axis=1)
    sky = scales.sky**2 * smooth_matern(distances(at, squares.at), scales.sky_length) @ weights
    sky = sky.reshape(rows, columns)
    light = np.array(
        [
            squares.strength[n]
            * light_at(squares, scales, weights, at - squares.shift[n], squares.target[n])
            for n in range(count)
        ]
    ).reshape(count, rows, columns)
    # A plane of the light and one of all skies are the same: the faint places hold none.
    for one in np.unique(squares.target):
        mine = np.flatnonzero(squares.target == one)
        on_sky = (at - squares.shift[mine][:, None]).reshape(-1, 2)
        strength = squares.strength[mine][:, None, None]
        faint = faint_plane(light[mine].ravel() / np.repeat(strength, len(at)), on_sky)
        light[mine] -= strength * faint.reshape(mine.size, rows, columns)
    sky = 1 + sky - np.median(sky)
    return Separation(sky.astype(np.float32), light.astype(np.float32), evidence, scales)


def faint_plane(light: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the plane on which the faint places of a light lie; a level where none does.

    Parameters
    ----------
    light : ndarray, shape (m,)
    at : ndarray, shape (m, 2)
        Places on the sky [px].

    Returns
    -------
    ndarray, shape (m,)
        The level is where a quarter of the values lie closest together, of the fainter three
        fifths. Where they do so to within `LEVEL_GROUND` of the range of the light, and on all
        sides, the light ends there, and the plane is that of these places.
    """
    values = np.sort(light)[:: max(1, light.size // 20000)]
    number = max(1, values.size // 4)
    last = max(1, int(0.6 * values.size) - number)
    width = values[number : number + last] - values[:last]
    first = int(np.argmin(width))
    level, width = float(values[first : first + number].mean()), float(width[first])
    plane = np.full(light.shape, level)
    if width > LEVEL_GROUND * (values[-1] - values[0]):
        return plane
    place = (at - at.mean(axis=0)) / np.ptp(at, axis=0)
    terms = np.column_stack([np.ones(len(at)), place])
    ground = np.abs(light - level) < 1.5 * width
    for _ in range(8):
        if np.ptp(place[ground], axis=0).min() < 0.6:
            return np.full(light.shape, level)
        plane = terms @ np.linalg.lstsq(terms[ground], light[ground], rcond=None)[0]
        rest = light - plane
        ground = np.abs(rest) < 2.5 * mad_std(rest[ground])
    return plane


def large_sources(hidden: np.ndarray, mesh: int = 8) -> np.ndarray:
    """Return where the sources of a frame cover a good part of it in one piece.

    Parameters
    ----------
    hidden : ndarray of bool, shape (ny, nx)
        Pixels of sources.
    mesh : int
        [px].

    Returns
    -------
    ndarray of bool, shape (ceil(ny / mesh), ceil(nx / mesh))
        Parts of which most is hidden, by sources of `LARGE`.
    """
    from scipy.ndimage import label

    rows, columns = (np.arange(0, size, mesh) for size in hidden.shape)
    number = np.add.reduceat(np.add.reduceat(hidden, rows, 0, int), columns, 1)
    parts, count = label(number > mesh**2 / 2)
    large = np.bincount(parts.ravel(), minlength=count + 1) >= LARGE * parts.size
    large[0] = False
    return large[parts]


def large_halo(image: np.ndarray, mask: np.ndarray, mesh: int = 8) -> np.ndarray | None:
    """Return the pixels about the large sources of a frame, out to where their light ends.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Flat but for its sources and a gradient.
    mask : ndarray of uint8, shape (ny, nx)
    mesh : int
        [px].

    Returns
    -------
    ndarray of bool, shape (ny, nx) or None
        The light ends in the first ring, of `RING` meshes, that is no brighter than what lies
        outside of it. None without a large source.
    """
    from scipy.ndimage import distance_transform_edt

    large = large_sources(mask & SOURCE > 0, mesh)
    if not large.any():
        return None
    free = mask & NOT_SKY == 0
    values = mesh_means(np.where(free, image, 0), free, large.shape)
    known = np.isfinite(values)
    ring = (distance_transform_edt(~large) / RING).astype(int)
    if known.sum() < 50:
        return None
    end = 0
    for _ in range(3):
        # Without the gradient: it would end the light on one side.
        outside = np.where(known & (ring >= end), values, np.nan)
        level = np.nanmedian(outside)
        slope = fit_surface(outside / level - 1, 1)
        slope[0, 0] = 0
        flat = values / (1 + surface(slope, values.shape))
        end = light_end(flat[known], ring[known])
    halo = np.repeat(np.repeat(ring < end, mesh, axis=0), mesh, axis=1)
    return halo[: image.shape[0], : image.shape[1]]


def light_end(values: np.ndarray, ring: np.ndarray) -> int:
    """Return the first ring that is no brighter than what lies outside of it.

    Parameters
    ----------
    values : ndarray, shape (m,)
    ring : ndarray of int, shape (m,)
        From the source outwards.
    """
    for number in range(int(ring.max()) + 1):
        here, beyond = values[ring == number], values[ring > number]
        if beyond.size < OUTSIDE * values.size:
            return number
        if here.size < 5:
            continue
        excess = np.median(here) - np.median(beyond)
        error = 1.25 * np.hypot(
            mad_std(here) / np.sqrt(here.size), mad_std(beyond) / np.sqrt(beyond.size)
        )
        if excess < 2 * error:
            return number
    return 0


def mesh_means(image: np.ndarray, free: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Return the means of (rows, columns) parts of an image over their free pixels, else NaN."""
    rows, columns = (
        np.arange(0, size, -(-size // number))
        for size, number in zip(image.shape, counts, strict=True)
    )
    total = np.add.reduceat(np.add.reduceat(image * free, rows, 0, float), columns, 1)
    number = np.add.reduceat(np.add.reduceat(free, rows, 0, int), columns, 1)
    return np.where(number > 20, total / np.maximum(number, 1), np.nan)


def still_light(blocks: np.ndarray, hidden: np.ndarray, noise: float) -> np.ndarray | None:
    """Return the large scales of a sky that cannot be sky, where no frame points elsewhere.

    Without dither nothing tells sky from light. But sky does not rise towards a large source from
    all sides.

    Parameters
    ----------
    blocks : ndarray, shape (rows, columns)
        Mean of the frames' squares, 1 in the median; NaN where unknown.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that sources hide in all frames.
    noise : float
        Of a square.

    Returns
    -------
    ndarray of float32, shape (rows, columns) or None
        Light on all squares, as a fraction of the sky.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.stats import spearmanr

    large = large_sources(hidden)
    known = np.isfinite(blocks)
    if not large.any() or known.sum() < 12:
        return None
    rows, columns = blocks.shape
    y, x = np.indices(blocks.shape)
    away = distance_transform_edt(~large)[
        ((y + 0.5) * large.shape[0] / rows).astype(int),
        ((x + 0.5) * large.shape[1] / columns).astype(int),
    ]
    near = away < np.median(away[known])
    rise = np.median(blocks[known & near]) - np.median(blocks[known & ~near])
    order = spearmanr(away[known], blocks[known]).statistic
    if not (order < -0.4 and rise > max(3 * noise, 0.002)):
        return None
    light = blocks - np.percentile(blocks[known], 10)
    return fill_squares(light).astype(np.float32)


def fill_squares(values: np.ndarray) -> np.ndarray:
    """Return squares of which some are unknown, those from around them: smooth, without edge."""
    known = np.isfinite(values)
    nearest = np.where(known, values, np.nanmedian(values))
    for _ in range(4 * max(values.shape)):
        padded = np.pad(nearest, 1, mode="edge")
        mean = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        nearest = np.where(known, values, mean / 4)
    return nearest


def light_image(light: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the light of a frame at its pixels, from its map in a `Separation`."""
    return bilinear(light, shape)
