"""The command `autoproc-refcat`: catalogues of a list of fields, to take where no network is."""

import sys

from autoproc.command import AutoprocError, note, workflow_dir


def main(arguments=None):
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
    # The module of that name in scripts/, not this one.
    import refcat

    return refcat.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
