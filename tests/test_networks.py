"""Networks: the paper's parameter counts, an independent forward pass, controllers, input scaling, precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from policy_distillation.networks import Agent, Network
from torch.nn import functional as F

DQN = Network((32, 64, 64), 512)
MULTI_3 = Network((32, 64, 64), 512, controller=128)
MULTI_10 = Network((64, 64, 64), 1500, controller=128)
SMALL = Network((8, 8, 8), 16, controller=8)
GAMES = {"freeway": (0, 2, 5), "pong": (0, 1, 3, 4, 11, 12), "qbert": (0, 1, 2, 3, 4, 5)}
TEN = {
    **GAMES,
    "beam_rider": range(9),
    "breakout": (0, 1, 3, 4),
    "enduro": range(9),
    "ms_pacman": range(9),
    "riverraid": range(18),
    "seaquest": range(18),
    "space_invaders": (0, 1, 3, 4, 11, 12),
}
PONG_2015 = {"pong": (0, 3, 4)}  # the ALE of 2015 gave Pong three actions


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def observations(batch=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8))


@pytest.mark.parametrize(
    ("network", "actions", "count"),
    [
        (DQN, {"any": range(18)}, 1_693_362),
        (Network((16, 32, 32), 256), {"any": range(18)}, 427_874),
        (Network((16, 16, 16), 128), {"any": range(18)}, 113_346),
        (Network((16, 16, 16), 64), {"any": range(18)}, 61_954),
        (MULTI_3, GAMES | PONG_2015, 1_882_668),
        (MULTI_10, TEN | PONG_2015, 6_756_721),
        (MULTI_3, GAMES, 1_883_055),
        (MULTI_10, TEN, 6_757_108),
    ],
)
def test_parameter_counts_are_the_papers(network, actions, count):
    agent = Agent(network, actions)
    assert agent.parameter_count == count
    assert sum(parameter.numel() for parameter in agent.parameters()) == count


def convolve(x, weight, bias, stride):
    """Unpadded convolution of (batch, channels, height, width), then ReLU, spelled out."""
    size = weight.shape[2]
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.maximum(np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True) + bias[:, None, None], 0)


def reference(agent, x, game):
    """The Nature network in numpy, float64; x as the first convolution is meant to see it."""
    w = {name: tensor.double().numpy() for name, tensor in agent.state_dict().items()}
    for name, stride in (("conv1", 4), ("conv2", 2), ("conv3", 1)):
        x = convolve(x, w[f"{name}.weight"], w[f"{name}.bias"], stride)
    x = x.reshape(len(x), -1)
    x = np.maximum(x @ w["hidden.weight"].T + w["hidden.bias"], 0)
    if agent.network.controller is None:
        return x @ w[f"controllers.{game}.weight"].T + w[f"controllers.{game}.bias"]
    x = np.maximum(x @ w[f"controllers.{game}.0.weight"].T + w[f"controllers.{game}.0.bias"], 0)
    return x @ w[f"controllers.{game}.2.weight"].T + w[f"controllers.{game}.2.bias"]


@pytest.mark.parametrize("network", [DQN, Network((16, 16, 16), 64), MULTI_3])
@pytest.mark.parametrize("game", GAMES)
def test_forward_equals_an_independent_one(network, game):
    agent, x = Agent(network, GAMES), observations()
    outputs = agent(x, game)
    assert outputs.dtype == torch.float32
    assert outputs.shape == (3, len(GAMES[game]))
    expected = reference(agent, x.double().numpy() / 255, game)
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(agent.q_values(x.numpy(), game), outputs.detach().numpy())


def test_the_outputs_are_no_probabilities_and_may_be_negative():
    agent = Agent(SMALL, GAMES)
    with torch.no_grad():
        agent.controllers["pong"][-1].bias.fill_(-1000.0)
    assert (agent(observations(), "pong") < -900).all()


@pytest.mark.parametrize("game", GAMES)
def test_gradients_reach_the_trunk_and_the_chosen_controller_alone(game):
    agent = Agent(SMALL, GAMES)
    agent(observations(), game).square().sum().backward()
    for name, parameter in agent.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (not name.startswith("controllers.") or name.startswith(f"controllers.{game}.")), name


def test_controllers_differ_between_games_of_equal_size():
    agent, x = Agent(SMALL, GAMES), observations()
    assert not torch.allclose(agent(x, "pong"), agent(x, "qbert"))


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(shift=st.floats(0, 255), scale=st.floats(1 / 255, 0.1), seed=st.integers(0, 99))
def test_input_scaling_is_exact_and_folds_away(shift, scale, seed):
    torch.manual_seed(seed)
    agent, x = Agent(SMALL, GAMES), observations(2, seed)
    agent.shift.fill_(shift)
    agent.scale.fill_(scale)
    naive = F.conv2d((x.double() - shift) * scale, agent.conv1.weight.double(), agent.conv1.bias.double(), stride=4)
    first = F.conv2d(x.float(), *agent._scaled_first_layer(), stride=4)
    torch.testing.assert_close(first.double(), naive, rtol=1e-4, atol=1e-4)
    before = agent(x, "pong")
    np.testing.assert_allclose(
        before.detach().numpy(), reference(agent, (x.double().numpy() - shift) * scale, "pong"), atol=1e-4
    )
    agent.fold_input_scaling()
    assert agent.shift.item() == 0
    assert agent.scale.item() == pytest.approx(1 / 255)
    torch.testing.assert_close(agent(x, "pong"), before, rtol=1e-4, atol=1e-4)
    # Without shift and scale, what is left is a plain network on x / 255.
    np.testing.assert_allclose(
        agent(x, "pong").detach().numpy(), reference(agent, x.double().numpy() / 255, "pong"), atol=1e-4
    )


def test_what_an_agent_says_outlives_a_new_scaling_if_it_shall():
    agent, x = Agent(SMALL, GAMES), observations(3)
    said = agent(x, "pong")
    agent.standardise_inputs([(40.0, 2500.0), (60.0, 6500.0)], keep_outputs=True)
    assert agent.shift.item() == pytest.approx(50.0)
    assert agent.scale.item() == pytest.approx((4500.0 - 50.0**2) ** -0.5)
    torch.testing.assert_close(agent(x, "pong"), said, rtol=1e-4, atol=1e-5)
    weight = agent.conv1.weight.detach().clone()
    agent.standardise_inputs([(70.0, 10_000.0)])
    assert torch.equal(agent.conv1.weight, weight)
    assert not torch.allclose(agent(x, "pong"), said, rtol=1e-2)


def test_training_reaches_the_first_layer_through_the_scaling():
    # The gradient must be that of conv1((x - shift) * scale), shift included.
    agent, x = Agent(SMALL, GAMES), observations(2)
    agent.shift.fill_(90.0)
    agent.scale.fill_(0.02)
    F.conv2d(x.float(), *agent._scaled_first_layer(), stride=4).square().sum().backward()
    weight = agent.conv1.weight.detach().clone().requires_grad_()
    bias = agent.conv1.bias.detach().clone().requires_grad_()
    F.conv2d((x.float() - 90.0) * 0.02, weight, bias, stride=4).square().sum().backward()
    torch.testing.assert_close(agent.conv1.weight.grad, weight.grad, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(agent.conv1.bias.grad, bias.grad, rtol=1e-3, atol=1e-2)


def test_bfloat16_stays_close_and_returns_float32():
    agent, x = Agent(MULTI_3, GAMES), observations(4)
    exact = agent(x, "pong")
    rounded = agent(x, "pong", "bfloat16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)  # it did run in bfloat16
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_controller_runs_in_float32_whatever_the_precision():
    # Q-values that differ by less than bfloat16 resolves must stay apart.
    agent = Agent(Network((8, 8, 8), 16), {"pong": (0, 1)})
    with torch.no_grad():
        agent.controllers["pong"].weight.zero_()
        agent.controllers["pong"].bias.copy_(torch.tensor([100.0, 100.01]))
    q_values = agent(observations(1), "pong", "bfloat16")[0]
    assert (q_values[1] - q_values[0]).item() == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_frozen_copy_answers_to_the_bit(precision, layer_norm):
    agent = Agent(Network((8, 16, 16), 32, layer_norm=layer_norm), GAMES)
    frozen = agent.frozen(precision)
    seen = observations(5).numpy()
    np.testing.assert_array_equal(frozen.q_values(seen, "pong", precision), agent.q_values(seen, "pong", precision))
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in agent.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_observations_may_lie_in_memory_either_way(layout, precision):
    agent, seen = Agent(DQN, GAMES), observations(5)
    windows = torch.cat([seen, seen[:, :3]], 1)  # as a replay's, of which an observation is a part
    expected = agent(seen.clone(), "pong", precision)
    assert torch.equal(agent(seen.contiguous(memory_format=layout), "pong", precision), expected)
    assert torch.equal(agent(windows.contiguous(memory_format=layout)[:, :4], "pong", precision), expected)


def test_acting_builds_no_graph():
    agent = Agent(SMALL, GAMES)
    q_values = agent.q_values(observations().numpy(), "pong")
    assert isinstance(q_values, np.ndarray)
    assert q_values.dtype == np.float32
    assert all(parameter.grad is None for parameter in agent.parameters())
