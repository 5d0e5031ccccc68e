"""PQN (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning", arXiv 2407.04811).

Q-learning without a replay and without a target network: many emulators act for a few steps, lambda-returns are
computed backwards over what they saw, the network is fitted to them, and the steps are forgotten. Layer norm
(``Network.layer_norm``) keeps that stable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .acting import epsilon_greedy, exploration, mean_or_nan
from .atari import SIDE, STACK, AtariVector
from .capture import Captured
from .networks import Agent, Precision
from .optimizers import make_optimizer, scale_learning_rates, schedule_factor
from .run import Run, Turn


@dataclass(frozen=True)
class PQN:
    """Hyper-parameters; config.yaml holds the values of Gallici et al. and where ours differ."""

    algorithm: ClassVar[str] = "pqn"
    steps: int
    """Agent steps."""
    envs: int
    """Emulators, stepped together."""
    rollout_steps: int
    """Steps of each emulator between updates."""
    epochs: int
    """Times that a rollout is gone through."""
    batch_size: int
    """Divides envs * rollout_steps."""
    discount: float
    trace_decay: float
    """The lambda of the returns: 0 bootstraps after every step, 1 only at the rollout's end."""
    optimizer: str
    """``rmsprop``, ``adam`` or ``muon``."""
    learning_rate: float
    optimizer_epsilon: float
    schedule: str
    """``constant``, ``linear`` or ``cosine``: the learning rates over the run."""
    max_gradient_norm: float
    epsilon_start: float
    epsilon_end: float
    epsilon_decay_steps: int
    """Steps over which exploration falls linearly."""
    evaluate_every: int
    """Steps between evaluations, after each of which the best agent so far is kept."""
    input_scaling: str = "unit"
    """``unit``: x/255. ``standardised``: by the first rollout's frames, folded away when saved."""
    filters_learning_rate: float = 0.002
    """Of the convolutions' filters with ``muon``, whose ``learning_rate`` is that of everything else."""


def lambda_returns(
    rewards: Tensor, terminations: Tensor, truncations: Tensor, values: Tensor, discount: float, trace_decay: float
) -> Tensor:
    """Targets of Q-learning with traces: G_t = r_t + discount * ((1 - lambda) * V_{t+1} + lambda * G_{t+1}).

    Args:
        rewards, terminations, truncations: (T, envs). Nothing follows a termination; what would have followed a
            truncation was never seen, so to the steps before it counts as worth what the agent thought.
        values: (T + 1, envs) float32, the greatest Q-value of each observation and of the one after the last.

    Returns:
        (T, envs) float32.
    """
    returns = torch.empty_like(rewards)
    following = values[-1]
    for t in range(len(rewards) - 1, -1, -1):
        blend = (1 - trace_decay) * values[t + 1] + trace_decay * following
        following = rewards[t] + discount * ~terminations[t] * blend
        following = torch.where(truncations[t], values[t], following)
        returns[t] = following
    return returns


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    game: str,
    max_gradient_norm: float,
    precision: Precision,
    observations: Tensor,
    actions: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> Tensor:
    """One step on half the squared error between the Q-values of ``actions`` and ``targets``; returns the loss.

    Args:
        observations: (batch, 4, 84, 84) uint8.
        actions: (batch,) int64.
        targets: (batch,) float32.
        weights: (batch,) float32, 0 for transitions from which there is nothing to learn.
    """
    q_values = agent(observations, game, precision)
    chosen = q_values.gather(1, actions[:, None]).squeeze(1)
    loss: Tensor = 0.5 * (weights * (chosen - targets).square()).mean()
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(agent.parameters(), max_gradient_norm)
    optimizer.step()
    return loss.detach()


@dataclass(frozen=True)
class Rollout:
    """What ``slots`` emulators went through in ``times`` steps. First axes of all: (times, slots)."""

    observations: Tensor
    """(times, slots, 4, 84, 84) uint8, where the agent is."""
    actions: Tensor
    """int64, where the agent is."""
    rewards: Tensor
    terminations: Tensor
    truncations: Tensor
    values: Tensor
    """(times + 1, slots) float32: the greatest Q-value of each observation and of the one after the last."""

    @classmethod
    def empty(cls, times: int, slots: int, device: torch.device) -> Rollout:
        return cls(
            observations=torch.empty((times, slots, STACK, SIDE, SIDE), dtype=torch.uint8, device=device),
            actions=torch.empty((times, slots), dtype=torch.int64, device=device),
            rewards=torch.empty((times, slots)),
            terminations=torch.empty((times, slots), dtype=torch.bool),
            truncations=torch.empty((times, slots), dtype=torch.bool),
            values=torch.empty((times + 1, slots)),
        )

    def targets(self, discount: float, trace_decay: float) -> Tensor:
        ends = self.terminations, self.truncations
        return lambda_returns(self.rewards, *ends, self.values, discount, trace_decay)

    def pixel_moments(self) -> tuple[float, float]:
        """Mean and mean square of the newest frames' pixels."""
        counts = torch.bincount(self.observations[:, :, -1].flatten(), minlength=256).double().cpu()
        values, count = torch.arange(256, dtype=torch.float64), counts.sum()
        return float(counts @ values / count), float(counts @ values.square() / count)


def learn(
    run: Run,
    agent: Agent,
    envs: Mapping[str, AtariVector],
    settings: PQN,
    rng: np.random.Generator,
    further: bool,
) -> Iterator[Turn]:
    """Improve ``agent`` on one game, one rollout a turn (Gallici et al. 2024, algorithm 1).

    Args:
        rng: draws exploration and the order of minibatches.
        further: the agent was trained before, so that standardising its inputs must not change its outputs.
    """
    ((game, env),) = envs.items()
    rates = settings.learning_rate, settings.optimizer_epsilon, settings.filters_learning_rate
    optimizer = make_optimizer(settings.optimizer, agent.parameters(), *rates)
    run.restore(optimizer=optimizer)
    times, slots = settings.rollout_steps, settings.envs
    rollout = Rollout.empty(times, slots, run.device)
    step_on = Captured(partial(update, agent, optimizer, game, settings.max_gradient_norm, run.precision))
    recent: deque[float] = deque(maxlen=100)
    newest = env.reset()

    def epsilon(step: int) -> float:
        return exploration(step, settings.epsilon_start, settings.epsilon_end, settings.epsilon_decay_steps)

    def facts() -> dict[str, float]:
        values = {"epsilon": epsilon(step), "loss": loss.item(), "q": float(rollout.values.mean())}
        return {**values, f"training_return_{game}": mean_or_nan(recent)}

    step = run.done
    while True:
        for t in range(times):
            q_values = agent.q_values(newest, game, run.precision)
            actions = epsilon_greedy(q_values, epsilon(step + t * slots), rng)
            env.send(actions)  # while the emulators play, what they play from is stored
            rollout.observations[t] = torch.from_numpy(newest)
            rollout.values[t] = torch.from_numpy(q_values.max(1))
            rollout.actions[t] = torch.from_numpy(actions)
            outcome = env.receive()
            for name in ("rewards", "terminations", "truncations"):
                getattr(rollout, name)[t] = torch.from_numpy(getattr(outcome, name))
            recent.extend(episode.episode_return for episode in outcome.episodes)
            newest = outcome.observations
        if step == 0 and settings.input_scaling == "standardised":
            agent.standardise_inputs([rollout.pixel_moments()], keep_outputs=further)
        rollout.values[times] = torch.from_numpy(agent.q_values(newest, game, run.precision).max(1))
        targets = rollout.targets(settings.discount, settings.trace_decay).to(run.device)

        scale_learning_rates(optimizer, schedule_factor(step, settings.steps, settings.schedule))
        weights = (~rollout.truncations).float().to(run.device)  # what would have followed a truncation was never seen
        samples = [values.flatten(0, 1) for values in (rollout.observations, rollout.actions, targets, weights)]
        for _ in range(settings.epochs):
            order = torch.from_numpy(rng.permutation(times * slots)).to(run.device)
            for picked in torch.split(order, settings.batch_size):
                loss = step_on(*(values[picked] for values in samples))
        step += times * slots
        yield Turn(times * slots, loss, facts)
