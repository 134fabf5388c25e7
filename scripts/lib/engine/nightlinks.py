"""Links to the stacks of several nights in one directory, under names that sort by night."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lib.night.campaign import Campaign
from lib.night.slices import parse_slice

ENDINGS = (".fits", ".weight.fits", ".cat.fits")
"""Endings of the products of a stack."""


def links(campaign: Campaign, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name in `imdir` of each link, and the file it points to.

    The names are ``coadd<target>.<filter>.n20220127.fits`` and the like; they exist where there are
    several nights, or ``stack.by`` asks for nights explicitly.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
    config : dict
        Checked by `lib.engine.config.check_config`.
    """
    asked = {parse_slice(word).kind for word in config["stack"]["by"]}
    if not asked & {"night", "auto"} or not (campaign.several or "night" in asked):
        return
    for folder, night in campaign.nights.items():
        for stack in night.plan.stacks if night.name else ():
            for end in ENDINGS:
                yield f"coadd{stack}.n{night.name}{end}", f"{folder}coadd{stack}{end}"


def link_nights(campaign: Campaign, config: Mapping[str, Any]) -> str:
    """Make the links to the stacks that are there, and remove those to what is not.

    Returns
    -------
    str
        What to say where some could not be made, as on a file system without links; else empty.
    """
    top = Path(config["imdir"])
    missing, why = 0, ""
    for name, target in links(campaign, config):
        link = top / name
        if link.exists() and not link.is_symlink():
            continue
        try:
            if link.is_symlink() and os.readlink(link) == target and link.exists():
                continue
            link.unlink(missing_ok=True)
            if (top / target).exists():
                link.symlink_to(target)
        except OSError as error:
            missing, why = missing + 1, error.strerror or str(error)
    if not missing:
        return ""
    return (
        f"{missing} links to stacks of nights could not be made in {top} ({why}): "
        "the stacks lie in the folders of their nights"
    )
