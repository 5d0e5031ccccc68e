"""PQN: its returns in closed form, one update by hand, and tiny runs that are repeated, stopped and resumed."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from policy_distillation import acting, evaluate, pqn, teachers
from policy_distillation.atari import Episode
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.evaluate import Evaluation
from policy_distillation.header import CheckpointError
from policy_distillation.networks import Agent, Network
from policy_distillation.pqn import PQN, lambda_returns, update
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.run import Machine
from torch.nn import functional as F

torch.set_num_threads(1)

TINY = Network((4, 4, 4), 16, layer_norm=True)
SETTINGS = PQN(
    steps=96,
    envs=4,
    rollout_steps=4,
    epochs=2,
    batch_size=8,
    discount=0.9,
    trace_decay=0.65,
    optimizer="adam",
    learning_rate=1e-3,
    optimizer_epsilon=1e-5,
    schedule="linear",
    max_gradient_norm=10.0,
    epsilon_start=1.0,
    epsilon_end=0.1,
    epsilon_decay_steps=50,
    evaluate_every=32,
    input_scaling="standardised",
)
SHORT = replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=160)  # 40 steps a game


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "short", SHORT)


def run(folder, settings=SETTINGS, seed=3, checkpoint_seconds=1e9, network=TINY, initial=None):
    evaluation = Evaluation(1, 1, 0.05)
    options = {"machine": Machine("cpu", "float32", checkpoint_seconds), "initial": initial}
    teachers.train_teacher(pqn.learn, ["breakout"], network, settings, evaluation, "short", seed, folder, **options)
    return folder


@pytest.fixture
def scores(monkeypatch):
    """Evaluations that cost nothing: the given scores, one after the other."""

    def give(values):
        left = iter(values)
        monkeypatch.setattr(evaluate, "play_episodes", lambda *_, **options: [Episode(0, 0, 0, next(left), 1, False)])

    return give


# Returns


def forward_view(rewards, terminations, values, discount, trace_decay):
    """The lambda-return of the first step as its definition: a mixture of n-step returns (Sutton & Barto, 12.2)."""
    steps = len(rewards)
    returns, total, factor = [], 0.0, 1.0
    for n in range(steps):
        total += factor * rewards[n]
        factor *= discount * (1 - terminations[n])
        returns.append(total + factor * values[n + 1])
    weights = [(1 - trace_decay) * trace_decay**n for n in range(steps - 1)] + [trace_decay ** (steps - 1)]
    return float(np.dot(weights, returns))


@pytest.mark.parametrize("trace_decay", [0.0, 0.65, 1.0])
def test_lambda_returns_are_mixtures_of_n_step_returns(trace_decay):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(7, 3)).astype(np.float32)
    values = rng.normal(size=(8, 3)).astype(np.float32)
    ends = np.zeros((7, 3), bool)
    ends[4, 1] = ends[6, 2] = True
    mine = lambda_returns(
        *map(torch.from_numpy, (rewards, ends, np.zeros_like(ends), values)), discount=0.9, trace_decay=trace_decay
    )
    for slot in range(3):
        for t in range(7):
            expected = forward_view(rewards[t:, slot], ends[t:, slot], values[t:, slot], 0.9, trace_decay)
            assert mine[t, slot].item() == pytest.approx(expected, abs=1e-5)


def test_what_follows_a_truncation_is_worth_what_the_agent_thought():
    rewards, values = torch.ones(4, 1), torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]])
    none = torch.zeros(4, 1, dtype=torch.bool)
    cut = none.clone()
    cut[2] = True
    returns = lambda_returns(rewards, none, cut, values, 0.5, 1.0).flatten().tolist()
    assert returns == [1 + 0.5 * (1 + 0.5 * 30), 1 + 0.5 * 30, 30.0, 1 + 0.5 * 50]


# Layer norm


def test_layer_norm_is_over_all_of_an_images_activations_before_the_relu():
    torch.manual_seed(0)
    agent = Agent(TINY, {"breakout": [0, 1, 3, 4]})
    for norm in agent.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    x = frames.float() / 255
    for layer, norm, stride in zip((agent.conv1, agent.conv2, agent.conv3), agent.norms, (4, 2, 1), strict=False):
        x = F.conv2d(x, layer.weight, layer.bias, stride)
        x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = F.relu(x * norm.weight[:, None, None] + norm.bias[:, None, None])
    x = agent.hidden(x.flatten(1))
    x = F.relu(F.layer_norm(x, (16,), agent.norms[3].weight, agent.norms[3].bias))
    torch.testing.assert_close(agent(frames, "breakout"), agent.controllers["breakout"](x), rtol=1e-4, atol=1e-5)
    plain = Agent(replace(TINY, layer_norm=False), {"breakout": [0, 1, 3, 4]})
    assert agent.parameter_count - plain.parameter_count == 2 * (4 + 4 + 4 + 16)


def test_layer_norm_survives_a_file(tmp_path):
    torch.manual_seed(0)
    agent = Agent(TINY, {"breakout": [0, 1, 3, 4]})
    torch.nn.init.normal_(agent.norms[1].weight)
    agent.standardise_inputs([(40.0, 4100.0)])
    save_agent(tmp_path / "agent.safetensors", agent, {})
    loaded, _ = load_agent(tmp_path / "agent.safetensors")
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    assert loaded.network == TINY
    torch.testing.assert_close(loaded(frames, "breakout"), agent(frames, "breakout"), rtol=1e-4, atol=1e-5)


# Updates


def test_an_update_descends_half_the_squared_error_of_the_chosen_actions():
    torch.manual_seed(0)
    agent = Agent(TINY, {"breakout": [0, 1, 3, 4]})
    frames = torch.randint(0, 256, (5, 4, 84, 84), dtype=torch.uint8)
    actions, targets = torch.tensor([0, 3, 1, 1, 2]), torch.tensor([1.0, -1.0, 0.5, 2.0, 1e6])
    known = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])  # of the last nothing is known: the cap cut it
    weights = [parameter.detach().clone() for parameter in agent.parameters()]
    chosen = agent(frames, "breakout")[torch.arange(5), actions]
    expected = (0.5 * (chosen - targets) ** 2)[:4].sum() / 5
    gradients = torch.autograd.grad(expected, list(agent.parameters()))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    largest = norm / 2  # so that clipping halves the step
    optimizer = torch.optim.SGD(agent.parameters(), 0.1)
    loss = update(agent, optimizer, "breakout", largest, "float32", frames, actions, targets, known)
    assert loss.item() == pytest.approx(expected.item())
    for before, after, gradient in zip(weights, agent.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.1 * gradient / 2, rtol=1e-4, atol=1e-6)


def test_exploration_falls_along_a_line():
    steps = (-20, 0, 25, 50, 90)  # before a line begins, as in a warm-up, it is where it begins
    assert [acting.exploration(step, 1.0, 0.1, 50) for step in steps] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])


# Runs


def test_what_an_update_is_given(tmp_path, monkeypatch, scores):
    """Every transition of a rollout, once an epoch; rates that fall; inputs standardised from the first on."""
    scores(range(100))
    seen, weights, cut = [], [], []
    monkeypatch.setitem(PROTOCOLS, "short", replace(SHORT, max_episode_frames=40))

    class Noted(teachers.AtariVector):
        def receive(self):
            outcome = super().receive()
            cut.extend(outcome.truncations)
            return outcome

    monkeypatch.setattr(teachers, "AtariVector", Noted)

    def noted(agent, optimizer, game, largest, precision, observations, actions, targets, known):
        seen.append((len(actions), optimizer.param_groups[0]["lr"], float(agent.shift), targets.tolist()))
        weights.extend(known.tolist())
        return update(agent, optimizer, game, largest, precision, observations, actions, targets, known)

    monkeypatch.setattr(pqn, "update", noted)
    run(tmp_path)
    assert len(seen) == 6 * 2 * 2  # rollouts of 16, epochs, batches of 8
    assert weights.count(0.0) == 2 * sum(cut) > 0  # once an epoch; what would have followed was never seen
    assert weights.count(1.0) == 2 * (96 - sum(cut))
    assert {size for size, *_ in seen} == {8}
    assert [rate for _, rate, *_ in seen[::4]] == pytest.approx([1e-3 * (1 - step / 96) for step in range(0, 96, 16)])
    assert len({shift for _, _, shift, _ in seen}) == 1
    assert seen[0][2] > 0
    for rollout in range(6):
        first, second = seen[4 * rollout : 4 * rollout + 2], seen[4 * rollout + 2 : 4 * rollout + 4]
        one, other = ([target for batch in epoch for target in batch[-1]] for epoch in (first, second))
        assert sorted(one) == sorted(other)
        assert one != other  # in another order


@pytest.mark.slow
def test_equal_seeds_give_equal_bits(tmp_path):
    digests = [
        load_agent(run(tmp_path / name, seed=seed) / "agent.safetensors")[1]["digest"]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_leaves_its_best_agent_a_curve_and_no_state(tmp_path, monkeypatch, scores):
    scores([1.0, 5.0, 2.0])
    seen = []
    consider = evaluate.BestSnapshot.consider
    monkeypatch.setattr(
        evaluate.BestSnapshot,
        "consider",
        lambda self, agent, *rest: (seen.append(agent.conv2.weight.detach().clone()), consider(self, agent, *rest))[1],
    )
    run(tmp_path)
    curve = pd.read_csv(tmp_path / "progress.csv")
    assert curve["step"].tolist() == [32, 64, 96]
    assert curve["return_breakout"].tolist() == [1.0, 5.0, 2.0]
    agent, metadata = load_agent(tmp_path / "agent.safetensors")
    assert (metadata["algorithm"], metadata["score"], metadata["steps"]) == ("pqn", 5.0, 96)
    assert metadata["settings"]["trace_decay"] == 0.65
    assert set(metadata) >= {"commit", "software", "hardware", "seed", "protocol", "evaluation"}
    torch.testing.assert_close(agent.conv2.weight, seen[1])
    assert not (tmp_path / "state").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, scores):
    scores(range(100))
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step 32; the last checkpoint is kept"):
        run(tmp_path, replace(SETTINGS, learning_rate=1e30, max_gradient_norm=1e30))
    assert not (tmp_path / "agent.safetensors").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on(tmp_path, monkeypatch, capsys, scores):
    scores([1.0, 5.0, 2.0])
    updates = []

    def stop_in_the_third_rollout(*arguments):
        updates.append(1)
        if len(updates) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments)

    monkeypatch.setattr(pqn, "update", stop_in_the_third_rollout)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path)
    assert stopped.value.code == 143
    del stopped  # and with its traceback the frame that holds the run's lock
    state = torch.load(tmp_path / "state/state.pt", weights_only=True)
    assert state["done"] == 48
    assert state["parts"]["best"]["returns"] == {"breakout": 1.0}
    run(tmp_path)
    assert len(updates) == 24
    assert "resuming at step 48 of 96" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "progress.csv")["return_breakout"].tolist() == [1.0, 5.0, 2.0]
    assert load_agent(tmp_path / "agent.safetensors")[1]["score"] == 5.0


@pytest.mark.slow
def test_a_resumed_run_has_all_it_had(tmp_path, monkeypatch, scores):
    """Weights, optimiser and input scaling after the resumption are those in the state, to the bit."""
    scores(range(100))
    updates = []

    def stop(*arguments):
        updates.append(1)
        if len(updates) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments)

    monkeypatch.setattr(pqn, "update", stop)
    with pytest.raises(SystemExit):
        run(tmp_path)
    state = torch.load(tmp_path / "state/state.pt", weights_only=True)
    found = {}

    def note(agent, optimizer, *rest):
        if not found:
            found["agent"] = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
            found["moments"] = optimizer.state_dict()["state"][0]["exp_avg"].clone()
        return update(agent, optimizer, *rest)

    monkeypatch.setattr(pqn, "update", note)
    run(tmp_path)
    assert found["agent"].keys() == state["parts"]["agent"].keys()
    assert all(torch.equal(found["agent"][name], tensor) for name, tensor in state["parts"]["agent"].items())
    assert float(found["agent"]["shift"]) > 0
    assert torch.equal(found["moments"], state["parts"]["optimizer"]["state"][0]["exp_avg"])


@pytest.fixture
def initial(tmp_path, scores):
    """The file of an agent that has had an update."""
    scores(range(100))
    return run(tmp_path / "initial", replace(SETTINGS, steps=32, learning_rate=0.01)) / "agent.safetensors"


def test_an_agent_is_trained_further_from_where_it_was(tmp_path, initial):
    """At a rate of nothing it stays what it was, though its inputs are standardised by other frames than before."""
    further = run(tmp_path, replace(SETTINGS, learning_rate=1e-30), seed=4, initial=initial)
    (before, described), (after, metadata) = map(load_agent, (initial, further / "agent.safetensors"))
    frames = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(after(frames, "breakout"), before(frames, "breakout"), rtol=1e-4, atol=1e-5)
    assert metadata["initial_agent"] == described  # who made it, and how
    assert described["initial_agent"] is None
    assert metadata["steps"] == 96


def test_an_agent_that_training_makes_worse_stays_what_it_was(tmp_path, initial, scores):
    scores([10.0, 9.0, 8.0, 7.0])
    further = run(tmp_path, replace(SETTINGS, learning_rate=0.1), seed=4, initial=initial)
    (before, _), (after, metadata) = map(load_agent, (initial, further / "agent.safetensors"))
    assert metadata["best_at"] == 0
    assert metadata["score"] == 10
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor)


def test_the_moments_are_those_of_each_slots_newest_frame_exactly():
    rollout = pqn.Rollout.empty(3, 2, torch.device("cpu"))
    rollout.observations.copy_(torch.randint(0, 256, rollout.observations.shape, dtype=torch.uint8))
    pixels = rollout.observations[:, :, 3].double()
    assert rollout.pixel_moments() == (pixels.mean().item(), pixels.square().mean().item())


def test_an_agent_is_trained_further_on_standardised_inputs(tmp_path, monkeypatch, initial):
    seen = []
    monkeypatch.setattr(pqn, "update", lambda agent, *rest: (seen.append(float(agent.shift)), update(agent, *rest))[1])
    run(tmp_path, initial=initial)
    assert seen[0] > 0


def test_a_network_of_another_size_is_not_trained_further(tmp_path, initial):
    with pytest.raises(CheckpointError, match=r"agent.safetensors: its network Network\(channels=\(4, 4, 4\).* cannot"):
        run(tmp_path, network=replace(TINY, hidden=17), initial=initial)


@pytest.mark.slow
def test_a_run_from_another_initial_agent_starts_afresh(tmp_path, monkeypatch, capsys, initial):
    monkeypatch.setattr(pqn, "update", lambda *arguments: (os.kill(os.getpid(), signal.SIGTERM), update(*arguments))[1])
    with pytest.raises(SystemExit):
        run(tmp_path)
    monkeypatch.setattr(pqn, "update", update)
    run(tmp_path, initial=initial)
    assert "made under other settings; starting afresh" in capsys.readouterr().out


@pytest.mark.slow
def test_other_settings_start_afresh(tmp_path, monkeypatch, capsys, scores):
    scores(range(100))
    monkeypatch.setattr(pqn, "update", lambda *arguments: (os.kill(os.getpid(), signal.SIGTERM), update(*arguments))[1])
    with pytest.raises(SystemExit):
        run(tmp_path)
    monkeypatch.setattr(pqn, "update", update)
    run(tmp_path, replace(SETTINGS, trace_decay=0.5))
    assert "made under other settings; starting afresh" in capsys.readouterr().out
