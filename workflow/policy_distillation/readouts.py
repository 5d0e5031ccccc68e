"""What a game's outputs mean, and how an agent acts on them.

Q-learning leaves one value an action, and its agents take the best but for a few random ones. Actor-critic methods
leave logits, whose softmax is a policy; on Atari that policy is sampled, by Stable-Baselines3, CleanRL and others
alike, and an agent that always took its likeliest action would be another agent. Categorical agents (C51, Rainbow)
leave a distribution over values for each action, whose mean is the Q-value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Outputs = Literal["q_values", "logits"]
Acting = Literal["epsilon_greedy", "sample"]
MOST_ATOMS = 1024
MOST_ACTIONS = 18
"""Of the emulator."""


@dataclass(frozen=True)
class Support:
    """Where the atoms of a distribution over values lie: evenly spaced from ``lowest`` to ``highest``."""

    lowest: float
    highest: float
    atoms: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lowest) and math.isfinite(self.highest) and self.lowest < self.highest):
            raise ValueError(f"a support from {self.lowest!r} to {self.highest!r}")
        if type(self.atoms) is not int or not 2 <= self.atoms <= MOST_ATOMS:
            raise ValueError(f"{self.atoms!r:.20} atoms; allowed: 2 to {MOST_ATOMS}")


@dataclass(frozen=True)
class Readout:
    """A game's outputs."""

    outputs: Outputs = "q_values"
    """``q_values``: expected returns. ``logits``: their softmax is a policy; a constant added to all means nothing."""
    acting: Acting = "epsilon_greedy"
    """``epsilon_greedy``: the largest output, or a random action with the probability that data set or evaluation say.
    ``sample``: each action with the probability that the softmax of the logits gives it; epsilon plays no part."""
    support: Support | None = None
    """The network's last layer gives, for each action, logits over these values: see :class:`networks.Categorical`."""

    def __post_init__(self) -> None:
        for name, value, allowed in (("outputs", self.outputs, Outputs), ("acting", self.acting, Acting)):
            if value not in get_args(allowed):
                raise ValueError(f"{name} {str(value)[:40]!r}; allowed: {', '.join(get_args(allowed))}")
        if self.acting == "sample" and self.outputs != "logits":
            raise ValueError("acting: sample needs outputs: logits; a softmax of Q-values is nobody's policy")
        if self.support and self.outputs != "q_values":
            raise ValueError("a support belongs to outputs: q_values")

    @property
    def rows(self) -> int:
        """Outputs of the last layer for each action."""
        return self.support.atoms if self.support else 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Readout:
        """What :meth:`to_json` wrote. Raises ValueError, LookupError or TypeError for anything else."""
        support = content["support"]
        return Readout(content["outputs"], content["acting"], None if support is None else Support(**support))


def describe_acting(readout: Readout, epsilon: float | None = None) -> str:
    """How an agent acts, for people."""
    if readout.acting == "sample":
        return "sampled from the softmax of its logits"
    return "epsilon-greedy" if epsilon is None else f"epsilon-greedy, epsilon {epsilon:g}"
