import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

# As Snakemake has it for its jobs: threads of a library beside those of the test processes only
# wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Where the tests are started in the background or by nohup, these are ignored, by all children too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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
