"""The documentation builds as a site: no page without a place, no link into nothing."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_site_is_built_without_complaint(tmp_path):
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict"]
    command += ["--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.name for path in (tmp_path / "site").glob("*.html")}
    assert {"index.html", "tutorial.html", "api.html", "changelog.html", "stack.html"} <= pages
    api = (tmp_path / "site/api.html").read_text()
    assert "autoproc.autoproc" in api and "lib.calibration.prepare.prepare_frame" in api
    assert (tmp_path / "site/search/search_index.json").stat().st_size > 100_000
    assert "https://fonts" not in (tmp_path / "site/index.html").read_text()
