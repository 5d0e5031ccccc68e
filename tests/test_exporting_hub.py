"""A folder for the model hub: what huggingface_hub reads in it, and whose scores and teachers it may name."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from huggingface_hub import ModelCard, metadata_eval_result
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.exporting import hub
from policy_distillation.exporting.environment import environment_id, leaderboard_id
from policy_distillation.files import file_digest
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.sidecar import write_sidecar

torch.set_num_threads(1)

TEACHER = ROOT / "resources/teachers/freeway/agent.safetensors"
TINY = Network((4, 4, 4), 16)


def export(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["policy_distillation", "export", *map(str, arguments), "--to", "hub-folder"])
    main()
    return capsys.readouterr().out


@pytest.fixture
def student(tmp_path):
    """A student of two games, its scores beside it, and the file of one of its teachers."""
    torch.manual_seed(0)
    protocol = asdict(PROTOCOLS["paper2015"])
    teacher, student = tmp_path / "teacher.safetensors", tmp_path / "student" / "agent.safetensors"
    imported = {"from": "sb3", "hub": "sb3/dqn-PongNoFrameskip-v4", "revision": "a" * 40, "digest": "b" * 64}
    save_agent(
        teacher, Agent(TINY, {"pong": range(6)}), {"kind": "imported", "protocol": protocol, "imported": imported}
    )
    facts = {"kind": "student", "protocol": protocol, "teachers": {"pong": file_digest(teacher), "freeway": "c" * 64}}
    save_agent(student, Agent(TINY, {"pong": (0, 1, 3, 4, 11, 12), "freeway": (0, 2, 5)}), facts)
    for game, returns in (("pong", [-20.0, -18.0]), ("freeway", [10.0, 12.0])):
        csv = student.parent / "scores" / f"{game}.csv"
        csv.parent.mkdir(exist_ok=True)
        pd.DataFrame({"return": returns}).to_csv(csv, index=False)
        write_sidecar(csv, {"agent": {"digest": load_agent(student)[1]["digest"]}})
    return student


def test_the_hub_reads_the_card_and_the_agent_is_in_it(tmp_path, monkeypatch, capsys):
    video = tmp_path / "film.mp4"
    video.write_bytes(b"film")
    folder = tmp_path / "hub"
    said = export(monkeypatch, capsys, TEACHER, "--output", folder, "--name", "me/freeway", "--replay", video)
    assert f"hf upload me/freeway {folder}" in said
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "policy-distillation"
    assert {"FreewayNoFrameskip-v4", "deep-reinforcement-learning", "reinforcement-learning"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    returns = pd.read_csv(TEACHER.with_name("scores.csv"))["return"]
    expected = metadata_eval_result(
        model_pretty_name="freeway",
        task_pretty_name="reinforcement-learning",
        task_id="reinforcement-learning",
        metrics_pretty_name="mean_reward",
        metrics_id="mean_reward",
        metrics_value=f"{returns.mean():.2f} +/- {returns.std(ddof=0):.2f}",
        dataset_pretty_name="FreewayNoFrameskip-v4",
        dataset_id="FreewayNoFrameskip-v4",
    )["model-index"][0]["results"][0]
    found = card.data.to_dict()["model-index"][0]["results"][0]
    found["metrics"][0].pop("verified")
    expected["metrics"][0].pop("verified", None)
    assert found == expected
    assert result.metric_value == "28.78 +/- 1.15"
    assert json.loads((folder / "results.json").read_text()) == {
        "mean_reward": pytest.approx(returns.mean()),
        "std_reward": pytest.approx(returns.std(ddof=0)),
        "is_deterministic": False,
        "n_eval_episodes": len(returns),
    }
    assert (folder / "model.safetensors").read_bytes() == TEACHER.read_bytes()
    _, metadata = load_agent(folder / "model.safetensors")
    assert json.loads((folder / "config.json").read_text()) == metadata
    assert (folder / "replay.mp4").read_bytes() == b"film"
    assert "[28.6, 29.0]" in card.text
    assert 'hf_hub_download("me/freeway", "model.safetensors")' in card.text


def test_a_students_card_says_where_its_teacher_came_from(student, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "hub"
    export(monkeypatch, capsys, student, "--output", folder, "--teachers", tmp_path / "teacher.safetensors")
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == ["sb3/dqn-PongNoFrameskip-v4"]
    assert f"trained with sb3: `sb3/dqn-PongNoFrameskip-v4` at `{'a' * 40}`" in card.text
    assert f"Distilled from the teacher of freeway with SHA-256 `{'c' * 64}`" in card.text
    assert [result.metric_value for result in card.data.eval_results] == ["11.00 +/- 1.00", "-19.00 +/- 1.00"]
    assert json.loads((folder / "results.json").read_text())["games"]["pong"]["mean_reward"] == -19
    assert 'agent.single("freeway").predict' in card.text
    with pytest.raises(SystemExit, match="not a teacher of this agent"):
        export(monkeypatch, capsys, student, "--output", tmp_path / "other", "--teachers", TEACHER)


@pytest.mark.slow
def test_games_are_played_anew_when_asked(student, monkeypatch, capsys, tmp_path):
    shutil.rmtree(student.parent / "scores")
    monkeypatch.setitem(PROTOCOLS, "paper2015", replace(PROTOCOLS["paper2015"], max_episode_frames=200))
    monkeypatch.setattr(hub, "SLOTS_PER_SHARE", 2)
    export(monkeypatch, capsys, student, "--output", tmp_path / "hub", "--episodes", 4)
    results = json.loads((tmp_path / "hub" / "results.json").read_text())["games"]
    assert results["freeway"]["n_eval_episodes"] == 4
    assert "eval_datetime" in results["freeway"]


def test_scores_that_are_missing_altered_or_anothers_are_refused(student, monkeypatch, capsys, tmp_path):
    csv = student.parent / "scores" / "pong.csv"
    folder = tmp_path / "hub"

    def refused(message, *arguments):
        with pytest.raises(SystemExit, match=message):
            export(monkeypatch, capsys, student, "--output", folder, *arguments)
        assert not folder.exists()

    refused("plays 2 games; their scores must lie beside it", "--scores", csv)
    refused("film.mp4: no video", "--replay", tmp_path / "film.mp4")
    (tmp_path / "film.mp4").touch()
    refused("film.mp4: no video", "--replay", tmp_path / "film.mp4")
    refused("no repository on the hub", "--name", "a b/c")
    write_sidecar(csv, {"agent": {"digest": "other"}})
    refused("the scores of another agent")
    whose = {"agent": {"digest": load_agent(student)[1]["digest"]}, "protocol": "paper2015"}
    for facts, message in (
        ({"protocol": "sb3"}, "played with protocol sb3; the hub's scores are with paper2015: --episodes 32"),
        ({"evaluation": {"starts": "teacher", "epsilon": 0.05}}, "played with starts teacher; .* noop"),
        ({"evaluation": {"starts": "noop", "epsilon": 0.5}}, "played with epsilon 0.5; .* 0.05"),
        ({"acting": "sample"}, "played with acting sample; .* epsilon_greedy"),
    ):
        write_sidecar(csv, whose | facts)
        refused(message)
    for content in ("", "return\n", 'return\n1\n""\n'):
        csv.write_text(content)
        write_sidecar(csv, whose)
        refused("expected a column 'return', of numbers")
    csv.write_text("return\n21\n")
    refused("altered since it was written")
    Path(f"{csv}.json").unlink()
    csv.write_text("score\n21\n")
    refused("expected a column 'return'")
    csv.unlink()
    refused("no scores of pong: .*; play some with --episodes")


def test_scores_that_lie_elsewhere_must_say_whose_they_are(monkeypatch, capsys, tmp_path):
    """Freeway's teacher, and a student's games whose file has no description beside it."""
    elsewhere, folder = tmp_path / "scores.csv", tmp_path / "hub"
    pd.DataFrame({"return": [21.0]}).to_csv(elsewhere, index=False)
    with pytest.raises(SystemExit, match=r"scores\.csv: scores\.csv\.json, which would say whose games .*; allowed: "):
        export(monkeypatch, capsys, TEACHER, "--scores", elsewhere, "--output", folder)
    assert not folder.exists()
    write_sidecar(elsewhere, {"agent": {"digest": load_agent(TEACHER)[1]["digest"]}})
    export(monkeypatch, capsys, TEACHER, "--scores", elsewhere, "--output", folder)
    assert json.loads((folder / "results.json").read_text())["mean_reward"] == 21


def test_what_lies_in_a_folder_already_stays(student, monkeypatch, capsys, tmp_path):
    """A README of one's own, or the video of an agent that was exported before."""
    (tmp_path / "README.md").write_text("mine")
    for folder in (tmp_path, tmp_path / "README.md"):
        with pytest.raises(SystemExit, match="exists; choose another folder with --output, or remove it"):
            export(monkeypatch, capsys, student, "--output", folder)
    assert (tmp_path / "README.md").read_text() == "mine"
    empty = tmp_path / "hub"
    empty.mkdir()
    export(monkeypatch, capsys, student, "--output", empty)
    assert (empty / "config.json").exists()


def test_environments_are_called_as_leaderboards_call_them():
    assert environment_id("space_invaders") == "ALE/SpaceInvaders-v5"
    assert leaderboard_id("ms_pacman", PROTOCOLS["paper2015"]) == "MsPacmanNoFrameskip-v4"
    assert leaderboard_id("pong", PROTOCOLS["dopamine"]) == "ALE/Pong-v5"
    gymnasium = pytest.importorskip("gymnasium")
    import ale_py

    gymnasium.register_envs(ale_py)
    assert {"ALE/SpaceInvaders-v5", "MsPacmanNoFrameskip-v4"} <= set(gymnasium.registry)
    assert np.all([game in gymnasium.registry for game in (environment_id("pong"), environment_id("riverraid"))])
