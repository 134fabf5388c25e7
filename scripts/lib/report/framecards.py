"""What the page shows of single frames: pictures, numbers, header, logs."""

import json
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.frame.file import COSMIC, FrameRejected
from lib.frame.fitsbytes import map_images
from lib.night.pointing import frame_centre
from lib.report import pictures
from lib.report.embed import script_json
from lib.report.numbers import is_number
from lib.report.outcomes import CHAIN, quality_numbers
from lib.report.products import list_files, read_json, write_if_changed

CARD_VERSION = 2
"""Raised when what is kept of a frame for the page changes."""


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
    numbers = quality_numbers(outcome)
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
    files = list_files(imdir)
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
    there = list_files(folder)
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
