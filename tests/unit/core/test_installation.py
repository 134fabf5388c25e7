"""Where the workflow lies, also for a job in a container."""

import shutil
import subprocess
import sys
from pathlib import Path

from lib.core.installation import installation

ROOT = Path(__file__).resolve().parents[3]


def test_it_is_where_the_code_is(monkeypatch, tmp_path):
    (tmp_path / "config/instruments").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installation() == ROOT


def test_folders_mounted_each_by_itself(tmp_path):
    """As Snakemake mounts its search path: scripts/ alone, and the whole beside it."""
    shutil.copytree(ROOT / "scripts/lib/core", tmp_path / "item_1/lib/core")
    (tmp_path / "item_1/lib/__init__.py").touch()
    (tmp_path / "item_3").symlink_to(ROOT)
    paths = [str(tmp_path / one) for one in ("item_1", "item_3")]
    code = (
        f"import sys; sys.path[:0] = {paths}; from lib.core.installation import installation; "
        "print(installation())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == paths[1], done.stderr
