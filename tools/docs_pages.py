"""Pages of the site that stand elsewhere in the repository: a hook of mkdocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Name in the site -> file of the repository."""

ROOMS = ("frame", "calibration", "background", "photometry", "astrometry", "stack")
"""Packages of image math, whose public functions are listed, as imports go."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; links into docs/ become links within the site, others name the file."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, content=site_text((ROOT / path).read_text())))
    files.append(File.generated(config, "api.md", content=api_page()))
    return files


def site_text(text: str) -> str:
    """Return a page of the repository with its links as they are in the site."""
    text = re.sub(r"\]\(docs/", "](", text)
    moved = {path: name for name, path in PAGES.items()}

    def link(found: re.Match) -> str:
        words, target = found.groups()
        if target in moved:
            return f"[{words}]({moved[target]})"
        return f"`{target}`" if (ROOT / target).exists() else found.group()

    return re.sub(r"\[([^\]]+)\]\(([\w./-]+)\)", link, text)


def api_page() -> str:
    """Return the page of the public functions: the command's, then those of each room."""
    parts = ["# API", "", "## autoproc", "", "::: autoproc.autoproc", ""]
    for room in ROOMS:
        parts += [f"## lib.{room}", ""]
        modules = sorted((ROOT / "scripts/lib" / room).glob("[!_]*.py"))
        parts += [line for path in modules for line in (f"::: lib.{room}.{path.stem}", "")]
    return "\n".join(parts)
