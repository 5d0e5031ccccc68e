"""An experiment's scores: its episodes, what they say of each game, and the long table, a row a cell and game."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from .cells import Cell
from .statistics import Estimate, Returns, mean_return, relative_score

SCALES = ("percent", "normalised")
"""In percent of the teacher's score, as in the paper; and of the way to it from a random agent's."""


def read_returns(path: str | Path) -> Returns:
    """The episode returns in a scores file, by slot and episode: all agents' are of the same emulator seeds."""
    return pd.read_csv(path).sort_values(["slot", "episode"])["return"].to_numpy(np.float64)


@dataclass(frozen=True)
class Student:
    """One student on one of its games."""

    cell: Cell
    variant: str
    """What tells the experiment's students of one game apart, seeds aside (cells.variant)."""
    game: str
    returns: Returns
    """Of its episodes."""


@dataclass(frozen=True)
class Scores:
    """What the agents of an experiment scored, and estimates of it."""

    teachers: Mapping[str, Returns]
    """Episode returns by game, in the table's order."""
    randoms: Mapping[str, Returns]
    """A random agent's."""
    students: Sequence[Student]

    @cached_property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(student.variant for student in self.students))

    def cell(self, variant: str) -> Cell:
        """One of the variant's cells: they differ in the seed, and where sets have no game in common, in the games."""
        return next(student.cell for student in self.students if student.variant == variant)

    @cached_property
    def runs(self) -> dict[tuple[str, str], list[Returns]]:
        """Episode returns of each seed, by game and variant."""
        found: dict[tuple[str, str], list[Returns]] = {}
        for student in self.students:
            found.setdefault((student.game, student.variant), []).append(student.returns)
        return found

    def plays_together(self, variant: str) -> bool:
        """Whether one of the variant's networks plays several games."""
        cell = self.cell(variant)
        return len({student.game for student in self.students if student.cell == cell}) > 1

    def seeds(self, variant: str) -> int:
        """How many there are of a variant, of the game that has the fewest."""
        return min(len(runs) for (_, name), runs in self.runs.items() if name == variant)

    @cached_property
    def common_games(self) -> list[str]:
        """The games that every variant plays: what is averaged over games is averaged over these."""
        return self.played_by(self.variants)

    def played_by(self, variants: Sequence[str]) -> list[str]:
        """The games that all of these variants play."""
        return [game for game in self.teachers if all((game, variant) in self.runs for variant in variants)]

    @cached_property
    def teacher_means(self) -> dict[str, Estimate]:
        return {game: _estimate(game, [returns]) for game, returns in self.teachers.items()}

    @cached_property
    def random_means(self) -> dict[str, Estimate]:
        return {game: _estimate(game, [self.randoms[game]]) for game in self.teachers}

    @cached_property
    def estimates(self) -> dict[tuple[str, str], dict[str, Estimate]]:
        """By game and variant: ``score``, and what it is on each scale."""
        found, cells = {}, {(student.game, student.variant): student.cell for student in self.students}
        for (game, variant), runs in self.runs.items():
            games, recipe, network, _ = cells[game, variant]
            found[game, variant] = self.relative(game, _estimate(game, runs, (games, recipe, network)))
        return found

    def relative(self, game: str, score: Estimate) -> dict[str, Estimate]:
        """A mean score of a game, and what it is on each scale."""
        teacher, random = self.teacher_means[game], self.random_means[game]
        return {
            "score": score,
            "percent": relative_score(score, teacher),
            "normalised": relative_score(score, teacher, random),
        }

    def means_something(self, game: str, scale: str) -> bool:
        """Whether a game's scores can be given on a scale. That is its teacher's doing: the same for all variants."""
        return all(np.isfinite(found[scale].value) for (name, _), found in self.estimates.items() if name == game)

    def on_scale(self, game: str, scale: str, returns: Returns) -> Returns:
        """Returns of a game, on a scale, with the teacher's mean and the random agent's taken for exact."""
        zero = np.mean(self.randoms[game]) if scale == "normalised" else 0.0
        scaled: Returns = 100.0 * (returns - zero) / (np.mean(self.teachers[game]) - zero)
        return scaled


def long_table(experiment: str, scores: Scores) -> pd.DataFrame:
    """One row an agent and game.

    Columns: experiment; games (the set that a student learned together), game; role (teacher, random or student);
    recipe, network, seed (of students); variant (what the wide table calls it); episodes; score (mean return); error
    (its standard error over episodes); percent and normalised, each with _low and _high (95% interval over episodes).
    """
    rows: list[dict[str, object]] = []
    for game in scores.teachers:
        common = {"experiment": experiment, "game": game}
        rows.append({**common, "role": "teacher", **_summary(scores.teachers[game])})
        rows.append({**common, "role": "random", **_summary(scores.randoms[game])})
        for student in scores.students:
            if student.game == game:
                row = {**common, "role": "student", **student.cell._asdict(), "variant": student.variant}
                relative = scores.relative(game, _estimate(game, [student.returns]))
                for scale in SCALES:
                    low, high = relative[scale].interval()
                    row |= {scale: relative[scale].value, f"{scale}_low": low, f"{scale}_high": high}
                rows.append(row | _summary(student.returns))
    intervals = [f"{scale}{end}" for scale in SCALES for end in ("", "_low", "_high")]
    names = ["experiment", "games", "game", "role", "recipe", "network", "seed", "variant"]
    frame = pd.DataFrame(rows, columns=[*names, "episodes", "score", "error", *intervals])
    return frame.astype({"seed": "Int64"})


def _estimate(game: str, runs: Sequence[Returns], agent: Sequence[str] = ()) -> Estimate:
    """A game's mean return; ``agent`` tells runs from another's, whatever the game. The same in every experiment."""
    seed = [zlib.crc32(name.encode()) for name in agent]
    return mean_return(runs, seed, episodes=zlib.crc32(game.encode()))


def _summary(returns: Returns) -> dict[str, object]:
    count = len(returns)
    error = float(np.std(returns, ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return {"episodes": count, "score": float(np.mean(returns)), "error": error}
