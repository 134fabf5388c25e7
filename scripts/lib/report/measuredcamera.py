"""Properties of a new camera measured from raw frames: overscan, gain and read noise."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.calibration.detector import read_raw
from lib.calibration.photontransfer import PhotonTransfer, photon_transfer
from lib.core.rawfiles import SUFFIXES
from lib.frame.file import FrameRejected
from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import (
    evaluate,
    text,
)
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import merged_header
from lib.night.rawheaders import read_headers

DARK_PART = 0.05
"""Fraction of the level of a flat below which columns and rows at the edge are overscan."""


@dataclass
class RawFrame:
    """A frame as used by `new_instrument`.

    Parameters
    ----------
    path : Path
    header : mapping
        Header of the image, merged with the primary one.
    hdu : int
        Index of the first image.
    shape : list of int
        Rows and columns.
    images : int
        Number of images in the file.
    kind : str
        Assumed type, or empty.
    """

    path: Path
    header: Mapping[str, Any]
    hdu: int
    shape: list[int]
    images: int
    kind: str = ""


def read_frames(paths: Iterable[str | Path]) -> tuple[list[RawFrame], list[str]]:
    """Return the frames of files and folders, and one sentence per unreadable file.

    Parameters
    ----------
    paths : iterable of path-like
        Files and folders.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            names = sorted(os.listdir(path))
            files += [path / name for name in names if name.lower().endswith(SUFFIXES)]
        else:
            files.append(path)
    frames, failed = [], []
    for path in files:
        try:
            headers = read_headers(path)
            images = [hdu for hdu in headers.hdus if hdu.shape]
            if not images:
                raise FrameUnusable("NO_IMAGE", "no image in the file")
        except FrameUnusable as reason:
            failed.append(f"{path}: {reason}")
            continue
        first = images[0]
        header = merged_header(headers.primary, first.header) if first.index else headers.primary
        frames.append(RawFrame(path, header, first.index, first.shape or [], len(images)))
    return frames, failed


def dark_edges(frames: Sequence[RawFrame]) -> tuple[list[int], list[int] | None] | None:
    """Return the trim and overscan sections from the unilluminated columns or rows of a flat.

    None where there is no flat, or no bias for comparison. The four columns or rows next to the
    illuminated area, which have deferred charge, are left out of the overscan.
    """
    flats = [one for one in frames if one.kind == "flat"]
    biases = [one for one in frames if one.kind == "bias"]
    if not flats or not biases:
        return None
    images = [_pixels(one) for one in (flats[0], biases[0])]
    if images[0] is None or images[1] is None or images[0].shape != images[1].shape:
        return None
    light = images[0] - images[1]
    bounds = []
    for axis in (1, 0):
        profile = np.median(light, axis=axis)
        lit = np.flatnonzero(profile > DARK_PART * np.median(profile))
        if lit.size < 0.5 * profile.size:
            return None
        bounds += [int(lit[0]), int(lit[-1]) + 1]
    y0, y1, x0, x1 = bounds
    rows, columns = light.shape
    strips = {
        columns - x1: [y0, y1, x1 + 4, columns],
        x0: [y0, y1, 0, x0 - 4],
        rows - y1: [y1 + 4, rows, x0, x1],
        y0: [0, y0 - 4, x0, x1],
    }
    width = max(strips)
    return [y0, y1, x0, x1], strips[width] if width >= 8 else None


def _pixels(frame: RawFrame) -> np.ndarray | None:
    try:
        return read_raw(frame.path, {frame.hdu})[frame.hdu].astype(np.float32)
    except FrameRejected:
        return None


def measure_frames(frames: Sequence[RawFrame], trim: list[int] | None) -> PhotonTransfer:
    """Return gain and read noise, measured from the flats of one filter and the biases."""
    cut = slice(None), slice(None)
    if trim:
        cut = slice(trim[0], trim[1]), slice(trim[2], trim[3])
    generic = load_instrument("generic")
    by_filter: dict[str, list[RawFrame]] = {}
    for one in frames:
        if one.kind == "flat":
            name = text(evaluate(generic["filter"], one.header))
            by_filter.setdefault(name, []).append(one)
    flats = max(by_filter.values(), key=len, default=[])
    biases = [one for one in frames if one.kind == "bias"]
    if len(biases) < 2:
        return photon_transfer([], [])
    top = 52000 if frames[0].header.get("BITPIX") == 16 else np.inf
    lit = [image[cut] for one in flats[:8] if (image := _pixels(one)) is not None]
    dark = [image[cut] for one in biases[:8] if (image := _pixels(one)) is not None]
    return photon_transfer(lit, dark, top)
