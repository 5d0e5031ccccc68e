"""Jobs that a killed workflow left in Slurm's queue. Imports nothing heavy: the workflow looks before it plans."""

from __future__ import annotations

import getpass
import hashlib
import subprocess
import time
from pathlib import Path


class SlurmError(RuntimeError):
    """Slurm does not do as it is told. The message is one line for the user."""


def job_prefix(results: Path) -> str:
    """What the names of all jobs begin with that work for one results folder; Slurm allows no path there."""
    return f"pd-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:16]}"


def stop_orphans(prefix: str, patience: float = 300.0) -> list[str]:
    """Cancel the user's jobs whose names begin with ``prefix``, wait until they have ended and return their numbers.

    Left alone, an orphan that still waits in the queue would start hours later and make its output, finished by its
    successor, all over again. A training job that is cancelled keeps its state, and its successor goes on from there.

    Raises SlurmError where they outlive ``patience`` seconds, or Slurm does not answer.
    """
    orphans = _jobs(prefix)
    if orphans:
        _run("scancel", *orphans)
    deadline = time.monotonic() + patience
    while alive := _jobs(prefix):
        if time.monotonic() > deadline:
            raise SlurmError(
                f"jobs of an earlier run were cancelled but do not end: {' '.join(alive)}; see `squeue --me`"
            )
        time.sleep(1)
    return orphans


def _jobs(prefix: str) -> list[str]:
    lines = _run("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i %j").splitlines()
    return [number for number, name in (line.split(maxsplit=1) for line in lines) if name.startswith(prefix)]


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{command[0]} failed: {' '.join(error.stderr.split())}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} failed: {error}") from None
