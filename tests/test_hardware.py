"""What a machine has, which GPU a job takes, and how many jobs run at once on a pretended machine."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Checkout
from policy_distillation import hardware
from policy_distillation.grid import Grid
from policy_distillation.hardware import gpus, job_device, limits, memory_mb
from policy_distillation.resources import student_mb
from policy_distillation.training import select_device
from test_config import shipped


def test_memory_is_the_machines_or_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kilobytes = int(re.search(r"MemTotal: *(\d+) kB", Path("/proc/meminfo").read_text())[1])
    for text in ("max", "9223372036854771712", ""):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(hardware, "CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "memory.max")))
        assert memory_mb() == kilobytes * 1024 // 10**6
    (tmp_path / "memory.max").write_text("512000000\n")
    assert memory_mb() == 512


@pytest.mark.parametrize(("visible", "names"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a", ["GPU-a"])])
def test_gpus_are_those_that_the_environment_lists(
    monkeypatch: pytest.MonkeyPatch, visible: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == names
    assert limits("auto").get("gpu", 0) == limits("cuda").get("gpu", 0) == len(names)
    assert "gpu" not in limits("cpu")
    assert limits("cuda:1")["gpu"] == 1


TAKE = """
import os, sys
from policy_distillation.hardware import job_device
print(job_device(sys.argv[1]), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def test_jobs_take_a_gpu_each_and_share_when_all_are_taken(tmp_path: Path) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "3,5,GPU-a", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "workflow")}
    started: list[subprocess.Popen[str]] = []

    def take(device: str) -> tuple[str, str]:
        command = [sys.executable, "-c", TAKE, device]
        job = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(job)
        device, _, gpu = job.stdout.readline().strip().partition(" ")
        return device, gpu

    try:
        assert [take("auto"), take("cuda")] == [("auto", "3"), ("cuda", "5")]
        assert take("cpu") == ("cpu", "")
        assert take("cuda:1") == ("cuda:1", "3,5,GPU-a")  # as it is told
        assert take("auto") == ("auto", "GPU-a")
        assert take("auto")[1] in ("3", "5", "GPU-a")
        started[1].communicate()  # ends
        assert take("auto") == ("auto", "5")
    finally:
        for job in started:
            job.communicate()


def test_one_gpu_or_none_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for visible in ("", "2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert job_device("auto") == "auto"
        assert job_device("cuda:0") == "cuda:0"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "tpu", "cuda:x", ""])
def test_a_gpu_that_is_not_there_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=f"^device: '{name}' is not allowed.*; allowed: auto, cpu") as caught:
        select_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_one_line_of_a_command() -> None:
    agent = str(ROOT / "resources/teachers/pong/agent.safetensors")
    command = [sys.executable, "-m", "policy_distillation", "evaluate", agent, "--device", "cuda"]
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, env=blind, capture_output=True, text=True, timeout=300)
    here = "PyTorch finds no GPUs on this machine; allowed: auto, cpu"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: device: 'cuda' is not allowed: {here}\n"


def test_jobs_on_the_cpu_hide_the_gpu_before_they_ask_what_there_is() -> None:
    """Else each of them starts CUDA, and says of a GPU that it computed."""
    scripts = {path.stem: path.read_text() for path in (ROOT / "workflow/scripts").glob("*.py")}
    ask = r"\b(provenance|write_sidecar)\("
    asking = {name for name, text in scripts.items() if re.search(ask, text)}
    assert asking > {"evaluate_agent", "import_teacher", "table", "video"}
    for name in asking - {"table_exports"}:  # which loads no torch
        hidden, asked = (re.search(call, scripts[name]) for call in (r"job_device\(", ask))
        assert hidden, name
        assert hidden.start() < asked.start(), name


def test_a_second_gpu_is_not_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    current: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    assert select_device("cuda:1").index == 1
    assert current == [torch.device("cuda:1")]  # captures are made on the current one
    with pytest.raises(ValueError, match=r"finds 2 GPUs on this machine; allowed: auto, cpu, cuda:0, cuda:1$"):
        select_device("cuda:2")


# Scheduling, for real, of jobs that do nothing

PRETEND = """
import sys
import snakemake.cli
sys.path.insert(0, "workflow")
from policy_distillation import hardware
hardware.memory_mb, hardware.gpus = lambda: {memory}, lambda: [*{gpus!r}]
snakemake.cli.available_cpu_count = lambda: 8
snakemake.cli.main()
"""
NOTHING = """
from pathlib import Path
for path in snakemake.output:
    Path(path).write_text("")
"""


def at_once(copy: Checkout, students: int, *arguments: str, memory: int = 16_000, gpus: str = "") -> int:
    """How many students learn side by side on a pretended machine of 8 cores."""
    targets = [f"results/demo/students/pong/kl/dqn/seed{seed}/agent.safetensors" for seed in range(students)]
    command = [sys.executable, "-c", PRETEND.format(memory=memory, gpus=gpus), *arguments]
    done = subprocess.run(
        [*command, "--profile", "profiles/demo", "--forcerun", "distill_student", "--", *targets],
        cwd=copy.folder,
        env=copy.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    events = re.findall(
        r"^(?:local)?rule (distill_student):|^Finished jobid: \d+ \(Rule: (distill_student)\)", done.stdout, re.M
    )
    assert len(events) == 2 * students
    return max(itertools.accumulate(1 if begins else -1 for begins, _ in events))


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose jobs do nothing."""
    copy = Checkout(tmp_path_factory.mktemp("idle"))
    for name in ("distill_student", "dump_dataset", "given_teacher", "list_parts"):
        (copy.folder / f"workflow/scripts/{name}.py").write_text(NOTHING)
    return copy


@pytest.mark.workflow
def test_jobs_at_once_are_those_that_fit_into_the_machine(idle: Checkout) -> None:
    """Eight cores would start eight; so many of the demo's students fit into 16 GB, and as many as there are GPUs."""
    grid = Grid(shipped("profiles/demo/overrides.yaml"))
    fit = 16_000 // student_mb(grid, "pong", "kl")
    assert 1 < fit < 8
    assert at_once(idle, 8) == fit
    assert at_once(idle, 4, gpus="01") == 2
    assert at_once(idle, 2, memory=1_000) == 1  # one that asks for more than there is runs alone
    assert at_once(idle, 8, "--resources", "mem_mb=1000000") == 8
