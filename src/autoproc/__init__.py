"""The `autoproc` of old, as a command and as a function, on top of the Snakemake workflow."""

from autoproc.command import autoproc, main
from autoproc.workflow import STEPS, AutoprocError

__version__ = "0.2.0"

__all__ = ["STEPS", "AutoprocError", "__version__", "autoproc", "main"]
