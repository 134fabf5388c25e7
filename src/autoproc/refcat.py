"""The command `autoproc-refcat`: catalogues of a list of fields, for where there is no network."""

import sys
from collections.abc import Sequence

from autoproc.command import AutoprocError, note, workflow_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Freeze the catalogues of a list of fields; return the exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the command line if not given.
    """
    try:
        scripts = str(workflow_dir() / "scripts")
    except AutoprocError as error:
        note(str(error))
        return 2
    if scripts not in sys.path:
        sys.path.insert(0, scripts)
    from lib.reference import freeze

    return freeze.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
