"""What the configuration means: the games of a set, the settings of each teacher and student, and where things lie.

Imports nothing heavy: every cluster job parses the workflow. Paths begin with ``<results>``, which Snakemake fills in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .sources import NETWORK_DEFAULTS, is_curve, is_imported, source_path

Settings = dict[str, Any]

READ_BY = {
    "dqn": ("loss", ["q_learning"]),
    "temperature": ("loss", ["kl"]),
    "logits_temperature": ("loss", ["kl"]),
    "filters_learning_rate": ("optimizer", ["muon"]),
    "teacher_steps": ("starts", ["teacher"]),
}
"""Keys, and the values of another key that read them: with others they mean nothing, and making agents or scores anew
when they change would change nothing."""


def read(settings: Mapping[str, Any]) -> Settings:
    """Settings without those that mean nothing beside the others."""
    unread = {key for key, (whose, readers) in READ_BY.items() if key in settings and settings[whose] not in readers}
    return {key: value for key, value in settings.items() if key not in unread}


@dataclass(frozen=True)
class Grid:
    """A configuration that has been checked, read by name."""

    config: Mapping[str, Any]

    def games_in(self, name: str) -> list[str]:
        """The games of a set; a game's own name is the set of that game."""
        return list(self.config["game_sets"].get(name, [name]))

    def games_of(self, experiment: Mapping[str, Any]) -> list[str]:
        """Every game that an experiment's students play, in order."""
        return list(dict.fromkeys(game for name in experiment["games"] for game in self.games_in(name)))

    @property
    def games(self) -> list[str]:
        """Every game of any experiment, by name."""
        return sorted({game for entry in self.config["experiments"].values() for game in self.games_of(entry)})

    def network(self, name: str) -> Settings:
        """A network's sizes, in one order and with what is not said: other text would make its agents anew."""
        return dict(sorted({**NETWORK_DEFAULTS, **self.config["networks"][name]}.items()))

    def recipe(self, name: str) -> Settings:
        """What a student learns by: the defaults, and what the recipe changes, as far as it is read."""
        return read({**self.config["distillation"], **self.config["recipes"][name]})

    def distils(self, recipe: str) -> bool:
        """Whether a recipe learns from a teacher, as all do but those of Q-learning."""
        return bool(self.config["recipes"][recipe]["loss"] != "q_learning")

    def teacher(self, game: str) -> Settings:
        """How a game's teacher comes about: the defaults, and what the game changes."""
        teacher = self.config["teacher"]
        changes = teacher["games"].get(game, {})
        return {
            key: {**value, **changes.get(key, {})} if key in ("dqn", "pqn") else changes.get(key, value)
            for key, value in teacher.items()
            if key != "games"
        }

    def trained(self, games: Iterable[str]) -> list[str]:
        """Those of the games whose teachers are trained here."""
        return [game for game in games if self.teacher(game)["source"] == "train"]

    def imported(self, games: Iterable[str]) -> list[str]:
        """Those whose teachers another library trained."""
        return [game for game in games if is_imported(self.teacher(game)["source"])]

    def given(self, games: Iterable[str]) -> list[str]:
        """Those whose teachers are taken from an agent file of this project."""
        sources = {game: self.teacher(game)["source"] for game in games}
        return [game for game, source in sources.items() if source != "train" and not is_imported(source)]

    def joint_dqn(self, games: str, recipe: str) -> Settings:
        """A joint DQN's settings: a DQN teacher's, as many steps for each game, and what the recipe changes.

        A recipe that says how many steps means all games' together.
        """
        teacher = self.config["teacher"]
        own = {
            "steps": len(self.games_in(games)) * teacher["dqn"]["steps"],
            **self.config["recipes"][recipe].get("dqn", {}),
        }
        return algorithm_settings({**teacher, "algorithm": "dqn", "dqn": {**teacher["dqn"], **own}})

    def evaluation(self, game: str) -> Settings:
        """How agents are scored on a game: as everywhere, with the number of episodes that the game has."""
        settings = {**self.config["evaluation"], **self.config["evaluation"]["games"].get(game, {})}
        return {key: value for key, value in read(settings).items() if key not in ("seed", "games")}

    def progress_evaluation(self, episodes: int) -> Settings:
        """A run's own evaluations, with as many episodes as the run asks for."""
        return {"episodes": episodes, **self.config["progress_evaluation"]}

    def teacher_folder(self, game: str) -> str:
        return f"<results>/teachers/{game}/seed{self.config['teacher']['seed']}"

    def teacher_agent(self, game: str) -> str:
        return f"{self.teacher_folder(game)}/agent.safetensors"

    def teacher_scores(self, game: str) -> str:
        return f"{self.teacher_folder(game)}/scores/{game}.csv"

    def random_scores(self, game: str) -> str:
        """Those of uniformly random play."""
        return f"<results>/random/{game}/scores/{game}.csv"

    def teacher_curve(self, game: str) -> list[str]:
        """The teacher's learning curve; a teacher from elsewhere has none."""
        source = self.teacher(game)["source"]
        if source == "train":
            return [f"{self.teacher_folder(game)}/progress.csv"]
        if is_imported(source):
            return []
        curve = source_path(game, source).with_name("progress.csv")
        return [str(curve)] if is_curve(curve, game) else []

    def dataset_folder(self, game: str, teacher: str = "final") -> str:
        return f"<results>/datasets/{game}/online" if teacher == "online" else f"<results>/datasets/{game}"

    def dataset_parts(self, game: str, teacher: str = "final") -> list[str]:
        """A game's play, part by part: by its final teacher, or each by the next snapshot of one that learned."""
        parts = self.teacher(game)["snapshots"] if teacher == "online" else self.config["dataset"]["parts"]
        return [f"{self.dataset_folder(game, teacher)}/part{part}.h5" for part in range(parts)]

    def hours(self, game: str, recipe: str) -> int:
        """Hours of a game's play that a student learns from."""
        return len(self.dataset_parts(game, self.recipe(recipe)["teacher"])) * int(
            self.config["dataset"]["hours_per_part"]
        )

    def dataset_list(self, game: str, teacher: str = "final") -> str:
        """The file that names the parts."""
        return f"{self.dataset_folder(game, teacher)}/parts.txt"


def algorithm_settings(teacher: Mapping[str, Any]) -> Settings:
    """What the algorithm of a teacher's settings is called with."""
    return read({**teacher[teacher["algorithm"]], "evaluate_every": teacher["evaluate_every"]})
