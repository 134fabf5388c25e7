"""The command `autoproc-refcat`: catalogues of a list of fields, for where there is no network."""

import sys
from collections.abc import Sequence

from autoproc.workflow import AutoprocError, find_scripts, note


def main(arguments: Sequence[str] | None = None) -> int:
    """Freeze the catalogues of a list of fields; return the exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the command line if not given.
    """
    try:
        find_scripts()
    except AutoprocError as error:
        note(str(error))
        return 2
    from lib.reference import freeze

    return freeze.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
