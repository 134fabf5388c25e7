import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))


@pytest.fixture(autouse=True)
def closed_log():
    """Close the log file that a step under test has opened."""
    yield
    from lib.steps import stop_log

    stop_log()
