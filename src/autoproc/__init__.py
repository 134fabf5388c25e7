"""The original `autoproc`, as a command and as a function, on top of the Snakemake workflow."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoproc.command import autoproc, main
    from autoproc.workflow import STEPS, AutoprocError

__version__ = "0.2.0"

__all__ = ["STEPS", "AutoprocError", "__version__", "autoproc", "main"]


def __getattr__(name: str) -> Any:
    # Imported on demand: an interrupt during earlier imports would give a traceback.
    if name in ("STEPS", "AutoprocError"):
        from autoproc import workflow

        return getattr(workflow, name)
    if name in ("autoproc", "main"):
        from autoproc import command

        return getattr(command, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
