"""Candidates in the single frames of their coadd: in how many they are seen, and whether they move.

From each frame what has not changed is subtracted, as the coadd and its difference image have it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from lib.core.sphere import project
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.frame.file import read_frame
from lib.photometry.flags import FLAG_OUTSIDE
from lib.photometry.frameforced import measure_frame
from lib.photometry.lightcurve import FrameQuality
from lib.stack.resample import resample

log = logging.getLogger("autoproc")

SEEN = 3.0
"""[sigma] What is above is seen in a frame."""

MOVING_SIGMA = 4.0
"""Rates below this are noise."""

LEAST_PATH = 0.3
"""[FWHM] What moves by less between the first frame and the last stands still."""

LEAST_POSITIONS = 3
"""Frames with a centroid that tell a rate."""

CENTROID_NOISE = 0.5
"""[FWHM over S/N] Error of a centroid per axis, about (King 1983, PASP 95, 163)."""


@dataclass(frozen=True)
class SeenInFrames:
    """Candidates in the frames of a coadd.

    Parameters
    ----------
    frames : ndarray of int, shape (n,)
        Frames that cover each.
    seen : ndarray of int, shape (n,)
        Frames in which it is seen, with its sign.
    alone : ndarray, shape (n,)
        Part of the light in the frame that has most of it, beyond its share; NaN where fewer than
        three frames tell.
    rate, rate_error : ndarray, shape (n,)
        Motion [arcsec/h]; NaN where not known.
    angle : ndarray, shape (n,)
        Direction of the motion, position angle from north through east [deg].
    moving : ndarray of bool, shape (n,)
    """

    frames: np.ndarray
    seen: np.ndarray
    alone: np.ndarray
    rate: np.ndarray
    rate_error: np.ndarray
    angle: np.ndarray
    moving: np.ndarray

    @classmethod
    def unknown(cls, number: int) -> "SeenInFrames":
        """Return the measures of candidates where there are no frames."""
        nan, none = np.full(number, np.nan), np.zeros(number, int)
        return cls(none, none, nan, nan, nan, nan, np.zeros(number, bool))


def look_in_frames(
    paths: Sequence[str | Path], quality: dict[str, tuple[FrameQuality, float]],
    unchanged: np.ndarray, grid: WCS, positions: np.ndarray, sign: np.ndarray,
) -> SeenInFrames:  # fmt: skip
    """Measure candidates in the frames of their coadd.

    Parameters
    ----------
    paths : sequence of path-like
        Solved frames.
    quality : dict
        By the name of a frame, what the stack measured of it, and the factor from its fluxes to
        those of the coadd.
    unchanged : ndarray of float32, shape (ny, nx)
        The light that did not change, on the grid and scale of the coadd.
    grid : astropy.wcs.WCS
        WCS of the grid, with its size.
    positions : ndarray, shape (n, 2)
        ra, dec [deg].
    sign : ndarray, shape (n,)
        -1 for what has faded.

    Returns
    -------
    SeenInFrames
    """
    flux, error, times, places, widths = [], [], [], [], []
    for path in paths:
        frame = read_frame(path)
        name = str(frame.header.get("FRAME", Path(path).stem))
        known, scale = quality.get(name, (FrameQuality(), np.nan))
        if frame.image is None or not known.used or known.aperture is None or not scale > 0:
            continue
        wcs = celestial_wcs(frame.header)
        try:
            part, _, corner = resample(unchanged, np.ones_like(unchanged), grid, wcs, 1 / scale)
        except ValueError:
            continue
        place = tuple(slice(c, c + n) for c, n in zip(corner, part.shape, strict=True))
        image = frame.image.copy()
        image[place] -= part
        frame.image = image
        none = np.empty((0, 2))
        found = measure_frame(frame, positions, none, np.empty(0), known.aperture, wcs)
        outside = (found.flags & FLAG_OUTSIDE) > 0
        flux.append(np.where(outside, np.nan, found.flux * scale))
        error.append(np.where(outside, np.nan, found.error * scale))
        times.append(float(frame.header.get("MJD-OBS", np.nan)))
        places.append(_sky(wcs, found.centroid))
        widths.append(known.seeing if known.seeing > 0 else 3 * pixel_scale(wcs))
    if not flux:
        return SeenInFrames.unknown(len(positions))
    light, noise = np.array(flux) * sign, np.array(error)
    rate, rate_error, angle, moving = motions(
        np.array(times), np.array(places), light / noise, np.array(widths)
    )
    return SeenInFrames(
        np.isfinite(light).sum(axis=0), (light > SEEN * noise).sum(axis=0),
        brightest_alone(light, noise), rate, rate_error, angle, moving,
    )  # fmt: skip


def _sky(wcs: WCS, centroid: np.ndarray) -> np.ndarray:
    """Return ra, dec of centroids, NaN where there are none."""
    sky = np.full(centroid.shape, np.nan)
    good = np.isfinite(centroid).all(axis=1)
    if good.any():
        sky[good] = np.column_stack(wcs.all_pix2world(*centroid[good].T, 0))
    return sky


def brightest_alone(light: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return which part of the light the brightest frame has beyond its share.

    0 where all frames have the same, 1 where the others have nothing; noise is forgiven.

    Parameters
    ----------
    light, noise : ndarray, shape (frames, n)
        Flux and error, positive; NaN where a frame does not cover it.
    """
    number = np.isfinite(light).sum(axis=0)
    filled = np.nan_to_num(light, nan=-np.inf)
    best = filled.argmax(axis=0)
    columns = np.arange(light.shape[1])
    top, top_error = light[best, columns], noise[best, columns]
    others = np.array(light)
    others[best, columns] = np.nan
    weight = 1 / np.array(noise) ** 2
    weight[~np.isfinite(others)] = 0
    total = weight.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = (weight * np.nan_to_num(others)).sum(axis=0) / total
        # The highest of several is above their mean by about one sigma.
        beyond = top - rest - 2 * np.hypot(top_error, 1 / np.sqrt(total))
        alone = np.clip(beyond / top, 0, 1)
    return np.where((number >= 3) & (top > 0), alone, np.nan)


def motions(
    mjd: np.ndarray, places: np.ndarray, snr: np.ndarray, seeing: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rate, its error, direction and whether each candidate moves.

    Parameters
    ----------
    mjd : ndarray, shape (frames,)
    places : ndarray, shape (frames, n, 2)
        ra, dec of centroids [deg]; NaN where there is none.
    snr : ndarray, shape (frames, n)
    seeing : ndarray, shape (frames,)
        FWHM [arcsec].

    Returns
    -------
    rate, error : ndarray, shape (n,)
        [arcsec/h]; NaN where fewer than three frames tell.
    angle : ndarray, shape (n,)
        From north through east [deg].
    moving : ndarray of bool, shape (n,)
    """
    number = places.shape[1]
    rate, error, angle = (np.full(number, np.nan) for _ in range(3))
    for k in range(number):
        good = np.isfinite(places[:, k]).all(axis=1) & np.isfinite(mjd) & (snr[:, k] > 0)
        if good.sum() < LEAST_POSITIONS or np.ptp(mjd[good]) == 0:
            continue
        plane = project(*places[good, k].T, *places[good, k].mean(axis=0))
        sigma = np.hypot(CENTROID_NOISE * seeing[good] / snr[good, k], 0.03 * seeing[good])
        hours = 24 * (mjd[good] - mjd[good].mean())
        weight = 1 / sigma**2
        hours = hours - np.average(hours, weights=weight)
        spread = float((weight * hours**2).sum())
        east, north = ((weight * hours) @ plane) / spread
        rate[k], error[k] = np.hypot(east, north), 1 / np.sqrt(spread)
        angle[k] = np.degrees(np.arctan2(east, north)) % 360
    path = rate * 24 * float(np.ptp(mjd[np.isfinite(mjd)])) if np.isfinite(mjd).any() else rate
    with np.errstate(invalid="ignore"):
        moving = (rate > MOVING_SIGMA * error) & (path > LEAST_PATH * float(np.median(seeing)))
        return rate, error, angle, moving
