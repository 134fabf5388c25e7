"""A stack from its frames to its products."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.files import atomic_path
from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs, wcs_cards
from lib.frame.file import read_header
from lib.frame.step import record_step
from lib.photometry.coaddpsf import psf_of_coadd, resolve_crowd
from lib.photometry.coaddzeropoint import Reference, ZeropointStars, coadd_zeropoint
from lib.photometry.confusion import Confusion
from lib.photometry.coverage import FrameCoverage
from lib.photometry.injection import CROWDED, confusion, crowding
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.sourcetable import (
    SourceFluxes,
    SourceMeasurements,
    map_hdus,
    measure_sources,
    significant,
    source_table,
)
from lib.photometry.zeropoint import Zeropoint
from lib.photometry.zeropointplot import plot_zeropoint
from lib.stack.combination import CombinedFrames, combination_of, combine_frames
from lib.stack.depth import detection_settings, measure_coadd
from lib.stack.framemeasurement import survey_frames
from lib.stack.frameselection import select_frames
from lib.stack.grid import Grid, common_grid
from lib.stack.header import (
    describe_coadd,
    flat_error,
    provenance_table,
    stack_header,
    weight_header,
)
from lib.stack.record import CoaddRecord, StackRecord, record_json
from lib.stack.reference import centring_error, find_reference
from lib.stack.stackframe import FrameCache, StackFrame
from lib.stack.weights import FlatCache

log = logging.getLogger("autoproc")


@dataclass(frozen=True)
class StackInputs:
    """The files from which a stack is made.

    Parameters
    ----------
    frames : sequence of path-like
        Solved frames (azsfp) of one target and filter.
    flats : sequence of path-like
        Master flats named by FLATFILE in the frames' headers; others are looked for beside the
        frames.
    grid_frames : sequence of path-like
        Frames whose footprints define the area of the coadd (all filters of the target); `frames`
        if empty.
    refcat : path-like, optional
        Reference table (ECSV), which may be empty.
    customcat : path-like, optional
        Custom catalogue; replaces the magnitudes of the reference in the bands of `customcatfilt`.
    customcatfilt : sequence of str
        Bands or filters of the custom catalogue.
    """

    frames: Sequence[str | Path]
    flats: Sequence[str | Path] = ()
    grid_frames: Sequence[str | Path] = ()
    refcat: str | Path | None = None
    customcat: str | Path | None = None
    customcatfilt: Sequence[str] = ()


@dataclass(frozen=True)
class StackProducts:
    """Paths of the products of a stack: coadd, weight map, source table, quality file, plot."""

    coadd: Path
    weight: Path
    cat: Path
    qa: Path
    plot: Path | None = None


def make_stack(
    inputs: StackInputs,
    products: StackProducts,
    settings: StackSettings,
    *,
    version: int = 1,
    threads: int = 1,
) -> StackRecord:
    """Stack the frames of one target and filter.

    Parameters
    ----------
    inputs : StackInputs
        Input files.
    products : StackProducts
        Files to write.
    settings : StackSettings
        Settings of the step.
    version : int
        Version of the step.
    threads : int
        Number of threads for the resampling.

    Returns
    -------
    StackRecord
        All that was measured on the stack and its frames.

    Raises
    ------
    lib.reference.referencetable.CatalogueError
        The custom catalogue cannot be used.
    """
    # A quarter of the memory caches frames until they are resampled.
    cache = FrameCache(1e6 * settings.memory / 4)
    frames = survey_frames(inputs.frames, settings, cache)
    band = str(frames[0].header.get("BAND", ""))
    reference = find_reference(
        inputs.refcat, inputs.customcat, inputs.customcatfilt, [frame.header for frame in frames]
    )
    used = select_frames(frames, reference.photometric, band, settings)
    settings = replace(settings, combine=combination_of(settings, len(used)))
    header = stack_header(frames, len(used))
    finish = partial(StackRecord, settings, version, band, reference, frames)
    if not used:
        reason = f"NO_FRAMES: 0 of {len(frames)} frames can be stacked"
        return write_rejected(products, header, finish("REJECTED", reason))
    grid = common_grid(grid_systems(inputs.grid_frames, used))
    flats = FlatCache(inputs.flats, used[0].path.parent)
    workdir = Path(products.coadd).resolve().parent
    combined = combine_frames(used, grid, settings, flats, cache, workdir, threads)
    if not combined.weight.any():
        reason = f"NO_WEIGHT: in no pixel, of {len(used)} frames"
        return write_rejected(products, header, finish("REJECTED", reason))
    coadd = measure_combined(combined, grid, settings)
    tied = any(str(frame.header.get("ASTRCAT", "NONE")) != "NONE" for frame in used)
    coadd, measured, significance, crowd = measure_all(coadd, settings)
    if measured is not None:
        stars = reference.stars if tied else None
        floor = centring_error(coadd, stars, measured.position_error, settings.match_radius)
        measured = replace(measured, position_error=np.hypot(measured.position_error, floor))
    zeropoint, zp_stars = measured_zeropoint(
        coadd, measured, crowd, reference.photometric, band, settings, tied
    )
    flags = describe_coadd(
        header, coadd, grid, combined.saturate, used, zeropoint, reference, settings
    )
    record_step(header, "stack", version, history_parameters(settings))
    used_stars = zp_stars.source[zeropoint.used] if zeropoint.known else None
    table = source_table(
        coadd, zeropoint, settings.apertures, used_stars, flat_error(used), measured
    )
    table = significant(table, settings.catalogue_snr, significance)
    write_products(products, header, combined, coadd, table, frames, crowd)
    numbers = CoaddRecord.of(coadd, header, flags, combined.saturate, len(table.data), zeropoint)
    record = finish("OK", header.get("QCREASON", ""), numbers)
    write_record(products.qa, record)
    if products.plot:
        title, shape = Path(products.coadd).stem, combined.image.shape
        plot_zeropoint(products.plot, title, zeropoint, zp_stars, shape)
    return record


def measured_zeropoint(
    coadd: MeasuredCoadd, measured: SourceMeasurements | None, crowd: Confusion | None,
    reference: Reference | None, band: str, settings: StackSettings, tied: bool,
) -> tuple[Zeropoint, ZeropointStars]:  # fmt: skip
    """Return the zero point of a coadd, crowded or not, and its stars.

    Parameters
    ----------
    coadd, measured, crowd
        From `measure_all`.
    reference, band, settings, tied
        As for `lib.photometry.coaddzeropoint.coadd_zeropoint`.
    """
    point = _crowd_fluxes(coadd, measured, crowd)
    zeropoint, stars = coadd_zeropoint(coadd, reference, band, settings, tied, point)
    if crowd is not None and point is not None and zeropoint.known:
        # Light of unresolved neighbours raises the fluxes of all stars alike.
        rows = stars.source[zeropoint.used]
        assert coadd.field is not None
        places = coadd.field.sources["x"][rows], coadd.field.sources["y"][rows]
        bias = crowd.bias_at(point.flux[rows], *places)
        zeropoint.error = float(np.hypot(zeropoint.error, 1.0857 * bias))
    return zeropoint, stars


def _crowd_fluxes(
    coadd: MeasuredCoadd, measured: SourceMeasurements | None, crowd: Confusion | None
) -> SourceFluxes | None:
    """Return the fluxes that a zero point of a crowded coadd rests on; None where it is none."""
    if measured is None:
        return None
    if coadd.psf is not None and crowding(coadd) >= CROWDED:
        # On the scale of the fits, whatever light of neighbours the apertures hold.
        return measured.psf
    return measured.point if crowd is not None else None


def measure_combined(
    combined: CombinedFrames, grid: Grid, settings: StackSettings
) -> MeasuredCoadd:
    """Measure background, sources and noise of combined frames."""
    return measure_coadd(
        combined.image, combined.weight, wcs=grid.wcs, scale=grid.scale, gain=combined.gain,
        saturate=combined.saturate * settings.saturation_fraction, settings=settings,
        coverage=combined.coverage,
    )  # fmt: skip


def measure_all(
    coadd: MeasuredCoadd, settings: StackSettings
) -> tuple[MeasuredCoadd, SourceMeasurements | None, np.ndarray, Confusion | None]:
    """Measure the sources of a coadd; in a crowded field their errors include confusion.

    Returns
    -------
    coadd : MeasuredCoadd
        With its point-spread function, and, where it is crowded, the stars found by its fits.
    measured : SourceMeasurements or None
        None where the coadd has no sources.
    significance : ndarray, shape (n,)
        S/N of the sources without confusion, which does not turn noise into a source.
    crowd : Confusion or None
        Confusion; None where the field is not crowded.
    """
    field = coadd.field
    if field is None:
        return replace(coadd, psf_reason="NO_SOURCES"), None, np.empty(0), None
    crowded = crowding(coadd) >= CROWDED
    total = field.core_flux / field.core.fraction if crowded else field.total
    psf, reason = psf_of_coadd(coadd, total, crowded)
    if psf is None:
        log.warning("no point-spread function, PSF columns stay empty: %s", reason)
    coadd = replace(coadd, psf=psf, psf_reason=reason)
    if crowded:
        field = resolve_crowd(coadd, field)
        coadd = replace(coadd, field=field)
    radii = [factor * field.fwhm for factor in settings.apertures]
    measured = measure_sources(coadd, field, radii, crowded)
    crowd = confusion(coadd, detection_settings(settings), settings.background_box, radii)
    with np.errstate(divide="ignore", invalid="ignore"):
        significance = measured.point.flux / measured.point.error
    return coadd, measured if crowd is None else crowd.widen(measured, field), significance, crowd


def grid_systems(paths: Sequence[str | Path], used: list[StackFrame]) -> list[WCS]:
    """Return the WCS of the frames that a coadd has to cover.

    Parameters
    ----------
    paths : sequence of path-like
        Frames; rejected ones are ignored.
    used : list of StackFrame
        The frames stacked, which define the area where there are no others.

    Returns
    -------
    list of astropy.wcs.WCS
    """
    headers = [read_header(path) for path in paths]
    good = [h for h in headers if h.get("NAXIS") == 2 and h.get("QCSTAT") != "REJECTED"]
    return [celestial_wcs(h) for h in good] or [frame.measurement.wcs for frame in used]


def history_parameters(settings: StackSettings) -> dict[str, object]:
    """Return the settings for the header's HISTORY, with sequences in YAML notation."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(settings).items()
        if key != "by"  # The frames are listed in STACKn.
    }


def write_products(
    products: StackProducts,
    header: fits.Header,
    combined: CombinedFrames,
    coadd: MeasuredCoadd,
    table: fits.BinTableHDU | None,
    frames: list[StackFrame],
    crowd: Confusion | None = None,
) -> None:
    """Write coadd, weight map and source table.

    The weights of `combined` are scaled to the calibrated noise in place.

    Parameters
    ----------
    products : StackProducts
        Files to write.
    header : astropy.io.fits.Header
        Header of the coadd.
    combined : CombinedFrames
        Combined frames.
    coadd : MeasuredCoadd
        The coadd as measured.
    table : astropy.io.fits.BinTableHDU, optional
        Source table.
    frames : list of StackFrame
        All frames, including those left out.
    crowd : Confusion, optional
        Confusion, where the field is crowded.
    """
    weight = combined.weight
    weight *= np.float32(coadd.noise.weight_factor)
    cover = coverage_hdu(combined.coverage, header)
    write_fits(products.weight, [fits.PrimaryHDU(weight, weight_header(header)), cover])
    cards = header.copy()
    for card in wcs_cards(header):
        del cards[card]
    more = [] if crowd is None else crowd.hdus()
    more += [] if coadd.psf is None else [coadd.psf.hdu()]
    tables = [] if table is None else [table]
    write_fits(products.cat, [fits.PrimaryHDU(header=cards), *tables, *map_hdus(coadd), *more])
    write_fits(products.coadd, [fits.PrimaryHDU(combined.image, header), provenance_table(frames)])


def coverage_hdu(coverage: FrameCoverage, header: fits.Header) -> fits.CompImageHDU:
    """Return an extension with the number of frames contributing to each pixel of a coadd."""
    number = coverage.number.astype(np.int16)
    cards = wcs_cards(header)
    cards["BUNIT"] = ("frames", "that count in a pixel")
    tile = (min(64, number.shape[0]), number.shape[1])
    return fits.CompImageHDU(
        number, cards, name="COVERAGE", compression_type="RICE_1", tile_shape=tile
    )


def write_rejected(
    products: StackProducts, header: fits.Header, record: StackRecord
) -> StackRecord:
    """Write the products of a rejected stack: headers without data."""
    header["QCSTAT"] = ("REJECTED", "fit for use: OK or REJECTED")
    header["QCSTEP"] = ("stack", "step that rejected it")
    header["QCREASON"] = record.reason
    for path in (products.weight, products.cat, products.coadd):
        write_fits(path, [fits.PrimaryHDU(header=header)])
    write_record(products.qa, record)
    if products.plot:
        zeropoint = Zeropoint(reason=record.reason.partition(":")[0])
        title = Path(products.coadd).stem
        plot_zeropoint(products.plot, title, zeropoint, ZeropointStars.none(), (1, 1))
    return record


def write_fits(path: str | Path, hdus: list) -> None:
    """Write a FITS file atomically, with CHECKSUM and DATASUM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # Long cards are truncated.
        with atomic_path(path) as beside:
            fits.HDUList(hdus).writeto(beside, checksum=True, overwrite=True)


def write_record(path: str | Path, record: StackRecord) -> None:
    """Write the quality measures of a stack and of its frames as JSON."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(record_json(record), indent=1), encoding="utf-8")
