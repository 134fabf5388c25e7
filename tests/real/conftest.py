import os
from pathlib import Path

import pytest
from running import ROOT

DATA = Path(os.environ.get("AUTOPROC_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data():
    """Return a function that gives a folder of real frames, or skips the test."""

    def folder(name):
        if not (DATA / name).is_dir():
            pytest.skip(f"no real frames: {DATA / name} is absent (set AUTOPROC_REAL_DATA)")
        return DATA / name

    return folder
