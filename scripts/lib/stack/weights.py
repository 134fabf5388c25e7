"""Weights of the pixels of frames, and the gain of a coadd."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike

from lib.frame.file import INTERPOLATED, UNUSABLE, read_frame

log = logging.getLogger("autoproc")


def sky_variance(
    sky: float, read_noise: float, gain: float = 1.0, flat: np.ndarray | None = None
) -> float | np.ndarray:
    """Return the variance of a source-free pixel in a flat-fielded frame.

    variance = (sky / gain) / flat + (read_noise / gain / flat)^2, because the photon noise arises
    before the division by the flat. The light of sources is deliberately left out: it would give
    the brightest pixels of a star the least weight and change its profile.

    Parameters
    ----------
    sky : float
        Sky level that was subtracted [stored units].
    read_noise : float
        Read noise [electron].
    gain : float
        Electrons per stored unit.
    flat : ndarray, shape (ny, nx), optional
        Relative response of the pixels, about 1.

    Returns
    -------
    float or ndarray
        Variance [stored units squared].
    """
    response = 1.0 if flat is None else flat
    return max(sky, 0.0) / gain / response + (read_noise / gain / response) ** 2


def frame_variance(header: fits.Header, flat: np.ndarray | None = None) -> float | np.ndarray:
    """Return `sky_variance` from the header of a frame; 0 without sky and read noise.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header with SKYSUB, RDNOISE and GAIN.
    flat : ndarray, shape (ny, nx), optional
        Relative response of the pixels, about 1.

    Returns
    -------
    float or ndarray
        Variance [stored units squared].
    """
    return sky_variance(
        float(header.get("SKYSUB", 0.0)), float(header.get("RDNOISE", 0.0)),
        float(header.get("GAIN", 1.0)), flat,
    )  # fmt: skip


def frame_weight(mask: np.ndarray, variance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight map of a frame, and its repaired pixels.

    Parameters
    ----------
    mask : ndarray of uint8, shape (ny, nx)
        Mask bits.
    variance : float or ndarray, shape (ny, nx)
        Variance of each pixel [stored units squared].

    Returns
    -------
    weight : ndarray of float32, shape (ny, nx)
        Inverse variance; 0 for unusable pixels that were not repaired.
    repaired : ndarray of bool, shape (ny, nx)
        Unusable pixels with a repaired value: valid for the outer lobes of the resampling kernel,
        but not measurements.
    """
    unusable = (mask & UNUSABLE) > 0
    repaired = unusable & ((mask & INTERPOLATED) > 0)
    variance = np.asarray(variance)
    weight = np.zeros(mask.shape, np.float32)
    np.divide(1.0, variance, out=weight, where=(variance > 0) & ~(unusable & ~repaired),
              casting="same_kind")  # fmt: skip
    return weight, repaired


def median_variance_ratio(number: int) -> float:
    """Return the variance of the median of `number` equal Gaussian values over that of their mean.

    SWarp's formula, accurate to 3 % from three values on: pi/2 n / (n + pi/2 - 1) for odd and pi/2
    n / (n + pi - 2) for even n; 1 for one and two.
    """
    if number <= 2:
        return 1.0
    return np.pi / 2 * number / (number + (np.pi / 2 - 1 if number % 2 else np.pi - 2))


def effective_gain(scales: ArrayLike, gains: ArrayLike, weights: ArrayLike, combine: str) -> float:
    """Return the electrons per unit of a coadd: the photon variance of a flux F is F / gain.

    For means (sum w)^2 / sum(w^2 f / g) with scaled inverse variances w, flux scales f and gains g;
    for the median the limit where photon noise dominates, sum(sqrt(g / f))^2 / n / penalty.

    Parameters
    ----------
    scales, gains, weights : array_like, shape (n,)
    combine : {'median', 'weighted', 'clipped'}
    """
    f = np.asarray(scales, float) / np.asarray(gains, float)
    if combine == "median":
        n = f.size
        if n <= 2:
            return float(n**2 / f.sum())
        return float(np.sum(f**-0.5) ** 2 / n / median_variance_ratio(n))
    w = np.asarray(weights, float)
    return float(w.sum() ** 2 / np.sum(w**2 * f))


class FlatCache:
    """Flat fields by name, each read once.

    Parameters
    ----------
    paths : iterable of path-like
        Flats that the frames' headers may name; those of several nights may share a name.
    directory : path-like
        Where other flats are looked for.
    """

    def __init__(self, paths: Iterable[str | Path], directory: str | Path) -> None:
        self.paths: dict[str, list[Path]] = {}
        for path in paths:
            self.paths.setdefault(Path(path).name, []).append(Path(path))
        self.directory = Path(directory)
        self.flats: dict[Path, np.ndarray | None] = {}
        self.sums: dict[Path, str] = {}

    def get(self, header: fits.Header, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the flat by which a frame was divided; None where it is not available.

        Parameters
        ----------
        header : astropy.io.fits.Header
            Header with FLATFILE, and FLATSUM where flats of several nights share the name.
        shape : tuple of int
            Shape of the frame.
        """
        name = str(header.get("FLATFILE", ""))
        if not name:
            return None
        path = self._path(name, str(header.get("FLATSUM", "")))
        if path not in self.flats:
            flat = None
            if path.exists():
                master = read_frame(path)
                if master.image is not None:
                    flat = np.where(master.image > 0, master.image, np.nan)
            else:
                log.warning("flat %s is not there: weights without it", name)
            self.flats[path] = flat
        flat = self.flats[path]
        return flat if flat is not None and flat.shape == shape else None

    def _path(self, name: str, datasum: str) -> Path:
        """Return the path of a flat by its name, and by its DATASUM where the name is shared."""
        named = self.paths.get(name, [])
        if len(named) < 2:
            return named[0] if named else self.directory / name
        for path in named:
            if path not in self.sums:
                self.sums[path] = str(fits.getheader(path).get("DATASUM", ""))
        return next((path for path in named if self.sums[path] == datasum), self.directory / name)
