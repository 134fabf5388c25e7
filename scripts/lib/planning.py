"""Let Snakemake plan a large night quickly: one of 20,000 frames is 100,000 jobs."""

import functools
import gc
import io

GENERATIONS = (100_000, 20, 50)
"""Thresholds of the garbage collector: a plan is millions of objects, hardly any of it garbage."""


def spare_collector():
    """Let the garbage collector leave alone what is there, and look less often at what comes.

    A quarter of the time of a plan of 10,000 jobs goes into looking for garbage, and more of a
    larger one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GENERATIONS)


def remember_sources(cache):
    """Let a source cache read each script once, not once for each job of its rule.

    Its copies of the scripts do not change while a Snakemake runs, so what it finds is the same.
    A quarter of the time of a plan went into finding and reading them.

    Parameters
    ----------
    cache : snakemake.sourcecache.SourceCache
        Its `open`, `exists` and `get_path` are replaced.
    """
    plain_open = cache.open

    @functools.cache
    def text(source):
        with plain_open(source) as file:
            return file.read()

    def open_remembered(source, mode="r"):
        return io.StringIO(text(source)) if mode == "r" else plain_open(source, mode)

    cache.open = open_remembered
    cache.exists = functools.cache(cache.exists)
    cache.get_path = functools.cache(cache.get_path)
