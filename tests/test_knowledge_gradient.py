from __future__ import annotations

import numpy as np
import pytest

from optimize.searching.belief import Asked, Belief, Described, Floats
from optimize.searching.knowledge_gradient import Step, best_step, knowledge_gradient, most_different

QUESTIONS = 16
EVERY = np.arange(QUESTIONS)


def point(*effects: tuple[str, int]) -> Described:
    return Described(effects, np.zeros((QUESTIONS, 1)))


def chosen(told: list[Asked], points: list[Described], steps: list[Step]) -> int:
    belief = Belief(told, QUESTIONS, points)
    return best_step(belief, points, *belief.about(points), steps)


def test_it_is_the_expected_rise_of_the_best() -> None:
    generator = np.random.default_rng(0)
    outcomes = generator.standard_normal((400_000, 1))
    for _ in range(5):
        values, moves = generator.random(6), 0.3 * generator.standard_normal(6)
        simulated = (values + outcomes * moves).max(axis=1)
        error = simulated.std() / np.sqrt(len(simulated))
        expected = simulated.mean() - values.max()
        assert knowledge_gradient(values, moves) == pytest.approx(expected, abs=4 * error)


def test_two_points_have_a_closed_form() -> None:
    """Of one point that moves by s beside a known one that is d better: s phi(d/s) - d Phi(-d/s)."""
    from scipy import stats

    for gap, move in ((0.0, 0.1), (0.05, 0.1), (0.2, 0.1)):
        exact = move * stats.norm.pdf(gap / move) - gap * stats.norm.cdf(-gap / move)
        found = knowledge_gradient(np.array([0.5 + gap, 0.5]), np.array([0.0, move]))
        assert found == pytest.approx(exact, rel=0.02, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "moves"),
    [
        ([0.9, 0.1], [0.0, 0.05]),  # cannot overtake
        ([0.5, 0.5], [0.0, 0.0]),  # known
        ([0.5, 0.4], [0.1, 0.1]),  # all move together
    ],
)
def test_what_cannot_change_the_choice_teaches_nothing(values: list[float], moves: list[float]) -> None:
    assert knowledge_gradient(np.array(values), np.array(moves)) == pytest.approx(0.0, abs=1e-9)


def test_a_point_that_fails_takes_no_part() -> None:
    assert np.isfinite(knowledge_gradient(np.array([-np.inf, 0.5, 0.4]), np.array([0.3, 0.1, 0.2])))


def test_of_two_equal_steps_the_cheaper_comes_first() -> None:
    points = [point(("size", n)) for n in range(3)]
    told = [Asked(points[0], EVERY, np.full(QUESTIONS, 0.5))]
    for cheap in (1, 2):
        steps = [Step(place, EVERY[:4], 1.0 if place == cheap else 2.0) for place in (1, 2)]
        assert chosen(told, points, steps) == cheap - 1


def test_a_step_that_teaches_enough_more_may_cost_more() -> None:
    points = [point(("size", n)) for n in range(3)]
    told = [Asked(points[0], EVERY, np.full(QUESTIONS, 0.5)), Asked(points[2], EVERY[:14], np.full(14, 0.1))]
    steps = [Step(1, EVERY[:4], 2.0), Step(2, EVERY[14:], 1.0)]
    assert chosen(told, points, steps) == 0


def test_the_first_of_equal_steps_is_taken() -> None:
    points = [point(("size", n)) for n in range(4)]
    told = [Asked(points[0], EVERY, np.full(QUESTIONS, 0.5))]
    assert chosen(told, points, [Step(place, EVERY[:4], 1.0) for place in (3, 1, 2)]) == 0


def covariance(twins: bool) -> Floats:
    apart = np.diag([0.04] * 4)
    if twins:
        apart[0, 1] = apart[1, 0] = 0.04
    return apart


def test_finalists_are_no_twins() -> None:
    values = np.array([0.50, 0.49, 0.45, 0.2])
    assert most_different(values, covariance(twins=False), 2) == [0, 1]
    assert most_different(values, covariance(twins=True), 2) == [0, 2]


def test_finalists_start_with_the_best_and_are_distinct() -> None:
    values = np.array([0.3, 0.5, 0.4])
    assert most_different(values, 1e-4 * np.eye(3), 5)[0] == 1
    assert sorted(most_different(values, 1e-4 * np.eye(3), 5)) == [0, 1, 2]
    assert len(most_different(values, np.zeros((3, 3)), 2)) == 2
