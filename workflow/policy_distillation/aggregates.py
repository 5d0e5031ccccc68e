"""Aggregates over games and seeds (Agarwal et al. 2021, arXiv 2108.13264), as a long table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from .scores import SCALES, Scores
from .statistics import METRICS, Estimate, Metric, Returns, chance_to_win, probability_of_improvement

COLUMNS = ["variant", "metric", "against", "scale", "value", "low", "high", "games", "seeds", "uncertain"]


def aggregate_table(scores: Scores) -> pd.DataFrame:
    """One row a variant, metric and scale, with a 95% interval.

    Agarwal et al. draw each game's runs anew. Of the three that there often are, that covers the truth far less often
    than it says: 76 to 88 times in a hundred. Here each game's runs are shifted together by what the mean of the game
    might be off (statistics.mean_return), so these intervals know what those of the table's rows know: episodes,
    teachers, random play, and of several seeds how they differ.

    Columns: variant; metric: iqm (interquartile mean), median, mean, optimality_gap, or probability_of_improvement over
    another variant, named in ``against``; scale: percent, normalised, or score where it does not matter; value, low,
    high; games: how many; seeds; uncertain: ``seeds and episodes``, or ``episodes`` where there is one seed, and then
    the interval says nothing about another training run. Over the games that every variant plays and for which the
    scale means something; with none, the values are empty.
    """
    rows: list[dict[str, object]] = []
    several = all(len(runs) > 1 for runs in scores.runs.values())
    for variant in scores.variants:
        for scale in SCALES:
            games = [game for game in scores.common_games if scores.means_something(game, scale)]
            runs = [_runs(scores, game, variant, scale) for game in games]
            for name, metric in METRICS.items():
                found = _estimate(runs, metric)
                low, high = found.interval()
                row = {"variant": variant, "metric": name, "scale": scale, "games": len(games)}
                rows.append({**row, "value": found.value, "low": low, "high": high})
    rows.extend(_improvements(scores, several))
    rows.sort(key=lambda row: scores.variants.index(str(row["variant"])))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["seeds"] = [scores.seeds(variant) for variant in table["variant"]]
    return table.assign(uncertain="seeds and episodes" if several else "episodes")


def _runs(scores: Scores, game: str, variant: str, scale: str) -> tuple[Returns, Returns]:
    """The runs' scores, (runs,), and what they might have been, (resamples, runs)."""
    means = np.array([np.mean(returns) for returns in scores.runs[game, variant]])
    found = scores.estimates[game, variant][scale]
    if scale != "score":
        means = scores.on_scale(game, scale, means)
    return means, means + (found.samples - found.value)[:, None]


def _estimate(games: Sequence[tuple[Returns, Returns]], metric: Metric) -> Estimate:
    if not games:
        return Estimate(float("nan"), np.full(1, np.nan))
    means, drawn = zip(*games, strict=True)
    return Estimate(float(metric(means)), metric(drawn))


def _improvements(scores: Scores, several: bool) -> Iterator[dict[str, object]]:
    """The chance that a run (of one seed: a game played) of each variant beats one of each other variant."""
    games = scores.common_games
    for first, second in combinations(scores.variants, 2):
        value, low, high = (float("nan"),) * 3
        if games and several:
            pairs = [[_runs(scores, game, name, "score") for name in (first, second)] for game in games]
            chances = [[chance_to_win(*each) for each in zip(*pair, strict=True)] for pair in pairs]
            value, samples = (np.mean(each, axis=0) for each in zip(*chances, strict=True))
            low, high = Estimate(float(value), samples).interval()
        elif games:
            ours, theirs = ([scores.runs[game, name][0] for game in games] for name in (first, second))
            value, low, high = probability_of_improvement(ours, theirs)
        row = {"metric": "probability_of_improvement", "scale": "score", "games": len(games)}
        yield {**row, "variant": first, "against": second, "value": value, "low": low, "high": high}
        yield {**row, "variant": second, "against": first, "value": 1 - value, "low": 1 - high, "high": 1 - low}
