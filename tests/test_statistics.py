from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from optimize.inference.statistics import (
    EXACT_CLUSTERS,
    PairedDifference,
    cluster_sums,
    degrees_of_freedom,
    detectable_effect,
    fell,
    judge,
    largest_loss,
    mean_and_stderr,
    non_inferior,
    paired_difference,
    questions_needed,
    score_interval,
    sign_flip_p,
    wilson,
)

scores = st.lists(st.integers(-100, 100).map(lambda hundredths: hundredths / 100), min_size=2, max_size=30)


@given(scores)
def test_stderr_without_clusters_is_the_ordinary_one(values: list[float]) -> None:
    mean, stderr = mean_and_stderr(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert stderr == pytest.approx(float(np.std(values, ddof=1)) / math.sqrt(len(values)), abs=1e-9)


def regression(clusters: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Bell and McCaffrey's matrices for a regression on a constant, by their general formulas.

    Returns:
        Clusters x questions, the weight of each residual; and questions x clusters, whose cross product has the
        eigenvalues of which the degrees of freedom are made.
    """
    n = len(clusters)
    residual = np.eye(n) - np.full((n, n), 1 / n)
    weights = []
    for cluster in dict.fromkeys(clusters):
        of = [question for question, other in enumerate(clusters) if other == cluster]
        values, vectors = np.linalg.eigh(residual[np.ix_(of, of)])
        weight = np.zeros(n)
        weight[of] = (vectors / np.sqrt(values)) @ vectors.T @ np.ones(len(of)) / n
        weights.append(weight)
    return np.array(weights), residual @ np.array(weights).T


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_the_clustered_error_is_that_of_the_regression_formula(pairs: list[tuple[float, int]]) -> None:
    values, clusters = np.array([v for v, _ in pairs]), [c for _, c in pairs]
    _, stderr = mean_and_stderr(list(values), clusters)
    if len(set(clusters)) < 2:
        assert math.isnan(stderr)
    else:
        weights, _ = regression(clusters)
        assert stderr == pytest.approx(float(np.linalg.norm(weights @ (values - values.mean()))), abs=1e-7)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=8))
def test_degrees_of_freedom_are_those_of_the_regression_formula(sizes: list[int]) -> None:
    _, crossed = regression([cluster for cluster, size in enumerate(sizes) for _ in range(size)])
    eigenvalues = np.linalg.eigvalsh(crossed.T @ crossed)
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert degrees_of_freedom(np.array(sizes) / sum(sizes)) == pytest.approx(expected)


@given(st.integers(2, 40), st.integers(1, 5))
def test_equal_clusters_lose_one_degree_of_freedom(clusters: int, size: int) -> None:
    assert degrees_of_freedom(np.full(clusters, size) / (clusters * size)) == pytest.approx(clusters - 1)


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


# Eighths, whose sums are exact: where a total is zero, rounding would decide what counts as extreme.
@given(st.lists(st.integers(-20, 20).map(lambda eighths: eighths / 8), min_size=2, max_size=7))
def test_sign_flips_agree_with_scipy_where_all_are_tried(values: list[float]) -> None:
    data = (np.array(values),)
    totals = stats.permutation_test(data, np.sum, permutation_type="samples", n_resamples=np.inf).null_distribution
    beyond = float((totals > abs(sum(values))).mean())
    assert sign_flip_p(np.array(values)) == pytest.approx(2 * beyond + float((totals == abs(sum(values))).mean()))


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (7, 1), (9, 4), (3, 3)])
def test_of_single_right_and_wrong_answers_it_is_the_mid_p_of_mcnemar(gained: int, lost: int) -> None:
    n = gained + lost
    plain = stats.binomtest(gained, n).pvalue
    # At a tie the observed count is in the middle, and there is no half to take off.
    expected = plain - (float(stats.binom.pmf(gained, n, 0.5)) if gained != lost else 0.0)
    assert sign_flip_p(np.array([1.0] * gained + [-1.0] * lost)) == pytest.approx(expected)


def test_monte_carlo_is_near_the_exact_value_and_repeats() -> None:
    sums = np.random.default_rng(2).normal(0.4, 1.0, size=EXACT_CLUSTERS + 1)
    patterns = np.array(list(product((-1, 1), repeat=sums.size)))
    exact = float((np.abs(patterns @ sums) > abs(sums.sum()) + 1e-12).mean())
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
        (difference(0.1, 0.1, p=0.06), "underpowered"),
        (difference(0.01, 0.05, p=0.7, detectable=0.04), "not shown better"),
        (difference(0.0, 0.0, p=1.0, detectable=0.0), "not shown better"),
        (difference(0.1, 0.05, p=0.2, detectable=0.01), "underpowered"),
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


Draw = Callable[[np.random.Generator, np.ndarray, float], np.ndarray]
"""Generator, cluster of each question, effect -> differences that depend within a cluster."""


def normal(generator: np.random.Generator, names: np.ndarray, effect: float) -> np.ndarray:
    return effect + generator.normal(0, 0.3, names.max() + 1)[names] + generator.normal(0, 0.3, names.size)


def latent(generator: np.random.Generator, names: np.ndarray, effect: float) -> np.ndarray:
    """How good the answers of two programs are: they share the question, and the document of both."""
    of_question = generator.normal(0, 1, names.size) + generator.normal(0, 0.5, names.max() + 1)[names]
    own = 0.42 * generator.normal(0, 1, (2, names.size)) + 0.2 * generator.normal(0, 1, (2, names.max() + 1))[:, names]
    return of_question + own + np.array([[0.0], [effect]])


def right_or_wrong(generator: np.random.Generator, names: np.ndarray, effect: float) -> np.ndarray:
    """A fifth is right; the two programs' scores correlate by 0.6."""
    old, new = latent(generator, names, effect) > 1.02
    return new.astype(float) - old


def overlap(generator: np.random.Generator, names: np.ndarray, effect: float) -> np.ndarray:
    """Token F1 of a weak model: six in ten are zeros, a tenth is one, and few values between."""
    places = np.searchsorted([0.32, 0.52, 0.75, 1.1, 1.6], latent(generator, names, effect))
    old, new = np.array([0.0, 0.25, 0.4, 0.5, 2 / 3, 1.0])[places]
    return new - old


EVEN = [4] * 12
UNEVEN = [9, 8, 7, 6, 5, 4, 3, 2, 2, 1, 1]
ONE_LARGE = [20] + [2] * 9


def share_of(verdict: str, draw: Draw, sizes: list[int], effect: float, runs: int = 400) -> float:
    """How often a verdict is given."""
    generator = np.random.default_rng(len(sizes))
    names = np.repeat(np.arange(len(sizes)), sizes)
    found = 0
    for _ in range(runs):
        found += judge(paired_difference(list(draw(generator, names, effect)), list(names)), 0.05) == verdict
    return found / runs


@pytest.mark.parametrize("draw", [normal, right_or_wrong, overlap])
@pytest.mark.parametrize("sizes", [EVEN, UNEVEN, ONE_LARGE], ids=["even", "uneven", "one large"])
def test_equal_programs_are_called_better_as_often_as_promised(draw: Draw, sizes: list[int]) -> None:
    assert share_of("better", draw, sizes, effect=0.0, runs=2000) <= 0.025


def test_equal_programs_on_a_test_as_small_as_the_quickstarts() -> None:
    sizes = [9, 8, 6, 5, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1]
    assert sum(sizes) == 48
    assert share_of("better", right_or_wrong, sizes, effect=0.0, runs=500) <= 0.025


@pytest.mark.parametrize("clusters", range(2, 10))
def test_few_documents_do_not_make_it_too_sure(clusters: int) -> None:
    sizes = [1 + (3 * n) % 7 for n in range(clusters)]
    better = share_of("better", normal, sizes, effect=0.0, runs=1000)
    assert better <= 0.03 and (better == 0 or clusters > 4)


def test_the_simulated_scores_are_what_they_say() -> None:
    generator, names = np.random.default_rng(0), np.repeat(np.arange(4000), 3)
    old, new = latent(generator, names, 0.0) > 1.02
    assert old.mean() == pytest.approx(0.2, abs=0.02) and new.mean() == pytest.approx(0.2, abs=0.02)
    assert np.corrcoef(old, new)[0, 1] == pytest.approx(0.6, abs=0.05)
    assert (latent(generator, names, 0.0) <= 0.32).mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(("draw", "effect"), [(normal, 0.35), (right_or_wrong, 1.2), (overlap, 1.0)])
def test_better_programs_are_found(draw: Draw, effect: float) -> None:
    assert share_of("better", draw, UNEVEN, effect, runs=200) >= 0.6


def test_large_effects_are_found() -> None:
    sizes = list(2 + np.arange(24) % 9)
    assert share_of("better", normal, sizes, effect=0.3, runs=100) >= 0.8
    assert share_of("worse", normal, sizes, effect=-0.3, runs=100) >= 0.8


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_one_and_a_half_times_the_stated_effect_is_found(sizes: list[int]) -> None:
    # Variances of 0.09 between and within clusters.
    effect = 1.5 * detectable_effect(sizes, spread=math.sqrt(0.18), icc=0.5)
    assert share_of("better", normal, sizes, effect, runs=200) >= 0.8


def test_ignoring_the_clusters_would_be_too_sure() -> None:
    generator = np.random.default_rng(7)
    values = np.repeat(generator.normal(0, 0.3, 12), 20) + generator.normal(0, 0.05, 240)
    clustered = paired_difference(list(values), [n // 20 for n in range(240)])
    plain = paired_difference(list(values), range(240))
    assert clustered.high - clustered.low > 3 * (plain.high - plain.low)


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (3, 12), (12, 12), (31, 200)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_right_or_wrong_answers_to_independent_questions_have_wilsons_interval(answers: list[bool]) -> None:
    values = [float(answer) for answer in answers]
    assert score_interval(values) == pytest.approx(wilson(sum(values) / len(values), len(values)), abs=1e-9)


def test_other_scores_have_the_t_interval_within_the_possible() -> None:
    values = [0.2, 0.5, 0.4, 0.9, 0.7]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert score_interval(values) == pytest.approx(expected)
    assert score_interval([0.0, 0.0, 0.0, 0.9])[0] == 0.0
    assert score_interval([1.0, 1.0, 0.1])[1] == 1.0


def test_where_nothing_is_known_of_a_score_it_may_be_anything() -> None:
    assert score_interval([]) == score_interval([0.3]) == score_interval([1.0, 1.0], ["a", "a"]) == (0.0, 1.0)


def test_answers_of_one_document_widen_wilsons_interval() -> None:
    answers, clusters = [1.0] * 8 + [0.0] * 24, [n // 4 for n in range(32)]
    # Whole clusters are right or wrong: eight questions' worth, and less for the few degrees of freedom.
    low, high = score_interval(answers, clusters)
    assert low < wilson(0.25, 8)[0] < 0.25 < wilson(0.25, 8)[1] < high
    assert score_interval([0.0] * 32, clusters) == wilson(0.0, 8)
    # Answers more even than chance are not counted as more questions than there are.
    assert score_interval([1.0, 0.0, 0.0, 0.0] * 8, clusters) == wilson(0.25, 32)


def test_the_interval_of_a_rate_holds_it() -> None:
    generator = np.random.default_rng(3)
    clusters = list(np.repeat(np.arange(11), UNEVEN))
    held = plain = 0
    for _ in range(400):
        answers = (generator.random(len(clusters)) < generator.beta(1.2, 2.8, 11)[clusters]).astype(float)
        low, high = score_interval(list(answers), clusters)
        plain_low, plain_high = wilson(float(answers.mean()), len(answers))
        held += low <= 0.3 <= high
        plain += plain_low <= 0.3 <= plain_high
    assert held / 400 >= 0.92 > 0.85 > plain / 400


@given(st.integers(2, 50), st.floats(0.1, 1))
def test_independent_questions_give_the_effect_of_the_paired_t(n: int, spread: float) -> None:
    multiple = float(stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1))
    assert detectable_effect([1] * n, spread) == pytest.approx(multiple * spread / math.sqrt(n))


def test_dependent_questions_show_larger_effects_only() -> None:
    independent, dependent = detectable_effect([5] * 10, 0.4), detectable_effect([5] * 10, 0.4, icc=0.25)
    assert dependent == pytest.approx(independent * math.sqrt(2))
    assert detectable_effect([5] * 10, 0.4, icc=1.0) == pytest.approx(detectable_effect([1] * 10, 0.4))
    assert detectable_effect([20] + [2] * 15, 0.4, icc=0.25) > dependent
    assert detectable_effect([50], 0.4) == detectable_effect([], 0.4) == math.inf


@given(st.floats(0.02, 0.5), st.floats(0.05, 0.6), st.floats(0, 1), st.integers(1, 20))
def test_the_questions_needed_are_just_enough(effect: float, spread: float, icc: float, per_cluster: int) -> None:
    questions, clusters = questions_needed(effect, spread, icc, per_cluster)
    assert questions == clusters * per_cluster
    assert detectable_effect([per_cluster] * clusters, spread, icc) <= effect * (1 + 1e-9)
    assert clusters == 2 or detectable_effect([per_cluster] * (clusters - 1), spread, icc) > effect * (1 - 1e-9)


@given(scores)
def test_the_largest_loss_is_the_bound_of_the_one_sided_t(values: list[float]) -> None:
    bound = largest_loss(values, range(len(values)))
    if len(set(values)) == 1:
        assert bound == pytest.approx(-values[0])
    else:
        assert stats.ttest_1samp(values, -bound, alternative="greater").pvalue == pytest.approx(0.05)
        assert non_inferior(values, range(len(values)), bound + 1e-9)
        assert not non_inferior(values, range(len(values)), bound - 1e-9)


def test_a_loss_at_the_margin_is_accepted_once_in_twenty_times() -> None:
    generator = np.random.default_rng(4)
    names = np.repeat(np.arange(11), UNEVEN)
    accepted = [non_inferior(list(normal(generator, names, -0.02)), list(names), 0.02) for _ in range(1000)]
    assert 0.03 <= np.mean(accepted) <= 0.075


@pytest.mark.parametrize(
    ("mean", "half", "said"),
    [(0.1, 0.02, "held"), (-0.05, 0.02, "held"), (-0.1, 0.02, "unknown"), (0.0, 0.3, "unknown"), (-0.2, 0.02, "fell")],
)
def test_a_guard_holds_or_fell_or_is_not_known(mean: float, half: float, said: str) -> None:
    values = [mean - half, mean + half] * 5
    assert fell(values, range(10), allowed=0.1) == said


def test_of_one_document_no_guard_is_known() -> None:
    assert fell([-1.0] * 9, ["only"] * 9, allowed=0.1) == "unknown"
    assert largest_loss([1.0] * 9, ["only"] * 9) == largest_loss([], []) == math.inf
