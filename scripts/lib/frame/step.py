"""The frame of every step around its image processing: read, pass on, reject, record, write."""

import atexit
import functools
import json
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from astropy.io import fits

from lib.core.contents import ContentRecord, checksum, stamp_of
from lib.core.files import atomic_path
from lib.core.installation import installation
from lib.core.text import INTERRUPTED, card_text, shown_lines
from lib.frame.damage import damage_of_fits
from lib.frame.file import Frame, FrameRejected, read_frame, read_header, reject, write_frame
from lib.frame.fitsbytes import copy_with_header

log = logging.getLogger("autoproc")

LONG_AGO = 86400.0
"""[s] Age from which products are verified before they are used, be they of this run."""

CLAIM = ".run"
"""File in `imdir` that a run writes when it begins."""

_earlier_jobs = {"seconds": 0.0}
"""CPU time that earlier jobs of this process have used."""


class ShownFormatter(logging.Formatter):
    """Writes records so that a terminal, and the page, show what is in them."""

    def format(self, record: logging.LogRecord) -> str:
        return shown_lines(super().format(record))


def start_log(path: str | Path | None) -> None:
    """Send log records to the rule's log file, begun anew; the job's resource usage ends it.

    Parameters
    ----------
    path : path-like, or None
        None is standard error.
    """
    stop_log()
    atexit.unregister(log_usage)
    atexit.register(log_usage)
    handler: logging.Handler
    handler = logging.FileHandler(path, mode="w") if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(ShownFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(handler)


def run_rule(job: Any, work: Callable[[Any], None]) -> None:
    """Do the work of a rule's script: every script ends with this.

    Parameters
    ----------
    job : object
        Object that Snakemake passes to a script: input, output, params, log, threads.
    work : callable
        Takes `job`; reads its inputs and writes its outputs.
    """
    try:
        start_log(job.log[0] if job.log else None)
        verify_old_inputs(job)
        with raws_recorded(job):
            work(job)
        record_notes(job)
    except KeyboardInterrupt:
        # Ctrl-C reaches the jobs, too: who started Snakemake is told once, by it.
        log.info(INTERRUPTED)
        sys.exit(128 + signal.SIGINT)


class NamedParts(SimpleNamespace):
    """Files or settings by name, with the `get` of what Snakemake hands to a script."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return the part of a name, or the default."""
        return getattr(self, name, default)


def run_by_hand(work: Callable[[Any], None]) -> None:
    """Do the work of a rule's script outside of Snakemake.

    Parameters
    ----------
    work : callable
        As of `run_rule`. What it takes of a job is in the JSON object of the first argument: input,
        output, params, log.
    """
    parts = json.loads(sys.argv[1])
    job = SimpleNamespace(**parts)
    job.input, job.params = NamedParts(**parts["input"]), NamedParts(**parts["params"])
    if "given" in parts["params"]:
        job.params.given = SimpleNamespace(**parts["params"]["given"])
    if isinstance(job.output, dict):
        job.output = SimpleNamespace(**job.output)
    start_log(job.log)
    work(job)


class DamagedInput(RuntimeError):
    """A product that has rotted on disk since it was written."""


def verify_old_inputs(job: Any) -> None:
    """Hold products of earlier runs against their checksums before they are used.

    What has changed since the last run is found when a run begins; bits that rot on the disk
    change no time, and are found here.

    Parameters
    ----------
    job : object
        Its inputs are products, and so are ``params.given.frames``, which other nights have made:
        the rest of ``params.given`` is what no rule makes.

    Raises
    ------
    DamagedInput
        One is damaged: it has been removed, so that the next run makes it again.
    """
    imdir = Path(job.log[0]).parents[2] if job.log else None
    before = time.time() - LONG_AGO
    for place in (imdir, imdir.parent) if imdir else ():  # that of a night lies in that of a run
        with suppress(OSError):  # a run within another workflow claims nothing
            before = max(before, os.stat(place / CLAIM).st_mtime)
            break
    record = ContentRecord(imdir) if imdir else None
    frames = getattr(job.params.get("given"), "frames", None) or []
    for path in map(str, [*job.input, *(one for one in frames if isinstance(one, str))]):
        if os.stat(path).st_mtime >= before:
            continue
        if path.endswith(".fits"):
            why = damage_of_fits(path)
        elif record and Path(path).is_relative_to(record.path.parent):
            known = record.find(f"made:{Path(path).relative_to(record.path.parent)}").get("sum")
            why = "it is not as it was written" if known and known != checksum(path) else ""
        else:
            continue
        if why:
            os.unlink(path)
            raise DamagedInput(f"{path} is damaged ({why}): removed, the next run makes it again")


@contextmanager
def raws_recorded(job: Any) -> Iterator[None]:
    """Record the contents of the raw files of a job while the block reads them.

    Parameters
    ----------
    job : object
        Its log is ``<imdir>/logs/<rule>/<name>.log``; where it has raw files,
        ``params.given.raws`` are their paths, ``params.facts`` the facts of each.
    """
    raws = getattr(job.params.get("given"), "raws", None)
    if not raws or not job.log:
        yield
        return
    record = ContentRecord(Path(job.log[0]).parents[2])
    facts = job.params.facts
    facts = [facts] if isinstance(facts, Mapping) else facts
    with ExitStack() as stack:
        for path, one in zip(raws, facts, strict=True):
            name = f"raw:{Path(path).name}"
            stack.enter_context(record.reading(name, path, content=one["content"]))
        yield


def record_notes(job: Any) -> None:
    """Record the checksums of a job's products other than FITS files, which have their own."""
    if not job.log:
        return
    imdir = Path(job.log[0]).parents[2]
    record = ContentRecord(imdir)
    for path in job.output:
        # The page is written by others, too, and records itself.
        if Path(path).suffix not in (".fits", ".html") and Path(path).is_relative_to(imdir):
            name = f"made:{Path(path).relative_to(imdir)}"
            record.write(name, stamp_of(path), checksum(path))


def given_or_made(job: Any, name: str) -> Any:
    """Return the path of a master, be it an input that a rule makes or a ready one; else None.

    Parameters
    ----------
    job : object
    name : str
        Name of the input.
    """
    return job.input.get(name) or getattr(job.params.get("given"), name, None)


def log_usage() -> None:
    """Log the most memory that this process, or a program it ran, has held, and their CPU time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    if log.handlers:
        log.info(
            "peak memory %.0f MB, CPU %.2f s",
            max(one.ru_maxrss for one in used) / 1024,
            seconds - _earlier_jobs["seconds"],
        )
    _earlier_jobs["seconds"] = seconds


def end_log() -> None:
    """Log the resources used by the job and close its log; another job may follow."""
    log_usage()
    stop_log()


def stop_log() -> None:
    """Close the log file."""
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    logging.getLogger("py.warnings").handlers.clear()


LONGEST_HISTORY = 2000
"""Characters of a step's parameters, which take a card for each 72."""


def record_step(
    header: fits.Header,
    step: str,
    step_version: int,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Write the provenance into a header: date, program, and the step with its parameters.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Changed in place.
    step : str
    step_version : int
    parameters : dict, optional
    """
    header["TIMESYS"] = ("UTC", "time system")
    header["CREATOR"] = (f"autoproc {release()}", "program that wrote this file")
    header["DATE"] = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()), "when, UTC")
    words = [f"autoproc {step} v{step_version}"]
    words += [f"{key}={value}" for key, value in (parameters or {}).items()]
    header.add_history(card_text(" ".join(words), LONGEST_HISTORY))


def process(
    step: str,
    step_version: int,
    source: str | Path,
    target: str | Path,
    work: Callable[[Frame], Frame],
    *,
    log_path: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    header_only: bool = False,
) -> None:
    """Read a frame, work on it and write the result.

    A frame that was rejected before is passed on; one that `work` rejects is written as
    a header without image. Both are results, so the exit status is that of success.

    Parameters
    ----------
    step : str
        Name of the rule.
    step_version : int
        Raised when the step's result changes.
    source, target : path-like
    work : callable
        Takes and returns a `Frame`; raises `FrameRejected`.
    log_path : path-like, optional
        The log begins anew there; within `run_rule` it is open already.
    parameters : dict, optional
        Configuration written to the header.
    header_only : bool
        Whether `work` changes nothing but the header: it is given no pixels, they are copied.
    """
    if log_path:
        start_log(log_path)
    frame = Frame.without_image(read_header(source)) if header_only else read_frame(source)
    if frame.rejected:
        log.info("passed on: %s", frame.reason)
    else:
        header = frame.header.copy()
        try:
            frame = work(frame)
        except FrameRejected as why:
            log.warning("rejected: %s", why)
            frame = reject(header, step, why)
        record_step(frame.header, step, step_version, parameters)
    if header_only and not frame.rejected:
        with atomic_path(target, wait=False) as beside:
            copy_with_header(source, beside, frame.header)
    else:
        write_frame(target, frame)
    log.info("wrote %s", target)


@functools.cache
def release() -> str:
    """Return the version of autoproc, which stands in one place."""
    here = installation()
    # Where it is developed, and in a wheel.
    for place in (here / "src/autoproc/__init__.py", here.parent / "__init__.py"):
        if place.is_file():
            found = re.search(r'__version__ = "([^"]+)"', place.read_text(encoding="utf-8"))
            if found:
                return found.group(1)
    return "unknown"


def software_versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, for headers and the page."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
