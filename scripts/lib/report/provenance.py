"""Provenance of the products: durations, memory, versions, configuration."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.report.numbers import is_number
from lib.report.products import read_json


@dataclass
class RuleDuration:
    """Durations of the jobs of a rule [s], and the peak memory of one of them [MB].

    Parameters
    ----------
    begin, end : float
        Unix time [s].
    """

    rule: str
    jobs: int
    total: float
    median: float
    longest: float
    begin: float
    end: float
    memory: float | None = None


def rule_durations(metadata: str | Path, below: str = "") -> list[RuleDuration]:
    """Return the durations of the jobs of each rule from Snakemake's records.

    Parameters
    ----------
    metadata : path-like
        Folder ``.snakemake/metadata`` of `imdir`, with one JSON file per output.
    below : str
        Text in the paths of the logs of the jobs to include.

    Returns
    -------
    list of RuleDuration
        Longest total first.
    """
    jobs: dict[tuple[str, ...], tuple[float, float]] = {}
    for folder, _, names in os.walk(metadata):
        for name in names:
            record = read_json(Path(folder) / name)
            begin, end = record.get("starttime"), record.get("endtime")
            logs = record.get("log") or []
            if not (is_number(begin) and is_number(end) and record.get("rule")):
                continue
            if not logs or below not in str(logs[0]):
                continue
            # Each output has a record with its own times; the log identifies the job.
            job = (record["rule"], *map(str, logs))
            known = jobs.get(job, (begin, end))
            jobs[job] = (min(begin, known[0]), max(end, known[1]))
    rules: dict[str, list[tuple[float, float]]] = {}
    for (rule, *_), span in jobs.items():
        rules.setdefault(rule, []).append(span)
    shown = []
    for rule, spans in rules.items():
        seconds = [max(0.0, end - begin) for begin, end in spans]
        shown.append(
            RuleDuration(
                rule,
                jobs=len(spans),
                total=sum(seconds),
                median=float(np.median(seconds)),
                longest=max(seconds),
                begin=min(begin for begin, _ in spans),
                end=max(end for _, end in spans),
            )
        )
    return sorted(shown, key=lambda one: -one.total)


PEAK = re.compile(r"peak memory (\d+(?:\.\d+)?) MB")


def peak_memory(imdir: str | Path) -> dict[str, float]:
    """Return the peak memory of the jobs of each rule [MB], if in their logs."""
    peaks: dict[str, float] = {}
    for folder in sorted((Path(imdir) / "logs").glob("*")):
        for path in folder.glob("*.log"):
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - 400))
                found = PEAK.findall(file.read().decode("utf-8", "replace"))
            if found:
                peaks[folder.name] = max(peaks.get(folder.name, 0.0), float(found[-1]))
    return peaks


def program_versions() -> dict[str, str]:
    """Return name and version of the programs and packages used."""
    from lib.core.programs import ProgramMissing, find_program
    from lib.frame.step import software_versions

    found = {"Python": sys.version.split()[0]}
    for name in ("source-extractor", "scamp"):
        try:
            done = subprocess.run(
                [find_program(name), "-v"], capture_output=True, text=True, timeout=10, check=False
            )
            words = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
            found[name] = words.group() if words else "unknown"
        except ProgramMissing:
            found[name] = "absent"
        except (OSError, subprocess.TimeoutExpired):
            found[name] = "unknown"
    return found | software_versions(
        "snakemake", "numpy", "scipy", "numba", "astropy", "astroscrappy", "sep", "ccdproc",
        "itables",
    )  # fmt: skip


def config_text(config: dict[str, Any]) -> str:
    """Return the configuration of a run as YAML."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
