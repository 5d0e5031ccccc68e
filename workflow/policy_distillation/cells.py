"""An experiment's cells: its students, what tells them apart in its table, and the files that the table is made of.

Imports nothing heavy: every cluster job parses the workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .grid import Grid

Experiment = Mapping[str, Any]


class Cell(NamedTuple):
    """One student of the grid."""

    games: str
    recipe: str
    network: str
    seed: int

    @property
    def folder(self) -> str:
        return f"<results>/students/{self.games}/{self.recipe}/{self.network}/seed{self.seed}"

    @property
    def agent(self) -> str:
        return f"{self.folder}/agent.safetensors"

    @property
    def curve(self) -> str:
        return f"{self.folder}/progress.csv"

    def scores(self, game: str) -> str:
        return f"{self.folder}/scores/{game}.csv"


def cells(experiment: Experiment) -> list[Cell]:
    """An experiment's students."""
    return [
        Cell(games, recipe, network, seed)
        for games in experiment["games"]
        for recipe in experiment["recipes"]
        for network in experiment["networks"]
        for seed in experiment["seeds"]
    ]


def variant(experiment: Experiment, cell: Cell) -> str:
    """What tells an experiment's columns apart: the recipe, the network, or both, whichever it has several of."""
    parts = {"recipes": cell.recipe, "networks": cell.network}
    return "_".join(value for key, value in parts.items() if len(experiment[key]) > 1) or cell.recipe


def variants(experiment: Experiment) -> list[str]:
    """Each of an experiment's variants once, in order."""
    return list(dict.fromkeys(variant(experiment, cell) for cell in cells(experiment)))


def scored(grid: Grid, experiment: Experiment) -> list[tuple[str, Cell]]:
    """(game, cell) for each of an experiment's students on each of its games."""
    return [(game, cell) for cell in cells(experiment) for game in grid.games_in(cell.games)]


def distilled(grid: Grid, experiment: Experiment) -> list[Cell]:
    """The cells that learn from a teacher: all but those of Q-learning."""
    without = grid.recipes_by("q_learning")
    return [cell for cell in cells(experiment) if cell.recipe not in without]


def beside_teachers(grid: Grid, experiment: Experiment) -> list[Cell]:
    """The cells whose learning curves an experiment's own figure shows: beside the teachers', or none."""
    return distilled(grid, experiment) if experiment.get("against") == "teacher" else []


def against(grid: Grid, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """What the variants differ in, as rows of the table."""
    row = experiment.get("against")
    if row == "parameters":
        return {row: {**{name: grid.network(name) for name in experiment["networks"]}, "teacher": grid.network("dqn")}}
    if row in ("temperature", "logits_temperature", "data"):
        return {row: {name: grid.recipe(name)[row] for name in experiment["recipes"]}}
    return {}


def filmed(grid: Grid, experiment: Experiment, game: str) -> list[Cell]:
    """The cells of an experiment's first seed that play a game."""
    playing = [cell for name, cell in scored(grid, experiment) if name == game]
    return [cell for cell in playing if cell.seed == experiment["seeds"][0]]


def results_of(grid: Grid, names: Iterable[str]) -> Iterator[str]:
    """What experiments ask for."""
    for name in names:
        yield f"<results>/table_{name}.csv"
        yield f"<results>/aggregates_{name}.csv"
        yield f"<results>/figures/{name}.png"
        yield f"<results>/figures/{name}_curves.png"
    if any(grid.teacher_curve(game) for game in grid.games):
        yield "<results>/figures/teacher_curves.png"
