"""Relative scores, intervals, geometric means."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation.statistics import (
    Returns,
    geometric_mean,
    interquartile_mean,
    probability_of_improvement,
    relative_score,
    relative_score_interval,
    stratified_bootstrap_interval,
    unsteadiness,
)
from rliable import metrics as rliable_metrics

with mock.patch("pandas.util._decorators.deprecate_kwarg", return_value=lambda function: function):
    # rliable's bootstrap is arch 7's, which calls this private helper of pandas as it was before pandas 3
    from rliable import library as rliable_library


def test_relative_score_is_a_ratio_of_means_over_seeds() -> None:
    teacher = np.array([10.0, 30.0])
    # The first seed has more episodes; seeds weigh equally all the same.
    assert relative_score([np.array([10.0, 10.0, 10.0]), np.array([30.0])], teacher) == pytest.approx(100.0)


@pytest.mark.parametrize("teacher", [[0.0, 0.0], [-21.0, -20.0], [1.0, -1.0]])
def test_a_teacher_that_does_not_score_has_no_ratio(teacher: list[float]) -> None:
    assert np.isnan(relative_score([np.array([5.0])], np.array(teacher)))
    assert np.isnan(relative_score_interval([np.array([5.0])], np.array(teacher))).all()


def test_interval_matches_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(80, 20, 40), rng.normal(100, 30, 50)
    reference = scipy.stats.bootstrap(
        (student, teacher),
        lambda s, t, axis: 100 * s.mean(axis) / t.mean(axis),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = relative_score_interval([student], teacher)
    assert low == pytest.approx(reference.low, abs=0.4)
    assert high == pytest.approx(reference.high, abs=0.4)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        student, teacher = rng.normal(90, 20, 60), rng.normal(100, 20, 60)
        low, high = relative_score_interval([student], teacher, seed=trial, resamples=1000)
        hits += low <= 90 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(100, 5, 50)
    same = [rng.normal(80, 5, 50) for _ in range(4)]
    apart = [rng.normal(mean, 5, 50) for mean in (50, 70, 90, 110)]
    width = [high - low for low, high in (relative_score_interval(s, teacher) for s in (same, apart))]
    assert width[1] > 5 * width[0]


def test_one_seed_gives_the_same_interval_each_time() -> None:
    student, teacher = np.arange(10.0), np.arange(1.0, 11.0)
    assert relative_score_interval([student], teacher) == relative_score_interval([student], teacher)


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=10))
def test_geometric_mean_matches_scipy(values: list[float]) -> None:
    assert geometric_mean(values) == pytest.approx(scipy.stats.gmean(values))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, 0.0], [1.0, -2.0], [float("inf")]])
def test_geometric_mean_of_what_has_none(values: list[float]) -> None:
    assert np.isnan(geometric_mean(values))


# Aggregates, against rliable (Agarwal et al. 2021)


def scores(seed: int, runs: int = 7, games: int = 5) -> Returns:
    return np.random.default_rng(seed).gamma(2.0, 50.0, (runs, games))


@pytest.mark.parametrize(("runs", "games"), [(1, 4), (3, 5), (7, 5), (10, 10)])
def test_interquartile_mean_is_rliables(runs: int, games: int) -> None:
    matrix = scores(0, runs, games)
    assert interquartile_mean(matrix) == pytest.approx(rliable_metrics.aggregate_iqm(matrix), rel=1e-12)


def test_probability_of_improvement_is_rliables() -> None:
    first, second = scores(1, runs=7).round(-1), scores(2, runs=4).round(-1)  # rounded: with ties
    assert probability_of_improvement(first.T, second.T) == pytest.approx(
        rliable_metrics.probability_of_improvement(first, second), rel=1e-12
    )
    reverse = probability_of_improvement(second.T, first.T)
    assert probability_of_improvement(first.T, second.T) + reverse == pytest.approx(1)


def test_stratified_bootstrap_is_rliables() -> None:
    matrix = scores(3)
    mine = stratified_bootstrap_interval(matrix.T, lambda games: interquartile_mean(np.array(games)), resamples=20_000)
    _, theirs = rliable_library.get_interval_estimates(
        {"agent": matrix},
        lambda x: np.array([rliable_metrics.aggregate_iqm(x)]),
        reps=20_000,
        random_state=np.random.RandomState(0),  # does not make it the same every time
    )
    width = theirs["agent"][1, 0] - theirs["agent"][0, 0]
    assert mine == pytest.approx(theirs["agent"][:, 0], abs=0.05 * width)


def test_runs_are_drawn_for_each_game_by_itself() -> None:
    """Games that move together would make the mean vary ten times as much."""
    runs = np.arange(100.0)
    low, high = stratified_bootstrap_interval([runs] * 100, lambda games: float(np.mean(games)))
    assert high - low == pytest.approx(2 * 1.96 * runs.std() / 100, rel=0.1)


def test_undefined_resamples_are_left_out() -> None:
    low, high = stratified_bootstrap_interval([np.array([-1.0, 1.0])], lambda x: geometric_mean([float(np.mean(x))]))
    assert (low, high) == (1.0, 1.0)
    assert np.isnan(stratified_bootstrap_interval([-np.ones(2)], lambda x: float("nan"))).all()


def test_games_may_have_different_numbers_of_runs() -> None:
    """Each game counts the same, and each resample is as large as the game's own sample."""
    first, second = [np.array([0.0, 2.0, 2.0, 2.0]), np.array([5.0])], [np.array([1.0]), np.array([5.0, 6.0])]
    assert probability_of_improvement(first, second) == pytest.approx((0.75 + 0.25) / 2)
    many, one = np.arange(100.0), np.array([40.0])
    interval = stratified_bootstrap_interval([many, one], lambda games: float(sum(np.mean(runs) for runs in games)))
    half = 1.96 * many.std() / 10
    assert interval == pytest.approx((many.mean() + 40 - half, many.mean() + 40 + half), rel=0.02)


def test_unsteadiness_does_not_depend_on_how_often_a_curve_was_measured() -> None:
    coarse, fine = np.linspace(0, 10, 11), np.linspace(0, 10, 101)
    assert unsteadiness(coarse, 11) == unsteadiness(fine, 11) == pytest.approx(1.0)
    assert unsteadiness(np.array([0.0, 4.0, 0.0, 4.0]), 4) == 4.0
