"""The `autoproc` of old, as a command and as a function, on top of the Snakemake workflow."""

from autoproc.command import STEPS, AutoprocError, autoproc, main

__all__ = ["STEPS", "AutoprocError", "autoproc", "main"]
