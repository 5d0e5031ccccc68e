"""Cost, before anything is launched: what every job handles, and the hours that it takes at rates that were measured.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .cells import Cell, cells
from .grid import Grid
from .resources import BASE_MB, joint_mb, student_mb, teacher_mb

BYTES_PER_STEP = 72
"""A data set's, on disk: three parts of Pong took 3.87 MB for 54,000 steps each."""
TRAINING_GB = 0.007
"""An agent and its curve, on disk."""
BENCHMARK_BATCH = 128
"""Samples in an update of the benchmark whose rate is called distill (updates a second)."""


@dataclass(frozen=True)
class Cost:
    """Jobs of one rule: how many, and what they handle and need together; memory is a single job's."""

    rule: str
    rate: str
    """Which of the measured rates they work at."""
    units: float
    """Agent steps; samples (distill); games (evaluate)."""
    memory_mb: int
    gpu: bool = False
    disk_gb: float = 0.0
    jobs: int = 1


def plan(grid: Grid) -> Iterator[Cost]:
    """The jobs of the experiments."""
    data = grid.config["dataset"]
    students = list(dict.fromkeys(cell for entry in grid.config["experiments"].values() for cell in cells(entry)))
    joint = grid.recipes_by("q_learning")
    online = {
        game
        for cell in students
        if grid.recipe(cell.recipe)["teacher"] == "online"
        for game in grid.games_in(cell.games)
    }
    for game in grid.games:
        teacher = grid.teacher(game)
        if teacher["source"] == "train":
            steps = teacher[teacher["algorithm"]]["steps"]
            yield Cost("train_teacher", teacher["algorithm"], steps, teacher_mb(teacher), True, TRAINING_GB)
        for rule, parts in (("dump_dataset", data["parts"]), ("dump_online_dataset", teacher["snapshots"])):
            if rule == "dump_dataset" or game in online:
                steps = parts * data["hours_per_part"] * data["steps_per_hour"]
                yield Cost(rule, "dump", steps, BASE_MB, disk_gb=steps * BYTES_PER_STEP / 1e9, jobs=parts)
        yield scoring(grid, game)
    for cell in students:
        yield training(grid, cell, "q_learning" if cell.recipe in joint else "distill")
        yield from (scoring(grid, game) for game in grid.games_in(cell.games))


def scoring(grid: Grid, game: str) -> Cost:
    """An agent's evaluation on one game."""
    return Cost("evaluate_agent", "evaluate", grid.evaluation(game)["episodes"], BASE_MB)


def training(grid: Grid, cell: Cell, how: str) -> Cost:
    """A student's training."""
    if how == "q_learning":
        steps = grid.joint_dqn(cell.games, cell.recipe)["steps"]
        return Cost("train_joint_dqn", "dqn", steps, joint_mb(grid, cell.games), True, TRAINING_GB)
    data, learning = grid.config["dataset"], grid.recipe(cell.recipe)
    hours = len(grid.games_in(cell.games)) * data["parts"] * data["hours_per_part"]
    samples = hours * learning["updates_per_hour"] * learning["batch_size"]
    memory = student_mb(grid, cell.games, cell.recipe)
    return Cost("distill_student", "distill", samples, memory, True, TRAINING_GB)


def hours(cost: Cost, rates: Mapping[str, float], game_steps: float) -> float:
    """How long they take, one after the other.

    Args:
        rates: steps a second by name; of distill, updates of 128 samples.
        game_steps: the agent steps that a game is taken to last.
    """
    units = cost.units * (game_steps if cost.rate == "evaluate" else 1)
    rate = rates[cost.rate] * (BENCHMARK_BATCH if cost.rate == "distill" else 1)
    return units / rate / 3600


def cost_table(costs: Iterable[Cost], measured: Mapping[str, Any], game_steps: float) -> str:
    """A line a rule, the sums, and where the rates come from: ``measured`` is benchmarks/results.json."""
    rules: dict[str, list[Cost]] = {}
    for cost in costs:
        rules.setdefault(cost.rule, []).append(cost)
    lines = [f"{'rule':<20} {'jobs':>7} {'units':>18} {'hours':>12} {'disk GB':>10} {'memory GB':>10}"]
    total = on_gpu = 0.0
    for rule, entries in rules.items():
        units = sum(entry.units * (game_steps if entry.rate == "evaluate" else 1) for entry in entries)
        time = sum(hours(entry, measured["rates"], game_steps) for entry in entries)
        total, on_gpu = total + time, on_gpu + time * entries[0].gpu
        disk, memory = sum(entry.disk_gb for entry in entries), max(entry.memory_mb for entry in entries) / 1000
        jobs = sum(entry.jobs for entry in entries)
        lines.append(f"{rule:<20} {jobs:>7} {units:>18,.0f} {time:>12,.1f} {disk:>10,.1f} {memory:>10,.1f}")
    everything = [entry for entries in rules.values() for entry in entries]
    machine = measured["machine"]
    lines += [
        "",
        f"{sum(entry.jobs for entry in everything):,} jobs, {total:,.0f} hours, {on_gpu:,.0f} of them in jobs that ask "
        f"for a GPU; {sum(entry.disk_gb for entry in everything):,.1f} GB on disk; at most "
        f"{max(entry.memory_mb for entry in everything) / 1000:,.1f} GB of memory for one job.",
        f"Rates: benchmarks/results.json, measured on {machine['cpu']}, {machine['threads']} threads, "
        f"GPU: {machine['gpu'] or 'none, so hours on a GPU are not known but fewer'}.",
        f"Games are taken to last {game_steps:,.0f} steps, the mean of those that the reference teachers played.",
    ]
    return "\n".join(lines)
