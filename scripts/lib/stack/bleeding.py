"""Saturated stars whose charge bleeds over their columns: where they are, and what they hide."""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import MAD_TO_SIGMA, mad_std, regular_sample
from lib.stack.pixelgroups import Box, group_depth, mask_groups

ROUND, SLACK = 1.4, 1.5
"""Extent of the plateau of a star [radius of its core, pixel]; one that reaches further bleeds."""

MARGIN = 7
"""[pixel] Reach of what is lost around a plateau: its neighbours, and those of the kernel."""

DOME = 1.0
"""[plateau] Height of the dome on a core, by which the cores of two stars are told apart."""

LEAST_RIM = 0.004
"""[saturation level] Light around the core of a star, at least; a trail by itself has none."""

OWN_LIGHT = 0.33
"""Fraction, at least, of the light around a core that the other stars of its trail do not give."""

SADDLE = 0.7
"""[radius of the smaller core] Two cores are joined by a neck that is narrower."""

FIT_PIXELS = 30
"""Least number of pixels around a core that tell its place."""

FIT_SIGMA = 5.0
"""[noise of a pixel] Least light of these."""

STEEPNESS = (1.0, 12.0)
"""Powers of the distance by which the light of a star falls."""

BIN_PIXELS = 8
"""Least number of pixels that tell the light at a distance from a star."""

FURTHEST = 300
"""[pixel] Light is followed so far from a star."""

FADED = 0.5
"""[noise of a pixel] Light at which the wings of a star end."""

MOST_STARS = 40
"""Places tried for stars in one plateau."""

LEAST_DARK = 2.0
"""[pixel] Least depth of a plateau without light around, away from the edge, that is not taken for
a star."""

DARK = 1e-3
"""[saturation level] Light around a plateau that the sharpest of stars would have."""

ROUNDS = 12
"""How often, at most, stars are measured with the light of the others taken away."""

STAYS = 0.8
"""[depth where the search began] Least depth of the place of a star in a plateau."""

STILL = 0.02
"""[pixel] Shift of a star below which its place is known."""


@dataclass(frozen=True)
class BleedingStar:
    """A saturated star: its place, and its light against distance.

    Parameters
    ----------
    x, y : float
        [pixel].
    radius : float
        Of its saturated core [pixel].
    radii, light : ndarray, shape (n,)
        Distances [pixel] from `radius` on, and the light there above the sky.
    """

    x: float
    y: float
    radius: float
    radii: np.ndarray
    light: np.ndarray

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return its light at positions [pixel]; within the core that at the edge of it."""
        distance = self.distance(rows, columns)
        light = np.interp(
            np.log(np.maximum(distance, 1e-3)), np.log(self.radii), np.log(self.light)
        )
        return np.where(distance <= self.radii[-1], np.exp(light), 0.0)

    def is_near(self, other: "BleedingStar") -> bool:
        """Return whether the light of another star reaches where this one is measured."""
        apart = float(np.hypot(self.x - other.x, self.y - other.y))
        return apart < other.radii[-1] + self.radii[-1]

    def distance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the distance of positions from the star [pixel]."""
        return np.hypot(rows - self.y, columns - self.x)


@dataclass(frozen=True)
class Bleeding:
    """A plateau that trails, and what stands for it where stars are detected.

    Parameters
    ----------
    box : tuple of slice
        Part of the image.
    lost : ndarray of bool, shape of the box
        Pixels that are lost by the plateau.
    cores : ndarray of bool
        Those of them that belong to the cores of stars.
    shown : ndarray of bool
        Those where there is light of stars, cores or not.
    light : ndarray of float32
        The image there as if nothing had bled, with a dome for each core.
    """

    box: Box
    lost: np.ndarray
    cores: np.ndarray
    shown: np.ndarray
    light: np.ndarray


@dataclass(frozen=True)
class _Surroundings:
    """The image around plateaus; see `find_bleeding`."""

    image: np.ndarray
    known: np.ndarray
    saturate: float
    sky: float
    noise: float

    @classmethod
    def of(cls, image: np.ndarray, known: np.ndarray, saturate: float) -> "_Surroundings":
        """Return an image with its sky and the noise of a pixel."""
        sound = regular_sample(image)[regular_sample(known)]
        sky, noise = (float(np.median(sound)), mad_std(sound)) if sound.size else (0.0, 0.0)
        return cls(image, known, saturate, sky, noise)

    def nearest(self, x: float, y: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column of the pixels with weight that are nearest to a place."""
        y0, x0 = max(0, round(y) - reach), max(0, round(x) - reach)
        cut = self.known[y0 : round(y) + reach + 1, x0 : round(x) + reach + 1]
        rows, columns = np.nonzero(cut)
        rows, columns = rows + y0, columns + x0
        order = np.argsort(np.hypot(rows - y, columns - x), kind="stable")[:FIT_PIXELS]
        return rows[order], columns[order]

    def light(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the light above the sky in pixels."""
        return self.image[rows, columns].astype(float) - self.sky


def find_bleeding(
    image: np.ndarray, known: np.ndarray, cores: np.ndarray, high: np.ndarray, edge: np.ndarray,
    saturate: float,
) -> tuple[Bleeding, ...]:  # fmt: skip
    """Return the lost pixels that are not those of round cores, with the stars in them.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    known : ndarray of bool, shape (ny, nx)
        Pixels with weight.
    cores : ndarray of bool, shape (ny, nx)
        Lost pixels around plateaus.
    high : ndarray of bool, shape (ny, nx)
        The plateaus.
    edge : ndarray of bool, shape (ny, nx)
        Pixels left out of `cores` at the edge of the frames.
    saturate : float
        Saturation level.
    """
    if not high.any():
        return ()
    around = _Surroundings.of(image, known, saturate)
    trails: list[_Trail] = []
    found: list[BleedingStar] = []
    for box, group in mask_groups(cores):
        plateau = group & high[box]
        if not plateau.any():
            continue
        depth = group_depth(box, plateau, high.shape)
        beside = edge[tuple(slice(max(0, one.start - 1), one.stop + 1) for one in box)].any()
        reaching, dark = _reaches(plateau, depth), False
        if reaching or beside or depth.max() >= LEAST_DARK:
            dark = _is_dark(around, box, depth)
        if not reaching and not dark:
            continue
        trail = _Trail(around, box, group, plateau, depth)
        stars = [] if dark and not reaching else trail.stars(found)
        # Something else that is bright stays as it is.
        if stars or dark:
            trails.append(trail)
            found += stars
    for _ in range(ROUNDS):
        if not _remeasure(trails, found):
            break
    return tuple(trail.bleeding(found) for trail in trails)


def _remeasure(trails: "list[_Trail]", found: list[BleedingStar]) -> bool:
    """Measure stars with the light of the others taken away, in place; return if any moved."""
    moved = False
    for k, star in enumerate(found):
        others = [one for one in found if one is not star and star.is_near(one)]
        if not others:
            continue
        trail = next(one for one in trails if one.radius(star.x, star.y) > 0)
        again = trail.measure(star.x, star.y, others, int(1.5 * star.radii[-1]) + MARGIN)
        if again is not None:
            moved |= bool(np.hypot(again.x - star.x, again.y - star.y) > STILL)
            found[k] = again
    return moved


def _reaches(plateau: np.ndarray, depth: np.ndarray) -> bool:
    """Return whether plateaus are several, or reach further than a round core would."""
    rows, columns = np.nonzero(plateau)
    here = depth[rows, columns]
    deepest = int(np.argmax(here))
    away = np.hypot(rows - rows[deepest], columns - columns[deepest])
    return bool(away.max() > ROUND * here[deepest] + SLACK)


def _is_dark(around: _Surroundings, box: Box, depth: np.ndarray) -> bool:
    """Return whether a plateau has no light around: the end of a trail, not a star."""
    row, column = np.unravel_index(np.argmax(depth), depth.shape)
    x, y = float(column + box[1].start), float(row + box[0].start)
    rows, columns = around.nearest(x, y, int(depth[row, column]) + 2 * MARGIN)
    if rows.size < FIT_PIXELS:
        return False
    error = 1.2533 * around.noise / np.sqrt(rows.size)
    return bool(np.median(around.light(rows, columns)) + 3 * error < DARK * around.saturate)


class _Trail:
    """Lost pixels that are not those of a round core.

    Parameters
    ----------
    around : _Surroundings
    box : tuple of slice
        Part of the image.
    lost, plateau : ndarray of bool, shape of the box
        Lost pixels, and the saturated ones among them.
    depth : ndarray, shape of the box
        Distance from the outside of the plateaus [pixel].
    """

    def __init__(
        self, around: _Surroundings, box: Box, lost: np.ndarray, plateau: np.ndarray,
        depth: np.ndarray,
    ) -> None:  # fmt: skip
        self.around, self.box, self.lost = around, box, lost
        self.plateau, self.depth = plateau, depth
        self.top = max(float(around.saturate), float(np.median(around.image[box][plateau])))

    def bleeding(self, stars: list[BleedingStar]) -> Bleeding:
        """Return what stands for the lost pixels; `stars` are those of all trails."""
        rows, columns = np.ogrid[self.box]
        shape = self.lost.shape
        light, dome = np.zeros(shape), np.zeros(shape)
        cores, shown = np.zeros((2, *shape), bool)
        for star in stars:
            distance = star.distance(rows, columns)
            if distance.min() > star.radii[-1]:
                continue
            light += star.at(rows, columns)
            cores |= distance <= star.radius + MARGIN
            shown |= distance <= star.radii[-1]
            raised = self.top * (1 + DOME * (1 - distance / star.radius))
            dome = np.where(distance <= star.radius, np.maximum(dome, raised), dome)
        light = np.where(dome > 0, dome, np.minimum(light + self.around.sky, self.top))
        return Bleeding(
            self.box, self.lost, self.lost & cores, self.lost & (cores | shown),
            light.astype(np.float32),
        )  # fmt: skip

    def stars(self, before: list[BleedingStar]) -> list[BleedingStar]:
        """Return the stars whose cores are in the plateaus; `before` are those of other trails."""
        found: list[BleedingStar] = []
        for x, y in self._places():
            near = [one for one in before + found if np.hypot(one.x - x, one.y - y) < 2 * FURTHEST]
            star = self.measure(x, y, near)
            if star is not None and self._is_another(star, found, near):
                found.append(star)
        return found

    def _places(self) -> np.ndarray:
        """Return x, y of pixels that may be the middle of a core, the likeliest first."""
        from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

        # Where a trail is as wide as the core, the light around tells where on it the core is.
        reach = int(np.ceil(self.depth.max())) + MARGIN + 2
        wide = tuple(slice(max(0, one.start - reach), one.stop + reach) for one in self.box)
        around = self.around
        known = around.known[wide].astype(float)
        light = uniform_filter((around.image[wide] - around.sky) * known, 2 * reach + 1)
        part = uniform_filter(known, 2 * reach + 1)
        least = LEAST_RIM * around.saturate
        rim = np.divide(light, part, out=np.zeros_like(light), where=part > 1e-9)
        inner = tuple(
            slice(one.start - more.start, one.start - more.start + size)
            for one, more, size in zip(self.box, wide, self.depth.shape, strict=True)
        )
        rim = np.maximum(rim[inner], 0.1 * least)
        score = gaussian_filter(self.depth, 1.0) + 0.5 * np.log(rim / least)
        size = 2 * int(np.ceil(max(2.0, 0.7 * self.depth.max()))) + 1
        peak = self.plateau & (score == maximum_filter(score, size))
        rows, columns = np.nonzero(peak)
        order = np.argsort(-score[peak], kind="stable")[:MOST_STARS]
        return np.column_stack([columns, rows])[order] + [self.box[1].start, self.box[0].start]

    def measure(
        self, x: float, y: float, others: list[BleedingStar], reach: int = FURTHEST
    ) -> BleedingStar | None:
        """Return the star near a place; None where the light around is not that of a star."""
        reach = min(reach, FURTHEST)
        cut = tuple(slice(max(0, round(at) - reach), round(at) + reach + 1) for at in (y, x))
        rows, columns = np.ogrid[
            cut[0].start : min(cut[0].stop, self.around.image.shape[0]),
            cut[1].start : min(cut[1].stop, self.around.image.shape[1]),
        ]
        light = self.around.image[cut] - self.around.sky
        for other in others:
            light -= other.at(rows, columns)
        known = self.around.known[cut]
        rows, columns = (np.broadcast_to(one, known.shape)[known] for one in (rows, columns))
        light = light[known].astype(float)
        radius = self.radius(x, y)
        first = x, y
        for _ in range(10):
            shift = self._shift(rows - y, columns - x, light, radius)
            if shift is None:
                x, y = first
                break
            length = float(np.hypot(*shift))
            step = min(1.0, max(1.0, 0.5 * radius) / max(length, 1e-9))
            x, y = x + step * shift[0], y + step * shift[1]
            if length < STILL:
                break
        if self.radius(x, y) < STAYS * radius:
            # Drawn to the neck between two cores, by the light of both.
            x, y = first
        radius = self.radius(x, y)
        if radius <= 0:
            return None
        radii, profile = self._profile(np.hypot(rows - y, columns - x), light, radius)
        if radii.size < 2:
            return None
        return BleedingStar(float(x), float(y), radius, radii, profile)

    def radius(self, x: float, y: float) -> float:
        """Return the radius of a core [pixel]; 0 beside the plateau."""
        row, column = round(y) - self.box[0].start, round(x) - self.box[1].start
        if not (0 <= row < self.depth.shape[0] and 0 <= column < self.depth.shape[1]):
            return 0.0
        return max(0.0, float(self.depth[row, column]) - 0.5)

    def _shift(
        self, dy: np.ndarray, dx: np.ndarray, light: np.ndarray, radius: float
    ) -> tuple[float, float] | None:
        """Return by how much a star is to be moved, as the light around is a power of distance."""
        distance = np.hypot(dy, dx)
        near = (distance < 2 * radius + MARGIN + 6) & (light > FIT_SIGMA * self.around.noise)
        near &= distance > max(0.5 * radius, 1.0)
        if near.sum() < FIT_PIXELS:
            return None
        dy, dx, distance = dy[near], dx[near], distance[near]
        value = np.log(light[near])
        design = np.column_stack(
            [np.ones(value.size), -np.log(distance), dx / distance**2, dy / distance**2]
        )
        good = np.ones(value.size, bool)
        for _ in range(4):
            found, *_ = np.linalg.lstsq(design[good], value[good], rcond=None)
            left = np.abs(value - design @ found)
            good = left <= max(3 * MAD_TO_SIGMA * float(np.median(left[good])), 1e-3)
            if good.sum() < FIT_PIXELS:
                return None
        if not STEEPNESS[0] < found[1] < STEEPNESS[1]:
            return None
        return float(found[2] / found[1]), float(found[3] / found[1])

    def _profile(
        self, distance: np.ndarray, light: np.ndarray, radius: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return distances from the edge of the core on, and the light of a star there."""
        order = np.argsort(distance)
        distance, light = distance[order], light[order]
        radii, profile = [radius], [self.top]
        inner = radius
        while inner < FURTHEST:
            outer = inner + max(1.0, 0.07 * inner)
            first, last = np.searchsorted(distance, (inner, outer))
            if last - first >= BIN_PIXELS:
                middle = float(np.median(light[first:last]))
                if middle < FADED * self.around.noise or middle <= 0:
                    break
                radii.append(float(np.median(distance[first:last])))
                profile.append(min(middle, profile[-1]))
            inner = outer
        return np.array(radii), np.array(profile)

    def _is_another(
        self, star: BleedingStar, found: list[BleedingStar], near: list[BleedingStar]
    ) -> bool:
        """Return whether a star has light of its own around it, or a core of its own.

        `found` are the stars of this trail, `near` those of others, too.
        """
        reach = int(star.radius) + 4 * MARGIN
        rows, columns = self.around.nearest(star.x, star.y, reach)
        light = self.around.light(rows, columns)
        if not rows.size or not np.median(light) > LEAST_RIM * self.around.saturate:
            return False
        apart = [np.hypot(star.x - one.x, star.y - one.y) for one in found]
        if any(d < max(star.radius, one.radius) for d, one in zip(apart, found, strict=True)):
            return False
        others = sum((one.at(rows, columns) for one in near), np.zeros(rows.size))
        if np.median(light - others) > OWN_LIGHT * np.median(light):
            return True
        necks = [self._neck(star, one) < SADDLE * min(star.radius, one.radius) for one in found]
        return bool(necks) and all(necks)

    def _neck(self, one: BleedingStar, other: BleedingStar) -> float:
        """Return half of the least width of the plateau between two stars [pixel]."""
        part = np.linspace(0, 1, 2 + int(np.hypot(one.x - other.x, one.y - other.y)))
        return min(
            self.radius(one.x + t * (other.x - one.x), one.y + t * (other.y - one.y)) for t in part
        )
