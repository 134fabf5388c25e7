"""The command ``autoproc-refcat``: freeze the catalogues of fields, for a mountain without network.

autoproc-refcat --fields fields.txt --out refcat_cache
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.core.files import atomic_path
from lib.core.settings import ReferenceSettings
from lib.reference.surveys import GAIA, PHOTOMETRIC
from lib.reference.vizier import ROW_LIMIT, ReferenceUnavailable, Service

log = logging.getLogger("autoproc")


class NamedField(NamedTuple):
    """A field to freeze.

    Parameters
    ----------
    name : str
    ra, dec, radius : float
        Circle [deg].
    """

    name: str
    ra: float
    dec: float
    radius: float


def read_fields(path: str | Path) -> list[NamedField]:
    """Read the fields to freeze: lines (or CSV) of name, ra, dec, radius [deg].

    Raises
    ------
    ValueError
        Naming the line that is not of that form.
    """
    fields = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words or [word.lower() for word in words[1:3]] == ["ra", "dec"]:
            continue
        try:
            ra, dec, radius = map(float, words[1:4])
        except ValueError:
            raise ValueError(
                f"{path} line {number}: '{line}' is not: name ra dec radius (decimal degrees)"
            ) from None
        if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 5):
            raise ValueError(f"{path} line {number}: '{line}' is no circle of radius <= 5 deg")
        fields.append(NamedField(words[0], ra, dec, radius))
    return fields


def freeze(
    fields: Iterable[tuple[str, float, float, float]],
    out: str | Path,
    settings: ReferenceSettings | None = None,
    *,
    row_limit: int = ROW_LIMIT,
) -> list[str]:
    """Fill a cache with every catalogue's answer for each field.

    Parameters
    ----------
    fields : iterable of (name, ra, dec, radius)
    out : path-like
        Directory to be named as ``refcat_cache`` with ``refcat: offline``.
    settings : ReferenceSettings, optional
        Servers, and the time that an answer may take.
    row_limit : int
        See `lib.reference.vizier.Service`.

    Returns
    -------
    list of str
        One sentence per item that could not be retrieved.
    """
    settings = settings or ReferenceSettings()
    out = Path(out).expanduser()
    service = Service(out, tuple(settings.servers), settings.timeout, row_limit)
    wanted = dict.fromkeys((GAIA, *PHOTOMETRIC))
    missing, listing = [], []
    for name, ra, dec, radius in fields:
        for survey in wanted:
            if not survey.covers(dec, radius):
                continue
            try:
                table, record = service.get(survey, ra, dec, radius)
            except ReferenceUnavailable as why:
                missing.append(f"{name}: {why}")
                continue
            listing.append({"field": name, "stars": len(table)} | record)
    with atomic_path(out / "bundle.json") as beside:
        beside.write_text(json.dumps(listing, indent=1) + "\n")
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Freeze the catalogues of a list of fields; return the exit code."""
    import argparse

    defaults = ReferenceSettings()
    parser = argparse.ArgumentParser(
        prog="autoproc-refcat",
        description="Freeze the catalogues of a list of fields, for a mountain without network.",
    )
    parser.add_argument("--fields", required=True, help="lines of: name ra dec radius [deg]")
    parser.add_argument("--out", required=True, help="directory to fill (refcat_cache)")
    parser.add_argument("--server", action="append", help="VizieR host, may be repeated")
    parser.add_argument(
        "--timeout", type=float, default=defaults.timeout, help="seconds per answer"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        fields = read_fields(options.fields)
    except (OSError, ValueError) as why:
        parser.error(str(why))
    servers = tuple(options.server or defaults.servers)
    missing = freeze(fields, options.out, ReferenceSettings(servers, options.timeout))
    for sentence in missing:
        log.error("%s", sentence)
    log.info("%d fields, %d answers missing; in %s", len(fields), len(missing), options.out)
    return 1 if missing else 0
