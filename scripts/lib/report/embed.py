"""Content embedded in the page: data as JSON, scripts and style sheets of packages."""

import base64
import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

from lib.core.text import shown_within


def script_json(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element, whatever texts it contains."""
    value = shown_within(value)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def package_file(package: str, *parts: str) -> str:
    """Return the text of a file shipped with an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the page needs the Python package {package}: 'pip install {package}'")
    return Path(spec.origin).parent.joinpath(*parts).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return a text compressed for the page, gzip in base64."""
    # No time stamp, so that the same text gives the same page.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def libraries() -> dict[str, str]:
    """Return the script and the style sheet of DataTables, compressed."""
    return {
        "tables": packed(package_file("itables", "html", "dt_bundle.js")),
        "tables_css": packed(package_file("itables", "html", "dt_bundle.css")),
    }
