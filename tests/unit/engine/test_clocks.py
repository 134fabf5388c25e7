"""Times that contradict each other end no run."""

import asyncio
import os
import time

import pytest
import snakemake.cli  # noqa: F401 - in the order in which its modules can be imported
from snakemake import jobs
from snakemake.dag import DAG

from lib.engine.clocks import tolerate_clocks


@pytest.fixture
def tolerant(monkeypatch):
    monkeypatch.setattr(jobs, "get_script_mtime", jobs.get_script_mtime)
    monkeypatch.setattr(DAG, "check_output_mtime", DAG.check_output_mtime)
    tolerate_clocks()
    tolerate_clocks()


@pytest.mark.usefixtures("tolerant")
def test_script_of_tomorrow_redoes_nothing(tmp_path):
    script, old = tmp_path / "flatten.py", tmp_path / "stack.py"
    script.touch()
    old.touch()
    assert jobs.get_script_mtime(str(old)) == old.stat().st_mtime
    tomorrow = time.time() + 86400
    os.utime(script, (tomorrow, tomorrow))
    assert jobs.get_script_mtime(str(script)) == 0


@pytest.mark.usefixtures("tolerant")
def test_product_older_than_its_input_ends_no_job():
    assert asyncio.run(DAG.check_output_mtime(None, None, ["product"])) is None
