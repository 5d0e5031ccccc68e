"""What the loops of teachers hand on to replay and updates: what was seen and done, as the settings say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import test_dqn
import test_pqn
import torch
from policy_distillation import dqn, pqn
from policy_distillation.atari import Step
from policy_distillation.dqn import Learner
from policy_distillation.networks import Agent
from policy_distillation.pqn import lambda_returns
from policy_distillation.protocols import PROTOCOLS

NO = np.zeros(2, bool)
RUN = SimpleNamespace(restore=lambda **parts: None, device=torch.device("cpu"), done=0, precision="float32")


class Told:
    """Emulators whose pictures tell the time, and whose rewards tell the time and the action."""

    protocol = PROTOCOLS["paper2015"]

    def __init__(self, time):
        self.time = time

    def reset(self):
        return np.full((2, 4, 84, 84), self.time, np.uint8)

    def send(self, actions):
        self.actions = actions

    def receive(self):
        self.time += 1
        return Step(self.reset(), np.float32(self.time + self.actions / 8), NO, NO, NO, [])


def test_dqn_learns_each_game_from_what_was_seen_and_done_in_it(monkeypatch):
    learnt = []

    def update(learner, batch, game):
        learner.updates += 1
        learnt.append((game, batch))
        return torch.zeros(2)

    monkeypatch.setattr(Learner, "update", update)
    agent = Agent(test_dqn.TINY, {"breakout": range(4), "freeway": range(3)})
    turns = dqn.learn(
        RUN, agent, {"breakout": Told(0), "freeway": Told(100)}, test_dqn.SETTINGS, np.random.default_rng(0), False
    )
    for _ in range(60):
        next(turns)
    assert {game for game, _ in learnt} == {"breakout", "freeway"}
    for game, batch in learnt:
        seen = batch.observations[:, -1, 0, 0].int()
        assert (seen >= 100).all() == (game == "freeway")
        assert torch.equal(batch.returns, seen + 1 + batch.actions / 8)
        assert torch.equal(batch.next_observations[:, -1, 0, 0].int(), seen + 1)


def test_pqns_targets_are_of_what_was_seen_and_done(monkeypatch):
    given = []
    monkeypatch.setattr(pqn, "update", lambda *batch: given.append(batch) or torch.zeros(()))
    agent = SimpleNamespace(
        parameters=lambda: [torch.nn.Parameter(torch.zeros(1))],
        q_values=lambda seen, *_: np.float32([[0, stack[-1, 0, 0]] for stack in seen]),
    )
    rng = SimpleNamespace(random=np.zeros, integers=lambda low, high, slots: np.arange(slots), permutation=np.arange)
    settings = replace(test_pqn.SETTINGS, envs=2, rollout_steps=3, epochs=1, batch_size=6, input_scaling="unit")
    next(pqn.learn(RUN, agent, {"pong": Told(0)}, settings, rng, False))
    ((*_, largest, _, observations, actions, targets, _),) = given
    assert (largest, observations[:, -1, 0, 0].tolist(), actions.tolist()) == (10, [0, 0, 1, 1, 2, 2], [0, 1] * 3)
    rewards, values = torch.arange(1.0, 4)[:, None] + torch.tensor([0, 1 / 8]), torch.arange(4.0)[:, None].expand(4, 2)
    none = torch.zeros((3, 2), dtype=torch.bool)
    torch.testing.assert_close(targets, lambda_returns(rewards, none, none, values, 0.9, 0.65).flatten())


@pytest.mark.parametrize("name", ["paper2015", "cleanrl"])
def test_dqn_is_made_as_its_settings_and_the_protocol_say(monkeypatch, name):
    settings = replace(
        test_dqn.SETTINGS, n_step=3, longest_exploration=64, optimizer="muon", filters_learning_rate=0.03
    )
    env = Told(0)
    env.protocol = PROTOCOLS[name]
    (replay,) = dqn.make_replays({"pong": env}, settings, torch.device("cpu")).values()
    assert (replay.slots, replay.times, replay.n_step, replay.discount) == (2, 60, 3, 0.9)
    assert replay.repeat_first_frame == (name == "cleanrl")
    learner, made = Learner(Agent(test_dqn.TINY, {"pong": range(6)}), settings, "float32"), []
    assert [group["lr"] for group in learner.optimizer.param_groups] == [0.03, 1e-3]
    monkeypatch.setattr(dqn, "LastingExploration", lambda *given: made.append(given) or (lambda q, *_: q.argmax(1)))
    next(dqn.learn(RUN, learner.online, {"pong": env}, settings, np.random.default_rng(0), False))
    assert made == [(2, 64)]
