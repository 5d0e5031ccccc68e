"""Policy distillation: a student learns a frozen teacher's Q-values or policy from recorded play (paper, section 3).

With several games there is one data set, one window and one controller each; every minibatch comes from one game and
the games take turns (section 3.2). Single-task distillation is the case of one game.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .capture import Captured
from .hours import DrivenHours, RecordedHours
from .losses import Loss, make_loss
from .networks import Agent, Precision
from .optimizers import make_optimizer, restore_optimizer, scale_learning_rates, schedule_factor
from .readouts import Acting, Outputs, Readout
from .run import Turn
from .sliding_window import Window


@dataclass(frozen=True)
class Recipe:
    """How a student learns; config.yaml holds the paper's values and their sources."""

    loss: str
    """``mse``, ``nll``, ``kl`` or ``advantages``."""
    optimizer: str
    """``rmsprop``, ``adam`` or ``muon``."""
    learning_rate: float
    optimizer_epsilon: float
    schedule: str
    """``constant``, ``linear`` or ``cosine``: the learning rates over the run."""
    batch_size: int
    input_scaling: str
    """``unit``: x/255, the paper's. ``standardised``: by the data's mean and deviation, folded away when saved."""
    window_hours: int
    """Hours of play in memory per game; the newest replaces the oldest."""
    updates_per_hour: int
    """Updates per game after each new hour."""
    evaluations: int
    """Points of the learning curve, evenly spaced."""
    averaging: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is scored and saved; 0: none."""
    data: float = 1.0
    """Fraction of each hour of play that is learnt from."""
    driver: str = "teacher"
    """Who acts: ``teacher`` in the recorded play; after its first hour the ``student``, whose play the teacher labels,
    hour by hour (DAgger, Ross et al. 2011; Czarnecki et al. 2019); or ``mix``, each in half of the emulators."""
    teacher: str = "final"
    """``final``: frozen. ``online``: each part was played by the best snapshot so far of one that learned."""
    temperature: float = 0.01
    """Divides the teacher's Q-values in ``kl``; the other losses ignore it. Logits have a temperature of their own."""
    logits_temperature: float = 1.0
    """The same for games whose teacher has logits instead, which are a policy as they are."""
    filters_learning_rate: float = 0.01
    """Of the convolutions' filters with ``muon``, whose ``learning_rate`` is that of everything else."""
    acting: str = "teacher"
    """How the student acts: as its ``teacher`` does, ``epsilon_greedy``, or by ``sample`` from its softmax."""

    def loss_for(self, outputs: Outputs) -> Loss:
        """The loss on a game whose teacher has these outputs: games of one student may have different teachers."""
        return make_loss(self.loss, self.temperature if outputs == "q_values" else self.logits_temperature, outputs)

    def readout(self, teacher: Readout) -> Readout:
        """What the outputs of a student of such a teacher are. Raises ValueError for a way to act that they lack."""
        acting = teacher.acting if self.acting == "teacher" else self.acting
        outputs = teacher.outputs if self.loss_for(teacher.outputs).regression else "logits"
        return Readout(outputs, cast(Acting, acting))


class Student:
    """An agent that learns, the average of its weights, the optimiser, and how it has done since it was last asked.

    Args:
        outputs: what the teacher's outputs are, of games where they are not Q-values.
    """

    def __init__(
        self, agent: Agent, recipe: Recipe, precision: Precision, outputs: Mapping[str, Outputs] | None = None
    ) -> None:
        self.agent, self.recipe, self.precision = agent, recipe, precision
        self.average = copy.deepcopy(agent) if recipe.averaging else agent
        self.optimizer = make_optimizer(
            recipe.optimizer,
            agent.parameters(),
            recipe.learning_rate,
            recipe.optimizer_epsilon,
            recipe.filters_learning_rate,
        )
        self._losses = {game: recipe.loss_for((outputs or {}).get(game, "q_values")) for game in agent.actions}
        self.sums = torch.zeros(3, dtype=torch.float64, device=agent.device)  # loss, agreement, updates: of millions
        self._steps = {game: Captured(partial(self._step, game)) for game in agent.actions}

    def update(self, game: str, observations: Tensor, teacher_q: Tensor) -> Tensor:
        """One gradient step towards the teacher's Q-values, float32 (batch, actions), for what it saw; the loss.

        Args:
            observations: (batch, 4, 84, 84) uint8.
        """
        device = self.agent.device
        values = self._steps[game](*(given.to(device, non_blocking=True) for given in (observations, teacher_q)))
        self.sums += values
        return values[0]

    def _step(self, game: str, observations: Tensor, teacher_q: Tensor) -> Tensor:
        """The loss, how often the student's best action was the teacher's, and 1."""
        student_q = self.agent(observations, game, self.precision)
        loss = self._losses[game](student_q, teacher_q)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        agreement = (student_q.argmax(1) == teacher_q.argmax(1)).float().mean()
        return torch.stack([loss.detach(), agreement, torch.ones_like(agreement)])

    @torch.no_grad()
    def average_weights(self, update: int) -> None:
        """After the update of this number, from 0. The first weights are soon forgotten."""
        if self.recipe.averaging:
            decay = min(self.recipe.averaging, (1 + update) / (10 + update))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.agent.parameters()), 1 - decay)

    def standardise_inputs(self, moments: Sequence[tuple[float, float]]) -> None:
        for agent in (self.agent, self.average):
            agent.standardise_inputs(moments)

    def facts(self) -> dict[str, float]:
        """Means since they were last asked for."""
        loss, agreement = (self.sums[:2] / self.sums[2]).tolist()
        self.sums.zero_()
        return {"loss": loss, "agreement": agreement}

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("agent", "average", "optimizer")}
        return {**parts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.average.load_state_dict(state["average"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.sums.copy_(state["sums"])


def learn(
    student: Student,
    hours: RecordedHours | DrivenHours,
    windows: Mapping[str, Window],
    rng: np.random.Generator,
    total: int,
    update: int = 0,
) -> Iterator[Turn]:
    """Distil: each new hour of every game's play is followed by updates, one a turn (paper, section 3 and appendix).

    Args:
        windows: each game's newest hours, still empty.
        total: updates of the whole run.
        update: how many of them were made before.
    """
    recipe, games = student.recipe, list(windows)
    per_hour = recipe.updates_per_hour * len(games)
    while True:
        while (hour := windows[games[0]].next_hour) <= update // per_hour:
            for game in games:
                windows[game].push(*hours.hour(game, hour))
        if update == 0 and recipe.input_scaling == "standardised":
            student.standardise_inputs([window.pixel_moments() for window in windows.values()])
        game = games[update % len(games)]
        scale_learning_rates(student.optimizer, schedule_factor(update, total, recipe.schedule))
        loss = student.update(game, *windows[game].sample(recipe.batch_size, rng))
        student.average_weights(update)
        update += 1
        yield Turn(1, loss, student.facts)
