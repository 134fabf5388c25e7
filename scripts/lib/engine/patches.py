"""Changes to Snakemake's planner, for large nights: 20,000 frames are 100,000 jobs.

docs/performance.md has what each gains, and the causes. Where this Snakemake has not what a
function here expects, that function raises `Unsupported` and changes nothing.
"""

from __future__ import annotations

import functools
import gc
import inspect
import io
from collections.abc import Callable, Sequence
from typing import Any

GC_THRESHOLDS = (100_000, 20, 50)
"""Thresholds of the garbage collector: a plan is millions of objects, hardly any of it garbage."""


class Unsupported(RuntimeError):
    """This Snakemake has not the attribute, function or module that would be changed."""


def expect(owner: Any, name: str, parameters: Sequence[str]) -> Callable[..., Any]:
    """Return a function of a class or object, if it takes what it is expected to take.

    Parameters
    ----------
    owner : object
    name : str
    parameters : sequence of str
        Names of its first parameters, `self` aside.

    Raises
    ------
    Unsupported
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
    """Exempt what is loaded from garbage collection, and collect less often.

    A quarter of the time of a plan of 10,000 jobs goes into looking for garbage, and more of a
    larger one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def cache_source_files(workflow: Any) -> None:
    """Read each script once, not once for each job of its rule.

    Snakemake's copies of the scripts do not change while it runs, so what it finds is the same.

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
    """Return a function that remembers its results, where its arguments can be looked up."""
    remembered = functools.cache(function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            hash(args)
        except TypeError:
            return function(*args, **options)
        return remembered(*args, **options)

    return call
