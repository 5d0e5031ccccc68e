"""Policy distillation: a student learns a frozen teacher's Q-values or policy from recorded play (paper, section 3).

With several games there is one data set, one window and one controller each; every minibatch comes from one game and
the games take turns (section 3.2). Single-task distillation is the case of one game.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .capture import Captured
from .checkpoints import RunState, save_agent
from .dataset_format import DatasetError
from .evaluate import Evaluation, mean_return, play_episodes
from .losses import make_loss
from .networks import Agent, Network
from .optimizers import make_optimizer, restore_optimizer, scale_learning_rates, schedule_factor
from .parts import Part
from .recording import Dataset, dump_part
from .replay import store_device
from .sliding_window import Window
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


def distill(
    parts: Mapping[str, Sequence[Path]],
    teachers: Mapping[str, Path],
    network: Network,
    recipe: Recipe,
    evaluation: Evaluation,
    seed: int,
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    checkpoint_seconds: float = 300.0,
) -> None:
    """Distil a student into ``folder``: ``agent.safetensors``, its last weights or their average, and ``progress.csv``.

    Killed at any moment and called again, it goes on from its last checkpoint in ``folder/state`` and ends, on the CPU,
    with the same bits as a run that was never stopped.

    Args:
        parts: for each game the paths of its data set's parts, in order. They also tell how many hours of how many
            emulators a student plays that drives.
        teachers: for each game the teacher's file; read only where the student drives.
    """
    place = select_device(device)
    computing = select_precision(precision, place)
    games = list(parts)
    first: dict[str, Part] = {}  # closed again: what they say of themselves
    digests: dict[str, list[str]] = {game: [] for game in games}
    for game, paths in parts.items():  # better refused now than after a day
        for path in paths:
            with _open(path, game, recipe, like=first.get(game)) as part:
                first.setdefault(game, part)
                digests[game].append(part.digest)
    protocol = _common_protocol(list(first.values()))
    hours = min(part.hours * len(parts[game]) for game, part in first.items())
    updates_per_hour = recipe.updates_per_hour * len(games)
    total = hours * updates_per_hour
    description = {
        "games": games,
        "network": asdict(network),
        "settings": asdict(recipe),
        "evaluation": asdict(evaluation),
        "protocol": protocol,
        "seed": seed,
        "teachers": {game: part.teacher for game, part in first.items()},
        "data": digests,
    }
    metadata = {**description, "kind": "student", "updates": total, **provenance()}  # now: files may be edited later
    run = RunState(folder / "state", description)
    saved = run.load()
    update = saved["update"] if saved else 0
    if not saved:
        _forget_hours(run.folder)

    torch.manual_seed(seed)
    student = Agent(network, {game: part.action_ids for game, part in first.items()}).to(place)
    optimizer = make_optimizer(
        recipe.optimizer,
        student.parameters(),
        recipe.learning_rate,
        recipe.optimizer_epsilon,
        recipe.filters_learning_rate,
    )
    loss_function = make_loss(recipe.loss, recipe.temperature)
    average = copy.deepcopy(student) if recipe.averaging else student
    rng = np.random.default_rng(stream(seed, "distillation"))
    span = min(recipe.window_hours, hours)
    oldest = max(0, update // updates_per_hour - span + 1)  # hour that the windows start with
    store = store_device(sum(Window.size(part, span, recipe.data) for part in first.values()), place)
    windows = {game: Window(part, span, oldest, recipe.data, store) for game, part in first.items()}
    rows: list[dict[str, float]] = []
    sums = torch.zeros(3, device=place)  # loss, agreement and count since the last row
    if saved:
        student.load_state_dict(saved["student"])
        average.load_state_dict(saved["average"])
        restore_optimizer(optimizer, saved["optimizer"])
        restore_generator(rng, saved["rng"])
        rows, sums = saved["rows"], saved["sums"].to(place)

    progress = Progress(total, "update", folder / "progress.csv", rows, update)
    stop, watch = StopSignal(), Stopwatch(checkpoint_seconds)
    loaded = oldest - 1  # newest hour in the windows
    current: dict[str, Part] = {}  # open

    def hour_of_play(game: str, hour: int) -> tuple[Part, int]:
        """The part that an hour of the whole play is in, and which of its hours it is."""
        if recipe.driver == "teacher":
            index, within = divmod(hour, first[game].hours)
            path = parts[game][index]
        else:
            path, within = run.folder / f"hour-{game}-{hour}.h5", 0
            if not path.exists():
                _drive(student, teachers[game], first[game], recipe, stream(seed, "driver", hour), path, device)
        if game not in current or current[game].path != path:
            if game in current:
                current[game].close()
            current[game] = _open(path, game, recipe, like=first[game])
        return current[game], within

    def learn_from(game: str, observations: Tensor, teacher_q: Tensor) -> Tensor:
        """One gradient step; what it adds to ``sums``."""
        student_q = student(observations, game, computing)
        loss = loss_function(student_q, teacher_q)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        agreement = (student_q.argmax(1) == teacher_q.argmax(1)).float().mean()
        return torch.stack([loss.detach(), agreement, torch.ones_like(agreement)])

    learn = {game: Captured(partial(learn_from, game)) for game in games}
    while update < total:
        while loaded < update // updates_per_hour:
            loaded += 1
            for game in games:
                windows[game].push(*hour_of_play(game, loaded))
        if update == 0 and recipe.input_scaling == "standardised":
            for agent in (student, average):
                agent.standardise_inputs([window.pixel_moments() for window in windows.values()])

        game = games[update % len(games)]
        observations, teacher_q = windows[game].sample(recipe.batch_size, rng)
        scale_learning_rates(optimizer, schedule_factor(update, total, recipe.schedule))
        sums += learn[game](observations.to(place), teacher_q.to(place))
        if recipe.averaging:
            decay = min(recipe.averaging, (1 + update) / (10 + update))  # the first weights are soon forgotten
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), 1 - decay)
        update += 1
        progress.advance(1)
        evaluating = update * recipe.evaluations // total > (update - 1) * recipe.evaluations // total
        saving = stop.received or watch.due()
        if (evaluating or saving) and not math.isfinite(sums[0]):
            raise FloatingPointError(f"the loss became {float(sums[0])} before update {update:,}; lower learning_rate")
        if evaluating:
            row = {"loss": float(sums[0] / sums[2]), "agreement": float(sums[1] / sums[2])}
            sums.zero_()
            for name in games:
                play = stream(seed, "progress", update)
                episodes = play_episodes(average, name, protocol["name"], evaluation, play, computing)
                row[f"return_{name}"] = mean_return(episodes)
            progress.record(row)
        if saving:
            run.save(
                {
                    "update": update,
                    "student": student.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": generator_state(rng),
                    "rows": progress.rows,
                    "sums": sums,
                }
            )
            _forget_hours(run.folder, before=update // updates_per_hour - span + 1)
            if stop.received:
                raise Interrupted(143)
    progress.close()
    for part in current.values():
        part.close()
    save_agent(folder / "agent.safetensors", average, metadata)
    run.remove()


def _drive(
    student: Agent, teacher: Path, like: Part, recipe: Recipe, seed: Sequence[int], path: Path, device: str
) -> None:
    """Let the student play an hour like those of ``like``, and the teacher label what it saw."""
    settings = Dataset(**{**like.settings, "hours_per_part": 1})
    driven = like.slots if recipe.driver == "student" else like.slots // 2
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    dump_part(teacher, like.game, like.protocol["name"], 0, settings, number, path, device, student, driven)


def _forget_hours(folder: Path, before: float = math.inf) -> None:
    """Delete a driving student's hours that no window will ask for again, even after a resumption."""
    for path in folder.glob("hour-*.h5"):
        if int(path.stem.rsplit("-", 1)[1]) < before:
            path.unlink()


def _open(path: Path, game: str, recipe: Recipe, like: Part | None = None) -> Part:
    part = Part(path)
    if part.game != game:
        raise DatasetError(f"{path}: holds {part.game}, expected {game}")
    same = ["hours"] if recipe.driver == "teacher" else []
    same += ["times_per_hour", "slots", "protocol", "action_ids"]
    if recipe.teacher == "final":
        same.append("teacher")
    for name in same:
        if like is not None and getattr(part, name) != getattr(like, name):
            raise DatasetError(f"{path}: its {name} differs from that of {like.path}")
    return part


def _common_protocol(parts: Sequence[Part]) -> dict[str, Any]:
    for part in parts[1:]:
        if part.protocol != parts[0].protocol:
            raise DatasetError(f"{part.path}: its protocol differs from that of {parts[0].path}")
    return parts[0].protocol
