"""Choosing actions: greedily, at random now and then, or as a policy samples them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .readouts import Acting

EPSILON = 0.05
"""Probability of a random action with which agents are scored and recorded (the paper)."""


def exploration(step: int, start: float, end: float, decay_steps: int) -> float:
    """Epsilon after ``step`` agent steps: a straight line from ``start`` to ``end``, constant before and after it."""
    fraction = min(1.0, max(0.0, step / decay_steps))
    return start + fraction * (end - start)


def epsilon_greedy(
    q_values: NDArray[np.float32], epsilon: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The best action of each row, or a uniformly random one, with probability epsilon: one for all, or each row's."""
    slots, num_actions = q_values.shape
    explore = rng.random(slots) < epsilon
    random = rng.integers(0, num_actions, slots)
    return np.where(explore, random, q_values.argmax(1))


def choose(
    outputs: NDArray[np.float32], acting: Acting, epsilon: float | NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
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
