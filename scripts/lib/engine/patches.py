"""Changes to Snakemake's planner for large nights: 20,000 frames are 100,000 jobs.

Their causes and gains are in docs/performance.md. Where this version of Snakemake lacks what a
function expects, the function raises `Unsupported` and changes nothing.
"""

from __future__ import annotations

import functools
import gc
import inspect
import io
from collections.abc import Callable, Sequence
from typing import Any

GC_THRESHOLDS = (100_000, 20, 50)
"""Thresholds of the garbage collector: a plan is millions of objects, hardly any of them
garbage."""


class Unsupported(RuntimeError):
    """This version of Snakemake lacks the attribute, function or module to be changed."""


def expect(owner: Any, name: str, parameters: Sequence[str]) -> Callable[..., Any]:
    """Return a function of a class or object, if it has the expected parameters.

    Parameters
    ----------
    owner : object
    name : str
        Name of the function.
    parameters : sequence of str
        Names of its first parameters, without `self`.

    Raises
    ------
    Unsupported
        There is no such function, or it has other parameters.
    """
    found = getattr(owner, name, None)
    if not callable(found):
        raise Unsupported(f"{owner!r} has no function {name}")
    try:
        taken = [one for one in inspect.signature(found).parameters if one != "self"]
    except (TypeError, ValueError) as error:
        raise Unsupported(f"{name}: {error}") from error
    if taken[: len(parameters)] != list(parameters):
        raise Unsupported(f"{name} takes {taken}, not {list(parameters)}")
    return found


def tune_garbage_collector() -> None:
    """Exempt existing objects from garbage collection, and collect less often.

    Garbage collection takes a quarter of the time of planning 10,000 jobs, and more for larger
    plans.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def cache_source_files(workflow: Any) -> None:
    """Read each script once rather than once for each job of its rule.

    The result is the same, because Snakemake's copies of the scripts do not change while it runs.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
        `open`, `exists` and `get_path` of its source cache are replaced.
    """
    cache: Any = getattr(workflow, "sourcecache", None)
    plain_open = expect(cache, "open", ("source_file", "mode"))
    plain = {name: expect(cache, name, ("source_file",)) for name in ("exists", "get_path")}

    def read(source: Any) -> str:
        with plain_open(source) as file:
            return file.read()

    cached_read = _cached(read)

    def open_cached(source_file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode != "r" or args or options:
            return plain_open(source_file, mode, *args, **options)
        return io.StringIO(cached_read(source_file))

    try:
        cache.open = open_cached
        for name, function in plain.items():
            setattr(cache, name, _cached(function))
    except AttributeError as error:
        raise Unsupported(f"the source cache cannot be changed: {error}") from error


def _cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that caches its results, for hashable arguments."""
    remembered = functools.cache(function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            hash(args)
        except TypeError:
            return function(*args, **options)
        return remembered(*args, **options)

    return call
