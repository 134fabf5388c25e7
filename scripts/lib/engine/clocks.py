"""Tolerance of wrong clocks, which should neither end a run nor repeat a step."""

from __future__ import annotations

import time
from typing import Any

from .patches import Unsupported, expect


def tolerate_clocks() -> None:
    """Let Snakemake continue where file times contradict each other.

    Snakemake fails a job whose product is older than an input, as happens when the clock is set
    back during a run; here the next run decides, after checking the times of products. It also
    repeats a step whose script is newer than the product, which is always so for a script dated in
    the future; changes of a step are tracked by its `version` instead.

    Raises
    ------
    Unsupported
        This version of Snakemake handles times in an unknown way.
    """
    try:
        from snakemake import jobs
        from snakemake.dag import DAG
    except ImportError as error:
        raise Unsupported(str(error)) from error
    expect(DAG, "check_output_mtime", ("job", "expanded_output"))
    script_time = expect(jobs, "get_script_mtime", ("path",))
    if getattr(script_time, "tolerant", False):
        return

    async def check_output_mtime(self: Any, job: Any, expanded_output: Any) -> None:
        return

    def get_script_mtime(path: str) -> float:
        found = script_time(path)
        return found if found <= time.time() else 0.0

    get_script_mtime.tolerant = True  # type: ignore[attr-defined]
    DAG.check_output_mtime = check_output_mtime
    jobs.get_script_mtime = get_script_mtime
