"""Evaluation: any agent on any of its games, one record per episode.

Every slot plays the same number of games. "The first N games that finish" would favour the short ones.

On a CPU the slots are played in shares of sixteen or more, each with its own emulators, seed and forward passes.
Threads take the shares in turn: nobody waits for anybody, and no score depends on how many threads there are. Sharing
each forward pass among OpenMP's threads instead means waking them several times for a batch, which takes longer than
it.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from .acting import choose
from .atari import AtariVector, Episode, action_ids
from .checkpoints import save_agent
from .networks import Agent, Network, Precision
from .protocols import PROTOCOLS
from .readouts import Readout
from .stopping import Stopped, StopSignal
from .training import exploration_rng, stream

SLOTS_PER_SHARE = 16
"""With eight, a step takes 18% more processor time: the network's weights are read for half as many frames."""


@dataclass(frozen=True)
class Evaluation:
    """How agents are scored. Raises ValueError for numbers that cannot be."""

    episodes: int
    """Games; a multiple of ``envs``."""
    envs: int
    """Emulators that play them, in lockstep with those of their share."""
    epsilon: float
    """Probability of a random action (the paper: 0.05); an agent whose policy is sampled takes none."""
    starts: str = "noop"
    """``noop``: the protocol's own starts. ``teacher``: the teacher plays the first k steps, k uniform in
    1 .. teacher_steps, and only what the agent earns afterwards counts: a public stand-in for human starts."""
    teacher_steps: int = 0
    """Most steps that the teacher plays under ``starts: teacher``."""

    def __post_init__(self) -> None:
        for name, number in (("episodes", self.episodes), ("envs", self.envs)):
            if number < 1:
                raise ValueError(f"{name} is {number}; allowed: 1 or more")
        if self.episodes % self.envs:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of envs ({self.envs})")
        if self.starts not in ("noop", "teacher"):
            raise ValueError(f"starts is {self.starts!r}; allowed: noop, teacher")
        if self.starts == "teacher" and self.teacher_steps < 1:
            raise ValueError(f"teacher_steps is {self.teacher_steps} under starts: teacher; allowed: 1 or more")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon is {self.epsilon:g}, no probability; allowed: 0 to 1")


class Actor(Protocol):
    """Who can be scored: an agent, or one that was exported."""

    actions: dict[str, tuple[int, ...]]
    readouts: dict[str, Readout]

    @property
    def device(self) -> torch.device: ...

    def q_values(
        self, observations: NDArray[np.uint8], game: str, precision: Precision = "float32"
    ) -> NDArray[np.float32]: ...

    def frozen(self, precision: Precision) -> Actor: ...


def play_episodes(
    agent: Actor,
    game: str,
    protocol: str,
    evaluation: Evaluation,
    seed: int | Sequence[int],
    precision: Precision = "float32",
    teacher: Agent | None = None,
    stop: StopSignal | None = None,
    epsilon: float | None = None,
) -> list[Episode]:
    """Play ``evaluation.episodes`` games to their true end, ordered by slot and number, which counts those that count.

    Args:
        agent: on its own device.
        teacher: who plays the first steps under ``starts: teacher``, with the evaluation's epsilon.
        epsilon: of the agent alone, if not the evaluation's.
        seed: of emulators, exploration and lengths of the teacher's starts.
        stop: whose flag ends the games where they are.

    Raises:
        Stopped: the flag is up.
    """
    if evaluation.starts == "teacher" and teacher is None:
        raise ValueError("starts: teacher needs a teacher")
    players: list[Actor] = [agent, teacher] if teacher else [agent]
    for player in players:
        check_actions(player, game, action_ids(game, PROTOCOLS[protocol]))
    threads = torch.get_num_threads()
    on_cpu = agent.device.type == "cpu"
    shares = max(1, evaluation.envs // SLOTS_PER_SHARE) if on_cpu else 1
    slots, workers = np.array_split(np.arange(evaluation.envs), shares), min(threads, shares)
    agent, teacher = agent.frozen(precision), teacher.frozen(precision) if teacher else None
    abandoned = threading.Event()

    def stopped() -> bool:
        return abandoned.is_set() or bool(stop and stop.received)

    def play(share: int) -> list[Episode]:
        own_seed = (*np.atleast_1d(seed), share)
        env = AtariVector(game, PROTOCOLS[protocol], "play", len(slots[share]), own_seed, threads // workers)
        rng = exploration_rng(own_seed)
        own = evaluation.epsilon if epsilon is None else epsilon
        episodes = _play_slots(agent, teacher, env, evaluation, own, rng, precision, stopped)
        return [replace(episode, slot=int(slots[share][episode.slot])) for episode in episodes]

    # One thread for each forward pass, whoever has more: with others its sums may be taken in another order.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        playing = [pool.submit(play, share) for share in range(shares)]
        try:
            wait(playing, return_when=FIRST_EXCEPTION)
        finally:
            abandoned.set()  # after an error or an interruption the others need not play on
            torch.set_num_threads(threads)
    if stop and stop.received:
        raise Stopped(stop.received)
    return [episode for share in playing for episode in share.result()]


def _play_slots(
    agent: Actor,
    teacher: Agent | None,
    env: AtariVector,
    evaluation: Evaluation,
    epsilon: float,
    rng: np.random.Generator,
    precision: Precision,
    stopped: Callable[[], bool],
) -> list[Episode]:
    """Each of the environment's slots plays its part of the games, by slot and number."""
    game, slots, per_slot = env.game, env.num_envs, evaluation.episodes // evaluation.envs
    from_teacher = evaluation.starts == "teacher"
    lead = rng.integers(1, evaluation.teacher_steps + 1, slots) if from_teacher else np.zeros(slots, np.int64)
    played = np.zeros(slots, np.int64)  # steps in the current game
    earned = np.zeros(slots)  # what the agent itself earned in it
    done: list[list[Episode]] = [[] for _ in range(slots)]
    observations = env.reset()
    try:
        while min(map(len, done)) < per_slot and not stopped():
            outputs = agent.q_values(observations, game, precision)
            actions = choose(outputs, agent.readouts[game].acting, epsilon, rng)
            led = played < lead
            if led.any():
                assert teacher is not None
                outputs = teacher.q_values(observations, game, precision)
                led_actions = choose(outputs, teacher.readouts[game].acting, evaluation.epsilon, rng)
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


def check_actions(agent: Actor, game: str, action_ids: list[int]) -> None:
    if game not in agent.actions:
        raise ValueError(f"this agent does not play {game}; it plays {', '.join(sorted(agent.actions))}")
    if list(agent.actions[game]) != action_ids:
        raise ValueError(f"{game}: the agent's actions {list(agent.actions[game])} are not the protocol's {action_ids}")


def random_player(game: str, protocol: str) -> Agent:
    """An agent to be played with epsilon 1, uniformly at random: what it would rather do does not matter."""
    return Agent(Network((1, 1, 1), 1), {game: action_ids(game, PROTOCOLS[protocol])})


def mean_return(episodes: Sequence[Episode]) -> float:
    return float(np.mean([episode.episode_return for episode in episodes]))


def progress_returns(
    agent: Agent,
    protocol: str,
    evaluation: Evaluation,
    seed: int,
    done: int,
    precision: Precision,
    stop: StopSignal | None = None,
) -> dict[str, float]:
    """Mean return on each of an agent's games, scored on the way: after ``done`` units of the run of this seed."""
    returns = {}
    for game in agent.actions:
        play = stream(seed, "progress", done)
        episodes = play_episodes(agent, game, protocol, evaluation, play, precision, stop=stop)
        returns[game] = mean_return(episodes)
    return returns


class BestSnapshot:
    """Scores an agent while it learns and keeps a copy of the best so far: deep Q-learning forgets.

    With several games the mean of their returns decides, each taken between the lowest and the highest that this game
    has seen so far. Else the game with the largest numbers would decide alone.
    """

    def __init__(self, agent: Agent, protocol: str, evaluation: Evaluation, seed: int, precision: Precision) -> None:
        self.agent = copy.deepcopy(agent)
        self.returns: dict[str, float] = {}
        self._best_at: int | None = None
        self._ranges = dict.fromkeys(agent.actions, (math.inf, -math.inf))
        self._protocol, self._evaluation, self._seed, self._precision = protocol, evaluation, seed, precision

    def consider(self, agent: Agent, step: int, stop: StopSignal | None = None) -> dict[str, float]:
        """Play, keep ``agent`` if it is the best so far, and return ``return_{game}`` for each of its games."""
        returns = progress_returns(agent, self._protocol, self._evaluation, self._seed, step, self._precision, stop)
        for game, value in returns.items():
            lowest, highest = self._ranges[game]
            self._ranges[game] = min(lowest, value), max(highest, value)
        if not self.returns or self._relative(returns) >= self._relative(self.returns):
            self.returns, self._best_at = returns, step
            self.agent.load_state_dict(agent.state_dict())
        return {f"return_{game}": value for game, value in returns.items()}

    def _relative(self, returns: Mapping[str, float]) -> float:
        ranges = self._ranges
        return sum((returns[g] - low) / (high - low) for g, (low, high) in ranges.items() if high > low)

    def save(self, path: Path, step: int, metadata: Mapping[str, Any]) -> None:
        """Write the best so far as an agent's file: ``steps``, of the training until now, and ``best_at``, its own."""
        score = float(np.mean(list(self.returns.values()))) if self.returns else -math.inf
        save_agent(path, self.agent, {**metadata, "score": score, "steps": step, "best_at": self._best_at})

    def state_dict(self) -> dict[str, Any]:
        facts = {"returns": self.returns, "best_at": self._best_at, "ranges": self._ranges}
        return {**facts, "agent": self.agent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns, self._best_at, self._ranges = state["returns"], state.get("best_at"), state["ranges"]
        self.agent.load_state_dict(state["agent"])


def episodes_frame(episodes: Sequence[Episode], **columns: str) -> pd.DataFrame:
    """One row an episode: seed, slot, episode, return, length, truncated, and the given constant columns."""
    frame = pd.DataFrame([asdict(episode) for episode in episodes])
    frame = frame.rename(columns={"number": "episode", "episode_return": "return"})
    return frame[["seed", "slot", "episode", "return", "length", "truncated"]].assign(**columns)
