"""PQN (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning", arXiv 2407.04811).

Q-learning without a replay and without a target network: many emulators act for a few steps, lambda-returns are
computed backwards over what they saw, the network is fitted to them, and the steps are forgotten. Layer norm
(``Network.layer_norm``) keeps that stable.
"""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .acting import epsilon_greedy
from .atari import PROTOCOLS, SIDE, STACK, AtariVector
from .capture import Captured
from .checkpoints import RunState, load_initial_agent, read_metadata
from .evaluate import BestSnapshot, Evaluation
from .files import atomic_path
from .networks import Agent, Network, Precision
from .optimizers import make_optimizer, restore_optimizer, scale_learning_rates, schedule_factor
from .training import (
    Interrupted,
    Progress,
    StopSignal,
    Stopwatch,
    generator_state,
    provenance,
    restore_generator,
    select_device,
    select_precision,
    stream,
)


@dataclass(frozen=True)
class PQN:
    """Hyper-parameters; config.yaml holds the values of Gallici et al. and where ours differ."""

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


def exploration(step: int, settings: PQN) -> float:
    """Epsilon after ``step`` agent steps."""
    fraction = min(1.0, step / settings.epsilon_decay_steps)
    return settings.epsilon_start + fraction * (settings.epsilon_end - settings.epsilon_start)


def lambda_returns(
    rewards: Tensor, terminations: Tensor, truncations: Tensor, values: Tensor, discount: float, trace_decay: float
) -> Tensor:
    """Targets of Q-learning with traces: G_t = r_t + discount * ((1 - lambda) * V_{t+1} + lambda * G_{t+1}).

    Args:
        rewards, terminations, truncations: (T, envs). Nothing follows a termination; what would have followed a
            truncation was never seen, so the step counts as worth what the agent thought.
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
    observations: Tensor,
    actions: Tensor,
    targets: Tensor,
    max_gradient_norm: float,
    precision: Precision,
) -> Tensor:
    """One step on half the squared error between the Q-values of ``actions`` and ``targets``; returns the loss.

    Args:
        observations: (batch, 4, 84, 84) uint8.
        actions: (batch,) int64.
        targets: (batch,) float32.
    """
    q_values = agent(observations, game, precision)
    chosen = q_values.gather(1, actions[:, None]).squeeze(1)
    loss: Tensor = 0.5 * (chosen - targets).square().mean()
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(agent.parameters(), max_gradient_norm)
    optimizer.step()
    return loss.detach()


def train(
    game: str,
    network: Network,
    settings: PQN,
    evaluation: Evaluation,
    protocol: str,
    seed: int,
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    checkpoint_seconds: float = 300.0,
    snapshots: int = 0,
    initial: Path | None = None,
) -> None:
    """Train a teacher and write ``agent.safetensors`` (its best snapshot) and ``progress.csv`` into ``folder``.

    Killed at any moment and called again, it goes on from its last checkpoint in ``folder/state``; the emulators, whose
    state ale-py does not expose, start new games. ``snapshots`` and ``initial`` are those of
    :func:`policy_distillation.dqn.train`.
    """
    place = select_device(device)
    computing = select_precision(precision, place)
    description = {
        "games": [game],
        "network": asdict(network),
        "algorithm": "pqn",
        "settings": asdict(settings),
        "evaluation": asdict(evaluation),
        "protocol": asdict(PROTOCOLS[protocol]),
        "seed": seed,
        "initial_agent": read_metadata(initial) if initial else None,
    }
    metadata = {**description, "kind": "pqn", **provenance()}  # now: the files may be edited while this runs
    run = RunState(folder / "state", description)
    saved = run.load()
    step = saved["step"] if saved else 0
    env = AtariVector(game, PROTOCOLS[protocol], "train", settings.envs, stream(seed, "training", game, step))
    torch.manual_seed(seed)
    agent = Agent(network, {game: env.action_ids}).to(place)
    if initial:
        load_initial_agent(initial, agent)
    optimizer = make_optimizer(
        settings.optimizer,
        agent.parameters(),
        settings.learning_rate,
        settings.optimizer_epsilon,
        settings.filters_learning_rate,
    )
    best = BestSnapshot(agent, protocol, evaluation, seed, computing)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    if saved:
        agent.load_state_dict(saved["agent"])
        restore_optimizer(optimizer, saved["optimizer"])
        best.load_state_dict(saved["best"])
        restore_generator(rng, saved["rng"])
        rows = saved["rows"]

    times, slots = settings.rollout_steps, settings.envs
    size = times * slots
    observations = torch.empty((times, slots, STACK, SIDE, SIDE), dtype=torch.uint8, device=place)
    actions = torch.empty((times, slots), dtype=torch.int64, device=place)
    rewards = torch.empty((times, slots))
    terminations = torch.empty((times, slots), dtype=torch.bool)
    truncations = torch.empty((times, slots), dtype=torch.bool)
    values = torch.empty((times + 1, slots))

    def update_on(observations: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
        return update(agent, optimizer, game, observations, actions, targets, settings.max_gradient_norm, computing)

    updated = Captured(update_on)
    progress = Progress(settings.steps, "step", folder / "progress.csv", rows, step)
    stop, watch = StopSignal(), Stopwatch(checkpoint_seconds)
    recent: deque[float] = deque(maxlen=100)
    newest = env.reset()
    while step < settings.steps:
        for t in range(times):
            q_values = agent.q_values(newest, game, computing)
            chosen = epsilon_greedy(q_values, exploration(step + t * slots, settings), rng)
            env.send(chosen)  # while the emulators play, what they play from is stored
            observations[t] = torch.from_numpy(newest)
            values[t] = torch.from_numpy(q_values.max(1))
            actions[t] = torch.from_numpy(chosen)
            outcome = env.receive()
            rewards[t] = torch.from_numpy(outcome.rewards)
            terminations[t] = torch.from_numpy(outcome.terminations)
            truncations[t] = torch.from_numpy(outcome.truncations)
            recent.extend(episode.episode_return for episode in outcome.episodes)
            newest = outcome.observations
        if step == 0 and settings.input_scaling == "standardised":
            pixels = observations[:, :, -1].double()
            agent.standardise_inputs([(float(pixels.mean()), float(pixels.square().mean()))], bool(initial))
        values[times] = torch.from_numpy(agent.q_values(newest, game, computing).max(1))
        targets = lambda_returns(rewards, terminations, truncations, values, settings.discount, settings.trace_decay)

        scale_learning_rates(optimizer, schedule_factor(step, settings.steps, settings.schedule))
        flat = observations.view(size, STACK, SIDE, SIDE), actions.view(size), targets.to(place).view(size)
        for _ in range(settings.epochs):
            for picked in torch.split(torch.from_numpy(rng.permutation(size)).to(place), settings.batch_size):
                loss = updated(*(every[picked] for every in flat))
        before, step = step, step + size
        progress.advance(size)

        evaluating = step // settings.evaluate_every > before // settings.evaluate_every or step >= settings.steps
        saving = stop.received or watch.due()
        if (evaluating or saving) and not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step:,}; the last checkpoint is kept")
        if evaluating:
            row = {"epsilon": exploration(step, settings), "loss": loss.item(), "q": float(values.mean())}
            row[f"training_return_{game}"] = float(np.mean(recent)) if recent else float("nan")
            progress.record(row | best.consider(agent, step))
        for k in range(before * snapshots // settings.steps, min(snapshots, step * snapshots // settings.steps)):
            best.save(run.folder / f"snapshot-{k}.safetensors", step, metadata)
        if saving:
            run.save(
                {
                    "step": step,
                    "agent": agent.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best.state_dict(),
                    "rng": generator_state(rng),
                    "rows": progress.rows,
                }
            )
            if stop.received:
                raise Interrupted(143)
    progress.close()
    env.close()
    (folder / "snapshots").mkdir(exist_ok=True)
    for k in range(snapshots):
        with atomic_path(folder / f"snapshots/{k}.safetensors") as temporary:
            shutil.copyfile(run.folder / f"snapshot-{k}.safetensors", temporary)
    best.save(folder / "agent.safetensors", step, metadata)
    run.remove()
