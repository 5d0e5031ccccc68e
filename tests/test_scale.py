"""The grid of 57 games: all is planned, nothing heavy is imported for it. How long it takes: docs/clusters.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow
PLAN = """
import sys
import snakemake
from snakemake.cli import main
target, *quiet = sys.argv[1:]
if quiet == ["plain"]:
    quiet, snakemake.__version__ = [], "9.20.0"
try:
    main(["-n", *quiet, "--configfile", "tests/grid57.yaml", "--", target])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "ale_py", "gymnasium", "h5py", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
GAMES, STUDENTS, PARTS = 57, 57 * 3 * 4 * 5, 50


def plan(checkout: Checkout, target: str, *how: str) -> str:
    """What a dry run prints; how: how quiet, or "plain" for Snakemake as it is."""
    (checkout.folder / "tests/grid57.yaml").write_text((ROOT / "tests/grid57.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-c", PLAN, target, *how],
        cwd=checkout.folder,
        env=checkout.environment() | {"PYTHONHASHSEED": "0"},  # files in the same order every time
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def planned(checkout: Checkout, target: str) -> dict[str, int]:
    table = plan(checkout, target, "--quiet", "rules").split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def test_ten_thousand_jobs_are_planned_and_nothing_heavy_is_imported(checkout: Checkout) -> None:
    assert planned(checkout, "results/grid57/table_single_task.csv") == {
        "train_teacher": GAMES,
        "dump_dataset": GAMES * PARTS,
        "list_parts": GAMES,
        "distill_student": STUDENTS,
        "evaluate_agent": GAMES + STUDENTS,
        "evaluate_random": GAMES,
        "table": 1,
    }


CELL = "results/grid57/students/zaxxon/kl/net3/seed4/agent.safetensors"


def test_one_cell_needs_one_game(checkout: Checkout) -> None:
    assert planned(checkout, CELL) == {"train_teacher": 1, "dump_dataset": PARTS, "list_parts": 1, "distill_student": 1}


def test_what_snakemake_remembers_changes_nothing_in_the_plan(checkout: Checkout) -> None:
    """Every job's files, reason, wildcards and resources."""

    def jobs(plan: str) -> list[str]:
        jobs, _ = plan.split("Job stats:")[1:]
        return sorted(re.sub(r"jobid: \d+", "", job).strip() for job in re.split(r"\n\[.*\]\n", jobs))

    remembering, plain = jobs(plan(checkout, CELL)), jobs(plan(checkout, CELL, "plain"))
    assert len(plain) > PARTS + 3
    assert remembering == plain
