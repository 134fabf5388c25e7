"""What speeds a plan up changes nothing else."""

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake import common, jobs, rules
from snakemake.sourcecache import LocalSourceFile, SourceCache

from lib.engine import patches

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def collector():
    """Give the garbage collector back as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_scripts_are_read_once(tmp_path):
    script = tmp_path / "prepare.py"
    script.write_text("print('é')\n", encoding="utf-8")
    source, again = LocalSourceFile(str(script)), LocalSourceFile(str(script))
    absent = LocalSourceFile(str(tmp_path / "absent.py"))
    plain = SourceCache(tmp_path / "plain", tmp_path / "plain")
    cache = SourceCache(tmp_path / "cache", tmp_path / "cache")
    opened = []
    plain_open = cache.open
    cache.open = lambda *given: opened.append(given) or plain_open(*given)
    patches.remember_sources(cache)
    with plain.open(source) as expected:
        text = expected.read()
    for one in (source, again):
        # A file of its own each time, at its beginning.
        with cache.open(one) as file:
            assert file.read() == text
        assert cache.exists(one) and not cache.exists(absent)
        assert cache.get_path(one).endswith("prepare.py")
    assert len(opened) == 1
    with plain.open(source, "rb") as expected, cache.open(source, "rb") as file:
        assert file.read() == expected.read()
    with pytest.raises(OSError):
        cache.open(absent)


def test_parameters_of_a_function_are_looked_up_once(monkeypatch):
    looks = []

    def look(function):
        looks.append(function)
        return common_look(function)

    common_look = common.get_function_params
    for module in (common, jobs, rules):
        monkeypatch.setattr(module, "get_function_params", look)
    patches.remember_parameters()
    patches.remember_parameters()

    def threads(wildcards, attempt):
        return attempt

    assert [list(rules.get_function_params(threads)) for _ in range(3)] == [
        ["wildcards", "attempt"]
    ] * 3
    assert looks == [threads]


COUNTED = """
import sys
sys.path.insert(0, {scripts!r})
from snakemake.jobs import Job
from lib.engine import patches

def counted(*args, plain=Job.log_info, **options):
    print("told of a job")
    plain(*args, **options)

Job.log_info = counted
patches.spare_reports(workflow)
patches.spare_reports(workflow)

rule all:
    output: "a"
    shell: "touch a"
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--dry-run --quiet rules", False),
        ("--dry-run --quiet all", False),
        ("--dry-run --quiet progress", True),
        ("--dry-run", True),
        ("--quiet rules", True),
    ],
)
def test_only_a_quiet_dry_run_says_nothing_of_jobs(tmp_path, words, said):
    (tmp_path / "Snakefile").write_text(COUNTED.format(scripts=str(SCRIPTS)))
    argv = [sys.executable, "-m", "snakemake", "--cores", "1", *words.split()]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("told of a job") == said
    assert (tmp_path / "a").exists() == ("--dry-run" not in words)


def test_what_is_there_is_left_alone_by_the_collector(collector):
    patches.spare_collector()
    assert gc.isenabled() and gc.get_threshold() == patches.GENERATIONS
    assert gc.get_freeze_count() > 0


def test_later_looks_at_the_ready_jobs_do_not_multiply():
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0), _schedule_reevalutation=None)
    patches.look_once(scheduler)
    looks = 0
    for _ in range(3):
        for _ in range(50):
            scheduler._schedule_reevalutation(0.05)
        assert scheduler._open_jobs.acquire(timeout=10)
        time.sleep(0.2)
        while scheduler._open_jobs.acquire(blocking=False):
            looks += 1
    assert looks == 0


def test_this_snakemake_has_what_is_replaced():
    """Where not, plans and runs would silently be slow."""
    import inspect

    from snakemake.scheduling.job_scheduler import JobScheduler

    assert list(inspect.signature(JobScheduler._schedule_reevalutation).parameters)[1:] == ["delay"]
    assert "self._open_jobs.acquire()" in inspect.getsource(JobScheduler.schedule)
