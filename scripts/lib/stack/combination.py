"""From the frames of a stack to one image: weights, resampling, outliers, combination."""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from astropy.wcs import WCS

from lib.core.files import partial_path
from lib.core.settings import StackSettings
from lib.frame.file import exposure_of
from lib.photometry.coverage import FrameCoverage
from lib.photometry.fieldvariation import WIDE_RADIUS
from lib.photometry.neighbours import MODEL_REACH, StarModels
from lib.photometry.psf import Wings
from lib.photometry.sources import detection_arrays
from lib.stack.aligned import AlignedFrame, combine_aligned, mask_outliers
from lib.stack.grid import Grid, repaired_footprint
from lib.stack.resample import resample
from lib.stack.stackframe import FrameCache, FrameMeasurement, StackFrame
from lib.stack.weights import FlatCache, effective_gain, frame_variance, frame_weight

BYTES_PER_PIXEL = 8
"""[byte] Value and weight of a resampled pixel."""

MIN_FRAMES_FOR_OUTLIERS = 3
"""Of two frames that differ, neither is known to be right."""


def combination_of(
    settings: StackSettings, number: int
) -> Literal["median", "weighted", "clipped"]:
    """Return the method by which a number of frames is combined.

    The median of profiles of different widths is not linear in flux, and is shallower than the mean
    by 0.1 to 0.3 mag; but a mean needs its outliers removed first.

    Parameters
    ----------
    settings : StackSettings
        Settings of the step.
    number : int
        Number of frames.

    Returns
    -------
    {'median', 'weighted', 'clipped'}
    """
    if settings.combine != "auto":
        return settings.combine
    told = settings.outliers and number >= MIN_FRAMES_FOR_OUTLIERS
    return "weighted" if told else "median"


@dataclass(frozen=True)
class PassingStars:
    """The stars of frames that follow a moving object.

    Parameters
    ----------
    ra, dec : ndarray, shape (n,)
        Pixels covered by the stars [deg].
    systems : dict of Path to WCS
        WCS of each frame as solved from its stars.
    places : ndarray, shape (m, 2)
        ra, dec of the stars [deg].
    fluxes : ndarray, shape (m,)
        Their total fluxes, in units of the coadd.
    followed : tuple of float
        ra, dec [deg] at which the object is in all frames.
    radius : float
        Of its aperture [pixel].
    """

    ra: np.ndarray
    dec: np.ndarray
    systems: Mapping[Path, WCS]
    places: np.ndarray
    fluxes: np.ndarray
    followed: tuple[float, float]
    radius: float

    def light_beside(
        self, frames: Sequence[StackFrame], aligned: Sequence[AlignedFrame], grid: Grid
    ) -> float:
        """Return the light of stars that was taken out of the aperture of the object.

        As frames are combined, by their weights; without the pixels that have none.
        """
        x0, y0 = (float(value) for value in grid.wcs.all_world2pix(*self.followed, 0))
        half = int(np.ceil(self.radius))
        # What reaches beyond the edge of the grid has no weight.
        top, left = max(0, round(y0) - half), max(0, round(x0) - half)
        dy, dx = np.arange(top, round(y0) + half + 1), np.arange(left, round(x0) + half + 1)
        light, weights = np.zeros((2, dy.size, dx.size))
        for frame, one in zip(frames, aligned, strict=True):
            measured = frame.measurement
            x, y = self.systems[frame.path].all_world2pix(*self.places.T, 0, quiet=True)
            x, y = grid.wcs.all_world2pix(*measured.wcs.all_pix2world(x, y, 0), 0)
            size = grid.scale * measured.fwhm / measured.seeing  # pixels of the frame
            reach = MODEL_REACH * measured.aperture / size
            near = np.hypot(x - x0, y - y0) < reach + half
            part = np.zeros(light.shape)
            wings = Wings(*measured.wings)
            for k in np.flatnonzero(near):
                density = wings.density((dx - x[k]) * size, (dy[:, None] - y[k]) * size)
                part += self.fluxes[k] * size**2 * density
            (rows, columns), _, known = one.pixels(top, top + dy.size)
            weight = np.zeros((dy.size, grid.nx))
            weight[rows, columns] = known
            weight = weight[:, dx[0] : dx[-1] + 1]
            light[:, : weight.shape[1]] += weight * part[:, : weight.shape[1]]
            weights[:, : weight.shape[1]] += weight
        inside = np.hypot(dx - x0, dy[:, None] - y0) < self.radius
        return float(np.divide(light, weights, out=light, where=weights > 0)[inside].sum())

    def taken_from(self, image: np.ndarray, frame: StackFrame) -> np.ndarray:
        """Return a frame without the wings of the stars, by its own profile of a star."""
        x, y = self.systems[frame.path].all_world2pix(*self.places.T, 0, quiet=True)
        reach = MODEL_REACH * frame.measurement.aperture
        ny, nx = image.shape
        near = (x > -reach) & (y > -reach) & (x < nx + reach) & (y < ny + reach)
        models = StarModels(
            image, x[near], y[near], self.fluxes[near] / frame.weighting.scale,
            Wings(*frame.measurement.wings), frame.measurement.noise, frame.measurement.aperture,
        )  # fmt: skip
        return models.residual

    def pixels(self, followed: WCS, path: Path, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column on a grid of the stars of a frame whose WCS follows the object."""
        if not self.ra.size:
            return np.empty(0, int), np.empty(0, int)
        x, y = self.systems[path].all_world2pix(self.ra, self.dec, 0, quiet=True)
        column, row = grid.wcs.all_world2pix(*followed.all_pix2world(x, y, 0), 0)
        return np.rint(row).astype(int), np.rint(column).astype(int)


@dataclass(frozen=True)
class CombinedFrames:
    """The combined image of the frames of a stack, its background included.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Combined image and its weight, 0 where there is no data; the weight is known up to a factor.
    gain : float
        Electrons per unit: the photon variance of a flux F is F / gain.
    saturate : float
        Lowest saturation level of the scaled frames; infinite where unknown.
    coverage : FrameCoverage
        Which frames cover each position.
    light_beside : float
        Light of stars that was taken out of the aperture of an object that is followed.
    """

    image: np.ndarray
    weight: np.ndarray
    gain: float
    saturate: float
    coverage: FrameCoverage
    light_beside: float = 0.0


def combine_frames(
    frames: list[StackFrame],
    grid: Grid,
    settings: StackSettings,
    flats: FlatCache,
    cache: FrameCache,
    workdir: Path,
    threads: int = 1,
    passing: PassingStars | None = None,
) -> CombinedFrames:
    """Resample and combine the frames of a stack; outliers are recorded in `frames`.

    Parameters
    ----------
    frames : list of StackFrame
        Scaled frames, from `lib.stack.frameselection.select_frames`.
    grid : Grid
        Grid of the coadd.
    settings : StackSettings
        Settings of the step.
    flats : FlatCache
        Flats of the frames.
    cache : FrameCache
        Frames kept in memory.
    workdir : Path
        Folder for resampled frames that do not fit into `memory`: on the disk of the product, which
        must have room anyway.
    threads : int
        Number of threads.
    passing : PassingStars, optional
        For frames that follow a moving object: the stars, whose cores get no weight, and whose
        wings are taken away.

    Returns
    -------
    CombinedFrames
    """
    how = combination_of(settings, len(frames))
    shape, memory = (grid.ny, grid.nx), 1e6 * settings.memory
    # The first frames stay in memory, up to half of it.
    held = int(memory / 2 / (BYTES_PER_PIXEL * grid.nx * grid.ny))
    for frame in frames:  # read once, before the threads need them
        if frame.weighting.modelled:
            size = (frame.header["NAXIS2"], frame.header["NAXIS1"])
            flats.get(frame.header, size)
    with tempfile.TemporaryDirectory(prefix=partial_path("stack-").name, dir=workdir) as beside:
        paths = [
            Path(beside) / f"f{number:05d}" if number > held else None
            for number in range(1, len(frames) + 1)
        ]
        with ThreadPoolExecutor(threads) as pool:
            aligned = list(
                pool.map(
                    lambda frame, path: align_frame(frame, grid, flats, cache, path, passing),
                    frames,
                    paths,
                )
            )
        if passing is not None:
            for frame, one in zip(frames, aligned, strict=True):
                one.zero_weight(*passing.pixels(frame.measurement.wcs, frame.path, grid))
        if settings.outliers and len(frames) >= MIN_FRAMES_FOR_OUTLIERS:
            found = mask_outliers(aligned, shape, memory, spare_lasting=passing is None)
            for frame, counts in zip(frames, found, strict=True):
                frame.outliers = counts
        image, weight, number = combine_aligned(
            aligned, shape, how, memory, settings.clip_sigma, settings.clip_fraction
        )
        coverage = frame_coverage(frames, aligned, number, grid, how)
        light = 0.0 if passing is None else passing.light_beside(frames, aligned, grid)
    bad = ~np.isfinite(image) | ~np.isfinite(weight)
    image[bad] = 0
    weight[bad] = 0
    return CombinedFrames(
        image, weight, combined_gain(frames, how), combined_saturation(frames), coverage, light
    )


def frame_coverage(
    frames: list[StackFrame], aligned: list[AlignedFrame], number: np.ndarray, grid: Grid, how: str
) -> FrameCoverage:
    """Return which frames cover each position of a coadd, and the stellar profile of each frame.

    Parameters
    ----------
    frames : list of StackFrame
        Frames of the stack.
    aligned : list of AlignedFrame
        The same frames, resampled.
    number : ndarray of uint16, shape (ny, nx)
        Number of frames contributing to each pixel.
    grid : Grid
        Grid of the coadd.
    how : {'median', 'weighted', 'clipped'}
        Method of combination.

    Returns
    -------
    FrameCoverage
    """
    shape = (grid.ny, grid.nx)
    errors = [
        frame.zeropoint.scatter / 1.0857 / np.sqrt(max(frame.zeropoint.common, 1))
        for frame in frames
        if frame.zeropoint
    ]
    exposures = frames_of_exposure(frames)
    return FrameCoverage(
        number,
        np.array([one.footprint(shape) for one in aligned]),
        # In a median all values have the same weight.
        np.array([1.0 if how == "median" else frame.weighting.weight for frame in frames]),
        [partial(light_of_exposure, one, grid.scale) for one in exposures],
        np.nan_to_num(errors),
        np.array([np.hypot.reduce([m.growth.error for m in one]) / len(one) for one in exposures]),
    )


def frames_of_exposure(frames: list[StackFrame]) -> list[list[FrameMeasurement]]:
    """Return, for each frame, the measurements of all frames of the same exposure.

    Chips exposed together share the seeing, which the few stars of each would give differently.
    """
    keys = [exposure_of(one.header) or k for k, one in enumerate(frames)]
    return [
        [frame.measurement for frame, other in zip(frames, keys, strict=True) if other == key]
        for key in keys
    ]


def light_of_exposure(chips: list[FrameMeasurement], scale: float, radius: float) -> float:
    """Return the mean of `light_within` over the chips of an exposure."""
    return float(np.mean([light_within(one, scale, radius) for one in chips]))


def light_within(frame: FrameMeasurement, scale: float, radius: float) -> float:
    """Return the fraction of a star's light within a radius, relative to that within 3 FWHM.

    Parameters
    ----------
    frame : FrameMeasurement
        Measurement of the frame.
    scale : float
        Pixel scale of the grid [arcsec/pixel].
    radius : float
        Radius [pixel of the grid].
    """
    pixels = scale * frame.fwhm / frame.seeing
    whole = frame.growth.fraction(WIDE_RADIUS * frame.fwhm)
    return float(frame.growth.fraction(radius * pixels) / whole)


def align_frame(
    frame: StackFrame,
    grid: Grid,
    flats: FlatCache,
    cache: FrameCache,
    path: Path | None,
    passing: PassingStars | None = None,
) -> AlignedFrame:
    """Resample a frame and its weight map to the grid of the stack.

    Parameters
    ----------
    frame : StackFrame
        Scaled frame.
    grid : Grid
        Grid of the coadd.
    flats : FlatCache
        Flats of the frames.
    cache : FrameCache
        Frames kept in memory.
    path : Path, optional
        File for the resampled frame; without it the frame is kept in memory.
    passing : PassingStars, optional
        Stars whose light is taken away.

    Returns
    -------
    AlignedFrame
    """
    content = cache.take(frame.path)
    assert content.image is not None and content.mask is not None
    header, measured, scaling = content.header, frame.measurement, frame.weighting
    variance: float | np.ndarray = scaling.variance
    if scaling.modelled:
        flat = flats.get(header, content.image.shape)
        variance = frame_variance(header, flat)
    weight, repaired = frame_weight(content.mask, variance)
    # Pixels without weight are used where no other frame has weight either.
    image, _ = detection_arrays(content.image, content.mask, float(header.get("SATURATE", np.inf)))
    if passing is not None and passing.fluxes.size:
        image = passing.taken_from(image, frame)
    image, weight, corner = resample(image, weight, measured.wcs, grid.wcs, scaling.scale)
    aligned = AlignedFrame.store(
        image, weight, corner, path, gain=float(header.get("GAIN", 1.0)) / scaling.scale,
        fwhm=measured.seeing / grid.scale,
        noise=scaling.scale * float(np.sqrt(scaling.variance)),
    )  # fmt: skip
    repaired &= np.isfinite(content.image)
    if repaired.any():
        aligned.zero_weight(*repaired_footprint(repaired, measured.wcs, grid))
    return aligned


def combined_gain(frames: list[StackFrame], combine: str) -> float:
    """Return the electrons per unit of the combined frames."""
    scales = [frame.weighting.scale for frame in frames]
    gains = [float(frame.header.get("GAIN", 1.0)) for frame in frames]
    weights = [frame.weighting.weight for frame in frames]
    return effective_gain(scales, gains, weights, combine)


def combined_saturation(frames: list[StackFrame]) -> float:
    """Return the lowest saturation level of the scaled frames; infinite where unknown."""
    return float(
        min(frame.weighting.scale * frame.header.get("SATURATE", np.inf) for frame in frames)
    )
