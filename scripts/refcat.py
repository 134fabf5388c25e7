"""refcat: make the reference table of one target, from a user's table, the cache, or VizieR."""

import logging
import time
from dataclasses import replace
from typing import Any

from lib.core.settings import ReferenceSettings
from lib.frame.step import run_rule
from lib.reference.build import make_reference
from lib.reference.field import Field
from lib.reference.referencetable import write_reference
from lib.reference.vizier import ROW_LIMIT, ReferenceUnavailable

log = logging.getLogger("autoproc")

PAUSE = 1.0
"""[s] Before servers that failed are asked again."""


def main(job: Any) -> None:
    """Make the reference of one field; if servers fail, finally from what is available."""
    attempts = int(job.params.get("attempts") or 1)
    for _ in range(1, attempts):
        try:
            return make(job, last_attempt=False)
        except ReferenceUnavailable as error:
            log.warning("asking again: %s", error)
            time.sleep(PAUSE)
    make(job, last_attempt=True)


def make(job: Any, last_attempt: bool) -> None:
    """Make the reference of one field.

    Parameters
    ----------
    job : object
        Object that Snakemake passes to a script.
    last_attempt : bool
        See `lib.reference.build.make_reference`.

    Raises
    ------
    ReferenceUnavailable
        Servers fail, and this is not the last attempt.
    """
    values = job.params
    given = {"servers": values.get("servers"), "timeout": values.get("timeout")}
    settings = ReferenceSettings(**{key: value for key, value in given.items() if value})
    names = getattr(values.given, "name_servers", None)
    if names is not None:
        settings = replace(settings, name_servers=tuple(names))
    table = make_reference(
        values.given.refcat,
        Field(values.ra, values.dec, values.radius, values.get("wide"), values.epoch),
        values.given.cache,
        settings,
        row_limit=values.get("row_limit") or ROW_LIMIT,
        last_attempt=last_attempt,
        name=getattr(values.given, "name", ""),
    )
    write_reference(job.output[0], table)
    log.info("%s: %d stars", table.meta["source"], len(table))


if "snakemake" in globals():
    run_rule(snakemake, main)
