"""Teachers from files: what is taken, and the one line that every refusal is."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from policy_distillation import sources
from policy_distillation.atari import action_ids
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.files import file_digest
from policy_distillation.header import read_metadata
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout
from policy_distillation.sources import (
    SourceError,
    check_actions,
    check_initial_agent,
    check_source,
    check_teachers,
    hub_file,
    is_older,
    learns_q_values,
    made_from,
    source_path,
)
from safetensors import safe_open
from safetensors.torch import save

ROOT = Path(__file__).resolve().parents[1]
PAPER = PROTOCOLS["paper2015"]
PONG = [0, 1, 3, 4, 11, 12]


@pytest.fixture
def agent(tmp_path):
    """A maker of agents' files."""

    def make(name="agent.safetensors", actions=None, protocol=PAPER, readouts=None, **sizes):
        torch.manual_seed(0)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        made = Agent(Network((4, 4, 4), 8, **sizes), actions or {"pong": PONG}, readouts)
        save_agent(path, made, {"protocol": asdict(protocol)})
        return path

    return make


@pytest.fixture
def reference(tmp_path, agent, monkeypatch):
    """A folder of reference teachers with one teacher, Pong's."""
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "teachers")
    path = agent("teachers/pong/agent.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "teachers/SHA256SUMS").write_text(f"{digest}  pong/agent.safetensors\n")
    return path


def refusal(check, *arguments):
    with pytest.raises(SourceError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_lies_beside_snapshots_is_none(tmp_path):
    kept = ["100_checkpoint", "20_model.zip", "pong_v5_3.cleanrl_model", "ckpt.7"]
    beside = ["100_checkpoint.replay.pkl", "0.monitor.csv", "events.out.tfevents.1700000000.host.1.0", ".ckpt.8"]
    beside += ["rl_model_replay_buffer_8_steps.pkl", "rl_model_vecnormalize_8_steps.pkl", "rl-video-step-900.mp4"]
    beside += ["model_optimizer_100.pt", "_stable_baselines3_version"]
    for name in (*kept, *beside, "notes"):
        (tmp_path / name).touch()
    assert [path.name for _, path in sources.snapshots(tmp_path)] == [kept[2], kept[3], kept[1], kept[0]]
    (tmp_path / "model.pt").touch()
    assert sources.snapshots(tmp_path) == []


def test_good_sources_pass(agent, reference):
    check_source("pong", "train", "paper2015")
    check_source("pong", "reference", "paper2015")
    check_source("pong", str(agent("own/agent.safetensors")), "paper2015")
    assert source_path("pong", "reference") == reference
    check_actions("pong", "reference", "paper2015")


REVISION = {"hub": "sb3/dqn-PongNoFrameskip-v4", "revision": "0" * 40}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"from": "sb3"}, "from sb3: give either 'path', a file, or 'hub' and 'revision'"),
        ({"from": "sb3", "path": "x", **REVISION}, "from sb3: give either 'path'"),
        ({"from": "sb3", "path": "none.zip"}, "from sb3: none.zip does not exist"),
        (
            {"from": "sb3", "path": "sb3/dqn-x"},
            "does not exist; a repository on the hub needs its commit: --revision",
        ),
        ({"from": "sb3", "path": ".", "revision": "0"}, "'revision' belongs to 'hub'"),
        ({"from": "sb3", "hub": "sb3/x"}, "sb3/x needs a 'revision', the commit that you looked at"),
        ({"from": "pfrl", **REVISION}, "is on the hub, so the key 'file' (--hub-file) must name the file in it"),
        ({"from": "mapping", "path": "."}, "'mapping', a YAML file that describes the network, belongs to"),
        ({"from": "sb3", "path": ".", "mapping": "."}, "belongs to 'from: mapping'"),
        ({"from": "mapping", "path": ".", "mapping": "none.yaml"}, "from mapping: none.yaml does not exist"),
    ],
    ids=str,
)
def test_imports_that_cannot_be_are_refused_before_anything_runs(source, message):
    assert message in refusal(check_source, "pong", source, "paper2015")


def test_a_teacher_that_cannot_be_is_named_where_it_is_said(tmp_path):
    settings = {"source": "none.safetensors", "initial_agent": None, "network": "dqn"}
    config = {"teacher": {"games": {"pong": settings}}, "networks": {"dqn": {}}, "protocol": "paper2015"}
    for game, key in (("pong", "teacher.games.pong.source"), ("qbert", "teacher.source")):
        assert refusal(check_teachers, {game: settings}, config).startswith(f"{key}: none.safetensors does not exist")
    zips = {**settings, "source": {"from": "sb3", "path": "none.zip"}}
    assert refusal(check_teachers, {"pong": zips}, config).startswith("teacher.games.pong.source: from sb3: none.zip")
    folder = {**settings, "source": str(tmp_path)}
    assert refusal(check_teachers, {"pong": folder}, config).endswith(
        "is a folder; allowed: the agent.safetensors in it"
    )
    further = {**settings, "source": "train", "initial_agent": "none.safetensors"}
    said = refusal(check_teachers, {"pong": further}, config)
    assert said.startswith("teacher.games.pong.initial_agent: none.safetensors does not exist")


def test_imports_that_can_be_pass():
    on_hub = ({"from": "sb3", **REVISION}, {"from": "pfrl", "file": "x", **REVISION})
    for source in ({"from": "sb3", "path": "."}, *on_hub):
        check_source("pong", source, "paper2015")
        check_actions("pong", source, "paper2015")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"from": "sb3", "hub": "sb3/dqn-PongNoFrameskip-v4"}, "dqn-PongNoFrameskip-v4.zip"),
        ({"from": "cleanrl", "hub": "cleanrl/PongNoFrameskip-v4-dqn_atari-seed1"}, "dqn_atari.cleanrl_model"),
        ({"from": "cleanrl", "hub": "cleanrl/PongNoFrameskip-v4-dqn_atari_jax-seed1"}, "dqn_atari_jax.cleanrl_model"),
        ({"from": "sb3", "hub": "a/b", "file": "best/model.zip"}, "best/model.zip"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_names_of_files_on_the_hub(source, name):
    assert hub_file(source) == name


def test_a_missing_file_is_named_and_what_there_is_instead(reference, tmp_path):
    message = refusal(check_source, "breakout", "reference", "paper2015")
    assert "breakout/agent.safetensors does not exist; reference teachers here: pong; or use `train`" in message
    assert f"{tmp_path}/none does not exist" in refusal(check_source, "pong", f"{tmp_path}/none", "paper2015")


def test_an_altered_reference_is_refused(reference):
    content = bytearray(reference.read_bytes())
    content[-1] ^= 1
    reference.write_bytes(content)
    assert "SHA256SUMS names; restore it from git" in refusal(check_source, "pong", "reference", "paper2015")


def test_an_altered_file_of_ones_own_is_refused_before_anything_runs(agent):
    path = agent("own/agent.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    message = refusal(check_source, "pong", str(path), "paper2015")
    assert f"{path}: altered since it was written" in message
    teacher = {"source": "train", "initial_agent": str(path), "network": "small"}
    sizes = {"channels": [4, 4, 4], "hidden": 8}
    assert "altered since" in refusal(check_initial_agent, "pong", teacher, {"small": sizes}, "paper2015")


def test_a_file_that_is_older_than_what_was_made_of_it(tmp_path):
    source, made = tmp_path / "source", tmp_path / "made"
    assert not is_older(source, made)
    source.touch()
    assert not is_older(source, made)
    made.touch()
    os.utime(source, (1, 1))
    assert is_older(source, made)
    os.utime(made, (0, 0))
    assert not is_older(source, made)


def test_what_a_teacher_was_made_from_is_told_by_content(agent, tmp_path):
    """Dates say nothing: git gives a clone's files new ones."""
    source, other = agent("source.safetensors"), agent("other.safetensors", {"pong": [0, 1]})

    def teacher(**metadata):
        path = tmp_path / "teacher.safetensors"
        save_agent(path, load_agent(other)[0], {"protocol": asdict(PAPER), **metadata})
        return path

    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(source.read_bytes())
    assert made_from(copy, source, "copied")
    assert not made_from(other, source, "copied")
    assert not made_from(tmp_path / "none", source, "copied")
    assert not made_from(source, tmp_path / "none", "copied")
    further = teacher(initial_agent=read_metadata(source))
    assert made_from(further, source, "initial_agent")
    assert not made_from(further, source, "copied")  # as where the source was named before, and this one is a copy
    assert not made_from(further, other, "initial_agent")
    model, mapping = tmp_path / "model.zip", tmp_path / "mapping.yaml"
    model.write_bytes(b"weights")
    mapping.write_bytes(b"layers")
    taken = teacher(imported={"digest": file_digest(model), "mapping_digest": file_digest(mapping)})
    assert made_from(taken, model, "imported")
    assert made_from(taken, mapping, "imported")
    assert not made_from(teacher(imported={"digest": file_digest(model)}), mapping, "imported")
    assert not made_from(teacher(initial_agent=None), model, "imported")
    model.write_bytes(b"other weights")
    assert not made_from(taken, model, "imported")
    taken.write_bytes(b"no agent")
    assert not made_from(taken, mapping, "imported")


def test_weights_of_a_type_that_numpy_has_not_are_refused(agent):
    path = agent()
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name).bfloat16() for name in file.keys()}  # noqa: SIM118
    path.write_bytes(save(tensors, metadata))
    said = refusal(check_source, "pong", str(path), "paper2015")
    # Other libraries that this process has loaded may have taught numpy the type.
    assert said.startswith((f"teacher.source: {path}: damaged (", f"teacher.source: {path}: altered since"))


@pytest.mark.parametrize(
    ("readouts", "expected"),
    [(None, True), ({}, True), ({"pong": {"outputs": "q_values"}}, True), ({"pong": {"outputs": "logits"}}, False)],
)
def test_what_a_files_outputs_are(agent, readouts, expected):
    path = agent()
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["policy_distillation"]) | {"readouts": readouts}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path.write_bytes(save(tensors, {"policy_distillation": json.dumps(header)}))
    assert learns_q_values("pong", str(path)) is expected
    assert not learns_q_values("pong", f"{path}.none")
    assert learns_q_values("pong", "train")


def test_a_teacher_of_another_game_or_protocol_is_refused(agent):
    path = str(agent(actions={"qbert": range(6), "breakout": range(4)}))
    assert "does not play pong; it plays breakout, qbert" in refusal(check_source, "pong", path, "paper2015")
    path = str(agent())
    message = refusal(check_source, "pong", path, "machado2018")
    assert "was made under the protocol paper2015, but protocol is machado2018" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, b"\x02" + bytes(7) + b"{}"])
def test_a_file_that_is_no_agent_is_refused(tmp_path, content):
    path = tmp_path / "agent.safetensors"
    path.write_bytes(content)
    empty = content.endswith(b"{}")  # a safetensors file without tensors
    what = "a safetensors file, but not an agent of this project" if empty else "not a readable safetensors file ("
    assert f"teacher.source: {path}: {what}" in refusal(check_source, "pong", str(path), "paper2015")


def test_what_is_trained_further_is_checked_before_anything_runs(agent, tmp_path):
    sizes = {"channels": [4, 4, 4], "hidden": 8}

    def check(path, game="pong", network=sizes, protocol="paper2015", source="train"):
        teacher = {"source": source, "initial_agent": path and str(path), "network": "small"}
        check_initial_agent(game, teacher, network, protocol)

    path = agent()
    check(path)
    check(None)
    check("none", source="reference")  # nothing is trained
    assert "teacher.initial_agent: none does not exist; allowed: the path of" in refusal(check, "none")
    assert f"teacher.initial_agent: {path} does not play qbert; it plays pong" in refusal(check, path, "qbert")
    assert "protocol is machado2018" in refusal(check, path, "pong", sizes, "machado2018")
    for other in ({"hidden": 9}, {"layer_norm": True}, {"controller": 5}):
        message = refusal(check, path, "pong", sizes | other)
        assert f"teacher.initial_agent: {path} has the network {{'controller': None," in message
        assert "; teacher.network small is {" in message
    dopamines = agent(padding="same")
    assert "'padding': 'same'}; teacher.network small is {" in refusal(check, dopamines)
    student = agent(readouts={"pong": Readout("logits")})
    assert f"{student} has logits as outputs; allowed: q_values" in refusal(check, student)
    several = agent(actions={"pong": PONG, "qbert": PONG}, controller=4)
    both = sizes | {"controller": 4}
    assert f"{several} plays qbert, too; allowed: an agent of pong alone" in refusal(check, several, "pong", both)
    path = agent()
    (tmp_path / "torn").write_bytes(path.read_bytes()[:100])
    assert "torn: not a readable safetensors file" in refusal(check, tmp_path / "torn")


def test_what_a_configured_network_does_not_say_is_what_networks_are_by_default():
    """The checks know it by themselves, without loading torch."""
    network = json.loads(json.dumps(asdict(Network((4, 4, 4), 8))))
    assert network == {"channels": [4, 4, 4], "hidden": 8, **sources.NETWORK_DEFAULTS, **sources.CONVOLUTIONS}


def test_other_actions_than_the_emulators_are_refused(agent):
    path = str(agent(actions={"pong": [0, 1, 3, 4, 12, 11]}))
    check_source("pong", path, "paper2015")
    message = refusal(check_actions, "pong", path, "paper2015")
    assert "[0, 1, 3, 4, 12, 11] for pong, the emulator [0, 1, 3, 4, 11, 12]" in message


@pytest.mark.parametrize(("game", "ids"), [("pong", PONG), ("freeway", [0, 2, 5]), ("breakout", [0, 1, 3, 4])])
def test_action_ids(game, ids):
    assert action_ids(game, PAPER) == ids
    assert action_ids(game, PROTOCOLS["machado2018"]) == list(range(18))


TEACHERS = sorted(folder.name for folder in (ROOT / "resources/teachers").glob("*/"))


@pytest.mark.parametrize("game", TEACHERS)
def test_shipped_teachers_are_whole_and_fit_their_games(game, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_source(game, "reference", "paper2015")
    check_actions(game, "reference", "paper2015")
    folder = ROOT / "resources/teachers" / game
    _, metadata = load_agent(folder / "agent.safetensors")
    assert metadata["games"] == [game]
    assert {"settings", "seed", "steps", "score", "protocol"} <= metadata.keys()
    assert (folder / "progress.csv").exists()
    assert (folder / "agent.safetensors").stat().st_size < 4e6
    assert len((folder / "scores.csv").read_text().splitlines()) >= 101
