"""Numbers for the tables: relative scores, aggregates over games and seeds, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Returns = NDArray[np.float64]


def relative_score(students: Sequence[Returns], teacher: Returns) -> float:
    """Mean return of the students in percent of the teacher's; NaN where the teacher's mean is not positive.

    Args:
        students: one array of episode returns per seed; seeds weigh equally.
        teacher: the teacher's episode returns.
    """
    denominator = float(np.mean(teacher))
    if denominator <= 0:
        return float("nan")
    return 100.0 * float(np.mean([np.mean(returns) for returns in students])) / denominator


def relative_score_interval(
    students: Sequence[Returns], teacher: Returns, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of :func:`relative_score`; see :func:`relative_score_samples`."""
    return _percentiles(relative_score_samples(students, teacher, seed, resamples), level)


def relative_score_samples(
    students: Sequence[Returns], teacher: Returns, seed: int = 0, resamples: int = 10_000
) -> Returns:
    """Bootstrap distribution of :func:`relative_score`, (resamples,); NaN where the teacher's mean is not positive.

    Resamples the seeds, then each one's episodes, and the teacher's episodes. With one seed the spread is that of the
    episodes alone: it says how well this student was measured, not how much another training run would differ.
    """
    if np.mean(teacher) <= 0:
        return np.full(resamples, np.nan)
    rng = np.random.default_rng(seed)
    denominators = _bootstrap_means(teacher, resamples, rng)
    per_seed = np.stack([_bootstrap_means(returns, resamples, rng) for returns in students])
    picks = rng.integers(0, len(students), (len(students), resamples))
    numerators = np.take_along_axis(per_seed, picks, axis=0).mean(axis=0)
    # A teacher near zero: ratios with a resampled mean below it mean nothing.
    return np.where(denominators > 0, 100.0 * numerators / np.where(denominators > 0, denominators, 1.0), np.nan)


def geometric_mean_interval(samples: Sequence[Returns], level: float = 0.95) -> tuple[float, float]:
    """Interval of the geometric mean over games, from each game's bootstrap distribution."""
    matrix = np.stack(samples)
    positive = np.where(matrix > 0, matrix, np.nan)
    return _percentiles(np.exp(np.log(positive).mean(axis=0)), level)


def _percentiles(values: Returns, level: float) -> tuple[float, float]:
    usable = values[np.isfinite(values)]
    if len(usable) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(usable, [50.0 * (1.0 - level), 50.0 * (1.0 + level)])
    return float(low), float(high)


def _bootstrap_means(returns: Returns, resamples: int, rng: np.random.Generator) -> Returns:
    picks = rng.integers(0, len(returns), (resamples, len(returns)))
    means: Returns = returns[picks].mean(axis=1)
    return means


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; NaN if there are none, or if one is missing or not positive."""
    numbers = np.asarray(values, np.float64)
    if len(numbers) == 0 or not np.all(np.isfinite(numbers)) or np.any(numbers <= 0):
        return float("nan")
    return float(np.exp(np.mean(np.log(numbers))))


def interquartile_mean(scores: Returns) -> float:
    """Mean of the middle half of all entries (Agarwal et al. 2021, arXiv 2108.13264)."""
    ordered = np.sort(scores, axis=None)
    cut = int(0.25 * len(ordered))
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def stratified_bootstrap_interval(
    scores: Sequence[Returns],
    metric: Callable[[Sequence[Returns]], float],
    seed: int = 0,
    resamples: int = 2_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a metric of each game's runs, which are drawn anew for each game by itself.

    Resamples for which the metric is NaN (a geometric mean with a score below zero) are left out.
    """
    rng = np.random.default_rng(seed)
    values = [metric([rng.choice(runs, len(runs)) for runs in scores]) for _ in range(resamples)]
    return _percentiles(np.asarray(values), level)


def unsteadiness(curve: Returns, points: int) -> float:
    """Mean absolute change between neighbours of ``points`` evenly spaced points of a learning curve.

    Curves with different numbers of evaluations are comparable at the same number of points.
    """
    picked = curve[np.linspace(0, len(curve) - 1, points).round().astype(int)]
    return float(np.abs(np.diff(picked)).mean())


def probability_of_improvement(first: Sequence[Returns], second: Sequence[Returns]) -> float:
    """Chance that a run of the first beats one of the second on a random game; a tie counts as half.

    Args:
        first, second: for each game the scores of the runs, whose numbers may differ.
    """
    differences = [np.sign(np.subtract.outer(ours, theirs)) for ours, theirs in zip(first, second, strict=True)]
    return float(np.mean([0.5 + 0.5 * np.mean(signs) for signs in differences]))
