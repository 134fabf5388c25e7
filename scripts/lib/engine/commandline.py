"""Interpretation of Snakemake's command line, as far as needed before it is executed."""

from __future__ import annotations

import re
from collections.abc import Sequence

DESCRIBES_RULES = {
    "--lint", "--list", "-l", "--list-rules", "--list-target-rules", "--lt", "--print-compilation",
}  # fmt: skip
"""Options of Snakemake that describe the rules: they need no data, and leave nothing on disk."""

LOOKS = {
    "--touch", "-t", "--unlock", "--summary", "-S", "--detailed-summary", "-D", "--report",
    "--dag", "--rulegraph", "--filegraph", "--d3dag", "--archive", "--cleanup-metadata", "--cm",
    "--cleanup-shadow", "--list-code-changes", "--lc", "--list-input-changes", "--li",
    "--list-params-changes", "--lp", "--list-version-changes", "--lv", "--list-untracked", "--lu",
    "--generate-unit-tests", "--delete-all-output", "--delete-temp-output", "--dryrun",
    "--dry-run",
}  # fmt: skip
"""Options with which Snakemake makes nothing."""


def describes_rules(argv: Sequence[str]) -> bool:
    """Return whether a command line of Snakemake only describes the rules."""
    return any(word.split("=")[0] in DESCRIBES_RULES for word in argv[1:])


def only_looks(argv: Sequence[str]) -> bool:
    """Return whether a command line of Snakemake makes nothing."""
    return any(
        word.split("=")[0] in LOOKS or re.fullmatch(r"-[a-z]*n[a-z]*", word) for word in argv[1:]
    )
