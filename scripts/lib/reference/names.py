"""Positions of objects by their names, from Sesame of the CDS, with a cache."""

import hashlib
import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.core.files import atomic_path
from lib.core.settings import ReferenceSettings
from lib.core.text import shown
from lib.reference.field import Field
from lib.reference.vizier import ReferenceUnavailable

log = logging.getLogger("autoproc")

ASTROPY = "astropy"
"""In the setting `name_servers`: the servers that astropy asks."""

LONGEST = 60
"""Characters of a name that is asked for."""

UNKNOWN = "Unable to find coordinates"
"""Begins what astropy says of a name that no database has."""


class NameUnknown(ValueError):
    """An object whose position cannot be had; the message says why."""


def place_by_name(
    sky_field: Field, name: str, cache: str | Path, settings: ReferenceSettings, *, offline: bool
) -> Field:
    """Return a field without a known centre, put where the object of its name is.

    Parameters
    ----------
    sky_field : Field
    name : str
        As headers have it.
    cache : path-like
        Directory of answers.
    settings : ReferenceSettings
        Servers, and the time that one has for an answer.
    offline : bool
        Whether only the cache is looked at.

    Raises
    ------
    NameUnknown
        The object has no name, no database has it, or no server may be asked.
    ReferenceUnavailable
        No server has answered.
    """
    ra, dec = resolve_name(name, cache, settings, offline=offline)
    log.warning("no frame tells where it points: looked for about %s, at %.4f %+.4f by its name",
                plain_name(name), ra, dec)  # fmt: skip
    return replace(sky_field, ra=round(ra, 5), dec=round(dec, 5))


def plain_name(name: str) -> str:
    """Return a name without what cannot be printed, and with single blanks."""
    return " ".join(re.sub(r"[^\x21-\x7e]+", " ", name).split())


def resolve_name(
    name: str, cache: str | Path, settings: ReferenceSettings, *, offline: bool = False
) -> tuple[float, float]:
    """Return ra and dec of an object [deg, ICRS]; see `place_by_name`."""
    name = plain_name(name)
    if not name or len(name) > LONGEST:
        raise NameUnknown("its name is no object's")
    path = Path(cache) / f"name-{hashlib.sha256(name.lower().encode()).hexdigest()[:20]}.json"
    known = _cached(path)
    if known is not None:
        return known
    if offline or not settings.name_servers:
        why = "refcat: offline" if offline else "name_servers: []"
        raise NameUnknown(f"{shown(name)} is not in the cache of names ({why})")
    ra, dec = _asked(name, settings)
    record = {"name": name, "ra": ra, "dec": dec,
              "date": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as beside:
            Path(beside).write_text(json.dumps(record), encoding="utf-8")
    except OSError as why:
        log.warning("%s: not kept in the cache: %s", shown(name), why)
    return ra, dec


def _asked(name: str, settings: ReferenceSettings) -> tuple[float, float]:
    """Return what the servers say, each asked once."""
    from astropy.coordinates.name_resolve import (
        NameResolveError,
        get_icrs_coordinates,
        sesame_url,
    )
    from astropy.utils.data import conf

    from lib.reference.session import TimeLimitReached, last_cause, time_limit

    own = [one if "://" in one else f"https://{one}/" for one in settings.name_servers
           if one != ASTROPY]  # fmt: skip
    urls = [*own, *(sesame_url.get() if ASTROPY in settings.name_servers else [])]
    limit = settings.timeout * len(urls) + 1
    try:
        with (
            sesame_url.set(urls), conf.set_temp("remote_timeout", settings.timeout),
            conf.set_temp("allow_internet", True), time_limit(limit),
        ):  # fmt: skip
            found: Any = get_icrs_coordinates(name)
    except NameResolveError as why:
        if UNKNOWN in str(why):
            raise NameUnknown(f"Simbad, NED and VizieR do not know {shown(name)}") from why
        said = str(why).splitlines()[-1].strip()
        raise ReferenceUnavailable(f"{shown(name)} by name: {said}") from why
    except (TimeLimitReached, OSError, ValueError) as why:
        raise ReferenceUnavailable(f"{shown(name)} by name: {last_cause(why)}") from why
    return float(found.ra.deg), float(found.dec.deg)


def _cached(path: Path) -> tuple[float, float] | None:
    """Return a position that was kept; None where there is none, or the file is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        ra, dec = float(record["ra"]), float(record["dec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (ra, dec) if 0 <= ra < 360 and abs(dec) <= 90 else None
