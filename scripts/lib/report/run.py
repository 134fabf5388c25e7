"""A run: its command and environment, and its result."""

import json
import os
import time
from pathlib import Path
from typing import Any

from lib.night.nightlog import NightLog
from lib.night.plan import Plan
from lib.report.frametable import write_frames_table
from lib.report.outcomes import NightOutcome, collect, digest
from lib.report.products import read_json, write_if_changed


def record_run(
    imdir: str | Path, config: dict[str, Any], cores: int, command: list[str], workdir: str | Path
) -> None:
    """Write the configuration, command and environment of a run to qa/, for the page.

    Parameters
    ----------
    imdir : path-like
    config : dict
    cores : int
    command : list of str
    workdir : path-like
        Working directory, to which relative paths of the configuration refer, and where Snakemake
        keeps its logs.
    """
    import platform

    import yaml

    qa = Path(imdir) / "qa"
    write_if_changed(qa / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    run = {
        "command": " ".join([Path(command[0]).name, *command[1:]]),
        "cores": cores,
        "host": f"{platform.node()}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} processors",
        "workdir": str(Path(workdir).resolve()),
        "begun": time.time(),
    }
    write_if_changed(qa / "run.json", json.dumps(run, indent=1))


def finish_run(night: NightLog, plan: Plan, imdir: str | Path) -> tuple[NightOutcome, bool]:
    """Determine the outcome of a night and bring frames.ecsv up to date.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
    imdir : path-like

    Returns
    -------
    result : NightOutcome
    current : bool
        Whether night.html shows this outcome already.
    """
    imdir = Path(imdir)
    result = collect(night, plan, imdir)
    write_frames_table(night, result.rows, imdir / "frames.ecsv")
    told = read_json(imdir / "qa" / "page.json").get("of")
    return result, told == digest(result) and (imdir / "night.html").exists()
