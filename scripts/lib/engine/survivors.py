"""Tables of targets of which a stack has failed, made from the stacks that exist."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lib.night.campaign import Night
from lib.night.plan import Plan, table_name

from .nightfiles import NightFiles

STACK_PRODUCTS = {
    "coadds": "coadd{stack}.fits",
    "weights": "coadd{stack}.weight.fits",
    "cats": "coadd{stack}.cat.fits",
    "quality": "qa/stack/{stack}.json",
}
"""Products of a stack, by the names of the inputs of the rules that make tables."""

PARTIAL = 0
"""Version written to tables made from only some stacks of a target."""

ENDED_BY_USER = "Terminating processes on user request"
"""Message in Snakemake's log of an interrupted run, which is no failure of a stack."""


def surviving_stacks(plan: Plan, imdir: str | Path) -> dict[str, list[str]]:
    """Return the existing stacks of each target that lacks some.

    Parameters
    ----------
    plan : lib.night.plan.Plan
    imdir : path-like
        Directory of the products.

    Returns
    -------
    dict of str to list of str
        Target -> its existing stacks; without targets that have none, and those whose complete
        tables are newer than these stacks.
    """
    found = {}
    for target, stacks in plan.targets.items():
        there = [stack for stack in stacks if all(path.exists() for path in products(imdir, stack))]
        if not there or len(there) == len(stacks):
            continue
        newest = max(path.stat().st_mtime for stack in there for path in products(imdir, stack))
        tables = [Path(imdir, table_name(target)), Path(imdir, f"{target}.lightcurve.ecsv")]
        if any(not path.exists() or path.stat().st_mtime < newest for path in tables):
            found[target] = there
    return found


def products(imdir: str | Path, stack: str) -> list[Path]:
    """Return the paths of the products of a stack."""
    return [Path(imdir, pattern.format(stack=stack)) for pattern in STACK_PRODUCTS.values()]


def make_tables_of_survivors(
    night: Night, config: Mapping[str, Any], home: Path, logs: Sequence[str] = ()
) -> list[str]:
    """Make the joint table and the light curve of targets of which a stack has failed.

    The next run makes them from all stacks, because the missing stack will be newer.

    Parameters
    ----------
    night : lib.night.campaign.Night
    config : dict
        `imdir` is the directory of the night's products.
    home : Path
        Directory of the workflow.
    logs : list of path-like
        Snakemake's logs.

    Returns
    -------
    list of str
        One line per target.
    """
    said = [Path(log).read_text(errors="replace") for log in logs if Path(log).exists()]
    if any(ENDED_BY_USER in text for text in said):
        return []
    lines = []
    for target, stacks in surviving_stacks(night.plan, config["imdir"]).items():
        made = [run_script(home, *job) for job in jobs_of(night, config, target, stacks)]
        if any(made):
            missing = [stack for stack in night.plan.targets[target] if stack not in stacks]
            lines.append(f"{target}: tables without {', '.join(missing)}, which failed")
    return lines


def jobs_of(
    night: Night, config: Mapping[str, Any], target: str, stacks: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Return script and job of the tables of a target, from some of its stacks.

    The jobs are those of rules tables and lightcurve for a night with these stacks only, without
    difference images and exports.
    """
    plan = replace(night.plan, targets={target: tuple(stacks)})
    files, wildcards = NightFiles(night.log, plan, config), SimpleNamespace(target=target)
    inputs = {name: files.products(pattern)(wildcards) for name, pattern in STACK_PRODUCTS.items()}
    params = {"target_radec": list(config["target_radec"]), "version": PARTIAL}
    outputs = {
        "table": f"{files.imdir}/{{target}}.lightcurve.ecsv",
        "plot": f"{files.imdir}/qa/lightcurve/{{target}}.png",
        **files.of_positions,
    }
    table = {
        "input": inputs,
        "output": [f"{files.imdir}/{table_name(target)}"],
        "params": params | {"settings": files.stack_settings},
        "log": f"{files.imdir}/logs/tables/{target}.log",
    }
    curve = {
        "input": inputs,
        "output": {name: path.format(target=target) for name, path in outputs.items()},
        "params": params | {
            "given": vars(files.frames_by_stack(wildcards)),
            "settings": config["lightcurve"], "site": files.site(wildcards),
        },
        "log": f"{files.imdir}/logs/lightcurve/{target}.log",
    }  # fmt: skip
    return [("tables.py", table), ("lightcurve.py", curve)]


def run_script(home: Path, script: str, job: dict[str, Any]) -> bool:
    """Run the script of a rule outside Snakemake; return whether it succeeded."""
    log = Path(job["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    for path in job["output"].values() if isinstance(job["output"], dict) else job["output"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, str(home / "scripts" / script), json.dumps(job)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        with open(log, "a", encoding="utf-8") as file:
            file.write(done.stderr)
    return done.returncode == 0
