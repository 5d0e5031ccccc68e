"""Actor-critic, quantile, categorical, noisy and duelling agents: the same outputs as the networks that were saved.

Where a library can be installed it makes and saves the agent itself; elsewhere the network is as in its sources.
"""

import gzip
import io
import json
import zipfile
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from conftest import load_example
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.importing.agents import describe, import_agent, import_snapshots
from policy_distillation.importing.containers import AgentImportError
from policy_distillation.importing.mappings import read_declaration
from policy_distillation.readouts import Readout, Support
from test_importing import flax_forward, flax_msgpack, flax_parameters, livelier, observations, weights
from test_importing_libraries import ACTIONS, Screen
from torch import nn

SAMPLED = Readout("logits", "sample")
C51 = Readout(support=Support(-10.0, 10.0, 51))
ATOMS = torch.linspace(-10, 10, 51)


def imported(path, game="pong", **source):
    """The agent, its metadata and what people are told; saved and loaded again, it answers the same."""
    agent, metadata = import_agent({"path": str(path), **source}, game)
    save_agent(path.parent / "imported.safetensors", agent, metadata)
    loaded, _ = load_agent(path.parent / "imported.safetensors")
    assert loaded.readouts == agent.readouts
    np.testing.assert_array_equal(loaded.q_values(observations(), game), agent.q_values(observations(), game))
    return agent, metadata["imported"], describe(agent, metadata)


def assert_same(agent, expected, game="pong"):
    expected = np.asarray(expected.detach() if isinstance(expected, torch.Tensor) else expected, np.float64)
    spread = np.abs(expected - expected.mean(0)).max()
    assert spread > 1e-2, f"a constant would pass: {spread}"
    tolerance = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(agent.q_values(observations(), game), expected, rtol=0, atol=tolerance)


def pixels(divisor=255.0):
    return torch.from_numpy(observations()).float() / divisor


def trunk():
    layers = (nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten())


def prefixed(prefix, module):
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def categorical(logits, atoms=ATOMS):
    """(batch, actions, atoms) to Q-values."""
    return (logits.softmax(2) * atoms).sum(2)


class Noisy(nn.Module):
    """A noisy layer in evaluation, as CleanRL and Kaixhin have it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            setattr(self, f"{name}_mu", nn.Parameter(torch.randn(shape) * (1 / inputs**0.5)))
            setattr(self, f"{name}_sigma", nn.Parameter(torch.rand(shape)))
            self.register_buffer(f"{name}_epsilon", torch.randn(shape))

    def forward(self, x):
        return x @ self.weight_mu.T + self.bias_mu


# Stable-Baselines3 and sb3-contrib


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [("PPO", {}), ("A2C", {}), ("A2C", {"share_features_extractor": False}), ("PPO", {"normalize_images": False})],
)
def test_stable_baselines3s_policies(tmp_path, algorithm, settings):
    sb3 = pytest.importorskip("stable_baselines3")
    torch.manual_seed(0)
    sizes = {"n_steps": 2, "batch_size": 2} if algorithm == "PPO" else {}
    model = getattr(sb3, algorithm)("CnnPolicy", Screen(), device="cpu", policy_kwargs=settings, **sizes)
    livelier(model.policy)
    model.save(tmp_path / "model.zip")
    agent, facts, told = imported(tmp_path / "model.zip")
    with torch.no_grad():
        expected = model.policy.get_distribution(model.policy.obs_to_tensor(observations())[0]).distribution.logits
    logits = torch.from_numpy(agent.q_values(observations(), "pong"))
    tolerance = 1e-5 * max(1.0, expected.abs().max())
    torch.testing.assert_close(logits.log_softmax(1), expected, rtol=0, atol=float(tolerance))
    assert agent.readouts == {"pong": SAMPLED}
    assert (facts["from"], facts["agent"]) == ("sb3", "PPO or A2C")
    assert "sampled from the softmax of its logits" in told


def ppo_zip(path, actions=6):
    """What ``PPO("CnnPolicy").save`` writes; where Stable-Baselines3 is not installed, as far as it is read."""
    torch.manual_seed(0)
    if find_spec("stable_baselines3"):
        from stable_baselines3 import PPO

        class Game(Screen):
            action_space = gymnasium.spaces.Discrete(actions)

        model = PPO("CnnPolicy", Game(), n_steps=2, batch_size=2, device="cpu")
        livelier(model.policy.pi_features_extractor)
        with open(path, "wb") as file:  # by name it would add an ending
            model.save(file)
        return
    state = {}
    for prefix in ("", "pi_", "vf_"):
        state |= prefixed(f"{prefix}features_extractor.cnn.", livelier(trunk()))
        state |= prefixed(f"{prefix}features_extractor.linear.0.", nn.Linear(3136, 512))
    state |= prefixed("action_net.", nn.Linear(512, actions)) | prefixed("value_net.", nn.Linear(512, 1))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"policy_kwargs": {}}))
        archive.writestr("policy.pth", buffer.getvalue())


def test_stable_baselines3_before_its_trunks_had_names_of_their_own(tmp_path):
    torch.manual_seed(0)
    body, actor = livelier(trunk()), nn.Linear(512, 6)
    dense = livelier(nn.Linear(3136, 512))
    state = prefixed("features_extractor.cnn.", body) | prefixed("features_extractor.linear.0.", dense)
    state |= prefixed("action_net.", actor) | prefixed("value_net.", nn.Linear(512, 1))
    torch.save(state, tmp_path / "policy.pth")
    agent, _, _ = imported(tmp_path / "policy.pth")
    assert_same(agent, actor(dense(body(pixels())).relu()))


def test_qr_dqn_of_sb3_contrib(tmp_path):
    contrib = pytest.importorskip("sb3_contrib")
    torch.manual_seed(0)
    model = contrib.QRDQN("CnnPolicy", Screen(), buffer_size=2, device="cpu")
    livelier(model.policy.quantile_net)
    model.save(tmp_path / "model.zip")
    agent, facts, told = imported(tmp_path / "model.zip")
    with torch.no_grad():
        assert_same(agent, model.policy.quantile_net(model.policy.obs_to_tensor(observations())[0]).mean(1))
    assert agent.readouts == {"pong": Readout()}
    assert (facts["agent"], facts["readout"]["order"]) == ("QR-DQN", "quantile_major")
    assert "the means of its quantiles" in told


# CleanRL


def test_ppo_of_cleanrl_and_leanrl(tmp_path):
    torch.manual_seed(0)
    network = livelier(nn.Sequential(*trunk(), nn.Linear(3136, 512), nn.ReLU()))
    actor = nn.Linear(512, 6)
    state = prefixed("network.", network) | prefixed("actor.", actor) | prefixed("critic.", nn.Linear(512, 1))
    torch.save(state, tmp_path / "agent.pt")
    agent, facts, _ = imported(tmp_path / "agent.pt")
    assert_same(agent, actor(network(pixels())))
    assert agent.readouts["pong"] == SAMPLED
    assert (facts["from"], facts["agent"]) == ("cleanrl", "PPO")
    agent, _, _ = imported(tmp_path / "agent.pt", acting="epsilon_greedy")
    assert agent.readouts["pong"] == Readout("logits", "epsilon_greedy")


def test_ppo_of_cleanrl_in_jax(tmp_path):
    network, actor = flax_parameters(512), flax_parameters(6, seed=1)["Dense_1"]
    del network["Dense_1"]
    parameters = [{"params": layers} for layers in (network, {"Dense_0": actor}, {"Dense_0": actor})]
    tree = {
        "0": {"exp_name": "ppo", "seed": 1, "clip": 0.1},
        "1": {str(n): layers for n, layers in enumerate(parameters)},
    }
    (tmp_path / "x.cleanrl_model").write_bytes(flax_msgpack(tree))
    agent, facts, _ = imported(tmp_path / "x.cleanrl_model")
    assert_same(agent, flax_forward(network | {"Dense_1": actor}, observations(), same=False))
    assert (facts["from"], agent.readouts["pong"]) == ("cleanrl", SAMPLED)


@pytest.mark.parametrize("bounds", [(-10, 10), (-3, 5)])
def test_c51_of_cleanrl(tmp_path, bounds):
    torch.manual_seed(0)
    network = livelier(nn.Sequential(*trunk(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6 * 51)))
    atoms = torch.linspace(*bounds, 51)
    weights = prefixed("network.", network) | {"atoms": atoms}
    torch.save({"model_weights": weights, "args": {"v_min": -1, "env_id": "x"}}, tmp_path / "c51_atari.cleanrl_model")
    agent, facts, told = imported(tmp_path / "c51_atari.cleanrl_model")
    assert_same(agent, categorical(network(pixels()).view(-1, 6, 51), atoms))
    assert agent.readouts["pong"] == Readout(support=Support(*map(float, bounds), 51))
    assert facts["agent"] == "C51"
    assert f"support {bounds[0]} to {bounds[1]}, 51 atoms: in the file" in told


@pytest.mark.parametrize(
    "settings", [{"v_min": -10, "v_max": 10, "n_atoms": 51}, {"v_min": -2, "v_max": 7.5, "n_atoms": 21}]
)
def test_c51_of_cleanrl_in_jax(tmp_path, settings):
    atoms = settings["n_atoms"]
    parameters = flax_parameters(6 * atoms)
    tree = {"model_weights": {"params": parameters}, "args": {"env_id": "PongNoFrameskip-v4", **settings}}
    (tmp_path / "c51").write_bytes(flax_msgpack(tree))
    agent, _, told = imported(tmp_path / "c51")
    logits = torch.from_numpy(flax_forward(parameters, observations(), same=False)).view(-1, 6, atoms)
    support = torch.linspace(settings["v_min"], settings["v_max"], atoms, dtype=torch.float64)
    assert_same(agent, categorical(logits, support))
    assert "in the file's settings" in told


def test_rainbow_of_cleanrl(tmp_path):
    torch.manual_seed(0)
    body = livelier(trunk())
    value, advantage = (nn.Sequential(Noisy(3136, 512), nn.ReLU(), Noisy(512, outputs)) for outputs in (51, 6 * 51))
    state = prefixed("network.", body) | prefixed("value_head.", value) | prefixed("advantage_head.", advantage)
    torch.save(state | {"support": ATOMS}, tmp_path / "rainbow.pt")
    agent, facts, told = imported(tmp_path / "rainbow.pt")
    h = body(pixels())
    a = advantage(h).view(-1, 6, 51)
    assert_same(agent, categorical(value(h).view(-1, 1, 51) + a - a.mean(1, keepdim=True)))
    assert (facts["from"], facts["agent"], agent.readouts["pong"]) == ("cleanrl", "Rainbow", C51)
    assert "noisy layers play without their noise" in told


# Dopamine


def dopamine_file(path, parameters):
    import pickle

    path.write_bytes(pickle.dumps({"training_steps": 3, "online_params": parameters, "target_params": parameters}))
    return path


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["dqn", "c51", "quantile"])
def test_dopamines_value_agents(tmp_path, nested, kind):
    width = {"dqn": 1, "c51": 51, "quantile": 200}[kind]
    parameters = flax_parameters(6 * width, same=True)
    rows = flax_forward(parameters, observations(), same=True).reshape(-1, 6, width)
    content = {"params": parameters} if nested else parameters
    agent, facts, told = imported(dopamine_file(tmp_path / "ckpt.199", content))
    expected = categorical(torch.from_numpy(rows), ATOMS.double()) if kind == "c51" else rows.mean(2)
    assert_same(agent, expected)
    assert facts["readout"]["kind"] == {"dqn": "plain", "c51": "categorical", "quantile": "quantiles"}[kind]
    assert ("NOT in the file: assumed" in told) == (kind != "dqn")


def test_dopamines_names_from_before_linen(tmp_path):
    parameters = flax_parameters(6, same=True)
    older = {**parameters, "Dense_3": parameters["Dense_0"], "Dense_4": parameters["Dense_1"]}
    del older["Dense_0"], older["Dense_1"]
    agent, _, _ = imported(dopamine_file(tmp_path / "ckpt.199", older))
    assert_same(agent, flax_forward(parameters, observations(), same=True))


@pytest.mark.parametrize("noisy", [True, False])
def test_dopamines_whole_rainbow(tmp_path, noisy):
    rng = np.random.default_rng(0)
    parameters = flax_parameters(512, same=True)
    shapes = {"1": 6 * 51, "2": 51}
    heads = {n: weights(rng, {"kernel": (512, units), "bias": (units,)}) for n, units in shapes.items()}
    hidden = parameters["Dense_0"]
    layers = {"0": hidden, **heads}
    if noisy:
        named = {
            f"NoisyNetwork_{n}": {f"{part}_mu": array for part, array in layer.items()}
            | {f"{part}_sigma": np.ones_like(array) for part, array in layer.items()}
            for n, layer in layers.items()
        }
    else:
        named = {f"Dense_{n}": layer for n, layer in layers.items()}
    convolutions = {name: layer for name, layer in parameters.items() if name.startswith("Conv")}
    agent, facts, _ = imported(dopamine_file(tmp_path / "ckpt.9", {"params": convolutions | named}))
    identity = {"kernel": np.eye(512, dtype="f4"), "bias": np.zeros(512, "f4")}
    h = flax_forward(parameters | {"Dense_1": identity}, observations(), same=True)
    a, v = (h @ heads[n]["kernel"] + heads[n]["bias"] for n in "12")
    a = a.reshape(-1, 6, 51)
    logits = v.reshape(-1, 1, 51) + a - a.mean(1, keepdims=True)
    assert_same(agent, categorical(torch.from_numpy(logits), ATOMS.double()))
    assert facts["agent"] == "Rainbow"


# tianshou


def tianshou_algorithm(kind, scaled, **settings):
    pytest.importorskip("tianshou")
    from tianshou.algorithm.modelfree import c51, ppo, qrdqn, rainbow
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.env.atari import atari_network as networks
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

    torch.manual_seed(0)
    sizes, optimiser = {"c": 4, "h": 84, "w": 84}, AdamOptimizerFactory(lr=1e-4)

    def wrapped(network):
        if scaled:
            return networks.ScaledObsInputActionReprNet(network)
        with torch.no_grad():  # else pixels as they are saturate every softmax
            next(network.parameters()).div_(255)
        return network

    if kind == "PPO":
        network = networks.DQNet(**sizes, action_shape=6, features_only=True, output_dim_added_layer=512)
        network = wrapped(livelier(network))
        policy = DiscreteActorPolicy(
            actor=DiscreteActor(preprocess_net=network, action_shape=6, softmax_output=False), action_space=ACTIONS
        )
        return ppo.PPO(policy=policy, critic=DiscreteCritic(preprocess_net=network), optim=optimiser)
    network = {"C51": networks.C51Net, "QR-DQN": networks.QRDQNet, "Rainbow": networks.RainbowNet}[kind]
    network = wrapped(livelier(network(**sizes, action_shape=[6], **settings)))
    policy = (qrdqn.QRDQNPolicy if kind == "QR-DQN" else c51.C51Policy)(model=network, action_space=ACTIONS)
    algorithm = {"C51": c51.C51, "QR-DQN": qrdqn.QRDQN, "Rainbow": rainbow.RainbowDQN}[kind]
    return algorithm(policy=policy, optim=optimiser, target_update_freq=500, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["PPO", "C51", "QR-DQN", "Rainbow"])
def test_tianshou(tmp_path, kind, scaled):
    algorithm = tianshou_algorithm(kind, scaled)
    from tianshou.data import Batch

    algorithm.policy.eval()
    torch.save(algorithm.state_dict(), tmp_path / "policy.pth")
    source = {} if scaled else {"input_divisor": 1}
    agent, facts, told = imported(tmp_path / "policy.pth", **source)
    with torch.no_grad():
        answer = algorithm.policy(Batch(obs=observations(), info={})).logits
        if kind in ("C51", "Rainbow"):
            answer = (answer * ATOMS).sum(2)
        elif kind == "QR-DQN":
            answer = answer.mean(2)
    assert_same(agent, answer)
    assert (facts["from"], facts["agent"]) == ("tianshou", kind)
    assert ("a DataParallel network looks the same" in told) == scaled
    if not scaled:
        with pytest.raises(AgentImportError, match="give input_divisor"):
            imported(tmp_path / "policy.pth")


def test_older_tianshou_checkpoints(tmp_path):
    state = tianshou_algorithm("C51", True).state_dict()
    older = {name.removeprefix("policy."): tensor for name, tensor in state.items() if name.startswith("policy.")}
    torch.save({"model": older}, tmp_path / "checkpoint_3.pth")
    assert imported(tmp_path / "checkpoint_3.pth")[1]["agent"] == "C51"


# pfrl


def pfrl_saved(network, folder, agent="DQN"):
    import pfrl

    phi = lambda x: np.asarray(x, np.float32) / 255  # noqa: E731
    optimiser = torch.optim.Adam(network.parameters())
    if agent == "PPO":
        made = pfrl.agents.PPO(network, optimiser, phi=phi, gpu=None)
    else:
        buffer = pfrl.replay_buffers.ReplayBuffer(50_000)
        explorer = pfrl.explorers.Greedy()
        made = getattr(pfrl.agents, agent)(network, optimiser, buffer, gamma=0.99, explorer=explorer, phi=phi)
    made.save(str(folder))


def test_pfrls_rainbow(tmp_path):
    pfrl = pytest.importorskip("pfrl")
    torch.manual_seed(0)
    network = livelier(pfrl.q_functions.DistributionalDuelingDQN(6, 51, -10, 10))
    pfrl.nn.to_factorized_noisy(network, sigma_scale=0.5)
    pfrl_saved(network, tmp_path / "agent", "CategoricalDoubleDQN")
    agent, facts, told = imported(tmp_path / "agent")
    for layer in network.modules():
        if hasattr(layer, "sigma"):
            for parameter in layer.sigma.parameters():
                parameter.data.zero_()
    assert_same(agent, network(pixels()).q_values)
    assert (facts["from"], facts["agent"], agent.readouts["pong"]) == ("pfrl", "Rainbow", C51)
    assert "a close relative" in told
    assert "NOT in the file" in told


def test_pfrls_categorical_dqn(tmp_path):
    pfrl = pytest.importorskip("pfrl")
    torch.manual_seed(0)
    head = pfrl.q_functions.DistributionalFCStateQFunctionWithDiscreteAction(512, 6, 51, -10, 10, 0, 0)
    network = livelier(nn.Sequential(pfrl.nn.LargeAtariCNN(), head))
    pfrl_saved(network, tmp_path / "agent", "CategoricalDQN")
    agent, facts, told = imported(tmp_path / "agent")
    assert_same(agent, network(pixels()).q_values)
    assert (facts["agent"], agent.readouts["pong"]) == ("C51", C51)
    assert "51 atoms: in the file" in told


def test_pfrls_duelling_dqn(tmp_path):
    pfrl = pytest.importorskip("pfrl")
    torch.manual_seed(0)
    network = livelier(pfrl.q_functions.DuelingDQN(6))
    pfrl_saved(network, tmp_path / "agent")
    agent, facts, _ = imported(tmp_path / "agent")
    assert_same(agent, network(pixels()).q_values)
    assert facts["agent"] == "duelling DQN"


@pytest.mark.parametrize("kind", ["PPO", "A3C"])
def test_pfrls_policies(tmp_path, kind):
    pfrl = pytest.importorskip("pfrl")
    torch.manual_seed(0)
    head = pfrl.policies.SoftmaxCategoricalHead()
    if kind == "PPO":
        body, units = (*trunk(), nn.Linear(3136, 512), nn.ReLU()), 512
    else:
        body = (nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten())
        body, units = (*body, nn.Linear(2592, 256), nn.ReLU()), 256
    ends = pfrl.nn.Branched(nn.Sequential(nn.Linear(units, 6), head), nn.Linear(units, 1))
    network = livelier(nn.Sequential(*body, ends))
    pfrl_saved(network, tmp_path / "agent", "PPO")
    agent, facts, _ = imported(tmp_path / "agent")
    logits = torch.from_numpy(agent.q_values(observations(), "pong")).log_softmax(1)
    expected = network(pixels())[0].logits.detach()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert (facts["from"], facts["agent"], agent.readouts["pong"]) == ("pfrl", kind, SAMPLED)


# Kaixhin's Rainbow and atari-agents, as their sources have them


def test_kaixhins_rainbow(tmp_path):
    torch.manual_seed(0)
    body = livelier(trunk())
    layers = {
        f"fc_{h}_{v}": Noisy(*size)
        for h, v, size in [
            ("h", "v", (3136, 512)),
            ("h", "a", (3136, 512)),
            ("z", "v", (512, 51)),
            ("z", "a", (512, 6 * 51)),
        ]
    }
    state = prefixed("convs.", body)
    for name, layer in layers.items():
        state |= prefixed(f"{name}.", layer)
    torch.save(state, tmp_path / "model.pth")
    agent, facts, _ = imported(tmp_path / "model.pth")
    h = body(pixels())
    v, a = (layers[f"fc_z_{s}"](layers[f"fc_h_{s}"](h).relu()).view(len(h), -1, 51) for s in "va")
    assert_same(agent, categorical(v + a - a.mean(1, keepdim=True)))
    assert facts["from"] == "kaixhin"
    state["conv1.weight"], state["conv1.bias"] = state.pop("convs.0.weight"), state.pop("convs.0.bias")
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(AgentImportError, match="first convolution is padded in some releases"):
        imported(tmp_path / "model.pth")


class AtariNet(nn.Module):
    """Its private names are mangled to ``_AtariNet__features`` and so on."""

    def __init__(self, actions, distributional):
        super().__init__()
        self.actions = actions
        if distributional:
            self.__support = nn.Parameter(ATOMS.clone(), requires_grad=False)
        self.__features = trunk()[:-1]
        self.__head = nn.Sequential(
            nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions * (51 if distributional else 1))
        )
        livelier(self.__features)
        livelier(self.__head)

    def forward(self, x):
        outputs = self.__head(self.__features(x).flatten(1))
        return outputs if outputs.shape[1] == self.actions else categorical(outputs.view(-1, self.actions, 51))


def atari_agents_file(path, network):
    buffer = io.BytesIO()
    beside = {"optim_state": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "step": 3, "rlog": torch.zeros(2, 2)}
    torch.save({"estimator_state": network.state_dict(), **beside}, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(gzip.compress(buffer.getvalue(), 1))
    return path


@pytest.mark.parametrize("distributional", [True, False])
def test_atari_agents(tmp_path, distributional):
    torch.manual_seed(0)
    network = AtariNet(6, distributional)
    agent, facts, _ = imported(atari_agents_file(tmp_path / "model_50000000.gz", network))
    assert_same(agent, network(pixels()))
    assert (facts["from"], facts["container"]) == ("atari_agents", "gzip of torch")
    assert facts["trained_under"] == "paper2015"
    assert agent.readouts["pong"] == (C51 if distributional else Readout())


@pytest.mark.slow
def test_a_folder_of_snapshots(tmp_path):
    """The newest is the agent; to learn from one that learns, the newest after each equal stretch of its training."""
    (tmp_path / "run").mkdir()
    networks = {}
    for step in (100, 2000, 3000, 10_000):
        networks[step] = AtariNet(6, distributional=False)
        atari_agents_file(tmp_path / "run" / f"model_{step}.gz", networks[step])
    (tmp_path / "run" / "README.md").write_text("no snapshot")
    source = {"from": "atari_agents", "path": str(tmp_path / "run")}
    agent, metadata = import_agent(source, "pong")
    assert_same(agent, networks[10_000](pixels()))
    assert metadata["imported"]["snapshot"] == "model_10000.gz"
    taken = list(import_snapshots(source, "pong", "paper2015", 4))
    for (agent, _), step in zip(taken, (2000, 3000, 3000, 10_000), strict=True):
        assert_same(agent, networks[step](pixels()))
    (first, _) = next(import_snapshots(source, "pong", "paper2015", 1000))
    assert_same(first, networks[100](pixels()))


def test_a_folder_of_stable_baselines3s_checkpoints(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.callbacks import CheckpointCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.manual_seed(0)
    env = VecNormalize(DummyVecEnv([Screen]), norm_obs=False)
    model = sb3.DQN("CnnPolicy", env, buffer_size=4, learning_starts=100, device="cpu")
    livelier(model.policy.q_net)
    keep = CheckpointCallback(4, str(tmp_path / "run"), save_replay_buffer=True, save_vecnormalize=True)
    model.learn(12, callback=keep)
    assert len(list((tmp_path / "run").iterdir())) == 9
    agent, metadata = import_agent({"path": str(tmp_path / "run")}, "pong")
    assert metadata["imported"]["snapshot"] == "rl_model_12_steps.zip"
    with torch.no_grad():
        assert_same(agent, model.policy.q_net(model.policy.obs_to_tensor(observations())[0]))


def test_a_folder_of_dopamines_checkpoints(tmp_path):
    """As its Checkpointer and its replay memory name them."""
    (tmp_path / "run").mkdir()
    parameters = {}
    for iteration in (0, 1, 9, 10):
        parameters[iteration] = flax_parameters(same=True, seed=iteration)
        dopamine_file(tmp_path / "run" / f"ckpt.{iteration}", {"params": parameters[iteration]})
        for beside in ("sentinel_checkpoint_complete.{}", "$store$_action_ckpt.{}.gz", "add_count_ckpt.{}.gz"):
            (tmp_path / "run" / beside.format(iteration)).write_bytes(b"no agent")
    source = {"path": str(tmp_path / "run")}
    assert import_agent(source, "pong")[1]["imported"]["snapshot"] == "ckpt.10"
    for (agent, _), iteration in zip(import_snapshots(source, "pong", "dopamine", 2), (1, 10), strict=True):
        assert_same(agent, flax_forward(parameters[iteration], observations(), same=True))


# How many rows of the output layer belong to an action


def every_action_of(path, library, kind):
    """A file of an agent with 18 actions, and what the agent answers."""
    torch.manual_seed(0)
    if library == "dopamine":
        width = {"dqn": 1, "c51": 51, "quantile": 200}[kind]
        parameters = flax_parameters(18 * width, same=True)
        dopamine_file(path, {"params": parameters})
        rows = torch.from_numpy(flax_forward(parameters, observations(), same=True)).view(-1, 18, width)
        return categorical(rows, ATOMS.double()) if kind == "c51" else rows.mean(2)
    actions = gymnasium.spaces.Discrete(18)
    if library == "sb3":
        contrib = pytest.importorskip("sb3_contrib")

        class Every(Screen):
            action_space = actions

        model = contrib.QRDQN("CnnPolicy", Every(), buffer_size=2, device="cpu")
        livelier(model.policy.quantile_net)
        with open(path, "wb") as file:
            model.save(file)
        with torch.no_grad():
            return model.policy.quantile_net(model.policy.obs_to_tensor(observations())[0]).mean(1)
    dqn = pytest.importorskip("tianshou.algorithm.modelfree.dqn")
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet

    network = ScaledObsInputActionReprNet(livelier(DQNet(c=4, h=84, w=84, action_shape=[18])))
    policy = dqn.DiscreteQLearningPolicy(model=network, action_space=actions)
    algorithm = dqn.DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-4), target_update_freq=5)
    torch.save(algorithm.state_dict(), path)
    with torch.no_grad():
        return network(observations())[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "kind"),
    [("tianshou", "dqn"), ("sb3", "quantile"), *(("dopamine", kind) for kind in ("dqn", "c51", "quantile"))],
)
def test_agents_of_all_18_actions_are_taken_for_nothing_else(tmp_path, library, kind):
    """18 is a multiple of the actions of many a game, and so is 18 times anything."""
    expected = every_action_of(tmp_path / "x", library, kind)
    for game in ("pong", "ms_pacman", "freeway"):
        with pytest.raises(AgentImportError, match=f"18 outputs, but under .* {game} has .* --protocol machado2018"):
            imported(tmp_path / "x", game)
    agent, metadata = import_agent({"path": str(tmp_path / "x")}, "pong", "machado2018")
    assert_same(agent, expected)
    assert metadata["imported"]["readout"]["kind"] == {"dqn": "plain", "c51": "categorical"}.get(kind, "quantiles")


def test_an_agent_of_a_game_with_more_actions(tmp_path):
    for number, state in enumerate((cleanrl_state()[1], tianshou_algorithm("QR-DQN", True).state_dict())):
        torch.save(state, tmp_path / f"{number}.pth")
        with pytest.raises(AgentImportError, match="6 outputs, but under the protocol cleanrl freeway has the 3"):
            imported(tmp_path / f"{number}.pth", "freeway")


def test_other_numbers_of_quantiles_are_read_where_the_library_writes_them(tmp_path):
    contrib = pytest.importorskip("sb3_contrib")
    torch.manual_seed(0)
    settings = {"policy_kwargs": {"n_quantiles": 50}, "device": "cpu"}
    model = contrib.QRDQN("CnnPolicy", Screen(), buffer_size=2, **settings)
    livelier(model.policy.quantile_net)
    model.save(tmp_path / "model.zip")
    agent, _, told = imported(tmp_path / "model.zip")
    with torch.no_grad():
        assert_same(agent, model.policy.quantile_net(model.policy.obs_to_tensor(observations())[0]).mean(1))
    assert "50 quantiles an action: in the file's settings" in told
    torch.save(model.policy.state_dict(), tmp_path / "policy.pth")  # which says no number
    with pytest.raises(
        AgentImportError, match=r"has 300 rows, which no agent of sb3 has .QR-DQN: 200 quantiles an act"
    ):
        imported(tmp_path / "policy.pth")


def test_quantiles_as_many_as_c51_has_atoms(tmp_path):
    algorithm = tianshou_algorithm("QR-DQN", True, num_quantiles=51)
    from tianshou.data import Batch

    torch.save(algorithm.state_dict(), tmp_path / "policy.pth")
    agent, facts, told = imported(tmp_path / "policy.pth")
    with torch.no_grad():
        assert_same(agent, algorithm.policy.eval()(Batch(obs=observations(), info={})).logits.mean(2))
    assert facts["agent"] == "QR-DQN"
    assert "51 quantiles an action: in the file" in told
    torch.save(algorithm.policy.state_dict(), tmp_path / "policy.pth")
    with pytest.raises(AgentImportError, match=r"306 rows, .* C51: the file lacks support; QR-DQN: 200 quantiles"):
        imported(tmp_path / "policy.pth")


@pytest.mark.parametrize("library", ["cleanrl", "tianshou", "pfrl", "atari_agents"])
def test_a_support_is_not_assumed_of_libraries_that_always_store_it(tmp_path, library):
    if library == "cleanrl":
        state, key = {"model_weights": cleanrl_state(6 * 51)[1]}, "atoms"
    elif library == "tianshou":
        state, key = tianshou_algorithm("C51", True).state_dict(), "policy.support"
    elif library == "atari_agents":
        state, key = prefixed("estimator_state.", AtariNet(6, True)), "estimator_state._AtariNet__support"
    else:
        state, key = prefixed("0.", trunk()), "1.z_values"
        state = {f"0.layers.{n}.{part}": state[f"0.{2 * n}.{part}"] for n in range(3) for part in ("weight", "bias")}
        state |= prefixed("0.output.", nn.Linear(3136, 512)) | prefixed("1.model.0.output.", nn.Linear(512, 306))
    state.pop(key, None)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(
        AgentImportError, match=f"306 rows, which no agent of {library} has .*C51: the file lacks {key}"
    ):
        imported(tmp_path / "x.pt")


def test_c51_with_other_atoms_is_no_qr_dqn(tmp_path):
    dopamine_file(tmp_path / "ckpt.1", {"params": flax_parameters(6 * 21, same=True)})
    expected = (
        r"its output layer has 126 rows, which no agent of dopamine has .DQN: one row an action; C51 or Rainbow: "
        r"51 atoms an action; QR-DQN: 200 quantiles an action; 1 to 18 actions.; say in a mapping what they are"
    )
    with pytest.raises(AgentImportError, match=expected) as refused:
        imported(tmp_path / "ckpt.1")
    assert len(str(refused.value).splitlines()) == 1


def test_what_a_file_says_of_its_rows_goes_before_what_is_usual(tmp_path):
    """3 atoms for 6 actions are as many rows as there are actions in all."""
    parameters = flax_parameters(18)
    settings = {"v_min": -1, "v_max": 1, "n_atoms": 3}
    (tmp_path / "c51").write_bytes(flax_msgpack({"model_weights": {"params": parameters}, "args": settings}))
    agent, facts, _ = imported(tmp_path / "c51")
    assert facts["agent"] == "C51"
    rows = torch.from_numpy(flax_forward(parameters, observations(), same=False)).view(-1, 6, 3)
    assert_same(agent, categorical(rows, torch.linspace(-1, 1, 3)))


# Wrappers, precisions and what lies beside the weights


def cleanrl_state(actions=6):
    torch.manual_seed(0)
    model = livelier(nn.Sequential(*trunk(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions)))
    return model, prefixed("network.", model)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name.replace("network.", "network._orig_mod."): tensor for name, tensor in state.items()},
        lambda state: {"model": state, "optimizer": {"state": {0: {"m": torch.zeros(3)}}}, "epoch": 3},
        lambda state: {
            "model_state_dict": state,
            "best": np.float64(18.5),
            "returns": np.zeros(3),
            "step": np.int64(3),
        },
        lambda state: {"state_dict": state, "global_step": torch.tensor(3.0), "target_network": {"x": torch.zeros(2)}},
    ],
    ids=["compiled", "parallel", "both", "inner", "model", "numpy", "state_dict"],
)
def test_wrappers_around_a_network(tmp_path, wrap):
    model, state = cleanrl_state()
    torch.save(wrap(state), tmp_path / "x.pt")
    agent, facts, _ = imported(tmp_path / "x.pt")
    assert_same(agent, model(pixels()))
    assert facts["from"] == "cleanrl"


def test_two_networks_in_one_file_are_not_guessed_between(tmp_path):
    _, state = cleanrl_state()
    torch.save({"model": state, "agent": state}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError, match=r"it holds several networks, under 'agent.', 'model.': say which"):
        imported(tmp_path / "x.pt")


def test_what_else_lies_beside_a_network_is_reported(tmp_path):
    _, state = cleanrl_state()
    torch.save({"model": state, "means": {"x": torch.zeros(4, 84, 84)}}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError, match=r"extra: means.x \(4, 84, 84\)"):
        imported(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_half_precision(tmp_path, dtype, container):
    import safetensors.torch

    model, state = cleanrl_state()
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.load_state_dict({name.removeprefix("network."): tensor.float() for name, tensor in state.items()})
    if container == "torch":
        torch.save(state, tmp_path / "x")
    else:
        safetensors.torch.save_file(state, tmp_path / "x")
    assert_same(imported(tmp_path / "x")[0], model(pixels()))


def test_bfloat16_in_flax(tmp_path):
    import msgpack

    parameters = flax_parameters()

    def halved(array):
        return torch.from_numpy(array).bfloat16()

    def pack(array):
        content = halved(array).view(torch.int16).numpy().tobytes()
        return msgpack.ExtType(1, msgpack.packb((array.shape, "bfloat16", content), use_bin_type=True))

    (tmp_path / "x").write_bytes(msgpack.packb({"params": parameters}, default=pack, strict_types=True))
    rounded = {n: {p: halved(a).float().numpy() for p, a in layer.items()} for n, layer in parameters.items()}
    assert_same(imported(tmp_path / "x")[0], flax_forward(rounded, observations(), same=False))


# Refused, by name


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"lstm_actor.weight_ih_l0": (4, 4)}, "sb3-contrib's RecurrentPPO: it remembers"),
        ({"core.weight_ih_l0": (4, 4)}, "a recurrent network"),
        (
            {"mlp_extractor.policy_net.0.weight": (64, 512), "features_extractor.cnn.0.weight": (32, 4, 8, 8)},
            "net_arch: its extra hidden layers have Tanh",
        ),
        (
            {"mlp_extractor.policy_net.0.weight": (64, 128)},
            "no convolution beside it, .* an? .*MlpPolicy",
        ),
        ({"q_net.q_net.0.weight": (64, 128), "q_net.q_net.2.weight": (6, 64)}, "a Stable-Baselines3 MlpPolicy"),
        ({"policy.model.embed_model.net.0.weight": (4, 64)}, "an IQN or FQF"),
        ({"psi.layers.0.weight": (4, 4)}, "an IQN or FQF"),
        ({"network.0.res_block0.conv0.weight": (16, 16, 3, 3)}, "an IMPALA network"),
        ({"model.obs_normalizer.running_mean_std.running_mean_std.obs.running_mean": (4, 84, 84)}, "each pixel"),
        ({"bn.running_mean": (32,)}, "batch normalisation"),
        ({"network.1.weight": (32, 20, 20), "network.0.weight": (32, 4, 8, 8)}, "CleanRL's PQN"),
        ({"params.LayerNorm_0.scale": (32,)}, "layer norms over channels at each position"),
        ({"network_params.params.Dense_0.kernel": (4, 4)}, "a Dopamine PPO"),
        ({"online_params.Conv_0.kernel": (8, 8, 4, 32), "online_params.Dense_0.kernel": (64, 7744)}, "an IQN"),
        (  # from before flax's linen
            {
                "online_params.Conv_0.kernel": (8, 8, 4, 32),
                "online_params.Dense_3.kernel": (64, 7744),
                "online_params.Dense_4.kernel": (7744, 512),
                "online_params.Dense_5.kernel": (512, 6),
            },
            "an IQN",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_imported_is_refused_by_name(tmp_path, tensors, reason):
    torch.save({name: torch.zeros(shape) for name, shape in tensors.items()}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError, match=reason) as refused:
        imported(tmp_path / "x.pt")
    assert len(str(refused.value).splitlines()) == 1


def test_refusals_of_what_the_libraries_write(tmp_path):
    contrib, sb3 = pytest.importorskip("sb3_contrib"), pytest.importorskip("stable_baselines3")
    contrib.RecurrentPPO("CnnLstmPolicy", Screen(), n_steps=2, batch_size=2, device="cpu").save(tmp_path / "x.zip")
    with pytest.raises(AgentImportError, match="RecurrentPPO"):
        imported(tmp_path / "x.zip")
    sizes = {"n_steps": 2, "batch_size": 2, "policy_kwargs": {"net_arch": [64]}, "device": "cpu"}
    sb3.PPO("CnnPolicy", Screen(), **sizes).save(tmp_path / "x.zip")
    with pytest.raises(AgentImportError, match="Tanh"):
        imported(tmp_path / "x.zip")

    class Memory(Screen):
        observation_space = gymnasium.spaces.Box(0, 255, (128,), np.uint8)

    for library, sizes in ((sb3.PPO, {"n_steps": 2, "batch_size": 2}), (sb3.DQN, {"buffer_size": 1})):
        library("MlpPolicy", Memory(), device="cpu", **sizes).save(tmp_path / "x.zip")
        with pytest.raises(AgentImportError, match=r"no convolution beside it, says that this is a .* MlpPolicy"):
            imported(tmp_path / "x.zip")


@pytest.mark.parametrize("order", [1, -1])
def test_64_units_are_no_iqn(tmp_path, order):
    parameters = flax_parameters()
    parameters["Dense_0"] = weights(np.random.default_rng(0), {"kernel": (3136, 64), "bias": (64,)})
    parameters["Dense_1"] = weights(np.random.default_rng(1), {"kernel": (64, 6), "bias": (6,)})
    (tmp_path / "x").write_bytes(flax_msgpack({"params": dict(list(parameters.items())[::order])}))
    with pytest.raises(
        AgentImportError, match=r"such a network of other sizes .params.Dense_0 64, not 512.; a mapping"
    ):
        imported(tmp_path / "x")


@pytest.mark.parametrize("kind", ["DQN", "QRDQN"])
def test_value_networks_of_stable_baselines3_with_net_arch(tmp_path, kind):
    """Their extra layer has ReLU, so what the refusal says is a mapping that fits."""
    library = pytest.importorskip("stable_baselines3" if kind == "DQN" else "sb3_contrib")
    torch.manual_seed(0)
    settings = {"net_arch": [64]} | ({"n_quantiles": 50} if kind == "QRDQN" else {})
    model = getattr(library, kind)("CnnPolicy", Screen(), buffer_size=2, device="cpu", policy_kwargs=settings)
    net = "q_net" if kind == "DQN" else "quantile_net"
    network = livelier(getattr(model.policy, net))
    model.save(tmp_path / "x.zip")
    told = (
        rf"{net}.{net}.2.weight says .* whose net_arch has one more hidden layer, with ReLU .*: a mapping fits, with "
        rf"the hidden layers {net}.features_extractor.linear.0 and {net}.{net}.0 and the output {net}.{net}.2"
    )
    with pytest.raises(AgentImportError, match=told) as refused:
        imported(tmp_path / "x.zip")
    assert len(str(refused.value).splitlines()) == 1
    sizes = {0: (32, 8, 4), 2: (64, 4, 2), 4: (64, 3, 1)}
    mapping = {
        "input_divisor": 255,
        "convolutions": [
            {"key": f"{net}.features_extractor.cnn.{n}", "filters": filters, "kernel": kernel, "stride": stride}
            for n, (filters, kernel, stride) in sizes.items()
        ],
        "hidden": [{"key": f"{net}.features_extractor.linear.0", "units": 512}, {"key": f"{net}.{net}.0", "units": 64}],
        "output": f"{net}.{net}.2",
        "ignore": [f"{net}_target."],
    }
    if kind == "QRDQN":
        mapping["readout"] = {"kind": "quantiles", "quantiles": 50, "order": "quantile_major"}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    agent, _, _ = imported(tmp_path / "x.zip", mapping=str(tmp_path / "mapping.yaml"))
    with torch.no_grad():
        answer = network(model.policy.obs_to_tensor(observations())[0])
    assert_same(agent, answer if kind == "DQN" else answer.mean(1))
    settings["net_arch"] = [64, 64]
    model = getattr(library, kind)("CnnPolicy", Screen(), buffer_size=2, device="cpu", policy_kwargs=settings)
    model.save(tmp_path / "x.zip")
    with pytest.raises(
        AgentImportError, match="with net_arch: 3 hidden layers in all, and agents here have one or two"
    ):
        imported(tmp_path / "x.zip")


def test_other_convolutions_are_not_taken_for_other_frames(tmp_path):
    """pfrl's network of 2013, which a mapping fits."""
    pfrl = pytest.importorskip("pfrl")
    torch.manual_seed(0)
    network = livelier(nn.Sequential(pfrl.nn.SmallAtariCNN(), nn.Linear(256, 6)))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(AgentImportError) as refused:
        imported(tmp_path / "model.pt")
    assert str(refused.value).splitlines()[-1].strip() == (
        "its convolutions are others than expected (no 0.layers.2); a mapping that says so fits, if its frames were "
        "84x84"
    )
    mapping = {
        "input_divisor": 255,
        "convolutions": [
            {"key": "0.layers.0", "filters": 16, "kernel": 8, "stride": 4},
            {"key": "0.layers.1", "filters": 32, "kernel": 4, "stride": 2},
        ],
        "hidden": [{"key": "0.output", "units": 256}],
        "output": "1",
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    assert_same(imported(tmp_path / "model.pt", mapping=str(tmp_path / "mapping.yaml"))[0], network(pixels()))


def test_kaixhins_smaller_network_is_not_taken_for_other_frames(tmp_path):
    """Of its option ``data-efficient``."""
    state = prefixed("convs.", nn.Sequential(nn.Conv2d(4, 32, 5, 5), nn.ReLU(), nn.Conv2d(32, 64, 5, 5)))
    for name, size in {"h_v": (576, 256), "h_a": (576, 256), "z_v": (256, 51), "z_a": (256, 306)}.items():
        state |= prefixed(f"fc_{name}.", Noisy(*size))
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(AgentImportError, match=r"expected .convs.0 5x5, not 8x8; convs.2 5x5, not 4x4; no convs.4."):
        imported(tmp_path / "model.pth")
    _, state = cleanrl_state()
    state |= prefixed("network.6.", nn.Conv2d(64, 64, 3)) | {"network.7.weight": torch.zeros(512, 1600)}
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(AgentImportError, match=r"convolutions are others than expected .network.6 too.; a mapping"):
        imported(tmp_path / "model.pth")


def test_a_mapping_with_another_number_of_quantiles_is_told_so(tmp_path):
    model = nn.Sequential(*trunk(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 42))
    torch.save(prefixed("m.", model), tmp_path / "x.pt")
    changes = {"readout": {"kind": "quantiles", "quantiles": 200}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING | changes))
    with pytest.raises(AgentImportError, match="output layer has 42 rows, which is no multiple of 200 quantiles"):
        imported(tmp_path / "x.pt", mapping=str(tmp_path / "mapping.yaml"))


def test_a_network_of_other_sizes_is_sent_to_a_mapping_which_fits(tmp_path):
    """CleanRL's, with fewer filters and units than it has."""
    torch.manual_seed(0)
    sizes = ((0, 16, 8, 4), (2, 32, 4, 2), (4, 32, 3, 1))
    filters = [4, *(entry[1] for entry in sizes)]
    layers = [
        layer
        for inputs, (_, outputs, kernel, stride) in zip(filters, sizes, strict=False)
        for layer in (nn.Conv2d(inputs, outputs, kernel, stride), nn.ReLU())
    ]
    model = livelier(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1568, 256), nn.ReLU(), nn.Linear(256, 6)))
    torch.save({f"network.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError) as refused:
        imported(tmp_path / "x.pt")
    assert str(refused.value).splitlines()[-1].strip() == (
        "it is such a network of other sizes (network.0 16, not 32; network.2 32, not 64; network.4 32, not 64; "
        "network.7 256, not 512); a mapping that says so fits (docs/importing.md)"
    )
    mapping = {
        "input_divisor": 255,
        "convolutions": [
            {"key": f"network.{key}", "filters": outputs, "kernel": kernel, "stride": stride}
            for key, outputs, kernel, stride in sizes
        ],
        "hidden": [{"key": "network.7", "units": 256}],
        "output": "network.9",
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    agent, _, _ = imported(tmp_path / "x.pt", **{"from": "mapping", "mapping": str(tmp_path / "mapping.yaml")})
    assert_same(agent, model(pixels()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"network.7.weight": (512, 5184)},
            "its first dense layer reads 5184 numbers, not 3136: its frames were not 84x84",
        ),
        ({"network.0.weight": (32, 1, 8, 8)}, "it sees 1 channels .one frame at a time."),
        ({"network.0.weight": (32, 3, 8, 8)}, "it sees 3 channels .colours."),
    ],
)
def test_other_observations_are_refused_with_the_reason(tmp_path, change, reason):
    _, state = cleanrl_state()
    torch.save(state | {name: torch.zeros(shape) for name, shape in change.items()}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError, match=reason):
        imported(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "atoms",
    [
        torch.linspace(-10, 10, 51) ** 3,
        torch.zeros(51),
        torch.full((51,), float("nan")),
        torch.zeros(51, 1),
        torch.zeros(1),
        torch.zeros(0),
        torch.zeros(5000),
    ],
)
def test_supports_that_are_none(tmp_path, atoms):
    _, state = cleanrl_state(6 * 51)
    torch.save({"model_weights": state | {"atoms": atoms}}, tmp_path / "x.pt")
    with pytest.raises(AgentImportError):
        imported(tmp_path / "x.pt")


# Mappings say all of this


MAPPING = {
    "convolutions": [
        {"key": f"m.{number}", "filters": filters, "kernel": kernel, "stride": stride}
        for number, (filters, kernel, stride) in {0: (32, 8, 4), 2: (64, 4, 2), 4: (64, 3, 1)}.items()
    ],
    "hidden": [{"key": "m.7", "units": 512}],
    "output": "m.9",
    "input_divisor": 255,
    "ignore": ["*.noise", "old."],
}


@pytest.mark.parametrize(
    ("changes", "width", "readout", "expected"),
    [
        ({"outputs": "logits"}, 1, Readout("logits"), lambda rows: rows[..., 0]),
        ({"outputs": "logits", "acting": "sample"}, 1, SAMPLED, lambda rows: rows[..., 0]),
        ({"readout": {"kind": "quantiles", "quantiles": 7}}, 7, Readout(), lambda rows: rows.mean(2)),
        (
            {"readout": {"kind": "quantiles", "order": "quantile_major", "quantiles": 7}},
            7,
            Readout(),
            lambda rows: rows.reshape(3, 7, 6).mean(1),
        ),
        ({"readout": {"kind": "categorical", "support": "z"}}, 51, C51, categorical),
        (
            {"readout": {"kind": "categorical", "support": {"lowest": 0, "highest": 2, "atoms": 7}}},
            7,
            Readout(support=Support(0.0, 2.0, 7)),
            lambda rows: categorical(rows, torch.linspace(0, 2, 7)),
        ),
    ],
)
@pytest.mark.parametrize("order", [None, [12, 11, 4, 3, 1, 0]])
def test_mappings(tmp_path, changes, width, readout, expected, order):
    import yaml

    torch.manual_seed(0)
    model = livelier(nn.Sequential(*trunk(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6 * width)))
    state = prefixed("m.", model) | {"a.b.noise": torch.zeros(3), "old.x": torch.zeros(2)}
    torch.save(state | ({"z": ATOMS} if width == 51 else {}), tmp_path / "x.pt")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING | changes | ({"actions": order} if order else {})))
    agent, _, told = imported(tmp_path / "x.pt", mapping=str(tmp_path / "mapping.yaml"))
    assert "NOT in the file" not in told
    assert ("7 quantiles an action: as the mapping says" in told) == ("quantiles" in str(changes))
    assert ("7 atoms: as the mapping says" in told) == ("lowest" in str(changes))
    answer = expected(model(pixels()).view(3, 6, width))
    assert_same(agent, answer.flip(1) if order else answer)
    assert agent.readouts["pong"] == readout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acting": "sample"}, "acting: sample needs outputs: logits"),
        (
            {"outputs": "logits", "readout": {"kind": "quantiles", "quantiles": 7}},
            "logits do not go with readout: {kind: quantiles}",
        ),
        ({"readout": {"kind": "quantiles"}}, "readout: {kind: quantiles} needs `quantiles`, how many an action has"),
        (
            {"readout": {"kind": "plain", "quantiles": 7}},
            "`order` and `quantiles` belong to readout: {kind: quantiles}",
        ),
        ({"readout": {"kind": "categorical"}}, "`support`, the key of a tensor or"),
        ({"readout": {"kind": "plain", "support": "z"}}, "`support`, the key of a tensor or"),
        (
            {"readout": {"kind": "plain", "order": "quantile_major"}},
            "`order` and `quantiles` belong to readout: {kind: quantiles}",
        ),
        ({"readout": {"kind": "iqn"}}, "readout.kind: 'iqn' is not allowed; allowed: plain, quantiles, categorical"),
        (
            {"readout": {"kind": "categorical", "support": {"lowest": 1, "highest": 0, "atoms": 3}}},
            "a support from 1 to 0",
        ),
        ({"readout": {"kind": "categorical", "support": "nowhere"}}, "the file lacks its support, nowhere"),
    ],
)
def test_mappings_that_cannot_be(tmp_path, changes, message):
    import yaml

    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pt")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING | changes))
    with pytest.raises(AgentImportError, match=message.replace(".", r"\.")) as refused:
        imported(tmp_path / "x.pt", mapping=str(tmp_path / "mapping.yaml"))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("output: m.8", "mapping.yaml:2: the key 'output' stands there twice, first in line 1"),
        ("input_divisor: none", "input_divisor: 'none' is not allowed"),
        ("input_divisor: [", "while parsing"),
        ("ignore: " + "[" * 5000, "maximum recursion depth exceeded"),
    ],
)
def test_mappings_are_read_as_strictly_as_the_configuration(tmp_path, line, message):
    import yaml

    rest = {key: value for key, value in MAPPING.items() if key not in ("output", "input_divisor")}
    (tmp_path / "mapping.yaml").write_text(f"output: m.9\n{line}\n{yaml.safe_dump(rest)}")
    with pytest.raises(AgentImportError) as refused:
        read_declaration(tmp_path / "mapping.yaml")
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("number", ["1e-4", "1e4", "255"])
def test_a_number_in_a_mapping_is_a_number(tmp_path, number):
    import yaml

    rest = {key: value for key, value in MAPPING.items() if key != "input_divisor"}
    (tmp_path / "mapping.yaml").write_text(f"input_divisor: {number}\n{yaml.safe_dump(rest)}")
    assert read_declaration(tmp_path / "mapping.yaml")[0].input_divisor == float(number)


# Hostile files


def test_a_gzip_bomb_is_not_inflated(tmp_path, monkeypatch):
    from policy_distillation.importing import containers

    monkeypatch.setattr(containers, "LARGEST_FILE", 1 << 20)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(AgentImportError, match="unpacks to more than 1 MB"):
        imported(tmp_path / "x.gz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(b"\x80\x04cposix\nsystem\n"), "not saved by torch"),
        (gzip.compress(gzip.compress(b"x")), "not saved by torch"),
        (gzip.compress(b""), "not saved by torch"),
        (gzip.compress(bytes(1000))[:-9], "cut short"),
        (b"\x1f\x8b" + b"\xff" * 50, "unreadable"),
        (b"\x1f\x8b", "cut short"),
    ],
    ids=["a pickle", "gzip in gzip", "empty", "cut short", "nonsense", "a header's start"],  # the bytes hold the time
)
def test_hostile_gzip_files(tmp_path, content, reason):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(AgentImportError, match=reason) as refused:
        imported(tmp_path / "x.gz")
    assert len(str(refused.value).splitlines()) == 1


def test_a_zip_bomb_in_a_gzip_file(tmp_path, monkeypatch):
    from policy_distillation.importing import containers

    monkeypatch.setattr(containers, "LARGEST_FILE", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(8 << 20))
    (tmp_path / "x.gz").write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(AgentImportError, match="unpacks to more than 1 MB"):
        imported(tmp_path / "x.gz")


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("what", "culprit"), [(Harmful(), "print"), (nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear")]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_culprit_is_named_and_nobody_is_told_to_trust_it(tmp_path, capfd, old, what, culprit, zipped):
    buffer = io.BytesIO()
    torch.save({"model": what}, buffer, _use_new_zipfile_serialization=not old)
    (tmp_path / "x").write_bytes(gzip.compress(buffer.getvalue()) if zipped else buffer.getvalue())
    with pytest.raises(AgentImportError, match=f"refused: it asks for '{culprit}'.* save its tensors alone") as refused:
        imported(tmp_path / "x")
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert "weights_only" not in message
    assert "executed" not in capfd.readouterr().out


def test_arguments_beside_the_weights_are_forgotten(tmp_path):
    import argparse
    import pathlib

    model, state = cleanrl_state()
    arguments = argparse.Namespace(seed=1, folder=pathlib.Path("x"))
    torch.save({"model": state, "args": arguments}, tmp_path / "x.pt")
    assert_same(imported(tmp_path / "x.pt")[0], model(pixels()))


@pytest.mark.parametrize("v_min", [1e308, float("nan"), "x", None, 10, [1]])
def test_settings_that_are_no_support(tmp_path, v_min):
    settings = {"v_min": v_min, "v_max": 1.0, "n_atoms": 51}
    (tmp_path / "x").write_bytes(flax_msgpack({"model_weights": {"params": flax_parameters(6 * 51)}, "args": settings}))
    if v_min == 10:
        with pytest.raises(AgentImportError, match="a support from"):
            imported(tmp_path / "x")
    else:  # no number, as if it were not there
        assert "assumed" in imported(tmp_path / "x")[2]


def test_metadata_is_json(tmp_path):
    _, state = cleanrl_state(6 * 51)
    torch.save({"model_weights": state | {"atoms": ATOMS}}, tmp_path / "x.pt")
    assert json.loads(json.dumps(imported(tmp_path / "x.pt")[1]))["readout"]["support"]["atoms"] == 51


# flax itself, where it is installed (see test_importing_libraries.py)


@pytest.mark.parametrize("kind", ["PPO", "C51"])
def test_what_flax_writes_for_cleanrl(tmp_path, kind):
    pytest.importorskip("jax")
    serialization = pytest.importorskip("flax.serialization")
    import jax
    import jax.numpy as jnp
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = jnp.transpose(x, (0, 2, 3, 1)) / 255.0
            for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                x = linen.relu(linen.Conv(filters, (kernel, kernel), (stride, stride), padding="VALID")(x))
            x = linen.relu(linen.Dense(512)(x.reshape((len(x), -1))))
            return x if kind == "PPO" else linen.Dense(6 * 51)(x)

    network, actor = Network(), linen.Dense(6)
    body = network.init(jax.random.PRNGKey(0), observations())
    features = network.apply(body, observations())
    if kind == "PPO":

        class Actor(linen.Module):
            @linen.compact
            def __call__(self, x):
                return linen.Dense(6)(x)

        actor = Actor()
        head = actor.init(jax.random.PRNGKey(1), features)
        expected = np.asarray(actor.apply(head, features))
        content = serialization.to_bytes([{"exp_name": "ppo", "gamma": 0.99}, [body, head, head]])
    else:
        logits = torch.from_numpy(np.array(features)).view(-1, 6, 51)
        expected = categorical(logits)
        args = {"v_min": -10, "v_max": 10, "n_atoms": 51}
        content = serialization.to_bytes({"model_weights": body, "args": args})
    (tmp_path / "model").write_bytes(content)
    agent, facts, _ = imported(tmp_path / "model")
    np.testing.assert_allclose(
        agent.q_values(observations(), "pong"), expected, atol=1e-5 * max(1, np.abs(expected).max())
    )
    assert facts["agent"] == kind


@pytest.mark.parametrize("protocol", [3, 5])
def test_bfloat16_in_a_pickle(tmp_path, protocol):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    import pickle

    parameters = flax_parameters(same=True)
    halved = {n: {p: a.astype(ml_dtypes.bfloat16) for p, a in layer.items()} for n, layer in parameters.items()}
    (tmp_path / "ckpt.1").write_bytes(pickle.dumps({"online_params": halved}, protocol))
    rounded = {n: {p: a.astype("f4") for p, a in layer.items()} for n, layer in halved.items()}
    assert_same(imported(tmp_path / "ckpt.1")[0], flax_forward(rounded, observations(), same=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "PPO",
            [
                "agent      PPO or A2C: logits of a policy; a critic is left out",
                "sampled from the softmax of its logits",
            ],
        ),
        (
            "C51",
            ["agent      C51: Q-values, the means of distributions over a support", "epsilon-greedy, epsilon 0.05"],
        ),
    ],
)
def test_the_command_says_what_it_is_how_it_acts_and_what_it_scores(tmp_path, capsys, monkeypatch, kind, expected):
    from dataclasses import replace

    from policy_distillation.__main__ import import_
    from policy_distillation.protocols import PROTOCOLS

    protocol = "sb3" if kind == "PPO" else "paper2015"
    monkeypatch.setitem(PROTOCOLS, protocol, replace(PROTOCOLS[protocol], max_episode_frames=80))
    torch.manual_seed(0)
    ppo_zip(tmp_path / "PPO")
    atari_agents_file(tmp_path / "C51", AtariNet(6, distributional=True))
    import_(str(tmp_path / kind), "pong", output=tmp_path / "agent.safetensors", episodes=16)
    told = capsys.readouterr().out
    assert expected[0] in told
    (score,) = [line for line in told.splitlines() if "mean return" in line]
    assert score.startswith("pong: mean return ")
    assert "over 16 episodes" in score
    assert score.endswith(f"; {expected[1]}")


@pytest.mark.slow
def test_the_example_trains_a_ppo_that_can_be_imported(tmp_path):
    """docs/examples/train_ppo.py, for one rollout of two emulators."""
    sb3 = pytest.importorskip("stable_baselines3")
    load_example("train_ppo").main("pong", tmp_path / "model.zip", steps=256, envs=2, keep_every=128)
    assert len(list((tmp_path / "model.checkpoints").iterdir())) == 2
    agent, facts, _ = imported(tmp_path / "model.zip")
    assert (facts["agent"], agent.readouts["pong"]) == ("PPO or A2C", SAMPLED)
    model = sb3.PPO.load(tmp_path / "model.zip", device="cpu")
    seen = observations()
    expected = model.policy.get_distribution(model.policy.obs_to_tensor(seen)[0]).distribution.logits.detach()
    logits = torch.from_numpy(agent.q_values(seen, "pong")).log_softmax(1)
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)  # its trunk computes in bfloat16
