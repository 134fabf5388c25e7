"""The user's tables of stars, checked before anything is planned that depends on them."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord, stamp_of
from lib.core.settings import REFERENCE_SOURCES
from lib.engine.config import ConfigError


def check_tables(config: Mapping[str, Any]) -> None:
    """Read the reference table and the custom catalogue, unless they were read before.

    Parameters
    ----------
    config : dict
        Configuration with file paths, from `lib.engine.paths.check_places`.

    Raises
    ------
    ConfigError
        A table is wrong; one sentence that says what to write instead.
    """
    record = ContentRecord(config["imdir"])
    if config["refcat"] not in REFERENCE_SOURCES:
        _check("refcat", config["refcat"], _read_reference, record)
    if config["customcat"]:
        _check("customcat", config["customcat"], _read_customcat, record)


def _check(key: str, path: str, read: Callable[[str], Any], record: ContentRecord) -> None:
    """Read a table; record what is wrong with it, so that other runs need not read it again."""
    name = f"{key}:{Path(path).absolute()}"
    sum_ = record.sum_of(path)
    known = record.find(name)
    if known.get("sum") != sum_:
        known = {"fault": read(path)}
        with suppress(OSError):  # a dry run in a directory that cannot be written
            record.write(name, stamp_of(path), sum_, **known)
    if known.get("fault"):
        raise ConfigError(f"{key}: {known['fault']}")


def _read_reference(path: str) -> str:
    from lib.reference.referencetable import CatalogueError
    from lib.reference.usertable import read_user_table

    try:
        read_user_table(path)
    except CatalogueError as error:
        return str(error)
    return ""


def _read_customcat(path: str) -> str:
    from lib.reference.customcat import read_customcat
    from lib.reference.referencetable import CatalogueError

    try:
        read_customcat(path)
    except CatalogueError as error:
        return str(error)
    return ""
