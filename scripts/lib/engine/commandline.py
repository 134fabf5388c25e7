"""What a command line of Snakemake asks for, as far as it matters before it is obeyed."""

from __future__ import annotations

import re
from collections.abc import Sequence

DESCRIBES_RULES = {
    "--lint", "--list", "-l", "--list-rules", "--list-target-rules", "--lt", "--print-compilation",
}  # fmt: skip
"""Options of Snakemake that describe the rules: these need no data, and leave nothing on disk."""

LOOKS = {
    "--touch", "-t", "--unlock", "--summary", "-S", "--detailed-summary", "-D", "--report",
    "--dag", "--rulegraph", "--filegraph", "--d3dag", "--archive", "--cleanup-metadata", "--cm",
    "--cleanup-shadow", "--list-code-changes", "--lc", "--list-input-changes", "--li",
    "--list-params-changes", "--lp", "--list-version-changes", "--lv", "--list-untracked", "--lu",
    "--generate-unit-tests", "--delete-all-output", "--delete-temp-output", "--dryrun",
    "--dry-run",
}  # fmt: skip
"""Options of Snakemake with which it makes nothing."""


def describes_rules(argv: Sequence[str]) -> bool:
    """Return whether a command line of Snakemake asks for a description of the rules alone."""
    return any(word.split("=")[0] in DESCRIBES_RULES for word in argv[1:])


def only_looks(argv: Sequence[str]) -> bool:
    """Return whether a command line of Snakemake is that of no run."""
    return any(
        word.split("=")[0] in LOOKS or re.fullmatch(r"-[a-z]*n[a-z]*", word) for word in argv[1:]
    )
