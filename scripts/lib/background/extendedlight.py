"""Light of the target in the sky of its frames, separated from the sky as it moves with the stars.

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

from lib.background.lightmodel import (
    MOST_TRIAL_VALUES,
    LargeScales,
    Scales,
    Squares,
    best_scales,
    distances,
    matern,
    promising,
    smooth_matern,
)
from lib.background.sky import block_sky
from lib.core.meshes import bilinear
from lib.core.stats import mad_std

MOVING = 0.055
"""[pixel noise] Rms difference of the frames' squares above which light moves; noise gives 0.04."""

Place = tuple[str, tuple[int, ...] | None]
"""Target and offset (dy, dx) [px] of a frame; None where no stars show it."""

MOST_VALUES = 2000
"""Maximum number of squares of all frames modelled together: more would take minutes."""

MOST_FRAMES = 12
"""Maximum number of frames modelled; the light in others follows from their pointing."""

LEAST_SQUARE = 24
"""[px] Size of the squares, at least: their medians have a fiftieth of the noise of a pixel."""

FINE = 12
"""[px] Mesh on which the light is evaluated."""

LEVEL_GROUND = 0.06
"""[range of the light] Spread of the faintest places below which the light ends in the field."""

CLEAR_EVIDENCE = 12.0
"""[ln] Gain in marginal likelihood above which light is accepted."""


@dataclass(frozen=True)
class Separation:
    """The large scales of frames, separated into sky and light.

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
        Target and shift of each frame.
    noises : sequence of float
        Pixel noise of each frame.
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
    """Separate the light of the targets from the sky.

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
    """Return the squares with the fitted strength of the light in each frame.

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
    from scipy.ndimage import median

    cell = np.zeros(squares.value.size, int)
    for axis, size in enumerate(squares.shape):
        bins = max(2, int(size // 64))
        at = squares.at[:, axis]
        edges = np.linspace(at.min(), at.max(), bins + 1)[1:-1]
        cell = cell * bins + np.searchsorted(edges, at, side="right")
    level = np.zeros(squares.frame.max() + 1)
    for n in np.unique(squares.frame):
        level[n] = np.median(squares.value[squares.frame == n])
    value = squares.value - level[squares.frame]
    cells, number = np.unique(cell, return_inverse=True)
    return float(np.std(value - median(value, cell, cells)[number]))


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


def light_image(light: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the light of a frame at its pixels, from its map in a `Separation`."""
    return bilinear(light, shape)
