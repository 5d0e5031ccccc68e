"""DQN (Mnih et al. 2015, "Human-level control through deep reinforcement learning"), acting in many emulators at once.

With one game it trains a teacher, with several the paper's Multi-DQN baseline: one trunk, a controller per game, a
replay per game, the games taking turns at every vector step and at every update.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .acting import LastingExploration, exploration, mean_or_nan
from .atari import AtariVector
from .capture import Captured
from .networks import Agent, Precision
from .optimizers import make_optimizer, restore_optimizer
from .replay import PIXELS, Batch, Replay, pixel_moments, store_device
from .run import Run, Turn


@dataclass(frozen=True)
class DQN:
    """Hyper-parameters; config.yaml holds the paper's values and their sources."""

    algorithm: ClassVar[str] = "dqn"
    steps: int
    """Agent steps over all games."""
    envs: int
    """Emulators per game, stepped together."""
    replay_size: int
    """Transitions kept per game."""
    warmup_steps: int
    """Steps per game before the first update, played at ``epsilon_start``."""
    train_every: int
    """Agent steps, of all games, per update. With more emulators than this, several updates follow a vector step."""
    batch_size: int
    discount: float
    n_step: int
    """Rewards summed before the bootstrap; 1 in the paper."""
    double: bool
    """Let the online network choose the bootstrap action (van Hasselt et al. 2016)."""
    target_update_every: int
    """Updates, on all games, between copies of the online network to the target network."""
    optimizer: str
    """``rmsprop`` (centred, as in the paper), ``adam`` or ``muon``."""
    learning_rate: float
    optimizer_epsilon: float
    epsilon_start: float
    epsilon_end: float
    epsilon_decay_steps: int
    """Steps per game, after its warm-up, over which exploration falls linearly."""
    evaluate_every: int
    """Steps, over all games, between evaluations, after each of which the best agent so far is kept."""
    longest_exploration: int = 1
    """Most steps that a random action is repeated (:class:`~policy_distillation.acting.LastingExploration`)."""
    input_scaling: str = "unit"
    """``unit``: x/255, the paper's. ``standardised``: by the warm-up's frames, folded away when saved."""
    filters_learning_rate: float = 0.002
    """Of the convolutions' filters with ``muon``, whose ``learning_rate`` is that of everything else."""


class Learner:
    """Online network, target network and optimiser."""

    def __init__(self, agent: Agent, settings: DQN, precision: Precision) -> None:
        self.online, self.target = agent, copy.deepcopy(agent).requires_grad_(False)
        self.settings, self.precision = settings, precision
        self.updates = 0
        self.optimizer = make_optimizer(
            settings.optimizer,
            agent.parameters(),
            settings.learning_rate,
            settings.optimizer_epsilon,
            settings.filters_learning_rate,
        )
        self._steps = {game: Captured(partial(self._step, game)) for game in agent.actions}

    def update(self, batch: Batch, game: str) -> Tensor:
        """One gradient step; returns the loss and the mean Q-value as one tensor, so that a GPU is not made to wait."""
        device = self.online.device
        values = self._steps[game](*(value.to(device, non_blocking=True) for value in vars(batch).values()))
        self.updates += 1
        if self.updates % self.settings.target_update_every == 0:
            self.target.load_state_dict(self.online.state_dict())
        return values

    def _step(self, game: str, *values: Tensor) -> Tensor:
        """On the Huber loss: clipping the error to [-1, 1] in the paper is that loss's gradient."""
        batch = Batch(*values)
        targets = self._targets(batch, game)
        q_values = self.online(batch.observations, game, self.precision)
        chosen = q_values.gather(1, batch.actions[:, None]).squeeze(1)
        loss = (batch.weights * F.smooth_l1_loss(chosen, targets, reduction="none")).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return torch.stack([loss.detach(), chosen.detach().mean()])

    @torch.no_grad()
    def _targets(self, batch: Batch, game: str) -> Tensor:
        """r + gamma^n * max_a Q_target(s', a), the maximum taken by the online network if ``double``."""
        next_q = self.target(batch.next_observations, game, self.precision)
        chooser = self.online(batch.next_observations, game, self.precision) if self.settings.double else next_q
        best = next_q.gather(1, chooser.argmax(1, keepdim=True)).squeeze(1)
        targets: Tensor = batch.returns + batch.discounts * best
        return targets

    def standardise_inputs(self, replays: Iterable[Replay], keep_outputs: bool) -> None:
        """Shift and scale both networks' inputs by the mean and deviation of what is in the replays."""
        moments = [pixel_moments(replay.frames, 0, len(replay) - 1) for replay in replays]
        for agent in (self.online, self.target):
            agent.standardise_inputs(moments, keep_outputs)

    def state_dict(self) -> dict[str, Any]:
        """All but the agent, which is the caller's."""
        return {
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target.load_state_dict(state["target"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.updates = state["updates"]


def learn(
    run: Run,
    agent: Agent,
    envs: Mapping[str, AtariVector],
    settings: DQN,
    rng: np.random.Generator,
    further: bool,
) -> Iterator[Turn]:
    """Improve ``agent`` by deep Q-learning, one vector step of one game a turn (Mnih et al. 2015, algorithm 1).

    Args:
        rng: draws exploration and minibatches.
        further: the agent was trained before, so that standardising its inputs must not change its outputs.
    """
    games = list(envs)
    learner = Learner(agent, settings, run.precision)
    replays = make_replays(envs, settings, run.device)
    run.restore(learner=learner, **{f"replay-{game}": replay for game, replay in replays.items()})
    explore = {game: LastingExploration(settings.envs, settings.longest_exploration) for game in games}
    observations = {game: env.reset() for game, env in envs.items()}
    recent: dict[str, deque[float]] = {game: deque(maxlen=100) for game in games}
    newest = torch.full((2,), float("nan"))  # loss and mean Q-value

    def epsilon(step: int) -> float:
        own = step // len(games) - settings.warmup_steps
        return exploration(own, settings.epsilon_start, settings.epsilon_end, settings.epsilon_decay_steps)

    def facts() -> dict[str, float]:
        loss, mean_q = newest.tolist()
        returns = {f"training_return_{game}": mean_or_nan(recent[game]) for game in games}
        return {"epsilon": epsilon(step), "loss": loss, "q": mean_q, **returns}

    step = run.done
    while True:
        game = games[step // settings.envs % len(games)]
        env = envs[game]
        q_values = agent.q_values(observations[game], game, run.precision)
        actions = explore[game](q_values, epsilon(step), rng)
        env.send(actions)  # while the emulators play, the agent learns from what was stored before
        before, step = step, step + settings.envs
        updates = step // settings.train_every - before // settings.train_every
        if any(len(stored) < settings.warmup_steps for stored in replays.values()):
            updates = 0
        if updates and learner.updates == 0 and settings.input_scaling == "standardised":
            learner.standardise_inputs(replays.values(), keep_outputs=further)
        for _ in range(updates):
            # Whoever acts: updates may always fall on the same game's turn.
            learnt = games[learner.updates % len(games)]
            newest = learner.update(replays[learnt].sample(settings.batch_size, rng), learnt)
        outcome = env.receive()
        replays[game].append(observations[game], actions, outcome)
        observations[game] = outcome.observations
        recent[game].extend(episode.episode_return for episode in outcome.episodes)
        yield Turn(settings.envs, newest[0] if updates else None, facts)


def make_replays(envs: Mapping[str, AtariVector], settings: DQN, device: torch.device) -> dict[str, Replay]:
    """One for each game, on the GPU if all of them fit there."""
    store = store_device(len(envs) * settings.replay_size * (PIXELS + 8), device)
    return {
        game: Replay(
            settings.replay_size,
            settings.envs,
            settings.n_step,
            settings.discount,
            env.protocol.repeat_first_frame,
            store,
        )
        for game, env in envs.items()
    }
