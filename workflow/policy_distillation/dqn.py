"""DQN (Mnih et al. 2015, "Human-level control through deep reinforcement learning"), acting in many emulators at once.

With one game it trains a teacher, with several the paper's Multi-DQN baseline: one trunk, a controller per game, a
replay per game, the games taking turns at every vector step.
"""

from __future__ import annotations

import copy
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .acting import LastingExploration
from .atari import PROTOCOLS, AtariVector
from .capture import Captured
from .checkpoints import RunState, load_initial_agent, read_metadata
from .evaluate import BestSnapshot, Evaluation
from .files import atomic_path
from .networks import Agent, Network, Precision
from .optimizers import make_optimizer, restore_optimizer
from .replay import PIXELS, Batch, Replay, pixel_moments, store_device
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
class DQN:
    """Hyper-parameters; config.yaml holds the paper's values and their sources."""

    steps: int
    """Agent steps over all games."""
    envs: int
    """Emulators per game, stepped together."""
    replay_size: int
    """Transitions kept per game."""
    warmup_steps: int
    """Steps of random play per game before the first update."""
    train_every: int
    """Agent steps per update. With more emulators than this, several updates follow each vector step."""
    batch_size: int
    discount: float
    n_step: int
    """Rewards summed before the bootstrap; 1 in the paper."""
    double: bool
    """Let the online network choose the bootstrap action (van Hasselt et al. 2016)."""
    target_update_every: int
    """Updates between copies of the online network to the target network."""
    optimizer: str
    """``rmsprop`` (centred, as in the paper), ``adam`` or ``muon``."""
    learning_rate: float
    optimizer_epsilon: float
    epsilon_start: float
    epsilon_end: float
    epsilon_decay_steps: int
    """Steps over which exploration falls linearly."""
    evaluate_every: int
    """Steps between evaluations, after each of which the best agent so far is kept."""
    longest_exploration: int = 1
    """Most steps that a random action is repeated (:class:`~policy_distillation.acting.LastingExploration`)."""
    input_scaling: str = "unit"
    """``unit``: x/255, the paper's. ``standardised``: by the warm-up's frames, folded away when saved."""
    filters_learning_rate: float = 0.002
    """Of the convolutions' filters with ``muon``, whose ``learning_rate`` is that of everything else."""


def exploration(step: int, settings: DQN) -> float:
    """Epsilon after ``step`` agent steps: constant until the warm-up ends at epsilon_start, then a straight line."""
    fraction = min(1.0, max(0.0, step - settings.warmup_steps) / settings.epsilon_decay_steps)
    return settings.epsilon_start + fraction * (settings.epsilon_end - settings.epsilon_start)


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
        values = self._steps[game](*(value.to(self.online.scale.device) for value in vars(batch).values()))
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

    def state_dict(self) -> dict[str, Any]:
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.updates = state["updates"]


def train(
    games: Sequence[str],
    network: Network,
    settings: DQN,
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
    """Train an agent and write ``agent.safetensors`` (its best snapshot) and ``progress.csv`` into ``folder``.

    With ``snapshots``, also the best snapshot so far after each 1 / snapshots of the steps, as
    ``snapshots/{k}.safetensors`` with k from 0: what online distillation learns from. With ``initial``, the file of an
    agent of the same network and actions, learning goes on from its weights instead of random ones.

    Killed at any moment and called again, it goes on from its last checkpoint in ``folder/state``: networks, optimiser,
    counters, replay and random state as they were; the emulators, whose state ale-py does not expose, start new games.
    """
    place = select_device(device)
    computing = select_precision(precision, place)
    description = {
        "games": list(games),
        "network": asdict(network),
        "algorithm": "dqn",
        "settings": asdict(settings),
        "evaluation": asdict(evaluation),
        "protocol": asdict(PROTOCOLS[protocol]),
        "seed": seed,
        "initial_agent": read_metadata(initial) if initial else None,
    }
    metadata = {**description, "kind": "dqn", **provenance()}  # now: the files may be edited while this runs
    run = RunState(folder / "state", description)
    saved = run.load()
    step = saved["step"] if saved else 0
    envs = {
        game: AtariVector(game, PROTOCOLS[protocol], "train", settings.envs, stream(seed, "training", game, step))
        for game in games
    }
    torch.manual_seed(seed)
    agent = Agent(network, {game: env.action_ids for game, env in envs.items()}).to(place)
    if initial:
        load_initial_agent(initial, agent)
    learner = Learner(agent, settings, computing)
    repeat = PROTOCOLS[protocol].repeat_first_frame
    store = store_device(len(games) * settings.replay_size * (PIXELS + 8), place)
    replays = {
        game: Replay(settings.replay_size, settings.envs, settings.n_step, settings.discount, repeat, store)
        for game in games
    }
    explore = {game: LastingExploration(settings.envs, settings.longest_exploration) for game in games}
    rng = np.random.default_rng(seed)
    best = BestSnapshot(agent, protocol, evaluation, seed, computing)
    rows: list[dict[str, float]] = []
    if saved:
        learner.load_state_dict(saved["learner"])
        best.load_state_dict(saved["best"])
        rows = saved["rows"]
        restore_generator(rng, saved["rng"])
        for game, replay in replays.items():
            replay.load(run.folder / saved["replays"][game])

    def check_loss() -> None:
        if learner.updates > updates_before and not torch.isfinite(newest[0]):
            raise FloatingPointError(f"the loss is {newest[0].item()} at step {step:,}; the last checkpoint is kept")

    def checkpoint() -> None:
        check_loss()
        names = {game: f"replay-{game}-{step}.h5" for game in games}
        for game, replay in replays.items():
            replay.save(run.folder / names[game])
        run.save(
            {
                "step": step,
                "learner": learner.state_dict(),
                "best": best.state_dict(),
                "rows": progress.rows,
                "rng": generator_state(rng),
                "replays": names,
            }
        )
        for path in run.folder.glob("replay-*.h5"):  # those of earlier checkpoints, and of ones cut short
            if path.name not in names.values():
                path.unlink()

    progress = Progress(settings.steps, "step", folder / "progress.csv", rows, step)
    stop, watch = StopSignal(), Stopwatch(checkpoint_seconds)
    observations = {game: env.reset() for game, env in envs.items()}
    recent: dict[str, deque[float]] = {game: deque(maxlen=100) for game in games}
    newest = torch.full((2,), float("nan"))  # loss and mean Q-value
    updates_before = learner.updates
    vector_step = step // settings.envs
    while step < settings.steps:
        game = games[vector_step % len(games)]
        replay, env = replays[game], envs[game]

        q_values = agent.q_values(observations[game], game, computing)
        actions = explore[game](q_values, exploration(step // len(games), settings), rng)
        env.send(actions)  # while the emulators play, the agent learns from what was stored before
        before, step, vector_step = step, step + settings.envs, vector_step + 1
        updates = step // settings.train_every - before // settings.train_every
        if updates and all(len(replay) >= settings.warmup_steps for replay in replays.values()):
            if learner.updates == 0 and settings.input_scaling == "standardised":
                moments = [pixel_moments(replay.frames, 0, len(replay) - 1) for replay in replays.values()]
                for copied in (learner.online, learner.target):
                    copied.standardise_inputs(moments, keep_outputs=bool(initial))
            for _ in range(updates):
                newest = learner.update(replay.sample(settings.batch_size, rng), game)
        outcome = env.receive()
        replay.append(
            observations[game],
            actions,
            outcome.rewards,
            outcome.terminations,
            outcome.truncations,
            outcome.episode_ends,
        )
        observations[game] = outcome.observations
        recent[game].extend(episode.episode_return for episode in outcome.episodes)
        progress.advance(settings.envs)

        if step // settings.evaluate_every > before // settings.evaluate_every or step >= settings.steps:
            check_loss()
            loss, mean_q = newest.tolist()
            row = {"epsilon": exploration(step // len(games), settings), "loss": loss, "q": mean_q}
            for name in games:
                row[f"training_return_{name}"] = float(np.mean(recent[name])) if recent[name] else float("nan")
            progress.record(row | best.consider(agent, step))
        for k in range(before * snapshots // settings.steps, min(snapshots, step * snapshots // settings.steps)):
            best.save(run.folder / f"snapshot-{k}.safetensors", step, metadata)
        if stop.received or watch.due():
            checkpoint()
            if stop.received:
                raise Interrupted(143)
    progress.close()
    for env in envs.values():
        env.close()
    (folder / "snapshots").mkdir(exist_ok=True)
    for k in range(snapshots):
        with atomic_path(folder / f"snapshots/{k}.safetensors") as temporary:
            shutil.copyfile(run.folder / f"snapshot-{k}.safetensors", temporary)
    best.save(folder / "agent.safetensors", step, metadata)
    run.remove()
