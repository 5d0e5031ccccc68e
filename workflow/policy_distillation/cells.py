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


SINGLE = "single-task"
"""How students of a game's own name are called beside those of game sets; no set can have this name."""


def _distinctions(grid: Grid, experiment: Experiment, cell: Cell) -> dict[str, str]:
    games = [game for name in experiment["games"] for game in grid.games_in(name)]
    several = {
        "games": len(set(games)) < len(games),
        "recipe": len(experiment["recipes"]) > 1,
        "network": len(experiment["networks"]) > 1,
    }
    parts = {**cell._asdict(), "games": cell.games if cell.games in grid.config["game_sets"] else SINGLE}
    return {key: parts[key] for key, needed in several.items() if needed}


def variant(grid: Grid, experiment: Experiment, cell: Cell) -> str:
    """What tells an experiment's students of one game apart, seeds aside, such as ``kl`` or ``multi3/kl/net1``.

    The recipe and the network where there are several, and the game set where a game is in more than one. Joined by
    what no name contains, so that different cells never share a variant.
    """
    return "/".join(_distinctions(grid, experiment, cell).values()) or cell.recipe


def variants(grid: Grid, experiment: Experiment) -> dict[str, Cell]:
    """Each of an experiment's variants, in order, and the first of its cells."""
    found: dict[str, Cell] = {}
    for cell in cells(experiment):
        found.setdefault(variant(grid, experiment, cell), cell)
    return found


def series(grid: Grid, experiment: Experiment) -> dict[str, str]:
    """For each variant what it has in common with those that differ from it in ``against`` alone, or ""."""
    varied = "network" if experiment["against"] == "parameters" else "recipe"
    return {
        name: "/".join(part for key, part in _distinctions(grid, experiment, cell).items() if key != varied)
        for name, cell in variants(grid, experiment).items()
    }


def scored(grid: Grid, experiment: Experiment) -> list[tuple[str, Cell]]:
    """(game, cell) for each of an experiment's students on each of its games."""
    return [(game, cell) for cell in cells(experiment) for game in grid.games_in(cell.games)]


def distilled(grid: Grid, experiment: Experiment) -> list[Cell]:
    """The cells that learn from a teacher: all but those of Q-learning."""
    return [cell for cell in cells(experiment) if grid.distils(cell.recipe)]


def with_curves(grid: Grid, experiment: Experiment) -> list[Cell]:
    """The cells whose learning curves are drawn together: those distilled, by updates; or else all, by agent steps."""
    return distilled(grid, experiment) or cells(experiment)


def beside_teachers(grid: Grid, experiment: Experiment) -> list[Cell]:
    """The cells whose learning curves an experiment's own figure shows: beside the teachers', or none."""
    return distilled(grid, experiment) if experiment.get("against") == "teacher" else []


def taught(grid: Grid, experiment: Experiment) -> list[str]:
    """The games whose teachers' curves are in that figure: teachers from elsewhere have none."""
    if experiment.get("against") != "teacher":
        return []
    return [game for game in grid.games_of(experiment) if grid.teacher_curve(game)]


def values(grid: Grid, experiment: Experiment) -> dict[str, Any]:
    """What ``against`` is for each variant: a temperature, a fraction of the data, or a network's sizes and how many
    games it plays."""
    key = experiment.get("against")
    if key == "parameters":
        return {
            name: [grid.network(cell.network), len(grid.games_in(cell.games))]
            for name, cell in variants(grid, experiment).items()
        }
    if key in ("temperature", "logits_temperature", "data"):
        return {name: grid.recipe(cell.recipe)[key] for name, cell in variants(grid, experiment).items()}
    return {}


def filmed(grid: Grid, experiment: Experiment, game: str) -> list[Cell]:
    """The cells of an experiment's first seed that play a game."""
    first = experiment["seeds"][0]
    return [cell for name, cell in scored(grid, experiment) if name == game and cell.seed == first]


def _claim(grid: Grid, experiment: Experiment, claim: Mapping[str, Any]) -> Mapping[str, Any]:
    """As it stands, but where its variant is named by its network: an only one goes by its recipe's name."""
    (only, cell), *others = variants(grid, experiment).items()
    if others or "against" in claim or claim["variant"] != cell.network:
        return claim
    return {**claim, "variant": only}


def table_facts(grid: Grid, experiment: Experiment) -> dict[str, Any]:
    """What an experiment's table is made by, beside its episodes.

    ``students``, in the order of their files: the cell, the game, the variant, and the list of the ``data`` that it
    learnt that game from. ``recipes``, by ``games/recipe``, and ``networks``: what they should have been made by.
    """
    made, recipes = cells(experiment), {}
    for cell in made:
        distils = grid.distils(cell.recipe)
        settings = grid.recipe(cell.recipe) if distils else grid.joint_dqn(cell.games, cell.recipe)
        recipes[f"{cell.games}/{cell.recipe}"] = {
            name: value for name, value in settings.items() if name != "evaluation_episodes"
        }
    students = [
        {
            **cell._asdict(),
            "game": game,
            "variant": variant(grid, experiment, cell),
            "data": grid.dataset_list(game, grid.recipe(cell.recipe)["teacher"]) if grid.distils(cell.recipe) else "",
        }
        for game, cell in scored(grid, experiment)
    ]
    return {
        "title": experiment["title"],
        "games": grid.games_of(experiment),
        "students": students,
        "against": experiment.get("against") or "",
        "values": values(grid, experiment),
        "claims": [_claim(grid, experiment, claim) for claim in experiment.get("claims", [])],
        "recipes": recipes,
        "networks": {cell.network: grid.network(cell.network) for cell in made},
    }


def figure_facts(grid: Grid, experiment: Experiment, drawn: Iterable[Cell]) -> dict[str, Any]:
    """What an experiment's figures are made by; ``curves`` in the order of the files of the cells that are drawn."""
    return {
        "games": grid.games_of(experiment),
        "variants": list(variants(grid, experiment)),
        "against": experiment.get("against") or "",
        "series": series(grid, experiment) if values(grid, experiment) else {},
        "curves": [[grid.games_in(cell.games), variant(grid, experiment, cell)] for cell in drawn],
    }


def has_profile(grid: Grid, experiment: Experiment) -> bool:
    """Whether there is a distribution of runs over games to draw: several games, several seeds."""
    return len(grid.games_of(experiment)) > 1 and len(experiment["seeds"]) > 1


def figures(grid: Grid, name: str) -> list[str]:
    """An experiment's figures, without the endings of their files."""
    profile = ["profile"] if has_profile(grid, grid.config["experiments"][name]) else []
    return [f"<results>/figures/{name}/{kind}" for kind in ("scores", "curves", *profile)]


def results_of(grid: Grid, names: Iterable[str]) -> Iterator[str]:
    """What experiments ask for."""
    for name in names:
        yield f"<results>/table_{name}.csv"
        yield from (f"{figure}.png" for figure in figures(grid, name))
