"""A real Slurm on this machine alone: one node on loopback with eight pretend CPUs and four pretend GPUs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import debian

GPUS, CPUS, MEMORY_MB = 4, 8, 32_000
NAME = "policydistillation"
CONFIGURATION = Path("/etc/slurm")  # compiled in; SLURM_CONF does not survive the executor's job step
HOME = Path(tempfile.gettempdir()) / f"{NAME}-slurm"
PACKAGES = ("slurm-wlm", "munge")


class Unavailable(RuntimeError):
    """No Slurm can be had here, and why."""


def slurm_conf(host: str) -> str:
    return f"""ClusterName={NAME}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for its old credential to expire: seconds, by default 120.
AuthInfo=cred_expire=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={HOME}/state
SlurmdSpoolDir={HOME}/spool
SlurmctldPidFile={HOME}/slurmctld.pid
SlurmdPidFile={HOME}/slurmd.pid
SlurmctldLogFile={HOME}/slurmctld.log
SlurmdLogFile={HOME}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=10
# A step that ends while slurmctld is away waits for it; after 60 seconds, the default, slurmd gives up on the node.
UnkillableStepTimeout=600
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:a100:{GPUS} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=10 State=UP
PartitionName=gpu Nodes={host} MaxTime=7-00:00:00 PriorityTier=10 State=UP
PartitionName=scavenge Nodes={host} MaxTime=7-00:00:00 PriorityTier=1 PreemptMode=REQUEUE State=UP
"""


@contextlib.contextmanager
def running_cluster() -> Iterator[None]:
    """Install what is missing, start the cluster, and stop it at the end. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("needs root, to configure Slurm and to start its daemons")
    _install()
    existing = CONFIGURATION / "slurm.conf"
    if existing.exists() and f"ClusterName={NAME}\n" not in existing.read_text():
        raise Unavailable(f"{existing} belongs to a Slurm that this machine already has")
    HOME.mkdir(exist_ok=True)
    with open(HOME / "lock", "w") as lock:  # one test run at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        stop("slurmd")  # what a killed test run left behind
        stop("slurmctld")
        end_processes()
        try:
            _configure()
            start_munge()
            start("slurmctld")
            start("slurmd")
            wait_until_idle()
            yield
        finally:
            end_jobs()
            stop("slurmd")
            stop("slurmctld")
            stop("munged")
            end_processes()
            existing.unlink(missing_ok=True)  # else every start of Snakemake waits nine seconds for this Slurm


def _install() -> None:
    if all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        return
    try:
        debian.install(*PACKAGES)
    except RuntimeError as error:
        raise Unavailable(f"needs {' and '.join(PACKAGES)}: {error}") from None


def _configure() -> None:
    for name in ("state", "spool", "dev"):
        shutil.rmtree(HOME / name, ignore_errors=True)
        (HOME / name).mkdir()
    host = socket.gethostname().split(".")[0]
    for index in range(GPUS):  # slurmd wants device nodes: twins of /dev/null
        os.mknod(HOME / f"dev/gpu{index}", 0o666 | 0o020000, os.makedev(1, 3))
    CONFIGURATION.mkdir(exist_ok=True)
    (CONFIGURATION / "slurm.conf").write_text(slurm_conf(host))
    gpus = f"NodeName={host} Name=gpu Type=a100 File={HOME}/dev/gpu[0-{GPUS - 1}]\n"
    (CONFIGURATION / "gres.conf").write_text(gpus)
    (CONFIGURATION / "cgroup.conf").write_text("CgroupAutomount=no\n")


def start_munge() -> None:
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.parent.mkdir(mode=0o700, exist_ok=True)
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        shutil.chown(key, "munge", "munge")
        shutil.chown(key.parent, "munge", "munge")
    Path("/run/munge").mkdir(mode=0o755, exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    pid = HOME / "munged.pid"
    pid.unlink(missing_ok=True)
    pid.touch(mode=0o644)
    shutil.chown(pid, "munge", "munge")
    command = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", f"--pid-file={pid}"]
    subprocess.run(command, check=True)


def start(daemon: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    subprocess.run([daemon], check=True, env=environment, capture_output=True)


def stop(daemon: str) -> None:
    """End a daemon that we started, by its pid file, and wait for its end."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int((HOME / f"{daemon}.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline")
        deadline = time.monotonic() + 20
        while daemon in command.read_text() and time.monotonic() < deadline:  # a zombie's is empty
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.2)


def end_jobs() -> None:
    """Cancel all jobs and wait for their end: without slurmd they would live on."""
    subprocess.run(["scancel", "--user", "root"], check=False, capture_output=True)
    for _ in range(240):
        if not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=False).stdout.strip():
            return
        time.sleep(0.5)


def processes() -> list[int]:
    """Living ones of this cluster's jobs. One whose parent has gone escapes the signals of a cancelled job."""
    mine = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"SLURM_CLUSTER_NAME={NAME}".encode() in environment.read_bytes().split(b"\0"):
                mine.append(int(environment.parent.name))
    return mine


def end_processes() -> None:
    """Kill what the jobs left behind, and see that it is gone."""
    for _ in range(50):
        if not (left := processes()):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    raise RuntimeError(f"processes of jobs are still alive: {left}")


def wait_until_idle() -> None:
    for _ in range(120):
        state = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True, check=False).stdout
        if "idle" in state:
            return
        time.sleep(0.25)
    raise Unavailable(f"the node never became idle; see {HOME}/slurmctld.log and slurmd.log")
