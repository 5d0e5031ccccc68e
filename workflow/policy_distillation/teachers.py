"""Training an agent by reinforcement, whatever the algorithm: scored on the way, the best so far is what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from .atari import AtariVector
from .checkpoints import load_initial_agent
from .dqn import DQN
from .evaluate import BestSnapshot, Evaluation
from .files import copy_file
from .header import read_metadata
from .networks import Agent, Network
from .pqn import PQN
from .protocols import PROTOCOLS
from .run import AUTOMATIC, Machine, Run, Turn
from .training import stream

Settings = TypeVar("Settings", DQN, PQN)
Algorithm = Callable[[Run, Agent, Mapping[str, AtariVector], Settings, np.random.Generator, bool], Iterator[Turn]]
"""``dqn.learn`` or ``pqn.learn``: improves the agent turn by turn, for ever."""


def train_teacher(
    algorithm: Algorithm[Settings],
    games: Sequence[str],
    network: Network,
    settings: Settings,
    evaluation: Evaluation,
    protocol: str,
    seed: int,
    folder: Path,
    machine: Machine = AUTOMATIC,
    snapshots: int = 0,
    initial: Path | None = None,
) -> None:
    """Train an agent and write ``agent.safetensors`` (its best snapshot) and ``progress.csv`` into ``folder``.

    Killed at any moment and called again, it goes on from its last checkpoint in ``folder/state``: networks, optimiser,
    counters, replay and random state as they were; the emulators, whose state ale-py does not expose, start new games.

    Args:
        games: with several, one agent learns them together, a controller each (DQN only).
        snapshots: also write the best agent so far after each 1 / snapshots of the steps, as
            ``snapshots/{k}.safetensors`` with k from 0: what online distillation learns from.
        initial: the file of an agent of the same network and actions, to learn on from instead of from random weights.
    """
    description: dict[str, Any] = {
        "games": list(games),
        "network": asdict(network),
        "algorithm": settings.algorithm,
        "settings": asdict(settings),
        "evaluation": asdict(evaluation),
        "protocol": asdict(PROTOCOLS[protocol]),
        "seed": seed,
        "initial_agent": read_metadata(initial) if initial else None,
        "snapshots": snapshots,
    }
    run = Run(folder, settings.algorithm, description, settings.steps, "step", machine)
    envs = {
        game: AtariVector(game, PROTOCOLS[protocol], "train", settings.envs, stream(seed, "training", game, run.done))
        for game in games
    }
    torch.manual_seed(seed)
    agent = Agent(network, {game: env.action_ids for game, env in envs.items()}).to(run.device)
    if initial:
        load_initial_agent(initial, agent)
    rng = np.random.default_rng(seed)
    best = BestSnapshot(agent, protocol, evaluation, seed, run.precision)
    run.restore(rng=rng, best=best, agent=agent)
    kept = [_snapshot(run.scratch, k) for k in run.shares_over(snapshots)]
    run.needs(lambda: kept)
    if initial and not run.resumed:
        best.consider(agent, 0)  # what becomes worse by training is not what is kept
    for _ in run.turns(algorithm(run, agent, envs, settings, rng, initial is not None)):
        shares = run.shares_done(snapshots)
        if run.passes(settings.evaluate_every) or (shares and not best.returns):  # the best of none is not learnt from
            run.score(lambda stop: best.consider(agent, run.done, stop))
        for k in shares:
            kept.append(_snapshot(run.scratch, k))
            best.save(kept[-1], run.done, run.metadata)
    for env in envs.values():
        env.close()
    (folder / "snapshots").mkdir(exist_ok=True)
    for snapshot in kept:
        copy_file(snapshot, folder / "snapshots" / snapshot.name)
    best.save(folder / "agent.safetensors", run.done, run.metadata)
    run.remove_state()


def _snapshot(folder: Path, k: int) -> Path:
    return folder / f"{k}.safetensors"
