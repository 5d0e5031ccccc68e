"""Playing: choosing actions, and the loop that data sets and evaluation share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .atari import AtariVector, Step
from .networks import Agent, Precision
from .readouts import Acting


@dataclass(frozen=True)
class Transition:
    """One vector step: what was seen, what the agent thought of it, what it did, and what came of it."""

    observations: NDArray[np.uint8]
    """(slots, 4, 84, 84)."""
    q_values: NDArray[np.float32]
    """(slots, actions); logits, where those are the agent's outputs."""
    actions: NDArray[np.int64]
    """(slots,), indices into the game's action ids."""
    step: Step


def exploration(step: int, start: float, end: float, decay_steps: int) -> float:
    """Epsilon after ``step`` agent steps: a straight line from ``start`` to ``end``, constant before and after it."""
    fraction = min(1.0, max(0.0, step / decay_steps))
    return start + fraction * (end - start)


def epsilon_greedy(q_values: NDArray[np.float32], epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The best action of each row, or with probability epsilon a uniformly random one."""
    slots, num_actions = q_values.shape
    explore = rng.random(slots) < epsilon
    random = rng.integers(0, num_actions, slots)
    return np.where(explore, random, q_values.argmax(1))


def choose(outputs: NDArray[np.float32], acting: Acting, epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Actions as the agent takes them whose outputs (slots, actions) these are: see :class:`readouts.Readout`.

    A sampled policy is sampled by Gumbel noise: argmax(logits + noise) is distributed as softmax(logits).
    """
    if acting == "sample":
        sampled: NDArray[np.int64] = (outputs + rng.gumbel(size=outputs.shape)).argmax(1)
        return sampled
    return epsilon_greedy(outputs, epsilon, rng)


def mean_or_nan(returns: Sequence[float]) -> float:
    """Of the newest games' returns; before the first has ended there is none."""
    return float(np.mean(returns)) if returns else float("nan")


class LastingExploration:
    """Epsilon-greedy whose random actions last: epsilon-z-greedy (Dabney et al. 2021, arXiv 2006.01782).

    A random action is repeated n times, n drawn with P(n) ~ 1 / n**2 and cut at ``longest``: with 1, epsilon-greedy.
    Where rewards take dozens of equal actions, as a crossing in Freeway does, single random ones never find any.
    """

    def __init__(self, slots: int, longest: int) -> None:
        self._longest = longest
        self._actions = np.zeros(slots, np.int64)
        self._left = np.zeros(slots, np.int64)  # how often each slot's random action is still to be repeated

    def __call__(self, q_values: NDArray[np.float32], epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """An action for each row of (slots, actions)."""
        slots, num_actions = q_values.shape
        begins = (self._left == 0) & (rng.random(slots) < epsilon)
        self._actions = np.where(begins, rng.integers(0, num_actions, slots), self._actions)
        self._left = np.where(begins, np.minimum(rng.zipf(2.0, slots), self._longest), self._left)
        actions = np.where(self._left > 0, self._actions, q_values.argmax(1))
        self._left = np.maximum(self._left - 1, 0)
        return actions


def rollout(
    agent: Agent,
    env: AtariVector,
    epsilon: float,
    rng: np.random.Generator,
    precision: Precision = "float32",
    driver: Agent | None = None,
    driven: int = 0,
) -> Iterator[Transition]:
    """Play for ever, from a reset, as the agent acts. Same agent, seeds and generator: the same games.

    Args:
        epsilon: probability of a random action; not of a policy that is sampled.
        driver: who acts in the first ``driven`` slots; the Q-values are the agent's in every slot.
    """
    observations = env.reset()
    while True:
        q_values = agent.q_values(observations, env.game, precision)
        if driver is None:
            actions = choose(q_values, agent.readouts[env.game].acting, epsilon, rng)
        else:
            wishes = driver.q_values(observations[:driven], env.game, precision)
            drivers = choose(wishes, driver.readouts[env.game].acting, epsilon, rng)
            others = choose(q_values[driven:], agent.readouts[env.game].acting, epsilon, rng)
            actions = np.concatenate([drivers, others])
        step = env.step(actions)
        yield Transition(observations, q_values, actions, step)
        observations = step.observations
