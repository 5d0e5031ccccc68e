"""The paper's table: a row a game, columns for each variant, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .scores import SCALES, Scores
from .statistics import geometric_mean, geometric_mean_interval

MEAN_ROW = "geometric mean"


PAPER_KEY = ["game", "recipe", "network", "games", "learned"]


@dataclass(frozen=True)
class Paper:
    """The paper's numbers for one experiment, by PAPER_KEY: columns score, percent.

    The teachers' rows name no recipe. Where the paper prints a mean over games without the games, ``game`` is the
    mean's name, ``games`` are those that it is over, and ``learned`` says whether by one network (``together``) or each
    by its own (``apart``); elsewhere both are empty.
    """

    rows: pd.DataFrame

    @classmethod
    def read(cls, path: str | Path, experiment: str) -> Paper:
        """Of an experiment; without rows where the paper has none of this name."""
        rows = pd.read_csv(path, dtype=dict.fromkeys(PAPER_KEY, str)).fillna(dict.fromkeys(PAPER_KEY, ""))
        return cls(rows[rows["experiment"] == experiment].set_index(PAPER_KEY)[["score", "percent"]])

    def number(self, column: str, game: str, recipe: str = "", network: str = "") -> float:
        """NaN where the paper has none."""
        return self._at(column, game, recipe, network, "", "")

    def mean(self, recipe: str, network: str, games: Sequence[str], together: bool) -> float:
        """The percentage that the paper prints for a mean over games; NaN where it has none."""
        learned = "together" if together else "apart"
        return self._at("percent", MEAN_ROW, recipe, network, " ".join(sorted(games)), learned)

    def _at(self, column: str, *key: str) -> float:
        return float(self.rows[column].to_dict().get(key, float("nan")))


def experiment_table(
    scores: Scores,
    paper: Paper,
    against: str = "",
    values: Mapping[str, float] | None = None,
    whole: float = float("nan"),
) -> pd.DataFrame:
    """One row a game, the geometric mean over games, and what the variants differ in.

    Args:
        against: what a last row is called, such as ``temperature``.
        values: what it holds, as scores, for each variant; none: no such row.
        whole: what the values are a percentage of: the teacher's.

    Columns: game; teacher, random (mean scores); teacher_paper (the paper's DQN); for each variant V: V.score (mean),
    V.percent (of the teacher's), V.low and V.high (95% interval), V.normalised (percent of the way from the random
    agent's to the teacher's), V.normalised_low, V.normalised_high, V.score_paper, V.percent_paper; note. What has no
    meaning is left empty and noted. No name contains a dot, so no variant's column is another's or the table's own.
    """
    rows = [_game_row(scores, paper, game) for game in scores.teachers]
    table = pd.DataFrame(rows, columns=columns(scores))
    footer = [_mean_row(scores, paper, table)]
    if values:
        footer.append({"game": against, "note": "", "teacher": whole})
        for variant, value in values.items():
            footer[-1] |= {f"{variant}.score": value, f"{variant}.percent": 100 * value / whole}
    return pd.concat([table, pd.DataFrame(footer, columns=table.columns)], ignore_index=True)


def columns(scores: Scores) -> list[str]:
    parts = ["score", "percent", "low", "high", "normalised", "normalised_low", "normalised_high"]
    parts += ["score_paper", "percent_paper"]
    own = [f"{variant}.{part}" for variant in scores.variants for part in parts]
    return ["game", "teacher", "random", "teacher_paper", *own, "note"]


def _game_row(scores: Scores, paper: Paper, game: str) -> dict[str, Any]:
    row: dict[str, Any] = {"game": game, "teacher": scores.teacher_means[game].value}
    row |= {"random": scores.random_means[game].value, "teacher_paper": paper.number("score", game)}
    for variant in scores.variants:
        if (game, variant) not in scores.runs:
            continue
        found, cell = scores.estimates[game, variant], scores.cell(variant)
        row[f"{variant}.score"] = found["score"].value
        for scale, prefix in zip(SCALES, ("", "normalised_"), strict=True):
            row[f"{variant}.{scale}"] = found[scale].value
            row[f"{variant}.{prefix}low"], row[f"{variant}.{prefix}high"] = found[scale].interval()
        for column in ("score", "percent"):
            row[f"{variant}.{column}_paper"] = paper.number(column, game, cell.recipe, cell.network)
    notes = []
    if not np.any(scores.teachers[game]):
        notes.append("THE TEACHER NEVER SCORED: train it longer or otherwise before you distil it")
    elif not scores.means_something(game, "percent"):
        notes.append("the teacher's mean score is not clearly above zero, so percentages of it mean nothing")
    if not scores.means_something(game, "normalised"):
        notes.append("the teacher's mean score is not clearly above a random agent's")
    return {**row, "note": "; ".join(notes)}


def _mean_row(scores: Scores, paper: Paper, table: pd.DataFrame) -> dict[str, Any]:
    """Over the games that every variant plays; the paper's, where it is over the same ones."""
    games, notes = scores.common_games, []
    row: dict[str, Any] = {"game": MEAN_ROW}
    ours = table.set_index("game").loc[games]
    missing, uncertain = [], []
    for variant in scores.variants:
        cell = scores.cell(variant)
        printed = paper.mean(cell.recipe, cell.network, games, scores.plays_together(variant))
        from_games = geometric_mean(ours[f"{variant}.percent_paper"].tolist())
        row[f"{variant}.percent_paper"] = from_games if np.isnan(printed) else printed
        row[f"{variant}.percent"] = geometric_mean(ours[f"{variant}.percent"].tolist())
        if np.isnan(row[f"{variant}.percent"]):
            missing.append(variant)
            continue
        samples = [scores.estimates[game, variant]["percent"].samples for game in games]
        row[f"{variant}.low"], row[f"{variant}.high"], at_zero = geometric_mean_interval(samples)
        if at_zero:
            uncertain.append(f"{variant}: {100 * at_zero:.2g}%")
    if not games:
        notes.append("no game is played by every variant, so there is no mean")
    elif len(games) < len(table):
        notes.append(f"over {', '.join(games)} alone, which every variant plays")
    if games and missing:
        notes.append(f"no geometric mean for {', '.join(missing)}: a percentage is empty or not positive")
    if uncertain:
        notes.append(
            f"resamples in which a game's percentage was not positive count as zero ({'; '.join(uncertain)} of them)"
        )
    return {**row, "note": "; ".join(notes)}
