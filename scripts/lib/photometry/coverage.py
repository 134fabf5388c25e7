"""Which frames of a coadd cover a place, and what that changes of a star's light in apertures.

A star that only some of the frames cover has their seeing, not that of the coadd: where one frame
of six covers it whose seeing is 20 % off, an aperture of 1.5 FWHM holds 5 % more or less of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

BLOCK = 8
"""[pixel] Side of the blocks in which it is known which frames cover them."""

WHOLE = 0.9
"""Part of the weight of the best covered place from which on all frames are said to cover one."""

SERVING = ((WHOLE, 40), (0.7, 12))
"""Least part of the weight that stars to measure with must have, as far as so many have it."""

CORRECTION_ERROR = 0.1
"""Relative error of a correction: profiles of one FWHM are not of one form."""


@dataclass(frozen=True)
class FrameCoverage:
    """The frames that cover each place of a coadd.

    Parameters
    ----------
    number : ndarray of uint16, shape (ny, nx)
        Frames that count in each pixel.
    footprints : ndarray of bool, shape (n, by, bx)
        Whether a frame reaches into a block of `BLOCK` pixels.
    weights : ndarray, shape (n,)
        With which the frames count.
    light : sequence of callable
        Of each frame: the part of a star's light within a radius [pixel of the coadd].
    scale_errors : ndarray, shape (n,)
        Relative errors of the scales of the frames.
    light_errors : ndarray, shape (n,), optional
        Relative errors of `light`. As far as these explain how the frames differ, they are taken
        to be alike (the shrinkage of James & Stein 1961).
    """

    number: np.ndarray
    footprints: np.ndarray
    weights: np.ndarray
    light: Sequence[Callable[[float], float]]
    scale_errors: np.ndarray
    light_errors: np.ndarray | None = None
    _known: dict[str | float, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def sets(self) -> tuple[np.ndarray, np.ndarray]:
        """The sets of frames there are, bool, shape (m, n), and that of each block, (by, bx)."""
        if not self._known:
            n, *shape = self.footprints.shape
            packed = np.packbits(self.footprints.reshape(n, -1), axis=0)
            # One number a block: `unique` of rows sorts slowly.
            keys = np.ascontiguousarray(packed.T).view(f"V{packed.shape[0]}").ravel()
            _, first, which = np.unique(keys, return_index=True, return_inverse=True)
            self._known["members"] = self.footprints.reshape(n, -1)[:, first].T
            self._known["which"] = which.reshape(shape)
        return self._known["members"], self._known["which"]

    @property
    def partial(self) -> bool:
        """Whether there are places that not all frames cover."""
        members, _ = self.sets
        weight = members @ self.weights
        return bool((weight[weight > 0] < WHOLE * weight.max()).any())

    def part(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the weight of the frames at places over that of the best covered one."""
        members, _ = self.sets
        weight = members @ self.weights
        return weight[self.set_at(x, y)] / weight.max()

    def set_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the set of frames at places [pixel]."""
        _, which = self.sets
        column = np.clip(np.rint(x).astype(int) // BLOCK, 0, which.shape[1] - 1)
        row = np.clip(np.rint(y).astype(int) // BLOCK, 0, which.shape[0] - 1)
        return which[row, column]

    def log_light(self, radius: float) -> np.ndarray:
        """Return ln of the part of a star's light within a radius [pixel], of each set, (m,)."""
        if radius in self._known:
            return self._known[radius]
        members, _ = self.sets
        weight = members * self.weights
        # Where no frame has a weight, as in saturated cores, all have a part in the wings.
        weight[weight.sum(axis=1) == 0] = self.weights
        light, _ = self._shrunken_light(radius)
        self._known[radius] = np.log(weight @ np.exp(light) / weight.sum(axis=1))
        return self._known[radius]

    def _shrunken_light(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return ln of the part of a star's light within a radius, and its error, of each frame."""
        light = np.log([one(radius) for one in self.light])
        if self.light_errors is None:
            return light, np.zeros(len(light))
        mean = float(np.average(light, weights=self.weights))
        variance = float(np.average((light - mean) ** 2, weights=self.weights))
        noise = float(np.average(self.light_errors**2, weights=self.weights))
        kept = max(0.0, 1 - noise / variance) if variance > 0 else 0.0
        return mean + kept * (light - mean), np.sqrt(kept) * self.light_errors

    def correction(
        self, x: np.ndarray, y: np.ndarray, radius: float, stars: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what an aperture holds of stars over what it holds of some of them in the mean.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            [pixel].
        radius : float
            [pixel].
        stars : ndarray of int
            Those that the growth curve is measured on.

        Returns
        -------
        factor, error : ndarray, shape (n,)
            The error is relative: what is not known of the correction, and how it changes within
            the aperture where the edge of a frame runs through.
        """
        light, here = self.log_light(radius), self.set_at(x, y)
        usual = float(np.mean(light[here[stars]])) if len(stars) else float(light[here].mean())
        value = light[here] - usual
        around = [
            light[self.set_at(x + dx * radius, y + dy * radius)]
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
        edge = np.max(np.abs(np.array(around) - light[here]), axis=0) if len(x) else value
        error = np.sqrt((CORRECTION_ERROR * value) ** 2 + (edge / 2) ** 2)
        _, own = self._shrunken_light(radius)
        return np.exp(value), np.hypot(error, self._error_of_sets(self.scale_errors, own)[here])

    def correction_maps(self, x: np.ndarray, y: np.ndarray, radii: Sequence[float]) -> np.ndarray:
        """Return ln of the corrections of apertures in each block, their error, and `part`.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Of the stars that the growth curve is measured on [pixel].
        radii : sequence of float, length k
            [pixel].

        Returns
        -------
        ndarray of float32, shape (k + 2, by, bx)
        """
        shape = self.footprints.shape[1:]
        row, column = np.indices(shape).reshape(2, -1) * BLOCK + (BLOCK - 1) / 2
        places = np.append(column, x), np.append(row, y)
        stars = np.arange(row.size, row.size + len(x))
        maps, error = [], np.zeros(row.size)
        for radius in radii:
            factor, own = self.correction(*places, radius, stars)
            maps.append(np.log(factor[: row.size]))
            error = np.maximum(error, own[: row.size])
        part = self.part(column, row)
        return np.array([*maps, error, part], np.float32).reshape(-1, *shape)

    def _error_of_sets(self, *errors: np.ndarray) -> np.ndarray:
        """Return the relative error that those of frames make in each set, (m,)."""
        members, _ = self.sets
        weight = members * self.weights
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        whole = self.weights / self.weights.sum()
        variance = sum(one**2 for one in errors)
        return np.sqrt(((weight - whole) ** 2 * variance).sum(axis=1))


def look_up(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values of `FrameCoverage.correction_maps` at places [pixel], shape (k + 2, n)."""
    column = np.clip(np.rint(x).astype(int) // BLOCK, 0, maps.shape[2] - 1)
    row = np.clip(np.rint(y).astype(int) // BLOCK, 0, maps.shape[1] - 1)
    return maps[:, row, column].astype(float)


def least_coverage(part: np.ndarray) -> float:
    """Return how well stars must be covered to measure with.

    Those that all frames cover serve where they are many; else those of most frames, and where
    these are few the best covered.

    Parameters
    ----------
    part : ndarray, shape (n,)
        Of `FrameCoverage.part`, for stars that are fit otherwise.

    Returns
    -------
    float
        Least `part`.
    """
    for least, enough in SERVING:
        if np.count_nonzero(part >= least) >= enough:
            return least
    ranked = np.sort(part)[::-1]
    return float(ranked[min(enough, ranked.size) - 1]) if ranked.size else 0.0
