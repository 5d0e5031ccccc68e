"""Cost, before anything is launched: what every job does, and the hours that it takes at rates that were measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .cells import Cell, cells
from .grid import Grid
from .resources import PLAYING_MB, gpus, joint_mb, student_mb, teacher_mb

BYTES_PER_STEP = 72
"""A data set's, on disk: three parts of Pong took 3.87 MB for 54,000 steps each."""
STEPS_BEFORE = 3_500
"""Agent steps that each emulator plays before a part is recorded, with the reference teachers: until ten games have
ended, and again as far as recording begins."""
TRAINING_GB = 0.007
"""An agent and its curve, on disk."""
PLAYING = {"dqn": ("emulator_32", "dqn_forward"), "pqn": ("emulator_64", "pqn_forward")}
"""The rates at which an algorithm plays while it trains; its updates come on top."""
BENCHMARK = {"dqn_update": 256, "pqn_update": 128, "distill": 128}
"""Batches of the updates whose rates were measured, all with Adam and the network of Mnih et al."""
NATURE = {"channels": [32, 64, 64], "hidden": 512}
LONG = 3.0
"""Hours; what takes less is told in minutes."""


@dataclass(frozen=True)
class Cost:
    """Jobs of one rule: what they do and need together; memory and GPUs are a single job's."""

    rule: str
    work: Mapping[str, float]
    """How much of what is measured under a rate's name: agent steps or updates."""
    memory_mb: int
    gpu: int = 0
    disk_gb: float = 0.0
    jobs: int = 1


def plan(grid: Grid, lengths: Mapping[str, float]) -> Iterator[Cost]:
    """The jobs of the experiments.

    Args:
        lengths: the agent steps that games last; others are taken to last the mean of these.
    """
    data = grid.config["dataset"]
    students = list(dict.fromkeys(cell for entry in grid.config["experiments"].values() for cell in cells(entry)))
    learnt = {
        (game, grid.recipe(cell.recipe)["teacher"])
        for cell in students
        if grid.distils(cell.recipe)
        for game in grid.games_in(cell.games)
    }
    mean = sum(lengths.values()) / len(lengths)
    lengths = {game: lengths.get(game, mean) for game in grid.games}
    for game in grid.games:
        teacher = grid.teacher(game)
        if teacher["source"] == "train":
            settings, network = teacher[teacher["algorithm"]], grid.network(teacher["network"])
            games = evaluations(settings["steps"], teacher["evaluate_every"]) * teacher["evaluation_episodes"]
            work = reinforcement(teacher["algorithm"], settings, network) | {"evaluate": games * lengths[game]}
            yield Cost("train_teacher", work, teacher_mb(teacher), gpus(grid), TRAINING_GB * (1 + teacher["snapshots"]))
        for rule, kind in (("dump_dataset", "final"), ("dump_online_dataset", "online")):
            if (game, kind) in learnt:
                parts = len(grid.dataset_parts(game, kind))
                steps = parts * data["hours_per_part"] * data["steps_per_hour"]
                before = parts * data["envs"] * min(data["warmup_steps"], STEPS_BEFORE)
                disk = steps * BYTES_PER_STEP / 1e9
                yield Cost(rule, {"dump": steps + before}, PLAYING_MB, disk_gb=disk, jobs=parts)
        yield scoring(grid, game, lengths)
        yield replace(scoring(grid, game, lengths), rule="evaluate_random")
    for cell in students:
        yield training(grid, cell, lengths)
        yield from (scoring(grid, game, lengths) for game in grid.games_in(cell.games))


def scoring(grid: Grid, game: str, lengths: Mapping[str, float]) -> Cost:
    """An agent's evaluation on one game."""
    return Cost("evaluate_agent", {"evaluate": grid.evaluation(game)["episodes"] * lengths[game]}, PLAYING_MB)


def training(grid: Grid, cell: Cell, lengths: Mapping[str, float]) -> Cost:
    """A student's training."""
    data, learning, network = grid.config["dataset"], grid.recipe(cell.recipe), grid.network(cell.network)
    games = grid.games_in(cell.games)
    played = learning["evaluation_episodes"] * sum(lengths[game] for game in games)  # at each evaluation
    if not grid.distils(cell.recipe):
        settings = grid.joint_dqn(cell.games, cell.recipe)
        scored = evaluations(settings["steps"], settings["evaluate_every"])
        work = reinforcement("dqn", settings, network) | {"evaluate": scored * played}
        return Cost("train_joint_dqn", work, joint_mb(grid, cell.games, cell.recipe), gpus(grid), TRAINING_GB)
    play = sum(grid.hours(game, cell.recipe) for game in games)
    share = relative("distill", learning["optimizer"], learning["batch_size"], network)
    driven = 0 if learning["driver"] == "teacher" else play - len(games)  # all but each game's first
    work = {
        "distill": play * learning["updates_per_hour"] * share,
        "dump": driven * data["steps_per_hour"],
        "evaluate": learning["evaluations"] * played,
    }
    return Cost("distill_student", work, student_mb(grid, cell.games, cell.recipe), gpus(grid), TRAINING_GB)


def evaluations(steps: int, period: int) -> int:
    """How often an agent is scored while it learns: whenever another period is over, and at the end."""
    return math.ceil(steps / period)


def reinforcement(algorithm: str, settings: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, float]:
    """The steps and updates of a DQN or PQN."""
    steps, batch = settings["steps"], settings["batch_size"]
    updates = steps / settings["train_every"] if algorithm == "dqn" else settings["epochs"] * steps / batch
    update = f"{algorithm}_update"
    work = dict.fromkeys(PLAYING[algorithm], float(steps))
    return work | {update: updates * relative(update, settings["optimizer"], batch, network)}


def relative(rate: str, optimizer: str, batch: int, network: Mapping[str, Any]) -> float:
    """What an update costs, in updates as they were measured under the rate's name."""
    return update_ms(optimizer, batch, network) / update_ms("adam", BENCHMARK[rate], NATURE)


def update_ms(optimizer: str, batch: int, network: Mapping[str, Any]) -> float:
    """Milliseconds that a student's update takes one core (AMD EPYC, bfloat16), fitted to benchmarks/update_costs.py.

    A part for each weight, of which centred RMSProp reads and writes the most, and a part for each sample.
    """
    first, second, third = network["channels"]
    head = network["hidden"] * (network.get("controller") or 0)
    dense = 49 * third * network["hidden"] + head
    weights = 256 * first + 16 * first * second + 9 * second * third + dense
    products = 400 * 256 * first + 81 * 16 * first * second + 49 * 9 * second * third + dense
    per_weight = {"adam": 1.6e-6, "muon": 2.7e-6, "rmsprop": 3.4e-6}[optimizer]
    return float(2.4 + per_weight * weights + batch * (0.06 + 1.5e-8 * products))


def hours(cost: Cost, rates: Mapping[str, float]) -> float:
    """How long it all takes, one after the other, at ``rates`` of steps or updates a second."""
    return sum(amount / rates[rate] for rate, amount in cost.work.items()) / 3600


def duration(hours: float) -> str:
    """For people."""
    return f"{hours:,.0f} hours" if hours >= LONG else f"{60 * hours:,.0f} minutes"


def cost_table(costs: Iterable[Cost], measured: Mapping[str, Any]) -> str:
    """A line a rule, the sums, and where the rates come from: ``measured`` is benchmarks/results.json."""
    rules: dict[str, list[Cost]] = {}
    for cost in costs:
        rules.setdefault(cost.rule, []).append(cost)
    times = {rule: sum(hours(entry, measured["rates"]) for entry in entries) for rule, entries in rules.items()}
    total = sum(times.values())
    on_gpu = sum(times[rule] * entries[0].gpu for rule, entries in rules.items())
    unit, factor = ("hours", 1) if total >= LONG else ("minutes", 60)
    lines = [f"{'rule':<20} {'jobs':>7} {unit:>12} {'disk GB':>10} {'memory GB':>10}"]
    for rule, entries in rules.items():
        disk, memory = sum(entry.disk_gb for entry in entries), max(entry.memory_mb for entry in entries) / 1000
        jobs = sum(entry.jobs for entry in entries)
        lines.append(f"{rule:<20} {jobs:>7} {factor * times[rule]:>12,.1f} {disk:>10,.1f} {memory:>10,.1f}")
    everything = [entry for entries in rules.values() for entry in entries]
    in_gpu_jobs = f", {duration(on_gpu)} of it in jobs that ask for a GPU" if on_gpu else ""
    machine = measured["machine"]
    lines += [
        "",
        f"{sum(entry.jobs for entry in everything):,} jobs, {duration(total)}{in_gpu_jobs}; "
        f"{sum(entry.disk_gb for entry in everything):,.1f} GB on disk; at most "
        f"{max(entry.memory_mb for entry in everything) / 1000:,.1f} GB of memory for one job.",
        f"Rates: benchmarks/results.json, measured on {machine['cpu']}, {machine['threads']} threads, "
        f"GPU: {machine['gpu'] or 'none, so hours on a GPU are not known but fewer'}.",
        "Games are taken to last as long as those of the reference teachers; where there is none, their mean.",
    ]
    return "\n".join(lines)
