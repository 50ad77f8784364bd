from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from optimize.statistics import (
    EXACT_CLUSTERS,
    PairedDifference,
    cluster_sums,
    judge,
    mean_and_stderr,
    paired_difference,
    sign_flip_p,
)

scores = st.lists(st.integers(-100, 100).map(lambda hundredths: hundredths / 100), min_size=2, max_size=30)


@given(scores)
def test_stderr_without_clusters_is_the_ordinary_one(values: list[float]) -> None:
    mean, stderr = mean_and_stderr(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert stderr == pytest.approx(float(np.std(values, ddof=1)) / math.sqrt(len(values)), abs=1e-9)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_clustered_stderr_is_the_textbook_sum(pairs: list[tuple[float, int]]) -> None:
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    count, mean = len(set(clusters)), float(np.mean(values))
    within = sum(
        (x - mean) * (y - mean) for (x, c), (y, d) in product(pairs, pairs) if c == d
    )  # every pair of one cluster
    _, stderr = mean_and_stderr(values, clusters)
    if count < 2:
        assert math.isnan(stderr)
    else:
        expected = math.sqrt(max(0.0, count / (count - 1) * within)) / len(values)
        assert stderr == pytest.approx(expected, abs=1e-7)


def test_equal_clusters_are_as_good_as_their_means() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(8, 5)) + generator.normal(size=(8, 1))
    clusters = [row for row in range(8) for _ in range(5)]
    _, stderr = mean_and_stderr(list(values.ravel()), clusters)
    assert stderr == pytest.approx(float(stats.sem(values.mean(axis=1))))


def test_nothing_is_known_of_too_few() -> None:
    assert all(map(math.isnan, mean_and_stderr([])))
    mean, stderr = mean_and_stderr([0.5])
    assert mean == 0.5 and math.isnan(stderr)
    assert math.isnan(mean_and_stderr([0.5, 0.7], ["a", "a"])[1])


def test_cluster_sums_follow_first_appearance() -> None:
    assert list(cluster_sums(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])) == [5.0, 2.0]


@given(scores)
def test_clusters_of_one_give_the_paired_t_interval(values: list[float]) -> None:
    found = paired_difference(values, range(len(values)))
    spread = stats.sem(values) if len(set(values)) > 1 else 0.0
    half = float(stats.t.ppf(0.975, len(values) - 1)) * spread
    low, high = np.mean(values) - half, np.mean(values) + half
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.n == found.clusters == len(values)


def test_detectable_effect_has_the_stated_power() -> None:
    generator = np.random.default_rng(5)
    found = paired_difference(list(generator.normal(size=30)), range(30))
    trials = generator.normal(loc=found.detectable / found_scale(found, 30), size=(4000, 30))
    power = float((stats.ttest_1samp(trials, 0, axis=1).pvalue < 0.05).mean())
    assert power == pytest.approx(0.8, abs=0.03)


def found_scale(found: PairedDifference, n: int) -> float:
    """Standard deviation of one difference, from the width of the interval."""
    return (found.high - found.mean) / float(stats.t.ppf(0.975, n - 1)) * math.sqrt(n)


# Eighths, whose sums are exact: where a total is zero, rounding would decide what scipy counts as extreme.
@given(st.lists(st.integers(-20, 20).map(lambda eighths: eighths / 8), min_size=2, max_size=7))
def test_sign_flips_agree_with_scipy_where_all_are_tried(values: list[float]) -> None:
    data = (np.array(values),)
    expected = stats.permutation_test(data, np.sum, permutation_type="samples", n_resamples=np.inf)
    # scipy doubles the smaller tail; the distribution is symmetric, but for a total of zero the tails overlap.
    assert sign_flip_p(np.array(values)) == pytest.approx(min(1.0, float(expected.pvalue)))


def test_monte_carlo_is_near_the_exact_value_and_repeats() -> None:
    sums = np.random.default_rng(2).normal(0.4, 1.0, size=EXACT_CLUSTERS + 1)
    patterns = np.array(list(product((-1, 1), repeat=sums.size)))
    exact = float((np.abs(patterns @ sums) >= abs(sums.sum()) - 1e-12).mean())
    assert sign_flip_p(sums) == pytest.approx(exact, abs=0.015)
    assert sign_flip_p(sums) == sign_flip_p(sums)
    assert sign_flip_p(np.ones(200)) == 1 / 10_001
    assert sign_flip_p(np.zeros(3)) == sign_flip_p(np.zeros(30)) == sign_flip_p(np.zeros(0)) == 1


def difference(
    mean: float, half: float, p: float = 0.01, clusters: int = 20, detectable: float = 0.1
) -> PairedDifference:
    return PairedDifference(mean, mean - half, mean + half, p, 100, clusters, detectable)


@pytest.mark.parametrize(
    ("given_difference", "verdict"),
    [
        (difference(0.1, 0.05), "better"),
        (difference(-0.1, 0.05), "worse"),
        (difference(0.1, 0.1), "underpowered"),
        (difference(0.01, 0.05, detectable=0.04), "not shown better"),
        (difference(0.0, 0.0, p=1.0, detectable=0.0), "not shown better"),
        (difference(0.1, 0.05, p=0.2), "better"),
        (difference(0.1, 0.05, p=0.2, clusters=9), "underpowered"),
        (difference(0.1, 0.05, p=0.05, clusters=9), "better"),
        (difference(0.1, 0.2, p=0.04, clusters=9, detectable=0.01), "underpowered"),
        (difference(-0.1, 0.05, p=0.05, clusters=9), "worse"),
    ],
)
def test_verdict(given_difference: PairedDifference, verdict: str) -> None:
    assert judge(given_difference, smallest_effect=0.05) == verdict


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 50])
def test_one_cluster_shows_nothing(values: list[float]) -> None:
    found = paired_difference(values, ["only"] * len(values))
    assert (found.low, found.high, found.p_value) == (-math.inf, math.inf, 1.0)
    assert judge(found, 0.05) == "underpowered"


def share_of(verdict: str, clusters: int, effect: float, runs: int = 400) -> float:
    """How often a verdict is given on scores that depend on their document, which are of very different sizes."""
    generator = np.random.default_rng(clusters)
    sizes = 2 + np.arange(clusters) % 9
    names = np.repeat(np.arange(clusters), sizes)
    found = 0
    for _ in range(runs):
        by_document = generator.normal(0, 0.3, clusters)
        values = effect + by_document[names] + generator.normal(0, 0.3, names.size)
        found += judge(paired_difference(list(values), list(names)), 0.05) == verdict
    return found / runs


@pytest.mark.parametrize("clusters", [3, 6, 9, 10, 13, 24])
def test_equal_programs_are_called_better_in_at_most_five_percent(clusters: int) -> None:
    assert share_of("better", clusters, effect=0.0) <= 0.05


def test_large_effects_are_found() -> None:
    assert share_of("better", 24, effect=0.3, runs=100) >= 0.8
    assert share_of("worse", 24, effect=-0.3, runs=100) >= 0.8


def test_ignoring_the_clusters_would_be_too_sure() -> None:
    generator = np.random.default_rng(7)
    values = np.repeat(generator.normal(0, 0.3, 12), 20) + generator.normal(0, 0.05, 240)
    clustered = paired_difference(list(values), [n // 20 for n in range(240)])
    plain = paired_difference(list(values), range(240))
    assert clustered.high - clustered.low > 3 * (plain.high - plain.low)
