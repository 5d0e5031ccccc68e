"""Agents as files of CleanRL and Stable-Baselines3: what they load is the agent, and importing gives it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import load_agent
from policy_distillation.exporting import ExportError
from policy_distillation.exporting.libraries import export_cleanrl, export_sb3
from policy_distillation.importing.agents import import_agent
from policy_distillation.networks import Agent, Network
from policy_distillation.readouts import Readout
from test_importing import livelier, observations
from torch import nn

torch.set_num_threads(1)

PONG = (0, 1, 3, 4, 11, 12)
NATURE = Network((32, 64, 64), 512)


@pytest.fixture
def agent():
    torch.manual_seed(0)
    agent = livelier(Agent(NATURE, {"pong": PONG})).eval()
    with torch.no_grad():  # every action is the best of some observation
        output = agent.get_submodule("controllers.pong")
        output.bias -= torch.from_numpy(agent.q_values(observations(32), "pong").mean(0))
    return agent


def assert_same(agent, other):
    ours, theirs = agent.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert (agent.actions, agent.readouts) == (other.actions, other.readouts)


@pytest.mark.parametrize("readout", [Readout(), Readout("logits")])
@pytest.mark.parametrize("library", ["cleanrl", "sb3"])
def test_importing_gives_the_agent_back(agent, library, readout, tmp_path):
    pytest.importorskip("stable_baselines3", reason="needs envs/peers.txt")
    agent = Agent(NATURE, {"pong": PONG}, {"pong": readout})
    path = tmp_path / "model.zip"
    {"cleanrl": export_cleanrl, "sb3": export_sb3}[library](agent, path)
    assert list(tmp_path.iterdir()) == [path]
    source = {"path": str(path), **({} if readout == Readout() else {"outputs": readout.outputs})}
    imported, metadata = import_agent(source, "pong", "paper2015")
    assert metadata["imported"]["from"] == library
    assert_same(agent, imported)


def test_cleanrls_network_loads_the_file(agent, tmp_path):
    export_cleanrl(agent, tmp_path / "dqn_atari.cleanrl_model")
    layers = [nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6))
    model = nn.Module()
    model.network = network
    model.load_state_dict(torch.load(tmp_path / "dqn_atari.cleanrl_model", weights_only=True))
    with torch.no_grad():
        theirs = network(torch.from_numpy(observations(8)) / 255.0).numpy()
    ours = agent.q_values(observations(8), "pong")
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_stable_baselines3_plays_as_the_agent_does(agent, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="needs envs/peers.txt")
    export_sb3(agent, tmp_path / "model.zip")
    model = sb3.DQN.load(tmp_path / "model.zip", device="cpu")
    seen = observations(32)
    expected, _ = agent.predict(seen, deterministic=True)
    assert len(set(expected)) > 2, "a constant would pass"
    np.testing.assert_array_equal(model.predict(seen, deterministic=True)[0], expected)
    assert model.exploration_rate == model.exploration_final_eps == 0.05
    assert model.policy.q_net_target.state_dict().keys() == model.policy.q_net.state_dict().keys()
    for name, tensor in model.policy.q_net.state_dict().items():
        assert torch.equal(tensor, model.policy.q_net_target.state_dict()[name])


@pytest.mark.parametrize(
    ("network", "readout", "other"),
    [
        (Network((16, 16, 16), 64), Readout(), r"channels \(16, 16, 16\), hidden 64"),
        (Network((32, 64, 64), 512, layer_norm=True), Readout(), "layer_norm True"),
        (NATURE, Readout("logits", "sample"), "acting sample"),
    ],
)
def test_other_agents_are_refused(network, readout, other, tmp_path):
    agent = Agent(network, {"pong": PONG}, {"pong": readout})
    for export, library in ((export_cleanrl, "cleanrl"), (export_sb3, "sb3")):
        told = f"{library} has one network, dqn .*, and acts greedily; this agent has {other}$"
        with pytest.raises(ExportError, match=told):
            export(agent, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_logits_are_announced_and_come_back_as_such(tmp_path, monkeypatch, capsys):
    """A file of CleanRL's does not say what its outputs are; whoever exports a student of KL is told, and says it."""
    student = ROOT / "resources/students/pong/dqn/agent.safetensors"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["policy_distillation", "export", str(student), "--to", "cleanrl"])
    main()
    warning = capsys.readouterr().out.splitlines()[0]
    assert warning.startswith("WARNING: its outputs are logits, which cleanrl takes for Q-values")
    command = warning.split("back here say so: ")[1]
    monkeypatch.setattr("sys.argv", ["policy_distillation", *command.split()])
    main()
    assert "logits of a policy" in capsys.readouterr().out
    assert_same(load_agent(student)[0], load_agent(tmp_path / "agent.safetensors")[0])


def test_a_student_of_several_games_gives_one(tmp_path, monkeypatch, capsys):
    """By the command, from a reference teacher of the size dqn; what is written is what was loaded."""
    monkeypatch.chdir(tmp_path)
    teacher = ROOT / "resources/teachers/freeway/agent.safetensors"
    monkeypatch.setattr("sys.argv", ["policy_distillation", "export", str(teacher), "--to", "cleanrl"])
    main()
    said = capsys.readouterr().out
    assert "written to freeway.cleanrl_model" in said
    assert "WARNING" not in said
    imported, _ = import_agent({"path": "freeway.cleanrl_model"}, "freeway", "paper2015")
    assert_same(load_agent(teacher)[0], imported)
    two = Agent(NATURE, {"pong": PONG, "freeway": (0, 2, 5)})
    export_cleanrl(two.single("freeway"), tmp_path / "two")
    imported, _ = import_agent({"path": "two"}, "freeway", "paper2015")
    seen = observations(4)
    np.testing.assert_array_equal(imported.q_values(seen, "freeway"), two.q_values(seen, "freeway"))
