"""DQN: targets, one update, schedules, and whole tiny runs that are repeated, killed and resumed."""

import copy
import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from policy_distillation import acting, dqn, evaluate, progress, teachers
from policy_distillation import run as runs
from policy_distillation.atari import AtariVector, Episode, Step
from policy_distillation.capture import WARM_UP
from policy_distillation.checkpoints import load_agent
from policy_distillation.dqn import DQN, Learner
from policy_distillation.evaluate import Evaluation
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.replay import Batch, Replay
from policy_distillation.run import Machine

torch.set_num_threads(1)  # tiny networks; beside another job, OpenMP's spinning threads cost ten times the work

TINY = Network((4, 4, 4), 16)
BREAKOUT = {"breakout": [0, 1, 3, 4]}
SETTINGS = DQN(
    steps=160,
    envs=2,
    replay_size=120,  # smaller than the run, so that it wraps
    warmup_steps=20,
    train_every=4,
    batch_size=4,
    discount=0.9,
    n_step=1,
    double=False,
    target_update_every=5,
    optimizer="rmsprop",
    learning_rate=1e-3,
    optimizer_epsilon=0.01,
    epsilon_start=1.0,
    epsilon_end=0.1,
    epsilon_decay_steps=100,
    evaluate_every=40,
)
EVALUATION = Evaluation(episodes=1, envs=1, epsilon=0.05)
SHORT = replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=160)  # 40 steps a game


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    """Short games."""
    monkeypatch.setitem(PROTOCOLS, "short", SHORT)


def exploration(step, settings):
    """A straight line after the warm-up."""
    line = settings.epsilon_start, settings.epsilon_end, settings.epsilon_decay_steps
    return acting.exploration(step - settings.warmup_steps, *line)


def run(
    folder,
    settings=SETTINGS,
    games=("breakout",),
    seed=3,
    checkpoint_seconds=1e9,
    initial=None,
    snapshots=0,
    device="cpu",
):
    machine = Machine(device, "float32", checkpoint_seconds)
    options = {"machine": machine, "initial": initial, "snapshots": snapshots}
    teachers.train_teacher(dqn.learn, games, TINY, settings, EVALUATION, "short", seed, folder, **options)
    return folder


@pytest.fixture
def fixed_scores(monkeypatch):
    """Evaluations that cost nothing and return the given scores, one after the other; keeps the agents they saw."""
    seen = []

    def give(scores):
        def play(agent, game, *arguments, **options):
            seen.append({name: tensor.clone() for name, tensor in agent.state_dict().items()})
            return [Episode(0, 0, 0, scores[(len(seen) - 1) % len(scores)], 1, False)]

        monkeypatch.setattr(evaluate, "play_episodes", play)
        return seen

    return give


@pytest.fixture
def learners(monkeypatch):
    """The learners that train() makes."""
    made = []

    class Kept(Learner):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(dqn, "Learner", Kept)
    return made


def same_tensors(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def tensors(path):
    return load_agent(path)[0].state_dict()


def curve(folder):
    return pd.read_csv(folder / "progress.csv").drop(columns="seconds")


# Targets and one update


def random_agent(seed, gain=3.0):
    """An agent whose Q-values spread far enough for the best action to depend on the state."""
    torch.manual_seed(seed)
    agent = Agent(TINY, BREAKOUT)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(gain)
    return agent


def random_batch(size=32, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image = (size, 4, 84, 84)
    return Batch(
        observations=torch.randint(0, 256, image, generator=rng, dtype=torch.uint8),
        actions=torch.randint(0, 4, (size,), generator=rng),
        returns=3 * torch.randn(size, generator=rng),  # errors beyond 1 on both sides
        discounts=0.9 * (torch.rand(size, generator=rng) < 0.8).float(),
        next_observations=torch.randint(0, 256, image, generator=rng, dtype=torch.uint8),
        weights=(torch.rand(size, generator=rng) < 0.8).float(),
    )


def naive_targets(batch, online, target, double):
    with torch.no_grad():
        next_q = target(batch.next_observations, "breakout").tolist()
        chooser = online(batch.next_observations, "breakout").tolist() if double else next_q
    targets = []
    for row, values in enumerate(next_q):
        best = max(range(4), key=lambda action: chooser[row][action])
        targets.append(float(batch.returns[row]) + float(batch.discounts[row]) * values[best])
    return torch.tensor(targets)


@pytest.mark.parametrize("double", [False, True])
def test_targets_bootstrap_from_the_target_network(double):
    learner = Learner(random_agent(0), replace(SETTINGS, double=double), "float32")
    learner.target = random_agent(1)
    batch = random_batch()
    plain = naive_targets(batch, learner.online, learner.target, False)
    doubled = naive_targets(batch, learner.online, learner.target, True)
    assert (plain - doubled).abs().max() > 0.01
    torch.testing.assert_close(learner._targets(batch, "breakout"), doubled if double else plain, rtol=1e-5, atol=1e-5)
    # Never above the maximum: double Q-learning takes another action's value.
    assert (doubled <= plain + 1e-5).all()


@pytest.mark.parametrize("n_step", [1, 3])
def test_targets_of_sampled_transitions_follow_from_the_play(n_step):
    """From replay to target against sums over a written-down play with ends of both kinds."""
    rng = np.random.default_rng(0)
    times = 40
    rewards = rng.integers(-1, 2, times).astype(np.float32)
    terminations, truncations = np.zeros(times, bool), np.zeros(times, bool)
    terminations[[9, 20, 21]] = True
    truncations[[14, 30]] = True
    replay = Replay(100, 1, n_step, 0.9)
    for time in range(times):
        observation = np.full((1, 4, 84, 84), time, np.uint8)  # the newest frame tells the time
        flags = terminations[time : time + 1], truncations[time : time + 1]
        step = Step(observation, rewards[time : time + 1], *flags, flags[0] | flags[1], episodes=[])
        replay.append(observation, np.array([time % 4]), step)
    learner = Learner(random_agent(0), replace(SETTINGS, n_step=n_step), "float32")
    learner.target = random_agent(1)
    batch = replay.sample(300, rng)
    sampled = batch.observations[:, -1, 0, 0].tolist()
    with torch.no_grad():
        best = learner.target(batch.next_observations, "breakout").amax(1).tolist()
    expected, hidden = [], []
    for row, time in enumerate(sampled):
        total, bootstraps, known = 0.0, True, True
        for k in range(n_step):
            total += 0.9**k * rewards[time + k]
            if terminations[time + k]:
                bootstraps = False
                break
            if truncations[time + k]:
                known = False
                break
        expected.append(total + (0.9**n_step * best[row] if bootstraps else 0.0))
        hidden.append(not known)
        if bootstraps and known:
            assert batch.next_observations[row, -1, 0, 0] == time + n_step
    assert 0 < sum(hidden) < 150
    assert (batch.weights == 0).tolist() == hidden
    assert batch.actions.tolist() == [time % 4 for time in sampled]
    known = ~torch.tensor(hidden)
    targets = learner._targets(batch, "breakout")
    torch.testing.assert_close(targets[known], torch.tensor(expected)[known], rtol=1e-5, atol=1e-5)


def clipped_gradients(agent, batch, targets):
    """Mnih et al. 2015: the gradient of the squared error with the error term clipped to [-1, 1]."""
    q_values = agent(batch.observations, "breakout")[torch.arange(len(targets)), batch.actions]
    errors = (q_values - targets).detach()
    assert (errors > 1).any()
    assert (errors < -1).any()
    surrogate = (batch.weights * errors.clamp(-1, 1) * q_values).sum() / len(targets)
    return torch.autograd.grad(surrogate, list(agent.parameters()))


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_updates_equal_a_naive_reference(optimizer):
    """Five updates against autograd and the optimisers' formulas written out, target copies included."""
    settings = replace(SETTINGS, optimizer=optimizer, learning_rate=0.01, target_update_every=2)
    learner = Learner(random_agent(0), settings, "float32")
    naive, target = random_agent(0), random_agent(0)
    parameters = list(naive.parameters())
    first = [torch.zeros_like(parameter) for parameter in parameters]
    second = [torch.zeros_like(parameter) for parameter in parameters]
    for number in range(1, 6):
        batch = random_batch(seed=number)
        targets = naive_targets(batch, naive, target, double=False)
        gradients = clipped_gradients(naive, batch, targets)
        with torch.no_grad():
            q_values = naive(batch.observations, "breakout")[torch.arange(32), batch.actions]
            error = (q_values - targets).abs()
            huber = (batch.weights * torch.where(error < 1, error**2 / 2, error - 0.5)).sum() / 32
            for parameter, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
                if optimizer == "rmsprop":
                    m.mul_(0.95).add_(0.05 * gradient)
                    v.mul_(0.95).add_(0.05 * gradient**2)
                    parameter -= 0.01 * gradient / ((v - m**2).sqrt() + 0.01)
                else:
                    m.mul_(0.9).add_(0.1 * gradient)
                    v.mul_(0.999).add_(0.001 * gradient**2)
                    parameter -= 0.01 * (m / (1 - 0.9**number)) / ((v / (1 - 0.999**number)).sqrt() + 0.01)
        if number % 2 == 0:
            target.load_state_dict(naive.state_dict())
        loss, mean_q = learner.update(batch, "breakout")
        torch.testing.assert_close(loss, huber, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(mean_q, q_values.mean(), rtol=1e-3, atol=1e-4)
        for mine, reference in zip(learner.online.parameters(), parameters, strict=True):
            torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-4)
    assert learner.updates == 5


def test_a_transition_of_weight_zero_teaches_nothing():
    batch = random_batch()
    batch = replace(batch, weights=torch.ones(32).index_fill(0, torch.tensor([4, 9]), 0.0))
    spoilt = batch.returns.clone()
    spoilt[[4, 9]] = 1e6
    other_images = batch.observations.clone()
    other_images[[4, 9]] = 0
    agents = []
    for returns, observations in ((batch.returns, batch.observations), (spoilt, other_images)):
        learner = Learner(random_agent(0), SETTINGS, "float32")
        learner.update(replace(batch, returns=returns, observations=observations), "breakout")
        agents.append(learner.online.state_dict())
    for name, tensor in agents[0].items():
        torch.testing.assert_close(tensor, agents[1][name], rtol=1e-5, atol=1e-6)


def test_the_target_network_changes_only_every_so_many_updates():
    learner = Learner(random_agent(0), replace(SETTINGS, target_update_every=3), "float32")
    expected = learner.online.state_dict()
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    for number in range(1, 8):
        learner.update(random_batch(seed=number), "breakout")
        if number % 3 == 0:
            expected = {name: tensor.clone() for name, tensor in learner.online.state_dict().items()}
        assert same_tensors(learner.target.state_dict(), expected)
        assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def test_exploration_falls_along_a_line_after_the_warm_up():
    settings = replace(SETTINGS, warmup_steps=50, epsilon_start=1.0, epsilon_end=0.1, epsilon_decay_steps=100)
    steps = [0, 50, 51, 100, 150, 151, 10_000]
    expected = [1.0, 1.0, 0.991, 0.55, 0.1, 0.1, 0.1]
    assert [exploration(step, settings) for step in steps] == pytest.approx(expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_update_on_the_gpu_equals_one_on_the_cpu():
    after = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            learner = Learner(random_agent(0).to(device), replace(SETTINGS, double=True), "float32")
            losses = [learner.update(random_batch(seed=number), "breakout")[0].item() for number in range(6)]
            after.append((losses, [parameter.detach().cpu() for parameter in learner.online.parameters()]))
    assert after[1][0] == pytest.approx(after[0][0], rel=1e-3)
    for gpu, cpu in zip(after[1][1], after[0][1], strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("store", ["cuda", "cpu"])
def test_an_update_does_not_wait_for_the_gpu(store):
    """Wherever the replay lies, and though the target network is renewed."""
    learner = Learner(random_agent(0).to("cuda"), replace(SETTINGS, double=True, target_update_every=1), "float32")
    replay, rng = Replay(80, 2, 1, 0.9, device=store), np.random.default_rng(0)
    replay.filled = replay.times
    for _ in range(WARM_UP + 2):  # until the update is a graph
        learner.update(replay.sample(8, rng), "breakout")
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.update(replay.sample(8, rng), "breakout")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.updates == WARM_UP + 3


# Whole runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("envs", "train_every", "steps"),
    [(2, 4, 160), (8, 4, 160), (1, 4, 90), (3, 4, 120), (4, 4, 80), (6, 4, 120)],
)
def test_one_update_per_train_every_steps(tmp_path, fixed_scores, learners, envs, train_every, steps):
    fixed_scores([0.0])
    warmup = 48
    settings = replace(SETTINGS, envs=envs, train_every=train_every, steps=steps, warmup_steps=warmup)
    run(tmp_path, settings)
    first = -(-warmup // envs) * envs  # where the vector step ends that completes the warm-up
    expected = len([step for step in range(first + 1, steps + 1) if step % train_every == 0])
    assert learners[0].updates == expected


@pytest.mark.slow
def test_equal_seeds_give_equal_bits(tmp_path):
    settings = replace(SETTINGS, n_step=3, double=True, evaluate_every=80)
    one = run(tmp_path / "one", settings)
    torch.rand(5)
    np.random.rand(5)  # noqa: NPY002 - nothing may depend on global generators
    other = run(tmp_path / "other", settings)
    assert same_tensors(tensors(one / "agent.safetensors"), tensors(other / "agent.safetensors"))
    pd.testing.assert_frame_equal(curve(one), curve(other))
    third = run(tmp_path / "third", settings, seed=4)
    assert not same_tensors(tensors(one / "agent.safetensors"), tensors(third / "agent.safetensors"))


@pytest.mark.slow
def test_a_run_leaves_an_agent_a_curve_and_no_state(tmp_path, monkeypatch):
    made = []

    class Noted(AtariVector):
        def __init__(self, game, protocol, purpose, *arguments, **options):
            super().__init__(game, protocol, purpose, *arguments, **options)
            made.append((game, purpose, self.num_envs))

    monkeypatch.setattr(teachers, "AtariVector", Noted)
    run(tmp_path, checkpoint_seconds=0)
    left = ["agent.safetensors", "progress.csv", "snapshots", "tensorboard"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    agent, metadata = load_agent(tmp_path / "agent.safetensors")
    assert (agent.network, agent.actions) == (TINY, {"breakout": (0, 1, 3, 4)})
    assert (metadata["kind"], metadata["steps"], metadata["seed"]) == ("dqn", 160, 3)
    assert metadata["protocol"]["name"] == "short"
    table = pd.read_csv(tmp_path / "progress.csv")
    assert table["step"].tolist() == [40, 80, 120, 160]
    expected = [exploration(step, SETTINGS) for step in (40, 80, 120, 160)]
    assert table["epsilon"].tolist() == pytest.approx(expected)
    assert np.isfinite(table[["loss", "q", "return_breakout", "training_return_breakout"]][1:]).all(axis=None)
    assert made == [("breakout", "train", 2)]  # life losses end returns and rewards are clipped: in training alone


def test_the_best_agent_is_kept_and_ties_go_to_the_later(tmp_path, fixed_scores):
    seen = fixed_scores([1.0, 5.0, 5.0, 2.0])
    run(tmp_path)
    assert len(seen) == 4
    agent, metadata = load_agent(tmp_path / "agent.safetensors")
    assert same_tensors(agent.state_dict(), seen[2])
    assert not same_tensors(seen[1], seen[2])
    assert metadata["score"] == 5.0
    assert curve(tmp_path)["return_breakout"].tolist() == [1.0, 5.0, 5.0, 2.0]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step 40"):
        run(tmp_path, replace(SETTINGS, learning_rate=1e38))
    assert not (tmp_path / "agent.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("envs", [1, 2, 4])
def test_two_games_share_a_trunk_and_take_turns(tmp_path, monkeypatch, fixed_scores, learners, envs):
    """At every vector step and at every update, however the steps between updates divide."""
    seen = fixed_scores([0.0])
    replays, turns = [], []

    class Kept(Replay):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            replays.append(self)

    class Noted(AtariVector):
        def send(self, actions):
            turns.append(self.game)
            super().send(actions)

    monkeypatch.setattr(dqn, "Replay", Kept)
    monkeypatch.setattr(teachers, "AtariVector", Noted)
    updated = []
    update = Learner.update
    monkeypatch.setattr(
        Learner, "update", lambda self, batch, game: (updated.append(game), update(self, batch, game))[1]
    )
    settings = replace(SETTINGS, envs=envs, evaluate_every=80)
    run(tmp_path, settings, games=("breakout", "freeway"))
    agent, metadata = load_agent(tmp_path / "agent.safetensors")
    assert agent.actions == {"breakout": (0, 1, 3, 4), "freeway": (0, 2, 5)}
    assert set(agent.controllers) == {"breakout", "freeway"}
    assert metadata["games"] == ["breakout", "freeway"]
    assert turns == ["breakout", "freeway"] * (160 // envs // 2)  # 160 steps over all games
    assert [len(replay) for replay in replays] == [80, 80]
    assert set(updated) == {"breakout", "freeway"}
    assert abs(updated.count("breakout") - updated.count("freeway")) <= 1
    table = curve(tmp_path)
    assert table["step"].tolist() == [80, 160]
    assert {"return_breakout", "return_freeway"} <= set(table.columns)
    # Exploration follows each game's own steps, 40 and 80 of them, after a warm-up of 20.
    assert table["epsilon"].tolist() == pytest.approx([1 - 0.9 * 0.2, 1 - 0.9 * 0.6])
    for name in ("conv1.weight", "hidden.weight", "controllers.breakout.weight", "controllers.freeway.weight"):
        assert not torch.equal(seen[0][name], seen[-1][name])


# Input scaling


def outputs(agent):
    with torch.no_grad():
        return agent(random_batch().observations, "breakout")


@pytest.mark.slow
@pytest.mark.parametrize("best", [0, 2, 3])
def test_the_saved_agent_plays_like_the_one_that_was_scored(tmp_path, monkeypatch, best):
    """Also with standardised inputs, and when the best score came during the warm-up, before there was a scaling."""
    scored = []

    def play(agent, *arguments, **options):
        scored.append(copy.deepcopy(agent))
        return [Episode(0, 0, 0, float(len(scored) - 1 == best), 1, False)]

    monkeypatch.setattr(evaluate, "play_episodes", play)
    run(tmp_path, replace(SETTINGS, input_scaling="standardised", warmup_steps=60, learning_rate=0.02))
    saved = load_agent(tmp_path / "agent.safetensors")[0]
    torch.testing.assert_close(outputs(saved), outputs(scored[best]), rtol=1e-4, atol=1e-4)
    assert (outputs(scored[0]) - outputs(scored[-1])).abs().max() > 0.01
    assert (outputs(scored[2]) - outputs(scored[3])).abs().max() > 0.01


@pytest.mark.slow
def test_standardised_inputs_follow_the_warm_up(tmp_path, monkeypatch, learners, fixed_scores):
    fixed_scores([0.0])
    warm_up = []

    class Kept(Replay):
        def append(self, observations, *arguments):
            if len(warm_up) < 30:
                warm_up.append(observations[:, -1].copy())
            super().append(observations, *arguments)

    monkeypatch.setattr(dqn, "Replay", Kept)
    settings = replace(SETTINGS, input_scaling="standardised", warmup_steps=60)
    assert interrupted_at(90, tmp_path, settings) == 143
    before = [(float(agent.shift), float(agent.scale)) for agent in (learners[0].online, learners[0].target)]
    pixels = np.array(warm_up, np.float64)
    assert before[0] == pytest.approx((pixels.mean(), 1 / pixels.std()), rel=0.01)
    assert before[1] == before[0]  # online and target network must see the same
    run(tmp_path, settings)
    after = [(float(agent.shift), float(agent.scale)) for agent in (learners[1].online, learners[1].target)]
    assert after == before  # as long as the agent lives


@pytest.mark.slow
def test_an_agent_is_trained_further_from_where_it_was(tmp_path, learners, fixed_scores):
    """At a rate of nothing it stays what it was, and its target network too, though its inputs are scaled anew."""
    fixed_scores([0.0])
    initial = run(tmp_path / "initial", replace(SETTINGS, learning_rate=0.02)) / "agent.safetensors"
    settings = replace(SETTINGS, learning_rate=1e-30, input_scaling="standardised", target_update_every=1000)
    further = run(tmp_path, settings, seed=4, initial=initial) / "agent.safetensors"
    (before, described), (after, metadata) = map(load_agent, (initial, further))
    assert float(learners[-1].target.shift) > 0
    for agent in (after, learners[-1].online, learners[-1].target):
        torch.testing.assert_close(outputs(agent), outputs(before), rtol=1e-4, atol=1e-5)
    assert metadata["initial_agent"] == described


@pytest.mark.slow
def test_two_games_share_mean_and_scale(tmp_path, monkeypatch, learners, fixed_scores):
    fixed_scores([0.0])
    warm_up = {}

    class Noted(AtariVector):
        def receive(self):
            outcome = super().receive()
            warm_up.setdefault(self.game, [outcome.observations[:, -1]]).append(outcome.observations[:, -1])
            return outcome

    monkeypatch.setattr(teachers, "AtariVector", Noted)
    settings = replace(SETTINGS, envs=4, input_scaling="standardised", warmup_steps=40)
    run(tmp_path, settings, games=("breakout", "freeway"))
    moments = []
    for frames in warm_up.values():
        pixels = np.array(frames[:10], np.float64)
        moments.append((pixels.mean(), (pixels**2).mean()))
    mean, square = np.mean(moments, axis=0)
    learner = learners[-1]
    assert float(learner.online.shift) == pytest.approx(mean, rel=0.02)
    assert float(learner.online.scale) == pytest.approx((square - mean**2) ** -0.5, rel=0.02)


# Interruption

CHILD = """
import itertools, os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_dqn
from policy_distillation import progress
from policy_distillation import run as runs
from policy_distillation.protocols import PROTOCOLS
PROTOCOLS["short"] = test_dqn.SHORT
{tamper}
test_dqn.run(Path({folder!r}), checkpoint_seconds={checkpoint_seconds})
"""

KILLED_AFTER_A_ROW = """
# One checkpoint, at step 50; then the row of step 80 is written; then the power fails.
due = itertools.count(1)
runs.Stopwatch.due = lambda self: next(due) == 25
record = progress.Progress.record
def record_and_die(self, row):
    record(self, row)
    if len(self.rows) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
progress.Progress.record = record_and_die
"""
KILLED_IN_A_CHECKPOINT = """
# A checkpoint after each vector step; in the 31st, the replay is written and the rest is not.
runs.SAVING_SHARE = 1e9
saves = itertools.count(1)
save = torch.save
def save_or_die(*arguments):
    if next(saves) == 31:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)
torch.save = save_or_die
"""
TERMINATED = """
advance = progress.Progress.advance
def advance_and_be_told_to_stop(self, units):
    advance(self, units)
    if self._done == 86:
        os.kill(os.getpid(), signal.SIGTERM)
progress.Progress.advance = advance_and_be_told_to_stop
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tamper", "checkpoint_seconds", "exit_code", "saved_at"),
    [
        (KILLED_AFTER_A_ROW, 0, -signal.SIGKILL, 50),
        (KILLED_IN_A_CHECKPOINT, 0, -signal.SIGKILL, 60),
        (TERMINATED, 1e9, 143, 86),
    ],
    ids=["killed after a row", "killed in a checkpoint", "terminated"],
)
def test_a_run_that_was_stopped_goes_on(
    tmp_path, capsys, learners, monkeypatch, tamper, checkpoint_seconds, exit_code, saved_at
):
    code = CHILD.format(
        tests=str(Path(__file__).parent), tamper=tamper, folder=str(tmp_path), checkpoint_seconds=checkpoint_seconds
    )
    package = Path(dqn.__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert child.returncode == exit_code, child.stderr
    assert not (tmp_path / "agent.safetensors").exists()
    assert (tmp_path / "state" / "state.pt").exists()

    replays = []
    load = Replay.load

    def noted(self, path):
        load(self, path)
        replays.append(len(self))

    monkeypatch.setattr(Replay, "load", noted)
    run(tmp_path)
    assert f"resuming at step {saved_at} of 160" in capsys.readouterr().out
    assert replays == [saved_at]
    table = pd.read_csv(tmp_path / "progress.csv")
    assert table["step"].tolist() == [40, 80, 120, 160]
    assert table["seconds"].is_monotonic_increasing
    assert learners[0].updates == (160 // 4) - (20 // 4)  # as many as without the interruption
    assert load_agent(tmp_path / "agent.safetensors")[1]["steps"] == 160
    assert not (tmp_path / "state").exists()


def interrupted_at(step, folder, settings=SETTINGS, **options):
    """A run that SIGTERM reaches while it makes this step; returns its exit code."""
    advance = progress.Progress.advance

    def noted(self, units):
        advance(self, units)
        if self._done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Progress, "advance", noted)
        try:
            run(folder, settings, **options)
        except SystemExit as stop:  # its traceback holds the run, and with it the lock: let go of it
            code = stop.code
    gc.collect()
    return code


@pytest.mark.slow
def test_what_a_checkpoint_brings_back(tmp_path, monkeypatch, learners, fixed_scores):
    """Networks, optimiser, counters, best snapshot, replay and random state as they were."""
    seen = fixed_scores([9.0, 1.0, 2.0, 3.0])
    made = []

    class Kept(Replay):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(dqn, "Replay", Kept)
    states = []
    monkeypatch.setattr(runs, "restore_generator", lambda rng, state: states.append(state))
    assert interrupted_at(90, tmp_path) == 143
    assert [path.name for path in (tmp_path / "state").glob("*.h5")] == ["replay-breakout-0.h5"]
    saved = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    before = learners[0]

    at_resumption = []
    explore = dqn.LastingExploration.__call__

    def snapshot(*arguments):
        if not at_resumption:
            learner, replay = learners[-1], made[-1]
            optimizer = learner.optimizer.state_dict()["state"]
            at_resumption.append(
                SimpleNamespace(
                    online={name: tensor.clone() for name, tensor in learner.online.state_dict().items()},
                    target={name: tensor.clone() for name, tensor in learner.target.state_dict().items()},
                    squares=[values["square_avg"].clone() for values in optimizer.values()],
                    updates=learner.updates,
                    length=len(replay),
                    frames=replay.frames[: len(replay)].clone(),
                    epsilon=arguments[2],
                )
            )
        return explore(*arguments)

    monkeypatch.setattr(dqn.LastingExploration, "__call__", snapshot)
    run(tmp_path)
    (after,) = at_resumption
    assert same_tensors(after.online, before.online.state_dict())
    assert same_tensors(after.target, before.target.state_dict())
    assert not same_tensors(after.online, after.target)
    squares = [values["square_avg"] for values in before.optimizer.state_dict()["state"].values()]
    assert len(squares) > 0
    assert all(torch.equal(one, other) for one, other in zip(squares, after.squares, strict=True))
    assert after.updates == before.updates > 0
    assert after.epsilon == exploration(90, SETTINGS)
    assert after.length == 90
    assert torch.equal(after.frames, made[0].frames[:90])
    assert states == [saved["parts"]["rng"]]
    assert same_tensors(tensors(tmp_path / "agent.safetensors"), seen[0])  # the best came before the interruption


@pytest.mark.slow
def test_a_resumed_run_starts_games_that_it_has_not_played(tmp_path, monkeypatch, fixed_scores):
    fixed_scores([0.0])
    seeds = []

    class Noted(AtariVector):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            seeds.append(set(self.seeds.tolist()))

    monkeypatch.setattr(teachers, "AtariVector", Noted)
    interrupted_at(90, tmp_path)
    run(tmp_path)
    assert len(seeds) == 2
    assert not seeds[0] & seeds[1]


@pytest.mark.slow
def test_other_settings_start_afresh(tmp_path, capsys, fixed_scores):
    fixed_scores([0.0])
    interrupted_at(90, tmp_path / "one")
    run(tmp_path / "one", replace(SETTINGS, learning_rate=2e-3))
    output = capsys.readouterr().out
    assert "starting afresh" in output
    assert "resuming" not in output
    run(tmp_path / "other", replace(SETTINGS, learning_rate=2e-3))
    ends = [tensors(tmp_path / name / "agent.safetensors") for name in ("one", "other")]
    assert same_tensors(*ends)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "muon"])
def test_a_run_moves_from_gpu_to_cpu_and_back(tmp_path, capsys, learners, fixed_scores, optimizer):
    fixed_scores([0.0])
    settings = replace(SETTINGS, optimizer=optimizer, input_scaling="standardised")
    assert interrupted_at(90, tmp_path, settings, device="cuda") == 143
    assert interrupted_at(130, tmp_path, settings, device="cpu") == 143
    run(tmp_path, settings, device="cuda")
    output = capsys.readouterr().out
    assert "resuming at step 90 of 160" in output
    assert "resuming at step 130 of 160" in output
    assert "afresh" not in output
    assert [learner.online.scale.device.type for learner in learners] == ["cuda", "cpu", "cuda"]
    assert learners[-1].updates == (160 // 4) - (20 // 4)
    assert all(tensor.isfinite().all() for tensor in tensors(tmp_path / "agent.safetensors").values())
    assert load_agent(tmp_path / "agent.safetensors")[1]["computed"]["device"] == "cuda"


@pytest.mark.slow
@pytest.mark.parametrize("purged", [False, True])
def test_a_snapshot_that_a_purge_took_is_made_again(tmp_path, capsys, fixed_scores, purged):
    """It is written once, so file systems that delete what is old take it first; the run could never end without it."""
    fixed_scores([0.0])
    assert interrupted_at(90, tmp_path, snapshots=2) == 143
    if purged:
        (tmp_path / "state/0.safetensors").unlink()
    run(tmp_path, snapshots=2)
    output = capsys.readouterr().out
    assert ("0.safetensors: missing or damaged, so state.pt is of no use; starting afresh" in output) == purged
    assert ("resuming at step 90" in output) != purged
    names = ["0.safetensors", "1.safetensors"]
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == names
    assert [load_agent(tmp_path / "snapshots" / name)[1]["steps"] for name in names] == [80, 160]


@pytest.mark.slow
def test_another_number_of_snapshots_starts_afresh(tmp_path, capsys, fixed_scores):
    """Those that were kept are not the best of its shares."""
    fixed_scores([0.0])
    interrupted_at(130, tmp_path, snapshots=8)
    run(tmp_path, snapshots=2)
    assert "made under other settings; starting afresh" in capsys.readouterr().out
    steps = [load_agent(tmp_path / f"snapshots/{k}.safetensors")[1]["steps"] for k in range(2)]
    assert steps == [80, 160]


@pytest.mark.slow
def test_no_snapshot_is_of_an_agent_that_was_never_scored(tmp_path, fixed_scores):
    """Else students would learn online from random weights, where snapshots are denser than evaluations."""
    seen = fixed_scores([1.0, 2.0, 3.0])
    run(tmp_path, replace(SETTINGS, evaluate_every=80), snapshots=8)
    kept = [load_agent(tmp_path / f"snapshots/{k}.safetensors") for k in range(8)]
    assert [[metadata[name] for name in ("steps", "score", "best_at")] for _, metadata in kept] == [
        *[[steps, 1.0, 20] for steps in (20, 40, 60)],
        *[[steps, 2.0, 80] for steps in (80, 100, 120, 140)],
        [160, 3.0, 160],
    ]
    assert curve(tmp_path)["step"].tolist() == [20, 80, 160]
    assert all(same_tensors(agent.state_dict(), seen[0]) for agent, _ in kept[:3])


@pytest.mark.slow
def test_a_run_stopped_in_the_middle_of_a_game_scores_the_same_agent_again(tmp_path, monkeypatch):
    """The agent, its best and its curve are those of a run that was stopped just after scoring."""
    step = AtariVector.step

    def stop(at, when):
        """At this evaluation of what is left of the run, from 1: in its first game's tenth step, or when it is over."""
        games = []

        def counting(self, actions):
            games.append(self)
            if when == "during" and len({id(game) for game in games}) == at and games.count(self) == 10:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, actions)

        consider = evaluate.BestSnapshot.consider

        def considering(self, *arguments):
            returns = consider(self, *arguments)
            if when == "after" and len({id(game) for game in games}) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return returns

        with monkeypatch.context() as patch:
            patch.setattr(AtariVector, "step", counting)  # of games that are only played; learning has send and receive
            patch.setattr(evaluate.BestSnapshot, "consider", considering)
            with pytest.raises(SystemExit) as stopped:
                run(tmp_path / when)
        assert stopped.value.code == 128 + signal.SIGTERM
        del stopped
        gc.collect()
        state = torch.load(tmp_path / when / "state" / "state.pt", weights_only=True)
        assert (state["done"], state["unscored"] is not None) == (80, when == "during")
        assert {"agent", "best", "rng", "learner"} == state["parts"].keys()

    stop(2, "after")
    run(tmp_path / "after")
    stop(2, "during")
    stop(1, "during")  # it is being scored again
    run(tmp_path / "during", checkpoint_seconds=0)  # a checkpoint is due as soon as that is done
    assert same_tensors(
        tensors(tmp_path / "after" / "agent.safetensors"), tensors(tmp_path / "during" / "agent.safetensors")
    )
    pd.testing.assert_frame_equal(curve(tmp_path / "after"), curve(tmp_path / "during"))


@pytest.mark.slow
def test_an_evaluation_just_after_a_resumption_is_no_accident(tmp_path, fixed_scores):
    """Where updates are rarer than steps, an evaluation may come before the resumed run's first update."""
    fixed_scores([0.0])
    settings = replace(SETTINGS, envs=1, steps=161)
    interrupted_at(160, tmp_path, settings)
    run(tmp_path, settings)
    assert curve(tmp_path)["step"].tolist() == [40, 80, 120, 160, 161]


def test_standardised_inputs_are_those_of_the_warm_up_and_survive_saving_and_resuming(
    tmp_path, monkeypatch, learners, fixed_scores
):
    fixed_scores([1.0, 2.0, 3.0, 4.0])
    settings = replace(SETTINGS, input_scaling="standardised")
    stores = []
    monkeypatch.setattr(
        dqn, "pixel_moments", lambda frames, first, last: stores.append((first, last)) or (50.0, 2900.0)
    )
    run(tmp_path / "whole", settings)
    (learner,) = learners
    for agent in (learner.online, learner.target):
        assert float(agent.shift) == 50.0
        assert float(agent.scale) == pytest.approx(1 / 20)  # 2900 - 50^2 is 20^2
    assert stores == [(0, 21)]  # measured once, over what was stored before the first update
    saved, _ = load_agent(tmp_path / "whole/agent.safetensors")
    observations = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), np.uint8)
    assert float(saved.scale) == pytest.approx(1 / 255)
    np.testing.assert_allclose(
        saved.q_values(observations, "breakout"),
        learner.online.q_values(observations, "breakout"),
        rtol=1e-4,
        atol=1e-5,
    )

    again = Learner(Agent(TINY, BREAKOUT), settings, "float32")
    again.online.load_state_dict(learner.online.state_dict())  # which the run itself saves and restores
    again.load_state_dict(learner.state_dict())
    assert float(again.target.shift) == float(again.online.shift) == 50.0
    assert float(again.target.scale) == float(again.online.scale) == float(learner.online.scale)
