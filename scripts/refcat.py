"""refcat: make the reference table of one target, from a user's table, the cache, or VizieR."""

import logging
from typing import Any

from lib.core.settings import ReferenceSettings
from lib.frame.step import run_rule
from lib.reference.build import make_reference
from lib.reference.field import Field
from lib.reference.referencetable import write_reference
from lib.reference.vizier import ROW_LIMIT

log = logging.getLogger("autoproc")


def main(job: Any) -> None:
    """Make the reference of one field."""
    values = job.params
    attempt = int(job.resources.get("attempt", 1))
    given = {"servers": values.get("servers"), "timeout": values.get("timeout")}
    table = make_reference(
        values.given.refcat,
        Field(values.ra, values.dec, values.radius, values.get("wide"), values.epoch),
        values.given.cache,
        ReferenceSettings(**{key: value for key, value in given.items() if value}),
        row_limit=values.get("row_limit") or ROW_LIMIT,
        last_attempt=attempt >= int(values.get("attempts") or 1),
    )
    write_reference(job.output[0], table)
    log.info("%s: %d stars", table.meta["source"], len(table))


if "snakemake" in globals():
    run_rule(snakemake, main)
