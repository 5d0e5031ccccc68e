"""Results outside the checkout, and the workflow run from another folder or as a module of another workflow."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Checkout
from policy_distillation.parts import Part
from test_overlays import stats

pytestmark = pytest.mark.workflow


def run(checkout: Checkout, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Snakemake in a folder that is not the checkout's."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        checkout.command(*arguments),
        cwd=folder,
        env=checkout.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_the_demo_is_planned_from_anywhere_to_anywhere(checkout: Checkout, tmp_path: Path) -> None:
    demo = ("-n", "--quiet", "rules", "--profile", str(checkout.folder / "profiles/demo"))
    (tmp_path / "other").mkdir()
    plans = {
        "another Snakefile's folder": run(
            checkout, tmp_path / "here", "-s", str(checkout.folder / "Snakefile"), *demo, "all"
        ),
        "another folder": run(checkout, checkout.folder, "-d", str(tmp_path / "other"), *demo, "all"),
        "results on scratch": run(
            checkout, checkout.folder, *demo, "--config", f"results={tmp_path}/scratch/Run-1", "--", "all"
        ),
    }
    for name, plan in plans.items():
        assert plan.returncode == 0, (name, plan.stdout[-3000:])
        jobs = stats(plan.stdout)
        assert (jobs["given_teacher"], jobs["distill_student"], jobs["evaluate_agent"]) == (1, 6, 7), name


MODULE = """
configfile: "mine.yaml"
module distillation:
    snakefile: {snakefile!r}
    config: config["distillation"]
use rule * from distillation as distillation_*
rule mine:
    default_target: True
    input: {results!r} + "/datasets/pong/part0.h5"
    output: "size.txt"
    shell: "wc -c {{input}} > {{output}}"
"""


def test_as_a_module_in_another_folder_with_results_in_a_third(tmp_path: Path) -> None:
    """For real: a reference teacher taken over, its play recorded, and a rule of the other workflow on top."""
    copy = Checkout(tmp_path / "checkout")
    results, other = str(tmp_path / "scratch/results"), tmp_path / "other"
    other.mkdir()
    (other / "Snakefile").write_text(MODULE.format(snakefile=str(copy.folder / "Snakefile"), results=results))
    smoke = os.path.relpath(copy.folder / "tests/smoke.yaml", other)
    (other / "mine.yaml").write_text(
        f"distillation:\n  extends: {smoke}\n  results: {results}\n"
        "  teacher: {source: reference}\n  dataset: {hours_per_part: 1}\n  experiments: {online: null}\n"
    )
    done = run(copy, other, "-c1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (other / "size.txt").exists()
    with Part(Path(results) / "datasets/pong/part0.h5") as part:
        assert part.describe()["settings"]["steps_per_hour"] == 800
    assert not (other / "results").exists()
    assert not (copy.folder / "results").exists()
    again = run(copy, other, "-c1", "-n")
    assert "Nothing to be done" in again.stdout
    # A new clone beside old results: there are no records, and the teachers' files are newer, but of the same bytes.
    shutil.rmtree(other / ".snakemake")
    for path in (*other.iterdir(), *Path(results).rglob("*")):
        os.utime(path, (1e9, 1e9))
    plan = ("-c1", "-n", "--rerun-triggers", "mtime", "params", "input")  # as profiles/default has it
    assert "Nothing to be done" in run(copy, other, *plan).stdout
    with open(Path(results) / "teachers/pong/seed0/agent.safetensors", "ab") as agent:
        agent.write(b" ")
    os.utime(agent.name, (1e9, 1e9))
    assert stats(run(copy, other, *plan).stdout)["distillation_given_teacher"] == 1
