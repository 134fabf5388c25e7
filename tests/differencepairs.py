"""Pairs of images of one field at two times, with known changes; no code of the reduction."""

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import fftconvolve

BETA = 3.0
"""Exponent of the Moffat profiles of stars."""


@dataclass(frozen=True)
class Seeing:
    """A point-spread function that changes over the field.

    Parameters
    ----------
    fwhm : float
        In the middle of the field [pixel].
    ellipticity, angle : float
        1 - b/a, and the angle of the longer axis from x [radian].
    gradient : float
        By which part the FWHM grows from the left edge to the right one.
    """

    fwhm: float
    ellipticity: float = 0.0
    angle: float = 0.0
    gradient: float = 0.0

    def growth(self, radius):
        """Return the part of a star's light within a radius [pixel], in the middle of the field."""
        alpha = self.fwhm / (2 * np.sqrt(2 ** (1 / BETA) - 1))
        return 1 - (1 + (radius / alpha) ** 2) ** (1 - BETA)

    def stamp(self, dx, dy, half, where):
        """Return a star of flux 1 whose centre lies (dx, dy) from that of the middle pixel.

        `where` is its place along x in the field, 0 to 1.
        """
        fwhm = self.fwhm * (1 + self.gradient * (where - 0.5))
        alpha = fwhm / (2 * np.sqrt(2 ** (1 / BETA) - 1))
        sub = (np.arange(5) - 2) / 5
        offset = np.arange(-half, half + 1)[:, None] + sub
        x = (offset - dx)[None, None]
        y = (offset - dy)[:, :, None, None]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        # The area stays that of the round profile.
        stretch = np.sqrt(1 - self.ellipticity)
        u, v = (x * cos + y * sin) * stretch, (-x * sin + y * cos) / stretch
        density = (BETA - 1) / (np.pi * alpha**2) * (1 + (u**2 + v**2) / alpha**2) ** -BETA
        return density.mean(axis=(1, 3))


@dataclass
class Scene:
    """What does not change: stars and galaxies.

    Parameters
    ----------
    size : int
        Side of the field [pixel].
    stars : ndarray, shape (n, 3)
        x, y, flux.
    galaxies : ndarray, shape (m, 6)
        x, y, flux, scale length [pixel], axis ratio, angle [radian].
    """

    size: int
    stars: np.ndarray
    galaxies: np.ndarray = field(default_factory=lambda: np.empty((0, 6)))


def make_scene(rng, size, stars, galaxies, faint=300.0, bright=3e5):
    """Draw stars and galaxies at random places; cumulative counts go as 1 / flux^0.8."""

    def places(number):
        return rng.uniform(12, size - 13, (number, 2))

    low, high = bright**-0.8, faint**-0.8
    flux = (low + (high - low) * rng.random(stars)) ** (-1 / 0.8)
    shape = [
        10 ** rng.uniform(3.5, 4.7, galaxies), rng.uniform(1.5, 5, galaxies),
        rng.uniform(0.3, 1, galaxies), rng.uniform(0, np.pi, galaxies),
    ]  # fmt: skip
    return Scene(
        size, np.column_stack([places(stars), flux]), np.column_stack([places(galaxies), *shape])
    )


def add_points(image, x, y, flux, seeing, half=None):
    """Add stars to an image, in place."""
    size = image.shape[1]
    for xs, ys, light in zip(x, y, flux, strict=True):
        reach = half or int(np.ceil((8 if light > 1e4 else 5) * seeing.fwhm))
        column, row = round(xs), round(ys)
        star = seeing.stamp(xs - column, ys - row, reach, xs / size)
        _paste(image, light * star, column - reach, row - reach)


def _paste(image, part, x0, y0):
    ny, nx = image.shape
    y1, x1 = min(ny, y0 + part.shape[0]), min(nx, x0 + part.shape[1])
    if y1 > max(y0, 0) and x1 > max(x0, 0):
        image[max(y0, 0) : y1, max(x0, 0) : x1] += part[
            max(-y0, 0) : y1 - y0, max(-x0, 0) : x1 - x0
        ]


def light_of(scene, seeing):
    """Return the light of a scene, without sky or noise."""
    image = np.zeros((scene.size, scene.size))
    add_points(image, *scene.stars.T, seeing)
    for x, y, flux, length, ratio, angle in scene.galaxies:
        half = int(np.ceil(7 * length + 5 * seeing.fwhm))
        offset = np.arange(-half, half + 1)[:, None] + (np.arange(3) - 1) / 3
        u, v = (offset - (x - round(x)))[None, None], (offset - (y - round(y)))[:, :, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = u * cos + v * sin, (-u * sin + v * cos) / ratio
        disc = np.exp(-np.hypot(along, across) / length).mean(axis=(1, 3))
        star = seeing.stamp(0, 0, int(np.ceil(5 * seeing.fwhm)), x / scene.size)
        disc = fftconvolve(disc / disc.sum(), star, mode="same")
        _paste(image, flux * disc, round(x) - half, round(y) - half)
    return image


def observe(light, sky, rng):
    """Return an image in electrons without its sky, with the noise of both."""
    return (rng.poisson(light + sky) - sky).astype(np.float32)


def galaxy_places(scene, rng, number):
    """Return places within galaxies, within two scale lengths of their centres, shape (n, 2)."""
    rows = rng.permutation(len(scene.galaxies))[:number]
    x, y, _, length, ratio, angle = scene.galaxies[rows].T
    radius, turn = length * rng.uniform(0.2, 2, rows.size), rng.uniform(0, 2 * np.pi, rows.size)
    u, v = radius * np.cos(turn), radius * np.sin(turn) * ratio
    return np.column_stack([x + u * np.cos(angle) - v * np.sin(angle),
                            y + u * np.sin(angle) + v * np.cos(angle)])  # fmt: skip


def places_near_stars(scene, rng, number, distance):
    """Return places at a distance [pixel] from stars of middling brightness, shape (n, 2)."""
    bright = scene.stars[(scene.stars[:, 2] > 3e3) & (scene.stars[:, 2] < 6e4)]
    rows = rng.permutation(len(bright))[:number]
    turn = rng.uniform(0, 2 * np.pi, rows.size)
    return bright[rows, :2] + distance * np.column_stack([np.cos(turn), np.sin(turn)])


def empty_places(scene, rng, number, distance):
    """Return places further than a distance [pixel] from all sources and each other."""
    taken = np.concatenate([scene.stars[:, :2], scene.galaxies[:, :2]])
    found = np.empty((0, 2))
    for place in rng.uniform(25, scene.size - 26, (200 * number, 2)):
        everything = np.concatenate([taken, found])
        if len(found) < number and np.hypot(*(everything - place).T).min() > distance:
            found = np.concatenate([found, place[None]])
    return found
