"""Policy distillation: a student learns a frozen teacher's Q-values or policy from recorded play (paper, section 3).

With several games there is one data set, one window and one controller each; every minibatch comes from one game and
the games take turns (section 3.2). Single-task distillation is the case of one game.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .capture import Captured
from .checkpoints import save_agent
from .evaluate import Evaluation, mean_return, play_episodes
from .hours import DrivenHours, RecordedHours
from .losses import make_loss
from .networks import Agent, Network, Precision
from .optimizers import make_optimizer, restore_optimizer, scale_learning_rates, schedule_factor
from .replay import store_device
from .run import AUTOMATIC, Machine, Run, Turn
from .sliding_window import Window
from .training import stream


@dataclass(frozen=True)
class Recipe:
    """How a student learns; config.yaml holds the paper's values and their sources."""

    loss: str
    """``mse``, ``nll`` or ``kl``."""
    temperature: float
    """Divides the teacher's Q-values in ``kl``; the other losses ignore it."""
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
    """Who acts: ``teacher`` in the recorded play; the ``student``, whose play the teacher labels, hour by hour (DAgger,
    Ross et al. 2011; Czarnecki et al. 2019); or ``mix``, each in half of the emulators."""
    teacher: str = "final"
    """``final``: frozen. ``online``: each part was played by the best snapshot so far of one that learned."""
    filters_learning_rate: float = 0.01
    """Of the convolutions' filters with ``muon``, whose ``learning_rate`` is that of everything else."""


class Student:
    """An agent that learns, the average of its weights, the optimiser, and how it has done since it was last asked."""

    def __init__(self, agent: Agent, recipe: Recipe, precision: Precision) -> None:
        self.agent, self.recipe, self.precision = agent, recipe, precision
        self.average = copy.deepcopy(agent) if recipe.averaging else agent
        self.optimizer = make_optimizer(
            recipe.optimizer,
            agent.parameters(),
            recipe.learning_rate,
            recipe.optimizer_epsilon,
            recipe.filters_learning_rate,
        )
        self.loss = make_loss(recipe.loss, recipe.temperature)
        self.sums = torch.zeros(3, device=agent.scale.device)  # loss, agreement and updates
        self._steps = {game: Captured(partial(self._step, game)) for game in agent.actions}

    def update(self, game: str, observations: Tensor, teacher_q: Tensor) -> None:
        """One gradient step towards the teacher's Q-values, float32 (batch, actions), for what it saw.

        Args:
            observations: (batch, 4, 84, 84) uint8.
        """
        place = self.sums.device
        self.sums += self._steps[game](observations.to(place), teacher_q.to(place))

    def _step(self, game: str, observations: Tensor, teacher_q: Tensor) -> Tensor:
        """The loss, how often the student's best action was the teacher's, and 1."""
        student_q = self.agent(observations, game, self.precision)
        loss = self.loss(student_q, teacher_q)
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
    span = windows[games[0]].hours
    hour = max(0, update // per_hour - span + 1)  # that enters next
    while True:
        while hour <= update // per_hour:
            for game in games:
                windows[game].push(*hours.hour(game, hour))
            hour += 1
        if update == 0 and recipe.input_scaling == "standardised":
            student.standardise_inputs([window.pixel_moments() for window in windows.values()])
        game = games[update % len(games)]
        scale_learning_rates(student.optimizer, schedule_factor(update, total, recipe.schedule))
        student.update(game, *windows[game].sample(recipe.batch_size, rng))
        student.average_weights(update)
        update += 1
        yield Turn(1, student.sums[0], student.facts)


def distill(
    parts: Mapping[str, Sequence[Path]],
    teachers: Mapping[str, Path],
    network: Network,
    recipe: Recipe,
    evaluation: Evaluation,
    seed: int,
    folder: Path,
    machine: Machine = AUTOMATIC,
) -> None:
    """Distil a student into ``folder``: ``agent.safetensors``, its last weights or their average, and ``progress.csv``.

    Killed at any moment and called again, it goes on from its last checkpoint in ``folder/state`` and ends, on the CPU,
    with the same bits as a run that was never stopped.

    Args:
        parts: for each game the paths of its data set's parts, in order. They also tell how many hours of how many
            emulators a student plays that drives.
        teachers: for each game the teacher's file; read only where the student drives.
    """
    recorded = RecordedHours(parts, _alike(recipe))
    description = {
        "games": list(parts),
        "network": asdict(network),
        "settings": asdict(recipe),
        "evaluation": asdict(evaluation),
        "protocol": recorded.protocol,
        "seed": seed,
        "teachers": {game: part.teacher for game, part in recorded.first.items()},
        "data": recorded.digests,
    }
    per_hour = recipe.updates_per_hour * len(parts)
    total = recorded.count * per_hour
    run = Run(folder, "student", {**description, "updates": total}, total, "update", machine)
    torch.manual_seed(seed)
    agent = Agent(network, {game: part.action_ids for game, part in recorded.first.items()}).to(run.device)
    student = Student(agent, recipe, run.precision)
    rng = np.random.default_rng(stream(seed, "distillation"))
    run.restore(student=student, rng=rng)
    hours: RecordedHours | DrivenHours = recorded
    if recipe.driver != "teacher":
        share = 1.0 if recipe.driver == "student" else 0.5
        hours = DrivenHours(recorded, agent, share, teachers, run.scratch, seed, machine.device)
        if not run.resumed:
            hours.forget()
    span = min(recipe.window_hours, recorded.count)
    windows = _windows(recorded, span, max(0, run.done // per_hour - span + 1), recipe.data, run.device)
    for turn in run.turns(learn(student, hours, windows, rng, total, run.done)):
        if run.shares_done(recipe.evaluations):
            run.record(turn.facts() | _score(student, recorded.protocol["name"], evaluation, seed, run.done))
        hours.forget(before=run.saved // per_hour - span + 1)
    hours.close()
    save_agent(folder / "agent.safetensors", student.average, run.metadata)
    run.remove_state()


def _alike(recipe: Recipe) -> list[str]:
    """What the parts of a game must share."""
    recorded, frozen = recipe.driver == "teacher", recipe.teacher == "final"
    return [*(["hours"] if recorded else []), *(["teacher"] if frozen else [])]


def _windows(
    recorded: RecordedHours, span: int, oldest: int, fraction: float, device: torch.device
) -> dict[str, Window]:
    """Each game's, on the GPU if all of them fit there. A resumed run starts at the oldest hour in its windows."""
    size = sum(Window.size(part, span, fraction) for part in recorded.first.values())
    store = store_device(size, device)
    return {game: Window(part, span, oldest, fraction, store) for game, part in recorded.first.items()}


def _score(student: Student, protocol: str, evaluation: Evaluation, seed: int, update: int) -> dict[str, float]:
    """Mean return of the averaged weights on each game."""
    returns = {}
    for game in student.average.actions:
        play = stream(seed, "progress", update)
        episodes = play_episodes(student.average, game, protocol, evaluation, play, student.precision)
        returns[f"return_{game}"] = mean_return(episodes)
    return returns
