"""Which template a coadd is compared with: what the key ``template`` means for each stack."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lib.core.times import MJD_ZERO
from lib.night.plan import target_of
from lib.night.templates import OWN, SURVEYS, wanted_template

NO_NIGHT = "-"
"""No key of a night."""


def date_to_mjd(text: str | None) -> float:
    """Return a date, with or without a time, as MJD (UTC); infinite where there is none.

    Raises
    ------
    ValueError
        It is no date.
    """
    if not text:
        return math.inf
    when = datetime.fromisoformat(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return (when - MJD_ZERO) / timedelta(days=1)


def template_file(template: Any, stack: str, before: str | None = None) -> str:
    """Return the path of the file that is the template of a stack; empty where there is none.

    Parameters
    ----------
    template, stack
        As for `wanted_template`. Of a directory it is the deepest coadd of the target and filter
        in it, or in the folders of nights in it.
    before : str, optional
        Date before which a coadd of a directory must end.
    """
    wanted = wanted_template(template, stack)
    if not wanted or wanted == OWN or wanted in SURVEYS:
        return ""
    path = os.path.expanduser(wanted)
    if os.path.isdir(path):
        return deepest_coadd(Path(path), ".".join(stack.split(".")[:2]), before)
    return path if os.path.isfile(path) else ""


def deepest_coadd(folder: Path, name: str, before: str | None) -> str:
    """Return the coadd of most exposure time in an imdir; of several alike the newest.

    Parameters
    ----------
    folder : Path
    name : str
        ``<target>.<filter>``.
    before : str, optional
        Date before which it must end.
    """
    from lib.frame.file import read_header

    last = date_to_mjd(before)
    found = []
    for path in (*folder.glob(f"coadd{name}.fits"), *folder.glob(f"*/coadd{name}.fits"),
                 *folder.glob(f"coadd{name}.all.fits")):  # fmt: skip
        try:
            header = read_header(path)
        except OSError:
            continue
        end = header.get("MJD-END", math.inf)
        if header.get("QCSTAT") == "OK" and (end < last or last == math.inf):
            found.append((float(header.get("TOTALEXP", 0.0)), end, str(path)))
    return max(found)[2] if found else ""


def own_template(
    stack: str, frames: Sequence[str], nights: Mapping[str, Any], before: str | None
) -> str:
    """Return the night of this run whose coadd is the template of a stack: the deepest.

    Parameters
    ----------
    stack : str
    frames : sequence of str
        Its frames: no coadd that has one of them is its template.
    nights : dict of str to NightFiles
        Those of this run, by folder.
    before : str, optional
        Date before which the template must end; otherwise it ends before the stack begins.

    Returns
    -------
    str
        Key of `nights`; `NO_NIGHT` where there is none.
    """
    name = ".".join(stack.split(".")[:2])
    own = set(frames)
    starts = [
        night.night.frames[one].mjd
        for night in nights.values()
        for one in night.plan.stacks.get(name, ())
        if one in own
    ]
    last = date_to_mjd(before) if before else min(starts, default=math.inf)
    found = []
    for folder, night in nights.items():
        members = [night.night.frames[one] for one in night.plan.stacks.get(name, ())]
        if not members or own & {one.frame for one in members}:
            continue
        end = max(one.mjd + (one.exptime or 0) / 86400 for one in members)
        if end < last:
            found.append((sum(one.exptime or 0 for one in members), end, folder))
    return max(found)[2] if found else NO_NIGHT


def why_none(template: Any, stack: str, before: str | None) -> str:
    """Return in a sentence why a stack has no template."""
    wanted = wanted_template(template, stack)
    if not wanted:
        return f"template has no entry for {stack}"
    if wanted == OWN:
        limit = f"that ends before {before}" if before else "before its first frame"
        return f"no night of {target_of(stack)} in this filter {limit}"
    if os.path.isdir(os.path.expanduser(wanted)):
        limit = f" that ends before {before}" if before else ""
        return f"{wanted} has no coadd of {'.'.join(stack.split('.')[:2])}{limit}"
    return f"there is no file {wanted}"
