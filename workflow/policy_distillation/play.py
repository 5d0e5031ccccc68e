"""Play that goes on: emulators that an agent plays on, from where it left them, for as long as somebody asks.

Every game has a seed of its own, so a game in progress is known from its seed and the actions so far, and can be played
again without an agent. That is how play is saved and resumed, and how it starts in the middle of games.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .acting import choose
from .atari import FRAME_SKIP, AtariVector, Step
from .networks import Agent
from .protocols import Protocol
from .stopping import Stopped, StopSignal
from .training import exploration_rng, generator_state, restore_generator


@dataclass(frozen=True)
class Transition:
    """One vector step: what was seen, what the agent thought of it, what was done, and what came of it."""

    observations: NDArray[np.uint8]
    """(slots, 4, 84, 84)."""
    q_values: NDArray[np.float32]
    """(slots, actions); logits, where those are the agent's outputs."""
    actions: NDArray[np.int64]
    """(slots,), indices into the game's action ids."""
    step: Step


@dataclass(frozen=True)
class GameSoFar:
    """A game, from its beginning up to some step."""

    seed: int
    actions: NDArray[np.uint8]
    """(steps,), indices into the game's action ids."""


class Play:
    """``slots`` emulators in lockstep, and the random streams of their games and of exploration.

    Attributes:
        observations: (slots, 4, 84, 84) uint8, what is seen now.
        seeds: (slots,) int64, of the games in progress.
        steps: (slots,) int64, how many steps those have lasted.
    """

    def __init__(
        self, game: str, protocol: Protocol, slots: int, seed: int | Sequence[int], stop: StopSignal | None = None
    ) -> None:
        """Begin a new game in every slot. Same agents, seed and questions asked: the same games.

        Args:
            stop: a flag that ends play, wherever it is, by Stopped.
        """
        self._stop = stop
        self.env = AtariVector(game, protocol, "play", slots, seed)
        self.rng = exploration_rng(seed)
        self.seeds = self.env.seeds.copy()
        self.steps = np.zeros(slots, np.int64)
        self.observations = self.env.reset()
        self._taken = np.zeros((-(-protocol.max_episode_frames // FRAME_SKIP) + 1, slots), np.uint8)  # [step, slot]

    def step(
        self,
        agent: Agent,
        epsilon: float | NDArray[np.float64],
        driver: Agent | None = None,
        driven: int = 0,
    ) -> Transition:
        """Play one step in every slot, as the agent acts.

        Args:
            epsilon: probability of a random action, one for all or each slot's own; not of a policy that is sampled.
            driver: who acts in the first ``driven`` slots; the Q-values are the agent's in every slot.
        """
        self._heed()
        observations, game, own = self.observations, self.env.game, np.broadcast_to(epsilon, len(self.steps))
        q_values = agent.q_values(observations, game)
        if driver is None:
            actions = choose(q_values, agent.readouts[game].acting, own, self.rng)
        else:
            wishes = driver.q_values(observations[:driven], game)
            drivers = choose(wishes, driver.readouts[game].acting, own[:driven], self.rng)
            others = choose(q_values[driven:], agent.readouts[game].acting, own[driven:], self.rng)
            actions = np.concatenate([drivers, others])
        return Transition(observations, q_values, actions, self._advance(actions))

    def _heed(self) -> None:
        if self._stop and self._stop.received:
            raise Stopped(self._stop.received)

    def _advance(self, actions: NDArray[np.int64]) -> Step:
        step = self.env.step(actions)
        self._taken[self.steps, np.arange(len(actions))] = actions
        self.steps += 1
        ended = step.episode_ends
        if ended.any():
            self.steps[ended] = 0
            self.seeds[ended] = self.rng.integers(0, 2**31, ended.sum())
            step = replace(step, observations=self.env.begin(ended, self.seeds[ended]))
        self.observations = step.observations
        return step

    def start_anywhere(self, agent: Agent, epsilon: float | NDArray[np.float64], longest: int) -> None:
        """Bring every slot to some step of a game, drawn from all those that the agent plays in whole games.

        Every slot plays one game to its end. Of all their steps together, as many as there are slots are drawn, and the
        games are played again up to there. So a long game is met as often as its length says, and play that starts here
        meets every step of a game as often as whole games do, however short the play is. (Nearly: the games
        are few. With ten, the shares of the quarters of the reference teachers' games are right within 0.004.)

        Args:
            epsilon: as in :meth:`step`. Slots with different ones play different games, and share none.
            longest: steps after which a game that has not ended counts as it is. With 0, nothing happens.
        """
        if not longest:
            return
        slots = len(self.steps)
        whole: dict[int, GameSoFar] = {}
        for _ in range(longest):
            seeds, steps = self.seeds.copy(), self.steps + 1
            for slot in np.flatnonzero(self.step(agent, epsilon).step.episode_ends).tolist():
                whole.setdefault(slot, GameSoFar(int(seeds[slot]), self._taken[: steps[slot], slot].copy()))
            if len(whole) == slots:
                break
        so_far = self._games()
        games = [whole.get(slot, so_far[slot]) for slot in range(slots)]
        begun = list(games)
        for value in np.unique(own := np.broadcast_to(epsilon, slots)):
            alike = np.flatnonzero(own == value)
            drawn = draw_steps([len(games[slot].actions) for slot in alike], len(alike), self.rng)
            for place, (number, step) in zip(alike, drawn, strict=True):
                game = games[alike[number]]
                begun[place] = GameSoFar(game.seed, game.actions[:step])
        self._play_again(begun)

    def _games(self) -> list[GameSoFar]:
        """The games in progress."""
        return [
            GameSoFar(int(seed), self._taken[:steps, slot].copy())
            for slot, (seed, steps) in enumerate(zip(self.seeds, self.steps, strict=True))
        ]

    def _play_again(self, games: Sequence[GameSoFar]) -> None:
        """Bring each slot to where its game is, all of them at the same time: the longest begins first."""
        self.seeds = np.array([game.seed for game in games])
        self.steps = np.array([len(game.actions) for game in games])
        for left in range(self.steps.max(), -1, -1):
            self._heed()
            begins = self.steps == left
            if begins.any():
                self.observations = self.env.begin(begins, self.seeds[begins])
            if left:
                actions = [game.actions[-left] if len(game.actions) >= left else 0 for game in games]
                self.observations = self.env.step(np.array(actions, np.int64)).observations
        for slot, game in enumerate(games):
            self._taken[: len(game.actions), slot] = game.actions

    def state_dict(self) -> dict[str, Any]:
        """What the emulators and random streams can be brought back from."""
        return {
            "rng": generator_state(self.rng),
            "seeds": torch.from_numpy(self.seeds.copy()),
            "steps": torch.from_numpy(self.steps.copy()),
            "actions": torch.from_numpy(self._taken[: self.steps.max()].copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the play was when :meth:`state_dict` was called: its games are played again, without an agent."""
        actions, steps = state["actions"].numpy(), state["steps"].tolist()
        seeds = state["seeds"].tolist()
        self._play_again([GameSoFar(seeds[slot], actions[:count, slot]) for slot, count in enumerate(steps)])
        restore_generator(self.rng, state["rng"])

    def close(self) -> None:
        self.env.close()


def draw_steps(lengths: Sequence[int], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw ``count`` steps from those of all games together, each as likely as any other: (game, step in it).

    They are evenly spaced over all steps in the order of when in a game they come, so that the draws lie in different
    stretches even where all games are of the same length.
    """
    games = np.asarray(lengths)
    reaching = (games > np.arange(games.max())[:, None]).sum(1)  # how many games have such a step
    ends = np.cumsum(reaching)
    points = ((rng.permutation(count) + rng.random()) * ends[-1] / count).astype(np.int64)
    steps = np.searchsorted(ends, points, side="right")
    which = points - (ends - reaching)[steps]  # of the games that have it
    return [(int(np.flatnonzero(games > step)[number]), int(step)) for step, number in zip(steps, which, strict=True)]
