"""The reference students: what the rule plans, and that what is committed is what its table says."""

from __future__ import annotations

import hashlib
import re

import pandas as pd
import pytest
import yaml
from conftest import ROOT, Checkout
from policy_distillation.checkpoints import load_agent
from policy_distillation.overlays import lay, layers
from policy_distillation.sidecar import read_sidecar

STUDENTS = ROOT / "resources/students"
SIZES = ("dqn", "net1", "net2", "net3")
OVERLAY = ROOT / "profiles/reference_students/overrides.yaml"
GAMES = yaml.safe_load(OVERLAY.read_text())["experiments"]["compression"]["games"]
"""Those of the reference teachers that have students."""


@pytest.mark.workflow
def test_the_profile_makes_every_size_of_every_game(checkout: Checkout) -> None:
    plan = checkout.snakemake("-n", "--profile", "profiles/reference_students", "reference_students")
    assert plan.returncode == 0, plan.stdout[-3000:]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan.stdout, re.M))
    assert {*GAMES} <= {path.parent.name for path in (ROOT / "resources/teachers").glob("*/agent.safetensors")}
    wanted = {f"reference_students/{game}/{size}/scores.csv" for game in GAMES for size in SIZES}
    assert set(re.findall(r"reference_students/\w+/\w+/scores\.csv", plan.stdout)) == wanted
    students = str(len(wanted))
    assert jobs["distill_student"] == jobs["reference_student"] == jobs["evaluate_agent"] == students
    assert jobs["dump_dataset"] == str(2 * len(GAMES))  # the laptop's parts
    assert "train_teacher" not in jobs


def test_the_students_learn_as_those_from_the_papers_play_do() -> None:
    def settings(profile: str) -> dict[str, object]:
        config = lay(layers(ROOT / "config.yaml", [ROOT / "profiles" / profile / "overrides.yaml"], {}))
        return {key: config[key] for key in config if key not in ("evaluation", "experiments")}

    assert settings("reference_students") == settings("paper_play")
    assert settings("reference_students") != settings("study")


def test_the_students_are_those_that_the_table_describes() -> None:
    rows = re.findall(
        r"^\| (\w+) +\| (\w+) +\| ([\d,]+) +\| .*? \| ([-\d,.]+) ± .*$", (STUDENTS / "README.md").read_text(), re.M
    )
    folders = {f"{game}/{size}" for game, size, *_ in rows}
    assert folders == {str(path.parent.relative_to(STUDENTS)) for path in STUDENTS.glob("*/*/agent.safetensors")}
    assert folders == {f"{game}/{size}" for game in GAMES for size in SIZES}
    for game, size, parameters, score in rows:
        agent, metadata = load_agent(STUDENTS / game / size / "agent.safetensors")
        assert (list(agent.actions), agent.parameter_count) == ([game], int(parameters.replace(",", "")))
        assert (metadata["kind"], metadata["settings"]["loss"]) == ("student", "kl")
        assert "-dirty" not in metadata["commit"]
        csv = STUDENTS / game / size / "scores.csv"
        assert read_sidecar(csv)["agent"]["digest"] == metadata["digest"]
        returns = pd.read_csv(csv)["return"]
        assert len(returns) == (32 if game == "breakout" else 112)
        assert f"{returns.mean():,.1f}" == score


def test_every_file_is_the_one_that_was_made() -> None:
    sums = dict(reversed(line.split("  ")) for line in (STUDENTS / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(STUDENTS)): path for path in STUDENTS.glob("*/*/*")}
    assert set(sums) == set(files)
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
