"""Relative scores, intervals, geometric means."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation.statistics import (
    METRICS,
    Estimate,
    Returns,
    geometric_mean,
    geometric_mean_interval,
    interquartile_mean,
    mean,
    mean_return,
    performance_profile,
    probability_of_improvement,
    relative_score,
    stratified_bootstrap_interval,
    unsteadiness,
)
from rliable import metrics as rliable_metrics

with mock.patch("pandas.util._decorators.deprecate_kwarg", return_value=lambda function: function):
    # rliable's bootstrap is arch 7's, which calls this private helper of pandas as it was before pandas 3
    from rliable import library as rliable_library


def of_teacher(students: list[Returns], teacher: Returns, zero: Returns | None = None) -> Estimate:
    agents = [[zero], [teacher], students] if zero is not None else [[teacher], students]
    *zeros, whole, part = (mean_return(runs, seed=index, episodes=index) for index, runs in enumerate(agents))
    return relative_score(part, whole, *zeros)


def test_relative_score_is_a_ratio_of_means_over_seeds() -> None:
    teacher = np.array([10.0, 30.0])
    # The first seed has more episodes; seeds weigh equally all the same.
    students = [np.array([10.0, 10.0, 10.0]), np.array([30.0])]
    assert of_teacher(students, teacher).value == pytest.approx(100.0)
    # A random agent's 5 is 0% and the teacher's 20 is 100%.
    assert of_teacher(students, teacher, zero=np.array([4.0, 6.0])).value == pytest.approx(100.0)
    assert of_teacher([np.array([8.0])], teacher, zero=np.array([4.0, 6.0])).value == pytest.approx(20.0)


def test_a_negative_score_between_random_and_teacher_has_a_normalised_one() -> None:
    student, teacher, random = (np.array([mean - 1.0, mean + 1.0]) for mean in (-15.0, -10.0, -20.0))
    assert np.isnan(of_teacher([student], teacher).value)
    assert of_teacher([student], teacher, random).value == pytest.approx(50.0)


@pytest.mark.parametrize("teacher", [[0.0, 0.0], [-21.0, -20.0], [1.0, -1.0], [0.0, 0.0, 0.0, 1.0]])
def test_a_teacher_that_hardly_scores_has_no_ratio(teacher: list[float]) -> None:
    score = of_teacher([np.array([5.0])], np.array(teacher))
    assert np.isnan([score.value, *score.interval()]).all()
    assert np.isnan(score.samples).all()
    assert np.isnan(of_teacher([np.array([5.0])], np.array([7.0, 8.0]), zero=np.array([7.0, 9.0])).value)


def test_interval_matches_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    student, teacher, zero = rng.normal(80, 20, 40), rng.normal(100, 30, 50), rng.normal(20, 10, 60)
    reference = scipy.stats.bootstrap(
        (student, teacher, zero),
        lambda s, t, z, axis: 100 * (s.mean(axis) - z.mean(axis)) / (t.mean(axis) - z.mean(axis)),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert of_teacher([student], teacher, zero).interval() == pytest.approx((reference.low, reference.high), abs=0.5)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 10])
def test_seeds_that_agree_give_the_interval_of_all_their_episodes(seeds: int) -> None:
    """The closed form: 2 * 1.96 standard errors of a mean over all the episodes of all seeds."""
    returns = np.random.default_rng(0).normal(0, 1, (64, seeds))
    runs = 50 * np.linalg.qr(returns - returns.mean(axis=0)).Q.T  # of equal means, not correlated
    low, high = mean_return(list(runs), resamples=20_000).interval()
    closed = 2 * 1.96 * np.std(runs) / np.sqrt(64 * seeds)
    assert high - low == pytest.approx(closed, rel=0.03)


def test_episodes_from_the_same_emulator_seeds_move_all_agents_together() -> None:
    """The closed forms: what they have in common stays in a mean over seeds, and cancels out of a difference."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 30, 400)
    one, other, third = (common + rng.normal(0, 10, 400) for _ in range(3))
    one, other, third = (returns - returns.mean() for returns in (one, other, third))
    means = [mean_return([returns], seed, 20_000) for seed, returns in enumerate((one, other))]
    spread = np.std(means[0].samples - means[1].samples)
    assert spread == pytest.approx(np.std(one - other) / 20, rel=0.05)
    assert spread < 0.5 * np.hypot(*(np.std(each.samples) for each in means))
    together = mean_return([one, other, third], resamples=20_000)
    assert np.std(together.samples) == pytest.approx(np.std((one + other + third) / 3) / 20, rel=0.1)
    assert np.std(together.samples) > 1.3 * np.std(np.concatenate([one, other, third])) / np.sqrt(1200)


def test_what_seeds_share_in_an_episode_hides_no_difference_between_them() -> None:
    """Two seeds that are apart by less than their episodes spread, and by far more than what is not shared of it."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 100, 64)
    runs = [mean + common + rng.normal(0, 1, 64) for mean in (790.0, 810.0)]
    low, high = mean_return(runs, resamples=20_000).interval()
    half = scipy.stats.t(1).ppf(0.975) * np.std([790, 810], ddof=1) / np.sqrt(2)
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_the_chance_to_win_is_drawn_in_pairs() -> None:
    """Against itself, with the same episodes drawn for both, the chance is one half in each resample."""
    returns = [np.arange(50.0)]
    chance, low, high = probability_of_improvement(returns, returns)
    assert (chance, low, high) == (0.5, 0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "spread"),
    [(1, 0), (2, 0), (2, 2), (2, 5), (3, 0), (3, 1), (3, 2), (3, 5), (5, 0), (5, 2), (5, 5), (10, 1), (10, 5)],
)
def test_interval_holds_the_truth_as_often_as_it_says(seeds: int, spread: float) -> None:
    """Seeds' own means differ by ``spread`` standard errors of their episodes' means."""
    rng, episodes, hits, widths = np.random.default_rng(seeds), 64, 0, []
    error = 50 / np.sqrt(episodes)
    for trial in range(300):
        means = 800 + spread * error * rng.standard_normal(seeds)
        runs = [rng.normal(mean, 50, episodes) for mean in means]
        low, high = mean_return(runs, trial, 500, trial).interval()
        hits += low <= 800 <= high
        widths.append(high - low)
    assert hits / 300 >= (0.87 if seeds == 2 else 0.92)
    if not spread:
        closed = 2 * 1.96 * error / np.sqrt(seeds)
        assert np.percentile(widths, 20 if seeds > 1 else 50) == pytest.approx(closed, rel=0.1)
        assert np.median(widths) < 1.5 * closed
        assert hits / 300 <= 0.99


def test_a_few_seeds_that_differ_have_students_interval() -> None:
    """Episodes that do not vary at all: the closed form is Student's t of the seeds' means."""
    means = np.array([500.0, 600.0, 700.0])
    interval = mean_return([np.full(4, mean) for mean in means], resamples=200_000).interval()
    half = scipy.stats.t(2).ppf(0.975) * means.std(ddof=1) / np.sqrt(3)
    assert interval == pytest.approx((600 - half, 600 + half), rel=0.02)


def test_the_same_seed_gives_the_same_interval_each_time() -> None:
    runs = [np.arange(10.0), np.arange(1.0, 11.0)]
    assert mean_return(runs).interval() == mean_return(runs).interval() != mean_return(runs, seed=1).interval()


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=10))
def test_geometric_mean_matches_scipy(values: list[float]) -> None:
    assert geometric_mean(values) == pytest.approx(scipy.stats.gmean(values))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, 0.0], [1.0, -2.0], [float("inf")]])
def test_geometric_mean_of_what_has_none(values: list[float]) -> None:
    assert np.isnan(geometric_mean(values))


def test_geometric_means_interval_is_that_of_the_mean_logarithm() -> None:
    rng = np.random.default_rng(0)
    samples = [np.exp(rng.normal(mean, 0.1, 100_000)) for mean in (1.0, 2.0, 3.0)]
    low, high, dropped = geometric_mean_interval(samples)
    half = 1.96 * 0.1 / np.sqrt(3)
    assert (low, high) == pytest.approx((np.exp(2 - half), np.exp(2 + half)), rel=0.005)
    assert dropped == 0


def test_resamples_in_which_a_game_is_not_positive_count_as_zero_and_are_told() -> None:
    """Left out, they raised the interval: [10, 10] here instead of [0, 10]."""
    half = np.where(np.arange(1000) % 20 < 7, -1.0, 10.0)
    assert geometric_mean_interval([half, np.full(1000, 10.0)]) == pytest.approx((0.0, 10.0, 0.35))
    assert np.isnan(geometric_mean_interval([half, np.full(1000, np.nan)])).all()


# Aggregates, against rliable (Agarwal et al. 2021)


def scores(seed: int, runs: int = 7, games: int = 5) -> Returns:
    return np.random.default_rng(seed).gamma(2.0, 50.0, (runs, games))


THEIRS = {
    "iqm": rliable_metrics.aggregate_iqm,
    "median": rliable_metrics.aggregate_median,
    "mean": rliable_metrics.aggregate_mean,
    "optimality_gap": lambda matrix: rliable_metrics.aggregate_optimality_gap(matrix, gamma=100),
}


@pytest.mark.parametrize(("runs", "games"), [(1, 4), (3, 5), (7, 5), (10, 10)])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_rliables(name: str, runs: int, games: int) -> None:
    matrix = scores(0, runs, games)
    assert METRICS[name](list(matrix.T)) == pytest.approx(THEIRS[name](matrix), rel=1e-12)
    resampled = METRICS[name]([np.stack([column, column[::-1], column + 1]) for column in matrix.T])
    assert resampled[:2] == pytest.approx([THEIRS[name](matrix)] * 2)
    assert resampled[2] == pytest.approx(THEIRS[name](matrix + 1))


def test_performance_profile_is_rliables() -> None:
    matrix, thresholds = scores(4), np.linspace(0, 300, 7)
    theirs, _ = rliable_library.create_performance_profile({"agent": matrix}, thresholds, reps=10)
    assert performance_profile(list(matrix.T), thresholds) == pytest.approx(theirs["agent"])
    low, high = stratified_bootstrap_interval(list(matrix.T), lambda games: performance_profile(games, thresholds))
    assert low.shape == high.shape == (7,)
    assert (low <= theirs["agent"]).all()
    assert (theirs["agent"] <= high).all()


@pytest.mark.slow
def test_probability_of_improvement_is_rliables() -> None:
    first, second = scores(1, runs=7).round(-1), scores(2, runs=4).round(-1)  # rounded: with ties
    chance, low, high = probability_of_improvement(list(first.T), list(second.T), resamples=20_000)
    assert chance == pytest.approx(rliable_metrics.probability_of_improvement(first, second), rel=1e-12)
    reverse = probability_of_improvement(list(second.T), list(first.T))[0]
    assert chance + reverse == pytest.approx(1)
    np.random.seed(0)  # noqa: NPY002 (rliable's resamples are the global generator's)
    _, theirs = rliable_library.get_interval_estimates(
        {"pair": (first, second)}, lambda x, y: np.array([rliable_metrics.probability_of_improvement(x, y)]), reps=500
    )
    assert (low, high) == pytest.approx(theirs["pair"][:, 0], abs=0.03)


def test_stratified_bootstrap_is_rliables() -> None:
    matrix = scores(3)
    mine = stratified_bootstrap_interval(list(matrix.T), interquartile_mean, resamples=20_000)
    np.random.seed(0)  # noqa: NPY002
    _, theirs = rliable_library.get_interval_estimates(
        {"agent": matrix}, lambda x: np.array([rliable_metrics.aggregate_iqm(x)]), reps=5_000
    )
    width = theirs["agent"][1, 0] - theirs["agent"][0, 0]
    assert mine == pytest.approx(theirs["agent"][:, 0], abs=0.05 * width)


def test_runs_are_drawn_for_each_game_by_itself() -> None:
    """Games that move together would make the mean vary ten times as much."""
    runs = np.arange(100.0)
    low, high = stratified_bootstrap_interval([runs] * 100, mean)
    assert high - low == pytest.approx(2 * 1.96 * runs.std() / 100, rel=0.1)


def test_games_may_have_different_numbers_of_runs() -> None:
    """Each game counts the same, and each resample is as large as the game's own sample."""
    first, second = [np.array([0.0, 2.0, 2.0, 2.0]), np.array([5.0])], [np.array([1.0]), np.array([5.0, 6.0])]
    assert probability_of_improvement(first, second)[0] == pytest.approx((0.75 + 0.25) / 2)
    many, one = np.arange(100.0), np.array([40.0])
    interval = stratified_bootstrap_interval([many, one], lambda games: 2 * mean(games))
    half = 1.96 * many.std() / 10
    assert interval == pytest.approx((many.mean() + 40 - half, many.mean() + 40 + half), rel=0.02)


def test_unsteadiness_does_not_depend_on_how_often_a_curve_was_measured() -> None:
    coarse, fine = np.linspace(0, 10, 11), np.linspace(0, 10, 101)
    assert unsteadiness(coarse, 11) == unsteadiness(fine, 11) == pytest.approx(1.0)
    assert unsteadiness(np.array([0.0, 4.0, 0.0, 4.0]), 4) == 4.0
    assert np.isnan(unsteadiness(np.array([1.0, 2.0, 3.0]), 3))
    assert np.isnan(unsteadiness(np.array([1.0]), 1))
