"""A warm process that runs the rules' scripts, so that packages are imported once a run.

Snakemake starts an interpreter for each job, which imports numpy and astropy anew: half a second of
CPU, more than a step's work on a small frame. Here one process, started at once, imports
what the steps share and then waits; each job is a fork of it, which has all that loaded. The jobs
of whole stacks, which need more, are forks of a branch of it that imports that, too. Whatever else
a job is, it stays: a process of its own, with its own exit code, environment and memory. Only jobs
of the same kind of step go on in the process of the one before, if that ended well and did not take
much memory: a sixth to a third of their time is memory that the kernel clears for a new process.

Other jobs with more than one thread, jobs in containers or in conda environments, and all jobs
where the warm process cannot be had, run as Snakemake runs them. So do all with
``AUTOPROC_WARM=0``.

The two processes talk over a socket pair, which has no name on disk: nothing is left behind by a
crash, and when one of the two ends, the other sees the end of the stream.
"""

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

PRELOAD = (
    "snakemake.logging",
    "snakemake.io",
    "snakemake.iocontainers",
    "lib.frame.step",
    "lib.frame.fitsbytes",
    "lib.calibration.prepare",
    "lib.calibration.cosmicrays",
    "lib.background.flatten",
    "lib.background.sky",
    "lib.core.combination",
    "lib.calibration.masters",
    "lib.background.mastersky",
    "astropy.table",
    "scipy.fft",
    "scipy.ndimage",
    "sep",
)
"""What the steps of frames, masters and skies import."""

PRELOAD_LATER = (
    "solve",
    "stack",
    "lib.photometry.forced",
    "lib.report.page",
    "astropy.io.ascii",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "scipy.interpolate",
    "scipy.sparse.csgraph",
    "scipy.sparse.linalg",
    "scipy.spatial",
)
"""What the steps of whole stacks import besides."""

LATER_STEPS = ("solve", "stack", "tables", "lightcurve", "night")
"""They have a warm process of their own, a branch of the other, with any number of threads: these
are of our own making, not of a library that has been loaded for one."""

FRAME_STEPS = ("prepare", "flatten", "skysub", "crclean", "astrometry")

HANDED_ON = ("bias", "dark", "flat", "makesky", *FRAME_STEPS, *LATER_STEPS)
"""Their jobs leave nothing open but their log: another may follow in the same process."""

MUCH_MEMORY = 600
"""[MB] A job that has held more ends its process, so that all of it is free."""

IDLE_PATIENCE = 1.0
"""[s] After which a process without a job ends, and its memory is free."""

BEFORE_LATER = ("skysub", "crclean")
"""Steps of frames at whose first job it is started, so that it is ready when it is needed."""

BRANCH = {"branch": True}
"""Request for that process instead of a job's; the socket that comes with it is its control."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What Snakemake sets to the threads of a job."""

MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=67108864"
    ":glibc.malloc.trim_threshold=134217728"
)
"""Tunables of glibc: arrays take memory anew and page by page for each operation otherwise."""

COLLECTOR = (20_000, 10, 10)
"""Thresholds of the garbage collector: arrays are freed without it, and it looks at every header
card that is alive."""

TEMPORARY_VARIABLES = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")

LONGEST_REQUEST = 1 << 20
"""[byte] Of a job's environment and names, so many can be sent."""

STOP_PATIENCE = 10.0
"""[s] After which it is killed."""

PR_SET_PDEATHSIG = 1


# --- In the process of Snakemake -----------------------------------------------------------


class Unavailable(Exception):
    """The warm process could not be started, or has ended."""


class Warm:
    """The warm process, seen from Snakemake; started by the first job, if not before.

    Parameters
    ----------
    scripts : path-like
        Directory of the scripts, from which `PRELOAD` is imported.
    """

    def __init__(self, scripts):
        self.scripts = str(scripts)
        self._control = None
        self._process = None
        self._asked = False
        self._guard = threading.Lock()
        self._branch = None

    def branch(self):
        """Return the fork of the process that imports `PRELOAD_LATER`, too; not started yet."""
        self._branch = self._branch or Branch(self)
        return self._branch

    def start(self):
        """Start the process, if that has not been done; it gets ready while others work.

        Raises
        ------
        Unavailable
        """
        with self._guard:
            if self._control is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    self._start(theirs)
                except Unavailable:
                    ours.close()
                    raise
                finally:
                    theirs.close()
                self._control = ours

    def _start(self, theirs):
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        environment.setdefault("GLIBC_TUNABLES", MALLOC)
        argv = [sys.executable, __file__, str(theirs.fileno()), self.scripts]
        try:
            self._process = subprocess.Popen(
                argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        except OSError as error:
            raise Unavailable(str(error)) from error
        atexit.register(self.stop)

    def stop(self):
        """End the warm process, its branch, and with them the jobs that still run.

        Another job would start it again.
        """
        if self._branch is not None:
            self._branch.stop()
        self.close()
        atexit.unregister(self.stop)
        if not self._asked:
            self._process.kill()
        try:
            self._process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self):
        """Tell the process to end."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def send(self, request, reply):
        """Hand a request and the socket for its answer to the warm process.

        Raises
        ------
        Unavailable
        """
        words = json.dumps(request).encode()
        if len(words) > LONGEST_REQUEST:
            raise Unavailable(f"request of {len(words)} bytes")
        self.start()
        # Snakemake calls from several threads: a request must go out in one piece.
        with self._guard:
            self._asked = True
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reply.fileno()]))]
            try:
                send(self._control, words, rights)
            except OSError as error:
                raise Unavailable(str(error)) from error

    def run(self, script, environment):
        """Run a script to its end.

        Parameters
        ----------
        script : str
            Path of the file that Snakemake made for the job.
        environment : dict of str to str

        Returns
        -------
        int
            Exit code; of a job killed by a signal its number, negative, and so also where the
            warm process has died with it.

        Raises
        ------
        Unavailable
            The job has not begun.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            with theirs:
                request = {"script": script, "environment": environment, "cwd": os.getcwd()}
                self.send(request, theirs)
            begun = ours.recv(1)
            if not begun:
                raise Unavailable("it ended before the job began")
            status = b""
            while len(status) < 4:
                part = ours.recv(4 - len(status))
                if not part:
                    return -signal.SIGKILL
                status += part
        return int.from_bytes(status, "big", signed=True)


class Branch(Warm):
    """A fork of the warm process that imports `PRELOAD_LATER`, too.

    Parameters
    ----------
    stem : Warm
        It ends with that.
    """

    def __init__(self, stem):
        super().__init__(stem.scripts)
        self.stem = stem

    def _start(self, theirs):
        self.stem.send(BRANCH, theirs)

    def stop(self):
        """Tell the branch to end, for which its stem waits when that ends."""
        self.close()


def send(stream, words, rights=()):
    """Send words, their number before them, as `receive` takes them."""
    stream.sendmsg([len(words).to_bytes(4, "big")], rights)
    stream.sendall(words)


def step_of(script):
    """Return the step of a script that Snakemake made: tmp….<step>.py."""
    return os.path.basename(script).removesuffix(".py").rpartition(".")[2]


def job_environment(threads, tmpdir=None):
    """Return the environment that Snakemake gives a job of so many threads."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    if tmpdir:
        environment |= dict.fromkeys(TEMPORARY_VARIABLES, tmpdir)
    return environment


def attach(workflow):
    """Let the scripts of a workflow's rules run in forks of a warm process.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow

    Returns
    -------
    Warm or None
        None where it is switched off, or where this Snakemake runs scripts in another way than
        is known here.
    """
    from snakemake.script import PythonScript

    if os.environ.get("AUTOPROC_WARM") == "0" or not hasattr(PythonScript, "execute_script"):
        return None
    scripts = os.path.join(workflow.basedir, "scripts")
    warm = Warm(scripts)
    later = warm.branch()
    plain = getattr(PythonScript.execute_script, "plain", PythonScript.execute_script)

    def execute_script(self, fname, edit=False):
        special = (
            self.container_img is not None
            or self.conda_env is not None
            or self.env_modules is not None
            or self.bench_record is not None
        )
        step = step_of(fname)
        if special or (self.threads != 1 and step not in LATER_STEPS) or not self.is_local:
            return plain(self, fname, edit)
        environment = job_environment(self.threads, self.resources.get("tmpdir"))
        try:
            if step in BEFORE_LATER:
                later.start()
            code = (later if step in LATER_STEPS else warm).run(fname, environment)
        except Unavailable:
            return plain(self, fname, edit)
        if code:
            raise subprocess.CalledProcessError(code, f"{sys.executable} {fname}")

    execute_script.plain = plain
    PythonScript.execute_script = execute_script
    # A job of a cluster may have no use for it.
    if not workflow.remote_exec:
        start_for(workflow, warm)
    return warm


def start_for(workflow, warm):
    """Start a warm process while Snakemake finds out what there is to do.

    Snakemake tells only afterwards whether it is to run jobs here: if not, the process ends again.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    warm : Warm
    """
    execute = workflow.execute

    def execute_warm(executor_plugin, **settings):
        kind = executor_plugin.common_settings
        # On a cluster the jobs run elsewhere.
        if kind.dryrun_exec or kind.touch_exec or kind.non_local_exec:
            warm.stop()
        return execute(executor_plugin=executor_plugin, **settings)

    # Else the first job tries again.
    with contextlib.suppress(Unavailable):
        warm.start()
        workflow.execute = execute_warm


# --- In the warm process -------------------------------------------------------------------


def die_with_parent():
    """Let the kernel end this process when the one that forked it ends."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):  # not Linux
        return


def receive(stream):
    """Return the next request and the socket for its answer, if one came; None at the end."""
    head, rights, _, _ = stream.recvmsg(4, socket.CMSG_SPACE(array.array("i").itemsize))
    if not head:
        return None
    numbers = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    left = int.from_bytes(head, "big")
    words = bytearray()
    while len(words) < left:
        part = stream.recv(left - len(words))
        if not part:
            return None
        words += part
    return json.loads(words), socket.socket(fileno=numbers[0]) if numbers else None


def load(names):
    """Import modules that the forks will share."""
    for name in names:
        importlib.import_module(name)
    # Else the first collection in each fork would copy every page that holds an object.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


@dataclass
class Worker:
    """A fork of the warm process.

    Parameters
    ----------
    link : socket.socket
        To it: requests one way, a byte for each job that ended well the other.
    reply : socket.socket or None
        For the exit code of its job; None where it has no job.
    idle_since : float
    """

    link: socket.socket
    reply: socket.socket | None
    idle_since: float = 0.0

    def end(self, code):
        """Tell Snakemake the exit code of the job, if there is one."""
        if self.reply is not None:
            answer(self.reply, code.to_bytes(4, "big", signed=True))
            self.reply.close()
            self.reply = None


def serve(control):
    """Give each request to a process, a new fork or one that has no job.

    Parameters
    ----------
    control : socket.socket

    Returns
    -------
    request : dict or None
        In a fork its first request; None at the end.
    link : socket.socket or None
        In a fork, to the warm process; in a branch its control.
    """
    # A child's end wakes the loop through this pipe.
    wake, tell = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(tell, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    workers, branches = {}, set()
    while True:
        busy = {one.link: one for one in workers.values() if one.reply}
        patience = IDLE_PATIENCE if len(busy) < len(workers) else None
        ready, _, _ = select.select([control, wake, *busy], [], [], patience)
        for worker in (busy[link] for link in ready if link in busy):
            # Else it has ended, of which the system tells more.
            if has_said(worker.link):
                worker.end(0)
                worker.idle_since = time.monotonic()
        if wake in ready:
            os.read(wake, 4096)
            report(workers, branches)
        dismiss_idle(workers)
        if control not in ready:
            continue
        received = receive(control)
        if received is None:
            for pid in (*workers, *branches):
                os.kill(pid, signal.SIGTERM)
            # So that the time they used is counted.
            for pid in (*workers, *branches):
                os.waitpid(pid, 0)
            return None, None
        request, reply = received
        branches_off = request == BRANCH
        if not branches_off and hand_on(request, reply, workers):
            continue
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent()
            link, unused = (reply, theirs) if branches_off else (theirs, reply)
            others = [end for one in workers.values() for end in (one.link, one.reply) if end]
            for one in (control, unused, ours, *others):
                one.close()
            os.close(wake)
            os.close(tell)
            return request, link
        theirs.close()
        if branches_off:
            branches.add(pid)
            ours.close()
            reply.close()
        else:
            workers[pid] = Worker(ours, reply)
            answer(reply, b"+")


def has_said(link):
    """Read a byte from a process; return whether there was one."""
    try:
        return bool(link.recv(1))
    except OSError:
        return False


def hand_on(request, reply, workers):
    """Give a request to a process that has no job; return whether that was possible."""
    if step_of(request["script"]) not in HANDED_ON:
        return False
    for worker in workers.values():
        if worker.reply is None and worker.link.fileno() >= 0:
            try:
                send(worker.link, json.dumps(request).encode())
            except OSError:  # killed
                continue
            worker.reply = reply
            answer(reply, b"+")
            return True
    return False


def report(workers, branches):
    """Tell Snakemake the exit codes of the processes that have ended."""
    while workers or branches:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in branches:
            branches.remove(pid)
            continue
        worker = workers.pop(pid)
        worker.end(os.waitstatus_to_exitcode(status))
        worker.link.close()


def dismiss_idle(workers):
    """Let the processes end that have had no job for long."""
    long_ago = time.monotonic() - IDLE_PATIENCE
    for worker in workers.values():
        if worker.reply is None and worker.idle_since < long_ago:
            worker.link.close()


def answer(reply, words):
    """Send an answer; where nobody listens any more, the control socket will say so."""
    try:
        reply.sendall(words)
    except OSError:
        return


def run_script(request, path):
    """Run a script as ``python script`` does.

    Parameters
    ----------
    request : dict
    path : list of str
        `sys.path` of a fresh interpreter.
    """
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    script = request["script"]
    sys.argv[:] = [script]
    sys.path[:] = [os.path.dirname(script), *path]
    main = types.ModuleType("__main__")
    main.__file__ = script
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    exec(code, main.__dict__)


def leave(code):
    """End the process as an interpreter does, but without taking its modules apart.

    That would copy every page that a fork shares with its parent.
    """
    # A traceback begins in the script, not here.
    kind, error, trace = sys.exc_info()
    if kind is not None and kind is not SystemExit:
        while trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(kind, error.with_traceback(trace), trace)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if kind is KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def may_stay(request):
    """Tell whether the process of a job that ended well may take another."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    known = step_of(request["script"]) in HANDED_ON
    return known and held < MUCH_MEMORY and threading.active_count() == 1


def next_request(link):
    """Say that the job ended well, and wait for another; return None where none comes.

    Parameters
    ----------
    link : socket.socket
        To the warm process.

    Returns
    -------
    dict or None
    """
    importlib.import_module("lib.frame.step").end_log()
    # Ctrl-C ends a process without a job.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        link.sendall(b".")
        received = receive(link)
    except OSError:
        received = None
    forget_peak()
    # Its end lets what was warned of once be warned of again.
    with warnings.catch_warnings():
        pass
    return received and received[0]


def forget_peak():
    """Let the kernel measure the peak memory of this process anew (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def exit_code(stop):
    """Return the exit code that a SystemExit stands for; a message is printed."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def main():
    """Import what is shared, serve, and in each fork run the script."""
    # Ctrl-C reaches the jobs, being in the same group; this process ends with Snakemake.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number, scripts = sys.argv[1:]
    path = sys.path[1:]
    control = socket.socket(fileno=int(number))
    sys.path[0] = scripts
    load(PRELOAD)
    request, link = serve(control)
    if request == BRANCH:
        load(PRELOAD_LATER)
        # It ends with its control, once its jobs have.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        request, link = serve(link)
    while request is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            run_script(request, path)
            code = 0
        except SystemExit as stop:
            code = exit_code(stop)
        finally:
            if code or not may_stay(request):
                leave(code)
        request = next_request(link)
    leave(0)


if __name__ == "__main__":
    main()
