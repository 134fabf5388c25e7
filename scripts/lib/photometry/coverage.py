"""Which frames of a coadd cover a position, and how that changes aperture photometry there.

A star covered by only some of the frames has their seeing, not that of the coadd: where one frame
of six covers it, with a seeing that differs by 20 %, an aperture of 1.5 FWHM has 5 % more or less
of its light.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

BLOCK = 8
"""[pixel] Side of the blocks for which the covering frames are recorded."""

FULL_COVERAGE = 0.9
"""Fraction of the largest weight above which a position counts as covered by all frames."""

COVERAGE_LEVELS = ((FULL_COVERAGE, 40), (0.7, 12))
"""Minimum fraction of the weight of stars used for measurements, and how many there must be."""

CORRECTION_ERROR = 0.1
"""Relative error of a correction: profiles of equal FWHM still differ in shape."""


@dataclass(frozen=True)
class FrameCoverage:
    """Which frames cover each position of a coadd.

    Parameters
    ----------
    number : ndarray of uint16, shape (ny, nx)
        Number of frames that contribute to each pixel.
    footprints : ndarray of bool, shape (n, by, bx)
        Whether a frame covers a block of `BLOCK` pixels.
    weights : ndarray, shape (n,)
        Weights of the frames in the coadd.
    light : sequence of callable
        For each frame, a function that gives the fraction of a star's light within a radius [pixel
        of the coadd].
    scale_errors : ndarray, shape (n,)
        Relative errors of the flux scales of the frames.
    light_errors : ndarray, shape (n,), optional
        Relative errors of `light`. Differences between frames that these can explain are shrunk
        towards the mean (James & Stein 1961).
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
        """Sets of frames, bool, shape (m, n), and the index of the set of each block, (by, bx)."""
        if not self._known:
            n, *shape = self.footprints.shape
            packed = np.packbits(self.footprints.reshape(n, -1), axis=0)
            # Encoded as one number per block: `unique` of rows is slow.
            keys = np.ascontiguousarray(packed.T).view(f"V{packed.shape[0]}").ravel()
            _, first, which = np.unique(keys, return_index=True, return_inverse=True)
            self._known["members"] = self.footprints.reshape(n, -1)[:, first].T
            self._known["which"] = which.reshape(shape)
        return self._known["members"], self._known["which"]

    @property
    def partial(self) -> bool:
        """Whether some positions are not covered by all frames."""
        members, _ = self.sets
        weight = members @ self.weights
        return bool((weight[weight > 0] < FULL_COVERAGE * weight.max()).any())

    def part(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the total weight of the frames at positions, as a fraction of the largest."""
        members, _ = self.sets
        weight = members @ self.weights
        return weight[self.set_at(x, y)] / weight.max()

    def set_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the index of the set of frames at positions [pixel]."""
        _, which = self.sets
        column = np.clip(np.rint(x).astype(int) // BLOCK, 0, which.shape[1] - 1)
        row = np.clip(np.rint(y).astype(int) // BLOCK, 0, which.shape[0] - 1)
        return which[row, column]

    def log_light(self, radius: float) -> np.ndarray:
        """Return ln of the fraction of light within a radius [pixel], for each set, shape (m,)."""
        if radius in self._known:
            return self._known[radius]
        members, _ = self.sets
        weight = members * self.weights
        # Where no frame has weight, as in saturated cores, all frames contribute to the wings.
        weight[weight.sum(axis=1) == 0] = self.weights
        light, _ = self._shrunken_light(radius)
        self._known[radius] = np.log(weight @ np.exp(light) / weight.sum(axis=1))
        return self._known[radius]

    def _shrunken_light(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return ln of the fraction of light within a radius, and its error, for each frame."""
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
        """Return the fraction of light in an aperture, relative to its mean over reference stars.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Positions of the stars [pixel].
        radius : float
            Radius of the aperture [pixel].
        stars : ndarray of int
            Indices of the stars from which the growth curve is measured.

        Returns
        -------
        factor, error : ndarray, shape (n,)
            Divide fluxes by `factor`. Its error is relative: the uncertainty of the correction, and
            its change within the aperture where the edge of a frame crosses it.
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
        """Return maps of ln(correction) of apertures, of its error, and of `part`.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            Positions of the stars from which the growth curve is measured [pixel].
        radii : sequence of float, length k
            Radii of the apertures [pixel].

        Returns
        -------
        ndarray of float32, shape (k + 2, by, bx)
            One value per block.
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
        """Return the relative error of each set from those of its frames, shape (m,)."""
        members, _ = self.sets
        weight = members * self.weights
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        whole = self.weights / self.weights.sum()
        variance = sum(one**2 for one in errors)
        return np.sqrt(((weight - whole) ** 2 * variance).sum(axis=1))


def corrections_at(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values of `correction_maps` at positions [pixel], shape (k + 2, n)."""
    column = np.clip(np.rint(x).astype(int) // BLOCK, 0, maps.shape[2] - 1)
    row = np.clip(np.rint(y).astype(int) // BLOCK, 0, maps.shape[1] - 1)
    return maps[:, row, column].astype(float)


def least_coverage(part: np.ndarray) -> float:
    """Return the minimum coverage of stars to be used for measurements.

    Stars covered by all frames are used where there are many; otherwise those covered by most
    frames and, where these are few, the best covered.

    Parameters
    ----------
    part : ndarray, shape (n,)
        `FrameCoverage.part` of the stars that are usable otherwise.

    Returns
    -------
    float
        Minimum of `part`.
    """
    for least, enough in COVERAGE_LEVELS:
        if np.count_nonzero(part >= least) >= enough:
            return least
    ranked = np.sort(part)[::-1]
    return float(ranked[min(enough, ranked.size) - 1]) if ranked.size else 0.0
