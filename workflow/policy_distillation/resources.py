"""What each kind of job asks for: memory in MB, wall time in minutes.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .grid import Grid

FRAME_BYTES = 84 * 84
PLAYING_MB = 1000
"""A job that plays on a CPU. Recording by 40 emulators took 308 MB at its peak, scoring by 32 took 353."""
BASE_MB = 1500
"""A job that learns, without replay and windows. On a CPU it took 420 to 710 MB; CUDA's part of it was not measured."""


def gpus(grid: Grid) -> int:
    """A job that trains."""
    return int(grid.config["machine"]["device"] != "cpu")


def replay_mb(transitions: int) -> int:
    """A replay's frames, and 8 bytes beside each."""
    return transitions * (FRAME_BYTES + 8) // 10**6


def teacher_mb(teacher: Mapping[str, Any]) -> int:
    """A training job: a DQN's replay, or a PQN's rollout, whose observations are of four frames."""
    if teacher["algorithm"] == "dqn":
        return BASE_MB + replay_mb(teacher["dqn"]["replay_size"])
    return BASE_MB + int(teacher["pqn"]["envs"] * teacher["pqn"]["rollout_steps"] * 4 * FRAME_BYTES // 10**6)


def joint_mb(grid: Grid, games: str, recipe: str) -> int:
    """A joint DQN: a replay for each game."""
    return BASE_MB + replay_mb(len(grid.games_in(games)) * grid.joint_dqn(games, recipe)["replay_size"])


def student_mb(grid: Grid, games: str, recipe: str) -> int:
    """A distillation job: its windows, and an hour to spare."""
    learning = grid.recipe(recipe)
    hours = sum(min(learning["window_hours"], grid.hours(game, recipe)) for game in grid.games_in(games))
    if learning["data"] < 1:  # short runs of steps, each behind three frames of context (sliding_window.RUN)
        hours *= learning["data"] * 11 / 8
    steps = int(hours + 1) * grid.config["dataset"]["steps_per_hour"]
    return BASE_MB + int(steps * (FRAME_BYTES + 128) // 10**6)


def grown(mb: int, attempt: int) -> int:
    """What to ask for when a job is tried again: it may have run out of memory.

    What is uncertain is the base; replay and windows are as large as the configuration says.
    """
    return mb + min(attempt - 1, 3) * BASE_MB


# Wall time to ask for, in minutes, from slow guesses (1,000 steps/s, 100 updates/s).


def capped(grid: Grid, minutes: int) -> int:
    """As long as one job may run: what learns saves its state at the end of its time, and the next attempt goes on."""
    return min(minutes, int(grid.config["machine"]["longest_job_minutes"]))


def teacher_minutes(teacher: Mapping[str, Any]) -> int:
    return 60 + int(teacher[teacher["algorithm"]]["steps"] // 60_000)


def joint_minutes(grid: Grid, games: str, recipe: str) -> int:
    return 60 + int(grid.joint_dqn(games, recipe)["steps"] // 60_000)


def student_minutes(grid: Grid, games: str, recipe: str) -> int:
    hours = sum(grid.hours(game, recipe) for game in grid.games_in(games))
    return 60 + int(hours * grid.recipe(recipe)["updates_per_hour"] // 6_000)
