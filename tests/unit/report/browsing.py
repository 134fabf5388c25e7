"""What tests ask of a page in a browser."""

import importlib.util
from pathlib import Path

import pytest


def load_axe(browser):
    """Load axe-core into the page that is open; skip where it is not installed."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None:
        pytest.skip("axe-core is not installed")
    script = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    browser.execute_script(script)


def serious(browser, part="html", **options):
    """What axe-core finds on a part of the page as it is now, of some weight."""
    options["resultTypes"] = ["violations"]
    found = browser.execute_async_script(
        "axe.run(arguments[0], arguments[1]).then(arguments[2])", part, options
    )
    return [
        (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]][:3])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
