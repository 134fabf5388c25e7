"""The page about the night: one file that shows what was made, what was left out and why.

Run by its rule at the end, and by itself after a run that did not come to its end::

    python scripts/night.py --imdir imredux
"""

import argparse
import base64
import datetime
import importlib.util
import json
import logging
import math
import os
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.frame.file import COSMIC, FrameRejected, read_frame
from lib.frame.fitsbytes import map_images, read_table
from lib.night.pointing import frame_centre
from lib.night.targets import parse_position, target_position
from lib.report import outcomes, pictures
from lib.report.outcomes import CHAIN, is_number, read_json, write_if_changed

log = logging.getLogger("autoproc")

TEMPLATES = Path(__file__).resolve().parent / "templates"

CARD_VERSION = 2
"""Raised when what is kept of a frame for the page changes."""


@dataclass
class Sizes:
    """How large pictures are [pixel], and when details move to files beside the page.

    Parameters
    ----------
    coadd, tile, frame, thumb, master : int
        Longest side of a coadd in full and on its tile, of a frame in full and in a list, of a
        master.
    quality : int
        Of the pictures of coadds, as WebP counts it.
    embed : float
        Details of frames [byte] up to which they are kept in the page.
    sources : int
        Sources of a coadd that are marked, the brightest.
    """

    coadd: int = 1400
    tile: int = 480
    frame: int = 320
    thumb: int = 56
    master: int = 140
    quality: int = 74
    embed: float = 8e6
    sources: int = 600


def sizes_for(frames, stacks):
    """Return the sizes that keep the page of a large night small."""
    sizes = Sizes()
    if stacks > 12:
        sizes.coadd, sizes.sources = 900, 300
    if stacks > 60:
        sizes.coadd, sizes.tile, sizes.sources = 400, 200, 60
        sizes.quality = 55
    if frames > 400:
        sizes.frame = 240
    if frames > 1500:
        sizes.thumb = 40
    return sizes


# --------------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------------


def frame_numbers(outcome, facts):
    """Return what the timeline and the table show of a science frame.

    Parameters
    ----------
    outcome : lib.report.outcomes.Outcome
    facts : dict
        Of the night log: exptime, pixscale, wcs, shape, airmass, ...

    Returns
    -------
    dict
        fwhm [arcsec], ellipticity, sky [electron/s/pixel], skymag [mag/arcsec^2], zeropoint,
        transparency, limit [mag], airmass, offset [arcsec], nstars, rms [mas], ncosmic. Only
        what is known.
    """
    numbers = outcomes.quality_numbers(outcome)
    cards, quality = outcome.facts, outcome.quality
    exptime = facts.get("exptime") or 0.0
    scale = cards.get("PIXSCALE") or facts.get("pixscale")
    found = {
        key: numbers[key]
        for key in ("fwhm", "ellipticity", "transparency", "nstars", "ncosmic")
        if key in numbers
    }
    airmass = facts.get("airmass")
    if is_number(airmass) and 1 <= airmass < 10:
        found["airmass"] = airmass
    if "sky" in numbers and exptime > 0:
        found["sky"] = numbers["sky"] / exptime
    absolute = quality.get("zeropoint_absolute")
    if absolute and "zeropoint" in numbers:
        found["zeropoint"] = zeropoint = numbers["zeropoint"]
        if found.get("sky", 0) > 0 and scale:
            found["skymag"] = zeropoint - 2.5 * math.log10(found["sky"] / scale**2)
        noise, width = quality.get("noise"), quality.get("fwhm")
        if is_number(noise) and is_number(width) and noise > 0 and exptime > 0:
            # 5 sigma in an aperture of 0.75 FWHM radius, which holds about 3/4 of a star.
            faintest = 5 * noise * math.sqrt(math.pi) * 0.75 * width / 0.75
            found["limit"] = zeropoint - 2.5 * math.log10(faintest / exptime)
    rms = [numbers[key] for key in ("astrms1", "astrms2") if key in numbers]
    if rms:
        found["rms"] = max(rms)
    offset = pointing_offset(cards, facts)
    if offset is not None:
        found["offset"] = offset
    return found


def pointing_offset(cards, facts):
    """Return how far a frame lies from where its raw header has it [arcsec], or None."""
    if cards.get("ASTRCAT", "NONE") == "NONE" or "CD1_1" not in cards or "CRPIX1" not in cards:
        return None
    claimed = frame_centre(facts)
    if claimed is None:
        return None
    shape = facts.get("shape") or (cards.get("NAXIS2", 0), cards.get("NAXIS1", 0))
    solved = frame_centre({"wcs": cards, "shape": shape})
    a, b = (np.radians(place) for place in (claimed, solved))
    haversine = (
        math.sin((a[1] - b[1]) / 2) ** 2
        + math.cos(a[1]) * math.cos(b[1]) * math.sin((a[0] - b[0]) / 2) ** 2
    )
    return math.degrees(2 * math.asin(math.sqrt(haversine))) * 3600


def read_logs(imdir, frame, most=6000):
    """Return what the steps wrote about a frame: {step: text}, the end of each."""
    texts = {}
    for step, _ in CHAIN:
        path = imdir / "logs" / step / f"{frame}.log"
        try:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            continue
        if text:
            texts[step] = text if len(text) <= most else "...\n" + text[-most:]
    return texts


def raw_picture(path, facts, size):
    """Return a picture of the raw frame, overscan subtracted, or why there is none."""
    from lib.calibration.detector import assemble

    small = quick_look(path, facts, size)
    if small is None:
        try:
            # What is burnt out is not shown, and takes long to tell.
            image, _, _ = assemble(path, facts | {"saturate": math.inf, "linear": None})
        except FrameRejected as why:
            return {"why": str(why)}
        small = pictures.block_mean(image, pictures.block_factor(image.shape, size))
    return {"src": pictures.encode(pictures.stretch(small), 75, "jpeg")}


def quick_look(path, facts, size):
    """Make a raw frame of one amplifier small before anything else is done to it.

    Parameters
    ----------
    path : path-like
    facts : dict
        Of the night log.
    size : int
        Most pixels on a side.

    Returns
    -------
    ndarray of float32, or None
        As stored but for zero point and scale, overscan subtracted. None for a frame of more
        amplifiers, and where the file is not what the night log saw.
    """
    from lib.calibration.detector import overscan_level, section

    if len(facts["amplifiers"]) != 1:
        return None
    (amplifier,) = facts["amplifiers"]
    try:
        how = {"memmap": True, "do_not_scale_image_data": True}
        with open(path, "rb") as file, fits.open(file, **how) as hdus:
            raw = np.squeeze(hdus[amplifier["hdu"]].data)
        pixels = raw[section(amplifier["data"])]
        if pixels.shape != tuple(facts["shape"]):
            return None
        factor = pictures.block_factor(pixels.shape, size)
        small = pictures.block_mean(pixels, factor)
        if amplifier.get("overscan"):
            level = overscan_level(raw, amplifier["overscan"], amplifier["data"])
            along = 0 if level.shape[0] > 1 else 1
            number = small.shape[along]
            level = level.ravel()[: number * factor].reshape(number, factor).mean(axis=1)
            small = small - np.expand_dims(level, 1 - along)
    except (OSError, EOFError, IndexError, TypeError, ValueError, zlib.error):
        return None
    flip_y, flip_x = amplifier.get("flip") or (False, False)
    return small[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def look_at(path):
    """Return header (list of lines), image and mask of a frame, the latter two as on disk.

    They are mapped: all that is wanted is to make them small. Both are None where the frame was
    rejected.
    """
    header, images = map_images(path)
    image = images.get("")
    mask = images.get("MASK")
    if image is not None and mask is None:
        mask = np.zeros(image.shape, np.uint8)
    return header, image, mask


def make_card(job):
    """Make what the page shows of one frame.

    Parameters
    ----------
    job : dict
        frame, raw (path), facts (night log), imdir, product, size, thumb.

    Returns
    -------
    dict
        pictures: list of {title, src or why}; thumb: data URI; header: list of lines; logs.
    """
    imdir, frame, size = Path(job["imdir"]), job["frame"], job["size"]
    views, thumb, header = [], "", []
    if job["raw"]:
        views.append({"title": "raw"} | raw_picture(job["raw"], job["facts"], size))
    flattened = imdir / f"fp{frame}.fits"
    if flattened.exists():
        _, image, _ = look_at(flattened)
        if image is not None:
            picture = pictures.frame_picture(image, size)
            views.append({"title": "flat-fielded", "src": picture})
        del image
    if job["product"]:
        header, image, mask = look_at(imdir / job["product"])
        if image is not None and not job["product"].startswith(("p", "fp")):
            valid = (mask & (pictures.BAD | pictures.NODATA)) == 0
            picture, thumb = pictures.covered_pictures(
                image, valid, (size, job["thumb"]), (75, 60), "jpeg"
            )
            views.append({"title": "sky-subtracted", "src": picture})
        if image is not None:
            number = np.count_nonzero(mask & COSMIC)
            views.append(
                {"title": f"mask ({number} px cosmic)", "src": pictures.mask_picture(mask, size)}
            )
    if not thumb:
        usable = [picture for picture in views if "src" in picture]
        thumb = usable[-1]["src"] if usable and job["size"] <= job["thumb"] else ""
    return {
        "pictures": views,
        "thumb": thumb,
        "header": header,
        "logs": read_logs(imdir, frame),
    }


def card_jobs(night, result, config, imdir, sizes):
    """Return the job of each science frame, and the stamp that tells whether it is still true."""
    jobs, stamps = {}, {}
    files = outcomes.list_files(imdir)
    rawdir = Path(config["datadir"])
    for frame in night.science:
        facts, outcome = night.frames[frame], result.frames[frame]
        raw = rawdir / facts["raw"]
        jobs[frame] = {
            "frame": frame, "raw": str(raw) if raw.exists() else "", "facts": facts,
            "imdir": str(imdir), "product": outcome.product, "size": sizes.frame,
            "thumb": sizes.thumb,
        }  # fmt: skip
        stamps[frame] = [
            CARD_VERSION, sizes.frame, sizes.thumb, outcome.product,
            *files.get(outcome.product, ()), *files.get(f"fp{frame}.fits", ()),
        ]  # fmt: skip
    return jobs, stamps


def make_cards(jobs, stamps, imdir, cores=1):
    """Make the cards of frames that have changed, and keep each in qa/frames/<frame>.js.

    Parameters
    ----------
    jobs, stamps : dict
        Of `card_jobs`.
    imdir : path-like
    cores : int

    Returns
    -------
    dict of str to dict
        Of each frame: stamp, thumb (data URI), size of its file [byte].
    """
    folder = Path(imdir) / "qa" / "frames"
    index_path = folder / "index.json"
    index = read_json(index_path)
    index = {frame: entry for frame, entry in index.items() if frame in jobs}
    there = outcomes.list_files(folder)
    todo = [
        frame
        for frame in jobs
        if index.get(frame, {}).get("stamp") != stamps[frame] or f"{frame}.js" not in there
    ]

    def keep(frame, card):
        thumb = card.pop("thumb")
        text = f"autoprocCard({json.dumps(frame)}, {script_json(card)});\n"
        write_if_changed(folder / f"{frame}.js", text)
        index[frame] = {"stamp": stamps[frame], "thumb": thumb, "size": len(text)}

    # Threads: numpy and Pillow work outside the interpreter's lock.
    with ThreadPoolExecutor(max(1, cores)) as pool:
        cards = pool.map(make_card, (jobs[frame] for frame in todo))
        for frame, card in zip(todo, cards, strict=True):
            keep(frame, card)
    for name in there:
        if name.endswith(".js") and name[:-3] not in jobs:
            (folder / name).unlink()
    write_if_changed(index_path, json.dumps(index))
    return index


# --------------------------------------------------------------------------------------------
# Stacks
# --------------------------------------------------------------------------------------------


def read_coadd(imdir, stack):
    """Return image and weight (as on disk) and source table of a coadd, None for what it lacks."""
    paths = [imdir / f"coadd{stack}{kind}.fits" for kind in ("", ".weight", ".cat")]
    image, weight = (map_images(path)[1].get("") if path.exists() else None for path in paths[:2])
    try:
        return image, weight, read_table(paths[2], "SOURCES")
    except (FileNotFoundError, KeyError):
        return image, weight, None


def mark_sources(sources, shape, most):
    """Return the brightest sources for the picture, as fractions of its sides.

    Returns
    -------
    list of list
        x, y (from the top), magnitude (or None), whether a star, whether of the zero point,
        number in the table. Those below 5 sigma, of which some are noise, are left out.
    """
    if sources is None or len(sources) == 0:
        return []
    names = sources.dtype.names
    if {"FLUX_POINT", "FLUXERR_POINT"} <= set(names):
        sources = sources[~(sources["FLUX_POINT"] < 5 * sources["FLUXERR_POINT"])]
    flux = np.asarray(sources["FLUX_AUTO"] if "FLUX_AUTO" in names else sources["X"], float)
    sources = sources[np.argsort(-np.nan_to_num(flux))[:most]]

    def column(name, missing):
        return sources[name].tolist() if name in names else [missing] * len(sources)

    marked = zip(
        (sources["X"] - 0.5) / shape[1], 1 - (sources["Y"] - 0.5) / shape[0],
        column("MAG_AUTO", None), column("STAR", False), column("ZP_STAR", False),
        sources["NUMBER"].tolist(), strict=True,
    )  # fmt: skip
    return [
        [rounded(x, 4), rounded(y, 4), rounded(magnitude, 2), int(star), int(zero), number]
        for x, y, magnitude, star, zero, number in marked
    ]


def rounded(value, digits):
    """Return a number for JSON: rounded, None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


def read_reference(path):
    """Return the reference table of a target as columns, or None where it has no rows."""
    from astropy.table import Table

    if not path.exists():
        return None
    table = Table.read(path, format="ascii.ecsv")
    return table if len(table) else None


def compare_reference(sources, reference, cards, band, radius=2.0, most=1500):
    """Compare a coadd's stars with the reference: what the zero point and positions rest on.

    Parameters
    ----------
    sources : numpy record array
        Source table of the coadd.
    reference : astropy.table.Table
    cards : dict
        Header of the coadd.
    band : str
    radius : float
        Arcsec.
    most : int

    Returns
    -------
    dict
        ``zeropoint``: list of [reference magnitude, reference - ours, used, x, y];
        ``positions``: list of [x, y, east, north] with the offsets [mas].
    """
    if sources is None or reference is None or not {"RA", "DEC"} <= set(sources.dtype.names):
        return {"zeropoint": [], "positions": []}
    from scipy.spatial import cKDTree

    ra, dec = np.asarray(sources["RA"], float), np.asarray(sources["DEC"], float)
    ra_ref, dec_ref = (np.ma.filled(np.ma.asarray(reference[k], float), np.nan)
                       for k in ("ra", "dec"))  # fmt: skip
    ra0, dec0 = cards.get("CRVAL1", np.median(ra)), cards.get("CRVAL2", np.median(dec))
    cosine = math.cos(math.radians(dec0))

    def plane(a, d):
        return np.column_stack(((((a - ra0 + 180) % 360) - 180) * cosine, d - dec0)) * 3600

    ours, theirs = plane(ra, dec), plane(ra_ref, dec_ref)
    known = np.flatnonzero(np.isfinite(theirs).all(axis=1))
    if ours.shape[0] == 0 or known.size == 0:
        return {"zeropoint": [], "positions": []}
    distance, nearest = cKDTree(theirs[known]).query(ours, distance_upper_bound=radius)
    hit = np.flatnonzero(np.isfinite(distance))
    flags = np.asarray(sources["FLAGS"]) if "FLAGS" in sources.dtype.names else None
    if flags is not None:
        clean = hit[(flags[hit] & ~1) == 0]
        hit = clean if clean.size else hit
    order = np.argsort(-np.asarray(sources["FLUX_POINT"], float)[hit])
    hit = hit[order][:most]
    row = known[nearest[hit]]
    offset = 1000 * (ours[hit] - theirs[row])
    x, y = sources["X"][hit], sources["Y"][hit]
    positions = [
        [rounded(a, 1), rounded(b, 1), rounded(e, 1), rounded(n, 1)]
        for a, b, (e, n) in zip(x, y, offset, strict=True)
    ]
    zeropoint = []
    if band and band in reference.colnames:
        magnitude = np.ma.filled(np.ma.asarray(reference[band], float), np.nan)[row]
        ours_mag = np.asarray(sources["MAG_POINT"], float)[hit]
        used = sources["ZP_STAR"][hit]
        for k in np.flatnonzero(np.isfinite(magnitude) & np.isfinite(ours_mag)):
            zeropoint.append(
                [rounded(magnitude[k], 3), rounded(magnitude[k] - ours_mag[k], 4), int(used[k]),
                 rounded(x[k], 1), rounded(y[k], 1)]
            )  # fmt: skip
    return {"zeropoint": zeropoint, "positions": positions}


def show_stack(stack, result, night_outcome, imdir, reference, sizes):
    """Make what the page shows of one stack.

    Returns
    -------
    dict
        Numbers (`lib.report.outcomes.stack_numbers`), tile, picture, weight (data URIs), sources,
        comparisons, size [pixel], frames.
    """
    shown = outcomes.stack_numbers(stack, result, night_outcome.frames)
    cards = result["cards"]
    quality = result["quality"]
    zeropoint = quality.get("zeropoint") if isinstance(quality.get("zeropoint"), dict) else {}
    shown |= {
        "flags": quality.get("flags", []), "tile": "", "picture": "", "weight": "", "sources": [],
        "zp": [], "positions_xy": [], "target_xy": None, "zpreason": zeropoint.get("reason", ""),
        "size": [cards.get("NAXIS1", 0), cards.get("NAXIS2", 0)],
        "colour": zeropoint.get("colour", ""), "colour_term": zeropoint.get("colour_term"),
        "colour_error": zeropoint.get("colour_term_error"),
        "members": [
            {
                "frame": frame,
                "used": night_outcome.frames[frame].used != "",
                "why": night_outcome.frames[frame].reason,
            }
            for frame in result["frames"]
        ],
    }  # fmt: skip
    image, weight, sources = read_coadd(imdir, stack)
    if image is None or image.ndim != 2:
        return shown
    valid = np.isfinite(image) if weight is None else weight > 0
    shown["picture"], shown["tile"] = pictures.covered_pictures(
        image, valid, (sizes.coadd, sizes.tile), (sizes.quality, sizes.quality)
    )
    if weight is not None:
        factor = pictures.block_factor(weight.shape, sizes.tile)
        small = pictures.block_mean(weight, factor)
        grey = (255 * small / max(float(small.max()), 1e-30)).astype(np.uint8)
        shown["weight"] = pictures.encode(grey, 60)
    shown["sources"] = mark_sources(sources, image.shape, sizes.sources)
    shown["nsources"] = 0 if sources is None else len(sources)
    compared = compare_reference(sources, reference, cards, cards.get("BAND", ""))
    shown["zp"], shown["positions_xy"] = compared["zeropoint"], compared["positions"]
    return shown


def target_place(cards, configured):
    """Return where a stack's target lies in its picture, as fractions, or None.

    Parameters
    ----------
    cards : mapping
        Of the coadd.
    configured : tuple of float, or None
        Config `target_radec`; otherwise the target is where the telescope was sent.
    """
    if "CD1_1" not in cards or cards.get("ASTRCAT", "NONE") == "NONE":
        return None
    ra, dec, source = target_position(configured, [cards])
    if not source:
        return None
    try:
        x, y = coadd_wcs(cards).all_world2pix(ra, dec, 0)
    except ValueError:
        return None
    place = [rounded((x + 0.5) / cards["NAXIS1"], 4), rounded(1 - (y + 0.5) / cards["NAXIS2"], 4)]
    inside = all(value is not None and 0 < value < 1 for value in place)
    return place if inside else None


def coadd_wcs(cards):
    """Return the celestial WCS in the cards kept of a coadd."""
    from astropy.wcs import WCS

    header = fits.Header()
    for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2",
                "CD2_1", "CD2_2"):  # fmt: skip
        if key in cards:
            header[key] = cards[key]
    return WCS(header, naxis=2)


def make_composites(stacks, imdir, sizes):
    """Make a colour picture of each target that has three filters or more.

    Parameters
    ----------
    stacks : dict of str to dict
        Cards of the coadds that were made.
    imdir : Path
    sizes : Sizes

    Returns
    -------
    dict of str to dict
        Of a target: picture (data URI), filters (red, green, blue).
    """
    targets = {}
    for stack, cards in stacks.items():
        target, filter_name = stack.split(".", 1)
        if "CD1_1" in cards and "NAXIS1" in cards:
            rank = pictures.colour_rank(filter_name, cards.get("BAND", ""))
            targets.setdefault(target, []).append((rank, filter_name, stack))
    made = {}
    for target, found in targets.items():
        if len(found) < 3:
            continue
        found = sorted(found)[:8]
        planes = on_one_grid([(stack, stacks[stack]) for _, _, stack in found], imdir, sizes)
        chosen = pictures.choose_three(planes)
        if chosen is None:
            continue
        blue, green, red = (planes[i] for i in chosen)
        window = pictures.crop_to(np.isfinite(blue + green + red))
        picture = pictures.composite(red[window], green[window], blue[window])
        made[target] = {
            "picture": pictures.encode(picture, 80),
            "filters": [found[i][1] for i in reversed(chosen)],
        }
    return made


def on_one_grid(chosen, imdir, sizes):
    """Return coadds of one target, made small and on the grid of the first, NaN where no data."""
    (_, first), *_ = chosen
    shape = (first["NAXIS2"], first["NAXIS1"])
    factor = pictures.block_factor(shape, sizes.coadd // 2)
    ny, nx = shape[0] // factor, shape[1] // factor
    y, x = (np.arange(n) * factor + (factor - 1) / 2 for n in (ny, nx))
    planes = []
    for stack, cards in chosen:
        image, weight, _ = read_coadd(imdir, stack)
        if image is None or image.ndim != 2:
            planes.append(np.full((ny, nx), np.nan, np.float32))
            continue
        valid = np.isfinite(image) if weight is None else weight > 0
        small, covered = pictures.reduce_covered(image, valid, factor)
        small[~covered] = np.nan
        column, row = (
            np.rint((place.ravel() - (factor - 1) / 2) / factor).astype(int)
            for place in between_grids(coadd_wcs(first), coadd_wcs(cards), x, y)
        )
        inside = (column >= 0) & (row >= 0) & (column < small.shape[1]) & (row < small.shape[0])
        plane = np.full(ny * nx, np.nan, np.float32)
        plane[inside] = small[row[inside], column[inside]]
        planes.append(plane.reshape(ny, nx))
    return planes


def between_grids(one, other, x, y, nodes=9, degree=3):
    """Return where the pixels of one image lie on another of the same sky.

    Two tangent planes differ by a shift, a turn and, over degrees, a little curvature: what a few
    places tell holds for all.

    Parameters
    ----------
    one, other : astropy.wcs.WCS
    x, y : ndarray, shapes (nx,), (ny,)
        Columns and rows on the first [pixel].

    Returns
    -------
    column, row : ndarray, shape (ny, nx)
    """
    from numpy.polynomial import chebyshev

    unit = [np.linspace(-1, 1, max(2, len(axis))) for axis in (x, y)]
    u, v = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(-1, 1, nodes)]))
    places = [
        0.5 * ((1 - w) * axis[0] + (1 + w) * axis[-1])
        for w, axis in zip((u, v), (x, y), strict=True)
    ]
    targets = other.all_world2pix(*one.all_pix2world(*places, 0), 0)
    base = chebyshev.chebvander2d(u, v, [degree, degree])
    fitted = np.linalg.lstsq(base, np.transpose(targets), rcond=None)[0]
    fitted = fitted.reshape(degree + 1, degree + 1, 2)
    on_grid = [w[: len(axis)] for w, axis in zip(unit, (x, y), strict=True)]
    return [chebyshev.chebgrid2d(*on_grid, fitted[..., k]).T for k in (0, 1)]


# --------------------------------------------------------------------------------------------
# Masters, and what made it all
# --------------------------------------------------------------------------------------------


def show_masters(result, imdir, sizes):
    """Make what the page shows of the masters.

    Returns
    -------
    list of dict
        name, kind, status, reason, used, left (list of {frame, why}), noise, picture.
    """
    shown = []
    for name, facts in result.masters.items():
        picture = ""
        frame = read_frame(imdir / f"{name}.fits")
        if frame.image is not None:
            factor = pictures.block_factor(frame.image.shape, sizes.master)
            picture = pictures.encode(
                pictures.linear_grey(pictures.block_mean(frame.image, factor)), 60
            )
        numbers = [
            (words, outcomes.number(facts.get(key), digits, unit))
            for key, words, digits, unit in (
                ("RDNOISE1", "read noise", 2, " DN"),
                ("NOISE", "pixel scatter", 4, ""),
                ("NHOT", "hot pixels", 0, ""),
                ("NLOW", "pixels of low response", 0, ""),
                ("NFILLED", "pixels filled", 0, ""),
            )
            if is_number(facts.get(key))
        ]
        left = [dict(zip(("frame", "why"), text.split(" ", 1), strict=False))
                for text in facts.get("LEFT", ())]  # fmt: skip
        shown.append(
            {
                "name": name, "status": facts.get("QCSTAT", "OK"), "numbers": numbers,
                "reason": facts.get("QCREASON", ""), "used": len(facts.get("INPUT", ())),
                "inputs": facts.get("INPUT", []), "left": left, "picture": picture,
            }
        )  # fmt: skip
    return shown


def calibration_mismatches(night):
    """Return the science frames that lack a calibration they want, and why none fits.

    Returns
    -------
    list of dict
        frames, kind, reason, candidates (list of {name, why}); frames of one reason together.
    """
    found = {}
    for frame in night.science:
        for kind, note in night.match(frame)["notes"].items():
            found.setdefault((kind, note), []).append(frame)
    shown = []
    for (kind, note), frames in found.items():
        reason, *candidates = note.split("; ")
        named = [text.split(": ", 1) for text in candidates]
        shown.append(
            {
                "kind": kind, "frames": frames, "reason": reason,
                "candidates": [{"name": one[0], "why": one[-1] if len(one) > 1 else ""}
                               for one in named],
            }
        )  # fmt: skip
    return shown


def rule_durations(metadata, imdir):
    """Return how long the jobs of each rule took, from Snakemake's records.

    Parameters
    ----------
    metadata : path-like
        Folder ``.snakemake/metadata`` of the run: one JSON file for each output.
    imdir : path-like

    Returns
    -------
    list of dict
        rule, jobs, total, median, longest [s], begin and end [s since 1970], longest total first.
    """
    jobs = {}
    prefix = str(imdir).rstrip("/") + "/"
    for folder, _, names in os.walk(metadata):
        for name in names:
            record = read_json(Path(folder) / name)
            begin, end = record.get("starttime"), record.get("endtime")
            logs = record.get("log") or []
            if not (is_number(begin) and is_number(end) and record.get("rule")):
                continue
            if not logs or not str(logs[0]).startswith(prefix):
                continue
            # Each output has its record, with times of its own; the log is that of the job.
            job = (record["rule"], *map(str, logs))
            known = jobs.get(job, (begin, end))
            jobs[job] = (min(begin, known[0]), max(end, known[1]))
    rules = {}
    for (rule, *_), span in jobs.items():
        rules.setdefault(rule, []).append(span)
    shown = []
    for rule, spans in rules.items():
        seconds = [max(0.0, end - begin) for begin, end in spans]
        shown.append(
            {
                "rule": rule, "jobs": len(spans), "total": sum(seconds),
                "median": float(np.median(seconds)), "longest": max(seconds),
                "begin": min(begin for begin, _ in spans), "end": max(end for _, end in spans),
            }
        )  # fmt: skip
    return sorted(shown, key=lambda one: -one["total"])


PEAK = re.compile(r"peak memory (\d+(?:\.\d+)?) MB")


def peak_memory(imdir):
    """Return the most memory that a job of each rule took [MB], where its log says so."""
    peaks = {}
    for folder in sorted((Path(imdir) / "logs").glob("*")):
        for path in folder.glob("*.log"):
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - 400))
                found = PEAK.findall(file.read().decode("utf-8", "replace"))
            if found:
                peaks[folder.name] = max(peaks.get(folder.name, 0.0), float(found[-1]))
    return peaks


def program_versions():
    """Return name and version of the programs and packages that a run uses."""
    from lib.core.programs import ProgramMissing, find_program
    from lib.frame.step import software_versions

    found = {"Python": sys.version.split()[0]}
    for name in ("source-extractor", "scamp"):
        try:
            done = subprocess.run(
                [find_program(name), "-v"], capture_output=True, text=True, timeout=10, check=False
            )
            words = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
            found[name] = words.group() if words else "unknown"
        except ProgramMissing:
            found[name] = "absent"
        except (OSError, subprocess.TimeoutExpired):
            found[name] = "unknown"
    return found | software_versions(
        "snakemake", "numpy", "scipy", "numba", "astropy", "astroscrappy", "sep", "ccdproc",
        "plotly", "itables",
    )  # fmt: skip


# --------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------


def script_json(value):
    """Return a value as JSON that is safe inside a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def package_file(package, *parts):
    """Return the text of a file that an installed package ships, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise SystemExit(f"the page needs the Python package {package}: 'pip install {package}'")
    return Path(spec.origin).parent.joinpath(*parts).read_text(encoding="utf-8")


def libraries():
    """Return the scripts and styles that the page embeds: plotly.js and DataTables."""
    tables = package_file("itables", "html", "dt_bundle.js")
    return {
        "plotly": package_file("plotly", "package_data", "plotly.min.js"),
        "tables": base64.b64encode(tables.encode()).decode("ascii"),
        "tables_css": package_file("itables", "html", "dt_bundle.css"),
    }


TABLE_COLUMNS = (
    ("frame", "frame"), ("raw", "raw file"), ("type", "type"), ("target", "target"),
    ("filter", "filter"), ("camera", "camera"), ("exptime", "exposure s"), ("date_obs", "start"),
    ("status", "status"), ("step", "step"), ("reason", "reason"), ("used", "used in"),
    ("fwhm", 'seeing "'), ("ellipticity", "ellipticity"), ("skymag", "sky mag/arcsec²"),
    ("sky", "sky e/s"), ("zeropoint", "zero point"), ("transparency", "transparency"),
    ("limit", "limit"), ("nstars", "stars"), ("rms", "residual mas"), ("offset", 'offset "'),
    ("airmass", "airmass"), ("ncosmic", "cosmic px"),
)  # fmt: skip
DIGITS = {
    "exptime": 2, "fwhm": 2, "ellipticity": 2, "skymag": 2, "sky": 2, "zeropoint": 3,
    "transparency": 3, "limit": 2, "nstars": 0, "rms": 1, "offset": 1, "airmass": 3, "ncosmic": 0,
}  # fmt: skip


def table_rows(night, result):
    """Return the rows of the frame table, in the order of `TABLE_COLUMNS`."""
    rows = []
    for row, outcome in zip(night.rows, result.rows, strict=True):
        facts = night.frames.get(row["frame"], {}) if row["status"] == "OK" else {}
        numbers = frame_numbers(outcome, facts) if facts.get("type") == "object" else {}
        told = {
            "frame": outcome.frame, "status": outcome.status, "step": outcome.step,
            "reason": outcome.reason, "used": outcome.used,
        }  # fmt: skip
        if row.get("date_obs"):
            told["date_obs"] = row["date_obs"][:19].replace("T", " ")
        merged = {key: row.get(key) for key, _ in TABLE_COLUMNS} | told | numbers
        rows.append(
            [
                rounded(merged.get(key), DIGITS[key])
                if key in DIGITS and is_number(merged.get(key))
                else ("" if merged.get(key) is None else str(merged[key]))
                for key, _ in TABLE_COLUMNS
            ]
        )
    return rows


def show_left_out(night, result):
    """Return the frames left out, in words, with the line that excludes each.

    Returns
    -------
    list of dict
        frame, raw, target, filter, step, code, words, numbers, status, science.
    """
    raws = {row["frame"] or row["raw"]: row for row in night.rows}
    shown = []
    for one in result.left_out + result.ignored:
        row = raws.get(one.frame, {})
        code, _, numbers = one.reason.partition(":")
        shown.append(
            {
                "frame": one.frame, "raw": row.get("raw", ""), "target": row.get("target") or "",
                "filter": row.get("filter") or "", "type": row.get("type") or "",
                "step": one.step, "code": code.strip(), "numbers": numbers.strip(),
                "words": outcomes.in_words(code.strip()), "status": one.status,
                "card": one.frame in night.frames and row.get("type") == "object",
            }
        )  # fmt: skip
    return shown


def gather(night, result, config, imdir, cores=1):
    """Collect all that the page shows.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    result : lib.report.outcomes.NightOutcome
    config : dict
    imdir : Path
    cores : int

    Returns
    -------
    dict
        Variables of the template.
    """
    sizes = sizes_for(len(night.science), len(night.stacks))
    jobs, stamps = card_jobs(night, result, config, imdir, sizes)
    index = make_cards(jobs, stamps, imdir, cores)

    targets = sorted({stack.split(".")[0] for stack in result.stacks})
    references = {one: read_reference(imdir / "refcat" / f"{one}.ecsv") for one in targets}

    configured = parse_position(config.get("target_radec"))

    def one_stack(stack):
        entry = result.stacks[stack]
        reference = references[stack.split(".")[0]]
        shown = show_stack(stack, entry, result, imdir, reference, sizes)
        shown["target_xy"] = target_place(entry["cards"], configured)
        shown["rank"] = pictures.colour_rank(shown["filter"], shown["band"])
        return shown

    made = {stack: entry["cards"] for stack, entry in result.stacks.items() if entry["cards"]}
    with ThreadPoolExecutor(max(1, cores)) as pool:
        composites = pool.submit(make_composites, made, imdir, sizes)
        masters = pool.submit(show_masters, result, imdir, sizes)
        stacks = list(pool.map(one_stack, result.stacks))
    stacks.sort(key=lambda one: (one["target"], one["rank"], one["filter"]))

    timeline = []
    for frame in night.science:
        facts, outcome = night.frames[frame], result.frames[frame]
        numbers = {key: rounded(v, 4) for key, v in frame_numbers(outcome, facts).items()}
        timeline.append(
            {
                "frame": frame, "time": facts["date_obs"], "target": facts["target"],
                "filter": facts["filter"], "exptime": facts["exptime"], "camera": facts["camera"],
                "status": outcome.status, "step": outcome.step, "reason": outcome.reason,
                "words": outcomes.in_words(outcome.reason.partition(":")[0]),
                "used": outcome.used, "raw": facts["raw"], "airmass": facts.get("airmass"),
                "calibrations": {
                    kind: outcome.facts.get(f"{kind.upper()}FILE", "")
                    for kind in ("bias", "dark", "flat", "sky")
                },
                "thumb": index[frame]["thumb"],
            }
            | numbers
        )  # fmt: skip

    embedded = {}
    aside = sum(entry["size"] for entry in index.values()) > sizes.embed
    if not aside:
        for frame in night.science:
            text = (imdir / "qa" / "frames" / f"{frame}.js").read_text(encoding="utf-8")
            embedded[frame] = json.loads(text[text.index(", ") + 2 : text.rindex(");")])

    run = {"command": "", "cores": 0, "host": "", "workdir": ".", "begun": math.inf}
    run |= read_json(imdir / "qa" / "run.json")
    durations = rule_durations(Path(run["workdir"]) / ".snakemake" / "metadata", imdir)
    memory = peak_memory(imdir)
    for one in durations:
        one["memory"] = memory.get(one["rule"])
    dates = sorted(night.frames[frame]["date_obs"] for frame in night.science)
    instruments = sorted({facts["instrument"] for facts in night.frames.values()})
    return {
        "title": ", ".join(instruments) or "night",
        "begin": dates[0] if dates else "",
        "end": dates[-1] if dates else "",
        "imdir": str(imdir),
        "datadir": str(config["datadir"]),
        "now": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "stacks": stacks,
        "composites": composites.result(),
        "targets": targets,
        "left": show_left_out(night, result),
        "nfiles": len(night.rows),
        "nscience": len(night.science),
        "nused": sum(1 for frame in night.science if result.frames[frame].used),
        "nbad": len(result.left_out),
        "mismatches": calibration_mismatches(night),
        "masters": masters.result(),
        "remarks": list(getattr(night, "notes", [])),
        "durations": durations,
        "elapsed": max((one["end"] for one in durations), default=0.0) - run["begun"],
        "run": run,
        "versions": program_versions(),
        "config": config_text(config),
        "duration": outcomes.duration,
        "number": outcomes.number,
        "data": {
            "columns": [{"key": key, "title": title} for key, title in TABLE_COLUMNS],
            "rows": table_rows(night, result),
            "frames": timeline,
            "cards": embedded,
            "aside": "qa/frames/" if aside else "",
            "stacks": [{k: v for k, v in one.items() if k != "tile"} for one in stacks],
            "exclude": str(config.get("exclude") or "config/exclude.txt"),
        },
    }  # fmt: skip


def config_text(config):
    """Return the configuration of a run as YAML."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def render(variables):
    """Return the page.

    Parameters
    ----------
    variables : dict
        Of `gather`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("night.html")
    packed = {name: Markup(text) for name, text in libraries().items()}
    own = {
        name: Markup((TEMPLATES / f"night.{name}").read_text(encoding="utf-8"))
        for name in ("css", "js")
    }
    data = Markup(script_json(variables["data"]))
    return template.render(**(variables | {"data": data}), libraries=packed, **own)


def make_page(night, config, imdir, cores=1):
    """Find out what became of the night, bring frames.ecsv up to date and write the page.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    config : dict
    imdir : path-like
    cores : int

    Returns
    -------
    lib.report.outcomes.NightOutcome
    """
    imdir = Path(imdir)
    result = outcomes.collect(night, imdir)
    # The table first: the page, the rule's output, must not be older than what it tells of.
    outcomes.write_frames_table(night, result.rows, imdir / "frames.ecsv")
    page = render(gather(night, result, config, imdir, cores))
    write_if_changed(imdir / "night.html", page)
    os.utime(imdir / "night.html")
    write_if_changed(imdir / "qa" / "page.json", json.dumps({"of": outcomes.digest(result)}))
    return result


def open_log(config, imdir):
    """Return the night log of a run, from the headers kept when it began."""
    from lib.night.nightlog import scan

    exclude = Path(config["exclude"])
    if not exclude.exists():
        exclude = TEMPLATES.parents[1] / exclude
    night = scan(config["datadir"], config["instrument"], exclude, Path(imdir) / ".nightlog.json")
    night.add_masters(config["masters"])
    return night


def main(arguments=None):
    """Make the page of a reduction from what lies in its imdir."""
    import yaml

    parser = argparse.ArgumentParser(description="Make the page about a night.")
    parser.add_argument("--imdir", required=True, type=Path, help="directory of the products")
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args(arguments)
    with open(options.imdir / "qa" / "config.yaml", encoding="utf-8") as file:
        config = yaml.safe_load(file)
    make_page(open_log(config, options.imdir), config, options.imdir, options.cores)


if "snakemake" in globals():
    from lib.frame.step import start_log

    start_log(snakemake.log[0])
    make_page(
        open_log(snakemake.config, snakemake.params.imdir),
        snakemake.config,
        snakemake.params.imdir,
        snakemake.threads,
    )
elif __name__ == "__main__":
    main()
