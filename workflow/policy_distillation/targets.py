"""Checking the files that a command asks for, before Snakemake plans them: do they exist in this configuration?

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from .checks import check_controllers, check_game, check_learning, check_snapshots, known
from .config import ConfigError
from .grid import Grid

TABLES = "(?:table|scores|aggregates|exports)"
ENDINGS = r"\.(?:csv|csv\.json|md|tex|html)"


def check_target(grid: Grid, target: str) -> None:
    """Raise ConfigError where a path below the results names a game, recipe, network or experiment that there is not.

    Snakemake would say that no rule makes it, name a key that is missing, or plan the work. Other paths pass.
    """
    results, path = os.path.normpath(grid.config["results"]), os.path.normpath(target)
    if not path.startswith(f"{results}/"):
        return
    kind, *names = path.removeprefix(f"{results}/").split("/")
    experiments = grid.config["experiments"]
    if kind == "students" and len(names) > 3:
        _check_student_target(grid, target, *names)
    elif kind in ("teachers", "random", "datasets", "reference_teachers", "reference_students") and len(names) > 1:
        game, *rest = names
        check_game(target, game)
        if kind == "teachers":
            _check_seed(target, rest[0])
        if kind == "datasets":
            _check_part(grid, target, game, *rest)
        if kind == "reference_students":
            known(target, rest[0], grid.config["networks"], "network")
        _check_played(target, rest[1:] if kind in ("teachers", "reference_students") else rest, [game])
    elif kind == "figures" and names and names[0].startswith("teacher_curves."):
        if not any(map(grid.teacher_curve, grid.games)):
            raise ConfigError(f"{target}: no teacher of this configuration has a learning curve")
    elif kind in ("figures", "videos") and len(names) > 1:
        known(target, names[0], experiments, "experiment")
        allowed = ["scores", "curves", "profile"] if kind == "figures" else grid.games_of(experiments[names[0]])
        known(target, names[1].split(".")[0], allowed, f"{kind.removesuffix('s')} of that experiment")
    elif match := re.fullmatch(rf"{TABLES}_(.+?){ENDINGS}", kind):
        known(target, match[1], experiments, "experiment")


def check_place(grid: Grid, target: str) -> None:
    """Raise ConfigError for a result that would lie elsewhere: another profile's, or by another name of the folder."""
    results, path = os.path.normpath(grid.config["results"]), os.path.normpath(target)
    own = re.search(
        rf"(?:^|/)({TABLES}_\w+{ENDINGS}|index\.html|"
        r"(?:students|teachers)/.+/(?:agent\.safetensors|progress\.csv|scores/\w+\.csv)|"
        r"datasets/.+/(?:part[0-9]+\.h5|parts\.txt)|figures/.+\.(?:png|svg|pdf)|videos/.+\.mp4)$",
        path,
    )
    if own and path != f"{results}/{own[1]}" and not os.path.exists(path):
        raise ConfigError(
            f"{target}: this configuration's results are below {results}; allowed: {results}/{own[1]}, or the "
            f"--profile or --configfile whose results lie there"
        )


def _check_student_target(
    grid: Grid, target: str, games: str, recipe: str, network: str, seed: str, *rest: str
) -> None:
    check_game(target, games, grid.config["game_sets"])
    known(target, recipe, grid.config["recipes"], "recipe")
    known(target, network, grid.config["networks"], "network")
    _check_seed(target, seed)
    _check_played(target, rest, grid.games_in(games))
    check_controllers(grid, target, games, network)
    check_learning(grid, target, games, recipe)


def _check_seed(target: str, seed: str) -> None:
    match = re.fullmatch("seed(0|[1-9][0-9]*)", seed)
    if not match or int(match[1]) >= 2**32:
        raise ConfigError(f"{target}: unknown seed {seed!r}; allowed: seed0, seed1, ..., seed{2**32 - 1}")


def _check_played(target: str, names: Sequence[str], games: Sequence[str]) -> None:
    """An agent's scores or exports on a game that it does not play."""
    if len(names) == 2 and names[0] in ("scores", "onnx"):
        known(target, names[1].split(".")[0], games, "game of that agent")


def _check_part(grid: Grid, target: str, game: str, *names: str) -> None:
    if len(names) > 1:
        known(target, names[0], ["online"], "kind of data beside those of the finished teacher")
    teacher = "online" if names[0] == "online" else "final"
    if teacher == "online":
        check_snapshots(grid, f"{target}: it", game)
    parts = len(grid.dataset_parts(game, teacher))
    match = re.fullmatch(r"part([0-9]+)\.h5", names[-1])
    if match and match[1] not in map(str, range(parts)):
        raise ConfigError(f"{target}: unknown part {match[1]}; allowed: 0 to {parts - 1}")
