"""Agents in other people's hands: `predict`, Gymnasium's wrappers, Stable-Baselines3's tools."""

from __future__ import annotations

import contextlib
import io
import math
import re
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from policy_distillation import load_agent
from policy_distillation.networks import Agent, Network

ROOT = Path(__file__).resolve().parents[1]
SMALL = Network((8, 8, 8), 16, controller=8)
GAMES = {"freeway": (0, 2, 5), "pong": (0, 1, 3, 4, 11, 12)}


@pytest.fixture
def agent():
    torch.manual_seed(0)
    agent = Agent(SMALL, GAMES)
    with torch.no_grad():
        for game in GAMES:  # else its favourite is the same everywhere
            output = agent.controllers[game][-1]
            output.bias -= torch.from_numpy(agent.q_values(observations(32), game).mean(0))
    return agent


def observations(batch):
    return np.random.default_rng(0).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8)


def test_the_deterministic_action_is_the_best(agent):
    player = agent.single("pong")
    actions, state = player.predict(observations(32), deterministic=True)
    np.testing.assert_array_equal(actions, agent.q_values(observations(32), "pong").argmax(1))
    assert state is None
    assert len(set(actions)) > 1, "a constant would pass"


def test_else_one_action_in_twenty_is_random(agent):
    player = agent.single("pong")
    seen = np.repeat(observations(1), 600, axis=0)
    best = player.predict(seen, deterministic=True)[0][0]
    random = [player.predict(seen)[0] for _ in range(10)]
    share = np.mean(np.concatenate(random) != best)
    assert share == pytest.approx(0.05 * 5 / 6, abs=5 * math.sqrt(0.05 / 6000))
    player.rng = np.random.default_rng(0)
    np.testing.assert_array_equal(player.predict(seen)[0], random[0])


def test_one_observation_gives_one_action_and_frames_may_be_last(agent):
    player = agent.single("freeway")
    batch = observations(5)
    expected, _ = player.predict(batch, deterministic=True)
    assert player.predict(batch[3], deterministic=True)[0].shape == ()
    assert player.predict(batch[3], deterministic=True)[0] == expected[3]
    np.testing.assert_array_equal(player.predict(np.moveaxis(batch, 1, -1), deterministic=True)[0], expected)


@pytest.mark.parametrize(
    "observation",
    [np.zeros((4, 84, 84), np.float32), np.zeros((84, 84), np.uint8), np.zeros((1, 1, 4, 84, 84), np.uint8)],
)
def test_other_observations_are_refused(agent, observation):
    with pytest.raises(ValueError, match=re.escape("expected uint8 (4, 84, 84) or a batch")):
        agent.single("pong").predict(observation)


def test_an_agent_of_several_games_must_be_told_which(agent):
    with pytest.raises(ValueError, match=r"plays freeway, pong: choose a game with agent\.single"):
        agent.predict(observations(1))
    with pytest.raises(ValueError, match="does not play qbert; it plays freeway, pong"):
        agent.single("qbert")


def test_an_agent_of_one_game_is_a_copy(agent):
    single = agent.single("pong")
    before = agent.q_values(observations(2), "pong")
    np.testing.assert_array_equal(single.q_values(observations(2), "pong"), before)
    assert single.actions == {"pong": GAMES["pong"]}
    assert not any("freeway" in name for name, _ in single.named_parameters())
    with torch.no_grad():
        for parameter in single.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(agent.q_values(observations(2), "pong"), before)


def wrapped(game="ALE/Freeway-v5"):
    env = gymnasium.make(game, frameskip=1, repeat_action_probability=0.0)
    env = AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84, terminal_on_life_loss=False)
    return FrameStackObservation(env, 4, padding_type="zero")


def program(page):
    """The one for Gymnasium that a page quotes."""
    return re.search(r"```python\n(import ale_py.*?)```", (ROOT / page).read_text(), re.S)[1]


def test_readme_and_docs_quote_one_program():
    assert program("README.md") == program("docs/using.md")


def assert_ours(scores, game):
    """No further from the mean of the agent's 112 games here than three standard errors."""
    ours = pd.read_csv(ROOT / f"resources/teachers/{game}/scores.csv")["return"]
    assert len(ours) == 112
    assert abs(np.mean(scores) - ours.mean()) < 3 * ours.std() * math.sqrt(1 / len(scores) + 1 / len(ours))


@pytest.mark.slow
@pytest.mark.parametrize("game", ["freeway", "pong"])
def test_the_quoted_program_scores_in_gymnasium_what_agents_score_here(game, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = program("docs/using.md").replace("freeway", game).replace("Freeway", game.title())
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(text, {})
    assert_ours([float(printed.getvalue())], game)


@pytest.mark.slow
def test_stable_baselines3_scores_an_agent_as_it_is_scored_here():
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation", reason="needs envs/peers.txt")
    from stable_baselines3.common.monitor import Monitor

    agent, _ = load_agent(ROOT / "resources/teachers/freeway/agent.safetensors")
    env = Monitor(wrapped())
    env.reset(seed=1)
    scores, lengths = evaluation.evaluate_policy(
        agent, env, n_eval_episodes=2, deterministic=False, return_episode_rewards=True
    )
    assert all(2000 < length <= 2048 for length in lengths)
    assert_ours(scores, "freeway")
