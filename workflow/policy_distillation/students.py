"""Distilling a student, whatever the loss: its data opened, its windows made, scored on the way, saved in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .checkpoints import save_agent
from .distill import Recipe, Student, learn
from .evaluate import Evaluation, progress_returns
from .hours import DrivenHours, RecordedHours
from .networks import Agent, Network
from .replay import store_device
from .run import AUTOMATIC, Machine, Run
from .sliding_window import Window
from .stopping import StopSignal
from .training import seed_weights, stream


def distill_student(
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
    learnt_from = 1 if recipe.driver != "teacher" else None  # who drives sees the teachers' first hour alone
    played = {game: part.readout for game, part in recorded.first.items()}
    description = {
        "games": list(parts),
        "network": asdict(network),
        "settings": asdict(recipe),
        "evaluation": asdict(evaluation),
        "protocol": recorded.protocol,
        "seed": seed,
        "teachers": recorded.teachers,
        "teacher_outputs": {game: readout.outputs for game, readout in played.items()},
        "data": {game: digests[:learnt_from] for game, digests in recorded.digests.items()},
    }
    per_hour = recipe.updates_per_hour * len(parts)
    total = recorded.count * per_hour
    run = Run(folder, "student", {**description, "updates": total}, total, "update", machine)
    seed_weights(seed, "student")  # not the weights that a teacher of the same seed began with
    actions = {game: part.action_ids for game, part in recorded.first.items()}
    agent = Agent(network, actions, {game: recipe.readout(readout) for game, readout in played.items()}).to(run.device)
    student = Student(agent, recipe, run.precision, {game: readout.outputs for game, readout in played.items()})
    rng = np.random.default_rng(stream(seed, "distillation"))
    run.restore(student=student, rng=rng)
    span = min(recipe.window_hours, recorded.count)

    def oldest(update: int) -> int:
        """The first hour that the windows hold after so many updates."""
        return max(0, update // per_hour - span + 1)

    hours: RecordedHours | DrivenHours = recorded
    if recipe.driver != "teacher":
        share = 1.0 if recipe.driver == "student" else 0.5
        driven = hours = DrivenHours(
            recorded, student.average, share, teachers, run.scratch, seed, machine.device, run.stop
        )
        run.restore(hours=hours)
        run.needs(lambda: driven.files(since=oldest(run.done)))
        if not run.resumed:
            hours.forget()
    windows = _windows(recorded, span, oldest(run.done), recipe.data, run.device)

    def score(stop: StopSignal) -> dict[str, float]:
        protocol = recorded.protocol["name"]
        returns = progress_returns(student.average, protocol, evaluation, seed, run.done, run.precision, stop)
        return {f"return_{game}": value for game, value in returns.items()}

    for _ in run.turns(learn(student, hours, windows, rng, total, run.done)):
        if run.shares_done(recipe.evaluations):
            run.score(score)
        if run.passes(per_hour):  # what the windows of the newest state hold may still be asked for
            hours.forget(before=oldest(run.saved))
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
