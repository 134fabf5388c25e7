"""Light of the target in the sky of its frames, separated from the sky as it moves with the stars.

What stays on the detector while the telescope moves is sky (or flat field); what moves with the
stars is light of galaxies, nebulae or clusters, however large. The large scales of all frames are
modelled at once as sky + light + what changes from frame to frame, each a Gaussian process
(Rasmussen & Williams 2006, chapter 2), whose amplitudes and scales are those of the highest
marginal likelihood. Frames of other targets, and frames beside the target, share its sky but not
its light: they need no rule of their own. Light of a galaxy is modelled about its profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lib.background.lightmodel import (
    MOST_TRIAL_VALUES,
    PLANE,
    LargeScales,
    Scales,
    Squares,
    best_scales,
    distances,
    light_at,
    promising,
    smooth_matern,
    usual_scales,
)
from lib.background.lightprofile import FoundProfile, find_profile
from lib.background.lightsquares import Place, measure_squares
from lib.core.stats import mad_std

MOST_FRAMES = 12
"""Maximum number of frames modelled; the light in others follows from their pointing."""

FINE = 12
"""[px] Mesh on which the light is evaluated."""

COARSE = 48
"""[px] Mesh on which the sky is evaluated."""

LEVEL_GROUND = 0.06
"""[range of the light] Spread of the faintest places below which the light ends in the field."""

CLEAR_EVIDENCE = 12.0
"""[ln] Gain in marginal likelihood above which light is accepted."""

PROFILE = "profile"
FAINT_PLACES = "faint places"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Separation:
    """Light that moves with the stars.

    Parameters
    ----------
    light : ndarray of float32, shape (n, rows, columns)
        Light of the target in each frame, as a fraction of its sky level.
    evidence : float
        How much more likely the frames are with light than without [ln].
    scales : Scales
    zero : {PROFILE, FAINT_PLACES, UNKNOWN}
        How its zero level was fixed; UNKNOWN where the light has no end in the field.
    zero_error : float
        Error of that level, as a fraction of the sky; NaN where it is not known.
    profiled : ndarray of bool, shape (n,)
        Frames whose light has a profile.
    """

    light: np.ndarray
    evidence: float
    scales: Scales
    zero: str
    zero_error: float
    profiled: np.ndarray


@dataclass(frozen=True)
class MovingLight:
    """The solution of a model of sky and light.

    Parameters
    ----------
    squares : Squares
    scales : Scales
    weights : ndarray, shape (m,)
        See `LargeScales.solve`.
    found : FoundProfile, optional
        The profile about which the light was modelled.
    """

    squares: Squares
    scales: Scales
    weights: np.ndarray
    found: FoundProfile | None = None

    @classmethod
    def solved(cls, squares: Squares, scales: Scales) -> "MovingLight":
        """Solve the model, with the strength of the light in each frame."""
        light = cls(squares, scales, LargeScales(squares).solve(scales))
        squares = light.fit_strength()
        return cls(squares, scales, LargeScales(squares).solve(scales))

    @classmethod
    def about(cls, found: FoundProfile) -> "MovingLight":
        """Solve the model of what a profile leaves."""
        rest = replace(found.squares, value=found.squares.value - found.light)
        return cls(found.squares, found.scales, LargeScales(rest).solve(found.scales), found)

    def at(self, places: np.ndarray, target: int) -> np.ndarray:
        """Return the light beyond a profile at places on the sky, in a frame of strength 1."""
        return light_at(self.squares, self.scales, self.weights, places, target)

    def fit_strength(self) -> Squares:
        """Return the squares with the fitted strength of the light in each frame.

        Clouds dim a target, not the sky.
        """
        squares, scales = self.squares, self.scales
        apart = distances(squares.at, squares.at)
        sky = scales.sky**2 * smooth_matern(apart, scales.sky_length) @ self.weights
        strength = squares.strength.copy()
        for n in np.unique(squares.frame):
            here = squares.frame == n
            light = self.at(squares.on_sky[here], squares.target[n])
            place = 2 * squares.at[here] / np.array(squares.shape) - 1
            terms = np.column_stack([light, np.ones(here.sum()), place])
            noise = np.hypot(squares.noise[here], np.hypot(scales.own, scales.scatter))
            terms, value = terms / noise[:, None], (squares.value - sky)[here] / noise
            inverse = np.linalg.pinv(terms.T @ terms)
            if inverse[0, 0] < 0.05**2:
                strength[n] = np.clip(inverse[0] @ terms.T @ value, 0.3, 3)
        return replace(squares, strength=strength)

    @property
    def brightest(self) -> int:
        """Return the target whose light varies most over its squares."""
        squares = self.squares
        targets = np.unique(squares.target[squares.frame])
        spreads = [
            np.ptp(np.percentile(self.at(squares.on_sky[mine], one), [20, 80]))
            for one in targets
            for mine in [squares.target[squares.frame] == one]
        ]
        return int(targets[np.argmax(spreads)])

    def sky(self) -> np.ndarray:
        """Return the sky that the frames have in common, 1 in the median, on a coarse mesh.

        With the mean of their planes: each differs from it by a factor that is a plane.
        """
        squares = self.squares
        axes = mesh_axes(squares.shape, COARSE)
        at, shape = grid(axes), np.array(squares.shape)
        correlation = smooth_matern(distances(at, squares.at), self.scales.sky_length)
        tilts = PLANE**2 * (2 * squares.at / shape - 1).T @ self.weights
        plane = (2 * at / shape - 1) @ tilts / np.unique(squares.frame).size
        sky = self.scales.sky**2 * correlation @ self.weights + plane
        return 1 + sky.reshape([one.size for one in axes]) - np.median(sky)

    def maps(self, count: int) -> np.ndarray:
        """Return the light in each of `count` frames, on a mesh of `FINE` pixels."""
        squares = self.squares
        shape, shifts = squares.shape, squares.shift
        axes = mesh_axes(shape, FINE)
        counts = [one.size for one in axes]
        light = np.zeros((count, *counts))
        for target in np.unique(squares.target):
            mine = np.flatnonzero(squares.target == target)
            # Its frames share one mesh on the sky, between the points of which light is linear.
            span = list(
                zip(-shifts[mine].max(axis=0), shape - shifts[mine].min(axis=0), strict=True)
            )
            # Nothing is known of the light on scales much smaller than the squares.
            side = np.sqrt(np.prod(shape) * np.unique(squares.frame).size / squares.value.size)
            pitch = float(np.clip(side / 4, FINE, COARSE))
            wide = [np.arange(low, high + pitch, pitch) for low, high in span]
            field = self.at(grid(wide), target)
            if self.found is not None and self.found.target == target:
                field -= outer_plane(field, grid(wide), self.found.profile.at(grid(wide)))
            field = field.reshape([one.size for one in wide])
            for n in mine:
                place = [(one - s - on[0]) / pitch
                         for one, s, on in zip(axes, shifts[n], wide, strict=True)]  # fmt: skip
                light[n] = interpolated(field, place)
                if self.found is not None and self.found.target == target:
                    profile = self.found.profile.at(grid(axes) - shifts[n])
                    light[n] += profile.reshape(counts)
                light[n] *= squares.strength[n]
        return light


def mesh_axes(shape: tuple[int, ...], pitch: float) -> list[np.ndarray]:
    """Return rows and columns [px] of the centres of equal parts of an image, of about a size."""
    counts = [max(1, round(size / pitch)) for size in shape]
    return [(np.arange(n) + 0.5) * size / n for n, size in zip(counts, shape, strict=True)]


def grid(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the places (y, x) of a grid of rows and columns, shape (m, 2)."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def interpolated(values: np.ndarray, at: Sequence[np.ndarray]) -> np.ndarray:
    """Return an image at rows and columns between its pixels, linearly."""
    for place in at:
        low = np.clip(place.astype(int), 0, len(values) - 2)
        part = (place - low)[:, None]
        # Rows first; each turn brings the other axis to the front.
        values = ((1 - part) * values[low] + part * values[low + 1]).T
    return values


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
        See `lib.background.lightsquares.measure_squares`.

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
    size = float(max(squares.shape))
    without, plain = best_scales(trial, usual_scales(size, typical, rest, light=False))
    begin = promising(trial, without, plain, (typical, rest))
    if begin is None:
        return None
    scales, likely = best_scales(trial, [*usual_scales(size, typical, rest, light=True), begin])
    # The best without light may have been missed the first time.
    _, again = best_scales(trial, [replace(scales, light=0.0, own=max(scales.own, rest / 4))])
    evidence = likely - max(plain, again)
    if evidence < CLEAR_EVIDENCE:
        return None
    few = np.sort(rng.permutation(values.size)[: 2 * MOST_TRIAL_VALUES])
    scales, _ = best_scales(LargeScales(squares.part(few)), [scales])
    light = MovingLight.solved(squares, scales)
    brightest = light.brightest
    for _ in range(2):
        # Again about the profile: near its centre light falls more steeply than a process.
        strength, maps, sky = light.squares.strength, light.maps(count), light.sky()
        squares = measure_squares(planes, places, noises, strength, which, maps, sky)
        found = find_profile(squares, scales, brightest)
        if found is None:
            break
        light = MovingLight.about(found)
    return levelled(light, count, evidence)


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


def levelled(light: MovingLight, count: int, evidence: float) -> Separation:
    """Return the light in the frames, its zero level fixed.

    Parameters
    ----------
    light : MovingLight
    count : int
        Frames.
    evidence : float
        See `Separation`.
    """
    squares, maps = light.squares, light.maps(count)
    rows, columns = maps.shape[1:]
    at = grid(mesh_axes(squares.shape, FINE))
    zero, error, profiled = UNKNOWN, np.nan, np.zeros(count, bool)
    # A plane of the light and one of all skies are the same: the faint places hold none.
    for one in np.unique(squares.target):
        mine = np.flatnonzero(squares.target == one)
        if light.found is not None and light.found.target == one:
            zero, error = PROFILE, light.found.error
            profiled[mine] = True
            continue
        on_sky = (at - squares.shift[mine][:, None]).reshape(-1, 2)
        strength = squares.strength[mine][:, None, None]
        faint, ends = faint_plane(maps[mine].ravel() / np.repeat(strength, len(at)), on_sky)
        maps[mine] -= strength * faint.reshape(mine.size, rows, columns)
        if ends and zero == UNKNOWN:
            zero = FAINT_PLACES
    return Separation(maps.astype(np.float32), evidence, light.scales, zero, error, profiled)


def outer_plane(beyond: np.ndarray, at: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the plane of what a profile leaves, over the fainter half of its light.

    It is not told from the planes of the frames, and the profile has none.

    Parameters
    ----------
    beyond : ndarray, shape (m,)
        Light beyond the profile.
    at : ndarray, shape (m, 2)
        Places on the sky [px].
    light : ndarray, shape (m,)
        Light of the profile.

    Returns
    -------
    ndarray, shape (m,)
    """
    terms = np.column_stack([np.ones(len(at)), (at - at.mean(axis=0)) / np.ptp(at, axis=0)])
    outer = light < np.median(light)
    return terms @ np.linalg.lstsq(terms[outer], beyond[outer], rcond=None)[0]


def faint_plane(light: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the plane on which the faint places of a light lie; a level where none does.

    Parameters
    ----------
    light : ndarray, shape (m,)
    at : ndarray, shape (m, 2)
        Places on the sky [px].

    Returns
    -------
    plane : ndarray, shape (m,)
        The level is where a quarter of the values lie closest together, of the fainter three
        fifths. Where they do so to within `LEVEL_GROUND` of the range of the light, and on all
        sides, the light ends there, and the plane is that of these places.
    ends : bool
        Whether it does.
    """
    values = np.sort(light)[:: max(1, light.size // 20000)]
    number = max(1, values.size // 4)
    last = max(1, int(0.6 * values.size) - number)
    width = values[number : number + last] - values[:last]
    first = int(np.argmin(width))
    level, width = float(values[first : first + number].mean()), float(width[first])
    plane = np.full(light.shape, level)
    if width > LEVEL_GROUND * (values[-1] - values[0]):
        return plane, False
    place = (at - at.mean(axis=0)) / np.ptp(at, axis=0)
    terms = np.column_stack([np.ones(len(at)), place])
    ground = np.abs(light - level) < 1.5 * width
    for _ in range(8):
        if np.ptp(place[ground], axis=0).min() < 0.6:
            return np.full(light.shape, level), False
        plane = terms @ np.linalg.lstsq(terms[ground], light[ground], rcond=None)[0]
        rest = light - plane
        ground = np.abs(rest) < 2.5 * mad_std(rest[ground])
    return plane, True
