"""Numbers for the tables: relative scores, aggregates over games and seeds, and their intervals.

A *run* is one training seed. Aggregates are those of Agarwal et al. 2021 (arXiv 2108.13264); their metrics take, for
each game, an array whose last axis is the game's runs, so that a thousand resamples are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Returns = NDArray[np.float64]
Metric = Callable[[Sequence[Returns]], Returns]
MIDDLE = [50.0 * (1.0 - 0.95), 50.0 * (1.0 + 0.95)]
"""The percentiles between which the middle 95% lie."""


# A game's scores


@dataclass(frozen=True)
class Estimate:
    """A number, and what it might have been; all NaN where it means nothing."""

    value: float
    samples: Returns
    """(resamples,)."""

    def interval(self) -> tuple[float, float]:
        """The middle 95% of ``samples``."""
        return _percentiles(self.samples)


def mean_return(
    runs: Sequence[Returns],
    seed: int | Sequence[int] = 0,
    resamples: int = 10_000,
    episodes: int | Sequence[int] = 0,
) -> Estimate:
    """The mean over runs of each one's mean return.

    Episodes are drawn anew, the same ones for each run, and for every agent with as many and the same ``episodes``: all
    of them play a game's episodes from the same emulator seeds, so that what makes an episode rich or poor may move
    them together. (Freeway's returns are correlated by 0.6 between agents, those of three other games by less than
    0.1.) Drawn apart, the interval of a mean over seeds would then be too narrow, that of a difference too wide.

    Where runs differ by more than their episodes explain, that comes on top, with Student's t for the few that there
    are. Half of what the episodes explain is taken off. All of it would be right in the mean, but is too much in half
    of all cases: simulated, with normal returns of runs that differ by up to five times what their episodes explain,
    the interval then holds the truth as rarely as 86 times in a hundred with two runs, 91 with three; so it is 90 to 96
    and 93 to 98. With one run nothing is known of it: the samples say how well this run was measured, not how much
    another would differ.

    Drawing runs and then their episodes, as is often done, counts the episodes' spread twice, in the drawn episodes and
    in the runs' means; for runs that agree the variance is up to three times what it should be.

    A run may have other means, in the games that its network plays besides. With the same ``seed`` they move with this
    one, as the runs' means did together: a network that is poor in all its games is one misfortune, not several that
    make up for each other. Taken for several, the interval of a mean over three games held the truth 89 times in a
    hundred, over ten 81.

    Args:
        runs: one array of episode returns per seed, in the order of their episodes; seeds weigh equally.
        seed: of what runs differ by: an agent's own, the same in all its games, whose runs are in the same order.
        episodes: of which episodes are drawn: a game's.
    """
    means, count = np.array([np.mean(returns) for returns in runs]), len(runs)
    samples = np.mean([_bootstrap_means(returns, resamples, episodes) for returns in runs], axis=0)
    if count > 1:
        variance, rng = float(np.var(means, ddof=1)), np.random.default_rng(seed)
        excess = max(0.0, variance - _variance_of_means(runs) / 2)
        # A sum of the runs' deviations with normal weights is normal; over the root of a chi-squared it is Student's t.
        weights = rng.standard_normal((resamples, count)) / np.sqrt(count * rng.chisquare(count - 1, (resamples, 1)))
        samples = samples + weights @ (means - means.mean()) * np.sqrt(excess / (variance or 1.0))
    return Estimate(float(means.mean()), samples)


def _variance_of_means(runs: Sequence[Returns]) -> float:
    """What the runs' means would vary by if the runs were alike: by their episodes, less what these have in common.

    That is the variance between runs within an episode, beside the runs' own means, averaged over the episodes and
    divided by their number: the interaction of a two-way analysis of variance.
    """
    if len({len(returns) for returns in runs}) > 1 or len(runs[0]) == 1:  # not the same episodes, or one
        return float(np.mean([np.var(returns) / len(returns) for returns in runs]))
    own = np.stack(runs)
    own = own - own.mean(axis=0) - own.mean(axis=1, keepdims=True) + own.mean()
    seeds, episodes = own.shape
    return float((own**2).sum() / (seeds - 1) / (episodes - 1) / episodes)


def relative_score(student: Estimate, teacher: Estimate, zero: Estimate | None = None) -> Estimate:
    """A mean return in percent of the teacher's, or of the way to it from ``zero``, such as a random agent's mean.

    It means nothing unless the teacher's mean is above that in each resample: a ratio to what might as well be nothing,
    or less, has an interval without an end.
    """
    offset, offsets = (0.0, np.zeros_like(teacher.samples)) if zero is None else (zero.value, zero.samples)
    spans = teacher.samples - offsets
    if (spans <= 0).any():
        return Estimate(float("nan"), np.full_like(spans, np.nan))
    value = 100.0 * (student.value - offset) / (teacher.value - offset)
    return Estimate(value, 100.0 * (student.samples - offsets) / spans)


def _bootstrap_means(returns: Returns, resamples: int, seed: int | Sequence[int]) -> Returns:
    means: Returns = _draws(len(returns), resamples, seed if isinstance(seed, int) else tuple(seed)) @ returns
    return means


@lru_cache(maxsize=16)
def _draws(episodes: int, resamples: int, seed: int | tuple[int, ...]) -> Returns:
    """The share of each episode in each resample, (resamples, episodes): a game's agents have them in common."""
    drawn = np.random.default_rng(seed).integers(0, episodes, (resamples, episodes))
    drawn += episodes * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * episodes).reshape(resamples, episodes) / episodes


def _percentiles(values: Returns) -> tuple[float, float]:
    if len(values) == 0 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    low, high = np.percentile(values, MIDDLE)
    return float(low), float(high)


# The geometric mean over games


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; NaN if there are none, or if one is missing or not positive."""
    numbers = np.asarray(values, np.float64)
    if len(numbers) == 0 or not np.all(np.isfinite(numbers)) or np.any(numbers <= 0):
        return float("nan")
    return float(np.exp(np.mean(np.log(numbers))))


def geometric_mean_interval(samples: Sequence[Returns]) -> tuple[float, float, float]:
    """Interval of the geometric mean over games; the fraction of resamples in which a game's score was not positive.

    Such a resample counts as zero, which the geometric mean tends to when one of its numbers does. Left out, they would
    raise the interval just where it should be low.

    Args:
        samples: for each game what its score might have been, (resamples,).
    """
    matrix = np.stack(samples)
    if not np.isfinite(matrix).all():
        return float("nan"), float("nan"), float("nan")
    positive = (matrix > 0).all(axis=0)
    means = np.exp(np.log(np.where(positive, matrix, 1.0)).mean(axis=0)) * positive
    return *_percentiles(means), float(1.0 - positive.mean())


# Aggregates over games and runs


def interquartile_mean(games: Sequence[Returns]) -> Returns:
    """Mean of the middle half of all runs of all games."""
    ordered = np.sort(np.concatenate(games, axis=-1), axis=-1)
    cut = int(0.25 * ordered.shape[-1])
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def median(games: Sequence[Returns]) -> Returns:
    """Median over the games of each one's mean over runs."""
    return np.asarray(np.median(_game_means(games), axis=0))


def mean(games: Sequence[Returns]) -> Returns:
    """Mean over the games of each one's mean over runs."""
    return np.asarray(_game_means(games).mean(axis=0))


def optimality_gap(games: Sequence[Returns]) -> Returns:
    """By how much runs fall short of 100 in the mean; what lies above it does not make up for it."""
    return 100.0 - mean([np.minimum(runs, 100.0) for runs in games])


def performance_profile(games: Sequence[Returns], thresholds: Returns) -> Returns:
    """Fraction of runs above each threshold, in the mean over games, (..., thresholds)."""
    return mean([np.moveaxis(runs[..., None] > thresholds, -2, -1).astype(float) for runs in games])


def _game_means(games: Sequence[Returns]) -> Returns:
    return np.stack([runs.mean(axis=-1) for runs in games])


METRICS: Mapping[str, Metric] = {
    "iqm": interquartile_mean,
    "median": median,
    "mean": mean,
    "optimality_gap": optimality_gap,
}


def stratified_bootstrap_interval(
    games: Sequence[Returns], metric: Metric, resamples: int = 2_000
) -> tuple[Returns, Returns]:
    """95% percentile interval of a metric of each game's runs, which are drawn anew for each game by itself."""
    rng = np.random.default_rng(0)
    values = metric([rng.choice(runs, (resamples, len(runs))) for runs in games])
    low, high = np.percentile(values, MIDDLE, axis=0)
    return low, high


def chance_to_win(ours: Returns, theirs: Returns) -> Returns:
    """How often a run of ours, on the last axis, scores more than one of theirs; a tie counts as half."""
    return np.asarray(_wins(ours, theirs).mean(axis=(-2, -1)))


def _wins(ours: Returns, theirs: Returns) -> Returns:
    return np.asarray(0.5 + 0.5 * np.sign(ours[..., :, None] - theirs[..., None, :]))


def probability_of_improvement(
    first: Sequence[Returns], second: Sequence[Returns], resamples: int = 2_000
) -> tuple[float, float, float]:
    """Chance that a game played by the first beats one by the second, and its interval; a tie counts as half.

    Args:
        first, second: for each game the returns of the episodes, whose numbers may differ; drawn anew for each game,
            the same ones for both if there are as many.
    """
    rng = np.random.default_rng(0)
    chance, samples = 0.0, np.zeros(resamples)
    for ours, theirs in zip(first, second, strict=True):
        wins = _wins(ours, theirs)
        # How often each episode is drawn tells all: there are thousands of pairs.
        draws = [rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), resamples) for runs in (ours, theirs)]
        if len(ours) == len(theirs):  # played from the same seeds
            draws[1] = draws[0]
        chance += wins.mean() / len(first)
        samples += ((draws[0] @ wins) * draws[1]).sum(axis=1) / wins.size / len(first)
    return float(chance), *_percentiles(samples)


# Learning curves


def unsteadiness(curve: Returns, points: int) -> float:
    """Mean absolute change between neighbours of ``points`` evenly spaced points of a learning curve.

    Curves with different numbers of evaluations are comparable at the same number of points. NaN for fewer than four,
    which say little more than how far a curve rose.
    """
    if points < 4:
        return float("nan")
    picked = curve[np.linspace(0, len(curve) - 1, points).round().astype(int)]
    return float(np.abs(np.diff(picked)).mean())
