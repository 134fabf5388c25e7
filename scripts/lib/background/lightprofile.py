"""A profile of the light of one target, by which its level is known where it fills the frames.

Every frame of a large galaxy holds some of its outskirts, so that none shows the sky alone. But
where the light falls as that of a galaxy does, its steeper parts tell how much is left at the edge.
The profile of Sersic (1968) is fitted to the squares of the frames together with their sky, their
planes and what the profile leaves, as in `lib.background.lightmodel` (a Gaussian process about a
mean: Rasmussen & Williams 2006, section 2.7).
"""

from dataclasses import dataclass, replace

import numpy as np

from lib.background.lightmodel import (
    MOST_TRIAL_VALUES,
    LargeScales,
    Scales,
    Squares,
    best_scales,
    light_at,
    prior,
)

INDEX_SCATTER = 0.7
"""[ln] Scatter of the Sersic indices of galaxies about 1, an exponential disc."""

STRETCH_SCATTER = 0.5
"""Scatter of each component of `Profile.stretch`: round to edge-on."""

SIZE_SCATTER = 1.0
"""[ln] Scatter of the sizes of galaxies that are noticed, about a quarter of the frame."""

CLEAR_PROFILE = 20.0
"""[ln] Gain in marginal likelihood above which a profile is accepted: 3 for each parameter."""

LEAST_SURE = 0.05
"""Error of the strength of the light in a frame above which it is not fitted."""

SAME_LIGHT = 0.1
"""[rms of the profile over the squares] Light beyond the profile below which it is all of it."""

BEYOND_INDEX = 2.0
"""Error of the level of a disc that is clearly not exponential, over its change by a free index:
for discs that bend, to slopes of 0.6 and 1.8 of those inside, the level is off by 1 to 3 of it."""

BRIGHT_PART = 0.1
"""Part of a target's squares, its brightest, without which a profile should be the same."""


@dataclass(frozen=True)
class Profile:
    """Light of elliptical isophotes that falls off as Sersic's profile.

    Parameters
    ----------
    y, x : float
        Centre, in the pixels of the first frame of the target.
    size : float
        Semi-major axis of the isophote that holds half of the light [px].
    index : float
        Sersic's n: 1 for an exponential disc, 4 for de Vaucouleurs' profile.
    stretch : tuple of float
        artanh((1 - q) / (1 + q)) for an axis ratio q, times cosine and sine of twice the angle from
        the x to the y axis.
    bright : float
        Surface brightness at `size`, as a fraction of the sky.
    """

    y: float
    x: float
    size: float
    index: float
    stretch: tuple[float, float]
    bright: float

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the light at places (y, x), shape (m, 2), in a frame of strength 1."""
        dy, dx = places[:, 0] - self.y, places[:, 1] - self.x
        strong = np.hypot(*self.stretch)
        cosine, sine = np.array(self.stretch) / max(strong, 1e-9)
        # q = exp(-2 strong); along the minor axis distances are longer by 1 / q.
        longer = np.exp(4 * strong)
        square = (longer + 1) / 2 * (dx**2 + dy**2)
        square -= (longer - 1) / 2 * (cosine * (dx**2 - dy**2) + 2 * sine * dx * dy)
        radius = np.sqrt(np.maximum(square, 1.0)) / self.size
        # To better than 1 per cent of b_n; the size is not used.
        steep = 2 * self.index - 1 / 3
        return self.bright * np.exp(-steep * (radius ** (1 / self.index) - 1))

    @property
    def parameters(self) -> np.ndarray:
        """Return the parameters as they are fitted."""
        logs = np.log([self.size, self.index, self.bright])
        return np.array([self.y, self.x, logs[0], *self.stretch, logs[2], logs[1]])

    @classmethod
    def of(cls, parameters: np.ndarray) -> "Profile":
        """Return the profile of fitted parameters; without the last, the index is 1."""
        y, x, size, one, other, bright, *index = parameters
        return cls(y, x, np.exp(size), np.exp(sum(index)), (one, other), np.exp(bright))


@dataclass(frozen=True)
class FoundProfile:
    """A profile that holds all of the light of a target, within what is told from noise.

    Parameters
    ----------
    profile : Profile
    target : int
        Number of the target.
    squares : Squares
        With the strength of the light in each frame.
    scales : Scales
        Amplitudes and lengths of sky and light with the profile.
    error : float
        Error of the zero level of the light, as a fraction of the sky.
    """

    profile: Profile
    target: int
    squares: Squares
    scales: Scales
    error: float

    @property
    def light(self) -> np.ndarray:
        """Return the light of the profile in the squares, shape (m,)."""
        return profile_light(self.profile, self.squares, self.target)


def profile_light(profile: Profile, squares: Squares, target: int) -> np.ndarray:
    """Return the light of a target's profile in squares, shape (m,)."""
    strength = squares.strength * (squares.target == target)
    return strength[squares.frame] * profile.at(squares.on_sky)


@dataclass(frozen=True)
class Fit:
    """Parameters of a profile as they are fitted, their covariance, and chi2 with what is expected.

    Parameters
    ----------
    parameters : ndarray, shape (k,)
        See `Profile.of`.
    covariance : ndarray, shape (k, k)
    chi2 : float
    """

    parameters: np.ndarray
    covariance: np.ndarray
    chi2: float

    @property
    def profile(self) -> Profile:
        """Return the profile."""
        return Profile.of(self.parameters)

    def error(self, squares: Squares, target: int) -> float:
        """Return the error of the mean light in squares."""
        sigma = np.sqrt(np.diag(self.covariance))
        after, before = (
            np.array([
                profile_light(Profile.of(self.parameters + step), squares, target).mean()
                for step in sign * np.diag(sigma)
            ])
            for sign in (0.5, -0.5)
        )  # fmt: skip
        gradient = (after - before) / sigma
        return float(np.sqrt(gradient @ self.covariance @ gradient))


class ProfileFit:
    """Fits of profiles to the light of a target.

    Parameters
    ----------
    squares : Squares
    scales : Scales
        Amplitudes and lengths of what the profile leaves.
    target : int
        Number of the target.
    """

    def __init__(self, squares: Squares, scales: Scales, target: int) -> None:
        from scipy.linalg import cholesky

        self.squares, self.scales, self.target = squares, scales, target
        self.root = cholesky(LargeScales(squares).covariance(scales), lower=True)
        self.value = self.whitened(squares.value)
        size = max(squares.shape)
        self.unit = np.array([size / 4, size / 4, 1, 1, 1, 1, 1])
        self.low = np.array([-size, -size, np.log(size / 60), -1.5, -1.5, -14, np.log(0.3)])
        self.high = np.array([2 * size, 2 * size, np.log(3 * size), 1.5, 1.5, 5, np.log(8)])

    def whitened(self, values: np.ndarray) -> np.ndarray:
        """Return values in units of their errors, and independent."""
        from scipy.linalg import solve_triangular

        return solve_triangular(self.root, values, lower=True, check_finite=False)

    def likely_disc(self) -> Profile:
        """Return the round disc that fits best; its centre may lie beside the frames."""
        places = self.squares.on_sky[self.squares.target[self.squares.frame] == self.target]
        low, high = places.min(axis=0), places.max(axis=0)
        axes = [np.linspace(a - 0.3 * (b - a), b + 0.3 * (b - a), 9)
                for a, b in zip(low, high, strict=True)]  # fmt: skip
        discs = [
            Profile(y, x, self.unit[0] * size, 1.0, (0.0, 0.0), 1.0)
            for y in axes[0] for x in axes[1] for size in (0.4, 0.8, 1.6)
        ]  # fmt: skip
        light = [profile_light(one, self.squares, self.target) for one in discs]
        terms = self.whitened(np.array(light).T)
        weight = (terms**2).sum(axis=0)
        bright = terms.T @ self.value / weight
        best = int(np.argmax(np.where(bright > 0, bright**2 * weight, 0)))
        return replace(discs[best], bright=max(float(bright[best]), 1e-6))

    def fit(self, begin: np.ndarray) -> Fit:
        """Improve the parameters of a profile, see `Profile.of`."""
        from scipy.optimize import least_squares

        unit = self.unit[: begin.size]
        low, high = self.low[: begin.size] / unit, self.high[: begin.size] / unit
        middle = self.unit[0]

        def residuals(scaled: np.ndarray) -> np.ndarray:
            parameters = scaled * unit
            light = profile_light(Profile.of(parameters), self.squares, self.target)
            expected = [
                (parameters[2] - np.log(middle)) / SIZE_SCATTER,
                *(parameters[3:5] / STRETCH_SCATTER), *(parameters[6:] / INDEX_SCATTER),
            ]  # fmt: skip
            return np.concatenate([self.value - self.whitened(light), expected])

        start = np.clip(begin / unit, low + 1e-3, high - 1e-3)
        fit = least_squares(residuals, start, bounds=(low, high), ftol=1e-5, xtol=1e-4, max_nfev=40)
        covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * np.outer(unit, unit)
        return Fit(fit.x * unit, covariance, 2 * float(fit.cost))

    def fit_strength(self, profile: Profile) -> None:
        """Fit the strength of the light in each frame; 1 in the median.

        Clouds dim a target, not the sky.
        """
        squares = self.squares
        strength = squares.strength.copy()
        mine = np.flatnonzero(np.bincount(squares.frame, minlength=strength.size))
        mine = mine[squares.target[mine] == self.target]
        light = profile.at(squares.on_sky)
        terms = self.whitened(light[:, None] * (squares.frame[:, None] == mine))
        inverse = np.linalg.pinv(terms.T @ terms)
        fitted = np.clip(inverse @ terms.T @ self.value, 0.3, 3)
        sure = np.diag(inverse) < LEAST_SURE**2
        strength[mine] = np.where(sure, fitted, strength[mine])
        strength[mine] /= np.median(strength[mine])
        self.squares = replace(squares, strength=strength)


ROUND = np.array([0.0, 0, 0, 1, 1, 0, 0])
"""Where the components of the stretch are among the parameters: the fit does not begin at 0."""


def light_beyond(squares: Squares, scales: Scales, weights: np.ndarray, target: int) -> np.ndarray:
    """Return the light that a profile leaves in the squares of its target, but for a plane.

    A plane of the light is not told from those of the frames.

    Parameters
    ----------
    squares : Squares
    scales : Scales
    weights : ndarray, shape (m,)
        See `LargeScales.solve`.
    target : int
        Number of the target.
    """
    places = squares.on_sky[squares.target[squares.frame] == target]
    light = light_at(squares, scales, weights, places, target)
    terms = np.column_stack([np.ones(len(places)), places / max(squares.shape)])
    return light - terms @ np.linalg.lstsq(terms, light, rcond=None)[0]


def find_profile(squares: Squares, scales: Scales, target: int) -> FoundProfile | None:
    """Find the profile of a target's light.

    Parameters
    ----------
    squares : Squares
    scales : Scales
        Those of the highest likelihood without a profile.
    target : int
        Number of the target.

    Returns
    -------
    FoundProfile or None
        None where a profile makes the frames no more likely, or leaves light: that of a nebula,
        a cluster or several galaxies.
    """
    rng = np.random.default_rng(2)
    part = np.sort(rng.permutation(squares.value.size)[:MOST_TRIAL_VALUES])
    few = squares.part(part)
    without = LargeScales(few).log_likelihood(scales) + prior(scales)
    left = replace(scales, light=scales.light / 10)
    parameters = ProfileFit(few, left, target).likely_disc().parameters + 0.05 * ROUND
    for _ in range(2):
        trial = ProfileFit(few, left, target)
        parameters = trial.fit(parameters).parameters
        trial.fit_strength(Profile.of(parameters))
        few = trial.squares
        light = profile_light(Profile.of(parameters), few, target)
        rest = LargeScales(replace(few, value=few.value - light))
        left, likely = best_scales(rest, [left], SAME_LIGHT / 2 * light.std())
    if likely - without < CLEAR_PROFILE:
        return None
    mine = few.target[few.frame] == target
    beyond = light_beyond(few, left, rest.solve(left), target)
    # Less than the noise of squares is not told from none.
    if beyond.std() > SAME_LIGHT * light[mine].std() + 0.5 * np.median(squares.noise):
        return None
    fits = ProfileFit(replace(squares, strength=few.strength), left, target)
    fits.fit_strength(Profile.of(parameters))
    free, disc = fits.fit(parameters), fits.fit(parameters[:-1])
    # The outskirts of galaxies are exponential, unless these are clearly not (Schwarz 1978).
    exponential = disc.chi2 - free.chi2 < np.log(squares.value.size)
    best = disc if exponential else free
    fits.fit_strength(best.profile)
    best = fits.fit(best.parameters)
    # What the profile leaves shows how far the light may depart from it where that is not seen.
    form = max(form_error(fits, disc), 0.0 if exponential else form_error(fits, best))
    # Nor is a disc that bends a Sersic profile: its level is further off on the same side.
    means = [profile_light(one.profile, fits.squares, target).mean() for one in (free, disc)]
    choice = abs(means[0] - means[1]) * (1.0 if exponential else BEYOND_INDEX)
    errors = free.error(fits.squares, target), beyond.std(), form, choice
    error = float(np.linalg.norm(errors))
    return FoundProfile(best.profile, target, fits.squares, left, error)


def form_error(fits: ProfileFit, best: Fit) -> float:
    """Return by how much the outskirts depart from the profile of the whole, beyond noise.

    Discs are truncated, or bend: then the profile of the fainter squares has another mean.

    Parameters
    ----------
    fits : ProfileFit
    best : Fit
        Of all squares; with a free index a part of them tells less than an exponential one does.

    Returns
    -------
    float
        Of the mean light in the squares.
    """
    squares, target = fits.squares, fits.target
    light = profile_light(best.profile, squares, target)
    shown = squares.target[squares.frame] == target
    faint = ~shown | (light < np.quantile(light[shown], 1 - BRIGHT_PART))
    outer = ProfileFit(squares.part(np.flatnonzero(faint)), fits.scales, target)
    fit = outer.fit(best.parameters)
    change = profile_light(fit.profile, squares, target).mean() - light.mean()
    # A fit to a part differs from that to all by what its error is larger.
    noise = fit.error(squares, target) ** 2 - best.error(squares, target) ** 2
    return float(np.sqrt(max(change**2 - max(noise, 0.0), 0.0)))
