"""stack: the frames of one target and filter become one image with a zero point.

Each frame is measured (seeing, shape, stars), tied to the others by the stars they share, and left
out with a number where it is no good. The rest are resampled, compared with each other and
combined. The coadd's weight map is brought to the noise of empty apertures, its zero point fitted,
its sources listed.
"""

import json
import logging
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.files import atomic_path
from lib.core.sphere import mean_position, separation
from lib.core.wcs import celestial_wcs, frame_outline, wcs_cards
from lib.frame.file import FrameRejected, read_frame, read_header
from lib.photometry.sourcetable import map_hdus, significant, source_table
from lib.photometry.zeropoint import Zeropoint
from lib.photometry.zeropointplot import plot_zeropoint
from lib.reference.catalogues import CatalogueError
from lib.stack.aligned import AlignedFrame, combine_aligned, mask_outliers
from lib.stack.calibrate import calibrate_weight, coadd_zeropoint
from lib.stack.coadd import (
    common_grid,
    effective_gain,
    frame_variance,
    frame_weight,
    median_penalty,
    resting_on,
)
from lib.stack.frameselection import (
    flux_scales,
    judge_frames,
    low_weight,
    measure_frame,
    tie_frames,
)
from lib.stack.header import (
    airmass_cards,
    flag_stack,
    limit_cards,
    outlier_cards,
    pointing_cards,
    position_cards,
    provenance_table,
    shape_cards,
    time_cards,
    zeropoint_cards,
)
from lib.stack.reference import FlatCache, find_reference
from lib.stack.resample import resample

log = logging.getLogger("autoproc")

DEFAULTS = {
    "combine": "median",
    "grid": "stack",
    "outliers": True,
    "min_frames": 3,
    "min_transparency": 0.1,
    "max_ellipticity": 0.4,
    "max_seeing": 0.0,
    "min_stars": 3,
    "max_scatter": 0.3,
    "min_weight": 0.1,
    "max_offset": 1.0,
    "detect_sigma": 3.0,
    "catalogue_sigma": 1.5,
    "catalogue_snr": 3.0,
    "table_snr": 5.0,
    "min_area": 5,
    "star_snr": 20.0,
    "aperture": 1.5,
    "apertures": [0.75, 1.0, 1.5, 2.0, 3.0],
    "background_box": 128,
    "saturation_fraction": 0.9,
    "match_radius": 1.5,
    "colour_term": "auto",
    "colour_min_stars": 12,
    "colour_min_spread": 0.1,
    "spatial_term": "auto",
    "zeropoint_min_stars": 3,
    "zeropoint_snr": 10.0,
    "clip_sigma": 4.0,
    "clip_fraction": 0.3,
    "memory": 512,
}
"""Config section ``stack`` with its defaults; docs/stack.md says what each does."""


def plain(value):
    """Return `value` fit for JSON: NaN as None, numpy numbers as Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def survey_frames(paths, settings):
    """Measure every frame of a stack.

    Returns
    -------
    list of dict
        One per frame: name, path, header, used (whether it still may be), reason, code and what
        `measure_frame` found; the frame itself as long as those kept take a quarter of `memory`.
    """
    records = []
    room = 1e6 * settings["memory"] / 4
    for path in paths:
        frame = read_frame(path)
        header = frame.header
        name = str(header.get("FRAME", Path(path).stem))
        record = {"name": name, "path": str(path), "header": header, "used": True, "reason": ""}
        records.append(record)
        if frame.rejected or frame.image is None:
            record.update(used=False, reason=frame.reason or "no image", step=header.get("QCSTEP"))
            continue
        header["NAXIS1"], header["NAXIS2"] = frame.image.shape[1], frame.image.shape[0]
        try:
            record.update(measure_frame(frame.image, frame.mask, header, settings))
        except FrameRejected as why:
            leave_out(record, why)
            continue
        room -= frame.image.nbytes + frame.mask.nbytes
        if room > 0:
            record["frame"] = frame
    return records


def leave_out(record, why):
    """Mark a frame as left out of the stack."""
    record.update(used=False, reason=str(why), step="stack")
    log.warning("%s left out: %s", record["name"], why)


def select_frames(records, reference, band, settings):
    """Tie, judge and scale the frames; those unfit are marked in `records`.

    Returns
    -------
    list of dict
        The frames to stack, with transparency, scale, weight and zeropoint.
    """
    alive = [record for record in records if record["used"]]
    if not alive:
        return []
    outlines = [frame_outline(record["wcs"]) for record in alive]
    centres = np.array([mean_position(*outline.T) for outline in outlines])
    # From the frame nearest to the others, not from their mean: one astray must not move it.
    distances = np.array([separation(*centres.T, *centre) for centre in centres])
    offsets = distances[np.argmin(np.median(distances, axis=1))]
    for record, offset in zip(alive, offsets, strict=True):
        if not offset <= settings["max_offset"]:
            leave_out(
                record, FrameRejected("OFF_FIELD", f"{offset:.2f} > {settings['max_offset']:g} deg")
            )
    alive = [record for record in alive if record["used"]]
    zeropoint, scatter, number, group, absolute = tie_frames(alive, reference, band, settings)
    transparency, reasons = judge_frames(zeropoint, scatter, number, group, settings)
    for i, record in enumerate(alive):
        record.update(
            zeropoint=float(zeropoint[i]), scatter=float(scatter[i]), common=int(number[i]),
            transparency=float(transparency[i]), zeropoint_absolute=absolute,
        )  # fmt: skip
        if reasons[i] is not None:
            leave_out(record, reasons[i])
    alive = [record for record in alive if record["used"]]
    if not alive:
        return []
    while True:
        exposure = np.array([float(record["header"]["EXPTIME"]) for record in alive])
        _, scales = flux_scales(exposure, [record["transparency"] for record in alive])
        for record, scale in zip(alive, scales, strict=True):
            variance = frame_variance(record["header"])
            record["modelled"] = variance > 0
            # Without sky and read noise in the header the noise measured must do.
            record["variance"] = float(variance) if variance > 0 else record["noise"] ** 2
            record["noise_ratio"] = record["noise"] / np.sqrt(record["variance"])
            record["scale"] = float(scale)
            record["weight"] = float(1.0 / (scale**2 * record["variance"]))
        if settings["combine"] == "weighted":
            return alive
        weights = np.array([record["weight"] for record in alive])
        low = low_weight(weights, settings["min_weight"])
        if not low.any():
            return alive
        for i in np.flatnonzero(low):
            leave_out(
                alive[i],
                FrameRejected(
                    "LOW_WEIGHT", f"{weights[i] / weights.max():.3f} < {settings['min_weight']:g}"
                ),
            )
        alive = [record for record in alive if record["used"]]


def build_coadd(used, grid, settings, flats, workdir, threads):
    """Resample and combine the frames.

    Returns
    -------
    image, weight : ndarray of float32
    """

    # The first of them stay in memory, as far as they take half of it.
    held = int(1e6 * settings["memory"] / 2 / (8 * grid.nx * grid.ny))

    def align(number):
        record = used[number]
        frame = record.pop("frame", None) or read_frame(record["path"])
        header, wcs = frame.header, record["wcs"]
        variance = record["variance"]
        if record["modelled"]:
            flat = flats.get(header.get("FLATFILE", ""), frame.image.shape)
            variance = frame_variance(header, flat)
        weight, repaired = frame_weight(frame.mask, variance)
        image, weight, corner = resample(frame.image, weight, wcs, grid.wcs, record["scale"])
        aligned = AlignedFrame.keep(
            image, weight, corner,
            path=Path(workdir) / f"f{number + 1:05d}" if number >= held else None,
            gain=float(header.get("GAIN", 1.0)) / record["scale"],
            fwhm=record["seeing"] / grid.scale,
            noise=record["scale"] * float(np.sqrt(record["variance"])),
        )  # fmt: skip
        repaired &= np.isfinite(frame.image)
        if repaired.any():
            aligned.drop(*resting_on(repaired, wcs, grid))
        return aligned

    for header in (record["header"] for record in used if record["modelled"]):
        flats.get(header.get("FLATFILE", ""), (header["NAXIS2"], header["NAXIS1"]))
    with ThreadPoolExecutor(threads) as pool:
        aligned = list(pool.map(align, range(len(used))))
    if settings["outliers"] and len(used) >= 3:
        counts = mask_outliers(aligned, (grid.ny, grid.nx), 1e6 * settings["memory"])
        for record, (outliers, trails) in zip(used, counts, strict=True):
            record.update(outliers=outliers, trail=trails)
    image, weight = combine_aligned(
        aligned, (grid.ny, grid.nx), settings["combine"], 1e6 * settings["memory"],
        settings["clip_sigma"], settings["clip_fraction"],
    )  # fmt: skip
    bad = ~np.isfinite(image) | ~np.isfinite(weight)
    image[bad] = 0
    weight[bad] = 0
    return image, weight


@dataclass(frozen=True)
class Products:
    """Paths of what a stack writes."""

    coadd: Path
    weight: Path
    cat: Path
    qa: Path
    plot: Path | None = None


def run(
    frames, coadd_path, weight_path, cat_path, qa_path, *, refcat=None, flats=(), customcat=None,
    customcatfilt=(), grid_frames=(), plot_path=None, settings=None, version=1, threads=1,
):  # fmt: skip
    """Stack the frames of one target and filter.

    Parameters
    ----------
    frames : list of path-like
        azsfp frames.
    coadd_path, weight_path, cat_path, qa_path : path-like
        Outputs.
    refcat : path-like, optional
        Reference table (ECSV), which may be empty.
    flats : sequence of path-like
        Masters that header FLATFILE of the frames names; others are looked for beside the frames.
    customcat : path-like, optional
        Custom catalogue; used instead of the reference's magnitudes for bands in `customcatfilt`.
    customcatfilt : sequence of str
    grid_frames : sequence of path-like
        Frames whose footprint the coadd covers (all filters of the target); `frames` if empty.
    plot_path : path-like, optional
        Plot of the zero point.
    settings : dict
        Config section ``stack``; what is missing has the value of `DEFAULTS`.
    version : int
        Of the step.
    threads : int

    Raises
    ------
    lib.reference.catalogues.CatalogueError
        A custom catalogue that cannot be used.
    """
    settings = {**DEFAULTS, **(settings or {})}
    products = Products(coadd_path, weight_path, cat_path, qa_path, plot_path)
    records = survey_frames(frames, settings)
    first = records[0]["header"]
    band = str(first.get("BAND", ""))
    reference = find_reference(refcat, customcat, customcatfilt, records)
    used = select_frames(records, reference.photometric, band, settings)
    header = fits.Header()
    for key in ("INSTRUME", "CAMERA", "OBJECT", "TARGET", "FILTER", "BAND"):
        if key in first:
            header[key] = (first[key], first.comments[key])
    header["NSTACK"] = (len(used), "frames in the stack")
    header["NREJECT"] = (len(records) - len(used), "frames left out")
    summary = {
        "combine": settings["combine"], "band": band, "nframes": len(records), "nstack": len(used),
        "nreject": len(records) - len(used), "flags": [], "reference": reference.source,
        "reference_reason": reference.reason, "version": version,
    }  # fmt: skip
    if not used:
        reason = f"NO_FRAMES: 0 of {len(records)} frames can be stacked"
        write_rejected(products, header, summary, records, reason)
        return
    others = [read_header(path) for path in grid_frames]
    others = [h for h in others if h.get("NAXIS") == 2 and h.get("QCSTAT") != "REJECTED"]
    systems = [celestial_wcs(h) for h in others] or [record["wcs"] for record in used]
    grid = common_grid(systems)
    # Temporary files lie beside the product: there is room for it there.
    with tempfile.TemporaryDirectory(
        prefix=f".{os.getpid()}.stack-", dir=Path(coadd_path).resolve().parent
    ) as workdir:
        cache = FlatCache(flats, Path(used[0]["path"]).parent)
        image, weight = build_coadd(used, grid, settings, cache, workdir, threads)
    if not weight.any():
        reason = f"NO_WEIGHT: in no pixel, of {len(used)} frames"
        write_rejected(products, header, summary, records, reason)
        return

    headers = [record["header"] for record in used]
    scales = np.array([record["scale"] for record in used])
    gains = [float(h.get("GAIN", 1.0)) for h in headers]
    weights = [record["weight"] for record in used]
    gain = effective_gain(scales, gains, weights, settings["combine"])
    saturate = np.min([s * h.get("SATURATE", np.inf) for s, h in zip(scales, headers, strict=True)])
    coadd = calibrate_weight(
        image, weight, settings, float(saturate) * settings["saturation_fraction"], gain
    )
    weight *= np.float32(coadd["factor"])
    field = coadd["field"]
    sky = np.empty((0, 2))
    if field is not None:
        sky = np.column_stack(grid.wcs.all_pix2world(field.sources["x"], field.sources["y"], 0))
    zeropoint, stars = coadd_zeropoint(
        field, sky, reference.photometric, band, settings, gain, grid.scale
    )

    header.update(wcs_cards(grid.header()))
    header["BUNIT"] = "electron"
    cards = {
        **time_cards(headers),
        **airmass_cards(headers),
        **pointing_cards(headers),
        "COMBINET": (settings["combine"], "how the frames were combined"),
        "GAIN": (gain, "[electron] effective, per unit: noise^2 = flux / GAIN"),
        "PIXSCALE": (grid.scale, "[arcsec] per pixel"),
        **shape_cards(coadd, grid.scale),
        **zeropoint_cards(zeropoint, band, reference.photometric_source),
        **limit_cards(coadd, zeropoint, grid.scale),
        **position_cards(field, sky, reference, headers, settings["match_radius"]),
        **outlier_cards(used),
        "QCSTAT": ("OK", "fit for use: OK or REJECTED"),
    }
    if np.isfinite(saturate):
        cards["SATURATE"] = (float(saturate), "least saturation level of the frames, scaled")
    for number, record in enumerate(used, start=1):
        cards[f"STACK{number}"] = record["name"]
    for key, value in cards.items():
        header[key] = value
    flags = flag_stack(header, zeropoint, settings)
    words = " ".join(f"{key}={value}" for key, value in settings.items())
    header.add_history(f"autoproc stack v{version} {words}")

    table = source_table(coadd, grid.wcs, zeropoint, gain, grid.scale, settings)
    if zeropoint.known:
        table.data["ZP_STAR"][stars["source"][zeropoint.used]] = True
    table = significant(table, settings["catalogue_snr"])
    weight_header = wcs_cards(grid.header())
    weight_header["BUNIT"] = "electron-2"
    for key in ("CORRFAC", "CORRRAD", "CORRNAP", "WTSCALE", "NSTACK", "QCSTAT", "OBJECT", "FILTER"):
        if key in header:
            weight_header[key] = (header[key], header.comments[key])
    write_fits(weight_path, [fits.PrimaryHDU(weight, weight_header)])
    table_header = header.copy()
    for card in wcs_cards(header):
        del table_header[card]
    write_fits(cat_path, [fits.PrimaryHDU(header=table_header), table, *map_hdus(coadd)])
    write_fits(coadd_path, [fits.PrimaryHDU(image, header), provenance_table(records)])
    summary.update(
        status="OK", flags=flags, reason=header.get("QCREASON", ""),
        limmag=header.get("LIMMAG"), astrms=[header.get("ASTRMS1"), header.get("ASTRMS2")],
        astrnst=header.get("ASTRNST", 0), exptime=header["EXPTIME"], gain=gain,
        saturate=float(saturate), size=[grid.nx, grid.ny], scale=grid.scale,
        nsources=len(table.data), fwhm=header.get("SEEPIX"), seeing=header.get("SEEING"),
        ellipticity=header.get("ELLIPTIC"), aperture_correction_error=header.get("APCORERR"),
        growth_stars=header.get("APCORNST", 0), correlation=coadd["correlation"],
        weight_factor=coadd["factor"], noise_radii=coadd["radii"] * grid.scale,
        noise_ratios=coadd["ratios"], empty_apertures=coadd["apertures"],
        zeropoint={key: getattr(zeropoint, key) for key in (
            "value", "error", "scatter", "rms", "intrinsic", "n_stars", "n_matched", "colour",
            "colour_term", "colour_term_error", "colour_at", "reason")},
    )  # fmt: skip
    if zeropoint.spatial is not None:
        summary["zeropoint"]["spatial"] = asdict(zeropoint.spatial)
    summary["zeropoint"]["catalogue"] = header["ABSZPCAT"]
    if settings["combine"] == "median":
        summary["median_penalty"] = float(np.sqrt(median_penalty(len(used))))
    write_summary(qa_path, summary, records)
    if plot_path:
        plot_zeropoint(plot_path, Path(coadd_path).stem, zeropoint, stars, image.shape)


def write_rejected(products, header, summary, records, reason):
    """Write the products of a stack without an image: headers without data."""
    header["QCSTAT"] = ("REJECTED", "fit for use: OK or REJECTED")
    header["QCSTEP"] = ("stack", "step that rejected it")
    header["QCREASON"] = reason
    for path in (products.weight, products.cat, products.coadd):
        write_fits(path, [fits.PrimaryHDU(header=header)])
    summary.update(status="REJECTED", reason=header["QCREASON"])
    write_summary(products.qa, summary, records)
    if products.plot:
        nothing = Zeropoint(reason=reason.partition(":")[0])
        plot_zeropoint(products.plot, Path(products.coadd).stem, nothing, {}, (1, 1))


def write_fits(path, hdus):
    """Write a FITS file whole or not at all, with CHECKSUM and DATASUM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # long cards are cut
        with atomic_path(path) as beside:
            fits.HDUList(hdus).writeto(beside, checksum=True, overwrite=True)


def write_summary(path, summary, records):
    """Write the quality numbers of a stack and of its frames as JSON."""
    keys = (
        "used", "reason", "step", "fwhm", "seeing", "ellipticity", "nstars", "noise", "zeropoint",
        "zeropoint_absolute", "scatter", "common", "transparency", "scale", "weight", "noise_ratio",
        "aperture", "fraction", "wings", "outliers", "trail",
    )  # fmt: skip
    summary["frames"] = {
        record["name"]: {key: record[key] for key in keys if key in record} for record in records
    }
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(plain(summary), indent=1), encoding="utf-8")


def listed(value):
    """Return the paths of a named input, be it one, many or none."""
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


if "snakemake" in globals():
    import sys

    from lib.frame.step import start_log

    smk = snakemake
    start_log(smk.log[0] if smk.log else None)
    try:
        run(
            listed(smk.input.frames), smk.output.coadd, smk.output.weight, smk.output.cat,
            smk.output.qa, refcat=smk.input.get("refcat"),
            flats=listed(smk.input.get("flats")), customcat=smk.input.get("customcat"),
            customcatfilt=list(smk.params.get("customcatfilt", ())),
            grid_frames=listed(smk.input.get("grid")), plot_path=smk.output.get("plot"),
            settings=dict(smk.params.settings), version=smk.params.version, threads=smk.threads,
        )  # fmt: skip
    except CatalogueError as error:
        log.error("%s", error)
        sys.exit(str(error))
