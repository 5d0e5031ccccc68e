"""Aggregates over games and seeds (Agarwal et al. 2021, arXiv 2108.13264), as a long table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from .scores import SCALES, Scores
from .statistics import METRICS, Metric, Returns, probability_of_improvement, stratified_bootstrap_interval

COLUMNS = ["variant", "metric", "against", "scale", "value", "low", "high", "games", "seeds", "resampled"]


def aggregate_table(scores: Scores) -> pd.DataFrame:
    """One row a variant, metric and scale, with a 95% stratified bootstrap interval.

    Columns: variant; metric: iqm (interquartile mean), median, mean, optimality_gap, or probability_of_improvement over
    another variant, named in ``against``; scale: percent, normalised, or score where it does not matter; value, low,
    high; games: how many; seeds; resampled: ``seeds``, or ``episodes`` where there is one seed, and then the interval
    says nothing about another training run. Over the games that every variant plays and for which the scale means
    something; with none, the values are empty.
    """
    rows: list[dict[str, object]] = []
    several = all(len(runs) > 1 for runs in scores.runs.values())
    for variant in scores.variants:
        for scale in SCALES:
            games = [game for game in scores.common_games if scores.means_something(game, scale)]
            runs = [scores.on_scale(game, scale, _runs(scores, game, variant, several)) for game in games]
            for name, metric in METRICS.items():
                value, low, high = _estimate(runs, metric if several else _of_means(metric))
                row = {"variant": variant, "metric": name, "scale": scale, "games": len(games)}
                rows.append({**row, "value": value, "low": low, "high": high})
    rows.extend(_improvements(scores, several))
    rows.sort(key=lambda row: scores.variants.index(str(row["variant"])))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["seeds"] = [scores.seeds(variant) for variant in table["variant"]]
    return table.assign(resampled="seeds" if several else "episodes")


def _runs(scores: Scores, game: str, variant: str, several: bool) -> Returns:
    """The scores of the runs; or, of one run alone, its episodes."""
    runs = scores.runs[game, variant]
    return np.array([np.mean(returns) for returns in runs]) if several else runs[0]


def _of_means(metric: Metric) -> Metric:
    """The metric where each game's only run is the mean of the episodes given."""
    return lambda games: metric([episodes.mean(axis=-1, keepdims=True) for episodes in games])


def _estimate(runs: Sequence[Returns], metric: Metric) -> tuple[float, float, float]:
    if not runs:
        return (float("nan"),) * 3
    low, high = stratified_bootstrap_interval(runs, metric)
    return float(metric(runs)), float(low), float(high)


def _improvements(scores: Scores, several: bool) -> Iterator[dict[str, object]]:
    """The chance that a run (of one seed: a game played) of each variant beats one of each other variant."""
    games = scores.common_games
    for first, second in combinations(scores.variants, 2):
        value, low, high = (float("nan"),) * 3
        if games:
            ours, theirs = ([_runs(scores, game, name, several) for game in games] for name in (first, second))
            value, low, high = probability_of_improvement(ours, theirs)
        row = {"metric": "probability_of_improvement", "scale": "score", "games": len(games)}
        yield {**row, "variant": first, "against": second, "value": value, "low": low, "high": high}
        yield {**row, "variant": second, "against": first, "value": 1 - value, "low": 1 - high, "high": 1 - low}
