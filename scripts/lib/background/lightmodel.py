"""Gaussian processes of what stays on the detector and of what moves with the stars.

The sky, the light of the targets and what changes from frame to frame are each a Gaussian process
with a Matern covariance (Rasmussen & Williams 2006, chapters 2, 4 and 5), whose amplitudes and
scales are those of the highest marginal likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MOST_TRIAL_VALUES = 320
"""Squares of all frames that are modelled at once while amplitudes and scales are looked for."""

USUAL_LIGHT = 0.05
"""[fraction of the sky] Usual amplitude of light of targets, to a factor of e^2."""

PLANE = 0.1
"""[fraction of the sky] By which the sky of a frame may be tilted."""


@dataclass(frozen=True)
class Scales:
    """Amplitudes, as fractions of the sky, and lengths [px] of the parts of the model.

    Parameters
    ----------
    sky, sky_length : float
        Amplitude and correlation length of what all frames have in common on the detector.
    light, light_length : float
        The same for what the frames of a target have in common on the sky; an amplitude of 0: none.
    own, own_length : float
        Contribution that differs from frame to frame.
    scatter : float
        Scatter between neighbouring squares in addition to noise.
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
        Frame to which each square belongs.
    at : ndarray, shape (m, 2)
        (y, x) on the detector [px].
    target : ndarray of int, shape (n,)
        Target of each frame; frames of different targets have no light in common.
    shift : ndarray, shape (n, 2)
        Offset of each frame within its target [px].
    strength : ndarray, shape (n,)
        Strength of the light in each frame, relative to its sky level; median 1.
    shape : tuple of int
        Shape of a frame.
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


def pairs_apart(at: np.ndarray) -> np.ndarray:
    """Return the distance of each pair of positions, in the order of `squareform`."""
    from scipy.spatial.distance import pdist

    return pdist(at)


def of_pairs(matrix: np.ndarray) -> np.ndarray:
    """Return the values of a symmetric matrix for each pair, in the order of `squareform`."""
    return matrix[np.triu_indices_from(matrix, 1)]


class LargeScales:
    """The model of the squares of frames: covariances of its parts, its likelihood, its solution.

    Parameters
    ----------
    squares : Squares
    """

    def __init__(self, squares: Squares) -> None:
        self.squares = squares
        # Of a covariance, each pair of squares is worked out once, and the diagonal by itself.
        self.apart = pairs_apart(squares.at)
        self.apart_on_sky = pairs_apart(squares.on_sky)
        target = squares.target[squares.frame]
        place = 2 * squares.at / np.array(squares.shape) - 1
        strength = squares.strength[squares.frame]
        self.same_frame = of_pairs(squares.frame[:, None] == squares.frame)
        self.strength = of_pairs((target[:, None] == target) * (strength[:, None] * strength))
        self.own = self.same_frame * of_pairs(1 + PLANE**2 * (place @ place.T))
        self.diagonal = 1 + PLANE**2 * (place**2).sum(axis=1), strength**2
        self._of_own: dict[float, np.ndarray] = {}

    def covariance(self, scales: Scales) -> np.ndarray:
        """Return the covariance of the values."""
        if scales.own_length not in self._of_own:
            own = self.same_frame * smooth_matern(self.apart, scales.own_length)
            self._of_own = {scales.own_length: own}
        pairs = self.own + scales.own**2 * self._of_own[scales.own_length]
        pairs += scales.sky**2 * smooth_matern(self.apart, scales.sky_length)
        own, light = self.diagonal
        diagonal = own + scales.sky**2 + scales.own**2
        if scales.light > 0:
            pairs += (
                scales.light**2 * matern(self.apart_on_sky, scales.light_length) * self.strength
            )
            diagonal = diagonal + scales.light**2 * light
        from scipy.spatial.distance import squareform

        total = squareform(pairs, checks=False)
        total[np.diag_indices_from(total)] = diagonal + self.squares.noise**2 + scales.scatter**2
        return total

    def log_likelihood(self, scales: Scales) -> float:
        """Return the marginal likelihood of the values [ln], up to a constant."""
        from scipy.linalg import cho_factor, cho_solve

        try:
            factor = cho_factor(self.covariance(scales), lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            return -np.inf
        value = self.squares.value
        fit = value @ cho_solve(factor, value)
        return float(-0.5 * fit - np.log(np.diag(factor[0])).sum())

    def solve(self, scales: Scales) -> np.ndarray:
        """Return the weights of the values, from which each part follows at any place."""
        from scipy.linalg import cho_factor, cho_solve

        factor = cho_factor(self.covariance(scales), lower=True, overwrite_a=True)
        return cho_solve(factor, self.squares.value)


def light_at(
    squares: Squares, scales: Scales, weights: np.ndarray, places: np.ndarray, target: int
) -> np.ndarray:
    """Return the light of a target at places on the sky, in a frame of strength 1.

    Parameters
    ----------
    squares : Squares
    scales : Scales
    weights : ndarray, shape (m,)
        See `LargeScales.solve`.
    places : ndarray, shape (k, 2)
        y, x [px].
    target : int
        Number of the target.

    Returns
    -------
    ndarray, shape (k,)
    """
    same = np.flatnonzero(squares.target[squares.frame] == target)
    if not same.size:
        return np.zeros(len(places))
    light = scales.light**2 * matern(distances(places, squares.on_sky[same]), scales.light_length)
    return light @ (weights[same] * squares.strength[squares.frame[same]])


def prior(scales: Scales, usual: float = USUAL_LIGHT) -> float:
    """Return how likely such amplitudes are before the frames are seen [ln].

    Flats are good to a per cent or so; galaxies and nebulae are as they are.

    Parameters
    ----------
    scales : Scales
    usual : float
        Usual amplitude of light.
    """
    chance = -0.5 * (np.log(max(scales.sky, 1e-6) / 0.01) / 1.5) ** 2
    chance -= 0.5 * (np.log(max(scales.own, 1e-6) / 0.002) / 1.5) ** 2
    if scales.light > 0:
        chance -= 0.5 * (np.log(scales.light / usual) / 2) ** 2
    return float(chance)


def usual_scales(size: float, typical: float, rest: float, light: bool) -> list[Scales]:
    """Return amplitudes and lengths from which the best are looked for.

    Parameters
    ----------
    size : float
        Of a frame [px].
    typical : float
        Amplitude of what the frames show.
    rest : float
        Amplitude of what differs between the frames.
    light : bool
        Whether the frames may hold light of their targets.
    """
    if not light:
        return [Scales(typical, size / 2, 0.0, 1.0, rest, size / 3, rest / 4)]
    return [
        Scales(typical / 10, size / 2, typical, size / 5, rest / 4, size / 3, rest / 4),
        Scales(typical, size / 2, rest, size / 5, rest / 4, size / 3, rest / 4),
    ]


def best_scales(
    model: LargeScales, starts: Sequence[Scales], usual: float = USUAL_LIGHT
) -> tuple[Scales, float]:
    """Return the amplitudes and lengths that make the values most likely, and how likely [ln].

    Parameters
    ----------
    model : LargeScales
    starts : sequence of Scales
        From each of these the best are looked for; without light where they have none.
    usual : float
        Usual amplitude of light.
    """
    from scipy.optimize import minimize

    size = float(max(model.squares.shape))
    light = starts[0].light > 0

    def scales_of(log: np.ndarray) -> Scales:
        sky, sky_length, own, scatter = np.exp(log[:4])
        bright, length = np.exp(log[4:]) if light else (0.0, 1.0)
        return Scales(sky, sky_length, bright, length, own, size / 3, scatter)

    def badness(log: np.ndarray) -> float:
        scales = scales_of(log)
        lengths = np.log([scales.sky_length / size * 2, scales.light_length / size * 4])
        wide = np.abs(lengths[: 2 if light else 1])
        chance = prior(scales, usual) - 5 * np.clip(wide - np.log(4), 0, None).sum()
        value = model.log_likelihood(scales) + chance
        return -value if np.isfinite(value) else 1e10

    found = []
    for one in starts:
        start = one.sky, one.sky_length, one.own, one.scatter, one.light, one.light_length
        first = np.log(np.maximum(start[: 6 if light else 4], 1e-5))
        step = np.vstack([first, first + 0.7 * np.eye(first.size)])
        options = {"initial_simplex": step, "maxfev": 22 * first.size, "xatol": 0.03, "fatol": 0.3}
        found.append(minimize(badness, first, method="Nelder-Mead", options=options))
    best = min(found, key=lambda one: one.fun)
    return scales_of(best.x), -float(best.fun)


def promising(
    model: LargeScales, without: Scales, plain: float, amplitudes: tuple[float, ...]
) -> Scales | None:
    """Return the amplitude and length of light that make the frames most likely, of some.

    Parameters
    ----------
    model : LargeScales
    without : Scales
        The best without light.
    plain : float
        How likely they are [ln].
    amplitudes : tuple of float
        Amplitudes of the light to try, besides some times what differs between the frames.

    Returns
    -------
    Scales or None
        None where they are as likely without light.
    """
    size = max(model.squares.shape)
    best = None
    for amplitude in (*amplitudes, 8 * without.own):
        for length in (size / 8, size / 3, size):
            for share in (0.2, 1.0):
                scales = replace(
                    without, sky=without.sky * share, own=without.own / 4, light=amplitude,
                    light_length=length,
                )  # fmt: skip
                likely = model.log_likelihood(scales) + prior(scales)
                if likely > plain:
                    best, plain = scales, likely
    return best
