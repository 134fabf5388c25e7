"""A clock that is wrong, or is set right meanwhile, ends no run and redoes no step."""

from __future__ import annotations

import time
from typing import Any

from .patches import Unsupported, expect


def tolerate_clocks() -> None:
    """Let Snakemake go on where times contradict each other.

    It ends a job whose product is older than an input, as when the clock is set back during a
    run. Here the next run judges, after it has looked at the times of products. It redoes a step
    whose script is newer than the product, which a script of tomorrow always is: what a step does
    is told by its `version`.

    Raises
    ------
    Unsupported
        Where this Snakemake asks for times in another way than is known here.
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
