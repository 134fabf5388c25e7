"""A Slurm of its own for a test, from Debian's packages: one machine is controller and node.

Ports, keys and state are its own, in a temporary directory, so that it disturbs no other.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "munged")

CONFIGURATION = """\
ClusterName=autoproc
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge/socket
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
# Without cgroups memory is looked after by polling.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=300
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=night Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Return why no Slurm can be started here; empty where one can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    if os.getuid() != 0:
        return "Slurm's daemons are started as root"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "there is no user munge"
    return ""


def free_ports(count):
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """A running Slurm, to be used as a context.

    Parameters
    ----------
    cpus : int
        As many as the node is said to have; there need not be so many.
    memory : int
        MB, the same.
    """

    def __init__(self, cpus=4, memory=12000):
        self.cpus, self.memory = cpus, memory
        self.daemons = []

    def __enter__(self):
        # Not below pytest's directories, which user munge may not enter.
        self.state = Path(tempfile.mkdtemp(prefix="autoproc-slurm-"))
        self.state.chmod(0o755)
        self.host = socket.gethostname().split(".")[0]
        configuration = self.state / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host=self.host,
                state=self.state,
                ports=free_ports(2),
                cpus=self.cpus,
                memory=self.memory,
            )
        )
        self.environment = os.environ | {
            "SLURM_CONF": str(configuration),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        for name in ("controller", "node"):
            (self.state / name).mkdir()
        try:
            self.start_munge()
            self.start("slurmctld", "-D", "-i")
            self.start("slurmd", "-D", "-N", self.host)
            self.wait_for("a node", lambda: "idle" in self.call("sinfo", "-h", "-o", "%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_munge(self):
        munge = self.state / "munge"
        munge.mkdir()
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        user = pwd.getpwnam("munge")
        for path in (munge, key):
            os.chown(path, user.pw_uid, user.pw_gid)
        munge.chmod(0o755)
        names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid",
                 "seed-file": "seed"}  # fmt: skip
        options = [f"--{option}={munge / name}" for option, name in names.items()]
        self.start("munged", "--foreground", *options, user="munge")
        self.wait_for("munge", (munge / "socket").exists)

    def start(self, *argv, user=None):
        with open(self.state / f"{argv[0]}.out", "w") as out:
            self.daemons.append(
                subprocess.Popen(
                    [shutil.which(argv[0], path=self.environment["PATH"]), *argv[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    user=user,
                )
            )

    def wait_for(self, what, condition, seconds=60):
        """Wait until a condition holds.

        Raises
        ------
        RuntimeError
            With what the daemons said.
        """
        end = time.monotonic() + seconds
        while not condition():
            dead = [one.args[0] for one in self.daemons if one.poll() is not None]
            if dead or time.monotonic() > end:
                logs = [*self.state.glob("*.log"), *self.state.glob("*.out")]
                said = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in logs)
                raise RuntimeError(f"no {what}; ended: {dead}\n{said}")
            time.sleep(0.2)

    def call(self, *argv):
        """Return what a command of Slurm says."""
        done = subprocess.run(
            argv, capture_output=True, text=True, env=self.environment, check=False
        )
        return done.stdout

    def jobs(self):
        """Return the jobs that Slurm knows: number, state, memory, and Snakemake's comment."""
        lines = self.call("squeue", "--states=all", "-h", "-o", "%i|%T|%m|%k").splitlines()
        return sorted((line.split("|", 3) for line in lines), key=lambda job: int(job[0]))

    def log(self):
        """Return the log of the node."""
        return (self.state / "slurmd.log").read_text()

    def __exit__(self, *_):
        self.call("scancel", "--user=root")
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.state, ignore_errors=True)
