"""Whether frames show light of their targets where a sky is to be made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits

from lib.background.extendedlight import Separation, separate_light
from lib.background.largesources import large_sources, still_light
from lib.background.lightsquares import LEAST_SQUARE, Place, light_image
from lib.background.pointings import pointing_groups
from lib.background.registration import offset, spectrum
from lib.background.sky import block_sky, sky_noise
from lib.calibration.masters import Input, release
from lib.core.meshes import bilinear
from lib.core.stats import mad_std
from lib.frame.file import BAD, NODATA, SATURATED, SOURCE, Frame
from lib.frame.step import log

MOVING = 0.055
"""[pixel noise] Rms difference of the frames' squares above which light moves; noise gives 0.04."""

LARGE_SCALE_EXCESS = 2.25
"""Mean square of means over 3 x 3 squares, in units of that of noise, above which light may move:
frames of stars alone have 1.0 to 1.6, as their gradients are not quite planes."""

SIGNIFICANT = 5.0
"""[standard deviations] of that mean square by noise."""

SEPARATED = "moves with the stars"
INSEPARABLE = "not told from sky"

FAINT = 0.05
"""[pixel noise] Fainter light is neglected."""

ENOUGH_DARK = 2
"""Number of frames without such light that suffices for the sky beneath the light of others."""

FINE_SKY = 16
"""[px] Squares whose medians hold no stars but all larger light, for the registration by stars."""


@dataclass(frozen=True)
class TargetLight:
    """Light of the targets in the frames of a sky.

    Parameters
    ----------
    maps : ndarray of float32, shape (n, rows, columns)
        Light in each frame, as a fraction of its sky level.
    kind : {SEPARATED, INSEPARABLE}
        How it was recognised.
    separation : Separation, optional
        Where it moved.
    profiled : ndarray of bool, shape (n,)
        Frames whose light has a profile.
    """

    maps: np.ndarray
    kind: str
    profiled: np.ndarray
    faint: float
    separation: Separation | None = None

    @property
    def most(self) -> float:
        """The brightest light, as a fraction of the sky."""
        return float(self.maps.max())

    def part(self, which: Sequence[int] | np.ndarray) -> "TargetLight":
        """Return that of some of the frames."""
        return replace(self, maps=self.maps[which], profiled=self.profiled[which])

    def subtract(self, planes: np.ndarray, inputs: Sequence[Input]) -> np.ndarray:
        """Subtract the light from normalised frames, and normalise them again.

        Parameters
        ----------
        planes : sequence of ndarray, each of shape (ny, nx)
        inputs : list of Input
            Their levels are reduced.

        Returns
        -------
        ndarray, shape (n, rows, columns)
            Medians of the squares of each.
        """
        surfaces = []
        lit = self.lit
        # In these, sky and light are only shared out by their prior amplitudes.
        self.maps[~lit & ~self.profiled] = 0
        for n, (plane, one) in enumerate(zip(planes, inputs, strict=True)):
            plane -= light_image(self.maps[n], plane.shape)
            free = np.isfinite(plane)
            blocks = block_sky(np.where(free, plane, 0), free, every=3)
            factor = np.float32(np.nanmedian(blocks))
            plane /= factor
            self.maps[n] /= factor
            one.level *= float(factor)
            surfaces.append(blocks / factor)
            release(planes)
        if (~lit).sum() >= ENOUGH_DARK:
            # The sky of frames without such light is better than the residual of these.
            for n in np.flatnonzero(lit).tolist():
                planes[n][light_image(self.maps[n], planes[n].shape) > self.faint] = np.nan
                release(planes)
        return np.array(surfaces)

    @property
    def lit(self) -> np.ndarray:
        """Frames that show some light, shape (n,)."""
        ranges = np.ptp(np.percentile(self.maps, [5, 95], axis=(1, 2)), axis=0)
        most = np.percentile(self.maps, 95, axis=(1, 2))
        enough = max(self.faint, 0.1 * ranges.max())
        return np.where(self.profiled, most > self.faint, ranges > enough)


def may_hold_light(planes: np.ndarray, left: np.ndarray, noises: Sequence[float]) -> bool:
    """Decide whether to search for light of the targets.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape (ny, nx)
        Normalised frames, NaN where the sky is not seen.
    left : ndarray, shape (n, rows, columns)
        See `lib.background.shapes.frame_surfaces`.
    noises : sequence of float
        Pixel noise of each frame.
    """
    known = np.isfinite(left)
    squares = np.where(known, left, 0) ** 2
    rms = np.sqrt(squares.sum(axis=(1, 2)) / known.sum(axis=(1, 2)).clip(1)) / noises
    if len(planes) > 1 and (rms.max(initial=0) > MOVING or differ_on_large_scales(left)):
        return True
    return any(large_sources(~np.isfinite(plane)).any() for plane in planes[:1])


def differ_on_large_scales(left: np.ndarray) -> bool:
    """Tell whether squares of frames differ from the common ones together with their neighbours.

    Noise does not: that of means over 3 x 3 squares is a third of the noise of one, which follows
    from the differences of neighbours.

    Parameters
    ----------
    left : ndarray, shape (n, rows, columns)
        See `lib.background.shapes.frame_surfaces`; NaN where unknown.

    Returns
    -------
    bool
        Whether the mean square of such means, in units of that of noise, exceeds
        `LARGE_SCALE_EXCESS`, and 1 by `SIGNIFICANT` times its error.
    """
    from scipy.ndimage import convolve

    known = np.isfinite(left)
    noise = []
    for one in left:
        steps = np.concatenate([np.diff(one, axis=0).ravel(), np.diff(one, axis=1).ravel()])
        noise.append(mad_std(steps) / np.sqrt(2))
    scaled = np.where(known, left, 0) / np.maximum(noise, 1e-9)[:, None, None]
    # Sums of independent values with noise 1 have a variance of their number.
    number, total = (
        convolve(values, np.ones((1, 3, 3)), mode="constant")
        for values in (known.astype(float), scaled.astype(float))
    )
    excess = total**2 / np.maximum(number, 1)
    use = number > 4
    if not use.any() or not np.isfinite(noise).all():
        return False
    independent = use.sum() / 9
    limit = max(LARGE_SCALE_EXCESS, 1 + SIGNIFICANT * np.sqrt(2 / independent))
    return bool(excess[use].mean() > limit)


def register_frames(
    good: Sequence[tuple[Any, fits.Header, Input]], read: Callable[[Any], Frame]
) -> list[Place]:
    """Return target and offset of each frame from the first of its target, by the stars.

    Parameters
    ----------
    good : list of (path, header, Input)
    read : callable
        Returns the frame of a path; its arrays must not be changed.
    """
    references: dict[str, np.ndarray] = {}
    places: list[Place] = []
    for path, header, one in good:
        frame = read(path)
        target = str(header.get("TARGET", ""))
        usable = frame.mask & (BAD | SATURATED | NODATA) == 0
        image = np.asarray(frame.image, np.float32)
        blocks = block_sky(image, usable, FINE_SKY)
        blocks = np.where(np.isfinite(blocks), blocks, np.float32(one.level))
        stars = image - bilinear(blocks, image.shape)
        stars /= np.float32(sky_noise(header) * one.level)
        np.copyto(stars, 0, where=~usable | (frame.mask & SOURCE == 0))
        np.clip(stars, 0, 3, out=stars)
        np.copyto(stars, 3, where=frame.mask & SATURATED > 0)
        shift: tuple[int, ...] | None = None
        if target in references:
            shift = offset(references[target], stars)
            if shift and any(abs(s) > size / 2 for s, size in zip(shift, stars.shape, strict=True)):
                shift = None
        elif stars.any():
            references[target], shift = spectrum(stars), (0, 0)
        places.append((target, shift))
    return places


def find_light(
    planes: np.ndarray,
    good: Sequence[tuple[Any, fits.Header, Input]],
    read: Callable[[Any], Frame],
) -> TargetLight | None:
    """Search the frames of a sky for light of their targets.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape (ny, nx)
        Normalised frames, NaN where the sky is not seen.
    good : list of (path, header, Input)
        The frames.
    read : callable
        Returns the frame of a path.

    Returns
    -------
    TargetLight or None
    """
    noises = [sky_noise(header) for _, header, _ in good]
    faint = FAINT * float(np.median(noises))
    places = register_frames(good, read)
    strength = np.array([header.get("EXPTIME", 1.0) / one.level for _, header, one in good])
    targets = np.array([target for target, _ in places])
    for target in set(targets.tolist()):
        strength[targets == target] /= np.median(strength[targets == target])
    still = max(pointing_groups(places)) == 0
    if not still:
        found = separate_light(list(planes), places, noises, strength)
        if found is not None:
            light = TargetLight(found.light, SEPARATED, found.profiled, faint, found)
            log.info(
                "light of the target: %.3f of the sky, zero level: %s, %s",
                light.most, found.zero, found.scales,
            )  # fmt: skip
            return light
    if not still:
        return None
    hidden = np.all([~np.isfinite(plane) for plane in planes], axis=0)
    squares = [
        block_sky(np.where(np.isfinite(plane), plane, 0), np.isfinite(plane), LEAST_SQUARE)
        for plane in planes
    ]
    mean = np.mean(squares, axis=0)
    noise = 1.25 * np.median(noises) / np.sqrt(len(planes) * LEAST_SQUARE**2)
    rising = still_light(mean, hidden, float(noise))
    if rising is None:
        return None
    log.info("the sky rises towards a large source, %.3f: no sky", rising.max())
    maps = np.repeat(rising[None], len(planes), axis=0)
    return TargetLight(maps, INSEPARABLE, np.zeros(len(maps), bool), faint)
