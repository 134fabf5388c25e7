"""Gain and read noise of an amplifier, from pairs of its flats and biases (photon transfer)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TILE = 32
"""Pixels: within a tile the illumination that drifts between two flats is one factor."""

CLIP = 5.0
"""Sigma beyond which a pixel is a ray or a defect."""

PART = 0.7
"""Part of each axis, in the middle, that is measured: edges are vignetted."""


@dataclass(frozen=True)
class PhotonTransfer:
    """Gain and read noise of an amplifier from pairs of flats and biases.

    Parameters
    ----------
    gain : float or None
        Electrons per DN; None where the flats tell none.
    rdnoise_dn : float or None
        DN.
    flat_pairs, bias_pairs : int
        Number of pairs.
    scatter : float
        Relative scatter of the gain between pairs of flats; 0 for one pair.
    """

    gain: float | None
    rdnoise_dn: float | None
    flat_pairs: int
    bias_pairs: int
    scatter: float = 0.0

    @property
    def rdnoise(self) -> float | None:
        """Read noise [electron]."""
        if self.gain is None or self.rdnoise_dn is None:
            return None
        return self.gain * self.rdnoise_dn


def photon_transfer(
    flats: Sequence[np.ndarray], biases: Sequence[np.ndarray], highest: float = np.inf
) -> PhotonTransfer:
    """Measure gain and read noise of an amplifier.

    Neighbours in the order of time are pairs. Of two flats F and two biases B (Janesick 2001,
    Scientific Charge-Coupled Devices, chapter 2), with F2 scaled by r to the level of F1:

        gain    = (1 + r) (F1 - B) / (var(F1 - r F2) - (1 + r^2) var(B1 - B2) / 2)
        rdnoise = std(B1 - B2) / sqrt(2)

    each in tiles of 32 pixels, of which the median counts: stars of a twilight flat and
    gradients that turn do not reach it.

    Parameters
    ----------
    flats, biases : sequence of ndarray, shape (ny, nx)
        DN, of one filter and setting, in the order of time; NaN and saturated pixels are left out.
    highest : float
        DN; flats above that are not used.

    Returns
    -------
    PhotonTransfer
    """
    biases = [_middle(one) for one in biases]
    usable = [_middle(one) for one in flats]
    usable = [one for one in usable if np.nanmedian(one) < highest]
    noises = [
        np.median(_variances(one - other)) / 2
        for one, other in zip(biases[0::2], biases[1::2], strict=False)
    ]
    noise = float(np.median(noises)) if noises else None
    rdnoise = None if noise is None else noise**0.5
    gains: list[float] = []
    if noise is not None:
        level = np.median(biases[:4], axis=0)
        for one, other in zip(usable[0::2], usable[1::2], strict=False):
            gain = _pair_gain(one - level, other - level, noise)
            if gain is not None:
                gains.append(gain)
    if not gains:
        return PhotonTransfer(None, rdnoise, 0, len(noises))
    gain = float(np.median(gains))
    scatter = float(np.std(gains, ddof=1)) / gain if len(gains) > 1 else 0.0
    return PhotonTransfer(gain, rdnoise, len(gains), len(noises), scatter)


def gain_of_flats(flats: Sequence[np.ndarray], noise: float) -> PhotonTransfer:
    """Measure the gain of an amplifier in flats whose bias has been subtracted.

    Parameters
    ----------
    flats : sequence of ndarray, shape (ny, nx)
        DN, in the order of time; NaN is left out.
    noise : float
        Variance of the read noise [DN^2].

    Returns
    -------
    PhotonTransfer
        As from `photon_transfer`; with the given read noise.
    """
    pairs = zip(flats[0::2], flats[1::2], strict=False)
    found = [_pair_gain(one, other, noise) for one, other in pairs]
    gains = [gain for gain in found if gain is not None]
    if not gains:
        return PhotonTransfer(None, noise**0.5, 0, 0)
    gain = float(np.median(gains))
    scatter = float(np.std(gains, ddof=1)) / gain if len(gains) > 1 else 0.0
    return PhotonTransfer(gain, noise**0.5, len(gains), 0, scatter)


def _pair_gain(one: np.ndarray, other: np.ndarray, noise: float) -> float | None:
    """Return the gain of two flats without bias; None where photons are not most of their noise.

    `noise` is the variance [DN^2] of a bias.
    """
    firsts, seconds = _tiles(one), _tiles(other)
    known = (np.isfinite(firsts) & np.isfinite(seconds)).mean(axis=1) > 0.5
    if not known.any():
        return None
    firsts, seconds = firsts[known], seconds[known]
    levels, ratios = _means(firsts), _means(firsts) / _means(seconds)
    lit = (levels > 0) & (ratios > 0.2) & (ratios < 5)
    if lit.sum() < 0.5 * lit.size:
        return None
    differences = firsts[lit] - ratios[lit, None] * seconds[lit]
    of_noise = (1 + ratios[lit] ** 2) * noise
    photons = _clipped_variances(differences) - of_noise
    if np.median(photons) < 0.5 * np.median(of_noise):
        return None
    return float(1 / np.median(photons / ((1 + ratios[lit]) * levels[lit])))


def _middle(image: np.ndarray) -> np.ndarray:
    rows, columns = (int(length * (1 - PART) / 2) for length in image.shape)
    return image[rows : image.shape[0] - rows, columns : image.shape[1] - columns].astype(float)


def _tiles(image: np.ndarray) -> np.ndarray:
    """Return the pixels of each tile as a row; small images are one tile."""
    tile = min(TILE, *image.shape)
    rows, columns = (length // tile for length in image.shape)
    cut = image[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile)
    return cut.transpose(0, 2, 1, 3).reshape(rows * columns, tile * tile)


def _means(tiles: np.ndarray) -> np.ndarray:
    return np.nanmedian(tiles, axis=1)


def _variances(image: np.ndarray) -> np.ndarray:
    return _clipped_variances(_tiles(image))


def _clipped_variances(tiles: np.ndarray) -> np.ndarray:
    """Return the variance of each row without outliers.

    A median absolute deviation of integers is too coarse for the result, not for the clipping.
    """
    centred = tiles - np.nanmedian(tiles, axis=1, keepdims=True)
    spread = 1.4826 * np.nanmedian(np.abs(centred), axis=1, keepdims=True) + 0.5
    centred[np.abs(centred) > CLIP * spread] = np.nan
    return np.nanvar(centred, axis=1)
