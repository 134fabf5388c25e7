"""What the page embeds: data as JSON, scripts and styles of packages."""

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

from lib.core.text import shown_within


def script_json(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element, whatever texts it holds."""
    value = shown_within(value)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def package_file(package: str, *parts: str) -> str:
    """Return the text of a file that an installed package ships, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the page needs the Python package {package}: 'pip install {package}'")
    return Path(spec.origin).parent.joinpath(*parts).read_text(encoding="utf-8")


def libraries() -> dict[str, str]:
    """Return the scripts and styles that the page embeds: plotly.js and DataTables."""
    tables = package_file("itables", "html", "dt_bundle.js")
    return {
        "plotly": package_file("plotly", "package_data", "plotly.min.js"),
        "tables": base64.b64encode(tables.encode()).decode("ascii"),
        "tables_css": package_file("itables", "html", "dt_bundle.css"),
    }
