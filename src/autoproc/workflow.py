"""The workflow that this command runs: where it lies, its steps, and what it shares with us."""

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent

ROOT = next(
    (place for place in (PACKAGE / "installed", PACKAGE.parents[1]) if (place / "rules").is_dir()),
    PACKAGE.parents[1],
)
"""The directory of the workflow: in a wheel beside this package, else where both are developed."""


class AutoprocError(RuntimeError):
    """Arguments that make no sense, or a run that failed."""


def load(module: str) -> Any:
    """Return a module of the workflow's core, or None where there is no workflow.

    Its file is read by path: the modules of the workflow are nobody else's, and do not get onto
    the module path of whoever imports this package.
    """
    path = ROOT / f"scripts/lib/core/{module}.py"
    if not path.is_file():
        return None
    name = f"{__package__}._{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


PIPELINE: Any = getattr(load("pipeline"), "PIPELINE", None)

STEPS: tuple[str, ...] = PIPELINE.step_names if PIPELINE else ()
"""The steps in their order."""


def workflow_dir() -> Path:
    """Return the directory of the Snakefile.

    Raises
    ------
    AutoprocError
        Where this package was installed without it.
    """
    if PIPELINE is None or not (ROOT / "Snakefile").is_file():
        raise AutoprocError(
            f"there is no Snakefile in {ROOT}: install with 'make env', or 'pip install .', "
            "in the directory of autoproc"
        )
    return ROOT


def find_scripts() -> None:
    """Let the modules below scripts/ be imported.

    Raises
    ------
    AutoprocError
        As `workflow_dir` does.
    """
    scripts = str(workflow_dir() / "scripts")
    if scripts not in sys.path:
        sys.path.insert(0, scripts)


def all_rules() -> list[str]:
    """Return the names of all rules of the workflow."""
    return [*PIPELINE.collecting, *(rule.name for rule in PIPELINE.rules)]


def note(words: str) -> None:
    """Say something that is no product; where nobody can hear it, as on a full disk, go on."""
    shown = getattr(load("text"), "shown", ascii)
    with suppress(OSError):
        print(f"autoproc: {shown(words)}", file=sys.stderr, flush=True)
