"""Relative scores, intervals, geometric means."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation.statistics import geometric_mean, relative_score, relative_score_interval


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
