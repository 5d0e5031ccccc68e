"""Agents that the libraries themselves made and saved, imported: the same Q-values for the same frames.

Needs envs/peers.txt, which `make test` installs; what is not installed is skipped.
"""

import pickle
import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from policy_distillation import atari, protocols
from policy_distillation.importing.agents import import_agent
from policy_distillation.importing.containers import AgentImportError
from policy_distillation.importing.flavours import WRAPPERS, WrappedEmulator, Wrappers
from test_importing import flax_forward, flax_parameters, livelier, observations

SPACE = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = gymnasium.spaces.Discrete(6)


class Screen(gymnasium.Env):
    """What a library needs to see in order to build its network."""

    observation_space, action_space = SPACE, ACTIONS

    def reset(self, *, seed=None, options=None):
        return np.zeros(SPACE.shape, np.uint8), {}

    def step(self, action):
        return np.zeros(SPACE.shape, np.uint8), 0.0, False, False, {}


def assert_same(agent, expected):
    assert np.abs(expected - expected.mean(0)).max() > 1e-2, "a constant would pass"
    tolerance = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(agent.q_values(observations(), "pong"), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("normalize_images", [True, False])
def test_stable_baselines3(tmp_path, normalize_images):
    sb3 = pytest.importorskip("stable_baselines3")
    torch.manual_seed(0)
    settings = {} if normalize_images else {"policy_kwargs": {"normalize_images": False}}
    model = sb3.DQN("CnnPolicy", Screen(), buffer_size=2, device="cpu", **settings)
    livelier(model.policy.q_net)
    model.save(tmp_path / "model.zip")
    agent, metadata = import_agent({"path": str(tmp_path / "model.zip")}, "pong")
    with torch.no_grad():
        expected = model.policy.q_net(model.policy.obs_to_tensor(observations())[0]).numpy()
    assert_same(agent, expected)
    assert metadata["imported"]["from"] == "sb3"
    assert metadata["imported"]["facts"]["stable_baselines3"] == sb3.__version__
    played = model.predict(observations(), deterministic=True)[0]
    np.testing.assert_array_equal(agent.q_values(observations(), "pong").argmax(1), played)


@pytest.mark.parametrize("scaled", [True, False])
def test_tianshou(tmp_path, scaled):
    dqn = pytest.importorskip("tianshou.algorithm.modelfree.dqn")
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch
    from tianshou.env.atari.atari_network import DQNet, ScaledObsInputActionReprNet

    torch.manual_seed(0)
    network = livelier(DQNet(c=4, h=84, w=84, action_shape=6))
    network = ScaledObsInputActionReprNet(network) if scaled else network
    policy = dqn.DiscreteQLearningPolicy(model=network, action_space=ACTIONS)
    algorithm = dqn.DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-4), target_update_freq=500)
    torch.save(algorithm.state_dict(), tmp_path / "policy.pth")
    source = {"path": str(tmp_path / "policy.pth")}
    if not scaled:
        with pytest.raises(AgentImportError, match="give input_divisor"):
            import_agent(source, "pong")
        source["input_divisor"] = 1
    agent, metadata = import_agent(source, "pong")
    with torch.no_grad():
        assert_same(agent, policy(Batch(obs=observations(), info={})).logits.numpy())
    assert metadata["imported"]["from"] == "tianshou"


def test_pfrl(tmp_path):
    pfrl = pytest.importorskip("pfrl")
    from pfrl.initializers import init_chainer_default
    from pfrl.q_functions import DiscreteActionValueHead

    torch.manual_seed(0)
    dense = init_chainer_default(torch.nn.Linear(512, 6))
    network = torch.nn.Sequential(pfrl.nn.LargeAtariCNN(), dense, DiscreteActionValueHead())
    pfrl_agent = pfrl.agents.DQN(
        network,
        torch.optim.Adam(network.parameters()),
        pfrl.replay_buffers.ReplayBuffer(50_000),
        gamma=0.99,
        explorer=pfrl.explorers.Greedy(),
        phi=lambda x: np.asarray(x, np.float32) / 255,
    )
    pfrl_agent.save(str(tmp_path / "agent"))
    agent, metadata = import_agent({"path": str(tmp_path / "agent")}, "pong")
    inputs = torch.from_numpy(np.stack([pfrl_agent.phi(x) for x in observations()]))
    with torch.no_grad():
        assert_same(agent, network(inputs).q_values.numpy())
    assert metadata["imported"]["from"] == "pfrl"


def test_emulators_that_do_as_stable_baselines3s_wrappers_do(monkeypatch):
    """Pixels, rewards, FIRE at reset and after a lost life: what docs/importing.md measures."""
    wrappers = pytest.importorskip("stable_baselines3.common.atari_wrappers")
    import ale_py

    gymnasium.register_envs(ale_py)
    monkeypatch.setitem(protocols.PROTOCOLS, "sb3", replace(protocols.PROTOCOLS["sb3"], noop_max=0))
    emulator = WrappedEmulator("breakout", WRAPPERS["sb3"], seed=0)
    raw = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    reference = wrappers.AtariWrapper(raw, noop_max=0, clip_reward=False)
    expected, _ = reference.reset(seed=0)
    seen = emulator.reset()
    lives = 0
    for action in np.random.default_rng(0).integers(0, 4, 600):
        np.testing.assert_array_equal(seen[-1], expected[..., 0])
        seen, reward, over = emulator.step(int(action))
        expected, expected_reward, lost, _, _ = reference.step(int(action))
        assert reward == expected_reward
        if over:
            break
        if lost:
            expected, _ = reference.reset()
            assert not seen[:3].any()
            lives += 1
    assert over
    assert lives == 4


def test_emulators_that_do_as_ours_does(monkeypatch):
    plain = replace(protocols.PROTOCOLS["paper2015"], noop_max=0)
    monkeypatch.setitem(protocols.PROTOCOLS, "plain", plain)
    emulator = WrappedEmulator("breakout", Wrappers("plain", "grey", life_is_episode=False), seed=0)
    env = atari.AtariVector("breakout", plain, "play", 1, 0)
    np.testing.assert_array_equal(env.reset()[0], emulator.reset())
    for action in np.random.default_rng(0).integers(0, 4, 60):
        np.testing.assert_array_equal(env.step(np.array([action])).observations[0], emulator.step(int(action))[0])


# JAX is large, so envs/peers.txt leaves it out; with `pip install flax` beside it these run too.


@pytest.mark.parametrize("same", [True, False])
def test_flax(tmp_path, same):
    pytest.importorskip("jax")
    serialization = pytest.importorskip("flax.serialization")
    import jax.numpy as jnp
    from flax import linen
    from flax.core import freeze

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = jnp.transpose(x, (0, 2, 3, 1)) / 255.0
            padding = "SAME" if same else "VALID"
            for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
                x = linen.relu(linen.Conv(filters, (kernel, kernel), (stride, stride), padding=padding)(x))
            x = linen.relu(linen.Dense(512)(x.reshape((len(x), -1))))
            return linen.Dense(6)(x)

    parameters = flax_parameters(same=same)
    expected = np.asarray(Network().apply({"params": parameters}, observations()))
    np.testing.assert_allclose(expected, flax_forward(parameters, observations(), same), atol=1e-4)
    arrays = {layer: {part: jnp.asarray(array) for part, array in parts.items()} for layer, parts in parameters.items()}
    path = tmp_path / "model"
    if same:
        state = {"online_params": freeze({"params": arrays}), "target_params": arrays, "training_steps": 3}
        optax = pytest.importorskip("optax")
        path.write_bytes(pickle.dumps(state | {"optimizer_state": optax.adam(1e-4).init(arrays)}))
    else:
        path.write_bytes(serialization.to_bytes({"params": arrays}))
    agent, metadata = import_agent({"path": str(path)}, "pong")
    assert_same(agent, expected)
    assert metadata["imported"]["from"] == ("dopamine" if same else "cleanrl")


def test_nothing_of_jax_is_needed():
    """Run first or alone this shows that importing flax's files imports no flax."""
    import subprocess

    code = (
        "import sys, policy_distillation.importing.agents\n"
        "assert not {'jax', 'flax', 'stable_baselines3', 'tianshou', 'pfrl', 'huggingface_hub'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
