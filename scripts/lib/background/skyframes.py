"""The frames of a master sky: normalised by their levels, with the light of targets subtracted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.background.shapes import busier_shapes, frame_surfaces, outlying_shapes
from lib.background.sky import NOT_SKY, block_sky, sky_noise, surface
from lib.background.targetlight import TargetLight, find_light, may_hold_light
from lib.calibration.masters import Input, release
from lib.frame.file import Frame, read_frame

OPEN_BYTES = 128e6
"""Bytes of frames that stay open after they were first read."""

SkyInput = tuple[str | Path, fits.Header, Input]
"""Path of a frame, its header, and what is known of it as an input."""


class OpenFrames:
    """Reads frames, and keeps some of them open, as each is read several times.

    Parameters
    ----------
    shape : tuple of int
        Shape of a frame.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.most = OPEN_BYTES / (5 * np.prod(shape))
        self.frames: dict[str | Path, Frame] = {}

    def read(self, path: str | Path) -> Frame:
        """Return the frame of a file."""
        frame = self.frames.get(path) or read_frame(path, mapped=True)
        if len(self.frames) < self.most:
            self.frames[path] = frame
        return frame


@dataclass
class SkyFrames:
    """Frames of which a sky is made.

    Parameters
    ----------
    planes : sequence of ndarray of float32, each of shape (ny, nx)
        The frames divided by their levels, NaN in sources and defects.
    good : list of (path, header, Input)
    order : int
        Degree of the surface by which each frame's sky may differ.
    read : callable
        Returns the frame of a path; its arrays must not be changed.
    surfaces : ndarray, shape (n, rows, columns)
        Medians of the squares of each frame.
    tilts : list of ndarray
    left : ndarray, shape (n, rows, columns)
        Each frame's own surface, and what it leaves, see `lib.background.shapes.frame_surfaces`.
    light : TargetLight or None
        Light of the targets that was subtracted.
    """

    planes: np.ndarray
    good: list[SkyInput]
    order: int
    read: Callable[[str | Path], Frame]
    surfaces: np.ndarray
    tilts: list[np.ndarray]
    left: np.ndarray
    light: TargetLight | None = None

    @classmethod
    def normalised(
        cls,
        planes: np.ndarray,
        good: list[SkyInput],
        order: int,
        read: Callable[[str | Path], Frame],
    ) -> "SkyFrames":
        """Divide frames by their sky levels, into `planes`."""
        blocks = []
        for plane, (path, _, one) in zip(planes, good, strict=True):
            frame = read(path)
            np.divide(frame.image, np.float32(one.level), out=plane)
            free = frame.mask & NOT_SKY == 0
            blocks.append(block_sky(plane, free, every=3))
            plane[~free] = np.nan
            release(planes)
        surfaces = np.array(blocks)
        tilts, left = frame_surfaces(surfaces, order)
        return cls(planes, good, order, read, surfaces, tilts, left)

    @property
    def inputs(self) -> list[Input]:
        """Properties of each frame as an input."""
        return [one for _, _, one in self.good]

    @property
    def noises(self) -> list[float]:
        """Noise of a pixel of each frame, as a fraction of its level."""
        return [sky_noise(header) for _, header, _ in self.good]

    def leave_out_odd(self, least: int, busier: bool) -> None:
        """Leave out frames of odd shape, unless fewer than `least` would be left.

        Parameters
        ----------
        least : int
            Frames needed.
        busier : bool
            Only frames with more structure than the others are odd.
        """
        odd = outlying_shapes(self.left, self.noises)
        if busier:
            odd = odd * busier_shapes(self.surfaces)
        kept = np.flatnonzero(odd == 0).tolist()
        if not least <= len(kept) < len(self.good):
            return
        for one, rms in zip(self.inputs, odd, strict=True):
            if rms:
                one.why = f"SKY_SHAPE: {rms:.2f} of its noise apart from its siblings"
        for to, n in enumerate(kept):
            self.planes[to] = self.planes[n]
        self.planes = self.planes[: len(kept)]
        self.good = [self.good[n] for n in kept]
        self.light = self.light.part(kept) if self.light else None
        self.fit_surfaces(self.surfaces[kept])

    def fit_surfaces(self, surfaces: np.ndarray) -> None:
        """Fit each frame's own surface to the medians of its squares."""
        self.surfaces = surfaces
        self.tilts, self.left = frame_surfaces(surfaces, self.order)

    def may_hold_light(self) -> bool:
        """Decide whether to search for light of the targets."""
        return may_hold_light(self.planes, self.left, self.noises)

    def subtract_light(self) -> None:
        """Subtract the light of the targets, if there is any."""
        self.light = find_light(self.planes, self.good, self.read)
        if self.light:
            self.fit_surfaces(self.light.subtract(self.planes, self.inputs))

    def divide_surfaces(self) -> None:
        """Divide each frame by its own surface, by which its sky differs from the others'."""
        for plane, tilt in zip(self.planes, self.tilts, strict=True):
            plane /= 1 + surface(tilt, plane.shape)
            release(self.planes)
