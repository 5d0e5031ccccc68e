"""Each output names what made it, and ``inspect`` prints that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Checkout
from policy_distillation.checkpoints import read_metadata
from policy_distillation.parts import Part
from policy_distillation.sidecar import SidecarError, describe_csv, read_sidecar, sidecar_path, write_sidecar

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


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_every_output_of_a_run_names_what_made_it(finished: Checkout) -> None:
    results = finished.folder / RESULTS
    agents = list(results.rglob("agent.safetensors"))
    for path in agents:
        facts = read_metadata(path)
        assert_made_by(facts)
        assert facts["protocol"]["name"] == "paper2015"
        assert {"seed", "settings", "evaluation", "network"} <= set(facts)
        assert describe_csv(path.with_name("progress.csv"))["digest"] == facts["digest"]
    for path in results.rglob("part*.h5"):
        with Part(path) as part:
            facts = part.describe()
        assert_made_by(facts["provenance"])
        assert {"protocol", "seed", "settings", "teacher"} <= set(facts)
    digests = {read_metadata(path)["digest"] for path in agents}
    scores = list(results.rglob("scores/*.csv"))
    for path in scores:
        facts = read_sidecar(path)
        assert_made_by(facts)
        episodes = {"breakout": 8, "pong": 12}[path.stem]
        assert (facts["protocol"], facts["seed"], facts["evaluation"]["episodes"]) == ("paper2015", 0, episodes)
        assert facts["agent"]["digest"] in digests
    assert {read_sidecar(path)["agent"]["digest"] for path in scores} == digests
    for path in results.glob("table_*.csv"):
        facts = read_sidecar(path)
        assert_made_by(facts)
        assert (facts["protocols"], facts["seeds"]) == (["paper2015"], [0])
        assert {read_sidecar(finished.folder / source)["sha256"] for source in facts["scores"]} == set(
            facts["scores"].values()
        )


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_inspect_prints_it(finished: Checkout) -> None:
    table = finished.folder / RESULTS / "table_single_task.csv"
    command = [sys.executable, "-m", "policy_distillation", "inspect", str(table)]
    environment = {**finished.environment(), "PYTHONPATH": str(finished.folder / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == read_sidecar(table)
