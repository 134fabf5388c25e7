"""What is added to Snakemake can be lost, by choice or with a release, but no run with it."""

import gc
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.engine import install as engine
from lib.engine import patches, progress, worker
from lib.engine.commandline import describes_rules

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


class Modifier:
    def __init__(self, is_main=True):
        self.is_main = is_main

    def is_main_snakefile(self):
        return self.is_main


class Cache:
    def open(self, source_file, mode="r"):
        raise NotImplementedError

    def exists(self, source_file):
        return True

    def get_path(self, source_file):
        return "path"


def workflow(**changes):
    """Return as much of a workflow as is looked at."""
    settings = SimpleNamespace(
        dryrun=False, verbose=False, debug_dag=False, printshellcmds=False, quiet=set()
    )
    usual = {
        "output_settings": settings,
        "is_main_process": True,
        "modifier": Modifier(),
        "sourcecache": Cache(),
        "remote_exec": True,
        "execute": lambda executor_plugin: None,
    }
    return SimpleNamespace(**usual | changes)


@pytest.fixture
def snakemake(monkeypatch):
    """Stand-ins for all that is changed for good, with a terminal handler of Snakemake's."""

    class PythonScript:
        container_img = conda_env = env_modules = bench_record = None
        is_local, threads = True, 1
        resources = {"tmpdir": "/tmp"}

        def execute_script(self, fname, edit=False):
            return "plain"

    script = SimpleNamespace(PythonScript=PythonScript)
    monkeypatch.setitem(sys.modules, "snakemake.script", script)
    for name in ("AUTOPROC_PLAIN", "AUTOPROC_WARM"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger(progress.SNAKEMAKE_LOGGER)
    before, level = list(logger.handlers), logger.level
    handler = logging.StreamHandler(open(os.devnull, "w"))
    handler.name = "DefaultStreamHandler"
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    thresholds = gc.get_threshold()
    yield SimpleNamespace(PythonScript=PythonScript, handler=handler, modules=sys.modules)
    handler.stream.close()
    logger.handlers[:] = before
    logger.setLevel(level)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def added(snakemake, flow, terminal):
    """Return the names of what has been added."""
    execute = vars(snakemake.PythonScript).get("execute_script")
    found = {
        "worker": hasattr(execute, "plain"),
        "progress": terminal.progress is not None,
        "sources": "open" in vars(getattr(flow, "sourcecache", None) or Cache()),
        "collector": gc.get_threshold() == patches.GC_THRESHOLDS,
    }
    return {name for name, there in found.items() if there}


EVERYTHING = {"worker", "progress", "sources", "collector"}


def test_everything_is_added(snakemake):
    flow = workflow()
    assert added(snakemake, flow, engine.install(flow, SCRIPTS)) == EVERYTHING


@pytest.mark.parametrize(
    ("variable", "value", "kept"),
    [
        ("AUTOPROC_PLAIN", "1", set()),
        ("AUTOPROC_PLAIN", "0", EVERYTHING),
        ("AUTOPROC_PLAIN", "", EVERYTHING),
        ("AUTOPROC_WARM", "0", EVERYTHING - {"worker"}),
    ],
)
def test_switches(snakemake, monkeypatch, variable, value, kept):
    monkeypatch.setenv(variable, value)
    flow = workflow()
    assert added(snakemake, flow, engine.install(flow, SCRIPTS)) == kept


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("output_settings", {"progress"}),
        ("output_settings.dryrun", {"progress"}),
        ("output_settings.verbose", {"progress"}),
        ("output_settings.debug_dag", {"progress"}),
        ("output_settings.printshellcmds", {"progress"}),
        ("output_settings.quiet", {"progress"}),
        ("is_main_process", {"progress"}),
        ("modifier", {"progress"}),
        ("sourcecache", {"sources"}),
        ("remote_exec", set()),
        ("execute", set()),
    ],
)
def test_workflow_that_lacks_an_attribute_loses_that_addition_alone(snakemake, name, lost):
    flow = workflow()
    *path, last = name.split(".")
    delattr(getattr(flow, path[0]) if path else flow, last)
    terminal = engine.install(flow, SCRIPTS)
    assert added(snakemake, flow, terminal) == EVERYTHING - lost


@pytest.mark.parametrize(
    ("module", "lost"),
    [("snakemake.script", {"worker"})],
)
def test_module_that_is_not_there(snakemake, monkeypatch, module, lost):
    monkeypatch.setitem(sys.modules, module, None)
    flow = workflow()
    assert added(snakemake, flow, engine.install(flow, SCRIPTS)) == EVERYTHING - lost


def other_parameters(self, name):
    return None


@pytest.mark.parametrize("change", ["removed", "other parameters", "no class"])
def test_scripts_run_in_another_way(snakemake, change):
    if change == "no class":
        del sys.modules["snakemake.script"].PythonScript
    elif change == "removed":
        del snakemake.PythonScript.execute_script
    else:
        snakemake.PythonScript.execute_script = other_parameters
    flow = workflow()
    assert added(snakemake, flow, engine.install(flow, SCRIPTS)) == EVERYTHING - {"worker"}


@pytest.mark.parametrize(
    "name", ["container_img", "conda_env", "env_modules", "bench_record", "is_local", "threads"]
)
def test_job_that_lacks_an_attribute_is_run_by_snakemake(snakemake, monkeypatch, name):
    monkeypatch.setattr(worker.WarmWorker, "run", lambda *args: pytest.fail("went to the worker"))
    engine.install(workflow(), SCRIPTS)
    delattr(snakemake.PythonScript, name)
    assert snakemake.PythonScript().execute_script("tmp1.prepare.py") == "plain"


def test_job_without_resources_is_the_workers_all_the_same(snakemake, monkeypatch):
    environments = []
    monkeypatch.setattr(
        worker.WarmWorker, "run", lambda self, script, given: environments.append(given) or 0
    )
    engine.install(workflow(), SCRIPTS)
    snakemake.PythonScript().execute_script("tmp1.prepare.py")
    del snakemake.PythonScript.resources
    snakemake.PythonScript().execute_script("tmp1.prepare.py")
    assert environments[0]["TMPDIR"] == "/tmp" and len(environments) == 2


def test_executor_that_tells_nothing_of_itself(monkeypatch):
    started = []
    warm = SimpleNamespace(start=lambda: started.append(1), stop=lambda: pytest.fail("ended"))
    flow = workflow(execute=lambda *args, **settings: (args, settings))
    worker.start_early(flow, warm)
    assert flow.execute("plugin", more=1) == (("plugin",), {"more": 1})
    assert flow.execute() == ((), {}) and started == [1]


def test_module_of_another_workflow_leaves_the_terminal_alone(snakemake):
    flow = workflow(modifier=Modifier(is_main=False))
    terminal = engine.install(flow, SCRIPTS)
    assert added(snakemake, flow, terminal) == EVERYTHING - {"progress"}


def test_terminal_without_progress(capsys):
    terminal = engine.Terminal()
    terminal.begin(quiet=True)
    terminal.say("done")
    terminal.end()
    assert capsys.readouterr().err == "done\n"


@pytest.mark.parametrize(
    ("argv", "described"),
    [
        (["snakemake", "--lint"], True),
        (["snakemake", "--lint", "json"], True),
        (["snakemake", "--list-rules"], True),
        (["snakemake", "--cores", "2", "--config", "datadir=raw"], False),
        (["--lint"], False),
    ],
)
def test_command_lines_that_describe_the_rules(argv, described):
    assert describes_rules(argv) == described


RUN = """
import sys
sys.path.insert(0, {scripts!r})
{change}
from lib.engine.install import install
TERMINAL = install(workflow, {scripts!r})

rule job:
    output: "a"
    script: "job.py"

onstart:
    TERMINAL.begin()

onsuccess:
    TERMINAL.end()
"""

CHANGES = {
    "nothing": "",
    "scripts": (
        "from snakemake.script import PythonScript\n"
        "plain = PythonScript.execute_script\n"
        "PythonScript.execute_script = lambda self, path, edit=False: plain(self, path, edit)"
    ),
    "sources": (
        "cache, plain = workflow.sourcecache, workflow.sourcecache.open\n"
        "cache.open = lambda file, mode='r': plain(file, mode)"
    ),
    "terminal": (
        "import logging\n"
        "for handler in logging.getLogger('snakemake.logging').handlers:\n"
        "    handler.name = 'Other'"
    ),
    "records": (
        "import logging\n"
        "def strip(record):\n"
        "    vars(record).pop('job_id', None)\n"
        "    return True\n"
        "logging.getLogger('snakemake.logging').addFilter(strip)"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_run_goes_on_where_snakemake_differs(tmp_path, change):
    (tmp_path / "job.py").write_text("open(snakemake.output[0], 'w').write('done')\n")
    (tmp_path / "Snakefile").write_text(RUN.format(scripts=str(SCRIPTS), change=CHANGES[change]))
    argv = [sys.executable, "-m", "snakemake", "--cores", "1"]
    environment = {key: value for key, value in os.environ.items() if "AUTOPROC" not in key}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").read_text() == "done"
    assert "Traceback" not in done.stderr
    shows_progress = "1 done" in done.stderr
    assert shows_progress == (change not in ("terminal", "records"))
    # Without Snakemake's own terminal there is nothing to take the place of.
    told = change not in ("nothing", "terminal")
    assert ("autoproc" in done.stderr) == told, done.stderr
