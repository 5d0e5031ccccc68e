"""The grid of 57 games: all is planned, nothing heavy is imported for it. How long it takes: docs/clusters.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT, Checkout

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]
PLAN = """
import sys
from snakemake.cli import main
try:
    main(["-n", "--quiet", "rules", "--configfile", "tests/grid57.yaml", "--", sys.argv[1]])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "ale_py", "gymnasium", "h5py", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
GAMES, STUDENTS, PARTS = 57, 57 * 3 * 4 * 5, 50


def planned(checkout: Checkout, target: str) -> dict[str, int]:
    (checkout.folder / "tests/grid57.yaml").write_text((ROOT / "tests/grid57.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-c", PLAN, target],
        cwd=checkout.folder,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = (done.stdout + done.stderr).split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def test_ten_thousand_jobs_are_planned_and_nothing_heavy_is_imported(checkout: Checkout) -> None:
    assert planned(checkout, "results/grid57/table_single_task.csv") == {
        "train_teacher": GAMES,
        "dump_dataset": GAMES * PARTS,
        "list_parts": GAMES,
        "distill_student": STUDENTS,
        "evaluate_agent": GAMES + STUDENTS,
        "table": 1,
    }


def test_one_cell_needs_one_game(checkout: Checkout) -> None:
    cell = "results/grid57/students/zaxxon/kl/net3/seed4/agent.safetensors"
    assert planned(checkout, cell) == {"train_teacher": 1, "dump_dataset": PARTS, "list_parts": 1, "distill_student": 1}
