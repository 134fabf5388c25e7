"""Let Snakemake plan and run a large night quickly: one of 20,000 frames is 100,000 jobs."""

import functools
import gc
import io
import threading

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


def remember_parameters():
    """Let Snakemake look once at which parameters a function of a rule takes, not once a job."""
    from snakemake import common, jobs, rules

    for module in (common, jobs, rules):
        plain = getattr(module, "get_function_params", None)
        if plain is not None and not hasattr(plain, "cache_clear"):
            module.get_function_params = functools.cache(plain)


def spare_reports(workflow):
    """Let a dry run that is to say nothing of single jobs not put together what it would say.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    """
    from snakemake.jobs import Job
    from snakemake.settings.enums import Quietness

    plain = getattr(Job.log_info, "plain", Job.log_info)
    quiet = bool((workflow.output_settings.quiet or set()) & {Quietness.RULES, Quietness.ALL})

    def log_info(job, *args, **options):
        # Whether it is a dry run, the workflow knows only once all rules are read.
        if not (quiet and workflow.dryrun):
            plain(job, *args, **options)

    log_info.plain = plain
    Job.log_info = log_info


def look_once(scheduler):
    """Let the scheduler of a run wait for one later look at the ready jobs, not for many.

    To start no more than 100 jobs a second, it looks again one second after each look. As it
    looks after each job too, and each of these looks has its successors, a run of n jobs comes to
    look n times a second, at files and jobs of all of it.

    Parameters
    ----------
    scheduler : snakemake.scheduling.job_scheduler.JobScheduler
        Its `_schedule_reevalutation` is replaced, where it has one.
    """
    if not hasattr(scheduler, "_schedule_reevalutation"):
        return
    waiting = threading.Lock()

    def look():
        waiting.release()
        scheduler._open_jobs.release()

    def look_later(delay):
        if waiting.acquire(blocking=False):
            timer = threading.Timer(delay, look)
            # The end of the run waits for none.
            timer.daemon = True
            timer.start()

    scheduler._schedule_reevalutation = look_later
