"""OpenMP's settings, in processes of their own: they are read once, when torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
PROGRAM = """
import os, sys, threading
from policy_distillation import openmp
assert "torch" not in sys.modules
openmp.prepare(sys.argv[1])
import torch
torch.set_num_threads(2)
torch.ones(10**6).add(1)
thread = threading.Thread(target=lambda: print(len(os.sched_getaffinity(0)), os.environ.get("GOMP_SPINCOUNT")))
thread.start()
thread.join()
"""


def run(work: str, program: str = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP"))}
    return subprocess.run(
        [sys.executable, "-c", program, work],
        env={**environment, "PYTHONPATH": str(ROOT / "workflow"), **variables},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(CORES < 2, reason="needs two cores")
@pytest.mark.parametrize(
    ("name", "value"), [("OMP_PROC_BIND", "true"), ("OMP_PLACES", "cores"), ("GOMP_CPU_AFFINITY", "0")]
)
def test_threads_are_tied_to_no_core(name: str, value: str) -> None:
    tied = run("play", PROGRAM.replace("openmp.prepare", "str"), **{name: value})
    if int(tied.stdout.split()[0]) == CORES:
        pytest.skip(f"this OpenMP does not obey {name}")
    free = run("play", **{name: value})
    assert int(free.stdout.split()[0]) == CORES
    assert free.stderr == f"{name}={value} is not obeyed: the emulators' threads would share one core\n"


@pytest.mark.slow
def test_how_idle_threads_wait_is_the_environments_choice_first() -> None:
    assert run("play").stdout.split()[1] == "1000"
    assert run("train").stdout.split()[1] == "30000"
    assert run("learn", OMP_PROC_BIND="false").stdout.split()[1] == "None"
    done = run("play", GOMP_SPINCOUNT="7")
    assert (done.stdout.split()[1], done.stderr) == ("7", "")
