import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(scope="session")
def passing_folder(request, tmp_path_factory):
    """Return a context manager: a new folder, kept afterwards only if a test has failed.

    For a night that several tests share, which is large; `tmp_path` does the same for one test.
    """

    @contextmanager
    def folder(name):
        path = tmp_path_factory.mktemp(name)
        yield path
        if not request.session.testsfailed:
            shutil.rmtree(path)

    return folder


@pytest.fixture(autouse=True)
def closed_log():
    """Close the log file that a step under test has opened."""
    yield
    from lib.frame.step import stop_log

    stop_log()
