"""Evaluation: any agent on any of its games, one record per episode.

Every slot plays the same number of games. "The first N games that finish" would favour the short ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .acting import epsilon_greedy
from .atari import PROTOCOLS, AtariVector, Episode
from .checkpoints import save_agent
from .networks import Agent, Precision
from .training import stream


@dataclass(frozen=True)
class Evaluation:
    """How agents are scored."""

    episodes: int
    """Games; a multiple of ``envs``."""
    envs: int
    """Emulators that play them in lockstep."""
    epsilon: float
    """Probability of a random action (the paper: 0.05)."""
    starts: str = "noop"
    """``noop``: the protocol's own starts. ``teacher``: the teacher plays the first k steps, k uniform in
    1 .. teacher_steps, and only what the agent earns afterwards counts: a public stand-in for human starts."""
    teacher_steps: int = 0
    """Most steps that the teacher plays under ``starts: teacher``."""


def play_episodes(
    agent: Agent,
    game: str,
    protocol: str,
    evaluation: Evaluation,
    seed: int | Sequence[int],
    precision: Precision = "float32",
    teacher: Agent | None = None,
) -> list[Episode]:
    """Play ``evaluation.episodes`` games to their true end, ordered by slot and number.

    Args:
        agent: on its own device.
        teacher: who plays the first steps under ``starts: teacher``.
        seed: of emulators, exploration and lengths of the teacher's starts.
    """
    from_teacher = evaluation.starts == "teacher"
    if from_teacher and teacher is None:
        raise ValueError("starts: teacher needs a teacher")
    per_slot, rest = divmod(evaluation.episodes, evaluation.envs)
    if rest:
        raise ValueError(f"episodes ({evaluation.episodes}) must be a multiple of envs ({evaluation.envs})")
    env = AtariVector(game, PROTOCOLS[protocol], "play", evaluation.envs, seed)
    for player in (agent, teacher) if teacher else (agent,):
        _check_actions(player, game, env.action_ids)
    agent, teacher = agent.frozen(precision), teacher.frozen(precision) if teacher else None
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    slots = evaluation.envs
    lead = rng.integers(1, evaluation.teacher_steps + 1, slots) if from_teacher else np.zeros(slots, np.int64)
    played = np.zeros(slots, np.int64)  # steps in the current game
    earned = np.zeros(slots)  # what the agent itself earned in it
    done: list[list[Episode]] = [[] for _ in range(slots)]
    observations = env.reset()
    try:
        while min(map(len, done)) < per_slot:
            actions = epsilon_greedy(agent.q_values(observations, game, precision), evaluation.epsilon, rng)
            led = played < lead
            if led.any():
                assert teacher is not None
                led_actions = epsilon_greedy(teacher.q_values(observations, game, precision), evaluation.epsilon, rng)
                actions = np.where(led, led_actions, actions)
            step = env.step(actions)
            played += 1
            earned += np.where(led, 0.0, step.rewards)
            for episode in step.episodes:
                slot = episode.slot
                own_steps = int(played[slot] - lead[slot])
                if own_steps > 0 and len(done[slot]) < per_slot:  # a game that ended under the teacher does not count
                    done[slot].append(
                        Episode(slot, len(done[slot]), episode.seed, float(earned[slot]), own_steps, episode.truncated)
                    )
                played[slot] = earned[slot] = 0
                if from_teacher:
                    lead[slot] = rng.integers(1, evaluation.teacher_steps + 1)
            observations = step.observations
    finally:
        env.close()
    return [episode for slot_episodes in done for episode in slot_episodes]


def _check_actions(agent: Agent, game: str, action_ids: list[int]) -> None:
    if game not in agent.actions:
        raise ValueError(f"this agent does not play {game}; it plays {', '.join(sorted(agent.actions))}")
    if list(agent.actions[game]) != action_ids:
        raise ValueError(f"{game}: the agent's actions {list(agent.actions[game])} are not the protocol's {action_ids}")


def mean_return(episodes: Sequence[Episode]) -> float:
    return float(np.mean([episode.episode_return for episode in episodes]))


class BestSnapshot:
    """Scores an agent while it learns and keeps a copy of the best so far: deep Q-learning forgets."""

    def __init__(self, agent: Agent, protocol: str, evaluation: Evaluation, seed: int, precision: Precision) -> None:
        self.agent, self.score = copy.deepcopy(agent), -math.inf
        self._protocol, self._evaluation, self._seed, self._precision = protocol, evaluation, seed, precision

    def consider(self, agent: Agent, step: int) -> dict[str, float]:
        """Play, keep ``agent`` if its mean over its games is the best so far, and return ``return_{game}`` for each."""
        returns = {}
        for game in agent.actions:
            seed = stream(self._seed, "progress", step)
            episodes = play_episodes(agent, game, self._protocol, self._evaluation, seed, self._precision)
            returns[f"return_{game}"] = mean_return(episodes)
        score = float(np.mean(list(returns.values())))
        if score >= self.score:
            self.score = score
            self.agent.load_state_dict(agent.state_dict())
        return returns

    def save(self, path: Path, step: int, metadata: Mapping[str, Any]) -> None:
        """Write the best so far as an agent's file."""
        save_agent(path, self.agent, {**metadata, "score": self.score, "steps": step})

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "agent": self.agent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score = state["score"]
        self.agent.load_state_dict(state["agent"])


def episodes_frame(episodes: Sequence[Episode], **columns: str) -> pd.DataFrame:
    """One row an episode: seed, slot, episode, return, length, truncated, and the given constant columns."""
    frame = pd.DataFrame([asdict(episode) for episode in episodes])
    frame = frame.rename(columns={"number": "episode", "episode_return": "return"})
    return frame[["seed", "slot", "episode", "return", "length", "truncated"]].assign(**columns)
