"""A job in the warm process is what it is in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.engine import worker, workerprocess

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture
def server():
    server = worker.WarmWorker(SCRIPTS)
    yield server
    if server._process is not None:
        server.stop()


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "print('done')",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('no such frame')",
        "def divide():\n    return 1 / 0\n\n\ndivide()",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "raise KeyboardInterrupt",
        "import atexit; atexit.register(print, 'last words'); print('first', end='')",
        "import logging; logging.basicConfig(); logging.warning('seen')",
        "import threading as t, time\nt.Thread(target=lambda: time.sleep(0.1) or print(1)).start()",
        "import os, sys; print(sorted(os.environ), os.getcwd(), sys.argv, sys.path, __name__)",
        "import __main__; x = 5; print(__main__.x, __main__.__file__ == __file__)",
    ],
)
def test_same_words_and_exit_code_as_a_process_of_its_own(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = write(tmp_path / "job.py", text)
    environment = worker.job_environment(1)
    own = subprocess.run([sys.executable, script], capture_output=True, env=environment)
    asks = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.engine.worker import WarmWorker, job_environment\n"
        "code = WarmWorker(sys.argv[1]).run(sys.argv[2], job_environment(1))\n"
        "print('CODE', code)"
    )
    forked = subprocess.run(
        [sys.executable, "-c", asks, SCRIPTS, script], capture_output=True, env=environment
    )
    said, _, code = forked.stdout.decode().rpartition("CODE ")
    assert int(code) == own.returncode
    assert said == own.stdout.decode()
    assert forked.stderr.decode() == own.stderr.decode()


def test_jobs_are_apart(server, tmp_path):
    job = write(tmp_path / "job.py", "import sys, lib\nassert not hasattr(lib, 'mine')\nlib.mine=1")
    environment = worker.job_environment(1) | {"PYTHONPATH": str(SCRIPTS)}
    environment = {key: value for key, value in environment.items() if key != "TMPDIR"}
    text = Path(job).read_text()
    Path(job).write_text(f"import sys; sys.path.append({str(SCRIPTS)!r})\n{text}")
    assert [server.run(job, environment) for _ in range(3)] == [0, 0, 0]


SAY_PID = "import os; from pathlib import Path; Path('pid').write_text(str(os.getpid()))\n"


def frame_job(server, folder, text="", step="flatten", **environment):
    """Run a script as a step; return its exit code and process id."""
    script = write(folder / f"tmp1.{step}.py", SAY_PID + text)
    (folder / "pid").unlink(missing_ok=True)
    code = server.run(script, worker.job_environment(1) | environment)
    return code, waited_for(folder / "pid")


def test_frame_steps_share_a_process(server, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    says = (
        "import __main__, json, os, sys, warnings\n"
        "found = [os.getcwd(), os.environ.get('MINE'), sys.argv, sys.path[0], dir(__main__), []]\n"
        "warnings.showwarning = lambda message, *_: found[5].append(str(message))\n"
        "shared = vars(os).setdefault('__warningregistry__', {})\n"
        "for _ in range(2): warnings.warn_explicit('seen', UserWarning, 'os', 1, 'os', shared)\n"
        "Path('found').write_text(json.dumps(found))\n"
    )
    monkeypatch.chdir(tmp_path / "a")
    code, first = frame_job(server, tmp_path / "a", says + "left_over = 1\n", MINE="1")
    assert code == 0
    monkeypatch.chdir(tmp_path / "b")
    code, second = frame_job(server, tmp_path / "b", says)
    assert (code, second) == (0, first)
    one, two = (json.loads((tmp_path / name / "found").read_text()) for name in ("a", "b"))
    assert one[:2] == [str(tmp_path / "a"), "1"] and two[:2] == [str(tmp_path / "b"), None]
    assert two[2:4] == [[str(tmp_path / "b" / "tmp1.flatten.py")], str(tmp_path / "b")]
    assert "left_over" not in two[4]
    assert one[5] == two[5] == ["seen"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("os.kill(os.getpid(), 9)", -9),
        ("raise ValueError", 1),
        ("import threading as t, time; t.Thread(target=time.sleep, args=(1,)).start()", 0),
    ],
)
def test_after_a_job_that_ended_badly_comes_a_new_process(
    text, code, server, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    first = frame_job(server, tmp_path, text)
    second = frame_job(server, tmp_path)
    assert (first[0], second[0]) == (code, 0)
    assert first[1] != second[1] and is_gone(first[1])


def test_masters_and_stacks_go_on_in_a_process_too(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [frame_job(server, tmp_path, step=step) for step in ("flat", "prepare", "stack", "flat")]
    assert len(set(jobs)) == 1
    # Catalogue servers are asked by a process that ends.
    _, alone = frame_job(server, tmp_path, step="refcat")
    assert alone != jobs[0][1] and is_gone(alone)


def test_much_memory_is_given_back(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, first = frame_job(server, tmp_path)
    held = f"a = bytearray({workerprocess.MEMORY_LIMIT} * 2**20); a[::4096] = a[::4096]\ndel a\n"
    assert frame_job(server, tmp_path, held, step="stack") == (0, first)
    assert is_gone(first, 0.5 * workerprocess.IDLE_LIMIT)
    assert frame_job(server, tmp_path)[0] == 0


@pytest.mark.parametrize("runner", ["server", "server.branch()"])
def test_time_of_jobs_is_counted_when_the_warm_process_ends(runner, tmp_path):
    work = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
    job = write(tmp_path / "tmp1.flatten.py", work)
    asks = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.engine.worker import WarmWorker, job_environment\n"
        "server = WarmWorker(sys.argv[1])\n"
        f"{runner}.run(sys.argv[2], job_environment(1))\n"
        # Its process waits for another job.
        "server.stop()\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    argv = [sys.executable, "-c", asks, SCRIPTS, job]
    used = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    start = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.engine import workerprocess as warm; warm.load(warm.PRELOAD)\n"
        f"{'' if runner == 'server' else 'warm.load(warm.PRELOAD_STACK)'}\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    argv = [sys.executable, "-c", start, SCRIPTS]
    alone = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    # One start costs somewhat more than another.
    assert float(used) > 0.5 * float(alone) + 1


def test_process_without_a_job_ends_or_may_be_killed(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, first = frame_job(server, tmp_path)
    os.kill(first, signal.SIGKILL)
    assert is_gone(first)
    code, second = frame_job(server, tmp_path)
    assert code == 0 and second != first
    assert is_gone(second, 10 * workerprocess.IDLE_LIMIT)
    code, third = frame_job(server, tmp_path)
    assert code == 0 and third != second


def test_frame_steps_at_the_same_time_have_processes_of_their_own(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import os, sys, time; time.sleep(0.5); open(str(os.getpid()), 'a').write('x')"
    script = write(tmp_path / "crclean.py", text)
    for _ in range(2):
        threads = [
            threading.Thread(target=server.run, args=(script, worker.job_environment(1)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    jobs = [path.read_text() for path in tmp_path.iterdir() if path.name.isdigit()]
    assert jobs == ["xx"] * 3


def test_log_tells_what_each_job_of_a_process_has_used(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = (
        f"import sys; sys.path.append({str(SCRIPTS)!r})\n"
        "from lib.frame import step\n"
        "step.start_log('{log}')\n"
        "import numpy as np, time\n"
        "a = np.ones({number})\n"
        "end = time.process_time() + {seconds}\n"
        "while time.process_time() < end: pass\n"
        "del a\n"
    )
    first = frame_job(server, tmp_path, work.format(log="one", number="50_000_000", seconds=1.0))
    second = frame_job(server, tmp_path, work.format(log="two", number=1, seconds=0.0))
    assert first == second
    peaks, seconds = [], []
    for log in ("one", "two"):
        words = (tmp_path / log).read_text().split()
        peaks.append(float(words[words.index("memory") + 1]))
        seconds.append(float(words[words.index("CPU") + 1]))
    assert seconds[0] >= 1.0 > 0.5 > seconds[1]
    assert peaks[0] - peaks[1] > 300


def test_what_only_stacks_need_is_imported_for_them(tmp_path):
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    steps = ("prepare", "crclean", "solve", "stack")
    for step in steps:
        write(
            tmp_path / f"{step}.py",
            "import json, os, sys\n"
            "from pathlib import Path\n"
            "names = ('matplotlib.figure', 'scipy.spatial', 'lib.photometry.forced',"
            " 'lib.stack.resample')\n"
            "found = [os.getppid(), *(name in sys.modules for name in names)]\n"
            "Path(snakemake.output[0]).write_text(json.dumps(found))\n",
        )
    rules = "".join(
        f"rule {step}:\n    output: '{step}.json'\n    script: '{step}.py'\n" for step in steps
    )
    write(
        tmp_path / "Snakefile",
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from lib.engine import worker\n"
        "assert worker.attach(workflow, workflow.basedir + '/scripts') is not None\n"
        f"rule all:\n    input: {[f'{step}.json' for step in steps]}\n{rules}",
    )
    environment = {key: value for key, value in os.environ.items() if key != "AUTOPROC_WARM"}
    argv = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", tmp_path]
    subprocess.run(
        [*argv, "--snakefile", tmp_path / "Snakefile"],
        check=True, env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found = {step: json.loads((tmp_path / f"{step}.json").read_text()) for step in steps}
    assert [sum(found[step][1:]) for step in steps] == [0, 0, 4, 4]
    parents = [found[step][0] for step in steps]
    assert parents[0] == parents[1] != parents[3] == parents[3]


def test_jobs_run_at_the_same_time(server, tmp_path):
    slow = write(tmp_path / "slow.py", "import time; time.sleep(1)")
    server.run(write(tmp_path / "job.py", ""), worker.job_environment(1))
    codes = []
    begin = time.monotonic()
    threads = [
        threading.Thread(target=lambda: codes.append(server.run(slow, worker.job_environment(1))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    assert time.monotonic() - begin < 3


def test_environment_of_a_job(tmp_path):
    environment = worker.job_environment(1, "/scratch")
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["TMPDIR"] == "/scratch"


def test_each_job_is_told_the_threads_of_its_rule(tmp_path):
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    write(
        tmp_path / "job.py",
        "import json, os\n"
        "from pathlib import Path\n"
        "warm = b'workerprocess.py' in Path(f'/proc/{os.getppid()}/cmdline').read_bytes()\n"
        "found = {'environment': dict(os.environ), 'warm': warm}\n"
        "Path(snakemake.output[0]).write_text(json.dumps(found))\n",
    )
    write(
        tmp_path / "Snakefile",
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from lib.engine import worker\n"
        "assert worker.attach(workflow, workflow.basedir + '/scripts') is not None\n"
        "rule all:\n    input: 't1.json', 't2.json'\n"
        "rule job:\n    output: 't{n}.json'\n    threads: lambda wildcards: int(wildcards.n)\n"
        "    script: 'job.py'\n",
    )
    environment = {key: value for key, value in os.environ.items() if key != "AUTOPROC_WARM"}
    environment |= dict.fromkeys(worker.THREAD_VARIABLES, "7")
    argv = [sys.executable, "-m", "snakemake", "--cores", "8", "--directory", tmp_path]
    subprocess.run(
        [*argv, "--snakefile", tmp_path / "Snakefile"],
        check=True, env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for threads in (1, 2):
        found = json.loads((tmp_path / f"t{threads}.json").read_text())
        told = {found["environment"].get(name) for name in worker.THREAD_VARIABLES}
        assert told == {str(threads)}
        assert found["warm"] == (threads == 1)


@pytest.mark.parametrize("branches", [False, True])
def test_job_dies_with_the_warm_process_and_the_next_is_refused(branches, server, tmp_path):
    pid_file = tmp_path / "pid"
    job = write(
        tmp_path / "job.py",
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    codes = []
    runner = server.branch() if branches else server
    thread = threading.Thread(
        target=lambda: codes.append(runner.run(job, worker.job_environment(1)))
    )
    thread.start()
    pid = waited_for(pid_file)
    server._process.kill()
    thread.join(10)
    assert codes == [-signal.SIGKILL]
    assert is_gone(pid)
    for one in (runner, server.branch()):
        with pytest.raises(worker.Unavailable):
            one.run(job, worker.job_environment(1))


def test_killed_branch_leaves_the_warm_process_alone(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    branch = server.branch()
    script = write(
        tmp_path / "tmp1.stack.py", "import os; open('pid', 'w').write(str(os.getppid()))"
    )
    assert branch.run(script, worker.job_environment(1)) == 0
    os.kill(waited_for(tmp_path / "pid"), signal.SIGKILL)
    assert is_gone(waited_for(tmp_path / "pid"))
    with pytest.raises(worker.Unavailable):
        branch.run(script, worker.job_environment(1))
    assert frame_job(server, tmp_path)[0] == 0


@pytest.mark.parametrize("runner", ["server", "server.branch()"])
def test_killed_snakemake_leaves_no_process(runner, tmp_path):
    pid_file = tmp_path / "pid"
    job = write(
        tmp_path / "job.py",
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    asks = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.engine.worker import WarmWorker, job_environment\n"
        "server = WarmWorker(sys.argv[1])\n"
        f"{runner}.run(sys.argv[2], job_environment(1))"
    )
    with subprocess.Popen([sys.executable, "-c", asks, SCRIPTS, job]) as parent:
        pid = waited_for(pid_file)
        parent.kill()
    assert is_gone(pid)


def test_no_warm_process_without_an_interpreter(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(worker.Unavailable):
        server.run("job.py", {})


def test_this_snakemake_can_be_attached_to():
    """What `attach` relies on is there; where not, jobs would silently run slowly."""
    import inspect

    from snakemake.api import Workflow
    from snakemake.script import PythonScript, ScriptBase
    from snakemake_interface_executor_plugins.settings import CommonSettings

    assert list(inspect.signature(PythonScript.execute_script).parameters)[:2] == ["self", "fname"]
    known = inspect.signature(ScriptBase.__init__).parameters
    needed = {"container_img", "conda_env", "env_modules", "bench_record", "threads", "resources"}
    assert needed | {"is_local"} <= set(known)
    assert "executor_plugin" in inspect.signature(Workflow.execute).parameters
    kinds = {"dryrun_exec", "touch_exec", "non_local_exec"}
    assert kinds <= set(inspect.signature(CommonSettings).parameters)


@pytest.mark.parametrize("kind", ["local_exec", "dryrun_exec", "touch_exec", "non_local_exec"])
def test_started_while_snakemake_plans(kind, server, tmp_path):
    """A dry run and the like have nothing for it to do, and a cluster has jobs of its own."""
    settings = dict.fromkeys(("dryrun_exec", "touch_exec", "non_local_exec"), False)
    executor = SimpleNamespace(common_settings=SimpleNamespace(**settings | {kind: True}))
    started = []

    class Workflow:
        def execute(self, executor_plugin, updated_files):
            started.append(server._process is not None)
            return executor_plugin is executor and updated_files

    workflow = Workflow()
    worker.start_early(workflow, server)
    process = server._process
    assert process.poll() is None
    assert workflow.execute(executor_plugin=executor, updated_files=["a"]) == ["a"]
    assert started == [kind == "local_exec"]
    assert (process.poll() is None) == started[0]
    # What is left to do here, as a local rule of a cluster, has one again.
    assert server.run(write(tmp_path / "job.py", "pass"), worker.job_environment(1)) == 0


def test_warm_process_that_nobody_asked_ends_at_once(tmp_path):
    scripts = tmp_path / "scripts"
    (scripts / "lib").mkdir(parents=True)
    (scripts / "lib" / "__init__.py").touch()
    (scripts / "lib/frame").mkdir()
    (scripts / "lib/frame/__init__.py").touch()
    # As slow to get ready as can be.
    (scripts / "lib" / "frame" / "step.py").write_text("import time; time.sleep(60)\n")
    unused = worker.WarmWorker(scripts)
    unused.start()
    process = unused._process
    begun = time.monotonic()
    unused.stop()
    assert time.monotonic() - begun < 5 and process.returncode is not None


def test_branch_that_nobody_asked_ends_at_once(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "lib").symlink_to(SCRIPTS / "lib")
    write(
        scripts / "solve.py",
        "import os, time\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)\n",
    )
    server = worker.WarmWorker(scripts)
    server.branch().start()
    pid = waited_for(tmp_path / "pid")
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 5 and is_gone(pid, 1)


def waited_for(path, seconds=20):
    """Return the number that a file holds, once it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise TimeoutError(path)


def is_gone(pid, seconds=10):
    """Return whether a process ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
