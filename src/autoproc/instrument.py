"""The commands `autoproc check-instrument` and `autoproc new-instrument`."""

from collections.abc import Sequence

COMMANDS = ("check-instrument", "new-instrument")


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands about instrument files; return the exit code.

    Parameters
    ----------
    arguments : list of str
        Name of the command, followed by its arguments.
    """
    from autoproc.workflow import AutoprocError, find_scripts, note

    try:
        find_scripts()
    except AutoprocError as error:
        note(str(error))
        return 2
    name, *rest = arguments
    if name == "check-instrument":
        from lib.report import instrumentcheck

        return instrumentcheck.main(rest)
    from lib.report import newinstrument

    return newinstrument.main(rest)
