from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from optimize.inference.selection import FEWEST_CLUSTERS, POCOCK, max_t, optimism, pocock_look
from optimize.inference.statistics import EXACT_CLUSTERS, paired_difference


def crossed_at_some_look(looks: int, p: float, *, two_sided: bool) -> float:
    """Probability that a normal mean of equal batches is below nominal `p` at one look or more, by integration."""
    at = np.arange(1, looks + 1)
    correlation = np.sqrt(np.minimum.outer(at, at) / np.maximum.outer(at, at))
    bound = np.full(looks, stats.norm.isf(p / 2 if two_sided else p))
    law = stats.multivariate_normal(np.zeros(looks), correlation)
    return 1 - float(law.cdf(bound, lower_limit=-bound if two_sided else None))


@pytest.mark.parametrize("looks", list(POCOCK))
def test_pococks_nominal_p_gives_five_percent_over_all_looks(looks: int) -> None:
    assert crossed_at_some_look(looks, POCOCK[looks], two_sided=True) == pytest.approx(0.05, abs=5e-4)
    assert crossed_at_some_look(looks, POCOCK[looks], two_sided=False) <= 0.0502


def test_an_equal_candidate_is_seldom_stopped_and_a_worse_one_often() -> None:
    generator = np.random.default_rng(0)

    def stopped(effect: float) -> float:
        runs = generator.normal(effect, 0.4, (400, 40))
        return float(np.mean([any(pocock_look(list(run[:n])) for n in (10, 20, 30, 40)) for run in runs]))

    assert 0.02 <= stopped(0.0) <= 0.07
    assert stopped(-0.3) >= 0.9
    assert stopped(0.3) == 0


def test_a_look_takes_the_one_sided_paired_t() -> None:
    behind = [-0.5, 0.1, -0.4, -0.3, 0.2, -0.6, -0.2, -0.4]
    p = stats.ttest_1samp(behind, 0, alternative="less").pvalue
    assert POCOCK[5] < p < POCOCK[4] and pocock_look(behind) and not pocock_look(behind, looks=5)


def test_a_look_needs_questions_of_several_documents() -> None:
    assert pocock_look([-1.0] * FEWEST_CLUSTERS)
    assert not pocock_look([-1.0] * (FEWEST_CLUSTERS - 1))
    assert 0.5 ** (FEWEST_CLUSTERS - 1) > POCOCK[4] > 0.5**FEWEST_CLUSTERS
    assert not pocock_look([-1.0] * 30, [n % 3 for n in range(30)])
    assert not pocock_look([])
    assert not pocock_look([1.0] * 20)


def clones(generator: np.random.Generator, candidates: int, sizes: list[int]) -> tuple[np.ndarray, list[int]]:
    """Scores of equal programs, which depend within a document."""
    names = np.repeat(np.arange(len(sizes)), sizes)
    of_document = 0.15 * generator.normal(size=(candidates, len(sizes)))[:, names]
    return of_document + 0.25 * generator.normal(size=(candidates, names.size)), list(names)


def test_a_single_candidate_has_the_p_of_its_own_sign_flips() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.5, (1, 9))
    totals = stats.permutation_test(
        (values[0],), np.sum, permutation_type="samples", n_resamples=np.inf
    ).null_distribution
    total = values.sum()
    # With clusters of one size the t is the larger, the larger the sum.
    assert max_t(values, range(9))[0] == pytest.approx(float((np.abs(totals) >= abs(total) - 1e-9).mean()))
    assert max_t(values, range(9), one_sided=True)[0] == pytest.approx(float((totals >= total - 1e-9).mean()))
    assert max_t(-values, range(9), one_sided=True)[0] == pytest.approx(float((totals <= total + 1e-9).mean()))


def test_max_t_compares_with_the_largest_t_of_each_pattern() -> None:
    """By the definition, pattern after pattern."""
    matrix, names = clones(np.random.default_rng(2), 3, [5, 3, 2, 2, 1, 1])
    matrix[0] += 0.25

    def t(row: np.ndarray) -> float:
        found = paired_difference(list(row), names)
        return found.mean / (found.high - found.mean)  # up to a constant factor of these clusters

    observed = [abs(t(row)) for row in matrix]
    flips = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
    largest = [max(abs(t(row * signs[names])) for row in matrix) for signs in flips]
    expected = [float(np.mean(np.array(largest) >= value - 1e-9)) for value in observed]
    assert max_t(matrix, names) == pytest.approx(expected)


def test_max_t_is_right_for_all_candidates_together() -> None:
    generator = np.random.default_rng(3)
    two_sided, one_sided = [], []
    for _ in range(300):
        matrix, names = clones(generator, 9, [9, 8, 6, 5, 4, 3, 2, 1, 1])
        differences = matrix[1:] - matrix[0]
        two_sided.append(max_t(differences, names).min() <= 0.05)
        one_sided.append(max_t(differences, names, one_sided=True).min() <= 0.05)
    assert 0.015 <= np.mean(two_sided) <= 0.08 and 0.015 <= np.mean(one_sided) <= 0.08


def test_max_t_finds_the_better_one_among_many_and_asks_more_of_it() -> None:
    matrix, names = clones(np.random.default_rng(4), 20, [3] * (EXACT_CLUSTERS + 7))
    matrix[7] += 0.4
    together = max_t(matrix, names)
    alone = np.array([max_t(row[None], names)[0] for row in matrix])
    assert together[7] <= 0.01 and together.argmin() == 7
    assert (together >= alone).all() and together.min() > 0
    assert np.sort(together)[1] > 0.05 > np.sort(alone)[1]


def test_candidates_that_answer_alike_cost_nothing() -> None:
    matrix, names = clones(np.random.default_rng(5), 1, [2] * 10)
    assert max_t(np.repeat(matrix, 30, axis=0), names) == pytest.approx(np.repeat(max_t(matrix, names), 30))


def test_max_t_of_questions_without_a_score_and_of_no_difference() -> None:
    matrix, names = clones(np.random.default_rng(6), 1, [2] * 10)
    holed = matrix.copy()
    holed[0, [0, 1, 4, 5]] = math.nan
    known = ~np.isnan(holed[0])
    left = [name for name, there in zip(names, known, strict=True) if there]
    assert max_t(holed, names) == pytest.approx(max_t(holed[:, known], left))
    nothing = np.vstack([np.zeros(20), np.full(20, math.nan)])
    assert list(max_t(nothing, names)) == [1.0, 1.0]
    assert max_t(np.ones((1, 20)), names)[0] == pytest.approx(2 / 2**10)


def test_the_best_of_thirty_clones_is_expected_as_much_too_high_as_it_is() -> None:
    generator = np.random.default_rng(7)
    found = [clones(generator, 30, [9, 8, 6, 5, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1]) for _ in range(60)]
    true = float(np.mean([matrix.mean(axis=1).max() for matrix, _ in found]))
    assert true > 0.08
    assert float(np.mean([optimism(matrix, names) for matrix, names in found])) == pytest.approx(true, rel=0.12)


def test_a_trial_that_is_far_better_is_hardly_too_high() -> None:
    matrix, names = clones(np.random.default_rng(8), 10, [4] * 12)
    among_equals = optimism(matrix, names)
    matrix[3] += 1.0
    assert optimism(matrix, names) < 0.1 * among_equals


def test_a_single_trial_is_not_too_high() -> None:
    matrix, names = clones(np.random.default_rng(9), 1, [4] * 12)
    assert optimism(matrix, names) == 0.0
    assert optimism(np.vstack([matrix, np.full(48, math.nan)]), names) == 0.0
    assert optimism(np.repeat(matrix, 5, axis=0), names) < 0.01


def test_trials_that_were_not_asked_everything() -> None:
    matrix, names = clones(np.random.default_rng(10), 8, [4] * 12)
    matrix[4] -= 5.0
    rest = optimism(np.delete(matrix, 4, axis=0), names)
    matrix[4, 12:] = math.nan
    assert optimism(matrix, names) == pytest.approx(rest)
    # Nor is it chosen where none of its questions are drawn.
    assert optimism(matrix - 5.0, names) == pytest.approx(rest)


def test_of_one_document_optimism_is_not_known() -> None:
    assert math.isnan(optimism(np.ones((2, 4)), ["only"] * 4))
    assert math.isnan(optimism(np.full((2, 4), math.nan), range(4)))
    assert optimism(np.eye(4), range(4), seed=1) == optimism(np.eye(4), range(4), seed=1)
