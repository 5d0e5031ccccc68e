"""What this machine has, for jobs that share it, and which of its GPUs a job takes.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_mb() -> int:
    """Memory of this machine or, if that is less, of the container that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # none, or "max"
            limits.append(int(Path(path).read_text()))
    return min(limits) // 10**6


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those it lists already, or all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        devices = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]  # the latter under Windows
        return [str(index) for index, _ in enumerate(devices)]
    return [name for name in visible.split(",") if name.strip() and not name.strip().startswith("-")]


def limits(device: str) -> dict[str, int]:
    """What jobs that run here at the same time may ask for together, as Snakemake's resources.

    Args:
        device: the configuration's machine.device. Jobs that are told to use the CPU share no GPU.
    """
    count = 1 if device.startswith("cuda:") else len(gpus())
    return {"mem_mb": memory_mb()} | ({"gpu": count} if device != "cpu" and count else {})


def job_device(device: str) -> str:
    """Where a job of the workflow computes: as the configuration says; one on the CPU sees no GPU.

    Where there are several GPUs and none is named, it takes one that no other job of this user has on this machine, for
    as long as its process lives; where all are taken, it shares one. To be called before CUDA is initialised.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu"
    visible = gpus()
    if ":" not in device and len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = _free(visible)
    return device


def _free(visible: list[str]) -> str:
    for name in visible:
        path = Path(tempfile.gettempdir()) / f"policy-distillation-{os.getuid()}-gpu-{name.strip()}.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # held until the process ends
        except OSError:  # somebody else's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return name
        except OSError:  # taken
            os.close(lock)
    return visible[os.getpid() % len(visible)]
