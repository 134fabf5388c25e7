"""Settled nights of a campaign, which are not planned again.

A night is settled if its page was made from the same frames, masters, settings and code as now, and
all its products are as the last run left them. Its products are then files that no rule makes, so
that a new night costs only its own planning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord, stamp_of
from lib.core.settings import REFERENCE_SOURCES
from lib.night.campaign import MARKER, Campaign, Night
from lib.night.interpret import CALIBRATIONS

from .intact import Products, product_names
from .templates import template_file

PASSING = ("datadir", "recursive", "imdir", "quiet", "exclude", "masters", "max_age", "nights")
"""Keys of the configuration that matter only through the frames and masters they select."""

FORCES = re.compile(r"-[a-zA-Z]*[fFR].*|--(force|rerun|allowed|omit|unlock|touch|delete|batch).*")
"""Options of Snakemake with which any night may have to be planned."""


def key_of_code(home: Path) -> str:
    """Return a digest of the rules and of their scripts."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted([*home.glob("rules/*.smk"), *home.glob("scripts/*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def night_key(night: Night, config: Mapping[str, Any], contents: ContentRecord, code: str) -> str:
    """Return a digest of all that the products of a night depend on.

    Parameters
    ----------
    night : lib.night.campaign.Night
    config : dict
        Checked by `lib.engine.config.check_config`.
    contents : ContentRecord
        Identifiers of the contents of files.
    code : str
        Digest of the code, from `key_of_code`.
    """
    digest = hashlib.blake2b(code.encode(), digest_size=8)
    kept = {key: value for key, value in config.items() if key not in PASSING}
    kept["stack"] = {key: value for key, value in config["stack"].items() if key != "by"}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    known = config["difference"]["known"]
    paths = (config["refcat"], config["customcat"], config["targets"], known)
    tables = [path for path in paths if path]
    for stack in night.plan.stacks if night.plan.with_template else ():
        path = template_file(config["template"], stack, config["difference"]["before"])
        tables += [path] if path else []
    given = [path for path in tables if path not in REFERENCE_SOURCES]
    used: set[str] = set()
    for name, facts in night.log.frames.items():
        found = night.log.match(name)
        masters = [found.master(kind) for kind in CALIBRATIONS]
        used.update(one for one in masters if one in night.log.masters)
        told = facts.to_dict() | {"raw": Path(facts.raw).name}
        digest.update(json.dumps([name, told, masters, found.remarks]).encode())
    given += [night.log.masters[name] for name in sorted(used)]
    digest.update(json.dumps([contents.sum_of(path) for path in given]).encode())
    return digest.hexdigest()


def settle(campaign: Campaign, config: Mapping[str, Any], argv: Sequence[str], home: Path) -> None:
    """Determine the settled nights, and the digest of each night.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
        Its `keys` and `settled` are set.
    config : dict
        Checked by `lib.engine.config.check_config`.
    argv : sequence of str
        Command line of Snakemake; empty if all nights are to be planned.
    home : Path
        Directory of the workflow.
    """
    if not campaign.several:
        return
    contents, code = ContentRecord(config["imdir"]), key_of_code(home)
    campaign.keys = {
        folder: night_key(night, config, contents, code)
        for folder, night in campaign.nights.items()
    }
    if not argv or any(FORCES.fullmatch(word) for word in argv[1:]):
        return
    same: set[str] = set()
    for folder, night in campaign.nights.items():
        paths = [night.log.borrowed[one] for one in borrowed(night)]
        lenders = {path[: path.rfind("/") + 1] for path in paths}
        place = Path(config["imdir"], folder)
        if lenders <= same and is_settled(place, night, campaign.keys[folder]):
            same.add(folder)
    # The night in `imdir` itself is always planned: its files are in no folder of their own.
    campaign.settled = frozenset(same - {""})


def borrowed(night: Night) -> set[str]:
    """Return the masters of other nights that a night uses."""
    found: set[str | None] = set()
    for name in night.log.frames:
        match = night.log.match(name)
        found.update(match.master(kind) for kind in CALIBRATIONS)
    return {one for one in found if one in night.log.borrowed}


def is_settled(place: Path, night: Night, key: str) -> bool:
    """Return whether a night is complete, and its products are as they were left."""
    try:
        if (place / MARKER).read_text(encoding="utf-8") != key:
            return False
    except (OSError, UnicodeDecodeError):
        return False
    lasting, _ = product_names(night.log, night.plan)
    masters = {*night.log.biases, *night.log.darks, *night.log.flats}
    products = Products(place, lasting)
    if products.again:
        return False
    for name in lasting:
        known = products.whole.get(name)
        if known is None:
            if name.removesuffix(".fits") not in masters:
                return False
            continue
        try:
            if list(stamp_of(place / name)) != known:
                return False
        except OSError:
            return False
    return True
