"""Stacks that follow a moving object: frames shifted by its motion, stars masked."""

from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.settings import StackSettings
from lib.core.sphere import deproject, project
from lib.frame.file import FrameRejected
from lib.frame.step import record_step
from lib.night.positions import Position
from lib.photometry.backgroundmesh import grow
from lib.photometry.coaddzeropoint import Reference
from lib.photometry.frameforced import near_image
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.neighbours import MODEL_ERROR, MODELLED_SNR
from lib.photometry.zeropoint import Zeropoint
from lib.stack.coaddition import (
    StackInputs,
    StackProducts,
    history_parameters,
    measure_all,
    measure_combined,
    measured_zeropoint,
    write_products,
    write_record,
    write_rejected,
)
from lib.stack.combination import PassingStars, combination_of, combine_frames
from lib.stack.depth import measure_alike
from lib.stack.framemeasurement import survey_frames
from lib.stack.frameselection import select_frames
from lib.stack.grid import Grid, common_grid
from lib.stack.header import describe_coadd, describe_followed, stack_header
from lib.stack.movingplot import plot_followed
from lib.stack.record import CoaddRecord, StackRecord
from lib.stack.reference import StackReference, find_reference
from lib.stack.stackframe import FrameCache, StackFrame
from lib.stack.weights import FlatCache

TRACK_WIDTH = 1.5
"""[FWHM] Sources closer to the track of the object may be the object, and are not masked."""

LEAST_RADIUS, MOST_RADIUS = 1.0, 10.0
"""[FWHM] About stars on the track that gets no weight."""

WING_LIGHT = 0.5
"""[noise of a pixel of the ordinary coadd] Of their wings that stays."""

ITERATIONS = 4
"""Iterations of the shift of a frame: each squares the error due to the rotation of north."""


@dataclass(frozen=True)
class Still:
    """The ordinary coadd of the same frames, whose stars give profile and zero point.

    Parameters
    ----------
    grid : Grid
    coadd : MeasuredCoadd
    saturate : float
        Saturation level.
    zeropoint : Zeropoint
    """

    grid: Grid
    coadd: MeasuredCoadd
    saturate: float
    zeropoint: Zeropoint


def make_moving_stack(
    inputs: StackInputs, products: StackProducts, settings: StackSettings, position: Position,
    *, version: int = 1, threads: int = 1,
) -> StackRecord:  # fmt: skip
    """Stack the frames that contain a moving object in its frame of reference.

    The light of stars detected in the ordinary coadd of the same frames is taken away; their cores,
    and pixels in which the frames contradict each other, get no weight. Profile, aperture
    corrections and zero point are those of the ordinary coadd: the scale of a frame does not depend
    on its shift.

    Parameters
    ----------
    inputs : StackInputs
        Input files.
    products : StackProducts
        Files to write.
    settings : StackSettings
        Settings of the step.
    position : Position
        Ephemeris of the object.
    version : int
        Version of the step.
    threads : int

    Returns
    -------
    StackRecord
    """
    cache = FrameCache(1e6 * settings.memory / 4)
    frames = survey_frames(inputs.frames, settings, cache)
    leave_out_absent(frames, position)
    band = str(frames[0].header.get("BAND", ""))
    reference = find_reference(
        inputs.refcat, inputs.customcat, inputs.customcatfilt, [frame.header for frame in frames]
    )
    used = select_frames(frames, reference.photometric, band, settings)
    header = stack_header(frames, len(used))
    header["MOVNAME"] = (position.name, "what the stack follows")
    settings = replace(settings, combine=combination_of(settings, len(used)))
    finish = partial(StackRecord, settings, version, band, reference, frames)
    if not used:
        reason = f"NO_FRAMES: 0 of {len(frames)} frames can be stacked"
        return write_rejected(products, header, finish("REJECTED", reason))
    flats = FlatCache(inputs.flats, used[0].path.parent)
    workdir = Path(products.coadd).resolve().parent
    still = combine_still(used, reference, settings, (flats, cache, workdir, threads))
    if still is None:
        reason = f"NO_STARS: in {len(used)} frames"
        return write_rejected(products, header, finish("REJECTED", reason))
    moved, mjd = follow(used, position)
    grid = common_grid([frame.measurement.wcs for frame in moved])
    stars = passing_stars(still.coadd, position, mjd, used, reference.stars)
    combined = combine_frames(moved, grid, settings, flats, cache, workdir, threads, stars)
    coadd = measure_alike(combined.image, combined.weight, grid.wcs, still.coadd, settings)
    flags = describe_coadd(
        header, still.coadd, still.grid, still.saturate, used, still.zeropoint, reference, settings
    )
    describe_followed(header, coadd, grid, moved, still.zeropoint, (position, mjd))
    header["MOVLIGHT"] = (combined.light_beside, "light of stars taken out of the aperture")
    record_step(header, "stack", version, history_parameters(settings))
    write_products(products, header, combined, coadd, None, frames)
    numbers = CoaddRecord.of(coadd, header, flags, combined.saturate, 0, still.zeropoint)
    record = finish("OK", header.get("QCREASON", ""), numbers)
    write_record(products.qa, record)
    if products.plot:
        plot_followed(products.plot, Path(products.coadd).stem, coadd, still.coadd, header)
    return record


def middle_of(header: fits.Header) -> float:
    """Return the mid-exposure of a frame [MJD]."""
    return float(header["MJD-OBS"]) + float(header["EXPTIME"]) / 2 / 86400


def place_on(wcs: WCS, position: Position, mjd: float) -> tuple[float, float]:
    """Return the pixel position of an object at a time [MJD]; NaN where it is off the image."""
    ra, dec = position.at(mjd)
    nx, ny = wcs.pixel_shape
    corner = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    away = np.hypot(*project(ra, dec, *map(float, corner)).T)[0] / 3600
    if not away < np.hypot(nx, ny) * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))):
        return np.nan, np.nan
    x, y = (float(value[0]) for value in wcs.all_world2pix(ra, dec, 0, quiet=True))
    return (x, y) if -0.5 < x < nx - 0.5 and -0.5 < y < ny - 0.5 else (np.nan, np.nan)


def leave_out_absent(frames: list[StackFrame], position: Position) -> None:
    """Leave out the frames that do not contain the object."""
    for frame in frames:
        if not frame.used:
            continue
        if "MJD-OBS" not in frame.header:
            frame.leave_out(FrameRejected("NO_TIME"))
        elif np.isnan(place_on(frame.measurement.wcs, position, middle_of(frame.header))[0]):
            frame.leave_out(FrameRejected("OFF_FRAME", f"{position.name} is not on it"))


def combine_still(
    used: list[StackFrame], reference: StackReference, settings: StackSettings,
    means: tuple[FlatCache, FrameCache, Path, int],
) -> Still | None:  # fmt: skip
    """Return the ordinary coadd of some frames; None where it has no stars."""
    grid = common_grid([frame.measurement.wcs for frame in used])
    combined = combine_frames(used, grid, settings, *means)
    if not combined.weight.any():
        return None
    coadd = measure_combined(combined, grid, settings)
    if coadd.field is None:
        return None
    coadd, measured, _, crowd = measure_all(coadd, settings)
    tied = any(str(frame.header.get("ASTRCAT", "NONE")) != "NONE" for frame in used)
    band = str(used[0].header.get("BAND", ""))
    zeropoint, _ = measured_zeropoint(
        coadd, measured, crowd, reference.photometric, band, settings, tied
    )
    return Still(grid, coadd, combined.saturate, zeropoint)


def follow(used: list[StackFrame], position: Position) -> tuple[list[StackFrame], float]:
    """Return frames shifted such that the object stays at one position, and its epoch [MJD].

    The epoch is the mean of the mid-exposures, weighted by the frames' weights.
    """
    times = np.array([middle_of(frame.header) for frame in used])
    weights = np.array([frame.weighting.weight for frame in used])
    mjd = float(times[0] + np.average(times - times[0], weights=weights))
    ra, dec = (float(value[0]) for value in position.at(mjd))
    moved = []
    for frame, time in zip(used, times, strict=True):
        measured = frame.measurement
        pixel = place_on(measured.wcs, position, time)
        one = copy(frame)
        one.measured = replace(measured, wcs=shifted(measured.wcs, pixel, (ra, dec)))
        moved.append(one)
    return moved, mjd


def shifted(wcs: WCS, pixel: tuple[float, float], place: tuple[float, float]) -> WCS:
    """Return a WCS rotated on the sphere such that a pixel falls on a given position.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
    pixel : tuple of float
        x, y, 0-based.
    place : tuple of float
        ra, dec [deg].
    """
    turned = wcs.deepcopy()
    for _ in range(ITERATIONS):
        ra, dec = (float(value) for value in turned.all_pix2world(*pixel, 0))
        step = project([place[0]], [place[1]], ra, dec)
        crval = deproject(step, *turned.wcs.crval)
        turned.wcs.crval = [float(value[0]) for value in crval]
        turned.wcs.set()
    return turned


def passing_stars(
    coadd: MeasuredCoadd, position: Position, mjd: float, used: list[StackFrame],
    known: Reference | None,
) -> PassingStars:  # fmt: skip
    """Return the stars of an ordinary coadd, and the pixels that they cover.

    Sources that touch the object's track may be what it has left there: of these only what is
    near to a star of the reference counts. Else the object would be taken out of all frames.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With stars.
    position : Position
    mjd : float
        Time of the place to which the frames are shifted.
    used : list of StackFrame
    known : mapping of str to ndarray, or None
        Reference with ra, dec [deg].
    """
    assert coadd.field is not None
    segments, fwhm = coadd.field.segments, coadd.field.fwhm
    times = np.array([middle_of(frame.header) for frame in used])
    fine = np.linspace(times.min(), times.max(), 20 * len(times))
    track = grow(marked(coadd, *position.at(fine)), int(np.ceil(TRACK_WIDTH * fwhm)))
    touched = np.isin(segments, np.setdiff1d(segments[track], [0]))
    ra0, dec0 = (float(value[0]) for value in position.at(mjd))
    stars = (segments > 0) & ~touched
    column, row = (np.rint(coadd.field.sources[key]).astype(int) for key in ("x", "y"))
    alone = ~touched[row, column]
    if known is not None and touched.any():
        centres = grow(marked(coadd, known["ra"], known["dec"]), max(1, int(np.rint(0.5 * fwhm))))
        on_track = ~alone & centres[row, column]
        stars |= touched & star_discs(coadd, np.flatnonzero(on_track))
        alone |= on_track
    rows, columns = np.nonzero(stars)
    ra, dec = coadd.wcs.all_pix2world(columns, rows, 0)
    systems = {frame.path: frame.measurement.wcs for frame in used}
    alone &= coadd.field.snr > MODELLED_SNR
    x, y = (coadd.field.sources[key][alone] for key in ("x", "y"))
    places = np.column_stack(coadd.wcs.all_pix2world(x, y, 0))
    return PassingStars(
        np.asarray(ra, float), np.asarray(dec, float), systems, places, coadd.field.total[alone],
        (ra0, dec0), coadd.field.aperture,
    )  # fmt: skip


def star_discs(coadd: MeasuredCoadd, chosen: np.ndarray) -> np.ndarray:
    """Return discs about sources, as wide as what their models leave is above the noise.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With stars.
    chosen : ndarray of int
        Rows of the sources.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    field = coadd.field
    assert field is not None
    x, y = field.sources["x"], field.sources["y"]
    radius = np.arange(1, int(MOST_RADIUS * field.fwhm))
    density = field.star_aperture().wings.density(radius, 0.0)
    noise = float(np.sqrt(np.median(coadd.variance[coadd.covered])))
    rows, columns = np.indices(coadd.image.shape)
    discs = np.zeros(coadd.image.shape, bool)
    for k in chosen:
        lit = radius[MODEL_ERROR * field.total[k] * density > WING_LIGHT * noise]
        reach = max(LEAST_RADIUS * field.fwhm, float(lit.max(initial=0)))
        discs |= np.hypot(columns - x[k], rows - y[k]) < reach
    return discs


def marked(coadd: MeasuredCoadd, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the pixels of a coadd that contain one of some positions [deg], shape (ny, nx)."""
    shape = coadd.image.shape
    near = near_image(coadd.wcs, (shape[0], shape[1]), np.column_stack([ra, dec]))
    x, y = coadd.wcs.all_world2pix(ra[near], dec[near], 0, quiet=True)
    on = (x > -0.5) & (y > -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)
    pixels = np.zeros(shape, bool)
    pixels[np.rint(y[on]).astype(int), np.rint(x[on]).astype(int)] = True
    return pixels
