"""The workflow on a real Slurm, one node on loopback: the whole way, and each failure that costs people a night."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
import torch
import yaml
from conftest import Checkout
from policy_distillation.files import file_digest
from policy_distillation.header import read_metadata
from policy_distillation.resources import BASE_MB
from policy_distillation.slurm import forget_no_job, job_prefix

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("slurm")]

RESULTS = "results/smoke"
SMOKE = ("--configfile", "tests/smoke.yaml")
# As people call it, but looking at the jobs more often.
PROFILE = (
    *("--profile", "slurm", "--latency-wait", "10"),
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
)
SITE = {"GPU_PARTITION": "gpu", "GPU_MODEL": "a100"}


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    if os.environ.get("SLURM_TESTS") != "required":
        pytest.skip("SLURM_TESTS=required runs it: installs Slurm, writes /etc/slurm and starts daemons, as root")
    with slurm_cluster.running_cluster():
        yield


# Running and watching


def overlay(copy: Checkout, change: dict[str, object]) -> tuple[str, ...]:
    (copy.folder / "change.yaml").write_text(yaml.safe_dump(change))
    return (*PROFILE, *SMOKE, "change.yaml")


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def jobs(copy: Checkout, about: str = "") -> list[dict[str, str]]:
    """What Slurm knows of the jobs for a copy's results, in order of submission; its own names for its fields."""
    records = [
        dict(re.findall(r"(\w+)=(\S*)", line)) for line in ask("scontrol", "show", "job", "--oneliner").splitlines()
    ]
    prefix = job_prefix(copy.folder / RESULTS)
    mine = [job for job in records if job.get("JobName", "").startswith(prefix) and about in job["Comment"]]
    return sorted(mine, key=lambda job: int(job["JobId"]))


def minutes(limit: str) -> int:
    days, hours, minutes = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):\d+", limit).groups()  # type: ignore[union-attr]
    return int(days or 0) * 1440 + int(hours) * 60 + int(minutes)


def megabytes(memory: str) -> int:
    number, unit = re.fullmatch(r"([\d.]+)([MG])", memory).groups()  # type: ignore[union-attr]
    return round(float(number) * (1024 if unit == "G" else 1))


def cell(recipe: str) -> str:
    return f"{RESULTS}/students/breakout/{recipe}/dqn/seed0"


def log(copy: Checkout, recipe: str) -> str:
    """Of a student's newest attempt: Snakemake removes that of the one before (but prints it when it fails)."""
    path = copy.folder / RESULTS / f"logs/distill_student/breakout/{recipe}/dqn/seed0.log"
    return path.read_text() if path.exists() else ""


def learning(copy: Checkout, recipe: str) -> bool:
    """Whether a student's training loop has begun."""
    return any((copy.folder / cell(recipe) / "tensorboard").glob("*"))


def output(copy: Checkout) -> str:
    """What Snakemake, started in the background, has printed."""
    return (copy.folder / "snakemake.out").read_text()


def wait_for(sign: Callable[[], object], process: subprocess.Popen[bytes], copy: Checkout) -> None:
    deadline = time.monotonic() + 900
    while not sign():
        assert process.poll() is None, output(copy)[-4000:]
        assert time.monotonic() < deadline, output(copy)[-4000:]
        time.sleep(0.5)


def finish(process: subprocess.Popen[bytes], copy: Checkout) -> str:
    """Wait for Snakemake's success; what it printed."""
    code = process.wait(timeout=900)
    assert code == 0, output(copy)[-6000:]
    return output(copy)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# Jobs in the plugin's eyes


class Executor:
    """Of the Slurm plugin, what we lean on: of four jobs one ended well, one failed, one runs, and one it forgets."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, str]] = []

    def report_job_success(self, job: str) -> None:
        self.reported.append((job, "success"))

    def report_job_error(self, job: str, msg: str) -> None:
        self.reported.append((job, msg))

    async def check_active_jobs(self, jobs: list[str]) -> AsyncIterator[str]:
        for job in jobs:
            if job == "good":
                self.report_job_success(job)
            elif job == "bad":
                self.report_job_error(job, msg="out of memory")
            elif job == "running":
                yield job


def test_only_jobs_that_have_ended_are_asked_for_no_more() -> None:
    async def check(jobs: list[str]) -> list[str]:
        return [job async for job in executor.check_active_jobs(jobs)]

    executor = Executor()
    assert asyncio.run(check(["good", "forgotten", "bad", "running"])) == ["running"]  # what is to be cured
    forget_no_job(executor)
    executor.reported.clear()
    assert asyncio.run(check(["good", "forgotten", "bad", "running"])) == ["forgotten", "running"]
    assert executor.reported == [("good", "success"), ("bad", "out of memory")]
    assert asyncio.run(check(["forgotten"])) == ["forgotten"]


def test_nothing_that_a_job_started_outlives_the_cluster(slurm: None) -> None:
    """A process whose parent has gone, as the innermost Snakemake is when a job is cancelled."""
    number = ask("sbatch", "--parsable", "--output=/dev/null", "--wrap", "setsid --fork sleep 1000; sleep 1000").strip()
    while len(slurm_cluster.processes()) < 3:
        time.sleep(0.2)
    ask("scancel", number)
    while ask("squeue", "--noheader").strip():
        time.sleep(0.2)
    assert slurm_cluster.processes(), "Slurm itself sees to it: end_processes is not needed"
    slurm_cluster.end_processes()
    assert slurm_cluster.processes() == []


# The whole way


@pytest.fixture(scope="module")
def everything(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which teacher, data, students, scores and a table of the smoke workflow were made through Slurm."""
    copy = Checkout(tmp_path_factory.mktemp("everything"), **SITE)
    done = copy.snakemake(*PROFILE, *SMOKE, "--", f"{RESULTS}/table_single_task.csv")
    assert done.returncode == 0, done.stdout[-6000:]
    return copy


def rule_of(job: dict[str, str]) -> str:
    return job["Comment"].removeprefix("rule_").split("_wildcards")[0]


def test_every_job_goes_through_sbatch(everything: Checkout) -> None:
    rules = sorted(map(rule_of, jobs(everything)))
    students, scores = 3, 4
    expected = ["train_teacher", *["dump_dataset"] * 2, *["distill_student"] * students]
    expected += ["evaluate_random", *["evaluate_agent"] * scores]
    assert rules == sorted(expected)
    assert {job["JobState"] for job in jobs(everything)} == {"COMPLETED"}
    assert len(list((everything.folder / ".snakemake/slurm_logs").rglob("*.log"))) == len(rules)  # kept


def test_gpu_rules_run_on_the_gpu_partition_and_see_one_gpu(everything: Checkout) -> None:
    for job in jobs(everything):
        gpu = rule_of(job) in ("train_teacher", "distill_student")
        assert job["Partition"] == ("gpu" if gpu else "cpu")
        assert job.get("TresPerJob") == ("gres:gpu:a100:1" if gpu else None)
    logs = everything.folder / RESULTS / "logs"
    for rule in ("train_teacher", "distill_student", "dump_dataset", "evaluate_agent"):
        for path in (logs / rule).rglob("*.log"):
            (seen,) = re.findall(r"^Slurm job \d+ on \S+, CUDA_VISIBLE_DEVICES=(.*)$", path.read_text(), re.M)
            assert seen in ("0123" if rule in ("train_teacher", "distill_student") else ("none", "")), path


# A bad night. Three students learn at once: one is cancelled, one runs out of time, one out of memory; slurmctld is
# away for a while, and somebody types the same command again. Nothing is saved by the clock, only at SIGTERM.


@dataclass
class Night:
    second: subprocess.CompletedProcess[str]
    """The same command, while the first was at work."""
    disturbed: list[str]
    """Jobs that the second command may not have touched: their states after it."""
    jobs: dict[str, list[dict[str, str]]]
    """Each student's jobs, at the end."""
    resumed: dict[str, int]
    """The update at which each student's newest attempt went on."""


@pytest.fixture(scope="module")
def night(everything: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Night:
    copy = everything.copy_to(tmp_path_factory.mktemp("night") / "copy")
    endless = {"updates_per_hour": 1_000_000, "evaluations": 1}
    change: dict[str, Any] = {
        "recipes": {
            "stopped": {"loss": "kl", **endless},
            "hurried": {"loss": "kl", **endless},
            "large": {"loss": "kl", "batch_size": 6144, "updates_per_hour": 2, "evaluations": 1},
        },
        "machine": {"checkpoint_seconds": 100_000, "precision": "float32"},
    }
    recipes = list(change["recipes"])
    targets = [f"{cell(recipe)}/agent.safetensors" for recipe in recipes]
    command = (*overlay(copy, change), "--", *targets)
    process = copy.start(*command)
    try:
        wait_for(lambda: learning(copy, "stopped") and learning(copy, "hurried"), process, copy)
        second = copy.snakemake(*command)
        states = [job["JobState"] for job in jobs(copy, "stopped") + jobs(copy, "hurried")]
        ask("scontrol", "update", f"JobId={jobs(copy, 'hurried')[0]['JobId']}", "TimeLimit=2")
        ask("scancel", jobs(copy, "stopped")[0]["JobId"])
        # Without slurmctld Slurm kills nobody: the third must have exceeded its memory before.
        wait_for(lambda: jobs(copy, "large")[0]["JobState"] not in ("PENDING", "RUNNING"), process, copy)
        slurm_cluster.stop("slurmctld")
        wait_for(lambda: "Falling back to 'sacct'" in output(copy), process, copy)  # it has asked in vain
        slurm_cluster.start("slurmctld")
        wait_for(lambda: resumed(copy, "stopped") and resumed(copy, "hurried"), process, copy)
        wait_for(lambda: jobs(copy, "large")[-1]["JobState"] == "COMPLETED", process, copy)
        records = {recipe: jobs(copy, recipe) for recipe in recipes}
        return Night(second, states, records, {recipe: resumed(copy, recipe) for recipe in recipes})
    finally:
        kill(process)
        for job in jobs(copy):
            subprocess.run(["scancel", job["JobId"]], check=False)  # two of them would run for ever


def resumed(copy: Checkout, recipe: str) -> int:
    """The update at which a student's newest attempt went on; 0 if it did not."""
    at = re.search(r"resuming at update ([\d,]+) of", log(copy, recipe))
    return int(at[1].replace(",", "")) if at else 0


def test_a_cancelled_job_is_retried_and_resumes(night: Night) -> None:
    first, again = night.jobs["stopped"]
    assert (first["JobState"], again["JobState"]) == ("CANCELLED", "RUNNING")
    assert night.resumed["stopped"] > 0


def test_a_job_out_of_time_is_retried_and_resumes(night: Night) -> None:
    first, again = night.jobs["hurried"]
    assert first["JobState"] in ("FAILED", "TIMEOUT")
    assert minutes(first["TimeLimit"]) == 2  # as we cut it; the other student's is as submitted
    submitted = minutes(night.jobs["stopped"][0]["TimeLimit"])
    assert minutes(again["TimeLimit"]) == submitted  # no more: what is left takes no longer
    assert night.resumed["hurried"] > 0


def test_a_job_out_of_memory_is_retried_with_more(night: Night) -> None:
    first, *again = night.jobs["large"]
    assert first["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert len(again) in (1, 2)
    for attempt, job in enumerate(again, 2):
        assert megabytes(job["MinMemoryNode"]) == megabytes(first["MinMemoryNode"]) + (attempt - 1) * BASE_MB
    assert again[-1]["JobState"] == "COMPLETED"


def test_slurmctld_restarted_in_mid_run_loses_no_job(night: Night) -> None:
    """The student that ran on meanwhile was neither lost nor submitted twice: one retry each, for its own reason."""
    assert [len(night.jobs[recipe]) for recipe in ("stopped", "hurried")] == [2, 2]


def test_a_second_head_is_refused_and_touches_nothing(night: Night) -> None:
    assert night.second.returncode != 0
    assert f"{RESULTS}: in use by process " in night.second.stdout
    assert night.disturbed == ["RUNNING", "RUNNING"]


# Preempted, and then the head killed


@dataclass
class Interrupted:
    copy: Checkout
    before: dict[Path, tuple[str, int]]
    """Digest and time of every earlier result."""
    saved: list[int]
    """The newest checkpoint's update before the preemption, and before the head was killed."""
    resumed: list[int]
    """The update at which the job went on after each."""
    out: str
    """What the second head printed."""


def checkpointed(copy: Checkout, recipe: str) -> int:
    path = copy.folder / cell(recipe) / "state/state.pt"
    return int(torch.load(path, weights_only=True)["done"]) if path.exists() else 0


def contents(copy: Checkout) -> dict[Path, tuple[str, int]]:
    paths = [
        path for path in (copy.folder / RESULTS).rglob("*") if path.suffix in (".safetensors", ".csv", ".h5", ".md")
    ]
    return {path: (file_digest(path), path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def interrupted(everything: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    copy = everything.copy_to(tmp_path_factory.mktemp("interrupted") / "copy", GPU_PARTITION="scavenge")
    before = contents(copy)
    change = {
        "recipes": {"slow": {"loss": "kl", "batch_size": 512, "updates_per_hour": 200, "evaluations": 1}},
        "machine": {"checkpoint_seconds": 0.5},
    }
    command = (*overlay(copy, change), "--", f"{cell('slow')}/agent.safetensors")
    process = copy.start(*command)
    try:
        wait_for(lambda: checkpointed(copy, "slow"), process, copy)
        saved = [checkpointed(copy, "slow")]
        ask("sbatch", "--partition=cpu", "--exclusive", "--output=/dev/null", "--wrap=true")
        wait_for(lambda: resumed(copy, "slow"), process, copy)
        went_on = [resumed(copy, "slow")]
        wait_for(lambda: checkpointed(copy, "slow") > went_on[0], process, copy)
        saved.append(checkpointed(copy, "slow"))
    finally:
        kill(process)
    out = finish(copy.start(*command), copy)
    return Interrupted(copy, before, saved, [*went_on, resumed(copy, "slow")], out)


def test_a_preempted_job_resumes(interrupted: Interrupted) -> None:
    first = jobs(interrupted.copy)[0]
    assert (first["Partition"], first["Restarts"]) == ("scavenge", "1")
    assert interrupted.resumed[0] >= interrupted.saved[0]


def test_a_killed_head_is_restarted_with_the_same_command(interrupted: Interrupted) -> None:
    """The job that it left behind is stopped, and its successor goes on from there. Nothing else runs."""
    copy = interrupted.copy
    orphan, successor = jobs(copy)
    assert (orphan["JobState"], successor["JobState"]) == ("CANCELLED", "COMPLETED")
    assert f"stopped jobs that an earlier run had left behind: {orphan['JobId']}" in interrupted.out
    assert interrupted.resumed[1] >= interrupted.saved[1]
    assert read_metadata(copy.folder / cell("slow") / "agent.safetensors")["updates"] == 4 * 200
    after = contents(copy)
    assert {path: after[path] for path in interrupted.before} == interrupted.before
    assert not (copy.folder / cell("slow") / "state").exists()


# Disks


@pytest.fixture
def small_disk(everything: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """A copy whose results lie on a file system of 64 MB."""
    results = tmp_path / "copy/results"
    results.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)], check=False)
    if mounted.returncode:
        pytest.fail("mount failed")
    try:
        yield everything.copy_to(tmp_path / "copy")
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def test_a_full_disk_is_said_and_earlier_results_stay(small_disk: Checkout) -> None:
    before = contents(small_disk)
    filler = small_disk.folder / "results/filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    os.truncate(filler, filler.stat().st_size - (1 << 16))  # enough for logs and boards, not for an agent
    target = f"{cell('other')}/agent.safetensors"
    command = overlay(small_disk, {"recipes": {"other": {"loss": "kl"}}})
    done = small_disk.snakemake(*command, "--retries", "0", "--", target)
    assert done.returncode != 0
    assert "No space left on device" in done.stdout
    after = contents(small_disk)
    assert {path: after[path] for path in before} == before
    assert not (small_disk.folder / target).exists()
    assert not list((small_disk.folder / RESULTS).rglob("*.tmp*"))


def test_an_unwritable_results_folder_is_said_at_once(small_disk: Checkout) -> None:
    before = contents(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.folder / "results")], check=True)
    command = overlay(small_disk, {"recipes": {"other": {"loss": "kl"}}})
    done = small_disk.snakemake(*command, "--", f"{cell('other')}/agent.safetensors")
    assert done.returncode != 0
    assert "Read-only file system: 'results/smoke/.lock'" in done.stdout
    assert jobs(small_disk) == []
    assert contents(small_disk) == before


# Packing


def test_four_small_students_share_one_gpu_side_by_side(everything: Checkout, tmp_path: Path) -> None:
    copy = everything.copy_to(tmp_path / "copy", STUDENTS_PER_GPU="4")
    recipes = ["packed_a", "packed_b", "packed_c", "packed_d"]
    change = {"recipes": {name: {"loss": "kl", "evaluations": 1} for name in recipes}}
    targets = [f"{cell(name)}/agent.safetensors" for name in recipes]
    # By default this machine's cores are the limit, in a group too.
    done = copy.snakemake(*overlay(copy, change), "--cores", "64", "--", *targets)
    assert done.returncode == 0, done.stdout[-4000:]
    (job,) = jobs(copy)
    alone = next(job for job in jobs(everything) if rule_of(job) == "distill_student")
    assert job["Partition"] == "gpu"
    assert job["TresPerNode"] == "gres:gpu:a100:1"
    assert "TresPerJob" not in job
    assert minutes(job["TimeLimit"]) == minutes(alone["TimeLimit"])
    assert int(job["NumCPUs"]) == 4 * int(alone["NumCPUs"])
    assert megabytes(job["MinMemoryNode"]) == 4 * megabytes(alone["MinMemoryNode"])
    seen = {
        re.search(r"Slurm job (\d+) on \S+, CUDA_VISIBLE_DEVICES=(.*)", log(copy, name)).groups() for name in recipes
    }
    assert len(seen) == 1
    assert seen.pop() in {(job["JobId"], gpu) for gpu in "0123"}


# Beside a local run, last: another process is making it meanwhile


def test_slurm_and_a_local_run_give_the_same_bits(everything: Checkout, finished: Checkout) -> None:
    remote, local = everything.folder / RESULTS, finished.folder / RESULTS
    tables = [*remote.rglob("scores/*.csv"), remote / "table_single_task.csv"]
    assert len(tables) == 5 + 1  # of the teacher, three students and random play; and the table
    for path in tables:
        assert path.read_text() == (local / path.relative_to(remote)).read_text(), path
    agents = list(remote.rglob("agent.safetensors"))
    assert len(agents) == 4
    for path in agents:
        assert read_metadata(path)["digest"] == read_metadata(local / path.relative_to(remote))["digest"], path
