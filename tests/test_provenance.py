"""Each output names what made it, and ``inspect`` prints that."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Checkout
from policy_distillation.__main__ import describe_csv
from policy_distillation.checkpoints import save_agent
from policy_distillation.header import read_metadata
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.provenance import commit_of, provenance
from policy_distillation.sidecar import SidecarError, read_sidecar, sidecar_path, write_sidecar

RESULTS = "results/smoke"


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text("return\n1\n")
    write_sidecar(path, {"seed": 3, "protocol": "paper2015"})
    return path


def refusal(csv: Path) -> str:
    with pytest.raises(SidecarError) as caught:
        read_sidecar(csv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sidecar_says_what_was_written_and_by_what(csv: Path) -> None:
    facts = read_sidecar(csv)
    assert (facts["seed"], facts["protocol"]) == (3, "paper2015")
    assert_made_by(facts)


def assert_made_by(facts: dict[str, object]) -> None:
    assert facts["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", str(facts["commit"]))
    assert {"python", "torch", "ale-py"} <= set(facts["software"])  # type: ignore[call-overload]
    assert {"cpu", "gpu"} == set(facts["hardware"])  # type: ignore[call-overload]


def assert_computed(facts: dict[str, object]) -> None:
    """By the settings of the smoke run."""
    computed = facts["computed"]
    assert isinstance(computed, dict)
    assert computed["device"] in ("cpu", "cuda")
    assert computed["precision"] in ("float32", "bfloat16")
    assert computed["threads"] == 1


def test_altered_or_unknown_files_are_refused(csv: Path) -> None:
    csv.write_text("return\n2\n")
    assert "altered since it was written" in refusal(csv)
    sidecar_path(csv).write_text("[1")
    assert "not readable as JSON" in refusal(csv)
    sidecar_path(csv).write_text("[1]")
    assert "altered" in refusal(csv)
    sidecar_path(csv).unlink()
    assert "scores.csv.json is missing" in refusal(csv)
    csv.unlink()
    assert "no such file" in refusal(csv)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_unpacked_inside_another_checkout_it_is_not_that_ones_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "theirs.txt").write_text("-")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=theirs")
    project = tmp_path / "project"
    project.mkdir()
    assert commit_of(project) is None
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "theirs.txt").write_text("edited")
    assert str(commit_of(tmp_path)).endswith("-dirty")
    assert commit_of(tmp_path / "missing") is None


def test_what_json_does_not_have_is_null(tmp_path: Path) -> None:
    csv = tmp_path / "scores.csv"
    csv.write_text("return\n1\n")
    write_sidecar(csv, {"numbers": [1.5, float("-inf"), (float("nan"),)], "at": csv})
    text = sidecar_path(csv).read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert read_sidecar(csv)["numbers"] == [1.5, None, [None]]
    save_agent(tmp_path / "a.safetensors", Agent(Network((4, 4, 4), 8), {"pong": range(6)}), {"score": -math.inf})
    assert read_metadata(tmp_path / "a.safetensors")["score"] is None


@pytest.mark.workflow
@pytest.mark.xdist_group("finished")
def test_every_output_of_a_run_names_what_made_it(finished: Checkout) -> None:
    results = finished.folder / RESULTS
    agents = list(results.rglob("agent.safetensors"))
    for path in agents:
        facts = read_metadata(path)
        assert_made_by(facts)
        assert_computed(facts)
        assert facts["protocol"]["name"] == "paper2015"
        assert {"seed", "settings", "evaluation", "network"} <= set(facts)
        assert describe_csv(path.with_name("progress.csv"))["digest"] == facts["digest"]
    for path in results.rglob("part*.h5"):
        with Part(path) as part:
            facts = part.describe()
        assert_made_by(facts["provenance"])
        assert_computed(facts["provenance"])
        assert {"protocol", "seed", "settings", "teacher"} <= set(facts)
    digests = {read_metadata(path)["digest"] for path in agents}
    scores = list(results.rglob("scores/*.csv"))
    for path in scores:
        facts = read_sidecar(path)
        assert_made_by(facts)
        episodes = {"breakout": 4, "pong": 6}[path.stem]
        assert (facts["protocol"], facts["seed"], facts["evaluation"]["episodes"]) == ("paper2015", 0, episodes)
        assert facts["agent"]["digest"] in digests or facts["agent"]["kind"] == "random"
        assert_computed(facts)
    assert {read_sidecar(path)["agent"]["digest"] for path in scores} - {None} == digests
    for path in (found for kind in ("table", "scores", "aggregates") for found in results.glob(f"{kind}_*.csv")):
        facts = read_sidecar(path)
        assert_made_by(facts)
        assert (facts["protocols"], facts["seeds"]) == (["paper2015"], [0])
        assert {read_sidecar(finished.folder / source)["sha256"] for source in facts["scores"]} == set(
            facts["scores"].values()
        )


@pytest.mark.workflow
@pytest.mark.xdist_group("finished")
def test_inspect_prints_it(finished: Checkout) -> None:
    table = finished.folder / RESULTS / "table_single_task.csv"
    command = [sys.executable, "-m", "policy_distillation", "inspect", str(table)]
    environment = {**finished.environment(), "PYTHONPATH": str(finished.folder / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == read_sidecar(table)


def test_a_sidecar_says_what_made_its_csv_unless_that_is_told(tmp_path: Path) -> None:
    """As by what played for an hour, while the code was edited."""
    csv = tmp_path / "a.csv"
    csv.write_text("a\n1\n")
    write_sidecar(csv, {"kind": "a"})
    assert read_sidecar(csv)["commit"] == provenance()["commit"]
    write_sidecar(csv, {"kind": "a"}, {**provenance(), "commit": "b"})
    assert (read_sidecar(csv)["commit"], read_sidecar(csv)["software"]) == ("b", provenance()["software"])
