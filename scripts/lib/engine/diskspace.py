"""Disk space needed by a run, from the shapes of its frames."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.core.pipeline import PIPELINE
from lib.night.nightlog import NightLog
from lib.night.plan import Plan

from .config import ConfigError

PIXEL = 5
"""[byte] Size of a pixel of a frame: float32 and mask."""

STACKED_PIXEL = 12
"""[byte] Size of a pixel of a frame in its coadd: image and weight, and the area added by
dithers."""

SKY_FRAMES = 5
"""Size of a master sky, including the images kept for frames without a sky of their own, in
frames."""


class DiskTooSmall(ConfigError):
    """A run that would fill the disk; it can be repeated once there is room."""

    exit_code = 1


def room_needed(night: NightLog, plan: Plan, config: Mapping[str, Any], cores: int) -> int:
    """Return how much a run will write in addition to the present content of `imdir` [byte].

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
    config : dict
        Checked by `lib.engine.config.check_config`.
    cores : int
        With `rmifiles`, this number of frames have the files of all steps on disk at once.
    """
    imdir = config["imdir"]
    there = set(os.listdir(imdir)) if os.path.isdir(imdir) else set()
    rules = [rule for rule in PIPELINE.frame_rules if rule not in plan.left_out]
    pixels = {frame: _pixels(night, frame) for frame in plan.stack_of}
    total = 0
    early = []
    for frame, count in pixels.items():
        *firsts, last = (f"{plan.prefix(rule)}{frame}.fits" not in there for rule in rules)
        total += PIXEL * count * last
        # With rmifiles the frames of early steps have been removed.
        early.append(PIXEL * count * sum(firsts) * (last or not config["rmifiles"]))
    total += sum(sorted(early, reverse=True)[: cores if config["rmifiles"] else None])
    for name, sky in plan.skies.items():
        if f"{name}.fits" not in there:
            total += SKY_FRAMES * PIXEL * max((pixels[one] for one in sky.frames), default=0)
    for stack, frames in plan.stacks.items():
        if f"coadd{stack}.fits" not in there:
            total += STACKED_PIXEL * max((pixels[one] for one in frames), default=0)
    return total


def _pixels(night: NightLog, frame: str) -> int:
    shape = night.frames[frame].shape
    return shape[0] * shape[1] if len(shape) == 2 else 0


def check_room(needed: int, imdir: str | os.PathLike[str]) -> int:
    """Check that there is enough free space for `imdir`; return the free space [byte].

    Parameters
    ----------
    needed : int
        Space needed [byte].
    imdir : path-like
        Directory of the products; it need not exist.

    Raises
    ------
    DiskTooSmall
        There is not enough space.
    """
    place = Path(imdir).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DiskTooSmall(
            f"imdir: the run needs {in_bytes(needed)} on disk and {imdir} has {in_bytes(free)} "
            "left: make room, name another imdir, or write rmifiles=True, which keeps the last "
            "frames only"
        )
    return free


def in_bytes(size: float) -> str:
    """Return a size in words, e.g. ``206 MB``."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999:
            return f"{size:.0f} {unit}" if size >= 10 else f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
