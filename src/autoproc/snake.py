"""Snakemake as a process that Ctrl-C ends without a traceback, from its first moment on.

Its own handling begins when it reads the workflow, after seconds of imports.
"""

import runpy
import signal
import sys


def main() -> None:
    """Run Snakemake with the arguments of this process."""
    try:
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        # No message: who started this process has one.
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
