"""Snakemake's records of how each product was made, kept in `imdir` with the products.

Snakemake keeps them in the working directory. A night reduced from two of these would be judged by
incomplete records: a product made with other settings would pass as up to date.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from .patches import Unsupported, expect

PAGE = "night.html"
"""Also written at the end of a run, without a record."""

FOLDER = ".snakemake"
"""Folder of the records in `imdir`."""


DAMAGED: set[str] = set()
"""Paths of damaged products that are left in place, but planned again in a dry run."""


def name_below(path: str, imdir: str, home: str) -> str:
    """Return the name in `imdir` of a file with the absolute path `home`; other paths unchanged.

    Parameters
    ----------
    path : str
    imdir, home : str
        `imdir` as in the configuration, and its absolute path.
    """
    # The fast way, for nearly all paths; the others take five microseconds each.
    beginning = f"{imdir}{os.sep}"
    if path.startswith(beginning) and os.pardir not in path:
        return path[len(beginning) :]
    relative = os.path.relpath(path, home)
    return path if relative.startswith(os.pardir) else relative


def keep_record_in(imdir: str | os.PathLike[str]) -> None:
    """Let Snakemake keep its records in `imdir`, with products named by their paths in it.

    A product without a readable record, for instance after a power cut, is made again.

    Parameters
    ----------
    imdir : path-like
        Directory of the products.

    Raises
    ------
    Unsupported
        This version of Snakemake keeps its records in an unknown way.
    """
    try:
        from snakemake.persistence import ParamsChange
        from snakemake.persistence.file import FilePersistence as Record
    except ImportError as error:
        raise Unsupported(str(error)) from error
    home = os.path.abspath(imdir)
    plain = vars(Record).get("plain") or {
        "__init__": expect(Record, "__init__", ()),
        "_get_key": expect(Record, "_get_key", ("f",)),
        "_input": expect(Record, "_input", ("job",)),
        "_read_record": expect(Record, "_read_record", ("key",)),
        "has_metadata": expect(Record, "has_metadata", ("job",)),
        "params_changed": expect(Record, "params_changed", ("job", "file")),
    }

    def begin(self: Any, *args: Any, path: Path | None = None, **options: Any) -> None:
        plain["__init__"](self, *args, path=path or Path(home, FOLDER), **options)

    name = partial(name_below, imdir=os.fspath(imdir), home=home)

    def key_of(self: Any, file: Any) -> str:
        return name(plain["_get_key"](self, file))

    def inputs(self: Any, job: Any) -> list[str]:
        return sorted(name(path) for path in plain["_input"](self, job))

    def read(self: Any, key: str) -> Any:
        try:
            return plain["_read_record"](self, key)
        except (ValueError, TypeError, RecursionError):  # a damaged record
            return None

    def params_changed(self: Any, job: Any, file: Any = None) -> Any:
        files = job.output if file is None else [file]
        damaged = {one for one in files if one in DAMAGED}
        if damaged:
            return ParamsChange(only_old={"damaged"}, files=damaged)
        lost = {
            one
            for one in files
            if os.path.basename(one) != PAGE and os.path.exists(one) and self.metadata(one) is None
        }
        if lost:
            return ParamsChange(only_old={"how it was made is not known"}, files=lost)
        return plain["params_changed"](self, job, file)

    Record.plain = plain
    Record.__init__ = begin
    Record._get_key = key_of
    Record._input = inputs
    Record._read_record = read
    # Otherwise changes of a product without a record would not be checked.
    Record.has_metadata = lambda self, job: True
    Record.params_changed = params_changed
