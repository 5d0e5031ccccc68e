"""Jobs that a killed workflow left in Slurm's queue, and jobs that a running one must not forget.

Imports nothing heavy: the workflow looks before it plans.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


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


def forget_no_job(executor: Any) -> None:
    """Have Snakemake's Slurm executor ask again for every job of which it does not know that it has ended.

    Where a round of status queries fails (slurmctld or the accounting database is being restarted), the plugin, up to
    2.8.0 at least, drops the jobs that it asked for: they run on, and the workflow waits for their end until somebody
    stops it. With ``slurm-status-command: squeue`` one unanswered question is enough, if there is no accounting.
    """
    ended: list[Any] = []

    def noted(report: Any) -> Any:
        def report_and_note(job: Any, *arguments: Any, **options: Any) -> None:
            ended.append(job)
            report(job, *arguments, **options)

        return report_and_note

    executor.report_job_success = noted(executor.report_job_success)
    executor.report_job_error = noted(executor.report_job_error)
    check = executor.check_active_jobs

    async def check_active_jobs(jobs: list[Any]) -> AsyncIterator[Any]:
        ended.clear()
        async for _ in check(jobs):
            pass
        for job in jobs:
            if not any(job is other for other in ended):
                yield job

    executor.check_active_jobs = check_active_jobs


def _jobs(prefix: str) -> list[str]:
    lines = _run("squeue", "--noheader", "--me", "--format", "%i %j").splitlines()
    return [number for number, name in (line.split(maxsplit=1) for line in lines) if name.startswith(prefix)]


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{command[0]} failed: {' '.join(error.stderr.split())}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} failed: {error}") from None
