"""Changes to Snakemake's planner and scheduler, for large nights: 20,000 frames are 100,000 jobs.

docs/performance.md has what each gains, and the causes. Where this Snakemake has not what a
function here expects, that function raises `Unsupported` and changes nothing.
"""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import io
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

GC_THRESHOLDS = (100_000, 20, 50)
"""Thresholds of the garbage collector: a plan is millions of objects, hardly any of it garbage."""

SCHEDULER_MODULES = ("snakemake.scheduling.job_scheduler", "snakemake.scheduler")
"""Where `JobScheduler` is defined, in the order of preference: it moved in Snakemake 9.11."""


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


def debounce_scheduler() -> None:
    """Schedule one later look at the ready jobs at a time, not one for each job that has ended.

    To start no more than 100 jobs a second, the scheduler looks again one second after each look.
    As it looks after each job too, and each of these looks has its successors, a run of n jobs
    comes to look n times a second, at files and jobs of all of it.
    """
    scheduler: Any = getattr(_import_first(SCHEDULER_MODULES), "JobScheduler", None)
    plain = expect(scheduler, "_schedule_reevalutation", ("delay",))
    if getattr(plain, "debounced", False):
        return

    def schedule_reevaluation(self: Any, delay: float) -> None:
        open_jobs: Any = getattr(self, "_open_jobs", None)
        if not hasattr(open_jobs, "release"):
            plain(self, delay)
            return
        waiting = vars(self).setdefault("_reevaluation_waiting", threading.Lock())

        def look() -> None:
            waiting.release()
            open_jobs.release()

        if waiting.acquire(blocking=False):
            timer = threading.Timer(delay, look)
            # The end of the run waits for none.
            timer.daemon = True
            timer.start()

    schedule_reevaluation.debounced = True  # type: ignore[attr-defined]
    scheduler._schedule_reevalutation = schedule_reevaluation


def _import_first(names: Sequence[str]) -> ModuleType:
    """Return the first of some modules that is there."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise Unsupported(f"there is no module {' or '.join(names)}")
