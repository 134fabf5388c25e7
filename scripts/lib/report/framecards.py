"""Content of the page about single frames: pictures, quality measures, header, logs."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib.core.contents import sealed
from lib.core.rawfiles import raw_root
from lib.core.text import shown
from lib.frame.file import COSMIC, FrameRejected
from lib.frame.fitsbytes import map_images
from lib.night.facts import FrameFacts
from lib.night.nightlog import NightLog
from lib.night.pointing import frame_centre, image_centre
from lib.report import pictures
from lib.report.embed import script_json
from lib.report.numbers import is_number
from lib.report.outcomes import CHAIN, NightOutcome, Outcome, quality_numbers
from lib.report.products import Cards, list_files, read_sealed, write_if_changed
from lib.report.sizes import Sizes

CARD_VERSION = 3
"""Raised when what is kept of a frame for the page changes."""

QUALITY = 50
"""JPEG quality of the pictures of frames."""


@dataclass
class FrameNumbers:
    """Quality measures of a science frame for timeline and table; None where unknown.

    Parameters
    ----------
    fwhm, offset : float
        FWHM, and distance from the pointing in the raw header [arcsec].
    sky : float
        Sky brightness [electron/s/pixel].
    skymag : float
        Sky brightness [mag/arcsec^2].
    zeropoint, limit : float
        Magnitude of one electron per second, and 5 sigma limit for a point source.
    rms : float
        Rms of the astrometric residuals, in the axis with the larger one [mas].
    """

    fwhm: float | None = None
    ellipticity: float | None = None
    transparency: float | None = None
    nstars: float | None = None
    ncosmic: float | None = None
    airmass: float | None = None
    sky: float | None = None
    zeropoint: float | None = None
    skymag: float | None = None
    limit: float | None = None
    rms: float | None = None
    offset: float | None = None

    def known(self) -> dict[str, float]:
        """Return the known measures, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}


def frame_numbers(outcome: Outcome, facts: FrameFacts) -> FrameNumbers:
    """Return the quality measures of a science frame for timeline and table.

    Parameters
    ----------
    outcome : Outcome
    facts : FrameFacts
        Facts of the frame from the night log.
    """
    numbers = quality_numbers(outcome)
    cards, quality = outcome.cards, outcome.quality
    exptime = facts.exptime or 0.0
    scale = cards.get("PIXSCALE") or facts.pixscale
    found = FrameNumbers(
        numbers.get("fwhm"),
        numbers.get("ellipticity"),
        numbers.get("transparency"),
        numbers.get("nstars"),
        numbers.get("ncosmic"),
    )
    airmass = facts.airmass
    if is_number(airmass) and 1 <= airmass < 10:
        found.airmass = airmass
    if "sky" in numbers and exptime > 0:
        found.sky = numbers["sky"] / exptime
    if quality.get("zeropoint_absolute") and "zeropoint" in numbers:
        found.zeropoint = zeropoint = numbers["zeropoint"]
        if found.sky is not None and found.sky > 0 and scale:
            found.skymag = zeropoint - 2.5 * math.log10(found.sky / scale**2)
        noise, width = quality.get("noise"), quality.get("fwhm")
        if is_number(noise) and is_number(width) and noise > 0 and exptime > 0:
            # 5 sigma in an aperture of 0.75 FWHM radius, with about 3/4 of a star's light.
            faintest = 5 * noise * math.sqrt(math.pi) * 0.75 * width / 0.75
            found.limit = zeropoint - 2.5 * math.log10(faintest / exptime)
    rms = [numbers[key] for key in ("astrms1", "astrms2") if key in numbers]
    found.rms = max(rms) if rms else None
    found.offset = pointing_offset(cards, facts)
    return found


def pointing_offset(cards: Cards, facts: FrameFacts) -> float | None:
    """Return the distance of a frame from the position in its raw header [arcsec], or None."""
    if cards.get("ASTRCAT", "NONE") == "NONE" or "CD1_1" not in cards or "CRPIX1" not in cards:
        return None
    claimed = frame_centre(facts)
    if claimed is None:
        return None
    shape = facts.shape or (cards.get("NAXIS2", 0), cards.get("NAXIS1", 0))
    solved = image_centre(cards, shape)
    a, b = (np.radians(place) for place in (claimed, solved))
    haversine = (
        math.sin((a[1] - b[1]) / 2) ** 2
        + math.cos(a[1]) * math.cos(b[1]) * math.sin((a[0] - b[0]) / 2) ** 2
    )
    return math.degrees(2 * math.asin(math.sqrt(haversine))) * 3600


def read_logs(imdir: Path, frame: str, most: int = 6000) -> dict[str, str]:
    """Return the end of the log of each step for a frame: {step: text}."""
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


def raw_picture(path: str, facts: FrameFacts, size: int) -> dict[str, str]:
    """Return a picture of the raw frame, overscan-subtracted, or why there is none."""
    from lib.calibration.detector import assemble

    small = quick_look(path, facts, size)
    if small is None:
        try:
            # Saturation is not shown, and takes long to determine.
            ccd = assemble(path, replace(facts, saturate=math.inf, linear=None)).ccd
        except (FrameRejected, ChildProcessError) as why:
            return {"why": shown(why)}
        small = pictures.block_mean(ccd.data, pictures.block_factor(ccd.shape, size))
    return {"src": pictures.encode(pictures.stretch(small), QUALITY, "jpeg")}


def quick_look(path: str | Path, facts: FrameFacts, size: int) -> np.ndarray | None:
    """Return a raw frame of one amplifier, reduced in size.

    Parameters
    ----------
    path : path-like
    facts : FrameFacts
        Facts of the frame from the night log.
    size : int
        Maximum number of pixels on a side.

    Returns
    -------
    ndarray of float32, or None
        Overscan-subtracted values as stored, up to zero point and scale. None for frames of several
        amplifiers, and where the file is not as in the night log.
    """
    from lib.calibration.overscan import overscan_level, section
    from lib.calibration.rawpixels import map_raw

    if len(facts.amplifiers) != 1:
        return None
    (amplifier,) = facts.amplifiers
    try:
        raw = map_raw(path, amplifier.hdu)
        pixels = raw[section(amplifier.data)]
        if pixels.shape != tuple(facts.shape):
            return None
        factor = pictures.block_factor(pixels.shape, size)
        small = pictures.block_mean(pixels, factor)
        if amplifier.overscan:
            level = overscan_level(raw, amplifier.overscan, amplifier.data)
            along = 0 if level.shape[0] > 1 else 1
            number = small.shape[along]
            level = level.ravel()[: number * factor].reshape(number, factor).mean(axis=1)
            small = small - np.expand_dims(level, 1 - along)
    except (FrameRejected, ChildProcessError, IndexError, TypeError, ValueError):
        return None
    flip_y, flip_x = amplifier.flip or (False, False)
    return small[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def map_frame(
    path: str | Path,
) -> tuple[list[str], np.ndarray | None, np.ndarray | None]:
    """Return header (list of lines), image and mask of a frame, memory-mapped.

    Image and mask are None where the frame was rejected.
    """
    header, images = map_images(path)
    image = images.get("")
    mask = images.get("MASK")
    if image is not None and mask is None:
        mask = np.zeros(image.shape, np.uint8)
    return header, image, mask


@dataclass(frozen=True)
class CardJob:
    """The inputs for the card of one frame, and a stamp that shows whether the card is current.

    Parameters
    ----------
    frame : str
        Name of the frame.
    raw : str
        Path of the raw file; empty where it no longer exists.
    facts : FrameFacts
    imdir : Path
    product : str
        Name of the last file made from the frame.
    size, thumb : int
        Longest side of its pictures [pixel].
    stamp : list
        Versions and times of all inputs.
    """

    frame: str
    raw: str
    facts: FrameFacts
    imdir: Path
    product: str
    size: int
    thumb: int
    stamp: list[Any]


@dataclass
class FrameCard:
    """The details of a frame on the page.

    Parameters
    ----------
    pictures : list of dict
        ``title`` and ``src`` (data URI), or ``why`` there is none.
    thumb : str
        Thumbnail (data URI).
    header : list of str
        Lines of the header.
    logs : dict of str to str
        Log of each step.
    """

    pictures: list[dict[str, str]]
    thumb: str
    header: list[str]
    logs: dict[str, str]


def make_card(job: CardJob) -> FrameCard:
    """Make the details of a frame for the page."""
    imdir, frame, size = job.imdir, job.frame, job.size
    shown: list[dict[str, str]] = []
    thumb = ""
    header: list[str] = []
    if job.raw:
        shown.append({"title": "raw"} | raw_picture(job.raw, job.facts, size))
    flattened = imdir / f"fp{frame}.fits"
    if flattened.exists():
        _, image, _ = map_frame(flattened)
        if image is not None:
            picture = pictures.frame_picture(image, size, QUALITY)
            shown.append({"title": "flat-fielded", "src": picture})
        del image
    if job.product:
        header, image, mask = map_frame(imdir / job.product)
        if image is not None and mask is not None and not job.product.startswith(("p", "fp")):
            valid = (mask & (pictures.BAD | pictures.NODATA)) == 0
            picture, thumb = pictures.covered_pictures(
                image, valid, (size, job.thumb), (QUALITY, 50), "jpeg"
            )
            shown.append({"title": "sky-subtracted", "src": picture})
        if mask is not None:
            number = np.count_nonzero(mask & COSMIC)
            shown.append(
                {"title": f"mask ({number} px cosmic)", "src": pictures.mask_picture(mask, size)}
            )
    if not thumb:
        usable = [picture for picture in shown if "src" in picture]
        thumb = usable[-1]["src"] if usable and size <= job.thumb else ""
    return FrameCard(shown, thumb, header, read_logs(imdir, frame))


def card_jobs(
    night: NightLog, result: NightOutcome, config: dict[str, Any], imdir: Path, sizes: Sizes
) -> dict[str, CardJob]:
    """Return the job of each science frame."""
    jobs = {}
    files = list_files(imdir)
    rawdir = Path(raw_root(config))
    for frame in night.science:
        facts, product = night.frames[frame], result.frames[frame].product
        raw = rawdir / facts.raw
        stamp = [
            CARD_VERSION, sizes.frame, sizes.thumb, product,
            *files.get(product, ()), *files.get(f"fp{frame}.fits", ()),
        ]  # fmt: skip
        jobs[frame] = CardJob(
            frame,
            raw=str(raw) if raw.exists() else "",
            facts=facts,
            imdir=imdir,
            product=product,
            size=sizes.frame,
            thumb=sizes.thumb,
            stamp=stamp,
        )
    return jobs


@dataclass(frozen=True)
class CardEntry:
    """An entry of the index of cards: stamp, thumbnail (data URI), size [byte]."""

    stamp: list[Any]
    thumb: str
    size: int


def read_entry(content: Any) -> CardEntry | None:
    """Return an entry of the index of cards; None where it is malformed."""
    try:
        return CardEntry(list(content["stamp"]), str(content["thumb"]), int(content["size"]))
    except (KeyError, TypeError, ValueError):
        return None


def make_cards(jobs: dict[str, CardJob], imdir: str | Path, cores: int = 1) -> dict[str, CardEntry]:
    """Make the cards of changed frames, each in a file qa/frames/<frame>.js.

    Parameters
    ----------
    jobs : dict of str to CardJob
        Frame -> job.
    imdir : path-like
    cores : int
        Number of threads.

    Returns
    -------
    dict of str to CardEntry
        Frame -> entry of the index.
    """
    folder = Path(imdir) / "qa" / "frames"
    index_path = folder / "index.json"
    stored = {frame: read_entry(entry) for frame, entry in read_sealed(index_path).items()}
    index = {frame: entry for frame, entry in stored.items() if entry and frame in jobs}
    there = list_files(folder)
    todo = [
        job
        for frame, job in jobs.items()
        if f"{frame}.js" not in there or frame not in index or index[frame].stamp != job.stamp
    ]

    def keep(job: CardJob, card: FrameCard) -> None:
        content = asdict(card)
        del content["thumb"]
        text = f"autoprocCard({json.dumps(job.frame)}, {script_json(content)});\n"
        write_if_changed(folder / f"{job.frame}.js", text)
        index[job.frame] = CardEntry(job.stamp, card.thumb, len(text))

    # Threads: numpy and Pillow release the interpreter lock.
    with ThreadPoolExecutor(max(1, cores)) as pool:
        for job, card in zip(todo, pool.map(make_card, todo), strict=True):
            keep(job, card)
    for name in there:
        # Cards of removed frames; files not in the index are not ours.
        if name.endswith(".js") and name[:-3] in stored and name[:-3] not in jobs:
            (folder / name).unlink()
    write_if_changed(index_path, sealed({frame: asdict(one) for frame, one in index.items()}))
    return index
